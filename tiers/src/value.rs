//! The bytes that a caller holds. Never points into a mapped file: what is held does not change, even
//! when the file under the store does.

use std::{fmt, ops::Deref, sync::Arc};

use crate::memory::{Held, Record};

/// A value read from the store: shared, immutable bytes that may outlive it.
///
/// Cloning counts a reference and copies nothing.
#[derive(Clone)]
pub struct Value(Bytes);

enum Bytes {
    /// Of a record in the log, or of one in memory that very many hold.
    Copied { sequence: u64, bytes: Arc<[u8]> },
    /// Of a record in memory.
    Held(Held),
}

impl Clone for Bytes {
    fn clone(&self) -> Self {
        match self {
            Self::Copied { sequence, bytes } => Self::Copied { sequence: *sequence, bytes: bytes.clone() },
            Self::Held(held) => match held.again() {
                Some(again) => Self::Held(again),
                None => Self::Copied { sequence: held.sequence(), bytes: held.value().into() },
            },
        }
    }
}

impl Value {
    /// Copies `bytes`, which were written at `sequence`. One allocation.
    pub fn copy_of(bytes: &[u8], sequence: u64) -> Self {
        Self(Bytes::Copied { sequence, bytes: bytes.into() })
    }

    /// Shares the value of a record in memory.
    #[inline]
    pub fn of(record: &Record<'_>) -> Self {
        match record.hold() {
            Some(held) => Self(Bytes::Held(held)),
            None => Self::copy_of(record.value(), record.sequence()),
        }
    }

    /// The store-wide number of the write that made this value; later writes have higher ones.
    pub fn sequence(&self) -> u64 {
        match &self.0 {
            Bytes::Copied { sequence, .. } => *sequence,
            Bytes::Held(held) => held.sequence(),
        }
    }
}

impl From<Held> for Value {
    fn from(held: Held) -> Self {
        Self(Bytes::Held(held))
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Copied { bytes, .. } => bytes,
            Bytes::Held(held) => held.value(),
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes, sequence {})", self.len(), self.sequence())
    }
}
