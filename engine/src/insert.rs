//! Insert and remove: place a record in the log, publish it in the key's slot, count what it displaced.
//!
//! Holds the rule that a key's sequence never goes down: a write that meets a higher one is done. `remove` places a
//! tombstone instead of a value.

use std::{sync::atomic::Ordering, time::Duration};

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{Header, NewRecord, Placed, RecordKind, Survives},
};

use crate::{
    counters::Count,
    engine::{Engine, InLog},
    index::{Published, Verdict},
};

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The process's death, `kill -9` included.
    #[default]
    Buffered,
    /// A power cut: the record is flushed before the call returns. Concurrent writers share a flush.
    Synced,
}

impl Durability {
    pub(crate) fn survives(self) -> Survives {
        match self {
            Self::Buffered => Survives::Kill,
            Self::Synced => Survives::PowerCut,
        }
    }
}

/// What a write says besides key and value. What is not said is as the store has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// How long the entry lives.
    pub ttl: Option<Duration>,
    /// What the write survives.
    pub durability: Option<Durability>,
}

impl Attributes {
    /// Nothing said.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry expires `ttl` from the write on. Zero is refused by the write; beyond the year 9999 is never.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// What the write survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// A time to live of zero is a mistake, not "default" and not "never".
pub(crate) fn check_ttl(option: &'static str, ttl: Option<Duration>) -> Result<()> {
    match ttl {
        Some(Duration::ZERO) => {
            Err(Error::Option { option, found: "0 s".to_owned(), expected: "a duration above zero".to_owned() })
        }
        _ => Ok(()),
    }
}

impl Engine {
    /// Writes `value` under `key`. Visible on return, to every thread; survives what `attributes` say.
    ///
    /// One copy of the bytes; no lock and no system call in the common case.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Option`] for a time to live of zero, [`Error::ReadOnly`], [`Error::Suspended`],
    /// [`Error::Io`]: nothing was written then, or at least nothing that counts.
    #[inline]
    pub fn insert(&self, key: &[u8], value: &[u8], attributes: &Attributes) -> Result<()> {
        let deadline_ms = self.deadline_ms(attributes.ttl)?;
        let guard = Guard::pin();
        let hash = self.log.keys().hash(key);
        // The index's line comes while the record is copied.
        self.index.prefetch(hash);
        let header = Header { kind: RecordKind::Value, sequence: self.clock.draw(1), deadline_ms };
        let record = NewRecord { header, namespace: 0, key, value };
        self.write(hash, &record, attributes.durability.unwrap_or(self.options.durability).survives(), &guard)?;
        Ok(())
    }

    pub(crate) fn deadline_ms(&self, ttl: Option<Duration>) -> Result<u64> {
        let Some(ttl) = ttl.or(self.options.time_to_live) else { return Ok(0) };
        check_ttl("ttl", Some(ttl))?;
        let deadline_ms = self.clock.deadline_ms(ttl);
        if deadline_ms != 0 {
            // Relaxed: `len` walks if it sees the entry at all.
            self.has_deadlines.store(true, Ordering::Relaxed);
        }
        Ok(deadline_ms)
    }

    /// Appends a record, makes it durable if it is to be, and publishes it.
    ///
    /// After a failed flush the record is published all the same: it is in the log, and the next process may find it
    /// there, so the next read shall find it too.
    #[inline]
    fn write(&self, hash: u64, record: &NewRecord<'_>, survives: Survives, guard: &Guard) -> Result<Option<Location>> {
        let known = self.known(hash, record.key, guard)?;
        let (placed, durable) = match survives {
            Survives::Kill => (self.log.append(record)?, Ok(())),
            Survives::PowerCut => {
                self.let_exchanges_count();
                self.log.append_durable(record)?
            }
        };
        let displaced = self.publish(hash, record, placed, known, guard);
        durable.and(displaced)
    }

