//! A ceiling on the log: the files never take more, what goes is counted and does not come back, in this process or the next.
//!
//! The medium has no byte more than the ceiling and two small files: whatever would take more is an error.

mod support;

use std::{collections::BTreeMap, thread};

use support::{Random, at, damage, each, key, look, open, seeds, small, value};
use thermocline_engine::{
    Durability, Engine, Error, Options, Reason,
    medium::{Fault, Faulty, Plan},
};

const SEGMENT_BYTES: u64 = 64 << 10;
/// What the files `store` and `lock` take, and `store.new` before it is renamed.
const OTHER_BYTES: u64 = 2 << 10;
/// Values of these versions take a segment of their own: see `value`.
const LARGE: u64 = 77;

fn options(segments: u64) -> Options {
    Options { disk_capacity: Some(segments * SEGMENT_BYTES), ..small() }
}

fn medium(options: &Options, mapped: bool) -> Faulty {
    let medium = Faulty::new(mapped);
    medium.set_room(options.disk_capacity.map(|capacity| capacity + OTHER_BYTES));
    medium
}

/// What each key was last written as; `None` if it was removed, or read as gone.
#[derive(Clone, Debug, Default)]
struct Written(BTreeMap<u8, Option<u64>>);

impl Written {
    /// A key has what was written last, or nothing, if so many may have been evicted; then it stays gone.
    fn saw(&mut self, number: u8, found: Option<u64>, when: &str) {
        let written = self.0.entry(number).or_default();
        assert!(found.is_none() || found == *written, "{when}: key {number} is {found:?}, written was {written:?}");
        *written = found;
    }

    fn check(&mut self, engine: &Engine, when: &str) {
        let numbers: Vec<_> = self.0.keys().copied().collect();
        let mut present = 0;
        for number in numbers {
            let found = look(engine, number).unwrap_or_else(|error| panic!("{when}: key {number}: {error}"));
            present += u64::from(found.is_some());
            self.saw(number, found, when);
        }
        assert_eq!((engine.len(), engine.iter().count() as u64), (present, present), "{when}");
        assert_eq!(damage(engine), [""; 0], "{when}");
    }

    fn present(&self) -> u64 {
        self.0.values().filter(|version| version.is_some()).count() as u64
    }
}

struct Run {
    random: Random,
    options: Options,
    medium: Faulty,
    engine: Option<Engine>,
    written: Written,
    version: u64,
}

impl Run {
    fn new(seed: u64, mapped: bool) -> Self {
        let mut random = Random(seed);
        let durability = if random.one_in(3) { Durability::Synced } else { Durability::Buffered };
        let memory_capacity = if random.one_in(3) { 0 } else { 16 << 10 };
        let options = Options { durability, memory_capacity, ..options(5 + seed % 3) };
        let medium = medium(&options, mapped);
        let mut run = Self { random, options, medium, engine: None, written: Written::default(), version: 0 };
        run.open();
        run
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an open store")
    }

    fn open(&mut self) {
        self.engine = Some(open(&self.medium, &self.options).expect("nothing fails here"));
    }

    fn step(&mut self) {
        self.version += 1;
        let (number, version) = (self.random.below(60) as u8, self.version);
        match self.random.below(100) {
            0..45 => {
                self.engine().insert(&key(number), &value(number, version), &at(false)).expect("room is made");
                self.written.0.insert(number, Some(version));
            }
            45..55 => {
                let numbers: Vec<_> = (number..60).take(8).collect();
                let pairs: Vec<_> = numbers.iter().map(|number| (key(*number), value(*number, version))).collect();
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
                self.engine().insert_many(&pairs, &at(false)).expect("room is made");
                numbers.into_iter().for_each(|number| _ = self.written.0.insert(number, Some(version)));
            }
            55..65 => {
                self.engine().remove(&key(number)).expect("room is made");
                self.written.0.insert(number, None);
            }
            65..72 => {
                let now = self.engine().peek(&key(number)).unwrap().map(|value| value.sequence());
                let new = value(number, version);
                match self.engine().compare_exchange(&key(number), now, Some(&new)).expect("room is made") {
                    Ok(_) => _ = self.written.0.insert(number, Some(version)),
                    // It had to go itself.
                    Err(found) => {
                        assert_eq!(found, None);
                        self.written.saw(number, None, "exchange");
                    }
                }
            }
            72..92 => {
                let found = look(self.engine(), number).expect("reads go on");
                self.written.saw(number, found, "read");
            }
            92..94 => self.written.check(self.engine.as_ref().unwrap(), "while it goes on"),
            94..95 => _ = self.engine().compact().expect("nothing fails here"),
            95..97 => match self.engine().compact_any(version) {
                // One that is alive as a whole and larger than others.
                Err(Error::DiskCapacity { .. }) => {}
                done => _ = done.expect("nothing else fails"),
            },
            _ => self.reopen(),
        }
    }

