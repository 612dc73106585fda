//! The log tier: an append-only sequence of segments in one directory.
//!
//! Holds where the next record goes, and reads records back by their location. Never knows which record of a
//! key is the newest, nor the time. Invariant: a range of the log has one writer, whoever
//! reserved it by `fetch_add` on the tail.

pub mod format;
pub mod medium;
pub mod scan;

mod flush;
mod map;
mod on_demand;
mod open;
mod segment;

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crossbeam_utils::CachePadded;

use flush::Flusher;
use format::{HEADER_BYTES, Identity, Note, RECORDS_START, SegmentHeader};
pub use format::{Header, Keys, RecordKind};
use map::STEP_BYTES;
use medium::{File, Lock, Medium};
pub use open::{Options, Scanned};
pub use segment::{NewRecord, Record};
use segment::{Placing, Segment, SharedSegment};

use crate::{
    Error, Result,
    slot::{Address, Kind, Location},
};

/// Bytes ahead of the tail that the upkeep thread keeps ready.
const AHEAD_BYTES: u64 = 4 * STEP_BYTES;
const TABLE_PART: usize = 256;
/// Where the two notes stand in the file `lock`.
const DOUBT_AT: u64 = 0;
const TIME_AT: u64 = 32;

/// Where the log ends: a segment slot and an offset in units of 8 bytes, in one word, so that one `fetch_add`
/// reserves in a segment that cannot change underneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tail(u64);

impl Tail {
    const UNIT_BITS: u32 = 47;
    /// Before the first segment: nothing fits.
    const NOWHERE: Self = Self(1 << (Self::UNIT_BITS - 1));

    fn new(base: usize, offset: u64) -> Self {
        Self(((base as u64) << Self::UNIT_BITS) | (offset / 8))
    }

    /// Whether there is a segment to append to.
    fn is_somewhere(self) -> bool {
        self.0 & Self::NOWHERE.0 == 0
    }

    #[inline]
    fn base(self) -> usize {
        (self.0 >> Self::UNIT_BITS) as usize
    }

    #[inline]
    fn offset(self) -> u64 {
        (self.0 & ((1 << Self::UNIT_BITS) - 1)) * 8
    }
}

/// The segments by segment slot. Grows by parts; a segment, once there, stays.
#[derive(Debug)]
struct Table(Box<[OnceLock<Part>]>);

type Part = Box<[OnceLock<SharedSegment>; TABLE_PART]>;

impl Table {
    fn new() -> Self {
        Self((0..Address::SLOTS / TABLE_PART).map(|_| OnceLock::new()).collect())
    }

    #[inline]
    fn get(&self, slot: usize) -> Option<&SharedSegment> {
        self.0.get(slot / TABLE_PART)?.get()?[slot % TABLE_PART].get()
    }

    fn set(&self, segment: &SharedSegment) {
        for slot in segment.base..segment.base + segment.slots() {
            let part = self.0[slot / TABLE_PART].get_or_init(|| Box::new([const { OnceLock::new() }; TABLE_PART]));
            assert!(part[slot % TABLE_PART].set(segment.clone()).is_ok(), "a segment slot is given out once");
        }
    }
}

/// What changes only when segments come: guarded by one lock, held across their creation.
#[derive(Debug, Default)]
struct Roll {
    next_slot: usize,
    next_number: u64,
    /// A segment that is ready before it is needed, and where its records go on.
    spare: Option<(SharedSegment, u64)>,
}

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
    /// A power cut: flushed before the call returns.
    PowerCut,
}

impl Survives {
    fn placing(self) -> Placing {
        match self {
            Self::Kill => Placing::Commit,
            Self::PowerCut => Placing::Written,
        }
    }
}

/// Sums over the log's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Files.
    pub segments: u64,
    /// Their lengths in bytes, reserved space included.
    pub bytes: u64,
    /// Whether records are read and written through maps.
    pub mapped: bool,
}

/// The log of one store.
#[derive(Debug)]
pub struct Log {
    medium: Arc<dyn Medium>,
    options: Options,
    identity: Identity,
    keys: Keys,
    tail: CachePadded<AtomicU64>,
    table: Table,
    roll: Mutex<Roll>,
    flusher: Flusher,
    /// A tail such that every writer that was active when the log ended there has finished.
    quiescent: Arc<AtomicU64>,
    /// A tail below which everything was flushed, and how far that was noted by [`prepare`](Self::prepare).
    durable: AtomicU64,
    noted: AtomicU64,
    /// A tail from which on there may be a hole that is no void, because the disk refused that too.
    unsettled: AtomicU64,
    /// The file `lock`, for notes to the next process.
    notes: Box<dyn File>,
    reads_by_calls: bool,
    /// Whether there is a segment to roll to; a hint for those who ask for one.
    has_spare: AtomicBool,
    /// Found at open, in the order of their numbers.
    found: Vec<SharedSegment>,
    /// Keeps everybody else out while the log lives.
    _lock: Lock,
}

