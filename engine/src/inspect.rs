//! What can be asked of a store as a whole: figures, verification, a copy.
//!
//! Holds the public structs of these answers. Never changes the store.

use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, SystemTime},
};

use thermocline_eviction::History;
use thermocline_tiers::{
    Error, Guard, Location, Result,
    log::{DICTIONARIES, RecordKind, medium::Medium, scan::Found as Scanned},
};

use crate::{
    catalog::{is_of_catalog, named},
    counters::Count,
    engine::Core,
    recover::Recovery,
    worker::Worker,
};

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
    /// The entry of a cache is damaged, or could not be decoded.
    pub unreadable: u64,
}

/// The log in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    /// What part of `bytes` those are; 1 of a log without files.
    pub live_ratio: f64,
    /// Bytes appended since the store was opened.
    pub bytes_written: u64,
    /// Bytes of segments that compaction has gone over since then.
    pub bytes_scanned: u64,
    /// Bytes of records that it has copied.
    pub bytes_compacted: u64,
    /// Bytes of files that it has given back.
    pub bytes_reclaimed: u64,
    /// Bytes of hints and snapshots that were written since then, so that opening is quick.
    pub bytes_beside: u64,
    /// Bytes written, all of the three, for each byte appended; 1 if none was.
    pub write_amplification: f64,
    /// Entries that have left the log because they had expired.
    pub expired: u64,
    /// What it has made of a byte of values that it has compressed: 0.3 is less than a third. 1 if it has compressed none.
    pub compression_ratio: f64,
    /// How long that has taken, the training of dictionaries included.
    pub compression_time: Duration,
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

/// Why an entry left, or did not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Its time to live was over.
    Expired,
    /// The memory tier was full.
    Capacity,
    /// The machine, or this process's share of it, ran out of memory.
    Pressure,
    /// Somebody said so.
    Manual,
    /// The log takes as much of the disk as it may: the entry is gone.
    DiskCapacity,
    /// Its namespace had more than it may have: the entry is gone.
    Bound,
    /// It did not get in: too large, or no room in time.
    Rejected,
}

impl Reason {
    pub(crate) fn of(count: Count) -> Self {
        match count {
            Count::EvictedExpired => Self::Expired,
            Count::EvictedPressure => Self::Pressure,
            Count::EvictedManual => Self::Manual,
            Count::EvictedDiskCapacity => Self::DiskCapacity,
            Count::EvictedBound => Self::Bound,
            Count::Rejected => Self::Rejected,
            _ => Self::Capacity,
        }
    }
}

/// An entry that left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Eviction {
    /// Its key.
    pub key: Vec<u8>,
    /// Its namespace; `None` is the unnamed one.
    pub namespace: Option<String>,
    /// Why it left.
    pub reason: Reason,
    /// When.
    pub at: SystemTime,
}

/// A key that is read or written often.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HotKey {
    /// The key.
    pub key: Vec<u8>,
    /// Its namespace; `None` is the unnamed one.
    pub namespace: Option<String>,
    /// How often it came, as far as that is remembered: a rough logarithmic count.
    pub access_count: u64,
}

/// Entries that left memory, by reason, and those that did not get in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evictions {
    /// [`Reason::Expired`].
    pub expired: u64,
    /// [`Reason::Capacity`].
    pub capacity: u64,
    /// [`Reason::Pressure`].
    pub pressure: u64,
    /// [`Reason::Manual`].
    pub manual: u64,
    /// [`Reason::DiskCapacity`]: those are gone.
    pub disk_capacity: u64,
    /// [`Reason::Bound`]: those are gone.
    pub bound: u64,
    /// [`Reason::Rejected`].
    pub rejected: u64,
}

