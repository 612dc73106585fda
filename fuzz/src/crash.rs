//! Operations with a call that fails and a process that is killed or loses its power: what was acknowledged holds.
//!
//! Holds, per key, everything that was ever written and from where on it is promised. The upkeep thread makes calls
//! of its own, so the same input may meet another call in another run.

use std::{collections::BTreeMap, sync::Arc};

use arbitrary::{Arbitrary, Unstructured};
use thermocline_engine::{
    Durability, Engine, Error, Options, Result,
    medium::{Fault, Faulty, Plan},
};

use crate::{
    forge::Forge,
    script::{self, Key, Length, Operation, Ttl, attributes, value},
    segment_scan::End,
};

/// What happens besides the operations.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether files are mapped.
    pub mapped: bool,
    /// What writes survive that say nothing.
    pub synced: bool,
    /// Which call goes wrong, how, and whether all later ones do.
    pub plan: Option<(u16, Wrong, bool)>,
    /// How the cache writes pages by itself.
    pub write_back: Option<u64>,
    /// Whether the power goes at the end, and what that loses; otherwise the process is killed.
    pub power_cut: Option<u64>,
}

/// What goes wrong.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The call fails.
    Fail,
    /// A write does half of its work.
    Short,
    /// The process is gone.
    Crash,
}

/// Carries `data` out.
///
/// # Panics
/// When a promise is broken.
pub fn crash(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(frame) = Frame::arbitrary(&mut input) else { return };
    let mut run = Run::new(frame);
    run.open();
    for operation in script::operations(&mut input) {
        if run.engine.is_none() || run.is_gone {
            break;
        }
        run.version += 1;
        run.carry_out(operation);
    }
    run.end();
}

/// All that was written to a key. Nothing is acknowledged of what stands behind `acknowledged`.
#[derive(Clone, Debug)]
struct Written {
    versions: Vec<Option<Vec<u8>>>,
    /// The last that was acknowledged or seen.
    acknowledged: usize,
    /// The last that was acknowledged as durable.
    durable: usize,
}

impl Default for Written {
    fn default() -> Self {
        Self { versions: vec![None], acknowledged: 0, durable: 0 }
    }
}

type Answers = BTreeMap<u8, Option<Vec<u8>>>;

struct Run {
    frame: Frame,
    options: Options,
    medium: Faulty,
    engine: Option<Engine>,
    written: BTreeMap<u8, Written>,
    version: u64,
    /// In some process a flush has failed, and perhaps the note of it as well.
    is_doubtful: bool,
    /// In this process a flush has failed.
    is_suspended: bool,
    /// The process has met its end.
    is_gone: bool,
}

impl Run {
    fn new(frame: Frame) -> Self {
        let medium = Faulty::new(frame.mapped);
        medium.write("store", &Forge::store_file());
        medium.plan(frame.plan.map(|(call, wrong, lasting)| {
            let fault = match wrong {
                Wrong::Fail => Fault::Fail,
                Wrong::Short => Fault::Short,
                Wrong::Crash => Fault::Crash,
            };
            Plan { call: u64::from(call) % 400, lasting, fault }
        }));
        frame.write_back.into_iter().for_each(|seed| medium.write_back(seed));
        let durability = if frame.synced { Durability::Synced } else { Durability::Buffered };
        Self {
            frame,
            options: Options { segment_bytes: 64 << 10, durability, ..Options::default() },
            medium,
            engine: None,
            written: BTreeMap::new(),
            version: 0,
            is_doubtful: false,
            is_suspended: false,
            is_gone: false,
        }
    }

    /// Opens the store; what goes wrong once is over at the second attempt.
    fn open(&mut self) {
        for _ in 0..3 {
            match open(&self.medium, &self.options) {
                Ok(engine) => {
                    (self.engine, self.is_suspended) = (Some(engine), false);
                    return;
                }
                Err(error) => self.note(&error),
            }
        }
    }

    fn note(&mut self, error: &Error) {
        let Some((_, wrong, lasting)) = self.frame.plan else { panic!("nothing was to fail: {error}") };
        self.is_gone = wrong == Wrong::Crash;
        // A flush may have failed behind another error, and the note of it as well. If calls go wrong but once the note
        // was taken, and opening makes good what the flush lost.
        self.is_doubtful |= lasting || self.is_gone;
        self.is_suspended |= matches!(error, Error::Suspended { .. } | Error::Io { action: "flush", .. });
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an open store")
    }

