//! Segment slots that are used again: stores that go through all of theirs many times say what a map says, whoever looks meanwhile,
//! and whatever of them is killed or closed in between.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{Random, advance, clock, damage, each, key, look, open, seeds, small, small_at, value, version_of};
use thermocline_engine::{
    Attributes, Compression, Engine, Error, Options,
    medium::{Faulty, Medium},
};

const SEGMENT_BYTES: u64 = 64 << 10;
const SLOTS: usize = 8;
const KEYS: u8 = 24;
/// Bytes that are written in a turn, about: a segment's.
const TURN_BYTES: u64 = SEGMENT_BYTES;

/// How long slots may rest because a thread that writes a hint looks into what stood there, or other tests hold guards.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts: whoever went round and round would keep those from running that hold the guards.
const PAUSE: Duration = Duration::from_millis(1);

/// Does `write`, and again after compaction as long as there is no slot for it.
fn with_slots<R>(engine: &Engine, write: impl Fn() -> Result<R, Error>) -> R {
    let since = Instant::now();
    loop {
        match write() {
            Err(Error::Full { slots_max, .. }) if since.elapsed() < PATIENCE => {
                assert_eq!(slots_max, SLOTS as u64);
                compact(engine);
                thread::sleep(PAUSE);
            }
            done => return done.expect("nothing else fails here"),
        }
    }
}

