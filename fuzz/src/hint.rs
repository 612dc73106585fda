//! Bytes as a hint, in a store whose checksums say that it is whole.
//!
//! Holds what has to be true of any such hint: the store opens or says why not, and serves nothing that was not written for the
//! key; a hint that is sound changes nothing. The first byte says whether files are not mapped (bit 0), and what becomes of a sound
//! hint: its entries are changed at places (bit 1), its figures are (bit 2), or the rest is its entries (both). Whoever changes
//! anything makes the figures agree, where there is something to agree with.

use std::sync::Arc;

use thermocline_engine::{
    Attributes, Engine, Error, Options,
    medium::{Faulty, Medium},
};

use crate::{
    forge::{Forge, RECORDS_START, Record, TOMBSTONE, VALUE},
    recipe::NOW_SEQUENCE,
};

const CAPACITY: u64 = 64 << 10;
const NUMBER: u64 = 1;
/// Keys, of which each has two values, and the last is removed.
const KEYS: u8 = 6;

fn key(number: u8) -> Vec<u8> {
    vec![b'a' + number; 3 + number as usize]
}

fn value(number: u8, version: u64) -> Vec<u8> {
    vec![number ^ 0x55; (version * 7) as usize]
}

fn records() -> Vec<Record> {
    let value_of = |(number, version): (u8, u64)| {
        let sequence = NOW_SEQUENCE + version * 10 + u64::from(number);
        Record { kind: VALUE, sequence, deadline_ms: 0, key: key(number), value: value(number, version) }
    };
    let values = (1..3).flat_map(|version| (0..KEYS).map(move |number| (number, version)));
    let mut records: Vec<_> = values.map(value_of).collect();
    let sequence = NOW_SEQUENCE + 1_000;
    records.push(Record { kind: TOMBSTONE, sequence, deadline_ms: 0, key: key(KEYS - 1), value: vec![] });
    records
}

