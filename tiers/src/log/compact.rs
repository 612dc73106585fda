//! Compaction's part of the log: segments that are sealed, and segments that go.
//!
//! Holds what somebody who chooses among them needs to know, and the way a file leaves. Never knows what is alive: it is told. Invariant: the file of a
//! segment goes only when every record in it that counts is durable elsewhere, and its map when nobody can look into it any more.

use std::{
    io::ErrorKind,
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
};

use super::{
    Log,
    cold::Cold,
    dead::Older,
    format::{Header, RECORDS_START},
    open::location,
    scan::{Found, Item, Scan},
    segment::{self, Segment, SharedSegment},
    space::Purpose,
    tail::Position,
};
use crate::{Error, Guard, Result, slot::Location};

/// Segment slots run short when less than this part of them is free, or less than so many segments take.
const SLOTS_FREE_PART: usize = 8;
const SLOTS_FREE_MIN: usize = 3;

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
    /// Whether everything in it has expired, and nothing elsewhere would come back without it.
    pub is_expired: bool,
}

impl Sealed {
    /// Figures that no log gave, for tests of a choice.
    pub fn new(number: u64, bytes: u64, dead_bytes: u64) -> Self {
        Self { number, bytes, dead_bytes, is_plain: false, is_expired: false }
    }
}

/// Every place of some segments.
#[derive(Debug)]
pub struct Places(Vec<bool>);

impl Places {
    /// Whether the record at `at`, which is in the log, is in one of them.
    #[inline]
    pub fn contains(&self, at: Location) -> bool {
        !at.is_nothing() && self.0.get(at.address().slot()).copied().unwrap_or(false)
    }
}

/// For each segment what all the others have: the lowest two of each number, and whose the lowest is.
struct Outside {
    any: [(u64, u64); 2],
    outliving: [(u64, u64); 2],
}

impl Outside {
    fn new(all: impl Iterator<Item = (u64, Older)>) -> Self {
        let none = [(u64::MAX, u64::MAX); 2];
        all.fold(Self { any: none, outliving: none }, |lowest, (number, older)| Self {
            any: lowest_two(lowest.any, (older.any, number)),
            outliving: lowest_two(lowest.outliving, (older.outliving, number)),
        })
    }

    fn of(&self, number: u64) -> Older {
        let of = |[first, second]: [(u64, u64); 2]| if first.1 == number { second.0 } else { first.0 };
        Older { any: of(self.any), outliving: of(self.outliving) }
    }
}

