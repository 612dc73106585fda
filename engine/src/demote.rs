//! Demote: have the key's slot name the log again and let the record in memory go.
//!
//! Holds what leaving memory takes. Who leaves is the policy's choice; this file asks it about candidates. Invariant: a record
//! leaves its slot only for the record in the log that says the same, or, in a store without a log, for nothing; a key
//! that was written or removed meanwhile is left alone.

use std::sync::atomic::Ordering;

use thermocline_eviction::History;
use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{Header, NewRecord, RecordKind},
    memory::Record,
};

use crate::{
    budget::INDEX_BYTES,
    counters::Count,
    engine::Core,
    found::copy_of,
    index::Look,
    keeper::{Evictor, VICTIMS_MAX},
    sweep::{MET, Sweep},
    worker::Next,
};

/// How often the hand moves on for a few victims.
const MOVES_MAX: u32 = 4;

impl Core {
    /// Lets the `count` least valuable of some entries go, among them perhaps a newcomer; returns the bytes that went.
    pub(crate) fn evict_some(
        &self,
        who: Evictor,
        count: usize,
        newcomer: Option<Location>,
        reason: Count,
        guard: &Guard,
    ) -> u64 {
        let mut victims = [None; VICTIMS_MAX];
        {
            let sweep = &mut self.keeper.sweep(who, guard);
            self.look_at_some(sweep, newcomer, guard);
            let tick = self.keeper.tick();
            victims[..count].fill_with(|| sweep.worst(tick, |at| self.worth_of(at, guard)));
            // Its index line comes until it is its turn.
            if let Some(record) = sweep.next_worst().and_then(|at| self.memory.record(at, guard)) {
                self.index.prefetch(self.log.keys().hash(record.key()));
            }
        }
        let bytes = |victim| {
            let bytes = self.memory.record(victim, guard)?.charge() + INDEX_BYTES;
            self.demote(victim, reason, guard).unwrap_or(false).then_some(bytes)
        };
        victims.into_iter().flatten().filter_map(bytes).sum()
    }

    fn worth_of(&self, at: Location, guard: &Guard) -> Option<f32> {
        let record = self.memory.record(at, guard)?;
        Some(self.keeper.worth(History::from_bits(record.history()), record.charge()))
    }

    fn look_at_some(&self, sweep: &mut Sweep, newcomer: Option<Location>, guard: &Guard) {
        let (mut found, mut tries) = (0, MOVES_MAX);
        // Places of records that wait to be reclaimed do not count.
        while found < MET / 2 && tries > 0 {
            for at in sweep.meet(&self.memory, guard).into_iter().flatten() {
                if let Some(worth) = self.worth_of(at, guard) {
                    sweep.add(at, worth);
                    found += 1;
                }
            }
            tries -= 1;
        }
        if let Some((at, worth)) = newcomer.and_then(|at| Some((at, self.worth_of(at, guard)?))) {
            sweep.add(at, worth);
        }
    }

    /// Lets the record at `at` go from memory; `false` if the key's slot names something else by now. A dirty one is
    /// appended to the log first.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), for a dirty one: it stays.
    pub(crate) fn demote(&self, at: Location, reason: Count, guard: &Guard) -> Result<bool> {
        let Some(record) = self.memory.record(at, guard) else { return Ok(false) };
        let hash = self.log.keys().hash(record.key());
        let home = match record.home() {
            Some(home) => home,
            None if self.options.in_memory => Location::nothing(),
            None => self.give_home(&record)?,
        };
        if !self.index.exchange(hash, at, home, record.history(), guard) {
            return Ok(false);
        }
        let left = if self.options.in_memory { Count::Taken } else { Count::Demotion };
        self.counters.add_all([(reason, 1), (left, 1)], guard);
        self.keeper.note_eviction(record.key(), reason, self.clock.now_coarse_ms());
        self.memory.retire(at, guard);
        Ok(true)
    }

    /// Appends a dirty record to the log, so that it is dirty no more; returns where.
    fn give_home(&self, record: &Record<'_>) -> Result<Location> {
        let header = Header { kind: RecordKind::Value, sequence: record.sequence(), deadline_ms: record.deadline_ms() };
        let copy = NewRecord { header, kept: None, ..copy_of(record) };
        // Where there is no room, somebody makes it who need not hurry.
        let placed = self.log.append(&copy).inspect_err(|_| self.wake_compactor())?;
        if placed.wants_ahead {
            self.prepare_ahead();
        }
        if let Some(is_live) = record.give_home(placed.location) {
            let (guard, bytes) = (Guard::pin(), copy.bytes());
            self.counters.add(Count::BytesWritten, bytes, &guard);
            // Whoever displaced it meanwhile has not seen this home.
            match is_live {
                true => self.counters.add(Count::LiveBytesAdded, bytes, &guard),
                false => self.take_back_overtaken(&copy, placed.location),
            }
            return Ok(placed.location);
        }
        // Somebody else was faster: one home is enough.
        self.log.revoke(placed.location, &copy)?;
        loop {
            if let Some(home) = record.home() {
                return Ok(home);
            }
            std::thread::yield_now();
        }
    }

