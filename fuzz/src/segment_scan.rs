//! One or two segments of a stranger's making, opened as a store: read, walk, verify, write, open again.
//!
//! Holds two rules. Whatever the bytes are: what is served stands in them as a whole record of its key, and answers
//! stay as they are through reopening. When the pieces are lawful: the newest whole record of a key is its answer,
//! unless damage of its own hides it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicU64},
};

use arbitrary::{Arbitrary, Unstructured};
use thermocline_engine::{Attributes, Engine, Error, Options, TimeSource, medium::Faulty};

use crate::{
    forge::{Forge, RECORDS_START, Record, VALUE},
    recipe::{self, NOW_MS, Piece, Placed, key},
};

const SEGMENT_BYTES: u64 = 64 << 10;
const PIECES_MAX: usize = 60;

/// What surrounds the records.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether files are mapped.
    pub mapped: bool,
    /// Whether the store is opened to read only.
    pub read_only: bool,
    /// The rest of the input are files, not pieces.
    pub raw: bool,
    /// How many pieces, or 16 bytes, go to the first segment; the rest to a second.
    pub split: u8,
    /// How the segments begin.
    pub heads: [Head; 2],
    /// What happened to the file `store`: an offset, and what is flipped there.
    pub store: Option<(u16, u8)>,
    /// The last segment's file is cut there.
    pub cut: Option<u16>,
    /// From which segment on flushes are said to have failed.
    pub doubt: Option<u8>,
    /// The key that is written, and the one that is removed.
    pub writes: (u8, u8),
    /// How the first process ends.
    pub end: End,
}

/// A segment's name and header.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The segment's number; `None`: the next one.
    pub number: Option<u64>,
    /// The capacity that the header states.
    pub capacity: Capacity,
    /// How far it was flushed.
    pub flushed: Flushed,
    /// A byte of the header and what is flipped there.
    pub harm: Option<(u8, u8)>,
}

/// A capacity.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// As the store makes them.
    Usual,
    /// As the file is long.
    Exact,
    /// Some other.
    Small(u16),
    /// Above a GiB.
    Huge(u64),
}

/// A statement of what was flushed.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Some other place.
    At(u16),
    /// Anything.
    Any(u64),
}

/// How a process ends.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `close`.
    Close,
    /// Dropped.
    Drop,
    /// Killed.
    Kill,
}

/// What a store says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Value(u64, Vec<u8>),
    Nothing,
    Corrupt,
}

/// Opens `data` as a store.
///
/// # Panics
/// When a promise is broken.
pub fn segment_scan(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(frame) = Frame::arbitrary(&mut input) else { return };
    let forge = Forge::default();
    let world = World::new(&forge, frame, &mut input);
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        read_only: frame.read_only,
        time: TimeSource::Manual(Arc::new(AtomicU64::new(NOW_MS))),
        ..Options::default()
    };
    let engine = match Engine::open(Arc::new(world.medium.clone()), options.clone()) {
        Ok(engine) => engine,
        Err(error) => return assert!(world.may_be_refused(), "refused: {error}"),
    };
    let before = world.answers(&engine);
    world.check(&before);
    walk(&engine, &before);
    engine.verify().expect("files can be read");
    if frame.read_only {
        let refused = engine.insert(b"key", b"value", &Attributes::new());
        return assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{refused:?}");
    }
    let after = write(&engine, frame, before);
    for (key, answer) in world.answers(&engine) {
        assert_eq!(answer, after[&key], "{key:?} after a write and a remove");
    }
    let medium = match frame.end {
        End::Close => engine.close().map(|()| world.medium.clone()).expect("nothing fails here"),
        End::Drop => {
            drop(engine);
            world.medium.clone()
        }
        End::Kill => world.medium.after_kill(),
    };
    let engine = Engine::open(Arc::new(medium), options).expect("what was opened once can be opened again");
    let again = world.answers(&engine);
    for (key, answer) in &after {
        let expired = matches!(answer, Answer::Value(..)) && again[key] == Answer::Nothing && world.can_expire(key);
        if expired || world.cut.contains(key) {
            continue;
        }
        assert!(again[key] == *answer, "{key:?} was {answer:?} and is {:?} after reopening", again[key]);
    }
    walk(&engine, &again);
    engine.verify().expect("files can be read");
}

/// Writes one key and removes another; returns what has to be answered now.
fn write(engine: &Engine, frame: Frame, mut answers: BTreeMap<Vec<u8>, Answer>) -> BTreeMap<Vec<u8>, Answer> {
    let (new, old) = (key(frame.writes.0), key(frame.writes.1));
    engine.insert(&new, b"a new value", &Attributes::new()).expect("nothing fails here");
    let value = engine.get(&new).expect("a key that was just written").expect("a key that was just written");
    assert_eq!(&value[..], b"a new value");
    answers.insert(new, Answer::Value(value.sequence(), value.to_vec()));
    match engine.remove(&old) {
        // What is damaged and says that it is gone stays as it is.
        Ok(false) if answers[&old] == Answer::Corrupt => {}
        Ok(was_there) => {
            assert_eq!(was_there, answers[&old] != Answer::Nothing, "removing {old:?}");
            answers.insert(old, Answer::Nothing);
        }
        Err(error) => assert_eq!(answers[&old], Answer::Corrupt, "removing {old:?}: {error}"),
    }
    answers
}

