//! Entries as rkyv has them: read where they stand, without decoding.
//!
//! Holds the codec and the look at its bytes. Invariant: no archive is shown that was not validated, at an address that suits it.

use std::borrow::Borrow;

use rkyv::{
    Archive, Deserialize, Portable, access,
    api::high::{HighDeserializer, HighSerializer, HighValidator},
    bytecheck::CheckBytes,
    from_bytes,
    rancor::Error as Unsuitable,
    ser::allocator::ArenaHandle,
    to_bytes,
    util::AlignedVec,
};
use serde::Serialize;

use super::Cache;
use crate::{
    Result,
    codec::{Codec, CodecError},
    envelope::Envelope,
};

/// [rkyv](https://rkyv.org): entries can be read where they stand, by [`Cache::read_archived`], and are decoded by the same rules
/// otherwise. Behind the feature `rkyv`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rkyv;

impl Rkyv {
    /// For ever.
    const ID: u8 = 4;
}

impl<V> Codec<V> for Rkyv
where
    V: Archive + for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Unsuitable>>,
    V::Archived: for<'a> CheckBytes<HighValidator<'a, Unsuitable>> + Deserialize<V, HighDeserializer<Unsuitable>>,
{
    fn id(&self) -> u8 {
        Self::ID
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        into.extend_from_slice(&to_bytes::<Unsuitable>(value)?);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(aligned(bytes, from_bytes::<V, Unsuitable>)?)
    }
}

impl<K, V: Archive + Send + Sync + 'static> Cache<K, V> {
    /// Shows the archive of `key`'s value to `f`, validated: nothing is decoded, and nothing brought to memory. Where it does not begin
    /// at a multiple of 16 it is copied before, in one piece. The store cannot shed what `f` looks at, so it should be short. An entry
    /// that [`Rkyv`] has not written is a miss.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn read_archived<Q: Serialize + ?Sized, R>(
        &self,
        key: &Q,
        f: impl FnOnce(&V::Archived) -> R,
    ) -> Result<Option<R>>
    where
        K: Borrow<Q>,
        V::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, Unsuitable>>,
    {
        let key = self.encode(key)?;
        self.inner.space.read_bytes(key.stored(), |bytes| {
            let envelope = Envelope::parse(bytes)?;
            let is_ours = envelope.codec == Rkyv::ID && envelope.shape == self.inner.options.codecs.shape(Rkyv::ID);
            if !is_ours {
                return None;
            }
            aligned(envelope.value, |bytes| access::<V::Archived, Unsuitable>(bytes).ok().map(f))
        })
    }

    /// As [`read_archived`](Self::read_archived). Ready at once.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn read_archived_async<Q: Serialize + ?Sized, R>(
        &self,
        key: &Q,
        f: impl FnOnce(&V::Archived) -> R,
    ) -> Result<Option<R>>
    where
        K: Borrow<Q>,
        V::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, Unsuitable>>,
    {
        self.read_archived(key, f)
    }
}

/// What any part of an archive may ask of its address.
const ALIGNMENT: usize = 16;

/// Lends `bytes` at an address that suits all parts of an archive, as they are if they begin at one.
fn aligned<R>(bytes: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
    if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        return f(bytes);
    }
    let mut copy = AlignedVec::<ALIGNMENT>::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    f(&copy)
}
