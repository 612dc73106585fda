//! Appending: reserve a place, fill it, roll to the next segment when one is full.
//!
//! Holds the writers' side of the log. Never knows what a slot names. Invariant: what was reserved is filled, voided, or
//! remembered as unsettled.

use std::{
    io,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use super::{
    AHEAD_BYTES, Log, Roll,
    flush::Pending,
    format::{self, RECORDS_START, RecordKind, SegmentHeader},
    map::STEP_BYTES,
    record::{NewRecord, Placing},
    segment::{self, Segment, SharedSegment},
    space::Purpose,
    tail::{Position, Tail},
};
use crate::{
    Error, Guard, Result,
    slot::{Address, Kind, Location},
};

/// A record that was placed and that nobody sees yet.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// What a slot is to name.
    pub location: Location,
    /// Whether [`Log::prepare`] should be called soon, by somebody who has the time.
    pub wants_ahead: bool,
}

/// How a write is to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// The process's death.
    Kill,
    /// A power cut.
    PowerCut,
}

impl Log {
    /// Appends a record. On return it can be read by its location, and survives the death of the process; a power cut
    /// only after [`flush`](Self::flush).
    ///
    /// One copy, no lock and no system call while the segment is ready.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::ReadOnly`], [`Error::Suspended`]; [`Error::Io`] when the disk refuses. Nobody
    /// can find anything of a record that was refused, in this process or the next.
    #[inline]
    pub fn append(&self, record: &NewRecord<'_>) -> Result<Placed> {
        self.place(record, Placing::Commit)
    }