fn lowest_two([first, second]: [(u64, u64); 2], new: (u64, u64)) -> [(u64, u64); 2] {
    if new < first { [new, first] } else { [first, second.min(new)] }
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
    /// Says that no key needs the record at `at` any more, which takes `bytes`. `outlives` says of a value that it may live on if
    /// what took its place was gone: unless that expires no earlier.
    #[inline]
    pub fn note_dead(&self, at: Location, bytes: u64, header: &Header, outlives: bool) {
        let guard = Guard::pin();
        let Some(segment) = self.table.get(at.address().slot(), &guard) else { return };
        // Whoever relies on it has waited for all writers.
        segment.dead.note_dead(bytes, header, outlives);
    }

    /// What may come back when nothing newer of its key is left, in any segment but `sealed` or in a file that may come back.
    pub fn older_outside(&self, sealed: &Sealed, now_ms: u64) -> Older {
        let others = self.segments().into_iter().filter(|segment| segment.number != sealed.number);
        let gone = self.table.numbered(sealed.number);
        // As it will be when this one has gone: what protects its key from something older may be in here, too.
        let older = |segment: SharedSegment| match &gone {
            Some(gone) => segment.dead.older_without(&gone.dead, now_ms),
            None => segment.dead.older(now_ms),
        };
        others.map(older).fold(self.older_lingering(), Older::min)
    }

    fn older_lingering(&self) -> Older {
        let oldest = self.oldest_lingering.load(Ordering::Relaxed);
        Older { any: oldest, outliving: oldest }
    }

    /// Whether somebody may write to a segment, compaction aside.
    pub(super) fn has_writers(&self, segment: &Segment) -> bool {
        let quiescent = Position(self.quiescent.load(Ordering::Acquire));
        let is_alone = || {
            let quiet_ordinals = self.quiet_ordinals.load(Ordering::Acquire);
            segment.dead.is_alone.load(Ordering::Relaxed) && segment.ordinal < quiet_ordinals
        };
        segment.ordinal >= quiescent.ordinal() && !segment.dead.is_cold.load(Ordering::Relaxed) && !is_alone()
    }

    /// The segments that no writer writes to any more and whose records are all whole, as far as is known.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be measured.
    pub fn sealed(&self, cold: &Cold, now_ms: u64) -> Result<Vec<Sealed>> {
        let spare = self.lock_roll().spare.as_ref().map(|(segment, _)| segment.number);
        let active = self.active(&Guard::pin()).map(|(segment, _)| segment.number);
        let (mut all, segments) = (Vec::new(), self.segments());
        let older = Outside::new(segments.iter().map(|segment| (segment.number, segment.dead.older(now_ms))));
        for segment in segments {
            if segment.is_cut() {
                segment.dead.set_damaged();
            }
            let number = segment.number;
            let is_open = self.has_writers(&segment) || [active, spare].contains(&Some(number)) || cold.has(number);
            if is_open || segment.header_damage.is_some() || segment.dead.is_damaged() {
                continue;
            }
            let mut bytes = segment.dead.file_bytes.load(Ordering::Relaxed);
            if bytes == 0 {
                bytes = segment.file_bytes()?;
                segment.dead.file_bytes.store(bytes, Ordering::Relaxed);
            }
            let outside = older.of(number).min(self.older_lingering());
            let dead_bytes = segment.dead.bytes_at(now_ms, outside).min(bytes);
            let is_plain = !segment.is_packed && bytes > RECORDS_START;
            let is_expired = segment.dead.is_expired(now_ms)
                && segment.dead.are_removals_needless(outside)
                && outside.outliving == u64::MAX;
            all.push(Sealed { number, bytes, dead_bytes, is_plain, is_expired });
        }
        Ok(all)
    }

    /// Shows every record of a sealed segment. `false` if something in it is damaged: then it is sealed no more.
    ///
    /// # Errors
    /// [`Error::Io`], and what `visit` returns.
    pub fn visit_sealed(&self, sealed: &Sealed, visit: impl FnMut(&Found<'_>, Location) -> Result<()>) -> Result<bool> {
        self.visit_whole(&*self.segment_of(sealed)?, sealed.bytes, visit)
    }

    /// Shows every record of a segment that nobody writes to, up to `end`. `false` if something in it is damaged, which is noted.
    pub(super) fn visit_whole(
        &self,
        segment: &Segment,
        end: u64,
        mut visit: impl FnMut(&Found<'_>, Location) -> Result<()>,
    ) -> Result<bool> {
        let bytes = segment.quiet_bytes(RECORDS_START, end)?;
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
            if Position(self.unsettled.load(Ordering::Relaxed)) < Position::of(segment, settled) { 0 } else { settled };
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
        let is_due = |segment: &Segment, end: u64| {
            segment.dead.bytes_at(now_ms, Older::NONE) > 0 || packs && !segment.is_packed && end > RECORDS_START
        };
        let guard = Guard::pin();
        if let Some((segment, tail)) = self.active(&guard) {
            return match is_due(segment, tail.offset()) {
                true => self.roll_from(tail, 0, Purpose::Written),
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
            let behind = Position::new(segment.ordinal + 1, 0);
            // Release: as in `quiescer`.
            self.quiescent.fetch_max(behind.0, Ordering::Release);
        }
        Ok(())
    }

    /// Gives back what is reserved for writes, while there are none: the segment to go on in, and what the one that is appended
    /// to has not made ready. Under a ceiling what is reserved stays so.
    ///
    /// # Errors
    /// [`Error::Io`]: nothing is lost.
    pub fn rest(&self) -> Result<()> {
        // On a full disk somebody else would take it.
        if self.space.is_bounded() || self.is_full() {
            return Ok(());
        }
        self.remove_reserve()?;
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
            self.give_back_later(spare, Vec::new());
        }
        drop(roll);
        self.share_active().map_or(Ok(()), |(active, _)| active.shorten())
    }

    fn segment_of(&self, sealed: &Sealed) -> Result<SharedSegment> {
        let gone = || {
            let what = format!("segment {:x} is not there any more", sealed.number);
            Error::Corrupt { file: self.directory(), offset: 0, what }
        };
        self.table.numbered(sealed.number).ok_or_else(gone)
    }

    /// Whether there is room for a file of so many bytes that writers need.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.space.has_room(bytes, Purpose::Written)
    }

    /// Whether segment slots run short: then whatever is dead should go.
    pub fn lacks_slots(&self) -> bool {
        let (free, count) = self.table.free_slots();
        free < (count / SLOTS_FREE_PART).max(SLOTS_FREE_MIN * segment::slots_of(self.options.segment_bytes))
    }

    /// About how many bytes are no record that a key needs, and can go.
    pub fn dead_bytes(&self) -> u64 {
        let can_go = |segment: &SharedSegment| segment.header_damage.is_none() && !segment.dead.is_damaged();
        let sealed = self.segments().into_iter().filter(can_go);
        sealed.fold(0, |sum, segment| sum.saturating_add(segment.dead.bytes()))
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
        let needs_spare = self.active(&Guard::pin()).is_some_and(|(active, tail)| {
            tail.offset() > active.capacity / 2 && !self.has_spare.load(Ordering::Relaxed)
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
    pub fn drop_sealed(&self, sealed: &Sealed, now_ms: u64, forget: impl FnOnce()) -> Result<u64> {
        let segment = self.segment_of(sealed)?;
        // First: a hint is never there without its segment, unless a power cut has it so.
        segment.dead.set_gone();
        self.remove_hint(&segment).inspect_err(|_| segment.dead.set_there())?;
        // Before it can be gone: what it protected others from is known by then.
        self.segments().into_iter().filter(|other| other.number != sealed.number).for_each(|other| {
            other.dead.note_dropped(&segment.dead);
        });
        let older = segment.dead.older(now_ms);
        match self.medium.remove(&segment::name_of(segment.number)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                segment.dead.set_there();
                return Err(Error::io("remove", segment.path(), 0)(error));
            }
            _ => {}
        }
        self.flusher.remove(|listed| listed.number == segment.number);
        // Relaxed: one compaction at a time looks at it.
        self.oldest_lingering.fetch_min(older.any.min(older.outliving), Ordering::Relaxed);
        let flushed = self.medium.flush_directory().map_err(Error::io("flush", self.directory(), 0));
        forget();
        // Those who walk may name places in it for longer than a guard lives; those who come later cannot.
        let walking = self.walks.lock().unwrap_or_else(PoisonError::into_inner).all();
        self.give_back_later(segment, walking);
        flushed?;
        self.oldest_lingering.store(u64::MAX, Ordering::Relaxed);
        Ok(sealed.bytes)
    }

    /// Has a segment whose name is gone given back when every guard from before is gone, and these walks.
    fn give_back_later(&self, segment: SharedSegment, walking: Vec<Weak<()>>) {
        let leaving = self.leaving.clone();
        Guard::pin().retire(move || leaving.lock().unwrap_or_else(PoisonError::into_inner).push((segment, walking)));
    }

    /// Gives back the space of segments that went and that nobody looks into any more, and frees their slots, for whoever has the time:
    /// it takes milliseconds. Whether that is all of them.
    pub fn give_back(&self) -> bool {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = |(_, walking): &mut (SharedSegment, Vec<Weak<()>>)| {
            walking.iter().all(|walking| walking.strong_count() == 0)
        };
        let gone: Vec<_> = leaving.extract_if(.., is_quiet).collect();
        let is_all = leaving.is_empty();
        drop(leaving);
        for (segment, _) in gone {
            segment.forget();
            self.table.remove(&segment);
        }
        is_all
    }

    /// Bytes of values in a sealed segment that have a deadline and that their keys need.
    pub fn expiring_bytes(&self, sealed: &Sealed) -> u64 {
        self.table.numbered(sealed.number).map_or(0, |segment| segment.dead.expiring_bytes())
    }

    /// The places of some segments.
    pub fn places_of(&self, sealed: &[Sealed]) -> Places {
        let segments = sealed.iter().filter_map(|sealed| self.table.numbered(sealed.number));
        let slots = segments.flat_map(|segment| segment.base..segment.base + segment.slots()).collect::<Vec<_>>();
        let mut places = vec![false; slots.iter().max().map_or(0, |last| last + 1)];
        slots.into_iter().for_each(|slot| places[slot] = true);
        Places(places)
    }

    /// Says that some of what was alive in a sealed segment may stand elsewhere now, though the segment stays: no removal is forgotten
    /// while it is there.
    pub fn note_left(&self, sealed: &Sealed) {
        if let Some(segment) = self.table.numbered(sealed.number).filter(|segment| !segment.dead.is_gone()) {
            segment.dead.note_left();
        }
    }

    /// While what this returns lives, every location that was read from a slot meanwhile can be read.
    pub fn walking(&self) -> Walking {
        self.walks.lock().unwrap_or_else(PoisonError::into_inner).now.clone()
    }
}

/// Segments that went, and the walks that may name places in them: nobody else does any more.
pub(super) type Leaving = Vec<(SharedSegment, Vec<Weak<()>>)>;
