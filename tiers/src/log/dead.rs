//! What is known of the records of one segment that no key needs, or will not need before long.
//!
//! Holds sums and bounds, each kept by whoever places a record or displaces one. Never knows what is alive: it is told. Invariant:
//! as long as the segment is there no dead value in it is older than its bounds say.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{
    deadlines::Deadlines,
    format::{Header, RecordKind},
};

#[derive(Debug)]
pub(crate) struct Dead {
    bytes: AtomicU64,
    /// The lowest sequence of a dead value, or the highest number there is.
    oldest: AtomicU64,
    /// The lowest and the highest sequence of a dead value that would live on if what took its place was gone.
    outliving: AtomicU64,
    last_outliving: AtomicU64,
    /// Bytes of removals that are not dead, and the highest sequence of one.
    removals: AtomicU64,
    last_removal: AtomicU64,
    /// What has a deadline, and 1 if any value has none, or may have none.
    deadlines: Deadlines,
    lasting: AtomicU64,
    /// Bytes of the file, once it was measured; it is sealed then.
    pub(super) file_bytes: AtomicU64,
    /// Only compaction writes to it.
    pub(super) is_cold: AtomicBool,
    /// It has one record, and its writer alone writes to it.
    pub(super) is_alone: AtomicBool,
    /// The file is gone.
    is_gone: AtomicBool,
    /// Something in it is damaged: it stays as it is, for whoever can make sense of it.
    is_damaged: AtomicBool,
}

impl Default for Dead {
    fn default() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            oldest: AtomicU64::new(u64::MAX),
            outliving: AtomicU64::new(u64::MAX),
            last_outliving: AtomicU64::new(0),
            removals: AtomicU64::new(0),
            last_removal: AtomicU64::new(0),
            deadlines: Deadlines::default(),
            lasting: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
            is_cold: AtomicBool::new(false),
            is_alone: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
        }
    }
}

impl Dead {
    /// How many figures [`figures`](Self::figures) gives.
    pub(crate) const FIGURES: usize = 10;

    /// Of a segment that an earlier process has written, and that nobody has read yet.
    pub(crate) fn unknown() -> Self {
        Self { lasting: AtomicU64::new(1), ..Self::default() }
    }

    /// To be called before every record is noted that is in a segment of which nothing is known.
    pub(crate) fn note_nothing(&self) {
        self.lasting.store(0, Ordering::Relaxed);
    }

    fn fields(&self) -> [&AtomicU64; Self::FIGURES - 3] {
        let Self { bytes, oldest, removals, last_removal, lasting, outliving, last_outliving, .. } = self;
        [bytes, oldest, removals, last_removal, lasting, outliving, last_outliving]
    }

    /// What is known, for the next process.
    pub(crate) fn figures(&self) -> [u64; Self::FIGURES] {
        let figures = self.fields().map(|figure| figure.load(Ordering::Relaxed));
        let [bytes, oldest, removals, last_removal, lasting, outliving, last_outliving] = figures;
        let [expiring, first, last] = self.deadlines.figures();
        [bytes, oldest, removals, last_removal, expiring, first, last, lasting, outliving, last_outliving]
    }

    /// Goes on from what an earlier process knew.
    pub(crate) fn restore(&self, figures: [u64; Self::FIGURES]) {
        let [bytes, oldest, removals, last_removal, expiring, first, last, lasting, outliving, last_outliving] =
            figures;
        self.deadlines.restore([expiring, first, last]);
        let figures = [bytes, oldest, removals, last_removal, lasting, outliving, last_outliving];
        self.fields().into_iter().zip(figures).for_each(|(field, figure)| field.store(figure, Ordering::Relaxed));
    }

