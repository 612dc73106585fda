//! A hint: what the records of a segment are, in a tenth of its bytes, so that opening need not read them.
//!
//! Holds the bytes of the file (`DESIGN.md`, *Hint*), written and read. Never opens one. Whoever reads a hint holds it against
//! its checksums and against itself before he believes any of it; its records are held against theirs when they are read.
//! Invariant: what a hint says of places lies inside the part of the segment that it is of, one behind the other.

use super::{
    format::{HEADER_BYTES, Header, HintHead, Keys, RECORDS_START, RecordKind},
    scan::Found,
};
use crate::slot::{Address, Kind, Location};

/// Words in front of the entries.
const FIGURES: usize = 7;
const FIGURES_BYTES: usize = 8 * FIGURES;
/// The bits of an entry's first byte: what is there, two flags, a bit that is zero, and how much the sequence grows.
const KIND: u8 = 3;
const HAS_DEADLINE: u8 = 1 << 2;
const IS_DICTIONARY: u8 = 1 << 3;
const RESERVED: u8 = 1 << 4;
const STEP_SHIFT: u32 = 5;
/// The sequence grows by something else, which follows.
const STEP_FOLLOWS: u8 = 7;
/// No entry takes as many bytes as what it is of does in the segment, so no hint is longer than that and this.
const BYTES_MORE_MAX: u64 = (HintHead::BYTES + FIGURES_BYTES) as u64;

/// A record of which a hint tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hinted {
    /// Where it is; unverified.
    pub at: Location,
    /// What it takes in the log, padding included.
    pub bytes: u64,
    /// Of its key.
    pub hash: u64,
    /// Its header.
    pub header: Header,
    /// Whether it is no dictionary.
    pub is_users: bool,
}

/// What a hint says of all its records together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hinting {
    /// How many there are.
    pub records: u64,
    /// The highest sequence of one; 0 if there are none.
    pub last_sequence: u64,
    /// The first and the last deadline of one, in ms of Unix time; 0 if none has one.
    pub first_deadline: u64,
    /// See above.
    pub last_deadline: u64,
    /// How many values have no deadline.
    pub lasting: u64,
}

/// A hint that is whole.
#[derive(Debug)]
pub struct Hint {
    bytes: Vec<u8>,
    base: usize,
    /// It tells of records from here on, and up to here.
    start: u64,
    pub(super) end: u64,
    figures: Hinting,
}

/// What is somewhere in a segment.
struct Entry {
    offset: u64,
    bytes: u64,
    /// Header and hash of the key; `None` if it is no record.
    record: Option<(Header, u64)>,
    flags: u8,
}

/// A walk over entries. It ends early where one cannot be.
struct Entries<'a> {
    rest: &'a [u8],
    offset: u64,
    sequence: u64,
    deadline_ms: u64,
}

impl<'a> Entries<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest, offset: RECORDS_START, sequence: 0, deadline_ms: 0 }
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[inline]
    fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*word))
    }

    #[inline]
    fn deadline(&mut self) -> Option<u64> {
        self.deadline_ms = self.deadline_ms.wrapping_add(unzigzag(self.varint()?));
        (1..1 << 48).contains(&self.deadline_ms).then_some(self.deadline_ms)
    }

    /// The entry that begins with `flags`.
    #[inline]
    fn entry(&mut self, flags: u8) -> Option<Entry> {
        let kind = match flags & KIND {
            0 => None,
            1 => Some(RecordKind::Value),
            2 => Some(RecordKind::Tombstone),
            _ => Some(RecordKind::Packed),
        };
        let (offset, bytes) = (self.offset, self.varint()?.checked_mul(8)?);
        self.offset = offset.checked_add(bytes)?;
        let record = match kind {
            None if flags != 0 || bytes == 0 => return None,
            None => None,
            Some(_) if bytes < HEADER_BYTES || flags & RESERVED != 0 => return None,
            Some(kind) => {
                let step = match flags >> STEP_SHIFT {
                    STEP_FOLLOWS => unzigzag(self.varint()?),
                    step => u64::from(step),
                };
                self.sequence = self.sequence.wrapping_add(step);
                let hash = self.word()?;
                let deadline_ms = if flags & HAS_DEADLINE == 0 { 0 } else { self.deadline()? };
                Some((Header { kind, sequence: self.sequence, deadline_ms }, hash))
            }
        };
        Some(Entry { offset, bytes, record, flags })
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        let (flags, rest) = self.rest.split_first()?;
        self.rest = rest;
        let entry = self.entry(*flags);
        if entry.is_none() {
            // No end of a segment's records.
            (self.rest, self.offset) = (&[], 0);
        }
        entry
    }
}

