//! Finding the records of a segment whose writer may have died: a walk over its bytes.
//!
//! Holds no file and changes nothing. Trusts only the keyed checksum; the bytes of a user's value can never
//! be taken for a record. Invariant: every step moves on by at least 8 bytes, and items never overlap.

use super::format::{self, HEADER_BYTES, Header, Keys, RECORDS_START, RecordKind};

/// A record found in a segment.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// From the segment's start, in bytes.
    pub offset: u64,
    /// What it takes in the log, padding included.
    pub bytes: u64,
    /// Kind, sequence and deadline.
    pub header: Header,
    /// 0: the unnamed namespace.
    pub namespace: u32,
    /// The key.
    pub key: &'a [u8],
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

/// One thing that a scan meets.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A committed record whose checksum is right (voids are stepped over silently).
    Record(Found<'a>),
    /// A committed record whose checksum is wrong; what it says of itself is plausible, not certain.
    Damaged(Found<'a>),
    /// Bytes that are no record: a hole, a torn end, damage to a header.
    Gap {
        /// From the segment's start, in bytes.
        offset: u64,
        /// Up to the next record, or to the last byte that is not zero.
        bytes: u64,
    },
}

/// A walk over `bytes`, which start at offset [`RECORDS_START`] of a segment.
pub struct Scan<'a> {
    keys: &'a Keys,
    bytes: &'a [u8],
    at: usize,
    /// Behind the last record or gap.
    end: usize,
    /// Where the bytes that are no record began.
    gap: Option<usize>,
    /// Found behind a gap that is to be told first.
    held: Option<Item<'a>>,
}

enum Place<'a> {
    Record(Item<'a>, usize),
    Void(usize),
    /// Reserved and not committed, of a known length.
    Hole(usize),
    Nothing,
}

impl<'a> Scan<'a> {
    /// Walks over `bytes`, the part of a segment that starts with its first record.
    pub fn new(keys: &'a Keys, bytes: &'a [u8]) -> Self {
        Self { keys, bytes, at: 0, end: 0, gap: None, held: None }
    }

    /// Where the next record can go, from the segment's start: behind everything found so far.
    pub fn end(&self) -> u64 {
        RECORDS_START + self.end as u64
    }

