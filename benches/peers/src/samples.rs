//! What was measured: per question and engine the figure of each repeat, and the latencies of single calls.
//!
//! Every figure is better when it is smaller. Nothing here knows how a figure came about or what it should be.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::engines::OURS;
use crate::machine::Machine;

/// What can be asked for with `--only`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Question {
    Get,
    Insert,
    Synced,
    Batch,
    Space,
    Reopen,
}

/// One table of the report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    Get,
    Insert,
    SyncedOneThread,
    SyncedEightThreads,
    Batch,
    Space,
    Reopen,
}

impl Measure {
    pub const ALL: [Self; 7] = [
        Self::Get,
        Self::Insert,
        Self::SyncedOneThread,
        Self::SyncedEightThreads,
        Self::Batch,
        Self::Space,
        Self::Reopen,
    ];

    pub fn unit(self) -> &'static str {
        match self {
            Self::Space => "bytes/record",
            Self::Reopen => "ms",
            _ => "ns/op",
        }
    }
}

/// The physical limits, measured in the same process and between the engines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Memcpy1Kib,
    DependentLoad,
    Pwrite152,
    Fdatasync4Kib,
    Fdatasync152,
    LookupKey,
    Timer,
}

impl Limit {
    pub fn words(self) -> &'static str {
        match self {
            Self::Memcpy1Kib => "memcpy of 1 KiB, one after another, larger than L3",
            Self::DependentLoad => "dependent load from DRAM (4 KiB pages)",
            Self::Pwrite152 => "pwrite of 152 bytes, in order, preallocated and written file",
            Self::Fdatasync4Kib => "pwrite of 4 KiB and fdatasync, preallocated, written and synced file",
            Self::Fdatasync152 => "the same with 152 bytes, so that most flushes write a block again",
            Self::LookupKey => "choosing a record and making its key (inside every get below)",
            Self::Timer => "reading the clock (inside every latency below)",
        }
    }
}

/// The figures of one engine for one question, one per repeat.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Runs {
    runs: Vec<f64>,
}

impl Runs {
    pub fn min(&self) -> f64 {
        self.runs.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The middle one; of an even number, the mean of the middle two.
    pub fn median(&self) -> f64 {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => sorted[n / 2 - 1].midpoint(sorted[n / 2]),
        }
    }

    pub fn max(&self) -> f64 {
        self.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    pub fn all(&self) -> &[f64] {
        &self.runs
    }
}

/// One row of a table.
#[derive(Clone, Debug)]
pub struct Row {
    pub engine: &'static str,
    /// How the engine was used, where there is more than one way; else empty.
    pub way: &'static str,
    pub runs: Runs,
    /// Of the records that a killed process had written, the share that was found again; the least of all repeats.
    pub kept: Option<f64>,
}

impl Row {
    pub fn name(&self) -> String {
        if self.way.is_empty() { self.engine.to_owned() } else { format!("{}, {}", self.engine, self.way) }
    }

    pub fn is_ours(&self) -> bool {
        self.engine == OURS
    }
}

/// The rows of one table, in the order in which they were first added to.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub fn add(&mut self, engine: &'static str, way: &'static str, figure: f64) {
        self.row_mut(engine, way).runs.runs.push(figure);
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn row_mut(&mut self, engine: &'static str, way: &'static str) -> &mut Row {
        let index = self.rows.iter().position(|row| row.engine == engine && row.way == way).unwrap_or_else(|| {
            self.rows.push(Row { engine, way, runs: Runs::default(), kept: None });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }
}

/// The latencies of single calls over all repeats.
pub struct Latency {
    pub measure: Measure,
    pub engine: &'static str,
    pub way: &'static str,
    pub nanoseconds: Histogram<u64>,
}

/// All that a run found out.
pub struct Results {
    pub machine: Machine,
    pub keys: u64,
    pub repeats: u32,
    pub limits: BTreeMap<Limit, Runs>,
    pub latencies: Vec<Latency>,
    pub failures: Vec<String>,
    tables: BTreeMap<Measure, Table>,
}

impl Results {
    pub fn new(machine: Machine, keys: u64, repeats: u32) -> Self {
        let (limits, latencies, failures, tables) = Default::default();
        Self { machine, keys, repeats, limits, latencies, failures, tables }
    }

    pub fn add_limit(&mut self, limit: Limit, figure: f64) {
        self.limits.entry(limit).or_default().runs.push(figure);
    }

    pub fn add(&mut self, measure: Measure, engine: &'static str, way: &'static str, figure: f64) {
        self.tables.entry(measure).or_default().add(engine, way, figure);
    }

    pub fn add_kept(&mut self, measure: Measure, engine: &'static str, share: f64) {
        let row = self.tables.entry(measure).or_default().row_mut(engine, "");
        row.kept = Some(row.kept.unwrap_or(1.0).min(share));
    }

    pub fn add_latencies(
        &mut self,
        measure: Measure,
        engine: &'static str,
        way: &'static str,
        nanoseconds: &Histogram<u64>,
    ) -> Result<()> {
        let known = self.latencies.iter_mut().find(|l| (l.measure, l.engine, l.way) == (measure, engine, way));
        match known {
            Some(latency) => latency.nanoseconds.add(nanoseconds).map_err(|error| anyhow!("latencies: {error}")),
            None => {
                self.latencies.push(Latency { measure, engine, way, nanoseconds: nanoseconds.clone() });
                Ok(())
            }
        }
    }

    /// The rows of a table, thermocline's first and then the fastest first. Empty if it was not asked for.
    pub fn rows(&self, measure: Measure) -> Vec<Row> {
        let mut rows = self.tables.get(&measure).map_or_else(Vec::new, |table| table.rows.clone());
        rows.retain(|row| !row.runs.runs.is_empty());
        rows.sort_by(|a, b| b.is_ours().cmp(&a.is_ours()).then(a.runs.median().total_cmp(&b.runs.median())));
        rows
    }

    /// Thermocline's median: for `get`, of the owned `get` and not of `read`.
    pub fn ours(&self, measure: Measure) -> Option<f64> {
        self.rows(measure).iter().find(|row| row.is_ours() && row.way != "read").map(|row| row.runs.median())
    }

    /// The smallest median of the named engines, and whose it is.
    pub fn fastest(&self, measure: Measure, engines: &[&str]) -> Option<(String, f64)> {
        let rows = self.rows(measure);
        let named = rows.iter().filter(|row| engines.contains(&row.engine));
        let fastest = named.min_by(|a, b| a.runs.median().total_cmp(&b.runs.median()))?;
        Some((fastest.name(), fastest.runs.median()))
    }

    pub fn limit(&self, limit: Limit) -> Option<f64> {
        self.limits.get(&limit).map(Runs::median)
    }
}

#[cfg(test)]
mod tests {
    use super::Runs;

    #[test]
    fn the_median_of_an_even_number_of_runs_is_between_the_middle_two() {
        let runs = Runs { runs: vec![4.0, 1.0, 3.0, 2.0] };
        assert_eq!((runs.min(), runs.median()), (1.0, 2.5));
    }
}
