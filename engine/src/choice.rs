//! Which segment is compacted next: a choice over numbers, nothing else.
//!
//! Cost against benefit as in log-structured file systems (Rosenblum and Ousterhout, 1992): space that comes back, times the age of
//! what stays, over the bytes to read and write.

use thermocline_tiers::log::Sealed;

/// So much of the log may be dead, in percent, before anything is compacted that is alive in parts.
const DEAD_PERCENT_MAX: u64 = 30;
/// A segment with less that is dead, in percent, costs more than it gives.
const DEAD_PERCENT_MIN: u64 = 5;

/// What is asked of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Only what pays.
    Steady,
    /// Whatever gives anything back.
    Full,
}

fn live_bytes(segment: &Sealed) -> u64 {
    segment.bytes.saturating_sub(segment.dead_bytes)
}

/// The segment to compact next, if any is worth it.
pub(crate) fn choose(sealed: &[Sealed], effort: Effort) -> Option<Sealed> {
    let sum = |bytes: fn(&Sealed) -> u64| sealed.iter().map(bytes).sum::<u64>();
    let (dead, all) = (sum(|segment| segment.dead_bytes.min(segment.bytes)), sum(|segment| segment.bytes));
    let has_much = dead * 100 > all * DEAD_PERCENT_MAX;
    let newest = sealed.iter().map(|segment| segment.number).max()?;
    let benefit = |segment: &Sealed| {
        let live = live_bytes(segment) as f64 / segment.bytes.max(1) as f64;
        (1.0 - live) * (newest - segment.number + 1) as f64 / (1.0 + live)
    };
    let is_worth_it = |segment: &&Sealed| {
        let percent = if effort == Effort::Full { 0 } else { DEAD_PERCENT_MIN };
        segment.dead_bytes > 0 && segment.dead_bytes * 100 >= segment.bytes * percent
    };
    // What is dead as a whole costs nothing.
    let is_empty = |segment: &&Sealed| live_bytes(segment) <= segment.bytes / 256;
    let chosen =
        sealed.iter().filter(is_worth_it).filter(|segment| effort == Effort::Full || has_much || is_empty(segment));
    chosen.max_by(|a, b| benefit(a).total_cmp(&benefit(b))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(dead: &[u64]) -> Vec<Sealed> {
        (1..).zip(dead).map(|(number, dead)| Sealed::new(number, 1000, *dead)).collect()
    }

    #[test]
    fn what_is_dead_as_a_whole_goes_first_and_little_is_left_alone() {
        assert_eq!(choose(&[], Effort::Full), None);
        let number = |dead: &[u64], effort| choose(&segments(dead), effort).map(|segment| segment.number);
        assert_eq!(number(&[0, 0, 1000], Effort::Steady), Some(3));
        assert_eq!(number(&[100, 200, 100], Effort::Steady), None);
        assert_eq!(number(&[100, 200, 0], Effort::Full), Some(2));
        assert_eq!(number(&[500, 900, 500], Effort::Steady), Some(2));
        assert_eq!(number(&[500, 500, 500], Effort::Steady), Some(1), "of like ones the oldest");
        assert_eq!(number(&[0, 0, 0], Effort::Full), None);
    }
}
