//! The bytes on disk: identity, segment header, record header. The one encoder and decoder.
//!
//! Described in `DESIGN.md`, section *Format*. Holds no file and no offset but relative ones. Decoding
//! never trusts a length: what does not fit is `None`, and the caller says where that was.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_secret};

/// The version that this build writes, and the highest that it reads.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the identity block, which stands twice in the `store` file: at 0 and at [`IDENTITY_COPY`].
pub(crate) const IDENTITY_BYTES: usize = 64;
/// Where the second identity block starts: in another sector than the first.
pub(crate) const IDENTITY_COPY: usize = 512;
/// Where a segment's records start.
pub(crate) const RECORDS_START: u64 = 128;
/// Bytes of a record's header.
pub(crate) const HEADER_BYTES: u64 = 32;
/// The longest key.
pub const KEY_BYTES_MAX: usize = 65_535;
/// The longest value: 1 GiB less 64 KiB, so that every record fits a segment of 1 GiB.
pub const VALUE_BYTES_MAX: usize = (1 << 30) - (64 << 10);
/// Milliseconds from the Unix epoch to 2020-01-01 UTC, where sequences start.
pub const SEQUENCE_EPOCH_MS: u64 = 1_577_836_800_000;
/// Bits of a sequence that count within a millisecond.
pub const SEQUENCE_COUNT_BITS: u32 = 22;

const STORE_MAGIC: [u8; 8] = *b"thermocl";
const SEGMENT_MAGIC: [u8; 8] = *b"thermseg";
const SNAPSHOT_MAGIC: [u8; 8] = *b"thermidx";
const HINT_MAGIC: [u8; 8] = *b"thermhnt";
const FLUSHED_MASK: u64 = 0x7468_6572_6d6f_636c;
const NAMESPACE_FACTOR: u32 = 0x9e37_79b1;

/// The namespace of dictionaries: no user's.
pub const DICTIONARIES: u32 = u32::MAX;

/// What a record is: its kind, and its flags above that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RecordKind {
    /// A key and its value.
    Value = 1,
    /// A key that is gone.
    Tombstone = 2,
    /// Nothing: bytes to step over.
    Void = 3,
    /// A key and its value, compressed.
    Packed = 0x0101,
}

impl RecordKind {
    /// Whether it is a key and its value, compressed or not.
    #[inline]
    pub fn is_value(self) -> bool {
        matches!(self, Self::Value | Self::Packed)
    }
}

/// The keys derived from a store's secret.
pub struct Keys {
    checksum: [u8; 192],
    hash: [u8; 192],
    mark: u16,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Derives the keys of `secret`.
    pub fn new(secret: [u8; 16]) -> Self {
        let block = |key: u64, i: u64| {
            let mut input = [0; 32];
            input[..16].copy_from_slice(&secret);
            input[16..24].copy_from_slice(&key.to_le_bytes());
            input[24..].copy_from_slice(&i.to_le_bytes());
            xxh3_64(&input)
        };
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

    /// The hash of a key, which nobody outside can predict.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_secret(key, &self.hash)
    }

    /// The checksum of a record: `body` is byte 8 to the end of the value.
    #[inline]
    pub(crate) fn checksum(&self, namespace: u32, body: &[u8]) -> u32 {
        let sum = xxh3_64_with_secret(body, &self.checksum) as u32 ^ namespace.wrapping_mul(NAMESPACE_FACTOR);
        if sum == 0 { 1 } else { sum }
    }

    /// The checksum of a part of a snapshot, or of a hint.
    pub(crate) fn sum(&self, bytes: &[u8]) -> u64 {
        xxh3_64_with_secret(bytes, &self.checksum)
    }

    /// The length word of a record.
    #[inline]
    pub(crate) fn length_word(&self, key_len: usize, value_len: usize) -> u64 {
        debug_assert!(key_len <= KEY_BYTES_MAX && value_len <= u32::MAX as usize);
        (self.mark as u64) << 48 | (key_len as u64) << 32 | value_len as u64
    }