/// The memory tier in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Entries.
    pub entries: u64,
    /// Bytes that they are charged: their places, and their share of the index.
    pub bytes: u64,
    /// Bytes that they may be charged.
    pub capacity: u64,
    /// Bytes of the machine's memory that their places may take, empty ones included.
    pub arena_bytes: u64,
}

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// What does not work as it should, in words.
    pub problems: Vec<String>,
    /// The threads of the memory tier that were started, and whether they do their jobs.
    pub threads: Vec<(&'static str, bool)>,
}

impl Health {
    /// Whether all is well.
    pub fn is_well(&self) -> bool {
        self.problems.is_empty() && self.threads.iter().all(|(_, is_alive)| *is_alive)
    }
}

/// All figures of a store. Counts are since it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Entries that left memory.
    pub evictions: Evictions,
    /// Entries that came to memory from the log.
    pub promotions: u64,
    /// Entries that left memory and stayed in the log.
    pub demotions: u64,
    /// The memory tier.
    pub memory: MemoryStats,
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

impl Core {
    /// All figures. Looks at file lengths, at no record.
    pub fn stats(&self) -> Stats {
        let sum = |count| self.counters.sum(count);
        let live_bytes_taken = sum(Count::LiveBytesTaken);
        let extent = self.log.extent();
        let (absent, removed, expired) = (sum(Count::MissAbsent), sum(Count::MissRemoved), sum(Count::MissExpired));
        let unreadable = sum(Count::MissUnreadable);
        let mut problems = self.health().problems;
        problems.extend(extent.as_ref().err().map(ToString::to_string));
        let extent = extent.unwrap_or_default();
        let usage = self.memory.usage();
        let live_bytes = sum(Count::LiveBytesAdded).saturating_sub(live_bytes_taken);
        let (bytes_written, bytes_compacted) = (sum(Count::BytesWritten), sum(Count::BytesCompacted));
        let bytes_beside = self.log.bytes_beside();
        Stats {
            hits: Hits { memory: sum(Count::HitMemory), log: sum(Count::HitLog), ..Hits::default() },
            misses: Misses { total: absent + removed + expired + unreadable, absent, removed, expired, unreadable },
            insertions: sum(Count::Insertion),
            removals: sum(Count::Removal),
            evictions: Evictions {
                expired: sum(Count::EvictedExpired),
                capacity: sum(Count::EvictedCapacity),
                pressure: sum(Count::EvictedPressure),
                manual: sum(Count::EvictedManual),
                disk_capacity: sum(Count::EvictedDiskCapacity),
                bound: sum(Count::EvictedBound),
                rejected: sum(Count::Rejected),
            },
            promotions: sum(Count::Promotion),
            demotions: sum(Count::Demotion),
            memory: MemoryStats {
                entries: usage.records,
                bytes: self.resident_bytes(),
                capacity: self.budget.capacity(),
                arena_bytes: usage.touched_bytes,
            },
            log: LogStats {
                records: if self.options.in_memory { 0 } else { self.len_estimate() },
                segments: extent.segments,
                bytes: extent.bytes,
                live_bytes,
                live_ratio: ratio(live_bytes, extent.bytes),
                bytes_written,
                bytes_scanned: sum(Count::BytesScanned),
                bytes_compacted,
                bytes_reclaimed: sum(Count::BytesReclaimed),
                bytes_beside,
                write_amplification: ratio(bytes_written + bytes_compacted + bytes_beside, bytes_written),
                expired: sum(Count::ExpiredLogged),
                compression_ratio: ratio(sum(Count::BytesPacked), sum(Count::BytesBeforePacking)),
                compression_time: Duration::from_nanos(sum(Count::PackingNanos)),
                mapped: extent.mapped,
            },
            index: IndexStats { keys: self.len_estimate(), bytes: self.index.bytes() },
            recovery: self.recovery,
            problems,
        }
    }

