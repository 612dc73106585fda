//! Compression of cold records: nothing but the space changes, dictionaries are nobody's entries, and what is damaged says so.
//!
//! Which bytes belong to which record is read from the files by `DESIGN.md`, not asked of the store.

mod support;

use std::{collections::BTreeMap, sync::Arc};

use support::{Random, damage, each, open, small};
use thermocline_engine::{
    Attributes, Compression, Engine, Error, Options,
    medium::{Fault, Faulty, Medium, Plan},
};

const KEYS: u32 = 400;

fn key(number: u32) -> Vec<u8> {
    format!("user:{number}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    let mut random = Random(number.into());
    let [balance, visits] = [random.below(100_000), random.below(1_000)];
    format!("{{\"id\":{number},\"city\":\"Oslo\",\"balance\":{balance},\"visits\":{visits},\"active\":true}}")
        .into_bytes()
}

fn options(memory_capacity: u64) -> Options {
    Options { memory_capacity, dictionary_samples_min: 100, ..small() }
}

/// A store all of whose values are packed, most of them with a dictionary.
fn packed(medium: &Faulty, options: &Options) -> Engine {
    let engine = open(medium, options).unwrap();
    (0..KEYS).for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
    engine.compact().unwrap();
    let ratio = engine.stats().log.compression_ratio;
    assert!(ratio < 0.4, "{ratio}");
    assert_ne!(dictionaries(medium), 0);
    engine
}

fn check(engine: &Engine, when: &str) {
    let mut walked: Vec<_> =
        engine.iter().map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap()).collect();
    let mut expected: Vec<_> = (0..KEYS).map(|number| (key(number), value(number))).collect();
    walked.sort();
    expected.sort();
    assert!(walked == expected, "{when}: a walk");
    for number in 0..KEYS {
        let (bytes, expected) = (key(number), value(number));
        assert_eq!(engine.metadata(&bytes).unwrap().unwrap().size_bytes, expected.len() as u64, "{when}");
        assert_eq!(engine.peek(&bytes).unwrap().unwrap(), expected, "{when}");
        assert_eq!(engine.read(&bytes, <[u8]>::to_vec).unwrap().unwrap(), expected, "{when}");
        assert_eq!(engine.get(&bytes).unwrap().unwrap(), expected, "{when}");
    }
    let all: Vec<_> = (0..KEYS).map(key).collect();
    let many = engine.get_many(&all.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    assert!(many.iter().zip(0..).all(|(found, number)| found.as_ref().unwrap() == &value(number)), "{when}");
}

/// A record in a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    at: usize,
    end: usize,
    is_dictionary: bool,
    is_packed: bool,
}

fn records(file: &[u8]) -> Vec<Placed> {
    let word = |at: usize| u64::from_le_bytes(*file[at..].first_chunk().unwrap());
    let (mut at, mut records) = (128, Vec::new());
    while at + 32 <= file.len() && word(at + 8) != 0 {
        let (value_bytes, key_bytes) = (word(at + 8) as u32 as usize, word(at + 8) as usize >> 32 & 0xffff);
        let end = (at + 32 + key_bytes + value_bytes).next_multiple_of(8);
        let is_dictionary = word(at) >> 32 == u64::from(u32::MAX);
        records.push(Placed { at, end, is_dictionary, is_packed: file[at + 31] == 1 });
        at = end;
    }
    records
}

fn segments(medium: &Faulty) -> BTreeMap<String, Vec<u8>> {
    let names = medium.names().unwrap().into_iter().filter(|name| name.ends_with(".segment"));
    names.map(|name| (name.clone(), medium.read(&name).unwrap())).collect()
}

fn dictionaries(medium: &Faulty) -> usize {
    let all = segments(medium).into_values().flat_map(|file| records(&file));
    all.filter(|record| record.is_dictionary).count()
}