    /// Reads a length word, if it carries the store's mark.
    #[inline]
    pub(crate) fn lengths(&self, word: u64) -> Option<Lengths> {
        let lengths = Lengths { key: (word >> 32) as u16 as u64, value: word as u32 as u64 };
        ((word >> 48) as u16 == self.mark).then_some(lengths)
    }
}

/// The lengths that a length word states, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub(crate) key: u64,
    pub(crate) value: u64,
}

impl Lengths {
    /// Header, key and value, without padding.
    #[inline]
    pub(crate) fn bytes(self) -> u64 {
        HEADER_BYTES + self.key + self.value
    }
}

/// Bytes that a record takes in the log, padding included.
#[inline]
pub(crate) fn record_bytes(key_len: usize, value_len: usize) -> u64 {
    (HEADER_BYTES + key_len as u64 + value_len as u64).next_multiple_of(8)
}

/// Joins checksum and namespace.
#[inline]
pub(crate) fn commit_word(checksum: u32, namespace: u32) -> u64 {
    (namespace as u64) << 32 | checksum as u64
}

/// What a record says besides its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Value, tombstone or void.
    pub kind: RecordKind,
    /// The store-wide number of the write.
    pub sequence: u64,
    /// Unix time in ms at which it expires; 0: never.
    pub deadline_ms: u64,
}

impl Header {
    /// Bytes 16 to 32 of the record.
    #[inline]
    pub(crate) fn encode(&self) -> [u8; 16] {
        let last = self.deadline_ms & ((1 << 48) - 1) | (self.kind as u64) << 48;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..].copy_from_slice(&last.to_le_bytes());
        bytes
    }

    /// Reads bytes 16 to 32 of a record; `None` if kind or flags are not of this version.
    #[inline]
    pub(crate) fn decode(bytes: &[u8; 16]) -> Option<Self> {
        let words = u128::from_le_bytes(*bytes);
        let (sequence, last) = (words as u64, (words >> 64) as u64);
        // Kind and flags together: a flag that does not go with a kind makes it no known one.
        let kind = match last >> 48 {
            1 => RecordKind::Value,
            2 => RecordKind::Tombstone,
            3 => RecordKind::Void,
            0x0101 => RecordKind::Packed,
            _ => return None,
        };
        Some(Self { kind, sequence, deadline_ms: last & ((1 << 48) - 1) })
    }
}

fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let count = bytes.len().min(8);
    word[..count].copy_from_slice(&bytes[..count]);
    u64::from_le_bytes(word)
}

/// Reads the little-endian word at `offset`, or `None` beyond the end.
#[inline]
pub(crate) fn word_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Who a store is: written once, when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: [u8; 16],
    pub(crate) secret: [u8; 16],
}

/// Why a header block could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadBlock {
    Magic,
    Version(u32),
    Checksum { stored: u64, computed: u64 },
}

impl Identity {
    pub(crate) fn encode(&self) -> [u8; IDENTITY_BYTES] {
        let mut block = sealed_block(STORE_MAGIC);
        block[16..32].copy_from_slice(&self.id);
        block[32..48].copy_from_slice(&self.secret);
        seal(&mut block);
        block
    }

    pub(crate) fn decode(block: &[u8; IDENTITY_BYTES]) -> Result<Self, BadBlock> {
        check_block(block, STORE_MAGIC)?;
        let (mut id, mut secret) = ([0; 16], [0; 16]);
        id.copy_from_slice(&block[16..32]);
        secret.copy_from_slice(&block[32..48]);
        Ok(Self { id, secret })
    }
}

/// The fixed part of a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: [u8; 16],
    pub(crate) number: u64,
    pub(crate) capacity: u64,
    /// Whether whatever shrinks was compressed when it came here.
    pub(crate) is_packed: bool,
}