    fn reopen(&mut self) {
        let engine = self.engine.take().expect("an open store");
        // What was seen as gone stays gone.
        self.written.check(&engine, "before the end");
        match self.random.below(4) {
            0 => engine.close().expect("nothing fails here"),
            1 => drop(engine),
            2 => self.medium = self.medium.after_kill(),
            _ => {
                engine.sync().expect("nothing fails here");
                self.medium = self.medium.after_power_cut(self.version);
            }
        }
        self.open();
        self.written.check(self.engine.as_ref().unwrap(), "after opening");
    }
}

#[test]
fn a_store_at_its_ceiling_answers_like_a_map_that_forgets_for_good() {
    each(seeds(30), |seed| {
        let mut run = Run::new(seed, seed % 3 != 0);
        (0..700).for_each(|_| run.step());
        run.written.check(run.engine.as_ref().unwrap(), "at the end");
    });
}

/// Writes until the medium ends; returns the key whose write failed, if one did.
fn write_until_the_end(engine: &Engine) -> Option<u8> {
    for version in 1..=300_u64 {
        let number = (version * 7 % 90) as u8;
        let written = match version.is_multiple_of(9) {
            true => engine.remove(&key(number)).map(drop),
            false => engine.insert(&key(number), &value(number, version), &at(false)),
        };
        if written.is_err() {
            return Some(number);
        }
    }
    None
}

#[test]
fn what_is_gone_for_a_reader_is_gone_after_a_kill_at_any_call() {
    for mapped in [true, false] {
        let options = options(5);
        let run = |call| {
            let medium = medium(&options, mapped);
            medium.plan(Some(Plan { call, lasting: true, fault: Fault::Crash }));
            (medium.clone(), open(&medium, &options))
        };
        let (medium, engine) = run(u64::MAX);
        assert_eq!(write_until_the_end(&engine.unwrap()), None);
        let calls = medium.calls();
        let step = if mapped { 2 } else { 11 };
        each((0..calls).step_by(step), |call| {
            let (medium, Ok(engine)) = run(call) else { return };
            let failed = write_until_the_end(&engine);
            let next = medium.after_kill();
            next.plan(None);
            let next = open(&next, &options).unwrap_or_else(|error| panic!("{error}"));
            for number in (0..90).filter(|number| Some(*number) != failed) {
                // What is read by calls cannot be read any more.
                if let Ok(before) = look(&engine, number) {
                    let after = look(&next, number).unwrap();
                    // Or it was about to go.
                    assert!(after == before || after.is_none(), "key {number}, {before:?} before and {after:?} after");
                }
            }
        });
    }
}

#[test]
fn every_entry_that_goes_is_counted_and_the_last_ones_are_in_the_log_of_evictions() {
    for mapped in [true, false] {
        let options = options(6);
        let medium = medium(&options, mapped);
        let engine = open(&medium, &options).unwrap();
        let (mut written, mut known) = (Written::default(), 0);
        for version in 1..=3_000 {
            let number = (version % 200) as u8;
            if version == 2_000 {
                known = engine.stats().evictions.disk_capacity;
                assert!(known > 0);
            }
            let before = engine.contains_key(&key(number)).unwrap();
            let (len, evicted) = (engine.len(), engine.stats().evictions.disk_capacity);
            engine.insert(&key(number), &value(number, version), &at(false)).unwrap();
            let evicted = engine.stats().evictions.disk_capacity - evicted;
            assert!(engine.len() + evicted >= len + u64::from(!before), "an entry went and was not counted");
            written.0.insert(number, Some(version));
        }
        written.check(&engine, "at the end");
        let evictions = engine.stats().evictions.disk_capacity;
        assert!(evictions > known, "{evictions}");
        let log = engine.eviction_log();
        assert!(log.iter().any(|eviction| eviction.reason == Reason::DiskCapacity));
        assert!(engine.stats().log.bytes <= options.disk_capacity.unwrap());
        assert!(written.present() > 20, "{} of 200 are left", written.present());
    }
}

