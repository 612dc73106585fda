//! The arena: where records in memory stand, how they are read and how long they stay.
//!
//! Holds, with `arena/record.rs` and `arena/held.rs`, every unsafe line of the memory tier. Never knows what a slot names. Invariants: a record is read only under a
//! guard that was made while it was live, or through a count of holders; its place is given out again only when neither
//! is left.
//!
//! ```text
//!    vacant --place--> LIVE --retire--> retired --every older guard gone--> vacant, if nobody holds it
//!                                                                      \--> held --last holder--> vacant
//! ```
//!
//! Whoever finds a record looks, under his guard, whether its place may start a record and whether that is live. What is
//! retired stopped being live before. So a record that was live under a guard is reclaimed after that guard, whatever
//! name led to it: a stale name finds nothing, or another record.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

mod held;
mod kept;
mod layout;
mod record;

pub use held::Held;
use kept::Released;
pub use kept::{Decoded, Kept, Object};
pub(super) use layout::arena_bytes;
use layout::{HEADER_BYTES, Header, Lengths, bytes_of, flags_of, kept_at, skipped, state};
pub use record::Record;

use super::{
    classes::BLOCK_BYTES,
    places::{Ground, Places, Vacant},
    space::{Advice, REGION_PAGES},
};
use crate::{
    Guard,
    log::{Header as LogHeader, NewRecord, RecordKind},
    slot::{Location, Reserved},
};

/// The memory of one tier: a long range of addresses, whose memory comes with use and goes back by region.
#[derive(Debug)]
pub(super) struct Arena {
    words: Reserved<AtomicU64>,
    places: Arc<Places>,
    /// Bytes of records that were retired while there were guards.
    waiting_bytes: AtomicU64,
    released: Released,
}

impl Ground for Arena {
    fn advise(&self, region: usize, advice: Advice) {
        let words = REGION_PAGES * 512;
        let range = region * words..(region + 1) * words;
        match advice {
            Advice::Huge => self.words.advise_huge(range),
            // SAFETY: `Places` discards regions no page of which has an owner, and pages lose their owner when nobody can
            // see their records any more.
            Advice::Discard => unsafe { self.words.discard(range) },
        }
    }

    fn clear(&self, offset: u64) {
        // SAFETY: `Places` clears the places of blocks and pages that it has just taken and shown to nobody. An all-zero
        // header is valid and not live.
        unsafe { self.header(offset) }.state.store(0, Ordering::Relaxed);
    }
}

