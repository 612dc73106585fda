//! An entry on its way in or out, and where in its file it stood: what the two forms of an export, rows
//! and binary, have in common.

use std::{fmt, io};

/// A key, its value, and how much longer it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Milliseconds left; `None` is for ever.
    pub(crate) ttl_ms: Option<u64>,
}

/// An entry that was read.
pub(crate) struct Found {
    pub(crate) entry: Entry,
    pub(crate) place: Place,
    /// How many bytes of the file are read with it.
    pub(crate) bytes_read: u64,
}

/// Where reading stopped, and why.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) place: Place,
    pub(crate) what: String,
}

/// Lines and records count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Line(u64),
    Record(u64),
}

impl Place {
    /// Reading stopped here.
    pub(crate) fn broken(self, what: impl Into<String>) -> Broken {
        Broken { place: self, what: what.into() }
    }

    /// The system refused to read here; made for `map_err`.
    pub(crate) fn unreadable(self) -> impl FnOnce(io::Error) -> Broken {
        move |error| self.broken(format!("read: {error}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Record(number) => write!(f, "record {number}"),
        }
    }
}
