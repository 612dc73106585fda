//! Compaction's part of the log: what is dead in a segment, cold segments that take copies, and segments that go.
//!
//! Holds counts of dead bytes and the way a file leaves. Never knows what is alive: it is told. Invariant: the file of a
//! segment goes only when every record in it that counts is durable elsewhere, and its map when nobody can look into it any more.

use std::{
    io::ErrorKind,
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    Log,
    format::RECORDS_START,
    map::STEP_BYTES,
    open::location,
    record::{NewRecord, Placing},
    scan::{Found, Item, Scan},
    segment::{self, Segment, SharedSegment},
    space::Purpose,
    tail::Tail,
};
use crate::{Error, Guard, Result, slot::Location};

/// What is known of the dead records of a segment.
#[derive(Debug)]
pub(crate) struct Dead {
    bytes: AtomicU64,
    /// The lowest sequence of a dead value, or the highest number there is.
    oldest: AtomicU64,
    /// Bytes of removals, and the highest sequence of one.
    removals: AtomicU64,
    last_removal: AtomicU64,
    /// Bytes of records that have a deadline, and the first and the last of those, in ms of Unix time.
    expiring: AtomicU64,
    first_deadline: AtomicU64,
    last_deadline: AtomicU64,
    /// Bytes of the file, once it was measured; it is sealed then.
    file_bytes: AtomicU64,
    /// Only compaction writes to it.
    is_cold: AtomicBool,
    /// It has one record, and its writer alone writes to it.
    is_alone: AtomicBool,
    /// The file is gone.
    is_gone: AtomicBool,
    /// Something in it is damaged: it stays as it is, for whoever can make sense of it.
    is_damaged: AtomicBool,
}

impl Default for Dead {
    fn default() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            oldest: AtomicU64::new(u64::MAX),
            removals: AtomicU64::new(0),
            last_removal: AtomicU64::new(0),
            expiring: AtomicU64::new(0),
            first_deadline: AtomicU64::new(u64::MAX),
            last_deadline: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
            is_cold: AtomicBool::new(false),
            is_alone: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
        }
    }
}

impl Dead {
    /// How many figures [`figures`](Self::figures) gives.
    pub(crate) const FIGURES: usize = 7;

    fn fields(&self) -> [&AtomicU64; Self::FIGURES] {
        let Self { bytes, oldest, removals, last_removal, expiring, first_deadline, last_deadline, .. } = self;
        [bytes, oldest, removals, last_removal, expiring, first_deadline, last_deadline]
    }

    /// What is known, for the next process.
    pub(crate) fn figures(&self) -> [u64; Self::FIGURES] {
        self.fields().map(|figure| figure.load(Ordering::Relaxed))
    }

    /// Goes on from what an earlier process knew.
    pub(crate) fn restore(&self, figures: [u64; Self::FIGURES]) {
        self.fields().into_iter().zip(figures).for_each(|(field, figure)| field.store(figure, Ordering::Relaxed));
    }

