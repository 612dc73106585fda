//! Checkpoint: hand the index on as a snapshot, now and then and at a clean close, so that nobody has to read the whole log.
//!
//! Holds when one is due, its thread and the order of its steps. What a page may say, and how far segments are covered, is kept so
//! that this holds: a snapshot, and what is in the log behind it, say what the whole log would have said. Never stops a writer; one
//! who waits for room under a ceiling stops it.

use std::sync::{
    PoisonError,
    atomic::{AtomicU64, Ordering},
};

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result, Word,
    log::{Figures, QuietEnd},
};

use crate::{
    counters::Count,
    engine::Core,
    full::is_full,
    index::{Records, Save},
    inspect::check_outside_read,
    snapshot::dictionaries,
    worker::{Next, Worker},
};

/// What a key takes in a snapshot.
const KEY_BYTES: u64 = 10;
/// So many times its size are appended between two snapshots.
const APPENDED_PER_BYTE: u64 = 4;

/// When the next one is due, and the thread for it.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    worker: Worker,
    /// When so many bytes were appended to the log.
    due: AtomicU64,
}

impl Checkpoints {
    /// `uncovered` bytes of the log are in no snapshot as it is.
    pub(crate) fn new(after: u64, uncovered: u64) -> Self {
        Self { worker: Worker::new("thermocline-checkpoint"), due: AtomicU64::new(after.saturating_sub(uncovered)) }
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }
}

impl Core {
    /// Has the thread write a snapshot if one is due.
    pub(crate) fn wake_checkpoints(&self) {
        // Relaxed: one sooner or later is no matter.
        if self.appended() < self.checkpoints.due.load(Ordering::Relaxed) {
            return;
        }
        self.checkpoints.worker.wake(|| {
            let this = self.this.clone();
            Box::new(move || {
                let Some(core) = this.upgrade() else { return Ok(Next::Done) };
                if core.appended() < core.checkpoints.due.load(Ordering::Relaxed) {
                    return Ok(Next::Done);
                }
                let done = core.checkpoint_while(|| core.checkpoints.worker.is_ending() || core.log.is_wanted());
                done.map(|_| Next::Done).map_err(|error| error.to_string())
            })
        });
    }

    fn appended(&self) -> u64 {
        self.counters.sum(Count::BytesWritten)
    }

    /// Hands the index on, as it is now: whoever opens the store next reads of the log only what is appended from about now on, even
    /// if this process is killed. `false` if there is none, nothing was appended yet, or something is damaged.
    ///
    /// Makes durable what was written so far. Writes ten bytes a key, beside all writers.
    ///
    /// # Errors
    /// As for [`sync`](Self::sync): the snapshot before stays.
    pub fn checkpoint(&self) -> Result<bool> {
        check_outside_read("checkpoint")?;
        self.checkpoint_while(|| self.log.is_wanted())
    }

