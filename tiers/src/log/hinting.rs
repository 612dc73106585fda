//! Hints as files: which segments wait for one, how one is written, believed and removed.
//!
//! Holds names and the order of steps. Never knows who asks, or what becomes of what a hint says. Invariants: a hint is of what the
//! disk has; it is never believed over a segment that says less of itself; and it goes before its segment does.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Log, Options,
    format::{HintHead, RECORDS_START},
    hint::{Hint, Hinted, NewHint},
    medium::{File, Medium},
    segment::{self, Segment, SharedSegment},
    tail::Position,
};
use crate::{Error, Guard, Result, slot::Location};

const END: &str = ".hint";

/// What is known of the hints of a log.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Full segments without one.
    waiting: Mutex<Vec<SharedSegment>>,
    has_waiting: AtomicBool,
    /// Held by who writes them, so that who asks for them has them all.
    writing: Mutex<()>,
    /// Held while a name comes or goes.
    naming: Mutex<()>,
    /// What hints say of segments in which damage was met while the log is opened, in the order of places.
    recalled: Mutex<HashMap<usize, Arc<Vec<Hinted>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is changed by one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name_of(number: u64) -> String {
    format!("{number:016x}{END}")
}

impl Hints {
    /// Finds the hints among `names`; removes those that nobody may believe. Numbers are given out again when the segments of the
    /// highest ones have gone, so none may stay that has no segment.
    pub(super) fn find(
        medium: &dyn Medium,
        names: &[String],
        found: &[Segment],
        options: &Options,
        believes: bool,
    ) -> Result<Self> {
        let believes = believes && options.disk_capacity.is_none();
        for name in names {
            let Some(number) = segment::number_in(name, END) else { continue };
            match found.iter().find(|segment| segment.number == number).filter(|_| believes) {
                Some(segment) => segment.has_hint.store(true, Ordering::Relaxed),
                None if options.read_only => {}
                None => {
                    let io = Error::io("remove", format!("{}/{name}", medium.directory()), 0);
                    medium.remove(name).map_err(io)?;
                }
            }
        }
        Ok(Self::default())
    }

    /// The log is open: what was read of damaged segments is asked for no more.
    pub(super) fn forget(&self) {
        lock(&self.recalled).clear();
    }
}

impl Log {
    /// The hint of the segment `index`, if there is one to be believed which knows more than the snapshot does.
    pub fn hint(&self, index: usize) -> Option<Hint> {
        self.found_hint(self.found.get(index)?)
    }

    /// Notes what a hint says of deadlines and removals, as a scan does.
    pub(super) fn note_hint(&self, segment: &Segment, hint: &Hint) {
        let start = self.covered_bytes(segment);
        if start == RECORDS_START {
            segment.dead.note_nothing();
        }
        let mut bytes = 0;
        for hinted in hint.records() {
            bytes += hinted.bytes;
            segment.dead.note_placed(hinted.bytes, &hinted.header);
        }
        segment.dead.note_void(hint.end.saturating_sub(start + bytes));
    }

    fn found_hint(&self, segment: &Segment) -> Option<Hint> {
        self.hint_of(segment, self.covered_bytes(segment), segment.flushed.min(segment.found_bytes))
    }

    /// The hint of a segment that has `bytes` flushed bytes, of what stands behind `covered`. One that was written for another segment,
    /// or of another store, or harmed, is removed.
    fn hint_of(&self, segment: &Segment, covered: u64, bytes: u64) -> Option<Hint> {
        if !segment.has_hint.load(Ordering::Relaxed) || segment.header_damage.is_some() {
            return None;
        }
        let read = self.open_hint(segment, bytes).and_then(|opened| {
            let Some((file, head)) = opened else { return Ok(None) };
            // Nobody reads it whose records the snapshot has.
            let mut bytes = vec![0; if head.end > covered { file.bytes()? as usize } else { 0 }];
            file.read_at(0, &mut bytes)?;
            Ok(Some((head, bytes)))
        });
        let hint = match read {
            // It may be read another time.
            Err(_) => return None,
            Ok(Some((_, bytes))) if bytes.is_empty() => return None,
            Ok(Some((head, bytes))) => Hint::parse(&self.keys, &head, bytes, segment.base, covered),
            Ok(None) => None,
        };
        if hint.is_none() && !self.options.read_only {
            // Best effort: it is not believed the next time either.
            let _ = self.remove_hint(segment);
        }
        hint
    }

    /// The file, and its head; `None` if it is not what was written, or of what the segment does not say that it has.
    fn open_hint(&self, segment: &Segment, bytes: u64) -> io::Result<Option<(Box<dyn File>, HintHead)>> {
        let file = self.medium.open(&name_of(segment.number), false)?;
        let mut head = [0; HintHead::BYTES];
        if !Hint::can_be(file.bytes()?, bytes) {
            return Ok(None);
        }
        file.read_at(0, &mut head)?;
        let can_be = |head: &HintHead| {
            let is_its = head.store == self.identity.id && head.number == segment.number;
            is_its && (RECORDS_START..=bytes).contains(&head.end)
        };
        Ok(HintHead::decode(&head).ok().filter(can_be).map(|head| (file, head)))
    }