impl SegmentHeader {
    pub(crate) const BYTES: usize = 64;
    /// Where the two words of `flushed` stand.
    pub(crate) const FLUSHED_AT: u64 = 64;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut block = sealed_block(SEGMENT_MAGIC);
        block[16..32].copy_from_slice(&self.store);
        block[32..40].copy_from_slice(&self.number.to_le_bytes());
        block[40..48].copy_from_slice(&self.capacity.to_le_bytes());
        block[48] = u8::from(self.is_packed);
        seal(&mut block);
        block
    }

    pub(crate) fn decode(block: &[u8; Self::BYTES]) -> Result<Self, BadBlock> {
        check_block(block, SEGMENT_MAGIC)?;
        let mut store = [0; 16];
        store.copy_from_slice(&block[16..32]);
        let (number, capacity) = (word_of(&block[32..40]), word_of(&block[40..48]));
        Ok(Self { store, number, capacity, is_packed: block[48] == 1 })
    }
}

/// The head of a snapshot: whose it is, and where its directory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHead {
    pub(crate) store: [u8; 16],
    pub(crate) directory_at: u64,
    pub(crate) directory_bytes: u64,
    /// Of the directory.
    pub(crate) sum: u64,
}

impl SnapshotHead {
    pub(crate) const BYTES: usize = 64;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut block = sealed_block(SNAPSHOT_MAGIC);
        block[16..32].copy_from_slice(&self.store);
        for (at, word) in [(32, self.directory_at), (40, self.directory_bytes), (48, self.sum)] {
            block[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        seal(&mut block);
        block
    }

    pub(crate) fn decode(block: &[u8; Self::BYTES]) -> Result<Self, BadBlock> {
        check_block(block, SNAPSHOT_MAGIC)?;
        let mut store = [0; 16];
        store.copy_from_slice(&block[16..32]);
        let [directory_at, directory_bytes, sum] = [32, 40, 48].map(|at| word_of(&block[at..at + 8]));
        Ok(Self { store, directory_at, directory_bytes, sum })
    }
}

/// The head of a hint: of which segment it is, and how far it says what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HintHead {
    pub(crate) store: [u8; 16],
    pub(crate) number: u64,
    pub(crate) end: u64,
    /// Of everything behind the head.
    pub(crate) sum: u64,
}

impl HintHead {
    pub(crate) const BYTES: usize = 64;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut block = sealed_block(HINT_MAGIC);
        block[16..32].copy_from_slice(&self.store);
        for (at, word) in [(32, self.number), (40, self.end), (48, self.sum)] {
            block[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        seal(&mut block);
        block
    }

    pub(crate) fn decode(block: &[u8; Self::BYTES]) -> Result<Self, BadBlock> {
        check_block(block, HINT_MAGIC)?;
        let mut store = [0; 16];
        store.copy_from_slice(&block[16..32]);
        let [number, end, sum] = [32, 40, 48].map(|at| word_of(&block[at..at + 8]));
        Ok(Self { store, number, end, sum })
    }
}

/// The two words that say how far a segment was flushed.
pub(crate) fn encode_flushed(flushed: u64) -> [u64; 2] {
    [flushed, flushed ^ FLUSHED_MASK]
}

/// How far a segment of `capacity` bytes was flushed, its records' start if it never was. Of two words that disagree,
/// as after a write that was cut short, the lower one that can be counts.
pub(crate) fn decode_flushed(words: [u64; 2], capacity: u64) -> u64 {
    let can_be = |flushed: &u64| (RECORDS_START..=capacity).contains(flushed) && flushed.is_multiple_of(8);
    [words[0], words[1] ^ FLUSHED_MASK].into_iter().filter(can_be).min().unwrap_or(RECORDS_START)
}

/// Bytes of a note in the file `lock`.
pub(crate) const NOTE_BYTES: usize = 24;

/// What a note to the next process says of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// Flushes failed from the segment of this number on; see `DESIGN.md`, *Notes*.
    Doubt,
    /// The latest time seen, as a sequence.
    Time,
}

impl Note {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Doubt => b"doubtful",
            Self::Time => b"timeseen",
        }
    }

    /// Where it stands in the file.
    pub(crate) fn place(self) -> u64 {
        match self {
            Self::Doubt => 0,
            Self::Time => 32,
        }
    }
}