    /// Brings every record to the log that is in memory alone.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert); some may have been written.
    pub(crate) fn log_dirty(&self) -> Result<()> {
        if self.options.in_memory || !self.has_dirty.load(Ordering::Acquire) {
            return Ok(());
        }
        self.with_all_logged(|| Ok(()))
    }

    /// Does `then` while every record is in the log, and new ones go there as well.
    ///
    /// # Errors
    /// As for [`log_dirty`](Self::log_dirty): it is not done then; and what `then` returns.
    pub(crate) fn with_all_logged<R>(&self, then: impl FnOnce() -> Result<R>) -> Result<R> {
        // From here on volatile writes go to the log, too, so that none replaces a record that we have not met yet.
        self.logging_dirty.fetch_add(1, Ordering::SeqCst);
        self.let_exchanges_count();
        let done = if self.has_dirty.load(Ordering::Acquire) { self.log_all_dirty() } else { Ok(()) };
        let done = done.and_then(|()| then());
        self.logging_dirty.fetch_sub(1, Ordering::SeqCst);
        done
    }

    fn log_all_dirty(&self) -> Result<()> {
        let mut result = Ok(());
        for block in 0..self.memory.blocks_end() {
            let logged = match self.log_dirty_of(block) {
                Err(full @ Error::DiskCapacity { .. }) => self.with_room(full, || self.log_dirty_of(block)),
                done => done,
            };
            result = result.and(logged);
        }
        result
    }

    fn log_dirty_of(&self, block: usize) -> Result<()> {
        let (guard, mut result) = (Guard::pin(), Ok(()));
        for (_, record) in self.memory.records_of(block, &guard) {
            if record.home().is_none() {
                result = result.and(self.give_home(&record).map(|_| ()));
            }
        }
        result
    }

    /// Lets the entry of `key` go from memory; it stays in the log. `true` if it was in memory.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), if it was not in the log yet.
    pub fn evict(&self, key: &[u8]) -> Result<bool> {
        let guard = Guard::pin();
        loop {
            let found = self.index.find(self.log.keys().hash(key), &guard, |at| {
                self.tiers(&guard).read_to_replace(at, |record| match record {
                    Some(record) if !record.is_of(key) => Look::Other,
                    _ => Look::Found(at),
                })
            })?;
            let Some(at) = found.filter(|at| at.kind() == Kind::Memory) else { return Ok(false) };
            if self.demote(at, Count::EvictedManual, &guard)? {
                return Ok(true);
            }
        }
    }

    /// Lets all entries go from memory; they stay in the log. Returns how many went. Those that are placed meanwhile may
    /// stay.
    ///
    /// # Errors
    /// As for [`evict`](Self::evict); the others went.
    pub fn evict_all(&self) -> Result<u64> {
        let (mut count, mut result) = (0, Ok(()));
        for block in 0..self.memory.blocks_end() {
            let guard = Guard::pin();
            for (at, _) in self.memory.records_of(block, &guard) {
                match self.demote(at, Count::EvictedManual, &guard) {
                    Ok(went) => count += u64::from(went),
                    Err(error) => result = result.and(Err::<(), Error>(error)),
                }
            }
        }
        self.memory.reclaim();
        result.map(|()| count)
    }

    /// Moves the records of a block to other ones, or lets them go where there is no room. Its memory is free when nobody
    /// reads or holds them.
    pub(crate) fn evacuate(&self, block: usize) {
        let guard = Guard::pin();
        self.memory.close(block, &guard);
        for (at, record) in self.memory.records_of(block, &guard) {
            // A dirty one gets its home before it moves: whoever walks to find those may be behind us already.
            let home = match record.home() {
                None if !self.options.in_memory => match self.give_home(&record) {
                    Ok(home) => Some(home),
                    Err(_) => continue,
                },
                home => home,
            };
            let hash = self.log.keys().hash(record.key());
            match self.memory.place(&copy_of(&record), home, record.history(), false, &guard) {
                Some(placed) => {
                    if self.index.exchange(hash, at, placed.location(), 0, &guard) {
                        placed.published();
                        self.memory.retire(at, &guard);
                    }
                }
                // A log that is full leaves a dirty record where it is.
                None => drop(self.demote(at, Count::EvictedCapacity, &guard)),
            }
        }
    }

    pub(crate) fn prepare_ahead(&self) {
        self.wake_compactor();
        self.wake_hinter();
        self.wake_ahead();
        self.wake_checkpoints();
        self.look_behind();
    }

    /// Has the log readied by its thread.
    pub(crate) fn wake_ahead(&self) {
        let log = self.log.clone();
        self.ahead.wake(|| {
            Box::new(move || {
                // All writers that are active now will have finished when this runs: old tombstones may go then, and
                // what is flushed later can be noted.
                Guard::pin().retire(log.quiescer());
                Guard::reclaim();
                // A writer that needs the space meets the same error and reports it to its caller.
                log.prepare().map(|()| Next::Done).map_err(|error| error.to_string())
            })
        });
    }
}
