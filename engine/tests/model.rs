//! Random operations against a map, with reopening and a clock that jumps: the same answers, nothing immortal, nothing
//! early, nothing resurrected.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use support::{Random, START_MS, advance, clock, damage, each, key, look, open, seeds, small_at, value, version_of};
use thermocline_engine::{
    Attributes, Compression, Engine, Options,
    medium::{Faulty, Medium},
};

const DAY_MS: u64 = 24 * 3_600_000;
const TEN_YEARS_MS: u64 = 3_653 * DAY_MS;

#[derive(Clone, Copy, Debug)]
struct Entry {
    version: u64,
    /// 0: never.
    deadline_ms: u64,
}

struct Run {
    random: Random,
    medium: Faulty,
    engine: Option<Engine>,
    entries: BTreeMap<u8, Entry>,
    clock: Arc<AtomicU64>,
    /// The latest time that a record of the store carries.
    seen_ms: u64,
    version: u64,
    compression: Compression,
}

impl Run {
    fn new(seed: u64, mapped: bool) -> Self {
        let compression = if seed.is_multiple_of(4) { Compression::none() } else { Compression::zstd(1) };
        let (medium, clock) = (Faulty::new(mapped), clock());
        let (random, entries) = (Random(seed), BTreeMap::new());
        let (engine, seen_ms, version) = (None, START_MS, 0);
        let mut run = Self { random, medium, engine, entries, clock, seen_ms, version, compression };
        run.open();
        run
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an open store")
    }

    fn open(&mut self) {
        // Time never runs backwards across processes; from here on it goes as the clock goes.
        let wall = self.clock.load(Ordering::Relaxed).max(self.seen_ms);
        self.clock.store(wall, Ordering::Relaxed);
        // Now and then somebody changes his mind.
        if self.random.one_in(10) {
            self.compression = if self.random.one_in(2) { Compression::none() } else { Compression::zstd(5) };
        }
        let options = Options { compression: self.compression, ..small_at(&self.clock) };
        self.engine = Some(open(&self.medium, &options).expect("nothing fails here"));
    }

    fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn living(&self, number: u8) -> Option<Entry> {
        let entry = self.entries.get(&number).copied();
        entry.filter(|entry| entry.deadline_ms == 0 || entry.deadline_ms > self.now_ms())
    }

    fn wrote(&mut self, number: u8, ttl_ms: u64) {
        let deadline_ms = if ttl_ms == 0 { 0 } else { self.now_ms() + ttl_ms };
        self.entries.insert(number, Entry { version: self.version, deadline_ms });
        self.seen_ms = self.seen_ms.max(self.now_ms());
    }

    fn step(&mut self) {
        self.version += 1;
        let number = self.random.below(30) as u8;
        let ttl_ms = [0, 0, 1, 50, 5_000, 2 * DAY_MS, TEN_YEARS_MS / 2][self.random.below(7) as usize];
        match self.random.below(100) {
            0..30 => self.insert(number, ttl_ms),
            30..35 => self.insert_many(number, ttl_ms),
            35..47 => self.remove(number),
            47..59 => self.exchange(number),
            59..85 => self.read(number),
            85..95 => advance(&self.clock, [0, 1, 40, 5_000][self.random.below(4) as usize]),
            95..96 => advance(&self.clock, if self.random.one_in(20) { TEN_YEARS_MS } else { DAY_MS }),
            98..99 if self.random.one_in(2) => self.engine().sync().expect("nothing fails here"),
            98..99 if self.random.one_in(4) => _ = self.engine().compact().expect("nothing fails here"),
            97..98 if self.random.one_in(2) => _ = self.engine().checkpoint().expect("nothing fails here"),
            97..98 if self.random.one_in(4) => self.engine().hint_now().expect("nothing fails here"),
            97..98 if self.random.one_in(2) => self.engine().rest_now().expect("nothing fails here"),
            96..97 => self.walk(),
            97..99 => _ = self.engine().compact_any(self.random.0).expect("nothing fails here"),
            _ => self.reopen(),
        }
    }

    fn insert(&mut self, number: u8, ttl_ms: u64) {
        let attributes = attributes(ttl_ms);
        self.engine().insert(&key(number), &value(number, self.version), &attributes).expect("nothing fails here");
        self.wrote(number, ttl_ms);
    }

    fn insert_many(&mut self, first: u8, ttl_ms: u64) {
        let numbers: Vec<_> = (first..30).take(6).collect();
        let pairs: Vec<_> = numbers.iter().map(|number| (key(*number), value(*number, self.version))).collect();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        self.engine().insert_many(&pairs, &attributes(ttl_ms)).expect("nothing fails here");
        numbers.into_iter().for_each(|number| self.wrote(number, ttl_ms));
    }