/// Small for what differs little, in either direction.
fn zigzag(difference: u64) -> u64 {
    difference << 1 ^ ((difference as i64) >> 63) as u64
}

fn unzigzag(value: u64) -> u64 {
    value >> 1 ^ (value & 1).wrapping_neg()
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

impl Hinting {
    fn add(&mut self, entry: &Entry) {
        let Some((Header { kind, sequence, deadline_ms }, _)) = entry.record else { return };
        self.records += 1;
        self.last_sequence = self.last_sequence.max(sequence);
        if deadline_ms != 0 {
            let first = self.first_deadline;
            self.first_deadline = if first == 0 { deadline_ms } else { first.min(deadline_ms) };
            self.last_deadline = self.last_deadline.max(deadline_ms);
        }
        self.lasting += u64::from(kind.is_value() && deadline_ms == 0);
    }

    fn words(&self, number: u64, end: u64) -> [u64; FIGURES] {
        let Self { records, last_sequence, first_deadline, last_deadline, lasting } = *self;
        [number, end, records, last_sequence, first_deadline, last_deadline, lasting]
    }
}

impl Hint {
    /// Whether a hint of a segment of `segment_bytes` can be as long.
    pub(super) fn can_be(bytes: u64, segment_bytes: u64) -> bool {
        bytes >= BYTES_MORE_MAX && bytes <= segment_bytes.saturating_add(BYTES_MORE_MAX)
    }

    /// Reads `bytes`, the file's, behind whose head `head` stands what is to be believed. `None` if it is not what was written.
    /// The first segment slot is `base`; what it says of records in front of `start` is left out.
    pub(super) fn parse(keys: &Keys, head: &HintHead, bytes: Vec<u8>, base: usize, start: u64) -> Option<Self> {
        let behind_head = bytes.get(HintHead::BYTES..)?;
        let (words, entries) = behind_head.split_at_checked(FIGURES_BYTES)?;
        if keys.sum(behind_head) != head.sum {
            return None;
        }
        let mut stated = words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        let [number, end] = std::array::from_fn(|_| stated.next().unwrap_or(0));
        let mut figures = Hinting::default();
        let mut walk = Entries::new(entries);
        walk.by_ref().for_each(|entry| figures.add(&entry));
        let is_whole = walk.rest.is_empty() && walk.offset == end;
        let is_it = (number, end) == (head.number, head.end)
            && figures.words(number, end).map(u64::to_le_bytes).as_flattened() == words;
        (is_whole && is_it).then_some(Self { bytes, base, start, end, figures })
    }

    /// What it says of all records together, those included that it tells nothing of because somebody else does.
    pub fn figures(&self) -> Hinting {
        self.figures
    }

    /// Its records, in the order of the file.
    #[inline]
    pub fn records(&self) -> impl Iterator<Item = Hinted> {
        let (base, start) = (self.base, self.start);
        let rest = self.bytes.get(HintHead::BYTES + FIGURES_BYTES..).unwrap_or_default();
        Entries::new(rest).filter(move |entry| entry.offset >= start).filter_map(move |entry| {
            let (header, hash) = entry.record?;
            let of = if header.kind == RecordKind::Tombstone { Kind::Removed } else { Kind::Log };
            Some(Hinted {
                at: Location::new(of, Address::new(base, entry.offset), true),
                bytes: entry.bytes,
                hash,
                header,
                is_users: entry.flags & IS_DICTIONARY == 0,
            })
        })
    }
}

/// A hint that is being written.
pub(super) struct NewHint<'a> {
    keys: &'a Keys,
    bytes: Vec<u8>,
    end: u64,
    sequence: u64,
    deadline_ms: u64,
    figures: Hinting,
}

