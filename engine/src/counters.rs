//! Counts of what happened, striped per thread so that a hit writes nothing that another core reads.
//!
//! Holds numbers only. Invariant: a stripe has one writer, the thread of its number, so counting is a load
//! and a store; threads beyond the stripes share the last one and pay for an atomic add.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
};

use crossbeam_utils::CachePadded;
use thermocline_tiers::Guard;

const STRIPES: usize = 64;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Count {
    HitMemory,
    HitLog,
    MissAbsent,
    MissRemoved,
    MissExpired,
    /// Of an object: its bytes are damaged, or say nothing to who asked.
    MissUnreadable,
    Insertion,
    Removal,
    BytesWritten,
    /// Bytes of segments that compaction went over, of records that it copied, and of files that it freed.
    BytesScanned,
    BytesCompacted,
    BytesReclaimed,
    /// Bytes of values before and after compression, and how long that took.
    BytesBeforePacking,
    BytesPacked,
    PackingNanos,
    /// Keys that came and keys that went; their difference is the length.
    Added,
    Taken,
    /// Bytes of records that came and went.
    LiveBytesAdded,
    LiveBytesTaken,
    Promotion,
    /// Entries that left memory and stayed in the log.
    Demotion,
    /// Entries that left memory, by reason.
    EvictedExpired,
    EvictedCapacity,
    EvictedPressure,
    EvictedManual,
    /// Entries that left the log, because there was no room for them.
    EvictedDiskCapacity,
    /// Entries that left the log, because they had expired.
    ExpiredLogged,
    /// Entries that left their namespace, because it had too many.
    EvictedBound,
    /// Values that did not get into memory: too large for it, or no room in time.
    Rejected,
}

const COUNTS: usize = Count::Rejected as usize + 1;

/// The counters of one store.
pub(crate) type Counters = Striped<Count, COUNTS>;

impl From<Count> for usize {
    #[inline]
    fn from(count: Count) -> Self {
        count as Self
    }
}

/// `N` counters, named by a `C`.
#[derive(Debug)]
pub(crate) struct Striped<C, const N: usize>(Box<[CachePadded<[AtomicU64; N]>]>, PhantomData<C>);

impl<C, const N: usize> Default for Striped<C, N> {
    fn default() -> Self {
        let stripe = |_| CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self((0..=STRIPES).map(stripe).collect(), PhantomData)
    }
}

impl<C: Into<usize>, const N: usize> Striped<C, N> {
    /// Adds `amount` to a count. Wait-free.
    #[inline]
    pub(crate) fn add(&self, count: C, amount: u64, guard: &Guard) {
        self.add_all([(count, amount)], guard);
    }

    /// Adds one to a count; returns it as this thread knows it.
    #[inline]
    pub(crate) fn add_one(&self, count: C, guard: &Guard) -> u64 {
        let number = guard.thread_number();
        let counter = &self.0[number.min(STRIPES)][count.into()];
        // Relaxed: a count orders nothing.
        if number < STRIPES {
            let after = counter.load(Ordering::Relaxed).wrapping_add(1);
            counter.store(after, Ordering::Relaxed);
            after
        } else {
            counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
        }
    }

    /// Adds to several counts at the price of finding the stripe once.
    #[inline]
    pub(crate) fn add_all(&self, amounts: impl IntoIterator<Item = (C, u64)>, guard: &Guard) {
        let number = guard.thread_number();
        let counters = &self.0[number.min(STRIPES)];
        for (count, amount) in amounts {
            let counter = &counters[count.into()];
            // Relaxed: a count orders nothing.
            if number < STRIPES {
                counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
            } else {
                counter.fetch_add(amount, Ordering::Relaxed);
            }
        }
    }

    /// The sum over all threads.
    pub(crate) fn sum(&self, count: C) -> u64 {
        let index = count.into();
        self.0.iter().map(|stripe| stripe[index].load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_lost_when_threads_come_and_go() {
        let counters = Counters::default();
        for _ in 0..4 {
            std::thread::scope(|scope| {
                for _ in 0..STRIPES / 2 + 10 {
                    scope.spawn(|| (0..50).for_each(|_| counters.add(Count::HitLog, 1, &Guard::pin())));
                }
            });
        }
        assert_eq!(counters.sum(Count::HitLog), 4 * (STRIPES as u64 / 2 + 10) * 50);
    }
}