    /// What a write returned, and what it was to write.
    fn wrote(&mut self, key: Key, new: Option<Vec<u8>>, synced: bool, result: Result<()>) {
        if let Err(error) = &result {
            self.note(error);
        }
        assert!(result.is_err() || !self.is_suspended, "{key:?} was written after a flush had failed");
        let durable = (synced || self.frame.synced) && !self.is_doubtful;
        let written = self.written.entry(key.number()).or_default();
        written.versions.push(new);
        if result.is_ok() {
            written.acknowledged = written.versions.len() - 1;
            written.durable = if durable { written.acknowledged } else { written.durable };
        }
    }

    /// Everything that was acknowledged or seen is durable.
    fn synced(&mut self) {
        assert!(!self.is_suspended, "a sync after a flush had failed");
        if !self.is_doubtful {
            self.written.values_mut().for_each(|written| written.durable = written.acknowledged);
        }
    }

    fn carry_out(&mut self, operation: Operation) {
        match operation {
            Operation::Insert(key, length, _, synced) => {
                let value = value(key, self.version, length);
                let result = self.engine().insert(&key.bytes(), &value, &attributes(Ttl::None, synced));
                self.wrote(key, Some(value), synced, result);
                self.read(key);
            }
            Operation::InsertMany(first, count, length, _, synced) => self.insert_many(first, count, length, synced),
            Operation::Remove(key) => {
                match self.engine().remove(&key.bytes()) {
                    Ok(false) => self.saw(key, None),
                    Ok(true) => self.wrote(key, None, false, Ok(())),
                    Err(error) => self.wrote(key, None, false, Err(error)),
                }
                self.read(key);
            }
            Operation::Exchange { key, new, .. } => self.exchange(key, new),
            Operation::Read(key) => self.read(key),
            Operation::Walk => self.written.clone().into_keys().for_each(|number| self.read(Key(number))),
            Operation::Wait(_) => {}
            Operation::Sync => match self.engine().sync() {
                Ok(()) => self.synced(),
                Err(error) => self.note(&error),
            },
            Operation::Reopen(end, _) => self.reopen(end),
        }
    }

    fn insert_many(&mut self, first: Key, count: u8, length: Length, synced: bool) {
        let pairs: Vec<_> = first.on(count).map(|key| (key, key.bytes(), value(key, self.version, length))).collect();
        let borrowed: Vec<_> = pairs.iter().map(|(_, key, value)| (&key[..], &value[..])).collect();
        let error = self.engine().insert_many(&borrowed, &attributes(Ttl::None, synced)).err();
        error.iter().for_each(|error| self.note(error));
        for (key, _, value) in pairs {
            match &error {
                None => self.wrote(key, Some(value), synced, Ok(())),
                Some(_) => self.written.entry(key.number()).or_default().versions.push(Some(value)),
            }
        }
        first.on(count).for_each(|key| self.read(key));
    }

    fn exchange(&mut self, key: Key, length: Option<Length>) {
        let bytes = key.bytes();
        let expected = match self.engine().peek(&bytes) {
            Ok(found) => found.map(|value| value.sequence()),
            Err(error) => return self.note(&error),
        };
        let new = length.map(|length| value(key, self.version, length));
        match self.engine().compare_exchange(&bytes, expected, new.as_deref()) {
            Ok(Ok(_)) if new.is_none() && expected.is_none() => {}
            Ok(Ok(_)) => self.wrote(key, new, false, Ok(())),
            Ok(Err(found)) => panic!("expected {expected:?} and found {found:?} with nobody else there"),
            Err(error) => self.wrote(key, new, false, Err(error)),
        }
        self.read(key);
    }

    fn saw(&mut self, key: Key, found: Option<Vec<u8>>) {
        let written = self.written.entry(key.number()).or_default();
        let possible = &written.versions[written.acknowledged..];
        assert!(possible.contains(&found), "{key:?} is {}, {}", short(&found), several(possible));
        if possible.len() > 1 {
            written.versions.push(found);
            written.acknowledged = written.versions.len() - 1;
        }
    }

