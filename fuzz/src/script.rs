//! Operations on a store, and the keys and values that they write.
//!
//! Holds data only; `operations` and `crash` carry them out, each with a model of its own.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use thermocline_engine::{Attributes, Durability};

use crate::segment_scan::End;

/// How many keys there are.
pub const KEYS: u8 = 24;
/// More find nothing more.
const OPERATIONS_MAX: usize = 200;

/// Something that is done to a store.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A write.
    Insert(Key, Length, Ttl, bool),
    /// A batch of so many, from this key on and around, at one durability.
    InsertMany(Key, u8, Length, Ttl, bool),
    /// A removal.
    Remove(Key),
    /// A conditional write of a value, or a conditional removal.
    Exchange {
        /// Which key.
        key: Key,
        /// Of the value; `None`: the key is removed.
        new: Option<Length>,
        /// Expects what is not there.
        is_stale: bool,
    },
    /// Every way to look at a key.
    Read(Key),
    /// A walk over all.
    Walk,
    /// So many ms pass.
    Wait(u16),
    /// Everything durable.
    Sync,
    /// The process ends, the wall clock is set, and another begins.
    Reopen(End, Jump),
}

/// Which key.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u8);

/// Bytes of a value: most have less than 600, some take a fifth of a segment, a few one of their own.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length(pub u16);

/// How long an entry lives.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// For ever.
    None,
    /// Some ms and one.
    Ms(u16),
    /// Some days and one.
    Days(u8),
    /// As long as can be said, which is for ever.
    Max,
}

/// Where the wall clock goes between two processes.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// Nowhere.
    None,
    /// So many hours back.
    Back(u8),
    /// So many hours on.
    On(u8),
    /// To the Unix epoch.
    Zero,
}

impl Key {
    /// The key's number.
    pub fn number(self) -> u8 {
        self.0 % KEYS
    }

    /// The keys from this one on, around and around.
    pub fn on(self, count: u8) -> impl Iterator<Item = Self> {
        (0..count % 40).map(move |step| Self(self.number() + step))
    }

    /// The key's bytes: one empty, some long.
    pub fn bytes(self) -> Vec<u8> {
        match self.number() {
            0 => vec![],
            number if number % 5 == 4 => vec![number; 200 + number as usize],
            number => format!("key {number}").into_bytes(),
        }
    }
}

impl Length {
    /// In bytes.
    pub fn bytes(self) -> usize {
        match self.0 {
            65_000.. => 70_000,
            60_000..65_000 => 12_000,
            bytes => bytes as usize % 600,
        }
    }
}

impl Ttl {
    /// As a duration; `None`: nothing is said.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Ms(ms) => Some(Duration::from_millis(u64::from(ms) + 1)),
            Self::Days(days) => Some(Duration::from_secs((u64::from(days) + 1) * 24 * 3600)),
            Self::Max => Some(Duration::MAX),
        }
    }
}

/// The value that is written as `version` under `key`: says so itself if it is long enough.
pub fn value(key: Key, version: u64, length: Length) -> Vec<u8> {
    let words = [version << 8 | u64::from(key.number()), version.wrapping_mul(0x9e37_79b9_7f4a_7c15)];
    let pattern: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    pattern.iter().copied().cycle().take(length.bytes()).collect()
}

/// Attributes of a write.
pub fn attributes(ttl: Ttl, synced: bool) -> Attributes {
    let attributes = ttl.duration().map_or_else(Attributes::new, |ttl| Attributes::new().ttl(ttl));
    if synced { attributes.durability(Durability::Synced) } else { attributes }
}

/// Reads operations until the input ends.
pub fn operations(input: &mut Unstructured<'_>) -> Vec<Operation> {
    let mut operations = Vec::new();
    while !input.is_empty() && operations.len() < OPERATIONS_MAX {
        match Operation::arbitrary(input) {
            Ok(operation) => operations.push(operation),
            Err(_) => break,
        }
    }
    operations
}
