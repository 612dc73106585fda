//! Hits by two threads at once: what both together get done, against one alone.

use std::ops::Range;
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use crate::caches::{Way, filled};
use crate::inserts::processor_time;
use crate::tables::{Column, Section};
use crate::zipf::Zipf;
use crate::{Bench, turns};
use thermocline_peers::measure::ns_per;
use thermocline_peers::report::grouped;
use thermocline_peers::samples::Table;
use thermocline_peers::workload::{Tally, Values};

const EXPONENT: f64 = 0.99;
const LOOKUPS_SHARE: u64 = 2; // of the look-ups of one turn elsewhere: one in so many for each thread

/// Records to be looked up by one thread, and what they come to.
struct Draws {
    indices: Vec<u32>,
    expected: Tally,
}

impl Draws {
    fn new(zipf: &Zipf, count: u64, seed: u64, values: &Values) -> Self {
        let indices = zipf.draw(count, seed);
        let expected = Tally::of(indices.iter().map(|index| u64::from(*index)), values);
        Self { indices, expected }
    }
}

pub fn run(bench: &Bench) -> Result<Section> {
    let keys = bench.sizes.zipf_keys;
    let caches = filled(bench.dir, keys, &bench.values)?;
    let ways: Vec<_> =
        caches.iter().flat_map(|(kind, cache)| cache.ways.iter().map(|way| (kind.engine, way))).collect();
    let zipf = Zipf::new(keys, EXPONENT);
    let lookups = bench.sizes.lookups / LOOKUPS_SHARE;
    let draws = [1, 2].map(|seed| Draws::new(&zipf, lookups, seed, &bench.values));
    let [mut one, mut two, mut speedup, mut had]: [Table; 4] = Default::default();
    for repeat in 0..bench.repeats {
        for (engine, way) in turns(&ways, repeat) {
            ns_in_all(way, &draws[1..])?; // to warm up
            let alone = ns_in_all(way, &draws[..1])?;
            let (start, before) = (Instant::now(), processor_time());
            let both = ns_in_all(way, &draws)?;
            let worked = processor_time().saturating_sub(before);
            had.add(engine, way.name, worked.as_secs_f64() / start.elapsed().as_secs_f64());
            one.add(engine, way.name, alone);
            two.add(engine, way.name, both);
            speedup.add(engine, way.name, alone / both);
        }
        eprintln!("two threads: repeat {}", repeat + 1);
    }
    Ok(Section {
        title: format!("Hits by two threads: {} entries, zipf {EXPONENT}", grouped(keys)),
        note: format!(
            "Wall time from the first start to the last end over the hits of all threads, {} per thread, and the \
             throughput of two threads in shares of one's from the same turn. The machine's cores are shared with \
             other processes: processors had is the processor time of the two threads over their wall time. Waiting \
             for a processor and sleeping on a lock both lower it.",
            grouped(lookups),
        ),
        columns: vec![
            Column::least("one thread, ns", &one),
            Column::least("two threads, ns", &two),
            Column::most("throughput of two / of one", &speedup),
            Column::most("processors had by the two", &had),
        ],
        plot: None,
    })
}

/// Wall nanoseconds per look-up when each of the draws has a thread of its own: from the first start to the last end.
fn ns_in_all(way: &Way, draws: &[Draws]) -> Result<f64> {
    let barrier = Barrier::new(draws.len());
    let count = draws.iter().map(|draws| draws.indices.len() as u64).sum();
    let times: Vec<_> = std::thread::scope(|scope| {
        let barrier = &barrier;
        let threads: Vec<_> = draws.iter().map(|draws| scope.spawn(move || look(way, draws, barrier))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
        joined.collect::<Result<_>>()
    })?;
    let first = times.iter().map(|time| time.start).min().context("no thread")?;
    let last = times.iter().map(|time| time.end).max().context("no thread")?;
    Ok(ns_per(last - first, count))
}

fn look(way: &Way, draws: &Draws, barrier: &Barrier) -> Result<Range<Instant>> {
    barrier.wait();
    let start = Instant::now();
    let (_, tally) = way.look.drawn(&draws.indices)?;
    let end = Instant::now();
    ensure!(tally == draws.expected, "found {tally:?} instead of {:?}", draws.expected);
    Ok(start..end)
}
