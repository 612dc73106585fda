//! The goals of thermocline, as bounds on the figures of a run: reached when our median is at most the bound.
//!
//! Holds the numbers of the project's page on how far it must reach, and nothing about how they are shown.

use crate::samples::{Limit, Measure, Results};
use crate::workload::BATCH_VALUE_BYTES;

const GET_OF_LMDB: f64 = 0.20;
const INSERT_TIMES_FASTEST: f64 = 7.0;
const SYNCED_OF_FDATASYNC: f64 = 1.2;
const SYNCED_EIGHT_TIMES_ONE: f64 = 4.0;
const BATCH_OF_MEMCPY: f64 = 1.0 / 3.0;
const SPACE_BYTES_PER_RECORD: f64 = 40.0;
const REOPEN_MS: f64 = 500.0;

const INSERT_RIVALS: [&str; 5] = ["lmdb-writemap", "fjall", "rocksdb", "lmdb", "sled"];

/// What thermocline's median must not exceed.
pub struct Goal {
    pub words: String,
    /// In the unit of the measure. `None`: what it is a share of was not measured.
    pub bound: Option<f64>,
}

/// How a run stands to a goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Reached,
    Missed,
    NotMeasured,
}

impl Goal {
    pub fn verdict(&self, ours: Option<f64>) -> Verdict {
        match (ours, self.bound) {
            (Some(ours), Some(bound)) if ours <= bound => Verdict::Reached,
            (Some(_), Some(_)) => Verdict::Missed,
            _ => Verdict::NotMeasured,
        }
    }
}

/// The goal for one table.
pub fn goal(measure: Measure, results: &Results) -> Goal {
    match measure {
        Measure::Get => {
            let lmdb = results.fastest(measure, &["lmdb", "lmdb-writemap"]);
            Goal { words: "at most 0.20 of LMDB's time".into(), bound: lmdb.map(|(_, figure)| figure * GET_OF_LMDB) }
        }
        Measure::Insert => {
            let fastest = results.fastest(measure, &INSERT_RIVALS);
            let who = fastest.as_ref().map_or("none measured", |(name, _)| name);
            Goal {
                words: format!(
                    "at least 7 times the fastest of LMDB with a writable map, fjall, RocksDB, LMDB, sled (here: {who})"
                ),
                bound: fastest.as_ref().map(|(_, figure)| figure / INSERT_TIMES_FASTEST),
            }
        }
        Measure::SyncedOneThread => Goal {
            words: "within 1.2 of the disk's own fdatasync of a preallocated, written file".into(),
            bound: results.limit(Limit::Fdatasync4Kib).map(|figure| figure * SYNCED_OF_FDATASYNC),
        },
        Measure::SyncedEightThreads => Goal {
            words: "at least 4 times one thread's throughput".into(),
            bound: results.ours(Measure::SyncedOneThread).map(|figure| figure / SYNCED_EIGHT_TIMES_ONE),
        },
        Measure::Batch => Goal {
            words: "at least a third of the machine's memcpy bandwidth".into(),
            bound: results.limit(Limit::Memcpy1Kib).map(|figure| figure / BATCH_OF_MEMCPY),
        },
        Measure::Space => Goal {
            words: "at most 40 bytes per record above key and value, hints not counted".into(),
            bound: Some(SPACE_BYTES_PER_RECORD),
        },
        Measure::Reopen => Goal { words: "at most 0.5 s for 1 M records after kill -9".into(), bound: Some(REOPEN_MS) },
    }
}

/// GB/s of value bytes when a record of a batch takes `nanoseconds`.
pub fn batch_gb_per_s(nanoseconds: f64) -> f64 {
    BATCH_VALUE_BYTES as f64 / nanoseconds
}

#[cfg(test)]
mod tests {
    use super::{Goal, Verdict};

    #[test]
    fn a_goal_without_a_bound_is_neither_reached_nor_missed() {
        let goal = |bound| Goal { words: String::new(), bound };
        assert_eq!(goal(None).verdict(Some(1.0)), Verdict::NotMeasured);
        assert_eq!(goal(Some(1.0)).verdict(None), Verdict::NotMeasured);
        assert_eq!(goal(Some(1.0)).verdict(Some(1.0)), Verdict::Reached);
        assert_eq!(goal(Some(1.0)).verdict(Some(1.1)), Verdict::Missed);
    }
}