    /// Whether anything in it is dead.
    pub(crate) fn is_there(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn is_gone(&self) -> bool {
        // Acquire: whoever sees a segment gone sees who took its records.
        self.is_gone.load(Ordering::Acquire)
    }

    /// Its file goes now: nobody looks for it any more.
    pub(crate) fn set_gone(&self) {
        // Release: pairs with the Acquire in `is_gone`.
        self.is_gone.store(true, Ordering::Release);
    }

    pub(crate) fn set_damaged(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_alone(&self) {
        self.is_alone.store(true, Ordering::Relaxed);
    }

    /// Notes that a record of so many bytes has a deadline.
    pub(crate) fn note_deadline(&self, bytes: u64, deadline_ms: u64) {
        // Relaxed, here and below: sums and bounds, which order nothing.
        self.expiring.fetch_add(bytes, Ordering::Relaxed);
        if deadline_ms < self.first_deadline.load(Ordering::Relaxed) {
            self.first_deadline.fetch_min(deadline_ms, Ordering::Relaxed);
        }
        if deadline_ms > self.last_deadline.load(Ordering::Relaxed) {
            self.last_deadline.fetch_max(deadline_ms, Ordering::Relaxed);
        }
    }

    /// Notes that a removal of so many bytes was written.
    pub(crate) fn note_removal(&self, bytes: u64, sequence: u64) {
        self.removals.fetch_add(bytes, Ordering::Relaxed);
        self.last_removal.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Above the lowest sequence of a dead value no removal can be forgotten.
    fn oldest(&self) -> u64 {
        if self.is_damaged.load(Ordering::Relaxed) { 0 } else { self.oldest.load(Ordering::Relaxed) }
    }

    /// About how many bytes are dead now: those that were said to be, removals if `oldest_outside` says that nothing is left
    /// for them, and of what expires a part that grows from the first deadline to the last.
    fn bytes_at(&self, now_ms: u64, oldest_outside: u64) -> u64 {
        let [expiring, first, last, dead] = [&self.expiring, &self.first_deadline, &self.last_deadline, &self.bytes]
            .map(|figure| figure.load(Ordering::Relaxed));
        let expired = match now_ms {
            _ if now_ms >= last => expiring,
            _ if now_ms <= first => 0,
            _ => (u128::from(expiring) * u128::from(now_ms - first) / u128::from(last - first)) as u64,
        };
        let is_needless = self.last_removal.load(Ordering::Relaxed) < oldest_outside;
        dead + expired + if is_needless { self.removals.load(Ordering::Relaxed) } else { 0 }
    }
}

/// A segment that gets no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Later segments have higher ones.
    pub number: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// About how many of them are records that no key needs.
    pub dead_bytes: u64,
    /// Whether it has records of which nobody has tried whether they can be compressed.
    pub is_plain: bool,
    base: usize,
}

impl Sealed {
    /// Figures that no log gave, for tests of a choice.
    pub fn new(number: u64, bytes: u64, dead_bytes: u64) -> Self {
        Self { number, bytes, dead_bytes, is_plain: false, base: 0 }
    }
}

/// A segment that takes copies of records, and where the next one goes.
#[derive(Debug)]
pub struct Cold {
    segment: SharedSegment,
    end: u64,
}

/// What somebody who walks over locations holds, so that segments stay that his locations name.
#[derive(Clone, Debug, Default)]
pub struct Walking(Arc<()>);

/// Those who walk.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    /// What who comes now gets.
    now: Walking,
    /// What those got who came before the last segments went.
    before: Vec<Weak<()>>,
}

impl Walks {
    /// Those who walk now.
    fn all(&mut self) -> Vec<Weak<()>> {
        let now = std::mem::take(&mut self.now);
        self.before.push(Arc::downgrade(&now.0));
        drop(now);
        self.before.retain(|walking| walking.strong_count() > 0);
        self.before.clone()
    }
}

impl Log {
    /// Says that no key needs the record at `at` any more, which takes `bytes`. `sequence` is that of a value.
    #[inline]
    pub fn note_dead(&self, at: Location, bytes: u64, sequence: Option<u64>) {
        let Some(segment) = self.table.get(at.address().slot()) else { return };
        // Relaxed: sums and bounds, which order nothing; whoever relies on them has waited for all writers.
        segment.dead.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(sequence) = sequence.filter(|sequence| *sequence < segment.dead.oldest.load(Ordering::Relaxed)) {
            segment.dead.oldest.fetch_min(sequence, Ordering::Relaxed);
        }
    }

    /// The lowest sequence of a dead value in any segment but `sealed`, or in a file that may come back: above it no removal can be forgotten.
    pub fn oldest_dead_outside(&self, sealed: &Sealed) -> u64 {
        let others = self.segments().into_iter().filter(|segment| segment.base != sealed.base);
        let oldest = others.map(|segment| segment.dead.oldest()).min().unwrap_or(u64::MAX);
        oldest.min(self.oldest_lingering.load(Ordering::Relaxed))
    }