/// A walk meets every key with a value once and no other.
fn walk(engine: &Engine, answers: &BTreeMap<Vec<u8>, Answer>) {
    let mut met = BTreeSet::new();
    let mut unreadable = 0;
    for entry in engine.iter() {
        let Ok((key, value)) = entry else {
            unreadable += 1;
            continue;
        };
        let expected = Answer::Value(value.sequence(), value.to_vec());
        assert_eq!(answers.get(&key), Some(&expected), "a walk meets {key:?}");
        assert!(met.insert(key), "a walk meets a key twice");
    }
    let present = answers.values().filter(|answer| matches!(answer, Answer::Value(..))).count();
    assert_eq!(met.len(), present, "a walk misses a key");
    // Whether those that cannot be read count depends on whether the length needs a walk.
    assert!((present..=present + unreadable).contains(&(engine.len() as usize)), "the length");
}

/// A directory, and what it could mean.
struct World {
    frame: Frame,
    medium: Faulty,
    /// All that stand whole anywhere in the segments.
    whole: BTreeSet<Record>,
    /// The keys that a piece which was cut may claim, now or when the file has been extended with zeros.
    cut: BTreeSet<Vec<u8>>,
    /// The keys that damaged pieces claim; `None` when what some piece claims cannot be told.
    damaged: Option<BTreeSet<Vec<u8>>>,
}

impl World {
    fn new(forge: &Forge, frame: Frame, input: &mut Unstructured<'_>) -> Self {
        let medium = Faulty::new(frame.mapped);
        let mut store = Forge::store_file();
        if let Some((at, mask)) = frame.store {
            let at = at as usize % store.len();
            store[at] ^= mask;
        }
        medium.write("store", &store);
        if let Some(first) = frame.doubt {
            medium.write("lock", &Forge::doubt(u64::from(first)));
        }
        let mut world =
            Self { frame, medium, whole: BTreeSet::new(), cut: BTreeSet::new(), damaged: Some(BTreeSet::new()) };
        match frame.raw {
            true => world.write_raw(input),
            false => world.write_pieces(forge, input),
        }
        world.find_whole(forge);
        world
    }

    /// The segments' numbers: the second comes behind the first unless it says otherwise.
    fn numbers(&self) -> [u64; 2] {
        let first = self.frame.heads[0].number.unwrap_or(1);
        [first, self.frame.heads[1].number.unwrap_or(first.saturating_add(1))]
    }

    fn write_raw(&mut self, input: &mut Unstructured<'_>) {
        let rest = input.bytes(input.len()).unwrap_or_default();
        let (first, second) = rest.split_at((self.frame.split as usize * 16).min(rest.len()));
        for (number, bytes) in self.numbers().into_iter().zip([first, second]) {
            let mut bytes = bytes.to_vec();
            // A sound header could ask for a GiB: enough for a disk, too much for a double in memory.
            bytes.iter_mut().skip(43).take(5).for_each(|byte| *byte = 0);
            if !bytes.is_empty() {
                self.medium.write(&Forge::segment_name(number), &bytes);
            }
        }
        self.damaged = None;
    }

    fn write_pieces(&mut self, forge: &Forge, input: &mut Unstructured<'_>) {
        let pieces = recipe::pieces(input, PIECES_MAX);
        let (first, second) = pieces.split_at((self.frame.split as usize).min(pieces.len()));
        let last = usize::from(!second.is_empty());
        for (index, pieces) in [first, second].into_iter().enumerate().take(last + 1) {
            let (number, head) = (self.numbers()[index], self.frame.heads[index]);
            let (records, placed) = recipe::write(forge, pieces, RECORDS_START);
            let mut bytes = head.bytes(number, (RECORDS_START + records.len()) as u64);
            bytes.extend(records);
            let whole = bytes.len();
            if let Some(cut) = self.frame.cut.filter(|_| index == last) {
                bytes.truncate(cut as usize % (whole + 1));
            }
            if bytes.len() < whole {
                let ends = placed.iter().filter(|placed| placed.at + placed.piece.bytes(forge).len() > bytes.len());
                let claimed = ends.filter_map(|placed| Forge::claimed_key(&placed.piece.bytes(forge), 0));
                // Without its lengths it is a record of the empty key.
                self.cut.extend(std::iter::once(key(0)).chain(claimed));
            }
            self.medium.write(&Forge::segment_name(number), &bytes);
            if bytes.len() == whole && pieces.iter().all(|piece| piece.is_lawful(forge)) {
                let harmed = |placed: &&Placed| matches!(placed.piece, Piece::Flipped(..) | Piece::Torn(..));
                let claims = placed.iter().filter(harmed).filter_map(|placed| Forge::claimed_key(&bytes, placed.at));
                self.damaged.iter_mut().for_each(|all| all.extend(claims.clone()));
            } else {
                self.damaged = None;
            }
        }
    }

