//! Finding the records of a segment whose writer may have died: a walk over its bytes.
//!
//! Holds no file and changes nothing. Trusts only the keyed checksum; the bytes of a user's value can never
//! be taken for a record. Invariant: every step moves on by at least 8 bytes, and items never overlap.

use super::format::{self, HEADER_BYTES, Header, Keys, Lengths, RECORDS_START, RecordKind};

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
    /// The value as it stands here: packed, if the kind says so; empty for a tombstone.
    pub value: &'a [u8],
}

/// One thing that a scan meets.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A committed record whose checksum is right (voids are stepped over silently).
    Record(Found<'a>),
    /// A committed record that does not check out; its key is probably right, the rest may not be.
    Damaged(Found<'a>),
    /// Bytes that are no record: a hole, a torn end, damage to a header.
    Gap {
        /// From the segment's start, in bytes.
        offset: u64,
        /// Up to the next record, or to the last byte that is not zero.
        bytes: u64,
    },
}

/// A walk over a part of a segment.
pub struct Scan<'a> {
    keys: &'a Keys,
    bytes: &'a [u8],
    /// Where the part starts, from the segment's start.
    start: u64,
    at: usize,
    /// Behind the last record, void or gap.
    end: usize,
    /// Bytes that may still be checksummed in vain while the end of a gap is looked for.
    patience: usize,
}

/// How often the bytes of a segment may be checksummed in vain. Bytes that carry the mark by chance cost 2⁻¹⁶ of their
/// number times a claimed length; more than this comes from somebody who knows the secret.
const PATIENCE: usize = 4;

/// What starts at a place, if it can be relied on.
enum Whole<'a> {
    Record(Found<'a>),
    Void(usize),
}

impl<'a> Scan<'a> {
    /// Walks over `bytes`, the part of a segment that starts with its first record.
    pub fn new(keys: &'a Keys, bytes: &'a [u8]) -> Self {
        Self::starting_at(keys, RECORDS_START, bytes)
    }

    /// Walks over `bytes`, the part of a segment that starts at `start`, where a record ended.
    pub(crate) fn starting_at(keys: &'a Keys, start: u64, bytes: &'a [u8]) -> Self {
        Self { keys, bytes, start, at: 0, end: 0, patience: PATIENCE * bytes.len() }
    }

    /// Where the next record can go, from the segment's start: behind everything found so far.
    pub fn end(&self) -> u64 {
        self.start + self.end as u64
    }

    /// The lengths that a record at `at` states, if they carry the mark and fit.
    fn lengths(&self, at: usize) -> Option<(Lengths, usize)> {
        let lengths = self.keys.lengths(format::word_at(self.bytes, at + 8)?)?;
        let padded = usize::try_from(lengths.bytes()).ok()?.next_multiple_of(8);
        (padded <= self.bytes.len() - at).then_some((lengths, padded))
    }

