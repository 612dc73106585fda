//! The log tier: an append-only sequence of segments in one directory.
//!
//! Holds where the next record goes, and reads records back by their location. Never knows which record of a
//! key is the newest, nor the time. Invariant: a range of the log has one writer, whoever
//! reserved it by `fetch_add` on the tail.

pub mod format;
pub mod medium;
pub mod scan;

mod append;
mod cold;
mod compact;
mod dead;
mod deadlines;
mod dictionary;
mod flush;
mod hint;
mod hinting;
mod map;
mod on_demand;
mod open;
mod packed;
mod quiet;
mod record;
mod reserve;
mod segment;
mod slots;
mod snapshot;
mod space;
mod table;
mod tail;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crossbeam_utils::CachePadded;

pub use append::{Placed, Survives};
pub use cold::Cold;
use compact::{Leaving, Walks};
pub use compact::{Places, Sealed, Walking};
pub use dead::Older;
pub use dictionary::{Dictionary, Samples};
use flush::{Flusher, Pending};
pub use format::{DICTIONARIES, Header, Keys, RecordKind};
use format::{HEADER_BYTES, Identity, Note, RECORDS_START};
pub use hint::{Hint, Hinted, Hinting};
use hinting::Hints;
use map::STEP_BYTES;
use medium::{File, Lock, Medium};
pub use open::{Options, Scanned};
pub use packed::{Encoder, LEVELS, Packed};
pub use quiet::QuietEnd;
pub use record::{NewRecord, Record};
use segment::{Segment, SharedSegment};
use snapshot::Snapshot;
pub use snapshot::{Figures, NewSnapshot};
use space::Space;
use table::Table;
pub use tail::Position;
use tail::Tail;

use crate::{Error, Guard, Result, slot::Location};

/// Bytes ahead of the tail that the upkeep thread keeps ready.
const AHEAD_BYTES: u64 = 4 * STEP_BYTES;

/// What changes only when segments come: guarded by one lock, held across their creation.
#[derive(Debug, Default)]
struct Roll {
    next_ordinal: u64,
    next_number: u64,
    /// A segment that is ready before it is needed, and where its records go on.
    spare: Option<(SharedSegment, u64)>,
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
    space: Space,
    /// The next segment's ordinal, for those who do not wait for one that is being made.
    ordinals: AtomicU64,
    /// The same as it was when every writer that has not finished began: behind it nothing is known of writers.
    quiet_ordinals: Arc<AtomicU64>,
    /// A position such that every writer that was active when the log ended there has finished.
    quiescent: Arc<AtomicU64>,
    /// A position below which everything was flushed, and how far that was noted by [`prepare`](Self::prepare).
    durable: AtomicU64,
    noted: AtomicU64,
    /// A position from which on there may be a hole that is no void, because the disk refused that too.
    unsettled: AtomicU64,
    /// The file `lock`, for notes to the next process.
    notes: Box<dyn File>,
    reads_by_calls: bool,
    walks: Mutex<Walks>,
    leaving: Arc<Mutex<Leaving>>,
    /// The lowest sequence of a dead value in files that were removed and may come back after a power cut.
    oldest_lingering: AtomicU64,
    /// Bytes written that are no records: hints and snapshots.
    beside: AtomicU64,
    /// Whether anybody has met damage.
    is_damaged: AtomicBool,
    /// Whether there is a segment to roll to; a hint for those who ask for one.
    has_spare: AtomicBool,
    /// Bytes of the reserve; 0: there is none.
    reserve: AtomicU64,
    /// The disk refused room for a file.
    is_full: AtomicBool,
    /// Found at open, in the order of their numbers.
    found: Vec<SharedSegment>,
    /// Found at open: what of the index need not be read from the segments.
    snapshot: Option<Snapshot>,
    hints: Hints,
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

