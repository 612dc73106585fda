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
mod open;
mod segment;

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crossbeam_utils::CachePadded;

use flush::Flusher;
use format::{HEADER_BYTES, Identity, RECORDS_START, SegmentHeader};
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

    /// Whether there is a segment to append to. Failed attempts move the tail on from [`NOWHERE`](Self::NOWHERE).
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
    /// For the note of a failed flush; `None` when opened to read only.
    doubt: Option<Box<dyn File>>,
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

    /// Appends a record. On return it can be read by its location, and survives as `survives` says.
    ///
    /// One copy, no lock and no system call while the segment is ready and `survives` is
    /// [`Kill`](Survives::Kill).
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::ReadOnly`], [`Error::Suspended`]; [`Error::Io`] when the disk refuses. No reader
    /// can find anything of a record that was refused.
    #[inline]
    pub fn append(&self, record: &NewRecord<'_>, survives: Survives) -> Result<Placed> {
        match survives {
            Survives::Kill => Ok(self.place(record, Placing::Commit)?.0),
            Survives::PowerCut => {
                let (placed, _) = self.place(record, Placing::Written)?;
                self.flush()?;
                Ok(placed)
            }
        }
    }

    /// Appends a record that recovery ignores until [`commit`](Self::commit) makes it count.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_provisional(&self, record: &NewRecord<'_>) -> Result<Placed> {
        Ok(self.place(record, Placing::Provisional)?.0)
    }

    /// Makes a provisional record count.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn commit(&self, at: Location, record: &NewRecord<'_>, survives: Survives) -> Result<()> {
        let (segment, offset) = self.find(at)?;
        segment.commit(offset, record, &self.keys)?;
        if survives == Survives::PowerCut { self.flush() } else { Ok(()) }
    }

    /// Makes a provisional record nothing.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn revoke(&self, at: Location, record: &NewRecord<'_>) -> Result<()> {
        let (segment, offset) = self.find(at)?;
        segment.make_void(&self.keys, offset, record.bytes())
    }

    /// Appends records side by side, with one reservation for as many as a segment takes, and calls `placed` with
    /// each in order. Flushes once at the end if they are to survive a power cut.
    ///
    /// # Errors
    /// As for [`append`](Self::append); those that `placed` saw are in the log.
    pub fn append_many(
        &self,
        records: &[NewRecord<'_>],
        survives: Survives,
        mut placed: impl FnMut(usize, Placed) -> Result<()>,
    ) -> Result<()> {
        let placing = if survives == Survives::Kill { Placing::Commit } else { Placing::Written };
        let mut locations = Vec::new();
        let mut from = 0;
        while from < records.len() {
            let (count, bytes) = self.batch(&records[from..]);
            let batch = &records[from..from + count];
            if count == 1 {
                let (one, _) = self.place(&batch[0], placing)?;
                locations.push(one);
            } else {
                batch.iter().try_for_each(|record| self.check(record))?;
                let (segment, mut offset) = self.reserve(bytes)?;
                let wants_ahead = self.wants_ahead(segment, offset + bytes);
                for record in batch {
                    segment.place(&self.keys, offset, record, placing)?;
                    let address = Address::new(segment.base, offset);
                    locations.push(Placed { location: location_of(record.header.kind, address), wants_ahead });
                    offset += record.bytes();
                }
            }
            if survives == Survives::Kill {
                for (index, one) in locations.drain(..).enumerate() {
                    placed(from + index, one)?;
                }
            }
            from += count;
        }
        if survives == Survives::PowerCut {
            self.flush()?;
            locations.into_iter().enumerate().try_for_each(|(index, one)| placed(index, one))?;
        }
        Ok(())
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

    fn check(&self, record: &NewRecord<'_>) -> Result<()> {
        let too_large = |what, bytes: usize, bytes_max: usize| {
            Err(Error::TooLarge { what, bytes: bytes as u64, bytes_max: bytes_max as u64 })
        };
        if record.key.len() > format::KEY_BYTES_MAX {
            return too_large("key", record.key.len(), format::KEY_BYTES_MAX);
        }
        if record.value.len() > format::VALUE_BYTES_MAX {
            return too_large("value", record.value.len(), format::VALUE_BYTES_MAX);
        }
        if self.options.read_only {
            return Err(Error::ReadOnly { directory: self.directory() });
        }
        if self.flusher.has_failed() {
            return Err(self.flusher.suspended(&*self.medium));
        }
        Ok(())
    }

    #[inline]
    fn place(&self, record: &NewRecord<'_>, placing: Placing) -> Result<(Placed, u64)> {
        self.check(record)?;
        let bytes = record.bytes();
        let alone;
        let (segment, offset) = if bytes > self.options.segment_bytes / 2 {
            alone = self.create_alone(bytes)?;
            (&alone, RECORDS_START)
        } else {
            self.reserve(bytes)?
        };
        segment.place(&self.keys, offset, record, placing)?;
        let location = location_of(record.header.kind, Address::new(segment.base, offset));
        Ok((Placed { location, wants_ahead: self.wants_ahead(segment, offset + bytes) }, offset))
    }

    #[inline]
    fn wants_ahead(&self, segment: &Segment, end: u64) -> bool {
        let ready = segment.ready();
        end + AHEAD_BYTES / 2 > ready
    }

    /// Takes `bytes` of the log for the caller alone, ready to be written.
    #[inline]
    fn reserve(&self, bytes: u64) -> Result<(&SharedSegment, u64)> {
        loop {
            let tail = self.tail();
            if let Some(segment) = self.table.get(tail.base()) {
                let end = tail.offset() + bytes;
                // Before reserving, so that a full disk leaves no hole.
                if end > segment.ready() && end <= segment.capacity {
                    segment.make_ready(end)?;
                }
            }
            // AcqRel: the segment was put into the table before the tail named it (see `tail`); Release so
            // that whoever reserves behind us sees what we saw.
            let mine = Tail(self.tail.fetch_add(bytes / 8, Ordering::AcqRel));
            if let Some(segment) = self.table.get(mine.base()) {
                let end = mine.offset() + bytes;
                if end <= segment.capacity && mine.offset() >= RECORDS_START {
                    segment.make_ready(end)?;
                    return Ok((segment, mine.offset()));
                }
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
        if let Err(error) = resumed.and_then(|()| segment.make_ready((offset + bytes).min(segment.capacity))) {
            roll.spare = Some((segment, offset));
            return Err(error);
        }
        // Release: pairs with the Acquire in `tail`.
        self.tail.store(Tail::new(segment.base, offset).0, Ordering::Release);
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
        let segment = Arc::new(Segment::create(&*self.medium, header, base, ready)?);
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

    /// Makes memory ahead of the tail ready, and the next segment when this one is half full.
    ///
    /// # Errors
    /// [`Error::Io`]; a writer that needs what is missing meets the same error.
    pub fn prepare(&self) -> Result<()> {
        let tail = self.tail();
        let Some(segment) = self.table.get(tail.base()) else { return Ok(()) };
        let end = tail.offset().min(segment.capacity);
        segment.make_ready((end + AHEAD_BYTES).min(segment.capacity))?;
        if end > segment.capacity / 2 {
            let mut roll = self.lock_roll();
            if roll.spare.is_none() {
                let spare = self.create_segment(&mut roll, self.options.segment_bytes, AHEAD_BYTES)?;
                roll.spare = Some((spare, RECORDS_START));
            }
        }
        Ok(())
    }

    #[inline]
    fn find(&self, at: Location) -> Result<(&SharedSegment, u64)> {
        match self.table.get(at.address.slot()) {
            Some(segment) => Ok((segment, at.address.offset_from(segment.base))),
            None => Err(Error::Corrupt {
                file: self.directory(),
                offset: 0,
                what: format!("the index names segment slot {}, which is empty", at.address.slot()),
            }),
        }
    }

    /// Reads the record at `at` without a look at its checksum: for its key, not for its value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when no record is there, [`Error::Io`].
    #[inline]
    pub fn read_unchecked(&self, at: Location) -> Result<Record<'_>> {
        let (segment, offset) = self.find(at)?;
        segment.read(&self.keys, offset)
    }

    /// Reads the record at `at`; holds it against its checksum only if the location is unverified.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    #[inline]
    pub fn read(&self, at: Location) -> Result<Record<'_>> {
        let (segment, offset) = self.find(at)?;
        let record = segment.read(&self.keys, offset)?;
        if at.unverified {
            segment.check(&self.keys, offset, &record)?;
        }
        Ok(record)
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
        let (slot, base) = (at.address.slot(), quiescent.base());
        slot < base || slot == base && at.address.offset_from(base) < quiescent.offset()
    }

    fn flush(&self) -> Result<()> {
        self.flusher.flush(&*self.medium, |first| self.note_doubt(first))
    }

    fn note_doubt(&self, first: u64) {
        if let Some(file) = &self.doubt {
            // If even this fails there is nothing left to tell the next process with.
            let _ = file.write_at(0, &format::encode_doubt(first));
        }
    }

    /// Makes everything acknowledged before the call durable.
    ///
    /// # Errors
    /// [`Error::Io`] when a flush fails, [`Error::Suspended`] ever after.
    pub fn sync(&self) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        let quiescent = Tail(self.quiescent.load(Ordering::Acquire));
        let covered = self.flusher.unflushed();
        self.flush()?;
        for segment in covered {
            if segment.base < quiescent.base() {
                segment.note_flushed(segment.capacity)?;
                self.flusher.remove(|listed| listed.number == segment.number);
            } else if segment.base == quiescent.base() {
                segment.note_flushed(quiescent.offset().min(segment.capacity))?;
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
        if tail.is_somewhere() {
            // No writer is active, so all of the log is quiescent.
            self.quiescent.fetch_max(tail.0, Ordering::Release);
        }
        let spare = self.lock_roll().spare.take();
        if let Some((spare, RECORDS_START)) = &spare {
            self.flusher.remove(|listed| listed.number == spare.number);
            self.medium.remove(&segment::name_of(spare.number)).map_err(Error::io("remove", spare.path(), 0))?;
        }
        let active =
            self.table.get(tail.base()).filter(|_| tail.is_somewhere()).map(|segment| (segment, tail.offset()));
        let resumable = spare.as_ref().map(|(segment, end)| (segment, *end)).filter(|(_, end)| *end > RECORDS_START);
        for (segment, end) in active.into_iter().chain(resumable) {
            // A tail beyond the capacity leaves nothing to cut.
            if end < segment.file_bytes()? {
                segment.trim(end)?;
            }
        }
        if durable { self.sync() } else { Ok(()) }
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
    Location { kind, address, unverified: false }
}

const _: () = assert!(HEADER_BYTES == 32 && RECORDS_START.is_multiple_of(8));
