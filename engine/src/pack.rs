//! Pack: compress what compaction moves, and train the dictionary that small values are compressed with.
//!
//! Holds what is decided about compression: with what, whether it is worth trying, when a dictionary is worth its place. Runs where
//! compaction runs, never in a caller's read or write. Invariant: a dictionary is durable, and named by the index, before the
//! first record that names it is copied.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use thermocline_tiers::{
    Error, Guard, Result,
    log::{Cold, DICTIONARIES, Dictionary, Encoder, Header, LEVELS, NewRecord, RecordKind, Samples, Sealed},
};

use crate::{
    counters::Count,
    dictionaries::{Held, key_of},
    engine::Core,
    index::{Published, Verdict},
};

/// Bytes of values that a dictionary is learnt from.
const SAMPLE_BYTES: u64 = 1 << 20;
/// After so many bytes compressed without another dictionary, one more is tried; twice as many each time.
const RETRAIN_BYTES: u64 = 16 << 20;
/// A dictionary gets a place if it makes of values at most so many percent of what the one before it makes.
const BETTER_PERCENT: u64 = 90;
/// After so many values in a row that do not shrink only one in [`TRIED_ONE_IN`] is tried.
const FRUITLESS_MAX: u32 = 64;
const TRIED_ONE_IN: u32 = 16;

/// How records are compressed that compaction moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    level: Option<i32>,
}

impl Default for Compression {
    fn default() -> Self {
        Self::zstd(3)
    }
}

impl Compression {
    /// Not at all. What is compressed already stays so.
    pub const fn none() -> Self {
        Self { level: None }
    }

    /// By zstd, small values with a dictionary that is trained on values of the store. `level` is 1 to 19.
    pub const fn zstd(level: i32) -> Self {
        Self { level: Some(level) }
    }

    /// Whether anything is compressed.
    pub(crate) fn is_some(self) -> bool {
        self.level.is_some()
    }

    pub(crate) fn check(self) -> Result<()> {
        match self.level {
            Some(level) if !LEVELS.contains(&level) => Err(Error::Option {
                option: "compression",
                found: format!("zstd({level})"),
                expected: format!("zstd({}) to zstd({}), or none()", LEVELS.start(), LEVELS.end()),
            }),
            _ => Ok(()),
        }
    }
}

/// What compresses records on their way, kept from one compaction to the next.
#[derive(Debug)]
pub(crate) struct Packer {
    level: i32,
    encoder: Encoder,
    /// Places for dictionaries that are taken, and the number of the dictionary in use; 0: none.
    places: usize,
    number: u16,
    /// Bytes that were tried to compress since a dictionary was last trained, and how many there have to be before the next.
    bytes: u64,
    bytes_min: u64,
    /// Values in a row that did not shrink, as far as that matters, and how many were met since then.
    fruitless: u32,
    met: u32,
    done: Done,
}

/// What was compressed, for the counters.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    bytes: u64,
    packed_bytes: u64,
    time: Duration,
}

impl Packer {
    fn new(level: i32, places: usize, dictionary: Option<&Dictionary>) -> Result<Self> {
        let number = dictionary.map_or(0, Dictionary::number);
        let encoder = encoder(level, dictionary)?;
        let bytes_min = if number == 0 { 0 } else { RETRAIN_BYTES << places.min(32) };
        Ok(Self { level, encoder, places, number, bytes: 0, bytes_min, fruitless: 0, met: 0, done: Done::default() })
    }

    /// The record to copy: packed, if that is a value of a user and becomes smaller.
    pub(crate) fn pack<'a>(&'a mut self, record: NewRecord<'a>) -> NewRecord<'a> {
        let is_plain = record.header.kind == RecordKind::Value && record.namespace != DICTIONARIES;
        if !is_plain || !self.is_worth_trying() {
            return record;
        }
        let start = Instant::now();
        let packed = self.encoder.pack(record.key.len(), record.value);
        self.fruitless = if packed.is_some() { 0 } else { FRUITLESS_MAX.min(self.fruitless + 1) };
        self.bytes += record.value.len() as u64;
        self.done.time += start.elapsed();
        let Some(value) = packed else { return record };
        self.done.bytes += record.value.len() as u64;
        self.done.packed_bytes += value.len() as u64;
        NewRecord { header: Header { kind: RecordKind::Packed, ..record.header }, value, ..record }
    }

    fn is_worth_trying(&mut self) -> bool {
        self.met = self.met.wrapping_add(1);
        self.fruitless < FRUITLESS_MAX || self.met.is_multiple_of(TRIED_ONE_IN)
    }
}

fn encoder(level: i32, dictionary: Option<&Dictionary>) -> Result<Encoder> {
    let io = |what: String| Error::Io {
        action: "prepare",
        file: "compression".to_owned(),
        offset: 0,
        source: std::io::Error::other(what),
    };
    Encoder::new(level, dictionary).map_err(io)
}