#[test]
fn what_comes_back_stays_longer_than_what_came_once() {
    let options = Options { memory_capacity: 64 << 10, ..options(8) };
    let medium = medium(&options, true);
    let engine = open(&medium, &options).unwrap();
    let name = |number: u64| format!("{number:08}").into_bytes();
    let value = [7; 300];
    let mut misses = 0;
    for number in 0..20_000 {
        engine.insert(&name(1_000_000 + number), &value, &at(false)).unwrap();
        let hot = name(number % 50);
        if engine.get(&hot).unwrap().is_none() {
            misses += 1;
            engine.insert(&hot, &value, &at(false)).unwrap();
        }
    }
    assert!(misses < 100, "50 keys that came 400 times each were missed {misses} times");
    assert!(engine.stats().evictions.disk_capacity > 10_000, "{:?}", engine.stats().evictions);
}

#[test]
fn a_value_that_never_fits_is_refused_with_the_numbers_and_one_that_does_gets_its_room() {
    let options = options(5);
    let medium = medium(&options, true);
    let engine = open(&medium, &options).unwrap();
    for durability in [Durability::Volatile, Durability::Buffered, Durability::Synced] {
        let attributes = at(false).durability(durability);
        for number in 0..30 {
            engine.insert(&key(number), &value(number, LARGE), &attributes).unwrap();
            engine.insert(&key(number + 30), &value(number, 80), &attributes).unwrap();
        }
        let error = engine.insert(b"large", &[1; 200_000], &attributes).unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, Error::NeverFits { .. }), "{told}");
        assert!(["200040", "327680", "65536", "130944"].iter().all(|number| told.contains(number)), "{told}");
        assert_eq!(engine.get(b"large").unwrap(), None);
    }
    engine.close().unwrap();
}

#[test]
fn a_ceiling_that_is_too_low_is_refused_with_the_numbers() {
    let options = Options { disk_capacity: Some(4 * SEGMENT_BYTES - 1), ..small() };
    let told = open(&Faulty::new(true), &options).unwrap_err().to_string();
    assert_eq!(told, "option disk_capacity is 262143, expected at least 262144, 4 segments of 65536");
}

#[test]
fn writers_beside_each_other_share_the_room_and_readers_go_on() {
    for mapped in [true, false] {
        for compacts in [true, false] {
            let options = Options { compacts, ..options(6) };
            let medium = medium(&options, mapped);
            let engine = open(&medium, &options).unwrap();
            thread::scope(|scope| {
                for writer in 0..3_u8 {
                    let engine = &engine;
                    scope.spawn(move || {
                        for version in 1..1_500 {
                            let number = writer * 50 + (version % 50) as u8;
                            engine.insert(&key(number), &value(number, version), &at(false)).expect("room is made");
                            if let Some(found) = look(engine, number).unwrap() {
                                assert_eq!(found, version);
                            }
                        }
                    });
                }
            });
            let present = (0..150).filter(|number| look(&engine, *number).unwrap().is_some()).count() as u64;
            assert_eq!(engine.len(), present);
        }
    }
}

#[test]
fn a_writer_inside_a_read_or_beside_a_walk_hears_that_there_is_no_room() {
    let options = options(5);
    let medium = medium(&options, true);
    let engine = open(&medium, &options).unwrap();
    let fill = || -> Result<(), Error> {
        (0..200).try_for_each(|number| engine.insert(&key(number), &value(number, 80), &at(false)))
    };
    fill().unwrap();
    let inside = engine.read(&key(199), |_| fill()).unwrap().unwrap();
    assert!(matches!(inside, Err(Error::DiskCapacity { .. })), "{inside:?}");
    fill().unwrap();
    let mut walk = engine.iter();
    walk.next().unwrap().unwrap();
    let beside = fill().unwrap_err();
    assert!(beside.to_string().contains("of at most 327680"), "{beside}");
    drop(walk);
    fill().unwrap();
}

#[test]
fn a_store_that_is_opened_with_a_lower_ceiling_comes_down_to_it() {
    let medium = Faulty::new(true);
    let engine = open(&medium, &small()).unwrap();
    for version in 1..=400_u64 {
        engine.insert(&key((version % 200) as u8), &value((version % 200) as u8, version), &at(false)).unwrap();
    }
    let large = engine.stats().log.bytes;
    engine.close().unwrap();
    let options = options(5);
    assert!(large > 2 * options.disk_capacity.unwrap(), "{large}");
    let engine = open(&medium, &options).unwrap();
    (0..100).for_each(|number| engine.insert(&key(number), &value(number, 500), &at(false)).unwrap());
    let stats = engine.stats();
    assert!(stats.log.bytes <= options.disk_capacity.unwrap() && stats.evictions.disk_capacity > 0, "{stats:?}");
    assert_eq!(look(&engine, 99).unwrap(), Some(500));
}
