//! Readers beside a compaction, where records are read by calls.

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use support::{at, damage, key, look, open, small, value};
use thermocline_engine::medium::Faulty;

#[test]
fn what_a_cold_segment_gives_back_does_not_disturb_its_readers() {
    const KEYS: u8 = 4;
    let medium = Faulty::new(false);
    let engine = open(&medium, &small()).unwrap();
    (0..KEYS).for_each(|number| engine.insert(&key(number), &value(number, 1), &at(false)).unwrap());
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                (0..KEYS).for_each(|number| assert!(look(&engine, number).unwrap().is_some()));
                let entries: Vec<_> = engine.iter().map(Result::unwrap).collect();
                assert_eq!(entries.len(), usize::from(KEYS));
            }
        });
        for version in 2..400 {
            engine.insert(&key(0), &value(0, version), &at(false)).unwrap();
            engine.compact().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_a_killed_process_had_reserved_is_given_back_at_open_and_nothing_is_taken_for_damage() {
    for mapped in [true, false] {
        let medium = Faulty::new(mapped);
        let engine = open(&medium, &small()).unwrap();
        // The last value of a segment does not fit: a good part behind the others is empty.
        for number in 0..40 {
            engine.insert(&key(number), &vec![number; 25_000], &at(false)).unwrap();
        }
        engine.sync().unwrap();
        let before = engine.stats().log.bytes;
        let mut left = medium.after_kill();
        for when in ["first", "second", "third"] {
            let engine = open(&left, &small()).unwrap();
            let bytes = engine.stats().log.bytes;
            assert!(bytes < 40 * 25_100 + 3 * (64 << 10), "{when}: {bytes} bytes, {before} before");
            (0..40).for_each(|number| assert_eq!(engine.get(&key(number)).unwrap().unwrap(), vec![number; 25_000]));
            assert_eq!(damage(&engine), [""; 0], "{when}");
            engine.sync().unwrap();
            left = if when == "first" { left.after_kill() } else { left.after_power_cut(3) };
        }
    }
}