    fn remove(&mut self, number: u8) {
        let was_there = self.engine().remove(&key(number)).expect("nothing fails here");
        assert_eq!(was_there, self.living(number).is_some(), "remove of key {number}");
        if was_there {
            self.entries.remove(&number);
            self.seen_ms = self.seen_ms.max(self.now_ms());
        }
    }

    fn exchange(&mut self, number: u8) {
        let stale = self.random.one_in(3);
        let now = self.engine().peek(&key(number)).expect("nothing fails here").map(|value| value.sequence());
        let expected = if stale { Some(now.unwrap_or(0) + 1) } else { now };
        let new = (!self.random.one_in(3)).then(|| value(number, self.version));
        let result =
            self.engine().compare_exchange(&key(number), expected, new.as_deref()).expect("nothing fails here");
        assert_eq!(result.is_err(), stale, "exchange of key {number}");
        match (result, new) {
            (Ok(_), Some(_)) => self.wrote(number, 0),
            (Ok(_), None) if now.is_some() => {
                self.entries.remove(&number);
                self.seen_ms = self.seen_ms.max(self.now_ms());
            }
            _ => {}
        }
    }

    /// Every way to look at one key says the same.
    fn read(&self, number: u8) {
        let (engine, bytes, expected) = (self.engine(), key(number), self.living(number));
        let version = expected.map(|entry| entry.version);
        assert_eq!(look(engine, number).expect("nothing fails here"), version, "get of key {number}");
        let read = engine.read(&bytes, |value| version_of(number, value)).expect("nothing fails here");
        let peeked = engine.peek(&bytes).expect("nothing fails here").map(|value| version_of(number, &value));
        let contained = engine.contains_key(&bytes).expect("nothing fails here");
        assert_eq!((read, peeked, contained), (version, version, version.is_some()), "key {number}");
        let metadata = engine.metadata(&bytes).expect("nothing fails here");
        let left = metadata.map(|metadata| metadata.ttl_left);
        let expected = expected.map(|entry| entry.deadline_ms.checked_sub(self.now_ms()).map(Duration::from_millis));
        assert_eq!(left, expected, "metadata of key {number}");
        let bytes = version.map(|version| value(number, version).len() as u64);
        let size_bytes = engine.metadata(&key(number)).expect("nothing fails here").map(|known| known.size_bytes);
        assert_eq!(size_bytes, bytes, "size of key {number}");
    }

    fn walk(&self) {
        let number_of = |found: &[u8]| (0..30).find(|number| key(*number) == found).expect("a key that was written");
        let entries = self.engine().iter().map(|entry| entry.expect("nothing fails here"));
        let mut found: Vec<_> = entries.map(|(key, value)| (number_of(&key), value.to_vec())).collect();
        found.sort();
        let found: Vec<_> = found.iter().map(|(number, value)| (*number, version_of(*number, value))).collect();
        let living = self.entries.keys().filter_map(|number| Some((*number, self.living(*number)?.version)));
        let expected: Vec<_> = living.collect();
        assert_eq!(found, expected, "a walk");
        assert_eq!(self.engine().len(), expected.len() as u64);
        assert_eq!(self.engine().is_empty(), expected.is_empty());
    }

    /// The process ends, the wall clock jumps, another process begins. The walk before it has seen what had expired, and a
    /// write after it keeps that in the log.
    fn reopen(&mut self) {
        self.walk();
        self.insert(29, 0);
        let engine = self.engine.take();
        match self.random.below(3) {
            0 => engine.into_iter().for_each(|engine| engine.close().expect("nothing fails here")),
            1 => drop(engine),
            _ => {
                self.medium = self.medium.after_kill();
                self.count_without_snapshot();
            }
        }
        match self.random.below(6) {
            0 => drop(self.clock.fetch_sub(DAY_MS, Ordering::Relaxed)),
            1 => self.clock.store(START_MS, Ordering::Relaxed),
            2 => advance(&self.clock, DAY_MS),
            _ => {}
        }
        self.open();
        self.walk();
    }
}

impl Run {
    /// What is counted with a snapshot is what is counted without. What has expired may be in one and not in the other.
    fn count_without_snapshot(&self) {
        let counted = |medium: &Faulty| {
            let engine = open(medium, &small_at(&self.clock)).expect("nothing fails here");
            let live_bytes = Some(engine.stats().log.live_bytes).filter(|_| engine.len_estimate() == engine.len());
            (engine.len(), live_bytes)
        };
        let without = self.medium.after_kill();
        if without.remove("index").is_ok() {
            let [(keys, live_bytes), (keys_without, live_bytes_without)] =
                [counted(&self.medium.after_kill()), counted(&without)];
            assert_eq!(keys, keys_without, "keys");
            if live_bytes.is_some() && live_bytes_without.is_some() {
                assert_eq!(live_bytes, live_bytes_without, "live bytes");
            }
        }
    }
}