    /// Reads a key; only what is read by calls can fail. Nobody reads in a process that is gone.
    fn read(&mut self, key: Key) {
        if self.is_gone {
            return;
        }
        match self.engine().get(&key.bytes()) {
            Ok(found) => self.saw(key, found.map(|value| value.to_vec())),
            Err(error) => {
                assert!(!self.frame.mapped, "{key:?}: {error}");
                self.note(&error);
            }
        }
    }

    fn reopen(&mut self, end: End) {
        let engine = self.engine.take().expect("an open store");
        match end {
            End::Close => match engine.close() {
                Ok(()) => self.synced(),
                Err(error) => self.note(&error),
            },
            End::Drop => drop(engine),
            End::Kill => {
                let killed = self.medium.after_kill();
                drop(engine);
                self.medium = killed;
            }
        }
        self.open();
    }

    /// The last process ends; what it leaves is opened, loses its power, and is opened again.
    fn end(mut self) {
        self.medium.plan(None);
        let image = match self.frame.power_cut {
            Some(seed) => self.medium.after_power_cut(seed),
            None => self.medium.after_kill(),
        };
        let engine = open(&image, &self.options).expect("what a crash left can be opened");
        if self.is_doubtful && self.frame.power_cut.is_some() {
            // A flush failed and so did the note of it: nobody can know what the disk has.
            return;
        }
        let answers = self.check(&engine);
        if self.frame.power_cut.is_none() {
            engine.sync().expect("a new process can flush");
        }
        if self.frame.power_cut.is_some() || !self.is_doubtful {
            let seed = self.frame.power_cut.unwrap_or(self.version);
            let engine = open(&image.after_power_cut(seed ^ 1), &self.options).expect("what a power cut left");
            assert_same(&engine, &answers, "after a second crash");
        }
        engine.insert(b"another key", b"value", &attributes(Ttl::None, true)).expect("a store that takes writes");
        let engine = open(&image.after_kill(), &self.options).expect("what a kill left");
        assert_same(&engine, &answers, "after a write and a kill");
        self.engine = None;
    }

    /// Holds a store against what was promised; returns what it has.
    fn check(&self, engine: &Engine) -> Answers {
        let mut answers = Answers::new();
        for (number, written) in &self.written {
            let found = engine.get(&Key(*number).bytes()).unwrap_or_else(|error| panic!("key {number}: {error}"));
            let found = found.map(|value| value.to_vec());
            let from = match self.frame.power_cut {
                Some(_) => written.durable,
                None => written.acknowledged,
            };
            let promised = &written.versions[from..];
            assert!(promised.contains(&found), "key {number} is {} in the end, {}", short(&found), several(promised));
            answers.insert(*number, found);
        }
        assert_same(engine, &answers, "in the end");
        answers
    }
}

/// The store has this and nothing else, and no damage.
fn assert_same(engine: &Engine, answers: &Answers, when: &str) {
    for (number, answer) in answers {
        let found = engine.get(&Key(*number).bytes()).unwrap_or_else(|error| panic!("{when}: key {number}: {error}"));
        let found = found.map(|value| value.to_vec());
        assert!(found == *answer, "{when}: key {number} is {}, was {}", short(&found), short(answer));
    }
    let walked = engine.iter().filter(|entry| entry.as_ref().is_ok_and(|(key, _)| key != b"another key")).count();
    let present = answers.values().filter(|answer| answer.is_some()).count();
    assert_eq!(walked, present, "{when}: a walk meets other entries");
    assert_eq!(engine.verify().expect("files can be read").damaged, [], "{when}");
}

fn open(medium: &Faulty, options: &Options) -> Result<Engine> {
    Engine::open(Arc::new(medium.clone()), options.clone())
}

/// A value's length and first bytes.
fn short(value: &Option<Vec<u8>>) -> String {
    value.as_ref().map_or_else(
        || "absent".to_owned(),
        |value| format!("{} bytes {:02x?}", value.len(), &value[..value.len().min(9)]),
    )
}

fn several(values: &[Option<Vec<u8>>]) -> String {
    let values: Vec<_> = values.iter().map(short).collect();
    format!("possible was {}", values.join(" or "))
}
