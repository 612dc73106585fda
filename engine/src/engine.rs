//! The engine: what the flows share, from opening to closing.
//!
//! Holds the log, the index over it, the clock and the counters. Never holds a flow: those are in files of their own.
//! Invariant: every record that a slot names is in this log, and every record of the log is either named by
//! its key's slot, older than the one that is, or void.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{self, Log, Record, Survives},
};

use crate::{
    clock::{Clock, TimeSource},
    counters::{Count, Counters},
    index::{Index, Records},
    insert::Durability,
    medium::Medium,
    recover::{self, Recovery},
    seen::SeenTime,
    upkeep::Upkeep,
};

/// Sequences end long before they could wrap: a record that states a higher one was not written by us.
const SEQUENCE_MAX: u64 = u64::MAX - (1 << 60);

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment: 64 KiB to 1 GiB, a multiple of 8.
    pub segment_bytes: u64,
    /// Take a shared lock and change nothing.
    pub read_only: bool,
    /// Make a store where there is none.
    pub create: bool,
    /// How long entries live that say nothing else.
    pub time_to_live: Option<Duration>,
    /// What writes survive that say nothing else.
    pub durability: Durability,
    /// Where the time comes from.
    pub time: TimeSource,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            read_only: false,
            create: true,
            time_to_live: None,
            durability: Durability::default(),
            time: TimeSource::default(),
        }
    }
}

/// One open store.
#[derive(Debug)]
pub struct Engine {
    /// First, so that its thread ends before what it works on.
    pub(crate) upkeep: Upkeep,
    pub(crate) log: Arc<Log>,
    pub(crate) index: Index,
    pub(crate) clock: Clock,
    pub(crate) seen_time: SeenTime,
    pub(crate) counters: Counters,
    pub(crate) recovery: Recovery,
    pub(crate) options: Options,
    /// Held to read by exchanges between being seen and counting, and taken to write before a flush.
    pub(crate) exchanging: RwLock<()>,
    /// Whether any entry ever had a deadline; without one the length needs no walk.
    pub(crate) has_deadlines: AtomicBool,
    closed: bool,
}

/// The log as the index sees it.
pub(crate) struct InLog<'a>(pub(crate) &'a Log);

impl InLog<'_> {
    /// Shows the record at `at` to somebody who will replace it: `None` if it is so damaged that it says nothing any
    /// more. Then its tag is all that is known of its key, and is believed.
    #[inline]
    pub(crate) fn read_to_replace<R>(&self, at: Location, show: impl Fn(Option<Record<'_>>) -> R) -> Result<R> {
        match self.0.read_unchecked(at, |record| show(Some(record))) {
            Err(Error::Corrupt { .. }) if at.is_unverified() => Ok(show(None)),
            other => other,
        }
    }

    /// What the record at `at` takes in the log; 0 if it cannot be read. For counting.
    pub(crate) fn bytes_at(&self, at: Location) -> u64 {
        self.0.read_unchecked(at, |record| record.bytes()).unwrap_or(0)
    }
}

