//! Entries as they are found, with all that is known of them: for whoever lists what a cache has.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use thermocline_engine::{Decoded, Facts, fresh::Freshness};

use super::{
    Cache, Inner,
    stored::{Note, shared, times},
};
use crate::{Result, key::EncodedKey};

/// An entry of a cache.
#[doc(hidden)]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FoundEntry<V> {
    /// Its key, encoded, without what all keys of the cache begin with.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Arc<V>,
    /// What it was computed from.
    pub arguments: Option<Vec<u8>>,
    /// What it can be removed by.
    pub tags: Vec<String>,
    /// When it was written.
    pub created: SystemTime,
    /// How long it took to compute; zero: nobody knows.
    pub cost: Duration,
    /// Time until it expires; `None`: it never does.
    pub ttl_left: Option<Duration>,
    /// Whether it is past its fresh time.
    pub is_stale: bool,
}

impl<K, V: Send + Sync + 'static> Cache<K, V> {
    /// Walks over the entries, as [`Store::iter`](crate::Store::iter) does. What is damaged is left out.
    #[doc(hidden)]
    pub fn entries(&self) -> impl Iterator<Item = Result<FoundEntry<V>>> + '_ {
        let cache = &*self.inner;
        cache.space.walk(|bytes| cache.decode(bytes)).filter_map(|found| match found {
            Ok((key, decoded, facts)) => cache.found(key, &decoded, facts).map(Ok),
            Err(error) => Some(Err(error)),
        })
    }

    /// The entry of a key, leaving no trace.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    #[doc(hidden)]
    pub fn peek_entry(&self, key: &EncodedKey) -> Result<Option<FoundEntry<V>>> {
        let found = self.inner.peek(key.stored())?;
        Ok(found.and_then(|(decoded, facts)| self.inner.found(key.as_bytes().to_vec(), &decoded, facts)))
    }
}

impl<V: Send + Sync + 'static> Inner<V> {
    fn found(&self, key: Vec<u8>, decoded: &Decoded, facts: Facts) -> Option<FoundEntry<V>> {
        let now_ms = self.space.now_ms();
        let left = || Duration::from_millis(facts.deadline_ms.saturating_sub(now_ms));
        let freshness =
            thermocline_engine::fresh::judge(times(decoded, facts), now_ms, None, Default::default(), || 1.0);
        let note = Note::of(decoded);
        Some(FoundEntry {
            key,
            value: shared(decoded)?,
            arguments: note.and_then(|note| note.arguments.as_deref()).map(<[u8]>::to_vec),
            tags: note.map_or_else(Vec::new, |note| note.tags.iter().map(|tag| tag.to_string()).collect()),
            created: UNIX_EPOCH + Duration::from_millis(facts.created_ms),
            cost: Duration::from_micros(decoded.cost_us),
            ttl_left: (facts.deadline_ms != 0).then(left),
            is_stale: freshness == Freshness::Stale,
        })
    }
}
