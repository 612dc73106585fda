//! Keys as bytes: one encoding for equal keys, another for every other key.
//!
//! Holds the encoded key and its limits; `key/writer.rs` has the encoding. Never holds a value, and of a namespace only what its keys begin with. Invariant:
//! what is equal in its borrowed and owned form, or as a hash map in another order, is encoded alike; no two keys that
//! differ are.

mod buffer;
mod writer;

use serde::Serialize;
use thermocline_engine::Prefix;

use crate::{Error, Result};
use buffer::Buffer;
use writer::{Unencodable, write, write_bytes};

/// What is encoded to more bytes than these is kept as their digest.
const BYTES_MAX: usize = 1024;
/// Stands before a digest; the encoding begins no key with it.
const DIGEST: u8 = 0xff;

/// An encoded key. Made by [`EncodedKey::of`] or a [`KeyBuilder`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EncodedKey {
    bytes: Buffer,
    /// Bytes before the key that are its namespace's.
    prefix: usize,
}

impl EncodedKey {
    /// Encodes `key`: no allocation up to 56 bytes, with what all keys of a namespace begin with.
    ///
    /// # Errors
    /// [`Error::Encode`] for a type that refuses to be serialised.
    #[inline]
    pub fn of<K: Serialize + ?Sized>(key: &K) -> Result<Self> {
        let mut builder = KeyBuilder::new();
        builder.push(key)?;
        Ok(builder.finish())
    }

    /// The bytes of the key itself: at most 1024.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.prefix..]
    }

    /// The bytes that the store knows the key by.
    #[inline]
    pub(crate) fn stored(&self) -> &[u8] {
        &self.bytes
    }

    /// Replaces it by its digest.
    #[cold]
    fn shorten(&mut self) {
        let digest = blake3::hash(self.as_bytes());
        self.bytes.truncate(self.prefix);
        self.bytes.push(DIGEST);
        self.bytes.extend(digest.as_bytes());
    }
}

/// Encodes several values into one key, which is that of none of them alone and of no other values.
#[derive(Clone, Debug)]
pub struct KeyBuilder {
    key: EncodedKey,
}

impl Default for KeyBuilder {
    #[inline]
    fn default() -> Self {
        Self { key: EncodedKey { bytes: Buffer::default(), prefix: 0 } }
    }
}

impl KeyBuilder {
    /// Nothing yet.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing yet, behind what all keys of a namespace begin with.
    #[inline]
    pub(crate) fn behind(prefix: &Prefix) -> Self {
        Self { key: EncodedKey { bytes: Buffer::behind(prefix), prefix: prefix.len() } }
    }

    /// Adds a value.
    ///
    /// # Errors
    /// [`Error::Encode`] for a type that refuses to be serialised; then the builder is of no more use.
    #[inline]
    pub fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        write(&mut self.key.bytes, value).map_err(|why| refused::<T>(&why))
    }

    /// Adds bytes that have no other encoding, as those of a path.
    #[inline]
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        write_bytes(&mut self.key.bytes, bytes);
    }

    /// The key.
    #[inline]
    pub fn finish(mut self) -> EncodedKey {
        self.finish_here();
        self.key
    }

    /// The key, where it was made: to move it takes longer than to make it.
    #[inline]
    pub(crate) fn finish_here(&mut self) -> &EncodedKey {
        if self.key.bytes.len() - self.key.prefix > BYTES_MAX {
            self.key.shorten();
        }
        &self.key
    }
}

#[cold]
fn refused<T: ?Sized>(why: &Unencodable) -> Error {
    Error::Encode { what: "key", type_name: std::any::type_name::<T>(), cause: why.to_string() }
}

#[cfg(test)]
mod tests;
