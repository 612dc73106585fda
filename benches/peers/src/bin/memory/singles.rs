//! What single calls take, each timed by itself, less what reading the clock takes.
//!
//! The clock waits for the loads before it, so a single call does not overlap with the next, as calls in a loop do.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use thermocline_peers::measure::{latencies, nanoseconds};

const CLOCK_SAMPLES: u64 = 10_000;

pub struct Singles {
    nanoseconds: Histogram<u64>,
    clock_ns: u64,
    /// The records that were not found; those look-ups are not among the rest.
    pub missed: Vec<u64>,
}

impl Singles {
    pub fn new() -> Result<Self> {
        Ok(Self { nanoseconds: latencies()?, clock_ns: clock_ns()?, missed: Vec::new() })
    }

    #[inline]
    pub fn record(&mut self, elapsed: Duration) {
        self.nanoseconds.saturating_record(nanoseconds(elapsed));
    }

    /// What so large a share of the calls took at most, in nanoseconds.
    pub fn at(&self, quantile: f64) -> f64 {
        self.nanoseconds.value_at_quantile(quantile).saturating_sub(self.clock_ns) as f64
    }

    pub fn max(&self) -> f64 {
        self.nanoseconds.max().saturating_sub(self.clock_ns) as f64
    }

    pub fn count(&self) -> u64 {
        self.nanoseconds.len()
    }
}

/// What timing nothing takes, at the median.
pub fn clock_ns() -> Result<u64> {
    let mut nothing = latencies()?;
    for _ in 0..CLOCK_SAMPLES {
        let start = Instant::now();
        nothing.saturating_record(nanoseconds(start.elapsed()));
    }
    Ok(nothing.value_at_quantile(0.5))
}
