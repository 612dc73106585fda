//! Operations against a map: the same answers, whatever the clock does and however processes end.
//!
//! The first byte says whether files are mapped, and whether every sync and walk compacts, and so compresses. Nothing fails and no power is cut here; that is `crash`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arbitrary::Unstructured;
use thermocline_engine::{Attributes, Engine, Options, TimeSource, medium::Faulty};

use crate::{
    forge::Forge,
    recipe::NOW_MS,
    script::{self, Jump, KEYS, Key, Length, Operation, Ttl, attributes, value},
    segment_scan::End,
};

const HOUR_MS: u64 = 3_600_000;
/// 10000-01-01: deadlines from here on are never.
const NEVER_MS: u64 = 253_402_300_800_000;

/// Carries `data` out on a store and on a map.
///
/// # Panics
/// When their answers differ.
pub fn operations(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let mut run = Run::new(flags & 1 == 0, flags & 6 == 2);
    for operation in script::operations(&mut Unstructured::new(rest)) {
        run.carry_out(operation);
    }
    (0..KEYS).for_each(|number| run.read(Key(number)));
    run.walk();
    assert_eq!(run.engine().verify().expect("files can be read").damaged, [], "damage to a store that nobody harmed");
}

struct Entry {
    value: Vec<u8>,
    /// 0: never.
    deadline_ms: u64,
}

struct Run {
    medium: Faulty,
    engine: Option<Engine>,
    clock: Arc<AtomicU64>,
    /// The latest time that a record of the store carries.
    seen_ms: u64,
    entries: BTreeMap<u8, Entry>,
    version: u64,
    compacts: bool,
}

impl Run {
    fn new(mapped: bool, compacts: bool) -> Self {
        let medium = Faulty::new(mapped);
        medium.write("store", &Forge::store_file());
        let clock = Arc::new(AtomicU64::new(NOW_MS));
        let (engine, entries) = (None, BTreeMap::new());
        let mut run = Self { medium, engine, clock, seen_ms: 0, entries, version: 0, compacts };
        run.open();
        run
    }

    fn open(&mut self) {
        // Time never runs backwards across processes; from here on it goes as the clock goes.
        self.clock.fetch_max(self.seen_ms, Ordering::Relaxed);
        let time = TimeSource::Manual(self.clock.clone());
        let options = Options { segment_bytes: 64 << 10, time, dictionary_samples_min: 8, ..Options::default() };
        self.engine = Some(Engine::open(Arc::new(self.medium.clone()), options).expect("nothing fails here"));
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an open store")
    }

    fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn living(&self, key: Key) -> Option<&Entry> {
        let entry = self.entries.get(&key.number())?;
        (entry.deadline_ms == 0 || entry.deadline_ms > self.now_ms()).then_some(entry)
    }

    fn wrote(&mut self, key: Key, value: Vec<u8>, ttl: Ttl) {
        let left_ms = ttl.duration().map(|ttl| ttl.as_millis());
        let deadline_ms = left_ms.map(|left_ms| u128::from(self.now_ms()) + left_ms);
        let deadline_ms = deadline_ms.filter(|deadline_ms| *deadline_ms < u128::from(NEVER_MS)).unwrap_or(0) as u64;
        self.entries.insert(key.number(), Entry { value, deadline_ms });
        self.seen_ms = self.seen_ms.max(self.now_ms());
    }

    fn removed(&mut self, key: Key) {
        self.entries.remove(&key.number());
        self.seen_ms = self.seen_ms.max(self.now_ms());
    }

    fn carry_out(&mut self, operation: Operation) {
        self.version += 1;
        match operation {
            Operation::Insert(key, length, ttl, synced) => self.insert(key, length, ttl, synced),
            Operation::InsertMany(first, count, length, ttl, synced) => {
                self.insert_many(first, count, length, &attributes(ttl, synced), ttl);
            }
            Operation::Remove(key) => {
                let was_there = self.engine().remove(&key.bytes()).expect("nothing fails here");
                assert_eq!(was_there, self.living(key).is_some(), "remove of {key:?}");
                if was_there {
                    self.removed(key);
                }
            }
            Operation::Exchange { key, new, is_stale } => self.exchange(key, new, is_stale),
            Operation::Read(key) => self.read(key),
            Operation::Walk => self.walk(),
            Operation::Wait(ms) => drop(self.clock.fetch_add(u64::from(ms), Ordering::Relaxed)),
            Operation::Sync => {
                self.engine().sync().expect("nothing fails here");
                self.compact();
            }
            Operation::Reopen(end, jump) => self.reopen(end, jump),
        }
    }

