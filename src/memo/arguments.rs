//! The arguments of a call, as they are recorded beside its result.
//!
//! Holds the one encoder and decoder: bytes from disk are arguments or nothing. Each argument is there twice: as in a key,
//! to be compared, and as MessagePack, to be shown.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What the directory of an isolated call is recorded as; no argument is called so. It is compared, and not shown.
pub(super) const DIRECTORY: &str = "";

/// The arguments of a call by name, in the order of the function. Those that the key leaves out are missing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Arguments(Vec<Argument>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Argument {
    name: String,
    key: Vec<u8>,
    shown: Vec<u8>,
}

impl Arguments {
    /// The argument `name` as a `T`. `None` if there is none, it is no `T`, or it takes
    /// more than 4 KiB. One that was computed by a `with` is what that gave.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let argument = self.shown().find(|argument| argument.name == name)?;
        rmp_serde::from_slice(&argument.shown).ok()
    }

    /// The names, in the order of the function.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shown().map(|argument| argument.name.as_str())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shown().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shown(&self) -> impl Iterator<Item = &Argument> {
        self.0.iter().filter(|argument| argument.name != DIRECTORY)
    }

    pub(crate) fn push(&mut self, name: &str, key: &[u8], shown: Vec<u8>) {
        self.0.push(Argument { name: name.to_owned(), key: key.to_owned(), shown });
    }

    pub(crate) fn matches(&self, name: &str, key: &[u8]) -> bool {
        self.0.iter().any(|argument| argument.name == name && argument.key == key)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.0).unwrap_or_default()
    }

    /// The arguments that `bytes` are; none if they are not.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(postcard::from_bytes(bytes).unwrap_or_default())
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for argument in self.shown() {
            match rmp_serde::from_slice::<serde_json::Value>(&argument.shown) {
                Ok(shown) => map.entry(&format_args!("{}", argument.name), &format_args!("{shown}")),
                Err(_) => map.entry(&format_args!("{}", argument.name), &format_args!("…")),
            };
        }
        map.finish()
    }
}
