//! Get: find the slot, read the record, hold its deadline against the clock.
//!
//! Holds every way to look at one key. A hit in memory writes nothing but this thread's own counters and, when it changes, the
//! record's history; one in the log may bring the record to memory. Invariant: what has expired is a miss for every reader,
//! whatever is still in a tier.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thermocline_tiers::{
    Guard, Kind, Location, Result, Value,
    memory::{self, Kept},
};

use crate::{
    Tier, clock,
    counters::Count,
    engine::Core,
    found::{Found, is_same},
    index::Look,
};

/// How many keys [`Core::get_many`] looks up at once: few enough that their lines stay in the first-level cache.
const GROUP: usize = 32;
/// An index of at most this size is in a core's own cache: asking for its lines costs more than it saves.
const INDEX_BYTES_CACHED: u64 = 1 << 20;

/// What is known of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The store-wide number of the write that made it.
    pub sequence: u64,
    /// Bytes of the value, before compression.
    pub size_bytes: u64,
    /// Where a read would find it now.
    pub tier: Tier,
    /// Time until it expires; `None`: it never does.
    pub ttl_left: Option<Duration>,
    /// When it was written, to the millisecond or so.
    pub created: SystemTime,
}

impl Core {
    /// The value of `key`: shared if it is in memory, copied out of the log otherwise.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Corrupt`] if the record is damaged, [`thermocline_tiers::Error::Io`].
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.look(key, Trace::Full, |record| self.value_of(record))
    }

    /// The value of `key` if it is in memory. Touches no file and waits for nobody.
    #[inline]
    pub fn get_resident(&self, key: &[u8]) -> Option<Value> {
        let (guard, hash) = (Guard::pin(), self.log.keys().hash(key));
        let value = match self.first_in_memory(hash, key, &guard) {
            Some(record) => {
                self.touch(hash, &record);
                Some(Value::of(&record))
            }
            None => self.find_resident(hash, key, &guard),
        }?;
        self.count_access(Count::HitMemory, &guard);
        Some(value)
    }

    #[inline(never)]
    fn find_resident(&self, hash: u64, key: &[u8], guard: &Guard) -> Option<Value> {
        if self.index.is_asleep(hash) {
            return None;
        }
        let found = self.index.find(hash, guard, |at| {
            if at.kind() != Kind::Memory {
                return Ok(Look::Other);
            }
            let Some(record) = self.memory.record(at, guard) else { return Ok(Look::Moved) };
            if !is_same(record.key(), key) {
                return Ok(Look::Other);
            }
            let living = self.is_living(at, &Found::Memory(record));
            Ok(Look::Found(living.then(|| {
                self.touch(hash, &record);
                Value::of(&record)
            })))
        });
        // Memory does not fail.
        found.ok().flatten().flatten()
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
                match self.index.first_candidate(*hash) {
                    Some(at) if at.kind() == Kind::Memory => self.memory.prefetch(at, &guard),
                    Some(at) => self.log.prefetch(at),
                    None => {}
                }
            }
            for (hash, key) in hashes.iter().zip(group) {
                values.push(self.look_hashed(*hash, key, Trace::Full, &guard, |record| self.value_of(record))?);
            }
        }
        Ok(values)
    }

    /// Shows the value to `f` where it lies, or where it was decoded, without copying it. The store cannot shed what `f` looks at, so `f` should
    /// be short.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    #[inline]
    pub fn read<R>(&self, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.look(key, Trace::Full, |record| self.show_value(record, f))
    }

    /// As [`get`](Self::get), leaving no trace in counters or history, and bringing nothing to memory.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn peek(&self, key: &[u8]) -> Result<Option<Value>> {
        self.look(key, Trace::None, |record| self.value_of(record))
    }

    /// Whether `key` is there.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn contains_key(&self, key: &[u8]) -> Result<bool> {
        Ok(self.look(key, Trace::None, |_| Ok(()))?.is_some())
    }

    /// What is known of the entry of `key`.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn metadata(&self, key: &[u8]) -> Result<Option<Metadata>> {
        self.look(key, Trace::None, |record| {
            let (sequence, deadline_ms) = (record.sequence(), record.deadline_ms());
            Ok(Metadata {
                sequence,
                size_bytes: self.value_bytes(record)?,
                tier: match record {
                    Found::Memory(_) => Tier::Memory,
                    Found::Log(..) => Tier::Log,
                },
                ttl_left: (deadline_ms != 0).then(|| self.clock.left(deadline_ms).unwrap_or_default()),
                created: UNIX_EPOCH + Duration::from_millis(clock::created_ms(sequence)),
            })
        })
    }

    #[inline]
    fn look<R>(&self, key: &[u8], trace: Trace, take: impl FnOnce(Found<'_>) -> Result<R>) -> Result<Option<R>> {
        self.look_hashed(self.log.keys().hash(key), key, trace, &Guard::pin(), take)
    }

    #[inline]
    fn look_hashed<R>(
        &self,
        hash: u64,
        key: &[u8],
        trace: Trace,
        guard: &Guard,
        take: impl FnOnce(Found<'_>) -> Result<R>,
    ) -> Result<Option<R>> {
        // A hit in memory in straight-line code, so short that a processor can look ahead to the next call.
        if let Some(record) = self.first_in_memory(hash, key, guard) {
            if trace == Trace::Full {
                self.touch(hash, &record);
                self.count_access(Count::HitMemory, guard);
            }
            return take(Found::Memory(record)).map(Some);
        }
        self.look_everywhere(hash, key, trace, guard, take)
    }

    /// The record of `key`, if its slot is the first whose tag agrees, it is in memory, and never expires.
    #[inline(always)]
    pub(crate) fn first_in_memory<'a>(&'a self, hash: u64, key: &[u8], guard: &'a Guard) -> Option<memory::Record<'a>> {
        let at = self.index.first_candidate(hash).filter(|at| at.kind() == Kind::Memory)?;
        let record = self.memory.record(at, guard)?;
        (is_same(record.key(), key) && !record.expires()).then_some(record)
    }

    #[inline(never)]
    fn look_everywhere<R>(
        &self,
        hash: u64,
        key: &[u8],
        trace: Trace,
        guard: &Guard,
        take: impl FnOnce(Found<'_>) -> Result<R>,
    ) -> Result<Option<R>> {
        let (at, taken) = self.look_for(hash, key, trace, guard, take)?;
        if let (Some(Ok(_)), Trace::Full) = (&taken, trace) {
            match at.kind() {
                Kind::Memory => self.count_access(Count::HitMemory, guard),
                _ => self.found_in_log(hash, at, None, guard),
            }
        }
        taken.transpose()
    }

    /// Takes what is wanted of the living record of `key`; says where it is. A miss is counted, a hit is not.
    #[inline]
    pub(crate) fn look_for<R>(
        &self,
        hash: u64,
        key: &[u8],
        trace: Trace,
        guard: &Guard,
        take: impl FnOnce(Found<'_>) -> Result<R>,
    ) -> Result<(Location, Option<Result<R>>)> {
        // What is taken, or why it cannot be, is as long as an error: it goes straight to where it is returned from.
        let (mut take, mut taken) = (Some(take), None);
        let tiers = self.tiers(guard);
        let found = self.index.find(hash, guard, |at| {
            tiers.read(at, |record| {
                if !record.is_of(key) {
                    return Look::Other;
                }
                if self.is_living(at, &record) {
                    if let (Found::Memory(record), Trace::Full) = (record, trace) {
                        self.touch(hash, &record);
                    }
                    taken = take.take().map(|take| take(record));
                }
                Look::Found(at)
            })
        })?;
        let Some(at) = found else {
            self.count_miss(Count::MissAbsent, trace, guard);
            return Ok((Location::nothing(), None));
        };
        if taken.is_none() {
            let count = if at.kind() == Kind::Removed { Count::MissRemoved } else { Count::MissExpired };
            self.count_miss(count, trace, guard);
        }
        Ok((at, taken))
    }

    #[inline]
    pub(crate) fn count_miss(&self, count: Count, trace: Trace, guard: &Guard) {
        if trace == Trace::Full {
            self.counters.add(count, 1, guard);
        }
    }

    /// A hit in the log: counted, remembered, and brought to memory, with what is `kept` of it.
    #[inline(never)]
    pub(crate) fn found_in_log(&self, hash: u64, at: Location, kept: Option<&Kept>, guard: &Guard) {
        self.count_access(Count::HitLog, guard);
        let at = if at.is_unverified() { self.note_verified(hash, at, guard) } else { at };
        if self.budget.capacity() > 0 {
            self.promote(hash, at, kept, guard);
        }
    }
}

impl Core {
    /// Has the slot say that the record at `at`, which has just been held against its checksum, need not be again.
    pub(crate) fn note_verified(&self, hash: u64, at: Location, guard: &Guard) -> Location {
        let verified = at.as_verified();
        let history = self.index.touch(hash, at, guard, |history| history).unwrap_or(0);
        // Whoever has changed the slot meanwhile has said something newer.
        if self.index.exchange(hash, at, verified, history, guard) { verified } else { at }
    }
}

/// What a look leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Counts, history, a promotion.
    Full,
    /// Nothing.
    None,
}
