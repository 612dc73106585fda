//! The memory tier: records in memory, each in one piece, in an arena whose emptied parts go back to the system.
//!
//! Holds places, the records in them, and what was retired and waits for readers. Never knows what a slot names, who should
//! leave, nor the time. Invariant: what a reader or a holder has stays as it is; see `memory/arena.rs`.

mod arena;
mod classes;
mod places;
mod space;
#[cfg(all(test, not(loom)))]
mod tests;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arena::{Arena, Ended};
pub use arena::{Decoded, Held, Kept, Object, Record};
use crossbeam_utils::CachePadded;
pub use places::Hand;

use crate::{
    Error, Guard, Result,
    log::NewRecord,
    slot::{Location, Reserved},
};

/// Addresses of the arena. Memory comes with use.
const ARENA_BYTES: u64 = 1 << 40;
/// So many threads retire without waiting for each other.
const STRIPES: usize = 16;
/// What is retired is handed to the guard in batches of this many records, or bytes.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 256 << 10;

/// The records in memory of one store.
#[derive(Debug)]
pub struct Memory {
    arena: Arc<Arena>,
    charged: CachePadded<Charged>,
    overhead_bytes: u64,
    ended: Vec<CachePadded<Mutex<Ended>>>,
    /// The earliest deadline in each block and in all of them, counted down from the end of time, so that zero is none.
    deadlines: Reserved<AtomicU64>,
    deadline: AtomicU64,
}

/// The records that were placed and not retired: how many, and what they take, each with its overhead.
#[derive(Debug, Default)]
struct Charged {
    records: AtomicU64,
    bytes: AtomicU64,
}

/// A record that was placed and that nobody was told of. Drops out of memory unless it is [`published`](Self::published).
#[derive(Debug)]
pub struct Placed<'a> {
    memory: &'a Memory,
    guard: &'a Guard,
    /// What a slot is to name.
    at: Location,
}

impl Placed<'_> {
    /// What a slot is to name.
    #[inline]
    pub fn location(&self) -> Location {
        self.at
    }

    /// A slot names it.
    #[inline]
    pub fn published(self) {
        std::mem::forget(self);
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        self.memory.retire(self.at, self.guard);
    }
}

/// The tier's memory in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records.
    pub records: u64,
    /// Bytes of their places, each rounded up to its place, those included that wait for readers or holders.
    pub bytes: u64,
    /// Bytes of the blocks that are cut into places.
    pub cut_bytes: u64,
    /// Bytes of the machine's memory that the arena may have.
    pub touched_bytes: u64,
}

impl Memory {
    /// A tier without records, and without room for any before [`set_limit`](Self::set_limit). Each record is charged
    /// `overhead_bytes` beside what it takes here.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses the addresses.
    pub fn new(overhead_bytes: u64) -> Result<Self> {
        let io = |source| Error::Io { action: "reserve", file: "memory".to_owned(), offset: 0, source };
        let arena = Arc::new(Arena::new(ARENA_BYTES).map_err(io)?);
        let deadlines = Reserved::new((ARENA_BYTES / classes::BLOCK_BYTES) as usize).map_err(io)?;
        let ended = (0..STRIPES).map(|_| CachePadded::default()).collect();
        let charged = CachePadded::default();
        Ok(Self { arena, charged, overhead_bytes, ended, deadlines, deadline: AtomicU64::new(0) })
    }

    /// The arena takes at most this many bytes of the machine's memory, but for records that are placed by force.
    pub fn set_limit(&self, bytes: u64) {
        let is_other = self.arena.places().blocks_limit() as u64 != bytes / classes::BLOCK_BYTES;
        if is_other {
            self.arena.places().set_limit(bytes);
        }
    }

    /// Bytes that a record takes here, with what it keeps.
    pub fn bytes_of(record: &NewRecord<'_>) -> u64 {
        arena::arena_bytes(record) + record.kept.map_or(0, Kept::bytes)
    }

