//! The reserve: a file that is kept so that a disk which fills up can be emptied.
//!
//! Holds how the file is made, used and given back; it has no record, and a next process removes it. Invariant: values are written
//! to the last part of the log only when there is a reserve and a segment to go on in.

use std::{io::ErrorKind, sync::atomic::Ordering};

use super::{
    AHEAD_BYTES, Log, Roll,
    format::RECORDS_START,
    map::STEP_BYTES,
    segment::{self, Segment},
    space::Purpose,
};
use crate::{Error, Result};

/// Its name: that of something unfinished, so that whoever opens the store removes it.
pub(super) const RESERVE: &str = "reserve.new";
/// Removals have this part of the segment that is appended to for themselves when the disk has no room for another.
const REMOVALS_PART: u64 = 8;
/// On a full disk smaller segments do: each try takes this part of the one before.
const SMALLER: u64 = 4;
const TRIES: u32 = 4;
/// None is smaller than this.
const BYTES_MIN: u64 = 16 << 10;

impl Log {
    /// Whether the disk refused room for a file, and has not given it since.
    pub fn is_full(&self) -> bool {
        // Relaxed: a hint for those who make room.
        self.is_full.load(Ordering::Relaxed)
    }

    /// Bytes that the reserve takes.
    pub(super) fn reserve_bytes(&self) -> u64 {
        // Relaxed, here and below: it changes under the lock on `roll`.
        self.reserve.load(Ordering::Relaxed)
    }

    /// Whether only removals may end at `end` of a segment of so many bytes, unless there is one to go on in.
    #[inline]
    pub(super) fn is_for_removals(&self, end: u64, capacity: u64) -> bool {
        end > capacity - capacity / REMOVALS_PART && !self.has_spare.load(Ordering::Relaxed)
    }

    /// Has a segment to go on in, and the reserve before it.
    ///
    /// # Errors
    /// [`Error::Io`]: values have no room.
    #[cold]
    pub(super) fn check_spare(&self) -> Result<()> {
        // A ceiling has room left below it.
        if self.space.is_bounded() {
            return Ok(());
        }
        let mut roll = self.lock_roll();
        if roll.spare.is_none() { self.make_spare(&mut roll, STEP_BYTES) } else { Ok(()) }
    }

    /// Makes the segment to go on in. Under a ceiling the caller has looked whether there is room.
    pub(super) fn make_spare(&self, roll: &mut Roll, ready: u64) -> Result<()> {
        self.make_reserve(roll)?;
        let spare = self.create_segment(roll, (0, self.options.segment_bytes), ready, Purpose::Written, false)?;
        roll.spare = Some((spare, RECORDS_START));
        self.has_spare.store(true, Ordering::Relaxed);
        self.is_full.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the reserve, if there is none. Under a ceiling there is room left instead.
    ///
    /// # Errors
    /// [`Error::Io`], for the segment that cannot be made before it.
    pub(super) fn make_reserve(&self, roll: &mut Roll) -> Result<()> {
        // A new store has nothing that could be given back.
        if self.space.is_bounded() || self.reserve_bytes() > 0 || roll.next_ordinal == 0 {
            return Ok(());
        }
        let bytes = self.options.segment_bytes;
        // Left behind by an attempt that failed.
        let _ = self.medium.remove(RESERVE);
        let path = format!("{}/{}", self.directory(), segment::name_of(roll.next_number));
        let made =
            self.medium.create(RESERVE).and_then(|file| file.allocate(bytes)).map_err(Error::io("create", path, 0));
        self.note_room(made).inspect_err(|_| {
            let _ = self.medium.remove(RESERVE);
        })?;
        self.reserve.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Remembers that the disk is full if that is what `made` says.
    pub(super) fn note_room<T>(&self, made: Result<T>) -> Result<T> {
        made.inspect_err(|error| {
            if error.is_disk_full() {
                self.is_full.store(true, Ordering::Relaxed);
            }
        })
    }

    /// Makes a segment of `least` bytes or more where the disk refused one of `bytes`: copies take the reserve, and writers what is left
    /// beside it.
    pub(super) fn create_on_full(
        &self,
        refused: Error,
        purpose: Purpose,
        (least, bytes): (u64, u64),
        create: impl Fn(u64, Option<&str>) -> Result<Segment>,
    ) -> Result<Segment> {
        if self.space.is_bounded() {
            return Err(refused);
        }
        let reserved = self.reserve_bytes();
        if purpose == Purpose::Copied && reserved >= least {
            let created = create(bytes.min(reserved), Some(RESERVE));
            // Used, or removed with what could not be made of it.
            self.reserve.store(0, Ordering::Relaxed);
            return created;
        }
        let smaller = (1..TRIES).map(|tries| (bytes / SMALLER.pow(tries)) & !7);
        for bytes in smaller.filter(|bytes| *bytes >= least.max(BYTES_MIN)) {
            match create(bytes, None) {
                Err(error) if error.is_disk_full() => {}
                created => return created,
            }
        }
        let part = (reserved / REMOVALS_PART).max(BYTES_MIN) & !7;
        if purpose != Purpose::Removed || reserved < self.options.segment_bytes || part < least {
            return Err(refused);
        }
        // A removal gives back more than it takes: a part of the reserve is its.
        let cut = self.medium.open(RESERVE, true).and_then(|file| file.set_bytes(reserved - part));
        cut.map_err(Error::io("trim", format!("{}/{RESERVE}", self.directory()), reserved - part))?;
        self.reserve.store(reserved - part, Ordering::Relaxed);
        create(part, None)
    }

    /// Gives the reserve back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn remove_reserve(&self) -> Result<()> {
        let _roll = self.lock_roll();
        if self.reserve.swap(0, Ordering::Relaxed) == 0 {
            return Ok(());
        }
        match self.medium.remove(RESERVE) {
            // Somebody else has removed it: then it takes nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(Error::io("remove", format!("{}/{RESERVE}", self.directory()), 0)),
        }
    }

    /// Has the next segment made before it is needed, and the reserve. Under a ceiling room is made first, behind the writers'
    /// backs, and whoever waits for it comes first.
    pub(super) fn prepare_spare(&self, lacks_spare: bool) -> Result<()> {
        let mut roll = self.lock_roll();
        self.make_reserve(&mut roll)?;
        let may = !self.space.is_bounded() || !self.space.is_wanted() && self.has_room(self.options.segment_bytes);
        if lacks_spare && roll.spare.is_none() && may {
            self.make_spare(&mut roll, AHEAD_BYTES)?;
        }
        Ok(())
    }
}