#[test]
fn packed_values_read_like_any_by_all_who_read_and_after_reopening() {
    for (mapped, memory_capacity) in [(true, 0), (false, 0), (true, 16 << 10), (true, 1 << 20), (false, 1 << 20)] {
        let medium = Faulty::new(mapped);
        let options = options(memory_capacity);
        let engine = packed(&medium, &options);
        check(&engine, "as they were packed");
        engine.evict_all().unwrap();
        check(&engine, "out of the log and into memory");
        check(&engine, "once more");
        assert_eq!(damage(&engine), [""; 0]);
        engine.close().unwrap();
        let engine = open(&medium, &Options { compression: Compression::none(), ..options.clone() }).unwrap();
        check(&engine, "by somebody who compresses nothing");
        engine.close().unwrap();
        let engine = open(&medium, &Options { read_only: true, ..options.clone() }).unwrap();
        check(&engine, "by somebody who only reads");
        drop(engine);
        let engine = open(&medium.after_kill(), &options).unwrap();
        check(&engine, "after a kill");
    }
}

#[test]
fn live_bytes_stay_what_a_scan_says() {
    for memory_capacity in [0, 16 << 10, 1 << 20] {
        let medium = Faulty::new(true);
        let mut engine = packed(&medium, &options(memory_capacity));
        let mut random = Random(memory_capacity);
        for round in 0..6 {
            for _ in 0..300 {
                let number = random.below(u64::from(KEYS)) as u32;
                match random.below(4) {
                    0 => engine.insert(&key(number), &value(number).repeat(2), &Attributes::new()).unwrap(),
                    1 => drop(engine.remove(&key(number)).unwrap()),
                    2 => drop(engine.get(&key(number)).unwrap()),
                    _ => drop(engine.evict(&key(number)).unwrap()),
                }
            }
            match round % 2 {
                0 => _ = engine.compact().unwrap(),
                _ => _ = engine.compact_any(random.0).unwrap(),
            }
            let live_bytes = engine.stats().log.live_bytes;
            engine.close().unwrap();
            engine = open(&medium, &options(memory_capacity)).unwrap();
            assert_eq!(engine.stats().log.live_bytes, live_bytes, "round {round}");
        }
    }
}

#[test]
fn a_dictionary_is_nobodys_entry() {
    let medium = Faulty::new(true);
    // The whole log is to be read when it is opened.
    let options = Options { snapshot_after: u64::MAX, ..options(0) };
    let engine = packed(&medium, &options);
    let count = |engine: &Engine| {
        let stats = engine.stats();
        assert_eq!(engine.verify().unwrap().records, u64::from(KEYS));
        assert_eq!((engine.keys().count(), engine.logged_keys().count()), (KEYS as usize, KEYS as usize));
        assert_eq!(
            [engine.len(), engine.len_estimate(), stats.log.records, stats.index.keys],
            [u64::from(KEYS); 4],
            "{stats:?}"
        );
    };
    count(&engine);
    let key = b"dictionary\0\0";
    let keys = [&key[..], &[key, &[0; 5][..]].concat()[..]];
    for key in keys {
        assert_eq!(engine.get(key).unwrap(), None);
        assert!(!engine.remove(key).unwrap() && !engine.evict(key).unwrap());
        assert!(engine.compare_exchange(key, None, Some(b"mine")).unwrap().is_ok());
        assert_eq!(engine.get(key).unwrap().unwrap(), b"mine");
        engine.insert(key, b"still mine", &Attributes::new()).unwrap();
        assert_eq!(engine.get(key).unwrap().unwrap(), b"still mine");
        assert!(engine.remove(key).unwrap());
    }
    engine.compact().unwrap();
    engine.compact().unwrap();
    count(&engine);
    check(&engine, "beside keys of the same bytes");
    engine.close().unwrap();
    let engine = open(&medium, &options).unwrap();
    assert_eq!(engine.stats().recovery.records, u64::from(KEYS));
    count(&engine);
    check(&engine, "after reopening");
}

