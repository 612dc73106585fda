//! The budget of the memory tier: one number of bytes for the whole store, our overhead counted.
//!
//! Holds sums and bounds, and the permits that callers took. Never holds records; it is told what they take. Invariant: what
//! is asked to leave brings the tier below its bound.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a resident entry takes of the index.
pub(crate) const INDEX_BYTES: u64 = 14;
/// The tier may be this part larger than its capacity for a moment.
const OVERSHOOT: u64 = 100;
/// Memory of the arena beyond the capacity of a small tier, for blocks that are not full.
const SLACK_BYTES: u64 = 2 << 20;
/// So much of the capacity of a large tier is kept free, so that inserting threads need not evict.
const HEADROOM: u64 = 128;
const HEADROOM_BYTES_MAX: u64 = 4 << 20;
/// Where it would be less, inserting threads let entries go one by one: who leaves is chosen best at that moment.
const HEADROOM_BYTES_MIN: u64 = 64 << 10;

/// So much of the arena is kept free for records of any size, at most.
const FREE_BYTES_MAX: u64 = 4 << 20;

/// Bounds on the memory tier.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: AtomicU64,
    /// What memory pressure leaves of it.
    allowance: AtomicU64,
    /// Bytes that somebody has a permit for.
    reserved: AtomicU64,
}

impl Budget {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity: AtomicU64::new(capacity), allowance: AtomicU64::new(u64::MAX), reserved: AtomicU64::new(0) }
    }

    /// What the user set.
    pub(crate) fn capacity(&self) -> u64 {
        // Relaxed, as everywhere here: bounds order nothing.
        self.capacity.load(Ordering::Relaxed)
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.capacity.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_allowance(&self, bytes: Option<u64>) {
        self.allowance.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What the tier may take now, permits taken off.
    #[inline]
    pub(crate) fn bound(&self) -> u64 {
        let bound = self.capacity().min(self.allowance.load(Ordering::Relaxed));
        bound.saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    /// Above this nothing is placed any more.
    pub(crate) fn bound_hard(&self) -> u64 {
        let bound = self.bound();
        bound + bound / OVERSHOOT
    }

    /// Above this the keeper lets entries go, down to [`low`](Self::low).
    pub(crate) fn high(&self) -> u64 {
        let bound = self.bound();
        bound - headroom(bound) / 2
    }

    /// Whether the keeper lets entries go before writers have to.
    pub(crate) fn has_headroom(&self) -> bool {
        self.high() < self.bound()
    }

    /// See [`high`](Self::high).
    pub(crate) fn low(&self) -> u64 {
        let bound = self.bound();
        bound - headroom(bound)
    }

    /// What the arena may take of the machine's memory beside the index words of so many entries.
    pub(crate) fn arena_bytes(&self, entries: u64) -> u64 {
        match self.bound() {
            0 => 0,
            bound => {
                let slack = (bound / OVERSHOOT).max(SLACK_BYTES.saturating_sub(bound / 16));
                (bound + slack).saturating_sub(entries * INDEX_BYTES)
            }
        }
    }

    /// What is kept free for records of any size: below this the keeper makes room.
    #[inline]
    pub(crate) fn free_bytes_min(&self) -> u64 {
        (self.bound() / 64).min(FREE_BYTES_MAX)
    }

    /// Records larger than this are for the log only: they would drive out too much.
    pub(crate) fn record_bytes_max(&self) -> u64 {
        self.bound()
    }

    pub(crate) fn reserve(&self, bytes: u64) {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn headroom(bound: u64) -> u64 {
    match (bound / HEADROOM).min(HEADROOM_BYTES_MAX) {
        ..HEADROOM_BYTES_MIN => 0,
        headroom => headroom,
    }
}
