//! Files that are cut, grown again or removed under a live store: no signal, no panic, nothing wrong served, no key missed.

mod support;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use thermocline::{Attributes, Durability, Error, Store, Value};

const KEYS: u64 = 240;

fn key(number: u64) -> String {
    format!("key {number:04}")
}

/// About 1 000 bytes that say whose they are from the first to the last; every third ends in zeros.
fn value(number: u64) -> Vec<u8> {
    let mut value: Vec<u8> = (0..120 + number % 7).flat_map(|word| (number * 1_000 + word + 1).to_be_bytes()).collect();
    if number.is_multiple_of(3) {
        value.extend([0; 5]);
    }
    value
}

/// A store in several segments, its memory tier off.
fn filled(dir: &Path) -> Store {
    let store = Store::builder().segment_bytes(64 << 10).memory_capacity(0).open(dir).unwrap();
    (0..KEYS).for_each(|number| store.insert(key(number), value(number)).unwrap());
    store
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "segment")).collect();
    segments.sort();
    segments
}

fn cut(path: &Path, bytes: u64, grows: bool) {
    let file = File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().len();
    file.set_len(bytes).unwrap();
    if grows {
        file.set_len(before).unwrap();
    }
}

/// Whether an answer is the value, and not an error that names the file. Anything else is wrong.
fn is_served(number: u64, answer: Result<Option<Value>, Error>, path: &Path) -> bool {
    match answer {
        Ok(Some(found)) => {
            assert!(*found == *value(number), "{}: other bytes", key(number));
            true
        }
        Ok(None) => panic!("{}: a miss", key(number)),
        Err(error) => {
            assert_corrupt(&error, path);
            false
        }
    }
}

fn assert_corrupt(error: &Error, path: &Path) {
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
}

/// Every way to look; returns the keys that could not be read.
fn look(store: &Store, path: &Path) -> Vec<u64> {
    let mut lost = Vec::new();
    for number in 0..KEYS {
        let read =
            store.read(key(number), |bytes| assert!(bytes == value(number), "{}: shown other bytes", key(number)));
        let is_whole = is_served(number, store.get(key(number)), path);
        assert_eq!(read.is_ok_and(|read| read.is_some()), is_whole);
        assert_eq!(is_served(number, store.peek(key(number)), path), is_whole);
        assert_eq!(store.contains_key(key(number)).ok(), is_whole.then_some(true), "{}", key(number));
        assert_eq!(store.metadata(key(number)).is_ok_and(|metadata| metadata.is_some()), is_whole);
        assert_eq!(store.get_many([key(number)]).is_ok_and(|values| values[0].is_some()), is_whole);
        // A sequence that nobody has.
        let exchanged = store.compare_exchange(key(number), Some(1), Some("no"));
        assert_eq!(exchanged.is_ok_and(|refused| refused.is_err_and(|found| found.is_some())), is_whole);
        if !is_whole {
            lost.push(number);
        }
    }
    let (mut whole, mut errors) = (0, 0);
    for entry in store.iter() {
        match entry {
            Ok((key, found)) => {
                let number = String::from_utf8(key).unwrap()[4..].parse().unwrap();
                assert!(*found == *value(number));
                whole += 1;
            }
            Err(error) => {
                assert_corrupt(&error, path);
                errors += 1;
            }
        }
    }
    assert_eq!((whole, errors), (KEYS - lost.len() as u64, lost.len()));
    lost
}

#[test]
fn a_file_that_is_cut_is_an_error_for_what_was_in_it_and_nothing_else() {
    let count = {
        let dir = support::dir();
        drop(filled(dir.path()));
        segments(dir.path()).len()
    };
    assert!(count > 3);
    let mut lost_all = 0;
    for index in 0..count {
        for (place, bytes) in [0, 40, 200, 1_000, 4_096, 20_480, 30_001].into_iter().enumerate() {
            for grows in [false, true] {
                let dir = support::dir();
                let store = filled(dir.path());
                let held = store.get(key(7)).unwrap().unwrap();
                let path = segments(dir.path()).swap_remove(index);
                cut(&path, bytes, grows);
                let said = format!("{} cut to {bytes}, {grows}", path.display());
                let lost = if place % 2 == 0 { look(&store, &path) } else { Vec::new() };
                let verified = store.verify().unwrap();
                if !lost.is_empty() {
                    assert!(verified.damaged.iter().any(|damage| *damage.file == *path.to_string_lossy()), "{said}");
                    if !grows {
                        let problems = store.health().problems;
                        let tells = |problem: &String| problem.contains(&*path.to_string_lossy());
                        assert!(problems.iter().any(tells), "{said}: {problems:?}");
                    }
                    let copy = support::dir();
                    assert_corrupt(&store.backup(copy.path()).expect_err(&said), &path);
                }
                // Overwriting frees something in every segment, so that each is looked at.
                let rewritten: Vec<_> = (0..KEYS).step_by(5).collect();
                for number in &rewritten {
                    if let Err(error) = store.insert(key(*number), value(*number)) {
                        assert_corrupt(&error, &path);
                    }
                }
                let _ = store.compact();
                let after = look(&store, &path);
                assert!(lost.iter().all(|number| after.contains(number) || rewritten.contains(number)), "{said}");
                if !after.is_empty() {
                    assert!(path.exists(), "{said}: what was cut is not compacted");
                }
                // A write heals.
                for number in &after {
                    if let Err(error) = store.insert(key(*number), value(*number)) {
                        assert_corrupt(&error, &path);
                        store.insert(key(*number), value(*number)).expect(&said);
                    }
                }
                assert_eq!(look(&store, &path), [0; 0], "{said}");
                assert!(*held == *value(7), "{said}: what is held changed");
                lost_all += lost.len();
                // Unless it is the one that is written to, whose loss the sync may be the first to see.
                if let Err(error) = store.close() {
                    assert_corrupt(&error, &path);
                }
            }
        }
    }
    assert!(lost_all > 100, "{lost_all}");
}

