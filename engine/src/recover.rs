//! Recovery: rebuilding the index from the log, or what of it no snapshot covers.
//!
//! Holds one rule: of the records of a key the highest sequence wins, and a damaged one of which no hint tells over what stands
//! before it. Segments are read, or their hints, side by side and in any order. Never believes a length or a key; the tiers do the looking.

mod hinted;

use std::{
    cell::Cell,
    ops::AddAssign,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use thermocline_tiers::{
    Guard, Kind, Location, Result,
    log::{DICTIONARIES, Header, Log, RecordKind, Scanned, scan},
    memory::Memory,
};

use crate::{
    counters::{Count, Counters},
    dictionaries::is_likely_dictionary,
    found::{Found, Tiers, outlives},
    index::{Index, Published, Records, Verdict},
};

/// More threads than this do not make it faster: the disk and the memory are shared.
const THREADS_MAX: usize = 8;
/// Asked once: the system looks into files for it.
static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Records that were found: all of the log's, or those that no snapshot covers.
    pub records: u64,
    /// How many of them are known from hints and were not read.
    pub hinted: u64,
    /// Places that were flushed once and are damaged now; `verify` lists them.
    pub damaged: u64,
    /// Bytes that they take.
    pub(crate) bytes: u64,
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

/// A record to be published.
struct New {
    at: Location,
    hash: u64,
    bytes: u64,
    header: Header,
    is_users: bool,
    /// The sequence of the record in whose place it came last, if that is known; whether it may outlive the one that kept it out.
    displaced: Cell<Option<u64>>,
    may_outlive: Cell<bool>,
}

impl New {
    fn of(at: Location, hash: u64, bytes: u64, header: Header, is_users: bool) -> Self {
        Self { at, hash, bytes, header, is_users, displaced: Cell::default(), may_outlive: Cell::new(true) }
    }
}

/// What a publication changes of what is counted.
#[derive(Clone, Copy, Default)]
struct Change {
    added: u64,
    bytes_added: u64,
    taken: u64,
    bytes_taken: u64,
}

impl AddAssign for Change {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.bytes_added += other.bytes_added;
        self.taken += other.taken;
        self.bytes_taken += other.bytes_taken;
    }
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
    /// Whether the index was made for as many keys as there are.
    has_room: bool,
}

/// Publishes the newest record of every key in `log` and makes the log ready to append.
pub(crate) fn recover(log: &Log, memory: &Memory, index: &Index, counters: &Counters) -> Result<Recovery> {
    let mut recovery = Recovery::default();
    let (mut scanned, mut claims) = (Vec::new(), Vec::new());
    let mut rebuilding = Rebuilding { log, memory, index, counters, has_room: false };
    rebuilding.has_room = rebuilding.make_room();
    for part in rebuilding.scan_all()? {
        recovery.records += part.recovery.records;
        recovery.hinted += part.recovery.hinted;
        recovery.damaged += part.recovery.damaged;
        recovery.bytes += part.recovery.bytes + part.scanned.bytes;
        recovery.last_sequence = recovery.last_sequence.max(part.recovery.last_sequence);
        recovery.has_deadlines |= part.recovery.has_deadlines;
        scanned.push(part.scanned);
        claims.extend(part.claims);
    }
    // After all whole records and in the order of their places: neither depends on the other then.
    claims.sort_by_cached_key(|claim| log.position_of(claim.at));
    claims.iter().try_for_each(|claim| rebuilding.publish_claim(claim))?;
    log.start(&scanned)?;
    Ok(recovery)
}