#[test]
fn a_dictionary_moves_with_the_segment_that_it_is_in() {
    let medium = Faulty::new(true);
    let engine = packed(&medium, &options(0));
    let names: Vec<_> = segments(&medium).into_keys().collect();
    for round in 0..3 {
        // Something dies in every segment, and only what lives is taken on.
        (KEYS..KEYS + 60).for_each(|number| engine.insert(&key(number), &value(round), &Attributes::new()).unwrap());
        for number in (round * 20..round * 20 + 20).chain(KEYS..KEYS + 60) {
            assert!(engine.remove(&key(number)).unwrap());
        }
        engine.compact().unwrap();
        (0..round * 20 + 20)
            .for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
        check(&engine, "after a move");
    }
    assert!(names.iter().all(|name| medium.read(name).is_none()), "every segment went");
    assert_eq!(dictionaries(&medium), 1, "one dictionary, once");
    engine.close().unwrap();
    check(&open(&medium, &options(0)).unwrap(), "after reopening");
}

#[test]
fn a_store_goes_on_with_its_dictionary_after_reopening() {
    let medium = Faulty::new(true);
    packed(&medium, &options(0)).close().unwrap();
    let engine = open(&medium, &options(0)).unwrap();
    (0..KEYS).for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
    engine.compact().unwrap();
    assert!(engine.stats().log.compression_ratio < 0.4);
    assert_eq!(dictionaries(&medium), 1);
    check(&engine, "with an old dictionary");
}

#[test]
fn what_does_not_shrink_and_what_nobody_wants_compressed_stays_as_it_is() {
    let noise = |number: u32| -> Vec<u8> {
        let mut random = Random(u64::from(number) << 32);
        (0..200).map(|_| random.below(256) as u8).collect()
    };
    for (compression, value) in [(Compression::zstd(3), noise as fn(u32) -> Vec<u8>), (Compression::none(), value)] {
        let medium = Faulty::new(true);
        let engine = open(&medium, &Options { compression, ..options(0) }).unwrap();
        for _ in 0..2 {
            (0..KEYS).for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
        }
        engine.compact().unwrap();
        let all: Vec<_> = segments(&medium).into_values().flat_map(|file| records(&file)).collect();
        assert!(all.len() >= KEYS as usize && all.iter().all(|record| !record.is_packed && !record.is_dictionary));
        assert_eq!(engine.stats().log.compression_ratio, 1.0);
        (0..KEYS).for_each(|number| assert_eq!(engine.get(&key(number)).unwrap().unwrap(), value(number)));
        // What was tried once is not tried again.
        assert_eq!(engine.compact().unwrap().bytes_written, 0);
    }
}

#[test]
fn levels_that_are_none_are_refused() {
    for level in [0, -5, 20, 1_000] {
        let error =
            open(&Faulty::new(true), &Options { compression: Compression::zstd(level), ..small() }).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("option compression is zstd({level}), expected zstd(1) to zstd(19), or none()")
        );
    }
}

#[test]
fn a_copy_as_of_one_sequence_has_the_dictionaries_that_it_needs() {
    let medium = Faulty::new(true);
    let engine = open(&medium, &options(0)).unwrap();
    (0..KEYS).for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
    engine.compact().unwrap();
    let copy = Faulty::new(true);
    engine.backup(Arc::new(copy.clone())).unwrap();
    check(&open(&copy, &options(0)).unwrap(), "a copy");
}

/// What is left when one byte was changed: per key its value, or `None` where the store says that it is damaged.
fn what_is_left(engine: &Engine, when: &str) -> usize {
    let mut damaged = 0;
    for number in 0..KEYS {
        match engine.get(&key(number)) {
            Ok(Some(found)) => assert!(found == value(number), "{when}: key {number} has bytes that nobody wrote"),
            Ok(None) => panic!("{when}: key {number} is gone"),
            Err(Error::Corrupt { file, .. }) => {
                assert!(file.ends_with(".segment"), "{file}");
                damaged += 1;
            }
            Err(error) => panic!("{when}: {error}"),
        }
    }
    damaged
}