    /// The segments that no writer writes to any more and whose records are all whole, as far as is known.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be measured.
    pub fn sealed(&self, cold: Option<&Cold>, now_ms: u64) -> Result<Vec<Sealed>> {
        let quiescent = Tail(self.quiescent.load(Ordering::Acquire));
        let quiet_slots = self.quiet_slots.load(Ordering::Acquire);
        let spare = self.lock_roll().spare.as_ref().map(|(segment, _)| segment.base);
        let tail = self.tail();
        let mut all = Vec::new();
        let lingering = (self.oldest_lingering.load(Ordering::Relaxed), usize::MAX);
        let oldest = self.segments().into_iter().map(|segment| (segment.dead.oldest(), segment.base));
        let mut oldest: Vec<_> = oldest.chain([lingering]).collect();
        oldest.sort_unstable();
        for segment in self.segments() {
            if segment.is_cut() {
                segment.dead.set_damaged();
            }
            let is_alone = segment.dead.is_alone.load(Ordering::Relaxed) && segment.base < quiet_slots;
            let is_cold = segment.dead.is_cold.load(Ordering::Relaxed);
            let is_open = segment.base >= quiescent.base() && !is_cold && !is_alone
                || tail.is_somewhere() && segment.base == tail.base()
                || spare == Some(segment.base)
                || cold.is_some_and(|cold| cold.segment.base == segment.base);
            if is_open || segment.header_damage.is_some() || segment.dead.is_damaged.load(Ordering::Relaxed) {
                continue;
            }
            let mut bytes = segment.dead.file_bytes.load(Ordering::Relaxed);
            if bytes == 0 {
                bytes = segment.file_bytes()?;
                segment.dead.file_bytes.store(bytes, Ordering::Relaxed);
            }
            let outside = oldest.iter().find(|(_, base)| *base != segment.base).map_or(u64::MAX, |(oldest, _)| *oldest);
            let dead_bytes = segment.dead.bytes_at(now_ms, outside).min(bytes);
            let (number, base) = (segment.number, segment.base);
            let is_plain = !segment.is_packed && bytes > RECORDS_START;
            all.push(Sealed { number, bytes, dead_bytes, is_plain, base });
        }
        Ok(all)
    }

