//! The bytes that a caller holds. Never points into a mapped file: what is held does not change, even
//! when the file under the store does.

use std::{fmt, ops::Deref, sync::Arc};

/// A value read from the store: shared, immutable bytes that may outlive it.
///
/// Cloning counts a reference and copies nothing.
#[derive(Clone)]
pub struct Value {
    sequence: u64,
    bytes: Arc<[u8]>,
}

impl Value {
    /// Copies `bytes`, which were written at `sequence`. One allocation.
    pub fn copy_of(bytes: &[u8], sequence: u64) -> Self {
        Self { sequence, bytes: bytes.into() }
    }

    /// The store-wide number of the write that made this value; later writes have higher ones.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
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
        write!(f, "Value({} bytes, sequence {})", self.len(), self.sequence)
    }
}
