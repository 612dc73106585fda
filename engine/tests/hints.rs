//! Opening by hints says what reading the log says, whatever became of the hints, of the records and of the segments.

mod support;

use std::{collections::BTreeMap, time::Duration};

use support::{Random, at, damage, each, key, look, open, seeds, small, value};
use thermocline_engine::{
    Attributes, Compression, Engine, Error, Options,
    medium::{Fault, Faulty, Medium, Plan},
};

fn options() -> Options {
    Options { compression: Compression::zstd(1), dictionary_samples_min: 8, ..small() }
}

fn hints(medium: &Faulty) -> Vec<String> {
    let mut names = medium.names().unwrap();
    names.retain(|name| name.ends_with(".hint"));
    names.sort();
    names
}

fn without_hints(medium: &Faulty) -> Faulty {
    let copy = medium.after_kill();
    hints(&copy).iter().for_each(|name| copy.remove(name).unwrap());
    copy
}

/// Whatever a store says of itself, but for how it knows.
fn said(engine: &Engine) -> (BTreeMap<u8, Option<u64>>, [u64; 4], Vec<String>) {
    let keys = (0..40).map(|number| (number, look(engine, number).unwrap())).collect();
    let stats = engine.stats();
    let figures = [engine.len(), stats.log.live_bytes, stats.log.records, stats.recovery.records];
    (keys, figures, damage(engine))
}

/// A store that was killed, with values of all sizes, removals, deadlines, exchanges and, now and then, cold segments.
fn killed(seed: u64, mapped: bool) -> Faulty {
    let mut random = Random(seed);
    let medium = Faulty::new(mapped);
    let mut engine = open(&medium, &options()).unwrap();
    for version in 1..140 {
        let number = random.below(40) as u8;
        let expiring = Attributes::new().ttl(Duration::from_secs(100_000 + version));
        match random.below(20) {
            0..12 => engine.insert(&key(number), &value(number, version), &at(random.one_in(9))).unwrap(),
            12..14 => engine.insert(&key(number), &value(number, version), &expiring).unwrap(),
            14..17 => drop(engine.remove(&key(number)).unwrap()),
            17 => {
                let now = engine.peek(&key(number)).unwrap().map(|value| value.sequence());
                engine.compare_exchange(&key(number), now, Some(&value(number, version))).unwrap().unwrap();
            }
            18 if random.one_in(2) => drop(engine.compact().unwrap()),
            18 if random.one_in(4) => {
                engine.close().unwrap();
                engine = open(&medium, &options()).unwrap();
            }
            _ => engine.hint_now().unwrap(),
        }
    }
    engine.hint_now().unwrap();
    let killed = medium.after_kill();
    drop(engine);
    killed
}

#[test]
fn a_store_opened_by_hints_says_what_one_says_that_reads_the_log() {
    let mut hinted = 0;
    each(seeds(60).into_iter().flat_map(|seed| [(seed, true), (seed, false)]), |(seed, mapped)| {
        let left = killed(seed, mapped);
        let [by_hints, by_log] = [left.after_kill(), without_hints(&left)].map(|left| open(&left, &options()).unwrap());
        assert_eq!(by_log.stats().recovery.hinted, 0);
        hinted += by_hints.stats().recovery.hinted;
        assert_eq!(said(&by_hints), said(&by_log));
        // What is dead where is known as well: compaction does the same to both.
        let [one, other] = [&by_hints, &by_log].map(|engine| engine.compact().unwrap());
        assert_eq!(one, other, "a compaction");
        assert_eq!(said(&by_hints), said(&by_log), "after a compaction");
        // The next process has hints of those that this one has made.
        by_hints.hint_now().unwrap();
        let next = open(&left.after_kill(), &options()).unwrap();
        assert_eq!(said(&next).0, said(&by_log).0, "one more kill");
    });
    assert!(hinted > 500 || seeds(60).len() == 1, "only {hinted} records known from hints");
}

