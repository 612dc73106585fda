//! A second writer and reader of the format, made from `DESIGN.md` and not from the code that it tests.
//!
//! Holds one fixed identity, so that the same input makes the same files. Writes anything that a store may find:
//! whole records, torn ones, lies with a right checksum.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_secret};

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 32;
/// Where a segment's records start.
pub const RECORDS_START: usize = 128;
/// Value.
pub const VALUE: u8 = 1;
/// Tombstone.
pub const TOMBSTONE: u8 = 2;
/// Void.
pub const VOID: u8 = 3;
/// The flag of a value that is packed.
pub const PACKED: u8 = 1;
/// The namespace of dictionaries.
pub const DICTIONARIES: u32 = u32::MAX;

const ID: [u8; 16] = *b"the id of a fuzz";
const SECRET: [u8; 16] = *b"and its secret..";
const FLUSHED_MASK: u64 = 0x7468_6572_6d6f_636c;
const IDENTITY_COPY: usize = 512;

/// The keys of the one store that files are forged for.
#[derive(Clone, Debug)]
pub struct Forge {
    checksum: [u8; 192],
    hash: [u8; 192],
    mark: u16,
}

/// A record, whatever it is worth.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// 1 value, 2 tombstone, 3 void.
    pub kind: u8,
    /// The number of the write.
    pub sequence: u64,
    /// Unix time in ms, 48 bits; 0: never.
    pub deadline_ms: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

impl Default for Forge {
    fn default() -> Self {
        let block = |key: u64, i: u64| xxh3_64(&[&SECRET[..], &key.to_le_bytes(), &i.to_le_bytes()].concat());
        let derive = |key: u64| {
            let mut bytes = [0; 192];
            for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
                chunk.copy_from_slice(&block(key, i as u64).to_le_bytes());
            }
            bytes
        };
        let mark = block(3, 0) as u16;
        Self { checksum: derive(1), hash: derive(2), mark: if mark == 0 { 0x7c15 } else { mark } }
    }
}

impl Forge {
    /// The secret that the identity has.
    pub const SECRET: [u8; 16] = SECRET;

    /// The file `store`: the identity, twice.
    pub fn store_file() -> Vec<u8> {
        let mut block = block(*b"thermocl");
        block[16..32].copy_from_slice(&ID);
        block[32..48].copy_from_slice(&SECRET);
        seal(&mut block);
        let mut bytes = vec![0; IDENTITY_COPY + block.len()];
        bytes[..block.len()].copy_from_slice(&block);
        bytes[IDENTITY_COPY..].copy_from_slice(&block);
        bytes
    }

    /// The name of a segment's file.
    pub fn segment_name(number: u64) -> String {
        format!("{number:016x}.segment")
    }

    /// A segment's first 128 bytes.
    pub fn segment_header(number: u64, capacity: u64, flushed: u64) -> Vec<u8> {
        let mut block = block(*b"thermseg");
        block[16..32].copy_from_slice(&ID);
        block[32..40].copy_from_slice(&number.to_le_bytes());
        block[40..48].copy_from_slice(&capacity.to_le_bytes());
        seal(&mut block);
        let mut bytes = block.to_vec();
        bytes.extend(flushed.to_le_bytes());
        bytes.extend((flushed ^ FLUSHED_MASK).to_le_bytes());
        bytes.resize(RECORDS_START, 0);
        bytes
    }

    /// The name of a segment's hint.
    pub fn hint_name(number: u64) -> String {
        format!("{number:016x}.hint")
    }

    /// A hint whose checksums are right: `figures` are the records, the highest sequence, the first and the last deadline, and
    /// the values without one.
    pub fn hint(&self, number: u64, end: u64, figures: [u64; 5], entries: &[u8]) -> Vec<u8> {
        let words = [number, end].into_iter().chain(figures);
        let body = [&words.flat_map(u64::to_le_bytes).collect::<Vec<_>>(), entries].concat();
        let mut block = block(*b"thermhnt");
        block[16..32].copy_from_slice(&ID);
        block[32..40].copy_from_slice(&number.to_le_bytes());
        block[40..48].copy_from_slice(&end.to_le_bytes());
        block[48..56].copy_from_slice(&xxh3_64_with_secret(&body, &self.checksum).to_le_bytes());
        seal(&mut block);
        [&block[..], &body].concat()
    }