    /// Appends a record and makes it durable. Concurrent callers share one write, if their places are side by side, and
    /// one flush. Inside is what the flush said: if that failed the record is there and may or may not be durable.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_durable(&self, record: &NewRecord<'_>) -> Result<(Placed, Result<()>)> {
        self.check(record)?;
        let bytes = record.bytes();
        let is_large = self.is_large(bytes);
        let (segment, offset) = if is_large {
            (self.create_alone(bytes)?, RECORDS_START)
        } else {
            self.reserve_shared(bytes, purpose_of(record))?
        };
        let pending = Pending { segment: segment.clone(), offset, bytes: record.encode(&self.keys, Placing::Commit) };
        let (written, durable) = self.flush_with(Some(pending));
        // Where a page of the map was missing nobody can read what was written to the file.
        if let Err(error) = written.and_then(|()| if segment.is_cut() { segment.check_length() } else { Ok(()) }) {
            self.give_up(&segment, offset, bytes);
            return Err(error);
        }
        if is_large {
            segment.settle(offset + bytes);
            segment.release();
            self.queue_for_hint(&segment);
        }
        Ok((self.placed(record, &segment, offset), durable))
    }

    /// Appends a record that recovery ignores until [`commit`](Self::commit) makes it count.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_provisional(&self, record: &NewRecord<'_>) -> Result<Placed> {
        self.place(record, Placing::Provisional)
    }

    /// Makes a provisional record count.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn commit(&self, at: Location, record: &NewRecord<'_>) -> Result<()> {
        let guard = Guard::pin();
        let (segment, offset) = self.find(at, &guard)?;
        segment.commit(offset, record, &self.keys).inspect_err(|_| {
            self.leave_cut(segment);
            self.leave_unsettled(segment, offset);
        })
    }

    /// Makes a record nothing: one that lost its slot, or could not be published.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn revoke(&self, at: Location, record: &NewRecord<'_>) -> Result<()> {
        let guard = Guard::pin();
        let (segment, offset) = self.find(at, &guard)?;
        let voided = segment.make_void_if_there(&self.keys, offset, record.bytes());
        voided.inspect_err(|_| self.leave_unsettled(segment, offset))?;
        segment.dead.note_voided(record.bytes(), &record.header);
        Ok(())
    }

    /// Appends records side by side, with one reservation for as many as a quarter of a segment takes, and returns them
    /// in order; fewer than `records` with the error that came between. Those that are to survive a power cut still
    /// need a [`flush`](Self::flush): they are written in a way that makes it cheap.
    pub fn append_many(&self, records: &[NewRecord<'_>], survives: Survives) -> (Vec<Placed>, Result<()>) {
        let placing = match survives {
            Survives::Kill => Placing::Commit,
            Survives::PowerCut => Placing::Written,
        };
        let mut placed = Vec::with_capacity(records.len());
        let mut append = || -> Result<()> {
            records.iter().try_for_each(|record| self.check(record))?;
            while placed.len() < records.len() {
                let rest = &records[placed.len()..];
                match self.batch(rest) {
                    (1, _) => placed.push(self.place(&rest[0], placing)?),
                    (count, bytes) => self.place_batch(&rest[..count], bytes, placing, &mut placed)?,
                }
            }
            Ok(())
        };
        let result = append();
        (placed, result)
    }

    fn place_batch(
        &self,
        batch: &[NewRecord<'_>],
        bytes: u64,
        placing: Placing,
        placed: &mut Vec<Placed>,
    ) -> Result<()> {
        let guard = Guard::pin();
        let (segment, start) = self.reserve(bytes, purpose_of(&batch[0]), &guard)?;
        let (count, result) = segment.place_side_by_side(&self.keys, start, batch, placing);
        let mut offset = start;
        for record in &batch[..count] {
            placed.push(self.placed(record, segment, offset));
            offset += record.bytes();
        }
        if result.is_err() {
            self.give_up(segment, offset, start + bytes - offset);
        }
        result
    }

    #[inline]
    pub(super) fn placed(&self, record: &NewRecord<'_>, segment: &Segment, offset: u64) -> Placed {
        segment.dead.note_placed(record.bytes(), &record.header);
        let kind = if record.header.kind == RecordKind::Tombstone { Kind::Removed } else { Kind::Log };
        let location = Location::new(kind, Address::new(segment.base, offset), false);
        Placed { location, wants_ahead: self.wants_ahead(segment, offset + record.bytes()) }
    }

    /// Whether a record of so many bytes gets a segment of its own.
    #[inline]
    fn is_large(&self, bytes: u64) -> bool {
        bytes > self.options.segment_bytes / 2
    }

    /// Makes a void of a reservation that could not be filled, so that nobody takes what is there for damage.
    #[cold]
    fn give_up(&self, segment: &Segment, offset: u64, bytes: u64) {
        segment.dead.note_void(bytes);
        // What is not ready yet will be zeroed.
        if offset + bytes > segment.ready() || segment.make_void_if_there(&self.keys, offset, bytes).is_err() {
            self.leave_unsettled(segment, offset);
        }
        self.leave_cut(segment);
    }

    /// Goes on in another segment if this one was cut: what is written to it is lost.
    #[cold]
    fn leave_cut(&self, segment: &Segment) {
        let tail = self.tail();
        if tail.is_somewhere() && tail.base() == segment.base && segment.check_length().is_err() {
            // Who writes next tries again, and hears of it.
            let _ = self.roll_from(tail, 0, Purpose::Written);
        }
    }

    /// Remembers a hole that is no void: recovery calls it damage below `flushed`, so that may not be noted from here on.
    fn leave_unsettled(&self, segment: &Segment, offset: u64) {
        self.unsettled.fetch_min(Position::of(segment, offset).0, Ordering::Relaxed);
    }

    /// How many of `records` one reservation takes, and their bytes. At most a quarter of a segment.
    fn batch(&self, records: &[NewRecord<'_>]) -> (usize, u64) {
        let (mut count, mut bytes) = (0, 0);
        for record in records {
            if count > 0 && bytes + record.bytes() > self.options.segment_bytes / 4 {
                break;
            }
            (count, bytes) = (count + 1, bytes + record.bytes());
        }
        (count, bytes)
    }

    /// Whether a record could be appended, as far as that can be known.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::ReadOnly`], [`Error::Suspended`].
    #[inline]
    pub fn check(&self, record: &NewRecord<'_>) -> Result<()> {
        let fits = record.key.len() <= format::KEY_BYTES_MAX && record.value.len() <= format::VALUE_BYTES_MAX;
        if fits && !self.options.read_only && !self.flusher.has_failed() { Ok(()) } else { Err(self.refuse(record)) }
    }

    /// Why [`check`](Self::check) refuses.
    #[cold]
    fn refuse(&self, record: &NewRecord<'_>) -> Error {
        let too_large = |what, bytes: usize, bytes_max: usize| Error::TooLarge {
            what,
            bytes: bytes as u64,
            bytes_max: bytes_max as u64,
        };
        if record.key.len() > format::KEY_BYTES_MAX {
            too_large("key", record.key.len(), format::KEY_BYTES_MAX)
        } else if record.value.len() > format::VALUE_BYTES_MAX {
            too_large("value", record.value.len(), format::VALUE_BYTES_MAX)
        } else if self.options.read_only {
            Error::ReadOnly { directory: self.directory() }
        } else {
            self.flusher.suspended(&*self.medium)
        }
    }

    #[inline]
    fn place(&self, record: &NewRecord<'_>, placing: Placing) -> Result<Placed> {
        self.check(record)?;
        let bytes = record.bytes();
        if self.is_large(bytes) {
            return self.place_alone(record, bytes, placing);
        }
        let guard = Guard::pin();
        let (segment, offset) = self.reserve(bytes, purpose_of(record), &guard)?;
        if let Err(error) = segment.place(&self.keys, offset, record, placing) {
            self.give_up(segment, offset, bytes);
            return Err(error);
        }
        Ok(self.placed(record, segment, offset))
    }

    /// Places a record that gets a segment of its own.
    fn place_alone(&self, record: &NewRecord<'_>, bytes: u64, placing: Placing) -> Result<Placed> {
        let segment = self.create_alone(bytes)?;
        if let Err(error) = segment.place(&self.keys, RECORDS_START, record, placing) {
            self.give_up(&segment, RECORDS_START, bytes);
            return Err(error);
        }
        segment.settle(RECORDS_START + bytes);
        segment.release();
        self.queue_for_hint(&segment);
        Ok(self.placed(record, &segment, RECORDS_START))
    }

    #[inline]
    fn wants_ahead(&self, segment: &Segment, end: u64) -> bool {
        let ready = segment.ready();
        let lacks_spare = end > segment.capacity / 2 && !self.has_spare.load(Ordering::Relaxed);
        lacks_spare || end + AHEAD_BYTES / 2 > ready && ready < segment.capacity
    }

    /// As [`reserve`](Self::reserve), for somebody who keeps the segment for longer than a guard.
    fn reserve_shared(&self, bytes: u64, purpose: Purpose) -> Result<(SharedSegment, u64)> {
        let guard = Guard::pin();
        let (segment, offset) = self.reserve(bytes, purpose, &guard)?;
        let shared = self.table.share(segment.base, &guard);
        Ok((shared.expect("a segment with a place that is not filled stays"), offset))
    }

    /// Takes `bytes` of the log for the caller alone, ready to be written.
    #[inline]
    fn reserve<'a>(&'a self, bytes: u64, purpose: Purpose, guard: &'a Guard) -> Result<(&'a Segment, u64)> {
        loop {
            let open = self.active(guard).filter(|(segment, tail)| tail.offset() <= segment.capacity);
            // Without reserving, so that attempts that fail do not move the tail on for ever.
            let Some((segment, tail)) = open else {
                self.roll_from(self.tail(), bytes, purpose)?;
                continue;
            };
            let end = tail.offset() + bytes;
            if purpose == Purpose::Written && self.is_for_removals(end, segment.capacity) {
                self.check_spare()?;
            }
            // Before reserving, so that a full disk leaves no hole.
            if end > segment.ready() && end <= segment.capacity {
                segment.make_ready(end).inspect_err(|_| self.leave_cut(segment))?;
            }
            // AcqRel: the segment was put into the table before the tail named it (see `tail`); Release so
            // that whoever reserves behind us sees what we saw.
            let mine = Tail(self.tail.fetch_add(bytes / 8, Ordering::AcqRel));
            let segment = if mine.base() == tail.base() { Some(segment) } else { self.table.get(mine.base(), guard) };
            let end = mine.offset() + bytes;
            if let Some(segment) = segment.filter(|segment| end <= segment.capacity && mine.is_somewhere()) {
                if let Err(error) = segment.make_ready(end) {
                    self.give_up(segment, mine.offset(), bytes);
                    return Err(error);
                }
                return Ok((segment, mine.offset()));
            }
            // Who is the first that does not fit knows where the last record ends.
            if let Some(segment) =
                self.table.get(mine.base(), guard).filter(|segment| mine.offset() <= segment.capacity)
            {
                segment.settle(mine.offset());
            }
            self.roll_from(mine, bytes, purpose)?;
        }
    }

    pub(super) fn lock_roll(&self) -> MutexGuard<'_, Roll> {
        // Every change of it is one assignment after everything that can fail.
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the tail from the segment of `seen`, where `bytes` did not fit, to the next one.
    #[cold]
    pub(super) fn roll_from(&self, seen: Tail, bytes: u64, purpose: Purpose) -> Result<()> {
        let guard = Guard::pin();
        let mut roll = self.lock_roll();
        let now = self.tail();
        let has_moved = now.base() != seen.base() || now.offset() < seen.offset();
        if has_moved {
            return Ok(());
        }
        let (segment, offset) = match roll.spare.take() {
            Some(spare) => spare,
            None => {
                // Removals can do without, for as long as there is room.
                self.make_reserve(&mut roll)
                    .or_else(|error| if purpose == Purpose::Removed { Ok(()) } else { Err(error) })?;
                let sizes = (RECORDS_START + bytes, self.options.segment_bytes);
                (self.create_segment(&mut roll, sizes, STEP_BYTES, purpose, false)?, RECORDS_START)
            }
        };
        if segment.found_bytes == 0 && offset + bytes > segment.capacity {
            // On a full disk it may be a small one.
            let error = Error::io("create", segment.path(), 0)(io::ErrorKind::StorageFull.into());
            roll.spare = Some((segment, offset));
            return Err(error);
        }
        let resumed = if segment.found_bytes > 0 { segment.resume(offset) } else { Ok(()) };
        self.flusher.add(segment.clone());
        if let Err(error) = resumed.and_then(|()| segment.make_ready((offset + bytes).min(segment.capacity))) {
            roll.spare = Some((segment, offset));
            return Err(error);
        }
        // Relaxed: whoever believes the old hint asks once too often, or one write too late.
        self.has_spare.store(false, Ordering::Relaxed);
        // Release: pairs with the Acquire in `tail`.
        let last = Tail(self.tail.swap(Tail::new(segment.base, offset).0, Ordering::Release));
        if let Some(full) = self.table.share(now.base(), &guard).filter(|_| now.is_somewhere()) {
            if last.offset() <= full.capacity {
                full.settle(last.offset());
            }
            full.release();
            self.queue_for_hint(&full);
        }
        Ok(())
    }

    /// Makes a segment, in the table; on a full disk one of `least` bytes may do. It is to be flushed once it gets a record, and not before.
    pub(super) fn create_segment(
        &self,
        roll: &mut Roll,
        (least, capacity): (u64, u64),
        ready: u64,
        purpose: Purpose,
        is_packed: bool,
    ) -> Result<SharedSegment> {
        self.space.check(capacity, purpose, || self.directory())?;
        let (number, ordinal) = (roll.next_number, roll.next_ordinal);
        let slots = segment::slots_of(capacity);
        let base = self.take_slots(slots, purpose, ordinal)?;
        let create = |capacity: u64, reserve: Option<&str>| {
            let header = SegmentHeader { store: self.identity.id, number, capacity, is_packed };
            let ready = ready.min(capacity);
            Segment::create(self.medium.clone(), header, (ordinal, base), ready, self.space.share(0), reserve)
        };
        let created = match self.note_room(create(capacity, None)) {
            Err(refused) if refused.is_disk_full() => self.create_on_full(refused, purpose, (least, capacity), create),
            created => created,
        };
        let segment = Arc::new(created.inspect_err(|_| self.table.give_slots(base..base + slots))?);
        // On a full disk it may be a smaller one.
        self.table.give_slots(base + segment.slots()..base + slots);
        (roll.next_ordinal, roll.next_number) = (ordinal + 1, number + 1);
        self.table.put(&segment);
        // Release: pairs with the Acquire in `quiescer`; the table has the segment.
        self.ordinals.store(roll.next_ordinal, Ordering::Release);
        Ok(segment)
    }

    /// Takes segment slots; writers leave those of one segment to copies, which make others free.
    fn take_slots(&self, count: usize, purpose: Purpose, ordinal: u64) -> Result<usize> {
        let left = if purpose == Purpose::Copied { 0 } else { segment::slots_of(self.options.segment_bytes) };
        let full = |(slots, slots_max): (usize, usize)| Error::Full {
            directory: self.directory(),
            slots: slots as u64,
            slots_max: slots_max as u64,
        };
        let taken = if ordinal < Position::ORDINALS {
            self.table.take_slots(count, left)
        } else {
            Err((Address::SLOTS, Address::SLOTS))
        };
        taken.map_err(full)
    }

    /// A segment for one large record.
    fn create_alone(&self, bytes: u64) -> Result<SharedSegment> {
        let capacity = RECORDS_START + bytes;
        self.space.check_record(bytes)?;
        let segment = {
            let mut roll = self.lock_roll();
            self.make_reserve(&mut roll)?;
            self.create_segment(&mut roll, (capacity, capacity), capacity, Purpose::Alone, false)?
        };
        segment.dead.set_alone();
        self.flusher.add(segment.clone());
        Ok(segment)
    }

    /// Makes memory ahead of the tail ready, and the next segment when this one is half full. Notes what flushes of single
    /// writes have covered.
    ///
    /// # Errors
    /// [`Error::Io`]; a writer that needs what is missing meets the same error.
    pub fn prepare(&self) -> Result<()> {
        let Some((segment, tail)) = self.share_active() else { return Ok(()) };
        // Relaxed: only the thread that prepares looks at what it noted.
        let durable = self.durable.load(Ordering::Relaxed);
        if self.noted.swap(durable, Ordering::Relaxed) < durable {
            self.note_flushed(&self.flusher.unflushed(), Position(durable))?;
        }
        let end = tail.offset().min(segment.capacity);
        segment.make_ready((end + AHEAD_BYTES).min(segment.capacity))?;
        self.prepare_spare(end > segment.capacity / 2)
    }
}

/// What room is asked for.
pub(super) fn purpose_of(record: &NewRecord<'_>) -> Purpose {
    if record.header.kind == RecordKind::Tombstone { Purpose::Removed } else { Purpose::Written }
}