/// Compacts, as far as there are slots for copies.
fn compact(engine: &Engine) {
    match engine.compact() {
        Ok(_) | Err(Error::Full { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

struct Run {
    random: Random,
    medium: Faulty,
    engine: Option<Engine>,
    options: Options,
    clock: Arc<AtomicU64>,
    /// Version and deadline of each key; 0: never.
    entries: BTreeMap<u8, (u64, u64)>,
    version: u64,
    /// Bytes that were written since the store was opened last, and the most that ever were.
    written: u64,
    written_max: u64,
}

impl Run {
    fn new(seed: u64, mapped: bool) -> Self {
        let clock = clock();
        let memory_capacity = [0, 16 << 10, 256 << 10][seed as usize % 3];
        let options = Options { segment_slots: SLOTS, memory_capacity, ..small_at(&clock) };
        let (random, entries, medium) = (Random(seed), BTreeMap::new(), Faulty::new(mapped));
        let engine = Some(open(&medium, &options).unwrap());
        Self { random, medium, engine, options, clock, entries, version: 0, written: 0, written_max: 0 }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an open store")
    }

    fn write(&mut self) {
        self.version += 1;
        let (number, ttl_ms) =
            (self.random.below(KEYS.into()) as u8, [0, 0, 0, 40, 2_000][self.random.below(5) as usize]);
        if self.random.one_in(6) {
            with_slots(self.engine(), || self.engine().remove(&key(number)));
            self.entries.remove(&number);
            return;
        }
        let bytes = value(number, self.version);
        let attributes = Attributes::new();
        let attributes = if ttl_ms == 0 { attributes } else { attributes.ttl(Duration::from_millis(ttl_ms)) };
        with_slots(self.engine(), || self.engine().insert(&key(number), &bytes, &attributes));
        self.written += bytes.len() as u64;
        let deadline_ms = if ttl_ms == 0 { 0 } else { self.clock.load(Ordering::Relaxed) + ttl_ms };
        self.entries.insert(number, (self.version, deadline_ms));
    }

    fn check(&self, when: &str) {
        let now_ms = self.clock.load(Ordering::Relaxed);
        let living = |number| {
            let entry = self.entries.get(&number).copied();
            entry.filter(|(_, deadline_ms)| *deadline_ms == 0 || *deadline_ms > now_ms).map(|(version, _)| version)
        };
        let expected: Vec<_> = (0..KEYS).map(living).collect();
        let found: Vec<_> = (0..KEYS).map(|number| look(self.engine(), number).expect("nothing fails here")).collect();
        assert_eq!(found, expected, "{when}");
        let walked = self.engine().iter().inspect(|entry| assert!(entry.is_ok(), "nothing fails here")).count();
        assert_eq!(walked, expected.iter().flatten().count(), "{when}: a walk");
    }

    /// Writes a segment's bytes, then does something else or nothing.
    fn turn(&mut self, what: u64) {
        let from = self.written;
        while self.written < from + TURN_BYTES {
            self.write();
        }
        match what {
            0 => compact(self.engine()),
            1 => _ = with_slots(self.engine(), || self.engine().compact_any(self.random.0)),
            2 => _ = with_slots(self.engine(), || self.engine().checkpoint()),
            3 => self.engine().hint_now().expect("nothing fails here"),
            4 => self.engine().rest_now().expect("nothing fails here"),
            5 => advance(&self.clock, 1_000),
            6 => _ = self.engine().drop_expired_now().expect("nothing fails here"),
            7 => _ = self.engine().evict_all().expect("nothing fails here"),
            _ => {}
        }
        self.check("after a turn");
        self.written_max = self.written_max.max(self.written);
    }

    fn reopen(&mut self, how: u64) {
        let engine = self.engine.take().expect("an open store");
        match how {
            0 => engine.close().expect("nothing fails here"),
            1 => drop(engine),
            _ => self.medium = self.medium.after_kill(),
        }
        // What no snapshot says is found as well.
        if how == 3 && self.medium.names().expect("nothing fails here").iter().any(|name| name == "index") {
            self.medium.remove("index").expect("it is there");
        }
        self.engine = Some(open(&self.medium, &self.options).expect("nothing fails here"));
        self.written = 0;
        self.check("after opening");
    }
}

/// Goes through all slots so many times in one opening, then through some of them in each of many.
fn run(seed: u64, mapped: bool, times: u64) {
    let mut run = Run::new(seed, mapped);
    for _ in 0..times * SLOTS as u64 {
        let what = run.random.below(16);
        run.turn(what);
    }
    assert!(run.written_max >= times * SLOTS as u64 * SEGMENT_BYTES);
    for _ in 0..20 {
        for _ in 0..1 + run.random.below(2 * SLOTS as u64) {
            let what = run.random.below(10);
            run.turn(what);
        }
        let how = run.random.below(4);
        run.reopen(how);
    }
    assert_eq!(damage(run.engine()), [""; 0]);
}

#[test]
fn a_mapped_store_goes_through_its_slots_many_times() {
    each(seeds(6), |seed| run(seed, true, 40));
}

#[test]
fn an_unmapped_store_goes_through_its_slots_many_times() {
    each(seeds(3), |seed| run(seed + 100, false, 20));
}

/// Reads all keys, by one way or another, until `is_over`: of each no version may follow a later one.
fn watch(engine: &Engine, reader: u64, is_over: &AtomicBool) {
    let mut last = [0; KEYS as usize];
    for turn in 0.. {
        let mut saw = |number: u8, version: u64| {
            let last = &mut last[usize::from(number)];
            assert!(version >= *last, "key {number} was {last}, and is {version}");
            *last = version;
        };
        for number in 0..KEYS {
            match (turn + reader) % 3 {
                0 => look(engine, number).unwrap().into_iter().for_each(|version| saw(number, version)),
                1 => {
                    let shown = engine.read(&key(number), |bytes| {
                        thread::yield_now();
                        version_of(number, bytes)
                    });
                    shown.unwrap().into_iter().for_each(|version| saw(number, version));
                }
                _ => {
                    let keys: Vec<_> = (0..KEYS).map(key).collect();
                    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
                    let values = engine.get_many(&keys).unwrap();
                    for (number, value) in (0..).zip(values) {
                        value.into_iter().for_each(|value| saw(number, version_of(number, &value)));
                    }
                }
            }
        }
        if turn % 7 == 0 {
            // Slowly, so that segments go and others come while what it has met was not shown yet.
            for entry in engine.iter() {
                let (name, value) = entry.unwrap();
                let number = (0..KEYS).find(|number| key(*number) == name).expect("a key that was written");
                version_of(number, &value);
                thread::yield_now();
            }
        }
        if is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Writes to keys of its own, or waits until there are slots.
fn churn(engine: &Engine, writer: u8, writers: u8, turns: u64) -> BTreeMap<u8, Option<u64>> {
    let mut random = Random(u64::from(writer) + 1);
    let mut has = BTreeMap::new();
    let mut written = 0;
    for version in 1.. {
        let number = random.below((KEYS / writers).into()) as u8 * writers + writer;
        let bytes = value(number, version);
        let new = !random.one_in(8);
        loop {
            let done = match new {
                true => engine.insert(&key(number), &bytes, &Attributes::new()),
                false => engine.remove(&key(number)).map(|_| ()),
            };
            match done {
                Ok(()) => break,
                Err(Error::Full { .. }) => thread::sleep(PAUSE),
                Err(error) => panic!("{error}"),
            }
        }
        written += bytes.len() as u64;
        has.insert(number, new.then_some(version));
        if written >= turns * SLOTS as u64 * SEGMENT_BYTES / u64::from(writers) {
            break;
        }
    }
    has
}

#[test]
fn readers_and_walkers_never_meet_what_came_to_a_slot_that_was_used_before() {
    each([(true, 0), (true, 32 << 10), (false, 0)], |(mapped, memory_capacity)| {
        let medium = Faulty::new(mapped);
        let options = Options { segment_slots: SLOTS, compacts: true, memory_capacity, ..small() };
        let (engine, is_over) = (open(&medium, &options).unwrap(), AtomicBool::new(false));
        let has: Vec<_> = thread::scope(|scope| {
            let (engine, is_over) = (&engine, &is_over);
            let watchers: Vec<_> = (0..2).map(|reader| scope.spawn(move || watch(engine, reader, is_over))).collect();
            let compactor = scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // While walks keep slots there may be none for copies.
                    compact(engine);
                    engine.checkpoint().unwrap();
                }
            });
            let writers: Vec<_> = (0..2).map(|writer| scope.spawn(move || churn(engine, writer, 2, 60))).collect();
            let has = writers.into_iter().map(|writer| writer.join()).collect::<Vec<_>>();
            is_over.store(true, Ordering::Relaxed);
            watchers.into_iter().chain([compactor]).for_each(|other| other.join().unwrap());
            has.into_iter().map(|has| has.unwrap()).collect()
        });
        let left = medium.after_kill();
        for engine in [engine, open(&left, &options).unwrap()] {
            for (number, version) in has.iter().flatten() {
                assert_eq!(look(&engine, *number).unwrap(), *version, "key {number}");
            }
            assert_eq!(damage(&engine), [""; 0]);
        }
    });
}

#[test]
fn large_values_find_slots_side_by_side_again() {
    let medium = Faulty::new(true);
    let options = Options { segment_slots: SLOTS, memory_capacity: 0, compression: Compression::none(), ..small() };
    let engine = open(&medium, &options).unwrap();
    // Two slots each.
    let large = |version: u8| vec![version; (64 << 20) + 1];
    for version in 0..6 {
        with_slots(&engine, || engine.insert(b"large", &large(version), &Attributes::new()));
        with_slots(&engine, || engine.insert(b"small", &[version], &Attributes::new()));
        compact(&engine);
        assert!(engine.read(b"large", |value| value == large(version)).unwrap().unwrap());
    }
    assert_eq!(engine.get(b"small").unwrap().as_deref(), Some(&[5][..]));
}