/// A segment that is full and has a hint, and what is written behind it.
fn one_full(mapped: bool) -> (Faulty, BTreeMap<u8, Option<u64>>) {
    let medium = Faulty::new(mapped);
    let engine = open(&medium, &options()).unwrap();
    (0..12).for_each(|number| engine.insert(&key(number), &value(number, 1), &at(false)).unwrap());
    (2..5).for_each(|number| engine.insert(&key(number), &value(number, 2), &at(false)).unwrap());
    assert!(engine.remove(&key(5)).unwrap());
    (20..26).for_each(|number| engine.insert(&key(number), &value(number, 80), &at(false)).unwrap());
    engine.insert(&key(6), &value(6, 3), &at(false)).unwrap();
    engine.hint_now().unwrap();
    let expected = (0..26).map(|number| (number, look(&engine, number).unwrap())).collect();
    let left = medium.after_kill();
    drop(engine);
    assert_eq!(hints(&left).len(), 1);
    (left, expected)
}

#[test]
fn a_flip_or_a_cut_at_any_byte_of_a_hint_changes_nothing() {
    for mapped in [true, false] {
        let (left, expected) = one_full(mapped);
        let name = &hints(&left)[0];
        let sound = left.read(name).unwrap();
        let flipped = (0..sound.len()).map(|at| (at, true));
        let cut = (0..sound.len()).map(|at| (at, false));
        each(flipped.chain(cut).chain([(sound.len(), false)]), |(place, is_flipped)| {
            let copy = left.after_kill();
            let mut bytes = sound.clone();
            match is_flipped {
                true => bytes[place] ^= 1 << (place % 8),
                false => bytes.truncate(place),
            }
            let is_sound = bytes == sound;
            copy.write(name, &bytes);
            let reader = open(&copy, &Options { read_only: true, ..options() }).unwrap();
            assert_eq!(reader.stats().recovery.hinted > 0, is_sound);
            drop(reader);
            assert_eq!(hints(&copy).len(), 1, "who only reads removes nothing");
            let engine = open(&copy, &Options { hint_after: u64::MAX, ..options() }).unwrap();
            assert_eq!(engine.stats().recovery.hinted > 0, is_sound);
            assert_eq!(hints(&copy).is_empty(), !is_sound, "what is not what was written goes");
            let found: BTreeMap<_, _> = (0..26).map(|number| (number, look(&engine, number).unwrap())).collect();
            assert_eq!(found, expected);
            assert_eq!(damage(&engine), [""; 0]);
        });
    }
}

#[test]
fn a_damaged_record_of_which_a_hint_tells_hides_what_is_older_and_no_other_key() {
    for mapped in [true, false] {
        let (left, expected) = one_full(mapped);
        let segment = "0000000000000001.segment";
        let sound = left.read(segment).unwrap();
        let word = |at: usize| u64::from_le_bytes(*sound[at..].first_chunk().unwrap());
        // The records by their places; of each only bytes of it, not of the values that fill the segment.
        let (mut places, mut start) = (Vec::new(), 128);
        loop {
            let (value_bytes, key_bytes) = (word(start + 8) as u32 as usize, word(start + 8) as usize >> 32 & 0xffff);
            let text = String::from_utf8(sound[start + 32..start + 32 + key_bytes].to_vec()).unwrap();
            let number: u8 = text.trim_start_matches("key ").trim_end_matches('.').parse().unwrap();
            let bytes = 32 + key_bytes + value_bytes.min(200);
            places.extend((start..start + bytes).step_by(3).map(|place| (place, number)));
            start += (32 + key_bytes + value_bytes).next_multiple_of(8);
            if number == 20 {
                break;
            }
        }
        each(places, |(place, hit)| {
            let copy = left.after_kill();
            let mut bytes = sound.clone();
            bytes[place] ^= 1 << (place % 8);
            copy.write(segment, &bytes);
            let engine = open(&copy, &options()).unwrap();
            for (number, version) in &expected {
                match look(&engine, *number) {
                    Ok(found) if found == *version => {}
                    Err(Error::Corrupt { .. }) if *number == hit => {}
                    found => panic!("key {number} is {found:?}, written was {version:?}, hit is {hit}"),
                }
            }
            assert!(!damage(&engine).is_empty(), "verify tells");
            // It stays as it is, whoever compacts, and a write heals its key.
            engine.compact().unwrap();
            assert!(!damage(&engine).is_empty());
            engine.insert(&key(hit), &value(hit, 9), &at(false)).unwrap();
            assert_eq!(look(&engine, hit).unwrap(), Some(9));
        });
    }
}

