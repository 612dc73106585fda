//! Many threads on one store: values prove themselves, a key's sequence never goes down, exchanges add up.

mod support;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use support::{Random, proven, scale, value};
use thermocline::{Durability, Store};

fn open(dir: &tempfile::TempDir, mapped: bool) -> Store {
    Store::builder().segment_bytes(1 << 20).mapped(mapped).open(dir.path()).unwrap()
}

/// Sets a flag when it goes, also in a panic, so that who waits for it ends.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Whoever reads sees whole values whose sequences never go down.
fn watch(store: &Store, keys: &[String], ended: &AtomicBool) {
    let mut last = HashMap::new();
    while !ended.load(Ordering::Acquire) {
        for key in keys {
            if let Some(found) = store.get(key).unwrap() {
                proven(key, &found);
                let before = last.insert(key, found.sequence()).unwrap_or(0);
                assert!(before <= found.sequence(), "{key} went from {before:x} back to {:x}", found.sequence());
            }
            store.read(key, |bytes| proven(key, bytes)).unwrap();
        }
        let mut met = HashSet::new();
        for entry in store.iter() {
            let (key, found) = entry.unwrap();
            proven(std::str::from_utf8(&key).unwrap(), &found);
            assert!(met.insert(key), "a key was met twice");
        }
    }
}

/// Writers of all kinds on a few keys, two readers.
fn few_keys(seed: u64, mapped: bool) {
    println!("seed {seed}, mapped {mapped}");
    let dir = support::dir();
    let store = open(&dir, mapped);
    let keys: Vec<_> = (0..4).map(|number| format!("key {number}")).collect();
    let (ended, version, count) = (AtomicBool::new(false), AtomicU64::new(0), 3_000 * scale());
    thread::scope(|scope| {
        let (store, keys, version) = (&store, &keys, &version);
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| watch(store, keys, &ended))).collect();
        let ending = Ended(&ended);
        let writers = (0..3).map(|thread| {
            scope.spawn(move || {
                let mut random = Random(seed << 8 | thread);
                for _ in 0..count {
                    let key = &keys[random.below(4) as usize];
                    let new = value(key, version.fetch_add(1, Ordering::Relaxed));
                    match random.below(10) {
                        0..5 => store.insert(key, new).unwrap(),
                        5..7 => drop(store.remove(key).unwrap()),
                        7..8 => store.insert_many(keys.iter().map(|key| (key, value(key, 7)))).unwrap(),
                        _ => {
                            let now = store.peek(key).unwrap().map(|value| value.sequence());
                            if let Ok(sequence) = store.compare_exchange(key, now, Some(new)).unwrap() {
                                assert!(now.is_none_or(|now| now < sequence));
                            }
                        }
                    }
                }
            })
        });
        writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
        drop(ending);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    // What the last of all writes left is what the next process finds.
    let left: HashMap<_, _> = store.iter().map(|entry| entry.unwrap()).collect();
    assert_eq!(store.len(), left.len() as u64);
    drop(store);
    let store = open(&dir, mapped);
    let found: HashMap<_, _> = store.iter().map(|entry| entry.unwrap()).collect();
    assert_eq!(found, left);
    assert_eq!(store.verify().unwrap().damaged, []);
}

#[test]
fn a_few_keys_under_many_writers_never_tear_and_never_go_back() {
    few_keys(1, true);
    few_keys(2, false);
}

#[test]
fn exchanges_of_many_threads_add_up_exactly() {
    for mapped in [true, false] {
        let dir = support::dir();
        let store = open(&dir, mapped);
        let count = 500 * scale();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..count).for_each(|round| add(&store, &format!("counter {}", round % 3))));
            }
        });
        let sum = |store: &Store| (0..3).map(|number| number_of(store, &format!("counter {number}"))).sum::<u64>();
        assert_eq!(sum(&store), 4 * count);
        drop(store);
        assert_eq!(sum(&open(&dir, mapped)), 4 * count, "a lost exchange stays lost");
    }
}

fn number_of(store: &Store, key: &str) -> u64 {
    store.get(key).unwrap().map_or(0, |value| u64::from_le_bytes(*value.first_chunk().unwrap()))
}

