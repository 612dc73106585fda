//! A flipped bit in every byte and a cut at every byte of a small store: nothing wrong is ever returned, what is not
//! hit is there, what is hit says so or is missing, and a write heals it.
//!
//! Which bytes belong to which record is read from the files by `DESIGN.md`, not asked of the store.

mod support;

use std::{collections::BTreeMap, ops::Range};

use support::{at, each, key, look, open, scale, small, value};
use thermocline_engine::{
    Error,
    medium::{Faulty, Medium},
};

/// A record in a segment's file.
#[derive(Clone, Debug)]
struct Placed {
    bytes: Range<usize>,
    key: u8,
    key_bytes: usize,
    value_bytes: usize,
    /// Whether it is the newest of its key.
    is_newest: bool,
}

/// A closed store, and what is in it.
struct Sound {
    mapped: bool,
    files: BTreeMap<String, Vec<u8>>,
    expected: BTreeMap<u8, Option<u64>>,
    placed: BTreeMap<String, Vec<Placed>>,
}

fn files(medium: &Faulty) -> BTreeMap<String, Vec<u8>> {
    let names = medium.names().expect("names");
    names.into_iter().map(|name| (name.clone(), medium.read(&name).expect("a file"))).collect()
}

/// Keys with and without older versions, a removed one, one in a segment of its own, and two lives of the store.
fn sound(mapped: bool) -> Sound {
    let medium = Faulty::new(mapped);
    let mut expected = BTreeMap::new();
    let engine = open(&medium, &small()).unwrap();
    let mut insert = |engine: &thermocline_engine::Engine, number: u8, version: u64| {
        engine.insert(&key(number), &value(number, version), &at(false)).unwrap();
        expected.insert(number, Some(version));
    };
    for (number, version) in [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (9, 177)] {
        insert(&engine, number, version);
    }
    engine.close().unwrap();
    let engine = open(&medium, &small()).unwrap();
    for (number, version) in [(4, 6), (2, 7), (5, 8)] {
        insert(&engine, number, version);
    }
    assert!(engine.remove(&key(3)).unwrap());
    insert(&engine, 6, 9);
    engine.close().unwrap();
    expected.insert(3, None);
    let files = files(&medium);
    let segments = files.iter().filter(|(name, _)| name.ends_with(".segment"));
    let mut placed: BTreeMap<_, _> = segments.map(|(name, bytes)| (name.clone(), records(bytes))).collect();
    let mut newest = BTreeMap::new();
    for record in placed.values_mut().flatten().map(|(record, sequence)| (record, *sequence)) {
        let best = newest.entry(record.0.key).or_insert(record.1);
        *best = record.1.max(*best);
    }
    let placed = placed.iter_mut().map(|(name, records)| {
        let marked =
            records.drain(..).map(|(record, sequence)| Placed { is_newest: newest[&record.key] == sequence, ..record });
        (name.clone(), marked.collect())
    });
    Sound { mapped, placed: placed.collect(), files, expected }
}

/// The records of a sound segment and their sequences.
fn records(bytes: &[u8]) -> Vec<(Placed, u64)> {
    let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let (mut at, mut records) = (128, Vec::new());
    while at + 32 <= bytes.len() && word(at + 8) != 0 {
        let (value_bytes, key_bytes) = (word(at + 8) as u32 as usize, word(at + 8) as usize >> 32 & 0xffff);
        let text = std::str::from_utf8(&bytes[at + 32..at + 32 + key_bytes]).expect("a key");
        let key = text.trim_start_matches("key ").trim_end_matches('.').parse().expect("a key's number");
        let end = (at + 32 + key_bytes + value_bytes).next_multiple_of(8);
        records.push((Placed { bytes: at..end, key, key_bytes, value_bytes, is_newest: false }, word(at + 16)));
        at = end;
    }
    records
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Bit and byte.
    Flip(u8, usize),
    Cut(usize),
}

impl Sound {
    fn harmed(&self, name: &str, harm: Harm) -> Faulty {
        let medium = Faulty::new(self.mapped);
        for (other, bytes) in &self.files {
            let mut bytes = bytes.clone();
            match harm {
                Harm::Flip(bit, at) if other == name => bytes[at] ^= 1 << bit,
                Harm::Cut(at) if other == name => bytes.truncate(at),
                _ => {}
            }
            medium.write(other, &bytes);
        }
        medium
    }

    /// The record that the harm hits, and whether it tells which key it hit: key and length of the key are whole.
    fn hit(&self, name: &str, harm: Harm) -> Option<(&Placed, bool)> {
        let (Harm::Flip(_, at) | Harm::Cut(at)) = harm;
        let placed = self.placed.get(name)?.iter().find(|placed| placed.bytes.contains(&at))?;
        let key_len = placed.bytes.start + 12..placed.bytes.start + 14;
        let key = placed.bytes.start + 32..placed.bytes.start + 32 + placed.key_bytes;
        Some((placed, !key_len.contains(&at) && !key.contains(&at)))
    }