#[test]
fn what_is_acknowledged_after_a_cut_was_noticed_is_there_at_the_next_open() {
    for durability in [Durability::Buffered, Durability::Synced] {
        for bytes in [0, 100, 4_096, 9_000] {
            let dir = support::dir();
            let store = Store::builder().segment_bytes(1 << 20).memory_capacity(0).open(dir.path()).unwrap();
            (0..20).for_each(|number| store.insert(key(number), value(number)).unwrap());
            let path = segments(dir.path()).swap_remove(0);
            cut(&path, bytes, false);
            let attributes = Attributes::new().durability(durability);
            let mut refused = 0;
            let mut kept = Vec::new();
            for number in 100..200 {
                match store.insert_with(key(number), value(number), &attributes) {
                    Ok(()) if refused > 0 => kept.push(number),
                    Ok(()) => {}
                    Err(error) => {
                        assert_corrupt(&error, &path);
                        refused += 1;
                    }
                }
            }
            assert!(refused > 0, "{durability:?}, {bytes}: nobody noticed");
            if durability == Durability::Buffered {
                assert!(kept.len() > 90, "{bytes}: {} of 100 after {refused} refusals", kept.len());
            }
            let error = store.sync().expect_err("a sync does not cover what is gone");
            assert_corrupt(&error, &path);
            assert!(error.to_string().contains("was cut while the store was open"), "{error}");
            drop(store);
            let store = Store::open(dir.path()).unwrap();
            for number in kept {
                assert!(store.get(key(number)).unwrap().is_some_and(|found| *found == *value(number)), "{number}");
            }
        }
    }
}

#[test]
fn those_who_read_while_a_file_is_cut_see_what_was_written_or_an_error() {
    for round in 0..12 {
        let dir = support::dir();
        let store = filled(dir.path());
        let paths = segments(dir.path());
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            for reader in 0..3 {
                let (store, is_done) = (&store, &is_done);
                scope.spawn(move || {
                    let mut number = reader;
                    while !is_done.load(Ordering::Relaxed) {
                        number = (number + 7) % KEYS;
                        match store.get(key(number)) {
                            Ok(found) => assert!(found.is_some_and(|found| *found == *value(number)), "{number}"),
                            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
                        }
                        let is_there = store.contains_key(key(number));
                        assert!(!matches!(is_there, Ok(false)), "{number}: a miss");
                    }
                });
            }
            for step in 0..40 {
                let path = &paths[(round + step) % paths.len()];
                cut(path, (60_000 - 1_500 * step) as u64, step % 3 == 0);
                thread::yield_now();
            }
            is_done.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn what_is_in_memory_is_served_whatever_happens_to_the_files() {
    let dir = support::dir();
    let store = Store::builder().segment_bytes(64 << 10).open(dir.path()).unwrap();
    (0..KEYS).for_each(|number| store.insert(key(number), value(number)).unwrap());
    segments(dir.path()).iter().for_each(|path| cut(path, 0, false));
    for number in 0..KEYS {
        assert!(store.get(key(number)).unwrap().is_some_and(|found| *found == *value(number)));
    }
}

#[test]
fn files_that_are_removed_are_read_on_and_a_sync_says_so() {
    let dir = support::dir();
    let store = filled(dir.path());
    let paths = segments(dir.path());
    paths.iter().for_each(|path| fs::remove_file(path).unwrap());
    for number in 0..KEYS {
        assert!(store.get(key(number)).unwrap().is_some_and(|found| *found == *value(number)));
    }
    assert_eq!(store.verify().unwrap().damaged, []);
    let copy = support::dir();
    store.backup(copy.path()).unwrap();
    let error = store.sync().expect_err("what has no name is not durable");
    assert!(paths.iter().any(|path| error.to_string().contains(path.to_str().unwrap())), "{error}");
    assert!(store.insert_with("key", "value", &Attributes::new().durability(Durability::Synced)).is_err());
    let _ = store.compact();
    assert_eq!(store.len(), KEYS + u64::from(store.contains_key("key").unwrap()));
    drop(store);
    // What could be kept is in the copy.
    assert_eq!(Store::open(copy.path()).unwrap().len(), KEYS);
}
