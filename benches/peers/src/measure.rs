//! The life of a store: filled one insert at a time, looked up, closed, weighed; and what a single call takes.
//!
//! One life answers `insert`, `get` and `space`. Throughput is timed around whole loops; latencies are taken in
//! passes of their own, so that reading the clock slows no throughput figure.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use tempfile::TempDir;

use crate::engines::{Engine, Expected, Mode};
use crate::samples::{Measure, Question, Results};
use crate::workload::{Key, Lookups, Tally, VALUE_BYTES, Values, key};

const LATENCY_NS_MAX: u64 = 60_000_000_000;
const WARM_UP_SHARE: u64 = 4; // of the keys: one in so many is looked up before the time runs, dozens per 4 KiB page
const LATENCY_SHARE: u64 = 10; // of the keys: one in so many is timed singly, per repeat

const TOUCHED_BYTES: u64 = 1 << 30; // more than any store of this program takes while it is filled

/// One turn of one engine.
pub struct Bench<'run> {
    pub keys: u64,
    pub repeat: u32,
    pub questions: &'run [Question],
    pub root: &'run Path,
    pub values: &'run Values,
    /// Random bytes, more than the last cache holds.
    pub large: &'run [u8],
    pub results: &'run mut Results,
}

impl Bench<'_> {
    pub fn asks(&self, question: Question) -> bool {
        self.questions.is_empty() || self.questions.contains(&question)
    }

    /// An empty directory for one store. Everything written before is on the disk when this returns, so that no
    /// engine pays for the dirty pages of the one before it, and free memory was in use a moment ago.
    pub fn scratch(&self, name: &str) -> Result<TempDir> {
        quiesce(self.root)?;
        touch_free_memory(self.root)?;
        Ok(tempfile::Builder::new().prefix(name).tempdir_in(self.root)?)
    }

    pub fn discard(&self, scratch: TempDir) -> Result<()> {
        scratch.close().context("removing a store")?;
        quiesce(self.root)
    }

    fn lookups(&self, count: u64, pass: u64) -> Lookups {
        Lookups::new(self.keys, count, u64::from(self.repeat) << 8 | pass)
    }

    fn latency_count(&self) -> u64 {
        (self.keys / LATENCY_SHARE).max(1)
    }
}

/// Waits until all that was written to the filesystem of `dir` is on its disk.
pub fn quiesce(dir: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
}

/// Puts a file into the page cache and removes it. A virtual machine's free memory may have gone back to its host, and
/// the first touch of such a page costs several times what is measured here.
pub fn touch_free_memory(dir: &Path) -> Result<()> {
    let path = dir.join("touch");
    let mut file = File::create_new(&path)?;
    let zeros = vec![0; 1 << 20];
    (0..TOUCHED_BYTES >> 20).try_for_each(|_| file.write_all(&zeros))?;
    Ok(fs::remove_file(path)?)
}

/// Nanoseconds of one of `count` operations that took `elapsed` together.
pub fn ns_per(elapsed: Duration, count: u64) -> f64 {
    elapsed.as_nanos() as f64 / count as f64
}

/// So many records of the usual size.
pub fn small_records(records: u64) -> Expected {
    Expected { records, value_bytes: VALUE_BYTES }
}

/// Fills a store and measures what was asked of `insert`, `get` and `space`.
pub fn life<E: Engine>(bench: &mut Bench) -> Result<()> {
    let scratch = bench.scratch(E::NAME)?;
    let engine = E::open(scratch.path(), Mode::Buffered, small_records(bench.keys))?;
    let elapsed = insert_all(&engine, bench)?;
    if bench.asks(Question::Insert) {
        bench.results.add(Measure::Insert, E::NAME, "", ns_per(elapsed, bench.keys));
    }
    engine.settle()?;
    if bench.asks(Question::Get) {
        get_all(&engine, bench)?;
    }
    engine.close()?;
    if bench.asks(Question::Space) {
        let overhead = overhead_bytes::<E>(scratch.path(), bench.keys)?;
        bench.results.add(Measure::Space, E::NAME, "", overhead);
    }
    if bench.asks(Question::Insert) {
        insert_latencies::<E>(scratch.path(), bench)?;
    }
    bench.discard(scratch)
}

