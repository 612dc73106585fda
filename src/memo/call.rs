//! One call of a memoized function, as it is kept.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::Arguments;

/// A call of a memoized function that is kept: what it was called with, and what it gave.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call<R> {
    /// The digest of the call.
    pub key: CallKey,
    /// What it was called with. Of an argument that takes more than 4 KiB only as much is kept as queries need to find it:
    /// it cannot be shown.
    pub arguments: Arguments,
    /// What it gave.
    pub result: R,
    /// When the result was kept, to the millisecond or so.
    pub created: SystemTime,
    /// How long it took to compute; zero for what was inserted.
    pub duration: Duration,
    /// Time until it expires; `None`: it never does.
    pub ttl_left: Option<Duration>,
    /// Whether it is past its `stale_after`.
    pub is_stale: bool,
    /// What it can be removed by.
    pub tags: Vec<String>,
}

/// The digest of a call: of the function's namespace and its key. Printed in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey([u8; 32]);

impl CallKey {
    pub(crate) fn new(namespace: &str, key: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(namespace.len() as u64).to_le_bytes()).update(namespace.as_bytes()).update(key);
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of a call that has none, because an argument could not be encoded.
    pub(crate) const fn none() -> Self {
        Self([0; 32])
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallKey({self})")
    }
}