#[test]
fn a_flipped_bit_anywhere_in_packed_records_is_told_and_harms_nothing_else() {
    let medium = Faulty::new(true);
    packed(&medium, &options(0)).close().unwrap();
    let (name, file) = segments(&medium).into_iter().find(|(_, file)| records(file).len() > 100).unwrap();
    let all = records(&file);
    let store = medium.read("store").unwrap();
    let sample: Vec<_> = all.iter().filter(|record| record.is_packed).step_by(40).collect();
    assert!(sample.len() >= 8);
    let bytes = sample.iter().flat_map(|record| record.at..record.end);
    each(bytes.flat_map(|at| [(at, at as u32 % 8), (at, at as u32 * 3 % 8)]), |(at, bit)| {
        let harmed = Faulty::new(at % 2 == 0);
        let mut file = file.clone();
        file[at] ^= 1 << bit;
        harmed.write("store", &store);
        harmed.write(&name, &file);
        let engine = open(&harmed, &options(0)).unwrap();
        let hit = all.iter().find(|record| (record.at..record.end).contains(&at)).unwrap();
        // In its key or the lengths it may be another key's, or nobody's.
        let is_certain = at >= hit.at + 16 && at < hit.at + 32 || at >= hit.at + 32 + key(KEYS).len();
        let numbers = (0..KEYS).filter(|number| engine.get(&key(*number)).is_err()).count();
        let gone = (0..KEYS).filter(|number| matches!(engine.get(&key(*number)), Ok(None))).count();
        assert!(numbers <= 1 && gone <= 1 && numbers + gone <= 1 + usize::from(!is_certain));
        let found = (0..KEYS).filter_map(|number| Some((number, engine.get(&key(number)).ok()??)));
        found.for_each(|(number, found)| assert!(found == value(number), "bytes that nobody wrote"));
        assert_eq!(
            engine.iter().filter(|entry| entry.is_err()).count(),
            numbers + usize::from(numbers == 0 && gone == 1 && engine.iter().any(|entry| entry.is_err()))
        );
    });
}

#[test]
fn a_damaged_dictionary_harms_those_alone_that_need_it() {
    let medium = Faulty::new(true);
    let engine = packed(&medium, &options(0));
    engine.insert(b"plain", b"as it is", &Attributes::new()).unwrap();
    engine.insert(b"large", &value(1).repeat(1_000), &Attributes::new()).unwrap();
    engine.close().unwrap();
    let all = segments(&medium);
    let holds = |(name, file): (&String, &Vec<u8>)| {
        let record = records(file).into_iter().find(|record| record.is_dictionary)?;
        Some((name.clone(), record))
    };
    let (name, dictionary) = all.iter().find_map(holds).unwrap();
    // In the namespace, the length, the kind, the key, and here and there in what it holds.
    let places = [4, 5, 7, 8, 12, 30, 31, 32, 42, 43, 60].map(|offset| dictionary.at + offset);
    let places = places.into_iter().chain((dictionary.at + 64..dictionary.end - 8).step_by(397));
    each(places, |at| {
        let harmed = medium.after_kill();
        let mut file = all[&name].clone();
        file[at] ^= 0x10;
        harmed.write(&name, &file);
        let engine = open(&harmed, &options(0)).unwrap();
        let damaged = what_is_left(&engine, "with a damaged dictionary");
        assert!(damaged > KEYS as usize / 2, "{damaged}");
        assert_eq!(engine.get(b"plain").unwrap().unwrap(), b"as it is");
        assert_eq!(engine.get(b"large").unwrap().unwrap().len(), value(1).len() * 1_000);
        let error = engine.get(&key(7)).unwrap_err().to_string();
        assert!(error.contains("packed with dictionary"), "{error}");
        let verified = engine.verify().unwrap();
        assert!(verified.damaged.len() > damaged, "those, and the dictionary");
        // Walks show what can be shown, and have an error for each of the others and nothing more.
        let (mut shown, mut errors) = (0, 0);
        engine.iter().for_each(|entry| if entry.is_ok() { shown += 1 } else { errors += 1 });
        assert_eq!((shown, errors), (KEYS as usize + 2 - damaged, damaged));
        assert_eq!(engine.keys().filter(Result::is_ok).count(), KEYS as usize + 2, "keys are not packed");
        // Another dictionary may come to the place of the one that is lost, and is not taken for it.
        let others = 1_000..1_000 + KEYS;
        others.clone().for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
        engine.compact().unwrap();
        others.clone().for_each(|number| assert_eq!(engine.get(&key(number)).unwrap().unwrap(), value(number)));
        assert_eq!(what_is_left(&engine, "with another dictionary"), damaged);
        others.for_each(|number| assert!(engine.remove(&key(number)).unwrap()));
        // Writing heals, and what is written from now on gets another dictionary.
        (0..KEYS).for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
        check_all_but(&engine, &[b"plain", b"large"]);
        engine.compact().unwrap();
        check_all_but(&engine, &[b"plain", b"large"]);
        engine.close().unwrap();
        check_all_but(&open(&harmed, &options(0)).unwrap(), &[b"plain", b"large"]);
    });
}

