//! The engine: what the flows share, from opening to closing.
//!
//! Holds both tiers, the index over them, the clock and the counters. Never holds a flow: those are in files of their own.
//! Invariant: every record that a slot names is in one of these tiers, and every record of the log is either named by
//! its key's slot, the home of what is, older than that, or void.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use thermocline_tiers::{
    Address, Error, Guard, Kind, Location, Result,
    log::{self, Figures, Log, Survives},
    memory::Memory,
};

use crate::{
    budget::{Budget, INDEX_BYTES},
    catalog::Namespaces,
    checkpoint::Checkpoints,
    clock::{Clock, TimeSource},
    compact::Compaction,
    counters::{Count, Counters},
    dictionaries::Dictionaries,
    found::{Found, Tiers},
    index::Index,
    insert::Durability,
    keeper::Keeper,
    medium::Medium,
    pace::Feeling,
    pack::Compression,
    recover::{self, Recovery},
    refresh::Refresher,
    seen::SeenTime,
    snapshot,
    worker::Worker,
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
    /// No log: what leaves memory is gone.
    pub in_memory: bool,
    /// Bytes of the memory tier, our overhead counted. 0: there is none.
    pub memory_capacity: u64,
    /// Bytes of memory that are to stay available on the machine.
    pub free_memory_target: Option<u64>,
    /// The most that the files of the log may take, reserved bytes included; at least four segments.
    pub disk_capacity: Option<u64>,
    /// Segment slots that the log may use, each of 64 MiB of one segment: at most as many as there are.
    pub segment_slots: usize,
    /// Compact behind the callers' backs.
    pub compacts: bool,
    /// Bytes of the log that the next process may have to read: with more, closing leaves it a snapshot of the index.
    pub snapshot_after: u64,
    /// Bytes appended to the log after which a checkpoint hands the index on while the store is open, in case it is killed: those, or
    /// four times what it takes to write, if that is more.
    pub checkpoint_after: u64,
    /// Bytes of records that a full segment has to have to get a hint; the highest number there is: none gets one.
    pub hint_after: u64,
    /// How records are compressed that compaction moves.
    pub compression: Compression,
    /// So many small values there have to be before a dictionary is trained.
    pub dictionary_samples_min: usize,
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
            in_memory: false,
            memory_capacity: 64 << 20,
            free_memory_target: None,
            disk_capacity: None,
            segment_slots: Address::SLOTS,
            compacts: true,
            snapshot_after: 256 << 10,
            checkpoint_after: 256 << 20,
            hint_after: 1 << 20,
            compression: Compression::default(),
            dictionary_samples_min: 1_000,
            time_to_live: None,
            durability: Durability::default(),
            time: TimeSource::default(),
        }
    }
}

/// One open store, with the threads that work for it. Derefs to what its callers use.
#[derive(Debug)]
pub struct Engine {
    core: Arc<Core>,
    is_closed: bool,
}

/// What the flows share. They are its methods, in files of their own.
#[derive(Debug)]
pub struct Core {
    pub(crate) ahead: Worker,
    pub(crate) keeper: Keeper,
    pub(crate) compactor: Worker,
    pub(crate) hinter: Worker,
    pub(crate) compaction: Mutex<Compaction>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) feeling: Feeling,
    pub(crate) log: Arc<Log>,
    pub(crate) memory: Memory,
    pub(crate) budget: Budget,
    pub(crate) index: Index,
    pub(crate) dictionaries: Dictionaries,
    pub(crate) namespaces: Namespaces,
    pub(crate) clock: Clock,
    pub(crate) seen_time: SeenTime,
    pub(crate) counters: Counters,
    pub(crate) recovery: Recovery,
    pub(crate) options: Options,
    pub(crate) refresher: Refresher,
    /// Held to read by exchanges and volatile writes between being seen and counting, and taken to write before a flush.
    pub(crate) exchanging: RwLock<()>,
    /// Whether any entry ever had a deadline; without one the length needs no walk.
    pub(crate) has_deadlines: AtomicBool,
    /// Whether any record was ever in memory alone, and how many calls bring those to the log now.
    pub(crate) has_dirty: AtomicBool,
    pub(crate) logging_dirty: AtomicUsize,
    /// For threads that work for the store and do not keep it open.
    pub(crate) this: Weak<Self>,
}