impl Arena {
    /// Reserves `bytes` of addresses, or as many as the system gives.
    ///
    /// # Errors
    /// What the system says when it refuses even 2 MiB.
    pub(super) fn new(bytes: u64) -> std::io::Result<Self> {
        let words = Reserved::<AtomicU64>::plain((bytes / 8) as usize)?;
        let places = Places::new((words.len() as u64 * 8).min(bytes))?;
        Ok(Self { words, places: Arc::new(places), waiting_bytes: AtomicU64::new(0), released: Released::default() })
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Drops objects of records that are gone.
    #[inline]
    pub(super) fn drop_released(&self) {
        self.released.drop_all();
    }

    /// Bytes of records that were retired and wait for guards to go.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// The header at an offset.
    ///
    /// # Safety
    /// A place starts there, and it is of a cut that the caller's guard has seen, or the caller's own.
    #[inline]
    unsafe fn header(&self, offset: u64) -> &Header {
        debug_assert!(offset.is_multiple_of(8) && offset + HEADER_BYTES <= self.words.len() as u64 * 8);
        // SAFETY: inside the arena (places are), aligned, and of atomics; nothing is ever written there in other ways
        // while somebody can look.
        unsafe { &*self.words.as_ptr().cast::<u8>().add(offset as usize).cast::<Header>() }
    }

    /// Copies a record to its place, where it is live from here on. That its kind is packed says so of its home: the value is
    /// decoded.
    #[inline]
    pub(super) fn place(
        &self,
        vacant: &Vacant,
        record: &NewRecord<'_>,
        home: Option<Location>,
        history: u16,
    ) -> Location {
        let LogHeader { kind, sequence, deadline_ms } = record.header;
        debug_assert!(kind.is_value());
        let beside = flags_of(record);
        assert!(bytes_of(record.key.len(), record.value.len(), beside) <= vacant.bytes, "a record fits its place");
        let address = home.map_or(0, |home| home.address().to_bits());
        // SAFETY: the place is the caller's (`Vacant`), and long enough for what is copied (above). Its header is
        // written by atomic stores, because those who sample look at its state; behind it nobody looks before `LIVE`.
        let header = unsafe {
            let header = self.header(vacant.offset);
            let mut to = ptr::from_ref(header).cast::<u8>().cast_mut().add(HEADER_BYTES as usize);
            if deadline_ms != 0 {
                ptr::copy_nonoverlapping(deadline_ms.to_ne_bytes().as_ptr(), to, 8);
                to = to.add(8);
            }
            ptr::copy_nonoverlapping(record.key.as_ptr(), to, record.key.len());
            ptr::copy_nonoverlapping(record.value.as_ptr(), to.add(record.key.len()), record.value.len());
            if let Some(kept) = record.kept {
                // Aligned: the place is, and `kept_at` is a multiple of eight.
                let skipped = kept_at(record.key.len(), record.value.len(), beside);
                ptr::from_ref(header).cast::<u8>().cast_mut().add(skipped).cast::<Kept>().write(kept.clone());
            }
            header
        };
        // Relaxed: seen by those who see `LIVE`.
        header.sequence.store(sequence, Ordering::Relaxed);
        header.home_low.store(address as u32, Ordering::Relaxed);
        header.home_high.store((address >> 32) as u8, Ordering::Relaxed);
        header.history.store(history, Ordering::Relaxed);
        header.lengths.store(Lengths::new(record.key.len(), record.value.len()).0, Ordering::Relaxed);
        let at_home = if home.is_some() { state::AT_HOME } else { 0 };
        let packed = if kind == RecordKind::Packed { state::PACKED } else { 0 };
        let flags = state::LIVE | at_home | packed | beside;
        // Release: pairs with the Acquire in `record`.
        header.state.store(flags, Ordering::Release);
        Location::in_memory(vacant.block, vacant.place)
    }

    /// Asks for the first `lines` cache lines of a place.
    #[inline]
    pub(super) fn prefetch(&self, at: Location, lines: usize, guard: &Guard) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let (block, place) = at.block_and_place();
            let Some(offset) = self.places.offset(block, place, guard) else { return };
            for line in 0..lines {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                // SAFETY: a prefetch changes nothing but the cache, and may be given any address.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(
                        self.words.as_ptr().cast::<i8>().wrapping_add(offset as usize + 64 * line),
                    )
                }
            }
        }
    }

    /// The record that a location names, if it is live.
    #[inline]
    pub(super) fn record<'g>(self: &'g Arc<Self>, at: Location, guard: &'g Guard) -> Option<Record<'g>> {
        let (block, place) = at.block_and_place();
        let offset = self.places.offset(block, place, guard)?;
        // SAFETY: `offset` is the start of a place by a cut that the guard protects.
        let header = unsafe { self.header(offset) };
        // Acquire: pairs with the Release in `place`.
        let flags = header.state.load(Ordering::Acquire);
        (flags & state::LIVE != 0).then_some(Record { header, flags, arena: self })
    }

    /// Takes the record's life; `false` if somebody else has. To be reclaimed when every guard that lives now is gone.
    pub(super) fn end(&self, record: &Record<'_>) -> bool {
        // Release: what was done with the record comes before. Whoever retires it orders this before later guards.
        let flags = record.header.state.fetch_and(!state::LIVE, Ordering::Release);
        let was_live = flags & state::LIVE != 0;
        if was_live {
            self.places.hide(self.offset_of(record.header), record.bytes());
        }
        was_live
    }

    fn offset_of(&self, header: &Header) -> u64 {
        (ptr::from_ref(header).addr() - self.words.as_ptr().addr()) as u64
    }

    /// Gives the place of a record back, whose life was taken and which no guard protects any more, or leaves that to those
    /// who hold it.
    ///
    /// # Safety
    /// A record starts at `offset`, [`end`](Self::end) said `true` of it, and every guard from before is gone. Once.
    unsafe fn reclaim(self: &Arc<Self>, offset: u64) {
        // SAFETY: the tier's share in the record keeps its header.
        let header = unsafe { self.header(offset) };
        // Acquire: pairs with the Release in `Held::drop`.
        let lengths = Lengths(header.lengths.load(Ordering::Acquire));
        // Without a guard or a holder there will be no holder.
        if lengths.0 & Lengths::HOLDERS != 0 && self.leave_to_holders(header) {
            return;
        }
        // SAFETY: as above, and nobody holds it.
        unsafe { self.vacate(header) };
    }

    /// Lets go what a record keeps, and gives its place back.
    ///
    /// # Safety
    /// The record's life was taken, every guard from before is gone, and nobody holds it. Once.
    unsafe fn vacate(self: &Arc<Self>, header: &Header) {
        // Relaxed: whoever took the record's life, or held it last, comes before.
        let (flags, lengths) = (header.state.load(Ordering::Relaxed), Lengths(header.lengths.load(Ordering::Relaxed)));
        // SAFETY: nobody sees the record any more, so what is in it is the caller's, once.
        unsafe { self.release(header, lengths, flags) };
        self.places.give(self.offset_of(header), bytes_of(lengths.key(), lengths.value(), flags), self);
    }

    /// Lets go what a record keeps.
    ///
    /// # Safety
    /// Nobody sees the record any more. Once.
    unsafe fn release(&self, header: &Header, lengths: Lengths, flags: u8) {
        if let Some(kept) = kept_of(header, lengths, flags) {
            // SAFETY: `place` wrote it before `LIVE`; nobody looks at it, or reads it out, again.
            self.released.add(unsafe { kept.read() });
        }
    }

    /// Gives the tier's share in a record up; `false` if there was no other.
    fn leave_to_holders(self: &Arc<Self>, header: &Header) -> bool {
        let share = Arc::into_raw(self.clone());
        // AcqRel: what the last of them does comes after; what others have read comes before.
        let before = header.lengths.fetch_add(Lengths::LEFT - Lengths::TIER, Ordering::AcqRel);
        let is_held = before & Lengths::HOLDERS != 0;
        if !is_held {
            // SAFETY: the share from above, which nobody will give back now.
            unsafe { Arc::decrement_strong_count(share) };
        }
        is_held
    }

    /// Keeps new records out of a block.
    pub(super) fn close(self: &Arc<Self>, block: usize, guard: &Guard) {
        self.places.close(block, self, guard);
    }

    /// Retires records whose life was taken.
    pub(super) fn retire(self: &Arc<Self>, ended: Ended, guard: &Guard) {
        let arena = self.clone();
        // Relaxed: a sum.
        self.waiting_bytes.fetch_add(ended.bytes, Ordering::Relaxed);
        guard.retire(move || {
            arena.waiting_bytes.fetch_sub(ended.bytes, Ordering::Relaxed);
            for offset in ended.offsets {
                // SAFETY: `Ended` has offsets of records that `end` said `true` of, each once; their guards are gone, for
                // `retire` waited for them.
                unsafe { arena.reclaim(offset) }
            }
        });
    }

    /// Leaves every record to those who hold it: the tier has ended, and nobody reads.
    pub(super) fn abandon(self: &Arc<Self>) {
        let guard = Guard::pin();
        for block in 0..self.places.blocks_end() {
            for place in 0..self.places.cut(block, &guard).places() {
                let Some(record) = self.record(Location::in_memory(block, place), &guard) else { continue };
                if self.end(&record) && !self.leave_to_holders(record.header) {
                    // SAFETY: its life is ours, nobody holds it, and nobody reads.
                    unsafe { self.release(record.header, record.lengths(), record.flags) };
                }
            }
        }
    }
}