    fn is_padding(&self, name: &str, at: usize) -> bool {
        match self.hit(name, Harm::Flip(0, at)) {
            Some((placed, _)) => at >= placed.bytes.start + 32 + placed.key_bytes + placed.value_bytes,
            // The words of `flushed`: a hint whose loss only makes later damage look torn. The snapshot, which is one altogether.
            // The lock's content, between and behind the two blocks of the identity.
            None => {
                name.ends_with(".segment") && (64..80).contains(&at)
                    || ["lock", "index"].contains(&name)
                    || name == "store" && !(0..64).contains(&at) && !(512..576).contains(&at)
            }
        }
    }

    /// Keys that may be missing or damaged, and whether an older version may show.
    fn affected(&self, name: &str, harm: Harm) -> Vec<(u8, bool)> {
        match harm {
            Harm::Flip(_, at) if self.is_padding(name, at) => vec![],
            Harm::Flip(..) => {
                // Damage to an old version says nothing of the newest.
                let hit = self.hit(name, harm).filter(|(placed, _)| placed.is_newest);
                hit.iter().map(|(placed, tells)| (placed.key, !tells)).collect()
            }
            Harm::Cut(end) => {
                let lost = self.placed.get(name).into_iter().flatten().filter(|placed| placed.bytes.end > end);
                lost.map(|placed| (placed.key, true)).collect()
            }
        }
    }

    fn check(&self, name: &str, harm: Harm) {
        let medium = self.harmed(name, harm);
        let engine = match open(&medium, &small()) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(name == "store" && matches!(harm, Harm::Cut(_)), "{name}: {error}");
                return assert!(error.to_string().contains("faulty/store"), "{error}");
            }
        };
        let affected = self.affected(name, harm);
        let mut wounded = Vec::new();
        for (number, expected) in &self.expected {
            let may = affected.iter().find(|(key, _)| key == number);
            match (look(&engine, *number), may) {
                (Ok(found), _) if found == *expected => continue,
                (Ok(None) | Err(Error::Corrupt { .. }), Some(_)) => {}
                (Ok(Some(_)), Some((_, true))) => {}
                (found, _) => panic!("key {number} is {found:?}, written was {expected:?}, affected are {affected:?}"),
            }
            wounded.push(*number);
        }
        let damaged = engine.verify().unwrap().damaged;
        match harm {
            Harm::Flip(_, at) if self.is_padding(name, at) => {}
            // The other block of the identity stands in, and heals this one.
            Harm::Flip(..) if name == "store" => {}
            Harm::Flip(..) => assert!(damaged.iter().any(|damage| damage.file.contains(name)), "verify says nothing"),
            Harm::Cut(_) => assert!(wounded.is_empty() || !damaged.is_empty(), "verify says nothing of a cut"),
        }
        for number in &wounded {
            engine.insert(&key(*number), &value(*number, 1_000), &at(false)).unwrap();
            assert_eq!(look(&engine, *number).unwrap(), Some(1_000), "a write heals key {number}");
        }
        if let Some(number) = wounded.first() {
            engine.close().unwrap();
            let engine = open(&medium, &small()).unwrap();
            assert_eq!(look(&engine, *number).unwrap(), Some(1_000), "key {number} was healed");
        }
    }

    /// Every byte, but of a large value only some, and without maps every third: the decoders are the same.
    fn places(&self) -> Vec<(&str, usize)> {
        let mut places = Vec::new();
        let step = if self.mapped { 1 } else { 3 };
        for (name, bytes) in &self.files {
            let sparse = |at: usize| at < 300 || at + 100 > bytes.len() || at.is_multiple_of(997);
            places.extend(
                (0..bytes.len())
                    .step_by(step)
                    .filter(|at| bytes.len() < 10_000 || sparse(*at))
                    .map(|at| (&name[..], at)),
            );
        }
        places
    }
}

fn flip_every_byte(mapped: bool) {
    let sound = sound(mapped);
    for round in 0..scale().min(8) as usize {
        each(sound.places(), |(name, at)| sound.check(name, Harm::Flip(((at * 5 + round) % 8) as u8, at)));
    }
}

fn cut_at_every_byte(mapped: bool) {
    let sound = sound(mapped);
    each(sound.places(), |(name, at)| sound.check(name, Harm::Cut(at)));
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_mapped_store_is_told_and_hurts_no_other_key() {
    flip_every_byte(true);
}

#[test]
fn a_flipped_bit_in_an_unmapped_store_is_told_and_hurts_no_other_key() {
    flip_every_byte(false);
}

#[test]
fn a_mapped_store_cut_at_any_byte_serves_what_is_left() {
    cut_at_every_byte(true);
}

#[test]
fn an_unmapped_store_cut_at_any_byte_serves_what_is_left() {
    cut_at_every_byte(false);
}

#[test]
fn what_is_damaged_is_not_counted() {
    let medium = Faulty::new(true);
    let engine = open(&medium, &small()).unwrap();
    (0..3).for_each(|number| engine.insert(&key(number), &value(number, 1), &at(false)).unwrap());
    engine.close().unwrap();
    let name = "0000000000000001.segment";
    let mut bytes = medium.read(name).unwrap();
    bytes[128] ^= 1;
    medium.write(name, &bytes);
    let engine = open(&medium, &small()).unwrap();
    assert!(look(&engine, 0).is_err());
    assert_eq!(engine.len(), 2);
    engine.insert(&key(0), &value(0, 2), &at(false)).unwrap();
    assert_eq!(engine.len(), 3);
}
