//! Bytes of a segment, piece by piece: what a crash, a bad disk or a liar may leave there.
//!
//! Holds the pieces and how they are written. Decides nothing about what a store makes of them.

use arbitrary::{Arbitrary, Unstructured};

use crate::forge::{Forge, HEADER_BYTES, Record, TOMBSTONE, VALUE};

/// The time at which forged stores are opened: 2026.
pub const NOW_MS: u64 = 1_767_225_600_000;
/// The first sequence of that time.
pub const NOW_SEQUENCE: u64 = (NOW_MS - 1_577_836_800_000) << 22;
/// A store of a few pages: more pieces find nothing more.
const BYTES_MAX: usize = 48 << 10;

/// Something that stands in a segment.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A committed record.
    Whole(Body),
    /// Reserved and not committed.
    Uncommitted(Body),
    /// A conditional write that had not won.
    Provisional(Body),
    /// A record with one flipped bit, counted from its start and around.
    Flipped(Body, u16),
    /// Only so many of its bytes were written.
    Torn(Body, u16),
    /// A void record, 32 bytes and so many words.
    Void(u8),
    /// Zeros, 32 bytes and so many words.
    Unwritten(u8),
    /// Whatever.
    Raw([u8; 16]),
}

/// What a record of a recipe holds.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// No value: the key is gone.
    pub is_tombstone: bool,
    /// Which key.
    pub key: u8,
    /// Of the value; above 1 KiB the remainder is taken, but for a few that are long.
    pub value_bytes: u16,
    /// The byte that fills the value.
    pub fill: u8,
    /// The number of the write.
    pub sequence: Sequence,
    /// When it expires.
    pub deadline: Deadline,
}

/// A number of a write.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// One of a few around now.
    Near(u8),
    /// Any that fits the field.
    Any(u64),
}

/// A moment at which a record expires.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// It does not.
    Never,
    /// So many seconds from now, or ago.
    Near(i8),
    /// Any that fits the field.
    Any(u64),
}

/// A piece as it stands in the bytes.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What it was to be.
    pub piece: Piece,
    /// Where it starts.
    pub at: usize,
}

/// The key with a number: some short, some long, one empty.
pub fn key(number: u8) -> Vec<u8> {
    match number % 16 {
        0 => vec![],
        15 => vec![b'.'; 40],
        number => format!("key {number}").into_bytes(),
    }
}

impl Body {
    /// The record that it stands for.
    pub fn record(&self) -> Record {
        let value_bytes = if self.value_bytes >= 65_000 { 20_000 } else { self.value_bytes as usize % 1024 };
        let deadline_ms = match self.deadline {
            Deadline::Never => 0,
            Deadline::Near(seconds) => NOW_MS.saturating_add_signed(i64::from(seconds) * 1000),
            Deadline::Any(ms) => ms & ((1 << 48) - 1),
        };
        let sequence = match self.sequence {
            Sequence::Near(number) => NOW_SEQUENCE + u64::from(number),
            Sequence::Any(sequence) => sequence,
        };
        let (kind, value) = match self.is_tombstone {
            true => (TOMBSTONE, vec![]),
            false => (VALUE, vec![self.fill; value_bytes]),
        };
        Record { kind, sequence, deadline_ms, key: key(self.key), value }
    }
}

impl Piece {
    /// Its bytes, a multiple of 8.
    pub fn bytes(&self, forge: &Forge) -> Vec<u8> {
        match self {
            Self::Whole(body) => forge.record(&body.record()),
            Self::Uncommitted(body) => {
                let mut bytes = forge.record(&body.record());
                bytes[..8].fill(0);
                bytes
            }
            Self::Provisional(body) => {
                let mut bytes = forge.record(&body.record());
                bytes[..4].iter_mut().for_each(|byte| *byte = !*byte);
                bytes
            }
            Self::Flipped(body, bit) => {
                let mut bytes = forge.record(&body.record());
                let bit = *bit as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            }
            Self::Torn(body, written) => {
                let mut bytes = forge.record(&body.record());
                let written = *written as usize % bytes.len();
                bytes[written..].fill(0);
                bytes
            }
            Self::Void(words) => forge.void(HEADER_BYTES + *words as usize * 8),
            Self::Unwritten(words) => vec![0; HEADER_BYTES + *words as usize * 8],
            Self::Raw(bytes) => bytes.to_vec(),
        }
    }

    /// Whether what it claims to be can be told: it is no rubbish and lies about no length.
    pub fn is_lawful(&self, forge: &Forge) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::Flipped(body, bit) => {
                let bit = *bit as usize % (forge.record(&body.record()).len() * 8);
                !(8 * 8..16 * 8).contains(&bit)
            }
            _ => true,
        }
    }
}

/// Reads pieces until the input ends or the segment is full.
pub fn pieces(input: &mut Unstructured<'_>, count_max: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while !input.is_empty() && pieces.len() < count_max {
        match Piece::arbitrary(input) {
            Ok(piece) => pieces.push(piece),
            Err(_) => break,
        }
    }
    pieces
}

/// Writes pieces side by side, the first at `start`.
pub fn write(forge: &Forge, pieces: &[Piece], start: usize) -> (Vec<u8>, Vec<Placed>) {
    let (mut bytes, mut placed) = (Vec::new(), Vec::new());
    for piece in pieces {
        let next = piece.bytes(forge);
        if bytes.len() + next.len() > BYTES_MAX {
            break;
        }
        placed.push(Placed { piece: *piece, at: start + bytes.len() });
        bytes.extend(next);
    }
    (bytes, placed)
}