    fn checkpoint_while(&self, is_over: impl Fn() -> bool) -> Result<bool> {
        let keys = self.len_estimate();
        let after = self.options.checkpoint_after.max(keys.saturating_mul(APPENDED_PER_BYTE * KEY_BYTES));
        // First: what fails is not tried again at once.
        self.checkpoints.due.store(self.appended().saturating_add(after), Ordering::Relaxed);
        if !self.can_be_handed_on() {
            return Ok(false);
        }
        self.with_all_logged(|| {
            let mut compaction = self.compaction();
            // So that it is known where its records end.
            self.log.seal_cold(compaction.cold_mut())?;
            let covered = match self.log.sealed_end() {
                Ok(Some(covered)) => covered,
                // Another time.
                Ok(None) | Err(Error::DiskCapacity { .. }) => return Ok(false),
                Err(error) if is_full(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            // Whoever wrote to what is covered has published it after this.
            Guard::wait_for_others();
            if self.log.is_known_up_to(&covered) { self.hand_on(covered, is_over) } else { Ok(false) }
        })
    }

    /// Leaves the index to the next process, if reading what no snapshot covers would take it long. No writer may be active, and
    /// everything is durable.
    ///
    /// # Errors
    /// [`Error::Io`], but for a disk that is full: the next process reads the log instead.
    pub(crate) fn hand_on_at_close(&self) -> Result<()> {
        let is_due = |bytes| bytes >= self.options.snapshot_after;
        if self.can_be_handed_on() && self.log.uncovered_bytes().is_some_and(is_due) {
            self.hand_on(self.log.end(), || false)?;
        }
        Ok(())
    }

    fn can_be_handed_on(&self) -> bool {
        !self.options.in_memory && !self.options.read_only && self.log.can_be_covered(self.len_estimate())
    }

    /// Writes a snapshot of what is in front of `covered`, where nobody writes any more; `false` if there is no room, or it `is_over`.
    fn hand_on(&self, covered: QuietEnd, is_over: impl Fn() -> bool) -> Result<bool> {
        match self.write_snapshot(covered, is_over) {
            Err(error) if error.is_disk_full() => Ok(false),
            other => other,
        }
    }

    fn write_snapshot(&self, covered: QuietEnd, is_over: impl Fn() -> bool) -> Result<bool> {
        let mut snapshot = self.log.begin_snapshot(self.clock.last())?;
        let mut keys = 0;
        // What an exchange may still take back is not looked at.
        let still = || self.exchanging.write().unwrap_or_else(PoisonError::into_inner);
        let shards = self.index.save(still, |words| {
            if is_over() {
                return Ok(Save::Stop);
            }
            let Some(words) = self.words_to_keep(words, &covered) else { return Ok(Save::Again) };
            let is_there = |(word, _): &&(Word, u16)| word.location().is_some_and(|at| at.kind() == Kind::Log);
            keys += words.iter().filter(is_there).count() as u64;
            snapshot.add_page(&words).map(|()| Save::Next)
        })?;
        let Some(shards) = shards else { return Ok(false) };
        // What the pages leave out because it stands behind is there at the next open.
        Guard::pin().retire(self.log.quiescer());
        Guard::reclaim();
        self.let_exchanges_count();
        self.log.sync()?;
        // What is displaced by anything that has drawn its sequence is counted as dead after this.
        let (last_sequence, now) = (self.clock.last(), self.log.end());
        Guard::wait_for_others();
        let sum = |count| self.counters.sum(count);
        let live_bytes = sum(Count::LiveBytesAdded).saturating_sub(sum(Count::LiveBytesTaken));
        let figures = Figures {
            last_sequence,
            keys: keys.saturating_sub(dictionaries(&self.log, &self.index)?),
            live_bytes: live_bytes.saturating_sub(self.log.live_bytes_behind(&covered, &now)),
            has_deadlines: self.has_deadlines.load(Ordering::Relaxed),
        };
        snapshot.finish(figures, &shards, covered)?;
        Ok(true)
    }

    /// The words of a page as the next process may have them: what is in memory by its home; what is to be forgotten, or stands
    /// behind `covered`, not at all. `None` if a record has moved since they were read.
    fn words_to_keep(&self, words: Vec<(Word, u16)>, covered: &QuietEnd) -> Option<Vec<(Word, u16)>> {
        let guard = Guard::pin();
        let tiers = self.tiers(&guard);
        let mut kept = Vec::with_capacity(words.len());
        let mut keep = |word: Word, at: Location, history| {
            if self.log.is_before(at, covered) {
                kept.push((word.with_location(at), history));
            }
        };
        for (word, history) in words {
            let Some(at) = word.location() else { continue };
            match at.kind() {
                Kind::Memory => {
                    let record = self.memory.record(at, &guard)?;
                    keep(word, record.home()?, record.history());
                }
                Kind::Removed if tiers.is_forgettable(at) => {}
                _ => keep(word, at, history),
            }
        }
        Some(kept)
    }
}
