//! Ways of encoding an argument: what serde can serialise, and paths, which need not be text.
//!
//! `Way(&argument).way()` finds the inherent method for a path, and for anything else that of [`BySerde`]; so the compiler
//! chooses, and what cannot be encoded is an error on the argument.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use serde::Serialize;

use super::{Keep, Query, trouble};
use crate::key::{EncodedKey, KeyBuilder};

/// What an argument takes that is kept to be shown. A longer one is kept as its key only, at most a KiB: results are often short.
const SHOWN_BYTES_MAX: usize = 4096;

/// An argument about to be encoded.
#[derive(Debug)]
pub struct Way<'a, T: ?Sized>(pub &'a T);

/// The key of a call while it is made.
#[derive(Debug)]
pub struct MemoKey {
    pub(super) builder: KeyBuilder,
    pub(super) is_whole: bool,
}

impl MemoKey {
    #[inline]
    pub(super) fn of(builder: KeyBuilder) -> Self {
        Self { builder, is_whole: true }
    }
}

/// Whatever is no path.
pub trait BySerde: Sized {
    /// By serde.
    #[inline]
    fn way(self) -> SerdeWay {
        SerdeWay
    }
}

impl<T: ?Sized> BySerde for Way<'_, T> {}

/// Encodes by serde.
#[derive(Clone, Copy, Debug)]
pub struct SerdeWay;

/// Encodes the text of a path, or else its bytes.
#[derive(Clone, Copy, Debug)]
pub struct PathWay;

impl SerdeWay {
    /// Adds an argument to a key.
    #[inline]
    pub fn encode<T: Serialize + ?Sized>(self, argument: &T, key: &mut MemoKey) {
        if let Err(refused) = key.builder.push(argument) {
            key.is_whole = false;
            trouble::count("encode an argument", &refused);
        }
    }

    /// Records an argument.
    pub fn record<T: Serialize + ?Sized>(self, argument: &T, name: &str, keep: &mut Keep) {
        let shown = shown(argument);
        if let Ok(key) = EncodedKey::of(argument) {
            keep.argument(name, key.as_bytes(), shown);
        }
    }

    /// Names an argument in a query.
    pub fn ask<T: Serialize + ?Sized, R>(self, argument: &T, name: &str, query: &mut Query<R>) {
        query.ask(name, EncodedKey::of(argument).ok());
    }
}

impl PathWay {
    /// Adds an argument to a key.
    #[inline]
    pub fn encode<T: AsOsStr + ?Sized>(self, argument: &T, key: &mut MemoKey) {
        push_path(argument.as_os(), &mut key.builder);
    }

    /// Records an argument.
    pub fn record<T: AsOsStr + ?Sized>(self, argument: &T, name: &str, keep: &mut Keep) {
        let shown = shown(&argument.as_os().map(OsStr::to_string_lossy));
        keep.argument(name, path_key(argument).as_bytes(), shown);
    }

    /// Names an argument in a query.
    pub fn ask<T: AsOsStr + ?Sized, R>(self, argument: &T, name: &str, query: &mut Query<R>) {
        query.ask(name, Some(path_key(argument)));
    }
}

/// An argument as it is shown; nothing of one that would take more than [`SHOWN_BYTES_MAX`].
fn shown<T: Serialize + ?Sized>(argument: &T) -> Vec<u8> {
    let mut bounded = Bounded(Vec::new());
    match rmp_serde::encode::write_named(&mut bounded, argument) {
        Ok(()) => bounded.0,
        Err(_) => Vec::new(),
    }
}

/// Takes no more bytes than an argument may have that is shown.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > SHOWN_BYTES_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn path_key<T: AsOsStr + ?Sized>(argument: &T) -> EncodedKey {
    let mut builder = KeyBuilder::new();
    push_path(argument.as_os(), &mut builder);
    builder.finish()
}

fn push_path(path: Option<&OsStr>, builder: &mut KeyBuilder) {
    // Text as serde has it, so that a query by serde finds it. Pushing text or nothing never fails, and neither is like bytes.
    match path.map(|path| path.to_str().ok_or(path)) {
        Some(Ok(text)) => _ = builder.push(text),
        Some(Err(path)) => builder.push_bytes(path.as_encoded_bytes()),
        None => _ = builder.push(&None::<()>),
    }
}

/// What has the bytes of a path; `None` for an option without one.
pub trait AsOsStr {
    /// The bytes.
    fn as_os(&self) -> Option<&OsStr>;
}

impl<T: AsOsStr> AsOsStr for Option<T> {
    fn as_os(&self) -> Option<&OsStr> {
        self.as_ref().and_then(AsOsStr::as_os)
    }
}

impl<T: AsOsStr + ?Sized> AsOsStr for &T {
    fn as_os(&self) -> Option<&OsStr> {
        (**self).as_os()
    }
}

macro_rules! paths {
    ($($path:ty),*) => {$(
        impl AsOsStr for $path {
            fn as_os(&self) -> Option<&OsStr> {
                Some(AsRef::<OsStr>::as_ref(&**self))
            }
        }
    )*};
}

macro_rules! ways {
    ($($path:ty),*) => {$(
        impl Way<'_, $path> {
            /// By the bytes of the path.
            #[inline]
            pub fn way(self) -> PathWay {
                PathWay
            }
        }
    )*};
}

impl AsOsStr for Path {
    fn as_os(&self) -> Option<&OsStr> {
        Some(self.as_os_str())
    }
}

impl AsOsStr for OsStr {
    fn as_os(&self) -> Option<&OsStr> {
        Some(self)
    }
}

paths!(
    PathBuf,
    OsString,
    Box<Path>,
    Rc<Path>,
    Arc<Path>,
    Cow<'_, Path>,
    Box<OsStr>,
    Rc<OsStr>,
    Arc<OsStr>,
    Cow<'_, OsStr>
);
ways!(Path, PathBuf, OsStr, OsString, Box<Path>, Rc<Path>, Arc<Path>, Cow<'_, Path>, Box<OsStr>, Rc<OsStr>, Arc<OsStr>);
ways!(&Path, &PathBuf, &OsStr, &OsString, &Box<Path>, &Rc<Path>, &Arc<Path>, &Cow<'_, Path>, Cow<'_, OsStr>);
ways!(Option<PathBuf>, Option<&Path>, Option<OsString>, Option<&OsStr>, Option<&PathBuf>, &Option<PathBuf>);
