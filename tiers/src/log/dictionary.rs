//! A dictionary: what small values have in common, so that it need not stand in each of them.
//!
//! Holds its number and what a decoder needs of it, and training on samples. Never knows where its record stands. Invariant: what is in
//! a dictionary never changes, and its number says so.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;
use zstd_safe::DDict;

/// The longest dictionary.
const DICTIONARY_BYTES_MAX: usize = 64 << 10;
/// A longer value is compressed without a dictionary: it finds more in itself.
pub(super) const SMALL_BYTES_MAX: usize = 16 << 10;

/// What small values have in common.
pub struct Dictionary {
    number: u16,
    bytes: Box<[u8]>,
    decoder: DDict<'static>,
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dictionary({:04x}, {} bytes)", self.number, self.bytes.len())
    }
}

impl Dictionary {
    /// How many there can be in a store.
    pub const COUNT: usize = 64;

    /// The dictionary with these bytes in the place `place`, below [`COUNT`](Self::COUNT), of those of a store.
    ///
    /// # Errors
    /// In words, why this is none.
    pub fn new(place: usize, bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > DICTIONARY_BYTES_MAX {
            return Err(format!("a dictionary of {} bytes, the limit is {DICTIONARY_BYTES_MAX}", bytes.len()));
        }
        let number = Self::number_of(place, bytes);
        let decoder = DDict::try_create(bytes).ok_or_else(|| "not a dictionary".to_owned())?;
        Ok(Self { number, bytes: bytes.into(), decoder })
    }

    /// What packed values name it by: its place, and a hash, so that another one that comes to its place is not taken for it.
    fn number_of(place: usize, bytes: &[u8]) -> u16 {
        let hash = (xxh3_64(bytes) % (1 << 10)).max(1);
        (hash as u16) << 6 | place as u16
    }

    /// What packed values name it by. Never 0.
    #[inline]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The place that a number names.
    #[inline]
    pub fn place_of(number: u16) -> usize {
        number as usize % Self::COUNT
    }

    #[inline]
    pub(crate) fn decoder(&self) -> &DDict<'static> {
        &self.decoder
    }

    /// What it takes in the log, as a value.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Values to learn a dictionary from.
#[derive(Debug, Default)]
pub struct Samples {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Samples {
    /// Whether a dictionary would be used for a value of so many bytes.
    pub fn wants(bytes: usize) -> bool {
        (1..=SMALL_BYTES_MAX).contains(&bytes)
    }

    /// Adds a value.
    pub fn add(&mut self, value: &[u8]) {
        self.bytes.extend(value);
        self.lengths.push(value.len());
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lengths.len()
    }

    /// What they have in common, in at most an eighth of their bytes; `None` if that is nothing.
    pub fn train(&self) -> Option<Vec<u8>> {
        let bytes = (self.bytes.len() / 8).clamp(256, DICTIONARY_BYTES_MAX);
        let mut dictionary = Vec::with_capacity(bytes);
        zstd_safe::train_from_buffer(&mut dictionary, &self.bytes, &self.lengths).ok()?;
        Some(dictionary)
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        self.lengths.iter().map(move |length| {
            let (value, behind) = rest.split_at(*length);
            rest = behind;
            value
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_dictionary_in_the_same_place_has_another_number() {
        let (ours, other) = (Dictionary::new(5, b"something").unwrap(), Dictionary::new(5, b"something else").unwrap());
        assert_eq!(Dictionary::place_of(ours.number()), Dictionary::place_of(other.number()));
        assert_ne!(ours.number(), other.number());
        assert!(Dictionary::new(0, &vec![1; DICTIONARY_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn there_is_nothing_to_learn_from_nothing() {
        assert_eq!(Samples::default().train(), None);
        let mut one = Samples::default();
        one.add(b"a value");
        assert_eq!(one.train(), None);
    }
}