impl Rebuilding<'_> {
    /// Scans the segments side by side; returns what they gave in their order.
    fn scan_all(&self) -> Result<Vec<Part>> {
        self.each_segment(|segment| self.scan_one(segment)).into_iter().collect()
    }

    /// Does something for each segment, side by side; returns what that gave in their order.
    fn each_segment<R: Send>(&self, act: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let count = self.log.found_count();
        let next = AtomicUsize::new(0);
        // Relaxed: each segment is drawn once, in whatever order.
        let draw = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|segment| *segment < count);
        let act_all = || -> Vec<_> { std::iter::from_fn(draw).map(|segment| (segment, act(segment))).collect() };
        let threads = (*CORES).min(THREADS_MAX).min(count);
        let mut parts = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(act_all)).collect();
            let mut parts = act_all();
            others.into_iter().for_each(|other| parts.extend(other.join().expect("a scan does not panic")));
            parts
        });
        parts.sort_by_key(|(segment, _)| *segment);
        parts.into_iter().map(|(_, part)| part).collect()
    }

    fn scan_one(&self, segment: usize) -> Result<Part> {
        let hint = self.log.hint(segment);
        let mut recovery = hint.as_ref().map_or_else(|| Ok(Recovery::default()), |hint| self.publish_hinted(hint))?;
        let (mut claims, mut dictionaries) = (Vec::new(), 0);
        let scanned = self.log.scan(segment, hint.as_ref(), |found, at| {
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
        recovery.records += scanned.records - dictionaries;
        recovery.damaged = scanned.damaged.len() as u64;
        Ok(Part { scanned, recovery, claims })
    }

    /// The highest sequence wins; of equal ones, which only copies have, the later place.
    fn publish_whole(&self, found: &scan::Found<'_>, at: Location) -> Result<()> {
        let guard = Guard::pin();
        let tiers = self.tiers(&guard);
        let (sequence, is_users) = (found.header.sequence, found.namespace != DICTIONARIES);
        let new = New::of(at, self.log.keys().hash(found.key), found.bytes, found.header, is_users);
        let change = self.publish(&new, &guard, |there| {
            let is_newer = |than: u64| self.is_newer((sequence, at), (than, there));
            let is_mine = |record: &Found<'_>| Ok(record.key() == found.key && record.is_users() == is_users);
            self.judge(&tiers, there, &new, is_mine, is_newer)
        })?;
        self.count(change, &guard);
        Ok(())
    }

    /// A damaged record wins over what stands before it in the log.
    fn publish_claim(&self, claim: &Claim) -> Result<()> {
        let guard = Guard::pin();
        let tiers = self.tiers(&guard);
        let Claim { at, is_users, key, bytes } = claim;
        let (at, bytes, is_users, hash) = (*at, *bytes, *is_users, self.log.keys().hash(key));
        // Nothing that it says counts: no value, and nothing is known of what it took the place of.
        let header = Header { kind: RecordKind::Tombstone, sequence: 0, deadline_ms: 0 };
        let new = New::of(at, hash, bytes, header, is_users);
        let change = self.publish(&new, &guard, |there| {
            let is_behind = |_| self.log.position_of(at) > self.log.position_of(there);
            let is_mine = |record: &Found<'_>| Ok(record.key() == &key[..] && record.is_users() == is_users);
            self.judge(&tiers, there, &new, is_mine, is_behind)
        })?;
        self.count(change, &guard);
        Ok(())
    }

    /// Whether one record counts rather than another: by their sequences, and of equal ones by their places.
    fn is_newer(&self, (sequence, at): (u64, Location), (than, there): (u64, Location)) -> bool {
        sequence > than || sequence == than && self.log.position_of(at) > self.log.position_of(there)
    }

    fn tiers<'a>(&'a self, guard: &'a Guard) -> Tiers<'a> {
        Tiers { log: self.log, memory: self.memory, guard }
    }

    /// Whether `new` takes the place of the record at `there`: if that is of its key, as `is_mine` says, or as its hint does if it is
    /// damaged, and `is_newer` says so of its sequence. What is damaged and has no hint is taken for its key's.
    fn judge(
        &self,
        tiers: &Tiers<'_>,
        there: Location,
        new: &New,
        is_mine: impl Fn(&Found<'_>) -> Result<bool>,
        is_newer: impl Fn(u64) -> bool,
    ) -> Result<Verdict> {
        let failed = Cell::new(None);
        new.displaced.set(None);
        new.may_outlive.set(true);
        let of = |is_mine, sequence| match is_mine {
            false => Verdict::Other,
            true if is_newer(sequence) => {
                new.displaced.set(Some(sequence));
                Verdict::Replace
            }
            true => Verdict::Keep,
        };
        let of_record = |is_mine, record: &Found<'_>| {
            new.may_outlive.set(outlives(&new.header, &record.header()));
            of(is_mine, record.sequence())
        };
        let verdict = tiers.judge(there, |record| match record {
            Some(record) => match is_mine(&record) {
                Ok(is_mine) => of_record(is_mine, &record),
                Err(error) => {
                    failed.set(Some(error));
                    Verdict::Keep
                }
            },
            None => self.log.recall(there).map_or(Verdict::Replace, |hinted| {
                of(hinted.hash == new.hash && hinted.is_users == new.is_users, hinted.header.sequence)
            }),
        })?;
        failed.take().map_or(Ok(verdict), Err)
    }

    /// Publishes `new` if `judge` says so of what its tag agrees with; returns what that changes.
    fn publish(&self, new: &New, guard: &Guard, judge: impl Fn(Location) -> Result<Verdict>) -> Result<Change> {
        let tiers = self.tiers(guard);
        let at = new.at;
        let is_known = Cell::new(false);
        let remembering = Remembering(tiers);
        let published = self.index.publish(new.hash, at, guard, &remembering, &Cell::new(0), |there, _| {
            if there.as_verified() == at.as_verified() {
                is_known.set(true);
                return Ok(Verdict::Keep);
            }
            judge(there)
        })?;
        let replaced = match published {
            Published::Kept if is_known.get() => return Ok(Change::default()),
            Published::Kept => {
                self.log.note_dead(at, new.bytes, &new.header, new.may_outlive.get());
                return Ok(Change::default());
            }
            Published::New => None,
            Published::Replaced(old) => Some(old),
        };
        let mut change = Change::default();
        // Dictionaries are alive, and nobody's entries.
        if at.kind() == Kind::Log {
            (change.added, change.bytes_added) = (new.is_users.into(), new.bytes);
        }
        let Some(old) = replaced else { return Ok(change) };
        // Not what the figures of the snapshot have counted. Copies of what is there were not there then.
        let by = new.header.sequence;
        let is_counted = new.displaced.get().is_some_and(|displaced| displaced < by) && self.log.is_counted(old, by);
        let needless = tiers.logged(old).filter(|_| !is_counted);
        if let Some(needless) = needless {
            self.log.note_dead(needless.at, needless.bytes, &needless.header, needless.outlives(&new.header));
        }
        if old.kind() == Kind::Log {
            (change.taken, change.bytes_taken) = (new.is_users.into(), needless.map_or(0, |needless| needless.bytes));
        }
        Ok(change)
    }

    fn count(&self, change: Change, guard: &Guard) {
        let Change { added, bytes_added, taken, bytes_taken } = change;
        self.counters.add_all(
            [
                (Count::Added, added),
                (Count::LiveBytesAdded, bytes_added),
                (Count::Taken, taken),
                (Count::LiveBytesTaken, bytes_taken),
            ],
            guard,
        );
    }
}