    /// Shows every record of a sealed segment. `false` if something in it is damaged: then it is sealed no more.
    ///
    /// # Errors
    /// [`Error::Io`], and what `visit` returns.
    pub fn visit_sealed(
        &self,
        sealed: &Sealed,
        mut visit: impl FnMut(&Found<'_>, Location) -> Result<()>,
    ) -> Result<bool> {
        let segment = self.segment_at(sealed.base)?;
        let bytes = segment.quiet_bytes(RECORDS_START, sealed.bytes)?;
        let (mut scan, mut last) = (Scan::new(&self.keys, &bytes), None);
        for item in scan.by_ref() {
            match item {
                Item::Record(found) => {
                    visit(&found, location(segment, &found, false))?;
                    last = Some(found.offset);
                }
                // A hole that a crash left above what was flushed has been voided; this is something else.
                Item::Damaged(_) | Item::Gap { .. } => {
                    segment.dead.set_damaged();
                    return Ok(false);
                }
            }
        }
        // Where a file was cut there are zeros, which look like the end of its records; and if the last one is whole still, so was
        // everything that was shown.
        let settled = segment.settled();
        let expected =
            if Tail(self.unsettled.load(Ordering::Relaxed)) < Tail::new(segment.base, settled) { 0 } else { settled };
        let is_last_whole = last.is_none_or(|last| segment.read(&self.keys, last, false, |_| ()).is_ok());
        if segment.missing(scan.end(), expected).is_some() || !is_last_whole {
            segment.dead.set_damaged();
            return Ok(false);
        }
        Ok(true)
    }

    /// Goes on in another segment if something in the one that is appended to is dead, or has anything at all and `packs` it,
    /// so that it is sealed before long.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Full`].
    pub fn roll(&self, now_ms: u64, packs: bool) -> Result<()> {
        let is_due = |segment: &SharedSegment, end: u64| {
            segment.dead.bytes_at(now_ms, u64::MAX) > 0 || packs && !segment.is_packed && end > RECORDS_START
        };
        let tail = self.tail();
        if tail.is_somewhere() {
            return match self.table.get(tail.base()).is_some_and(|segment| is_due(segment, tail.offset())) {
                true => self.roll_from(tail, 0),
                false => Ok(()),
            };
        }
        // Nothing was appended yet: the segment to go on in was found at open, and nobody writes to it.
        let mut roll = self.lock_roll();
        let is_found = |(segment, end): &mut (SharedSegment, u64)| segment.found_bytes > 0 && is_due(segment, *end);
        if !self.tail().is_somewhere()
            && let Some((segment, _)) = roll.spare.take_if(is_found)
        {
            segment.release();
            let behind = Tail::new(segment.base + segment.slots(), 0);
            // Release: as in `quiescer`.
            self.quiescent.fetch_max(behind.0, Ordering::Release);
        }
        Ok(())
    }

    /// How far the log has grown, in a number that changes with every write.
    pub fn position(&self) -> u64 {
        self.tail().0
    }

    /// Gives back what is reserved for writes, while there are none: the segment to go on in, and what the one that is appended
    /// to has not made ready. Under a ceiling what is reserved stays so.
    ///
    /// # Errors
    /// [`Error::Io`]: nothing is lost.
    pub fn rest(&self) -> Result<()> {
        if self.space.is_bounded() {
            return Ok(());
        }
        let mut roll = self.lock_roll();
        let is_unused =
            |(segment, start): &mut (SharedSegment, u64)| segment.found_bytes == 0 && *start == RECORDS_START;
        if let Some((spare, _)) = roll.spare.take_if(is_unused) {
            // Nobody has ever seen it.
            self.has_spare.store(false, Ordering::Relaxed);
            self.flusher.remove(|listed| listed.number == spare.number);
            spare.dead.set_gone();
            let removed = self.medium.remove(&segment::name_of(spare.number));
            removed.map_err(Error::io("remove", spare.path(), 0))?;
            Guard::pin().retire(move || spare.forget());
        }
        drop(roll);
        let tail = self.tail();
        match self.table.get(tail.base()).filter(|_| tail.is_somewhere()) {
            Some(active) => active.shorten(),
            None => Ok(()),
        }
    }

    fn segment_at(&self, base: usize) -> Result<&SharedSegment> {
        let gone = || Error::Corrupt { file: self.directory(), offset: 0, what: format!("no segment in slot {base}") };
        self.table.get(base).ok_or_else(gone)
    }

    /// Copies a record to `cold`, which is made, or made anew, when it is needed; `packs` says of a new one that whatever shrinks is
    /// compressed on its way there. The copy counts for recovery from here on.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Full`].
    pub fn copy_cold(&self, cold: &mut Option<Cold>, record: &NewRecord<'_>, packs: bool) -> Result<Location> {
        let bytes = record.bytes();
        let fits = |cold: &Cold| cold.end + bytes <= cold.segment.capacity;
        if cold.as_ref().is_some_and(|cold| !fits(cold)) {
            self.seal_cold(cold)?;
        }
        let cold = match cold {
            Some(cold) => cold,
            None => {
                let capacity = self.space.cold_bytes(bytes);
                let segment =
                    self.create_segment(&mut self.lock_roll(), capacity, STEP_BYTES, Purpose::Copied, packs)?;
                segment.dead.is_cold.store(true, Ordering::Relaxed);
                cold.insert(Cold { segment, end: RECORDS_START })
            }
        };
        cold.segment.make_ready(cold.end + bytes)?;
        cold.segment.place(&self.keys, cold.end, record, Placing::Commit)?;
        let placed = self.placed(record, &cold.segment, cold.end);
        cold.end += bytes;
        Ok(placed.location)
    }

    /// Makes the copies in `cold` durable.
    ///
    /// # Errors
    /// [`Error::Io`]: the next process will not believe what it finds there, and nothing should be added.
    pub fn flush_cold(&self, cold: &Cold) -> Result<()> {
        cold.segment.flush().inspect_err(|_| self.note_doubt(cold.segment.number))?;
        // Nobody is told to look for copies in a file that was cut, or that goes with this process.
        cold.segment.check_named(&*cold.segment.file()?)?;
        cold.segment.check_length()?;
        cold.segment.note_flushed(cold.end)
    }

    /// Ends a cold segment: nothing is added to it any more, and what it does not need of its file is given back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn seal_cold(&self, cold: &mut Option<Cold>) -> Result<()> {
        let Some(cold) = cold.take() else { return Ok(()) };
        self.flush_cold(&cold)?;
        cold.segment.settle(cold.end);
        cold.segment.trim(cold.end)?;
        cold.segment.flush()?;
        cold.segment.release();
        Ok(())
    }