    /// The record or void at `at`, if there is one and its checksum is right.
    fn whole(&self, at: usize) -> Option<Whole<'a>> {
        let (lengths, padded) = self.lengths(at)?;
        let rest = &self.bytes[at..];
        let commit = format::word_at(rest, 0)?;
        let header = rest.get(16..32)?.first_chunk().and_then(Header::decode)?;
        let covered = if header.kind == RecordKind::Void { HEADER_BYTES } else { lengths.bytes() };
        let sum = self.keys.checksum((commit >> 32) as u32, rest.get(8..covered as usize)?);
        if commit as u32 != sum {
            return None;
        }
        match header.kind {
            RecordKind::Void => Some(Whole::Void(padded)),
            _ => Some(Whole::Record(self.found(at, lengths.key, lengths.bytes(), padded, header)?)),
        }
    }

    fn found(&self, at: usize, key: u64, bytes: u64, padded: usize, header: Header) -> Option<Found<'a>> {
        let rest = self.bytes.get(at..)?;
        let value_at = (HEADER_BYTES + key) as usize;
        Some(Found {
            offset: self.start + at as u64,
            bytes: padded as u64,
            header,
            namespace: (format::word_at(rest, 0)? >> 32) as u32,
            key: rest.get(HEADER_BYTES as usize..value_at)?,
            value: rest.get(value_at..bytes as usize)?,
        })
    }

    /// The first byte from `at` on that is not zero, down to a multiple of 8.
    fn skip_zeros(&self, at: usize) -> Option<usize> {
        let rest = self.bytes.get(at..)?;
        let chunks = rest.chunks(4096).take_while(|chunk| chunk.iter().all(|byte| *byte == 0)).count();
        let from = (chunks * 4096).min(rest.len());
        let found = rest[from..].iter().position(|byte| *byte != 0)?;
        Some(at + (from + found) / 8 * 8)
    }

    /// Where bytes that are no record end: at the next one inside what they claim to take, or there, or, if they claim
    /// nothing that can be, behind the last byte that is not zero.
    fn gap_end(&mut self, from: usize) -> usize {
        let claimed = self.lengths(from).map(|(_, padded)| from + padded);
        let limit = claimed.unwrap_or(self.bytes.len());
        let (mut at, mut last) = (from, from);
        while let Some(next) = self.skip_zeros(at + 8).filter(|next| *next < limit) {
            if self.patience > 0 {
                if self.whole(next).is_some() {
                    return next;
                }
                let claimed = self.lengths(next).map_or(0, |(_, padded)| padded);
                self.patience = self.patience.saturating_sub(claimed);
            }
            (at, last) = (next, next);
        }
        claimed.unwrap_or((last + 8).min(self.bytes.len()))
    }

    /// What the bytes of a gap still say of a key, if they were a committed record once: enough to answer for it.
    fn damaged(&self, from: usize, to: usize) -> Option<Found<'a>> {
        let commit = format::word_at(self.bytes, from)?;
        let length = format::word_at(self.bytes, from + 8)?;
        let bytes = (to - from) as u64;
        let key = (length >> 32) & 0xffff;
        if commit as u32 == 0 || HEADER_BYTES + key > bytes || self.is_provisional(from) {
            return None;
        }
        let header = self.bytes.get(from + 16..from + 32)?.first_chunk().and_then(Header::decode);
        let header = header.unwrap_or(Header { kind: RecordKind::Value, sequence: 0, deadline_ms: 0 });
        (header.kind != RecordKind::Void).then(|| self.found(from, key, bytes, to - from, header))?
    }

    /// Whether a conditional write stands there that never won.
    fn is_provisional(&self, at: usize) -> bool {
        let body = self.lengths(at).and_then(|(lengths, _)| self.bytes.get(at + 8..at + lengths.bytes() as usize));
        let commit = format::word_at(self.bytes, at).unwrap_or(0);
        body.is_some_and(|body| commit as u32 == !self.keys.checksum((commit >> 32) as u32, body))
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            let from = self.at;
            let (item, to) = match self.whole(from) {
                Some(Whole::Record(found)) => (Some(Item::Record(found)), from + found.bytes as usize),
                Some(Whole::Void(bytes)) => (None, from + bytes),
                None => {
                    self.skip_zeros(from)?;
                    let to = self.gap_end(from);
                    let gap = Item::Gap { offset: self.start + from as u64, bytes: (to - from) as u64 };
                    (Some(self.damaged(from, to).map_or(gap, Item::Damaged)), to)
                }
            };
            (self.at, self.end) = (to, to);
            if item.is_some() {
                return item;
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

    #[test]
    fn claims_that_overlap_are_not_checked_for_ever() {
        let keys = Keys::new([7; 16]);
        let count = 4_096;
        // Each place claims all that is behind it, and its checksum is wrong: quadratic if every claim were checked.
        let claim = |n: usize| {
            let mut head = record(&keys, 1, b"", b"");
            head[..8].copy_from_slice(&commit_word(1, 0).to_le_bytes());
            head[8..16].copy_from_slice(&keys.length_word(0, (count - n - 1) * 32).to_le_bytes());
            head
        };
        let bytes: Vec<u8> = (0..count).flat_map(claim).collect();
        let mut scan = Scan::new(&keys, &bytes);
        assert_eq!(scan.by_ref().count(), 1);
        assert_eq!(scan.patience, 0, "it gave up");
        // One false claim hides nothing of what is behind it.
        let mut bytes = claim(count - 3);
        bytes.resize(3 * 32, 1);
        bytes.extend(record(&keys, 2, b"k", b"v"));
        assert_eq!(sequences(&keys, &bytes), [2]);
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