fn check_all_but(engine: &Engine, others: &[&[u8]]) {
    assert_eq!(what_is_left(engine, "after healing"), 0);
    let keys: Vec<_> = engine.keys().map(Result::unwrap).filter(|key| !others.contains(&&key[..])).collect();
    assert_eq!(keys.len(), KEYS as usize);
}

#[test]
fn a_power_cut_at_any_call_of_a_compaction_leaves_every_value_readable() {
    let numbers = 0..120;
    for mapped in [true, false] {
        let mut is_done = false;
        for call in 0.. {
            let medium = Faulty::new(mapped);
            let engine = open(&medium, &options(0)).unwrap();
            numbers.clone().for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
            engine.sync().unwrap();
            medium.plan(Some(Plan { call, lasting: false, fault: Fault::Crash }));
            is_done |= engine.compact().is_ok();
            medium.plan(None);
            for seed in 0..6 {
                let left = open(&medium.after_power_cut(call * 6 + seed), &options(0)).unwrap();
                for number in numbers.clone() {
                    let found = left.get(&key(number)).unwrap_or_else(|error| panic!("call {call}: {error}"));
                    assert_eq!(found.expect("it was synced"), value(number), "call {call}, seed {seed}");
                }
                assert_eq!(damage(&left), [""; 0], "call {call}, seed {seed}");
            }
            if is_done {
                assert!(call > 10 && dictionaries(&medium) == 1, "{call} calls");
                break;
            }
        }
    }
}

#[test]
fn a_compaction_whose_calls_fail_harms_no_value_and_no_dictionary() {
    let numbers = 0..120;
    let is_whole = |engine: &Engine, when: &str| {
        for number in numbers.clone() {
            let found = engine.get(&key(number)).unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_eq!(found.expect("it was synced"), value(number), "{when}");
        }
        assert_eq!((damage(engine), engine.len()), (vec![], u64::from(numbers.end)), "{when}");
    };
    for fault in [Fault::Fail, Fault::Short] {
        for call in 0.. {
            let medium = Faulty::new(true);
            let engine = open(&medium, &options(16 << 10)).unwrap();
            numbers.clone().for_each(|number| engine.insert(&key(number), &value(number), &Attributes::new()).unwrap());
            engine.sync().unwrap();
            medium.plan(Some(Plan { call, lasting: false, fault }));
            let is_done = engine.compact().is_ok();
            let has_failed = medium.calls() > call;
            medium.plan(None);
            is_whole(&engine, "after a failure");
            if engine.compact().is_ok() {
                is_whole(&engine, "after another compaction");
            }
            drop(engine);
            let engine = open(&medium, &options(16 << 10)).unwrap();
            is_whole(&engine, "after reopening");
            engine.compact().unwrap();
            is_whole(&engine, "after reopening and a compaction");
            if is_done && !has_failed {
                assert!(call > 10, "{call} calls");
                break;
            }
        }
    }
}
