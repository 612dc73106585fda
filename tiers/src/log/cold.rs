//! Cold segments: where compaction's copies go, by the time that they have left to live.
//!
//! Holds those that are open, and the way a copy gets there. Never knows what is copied or why. Invariant: what expires at about the
//! same time stands together as far as there are segments for that, so that it goes together, and is not copied again.

use std::sync::atomic::Ordering;

use super::{
    Log,
    append::purpose_of,
    deadlines::{CLASSES, class_of},
    format::RECORDS_START,
    map::STEP_BYTES,
    record::{NewRecord, Placing},
    segment::SharedSegment,
    space::Purpose,
};
use crate::{Result, slot::Location};

/// So many are open at most; who finds none of his class then shares the one of the next.
const OPEN_MAX: usize = 4;
/// The class of what never expires: behind those of deadlines.
const LASTING: usize = CLASSES;

/// The segments that take copies.
#[derive(Debug, Default)]
pub struct Cold(Vec<Open>);

/// A segment that takes copies of a class of records, and where the next one goes.
#[derive(Debug)]
struct Open {
    class: usize,
    segment: SharedSegment,
    end: u64,
    /// What is in front of it was flushed.
    flushed: u64,
}

impl Open {
    fn fits(&self, bytes: u64) -> bool {
        self.end + bytes <= self.segment.capacity
    }
}

impl Cold {
    /// Whether a segment takes copies.
    pub(super) fn has(&self, number: u64) -> bool {
        self.0.iter().any(|open| open.segment.number == number)
    }

    /// Adds nothing more where it is not known what the disk has.
    pub fn leave_unflushed(&mut self) {
        self.0.retain(|open| open.flushed == open.end);
    }

    /// Of those that have room for so many bytes the one whose class is the nearest.
    fn nearest(&self, class: usize, bytes: u64) -> Option<usize> {
        let open = self.0.iter().enumerate().filter(|(_, open)| open.fits(bytes));
        open.min_by_key(|(_, open)| open.class.abs_diff(class)).map(|(at, _)| at)
    }
}

impl Log {
    /// Copies a record to one of `cold`, which are made, or made anew, when they are needed; `packs` says of a new one that whatever
    /// shrinks is compressed on its way there. The copy counts for recovery from here on.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Full`](crate::Error::Full).
    pub fn copy_cold(&self, cold: &mut Cold, record: &NewRecord<'_>, packs: bool, now_ms: u64) -> Result<Location> {
        let bytes = record.bytes();
        let at = self.open_cold(cold, record, packs, now_ms)?;
        let open = &mut cold.0[at];
        open.segment.make_ready(open.end + bytes)?;
        open.segment.place(&self.keys, open.end, record, Placing::Commit)?;
        let placed = self.placed(record, &open.segment, open.end);
        open.end += bytes;
        Ok(placed.location)
    }

    /// Which one a record goes to: the one of its class if there is one, or can be.
    fn open_cold(&self, cold: &mut Cold, record: &NewRecord<'_>, packs: bool, now_ms: u64) -> Result<usize> {
        let bytes = record.bytes();
        let class = match record.header.deadline_ms {
            0 => LASTING,
            deadline_ms => class_of(deadline_ms.saturating_sub(now_ms)),
        };
        if let Some(at) = cold.0.iter().position(|open| open.class == class && !open.fits(bytes)) {
            self.seal_one(cold.0.swap_remove(at))?;
        }
        // Where there is little room all share one.
        let is_short = || self.space.is_bounded() || self.is_full() || self.lacks_slots();
        match cold.nearest(class, bytes) {
            Some(at) if cold.0[at].class == class || cold.0.len() == OPEN_MAX || is_short() => return Ok(at),
            // None of them has room, and there are enough of them.
            None if cold.0.len() == OPEN_MAX || is_short() => self.seal_cold(cold)?,
            _ => {}
        }
        let sizes = (RECORDS_START + bytes, self.space.cold_bytes(bytes));
        // What is kept for copies is for those that have no other place.
        let purpose = if cold.nearest(class, bytes).is_none() { Purpose::Copied } else { purpose_of(record) };
        let made = self.create_segment(&mut self.lock_roll(), sizes, STEP_BYTES, purpose, packs);
        let segment = match (made, cold.nearest(class, bytes)) {
            (Err(_), Some(at)) => return Ok(at),
            (made, _) => made?,
        };
        segment.dead.is_cold.store(true, Ordering::Relaxed);
        cold.0.push(Open { class, segment, end: RECORDS_START, flushed: RECORDS_START });
        Ok(cold.0.len() - 1)
    }

    /// Makes the copies in `cold` durable.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io): the next process will not believe what it finds there, and nothing should be added.
    pub fn flush_cold(&self, cold: &mut Cold) -> Result<()> {
        cold.0.iter_mut().try_for_each(|open| self.flush_one_cold(open))
    }

    fn flush_one_cold(&self, open: &mut Open) -> Result<()> {
        if open.flushed == open.end {
            return Ok(());
        }
        open.segment.flush().inspect_err(|_| self.note_doubt(open.segment.number))?;
        // Nobody is told to look for copies in a file that was cut, or that goes with this process.
        open.segment.check_named(&*open.segment.file()?)?;
        open.segment.check_length()?;
        open.segment.note_flushed(open.end)?;
        open.flushed = open.end;
        Ok(())
    }

    /// Ends the cold segments: nothing is added to them any more, and what they do not need of their files is given back.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn seal_cold(&self, cold: &mut Cold) -> Result<()> {
        while let Some(open) = cold.0.pop() {
            self.seal_one(open)?;
        }
        Ok(())
    }

    fn seal_one(&self, mut open: Open) -> Result<()> {
        self.flush_one_cold(&mut open)?;
        let Open { segment, end, .. } = open;
        segment.settle(end);
        segment.trim(end)?;
        segment.flush()?;
        segment.release();
        self.queue_for_hint(&segment);
        Ok(())
    }

    /// Ends the cold segments unless there is one that may take so many bytes more, so that a new one is made of what they give back.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn seal_cold_for(&self, cold: &mut Cold, bytes: u64) -> Result<()> {
        match &cold.0[..] {
            [open] if open.fits(bytes) => Ok(()),
            _ => self.seal_cold(cold),
        }
    }
}
