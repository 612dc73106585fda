//! The quiet part of the log: up to where nobody writes any more, for those who read segments as a whole.
//!
//! Holds moments of the log, and what was in front of one. Never waits for writers: its callers have. Invariant: what is in front of a
//! moment, once every writer from before it is gone, does not change but by being void.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Log,
    format::{self, RECORDS_START},
    medium::Medium,
    open::{Scanned, write_identity},
    scan::{Found, Item, Scan},
    segment::{Segment, SharedSegment},
    space::Purpose,
    tail::Position,
};
use crate::{Error, Guard, Result, slot::Location};

impl Log {
    /// Calls `visit` with every record that is in the log now, in no order of sequences. The caller has made sure
    /// that nobody is still writing what was reserved before the call.
    ///
    /// # Errors
    /// [`Error::Io`], and what `visit` returns.
    pub fn visit_all(
        &self,
        quiet: QuietEnd,
        mut visit: impl FnMut(&Found<'_>, Location) -> Result<()>,
    ) -> Result<Vec<(String, Scanned)>> {
        let mut all = Vec::new();
        for (segment, file_end) in self.quiet_segments(quiet)? {
            let Quiet { bytes, end } = self.quiet_part(&segment, file_end, quiet)?;
            // While the store is open nothing is torn: a committed record that does not check out is damage.
            // But who only reads has repaired nothing.
            let damaged_below = if self.options.read_only { segment.flushed } else { u64::MAX };
            let mut scanned = self.scan_bytes(&segment, (RECORDS_START, &bytes), damaged_below, &mut visit)?;
            if let Some(Error::Corrupt { offset, what, .. }) = segment.missing(scanned.end, end) {
                scanned.damaged.push((offset, what));
            }
            all.push((segment.path().to_owned(), scanned));
        }
        Ok(all)
    }

    /// The segments that have a quiet part, and where that ends.
    fn quiet_segments(&self, quiet: QuietEnd) -> Result<Vec<(SharedSegment, u64)>> {
        let mut all = Vec::new();
        for segment in self.segments() {
            if let Some(end) = Self::quiet_end(&segment, quiet)? {
                all.push((segment, end));
            }
        }
        Ok(all)
    }

    fn quiet_part<'a>(&self, segment: &'a Segment, end: u64, quiet: QuietEnd) -> Result<Quiet<'a>> {
        let bytes = segment.quiet_bytes(RECORDS_START, end)?;
        Ok(Quiet { bytes, end: self.records_end(segment, &quiet).unwrap_or(0) })
    }

    /// Where the quiet part of a segment ends; `None` if it came later.
    fn quiet_end(segment: &Segment, quiet: QuietEnd) -> Result<Option<u64>> {
        Ok(match (quiet.spare, quiet.active) {
            (Some((number, offset)), _) if number == segment.number => Some(offset),
            (_, Some((number, offset))) if number == segment.number => Some(offset.min(segment.capacity)),
            _ if segment.number >= quiet.next_number => None,
            _ => Some(segment.file_bytes()?),
        })
    }

    /// Up to where there must be records in the quiet part of a segment, 0 if that is not known; `None` if it came later.
    pub(super) fn records_end(&self, segment: &Segment, quiet: &QuietEnd) -> Option<u64> {
        if segment.number >= quiet.next_number {
            return None;
        }
        let end = match (quiet.active, quiet.spare) {
            (Some((number, end)), _) if number == segment.number && end <= segment.capacity => end,
            (_, Some((number, end))) if number == segment.number => end,
            _ => segment.settled(),
        };
        // From here on there may be holes.
        let unsettled = Position(self.unsettled.load(Ordering::Relaxed));
        Some(if Position::of(segment, end) > unsettled { 0 } else { end })
    }

    /// Where the log ends now: up to here it is quiet once all writers that are active now have finished.
    pub fn end(&self) -> QuietEnd {
        let (guard, roll) = (Guard::pin(), self.lock_roll());
        let spare = roll.spare.as_ref().map(|(segment, offset)| (segment.number, *offset));
        let active = self.active(&guard).map(|(segment, tail)| (segment.number, tail.offset()));
        QuietEnd { active, next_number: roll.next_number, spare }
    }

    /// The end of what nobody appends to any more: a segment begins there that is appended to and has nothing but what was appended
    /// since the log was opened. (One that was found then may have records that are older than what is in others.) `None` if nothing
    /// was appended yet.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn sealed_end(&self) -> Result<Option<QuietEnd>> {
        let guard = Guard::pin();
        if let Some((_, tail)) = self.active(&guard).filter(|(active, _)| active.found_bytes > 0) {
            self.roll_from(tail, 0, Purpose::Written)?;
        }
        let end = self.end();
        Ok(end.active.map(|(number, _)| QuietEnd { active: Some((number, RECORDS_START)), ..end }))
    }

    /// Whether the record at `at` stands in front of `end`.
    pub fn is_before(&self, at: Location, end: &QuietEnd) -> bool {
        let guard = Guard::pin();
        let Ok((segment, offset)) = self.find(at, &guard) else { return false };
        match (end.active, end.spare) {
            _ if segment.number >= end.next_number => false,
            (Some((number, end)), _) if number == segment.number => offset < end,
            (_, Some((number, start))) if number == segment.number => offset < start,
            _ => true,
        }
    }

    /// Whether a writer waits for room under a ceiling.
    pub fn is_wanted(&self) -> bool {
        self.space.is_wanted()
    }

    /// Writes a store with the records up to `sequence` that are in the quiet part of the log to `target`, which is empty.
    /// It has this store's identity. Durable on return.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] if a segment was cut: what was written so far stays behind.
    pub fn copy_to(&self, target: &Arc<dyn Medium>, quiet: QuietEnd, sequence: u64) -> Result<()> {
        for (segment, file_end) in self.quiet_segments(quiet)? {
            let Quiet { bytes, end } = self.quiet_part(&segment, file_end, quiet)?;
            let mut late = Vec::new();
            let mut scan = Scan::new(&self.keys, &bytes);
            for item in scan.by_ref() {
                match item {
                    // A dictionary may be younger than what it was trained for: a record keeps its sequence when it is packed.
                    Item::Record(found)
                        if found.header.sequence > sequence && found.namespace != format::DICTIONARIES =>
                    {
                        late.push((found.offset, found.bytes));
                    }
                    // What is torn in a store that is only read was never promised: it does not become damage.
                    Item::Damaged(found) if self.options.read_only && found.offset >= segment.flushed => {
                        late.push((found.offset, found.bytes));
                    }
                    Item::Gap { offset, bytes } if bytes >= format::HEADER_BYTES => late.push((offset, bytes)),
                    _ => {}
                }
            }
            let used = (scan.end() - RECORDS_START).min(bytes.len() as u64) as usize;
            let found = scan.end();
            let copied = segment.copy_to(target.clone(), &self.keys, self.identity.id, &bytes[..used], &late);
            // First: copying from a page that is missing fails as if it were the copy's fault.
            segment.missing(found, end).map_or(copied, Err)?;
        }
        // Last: what was cut short is no store.
        write_identity(&**target, &self.identity)
    }
}

/// The bytes of a segment that nobody writes, and up to where there must be records in them.
struct Quiet<'a> {
    bytes: Cow<'a, [u8]>,
    end: u64,
}

/// A moment of the log: see [`Log::end`].
#[derive(Clone, Copy, Debug)]
pub struct QuietEnd {
    /// The number of the segment that is appended to, and where the next record goes.
    active: Option<(u64, u64)>,
    next_number: u64,
    /// The number of the segment that is ready and unused, and where its records go on.
    spare: Option<(u64, u64)>,
}

impl QuietEnd {
    /// The number of the next segment.
    pub(super) fn next_number(self) -> u64 {
        self.next_number
    }
}