    /// The location and the sequence of a key, where a read can fail: then it shall fail before anything is written,
    /// not between writing and publishing.
    #[inline]
    pub(crate) fn known(&self, hash: u64, key: &[u8], guard: &Guard) -> Result<Option<(Location, u64)>> {
        if !self.log.reads_by_calls() {
            return Ok(None);
        }
        self.index.find(hash, guard, |at| {
            InLog(&self.log).read_to_replace(at, |record| {
                let record = record.filter(|record| record.key() == key && !at.is_unverified())?;
                Some((at, record.header().sequence))
            })
        })
    }

    /// Names a placed record in its key's slot unless a newer one is there; returns what was displaced.
    #[inline]
    pub(crate) fn publish(
        &self,
        hash: u64,
        record: &NewRecord<'_>,
        placed: Placed,
        known: Option<(Location, u64)>,
        guard: &Guard,
    ) -> Result<Option<Location>> {
        let records = InLog(&self.log);
        let published = self.index.publish(hash, placed.location, guard, &records, |there| {
            if let Some((_, sequence)) = known.filter(|(at, _)| *at == there) {
                return Ok(if sequence > record.header.sequence { Verdict::Keep } else { Verdict::Replace });
            }
            records.read_to_replace(there, |found| match found {
                Some(found) if found.key() != record.key => Verdict::Other,
                // What a damaged record says of its sequence does not count: writing heals the key.
                Some(found) if !there.is_unverified() && found.header().sequence > record.header.sequence => {
                    Verdict::Keep
                }
                _ => Verdict::Replace,
            })
        });
        let published = match published {
            Ok(published) => published,
            Err(error) => {
                // Nobody sees the record; it must not turn up in the next process either. If the disk refuses that
                // as well, it may.
                let _ = self.log.revoke(placed.location, record);
                return Err(error);
            }
        };
        if placed.wants_ahead {
            self.upkeep.wake(&self.log);
        }
        Ok(self.count_published(record, published, guard))
    }

    /// Counts what came and what went.
    #[inline]
    pub(crate) fn count_published(
        &self,
        record: &NewRecord<'_>,
        published: Published,
        guard: &Guard,
    ) -> Option<Location> {
        let bytes = record.bytes();
        let displaced = match published {
            Published::Kept => {
                self.counters.add(Count::BytesWritten, bytes, guard);
                return None;
            }
            Published::New => None,
            Published::Replaced(old) => Some(old),
        };
        let old = displaced.filter(|old| old.kind() == Kind::Log);
        let old_bytes = old.map_or(0, |old| InLog(&self.log).bytes_at(old));
        let is_value = record.header.kind == RecordKind::Value;
        let counts = [
            (if is_value { Count::Insertion } else { Count::Removal }, u64::from(is_value || old.is_some())),
            (Count::BytesWritten, bytes),
            (Count::Added, u64::from(is_value)),
            (Count::Taken, u64::from(old.is_some())),
            (Count::LiveBytesAdded, if is_value { bytes } else { 0 }),
            (Count::LiveBytesTaken, old_bytes),
        ];
        self.counters.add_all(counts, guard);
        displaced
    }

    /// Removes `key`; `true` if it was there. Writes nothing for a key that is not.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn remove(&self, key: &[u8]) -> Result<bool> {
        let guard = Guard::pin();
        let hash = self.log.keys().hash(key);
        if !self.is_there(hash, key, &guard)? {
            return Ok(false);
        }
        let header = Header { kind: RecordKind::Tombstone, sequence: self.clock.draw(1), deadline_ms: 0 };
        let record = NewRecord { header, namespace: 0, key, value: &[] };
        let displaced = self.write(hash, &record, self.options.durability.survives(), &guard)?;
        Ok(displaced.is_some_and(|old| old.kind() == Kind::Log))
    }

    /// Whether a key has an entry that can be removed: a living one, or a damaged one.
    pub(crate) fn is_there(&self, hash: u64, key: &[u8], guard: &Guard) -> Result<bool> {
        let found = self.index.find(hash, guard, |at| {
            InLog(&self.log).read_to_replace(at, |record| match record {
                Some(record) => (record.key() == key).then(|| self.is_living(at, &record)),
                None => Some(true),
            })
        })?;
        Ok(found == Some(true))
    }
}
