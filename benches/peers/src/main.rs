//! `peers`: thermocline beside other embedded engines, on this machine, in one process.
//!
//! Reads the options, takes the engines in turn in every repeat, and hands the figures to the report. Whatever one
//! engine gets wrong is told in the report and does not stop the others.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

use thermocline_peers::engines::{self, Peer, Round};
use thermocline_peers::machine::Machine;
use thermocline_peers::measure::Bench;
use thermocline_peers::samples::{Question, Results};
use thermocline_peers::workload::{BATCH_VALUE_BYTES, Values, random_bytes};
use thermocline_peers::{limits, reopen, report};

/// Compares thermocline with LMDB, redb, sled, fjall, SQLite and (feature `rocksdb`) RocksDB.
#[derive(Parser)]
#[command(name = "peers", args_conflicts_with_subcommands = true)]
struct Options {
    /// Records of 16 + 100 bytes in each store
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    keys: u64,
    /// How often every engine takes its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Where the stores are made, and removed again; on the disk to measure, not in memory
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Questions to ask; all of them if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Question>,
    /// Engines to ask; all that were compiled in if not given
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Directory of report.md, results.json and the plots
    #[arg(long, default_value = "report")]
    report: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Fills a store and waits to be killed
    #[command(name = reopen::LOAD_COMMAND, hide = true)]
    Load { engine: String, dir: PathBuf, keys: u64 },
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Command::Load { engine, dir, keys }) = &options.command {
        let peers = choose(std::slice::from_ref(engine))?;
        return peers.iter().try_for_each(|peer| (peer.load)(dir, *keys));
    }
    let peers = choose(&options.engines)?;
    std::fs::create_dir_all(&options.dir).context("making --dir")?;
    let machine = Machine::read(&options.dir)?;
    ensure!(machine.filesystem != "tmpfs", "--dir is on a tmpfs, which has no disk to measure");
    let results = run(&options, &peers, machine)?;
    report::write(&options.report, &results)?;
    results.failures.iter().for_each(|failure| eprintln!("failed: {failure}"));
    Ok(())
}

/// The engines of these names, in the order of the list of all; all of them for no names.
fn choose(names: &[String]) -> Result<Vec<Peer>> {
    let mut peers = engines::all();
    for name in names {
        if !peers.iter().any(|peer| peer.name == name) {
            let known: Vec<_> = peers.iter().map(|peer| peer.name).collect();
            bail!("no engine {name}; there are {}", known.join(", "));
        }
    }
    peers.retain(|peer| names.is_empty() || names.iter().any(|name| name == peer.name));
    Ok(peers)
}

fn run(options: &Options, peers: &[Peer], machine: Machine) -> Result<Results> {
    let root =
        tempfile::Builder::new().prefix("peers-").tempdir_in(&options.dir).context("making a directory in --dir")?;
    let values = Values::default();
    let large = random_bytes(machine.beyond_l3_bytes() / BATCH_VALUE_BYTES * BATCH_VALUE_BYTES);
    let mut results = Results::new(machine, options.keys, options.repeats);
    for repeat in 0..options.repeats {
        let mut bench = Bench {
            keys: options.keys,
            repeat,
            questions: &options.only,
            root: root.path(),
            values: &values,
            large: &large,
            results: &mut results,
        };
        limits::run(&mut bench).context("measuring the machine's limits")?;
        one_repeat(&mut bench, peers);
    }
    root.close().context("removing the stores")?;
    Ok(results)
}

/// Every engine in turn; who comes first changes from repeat to repeat.
fn one_repeat(bench: &mut Bench, peers: &[Peer]) {
    let mut peers = peers.to_vec();
    let first = bench.repeat as usize % peers.len();
    peers.rotate_left(first);
    for peer in peers {
        let start = Instant::now();
        let rounds: [(&[Question], Round); 4] = [
            (&[Question::Get, Question::Insert, Question::Space], peer.life),
            (&[Question::Synced], peer.synced),
            (&[Question::Batch], peer.batch),
            (&[Question::Reopen], peer.reopen),
        ];
        for (questions, round) in rounds {
            if !questions.iter().any(|question| bench.asks(*question)) {
                continue;
            }
            if let Err(error) = round(bench) {
                bench.results.failures.push(without_paths(peer.name, questions, &error, bench.root));
            }
        }
        eprintln!("repeat {}: {}, {:.1} s", bench.repeat + 1, peer.name, start.elapsed().as_secs_f64());
    }
}

/// An error in words that can stand in a report: the path of the stores is left out.
fn without_paths(engine: &str, questions: &[Question], error: &anyhow::Error, root: &Path) -> String {
    let words = format!("{engine}, {questions:?}: {error:#}");
    words.replace(&*root.to_string_lossy(), "DIR")
}
