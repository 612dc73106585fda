//! Bytes of a key while it is made: on the stack as long as they are few.
//!
//! Holds appending, which is what every call of a cache begins with: pieces of a length that is known are a few stores, for which
//! general small vectors need a call each. What is looked at first thing afterwards, the length, is a word of its own, so that a
//! processor need not wait for the stores of single bytes.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

use thermocline_engine::Prefix;

/// As many as make the whole eleven words long.
const BYTES_INLINE: usize = 56;

#[derive(Clone)]
pub(super) struct Buffer {
    len: usize,
    inline: [u8; BYTES_INLINE],
    /// All of them, as long as they are too many for that; else empty.
    heap: Vec<u8>,
}

impl Buffer {
    /// What all keys of a namespace begin with.
    #[inline]
    pub(super) fn behind(prefix: &Prefix) -> Self {
        let mut buffer = Self::default();
        if let Some(first) = buffer.inline.first_chunk_mut() {
            *first = *prefix.padded();
        }
        buffer.len = prefix.len();
        buffer
    }

    /// Room for `more` bytes, on the stack: none if what is there is not.
    #[inline]
    fn free(&mut self, more: usize) -> Option<&mut [u8]> {
        let from = self.len;
        let free = self.inline.get_mut(from..)?.get_mut(..more)?;
        self.len = from + more;
        Some(free)
    }

    #[inline]
    pub(super) fn extend(&mut self, more: &[u8]) {
        match self.free(more.len()) {
            Some(free) => free.copy_from_slice(more),
            None => self.extend_heap(more),
        }
    }

    /// Two pieces, for which it looks once whether there is room.
    #[inline(always)]
    pub(super) fn extend_both(&mut self, first: &[u8], second: &[u8]) {
        match self.free(first.len() + second.len()) {
            Some(free) => {
                let (to_first, to_second) = free.split_at_mut(first.len());
                to_first.copy_from_slice(first);
                to_second.copy_from_slice(second);
            }
            None => {
                self.extend_heap(first);
                self.extend_heap(second);
            }
        }
    }

    /// Appends what does not fit the stack, the first or the second part of that.
    #[cold]
    #[inline(never)]
    fn extend_heap(&mut self, more: &[u8]) {
        if self.heap.is_empty() {
            self.heap = self.inline[..self.len].to_vec();
        }
        self.heap.extend_from_slice(more);
        self.len = self.heap.len();
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    /// Keeps the first `keep` bytes only.
    pub(super) fn truncate(&mut self, keep: usize) {
        self.len = self.len.min(keep);
        self.heap.truncate(self.len);
        if self.len <= BYTES_INLINE && !self.heap.is_empty() {
            self.inline[..self.len].copy_from_slice(&self.heap);
            self.heap.clear();
        }
    }
}

impl Default for Buffer {
    #[inline]
    fn default() -> Self {
        Self { len: 0, inline: [0; BYTES_INLINE], heap: Vec::new() }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.inline.get(..self.len).unwrap_or(&self.heap)
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
