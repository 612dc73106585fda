//! Hits by one thread: uniform keys, all of them in memory.

use anyhow::{Result, ensure};

use crate::caches::{REFERENCE, filled};
use crate::singles::Singles;
use crate::tables::{Column, Section};
use crate::{Bench, turns};
use thermocline_peers::report::grouped;
use thermocline_peers::samples::Table;
use thermocline_peers::workload::Lookups;

const WARM_UP_SHARE: u64 = 4; // of the keys: one in so many is looked up before the time runs

pub fn run(bench: &Bench, keys: u64) -> Result<Section> {
    let caches = filled(bench.dir, keys, &bench.values)?;
    let ways: Vec<_> =
        caches.iter().flat_map(|(kind, cache)| cache.ways.iter().map(|way| (kind.engine, way))).collect();
    let (mut each, mut p99) = (Table::default(), Table::default());
    for repeat in 0..bench.repeats {
        for (engine, way) in turns(&ways, repeat) {
            let lookups = |count, pass| Lookups::new(keys, count, u64::from(repeat) << 8 | pass);
            way.look.uniform(lookups(keys / WARM_UP_SHARE, 0))?;
            let count = bench.sizes.lookups;
            each.add(engine, way.name, way.ns_each(lookups(count, 1), count, &bench.values)?);
            let mut singles = Singles::new()?;
            way.look.singly(lookups(bench.sizes.singles, 2), &mut singles)?;
            ensure!(singles.missed.is_empty(), "{engine}: an entry is gone");
            p99.add(engine, way.name, singles.at(0.99));
        }
        eprintln!("hits, {keys} entries: repeat {}", repeat + 1);
    }
    let stores = caches.iter().filter_map(|(_, cache)| cache.store.as_ref());
    ensure!(stores.map(|store| store.stats().hits.log).sum::<u64>() == 0, "a hit was in the log");
    Ok(Section {
        title: format!("Hit: {} entries, uniform keys, one thread", grouped(keys)),
        note: format!(
            "ns per hit in a loop of {}, the choosing and making of its key included; and the 99th percentile of {} \
             hits timed one by one, the clock's time taken off. papaya, dashmap and thermocline's `read` show the \
             value where it lies, the others hand out a shared one.",
            grouped(bench.sizes.lookups),
            grouped(bench.sizes.singles),
        ),
        columns: vec![
            Column::least("ns", &each),
            Column::ratio("ns", REFERENCE, &each),
            Column::least("p99 ns", &p99),
            Column::ratio("p99", REFERENCE, &p99),
        ],
        plot: Some((format!("memory-hit-{keys}"), "ns/hit")),
    })
}
