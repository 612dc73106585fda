//! The latest time that the next process will know of, so that what has expired stays expired when the wall clock is set
//! back.
//!
//! Holds no clock. Invariant: whoever was told that an entry has expired was told after a time at or past its deadline
//! was noted, unless the disk refused that.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use thermocline_tiers::{Result, log::Log};

use crate::clock::{self, Clock};

#[derive(Debug)]
pub(crate) struct SeenTime {
    /// Unix time in ms that the log or the note tells.
    noted_ms: AtomicU64,
    /// Held while a note is written: a later one is never replaced by an earlier.
    writing: Mutex<()>,
}

impl SeenTime {
    /// Starts with the time that `last`, the highest sequence found in log and note, stands for.
    pub(crate) fn new(last: u64) -> Self {
        Self { noted_ms: AtomicU64::new(clock::created_ms(last)), writing: Mutex::new(()) }
    }

    /// Makes sure that the next process knows of `deadline_ms`, which has passed. A load when it would already; else a
    /// write of 24 bytes, at most one per millisecond.
    #[cold]
    pub(crate) fn reach(&self, deadline_ms: u64, clock: &Clock, log: &Log) {
        // Acquire: pairs with the Release in `note`; the note is in the file.
        if deadline_ms > self.noted_ms.load(Ordering::Acquire) {
            // What has expired is gone whether this succeeds or not; the next reader tries again.
            let _ = self.note(clock, log);
        }
    }

    /// Notes the present time for good.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`].
    pub(crate) fn make_durable(&self, clock: &Clock, log: &Log) -> Result<()> {
        self.note(clock, log)?;
        log.flush_notes()
    }

    /// Notes the present time.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`].
    pub(crate) fn note(&self, clock: &Clock, log: &Log) -> Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = clock.seen();
        log.note_time(seen)?;
        // Release: pairs with the Acquire in `reach`.
        self.noted_ms.fetch_max(clock::created_ms(seen), Ordering::Release);
        Ok(())
    }
}
