//! Readers beside a compaction, where records are read by calls.

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use support::{at, key, look, open, small, value};
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
