//! Bytes as the records of a segment: the scan alone, then a log that opens, repairs, appends and opens again.
//!
//! Bit 0 of the first byte says whether the rest is taken as it is or as a recipe. Holds what has to be true of any
//! bytes, and, of a recipe, that nothing whole goes missing, whatever stands beside it.

use std::sync::Arc;

use arbitrary::Unstructured;
use thermocline_tiers::{
    Address, Error, Location,
    log::{
        Header, Keys, Log, NewRecord, Options, RecordKind,
        medium::Faulty,
        scan::{Found, Item, Scan},
    },
};

use crate::{
    forge::{Forge, RECORDS_START, Record},
    recipe::{self, NOW_SEQUENCE, Piece, Placed},
};

const CAPACITY: u64 = 64 << 10;
const PIECES_MAX: usize = 100;

/// Decodes `data` as records.
///
/// # Panics
/// When a promise is broken.
pub fn record_decode(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let forge = Forge::default();
    let (bytes, placed) = match flags & 1 {
        0 => (rest.to_vec(), None),
        _ => {
            let pieces = recipe::pieces(&mut Unstructured::new(rest), PIECES_MAX);
            let (bytes, placed) = recipe::write(&forge, &pieces, 0);
            // Raw bytes may be anything, records that overlap others included.
            let is_known = !pieces.iter().any(|piece| matches!(piece, Piece::Raw(_)));
            (bytes, is_known.then_some(placed))
        }
    };
    let found = scan(&forge, &bytes);
    if let Some(placed) = placed {
        assert_eq!(found, whole(&forge, &bytes, &placed), "a scan finds other records than were written");
    }
    let flushed = if flags & 4 == 0 { 0 } else { RECORDS_START + bytes.len() };
    Life { mapped: flags & 2 == 0, flushed: flushed as u64, bytes: &bytes, found }.live(&forge);
}

/// What is whole of what was placed.
fn whole(forge: &Forge, bytes: &[u8], placed: &[Placed]) -> Vec<Record> {
    let read = placed.iter().filter_map(|placed| forge.read(bytes, placed.at));
    read.filter(|(_, is_whole)| *is_whole).map(|(record, _)| record).collect()
}

/// Walks over the bytes; returns the records that were found.
fn scan(forge: &Forge, bytes: &[u8]) -> Vec<Record> {
    let keys = Keys::new(Forge::SECRET);
    let mut scan = Scan::new(&keys, bytes);
    let (mut last, mut records) = (RECORDS_START as u64, Vec::new());
    for item in scan.by_ref() {
        let (offset, length) = match item {
            Item::Record(found) | Item::Damaged(found) => (found.offset, found.bytes),
            Item::Gap { offset, bytes } => (offset, bytes),
        };
        assert!(offset >= last && length > 0, "{length} bytes at {offset} after an item that ends at {last}");
        last = offset + length;
        let read = forge.read(bytes, offset as usize - RECORDS_START);
        match item {
            Item::Record(found) => {
                assert_eq!(read, Some((record_of(&found), true)), "at {offset} another reader finds another record");
                records.push(record_of(&found));
            }
            Item::Damaged(_) | Item::Gap { .. } => {
                assert!(!read.is_some_and(|(_, is_whole)| is_whole), "at {offset} another reader finds a record");
            }
        }
    }
    assert!(last <= scan.end(), "the last item ends at {last}, the scan at {}", scan.end());
    assert!(scan.end() <= (RECORDS_START + bytes.len()) as u64, "a scan that ends behind the bytes");
    records
}

fn record_of(found: &Found<'_>) -> Record {
    let Header { kind, sequence, deadline_ms } = found.header;
    Record { kind: kind as u8, sequence, deadline_ms, key: found.key.to_vec(), value: found.value.to_vec() }
}

/// A log with these bytes in its only segment.
struct Life<'a> {
    mapped: bool,
    flushed: u64,
    bytes: &'a [u8],
    found: Vec<Record>,
}

impl Life<'_> {
    fn live(mut self, forge: &Forge) {
        let medium = Faulty::new(self.mapped);
        medium.write("store", &Forge::store_file());
        let mut file = Forge::segment_header(1, CAPACITY, self.flushed);
        file.extend(self.bytes);
        medium.write(&Forge::segment_name(1), &file);
        for turn in 0..3 {
            let log = self.open(&medium);
            self.append(&log, turn);
            log.close(turn == 1).expect("nothing fails here");
        }
        let file = medium.read(&Forge::segment_name(1)).expect("a segment");
        let mut first = scan(forge, &file[RECORDS_START.min(file.len())..]);
        first.retain(|record| self.found.contains(record));
        assert!(first.len() + 3 >= self.found.len(), "repairs and appends have cost a record");
    }

    /// Opens the log, whose records are those that were found before.
    fn open(&self, medium: &Faulty) -> Log {
        let (disk_capacity, slots) = (None, Address::SLOTS);
        let options = Options { segment_bytes: CAPACITY, read_only: false, create: true, disk_capacity, slots };
        let log = Log::open(Arc::new(medium.clone()), options).expect("a log whose header is sound");
        let (mut scanned, mut records) = (Vec::new(), Vec::new());
        for index in 0..log.found_count() {
            let one = log.scan(index, None, |found, at| {
                read_at(&log, at, found);
                if !at.is_unverified() {
                    records.push(record_of(found));
                }
                Ok(())
            });
            scanned.push(one.expect("nothing fails here"));
        }
        assert_eq!(records, self.found, "the log has other records than the scan found");
        log.start(&scanned).expect("nothing fails here");
        log
    }

    /// Appends a record and meets it, and all others, in the log.
    fn append(&mut self, log: &Log, turn: u64) {
        let header = Header { kind: RecordKind::Value, sequence: NOW_SEQUENCE + turn, deadline_ms: 0 };
        let value = vec![turn as u8; 100 * turn as usize];
        let new = NewRecord { header, namespace: 0, key: b"new", value: &value, kept: None };
        let appended = if turn == 1 { log.append_durable(&new).map(|(placed, _)| placed) } else { log.append(&new) };
        let placed = appended.expect("nothing fails here");
        let read = log.read(placed.location, |read| {
            assert_eq!((read.header(), read.key(), read.stored()), (header, &b"new"[..], &value[..]));
        });
        read.expect("a record that was just placed");
        let (sequence, key) = (header.sequence, b"new".to_vec());
        self.found.push(Record { kind: RecordKind::Value as u8, sequence, deadline_ms: 0, key, value });
        let mut met = Vec::new();
        let visited = log.visit_all(log.end(), |found, at| {
            if !at.is_unverified() {
                met.push(record_of(found));
            }
            Ok(())
        });
        visited.expect("nothing fails here");
        assert_eq!(met, self.found, "after an append");
    }
}

/// A location that a scan gave out reads as what was found there, or says that it is damaged.
fn read_at(log: &Log, at: Location, found: &Found<'_>) {
    let read = log.read(at, |record| {
        assert!(!at.is_unverified(), "damage at {} reads as if it were whole", found.offset);
        assert_eq!((record.header(), record.key(), record.stored()), (found.header, found.key, found.value));
        assert_eq!((record.namespace(), record.bytes()), (found.namespace, found.bytes));
    });
    match read {
        Ok(()) => {}
        Err(Error::Corrupt { .. }) => assert!(at.is_unverified(), "a whole record at {} is damaged", found.offset),
        Err(error) => panic!("{error}"),
    }
}
