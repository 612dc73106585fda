//! Which segments are compacted next: a choice over numbers, nothing else.
//!
//! Cost against benefit as in log-structured file systems (Rosenblum and Ousterhout, 1992): space that comes back, times the age of
//! what stays, over the bytes to read and write.

use thermocline_tiers::log::Sealed;

/// So much of the log may be dead, in percent, before anything is compacted that is alive in parts.
const DEAD_PERCENT_MAX: u64 = 30;
/// The same of a store that nobody writes to.
const DEAD_PERCENT_IDLE: u64 = 15;
/// From here on compaction does not rest.
const DEAD_PERCENT_PRESSING: u64 = 45;
/// So many segments are compacted together: they share a flush.
const TOGETHER_MAX: usize = 8;
/// A segment with less that is dead, in percent, costs more than it gives.
const DEAD_PERCENT_MIN: u64 = 5;
/// Nothing that is alive goes as long as a segment has so much that is dead, in percent.
const DEAD_PERCENT_FIRST: u64 = 20;

/// What has expired as a whole is dropped together from this part of the log on.
const EXPIRED_PART: u64 = 32;

/// What is asked of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Only what pays.
    Steady,
    /// What gives something worth mentioning back, for lack of room.
    Pressed,
    /// What pays as long as nobody else has work.
    Idle,
    /// Whatever gives anything back.
    Full,
}

/// What is to become of what is alive in the segments that were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// All of it stays.
    Keep,
    /// What came back lately stays, the rest goes.
    Evict,
}

fn live_bytes(segment: &Sealed) -> u64 {
    segment.bytes.saturating_sub(segment.dead_bytes)
}

fn dead_and_all(sealed: &[Sealed]) -> (u64, u64) {
    let sum = |bytes: fn(&Sealed) -> u64| sealed.iter().map(bytes).sum::<u64>();
    (sum(|segment| segment.dead_bytes.min(segment.bytes)), sum(|segment| segment.bytes))
}

/// Whether so much is dead that compaction should not rest.
pub(crate) fn is_pressing(sealed: &[Sealed]) -> bool {
    let (dead, all) = dead_and_all(sealed);
    dead * 100 > all * DEAD_PERCENT_PRESSING
}

/// Bytes of all segments that [`choose`] finds worth it when all effort is asked for.
pub(crate) fn due_bytes(sealed: &[Sealed], packs: bool) -> u64 {
    sealed.iter().filter(|segment| is_worth_it(segment, Effort::Full, packs)).map(|segment| segment.bytes).sum()
}

fn is_worth_it(segment: &Sealed, effort: Effort, packs: bool) -> bool {
    let percent = if effort == Effort::Full { 0 } else { DEAD_PERCENT_MIN };
    let shrinks = packs && effort == Effort::Full && segment.is_plain;
    shrinks || segment.dead_bytes > 0 && segment.dead_bytes * 100 >= segment.bytes * percent
}

/// The segments to compact together next, if any are worth it, the best first: one, or several of `bytes_max` bytes together. Whoever
/// `packs` gets something out of one that is all alive, too, if nothing in it was compressed.
pub(crate) fn choose(sealed: &[Sealed], effort: Effort, bytes_max: u64, packs: bool) -> Vec<Sealed> {
    let (mut left, mut chosen) = (sealed.to_vec(), Vec::new());
    let mut bytes = 0;
    while chosen.len() < TOGETHER_MAX
        && let Some(next) = choose_one(&left, effort, packs)
    {
        bytes += next.bytes;
        if bytes > bytes_max && !chosen.is_empty() {
            break;
        }
        left.retain(|segment| segment.number != next.number);
        chosen.push(next);
    }
    chosen
}

/// The segments to drop as a whole. Each costs next to nothing, but all together they cost a look at the whole index: if they are
/// few they are compacted like others of which nothing is left.
pub(crate) fn choose_expired(sealed: &[Sealed]) -> Vec<Sealed> {
    let expired: Vec<_> = sealed.iter().filter(|segment| segment.is_expired).copied().collect();
    let [some, all] = [&expired[..], sealed].map(|segments| segments.iter().map(|segment| segment.bytes).sum::<u64>());
    if some * EXPIRED_PART >= all { expired } else { Vec::new() }
}