fn add(store: &Store, key: &str) {
    loop {
        let now = store.get(key).unwrap();
        let number = now.as_ref().map_or(0, |value| u64::from_le_bytes(*value.first_chunk().unwrap()));
        let expected = now.map(|value| value.sequence());
        if store.compare_exchange(key, expected, Some((number + 1).to_le_bytes())).unwrap().is_ok() {
            return;
        }
    }
}

#[test]
fn the_first_to_exchange_nothing_for_something_is_one() {
    let dir = support::dir();
    let store = open(&dir, true);
    for round in 0..200 * scale() {
        let barrier = Barrier::new(3);
        let (key, winners) = (format!("round {round}"), AtomicU64::new(0));
        thread::scope(|scope| {
            for thread in 0..3_u64 {
                let (store, key, barrier, winners) = (&store, &key, &barrier, &winners);
                scope.spawn(move || {
                    barrier.wait();
                    if store.compare_exchange(key, None, Some(thread.to_le_bytes())).unwrap().is_ok() {
                        winners.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(winners.into_inner(), 1);
    }
}

#[test]
fn many_keys_are_all_there_while_the_index_grows_under_readers() {
    for mapped in [true, false] {
        let dir = support::dir();
        let store = open(&dir, mapped);
        let (threads, count) = (4, if mapped { 20_000 } else { 4_000 } * scale());
        let written: Vec<_> = (0..threads).map(|_| AtomicU64::new(0)).collect();
        let key = |thread: usize, number: u64| format!("{thread} {number}");
        thread::scope(|scope| {
            for thread in 0..threads {
                let (store, written) = (&store, &written);
                scope.spawn(move || {
                    let mut random = Random(thread as u64);
                    for number in 0..count {
                        store.insert(key(thread, number), number.to_le_bytes()).unwrap();
                        written[thread].store(number + 1, Ordering::Release);
                        // One of another thread's, whatever the index is doing at the moment.
                        let other = random.below(threads as u64) as usize;
                        let known = written[other].load(Ordering::Acquire);
                        if known > 0 {
                            let number = random.below(known);
                            let found = store.get(key(other, number)).unwrap();
                            assert_eq!(found.as_deref(), Some(&number.to_le_bytes()[..]), "{}", key(other, number));
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..3 {
                    let mut met = HashSet::new();
                    assert!(store.keys().all(|key| met.insert(key.unwrap())), "a key was met twice");
                }
            });
        });
        let all = threads as u64 * count;
        assert_eq!((store.len(), store.keys().count() as u64), (all, all));
        drop(store);
        let store = open(&dir, mapped);
        assert_eq!(store.len(), all);
        assert!((0..threads).all(|thread| (0..count).all(|number| number_of(&store, &key(thread, number)) == number)));
    }
}

#[test]
fn eight_threads_that_sync_every_write_share_flushes_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::builder().durability(Durability::Synced).segment_bytes(64 << 10).open(dir.path()).unwrap();
    let store = open();
    let count = 40 * scale();
    thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..count {
                    let key = format!("{thread} {number}");
                    store.insert(&key, value(&key, number)).unwrap();
                    assert_eq!(proven(&key, &store.get(&key).unwrap().unwrap()), number, "seen after the flush");
                    if number % 5 == 0 {
                        assert!(store.remove(&key).unwrap());
                    }
                }
            });
        }
    });
    store.close().unwrap();
    let store = open();
    assert_eq!(store.len(), 8 * (count - count.div_ceil(5)));
    for (key, found) in store.iter().map(|entry| entry.unwrap()) {
        proven(std::str::from_utf8(&key).unwrap(), &found);
    }
}

#[test]
fn a_clone_that_closes_leaves_the_store_to_the_others() {
    let dir = support::dir();
    let store = open(&dir, true);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let clone = store.clone();
            scope.spawn(move || {
                for number in 0..2_000 {
                    let key = format!("{thread} {number}");
                    clone.insert(&key, value(&key, number)).unwrap();
                    if number == 1_000 * (thread % 2) + 500 {
                        clone.clone().close().unwrap();
                    }
                }
                clone.close().unwrap();
            });
        }
    });
    assert_eq!(store.len(), 8_000, "this handle is still open");
    store.close().unwrap();
    assert_eq!(open(&dir, true).len(), 8_000, "the last to close gave the lock back");
}
