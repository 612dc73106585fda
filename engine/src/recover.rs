//! Recovery: rebuilding the index from the log.
//!
//! Holds one rule: of the records of a key the highest sequence wins. Segments are scanned side by side and in any
//! order. Never believes a length or a key; the tiers do the looking.

use std::sync::atomic::{AtomicUsize, Ordering};

use thermocline_tiers::{
    Guard, Kind, Location, Result,
    log::{Log, Scanned, scan::Found},
};

use crate::{
    counters::{Count, Counters},
    engine::InLog,
    index::{Index, Published, Records, Verdict},
};

/// More threads than this do not make it faster: the disk and the memory are shared.
const THREADS_MAX: usize = 8;

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Records in the log.
    pub records: u64,
    /// Places that were flushed once and are damaged now; `verify` lists them.
    pub damaged: u64,
    pub(crate) last_sequence: u64,
    pub(crate) has_deadlines: bool,
}

/// During recovery nothing is forgotten: an older record of the key may still be met.
struct Remembering<'a>(InLog<'a>);

impl Records for Remembering<'_> {
    fn hash_at(&self, at: Location) -> Option<u64> {
        self.0.hash_at(at)
    }

    fn is_forgettable(&self, _at: Location) -> bool {
        false
    }
}

/// Publishes the newest record of every key in `log` and makes the log ready to append.
pub(crate) fn recover(log: &mut Log, index: &Index, counters: &Counters) -> Result<Recovery> {
    let count = log.found_count();
    let next = AtomicUsize::new(0);
    // Relaxed: each segment is drawn once, in whatever order.
    let draw = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|segment| *segment < count);
    let scan = || -> Vec<_> {
        std::iter::from_fn(draw).map(|segment| (segment, scan_one(log, segment, index, counters))).collect()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(count);
    let mut parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(scan)).collect();
        let mut parts = scan();
        others.into_iter().for_each(|other| parts.extend(other.join().expect("a scan does not panic")));
        parts
    });
    parts.sort_by_key(|(segment, _)| *segment);
    let mut all = Vec::with_capacity(count);
    let mut recovery = Recovery::default();
    for (_, result) in parts {
        let (scanned, part) = result?;
        recovery.records += part.records;
        recovery.damaged += part.damaged;
        recovery.last_sequence = recovery.last_sequence.max(part.last_sequence);
        recovery.has_deadlines |= part.has_deadlines;
        all.push(scanned);
    }
    log.start(&all)?;
    Ok(recovery)
}

fn scan_one(log: &Log, segment: usize, index: &Index, counters: &Counters) -> Result<(Scanned, Recovery)> {
    let mut part = Recovery::default();
    let scanned = log.scan(segment, |found, at| {
        if !at.is_unverified() {
            part.last_sequence = part.last_sequence.max(found.header.sequence);
        }
        part.has_deadlines |= found.header.deadline_ms != 0;
        publish(log, index, counters, found, at)
    })?;
    part.records = scanned.records;
    part.damaged = scanned.damaged.len() as u64;
    Ok((scanned, part))
}

fn publish(log: &Log, index: &Index, counters: &Counters, found: &Found<'_>, at: Location) -> Result<()> {
    let guard = Guard::pin();
    let hash = log.keys().hash(found.key);
    let published = index.publish(hash, at, &guard, &Remembering(InLog(log)), |there| {
        InLog(log).read_to_replace(there, |record| {
            // What a damaged record says of its sequence does not count: then the later place in the log decides.
            let is_newer = match at.is_unverified() || there.is_unverified() {
                true => at.address() > there.address(),
                false => record.as_ref().is_none_or(|record| found.header.sequence > record.header().sequence),
            };
            match record.is_none_or(|record| record.key() == found.key) {
                false => Verdict::Other,
                true if is_newer => Verdict::Replace,
                true => Verdict::Keep,
            }
        })
    })?;
    let replaced = match published {
        Published::Kept => return Ok(()),
        Published::New => None,
        Published::Replaced(old) => Some(old),
    };
    if at.kind() == Kind::Log {
        counters.add(Count::Added, 1, &guard);
        counters.add(Count::LiveBytesAdded, found.bytes, &guard);
    }
    if let Some(old) = replaced.filter(|old| old.kind() == Kind::Log) {
        counters.add(Count::Taken, 1, &guard);
        counters.add(Count::LiveBytesTaken, InLog(log).bytes_at(old), &guard);
    }
    Ok(())
}