    /// What a hint says of the record at `at`, which is damaged; `None` if nothing does. Before [`start`](Self::start) only.
    pub fn recall(&self, at: Location) -> Option<Hinted> {
        let guard = Guard::pin();
        let segment = self.table.get(at.address().slot(), &guard)?;
        let mut recalled = lock(&self.hints.recalled);
        let hinted = recalled
            .entry(segment.base)
            .or_insert_with(|| Arc::new(self.found_hint(segment).iter().flat_map(Hint::records).collect()));
        let found = hinted.binary_search_by_key(&at.address(), |hinted| hinted.at.address()).ok()?;
        Some(hinted[found])
    }

    /// Has a hint written for a segment that gets no more records, when its last writers are done.
    pub(super) fn queue_for_hint(&self, segment: &SharedSegment) {
        // A ceiling is for records.
        if self.options.disk_capacity.is_some() {
            return;
        }
        lock(&self.hints.waiting).push(segment.clone());
        // Relaxed: a hint for those who ask, who look for themselves.
        self.hints.has_waiting.store(true, Ordering::Relaxed);
    }

    /// Whether segments wait for [`write_hints`](Self::write_hints).
    #[inline]
    pub fn wants_hints(&self) -> bool {
        self.hints.has_waiting.load(Ordering::Relaxed)
    }

    /// Writes hints for segments that are full, with at least `bytes_min` of records, until `is_ending`; makes those segments
    /// durable first. Whether some are left whose writers have not finished. Long: reads the segments.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Suspended`]. A hint that could not be written is not tried again.
    pub fn write_hints(&self, bytes_min: u64, is_ending: impl Fn() -> bool) -> Result<bool> {
        let _writing = lock(&self.hints.writing);
        let mut left = Vec::new();
        while !is_ending() {
            let Some(segment) = lock(&self.hints.waiting).pop() else { break };
            if self.has_writers(&segment) {
                left.push(segment);
            } else if segment.settled() >= RECORDS_START + bytes_min {
                match self.write_hint(&segment) {
                    Err(Error::Io { source, .. }) if source.kind() == ErrorKind::StorageFull => {}
                    // What was put aside is looked at another time.
                    Err(error) => {
                        lock(&self.hints.waiting).append(&mut left);
                        return Err(error);
                    }
                    Ok(()) => {}
                }
            }
        }
        let mut waiting = lock(&self.hints.waiting);
        let are_left = !left.is_empty();
        waiting.append(&mut left);
        self.hints.has_waiting.store(!waiting.is_empty(), Ordering::Relaxed);
        Ok(are_left)
    }

    fn write_hint(&self, segment: &SharedSegment) -> Result<()> {
        let end = segment.settled();
        let is_whole = !segment.dead.is_gone() && !segment.dead.is_damaged() && segment.header_damage.is_none();
        if !is_whole || Position::of(segment, end) > Position(self.unsettled.load(Ordering::Relaxed)) {
            return Ok(());
        }
        if self.flusher.lists(segment) && !self.flush_full(segment)? {
            return Ok(());
        }
        // Its map stays what it is.
        let _walking = self.walking();
        let mut hint = NewHint::new(&self.keys);
        let is_whole = self.visit_whole(segment, end, |found, _| {
            hint.add(found);
            Ok(())
        });
        match segment.unless_gone(is_whole)? {
            Some(true) => self.put_hint(segment, &hint.finish(self.identity.id, segment.number, end)),
            _ => Ok(()),
        }
    }

    /// Makes a segment durable that nobody writes to, and notes that. `false` if it is gone.
    fn flush_full(&self, segment: &SharedSegment) -> Result<bool> {
        let flush = || self.flusher.flush_one(&*self.medium, segment, |first| self.note_doubt(first));
        flush()?;
        segment.unless_gone(segment.check_length())?;
        let Some(bytes) = segment.unless_gone(segment.file_bytes())? else { return Ok(false) };
        segment.unless_gone(segment.note_flushed(bytes))?;
        // The note, too, or the hint would not be believed after a power cut.
        flush()?;
        self.flusher.remove(|listed| listed.number == segment.number);
        Ok(!segment.dead.is_gone())
    }

    fn put_hint(&self, segment: &Segment, bytes: &[u8]) -> Result<()> {
        let name = name_of(segment.number);
        let unfinished = format!("{name}.new");
        let put = || -> io::Result<()> {
            // Left behind by an attempt that failed.
            let _ = self.medium.remove(&unfinished);
            let file = self.medium.create(&unfinished)?;
            file.write_at(0, bytes)?;
            self.note_beside(bytes);
            file.flush()?;
            let _naming = lock(&self.hints.naming);
            if segment.dead.is_gone() {
                return self.medium.remove(&unfinished);
            }
            self.medium.rename(&unfinished, &name)?;
            segment.has_hint.store(true, Ordering::Relaxed);
            Ok(())
        };
        let put =
            put().inspect_err(|_| drop(self.medium.remove(&unfinished))).and_then(|()| self.medium.flush_directory());
        put.map_err(Error::io("write", format!("{}/{name}", self.directory()), 0))
    }

    /// Removes the hint of a segment, if it has one; of one that goes, when nobody can give it one any more.
    pub(super) fn remove_hint(&self, segment: &Segment) -> Result<()> {
        let _naming = lock(&self.hints.naming);
        if !segment.has_hint.load(Ordering::Relaxed) {
            return Ok(());
        }
        let name = name_of(segment.number);
        match self.medium.remove(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("remove", format!("{}/{name}", self.directory()), 0)(error));
            }
            _ => segment.has_hint.store(false, Ordering::Relaxed),
        }
        Ok(())
    }
}
