//! Batches of 1000 records of 1 KiB, about 200 MB in all, by the batch interface of each engine.
//!
//! The values come from a buffer larger than the last cache, in order, as in the memcpy they are compared with.
//! Only the calls are timed, not the making of keys.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::engines::{Engine, Expected, Mode};
use crate::limits;
use crate::measure::{Bench, ns_per};
use crate::samples::Measure;
use crate::workload::{BATCH_RECORDS, BATCH_VALUE_BYTES, Key, key};

const BATCHES: u64 = 200;

pub fn run<E: Engine>(bench: &mut Bench) -> Result<()> {
    let records_total = BATCHES * BATCH_RECORDS as u64;
    let expected = Expected { records: records_total, value_bytes: BATCH_VALUE_BYTES };
    limits::memcpy(bench); // again, close by
    let scratch = bench.scratch(E::NAME)?;
    let engine = E::open(scratch.path(), Mode::Buffered, expected)?;
    let mut values = bench.large.chunks_exact(BATCH_VALUE_BYTES).cycle();
    let mut elapsed = Duration::ZERO;
    for batch in 0..BATCHES {
        let first = batch * BATCH_RECORDS as u64;
        let keys = (first..first + BATCH_RECORDS as u64).map(key);
        let records: Vec<(Key, &[u8])> = keys.zip(&mut values).collect();
        let start = Instant::now();
        engine.insert_many(&records).with_context(|| format!("batch {batch}"))?;
        elapsed += start.elapsed();
    }
    bench.results.add(Measure::Batch, E::NAME, "", ns_per(elapsed, records_total));
    engine.close()?;
    bench.discard(scratch)
}