    /// How much of it is dead.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether anything in it is dead.
    pub(crate) fn is_there(&self) -> bool {
        self.bytes() > 0
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn is_gone(&self) -> bool {
        // Acquire: whoever sees a segment gone sees who took its records.
        self.is_gone.load(Ordering::Acquire)
    }

    /// Its file goes now: nobody looks for it any more.
    pub(crate) fn set_gone(&self) {
        // Release: pairs with the Acquire in `is_gone`.
        self.is_gone.store(true, Ordering::Release);
    }

    /// Its file could not be removed.
    pub(crate) fn set_there(&self) {
        self.is_gone.store(false, Ordering::Release);
    }

    pub(crate) fn set_damaged(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_alone(&self) {
        self.is_alone.store(true, Ordering::Relaxed);
    }

    /// Notes a record of so many bytes that was placed, or found.
    #[inline]
    pub(crate) fn note_placed(&self, bytes: u64, header: &Header) {
        // Relaxed, here and below: sums and bounds, which order nothing.
        if header.kind == RecordKind::Tombstone {
            self.removals.fetch_add(bytes, Ordering::Relaxed);
            self.last_removal.fetch_max(header.sequence, Ordering::Relaxed);
        } else if header.deadline_ms != 0 {
            self.deadlines.add(bytes, header);
        } else if self.lasting.load(Ordering::Relaxed) == 0 {
            self.lasting.store(1, Ordering::Relaxed);
        }
    }

    /// Notes that so many bytes are no record.
    pub(crate) fn note_void(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back that a record was placed: it is a void by now.
    pub(crate) fn note_voided(&self, bytes: u64, header: &Header) {
        self.note_void(bytes);
        if header.kind.is_value() && header.deadline_ms != 0 {
            self.deadlines.take(bytes, header);
        }
    }

    /// Notes that no key needs a record any more. `outlives` says of a value that it may live on if what took its place was gone.
    pub(crate) fn note_dead(&self, bytes: u64, header: &Header, outlives: bool) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if !header.kind.is_value() {
            let left = |removals: u64| Some(removals.saturating_sub(bytes));
            let _ = self.removals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
            return;
        }
        lower(&self.oldest, header.sequence);
        if outlives {
            self.note_outliving(header.sequence, header.sequence);
        }
        if header.deadline_ms != 0 {
            self.deadlines.take(bytes, header);
        }
    }

    fn note_outliving(&self, oldest: u64, newest: u64) {
        lower(&self.outliving, oldest);
        if newest > self.last_outliving.load(Ordering::Relaxed) {
            self.last_outliving.fetch_max(newest, Ordering::Relaxed);
        }
    }

    /// Notes that something of it may stand elsewhere, which can be removed while this is still here; and that nothing is known for
    /// certain any more of what it has.
    pub(crate) fn note_left(&self) {
        self.oldest.store(0, Ordering::Relaxed);
        self.note_outliving(0, u64::MAX);
        self.lasting.store(1, Ordering::Relaxed);
    }

    /// Notes that another segment goes. What stood there and outlived its successors was older than those; what is older still, and
    /// here, may have been protected by it.
    pub(crate) fn note_dropped(&self, other: &Self) {
        let newest = other.last_outliving.load(Ordering::Relaxed);
        let oldest = self.oldest.load(Ordering::Relaxed);
        if oldest < newest {
            self.note_outliving(oldest, newest);
        }
    }

    /// Notes that segments have gone of which it is not known what they had.
    pub(crate) fn note_some_gone(&self) {
        let oldest = self.oldest.load(Ordering::Relaxed);
        if oldest < u64::MAX {
            self.note_outliving(oldest, u64::MAX);
        }
    }

    /// Whether every value in it has expired, whatever became of it: none will ever be read again.
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        let [_, _, last] = self.deadlines.figures();
        self.lasting.load(Ordering::Relaxed) == 0 && last <= now_ms
    }

    /// The lowest sequences of dead values that may come back if nothing newer is left of their keys.
    pub(crate) fn older(&self, now_ms: u64) -> Older {
        if self.is_damaged() {
            return Older { any: 0, outliving: 0 };
        }
        if self.is_expired(now_ms) {
            return Older::NONE;
        }
        let [any, outliving] = [&self.oldest, &self.outliving].map(|oldest| oldest.load(Ordering::Relaxed));
        Older { any, outliving }
    }

    /// The same, if another segment was gone.
    pub(crate) fn older_without(&self, gone: &Self, now_ms: u64) -> Older {
        let older = self.older(now_ms);
        match older.any < gone.last_outliving.load(Ordering::Relaxed) {
            true => Older { outliving: older.outliving.min(older.any), ..older },
            false => older,
        }
    }

    /// Bytes of values that have a deadline and that their keys need.
    pub(crate) fn expiring_bytes(&self) -> u64 {
        self.deadlines.figures()[0]
    }

    /// About how many bytes are dead now: those that were said to be, what has expired, and removals if nothing is left for them.
    pub(crate) fn bytes_at(&self, now_ms: u64, older: Older) -> u64 {
        let dead = self.bytes().saturating_add(self.deadlines.expired_at(now_ms));
        let removals = if self.are_removals_needless(older) { self.removals.load(Ordering::Relaxed) } else { 0 };
        dead.saturating_add(removals)
    }

    /// Whether nothing elsewhere is older than its removals.
    pub(crate) fn are_removals_needless(&self, older: Older) -> bool {
        self.last_removal.load(Ordering::Relaxed) < older.any
    }
}

/// Lowers a bound.
fn lower(bound: &AtomicU64, to: u64) {
    if to < bound.load(Ordering::Relaxed) {
        bound.fetch_min(to, Ordering::Relaxed);
    }
}

/// What is dead elsewhere, and may come back when nothing newer of its key is left: the lowest sequence of such a value, and of one
/// that may outlive what took its place. Above the first no removal can be forgotten, above the second nothing that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    /// The lowest sequence of a dead value.
    pub any: u64,
    /// The same of those that expire later than what took their place, or never.
    pub outliving: u64,
}

