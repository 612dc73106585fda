//! Inserts of new keys into caches that are full: what the caller waits, and what all threads of the process work.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::caches::{Cache, FOYER, KINDS, Kind, REFERENCE};
use crate::singles::Singles;
use crate::tables::{Column, Section};
use crate::{Bench, turns};
use thermocline_peers::measure::{ns_per, quiesce};
use thermocline_peers::report::grouped;
use thermocline_peers::samples::Table;

const ROOM_SHARE: u64 = 10; // of the keys that are inserted in a turn: one in so many has room
const SINGLES_SHARE: u64 = 5; // of the same: one in so many is timed by itself afterwards

#[derive(Default)]
struct Figures {
    wall: Table,
    processor: Table,
    p99: Table,
    p999: Table,
    resident: Table,
}

pub fn run(bench: &Bench) -> Result<Section> {
    let room = bench.sizes.inserts / ROOM_SHARE;
    let make = |kind: &'static Kind| Ok((kind, (kind.make)(bench.dir, room)?));
    let caches: Vec<_> = KINDS.iter().filter(|kind| kind.forgets).map(make).collect::<Result<_>>()?;
    for (_, cache) in &caches {
        cache.writer.each(0..2 * room, &bench.values)?; // full, and used to letting go
    }
    let mut figures = Figures::default();
    for repeat in 0..bench.repeats {
        let [many, few] = ranges(2 * room, bench.sizes.inserts, repeat);
        for (kind, cache) in turns(&caches, repeat) {
            quiesce(bench.dir)?;
            figures.turn(kind, cache, bench, many.clone(), few.clone())?;
            figures.resident.add(kind.engine, kind.variant, 100.0 * cache.resident() as f64 / room as f64);
        }
        eprintln!("inserts with eviction: repeat {}", repeat + 1);
    }
    Ok(figures.section(bench, room, &caches))
}

/// New keys for one turn: those of the loop, then those that are timed by themselves.
fn ranges(first: u64, inserts: u64, repeat: u32) -> [Range<u64>; 2] {
    let singles = inserts / SINGLES_SHARE;
    let start = first + u64::from(repeat) * (inserts + singles);
    [start..start + inserts, start + inserts..start + inserts + singles]
}

impl Figures {
    fn turn(&mut self, kind: &Kind, cache: &Cache, bench: &Bench, many: Range<u64>, few: Range<u64>) -> Result<()> {
        let count = many.end - many.start;
        let before = processor_time();
        let elapsed = cache.writer.each(many, &bench.values)?;
        let worked = processor_time().saturating_sub(before);
        let mut singles = Singles::new()?;
        cache.writer.singly(few, &bench.values, &mut singles)?;
        self.wall.add(kind.engine, kind.variant, ns_per(elapsed, count));
        self.processor.add(kind.engine, kind.variant, ns_per(worked, count));
        self.p99.add(kind.engine, kind.variant, singles.at(0.99));
        self.p999.add(kind.engine, kind.variant, singles.at(0.999));
        Ok(())
    }

    fn section(&self, bench: &Bench, room: u64, caches: &[(&Kind, Cache)]) -> Section {
        Section {
            title: format!("Insert of new keys with eviction: room for {} entries", grouped(room)),
            note: format!(
                "{} new keys in a turn, after twice the room. ns: what the caller waits, over the loop; processor ns: \
                 of all threads of the process, while the loop runs; p99 and p99.9 of {} more inserts timed one by \
                 one. moka admits by frequency, and turns most of these keys away.\n\n{}",
                grouped(bench.sizes.inserts),
                grouped(bench.sizes.inserts / SINGLES_SHARE),
                evictions(caches, ranges(2 * room, bench.sizes.inserts, bench.repeats)[0].start),
            ),
            columns: vec![
                Column::least("ns", &self.wall),
                Column::ratio("ns", REFERENCE, &self.wall),
                Column::ratio("ns", FOYER, &self.wall),
                Column::least("processor ns", &self.processor),
                Column::least("p99 ns", &self.p99),
                Column::least("p99.9 ns", &self.p999),
                Column::most("in memory after a turn, % of room", &self.resident),
            ],
            plot: Some(("memory-insert".into(), "ns/insert")),
        }
    }
}

/// What became of the entries that thermocline was given.
fn evictions(caches: &[(&Kind, Cache)], inserts: u64) -> String {
    let stores = caches.iter().filter_map(|(kind, cache)| cache.store.as_ref().map(|store| (kind, store.stats())));
    let sentences = stores.map(|(kind, stats)| {
        let [evicted, rejected] = [stats.evictions.capacity, stats.evictions.rejected].map(grouped);
        format!("{} {}: {evicted} evicted, {rejected} did not get into memory.", kind.engine, kind.variant)
    });
    format!("Of {} inserts in all, {}", grouped(inserts), sentences.collect::<Vec<_>>().join(" "))
}

/// What all threads of this process have worked so far.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
