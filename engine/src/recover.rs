//! Recovery: rebuilding the index from the log, or what of it no snapshot covers.
//!
//! Holds one rule: of the records of a key the highest sequence wins, and a damaged one over what stands before it.
//! Segments are scanned side by side and in any order. Never believes a length or a key; the tiers do the looking.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{DICTIONARIES, Log, Scanned, scan},
    memory::Memory,
};

use crate::{
    counters::{Count, Counters},
    dictionaries::is_likely_dictionary,
    found::{Found, Tiers},
    index::{Index, Published, Records, Verdict},
};

/// More threads than this do not make it faster: the disk and the memory are shared.
const THREADS_MAX: usize = 8;

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Records that were read: all of the log's, or those that no snapshot covers.
    pub records: u64,
    /// Places that were flushed once and are damaged now; `verify` lists them.
    pub damaged: u64,
    pub(crate) last_sequence: u64,
    pub(crate) has_deadlines: bool,
}

/// During recovery nothing is forgotten: an older record of the key may still be met.
struct Remembering<'a>(Tiers<'a>);

impl Records for Remembering<'_> {
    fn hash_at(&self, at: Location) -> Result<Option<u64>> {
        self.0.hash_at(at)
    }

    fn is_forgettable(&self, _at: Location) -> bool {
        false
    }
}

/// A damaged record: what it says of its sequence does not count, only its place does.
struct Claim {
    at: Location,
    is_users: bool,
    key: Vec<u8>,
    bytes: u64,
}

/// What one segment gave.
struct Part {
    scanned: Scanned,
    recovery: Recovery,
    claims: Vec<Claim>,
}

/// Where recovery puts what it finds.
struct Rebuilding<'a> {
    log: &'a Log,
    memory: &'a Memory,
    index: &'a Index,
    counters: &'a Counters,
}

/// Publishes the newest record of every key in `log` and makes the log ready to append.
pub(crate) fn recover(log: &Log, memory: &Memory, index: &Index, counters: &Counters) -> Result<Recovery> {
    let mut recovery = Recovery::default();
    let (mut scanned, mut claims) = (Vec::new(), Vec::new());
    let rebuilding = Rebuilding { log, memory, index, counters };
    for part in rebuilding.scan_all()? {
        recovery.records += part.recovery.records;
        recovery.damaged += part.recovery.damaged;
        recovery.last_sequence = recovery.last_sequence.max(part.recovery.last_sequence);
        recovery.has_deadlines |= part.recovery.has_deadlines;
        scanned.push(part.scanned);
        claims.extend(part.claims);
    }
    // After all whole records and in the order of their places: neither depends on the other then.
    claims.sort_by_key(|claim| claim.at.address());
    claims.iter().try_for_each(|claim| rebuilding.publish_claim(claim))?;
    log.start(&scanned)?;
    Ok(recovery)
}

impl Rebuilding<'_> {
    /// Scans the segments side by side; returns what they gave in their order.
    fn scan_all(&self) -> Result<Vec<Part>> {
        let count = self.log.found_count();
        let next = AtomicUsize::new(0);
        // Relaxed: each segment is drawn once, in whatever order.
        let draw = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|segment| *segment < count);
        let scan = || -> Vec<_> { std::iter::from_fn(draw).map(|segment| (segment, self.scan_one(segment))).collect() };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(count);
        let mut parts = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(scan)).collect();
            let mut parts = scan();
            others.into_iter().for_each(|other| parts.extend(other.join().expect("a scan does not panic")));
            parts
        });
        parts.sort_by_key(|(segment, _)| *segment);
        parts.into_iter().map(|(_, part)| part).collect()
    }

    fn scan_one(&self, segment: usize) -> Result<Part> {
        let (mut recovery, mut claims, mut dictionaries) = (Recovery::default(), Vec::new(), 0);
        let scanned = self.log.scan(segment, |found, at| {
            recovery.has_deadlines |= found.header.deadline_ms != 0;
            if at.is_unverified() {
                let is_users = !is_likely_dictionary(found.namespace);
                claims.push(Claim { at, is_users, key: found.key.to_vec(), bytes: found.bytes });
                return Ok(());
            }
            dictionaries += u64::from(found.namespace == DICTIONARIES);
            recovery.last_sequence = recovery.last_sequence.max(found.header.sequence);
            self.publish_whole(found, at)
        })?;
        recovery.records = scanned.records - dictionaries;
        recovery.damaged = scanned.damaged.len() as u64;
        Ok(Part { scanned, recovery, claims })
    }

    /// The highest sequence wins; of equal ones, which only copies have, the later place.
    fn publish_whole(&self, found: &scan::Found<'_>, at: Location) -> Result<()> {
        let sequence = Some(found.header.sequence).filter(|_| at.kind() == Kind::Log);
        let key = (found.key, found.namespace != DICTIONARIES);
        self.publish(key, found.bytes, sequence, at, |there, record| {
            (found.header.sequence, at.address()) > (record.sequence(), there.address())
        })
    }

    /// Whether what a slot names is known, or turns out, not to be what was written.
    fn is_damaged(&self, there: Location) -> Result<bool> {
        if !there.is_unverified() || there.is_nothing() {
            return Ok(false);
        }
        match self.log.read(there, |_| ()) {
            Err(Error::Corrupt { .. }) => Ok(true),
            other => other.map(|()| false),
        }
    }

    /// A damaged record wins over what stands before it in the log.
    fn publish_claim(&self, claim: &Claim) -> Result<()> {
        let at = claim.at;
        let key = (&claim.key[..], claim.is_users);
        self.publish(key, claim.bytes, None, at, |there, _| at.address() > there.address())
    }

    fn publish(
        &self,
        (key, is_users): (&[u8], bool),
        bytes: u64,
        sequence: Option<u64>,
        at: Location,
        wins_over: impl Fn(Location, &Found<'_>) -> bool,
    ) -> Result<()> {
        let guard = Guard::pin();
        let tiers = Tiers { log: self.log, memory: self.memory, guard: &guard };
        let hash = self.log.keys().hash(key);
        let is_known = Cell::new(false);
        let published = self.index.publish(hash, at, &guard, &Remembering(tiers), &Cell::new(0), |there, _| {
            if there.as_verified() == at {
                is_known.set(true);
                return Ok(Verdict::Keep);
            }
            let is_damaged = self.is_damaged(there)?;
            tiers.judge(there, |record| match record {
                Some(record) if record.key() != key || record.is_users() != is_users => Verdict::Other,
                Some(_) if is_damaged && at.address() < there.address() => Verdict::Keep,
                Some(record) if !is_damaged && !wins_over(there, &record) => Verdict::Keep,
                _ => Verdict::Replace,
            })
        })?;
        let replaced = match published {
            Published::Kept if is_known.get() => return Ok(()),
            Published::Kept => {
                self.log.note_dead(at, bytes, sequence);
                return Ok(());
            }
            Published::New => None,
            Published::Replaced(old) => Some(old),
        };
        if at.kind() == Kind::Log && is_users {
            self.counters.add(Count::Added, 1, &guard);
            self.counters.add(Count::LiveBytesAdded, bytes, &guard);
        }
        let Some(old) = replaced else { return Ok(()) };
        let needless = tiers.logged(old);
        if let Some(needless) = needless {
            self.log.note_dead(needless.at, needless.bytes, needless.sequence);
        }
        if old.kind() == Kind::Log && is_users {
            let bytes = needless.map_or(0, |needless| needless.bytes);
            self.counters.add_all([(Count::Taken, 1), (Count::LiveBytesTaken, bytes)], &guard);
        }
        Ok(())
    }
}