    fn place(&self, at: usize) -> Place<'a> {
        self.try_place(at).unwrap_or(Place::Nothing)
    }

    fn try_place(&self, at: usize) -> Option<Place<'a>> {
        let rest = self.bytes.get(at..)?;
        let commit = format::word_at(rest, 0)?;
        let lengths = self.keys.lengths(format::word_at(rest, 8)?)?;
        let header = rest.get(16..32)?.first_chunk().and_then(Header::decode);
        let bytes = usize::try_from(lengths.bytes()).ok()?;
        let padded = bytes.next_multiple_of(8);
        if padded > rest.len() {
            return None;
        }
        let (stored, namespace) = (commit as u32, (commit >> 32) as u32);
        if stored == 0 {
            return Some(Place::Hole(padded));
        }
        let header = header?;
        if header.kind == RecordKind::Void {
            let sum = self.keys.checksum(namespace, rest.get(8..HEADER_BYTES as usize)?);
            return Some(if sum == stored { Place::Void(padded) } else { Place::Nothing });
        }
        let sum = self.keys.checksum(namespace, rest.get(8..bytes)?);
        if stored == !sum {
            return Some(Place::Hole(padded));
        }
        let value_at = HEADER_BYTES as usize + lengths.key as usize;
        let found = Found {
            offset: RECORDS_START + at as u64,
            bytes: padded as u64,
            header,
            namespace,
            key: rest.get(HEADER_BYTES as usize..value_at)?,
            value: rest.get(value_at..bytes)?,
        };
        match stored == sum {
            true => Some(Place::Record(Item::Record(found), padded)),
            // Damaged only if the walk can go on behind it: otherwise its own length is not to be believed.
            false => self.continues(at + padded).then_some(Place::Record(Item::Damaged(found), padded)),
        }
    }

    /// Whether a record, a hole or nothing at all starts at `at`.
    fn continues(&self, at: usize) -> bool {
        match (format::word_at(self.bytes, at), format::word_at(self.bytes, at + 8)) {
            (Some(commit), Some(lengths)) => (commit, lengths) == (0, 0) || self.keys.lengths(lengths).is_some(),
            _ => true,
        }
    }

    /// The first byte from `at` on that is not zero, down to a multiple of 8.
    fn skip_zeros(&self, at: usize) -> Option<usize> {
        let rest = self.bytes.get(at..)?;
        let chunks = rest.chunks(4096).take_while(|chunk| chunk.iter().all(|byte| *byte == 0)).count();
        let from = (chunks * 4096).min(rest.len());
        let found = rest[from..].iter().position(|byte| *byte != 0)?;
        Some(at + (from + found) / 8 * 8)
    }

    fn found(&mut self, item: Item<'a>, from: usize, bytes: usize) -> Item<'a> {
        (self.at, self.end) = (from + bytes, from + bytes);
        match self.take_gap(from) {
            Some(gap) => {
                self.held = Some(item);
                gap
            }
            None => item,
        }
    }

    fn take_gap(&mut self, to: usize) -> Option<Item<'a>> {
        let from = self.gap.take()?;
        Some(Item::Gap { offset: RECORDS_START + from as u64, bytes: (to - from) as u64 })
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if let Some(item) = self.held.take() {
            return Some(item);
        }
        loop {
            match self.place(self.at) {
                Place::Record(item, bytes) => return Some(self.found(item, self.at, bytes)),
                Place::Void(bytes) => {
                    let from = self.at;
                    (self.at, self.end) = (from + bytes, from + bytes);
                    if let Some(gap) = self.take_gap(from) {
                        return Some(gap);
                    }
                }
                Place::Hole(bytes) => {
                    self.gap.get_or_insert(self.at);
                    // Believed when the walk can go on there; otherwise bytes inside it may be a record.
                    self.at += if self.continues(self.at + bytes) { bytes } else { 8 };
                    self.end = self.at;
                }
                Place::Nothing => {
                    let Some(next) = self.skip_zeros(self.at) else {
                        // Zeros to the end: what is open ends where the last byte that counted stood.
                        let end = self.end;
                        self.at = self.bytes.len();
                        return self.take_gap(end);
                    };
                    self.gap.get_or_insert(self.at);
                    // A hole's first word is zero, so it starts one word before what was found.
                    let hole = next.checked_sub(8).filter(|hole| *hole > self.at);
                    match hole.map(|hole| (hole, self.place(hole))) {
                        Some((hole, Place::Hole(_))) => self.at = hole,
                        _ if next > self.at => self.at = next,
                        _ => {
                            self.at += 8;
                            self.end = self.at.min(self.bytes.len());
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::format::commit_word, *};

    fn record(keys: &Keys, sequence: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
        let header = Header { kind: RecordKind::Value, sequence, deadline_ms: 0 };
        let mut body = keys.length_word(key.len(), value.len()).to_le_bytes().to_vec();
        body.extend(header.encode());
        body.extend(key);
        body.extend(value);
        let mut bytes = commit_word(keys.checksum(0, &body), 0).to_le_bytes().to_vec();
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn sequences(keys: &Keys, bytes: &[u8]) -> Vec<u64> {
        let items = Scan::new(keys, bytes);
        items
            .filter_map(|item| if let Item::Record(found) = item { Some(found.header.sequence) } else { None })
            .collect()
    }

    #[test]
    fn holes_of_known_and_unknown_length_are_stepped_over() {
        let keys = Keys::new([3; 16]);
        let mut bytes = record(&keys, 1, b"a", b"one");
        let mut hole = record(&keys, 2, b"b", b"two");
        hole[..8].fill(0);
        bytes.extend(&hole);
        bytes.extend(record(&keys, 3, b"c", b"three"));
        bytes.extend([0; 48]);
        bytes.extend(record(&keys, 4, b"d", b"four"));
        let end = bytes.len() as u64;
        bytes.extend([0; 10_000]);
        assert_eq!(sequences(&keys, &bytes), [1, 3, 4]);
        let mut scan = Scan::new(&keys, &bytes);
        let gaps: Vec<_> = scan
            .by_ref()
            .filter_map(|item| if let Item::Gap { bytes, .. } = item { Some(bytes) } else { None })
            .collect();
        assert_eq!(gaps, [hole.len() as u64, 48]);
        assert_eq!(scan.end(), RECORDS_START + end);
    }

    #[test]
    fn a_record_inside_a_value_is_never_found() {
        let (keys, theirs) = (Keys::new([3; 16]), Keys::new([4; 16]));
        let forged: Vec<u8> = (0..50).flat_map(|sequence| record(&theirs, sequence, b"k", b"v")).collect();
        let mut bytes = record(&keys, 1, b"a", &forged);
        bytes[..8].fill(0xff);
        bytes[8..16].fill(0xff);
        bytes.extend(record(&keys, 2, b"b", b"two"));
        assert_eq!(sequences(&keys, &bytes), [2]);
    }

    #[test]
    fn a_flipped_bit_damages_one_record_and_no_other() {
        let keys = Keys::new([5; 16]);
        let parts: Vec<_> = (0..4).map(|sequence| record(&keys, sequence, b"key", b"some value")).collect();
        let clean = parts.concat();
        for bit in 0..clean.len() * 8 {
            let mut bytes = clean.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let hit = (bit / 8 / parts[0].len()) as u64;
            let padding = bit / 8 % parts[0].len() >= 32 + 3 + 10;
            let expected: Vec<_> = (0..4).filter(|sequence| padding || *sequence != hit).collect();
            assert_eq!(sequences(&keys, &bytes), expected, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_the_walk_in_order(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0..500_usize) {
            let keys = Keys::new([6; 16]);
            let whole = record(&keys, 9, b"k", b"v");
            if at + whole.len() <= bytes.len() {
                bytes.splice(at / 8 * 8..at / 8 * 8 + whole.len(), whole.iter().copied());
            }
            let mut last = RECORDS_START;
            let mut scan = Scan::new(&keys, &bytes);
            for item in scan.by_ref() {
                let (offset, bytes) = match item {
                    Item::Record(found) | Item::Damaged(found) => (found.offset, found.bytes),
                    Item::Gap { offset, bytes } => (offset, bytes),
                };
                prop_assert!(offset >= last && bytes > 0);
                last = offset + bytes;
            }
            prop_assert!(scan.end() <= RECORDS_START + bytes.len() as u64);
        }
    }
}