/// A note: its magic, a number, and a check of both.
pub(crate) fn encode_note(note: Note, number: u64) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    bytes[..8].copy_from_slice(note.magic());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let check = xxh3_64(&bytes[..16]);
    bytes[16..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// The number of a note, if it is one of this kind.
pub(crate) fn decode_note(note: Note, bytes: &[u8; NOTE_BYTES]) -> Option<u64> {
    (bytes[..8] == *note.magic() && word_of(&bytes[16..]) == xxh3_64(&bytes[..16])).then(|| word_of(&bytes[8..16]))
}

fn sealed_block(magic: [u8; 8]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(&magic);
    block[8..12].copy_from_slice(&VERSION.to_le_bytes());
    block
}

fn seal(block: &mut [u8; 64]) {
    let check = xxh3_64(&block[..56]);
    block[56..].copy_from_slice(&check.to_le_bytes());
}

fn check_block(block: &[u8; 64], magic: [u8; 8]) -> Result<(), BadBlock> {
    if block[..8] != magic {
        return Err(BadBlock::Magic);
    }
    let (stored, computed) = (word_of(&block[56..]), xxh3_64(&block[..56]));
    if stored != computed {
        return Err(BadBlock::Checksum { stored, computed });
    }
    // The checksum comes before the version: a flipped bit is damage, not the future.
    match word_of(&block[8..12]) as u32 {
        VERSION => Ok(()),
        version => Err(BadBlock::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        for kind in [RecordKind::Value, RecordKind::Tombstone, RecordKind::Void, RecordKind::Packed] {
            let header = Header { kind, sequence: u64::MAX - 3, deadline_ms: (1 << 48) - 1 };
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
        for (kind, flags) in [(RecordKind::Value, 2), (RecordKind::Value, 0x80), (RecordKind::Tombstone, 1)] {
            let mut flagged = Header { kind, sequence: 1, deadline_ms: 0 }.encode();
            flagged[15] = flags;
            assert_eq!(Header::decode(&flagged), None, "unknown flags fail closed");
        }
    }

    #[test]
    fn a_flipped_bit_in_any_block_is_seen() {
        let identity = Identity { id: [7; 16], secret: [9; 16] };
        let segment = SegmentHeader { store: [7; 16], number: 5, capacity: 1 << 26, is_packed: true };
        let snapshot = SnapshotHead { store: [7; 16], directory_at: 64, directory_bytes: 8, sum: 1 };
        let hint = HintHead { store: [7; 16], number: 5, end: 1 << 20, sum: 1 };
        for bit in 0..512 {
            let (mut a, mut b, mut c) = (identity.encode(), segment.encode(), snapshot.encode());
            [&mut a, &mut b, &mut c].into_iter().for_each(|block| block[bit / 8] ^= 1 << (bit % 8));
            assert!(Identity::decode(&a).is_err() && SegmentHeader::decode(&b).is_err(), "bit {bit}");
            assert!(SnapshotHead::decode(&c).is_err(), "bit {bit}");
            let mut d = hint.encode();
            d[bit / 8] ^= 1 << (bit % 8);
            assert!(HintHead::decode(&d).is_err(), "bit {bit}");
        }
        assert_eq!(HintHead::decode(&hint.encode()), Ok(hint));
        assert_eq!(SnapshotHead::decode(&snapshot.encode()), Ok(snapshot));
        assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut block = Identity { id: [0; 16], secret: [0; 16] }.encode();
        block[8] = 2;
        seal(&mut block);
        assert_eq!(Identity::decode(&block), Err(BadBlock::Version(2)));
    }

    #[test]
    fn the_mark_keeps_foreign_length_words_out() {
        let keys = Keys::new([1; 16]);
        let lengths = keys.lengths(keys.length_word(300, 70_000)).unwrap();
        assert_eq!((lengths.key, lengths.value, lengths.bytes()), (300, 70_000, 70_332));
        assert!(Keys::new([2; 16]).lengths(keys.length_word(300, 70_000)).is_none());
    }
}