/// Records whose life was taken, on their way to being retired.
#[derive(Debug, Default)]
pub(super) struct Ended {
    offsets: Vec<u64>,
    bytes: u64,
}

impl Ended {
    /// Takes a record's life; `false` if somebody else has.
    pub(super) fn end(&mut self, record: &Record<'_>) -> bool {
        let is_ours = record.arena.end(record);
        if is_ours {
            self.offsets.push(record.arena.offset_of(record.header));
            self.bytes += record.charge();
        }
        is_ours
    }

    pub(super) fn count(&self) -> usize {
        self.offsets.len()
    }

    /// What they take of the arena.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Where a record has what it keeps, if it does.
#[inline]
fn kept_of(header: &Header, lengths: Lengths, flags: u8) -> Option<*const Kept> {
    let at = ptr::from_ref(header).cast::<u8>().wrapping_add(kept_at(lengths.key(), lengths.value(), flags));
    (flags & state::KEEPS != 0).then_some(at.cast())
}

#[inline]
fn hold(header: &Header) -> bool {
    // Relaxed: whoever counts up has a share, or a guard, that keeps the record.
    let before = header.lengths.fetch_add(Lengths::HOLDER, Ordering::Relaxed);
    let fits = before & Lengths::HOLDERS < Lengths::HOLDERS_MAX;
    if !fits {
        header.lengths.fetch_sub(Lengths::HOLDER, Ordering::Relaxed);
    }
    fits
}

const _: () = assert!(BLOCK_BYTES.is_multiple_of(8) && state::EXPIRES == 8);
