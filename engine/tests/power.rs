//! Power cuts: unflushed sectors are lost, kept or reordered, and what was promised is there all the same.
//!
//! An image is what one cut leaves. Images are taken between any two operations of a random run and, in another
//! test, at every call of the medium. A run goes on over kills, drops and closes.

mod support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use support::{Random, at, damage, each, key, look, open, scale, seeds, small, value};
use thermocline_engine::{
    Durability, Engine, Options,
    medium::{Fault, Faulty, Plan},
};

const KEYS: u64 = 24;

/// Per key all that was ever written to it, in order, and from where on it is promised.
#[derive(Clone, Debug, Default)]
struct History(BTreeMap<u8, Written>);

#[derive(Clone, Debug)]
struct Written {
    versions: Vec<Option<u64>>,
    /// How many writes were there when the last one was acknowledged as durable.
    floor: usize,
}

impl History {
    fn of(&mut self, key: u8) -> &mut Written {
        self.0.entry(key).or_insert_with(|| Written { versions: vec![None], floor: 0 })
    }

    /// A write that was begun, and what it returned.
    fn wrote(&mut self, key: u8, version: Option<u64>, durable: bool) {
        let written = self.of(key);
        written.versions.push(version);
        if durable {
            written.floor = written.versions.len() - 1;
        }
    }

    /// Everything acknowledged so far is durable.
    fn synced(&mut self) {
        self.0.values_mut().for_each(|written| written.floor = written.versions.len() - 1);
    }

    /// Holds a store against the history; returns what it has.
    fn check(&self, engine: &Engine, when: &str) -> BTreeMap<u8, Option<u64>> {
        let mut answers = BTreeMap::new();
        for (key, written) in &self.0 {
            let found = look(engine, *key).unwrap_or_else(|error| panic!("{when}: key {key}: {error}"));
            let promised = &written.versions[written.floor..];
            assert!(promised.contains(&found), "{when}: key {key} is {found:?}, promised was one of {promised:?}");
            answers.insert(*key, found);
        }
        let present = answers.values().filter(|version| version.is_some()).count();
        assert_eq!(engine.iter().filter(Result::is_ok).count(), present, "{when}: a walk meets other entries");
        assert_eq!(damage(engine), [""; 0], "{when}");
        answers
    }
}

fn options(random: &mut Random) -> Options {
    let durability = if random.one_in(4) { Durability::Synced } else { Durability::Buffered };
    Options { durability, ..small() }
}

struct Run {
    random: Random,
    options: Options,
    medium: Faulty,
    engine: Option<Engine>,
    history: History,
    version: u64,
    images: u64,
}

impl Run {
    fn new(seed: u64, mapped: bool) -> Self {
        let mut random = Random(seed);
        let options = options(&mut random);
        let medium = Faulty::new(mapped);
        let history = History::default();
        Self { random, options, medium, engine: None, history, version: seed % 50, images: 0 }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an open store")
    }

    /// One operation; `false` when the medium is gone.
    fn step(&mut self) -> bool {
        self.version += 1;
        let (number, version) = (self.random.below(KEYS) as u8, self.version);
        let all_synced = self.options.durability == Durability::Synced;
        let synced = all_synced || self.random.one_in(6);
        match self.random.below(44) {
            0..18 => {
                let result = self.engine().insert(&key(number), &value(number, version), &at(synced));
                self.history.wrote(number, Some(version), synced && result.is_ok());
                result.is_ok()
            }
            18..24 => {
                let result = self.engine().remove(&key(number));
                self.history.wrote(number, None, all_synced && result.is_ok());
                result.is_ok()
            }
            24..28 => {
                let Ok(found) = self.engine().peek(&key(number)) else { return false };
                let expected = found.map(|value| value.sequence());
                let new = value(number, version);
                let result = self.engine().compare_exchange(&key(number), expected, Some(&new));
                self.history.wrote(number, Some(version), all_synced && result.is_ok());
                result.is_ok()
            }
            28..32 => {
                let numbers: Vec<_> = (number..KEYS as u8).take(5).collect();
                let pairs: Vec<_> = numbers.iter().map(|number| (key(*number), value(*number, version))).collect();
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
                let result = self.engine().insert_many(&pairs, &at(synced));
                numbers.iter().for_each(|key| self.history.wrote(*key, Some(version), synced && result.is_ok()));
                result.is_ok()
            }
            32..36 => {
                let engine = self.engine();
                let result = if self.version.is_multiple_of(4) { engine.compact().map(drop) } else { engine.sync() };
                if result.is_ok() {
                    self.history.synced();
                }
                result.is_ok()
            }
            36..37 if self.random.one_in(2) => {
                let result = self.engine().checkpoint();
                if let Ok(true) = result {
                    self.history.synced();
                }
                result.is_ok()
            }
            36..37 => self.engine().compact_any(self.version).is_ok(),
            37..38 => self.engine().rest_now().is_ok(),
            42.. => self.engine().hint_now().is_ok(),
            _ => self.reopen(),
        }
    }