    fn insert(&mut self, key: Key, length: Length, ttl: Ttl, synced: bool) {
        let value = value(key, self.version, length);
        self.engine().insert(&key.bytes(), &value, &attributes(ttl, synced)).expect("nothing fails here");
        self.wrote(key, value, ttl);
        self.read(key);
    }

    fn insert_many(&mut self, first: Key, count: u8, length: Length, attributes: &Attributes, ttl: Ttl) {
        let pairs: Vec<_> = first.on(count).zip(self.version..).collect();
        let pairs: Vec<_> =
            pairs.into_iter().map(|(key, version)| (key, key.bytes(), value(key, version, length))).collect();
        let borrowed: Vec<_> = pairs.iter().map(|(_, key, value)| (&key[..], &value[..])).collect();
        self.engine().insert_many(&borrowed, attributes).expect("nothing fails here");
        self.version += u64::from(count);
        pairs.into_iter().for_each(|(key, _, value)| self.wrote(key, value, ttl));
        self.read(first);
    }

    fn exchange(&mut self, key: Key, length: Option<Length>, is_stale: bool) {
        let now = self.engine().peek(&key.bytes()).expect("nothing fails here").map(|value| value.sequence());
        let expected = if is_stale { Some(now.map_or(1, |now| now - 1)) } else { now };
        let new = length.map(|length| value(key, self.version, length));
        let result = self.engine().compare_exchange(&key.bytes(), expected, new.as_deref());
        match (result.expect("nothing fails here"), new) {
            (Err(found), _) => assert_eq!((found, is_stale), (now, true), "exchange of {key:?}"),
            (Ok(_), _) if is_stale => panic!("{key:?} was exchanged over what was not there"),
            (Ok(_), Some(value)) => self.wrote(key, value, Ttl::None),
            (Ok(_), None) if now.is_some() => self.removed(key),
            (Ok(_), None) => {}
        }
        self.read(key);
    }

    /// Every way to look at one key says the same.
    fn read(&self, key: Key) {
        let (engine, bytes, expected) = (self.engine(), key.bytes(), self.living(key));
        let value = expected.map(|entry| entry.value.clone());
        let got = engine.get(&bytes).expect("nothing fails here").map(|value| value.to_vec());
        let read = engine.read(&bytes, <[u8]>::to_vec).expect("nothing fails here");
        assert!(got == value && read == value, "{key:?} is {got:?} or {read:?}, not {value:?}");
        assert_eq!(engine.contains_key(&bytes).expect("nothing fails here"), value.is_some(), "{key:?}");
        let metadata = engine.metadata(&bytes).expect("nothing fails here");
        let told = metadata.map(|metadata| (metadata.size_bytes, metadata.ttl_left));
        let expected = expected.map(|entry| {
            let left_ms = (entry.deadline_ms != 0).then(|| entry.deadline_ms - self.now_ms());
            (entry.value.len() as u64, left_ms.map(Duration::from_millis))
        });
        assert_eq!(told, expected, "what is known of {key:?}");
    }

    fn compact(&self) {
        if self.compacts {
            self.engine().compact().expect("nothing fails here");
        }
    }

    fn walk(&self) {
        self.compact();
        let entries = self.engine().iter().map(|entry| entry.expect("nothing fails here"));
        let mut found: Vec<_> = entries.map(|(key, value)| (key, value.to_vec())).collect();
        let living =
            (0..KEYS).filter_map(|number| Some((Key(number).bytes(), self.living(Key(number))?.value.clone())));
        let mut expected: Vec<_> = living.collect();
        found.sort();
        expected.sort();
        assert!(found == expected, "a walk meets {found:?}, not {expected:?}");
        assert_eq!(self.engine().len(), expected.len() as u64);
        assert_eq!(self.engine().is_empty(), expected.is_empty());
    }

    /// Everybody has seen what had expired; a write keeps that in the log, whatever the clock does then.
    fn reopen(&mut self, end: End, jump: Jump) {
        self.walk();
        self.insert(Key(1), Length(20), Ttl::None, false);
        let engine = self.engine.take().expect("an open store");
        match end {
            End::Close => engine.close().expect("nothing fails here"),
            End::Drop => drop(engine),
            End::Kill => self.medium = self.medium.after_kill(),
        }
        let now_ms = self.now_ms();
        let wall_ms = match jump {
            Jump::None => now_ms,
            Jump::Back(hours) => now_ms.saturating_sub(u64::from(hours) * HOUR_MS),
            Jump::On(hours) => now_ms + u64::from(hours) * HOUR_MS,
            Jump::Zero => 0,
        };
        self.clock.store(wall_ms, Ordering::Relaxed);
        self.open();
        self.walk();
    }
}