    fn find_whole(&mut self, forge: &Forge) {
        for number in self.numbers() {
            let mut bytes = self.medium.read(&Forge::segment_name(number)).unwrap_or_default();
            // What lies beyond the end reads as zeros.
            bytes.resize(bytes.len() + SEGMENT_BYTES as usize, 0);
            let places = (RECORDS_START..bytes.len()).step_by(8);
            let read = places.filter_map(|at| forge.read(&bytes, at));
            self.whole.extend(read.filter(|(_, is_whole)| *is_whole).map(|(record, _)| record));
        }
    }

    /// Whether a store like this need not be opened.
    fn may_be_refused(&self) -> bool {
        let is_huge = |head: &Head| matches!(head.capacity, Capacity::Huge(_));
        // Nothing could be written after it.
        let is_last = |record: &Record| record.sequence >= u64::MAX - (1 << 62);
        let has_last = self.whole.iter().any(is_last);
        let has_last = has_last || self.numbers().contains(&u64::MAX);
        self.frame.raw || self.frame.store.is_some() || has_last || self.frame.heads.iter().any(is_huge)
    }

    /// The answers for every key that could be there.
    fn answers(&self, engine: &Engine) -> BTreeMap<Vec<u8>, Answer> {
        let whole = self.whole.iter().map(|record| record.key.clone());
        let keys: BTreeSet<_> = self.damaged.iter().flatten().cloned().chain(whole).chain((0..16).map(key)).collect();
        keys.into_iter().map(|key| (key.clone(), answer(engine, &key))).collect()
    }

    /// The time when the store was opened.
    fn now_ms(&self) -> u64 {
        let last = self.whole.iter().map(|record| record.sequence).max().unwrap_or(0);
        NOW_MS.max((last >> 22) + 1_577_836_800_000)
    }

    fn check(&self, answers: &BTreeMap<Vec<u8>, Answer>) {
        for (key, answer) in answers {
            let served = |record: &Record| *answer == Answer::Value(record.sequence, record.value.clone());
            let mut own = self.whole.iter().filter(|record| record.key == *key && record.kind == VALUE);
            let is_served = matches!(answer, Answer::Value(..));
            assert!(!is_served || own.any(served), "{key:?} is {answer:?}, which stands nowhere");
            if let Some(damaged) = &self.damaged {
                let possible = self.possible(key, damaged);
                assert!(possible.contains(answer), "{key:?} is {answer:?}, possible was {possible:?}");
            }
        }
    }

    /// What a lawful store may answer: its newest whole record, any of them if several are, or its damage.
    fn possible(&self, key: &[u8], damaged: &BTreeSet<Vec<u8>>) -> Vec<Answer> {
        let whole = self.whole.iter().filter(|record| record.key == key);
        let newest = whole.clone().map(|record| record.sequence).max();
        let answer = |record: &Record| {
            let has_expired = record.deadline_ms != 0 && record.deadline_ms <= self.now_ms();
            match record.kind == VALUE && !has_expired {
                true => Answer::Value(record.sequence, record.value.clone()),
                false => Answer::Nothing,
            }
        };
        let mut possible: Vec<_> = whole.filter(|record| Some(record.sequence) == newest).map(answer).collect();
        if newest.is_none() {
            possible.push(Answer::Nothing);
        }
        if damaged.contains(key) {
            possible.push(Answer::Corrupt);
        }
        possible
    }

    fn can_expire(&self, key: &[u8]) -> bool {
        self.whole.iter().any(|record| record.key == key && record.deadline_ms != 0)
    }
}

impl Head {
    fn bytes(&self, number: u64, length: u64) -> Vec<u8> {
        let capacity = match self.capacity {
            Capacity::Usual => SEGMENT_BYTES,
            Capacity::Exact => length,
            Capacity::Small(bytes) => u64::from(bytes),
            Capacity::Huge(bytes) => bytes.max((1 << 30) + 1),
        };
        let flushed = match self.flushed {
            Flushed::Nothing => RECORDS_START as u64,
            Flushed::Everything => length,
            Flushed::At(at) => u64::from(at),
            Flushed::Any(at) => at,
        };
        let mut bytes = Forge::segment_header(number, capacity, flushed);
        if let Some((at, mask)) = self.harm {
            bytes[at as usize % RECORDS_START] ^= mask;
        }
        bytes
    }
}

fn answer(engine: &Engine, key: &[u8]) -> Answer {
    match engine.get(key) {
        Ok(Some(value)) => Answer::Value(value.sequence(), value.to_vec()),
        Ok(None) => Answer::Nothing,
        Err(Error::Corrupt { .. }) => Answer::Corrupt,
        Err(error) => panic!("{key:?}: {error}"),
    }
}