    /// The hash of a key.
    pub fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_secret(key, &self.hash)
    }

    /// The note that flushes failed from segment `first` on.
    pub fn doubt(first: u64) -> Vec<u8> {
        let mut note = b"doubtful".to_vec();
        note.extend(first.to_le_bytes());
        note.extend(xxh3_64(&note).to_le_bytes());
        note
    }

    /// A committed record with its padding.
    pub fn record(&self, record: &Record) -> Vec<u8> {
        self.record_in(0, 0, record)
    }

    /// The same in a namespace, with flags.
    pub fn record_in(&self, namespace: u32, flags: u8, record: &Record) -> Vec<u8> {
        let mut bytes = self.header(record, record.value.len() as u32);
        bytes[4..8].copy_from_slice(&namespace.to_le_bytes());
        bytes[31] = flags;
        bytes.extend(&record.key);
        bytes.extend(&record.value);
        self.commit(&mut bytes);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A void record over `bytes` bytes, at least 32.
    pub fn void(&self, bytes: usize) -> Vec<u8> {
        let record = Record { kind: VOID, sequence: 0, deadline_ms: 0, key: vec![], value: vec![] };
        let mut void = self.header(&record, (bytes - HEADER_BYTES) as u32);
        self.commit(&mut void);
        // What a void covers is not looked at.
        void.resize(bytes.next_multiple_of(8), 0xee);
        void
    }

    fn header(&self, record: &Record, value_bytes: u32) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.extend(value_bytes.to_le_bytes());
        bytes.extend((record.key.len() as u16).to_le_bytes());
        bytes.extend(self.mark.to_le_bytes());
        bytes.extend(record.sequence.to_le_bytes());
        bytes.extend(&record.deadline_ms.to_le_bytes()[..6]);
        bytes.extend([record.kind, 0]);
        bytes
    }

    fn commit(&self, bytes: &mut [u8]) {
        let sum = self.sum(number(&bytes[4..8]) as u32, &bytes[8..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
    }

    fn sum(&self, namespace: u32, body: &[u8]) -> u32 {
        let sum = xxh3_64_with_secret(body, &self.checksum) as u32 ^ namespace.wrapping_mul(0x9e37_79b1);
        if sum == 0 { 1 } else { sum }
    }

    /// The key that a record at `at` would have, whatever else is wrong with it.
    pub fn claimed_key(bytes: &[u8], at: usize) -> Option<Vec<u8>> {
        let key_bytes = number(bytes.get(at + 12..at + 14)?) as usize;
        Some(bytes.get(at + HEADER_BYTES..at + HEADER_BYTES + key_bytes)?.to_vec())
    }

    /// What the bytes at `at` say that they are: the record, and whether it is committed and its checksum right.
    pub fn read(&self, bytes: &[u8], at: usize) -> Option<(Record, bool)> {
        let rest = bytes.get(at..)?;
        let head = rest.get(..HEADER_BYTES)?;
        let (value_bytes, key_bytes) = (number(&head[8..12]) as usize, number(&head[12..14]) as usize);
        let (mark, kind, flags) = (number(&head[14..16]), head[30], head[31]);
        let end = HEADER_BYTES + key_bytes + value_bytes;
        if mark != u64::from(self.mark) || !matches!((kind, flags), (VALUE, 0 | PACKED) | (TOMBSTONE, 0)) {
            return None;
        }
        // The padding belongs to the record: a file that ends inside it was cut.
        let body = rest.get(..end.next_multiple_of(8))?.get(8..end)?;
        let (stored, namespace) = (number(&head[..4]) as u32, number(&head[4..8]) as u32);
        let record = Record {
            kind,
            sequence: number(&head[16..24]),
            deadline_ms: number(&head[24..30]),
            key: rest[HEADER_BYTES..HEADER_BYTES + key_bytes].to_vec(),
            value: rest[HEADER_BYTES + key_bytes..end].to_vec(),
        };
        Some((record, stored == self.sum(namespace, body)))
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn block(magic: [u8; 8]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(&magic);
    block[8] = 1;
    block
}

fn seal(block: &mut [u8; 64]) {
    let sum = xxh3_64(&block[..56]);
    block[56..].copy_from_slice(&sum.to_le_bytes());
}