impl Engine {
    /// Opens the store on `medium`: takes its lock, scans its segments, repairs what a crash left.
    ///
    /// Reads what of the log no snapshot covers and no hint tells of, several segments at a time.
    ///
    /// # Errors
    /// As [`Log::open`], [`Error::Option`], and [`thermocline_tiers::Error::IndexFull`].
    pub fn open(medium: Arc<dyn Medium>, options: Options) -> Result<Self> {
        options.compression.check()?;
        let log_options = log::Options {
            segment_bytes: options.segment_bytes,
            read_only: options.read_only,
            create: options.create,
            disk_capacity: options.disk_capacity.filter(|_| !options.in_memory && !options.read_only),
            slots: options.segment_slots,
        };
        let mut log = Log::open(medium.clone(), log_options.clone())?;
        if !snapshot::is_possible(&log) {
            log.remove_snapshot()?;
            drop(log);
            log = Log::open(medium, log_options)?;
        }
        let log = Arc::new(log);
        let (memory, counters) = (Memory::new(INDEX_BYTES)?, Counters::default());
        let (index, figures) = match snapshot::take_over(&log)? {
            Some(taken) => taken,
            None => (Index::new()?, Figures::default()),
        };
        counters.add_all([(Count::Added, figures.keys), (Count::LiveBytesAdded, figures.live_bytes)], &Guard::pin());
        let mut recovered = recover::recover(&log, &memory, &index, &counters)?;
        snapshot::recount(&log, &index, &counters)?;
        recovered.last_sequence = recovered.last_sequence.max(figures.last_sequence);
        recovered.has_deadlines |= figures.has_deadlines;
        recovered.last_sequence = recovered.last_sequence.max(log.noted_time()?);
        if recovered.last_sequence > SEQUENCE_MAX {
            let what = format!("sequence {} leaves no later ones", recovered.last_sequence);
            return Err(Error::Corrupt { file: log.directory(), offset: 0, what });
        }
        let core = Arc::new_cyclic(|this| Core {
            ahead: Worker::new("thermocline-ahead"),
            keeper: Keeper::new(options.memory_capacity),
            compactor: Worker::new("thermocline-compact"),
            hinter: Worker::new("thermocline-hint"),
            compaction: Mutex::default(),
            checkpoints: Checkpoints::new(options.checkpoint_after, recovered.bytes),
            feeling: Feeling::default(),
            log,
            memory,
            budget: Budget::new(options.memory_capacity),
            index,
            dictionaries: Dictionaries::default(),
            namespaces: Namespaces::default(),
            clock: Clock::new(options.time.clone(), recovered.last_sequence),
            seen_time: SeenTime::new(recovered.last_sequence),
            counters,
            has_deadlines: AtomicBool::new(recovered.has_deadlines),
            has_dirty: AtomicBool::new(false),
            logging_dirty: AtomicUsize::new(0),
            recovery: recovered,
            options,
            refresher: Refresher::default(),
            exchanging: RwLock::new(()),
            this: this.clone(),
        });
        core.start_keeping();
        if core.recovery.has_deadlines && !core.options.read_only {
            // What was written before expires, too.
            core.start_janitor();
        }
        if core.log.has_dead() || core.recovery.has_deadlines || core.log.lacks_room() {
            core.wake_compactor();
        }
        core.wake_hinter();
        Ok(Self { core, is_closed: false })
    }

    /// Ends the store: everything durable, reserved space given back, the lock released.
    ///
    /// # Errors
    /// As for [`sync`](Core::sync). Whatever it says, the store is closed and whole.
    pub fn close(mut self) -> Result<()> {
        self.is_closed = true;
        self.core.end(true)
    }
}

impl Deref for Engine {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.is_closed {
            // There is nobody to tell; whoever wants to hear of errors calls `close`.
            let _ = self.core.end(false);
        }
    }
}

impl Core {
    /// Both tiers, under a guard.
    #[inline]
    pub(crate) fn tiers<'a>(&'a self, guard: &'a Guard) -> Tiers<'a> {
        Tiers { log: &self.log, memory: &self.memory, guard }
    }

    /// Whether a record is a value that has not expired. What has is noted before anybody hears of it.
    #[inline]
    pub(crate) fn is_living(&self, at: Location, record: &Found<'_>) -> bool {
        let deadline_ms = record.deadline_ms();
        at.kind() != Kind::Removed && (deadline_ms == 0 || self.is_before(deadline_ms))
    }

    /// As [`is_living`](Self::is_living), of a record that is a value.
    pub(crate) fn is_living_until(&self, deadline_ms: u64) -> bool {
        deadline_ms == 0 || self.is_before(deadline_ms)
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

    /// The number of entries: exact, and a walk over the index if entries can expire or damage was found. Those whose
    /// records are damaged are not counted.
    pub fn len(&self) -> u64 {
        match self.has_deadlines.load(Ordering::Relaxed) || self.log.is_damaged() || self.has_namespaces() {
            true => self.keys().filter(Result::is_ok).count() as u64,
            false => self.len_estimate(),
        }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    /// The number of entries, those of namespaces and expired ones that were not written again included. Never walks.
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
        if self.options.in_memory {
            return Ok(());
        }
        Guard::pin().retire(self.log.quiescer());
        Guard::reclaim();
        self.log_dirty()?;
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

    fn end(&self, durable: bool) -> Result<()> {
        let workers = [self.namespaces.worker(), self.checkpoints.worker(), &self.compactor, &self.hinter];
        // All of them first: one may wait for what another holds.
        workers.iter().for_each(|worker| worker.end());
        workers.iter().for_each(|worker| worker.stop());
        self.stop_keeping();
        self.ahead.stop();
        let logged = self.log_dirty().and(self.end_compaction());
        // What has expired for somebody is to stay expired, should the wall clock be set back before the next open.
        let noted = match self.has_deadlines.load(Ordering::Relaxed) && !self.options.read_only {
            true => self.seen_time.note(&self.clock, &self.log),
            false => Ok(()),
        };
        self.log.close(durable).and(noted).and(logged)?;
        if durable { self.hand_on_at_close() } else { Ok(()) }
    }
}
