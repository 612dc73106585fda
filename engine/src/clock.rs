//! Time and sequence: one number that never goes down.
//!
//! Holds the only calls that ask for the time. A sequence is milliseconds since 2020 and a count (`DESIGN.md`,
//! *Record*). Invariant: neither time nor sequences ever run backwards, whatever the wall clock does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_utils::CachePadded;
use rustix::time::{ClockId, clock_gettime};
use thermocline_tiers::log::format::{SEQUENCE_COUNT_BITS, SEQUENCE_EPOCH_MS};

/// Deadlines at or beyond the year 10000 are never.
const NEVER_MS: u64 = 253_402_300_800_000;

/// Sequences tell times up to 2089; a clock beyond that only counts.
const TIME_MS_MAX: u64 = 1 << 41;

/// Where the wall time comes from.
#[derive(Clone, Debug, Default)]
pub enum TimeSource {
    /// The system's clocks: wall time once, at open, then the monotonic clock.
    #[default]
    System,
    /// Milliseconds since the Unix epoch that somebody else sets; for tests.
    Manual(Arc<AtomicU64>),
}

#[derive(Debug)]
pub(crate) struct Clock {
    source: TimeSource,
    /// Wall time at open, or the latest that the store had seen.
    start_ms: u64,
    /// What a manual source said at open, and the latest time it made.
    manual: (u64, AtomicU64),
    /// The monotonic clock at open, in ms.
    monotonic_ms: u64,
    next: CachePadded<AtomicU64>,
}

fn monotonic_ms(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

#[cfg(target_os = "linux")]
const COARSE: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const COARSE: ClockId = ClockId::Monotonic;

impl Clock {
    /// Starts behind `last`, the highest sequence in the log.
    pub(crate) fn new(source: TimeSource, last: u64) -> Self {
        let wall = match &source {
            TimeSource::System => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
            }
            TimeSource::Manual(now) => now.load(Ordering::Relaxed),
        };
        let start_ms = wall.max(created_ms(last));
        let clock = Self {
            source,
            start_ms,
            monotonic_ms: monotonic_ms(ClockId::Monotonic),
            manual: (wall, AtomicU64::new(start_ms)),
            next: AtomicU64::new(last + 1).into(),
        };
        clock.lift();
        clock
    }

    /// Unix time in ms: wall time at open plus the monotonic time since, and never before what the store has seen.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.at(ClockId::Monotonic)
    }

    /// The same, up to a timer tick late and for less.
    #[inline]
    pub(crate) fn now_coarse_ms(&self) -> u64 {
        self.at(COARSE)
    }

    #[inline]
    fn at(&self, clock: ClockId) -> u64 {
        match &self.source {
            TimeSource::System => self.start_ms + monotonic_ms(clock).saturating_sub(self.monotonic_ms),
            TimeSource::Manual(now) => {
                // As the monotonic clock does: on from the start, never back.
                let (at_open, latest) = &self.manual;
                let now_ms = self.start_ms.saturating_add(now.load(Ordering::Relaxed).saturating_sub(*at_open));
                latest.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
            }
        }
    }

    /// Draws `count` sequences and returns the first.
    #[inline]
    pub(crate) fn draw(&self, count: u64) -> u64 {
        // Relaxed: a sequence orders nothing by itself; slots and the log's words do.
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        if created_ms(first) >= self.now_coarse_ms().min(SEQUENCE_EPOCH_MS + TIME_MS_MAX) {
            return first;
        }
        self.lift();
        self.next.fetch_add(count, Ordering::Relaxed)
    }

    fn lift(&self) {
        let floor = self.now_coarse_ms().saturating_sub(SEQUENCE_EPOCH_MS).min(TIME_MS_MAX) << SEQUENCE_COUNT_BITS;
        self.next.fetch_max(floor, Ordering::Relaxed);
    }

    /// A sequence that stands for now, to the millisecond, and no sequence drawn so far is higher.
    pub(crate) fn seen(&self) -> u64 {
        let now_ms = self.now_ms().saturating_sub(SEQUENCE_EPOCH_MS).min(TIME_MS_MAX);
        self.last().max(now_ms << SEQUENCE_COUNT_BITS)
    }

    /// The highest sequence drawn so far.
    pub(crate) fn last(&self) -> u64 {
        self.next.load(Ordering::Relaxed) - 1
    }

    /// When an entry that lives for `ttl` from now on expires; 0: never.
    pub(crate) fn deadline_ms(&self, ttl: Duration) -> u64 {
        let ttl_ms = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let deadline = self.now_ms().saturating_add(ttl_ms);
        if deadline >= NEVER_MS { 0 } else { deadline }
    }

    /// What is left until `deadline_ms`; `None` if it has passed.
    #[inline]
    pub(crate) fn left(&self, deadline_ms: u64) -> Option<Duration> {
        deadline_ms.checked_sub(self.now_ms()).filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// Whether a record with this deadline is gone. Asks for the time only if there is a deadline.
    #[inline]
    pub(crate) fn has_passed(&self, deadline_ms: u64) -> bool {
        deadline_ms != 0 && self.left(deadline_ms).is_none()
    }
}

/// Unix time in ms at which a sequence was drawn, or earlier if the clock was behind the store.
pub(crate) fn created_ms(sequence: u64) -> u64 {
    (sequence >> SEQUENCE_COUNT_BITS) + SEQUENCE_EPOCH_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_rise_while_the_wall_clock_falls() {
        let wall = Arc::new(AtomicU64::new(SEQUENCE_EPOCH_MS + 5_000));
        let clock = Clock::new(TimeSource::Manual(wall.clone()), 0);
        let first = clock.draw(1);
        assert_eq!(created_ms(first), SEQUENCE_EPOCH_MS + 5_000);
        wall.store(SEQUENCE_EPOCH_MS + 1_000, Ordering::Relaxed);
        assert!(clock.draw(10) > first);
        assert_eq!(clock.now_ms(), SEQUENCE_EPOCH_MS + 5_000);
        wall.store(SEQUENCE_EPOCH_MS + 9_000, Ordering::Relaxed);
        assert_eq!(created_ms(clock.draw(1)), SEQUENCE_EPOCH_MS + 9_000);
        let reopened = Clock::new(TimeSource::Manual(Arc::new(AtomicU64::new(0))), clock.last());
        assert_eq!(reopened.now_ms(), SEQUENCE_EPOCH_MS + 9_000, "time is what the store has seen");
    }

    #[test]
    fn a_deadline_is_never_early_and_beyond_9999_is_never() {
        let wall = Arc::new(AtomicU64::new(SEQUENCE_EPOCH_MS));
        let clock = Clock::new(TimeSource::Manual(wall.clone()), 0);
        let deadline = clock.deadline_ms(Duration::from_nanos(1));
        assert!(!clock.has_passed(deadline));
        wall.fetch_add(1, Ordering::Relaxed);
        assert!(clock.has_passed(deadline));
        assert_eq!(clock.deadline_ms(Duration::MAX), 0);
        assert!(!clock.has_passed(0));
    }
}