impl Core {
    /// Makes `packer` ready for what is in `chosen`: there is one from now on, if anything is to be compressed, and it has a
    /// dictionary, if one is worth it.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing that names a dictionary was written then.
    pub(crate) fn prepare_packer(&self, packer: &mut Option<Packer>, chosen: &[Sealed], cold: &mut Cold) -> Result<()> {
        let Some(level) = self.options.compression.level else { return Ok(()) };
        let packer = match packer {
            Some(packer) => packer,
            None => packer.insert(self.found_packer(level)?),
        };
        if packer.bytes < packer.bytes_min || packer.places == Dictionary::COUNT {
            return Ok(());
        }
        let samples = self.sample(chosen)?;
        if samples.count() < self.options.dictionary_samples_min {
            packer.bytes_min = packer.bytes + SAMPLE_BYTES;
            return Ok(());
        }
        (packer.bytes, packer.bytes_min) = (0, packer.bytes_min.saturating_mul(2).max(RETRAIN_BYTES));
        let start = Instant::now();
        let trained = self.train(packer, &samples)?;
        packer.done.time += start.elapsed();
        let Some(dictionary) = trained else { return Ok(()) };
        // A cold segment whose flush failed gets nothing more: nobody knows what the disk has of it.
        if !self.write_dictionary(packer.places, dictionary.bytes(), cold).inspect_err(|_| cold.leave_unflushed())? {
            return Ok(());
        }
        let dictionary = self.dictionaries.add(packer.places, dictionary);
        (packer.encoder, packer.number) = (encoder(level, Some(dictionary))?, dictionary.number());
        packer.places += 1;
        Ok(())
    }

    /// A packer that goes on with the latest dictionary of the store.
    fn found_packer(&self, level: i32) -> Result<Packer> {
        let (mut places, mut latest) = (0, None);
        while places < Dictionary::COUNT {
            match self.load_dictionary(places)? {
                Held::Nothing => break,
                Held::Damaged => {}
                Held::Whole(dictionary) => latest = Some(dictionary),
            }
            places += 1;
        }
        Packer::new(level, places, latest)
    }

    /// Values of some segments, taken evenly, decoded.
    fn sample(&self, chosen: &[Sealed]) -> Result<Samples> {
        let (mut samples, mut taken, mut passed) = (Samples::default(), 0, 0);
        let all = chosen.iter().map(|sealed| sealed.bytes).sum::<u64>().max(1);
        let share = |passed: u64| u128::from(passed) * u128::from(SAMPLE_BYTES) / u128::from(all);
        for sealed in chosen {
            self.log.visit_sealed(sealed, |found, at| {
                passed += found.bytes;
                if all > SAMPLE_BYTES && share(passed) < taken || found.namespace == DICTIONARIES {
                    return Ok(());
                }
                let mut take = |value: &[u8]| {
                    if Samples::wants(value.len()) {
                        samples.add(value);
                        taken += value.len() as u128;
                    }
                };
                match found.header.kind {
                    RecordKind::Value => take(found.value),
                    // One that cannot be decoded is no sample; its readers hear of it.
                    RecordKind::Packed => drop(self.show_packed(found.value, at, take)),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(samples)
    }

    /// A dictionary learnt from half of the samples, if it does much better than the present one with the other half.
    fn train(&self, packer: &mut Packer, samples: &Samples) -> Result<Option<Dictionary>> {
        let [mut learnt, mut held_out] = [Samples::default(), Samples::default()];
        for (number, value) in samples.iter().enumerate() {
            if number % 2 == 0 { learnt.add(value) } else { held_out.add(value) }
        }
        let made = learnt.train().and_then(|bytes| Dictionary::new(packer.places, &bytes).ok());
        let Some(dictionary) = made else { return Ok(None) };
        let bytes_with = |encoder: &mut Encoder| -> u64 {
            held_out.iter().map(|value| encoder.pack(0, value).map_or(value.len(), <[u8]>::len) as u64).sum()
        };
        let (with, without) =
            (bytes_with(&mut encoder(packer.level, Some(&dictionary))?), bytes_with(&mut packer.encoder));
        Ok(Some(dictionary).filter(|_| with * 100 < without * BETTER_PERCENT))
    }

    /// Writes a dictionary to `cold`, durably, and has the index name it; `false` if there is one in its place.
    fn write_dictionary(&self, place: usize, bytes: &[u8], cold: &mut Cold) -> Result<bool> {
        let key = key_of(place);
        let header = Header { kind: RecordKind::Value, sequence: self.clock.draw(1), deadline_ms: 0 };
        let record = NewRecord { header, namespace: DICTIONARIES, key: &key, value: bytes, kept: None };
        let at = self.log.copy_cold(cold, &record, true, self.clock.now_ms())?;
        let published = (|| {
            self.log.flush_cold(cold)?;
            let guard = Guard::pin();
            let tiers = self.tiers(&guard);
            let hash = self.log.keys().hash(&key);
            self.index.publish(hash, at, &guard, &tiers, &Cell::new(0), |there, _| {
                tiers.judge(there, |record| match record {
                    Some(record) if record.key() == key && !record.is_users() => Verdict::Keep,
                    _ => Verdict::Other,
                })
            })
        })();
        let is_named = published.map(|published| published != Published::Kept);
        match is_named {
            Ok(true) => self.counters.add(Count::LiveBytesAdded, record.bytes(), &Guard::pin()),
            _ => self.log.note_dead(at, record.bytes(), &header, true),
        }
        is_named
    }

    /// Counts what `packer` has done since the last time.
    pub(crate) fn count_packed(&self, packer: &mut Option<Packer>, guard: &Guard) {
        let Some(packer) = packer else { return };
        let done = std::mem::take(&mut packer.done);
        let counts = [
            (Count::BytesBeforePacking, done.bytes),
            (Count::BytesPacked, done.packed_bytes),
            (Count::PackingNanos, done.time.as_nanos() as u64),
        ];
        self.counters.add_all(counts, guard);
    }
}
