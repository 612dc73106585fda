//! Filling without eviction in fresh processes: what an insert takes, and what an entry takes of the machine's memory.
//!
//! A child per cache and repeat, so that none finds a heap that another has left.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::caches::{FOYER, KINDS, Kind, REFERENCE, with_slack};
use crate::inserts::processor_time;
use crate::tables::{Column, Section};
use crate::{Bench, turns};
use thermocline_peers::machine::field;
use thermocline_peers::measure::{ns_per, quiesce, touch_free_memory};
use thermocline_peers::report::grouped;
use thermocline_peers::samples::Table;
use thermocline_peers::workload::{Key, VALUE_BYTES, Values};

/// What the child is started with; `main` parses it back.
pub const FILL_COMMAND: &str = "fill";

/// What a child found out, per entry.
#[derive(Serialize, Deserialize)]
struct Filled {
    wall_ns: f64,
    processor_ns: f64,
    anonymous_bytes: f64,
    file_bytes: f64,
    /// By thermocline's own count.
    charged_bytes: Option<f64>,
}

#[derive(Default)]
struct Figures {
    wall: Table,
    processor: Table,
    anonymous: Table,
    file: Table,
    charged: Table,
}

pub fn run(bench: &Bench) -> Result<[Section; 2]> {
    let mut figures = Figures::default();
    for repeat in 0..bench.repeats {
        touch_free_memory(bench.dir)?;
        for kind in turns(&[0, 1, 2, 3, 4, 5, 6], repeat) {
            quiesce(bench.dir)?;
            figures.add(&KINDS[*kind], &spawn(*kind, bench)?);
        }
        eprintln!("filling in fresh processes: repeat {}", repeat + 1);
    }
    Ok(figures.sections(bench.sizes.footprint_keys))
}

impl Figures {
    fn add(&mut self, kind: &Kind, filled: &Filled) {
        let own_bytes = (size_of::<Key>() + VALUE_BYTES) as f64;
        self.wall.add(kind.engine, kind.variant, filled.wall_ns);
        self.processor.add(kind.engine, kind.variant, filled.processor_ns);
        self.anonymous.add(kind.engine, kind.variant, filled.anonymous_bytes - own_bytes);
        self.file.add(kind.engine, kind.variant, filled.file_bytes);
        if let Some(charged) = filled.charged_bytes {
            self.charged.add(kind.engine, kind.variant, charged - own_bytes);
        }
    }

    fn sections(&self, keys: u64) -> [Section; 2] {
        let keys = grouped(keys);
        let inserts = Section {
            title: format!("Insert of new keys without eviction: {keys} entries into an empty cache"),
            note:
                "In a fresh process each time, room for a quarter more. quick_cache is told the number beforehand and \
                   makes its tables at once; the others grow."
                    .into(),
            columns: vec![
                Column::least("ns", &self.wall),
                Column::ratio("ns", REFERENCE, &self.wall),
                Column::ratio("ns", FOYER, &self.wall),
                Column::least("processor ns", &self.processor),
            ],
            plot: None,
        };
        let memory = Section {
            title: format!("Memory: {keys} entries"),
            note:
                "Bytes per entry in memory by which the process grew from before the cache was made, its key and value \
                   (116 bytes) taken off the anonymous ones; pages of files are those of the log, which the system can \
                   take back. Charged: `stats().memory.bytes` per entry, less 116."
                    .into(),
            columns: vec![
                Column::least("anonymous", &self.anonymous),
                Column::ratio("anonymous", REFERENCE, &self.anonymous),
                Column::least("of files", &self.file),
                Column::least("charged", &self.charged),
            ],
            plot: None,
        };
        [inserts, memory]
    }
}

fn spawn(kind: usize, bench: &Bench) -> Result<Filled> {
    let program = std::env::current_exe().context("looking for this program itself")?;
    let mut command = Command::new(program);
    command.arg(FILL_COMMAND).arg(kind.to_string()).arg(bench.dir).arg(bench.sizes.footprint_keys.to_string());
    let output = command.stderr(Stdio::inherit()).output().context("starting the filling process")?;
    ensure!(output.status.success(), "the filling process failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// In the child: fills the cache and says on stdout what it took.
pub fn fill(kind: usize, dir: &Path, keys: u64) -> Result<()> {
    let kind = KINDS.get(kind).context("no such cache")?;
    let values = Values::default();
    let before = Resident::now()?;
    let worked_before = processor_time();
    let cache = (kind.make)(dir, with_slack(keys))?;
    let elapsed = cache.writer.each(0..keys, &values)?;
    let worked = processor_time().saturating_sub(worked_before);
    let resident = cache.resident();
    ensure!(resident == keys, "{resident} of {keys} entries are in memory");
    let after = Resident::now()?;
    let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / keys as f64;
    let filled = Filled {
        wall_ns: ns_per(elapsed, keys),
        processor_ns: ns_per(worked, keys),
        anonymous_bytes: each(after.anonymous_bytes, before.anonymous_bytes),
        file_bytes: each(after.file_bytes, before.file_bytes),
        charged_bytes: cache.store.as_ref().map(|store| each(store.stats().memory.bytes, 0)),
    };
    println!("{}", serde_json::to_string(&filled)?);
    Ok(())
}

/// What this process has of the machine's memory.
struct Resident {
    anonymous_bytes: u64,
    file_bytes: u64,
}

impl Resident {
    fn now() -> Result<Self> {
        let bytes = |name| -> Result<u64> {
            let words = field("/proc/self/status", name).with_context(|| format!("no {name} in /proc"))?;
            let kib: u64 = words.split_whitespace().next().context("an empty line in /proc")?.parse()?;
            Ok(kib << 10)
        };
        Ok(Self { anonymous_bytes: bytes("RssAnon")?, file_bytes: bytes("RssFile")? + bytes("RssShmem")? })
    }
}
