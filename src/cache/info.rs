//! What a cache counts.

use thermocline_engine::Outcome;

use super::{Cache, Inner};

/// The figures of a cache. See [`Cache::info`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheInfo {
    /// Calls that were answered without computing: from memory, from the log, or by somebody else's computation.
    pub hits: u64,
    /// Calls that were not. Together they are all calls that asked for a value.
    pub misses: u64,
    /// Of the misses those that met an entry that is damaged or could not be decoded.
    pub unreadable: u64,
    /// Entries in both tiers together.
    pub entries: u64,
    /// The most entries there may be.
    pub max_entries: Option<u64>,
    /// Refreshes that failed, so that the stale value stayed.
    pub refresh_failures: u64,
    /// Values that were computed and could not be kept.
    pub unkept: u64,
    /// Calls that waited longer than `wait_timeout` for somebody else's computation.
    pub late: u64,
}

impl<K, V: Send + Sync + 'static> Cache<K, V> {
    /// Hits, misses and the like since the namespace was opened in this process. Walks over the index to count the entries.
    pub fn info(&self) -> CacheInfo {
        self.inner.info()
    }
}

impl<K, V> Cache<K, V> {
    /// Why the last value was not kept that was computed and could not be; [`CacheInfo::unkept`] counts them.
    pub fn why_unkept(&self) -> Option<String> {
        self.inner.space.flights().why_unkept()
    }
}

impl<V> Inner<V> {
    fn info(&self) -> CacheInfo {
        let (namespace, flights) = (self.space.namespace(), self.space.flights());
        // Whoever was answered has missed before; in this order no difference goes below zero.
        let answered = flights.noted(Outcome::Answered);
        let (hits, misses) = namespace.hits_and_misses();
        CacheInfo {
            hits: hits + answered,
            misses: misses.saturating_sub(answered),
            unreadable: namespace.unreadable(),
            entries: self.space.entries(),
            max_entries: namespace.limits().entries_max,
            refresh_failures: flights.noted(Outcome::RefreshFailed),
            unkept: flights.noted(Outcome::Unkept),
            late: flights.noted(Outcome::Late),
        }
    }
}