/// The segments to empty next when there is no room, and what becomes of what is alive in them: one, or several of `bytes_max`
/// bytes together.
pub(crate) fn choose_for_room(sealed: &[Sealed], bytes_max: u64) -> (Vec<Sealed>, Aim) {
    let has_much = |segment: &&Sealed| segment.dead_bytes * 100 > segment.bytes * DEAD_PERCENT_FIRST;
    let much: Vec<_> = sealed.iter().filter(has_much).copied().collect();
    if !much.is_empty() {
        return (choose(&much, Effort::Full, bytes_max, false), Aim::Keep);
    }
    let mut oldest = sealed.to_vec();
    oldest.sort_unstable_by_key(|segment| segment.number);
    let mut bytes = 0;
    let fits = |segment: &&Sealed| {
        let is_first = bytes == 0;
        bytes += segment.bytes;
        is_first || bytes <= bytes_max
    };
    (oldest.iter().take_while(fits).copied().collect(), Aim::Evict)
}

fn choose_one(sealed: &[Sealed], effort: Effort, packs: bool) -> Option<Sealed> {
    let (dead, all) = dead_and_all(sealed);
    let percent_max = if effort == Effort::Idle { DEAD_PERCENT_IDLE } else { DEAD_PERCENT_MAX };
    let has_much = dead * 100 > all * percent_max;
    let newest = sealed.iter().map(|segment| segment.number).max()?;
    let benefit = |segment: &Sealed| {
        let live = live_bytes(segment) as f64 / segment.bytes.max(1) as f64;
        (1.0 - live) * (newest - segment.number + 1) as f64 / (1.0 + live)
    };
    let is_worth_it = |segment: &&Sealed| is_worth_it(segment, effort, packs);
    // What is dead as a whole costs nothing.
    let is_empty = |segment: &&Sealed| live_bytes(segment) <= segment.bytes / 256;
    let is_asked = matches!(effort, Effort::Full | Effort::Pressed);
    let is_due = |segment: &&Sealed| is_asked || has_much || is_empty(segment);
    let chosen = sealed.iter().filter(is_worth_it).filter(is_due);
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
        let numbers = |dead: &[u64], effort| -> Vec<_> {
            choose(&segments(dead), effort, u64::MAX, false).iter().map(|segment| segment.number).collect()
        };
        assert_eq!(numbers(&[], Effort::Full), []);
        assert_eq!(numbers(&[0, 0, 1000], Effort::Steady), [3]);
        assert_eq!(numbers(&[100, 200, 100], Effort::Steady), []);
        assert_eq!(numbers(&[300, 300, 100], Effort::Steady), []);
        assert_eq!(numbers(&[300, 300, 100], Effort::Idle), [1, 2]);
        assert_eq!(numbers(&[100, 200, 0], Effort::Full), [2, 1]);
        assert_eq!(numbers(&[200, 900, 200], Effort::Steady), [2], "until little is dead");
        assert_eq!(numbers(&[500, 500, 500], Effort::Full), [1, 2, 3], "of like ones the oldest");
        assert_eq!(numbers(&[0, 0, 0], Effort::Full), []);
    }

    #[test]
    fn what_is_alive_goes_last_and_the_oldest_of_it_first() {
        let numbers = |dead: &[u64]| {
            let (chosen, aim) = choose_for_room(&segments(dead), 2000);
            (chosen.iter().map(|segment| segment.number).collect::<Vec<_>>(), aim)
        };
        assert_eq!(numbers(&[0, 300, 1000, 300]), (vec![3, 2], Aim::Keep));
        assert_eq!(numbers(&[0, 150, 200, 0]), (vec![1, 2], Aim::Evict));
        assert_eq!(numbers(&[]), (vec![], Aim::Evict));
        let large = [Sealed::new(7, 5000, 0), Sealed::new(8, 1, 0)];
        assert_eq!(choose_for_room(&large, 2000), (large[..1].to_vec(), Aim::Evict));
    }

    #[test]
    fn what_has_expired_is_dropped_together_unless_that_is_little_of_all() {
        let mut sealed = segments(&[0; 33]);
        assert_eq!(choose_expired(&sealed), []);
        sealed[4].is_expired = true;
        assert_eq!(choose_expired(&sealed), [], "one of 33");
        sealed[32].is_expired = true;
        assert_eq!(choose_expired(&sealed), [sealed[4], sealed[32]]);
    }

    #[test]
    fn what_was_never_compressed_is_compacted_when_all_effort_is_asked_for() {
        let mut plain = segments(&[0, 0, 0]);
        plain[1].is_plain = true;
        let numbers = |effort, packs| -> Vec<_> {
            choose(&plain, effort, u64::MAX, packs).iter().map(|segment| segment.number).collect()
        };
        assert_eq!(numbers(Effort::Full, true), [2]);
        assert_eq!((numbers(Effort::Full, false), numbers(Effort::Steady, true)), (vec![], vec![]));
    }
}
