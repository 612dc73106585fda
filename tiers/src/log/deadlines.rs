//! How much of a segment expires when.
//!
//! Holds sums by the time that records have to live, in classes that grow eightfold, so that what lives for seconds is not taken for
//! what lives for hours because both are in one segment. Never asks for the time. Invariant: the sum over all classes is exact in the
//! process that wrote the records; how it is spread between a class's first deadline and its last is a guess.

use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{Header, SEQUENCE_COUNT_BITS, SEQUENCE_EPOCH_MS};

/// How many classes there are; the last one is for whatever lives longer.
pub(super) const CLASSES: usize = 8;
/// The first class is up to a minute.
const FIRST_CLASS_MS: u64 = 60_000;

/// The class of what has so long to live: a minute, 8 minutes, an hour, 8 hours, 3 days, 3 weeks, half a year, longer.
#[inline]
pub(super) fn class_of(left_ms: u64) -> usize {
    match left_ms.saturating_sub(1) / FIRST_CLASS_MS {
        0 => 0,
        times => (times.ilog2() as usize / 3 + 1).min(CLASSES - 1),
    }
}

/// The records of one class that are needed: their bytes, and the first and the last deadline that any ever had.
#[derive(Debug)]
struct Class {
    bytes: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Deadlines([Class; CLASSES]);

impl Default for Deadlines {
    fn default() -> Self {
        let class = |_| Class { bytes: AtomicU64::new(0), first: AtomicU64::new(u64::MAX), last: AtomicU64::new(0) };
        Self(std::array::from_fn(class))
    }
}

impl Deadlines {
    fn class(&self, header: &Header) -> &Class {
        let created_ms = (header.sequence >> SEQUENCE_COUNT_BITS) + SEQUENCE_EPOCH_MS;
        &self.0[class_of(header.deadline_ms.saturating_sub(created_ms))]
    }

    /// Notes a record of so many bytes that has a deadline.
    pub(crate) fn add(&self, bytes: u64, header: &Header) {
        let class = self.class(header);
        // Relaxed, here and below: sums and bounds, which order nothing.
        class.bytes.fetch_add(bytes, Ordering::Relaxed);
        if header.deadline_ms < class.first.load(Ordering::Relaxed) {
            class.first.fetch_min(header.deadline_ms, Ordering::Relaxed);
        }
        if header.deadline_ms > class.last.load(Ordering::Relaxed) {
            class.last.fetch_max(header.deadline_ms, Ordering::Relaxed);
        }
    }

    /// Notes that nobody needs such a record any more. What came from another process may stand in another class.
    pub(crate) fn take(&self, bytes: u64, header: &Header) {
        self.class(header).bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes of all classes, their first deadline and their last.
    pub(crate) fn figures(&self) -> [u64; 3] {
        let [bytes, first, last] = self.0.iter().fold([0, u64::MAX, 0], |[bytes, first, last], class| {
            let [more, one, other] = class.figures();
            [u64::wrapping_add(bytes, more), first.min(one), last.max(other)]
        });
        // Less than nothing: recovery may take twice what was displaced while a snapshot was written.
        [if bytes > u64::MAX >> 1 { 0 } else { bytes }, first, last]
    }

    /// Goes on from what an earlier process knew.
    pub(crate) fn restore(&self, [bytes, first, last]: [u64; 3]) {
        let class = &self.0[CLASSES - 1];
        class.bytes.store(bytes, Ordering::Relaxed);
        class.first.store(first, Ordering::Relaxed);
        class.last.store(last, Ordering::Relaxed);
    }

    /// About how many bytes have expired: all of a class whose last deadline has passed, of the others a part that grows from the
    /// first one on.
    pub(crate) fn expired_at(&self, now_ms: u64) -> u64 {
        let [all, _, last] = self.figures();
        if now_ms >= last {
            return all;
        }
        let expired_of = |class: &Class| match class.figures() {
            // More was taken from it than it had: that was another process's.
            [bytes, ..] if bytes > u64::MAX >> 1 => 0,
            [bytes, _, last] if now_ms >= last => bytes,
            [_, first, _] if now_ms <= first => 0,
            [bytes, first, last] => (u128::from(bytes) * u128::from(now_ms - first) / u128::from(last - first)) as u64,
        };
        self.0.iter().map(expired_of).sum::<u64>().min(all)
    }
}

impl Class {
    fn figures(&self) -> [u64; 3] {
        [&self.bytes, &self.first, &self.last].map(|figure| figure.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RecordKind;

    fn living(created_ms: u64, left_ms: u64) -> Header {
        let sequence = (created_ms - SEQUENCE_EPOCH_MS) << SEQUENCE_COUNT_BITS;
        Header { kind: RecordKind::Value, sequence, deadline_ms: created_ms + left_ms }
    }

    #[test]
    fn classes_grow_eightfold_from_a_minute_on() {
        let minutes = [1, 8, 64, 512, 4096, 32_768, 262_144];
        for (class, minutes) in minutes.into_iter().enumerate() {
            assert_eq!([class_of(minutes * 60_000), class_of(minutes * 60_000 + 1)], [class, class + 1]);
        }
        assert_eq!([class_of(0), class_of(1), class_of(u64::MAX)], [0, 0, CLASSES - 1]);
    }

    #[test]
    fn what_lives_for_seconds_is_not_spread_over_the_hours_of_others() {
        let (deadlines, start) = (Deadlines::default(), SEQUENCE_EPOCH_MS + 1_000_000);
        for second in 0..10 {
            deadlines.add(100, &living(start + second * 1_000, 1_000));
            deadlines.add(100, &living(start + second * 1_000, 3_600_000));
        }
        assert_eq!(deadlines.expired_at(start), 0);
        assert_eq!(deadlines.expired_at(start + 10_000), 1_000);
        assert_eq!(deadlines.expired_at(start + 3_600_000 + 9_000), 2_000);
        deadlines.take(100, &living(start, 1_000));
        assert_eq!(deadlines.expired_at(start + 10_000), 900);
    }

    #[test]
    fn what_another_process_knew_is_spread_evenly_and_sums_up() {
        let (deadlines, start) = (Deadlines::default(), SEQUENCE_EPOCH_MS + 1_000_000);
        deadlines.restore([1_000, start, start + 1_000]);
        assert_eq!(deadlines.expired_at(start + 500), 500);
        deadlines.take(100, &living(start - 500, 600));
        assert_eq!(deadlines.figures(), [900, start, start + 1_000]);
        assert!(deadlines.expired_at(start + 999) <= 900);
        assert_eq!(deadlines.expired_at(start + 1_000), 900);
    }
}
