//! Promote: bring a record from the log to memory, with the log as its home.
//!
//! Holds what entering memory takes: room, a place, a history. Invariant: a copy is published only over exactly the record
//! that it is a copy of.

use thermocline_eviction::History;
use thermocline_tiers::{
    Guard, Kind, Location,
    log::NewRecord,
    memory::{self, Kept, Memory},
};

use crate::{counters::Count, engine::Core, found::Found, keeper::Evictor};

/// How many entries a thread evicts that needs room.
const EVICTED_INLINE_MAX: usize = 2;

impl Core {
    /// Places the record at `at` in memory too, decoded, and has the key's slot name that, unless it names something else by now. What is
    /// `kept` of it stands there in the place of the value.
    pub(crate) fn promote(&self, hash: u64, at: Location, kept: Option<&Kept>, guard: &Guard) {
        if at.kind() != Kind::Log || at.is_unverified() {
            return;
        }
        let placed = self.log.read_unchecked(at, |found| {
            let place = |value: &[u8]| {
                let (header, namespace) = (found.header(), found.namespace());
                let record = NewRecord { header, namespace, key: found.key(), value, kept };
                let weight = Memory::bytes_of(&record);
                let history = self.index.touch(hash, at, guard, |before| self.access(hash, before, weight))?;
                self.place_in_memory(&record, Some(at), history, guard)
            };
            if kept.is_some() { Ok(place(&[])) } else { self.show_value(Found::Log(found, at), place) }
        });
        // Whoever asked has the value already; that the record cannot be read a second time is for the next to hear.
        let Ok(Ok(Some(placed))) = placed else { return };
        if self.index.exchange(hash, at, placed.location(), 0, guard) {
            let at = placed.location();
            placed.published();
            self.counters.add(Count::Promotion, 1, guard);
            self.settle(at, guard);
        }
    }

    /// A place in memory for a record that nobody sees yet, if there is room or it can be made by letting two others go.
    pub(crate) fn place_in_memory<'a>(
        &'a self,
        record: &NewRecord<'_>,
        home: Option<Location>,
        history: u16,
        guard: &'a Guard,
    ) -> Option<memory::Placed<'a>> {
        if Memory::bytes_of(record) > self.budget.record_bytes_max() || !self.has_room(guard) {
            self.counters.add(Count::Rejected, 1, guard);
            return None;
        }
        let placed = self.memory.place(record, home, history, false, guard);
        if placed.is_none() {
            // The blocks are full of places of other sizes.
            self.counters.add(Count::Rejected, 1, guard);
            self.wake_keeper();
        } else if record.header.deadline_ms != 0 {
            self.start_janitor();
        }
        placed
    }

    fn has_room(&self, guard: &Guard) -> bool {
        if self.memory.free_bytes() < self.budget.free_bytes_min() {
            self.wake_keeper();
        }
        let is_within = || self.resident_bytes() <= self.budget.bound_hard();
        is_within() || {
            self.wake_keeper();
            self.evict_inline(None, guard);
            is_within()
        }
    }

    /// Brings the tier back within its bound after a record came to it, which may be worth less than those that are there.
    #[inline]
    pub(crate) fn settle(&self, newcomer: Location, guard: &Guard) {
        if self.resident_bytes() > self.budget.high() {
            self.settle_full(newcomer, guard);
        }
    }

    #[inline(never)]
    fn settle_full(&self, newcomer: Location, guard: &Guard) {
        // With head-room the keeper is in time.
        if self.keeper.wants_to_learn() && !self.budget.has_headroom() {
            self.learn();
        }
        // Without a log what has just been written shall be there for its writer.
        self.evict_inline(Some(newcomer).filter(|_| !self.options.in_memory), guard);
        if self.resident_bytes() > self.budget.high() {
            self.wake_keeper();
        }
    }

    /// Lets so many entries go as a thread does that needs room.
    fn evict_inline(&self, newcomer: Option<Location>, guard: &Guard) {
        for _ in 0..EVICTED_INLINE_MAX {
            if self.resident_bytes() <= self.budget.bound() {
                break;
            }
            self.evict_some(Evictor::Inserter, 1, newcomer, Count::EvictedCapacity, guard);
        }
    }

    /// Remembers an access to a record in memory, if it is the first in this tick.
    #[inline]
    pub(crate) fn touch(&self, hash: u64, record: &memory::Record<'_>) {
        let before = record.history();
        if History::from_bits(before).tick() != self.keeper.tick() {
            self.touch_anew(hash, record, before);
        }
    }

    #[inline(never)]
    fn touch_anew(&self, hash: u64, record: &memory::Record<'_>, before: u16) {
        // A weight says something of a new key alone, and that has been here: what it takes exactly is not worth finding out.
        record.set_history(self.access(hash, before, record.payload_bytes()));
    }

    /// The history after an access to a key of this hash.
    pub(crate) fn access(&self, hash: u64, before: u16, weight: u64) -> u16 {
        let teaches = self.keeper.teaches(hash);
        let after = self.keeper.access(before, weight, teaches);
        if teaches && self.keeper.wants_to_learn() {
            self.wake_keeper();
        }
        after
    }

    /// Counts an access, and tells the clock of accesses now and then.
    #[inline]
    pub(crate) fn count_access(&self, count: Count, guard: &Guard) {
        let accesses = self.counters.add_one(count, guard);
        self.keeper.count(accesses);
    }
}
