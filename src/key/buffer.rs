//! Bytes of a key while it is made: on the stack as long as they are few.
//!
//! Holds appending, which is what every call of a cache begins with: pieces of a length that is known are a few stores, for which
//! general small vectors need a call each.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

/// As many as make the whole seven words long.
const BYTES_INLINE: usize = 54;

#[derive(Clone)]
pub(super) enum Buffer {
    Inline { len: u8, bytes: [u8; BYTES_INLINE] },
    Heap(Vec<u8>),
}

const _: () = assert!(size_of::<Buffer>() == 56);

impl Buffer {
    #[inline]
    pub(super) fn extend(&mut self, more: &[u8]) {
        if let Self::Inline { len, bytes } = self
            && let Some(free) = bytes.get_mut(usize::from(*len)..usize::from(*len) + more.len())
        {
            free.copy_from_slice(more);
            *len += more.len() as u8;
            return;
        }
        self.extend_heap(more);
    }

    #[cold]
    #[inline(never)]
    fn extend_heap(&mut self, more: &[u8]) {
        match self {
            Self::Heap(bytes) => bytes.extend_from_slice(more),
            Self::Inline { .. } => *self = Self::Heap([&**self, more].concat()),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    /// Keeps the first `keep` bytes only.
    pub(super) fn truncate(&mut self, keep: usize) {
        match self {
            Self::Heap(bytes) => bytes.truncate(keep),
            Self::Inline { len, .. } => *len = keep.min(usize::from(*len)) as u8,
        }
    }
}

impl Default for Buffer {
    #[inline]
    fn default() -> Self {
        Self::Inline { len: 0, bytes: [0; BYTES_INLINE] }
    }
}

impl From<&[u8]> for Buffer {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::default();
        buffer.extend(bytes);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buffer {}

impl Hash for Buffer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