/// A store that was killed when keys had a newer value in a segment of a lower number than their older one: compaction moved that.
fn older_behind_newer(mapped: bool) -> (Faulty, String) {
    let medium = Faulty::new(mapped);
    let engine = open(&medium, &options()).unwrap();
    (0..5).for_each(|number| engine.insert(&key(number), &value(number, 1), &at(false)).unwrap());
    engine.compact().unwrap();
    (0..5).for_each(|number| engine.insert(&key(number), &value(number, 2), &at(false)).unwrap());
    (20..26).for_each(|number| engine.insert(&key(number), &value(number, 80), &at(false)).unwrap());
    engine.hint_now().unwrap();
    let left = medium.after_kill();
    drop(engine);
    let newer = place_of(&left, 0).0;
    assert!(hints(&left).len() == 2 && hints(&left)[1][..16] > newer[..16], "{:?}", hints(&left));
    (left, newer)
}

/// Where the second value of a key is.
fn place_of(medium: &Faulty, number: u8) -> (String, usize) {
    let wanted = [key(number), value(number, 2)].concat();
    let names = medium.names().unwrap();
    let find = |name: String| {
        let bytes = medium.read(&name)?;
        let place = bytes.windows(wanted.len()).position(|bytes| bytes == wanted)?;
        Some((name, place))
    };
    names.into_iter().find_map(find).expect("it is somewhere")
}

#[test]
fn a_damaged_record_hides_what_is_older_whichever_is_met_first() {
    let cases = (0..40).flat_map(|round| (0..5).map(move |number| (number, round)));
    let stores = [true, false].map(older_behind_newer);
    each(cases.flat_map(|case| [(case, 0), (case, 1)]), |((number, round), store)| {
        let (left, segment) = &stores[store];
        let copy = left.after_kill();
        let (_, place) = place_of(&copy, number);
        let mut bytes = copy.read(segment).unwrap();
        // In the key, or in the value.
        bytes[place + round % 2 * (key(number).len() + 3)] ^= 1;
        copy.write(segment, &bytes);
        let engine = open(&copy, &options()).unwrap();
        for other in 0..5 {
            match look(&engine, other) {
                Err(Error::Corrupt { .. }) if other == number => {}
                Ok(Some(2)) if other != number => {}
                found => panic!("key {other} is {found:?}, hit is {number}"),
            }
        }
    });
}

#[test]
fn what_a_snapshot_covers_of_a_segment_is_left_out_of_its_hint() {
    for mapped in [true, false] {
        let medium = Faulty::new(mapped);
        let write = |engine: &Engine, version| {
            (0..8).for_each(|number| engine.insert(&key(number), &value(number, version), &at(false)).unwrap());
            assert!(engine.remove(&key((version % 8) as u8)).unwrap());
        };
        let engine = open(&medium, &options()).unwrap();
        (1..4).for_each(|version| write(&engine, version));
        engine.close().unwrap();
        let engine = open(&medium, &options()).unwrap();
        (4..6).for_each(|version| write(&engine, version));
        (20..26).for_each(|number| engine.insert(&key(number), &value(number, 80), &at(false)).unwrap());
        engine.hint_now().unwrap();
        let left = medium.after_kill();
        drop(engine);
        let [by_hints, by_log] = [left.after_kill(), without_hints(&left)].map(|left| open(&left, &options()).unwrap());
        let recovery = by_hints.stats().recovery;
        assert!(recovery.hinted >= 18 && recovery.records < 5 * 9, "{recovery:?}");
        assert_eq!(said(&by_hints), said(&by_log));
        assert_eq!(by_hints.compact().unwrap(), by_log.compact().unwrap());
    }
}

