//! The memory tier alone: what is placed is read, what is held stays, what goes makes room.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    Kind,
    log::{Header, RecordKind},
    slot::Address,
};

fn new_record<'a>(sequence: u64, key: &'a [u8], value: &'a [u8]) -> NewRecord<'a> {
    expiring(sequence, key, value, 0)
}

fn expiring<'a>(sequence: u64, key: &'a [u8], value: &'a [u8], deadline_ms: u64) -> NewRecord<'a> {
    NewRecord {
        header: Header { kind: RecordKind::Value, sequence, deadline_ms },
        namespace: 0,
        key,
        value,
        kept: None,
    }
}

fn memory(limit_bytes: u64) -> Memory {
    let memory = Memory::new(10).unwrap();
    memory.set_limit(limit_bytes);
    memory
}

fn place(memory: &Memory, record: &NewRecord<'_>, guard: &Guard) -> Option<Location> {
    let placed = memory.place(record, None, 7, false, guard)?;
    let at = placed.location();
    placed.published();
    Some(at)
}

#[test]
fn what_was_placed_is_read_back() {
    let memory = memory(1 << 20);
    let guard = Guard::pin();
    for (deadline_ms, len) in [(0, 0), (5, 3), (0, 100), (9, 5_000), (0, 40_000)] {
        let value = vec![len as u8; len];
        let home = Location::new(Kind::Log, Address::new(1, 4096), false);
        let placed = memory.place(&expiring(3, b"key", &value, deadline_ms), Some(home), 7, false, &guard).unwrap();
        let record = memory.record(placed.location(), &guard).unwrap();
        assert_eq!((record.key(), record.value()), (&b"key"[..], &value[..]));
        assert_eq!((record.sequence(), record.deadline_ms(), record.history()), (3, deadline_ms, 7));
        assert_eq!(record.home(), Some(home));
        assert_eq!(record.give_home(home), None);
        placed.published();
    }
}

#[test]
fn a_dirty_record_gets_one_home() {
    let memory = memory(1 << 20);
    let guard = Guard::pin();
    let at = place(&memory, &new_record(1, b"k", b"v"), &guard).unwrap();
    let record = memory.record(at, &guard).unwrap();
    let [first, second] = [64, 128].map(|offset| Location::new(Kind::Log, Address::new(3, offset), false));
    assert_eq!(record.home(), None);
    assert_eq!((record.give_home(first), record.give_home(second)), (Some(true), None));
    assert_eq!(record.home(), Some(first));
}

#[test]
fn a_retired_record_is_found_by_nobody_and_stays_for_those_who_hold_it() {
    let memory = memory(1 << 20);
    let guard = Guard::pin();
    let at = place(&memory, &new_record(1, b"k", b"held"), &guard).unwrap();
    let before = memory.record(at, &guard).unwrap();
    let held = before.hold().unwrap();
    memory.retire(at, &guard);
    assert!(memory.record(at, &guard).is_none());
    assert_eq!(before.value(), b"held", "the guard keeps it");
    drop(guard);
    memory.reclaim();
    Guard::wait_for_others();
    let used = memory.usage().bytes;
    assert!(used > 0, "the holder keeps its place");
    let again = held.again().unwrap();
    drop(held);
    assert_eq!((again.value(), again.sequence()), (&b"held"[..], 1));
    drop(again);
    assert_eq!(memory.usage().bytes, 0);
}

#[test]
fn holders_outlive_the_tier() {
    let memory = memory(1 << 20);
    let guard = Guard::pin();
    let [retired, live] = [b"a", b"b"].map(|key| {
        let at = place(&memory, &new_record(1, key, key), &guard).unwrap();
        (at, memory.record(at, &guard).unwrap().hold().unwrap())
    });
    memory.retire(retired.0, &guard);
    drop(guard);
    drop(memory);
    Guard::wait_for_others();
    let other = live.1.again().unwrap();
    drop(live);
    assert_eq!((retired.1.value(), other.value()), (&b"a"[..], &b"b"[..]));
}

#[test]
fn a_placed_record_that_was_not_published_goes_by_itself() {
    let memory = memory(1 << 20);
    drop(memory.place(&new_record(1, b"k", b"v"), None, 0, false, &Guard::pin()));
    memory.reclaim();
    Guard::wait_for_others();
    assert_eq!((memory.usage().bytes, memory.usage().records), (0, 0));
}

#[test]
fn a_lower_limit_empties_the_end_of_the_arena() {
    let memory = memory(256 << 10);
    let guard = Guard::pin();
    let value = [1; 1000];
    let key_of = |n: u64| n.to_le_bytes();
    let mut places = Vec::new();
    while let Some(at) = place(&memory, &new_record(1, &key_of(places.len() as u64), &value), &guard) {
        places.push(at);
    }
    assert!(places.len() >= 200, "{}", places.len());
    memory.set_limit(128 << 10);
    let beyond = memory.blocks_beyond();
    assert_eq!(beyond.len(), 2);
    for block in beyond {
        let found: Vec<_> = memory.records_of(block, &guard).map(|(at, _)| at).collect();
        assert!(!found.is_empty());
        found.into_iter().for_each(|at| memory.retire(at, &guard));
    }
    // One from the part that stays makes room for one more there, and no more.
    memory.retire(places[0], &guard);
    drop(guard);
    memory.reclaim();
    Guard::wait_for_others();
    let guard = Guard::pin();
    assert_eq!(memory.usage().cut_bytes, 128 << 10);
    assert!(place(&memory, &new_record(1, b"new-key8", &value), &guard).is_some());
    assert!(place(&memory, &new_record(1, b"new-key8", &value), &guard).is_none());
    memory.set_limit(256 << 10);
    assert!(place(&memory, &new_record(1, b"new-key8", &value), &guard).is_some());
}

