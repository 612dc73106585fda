//! Keys as bytes: one encoding for equal keys, another for every other key.
//!
//! Holds the encoded key and its limits; `key/writer.rs` has the encoding. Never holds a namespace or a value. Invariant:
//! what is equal in its borrowed and owned form, or as a hash map in another order, is encoded alike; no two keys that
//! differ are.

mod buffer;
mod writer;

use serde::Serialize;

use crate::{Error, Result};
use buffer::Buffer;
use writer::{Unencodable, Writer};

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
    /// Encodes `key`: no allocation up to 54 bytes, with what all keys of a namespace begin with.
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
}

/// Encodes several values into one key, which is that of none of them alone and of no other values.
#[derive(Clone, Debug, Default)]
pub struct KeyBuilder {
    writer: Writer,
    prefix: usize,
}

impl KeyBuilder {
    /// Nothing yet.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing yet, behind what all keys of a namespace begin with.
    #[inline]
    pub(crate) fn behind(prefix: &[u8]) -> Self {
        Self { writer: Writer::behind(prefix), prefix: prefix.len() }
    }

    /// Adds a value.
    ///
    /// # Errors
    /// [`Error::Encode`] for a type that refuses to be serialised; then the builder is of no more use.
    #[inline]
    pub fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.writer.value(value).map_err(|why| refused::<T>(&why))
    }

    /// Adds bytes that have no other encoding, as those of a path.
    #[inline]
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.writer.bytes(bytes);
    }

    /// The key.
    #[inline]
    pub fn finish(self) -> EncodedKey {
        let (mut bytes, prefix) = (self.writer.into_bytes(), self.prefix);
        if bytes.len() - prefix > BYTES_MAX {
            bytes = digest(&bytes, prefix);
        }
        EncodedKey { bytes, prefix }
    }
}

#[cold]
fn digest(bytes: &[u8], prefix: usize) -> Buffer {
    let (prefix, key) = bytes.split_at(prefix);
    let mut digest = Buffer::from(prefix);
    digest.push(DIGEST);
    digest.extend(blake3::hash(key).as_bytes());
    digest
}

#[cold]
fn refused<T: ?Sized>(why: &Unencodable) -> Error {
    Error::Encode { what: "key", type_name: std::any::type_name::<T>(), cause: why.to_string() }
}

#[cfg(test)]
mod tests;