    /// Ends the process in one of its three ways and starts the next.
    fn reopen(&mut self) -> bool {
        let engine = self.engine.take();
        match self.random.below(3) {
            0 => drop(engine),
            1 => {
                if let Some(engine) = engine
                    && engine.close().is_ok()
                {
                    self.history.synced();
                }
            }
            _ => {
                let killed = self.medium.after_kill();
                drop(engine);
                self.medium = killed;
            }
        }
        self.open()
    }

    fn open(&mut self) -> bool {
        self.medium.write_back(self.random.below(1 << 60));
        self.engine = open(&self.medium, &self.options).ok();
        self.engine.is_some()
    }

    /// Cuts the power now and looks at what is left; cuts it again right after the store was opened, and once more
    /// after it has written a little.
    fn cut(&mut self, when: &str) {
        self.images += 1;
        let seed = self.random.below(1 << 60);
        let image = self.medium.after_power_cut(seed);
        let engine = open(&image, &self.options).unwrap_or_else(|error| panic!("{when}: {error}"));
        let answers = self.history.check(&engine, when);
        let second = image.after_power_cut(seed ^ 1);
        let engine_again = open(&second, &self.options).unwrap_or_else(|error| panic!("{when}, again: {error}"));
        assert_eq!(self.history.check(&engine_again, "a second cut"), answers, "{when}: what was given up came back");
        drop(engine_again);
        self.cut_again(when, &image, &engine, answers);
    }

    /// What is written after a power cut follows the same promises.
    fn cut_again(&mut self, when: &str, image: &Faulty, engine: &Engine, answers: BTreeMap<u8, Option<u64>>) {
        let written = |(key, version)| (key, Written { versions: vec![version], floor: 0 });
        let mut history = History(answers.into_iter().map(written).collect());
        image.write_back(self.random.below(1 << 60));
        for version in 0..3 {
            let (number, version) = (self.random.below(KEYS) as u8, 1_000_000 + version);
            let synced = self.random.one_in(3);
            engine.insert(&key(number), &value(number, version), &at(synced)).expect("a store that takes writes");
            history.wrote(number, Some(version), synced || self.options.durability == Durability::Synced);
        }
        let third = image.after_power_cut(self.random.below(1 << 60));
        let engine = open(&third, &self.options).unwrap_or_else(|error| panic!("{when}, a third time: {error}"));
        history.check(&engine, &format!("{when}, then three writes and another cut"));
    }
}

/// Images between operations.
fn cut_between(seed: u64, mapped: bool) -> u64 {
    let mut run = Run::new(seed, mapped);
    assert!(run.open());
    for step in 0..60 {
        assert!(run.step(), "nothing fails here");
        if run.random.one_in(3) {
            run.cut(&format!("after {step} steps"));
        }
    }
    run.images
}

/// Images at every call that a short run makes: the cut comes before call i.
fn cut_at(seed: u64, mapped: bool, call: u64) -> bool {
    let mut run = Run::new(seed, mapped);
    run.medium.plan(Some(Plan { call, lasting: false, fault: Fault::Crash }));
    let mut lives = run.open();
    for _ in 0..14 {
        lives = lives && run.step();
    }
    run.medium.plan(None);
    if run.engine.is_none() && run.medium.read("store").is_none() {
        // Cut before there was a store.
        return !lives;
    }
    run.cut(&format!("before call {call}"));
    !lives
}

