//! Segment slots: which of them no segment has, and which is used next.
//!
//! Holds numbers alone. Invariant: a slot is used again only when all that were never used are, and of those that rest the one that
//! has rested longest comes first.

use std::{collections::VecDeque, ops::Range};

#[derive(Debug)]
pub(super) struct Slots {
    /// From here on none was ever used.
    fresh: usize,
    /// How many there are.
    count: usize,
    /// Those that are free again, in the order in which they became so.
    resting: VecDeque<usize>,
}

impl Slots {
    /// So many slots, all of which are free but those of `taken`, which are apart and in order; `None` if there are not so many.
    pub(super) fn new(count: usize, taken: &[Range<usize>]) -> Option<Self> {
        let (mut resting, mut fresh) = (VecDeque::new(), 0);
        for range in taken {
            resting.extend(fresh..range.start);
            fresh = range.end;
        }
        (fresh <= count).then_some(Self { fresh, count, resting })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        self.count - self.fresh + self.resting.len()
    }

    /// Takes so many that are side by side, and returns the first; `None` if there are none.
    pub(super) fn take(&mut self, count: usize) -> Option<usize> {
        if self.fresh + count <= self.count {
            self.fresh += count;
            return Some(self.fresh - count);
        }
        // Too few of them: they come before all others that are alone.
        for slot in (self.fresh..self.count).rev() {
            self.resting.push_front(slot);
        }
        self.fresh = self.count;
        if count == 1 {
            return self.resting.pop_front();
        }
        let first = self.longest_resting(count)?;
        self.resting.retain(|slot| !(first..first + count).contains(slot));
        Some(first)
    }

    /// Of all places with so many side by side that rest the one whose last slot to become free has rested longest.
    fn longest_resting(&self, count: usize) -> Option<usize> {
        if self.resting.len() < count {
            return None;
        }
        let mut turns = vec![usize::MAX; self.count];
        self.resting.iter().enumerate().for_each(|(turn, slot)| turns[*slot] = turn);
        let last_turns = turns.windows(count).map(|turns| turns.iter().copied().max().unwrap_or(usize::MAX));
        let (last_turn, first) = last_turns.zip(0..).min()?;
        (last_turn < usize::MAX).then_some(first)
    }

    /// Gives slots back.
    pub(super) fn give(&mut self, slots: Range<usize>) {
        self.resting.extend(slots);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_ones_come_first_and_then_what_has_rested_longest() {
        let mut slots = Slots::new(5, &[]).unwrap();
        assert_eq!([1, 1, 1].map(|count| slots.take(count)), [Some(0), Some(1), Some(2)]);
        slots.give(1..2);
        slots.give(0..1);
        assert_eq!((slots.take(1), slots.free()), (Some(3), 3));
        assert_eq!([1, 1, 1, 1].map(|count| slots.take(count)), [Some(4), Some(1), Some(0), None]);
        slots.give(2..5);
        assert_eq!((slots.take(4), slots.take(3), slots.free()), (None, Some(2), 0));
    }

    #[test]
    fn several_side_by_side_are_those_of_which_none_became_free_late() {
        let mut slots = Slots::new(8, &[0..3, 3..8]).unwrap();
        [5, 0, 4, 1, 2, 6, 7, 3].into_iter().for_each(|slot| slots.give(slot..slot + 1));
        assert_eq!(slots.take(2), Some(4));
        assert_eq!(slots.take(3), Some(0));
        assert_eq!((slots.take(2), slots.take(2), slots.take(1)), (Some(6), None, Some(3)));
    }

    #[test]
    fn gaps_between_those_that_are_taken_are_free() {
        let mut slots = Slots::new(6, &[1..3, 4..5]).unwrap();
        assert_eq!(slots.free(), 3);
        assert_eq!((slots.take(2), slots.take(1), slots.take(1)), (None, Some(5), Some(0)));
        assert_eq!((slots.take(1), slots.take(1), slots.count()), (Some(3), None, 6));
        assert!(Slots::new(4, &[1..3, 4..5]).is_none());
    }
}