#[test]
fn a_block_that_is_cut_anew_has_no_records_of_before() {
    // Two blocks: one stays with those of its size.
    let memory = memory(128 << 10);
    // Values that look like the states of records, wherever one is looked for.
    let before: Vec<_> = {
        let guard = Guard::pin();
        (1..).map_while(|sequence| place(&memory, &new_record(sequence, b"key", &[0xff; 200]), &guard)).collect()
    };
    assert!(before.len() > 400);
    before.iter().for_each(|at| memory.retire(*at, &Guard::pin()));
    // For the records, then for the block that has none left.
    for _ in 0..2 {
        memory.reclaim();
        Guard::wait_for_others();
    }
    let guard = Guard::pin();
    let at = place(&memory, &new_record(1, b"key", &[0xff; 40]), &guard).unwrap();
    assert!(before.iter().any(|before| before.block_and_place().0 == at.block_and_place().0));
    let found: Vec<_> = memory.records_of(at.block_and_place().0, &guard).map(|(at, _)| at).collect();
    assert_eq!(found, [at]);
}

#[test]
fn expired_records_are_shown_once_they_are_due() {
    let memory = memory(1 << 20);
    let guard = Guard::pin();
    for deadline_ms in [0, 10, 20, 30] {
        place(&memory, &expiring(deadline_ms, b"k", b"v", deadline_ms), &guard).unwrap();
    }
    let due = |now_ms| {
        let mut due = Vec::new();
        memory.each_expired(now_ms, |at, record, guard| {
            due.push(record.deadline_ms());
            memory.retire(at, guard);
        });
        due
    };
    assert!(!memory.has_expired(9) && memory.has_expired(10));
    assert_eq!(due(9), []);
    assert_eq!(due(25), [10, 20]);
    assert!(!memory.has_expired(29));
    assert_eq!(due(30), [30]);
    assert!(!memory.has_expired(u64::MAX - 1));
}

#[test]
fn a_hand_meets_every_record_in_turn_whatever_its_size() {
    let memory = memory(4 << 20);
    let guard = Guard::pin();
    let sizes = [10, 10, 10, 10, 500, 9_000, 30_000, 200_000];
    for (sequence, len) in (1..).zip(sizes) {
        place(&memory, &new_record(sequence, b"k", &vec![0; len]), &guard).unwrap();
    }
    let (mut hand, mut seen) = (Hand::new(3), BTreeMap::<u64, u32>::new());
    for _ in 0..100 {
        let mut met = [None; 8];
        memory.sweep(&mut hand, &mut met, &guard);
        for record in met.into_iter().flatten().filter_map(|at| memory.record(at, &guard)) {
            *seen.entry(record.sequence()).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), sizes.len(), "{seen:?}");
    assert!(seen.values().all(|times| times.abs_diff(seen[&1]) <= 1), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 64 }, ..ProptestConfig::default() })]
    #[test]
    fn places_never_overlap_and_are_used_again(
        steps in proptest::collection::vec((any::<bool>(), 0_usize..70_000, any::<prop::sample::Index>()), 1..300),
    ) {
        let memory = memory(2 << 20);
        let mut living = Vec::<(Location, u64, usize)>::new();
        for (sequence, (is_insert, len, chosen)) in (1..).zip(steps) {
            if is_insert || living.is_empty() {
                let guard = Guard::pin();
                // Small ones more often than large ones.
                let len = if len % 4 == 0 { len } else { len % 600 };
                let value = vec![sequence as u8; len];
                if let Some(at) = place(&memory, &new_record(sequence, &sequence.to_le_bytes(), &value), &guard) {
                    living.push((at, sequence, len));
                }
            } else {
                let (at, ..) = living.swap_remove(chosen.index(living.len()));
                memory.retire(at, &Guard::pin());
                memory.reclaim();
            }
        }
        let guard = Guard::pin();
        for (at, sequence, len) in &living {
            let record = memory.record(*at, &guard).unwrap();
            prop_assert_eq!((record.sequence(), record.value()), (*sequence, &vec![*sequence as u8; *len][..]));
        }
        living.into_iter().for_each(|(at, ..)| memory.retire(at, &guard));
        drop(guard);
        memory.reclaim();
        Guard::wait_for_others();
        prop_assert_eq!(memory.usage().bytes, 0);
        prop_assert_eq!(memory.usage().records, 0);
        // What is left is one open block a class.
        let bytes = memory.usage().cut_bytes;
        prop_assert!(bytes <= 103 * classes::BLOCK_BYTES, "{} bytes are cut", bytes);
    }
}
