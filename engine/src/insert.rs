//! Insert: place a record in the log and in memory, publish it in the key's slot, count what it displaced.
//!
//! Holds the rule that a key's sequence never goes down: a write that meets a higher one is done. `remove.rs` places a tombstone instead
//! of a value, by the same steps.

use std::{
    cell::Cell,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{self, Header, NewRecord, RecordKind, Survives},
    memory::{self, Kept, Memory},
};

use crate::{
    counters::Count,
    engine::Core,
    found::{Found, Logged},
    index::{Look, Published, Verdict},
};

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: the record is in memory, and goes to the log when it leaves that, or by `sync`, `close` and drop. A removal
    /// goes to the log at once.
    Volatile,
    /// The process's death, `kill -9` included.
    #[default]
    Buffered,
    /// A power cut: the record is flushed before the call returns. Concurrent writers share a flush.
    Synced,
}

impl Durability {
    pub(crate) fn survives(self) -> Survives {
        match self {
            Self::Volatile | Self::Buffered => Survives::Kill,
            Self::Synced => Survives::PowerCut,
        }
    }
}

/// What a write took the place of: what the slot named, and where that stands in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Displaced {
    at: Location,
    logged: Option<Location>,
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

    /// The entry never expires, whatever the store says of those that say nothing.
    #[must_use]
    pub fn never(mut self) -> Self {
        self.ttl = Some(Duration::MAX);
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

/// A record that a slot named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    at: Location,
    /// What the slot names instead once the record has left memory.
    home: Option<Location>,
    sequence: u64,
}

impl Known {
    fn is_at(&self, there: Location) -> bool {
        there == self.at || Some(there) == self.home
    }
}

impl Core {
    /// Writes `value` under `key`. Visible on return, to every thread; survives what `attributes` say.
    ///
    /// One copy of the bytes for each tier; no system call in the common case.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Option`] for a time to live of zero, [`Error::ReadOnly`], [`Error::Suspended`],
    /// [`Error::NeverFits`], [`Error::DiskCapacity`], [`Error::Io`]: nothing was written then, or at least nothing that counts.
    #[inline]
    pub fn insert(&self, key: &[u8], value: &[u8], attributes: &Attributes) -> Result<()> {
        self.insert_kept(key, value, None, attributes).map(drop)
    }

    /// As [`insert`](Self::insert); memory is to keep what is `kept` in the place of the value. Returns the sequence.
    #[inline]
    pub(crate) fn insert_kept(
        &self,
        key: &[u8],
        value: &[u8],
        kept: Option<&Kept>,
        attributes: &Attributes,
    ) -> Result<u64> {
        self.wait_behind();
        let insert = || self.insert_once(key, value, kept, attributes);
        match insert() {
            Err(full @ Error::DiskCapacity { .. }) => self.with_room(full, insert),
            Err(refused) => Err(self.told_of(refused)),
            done => done,
        }
    }

    #[inline]
    fn insert_once(&self, key: &[u8], value: &[u8], kept: Option<&Kept>, attributes: &Attributes) -> Result<u64> {
        let deadline_ms = self.deadline_ms(attributes.ttl)?;
        let guard = Guard::pin();
        let hash = self.log.keys().hash(key);
        // The index's line comes while the record is copied.
        self.index.prefetch(hash);
        let header = Header { kind: RecordKind::Value, sequence: self.clock.draw(1), deadline_ms };
        let began = self.feeling.begin(header.sequence);
        let record = NewRecord { header, namespace: 0, key, value, kept };
        let durability = attributes.durability.unwrap_or(self.options.durability);
        if self.options.in_memory {
            return self.write_in_memory(hash, &as_kept(&record), &guard).map(|()| header.sequence);
        }
        if durability == Durability::Volatile && self.write_volatile(hash, &record, &guard)? {
            return Ok(header.sequence);
        }
        self.write(hash, &record, durability.survives(), &guard)?;
        self.feeling.end(began);
        Ok(header.sequence)
    }

    pub(crate) fn deadline_ms(&self, ttl: Option<Duration>) -> Result<u64> {
        let Some(ttl) = ttl.or(self.options.time_to_live) else { return Ok(0) };
        check_ttl("ttl", Some(ttl))?;
        let deadline_ms = self.clock.deadline_ms(ttl);
        if deadline_ms != 0 {
            // Relaxed: `len` walks if it sees the entry at all.
            self.has_deadlines.store(true, Ordering::Relaxed);
            self.start_janitor();
        }
        Ok(deadline_ms)
    }