fn insert_all<E: Engine>(engine: &E, bench: &Bench) -> Result<Duration> {
    let start = Instant::now();
    for index in 0..bench.keys {
        engine.insert(&key(index), bench.values.of(index))?;
    }
    Ok(start.elapsed())
}

fn get_all<E: Engine>(engine: &E, bench: &mut Bench) -> Result<()> {
    for (way, name) in ways::<E>().into_iter().enumerate() {
        let mut warm = Tally::default();
        engine.get_each(way, bench.lookups(bench.keys / WARM_UP_SHARE, 64).map(key), |value| warm.add(value))?;
        let lookups = bench.lookups(bench.keys, way as u64);
        let expected = lookups.expected(bench.values);
        let mut tally = Tally::default();
        let start = Instant::now();
        engine.get_each(way, lookups.map(key), |value| tally.add(value))?;
        let elapsed = start.elapsed();
        ensure!(tally == expected, "{} {name}: found {tally:?} instead of {expected:?}", E::NAME);
        bench.results.add(Measure::Get, E::NAME, name, ns_per(elapsed, bench.keys));
    }
    for (way, name) in ways::<E>().into_iter().enumerate() {
        let keys = bench.lookups(bench.latency_count(), 128 + way as u64).map(key);
        let latencies = get_latencies(engine, way, keys)?;
        bench.results.add_latencies(Measure::Get, E::NAME, name, &latencies)?;
    }
    Ok(())
}

/// The names of the ways, or one empty name where there is nothing to tell apart.
fn ways<E: Engine>() -> Vec<&'static str> {
    if E::WAYS.len() > 1 { E::WAYS.to_vec() } else { vec![""] }
}

/// Times each look-up, from its key being ready to its value being shown.
fn get_latencies<E: Engine>(engine: &E, way: usize, keys: impl Iterator<Item = Key>) -> Result<Histogram<u64>> {
    let mut latencies = latencies()?;
    let asked = std::cell::Cell::new(Instant::now());
    let keys = keys.inspect(|_| asked.set(Instant::now()));
    engine.get_each(way, keys, |value| {
        std::hint::black_box(value.last());
        latencies.saturating_record(nanoseconds(asked.get().elapsed()));
    })?;
    Ok(latencies)
}

/// Times each of some more inserts into the full store, opened again.
fn insert_latencies<E: Engine>(dir: &Path, bench: &mut Bench) -> Result<()> {
    let engine = E::open(dir, Mode::Buffered, small_records(bench.keys))?;
    let mut latencies = latencies()?;
    for index in bench.keys..bench.keys + bench.latency_count() {
        let (key, value) = (key(index), bench.values.of(index));
        let start = Instant::now();
        engine.insert(&key, value)?;
        latencies.saturating_record(nanoseconds(start.elapsed()));
    }
    engine.close()?;
    bench.results.add_latencies(Measure::Insert, E::NAME, "", &latencies)
}

/// An empty histogram of nanoseconds.
pub fn latencies() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(|error| anyhow!("latencies: {error}"))
}

/// As a histogram takes it.
#[inline]
pub fn nanoseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap_or(LATENCY_NS_MAX)
}

/// Bytes of disk blocks per record, above its key and value.
fn overhead_bytes<E: Engine>(dir: &Path, keys: u64) -> Result<f64> {
    let used = disk_bytes(dir, &E::is_hint)? as f64;
    Ok(used / keys as f64 - (size_of::<Key>() + VALUE_BYTES) as f64)
}

fn disk_bytes(dir: &Path, is_hint: &impl Fn(&str) -> bool) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            bytes += disk_bytes(&entry.path(), is_hint)?;
        } else if !is_hint(&entry.file_name().to_string_lossy()) {
            bytes += metadata.blocks() * 512; // st_blocks counts 512 bytes whatever the filesystem's blocks are
        }
    }
    Ok(bytes)
}
