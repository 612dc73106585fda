//! Dictionaries, and what it takes to show a packed value.
//!
//! Holds the dictionaries that were needed so far, each in its place for good. They stand in the log under keys of their own, in a
//! namespace that is no user's, so that compaction moves them and recovery finds them like any record. Invariant: no record
//! names a dictionary that is not as durable as itself; one that is missing or damaged harms those alone that name it.

use std::sync::OnceLock;

use thermocline_tiers::{
    Error, Guard, Location, Result, Value,
    log::{self, DICTIONARIES, Dictionary, Packed},
    memory::Kept,
};

use crate::{engine::Core, found::Found, index::Look};

/// The key of the dictionary in a place.
pub(crate) fn key_of(place: usize) -> [u8; 12] {
    let mut key = *b"dictionary\0\0";
    key[11] = place as u8;
    key
}

/// Whether a namespace, perhaps damaged, is rather that of dictionaries than the unnamed one.
pub(crate) fn is_likely_dictionary(namespace: u32) -> bool {
    namespace.count_ones() >= u32::BITS / 2
}

/// The dictionaries of a store, by place.
#[derive(Debug)]
pub(crate) struct Dictionaries([OnceLock<Dictionary>; Dictionary::COUNT]);

impl Default for Dictionaries {
    fn default() -> Self {
        Self([const { OnceLock::new() }; Dictionary::COUNT])
    }
}

/// What a store has in one of the places for dictionaries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held<'a> {
    Nothing,
    /// Something is there that cannot be used.
    Damaged,
    Whole(&'a Dictionary),
}

impl Dictionaries {
    /// Puts a dictionary in its place, where there is none.
    pub(crate) fn add(&self, place: usize, dictionary: Dictionary) -> &Dictionary {
        self.0[place].get_or_init(|| dictionary)
    }
}

impl Core {
    /// Shows the value of a record, decoded.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it does not decode, or what it takes to do so is not there; [`Error::Io`].
    #[inline(always)]
    pub(crate) fn show_value<R>(&self, found: Found<'_>, show: impl FnOnce(&[u8]) -> R) -> Result<R> {
        match found {
            Found::Memory(record) => Ok(show(record.value())),
            Found::Log(record, at) => self.show_logged(&record, at, show),
        }
    }

    #[inline(always)]
    fn show_logged<R>(&self, record: &log::Record<'_>, at: Location, show: impl FnOnce(&[u8]) -> R) -> Result<R> {
        match record.header().kind {
            log::RecordKind::Packed => self.show_packed(record.stored(), at, show),
            _ => Ok(show(record.stored())),
        }
    }

    #[inline(never)]
    pub(crate) fn show_packed<R>(&self, stored: &[u8], at: Location, show: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let corrupt = |what| self.log.corrupt(at, what);
        let packed = Packed::parse(stored).map_err(corrupt)?;
        let dictionary = match packed.dictionary() {
            0 => None,
            number => Some(self.dictionary(number, at)?),
        };
        packed.show(dictionary, show).map_err(corrupt)
    }

    /// The value of a record: shared if it is in memory, copied or decoded out of the log.
    ///
    /// # Errors
    /// As for [`show_value`](Self::show_value).
    #[inline(always)]
    pub(crate) fn value_of(&self, found: Found<'_>) -> Result<Value> {
        match found {
            Found::Memory(record) => Ok(Value::of(&record)),
            Found::Log(record, at) => {
                self.show_logged(&record, at, |bytes| Value::copy_of(bytes, record.header().sequence))
            }
        }
    }

    /// How long the value of a record is, without decoding it.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(crate) fn value_bytes(&self, found: Found<'_>) -> Result<u64> {
        match found {
            // Of what a record keeps it is known what it weighs.
            Found::Memory(record) => Ok(record.kept().map_or(record.value().len() as u64, Kept::value_bytes)),
            Found::Log(record, at) if record.header().kind == log::RecordKind::Packed => {
                Packed::parse(record.stored()).map(|packed| packed.bytes()).map_err(|what| self.log.corrupt(at, what))
            }
            Found::Log(record, _) => Ok(record.stored().len() as u64),
        }
    }

    /// The dictionary that the record at `at` names.
    #[inline]
    fn dictionary(&self, number: u16, at: Location) -> Result<&Dictionary> {
        let place = Dictionary::place_of(number);
        match self.dictionaries.0[place].get() {
            Some(dictionary) if dictionary.number() == number => Ok(dictionary),
            _ => self.load_named(number, at),
        }
    }

    #[cold]
    fn load_named(&self, number: u16, at: Location) -> Result<&Dictionary> {
        let place = Dictionary::place_of(number);
        let why = match self.load_dictionary(place) {
            Ok(Held::Whole(dictionary)) if dictionary.number() == number => return Ok(dictionary),
            Ok(Held::Whole(dictionary)) => format!("in its place is {:04x}", dictionary.number()),
            Ok(Held::Nothing) => "it is not there".to_owned(),
            Ok(Held::Damaged) => "it is damaged".to_owned(),
            Err(error) => return Err(error),
        };
        Err(self.log.corrupt(at, format!("packed with dictionary {number:04x}: {why}")))
    }

    /// The dictionary in a place; read, checked and prepared at the first time.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn load_dictionary(&self, place: usize) -> Result<Held<'_>> {
        if let Some(dictionary) = self.dictionaries.0[place].get() {
            return Ok(Held::Whole(dictionary));
        }
        let (guard, key) = (Guard::pin(), key_of(place));
        let found = self.index.find(self.log.keys().hash(&key), &guard, |at| {
            self.tiers(&guard).read_to_replace(at, |record| match record {
                Some(record) if record.key() == key && !record.is_users() => Look::Found(at),
                _ => Look::Other,
            })
        })?;
        let Some(at) = found else { return Ok(Held::Nothing) };
        // The same bytes for as long as the store is open: what was read once is not looked at again.
        match self.log.read_checked(at, |record| Dictionary::new(place, record.stored())) {
            Ok(Ok(dictionary)) => Ok(Held::Whole(self.dictionaries.add(place, dictionary))),
            Ok(Err(_)) | Err(Error::Corrupt { .. }) => Ok(Held::Damaged),
            Err(error) => Err(error),
        }
    }

    /// Whether the record at `at`, which may be damaged, is rather a dictionary than a user's.
    pub(crate) fn is_dictionary(&self, at: Location) -> bool {
        self.log.stated_namespace(at).is_ok_and(is_likely_dictionary)
    }
}

const _: () = assert!(DICTIONARIES.count_ones() == u32::BITS && Dictionary::COUNT <= 256);