impl Older {
    /// There is nothing.
    pub(crate) const NONE: Self = Self { any: u64::MAX, outliving: u64::MAX };

    pub(crate) fn min(self, other: Self) -> Self {
        Self { any: self.any.min(other.any), outliving: self.outliving.min(other.outliving) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(sequence: u64, deadline_ms: u64) -> Header {
        Header { kind: RecordKind::Value, sequence, deadline_ms }
    }

    #[test]
    fn what_has_expired_as_a_whole_has_nothing_that_may_come_back() {
        let dead = Dead::default();
        (1..=3).for_each(|sequence| dead.note_placed(100, &value(sequence, 1_000 * sequence)));
        dead.note_dead(100, &value(2, 2_000), true);
        assert!(!dead.is_expired(2_999) && dead.is_expired(3_000));
        assert_eq!(dead.older(2_999), Older { any: 2, outliving: 2 });
        assert_eq!(
            (dead.older(3_000), dead.expiring_bytes(), dead.bytes_at(3_000, Older::NONE)),
            (Older::NONE, 200, 300)
        );
        dead.note_placed(100, &value(4, 0));
        assert!(!dead.is_expired(3_000), "one that lasts");
        assert!(!Dead::unknown().is_expired(u64::MAX), "nobody knows");
    }

    #[test]
    fn what_a_dropped_segment_protected_its_key_from_counts_as_outliving() {
        let [older, dropped, later, oldest] = [0; 4].map(|_| Dead::unknown());
        older.note_dead(1, &value(3, 0), false);
        later.note_dead(1, &value(8, 0), false);
        dropped.note_dead(1, &value(5, 0), true);
        [&older, &later].into_iter().for_each(|other| other.note_dropped(&dropped));
        assert_eq!(older.older(0), Older { any: 3, outliving: 3 });
        assert_eq!(later.older(0), Older { any: 8, outliving: u64::MAX });
        let other = Dead::unknown();
        other.note_dead(1, &value(4, 0), false);
        assert_eq!(other.older_without(&dropped, 0), Older { any: 4, outliving: 4 }, "before it goes");
        assert_eq!(later.older_without(&dropped, 0), later.older(0));
        oldest.note_dead(1, &value(2, 0), false);
        oldest.note_dropped(&older);
        assert_eq!(oldest.older(0), Older { any: 2, outliving: 2 }, "and so on");
    }

    #[test]
    fn figures_go_to_the_next_process_and_back() {
        let (dead, next) = (Dead::default(), Dead::unknown());
        dead.note_placed(100, &value(1, 5_000));
        dead.note_placed(40, &Header { kind: RecordKind::Tombstone, sequence: 2, deadline_ms: 0 });
        dead.note_dead(100, &value(1, 5_000), true);
        next.restore(dead.figures());
        assert_eq!(next.figures(), dead.figures());
        assert!(next.is_expired(5_000));
    }
}
