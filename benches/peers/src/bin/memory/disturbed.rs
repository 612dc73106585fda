//! Hits while another thread inserts new keys, so that entries are let go and the index grows; and before it does.
//!
//! The keys that are read are a quarter of the room, and read so often that they are worth keeping. One that is gone
//! all the same is put back, untimed.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::caches::{Cache, KINDS, Way, Write};
use crate::singles::Singles;
use crate::tables::{Column, Section};
use crate::{Bench, turns};
use thermocline_peers::report::grouped;
use thermocline_peers::samples::Table;
use thermocline_peers::workload::{Lookups, Values};

const READ_SHARE: u64 = 4; // of the room: one in so many is read
const READ_PASSES: u64 = 3; // so often each of them is read before, so that no policy takes it for a passer-by
const LOOKUPS: u64 = 1000; // between two looks at the time
const BATCH: u64 = 64; // inserts between two looks at the time
const PACED_PER_SECOND: u64 = 100_000;

#[derive(Default)]
struct Figures {
    quiet_p999: Table,
    p99: Table,
    p999: Table,
    slowdown: Table,
    max: Table,
    found: Table,
    inserted: Table,
}

pub fn run(bench: &Bench) -> Result<[Section; 2]> {
    let [mut paced, mut unpaced] = [Figures::default(), Figures::default()];
    for repeat in 0..bench.repeats {
        for kind in turns(&KINDS, repeat) {
            let scene = Scene::new((kind.make)(bench.dir, bench.sizes.disturbed_room)?, bench)?;
            for way in &scene.cache.ways {
                let quiet = scene.read(way)?;
                paced.add(kind.engine, way.name, &quiet, &scene.read_while_inserting(way, Some(PACED_PER_SECOND))?);
                unpaced.add(kind.engine, way.name, &quiet, &scene.read_while_inserting(way, None)?);
            }
        }
        eprintln!("hits while another thread inserts: repeat {}", repeat + 1);
    }
    let paced_title = format!("Hit while another thread inserts {} keys a second", grouped(PACED_PER_SECOND));
    Ok([
        paced.section(paced_title, bench),
        unpaced.section("Hit while another thread inserts as fast as it can".into(), bench),
    ])
}

/// What one phase came to.
struct Phase {
    singles: Singles,
    /// Of the keys asked for, the share that was in memory, not only in a log.
    found: f64,
    inserts_per_second: f64,
}

/// A full cache, the next new key and the next order of look-ups.
struct Scene<'run> {
    cache: Cache,
    read_keys: u64,
    next: Cell<u64>,
    seed: Cell<u64>,
    values: &'run Values,
    phase: Duration,
}

impl<'run> Scene<'run> {
    fn new(cache: Cache, bench: &'run Bench) -> Result<Self> {
        let room = bench.sizes.disturbed_room;
        let (read_keys, values, phase) = (room / READ_SHARE, &bench.values, bench.sizes.phase);
        cache.writer.each(0..read_keys, values)?;
        cache.ways[0].look.uniform(Lookups::new(read_keys, READ_PASSES * read_keys, 1))?;
        cache.writer.each(read_keys..room, values)?;
        let scene = Self { cache, read_keys, next: Cell::new(room), seed: Cell::new(1), values, phase };
        scene.read(&scene.cache.ways[0])?; // puts back what had to go already
        Ok(scene)
    }

    fn read(&self, way: &Way) -> Result<Phase> {
        let (mut singles, mut missed) = (Singles::new()?, 0);
        let hits_before = self.cache.memory_hits();
        let start = Instant::now();
        while start.elapsed() < self.phase {
            self.seed.set(self.seed.get() + 1);
            way.look.singly(Lookups::new(self.read_keys, LOOKUPS, self.seed.get()), &mut singles)?;
            for index in singles.missed.drain(..) {
                self.cache.writer.each(index..index + 1, self.values)?;
                missed += 1;
            }
        }
        let hits = self.cache.memory_hits().zip(hits_before).map(|(after, before)| after - before);
        let found = hits.unwrap_or(singles.count()) as f64 / (singles.count() + missed) as f64;
        Ok(Phase { singles, found, inserts_per_second: 0.0 })
    }

    fn read_while_inserting(&self, way: &Way, per_second: Option<u64>) -> Result<Phase> {
        let inserter = Inserter { writer: &*self.cache.writer, values: self.values, per_second };
        let (first, ends) = (self.next.get(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| inserter.run(first, &ends));
            let phase = self.read(way);
            ends.store(true, Ordering::Relaxed); // only looked at; the thread's own end orders the rest
            let (next, inserts_per_second) = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            self.next.set(next);
            Ok(Phase { inserts_per_second, ..phase? })
        })
    }
}

/// Who inserts new keys.
struct Inserter<'run> {
    writer: &'run dyn Write,
    values: &'run Values,
    /// As fast as it can if there is none.
    per_second: Option<u64>,
}

impl Inserter<'_> {
    /// Inserts from `first` on until told to end; the next new key, and how many a second it came to.
    fn run(&self, first: u64, ends: &AtomicBool) -> Result<(u64, f64)> {
        let (start, mut next) = (Instant::now(), first);
        while !ends.load(Ordering::Relaxed) {
            self.writer.each(next..next + BATCH, self.values)?;
            next += BATCH;
            if let Some(per_second) = self.per_second {
                let due = Duration::from_secs_f64((next - first) as f64 / per_second as f64);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
        Ok((next, (next - first) as f64 / start.elapsed().as_secs_f64()))
    }
}

impl Figures {
    fn add(&mut self, engine: &'static str, way: &'static str, quiet: &Phase, loud: &Phase) {
        let [quiet_p999, p999] = [quiet, loud].map(|phase| phase.singles.at(0.999));
        self.quiet_p999.add(engine, way, quiet_p999);
        self.p99.add(engine, way, loud.singles.at(0.99));
        self.p999.add(engine, way, p999);
        self.slowdown.add(engine, way, p999 / quiet_p999);
        self.max.add(engine, way, loud.singles.max());
        self.found.add(engine, way, 100.0 * loud.found);
        self.inserted.add(engine, way, loud.inserts_per_second / 1e3);
    }

    fn section(&self, title: String, bench: &Bench) -> Section {
        let room = bench.sizes.disturbed_room;
        Section {
            title,
            note: format!(
                "Room for {} entries, full when the time starts; {} of them are read, uniformly, for {} ms, each hit \
                 timed by itself. papaya and dashmap let nothing go, they only grow. Found: of the keys asked for, \
                 those that were in memory; thermocline with its log finds the others there, and their times are \
                 among the rest. With {} cores, what runs besides reader and inserter takes its time from one of \
                 them.",
                grouped(room),
                grouped(room / READ_SHARE),
                bench.sizes.phase.as_millis(),
                std::thread::available_parallelism().map_or(1, usize::from),
            ),
            columns: vec![
                Column::least("quiet p99.9 ns", &self.quiet_p999),
                Column::least("p99 ns", &self.p99),
                Column::least("p99.9 ns", &self.p999),
                Column::least("p99.9 of the quiet one", &self.slowdown),
                Column::least("max ns", &self.max),
                Column::most("found, %", &self.found),
                Column::most("thousand inserts/s", &self.inserted),
            ],
            plot: None,
        }
    }
}
