//! The physical limits: what the machine itself takes for the steps that no engine can do without.
//!
//! Measured in every repeat and again beside the engines that are held against them, so that they share the
//! machine's good and bad moments.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use rustix::fs::{FallocateFlags, fallocate};

use crate::measure::{Bench, ns_per};
use crate::samples::Limit;
use crate::workload::{Lookups, key, splitmix64};

const COPY_BYTES: usize = 1024;
const LINE_WORDS: usize = 16; // u32 per cache line of 64 bytes
const LOADS: u64 = 2_000_000;
const FLUSHES: u64 = 300;
const FLUSH_BYTES: usize = 4096;
const WRITES: u64 = 20_000;
const WRITE_BYTES: usize = 152; // a record of 16 + 100 bytes and its header
const PROBES: u64 = 1_000_000;

/// Measures all of them once.
pub fn run(bench: &mut Bench) -> Result<()> {
    memcpy(bench);
    let load = dependent_load_ns(bench.results.machine.beyond_l3_bytes());
    bench.results.add_limit(Limit::DependentLoad, load);
    bench.results.add_limit(Limit::LookupKey, lookup_key_ns(bench.keys));
    bench.results.add_limit(Limit::Timer, timer_ns());
    disk(bench)
}

/// How fast 1 KiB values could be copied.
pub fn memcpy(bench: &mut Bench) {
    let memcpy = memcpy_ns(bench.large);
    bench.results.add_limit(Limit::Memcpy1Kib, memcpy);
}

/// What writing, and writing durably, takes at least.
pub fn disk(bench: &mut Bench) -> Result<()> {
    let scratch = bench.scratch("limits")?;
    let file_bytes = (WRITES as usize * WRITE_BYTES).max(FLUSHES as usize * FLUSH_BYTES);
    let file = written_file(&scratch.path().join("limits"), file_bytes)?;
    let pwrite = pwrite_ns(&file)?;
    bench.results.add_limit(Limit::Pwrite152, pwrite);
    file.sync_all()?;
    for (limit, bytes) in [(Limit::Fdatasync4Kib, FLUSH_BYTES), (Limit::Fdatasync152, WRITE_BYTES)] {
        bench.results.add_limit(limit, fdatasync_ns(&file, bytes)?);
    }
    drop(file);
    bench.discard(scratch)
}

/// One copy of 1 KiB, source and destination each larger than L3 and touched before.
fn memcpy_ns(source: &[u8]) -> f64 {
    let mut target = vec![1_u8; source.len()];
    let start = Instant::now();
    for (to, from) in target.chunks_exact_mut(COPY_BYTES).zip(source.chunks_exact(COPY_BYTES)) {
        black_box(to).copy_from_slice(black_box(from));
    }
    let elapsed = start.elapsed();
    black_box(&target);
    ns_per(elapsed, (source.len() / COPY_BYTES) as u64)
}

/// One load whose address comes from the load before it: a walk around one random cycle of cache lines.
fn dependent_load_ns(bytes: usize) -> f64 {
    let lines = bytes / (LINE_WORDS * size_of::<u32>());
    let mut order: Vec<u32> = (0..lines as u32).collect();
    for i in (1..lines).rev() {
        let j = ((u128::from(splitmix64(i as u64)) * i as u128) >> 64) as usize; // j < i: Sattolo, one cycle
        order.swap(i, j);
    }
    let mut next = vec![0_u32; lines * LINE_WORDS];
    for (line, to) in order.iter().enumerate() {
        next[line * LINE_WORDS] = *to;
    }
    drop(order);

    let mut at = 0_usize;
    let start = Instant::now();
    for _ in 0..LOADS {
        at = next[at * LINE_WORDS] as usize;
    }
    let elapsed = start.elapsed();
    black_box(at);
    ns_per(elapsed, LOADS)
}

/// Choosing one of the keys and making it.
pub fn lookup_key_ns(keys: u64) -> f64 {
    let start = Instant::now();
    Lookups::new(keys, PROBES, 1).for_each(|index| {
        black_box(key(index));
    });
    ns_per(start.elapsed(), PROBES)
}

/// Reading the clock once.
pub fn timer_ns() -> f64 {
    let start = Instant::now();
    (0..PROBES).for_each(|_| {
        black_box(Instant::now());
    });
    ns_per(start.elapsed(), PROBES)
}

/// A file whose blocks are allocated, were written once and are on the disk.
fn written_file(path: &Path, bytes: usize) -> Result<File> {
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
    let bytes = bytes.next_multiple_of(1 << 20);
    fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)?;
    file.write_all_at(&vec![0; bytes], 0)?;
    file.sync_all()?;
    Ok(file)
}

fn pwrite_ns(file: &File) -> Result<f64> {
    let record = [1; WRITE_BYTES];
    let start = Instant::now();
    for i in 0..WRITES {
        file.write_all_at(&record, i * WRITE_BYTES as u64)?;
    }
    Ok(ns_per(start.elapsed(), WRITES))
}

fn fdatasync_ns(file: &File, bytes: usize) -> Result<f64> {
    let block = vec![2; bytes];
    let start = Instant::now();
    for i in 0..FLUSHES {
        file.write_all_at(&block, i * bytes as u64)?;
        file.sync_data()?;
    }
    Ok(ns_per(start.elapsed(), FLUSHES))
}
