//! What can be asked of a store as a whole: figures, verification, a copy.
//!
//! Holds the public structs of these answers. Never changes the store.

use std::sync::Arc;

use thermocline_tiers::{Error, Guard, Result, log::medium::Medium};

use crate::{counters::Count, engine::Engine, recover::Recovery};

/// Reads that found something, by tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hits {
    /// Served from memory.
    pub memory: u64,
    /// Served from the log.
    pub log: u64,
    /// Served from the remote store.
    pub remote: u64,
}

/// Reads that found nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misses {
    /// All of them.
    pub total: u64,
    /// The key is not known.
    pub absent: u64,
    /// The key was removed.
    pub removed: u64,
    /// The entry has expired.
    pub expired: u64,
}

/// The log in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Entries that the log holds now, expired ones included.
    pub records: u64,
    /// Files.
    pub segments: u64,
    /// Their lengths, reserved space included.
    pub bytes: u64,
    /// Bytes of records that are somebody's newest.
    pub live_bytes: u64,
    /// Bytes appended since the store was opened.
    pub bytes_written: u64,
    /// Whether records are read and written through memory maps; `false` on filesystems that cannot promise enough.
    pub mapped: bool,
}

/// The index in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexStats {
    /// Entries, expired ones included.
    pub keys: u64,
    /// Bytes of memory.
    pub bytes: u64,
}

/// All figures of a store. Counts are since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads that found something.
    pub hits: Hits,
    /// Reads that found nothing.
    pub misses: Misses,
    /// Values written.
    pub insertions: u64,
    /// Keys removed.
    pub removals: u64,
    /// The log.
    pub log: LogStats,
    /// The index.
    pub index: IndexStats,
    /// What opening found.
    pub recovery: Recovery,
    /// What does not work as it should, in words; empty when all is well.
    pub problems: Vec<String>,
}

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The path of the file.
    pub file: String,
    /// Offset in bytes.
    pub offset: u64,
    /// What was found.
    pub what: String,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Whole records, superseded ones included.
    pub records: u64,
    /// The bytes that they take.
    pub bytes: u64,
    /// What is damaged.
    pub damaged: Vec<Damage>,
}

impl Engine {
    /// All figures. Looks at file lengths, at no record.
    pub fn stats(&self) -> Stats {
        let sum = |count| self.counters.sum(count);
        let live_bytes_taken = sum(Count::LiveBytesTaken);
        let extent = self.log.extent();
        let (absent, removed, expired) = (sum(Count::MissAbsent), sum(Count::MissRemoved), sum(Count::MissExpired));
        let mut problems: Vec<_> = self.log.failure().into_iter().chain(self.upkeep.problem()).collect();
        problems.extend(extent.as_ref().err().map(ToString::to_string));
        let extent = extent.unwrap_or_default();
        Stats {
            hits: Hits { log: sum(Count::HitLog), ..Hits::default() },
            misses: Misses { total: absent + removed + expired, absent, removed, expired },
            insertions: sum(Count::Insertion),
            removals: sum(Count::Removal),
            log: LogStats {
                records: self.len_estimate(),
                segments: extent.segments,
                bytes: extent.bytes,
                live_bytes: sum(Count::LiveBytesAdded).saturating_sub(live_bytes_taken),
                bytes_written: sum(Count::BytesWritten),
                mapped: extent.mapped,
            },
            index: IndexStats { keys: self.len_estimate(), bytes: self.index.bytes() },
            recovery: self.recovery,
            problems,
        }
    }

    /// Holds every record of the log against its checksum. Damage is in the report, not an error. Reads the whole log
    /// and waits for writes that are in flight, never the other way round.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`] when a file cannot be read.
    pub fn verify(&self) -> Result<Verified> {
        check_outside_read("verify")?;
        let end = self.log.end();
        Guard::wait_for_others();
        let mut verified = Verified::default();
        for (file, scanned) in self.log.visit_all(end, |_, _| Ok(()))? {
            verified.records += scanned.records;
            verified.bytes += scanned.bytes;
            let damage = |(offset, what)| Damage { file: file.clone(), offset, what };
            verified.damaged.extend(scanned.damaged.into_iter().map(damage));
        }
        Ok(verified)
    }

    /// Writes a durable copy of the store as of one sequence to `target`, an empty directory.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`]; what was copied so far stays behind.
    pub fn backup(&self, target: Arc<dyn Medium>) -> Result<()> {
        check_outside_read("backup")?;
        let sequence = self.clock.last();
        // Whoever drew a sequence up to this one has written its record after the first wait; whoever had
        // reserved a place before the log's end was asked for has filled it after the second.
        Guard::wait_for_others();
        let end = self.log.end();
        Guard::wait_for_others();
        self.log.copy_to(&target, end, sequence)
    }
}

/// What waits for all readers cannot be called by one.
fn check_outside_read(call: &'static str) -> Result<()> {
    if !Guard::is_pinned() {
        return Ok(());
    }
    let found = "called from inside `read`".to_owned();
    Err(Error::Option { option: call, found, expected: "a call outside of it".to_owned() })
}
