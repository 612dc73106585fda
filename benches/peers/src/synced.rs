//! Inserts that are durable on return, by one thread and by eight.
//!
//! The figure is wall time over all operations of all threads, so eight threads that share their flushes show it.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::engines::{Engine, Mode};
use crate::limits;
use crate::measure::{Bench, ns_per, small_records};
use crate::samples::Measure;
use crate::workload::{Values, key};

const OPS_PER_THREAD: u64 = 500;
const WARM_UP: u64 = 20; // first segments, first pages: not what is asked here

pub fn run<E: Engine>(bench: &mut Bench) -> Result<()> {
    limits::disk(bench)?; // again, close by: the disk's mood changes
    for (measure, threads) in [(Measure::SyncedOneThread, 1), (Measure::SyncedEightThreads, 8)] {
        let scratch = bench.scratch(E::NAME)?;
        let engine = E::open(scratch.path(), Mode::Synced, small_records(OPS_PER_THREAD * threads))?;
        insert_range(&engine, bench.values, 0, WARM_UP)?;
        let elapsed = race(&engine, bench.values, threads)?;
        bench.results.add(measure, E::NAME, "", ns_per(elapsed, OPS_PER_THREAD * threads));
        engine.close()?;
        bench.discard(scratch)?;
    }
    Ok(())
}

/// All threads start together; the time ends with the last of them.
fn race<E: Engine>(engine: &E, values: &Values, threads: u64) -> Result<Duration> {
    let barrier = Barrier::new(threads as usize + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    insert_range(engine, values, WARM_UP + thread * OPS_PER_THREAD, OPS_PER_THREAD)
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(start.elapsed())
    })
}

fn insert_range<E: Engine>(engine: &E, values: &Values, first: u64, count: u64) -> Result<()> {
    (first..first + count).try_for_each(|index| engine.insert(&key(index), values.of(index)))
}