impl Records for InLog<'_> {
    fn hash_at(&self, at: Location) -> Result<Option<u64>> {
        match self.0.read_unchecked(at, |record| self.0.keys().hash(record.key())) {
            Err(Error::Corrupt { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn is_forgettable(&self, at: Location) -> bool {
        self.0.is_quiescent(at)
    }
}

/// Whether two keys are the same. Keys of 8 to 16 bytes are compared by their first and last eight, without a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let words = |key: &[u8]| Some((u64::from_ne_bytes(*key.first_chunk()?), u64::from_ne_bytes(*key.last_chunk()?)));
    if a.len() == b.len() && a.len() <= 16 && a.len() >= 8 { words(a) == words(b) } else { a == b }
}

impl Engine {
    /// Opens the store on `medium`: takes its lock, scans its segments, repairs what a crash left.
    ///
    /// Reads the whole log once, several segments at a time.
    ///
    /// # Errors
    /// As [`Log::open`], and [`thermocline_tiers::Error::IndexFull`].
    pub fn open(medium: Arc<dyn Medium>, options: Options) -> Result<Self> {
        let log_options =
            log::Options { segment_bytes: options.segment_bytes, read_only: options.read_only, create: options.create };
        let mut log = Log::open(medium, log_options)?;
        let (index, counters) = (Index::new()?, Counters::default());
        let mut recovered = recover::recover(&mut log, &index, &counters)?;
        recovered.last_sequence = recovered.last_sequence.max(log.noted_time()?);
        if recovered.last_sequence > SEQUENCE_MAX {
            let what = format!("sequence {} leaves no later ones", recovered.last_sequence);
            return Err(Error::Corrupt { file: log.directory(), offset: 0, what });
        }
        Ok(Self {
            upkeep: Upkeep::default(),
            log: Arc::new(log),
            index,
            clock: Clock::new(options.time.clone(), recovered.last_sequence),
            seen_time: SeenTime::new(recovered.last_sequence),
            counters,
            has_deadlines: AtomicBool::new(recovered.has_deadlines),
            recovery: recovered,
            options,
            exchanging: RwLock::new(()),
            closed: false,
        })
    }

    /// Shows the record of `key`, tombstones included, if there is one.
    #[inline]
    pub(crate) fn find<R>(
        &self,
        hash: u64,
        key: &[u8],
        guard: &Guard,
        show: impl FnOnce(Location, Record<'_>) -> R,
    ) -> Result<Option<R>> {
        let mut show = Some(show);
        self.index.find(hash, guard, |at| {
            self.log.read(
                at,
                |record| {
                    if is_same(record.key(), key) { show.take().map(|show| show(at, record)) } else { None }
                },
            )
        })
    }

    /// Whether a record is a value that has not expired. What has is noted before anybody hears of it.
    #[inline]
    pub(crate) fn is_living(&self, at: Location, record: &Record<'_>) -> bool {
        let deadline_ms = record.header().deadline_ms;
        at.kind() == Kind::Log && (deadline_ms == 0 || self.is_before(deadline_ms))
    }

    /// Apart from the records without a deadline.
    #[inline(never)]
    fn is_before(&self, deadline_ms: u64) -> bool {
        let has_passed = self.clock.has_passed(deadline_ms);
        if has_passed && !self.options.read_only {
            self.seen_time.reach(deadline_ms, &self.clock, &self.log);
        }
        !has_passed
    }

    /// The number of entries: exact, and a walk over the index if entries can expire or opening found damage. Those whose
    /// records are damaged are not counted.
    pub fn len(&self) -> u64 {
        match self.has_deadlines.load(Ordering::Relaxed) || self.recovery.damaged > 0 {
            true => self.keys().filter(Result::is_ok).count() as u64,
            false => self.len_estimate(),
        }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    /// The number of entries, expired ones that were not written again included. Never walks.
    pub fn len_estimate(&self) -> u64 {
        // What went is summed first: a key that comes and goes meanwhile is not counted as going alone.
        let taken = self.counters.sum(Count::Taken);
        self.counters.sum(Count::Added).saturating_sub(taken)
    }

    /// Makes everything acknowledged before the call durable.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`] when a flush fails; [`thermocline_tiers::Error::Suspended`] ever after.
    pub fn sync(&self) -> Result<()> {
        Guard::pin().retire(self.log.quiescer());
        Guard::reclaim();
        self.let_exchanges_count();
        self.log.sync()
    }

    /// Flushes what was appended, if it is to survive a power cut; concurrent callers share a flush.
    #[inline]
    pub(crate) fn make_durable(&self, survives: Survives) -> Result<()> {
        match survives {
            Survives::Kill => Ok(()),
            Survives::PowerCut => {
                self.let_exchanges_count();
                self.log.flush()
            }
        }
    }

    /// Waits until every exchange that somebody can have seen counts, so that what is flushed next includes it.
    pub(crate) fn let_exchanges_count(&self) {
        drop(self.exchanging.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the store: everything durable, reserved space given back, the lock released.
    ///
    /// # Errors
    /// As for [`sync`](Self::sync). Whatever it says, the store is closed and whole.
    pub fn close(mut self) -> Result<()> {
        self.closed = true;
        self.end(true)
    }

    fn end(&self, durable: bool) -> Result<()> {
        self.upkeep.stop();
        // What has expired for somebody is to stay expired, should the wall clock be set back before the next open.
        let noted = match self.has_deadlines.load(Ordering::Relaxed) && !self.options.read_only {
            true => self.seen_time.note(&self.clock, &self.log),
            false => Ok(()),
        };
        self.log.close(durable).and(noted)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.closed {
            // There is nobody to tell; whoever wants to hear of errors calls `close`.
            let _ = self.end(false);
        }
    }
}