impl<'a> NewHint<'a> {
    pub(super) fn new(keys: &'a Keys) -> Self {
        let bytes = vec![0; HintHead::BYTES + FIGURES_BYTES];
        Self { keys, bytes, end: RECORDS_START, sequence: 0, deadline_ms: 0, figures: Hinting::default() }
    }

    /// Adds a record, which stands behind those that were added.
    pub(super) fn add(&mut self, found: &Found<'_>) {
        self.skip_to(found.offset);
        let (header, is_dictionary) = (found.header, found.namespace == super::DICTIONARIES);
        let kind = match header.kind {
            RecordKind::Value => 1,
            RecordKind::Tombstone => 2,
            RecordKind::Packed => 3,
            // A scan does not show voids.
            RecordKind::Void => return,
        };
        let step = header.sequence.wrapping_sub(self.sequence);
        let short_step = step.min(STEP_FOLLOWS.into()) as u8;
        let flags = kind
            | if header.deadline_ms != 0 { HAS_DEADLINE } else { 0 }
            | if is_dictionary { IS_DICTIONARY } else { 0 }
            | short_step << STEP_SHIFT;
        self.bytes.push(flags);
        push_varint(&mut self.bytes, found.bytes / 8);
        if short_step == STEP_FOLLOWS {
            push_varint(&mut self.bytes, zigzag(step));
        }
        let hash = self.keys.hash(found.key);
        self.bytes.extend(hash.to_le_bytes());
        if header.deadline_ms != 0 {
            push_varint(&mut self.bytes, zigzag(header.deadline_ms.wrapping_sub(self.deadline_ms)));
            self.deadline_ms = header.deadline_ms;
        }
        let (offset, bytes) = (found.offset, found.bytes);
        self.figures.add(&Entry { offset, bytes, record: Some((header, hash)), flags });
        (self.end, self.sequence) = (found.offset + found.bytes, header.sequence);
    }

    /// There is no record up to `offset`.
    fn skip_to(&mut self, offset: u64) {
        if offset > self.end {
            self.bytes.push(0);
            push_varint(&mut self.bytes, (offset - self.end) / 8);
            self.end = offset;
        }
    }

