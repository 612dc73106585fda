//! Opening a store whose process was killed: a child fills it, says so, and gets SIGKILL.
//!
//! Timed is `open` and one look-up, files in the page cache. Afterwards a sample of look-ups tells how much of
//! what the child had written is still there.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::engines::{Engine, Mode};
use crate::measure::{Bench, small_records};
use crate::samples::Measure;
use crate::workload::{Lookups, Tally, Values, key};

const READY: &str = "ready";
const SAMPLE: u64 = 10_000;
const LOAD_BATCH: u64 = 1000;

/// What the child is started with; `main` parses it back.
pub const LOAD_COMMAND: &str = "load";

pub fn run<E: Engine>(bench: &mut Bench) -> Result<()> {
    let scratch = bench.scratch(E::NAME)?;
    let mut child = spawn(E::NAME, scratch.path(), bench.keys)?;
    let ready = wait_until_ready(&mut child);
    child.kill().context("killing the loading process")?;
    child.wait()?;
    ready?;

    let start = Instant::now();
    let engine = E::open(scratch.path(), Mode::Buffered, small_records(bench.keys))?;
    engine.get_each(0, std::iter::once(key(0)), |value| {
        std::hint::black_box(value.last());
    })?;
    let elapsed = start.elapsed();
    bench.results.add(Measure::Reopen, E::NAME, "", elapsed.as_secs_f64() * 1e3);
    bench.results.add_kept(Measure::Reopen, E::NAME, kept(&engine, bench)?);
    engine.close()?;
    bench.discard(scratch)
}

/// The share of a sample of the records that is there, and right.
fn kept<E: Engine>(engine: &E, bench: &Bench) -> Result<f64> {
    let lookups = Lookups::new(bench.keys, SAMPLE, u64::from(bench.repeat));
    let expected = lookups.expected(bench.values);
    let mut tally = Tally::default();
    engine.get_each(0, lookups.map(key), |value| tally.add(value))?;
    ensure!(tally == expected || tally.found() < expected.found(), "{}: wrong values after kill -9", E::NAME);
    Ok(tally.found() as f64 / expected.found() as f64)
}

/// In the child: fills the store, says so on stdout, and waits for its end.
pub fn load<E: Engine>(dir: &Path, keys: u64) -> Result<()> {
    let engine = E::open(dir, Mode::Buffered, small_records(keys))?;
    let values = Values::default();
    for first in (0..keys).step_by(LOAD_BATCH as usize) {
        let indices = first..(first + LOAD_BATCH).min(keys);
        let records: Vec<_> = indices.map(|index| (key(index), values.of(index))).collect();
        engine.insert_many(&records)?;
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    // Whoever started us kills us; if it died first, its end of our stdin is closed.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    bail!("the process that was to kill this one is gone")
}

fn spawn(engine: &str, dir: &Path, keys: u64) -> Result<Child> {
    let program = std::env::current_exe().context("looking for this program itself")?;
    let mut command = Command::new(program);
    command.arg(LOAD_COMMAND).arg(engine).arg(dir).arg(keys.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("starting the loading process")
}

fn wait_until_ready(child: &mut Child) -> Result<()> {
    let stdout = child.stdout.take().context("the loading process has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == READY, "the loading process failed");
    Ok(())
}
