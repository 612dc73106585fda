//! Get: find the slot, read the record, hold its deadline against the clock.
//!
//! Holds every way to look at one key. Writes nothing but this thread's own counters, and the time when it is the first
//! to hear of an expiry. Invariant: what has expired is a
//! miss for every reader, whatever is still in the log.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thermocline_tiers::{Guard, Kind, Result, Value, log::Record};

use crate::{Tier, clock, counters::Count, engine::Engine};

/// How many keys [`Engine::get_many`] looks up at once: few enough that their lines stay in the first-level cache.
const GROUP: usize = 32;
/// An index of at most this size is in a core's own cache: asking for its lines costs more than it saves.
const INDEX_BYTES_CACHED: u64 = 1 << 20;

/// What is known of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The store-wide number of the write that made it.
    pub sequence: u64,
    /// Bytes of the value.
    pub size_bytes: u64,
    /// Where it lives now.
    pub tier: Tier,
    /// Time until it expires; `None`: it never does.
    pub ttl_left: Option<Duration>,
    /// When it was written, to the millisecond or so.
    pub created: SystemTime,
}

impl Engine {
    /// The value of `key`, copied out of the log.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Corrupt`] if the record is damaged, [`thermocline_tiers::Error::Io`].
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.look(key, true, value_of)
    }

    /// The values of `keys`, in their order. The cache lines of a group are asked for before its first key is looked up:
    /// first the index's, then the records'.
    ///
    /// # Errors
    /// As for [`get`](Self::get): the first that any key meets.
    pub fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        let mut values = Vec::with_capacity(keys.len());
        if keys.len() < 2 || self.index.bytes() <= INDEX_BYTES_CACHED {
            for key in keys {
                values.push(self.get(key)?);
            }
            return Ok(values);
        }
        let mut hashes = [0; GROUP];
        for group in keys.chunks(GROUP) {
            let guard = Guard::pin();
            for (hash, key) in hashes.iter_mut().zip(group) {
                *hash = self.log.keys().hash(key);
                self.index.prefetch(*hash);
            }
            for hash in &hashes[..group.len()] {
                self.index.first_candidate(*hash).inspect(|at| self.log.prefetch(*at));
            }
            for (hash, key) in hashes.iter().zip(group) {
                values.push(self.look_hashed(*hash, key, true, &guard, value_of)?);
            }
        }
        Ok(values)
    }

    /// Shows the value to `f` where it lies, without copying it. The log cannot shed what `f` looks at, so `f` should
    /// be short.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    #[inline]
    pub fn read<R>(&self, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.look(key, true, |record| f(record.value()))
    }

    /// As [`get`](Self::get), leaving no trace in counters or history.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn peek(&self, key: &[u8]) -> Result<Option<Value>> {
        self.look(key, false, value_of)
    }

    /// Whether `key` is there.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn contains_key(&self, key: &[u8]) -> Result<bool> {
        Ok(self.look(key, false, |_| ())?.is_some())
    }

    /// What is known of the entry of `key`.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn metadata(&self, key: &[u8]) -> Result<Option<Metadata>> {
        self.look(key, false, |record| {
            let header = record.header();
            Metadata {
                sequence: header.sequence,
                size_bytes: record.value().len() as u64,
                tier: Tier::Log,
                ttl_left: (header.deadline_ms != 0).then(|| self.clock.left(header.deadline_ms).unwrap_or_default()),
                created: UNIX_EPOCH + Duration::from_millis(clock::created_ms(header.sequence)),
            }
        })
    }

    #[inline]
    fn look<R>(&self, key: &[u8], counted: bool, take: impl FnOnce(&Record<'_>) -> R) -> Result<Option<R>> {
        self.look_hashed(self.log.keys().hash(key), key, counted, &Guard::pin(), take)
    }

    #[inline]
    fn look_hashed<R>(
        &self,
        hash: u64,
        key: &[u8],
        counted: bool,
        guard: &Guard,
        take: impl FnOnce(&Record<'_>) -> R,
    ) -> Result<Option<R>> {
        let found = self.find(hash, key, guard, |at, record| match self.is_living(at, &record) {
            true => (Count::HitLog, Some(take(&record))),
            false if at.kind() == Kind::Removed => (Count::MissRemoved, None),
            false => (Count::MissExpired, None),
        })?;
        let (count, result) = found.unwrap_or((Count::MissAbsent, None));
        if counted {
            self.counters.add(count, 1, guard);
        }
        Ok(result)
    }
}

#[inline]
fn value_of(record: &Record<'_>) -> Value {
    Value::copy_of(record.value(), record.header().sequence)
}