    /// Appends a record, makes it durable if it is to be, and publishes it.
    ///
    /// After a failed flush the record is published all the same: it is in the log, and the next process may find it
    /// there, so the next read shall find it too.
    #[inline]
    pub(crate) fn write(
        &self,
        hash: u64,
        record: &NewRecord<'_>,
        survives: Survives,
        guard: &Guard,
    ) -> Result<Option<Location>> {
        let known = self.known(hash, record.key, guard)?;
        let (placed, durable) = match survives {
            Survives::Kill => (self.log.append(record)?, Ok(())),
            Survives::PowerCut => {
                self.let_exchanges_count();
                self.log.append_durable(record)?
            }
        };
        let displaced = self.publish_logged(hash, record, placed, known, guard);
        durable.and(displaced)
    }

    /// Writes a record to memory alone; `false` if it does not get in, or if all such records are brought to the log now.
    fn write_volatile(&self, hash: u64, record: &NewRecord<'_>, guard: &Guard) -> Result<bool> {
        self.log.check(record)?;
        self.log.check_fits(record.bytes())?;
        let _seen = self.exchanging.read().unwrap_or_else(PoisonError::into_inner);
        if self.logging_dirty.load(Ordering::SeqCst) > 0 || self.budget.capacity() == 0 {
            return Ok(false);
        }
        self.has_dirty.store(true, Ordering::Release);
        let Some(placed) = self.place_in_memory(record, None, 0, guard) else { return Ok(false) };
        let known = self.known(hash, record.key, guard)?;
        let published = self.publish(hash, record, placed.location(), known, guard)?;
        self.count_published(record, published, 0, guard);
        self.settle_placed(Some(placed), published, guard);
        Ok(true)
    }

    /// Writes a record to a store without a log: by force if there is no room, for there is no other place.
    pub(crate) fn write_in_memory(&self, hash: u64, record: &NewRecord<'_>, guard: &Guard) -> Result<()> {
        self.log.check(record)?;
        let Some(placed) = self.place_in_memory(record, None, 0, guard) else {
            // What does not get in must not leave an older value behind.
            return self.remove_from_memory(hash, record.key, guard).map(|_| ());
        };
        let published = self.publish(hash, record, placed.location(), None, guard)?;
        self.count_published(record, published, 0, guard);
        self.settle_placed(Some(placed), published, guard);
        Ok(())
    }

    /// Lets a record in memory be, if a slot names it, and makes up for the room that it takes.
    #[inline]
    pub(crate) fn settle_placed(&self, placed: Option<memory::Placed<'_>>, published: Published, guard: &Guard) {
        if let Some(placed) = placed.filter(|_| published != Published::Kept) {
            let at = placed.location();
            placed.published();
            self.settle(at, guard);
        }
    }

    /// What a key's slot names, where a read can fail: then it shall fail before anything is written,
    /// not between writing and publishing.
    #[inline]
    pub(crate) fn known(&self, hash: u64, key: &[u8], guard: &Guard) -> Result<Option<Known>> {
        if !self.log.reads_by_calls() {
            return Ok(None);
        }
        self.index.find(hash, guard, |at| {
            self.tiers(guard).read_to_replace(at, |record| match record.filter(|record| record.is_of(key)) {
                Some(record) => Look::Found(Known { at, home: record.home(), sequence: record.sequence() }),
                None => Look::Other,
            })
        })
    }

    /// Has the key's slot name a record of the log, or a copy of it in memory if there is room, unless a newer one is there;
    /// returns what was displaced.
    #[inline]
    pub(crate) fn publish_logged(
        &self,
        hash: u64,
        record: &NewRecord<'_>,
        logged: log::Placed,
        known: Option<Known>,
        guard: &Guard,
    ) -> Result<Option<Location>> {
        let home = logged.location;
        let enters = record.header.kind.is_value() && self.budget.capacity() > 0;
        let placed = if enters { self.place_in_memory(&as_kept(record), Some(home), 0, guard) } else { None };
        let at = placed.as_ref().map_or(home, memory::Placed::location);
        let published = match self.publish(hash, record, at, known, guard) {
            Ok(published) => published,
            Err(error) => {
                // Nobody sees the record; it must not turn up in the next process either. If the disk refuses that
                // as well, it may.
                self.take_back_overtaken(record, home);
                return Err(error);
            }
        };
        if logged.wants_ahead {
            self.prepare_ahead();
        }
        let displaced = self.count_published(record, published, record.bytes(), guard);
        if published == Published::Kept {
            self.take_back_overtaken(record, home);
        }
        self.settle_placed(placed, published, guard);
        if let (RecordKind::Tombstone, Some(Displaced { logged: Some(old), .. })) = (record.header.kind, displaced) {
            self.stand_behind(hash, record, home, old, guard)?;
        }
        Ok(displaced.map(|displaced| displaced.at))
    }

