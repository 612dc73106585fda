//! Checkpoints beside writers: whatever is written while the index is handed on, and whenever the process is killed, the next one
//! finds what was acknowledged, and reads no more than what came behind.

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use support::{Random, at, damage, each, key, look, open, seeds, small, value};
use thermocline_engine::{
    Attributes, Durability, Engine, Options,
    medium::{Faulty, Medium},
};

const WRITERS: u8 = 3;
const KEYS: u8 = 20;

/// Writes to keys of its own in every way there is; returns what each key has in the end.
fn write(engine: &Engine, writer: u8, seed: u64) -> Vec<Option<u64>> {
    let mut random = Random(seed << 8 | u64::from(writer));
    let mut has = vec![None; KEYS.into()];
    for step in 0..150 {
        let number = random.below(KEYS.into()) as u8;
        let (name, version) = (writer * KEYS + number, step * 100 + 1);
        let bytes = value(name, version);
        let volatile = Attributes::new().durability(Durability::Volatile);
        let new = match random.below(8) {
            0..3 => engine.insert(&key(name), &bytes, &at(false)).map(|()| Some(version)),
            3 => engine.insert(&key(name), &bytes, &volatile).map(|()| Some(version)),
            4 => engine.remove(&key(name)).map(|_| None),
            5 => engine.evict(&key(name)).map(|_| has[usize::from(number)]),
            6 => engine.get(&key(name)).map(|_| has[usize::from(number)]),
            _ => {
                let found = engine.peek(&key(name)).unwrap().map(|value| value.sequence());
                let exchanged = engine.compare_exchange(&key(name), found, Some(&bytes));
                exchanged.map(|result| result.map(|_| Some(version)).expect("nobody else writes to this key"))
            }
        };
        has[usize::from(number)] = new.expect("nothing fails here");
    }
    has
}

fn run(seed: u64, mapped: bool) {
    let medium = Faulty::new(mapped);
    let engine = open(&medium, &small()).unwrap();
    let is_over = AtomicBool::new(false);
    let has: Vec<_> = thread::scope(|scope| {
        let hand_on = || {
            for round in 0.. {
                engine.checkpoint().expect("nothing fails here");
                if round % 3 == seed % 3 {
                    engine.compact_any(round).expect("nothing fails here");
                }
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        scope.spawn(hand_on);
        let engine = &engine;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(engine, writer, seed))).collect();
        let has = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        // What is in memory alone would be lost with the process.
        engine.sync().unwrap();
        is_over.store(true, Ordering::Relaxed);
        has
    });
    for snapshot in [true, false] {
        let left = medium.after_kill();
        if !snapshot && left.read("index").is_some() {
            left.remove("index").unwrap();
        }
        let next = open(&left, &small()).unwrap();
        for (number, version) in (0..).zip(&has) {
            assert_eq!(look(&next, number).unwrap(), *version, "key {number}, snapshot: {snapshot}");
        }
        assert_eq!(next.len(), has.iter().flatten().count() as u64, "snapshot: {snapshot}");
        assert_eq!(damage(&next), [""; 0], "snapshot: {snapshot}");
    }
}

#[test]
fn nothing_is_lost_or_comes_back_whatever_is_written_while_the_index_is_handed_on() {
    each(seeds(60), |seed| run(seed, true));
    each(seeds(20), |seed| run(seed, false));
}

/// A batch draws its sequences at once and fills segments with them; what is removed meanwhile overtakes what it has not written yet.
fn overtake(mapped: bool) {
    let medium = Faulty::new(mapped);
    let engine = open(&medium, &small()).unwrap();
    for round in 0..40_u64 {
        let version = round * 100 + 80;
        let pairs: Vec<_> = (0..30).map(|number| (key(number), value(number, version))).collect();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        thread::scope(|scope| {
            let batch = scope.spawn(|| engine.insert_many(&pairs, &at(false)).unwrap());
            let mut number = 29;
            while !batch.is_finished() {
                engine.remove(&key(number)).unwrap();
                number = if number == 10 { 29 } else { number - 1 };
            }
        });
        engine.checkpoint().unwrap();
        let has: Vec<_> = (0..30).map(|number| look(&engine, number).unwrap()).collect();
        let next = open(&medium.after_kill(), &small()).unwrap();
        let finds: Vec<_> = (0..30).map(|number| look(&next, number).unwrap()).collect();
        assert_eq!(finds, has, "round {round}");
    }
}

#[test]
fn what_was_overtaken_by_a_removal_does_not_come_back() {
    [true, false].into_iter().for_each(overtake);
}

#[test]
fn who_opens_after_a_kill_reads_what_came_behind_the_checkpoint() {
    for mapped in [true, false] {
        let medium = Faulty::new(mapped);
        let engine = open(&medium, &small()).unwrap();
        // Some segments full: see `value`. What is in the last of them is not covered.
        (0..40).for_each(|number| engine.insert(&key(number), &value(number, 80), &at(false)).unwrap());
        assert!(engine.checkpoint().unwrap());
        let snapshot = medium.read("index").unwrap().len() as u64;
        assert!(engine.stats().log.bytes_beside >= snapshot, "it counts as written");
        (40..43).for_each(|number| engine.insert(&key(number), &value(number, 1), &at(false)).unwrap());
        let next = open(&medium.after_kill(), &small()).unwrap();
        let records = next.stats().recovery.records;
        assert!((3..12).contains(&records), "{records} records were read");
        assert_eq!(next.len(), 43);
        assert!((0..40).all(|number| look(&next, number).unwrap() == Some(80)));
        assert!((40..43).all(|number| look(&next, number).unwrap() == Some(1)));
    }
}

#[test]
fn a_checkpoint_comes_by_itself_when_enough_was_appended() {
    let medium = Faulty::new(true);
    let engine = open(&medium, &Options { checkpoint_after: 200 << 10, ..small() }).unwrap();
    let start = Instant::now();
    for version in 0.. {
        engine.insert(&key((version % 30) as u8), &value(1, version * 100 + 80), &at(false)).unwrap();
        if medium.read("index").is_some() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "nobody hands the index on");
    }
    assert!(engine.health().problems.is_empty());
}

#[test]
fn there_is_nothing_to_hand_on_where_nothing_was_written_or_may_be() {
    let medium = Faulty::new(true);
    let engine = open(&medium, &small()).unwrap();
    assert!(!engine.checkpoint().unwrap());
    engine.insert(&key(1), &value(1, 1), &at(false)).unwrap();
    assert!(engine.checkpoint().unwrap());
    assert!(
        engine.read(&key(1), |_| engine.checkpoint().is_err()).unwrap().unwrap(),
        "a reader would wait for himself"
    );
    engine.close().unwrap();
    let reader = open(&medium, &Options { read_only: true, ..small() }).unwrap();
    assert!(!reader.checkpoint().unwrap());
    let memory = open(&Faulty::new(true), &Options { in_memory: true, ..small() }).unwrap();
    memory.insert(&key(1), &value(1, 1), &at(false)).unwrap();
    assert!(!memory.checkpoint().unwrap());
}
