//! The pace of a compaction: as fast as can be, told to somebody, or slow enough that callers feel little of it.
//!
//! Holds the waiting and what callers felt. How long is decided in `throttle.rs`. Invariant: nobody waits for compaction while it
//! waits itself.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crossbeam_utils::CachePadded;
use thermocline_tiers::{Guard, log::Sealed};

use crate::{
    counters::Count,
    engine::Core,
    throttle::{Felt, Moment, STEP_BYTES, Throttle, behind_ns},
};

/// A write is timed if the low bits of its sequence are zero.
const TIMED_MASK: u64 = 63;
/// A call that takes longer has met something else.
const TIMED_NS_MAX: u64 = 1_000_000;
/// After so long the one who waits looks whether somebody waits for him.
const LOOK_AFTER: Duration = Duration::from_millis(2);

/// How far a [`compact`](Core::compact) has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of the log that were gone over.
    pub bytes_done: u64,
    /// Bytes of all that were chosen when it began.
    pub bytes_total: u64,
}

/// How fast segments are gone over.
pub(crate) enum Pace<'a> {
    /// As fast as can be.
    Full,
    /// So that callers feel little of it.
    Throttled,
    /// As fast as can be, and somebody hears of each stretch of bytes.
    Told(&'a mut dyn FnMut(u64)),
}

/// What callers felt lately, and who waits.
#[derive(Debug, Default)]
pub(crate) struct Feeling {
    calls: CachePadded<AtomicU64>,
    nanos: AtomicU64,
    /// How many ns who writes next waits because compaction is behind.
    behind_ns: AtomicU64,
    /// Those who wait for a compaction to end.
    waiting: AtomicUsize,
    start: Start,
}

#[derive(Debug)]
struct Start(Instant);

impl Default for Start {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Feeling {
    /// When a write began, if it is one of those that are timed.
    #[inline]
    pub(crate) fn begin(&self, sequence: u64) -> Option<Instant> {
        if sequence & TIMED_MASK == 0 { Some(Instant::now()) } else { None }
    }

    /// Notes how long a write took.
    #[inline]
    pub(crate) fn end(&self, began: Option<Instant>) {
        if let Some(began) = began {
            self.note(began);
        }
    }

    #[cold]
    fn note(&self, began: Instant) {
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX).min(TIMED_NS_MAX);
        // Relaxed: sums, which order nothing; of one call it does not matter.
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// What was timed since this was last asked.
    pub(crate) fn take(&self) -> Felt {
        Felt { calls: self.calls.swap(0, Ordering::Relaxed), nanos: self.nanos.swap(0, Ordering::Relaxed) }
    }

    /// Waits as `wait` does, and has a compaction that goes slowly make haste meanwhile.
    pub(crate) fn hasten<R>(&self, wait: impl FnOnce() -> R) -> R {
        // Relaxed: a hint.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = wait();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        waited
    }

    fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Core {
    /// To be asked when some MiB were appended: whether compaction keeps up, and how long somebody waits if not.
    pub(crate) fn look_behind(&self) {
        if !self.options.compacts || self.log.is_bounded() {
            return;
        }
        let sum = |count| self.counters.sum(count);
        let live = sum(Count::LiveBytesAdded).saturating_sub(sum(Count::LiveBytesTaken));
        let behind_ns = behind_ns(self.log.dead_bytes(), live, self.options.segment_bytes);
        // Relaxed: one who waits sooner or later is as good as another.
        self.feeling.behind_ns.store(behind_ns, Ordering::Relaxed);
    }

    /// Lets compaction catch up, if it is this writer's turn to wait. No guard is held.
    #[inline]
    pub(crate) fn wait_behind(&self) {
        if self.feeling.behind_ns.load(Ordering::Relaxed) > 0 {
            self.wait_behind_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_behind_slow(&self) {
        // Inside `read` compaction would wait for the one who waits for it.
        if !Guard::is_pinned() {
            thread::sleep(Duration::from_nanos(self.feeling.behind_ns.swap(0, Ordering::Relaxed)));
        }
    }
}

/// What keeps the pace of one compaction.
pub(crate) struct Pacer<'a, 'b> {
    pub(crate) core: &'a Core,
    pub(crate) pace: Pace<'b>,
    pub(crate) throttle: &'a mut Throttle,
    /// Bytes to go over for each that comes back.
    pub(crate) cost: f64,
    /// Bytes gone over since the last look, and of this segment.
    pub(crate) step: u64,
    pub(crate) segment_bytes: u64,
}

impl Pacer<'_, '_> {
    /// So many bytes more were gone over.
    #[inline]
    pub(crate) fn pass(&mut self, bytes: u64) {
        self.step += bytes;
        self.segment_bytes += bytes;
        if self.step >= STEP_BYTES {
            self.look();
        }
    }

    /// A segment of so many bytes was gone over, what is no record included.
    pub(crate) fn end_segment(&mut self, bytes: u64) {
        self.step += bytes.saturating_sub(std::mem::take(&mut self.segment_bytes));
        self.look();
    }

    /// So many bytes were gone over once more.
    pub(crate) fn pass_again(&mut self, bytes: u64) {
        if matches!(self.pace, Pace::Throttled) {
            self.pass(bytes);
        }
    }

    /// Tells, or waits, as is due.
    fn look(&mut self) {
        let bytes = std::mem::take(&mut self.step);
        match &mut self.pace {
            Pace::Full => {}
            Pace::Told(tell) => tell(bytes),
            Pace::Throttled => {
                let (core, feeling) = (self.core, &self.core.feeling);
                self.throttle.note_felt(feeling.take());
                let now = Moment {
                    nanos: feeling.start.0.elapsed().as_nanos() as u64,
                    appended_bytes: core.counters.sum(Count::BytesWritten),
                };
                let mut left = Duration::from_nanos(self.throttle.wait_ns(now, bytes, self.cost));
                while !left.is_zero() && !feeling.is_awaited() && !core.compactor.is_ending() {
                    let part = left.min(LOOK_AFTER);
                    thread::sleep(part);
                    left -= part;
                }
            }
        }
    }
}

/// Bytes to go over for each that comes back of these segments.
pub(crate) fn cost(chosen: &[Sealed]) -> f64 {
    let (all, dead) = chosen.iter().fold((0, 0), |(all, dead), one| (all + one.bytes, dead + one.dead_bytes));
    all as f64 / dead.max(1) as f64
}
