//! Facts about the machine that a figure needs beside it, read when the run starts.
//!
//! Holds no path, host name or user: a report may be published.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

const L3_BYTES_DEFAULT: usize = 32 << 20;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub l3_bytes: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub filesystem: String,
    /// What the other processes were up to when the run began: the 1-minute load average.
    pub load_before: String,
}

impl Machine {
    /// The machine as seen now; `dir` says whose filesystem is meant.
    pub fn read(dir: &Path) -> Result<Self> {
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            l3_bytes: l3_bytes().unwrap_or(L3_BYTES_DEFAULT),
            memory_bytes: memory_bytes().unwrap_or(0),
            kernel: first_word("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            filesystem: filesystem(dir)?,
            load_before: first_word("/proc/loadavg").unwrap_or_else(|| "unknown".into()),
        })
    }

    /// In words, for a report: the hardware, the kernel, the filesystem and the load before the run.
    pub fn words(&self) -> String {
        format!(
            "{}, {} cores, {} MiB L3, {} GiB memory; Linux {}, {}; load average {} at the start",
            self.cpu,
            self.cores,
            self.l3_bytes >> 20,
            (self.memory_bytes + (1 << 29)) >> 30,
            self.kernel,
            self.filesystem,
            self.load_before,
        )
    }

    /// Larger than the last cache, so that what goes through it once comes from memory.
    pub fn beyond_l3_bytes(&self) -> usize {
        (4 * self.l3_bytes).max(128 << 20).next_multiple_of(1 << 20)
    }
}

fn first_word(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.split_whitespace().next()?.to_owned())
}

/// The value of the first line `name : value` of a file under /proc.
pub fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_bytes() -> Option<u64> {
    let kib: u64 = field("/proc/meminfo", "MemTotal")?.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

fn l3_bytes() -> Option<usize> {
    let text = first_word("/sys/devices/system/cpu/cpu0/cache/index3/size")?;
    let kib: usize = text.strip_suffix('K')?.parse().ok()?;
    Some(kib << 10)
}

/// The type of the filesystem that `dir` is on: that of the longest mount point above it, the last one mounted.
fn filesystem(dir: &Path) -> Result<String> {
    let dir = dir.canonicalize().with_context(|| format!("looking for {}", dir.display()))?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the table of mounts")?;
    let types = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        dir.starts_with(point).then(|| (point.len(), kind.to_owned()))
    });
    Ok(types.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".into(), |(_, kind)| kind))
}