#[test]
fn a_hint_goes_with_its_segment_and_one_without_a_segment_goes_at_open() {
    let (left, expected) = one_full(true);
    let engine = open(&left, &options()).unwrap();
    assert!(engine.stats().recovery.hinted > 0);
    engine.compact().unwrap();
    engine.hint_now().unwrap();
    assert!(!hints(&left).contains(&"0000000000000001.hint".to_owned()), "{:?}", left.names());
    let last = hints(&left).pop().expect("a cold segment has one too");
    let bytes = left.read(&last).unwrap();
    engine.close().unwrap();
    left.write("00000000000000ff.hint", &bytes);
    left.write("0000000000000fff.hint.new", &bytes);
    let engine = open(&left, &Options { hint_after: u64::MAX, ..options() }).unwrap();
    assert!(hints(&left).iter().all(|name| left.read(&name.replace("hint", "segment")).is_some()));
    assert!(left.read("0000000000000fff.hint.new").is_none());
    let found: BTreeMap<_, _> = (0..26).map(|number| (number, look(&engine, number).unwrap())).collect();
    assert_eq!(found, expected);
}

#[test]
fn no_hint_is_written_where_none_is_wanted() {
    for options in [Options { hint_after: 1 << 20, ..options() }, Options { disk_capacity: Some(1 << 20), ..options() }]
    {
        let medium = Faulty::new(true);
        let engine = open(&medium, &options).unwrap();
        (0..30).for_each(|number| engine.insert(&key(number), &value(number, 80), &at(false)).unwrap());
        engine.compact().unwrap();
        engine.hint_now().unwrap();
        assert_eq!(hints(&medium), [""; 0]);
    }
}

#[test]
fn a_hint_is_of_what_a_power_cut_leaves() {
    each(seeds(40), |seed| {
        let medium = Faulty::new(seed.is_multiple_of(2));
        let engine = open(&medium, &options()).unwrap();
        // Nobody asks for anything durable.
        (0..12).for_each(|number| engine.insert(&key(number), &value(number, 80), &at(false)).unwrap());
        medium.write_back(seed);
        engine.hint_now().unwrap();
        let cut = medium.after_power_cut(seed ^ 1);
        let known = hints(&cut).len();
        assert!(known > 0, "what is hinted is durable");
        let next = open(&cut, &options()).unwrap();
        assert!(next.stats().recovery.hinted >= 4 * known as u64);
        assert_eq!(damage(&next), [""; 0]);
        (0..4).for_each(|number| assert_eq!(look(&next, number).unwrap(), Some(80)));
    });
}

#[test]
fn after_a_flush_that_failed_no_hint_is_believed() {
    let (left, expected) = one_full(true);
    let mut failed = 0;
    for call in 0..12 {
        let copy = left.after_kill();
        let engine = open(&copy, &options()).unwrap();
        engine.insert(&key(30), &value(30, 1), &at(false)).unwrap();
        copy.plan(Some(Plan { call, lasting: false, fault: Fault::Fail }));
        // Whatever it says.
        let _ = engine.sync();
        copy.plan(None);
        let copy = copy.after_kill();
        drop(engine);
        if copy.read("lock").is_some_and(|note| note.starts_with(b"doubtful")) {
            failed += 1;
            let engine = open(&copy, &Options { hint_after: u64::MAX, ..options() }).unwrap();
            assert_eq!((engine.stats().recovery.hinted, hints(&copy).len()), (0, 0));
            assert!(expected.iter().all(|(number, version)| look(&engine, *number).unwrap() == *version));
        }
    }
    assert!(failed > 0, "no flush has failed");
}
