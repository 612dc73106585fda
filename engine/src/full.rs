//! A disk that is full: room is made for removals by compaction, which has a reserve for that.
//!
//! Holds who makes room and when. Values are refused at once; what they wait for is done behind their backs. Invariant: whoever
//! makes room holds no guard, and empties one segment at a time.

use thermocline_tiers::{Error, Guard, Result};

use crate::{
    choice::Effort,
    compact::{Compacted, Compaction},
    engine::Core,
    pace::Pace,
};

/// Whether what failed lacked room on the disk, or a segment slot: what is dead gives either back.
pub(crate) fn is_full(error: &Error) -> bool {
    error.is_disk_full() || matches!(error, Error::Full { .. })
}

/// So many segments are emptied for one removal, at most.
const TRIES: usize = 64;

impl Core {
    /// Has room made behind the callers' backs if that is what a write lacked.
    #[cold]
    #[inline(never)]
    pub(crate) fn told_of(&self, refused: Error) -> Error {
        if is_full(&refused) {
            self.wake_compactor();
        }
        refused
    }

    /// Removes again after room was made, for a removal that found none.
    #[cold]
    #[inline(never)]
    pub(crate) fn with_room_on_disk<R>(&self, refused: Error, mut remove: impl FnMut() -> Result<R>) -> Result<R> {
        let mut refused = self.told_of(refused);
        for _ in 0..TRIES {
            // Inside `read` nobody can wait for all readers.
            if !refused.is_disk_full() || Guard::is_pinned() {
                break;
            }
            let has_emptied = self.empty_on_full_disk(&mut self.compaction())?;
            match remove() {
                Err(error) if error.is_disk_full() && has_emptied.is_some() => refused = error,
                done => return done,
            }
        }
        Err(refused)
    }

    /// Empties the segment that gives most, if any does; what that did.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    pub(crate) fn empty_on_full_disk(&self, compaction: &mut Compaction) -> Result<Option<Compacted>> {
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        match self.compact_chosen(compaction, Effort::Pressed, Pace::Full) {
            // The disk has become full just now: from here on it is done one by one.
            Err(error) if error.is_disk_full() => self.compact_chosen(compaction, Effort::Pressed, Pace::Full),
            done => done,
        }
    }

    /// Has what went given back at once if it is short; on a full disk it is taken for the reserve, before anybody else has it.
    pub(crate) fn take_back_reserve(&self) {
        let is_full = self.log.is_full();
        if is_full || self.log.lacks_slots() {
            Guard::wait_for_others();
            self.log.give_back();
        }
        if is_full {
            // Whoever writes next hears of it.
            let _ = self.log.prepare();
        }
    }
}