fn varint(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The entries of these records, as `DESIGN.md` has them.
fn entries(forge: &Forge, records: &[Record]) -> Vec<u8> {
    let (mut bytes, mut last) = (Vec::new(), 0_u64);
    for record in records {
        let step = record.sequence.wrapping_sub(last);
        bytes.push(record.kind | (step.min(7) as u8) << 5);
        varint(forge.record(record).len() as u64 / 8, &mut bytes);
        if step >= 7 {
            varint(step << 1 ^ ((step as i64) >> 63) as u64, &mut bytes);
        }
        bytes.extend(forge.hash(&record.key).to_le_bytes());
        last = record.sequence;
    }
    bytes
}

/// What entries say of themselves, as far as they can be read: where they end, and the figures.
fn stated(mut entries: &[u8]) -> (u64, [u64; 5]) {
    let (mut end, mut sequence, mut figures) = (RECORDS_START as u64, 0_u64, [0; 5]);
    let mut step = || -> Option<()> {
        let varint = |entries: &mut &[u8]| -> Option<u64> {
            let mut number = 0;
            for shift in (0..64).step_by(7) {
                let (byte, rest) = entries.split_first()?;
                *entries = rest;
                number |= u64::from(byte & 0x7f) << shift;
                if *byte < 0x80 {
                    return Some(number);
                }
            }
            None
        };
        let (flags, rest) = entries.split_first()?;
        entries = rest;
        end = end.checked_add(varint(&mut entries)?.checked_mul(8)?)?;
        if flags & 3 == 0 {
            return Some(());
        }
        let grows = match flags >> 5 {
            7 => varint(&mut entries).map(|zigzag| zigzag >> 1 ^ (zigzag & 1).wrapping_neg())?,
            grows => u64::from(grows),
        };
        sequence = sequence.wrapping_add(grows);
        entries = entries.get(8..)?;
        figures[0] += 1;
        figures[1] = figures[1].max(sequence);
        if flags & 4 != 0 {
            (figures[2], figures[3]) = (1, (1 << 48) - 1);
        } else if flags & 3 != 2 {
            figures[4] += 1;
        }
        Some(())
    };
    while step().is_some() {}
    (end, figures)
}

/// Changes `bytes` at places: pairs of a place and what it is changed by.
fn change(bytes: &mut [u8], changes: &[u8]) {
    for [place, by] in changes.as_chunks().0 {
        let count = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(*place as usize % count) {
            *byte ^= by;
        }
    }
}

/// Opens a store with `data` as a hint.
///
/// # Panics
/// When a promise is broken.
pub fn hint(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let (forge, records) = (Forge::default(), records());
    let mut file: Vec<u8> = records.iter().flat_map(|record| forge.record(record)).collect();
    let end = (RECORDS_START + file.len()) as u64;
    file.splice(0..0, Forge::segment_header(NUMBER, CAPACITY, end));
    let sound = entries(&forge, &records);
    let hint = match flags & 6 {
        0 => {
            let (stated_end, figures) = stated(&sound);
            assert_eq!(stated_end, end);
            forge.hint(NUMBER, end, figures, &sound)
        }
        2 => {
            let mut entries = sound.clone();
            change(&mut entries, rest);
            let (end, figures) = stated(&entries);
            forge.hint(NUMBER, end, figures, &entries)
        }
        4 => {
            let (end, figures) = stated(&sound);
            let mut words: Vec<u8> = [&[end][..], &figures].concat().into_iter().flat_map(u64::to_le_bytes).collect();
            change(&mut words, rest);
            let word = |at: usize| words.as_chunks().0.get(at).map_or(0, |word| u64::from_le_bytes(*word));
            forge.hint(NUMBER, word(0), std::array::from_fn(|at| word(at + 1)), &sound)
        }
        _ => {
            let (end, figures) = stated(rest);
            forge.hint(NUMBER, end, figures, rest)
        }
    };
    let medium = Faulty::new(flags & 1 == 0);
    medium.write("store", &Forge::store_file());
    medium.write(&Forge::segment_name(NUMBER), &file);
    medium.write(&Forge::hint_name(NUMBER), &hint);
    // The changes may have changed nothing.
    let (_, figures) = stated(&sound);
    serve(&medium, hint == forge.hint(NUMBER, end, figures, &sound), records.len() as u64);
}

fn serve(medium: &Faulty, is_sound: bool, records: u64) {
    let options = Options { segment_bytes: CAPACITY, hint_after: 0, compacts: false, ..Options::default() };
    let open = || Engine::open(Arc::new(medium.clone()), options.clone());
    let by_log = medium.after_kill();
    by_log.remove(&Forge::hint_name(NUMBER)).expect("it is there");
    check(&Engine::open(Arc::new(by_log), options.clone()).expect("a sound store"), true);
    let engine = match open() {
        Ok(engine) => engine,
        // A sequence that leaves no later ones.
        Err(Error::Corrupt { .. }) if !is_sound => return,
        Err(error) => panic!("{error}"),
    };
    if is_sound {
        assert_eq!(engine.stats().recovery.hinted, records, "a sound hint is believed");
    }
    check(&engine, is_sound);
    engine.insert(b"one more", b"value", &Attributes::new()).expect("nothing fails here");
    assert_eq!(engine.get(b"one more").expect("a sound record").as_deref(), Some(&b"value"[..]));
    engine.compact().expect("nothing fails here");
    check(&engine, is_sound);
    engine.close().expect("nothing fails here");
    check(&open().expect("a store that was closed"), is_sound);
}

/// Whatever is found was written for its key; if nothing lies, it is the newest.
fn check(engine: &Engine, is_sound: bool) {
    for number in 0..KEYS {
        let found = engine.get(&key(number));
        if is_sound {
            let expected = (number + 1 < KEYS).then(|| value(number, 2));
            assert_eq!(found.expect("a sound record").map(|value| value.to_vec()), expected, "key {number}");
            continue;
        }
        match found {
            Ok(Some(found)) => {
                // A hint that calls a removal a value has its checksum from whoever knows the store's secret.
                let is_written = (1..3).any(|version| *found == value(number, version)) || found.is_empty();
                assert!(is_written, "key {number}: bytes that nobody wrote");
            }
            Ok(None) | Err(Error::Corrupt { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    if is_sound {
        assert_eq!(engine.verify().expect("files can be read").damaged.len(), 0);
    }
    let walked = engine.iter().filter(Result::is_ok).count() as u64;
    assert!(!is_sound || walked == engine.len());
}