    /// Whether all is well, and if not, what is wrong. Looks at no file.
    pub fn health(&self) -> Health {
        let log_workers = [&self.ahead, &self.compactor, &self.hinter, self.checkpoints.worker()];
        let workers = log_workers.into_iter().chain([self.namespaces.worker()]);
        let threads = workers.into_iter().filter_map(Worker::problem);
        let cut = self.log.cut_files().into_iter().map(|file| format!("{file} was cut: what stood behind is lost"));
        let of_the_log = self.log.failure().into_iter().chain(cut);
        let problems = of_the_log.chain(threads).chain(self.keeping_problems()).collect();
        Health { problems, threads: self.keeping_threads() }
    }

    /// The `count` keys in memory that come most often, the hottest first. Walks over the memory tier.
    pub fn hot_keys(&self, count: usize) -> Vec<HotKey> {
        let mut hottest = Vec::new();
        for block in 0..self.memory.blocks_end() {
            let guard = Guard::pin();
            for (_, record) in self.memory.records_of(block, &guard) {
                let access_count = History::from_bits(record.history()).access_count();
                hottest.push((record.key().to_vec(), access_count));
            }
            hottest.retain(|(stored, _)| !is_of_catalog(stored));
            hottest.sort_by_key(|(_, access_count): &(_, u64)| Reverse(*access_count));
            hottest.truncate(count);
        }
        let names = self.namespace_names();
        let hot_key = |(stored, access_count): (Vec<u8>, u64)| {
            let (namespace, key) = named(&stored, &names)?;
            Some(HotKey { key, namespace, access_count })
        };
        hottest.into_iter().filter_map(hot_key).collect()
    }

    /// Holds every record of the log against its checksum, and decodes what is compressed. Damage is in the report, not an error.
    /// Reads the whole log and waits for writes that are in flight, never the other way round.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`] when a file cannot be read.
    pub fn verify(&self) -> Result<Verified> {
        check_outside_read("verify")?;
        let end = self.log.end();
        Guard::wait_for_others();
        let mut verified = Verified::default();
        let (mut undecodable, mut dictionaries) = (Vec::new(), 0);
        let mut visit = |found: &Scanned<'_>, at: Location| {
            if at.is_unverified() {
                return Ok(());
            }
            dictionaries += u64::from(found.namespace == DICTIONARIES);
            if found.header.kind == RecordKind::Packed {
                match self.show_packed(found.value, at, |_| ()) {
                    Err(Error::Corrupt { file, offset, what }) => undecodable.push(Damage { file, offset, what }),
                    shown => shown?,
                }
            }
            Ok(())
        };
        let all = self.without_compaction(|| self.log.visit_all(end, &mut visit))?;
        for (file, scanned) in all {
            verified.records += scanned.records;
            verified.bytes += scanned.bytes;
            let damage = |(offset, what)| Damage { file: file.clone(), offset, what };
            verified.damaged.extend(scanned.damaged.into_iter().map(damage));
        }
        // Those are the store's own.
        verified.records -= dictionaries;
        verified.damaged.extend(undecodable);
        Ok(verified)
    }

    /// Writes a durable copy of the store as of one sequence to `target`, an empty directory.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`]; what was copied so far stays behind.
    pub fn backup(&self, target: Arc<dyn Medium>) -> Result<()> {
        check_outside_read("backup")?;
        self.log_dirty()?;
        let sequence = self.clock.last();
        // Whoever drew a sequence up to this one has written its record after the first wait; whoever had
        // reserved a place before the log's end was asked for has filled it after the second.
        Guard::wait_for_others();
        let end = self.log.end();
        Guard::wait_for_others();
        self.without_compaction(|| self.log.copy_to(&target, end, sequence))
    }
}

/// 1 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// What waits for all readers cannot be called by one.
pub(crate) fn check_outside_read(call: &'static str) -> Result<()> {
    if !Guard::is_pinned() {
        return Ok(());
    }
    let found = "called from inside `read`".to_owned();
    Err(Error::Option { option: call, found, expected: "a call outside of it".to_owned() })
}
