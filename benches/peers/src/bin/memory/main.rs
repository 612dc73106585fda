//! `memory`: thermocline's memory tier beside caches that forget, and two maps, on this machine, in one process.
//!
//! 16-byte keys, 100-byte values. Every engine takes its turn in every repeat; the report has medians and minima over
//! the repeats, and ratios to quick_cache. What needs a fresh heap is asked of a child process.

mod caches;
mod disturbed;
mod footprint;
mod hits;
mod inserts;
mod singles;
mod tables;
mod threads;
mod zipf;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use tables::{Column, Head, Section};
use thermocline_peers::limits::lookup_key_ns;
use thermocline_peers::machine::Machine;
use thermocline_peers::samples::Table;
use thermocline_peers::workload::Values;

const KEYS_DEFAULT: [u64; 2] = [10_000, 1_000_000];
const REPEATS_DEFAULT: u32 = 5;

/// Compares thermocline's memory tier with quick_cache, moka, foyer, papaya and dashmap.
#[derive(Parser)]
#[command(name = "memory", args_conflicts_with_subcommands = true)]
struct Options {
    /// Entries in each cache when hits are asked for; 10 000 and 1 000 000 if not given
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(100..=1 << 30))]
    keys: Vec<u64>,
    /// How often every engine takes its turn; 5 if not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: Option<u32>,
    /// Questions to ask; all of them if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Question>,
    /// Where the logs are made, and removed again; on a disk, not in memory
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Directory of memory.md and its plots
    #[arg(long, default_value = "report")]
    report: PathBuf,
    /// A few seconds of everything, to see that it works; the figures are worth little
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Fills one cache and says what it took
    #[command(name = footprint::FILL_COMMAND, hide = true)]
    Fill { kind: usize, dir: PathBuf, keys: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Question {
    Hits,
    Threads,
    Inserts,
    Footprint,
    Disturbed,
}

/// How much is asked in one turn.
struct Sizes {
    lookups: u64,
    singles: u64,
    zipf_keys: u64,
    inserts: u64,
    footprint_keys: u64,
    disturbed_room: u64,
    phase: Duration,
}

const FULL: Sizes = Sizes {
    lookups: 2_000_000,
    singles: 300_000,
    zipf_keys: 1_000_000,
    inserts: 1_000_000,
    footprint_keys: 1_000_000,
    disturbed_room: 400_000,
    phase: Duration::from_millis(300),
};

const QUICK: Sizes = Sizes {
    lookups: 50_000,
    singles: 20_000,
    zipf_keys: 50_000,
    inserts: 50_000,
    footprint_keys: 50_000,
    disturbed_room: 20_000,
    phase: Duration::from_millis(30),
};

/// What every question is given.
struct Bench<'run> {
    repeats: u32,
    sizes: Sizes,
    dir: &'run Path,
    values: Values,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Command::Fill { kind, dir, keys }) = &options.command {
        return footprint::fill(*kind, dir, *keys);
    }
    std::fs::create_dir_all(&options.dir).context("making --dir")?;
    let machine = Machine::read(&options.dir)?;
    ensure!(machine.filesystem != "tmpfs", "--dir is on a tmpfs, which has no disk for a log");
    let root = tempfile::Builder::new().prefix("peers-").tempdir_in(&options.dir).context("making a directory")?;
    let (keys, repeats) = (keys(&options), options.repeats.unwrap_or(if options.quick { 2 } else { REPEATS_DEFAULT }));
    let sizes = if options.quick { QUICK } else { FULL };
    let bench = Bench { repeats, sizes, dir: root.path(), values: Values::default() };
    let sections = ask(&bench, &options.only, &keys)?;
    root.close().context("removing the stores")?;
    let head = Head { machine, command: command(&options, &keys, repeats), repeats };
    tables::write(&options.report, &head, &sections)
}

fn keys(options: &Options) -> Vec<u64> {
    match options {
        Options { keys, .. } if !keys.is_empty() => keys.clone(),
        Options { quick: true, .. } => KEYS_DEFAULT[..1].to_vec(),
        _ => KEYS_DEFAULT.to_vec(),
    }
}

/// What to type for the same figures, without directories.
fn command(options: &Options, keys: &[u64], repeats: u32) -> String {
    let keys: Vec<_> = keys.iter().map(u64::to_string).collect();
    let quick = if options.quick { " --quick" } else { "" };
    format!("cargo run --release --bin memory -- --keys {} --repeats {repeats}{quick}", keys.join(","))
}

fn ask(bench: &Bench, only: &[Question], keys: &[u64]) -> Result<Vec<Section>> {
    let asks = |question| only.is_empty() || only.contains(&question);
    let mut sections = vec![steps(bench)?];
    if asks(Question::Hits) {
        for keys in keys {
            sections.push(hits::run(bench, *keys).with_context(|| format!("hits of {keys} entries"))?);
        }
    }
    if asks(Question::Threads) {
        sections.push(threads::run(bench).context("two threads")?);
    }
    if asks(Question::Inserts) {
        sections.push(inserts::run(bench).context("inserts with eviction")?);
    }
    if asks(Question::Footprint) {
        sections.extend(footprint::run(bench).context("filling in fresh processes")?);
    }
    if asks(Question::Disturbed) {
        sections.extend(disturbed::run(bench).context("hits while another thread inserts")?);
    }
    Ok(sections)
}

/// What is inside the figures, or was taken off them.
fn steps(bench: &Bench) -> Result<Section> {
    let mut table = Table::default();
    for _ in 0..bench.repeats {
        table.add(
            "choosing a record and making its key: inside every figure of a loop",
            "",
            lookup_key_ns(KEYS_DEFAULT[1]),
        );
        table.add("reading the clock twice: taken off whatever was timed one by one", "", singles::clock_ns()? as f64);
    }
    let (title, columns) = ("The measuring itself".into(), vec![Column::least("ns", &table)]);
    Ok(Section { title, note: String::new(), columns, plot: None })
}

/// All of `items`; who comes first changes from repeat to repeat.
fn turns<T>(items: &[T], repeat: u32) -> impl Iterator<Item = &T> {
    let (before, first) = items.split_at(repeat as usize % items.len().max(1));
    first.iter().chain(before)
}