    /// Ends it: behind the last record nothing stands up to `end`. Returns the file's bytes.
    pub(super) fn finish(mut self, store: [u8; 16], number: u64, end: u64) -> Vec<u8> {
        self.skip_to(end);
        let words = self.figures.words(number, end).map(u64::to_le_bytes);
        let (head, behind_head) = self.bytes.split_at_mut(HintHead::BYTES);
        behind_head[..FIGURES_BYTES].copy_from_slice(words.as_flattened());
        let sum = self.keys.sum(behind_head);
        head.copy_from_slice(&HintHead { store, number, end, sum }.encode());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::format::Header;

    const STORE: [u8; 16] = [7; 16];

    fn parse(keys: &Keys, bytes: &[u8], start: u64) -> Option<Hint> {
        let head = HintHead::decode(bytes.first_chunk()?).ok()?;
        Hint::parse(keys, &head, bytes.to_vec(), 3, start)
    }

    fn kind_of(number: u8) -> RecordKind {
        [RecordKind::Value, RecordKind::Tombstone, RecordKind::Packed][usize::from(number % 3)]
    }

    proptest! {
        #[test]
        fn a_hint_says_what_was_added(
            added in proptest::collection::vec((0_u64..3, 4_u64..1 << 30, any::<u8>(), any::<u64>(), 0_u64..3), 0..40),
            from in 0_usize..40,
        ) {
            let keys = Keys::new([3; 16]);
            let (mut hint, mut expected, mut offset) = (NewHint::new(&keys), Vec::new(), RECORDS_START);
            let mut deadlines = Vec::new();
            for (skipped, words, kind, sequence, deadline_ms) in added {
                offset += skipped * 8;
                let (key, kind) = (sequence.to_le_bytes(), kind_of(kind));
                // Records of one millisecond, and far apart.
                let sequence = if deadline_ms == 0 { sequence % 50 } else { sequence };
                let header = Header { kind, sequence, deadline_ms };
                let namespace = if words == 5 { super::super::DICTIONARIES } else { 0 };
                hint.add(&Found { offset, bytes: words * 8, header, namespace, key: &key, value: b"" });
                let at = if kind == RecordKind::Tombstone { Kind::Removed } else { Kind::Log };
                expected.push(Hinted {
                    at: Location::new(at, Address::new(3, offset), true),
                    bytes: words * 8,
                    hash: keys.hash(&key),
                    header,
                    is_users: namespace == 0,
                });
                deadlines.extend(Some(deadline_ms).filter(|deadline_ms| *deadline_ms != 0));
                offset += words * 8;
            }
            let bytes = hint.finish(STORE, 9, offset + 16);
            let hint = parse(&keys, &bytes, RECORDS_START).expect("it is whole");
            prop_assert_eq!(hint.end, offset + 16);
            prop_assert!(hint.records().eq(expected.iter().copied()));
            let lasting = |hinted: &&Hinted| hinted.header.kind.is_value() && hinted.header.deadline_ms == 0;
            prop_assert_eq!(hint.figures(), Hinting {
                records: expected.len() as u64,
                last_sequence: expected.iter().map(|hinted| hinted.header.sequence).max().unwrap_or(0),
                first_deadline: deadlines.iter().copied().min().unwrap_or(0),
                last_deadline: deadlines.iter().copied().max().unwrap_or(0),
                lasting: expected.iter().filter(lasting).count() as u64,
            });
            // What somebody else knows is left out.
            let from = from.min(expected.len());
            let start = expected.get(from).map_or(offset, |hinted| hinted.at.address().offset_from(3));
            let behind = parse(&keys, &bytes, start).expect("it is whole");
            prop_assert!(behind.records().eq(expected[from..].iter().copied()));
        }

        #[test]
        fn entries_that_lie_are_inside_what_they_are_of_or_no_hint(
            entries in proptest::collection::vec(any::<u8>(), 0..200),
            figures in proptest::array::uniform5(0_u64..4),
            end in 0_u64..1_000,
        ) {
            let keys = Keys::new([3; 16]);
            let words = [[9, RECORDS_START + end * 8].as_slice(), &figures].concat();
            let behind_head = [words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>(), entries].concat();
            let head = HintHead { store: STORE, number: 9, end: RECORDS_START + end * 8, sum: keys.sum(&behind_head) };
            let bytes = [&head.encode()[..], &behind_head].concat();
            if let Some(hint) = parse(&keys, &bytes, RECORDS_START) {
                let mut last = RECORDS_START;
                for hinted in hint.records() {
                    let offset = hinted.at.address().offset_from(3);
                    prop_assert!(offset >= last && hinted.bytes >= HEADER_BYTES);
                    last = offset + hinted.bytes;
                }
                prop_assert!(last <= head.end);
            }
        }
    }

    #[test]
    fn a_record_of_100_bytes_takes_eleven_at_most_in_the_long_run() {
        let keys = Keys::new([3; 16]);
        let mut hint = NewHint::new(&keys);
        for number in 0..10_000_u64 {
            // A thousand writes a millisecond.
            let sequence = (1 << 60) + ((number / 1_000) << 22) + number % 1_000;
            let header = Header { kind: RecordKind::Value, sequence, deadline_ms: 0 };
            let (offset, key) = (RECORDS_START + number * 152, number.to_le_bytes());
            hint.add(&Found { offset, bytes: 152, header, namespace: 0, key: &key, value: b"" });
        }
        let bytes = hint.finish(STORE, 9, RECORDS_START + 10_000 * 152).len();
        assert!(bytes < 10_000 * 11, "{bytes} bytes");
    }
}