fn attributes(ttl_ms: u64) -> Attributes {
    if ttl_ms == 0 { Attributes::new() } else { Attributes::new().ttl(Duration::from_millis(ttl_ms)) }
}

fn run(seed: u64, mapped: bool) {
    let mut run = Run::new(seed, mapped);
    for _ in 0..1_000 {
        run.step();
    }
    (0..30).for_each(|number| run.read(number));
    run.walk();
    assert_eq!(damage(run.engine()), [""; 0]);
}

#[test]
fn a_mapped_store_answers_like_a_map_whatever_the_clock_does() {
    each(seeds(60), |seed| run(seed, true));
}

#[test]
fn an_unmapped_store_answers_like_a_map_whatever_the_clock_does() {
    each(seeds(40), |seed| run(seed + 1_000, false));
}

/// Opens a store whose wall clock says `wall_ms`.
fn open_at(medium: &Faulty, wall_ms: u64) -> (Engine, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(wall_ms));
    (open(medium, &small_at(&clock)).expect("nothing fails here"), clock)
}

#[test]
fn an_entry_expires_on_time_though_the_wall_clock_was_set_back_before_opening() {
    for mapped in [true, false] {
        let medium = Faulty::new(mapped);
        let (engine, _) = open_at(&medium, START_MS + TEN_YEARS_MS);
        engine.insert(&key(0), &value(0, 1), &Attributes::new()).unwrap();
        engine.close().unwrap();
        let (engine, clock) = open_at(&medium, START_MS);
        engine.insert(&key(1), &value(1, 1), &attributes(1_000)).unwrap();
        advance(&clock, 999);
        assert_eq!(look(&engine, 1).unwrap(), Some(1), "not early");
        advance(&clock, 2);
        assert_eq!(look(&engine, 1).unwrap(), None, "a second that takes ten years");
    }
}

#[test]
fn what_had_expired_for_a_reader_stays_expired_when_the_clock_is_set_back() {
    for mapped in [true, false] {
        let medium = Faulty::new(mapped);
        let (engine, clock) = open_at(&medium, START_MS);
        engine.insert(&key(0), &value(0, 1), &attributes(1_000)).unwrap();
        advance(&clock, 2_000);
        assert_eq!(look(&engine, 0).unwrap(), None);
        clock.store(START_MS, Ordering::Relaxed);
        assert_eq!(look(&engine, 0).unwrap(), None, "in the same process");
        engine.close().unwrap();
        let (engine, _) = open_at(&medium, START_MS);
        assert_eq!(look(&engine, 0).unwrap(), None, "in the next process");
    }
}

#[test]
fn what_had_expired_for_anybody_stays_expired_after_a_kill_when_the_clock_is_set_back() {
    type SeesNothing = fn(&Engine) -> bool;
    let observers: [(&str, SeesNothing); 7] = [
        ("get", |engine| look(engine, 0).unwrap().is_none()),
        ("contains_key", |engine| !engine.contains_key(&key(0)).unwrap()),
        ("a walk", |engine| engine.keys().next().is_none()),
        ("len", |engine| matches!(engine.len(), 0)),
        ("is_empty", |engine: &Engine| engine.is_empty()),
        ("remove", |engine| !engine.remove(&key(0)).unwrap()),
        ("an exchange", |engine| engine.compare_exchange(&key(0), Some(1), None).unwrap() == Err(None)),
    ];
    for ((when, sees_nothing), mapped) in observers.into_iter().flat_map(|one| [(one, true), (one, false)]) {
        let medium = Faulty::new(mapped);
        let (engine, clock) = open_at(&medium, START_MS);
        engine.insert(&key(0), &value(0, 1), &attributes(1_000)).unwrap();
        advance(&clock, 1_000);
        assert!(sees_nothing(&engine), "{when}");
        let (next, _) = open_at(&medium.after_kill(), START_MS);
        assert!(sees_nothing(&next), "{when}, in the next process");
    }
}

#[test]
fn time_is_noted_once_for_all_that_had_expired_by_then() {
    let medium = Faulty::new(true);
    let (engine, clock) = open_at(&medium, START_MS);
    (0..10).for_each(|number| {
        engine.insert(&key(number), b"short", &attributes(1_000 + u64::from(number))).unwrap();
    });
    advance(&clock, 5_000);
    assert_eq!(look(&engine, 3).unwrap(), None);
    medium.plan(None);
    (0..10).for_each(|number| assert_eq!(look(&engine, number).unwrap(), None));
    assert_eq!(medium.calls(), 0, "every deadline was noted with the first");
}