    /// The segment that is appended to, and the tail.
    #[inline]
    fn active<'a>(&'a self, guard: &'a Guard) -> Option<(&'a Segment, Tail)> {
        let tail = self.tail();
        Some(tail).filter(|tail| tail.is_somewhere()).and_then(|tail| Some((self.table.get(tail.base(), guard)?, tail)))
    }

    /// As [`active`](Self::active), for longer than a guard lives.
    fn share_active(&self) -> Option<(SharedSegment, Tail)> {
        let guard = Guard::pin();
        let (segment, tail) = self.active(&guard)?;
        Some((self.table.share(segment.base, &guard)?, tail))
    }

    /// How far the log has grown: a position that changes with every write.
    pub fn position(&self) -> Position {
        let guard = Guard::pin();
        self.active(&guard).map_or(Position::START, |(segment, tail)| Position::of(segment, tail.offset()))
    }

    /// How the record at `at` stands in time, if its segment is there.
    pub fn position_of(&self, at: Location) -> Option<Position> {
        let guard = Guard::pin();
        self.find(at, &guard).ok().map(|(segment, offset)| Position::of(segment, offset))
    }

    /// The segment that `at` names, if it was read from a slot under the guard that is here, or an earlier one that lives.
    #[inline]
    fn find<'a>(&'a self, at: Location, guard: &'a Guard) -> Result<(&'a Segment, u64)> {
        match self.table.get(at.address().slot(), guard) {
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
        let guard = Guard::pin();
        let (segment, offset) = self.find(at, &guard)?;
        segment.read(&self.keys, offset, at.is_unverified(), show)
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
        if let Ok((segment, offset)) = self.find(at, &Guard::pin()) {
            segment.prefetch(offset);
        }
    }

    /// As [`read`](Self::read), always held against the checksum.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn read_checked<R>(&self, at: Location, show: impl FnOnce(Record<'_>) -> R) -> Result<R> {
        self.check_at(at)?;
        self.read_unchecked(at, show)
    }

    /// The namespace that the record at `at` states, however damaged it is. By a call: for what is read seldom.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when no segment is there, [`Error::Io`].
    pub fn stated_namespace(&self, at: Location) -> Result<u32> {
        let guard = Guard::pin();
        let (segment, offset) = self.find(at, &guard)?;
        segment.stated_namespace(offset)
    }

    /// What to say of the record at `at` that is whole and still says something that cannot be.
    #[cold]
    pub fn corrupt(&self, at: Location, what: String) -> Error {
        match self.find(at, &Guard::pin()) {
            Ok((segment, offset)) => segment.corrupt(offset, what),
            Err(error) => error,
        }
    }

    #[cold]
    fn check_at(&self, at: Location) -> Result<()> {
        let guard = Guard::pin();
        let (segment, offset) = self.find(at, &guard)?;
        let checked = segment.read(&self.keys, offset, true, |record| segment.check(&self.keys, offset, &record));
        let checked = checked.and_then(|checked| checked);
        if let Err(Error::Corrupt { .. }) = checked {
            segment.dead.set_damaged();
            // Relaxed, as all that is said of damage: it orders nothing.
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        checked
    }

    /// Whether anything of what was flushed once was found to be damaged, when the log was opened or since.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// A callback that declares everything before the present end of the log quiescent; to be called when all
    /// writers that are active now have finished.
    pub fn quiescer(&self) -> impl FnOnce() + Send + 'static {
        let position = self.position().0;
        let ordinals = self.ordinals.load(Ordering::Acquire);
        let (quiescent, quiet_ordinals) = (self.quiescent.clone(), self.quiet_ordinals.clone());
        // Release: pairs with the Acquire in `is_quiescent` and in `sealed`.
        move || {
            quiescent.fetch_max(position, Ordering::Release);
            quiet_ordinals.fetch_max(ordinals, Ordering::Release);
        }
    }

    /// Whether every writer that could be older than the record at `at` has finished.
    pub fn is_quiescent(&self, at: Location) -> bool {
        let quiescent = Position(self.quiescent.load(Ordering::Acquire));
        self.position_of(at).is_some_and(|position| position < quiescent)
    }

    /// Makes durable what was appended before the call. Concurrent callers share a flush.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Suspended`]: the records are there and may or may not be durable.
    pub fn flush(&self) -> Result<()> {
        self.flush_with(None).1
    }

    /// Writes `pending`, if there is one, and flushes: what came of the one and of the other.
    fn flush_with(&self, pending: Option<Pending>) -> (Result<()>, Result<()>) {
        // Before the flush begins: what is quiescent now is covered by it.
        let quiescent = self.quiescent.load(Ordering::Acquire);
        let (written, durable) = self.flusher.flush(&*self.medium, pending, |first| self.note_doubt(first));
        if written.is_ok() && durable.is_ok() {
            // Relaxed: it says what a flush has done, and orders nothing.
            self.durable.fetch_max(quiescent, Ordering::Relaxed);
        }
        (written, durable)
    }

    fn note_doubt(&self, first: u64) {
        let noted = self.read_note(Note::Doubt).ok().flatten();
        let first = noted.map_or(first, |noted| noted.min(first));
        // If even this fails there is nothing left to tell the next process with.
        let _ = self.notes.write_at(Note::Doubt.place(), &format::encode_note(Note::Doubt, first));
    }

    /// Leaves the latest time that was seen to the next process.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn note_time(&self, sequence: u64) -> Result<()> {
        let at = Note::Time.place();
        let io = Error::io("write", format!("{}/{}", self.directory(), open::LOCK), at);
        self.notes.write_at(at, &format::encode_note(Note::Time, sequence)).map_err(io)
    }

    /// Makes the notes to the next process durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn flush_notes(&self) -> Result<()> {
        self.notes.flush().map_err(Error::io("flush", format!("{}/{}", self.directory(), open::LOCK), 0))
    }

    /// The sequence that stands for the latest time an earlier process has seen; 0 if none left a note.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn noted_time(&self) -> Result<u64> {
        Ok(self.read_note(Note::Time)?.unwrap_or(0))
    }

    fn read_note(&self, note: Note) -> Result<Option<u64>> {
        open::read_note(&*self.medium, &*self.notes, note)
    }

    /// Makes everything acknowledged before the call durable.
    ///
    /// # Errors
    /// [`Error::Io`] when a flush fails, [`Error::Suspended`] ever after.
    pub fn sync(&self) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        self.sync_up_to(Position(self.quiescent.load(Ordering::Acquire)))
    }

    /// Flushes, then notes how far the segments were flushed: as far as nobody was writing when the flush began.
    fn sync_up_to(&self, quiescent: Position) -> Result<()> {
        let covered = self.flusher.unflushed();
        self.flush()?;
        self.note_flushed(&covered, quiescent)
    }

    /// Notes in the headers of `covered` that everything below `quiescent` was flushed.
    fn note_flushed(&self, covered: &[SharedSegment], quiescent: Position) -> Result<()> {
        let unsettled = Position(self.unsettled.load(Ordering::Relaxed));
        let quiescent = quiescent.min(unsettled);
        // Of a segment with a damaged header it is not known what was promised: nothing in it was repaired.
        for segment in covered.iter().filter(|segment| segment.header_damage.is_none()) {
            segment.unless_gone(segment.check_length())?;
            let Some(bytes) = segment.unless_gone(segment.file_bytes())? else { continue };
            match segment.ordinal.cmp(&quiescent.ordinal()) {
                std::cmp::Ordering::Less => {
                    segment.unless_gone(segment.note_flushed(bytes))?;
                    self.flusher.remove(|listed| listed.number == segment.number);
                }
                std::cmp::Ordering::Equal => {
                    segment.unless_gone(segment.note_flushed(quiescent.offset().min(bytes)))?;
                }
                std::cmp::Ordering::Greater => {}
            }
        }
        Ok(())
    }

    /// The files that are shorter than what was written to them, as far as anybody has met that.
    pub fn cut_files(&self) -> Vec<String> {
        self.segments()
            .into_iter()
            .filter(|segment| segment.is_cut())
            .map(|segment| segment.path().to_owned())
            .collect()
    }

    /// Bytes that were written for opening, beside the records: hints and snapshots.
    pub fn bytes_beside(&self) -> u64 {
        self.beside.load(Ordering::Relaxed)
    }

    fn note_beside(&self, bytes: &[u8]) {
        // Relaxed: a sum, which orders nothing.
        self.beside.fetch_add(bytes.len() as u64, Ordering::Relaxed);
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
        let mut tidied = self.remove_reserve();
        let spare = self.lock_roll().spare.take();
        if let Some((spare, RECORDS_START)) = &spare {
            self.flusher.remove(|listed| listed.number == spare.number);
            spare.dead.set_gone();
            let removed = self.medium.remove(&segment::name_of(spare.number));
            tidied = tidied.and(removed.map_err(Error::io("remove", spare.path(), 0)));
            spare.forget();
        }
        let active = self.share_active().map(|(segment, tail)| (segment, tail.offset()));
        let resumable = spare.filter(|(_, end)| *end > RECORDS_START);
        for (segment, end) in active.into_iter().chain(resumable) {
            // A tail beyond the capacity leaves nothing to cut.
            let trimmed = segment.file_bytes().and_then(|bytes| if end < bytes { segment.trim(end) } else { Ok(()) });
            tidied = tidied.and(trimmed);
        }
        // No writer is active, so all of the log is quiescent, large records in segments behind the tail included.
        let synced = if durable { self.sync_up_to(Position::END) } else { Ok(()) };
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
        let mut extent = Extent { mapped: true, bytes: self.reserve_bytes(), ..Extent::default() };
        for segment in self.segments() {
            extent.segments += 1;
            extent.bytes += segment.unless_gone(segment.file_bytes())?.unwrap_or(0);
            extent.mapped &= segment.is_mapped();
        }
        Ok(extent)
    }

    /// All segments whose files are there, in the order of their numbers.
    fn segments(&self) -> Vec<SharedSegment> {
        let mut all = self.table.all();
        all.retain(|segment| !segment.dead.is_gone());
        all
    }
}

const _: () = assert!(HEADER_BYTES == 32 && RECORDS_START.is_multiple_of(8));
