//! Room under a ceiling: what has to go when the log takes as much of the disk as it may.
//!
//! Holds who makes room and when: the compacting thread before it is needed, a writer who finds none by himself. What goes is
//! chosen in `choice.rs`, and goes as in `compact.rs`. Invariant: whoever waits for room holds no guard, and does a bounded
//! piece of work.

use thermocline_tiers::{Error, Guard, Result};

use crate::{
    choice::{Aim, choose_expired, choose_for_room},
    compact::Compaction,
    engine::Core,
    pace::Pace,
};

/// How often a writer makes room that others take.
const TRIES: usize = 32;
/// So many batches of segments may be emptied in vain, for what others write meanwhile or for what came back.
const FRUITLESS_MAX: usize = 8;

impl Core {
    /// Writes again after room was made, for a write that found none.
    #[cold]
    #[inline(never)]
    pub(crate) fn with_room<R>(&self, mut refused: Error, mut write: impl FnMut() -> Result<R>) -> Result<R> {
        for _ in 0..TRIES {
            let Error::DiskCapacity { bytes, .. } = refused else { break };
            // Inside `read` nobody can wait for all readers.
            if Guard::is_pinned() {
                break;
            }
            // Until it has written: who comes next makes room for himself.
            let mut compaction = self.compaction();
            if !self.make_room(bytes, &mut compaction)? {
                break;
            }
            match write() {
                Err(error @ Error::DiskCapacity { .. }) => refused = error,
                done => {
                    self.log.clear_want();
                    return done;
                }
            }
        }
        Err(refused)
    }

    /// Makes room for a file of so many bytes; whether there is.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    fn make_room(&self, bytes: u64, compaction: &mut Compaction) -> Result<bool> {
        let (mut least, mut fruitless) = (self.log.taken(), 0);
        while !self.log.has_room(bytes) && fruitless < FRUITLESS_MAX {
            self.empty_some(compaction)?;
            let taken = self.log.taken();
            (least, fruitless) = if taken < least { (taken, 0) } else { (least, fruitless + 1) };
        }
        Ok(self.log.has_room(bytes))
    }

    /// Gives the space of some segments back, of those first that are dead for the most part.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    pub(crate) fn empty_some(&self, compaction: &mut Compaction) -> Result<()> {
        // What went already is free when its readers are gone, and segments are sealed when their writers are.
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        self.log.give_back();
        let sealed = self.log.sealed(compaction.cold(), self.clock.now_ms())?;
        let expired = choose_expired(&sealed);
        if !expired.is_empty() {
            self.drop_expired(&expired)?;
            Guard::wait_for_others();
            self.log.give_back();
            return Ok(());
        }
        let (chosen, aim) = choose_for_room(&sealed, self.options.segment_bytes);
        if chosen.is_empty() {
            return self.log.seal_cold(compaction.cold_mut());
        }
        let emptied = match self.compact_segments(&chosen, compaction, Pace::Full, aim) {
            // Not even for what stays: so it does not.
            Err(Error::DiskCapacity { .. }) if aim == Aim::Keep => {
                self.compact_segments(&chosen, compaction, Pace::Full, Aim::Evict)
            }
            done => done,
        };
        Guard::wait_for_others();
        self.log.give_back();
        emptied.map(|_| ())
    }
}