    /// Copies a record to a place of its own. `None` if there is none within the limit; with `is_forced` behind it too.
    #[inline]
    pub fn place<'a>(
        &'a self,
        record: &NewRecord<'_>,
        home: Option<Location>,
        history: u16,
        is_forced: bool,
        guard: &'a Guard,
    ) -> Option<Placed<'a>> {
        let vacant = self.arena.places().take(arena::arena_bytes(record), is_forced, &*self.arena)?;
        // Relaxed: sums order nothing.
        let kept_bytes = record.kept.map_or(0, Kept::bytes);
        self.charged.bytes.fetch_add(vacant.bytes + kept_bytes + self.overhead_bytes, Ordering::Relaxed);
        self.charged.records.fetch_add(1, Ordering::Relaxed);
        let at = self.arena.place(&vacant, record, home, history);
        let deadline_ms = record.header.deadline_ms;
        if deadline_ms != 0 {
            // Behind the record's first moment of life: whoever walks meanwhile meets one or the other.
            self.note_deadline(vacant.block, deadline_ms);
        }
        Some(Placed { memory: self, guard, at })
    }

    fn note_deadline(&self, block: usize, deadline_ms: u64) {
        // Release: pairs with the Acquire in `expired_blocks`.
        if let Some(earliest) = self.deadlines.get(block) {
            earliest.fetch_max(u64::MAX - deadline_ms, Ordering::Release);
        }
        self.deadline.fetch_max(u64::MAX - deadline_ms, Ordering::Release);
    }

    /// The record that a location names, if it is still there.
    #[inline]
    pub fn record<'g>(&'g self, at: Location, guard: &'g Guard) -> Option<Record<'g>> {
        self.arena.record(at, guard)
    }

    /// Asks for the first cache lines of the record at `at`, for somebody who reads it soon.
    #[inline]
    pub fn prefetch(&self, at: Location, guard: &Guard) {
        self.arena.prefetch(at, 3, guard);
    }

    fn stripe(&self, number: usize) -> MutexGuard<'_, Ended> {
        // Nothing panics under it.
        self.ended[number % STRIPES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a record go that no slot names any more: readers and holders keep what they have.
    pub fn retire(&self, at: Location, guard: &Guard) {
        let Some(record) = self.record(at, guard) else { return };
        let mut ended = self.stripe(guard.thread_number());
        if !ended.end(&record) {
            return;
        }
        self.charged.bytes.fetch_sub(record.charge() + self.overhead_bytes, Ordering::Relaxed);
        self.charged.records.fetch_sub(1, Ordering::Relaxed);
        if ended.count() >= BATCH || ended.bytes() >= BATCH_BYTES {
            let batch = std::mem::take(&mut *ended);
            drop(ended);
            let is_large = batch.bytes() >= BATCH_BYTES;
            self.arena.retire(batch, guard);
            if is_large {
                Guard::reclaim();
            }
        }
    }

    /// Reclaims what can be reclaimed now. Costs a barrier on all processors.
    pub fn reclaim(&self) {
        {
            let guard = Guard::pin();
            for number in 0..STRIPES {
                let batch = std::mem::take(&mut *self.stripe(number));
                if batch.count() > 0 {
                    self.arena.retire(batch, &guard);
                }
            }
        }
        Guard::reclaim();
    }

    /// Drops objects whose records were reclaimed: code of their users, so nobody calls this who holds a lock, or a guard that is to go
    /// soon. One load if there are none.
    #[inline]
    pub fn drop_released(&self) {
        self.arena.drop_released();
    }

    /// Figures; they may be a moment apart.
    pub fn usage(&self) -> Usage {
        let places = self.arena.places();
        Usage {
            records: self.records(),
            bytes: places.used_bytes(),
            cut_bytes: places.cut_bytes(),
            touched_bytes: places.touched_bytes(),
        }
    }

    /// Bytes that the records are charged which were placed and not retired; one load.
    #[inline]
    pub fn charged_bytes(&self) -> u64 {
        self.charged.bytes.load(Ordering::Relaxed)
    }

    /// How many records were placed and not retired; one load.
    pub fn records(&self) -> u64 {
        self.charged.records.load(Ordering::Relaxed)
    }

    /// Moves a hand over the next records in the order of their addresses, round and round, and asks for their first cache
    /// lines. Finds fewer where much is vacant.
    #[inline]
    pub fn sweep(&self, hand: &mut Hand, met: &mut [Option<Location>], guard: &Guard) {
        for at in met {
            *at = self.arena.places().next(hand, guard).map(|(block, place)| Location::in_memory(block, place));
            match at {
                Some(at) => self.arena.prefetch(*at, 1, guard),
                None => break,
            }
        }
    }

    /// The number behind the last block.
    pub fn blocks_end(&self) -> usize {
        self.arena.places().blocks_end()
    }

    /// The blocks behind the limit: their records have to move, or go.
    pub fn blocks_beyond(&self) -> std::ops::Range<usize> {
        self.arena.places().blocks_limit()..self.blocks_end()
    }

    /// Whether a block is not cut into places.
    pub fn is_vacant(&self, block: usize, guard: &Guard) -> bool {
        self.arena.places().cut(block, guard).places() == 0
    }

    /// Bytes within the limit that any size can have; one load.
    #[inline]
    pub fn free_bytes(&self) -> u64 {
        self.arena.places().free_bytes()
    }

    /// Bytes of records that were retired and whose places wait for guards to go.
    pub fn waiting_bytes(&self) -> u64 {
        self.arena.waiting_bytes()
    }

    /// The block that is worth emptying for the sake of other sizes: the emptiest of the size that has most room. `None` if
    /// none has much.
    pub fn emptiest_block(&self) -> Option<usize> {
        self.arena.places().emptiest()
    }

    /// Keeps new records out of a block that is being emptied.
    pub fn close(&self, block: usize, guard: &Guard) {
        self.arena.close(block, guard);
    }

    /// The records of a block.
    pub fn records_of<'g>(
        &'g self,
        block: usize,
        guard: &'g Guard,
    ) -> impl Iterator<Item = (Location, Record<'g>)> + 'g {
        let places = self.arena.places().cut(block, guard).places();
        (0..places).filter_map(move |place| {
            let at = Location::in_memory(block, place);
            Some((at, self.record(at, guard)?))
        })
    }

    /// Whether a record may have a deadline up to `now_ms`. One load.
    pub fn has_expired(&self, now_ms: u64) -> bool {
        // Acquire: pairs with the Release in `note_deadline`.
        self.deadline.load(Ordering::Acquire) >= u64::MAX - now_ms
    }

    /// Shows every record whose deadline has passed, and notes when the next one does.
    pub fn each_expired(&self, now_ms: u64, mut show: impl FnMut(Location, &Record<'_>, &Guard)) {
        if !self.has_expired(now_ms) {
            return;
        }
        // In this order: a deadline that comes meanwhile is noted once more, behind us.
        self.deadline.store(0, Ordering::Release);
        for block in 0..self.blocks_end() {
            let Some(earliest) = self.deadlines.get(block) else { return };
            let deadline = earliest.load(Ordering::Acquire);
            if deadline < u64::MAX - now_ms {
                self.deadline.fetch_max(deadline, Ordering::Release);
                continue;
            }
            earliest.store(0, Ordering::Release);
            let guard = Guard::pin();
            for (at, record) in self.records_of(block, &guard) {
                match record.deadline_ms() {
                    0 => {}
                    deadline_ms if deadline_ms <= now_ms => show(at, &record, &guard),
                    deadline_ms => self.note_deadline(block, deadline_ms),
                }
            }
        }
    }

    /// Gives memory back to the system that no record needs; returns the bytes.
    pub fn give_back(&self) -> u64 {
        self.arena.places().discard_spare(&*self.arena)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.reclaim();
        self.arena.abandon();
        self.arena.drop_released();
    }
}