#[test]
fn a_mapped_store_keeps_what_it_promised_through_1000_power_cuts() {
    let mut images = 0;
    each(seeds(34), |seed| images += cut_between(seed, true));
    assert!(images >= 500 * scale() || seeds(34).len() == 1, "only {images} images");
}

#[test]
fn an_unmapped_store_keeps_what_it_promised_through_1000_power_cuts() {
    let mut images = 0;
    each(seeds(34), |seed| images += cut_between(seed, false));
    assert!(images >= 500 * scale() || seeds(34).len() == 1, "only {images} images");
}

#[test]
fn a_power_cut_before_any_call_of_the_medium_keeps_what_was_promised() {
    let cases = seeds(6).into_iter().flat_map(|seed| [true, false].map(|mapped| (seed, mapped)));
    each(cases, |(seed, mapped)| {
        let mut call = 0;
        while cut_at(seed, mapped, call) {
            call += 1;
        }
    });
}

#[test]
fn a_large_record_that_is_written_first_after_opening_leaves_all_others_alone() {
    for mapped in [true, false] {
        let medium = Faulty::new(mapped);
        let engine = open(&medium, &small()).unwrap();
        (0..20).for_each(|number| engine.insert(&key(number), &value(number, 1), &at(false)).unwrap());
        engine.close().unwrap();
        let engine = open(&medium, &small()).unwrap();
        engine.insert(&key(20), &value(20, 77), &at(false)).unwrap();
        // The upkeep thread has its turn: it was woken by the write, and what it does is seen as calls.
        let (start, calls) = (Instant::now(), medium.calls());
        while medium.calls() == calls && start.elapsed() < Duration::from_millis(200) {
            std::thread::yield_now();
        }
        engine.close().unwrap();
        let engine = open(&medium, &small()).unwrap();
        (0..20).for_each(|number| assert_eq!(look(&engine, number).unwrap(), Some(1), "key {number}, mapped {mapped}"));
        assert_eq!((look(&engine, 20).unwrap(), damage(&engine)), (Some(77), vec![]));
    }
}

#[test]
fn a_batch_of_removals_shares_a_flush() {
    let medium = Faulty::new(true);
    let engine = open(&medium, &Options { durability: Durability::Synced, ..small() }).unwrap();
    let keys: Vec<_> = (0..10).map(key).collect();
    let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
    keys.iter().for_each(|key| engine.insert(key, b"value", &at(true)).unwrap());
    medium.plan(None);
    assert_eq!(engine.remove_many(&[&keys[..], &keys[..3], &[b"missing"]].concat()).unwrap(), 10);
    assert!(medium.calls() <= 13 + 1, "{} calls for 13 tombstones and a flush", medium.calls());
    let left = open(&medium.after_power_cut(1), &small()).unwrap();
    assert!(left.is_empty());
}

#[test]
fn damage_to_what_durable_writes_promised_is_told_without_a_sync() {
    let medium = Faulty::new(true);
    let engine = open(&medium, &Options { durability: Durability::Synced, ..small() }).unwrap();
    let first = "0000000000000001.segment";
    let flushed = || medium.read(first).map_or(0, |bytes| u64::from_le_bytes(bytes[64..72].try_into().unwrap()));
    let start = Instant::now();
    let mut version = 0;
    while flushed() < 4_096 {
        assert!(start.elapsed() < Duration::from_secs(60), "nobody notes what was flushed");
        version += 1;
        engine.insert(&key((version % 5) as u8), &value(1, version), &at(true)).unwrap();
    }
    let left = medium.after_kill();
    let mut bytes = left.read(first).unwrap();
    bytes[128 + 20] ^= 1;
    left.write(first, &bytes);
    assert_eq!(damage(&open(&left, &small()).unwrap()).len(), 1);
}