    /// Has the key's slot name `at` unless a newer record is there, and hands the key's history on.
    #[inline]
    fn publish(
        &self,
        hash: u64,
        record: &NewRecord<'_>,
        at: Location,
        known: Option<Known>,
        guard: &Guard,
    ) -> Result<Published> {
        let tiers = self.tiers(guard);
        let (history, is_known) = (Cell::new(0), Cell::new(false));
        let remembers = self.budget.capacity() > 0;
        let remember = |before: u16| {
            is_known.set(true);
            if !remembers {
                return;
            }
            history.set(self.access(hash, before, Memory::bytes_of(record)));
            let in_memory = Some(at).filter(|at| at.kind() == Kind::Memory);
            if let Some(record) = in_memory.and_then(|at| self.memory.record(at, guard)) {
                record.set_history(history.get());
            }
        };
        let published = self.index.publish(hash, at, guard, &tiers, &history, |there, beside| {
            if there.is_nothing() {
                // Perhaps what is left of this key.
                remember(beside);
                return Ok(Verdict::Other);
            }
            if let Some(known) = known.filter(|known| known.is_at(there)) {
                return Ok(if known.sequence > record.header.sequence { Verdict::Keep } else { Verdict::Replace });
            }
            tiers.judge(there, |found| match found {
                Some(found) if !found.is_of(record.key) => Verdict::Other,
                // What a damaged record says of its sequence does not count: writing heals the key.
                Some(found) if !there.is_unverified() && found.sequence() > record.header.sequence => Verdict::Keep,
                found => {
                    remember(if let Some(Found::Memory(old)) = found { old.history() } else { beside });
                    Verdict::Replace
                }
            })
        })?;
        if record.header.kind.is_value() {
            if published == Published::New && !is_known.get() {
                remember(0);
                self.remember_in_log(hash, at, history.get(), guard);
            }
            self.count_access(Count::Insertion, guard);
        }
        Ok(published)
    }

    /// Remembers the history of a key that has no copy in memory.
    fn remember_in_log(&self, hash: u64, at: Location, history: u16, guard: &Guard) {
        if at.kind() == Kind::Log && self.budget.capacity() > 0 {
            self.index.touch(hash, at, guard, |_| history);
        }
    }

    /// Counts what came and what went, and lets go what went from memory. `logged` is what the record took in the log.
    #[inline]
    pub(crate) fn count_published(
        &self,
        record: &NewRecord<'_>,
        published: Published,
        logged: u64,
        guard: &Guard,
    ) -> Option<Displaced> {
        let displaced = match published {
            Published::Kept => {
                self.counters.add(Count::BytesWritten, logged, guard);
                return None;
            }
            Published::New => None,
            Published::Replaced(old) => Some(old),
        };
        let was_there = displaced.is_some_and(|old| old.kind() != Kind::Removed);
        let needless = displaced.and_then(|old| self.take_displaced(old, guard));
        if let Some(needless) = needless {
            self.log.note_dead(needless.at, needless.bytes, &needless.header, needless.outlives(&record.header));
        }
        let is_value = record.header.kind.is_value();
        let counts = [
            (Count::Removal, u64::from(!is_value && was_there)),
            (Count::BytesWritten, logged),
            (Count::Added, u64::from(is_value)),
            (Count::Taken, u64::from(was_there)),
            (Count::LiveBytesAdded, if is_value { logged } else { 0 }),
            (Count::LiveBytesTaken, needless.filter(|_| was_there).map_or(0, |needless| needless.bytes)),
        ];
        self.counters.add_all(counts, guard);
        displaced.map(|at| Displaced { at, logged: needless.map(|needless| needless.at) })
    }

    /// Makes nothing of a record that somebody has overtaken, or that could not be published. Perhaps it was a removal that overtook
    /// it, and nobody knows of that any more by the time that a checkpoint leaves its segment out.
    #[cold]
    pub(crate) fn take_back_overtaken(&self, record: &NewRecord<'_>, at: Location) {
        // A hole that is no void: from here on no snapshot is written.
        if self.log.revoke(at, record).is_ok() {
            return;
        }
        // By what it was overtaken nobody has looked.
        self.log.note_dead(at, record.bytes(), &record.header, true);
    }

    /// Lets go from memory what no slot names any more; returns what it was in the log.
    fn take_displaced(&self, old: Location, guard: &Guard) -> Option<Logged> {
        if old.kind() != Kind::Memory {
            return self.tiers(guard).logged(old);
        }
        let record = self.memory.record(old, guard)?;
        // In this order: a home that it gets later is counted by whoever gives it.
        self.memory.retire(old, guard);
        self.tiers(guard).home_of(&record)
    }
}

/// A record whose value memory need not have: the log has it, or nobody asks for it.
#[inline]
fn as_kept<'a>(record: &NewRecord<'a>) -> NewRecord<'a> {
    NewRecord { value: if record.kept.is_some() { &[] } else { record.value }, ..*record }
}