    /// Ends the cold segment if it may not take so many bytes more, so that a new one is made of what it gives back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn seal_cold_for(&self, cold: &mut Option<Cold>, bytes: u64) -> Result<()> {
        match cold.as_ref().is_some_and(|cold| cold.end + bytes > cold.segment.capacity) {
            true => self.seal_cold(cold),
            false => Ok(()),
        }
    }

    /// Whether there is room for a file of so many bytes that writers need.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.space.has_room(bytes, Purpose::Written)
    }

    /// Bytes that the files take, those included that somebody still looks into.
    pub fn taken(&self) -> u64 {
        self.space.taken()
    }

    /// Whether there is a ceiling on what the files take.
    pub fn is_bounded(&self) -> bool {
        self.space.is_bounded()
    }

    /// Whoever was refused room has it.
    pub fn clear_want(&self) {
        self.space.clear_want();
    }

    /// Whether there is too little room for a segment that somebody needs now or before long.
    pub fn lacks_room(&self) -> bool {
        if !self.space.is_bounded() || self.has_room(self.options.segment_bytes) {
            self.space.clear_want();
            return false;
        }
        let tail = self.tail();
        let needs_spare = self.table.get(tail.base()).is_some_and(|active| {
            let is_late = tail.is_somewhere() && tail.offset() > active.capacity / 2;
            is_late && !self.has_spare.load(Ordering::Relaxed)
        });
        needs_spare || self.space.is_over() || self.space.is_wanted()
    }

    /// Whether a record of so many bytes can be in the log at all.
    ///
    /// # Errors
    /// [`Error::NeverFits`].
    pub fn check_fits(&self, bytes: u64) -> Result<()> {
        self.space.check_record(bytes)
    }

    /// Lets a sealed segment go whose records are needed no more; its space is free when nobody looks into it. Returns the
    /// bytes of its file. Durable on return: nothing that was in it can come back. `forget` is called when its name is gone:
    /// what still names places in it has to be gone when that returns.
    ///
    /// # Errors
    /// [`Error::Io`]: its file is there still, or may come back, and what is dead in it counts until one that goes later does so
    /// for good.
    pub fn drop_sealed(&self, sealed: &Sealed, forget: impl FnOnce()) -> Result<u64> {
        let segment = self.segment_at(sealed.base)?.clone();
        // Release: see `Dead::is_gone`.
        segment.dead.is_gone.store(true, Ordering::Release);
        match self.medium.remove(&segment::name_of(segment.number)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                segment.dead.is_gone.store(false, Ordering::Release);
                return Err(Error::io("remove", segment.path(), 0)(error));
            }
            _ => {}
        }
        self.flusher.remove(|listed| listed.number == segment.number);
        // Relaxed: one compaction at a time looks at it.
        self.oldest_lingering.fetch_min(segment.dead.oldest(), Ordering::Relaxed);
        let flushed = self.medium.flush_directory().map_err(Error::io("flush", self.directory(), 0));
        forget();
        // Those who walk may name places in it for longer than a guard lives; those who come later cannot.
        let walking = self.walks.lock().unwrap_or_else(PoisonError::into_inner).all();
        Guard::pin().retire(move || give_back(segment, walking));
        flushed?;
        self.oldest_lingering.store(u64::MAX, Ordering::Relaxed);
        Ok(sealed.bytes)
    }

    /// Says that some of what was alive in a sealed segment may stand elsewhere now, though the segment stays: no removal is forgotten
    /// while it is there.
    pub fn note_left(&self, sealed: &Sealed) {
        if let Some(segment) = self.table.get(sealed.base).filter(|segment| !segment.dead.is_gone()) {
            // Relaxed: one compaction at a time looks at it.
            segment.dead.oldest.store(0, Ordering::Relaxed);
        }
    }

    /// While what this returns lives, every location that was read from a slot meanwhile can be read.
    pub fn walking(&self) -> Walking {
        self.walks.lock().unwrap_or_else(PoisonError::into_inner).now.clone()
    }
}

/// Forgets the bytes of a segment when the last walk has ended that may name them.
fn give_back(segment: Arc<Segment>, walking: Vec<Weak<()>>) {
    if walking.iter().all(|walking| walking.strong_count() == 0) {
        segment.forget();
    } else {
        Guard::pin().retire(move || give_back(segment, walking));
    }
}