impl Log {
    /// The keys derived from the store's secret.
    #[inline]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The store's directory, for messages.
    pub fn directory(&self) -> String {
        self.medium.directory()
    }

    #[inline]
    fn tail(&self) -> Tail {
        // Acquire: pairs with the Release in `roll_from`; the table knows the segment that the tail names.
        Tail(self.tail.load(Ordering::Acquire))
    }

    /// Appends a record. On return it can be read by its location, and survives the death of the process; a power cut
    /// only after [`flush`](Self::flush).
    ///
    /// One copy, no lock and no system call while the segment is ready and `survives` is
    /// [`Kill`](Survives::Kill).
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::ReadOnly`], [`Error::Suspended`]; [`Error::Io`] when the disk refuses. Nobody
    /// can find anything of a record that was refused, in this process or the next.
    #[inline]
    pub fn append(&self, record: &NewRecord<'_>, survives: Survives) -> Result<Placed> {
        self.place(record, survives.placing())
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
        let (segment, offset) = self.find(at)?;
        segment.commit(offset, record, &self.keys).inspect_err(|_| self.leave_unsettled(segment, offset))
    }

    /// Makes a record nothing: one that lost its slot, or could not be published.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn revoke(&self, at: Location, record: &NewRecord<'_>) -> Result<()> {
        let (segment, offset) = self.find(at)?;
        let voided = segment.make_void(&self.keys, offset, record.bytes());
        voided.inspect_err(|_| self.leave_unsettled(segment, offset))
    }

    /// Appends records side by side, with one reservation for as many as a quarter of a segment takes, and returns them
    /// in order; fewer than `records` with the error that came between.
    pub fn append_many(&self, records: &[NewRecord<'_>], survives: Survives) -> (Vec<Placed>, Result<()>) {
        let mut placed = Vec::with_capacity(records.len());
        let mut append = || -> Result<()> {
            records.iter().try_for_each(|record| self.check(record))?;
            while placed.len() < records.len() {
                let rest = &records[placed.len()..];
                match self.batch(rest) {
                    (1, _) => placed.push(self.place(&rest[0], survives.placing())?),
                    (count, bytes) => self.place_batch(&rest[..count], bytes, survives.placing(), &mut placed)?,
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
        let (segment, start) = self.reserve(bytes)?;
        let (mut offset, end) = (start, start + bytes);
        for record in batch {
            if let Err(error) = segment.place(&self.keys, offset, record, placing) {
                self.give_up(segment, offset, end - offset);
                return Err(error);
            }
            let location = location_of(record.header.kind, Address::new(segment.base, offset));
            placed.push(Placed { location, wants_ahead: self.wants_ahead(segment, end) });
            offset += record.bytes();
        }
        Ok(())
    }

    /// Makes a void of a reservation that could not be filled, so that nobody takes what is there for damage.
    #[cold]
    fn give_up(&self, segment: &Segment, offset: u64, bytes: u64) {
        // What is not ready yet will be zeroed.
        if offset + bytes > segment.ready() || segment.make_void(&self.keys, offset, bytes).is_err() {
            self.leave_unsettled(segment, offset);
        }
    }

    /// Remembers a hole that is no void: recovery calls it damage below `flushed`, so that may not be noted from here on.
    fn leave_unsettled(&self, segment: &Segment, offset: u64) {
        self.unsettled.fetch_min(Tail::new(segment.base, offset).0, Ordering::Relaxed);
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

    #[inline]
    fn check(&self, record: &NewRecord<'_>) -> Result<()> {
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
        let is_large = bytes > self.options.segment_bytes / 2;
        let alone;
        let (segment, offset) = if is_large {
            alone = self.create_alone(bytes)?;
            (&alone, RECORDS_START)
        } else {
            self.reserve(bytes)?
        };
        if let Err(error) = segment.place(&self.keys, offset, record, placing) {
            self.give_up(segment, offset, bytes);
            return Err(error);
        }
        if is_large {
            segment.release();
        }
        let location = location_of(record.header.kind, Address::new(segment.base, offset));
        Ok(Placed { location, wants_ahead: self.wants_ahead(segment, offset + bytes) })
    }

    #[inline]
    fn wants_ahead(&self, segment: &Segment, end: u64) -> bool {
        let ready = segment.ready();
        let lacks_spare = end > segment.capacity / 2 && !self.has_spare.load(Ordering::Relaxed);
        lacks_spare || end + AHEAD_BYTES / 2 > ready && ready < segment.capacity
    }

    /// Takes `bytes` of the log for the caller alone, ready to be written.
    #[inline]
    fn reserve(&self, bytes: u64) -> Result<(&SharedSegment, u64)> {
        loop {
            let tail = self.tail();
            let open =
                self.table.get(tail.base()).filter(|segment| tail.is_somewhere() && tail.offset() <= segment.capacity);
            // Without reserving, so that attempts that fail do not move the tail on for ever.
            let Some(segment) = open else {
                self.roll_from(tail, bytes)?;
                continue;
            };
            let end = tail.offset() + bytes;
            // Before reserving, so that a full disk leaves no hole.
            if end > segment.ready() && end <= segment.capacity {
                segment.make_ready(end)?;
            }
            // AcqRel: the segment was put into the table before the tail named it (see `tail`); Release so
            // that whoever reserves behind us sees what we saw.
            let mine = Tail(self.tail.fetch_add(bytes / 8, Ordering::AcqRel));
            let segment = if mine.base() == tail.base() { Some(segment) } else { self.table.get(mine.base()) };
            let end = mine.offset() + bytes;
            if let Some(segment) = segment.filter(|segment| end <= segment.capacity && mine.is_somewhere()) {
                if let Err(error) = segment.make_ready(end) {
                    self.give_up(segment, mine.offset(), bytes);
                    return Err(error);
                }
                return Ok((segment, mine.offset()));
            }
            self.roll_from(mine, bytes)?;
        }
    }

    fn lock_roll(&self) -> MutexGuard<'_, Roll> {
        // Every change of it is one assignment after everything that can fail.
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the tail from the segment of `seen`, where `bytes` did not fit, to the next one.
    #[cold]
    fn roll_from(&self, seen: Tail, bytes: u64) -> Result<()> {
        let mut roll = self.lock_roll();
        let now = self.tail();
        let has_moved = now.base() != seen.base() || now.offset() < seen.offset();
        if has_moved {
            return Ok(());
        }
        let (segment, offset) = match roll.spare.take() {
            Some(spare) => spare,
            None => (self.create_segment(&mut roll, self.options.segment_bytes, STEP_BYTES)?, RECORDS_START),
        };
        let resumed = if segment.found_bytes > 0 { segment.resume(offset) } else { Ok(()) };
        self.flusher.add(segment.clone());
        if let Err(error) = resumed.and_then(|()| segment.make_ready((offset + bytes).min(segment.capacity))) {
            roll.spare = Some((segment, offset));
            return Err(error);
        }
        // Relaxed: whoever believes the old hint asks once too often, or one write too late.
        self.has_spare.store(false, Ordering::Relaxed);
        // Release: pairs with the Acquire in `tail`.
        self.tail.store(Tail::new(segment.base, offset).0, Ordering::Release);
        if let Some(full) = self.table.get(now.base()).filter(|_| now.is_somewhere()) {
            full.release();
        }
        Ok(())
    }

    /// Makes a segment, in the table and on the list of what is to be flushed.
    fn create_segment(&self, roll: &mut Roll, capacity: u64, ready: u64) -> Result<SharedSegment> {
        let base = roll.next_slot;
        let slots = capacity.div_ceil(Address::SLOT_BYTES).max(1) as usize;
        if base + slots > Address::SLOTS {
            return Err(Error::Full { directory: self.directory(), segments: base as u64 });
        }
        let header = SegmentHeader { store: self.identity.id, number: roll.next_number, capacity };
        let segment = Arc::new(Segment::create(self.medium.clone(), header, base, ready)?);
        (roll.next_slot, roll.next_number) = (base + slots, roll.next_number + 1);
        self.table.set(&segment);
        self.flusher.add(segment.clone());
        Ok(segment)
    }

    /// A segment for one large record.
    fn create_alone(&self, bytes: u64) -> Result<SharedSegment> {
        let capacity = RECORDS_START + bytes;
        self.create_segment(&mut self.lock_roll(), capacity, capacity)
    }

    /// Makes memory ahead of the tail ready, and the next segment when this one is half full. Notes what flushes of single
    /// writes have covered.
    ///
    /// # Errors
    /// [`Error::Io`]; a writer that needs what is missing meets the same error.
    pub fn prepare(&self) -> Result<()> {
        let tail = self.tail();
        let Some(segment) = self.table.get(tail.base()).filter(|_| tail.is_somewhere()) else { return Ok(()) };
        // Relaxed: only the thread that prepares looks at what it noted.
        let durable = self.durable.load(Ordering::Relaxed);
        if self.noted.swap(durable, Ordering::Relaxed) < durable {
            self.note_flushed(&self.flusher.unflushed(), Tail(durable))?;
        }
        let end = tail.offset().min(segment.capacity);
        segment.make_ready((end + AHEAD_BYTES).min(segment.capacity))?;
        if end > segment.capacity / 2 {
            let mut roll = self.lock_roll();
            if roll.spare.is_none() {
                let spare = self.create_segment(&mut roll, self.options.segment_bytes, AHEAD_BYTES)?;
                roll.spare = Some((spare, RECORDS_START));
                self.has_spare.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    #[inline]
    fn find(&self, at: Location) -> Result<(&SharedSegment, u64)> {
        match self.table.get(at.address().slot()) {
            Some(segment) => Ok((segment, at.address().offset_from(segment.base))),
            None => Err(self.no_segment(at)),
        }
    }

    #[cold]
    fn no_segment(&self, at: Location) -> Error {
        let what = format!("the index names segment slot {}, which is empty", at.address().slot());
        Error::Corrupt { file: self.directory(), offset: 0, what }
    }

    /// Shows the record at `at` without a look at its checksum: for its key, not for its value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when no record is there, [`Error::Io`].
    #[inline]
    pub fn read_unchecked<R>(&self, at: Location, show: impl FnOnce(Record<'_>) -> R) -> Result<R> {
        let (segment, offset) = self.find(at)?;
        segment.read(&self.keys, offset, show)
    }

    /// Shows the record at `at`; holds it against its checksum only if the location is unverified.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    #[inline]
    pub fn read<R>(&self, at: Location, show: impl FnOnce(Record<'_>) -> R) -> Result<R> {
        if at.is_unverified() {
            self.check_at(at)?;
        }
        self.read_unchecked(at, show)
    }

    /// Asks for the first cache lines of the record at `at`, for somebody who reads it soon.
    #[inline]
    pub fn prefetch(&self, at: Location) {
        if let Ok((segment, offset)) = self.find(at) {
            segment.prefetch(offset);
        }
    }

    #[cold]
    fn check_at(&self, at: Location) -> Result<()> {
        let (segment, offset) = self.find(at)?;
        segment.read(&self.keys, offset, |record| segment.check(&self.keys, offset, &record))?
    }

    /// A callback that declares everything before the present end of the log quiescent; to be called when all
    /// writers that are active now have finished.
    pub fn quiescer(&self) -> impl FnOnce() + Send + 'static {
        let tail = Some(self.tail()).filter(|tail| tail.is_somewhere()).map_or(0, |tail| tail.0);
        let quiescent = self.quiescent.clone();
        // Release: pairs with the Acquire in `is_quiescent`.
        move || {
            quiescent.fetch_max(tail, Ordering::Release);
        }
    }

    /// Whether every writer that could be older than the record at `at` has finished.
    pub fn is_quiescent(&self, at: Location) -> bool {
        let quiescent = Tail(self.quiescent.load(Ordering::Acquire));
        let (slot, base) = (at.address().slot(), quiescent.base());
        slot < base || slot == base && at.address().offset_from(base) < quiescent.offset()
    }

    /// Makes durable what was appended before the call. Concurrent callers share a flush.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Suspended`]: the records are there and may or may not be durable.
    pub fn flush(&self) -> Result<()> {
        // Before the flush begins: what is quiescent now is covered by it.
        let quiescent = self.quiescent.load(Ordering::Acquire);
        self.flusher.flush(&*self.medium, |first| self.note_doubt(first))?;
        // Relaxed: it says what a flush has done, and orders nothing.
        self.durable.fetch_max(quiescent, Ordering::Relaxed);
        Ok(())
    }

    fn note_doubt(&self, first: u64) {
        // If even this fails there is nothing left to tell the next process with.
        let _ = self.notes.write_at(DOUBT_AT, &format::encode_note(Note::Doubt, first));
    }

    /// Leaves the latest time that was seen to the next process.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn note_time(&self, sequence: u64) -> Result<()> {
        let io = Error::io("write", format!("{}/{}", self.directory(), open::LOCK), TIME_AT);
        self.notes.write_at(TIME_AT, &format::encode_note(Note::Time, sequence)).map_err(io)
    }

    /// The sequence that stands for the latest time an earlier process has seen; 0 if none left a note.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn noted_time(&self) -> Result<u64> {
        Ok(self.read_note(Note::Time, TIME_AT)?.unwrap_or(0))
    }

    fn read_note(&self, note: Note, offset: u64) -> Result<Option<u64>> {
        let io = |action| Error::io(action, format!("{}/{}", self.directory(), open::LOCK), offset);
        let mut bytes = [0; format::NOTE_BYTES];
        if self.notes.bytes().map_err(io("measure"))? < offset + bytes.len() as u64 {
            return Ok(None);
        }
        self.notes.read_at(offset, &mut bytes).map_err(io("read"))?;
        Ok(format::decode_note(note, &bytes))
    }

    /// Makes everything acknowledged before the call durable.
    ///
    /// # Errors
    /// [`Error::Io`] when a flush fails, [`Error::Suspended`] ever after.
    pub fn sync(&self) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        self.sync_up_to(Tail(self.quiescent.load(Ordering::Acquire)))
    }

    /// Flushes, then notes how far the segments were flushed: as far as nobody was writing when the flush began.
    fn sync_up_to(&self, quiescent: Tail) -> Result<()> {
        let covered = self.flusher.unflushed();
        self.flush()?;
        self.note_flushed(&covered, quiescent)
    }

    /// Notes in the headers of `covered` that everything below `quiescent` was flushed.
    fn note_flushed(&self, covered: &[SharedSegment], quiescent: Tail) -> Result<()> {
        let unsettled = Tail(self.unsettled.load(Ordering::Relaxed));
        let quiescent = quiescent.min(unsettled);
        // Of a segment with a damaged header it is not known what was promised: nothing in it was repaired.
        for segment in covered.iter().filter(|segment| segment.header_damage.is_none()) {
            let bytes = segment.file_bytes()?;
            match segment.base.cmp(&quiescent.base()) {
                std::cmp::Ordering::Less => {
                    segment.note_flushed(bytes)?;
                    self.flusher.remove(|listed| listed.number == segment.number);
                }
                std::cmp::Ordering::Equal => segment.note_flushed(quiescent.offset().min(bytes))?,
                std::cmp::Ordering::Greater => {}
            }
        }
        Ok(())
    }

    /// The first flush that failed, if one did.
    pub fn failure(&self) -> Option<String> {
        self.flusher.failure()
    }

    /// Ends the log: cuts reserved space off, removes the spare segment, and makes everything durable if `durable`.
    /// No writer may be active.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Suspended`]. Whatever it says, the files are a whole store.
    pub fn close(&self, durable: bool) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        let tail = self.tail();
        let spare = self.lock_roll().spare.take();
        let mut tidied = Ok(());
        if let Some((spare, RECORDS_START)) = &spare {
            self.flusher.remove(|listed| listed.number == spare.number);
            let removed = self.medium.remove(&segment::name_of(spare.number));
            tidied = removed.map_err(Error::io("remove", spare.path(), 0));
        }
        let active =
            self.table.get(tail.base()).filter(|_| tail.is_somewhere()).map(|segment| (segment, tail.offset()));
        let resumable = spare.as_ref().map(|(segment, end)| (segment, *end)).filter(|(_, end)| *end > RECORDS_START);
        for (segment, end) in active.into_iter().chain(resumable) {
            // A tail beyond the capacity leaves nothing to cut.
            let trimmed = segment.file_bytes().and_then(|bytes| if end < bytes { segment.trim(end) } else { Ok(()) });
            tidied = tidied.and(trimmed);
        }
        // No writer is active, so all of the log is quiescent, large records in segments behind the tail included.
        let synced = if durable { self.sync_up_to(Tail(u64::MAX)) } else { Ok(()) };
        tidied.and(synced)
    }

    /// Whether reading back what was just written can fail: records are not mapped but read by calls.
    #[inline]
    pub fn reads_by_calls(&self) -> bool {
        self.reads_by_calls
    }

    /// What the log takes on disk.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be measured.
    pub fn extent(&self) -> Result<Extent> {
        let mut extent = Extent { mapped: true, ..Extent::default() };
        for segment in self.segments() {
            extent.segments += 1;
            extent.bytes += segment.file_bytes()?;
            extent.mapped &= segment.is_mapped();
        }
        Ok(extent)
    }

    /// All segments in the table, in the order of their slots.
    fn segments(&self) -> Vec<&SharedSegment> {
        let mut slot = 0;
        let mut segments = Vec::new();
        while let Some(segment) = self.table.get(slot) {
            segments.push(segment);
            slot += segment.slots();
        }
        segments
    }
}

#[inline]
fn location_of(kind: RecordKind, address: Address) -> Location {
    let kind = if kind == RecordKind::Tombstone { Kind::Removed } else { Kind::Log };
    Location::new(kind, address, false)
}

const _: () = assert!(HEADER_BYTES == 32 && RECORDS_START.is_multiple_of(8));
