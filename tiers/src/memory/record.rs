//! The arena: where records in memory stand, how they are read and how long they stay.
//!
//! Holds every unsafe line of the memory tier. Never knows what a slot names. Invariants: a record is read only under a
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
    fmt,
    ptr::{self, NonNull},
    slice,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence},
    },
};

use super::{
    classes::{BLOCK_BYTES, rounded},
    places::{Ground, Places, Vacant},
    space::{Advice, REGION_PAGES},
};
use crate::{
    Guard,
    log::{Header as LogHeader, NewRecord, RecordKind},
    slot::{Address, Kind, Location, Reserved},
};

/// What stands before the key. All of it atomic: those who sample look at records that come and go.
#[derive(Debug)]
#[repr(C)]
struct Header {
    sequence: AtomicU64,
    /// The home: 40 bits of a log address.
    home_low: AtomicU32,
    home_high: AtomicU8,
    state: AtomicU8,
    history: AtomicU16,
    lengths: AtomicU64,
}

const HEADER_BYTES: u64 = size_of::<Header>() as u64;
const _: () = assert!(HEADER_BYTES == 24 && align_of::<Header>() == 8);

/// Flags of `Header::state`.
mod state {
    /// Constructed and not retired.
    pub(super) const LIVE: u8 = 1;
    /// It has a home: a record in the log that says the same.
    pub(super) const AT_HOME: u8 = 2;
    /// Somebody is giving it one.
    pub(super) const MOVING_IN: u8 = 4;
    /// Eight bytes behind the header are its deadline.
    pub(super) const EXPIRES: u8 = 8;
    /// Its home is packed: it takes something else there than its lengths say.
    pub(super) const PACKED: u8 = 16;
}

/// `Header::lengths`: 16 bits of key, 30 bits of value, 16 bits of holders, and two flags.
#[derive(Clone, Copy)]
struct Lengths(u64);

impl Lengths {
    const VALUE_SHIFT: u32 = 16;
    const HOLDER: u64 = 1 << 46;
    const HOLDERS: u64 = 0xffff << 46;
    /// Nobody counts further; who comes later copies.
    const HOLDERS_MAX: u64 = 60_000 << 46;
    /// The tier has it.
    const TIER: u64 = 1 << 62;
    /// The tier has left it to its holders, and with it a share in the arena.
    const LEFT: u64 = 1 << 63;

    fn new(key: usize, value: usize) -> Self {
        Self(key as u64 | (value as u64) << Self::VALUE_SHIFT | Self::TIER)
    }

    #[inline]
    fn key(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    #[inline]
    fn value(self) -> usize {
        (self.0 >> Self::VALUE_SHIFT & 0x3fff_ffff) as usize
    }

    fn is_forgotten(self) -> bool {
        self.0 & (Self::HOLDERS | Self::TIER) == 0
    }
}

/// Bytes that a record takes of the arena, before rounding.
fn bytes_of(key: usize, value: usize, expires: bool) -> u64 {
    HEADER_BYTES + if expires { 8 } else { 0 } + key as u64 + value as u64
}

/// Bytes that a record of a key and a value takes of the arena.
pub(super) fn arena_bytes(record: &NewRecord<'_>) -> u64 {
    rounded(bytes_of(record.key.len(), record.value.len(), record.header.deadline_ms != 0))
}

/// The memory of one tier: a long range of addresses, whose memory comes with use and goes back by region.
#[derive(Debug)]
pub(super) struct Arena {
    words: Reserved<AtomicU64>,
    places: Arc<Places>,
    /// Bytes of records that were retired while there were guards.
    waiting_bytes: AtomicU64,
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
        Ok(Self { words, places: Arc::new(places), waiting_bytes: AtomicU64::new(0) })
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
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
    pub(super) fn place(
        &self,
        vacant: &Vacant,
        record: &NewRecord<'_>,
        home: Option<Location>,
        history: u16,
    ) -> Location {
        let LogHeader { kind, sequence, deadline_ms } = record.header;
        debug_assert!(kind.is_value());
        let expires = deadline_ms != 0;
        assert!(bytes_of(record.key.len(), record.value.len(), expires) <= vacant.bytes, "a record fits its place");
        let address = home.map_or(0, |home| home.address().to_bits());
        // SAFETY: the place is the caller's (`Vacant`), and long enough for what is copied (above). Its header is
        // written by atomic stores, because those who sample look at its state; behind it nobody looks before `LIVE`.
        let header = unsafe {
            let header = self.header(vacant.offset);
            let mut to = ptr::from_ref(header).cast::<u8>().cast_mut().add(HEADER_BYTES as usize);
            if expires {
                ptr::copy_nonoverlapping(deadline_ms.to_ne_bytes().as_ptr(), to, 8);
                to = to.add(8);
            }
            ptr::copy_nonoverlapping(record.key.as_ptr(), to, record.key.len());
            ptr::copy_nonoverlapping(record.value.as_ptr(), to.add(record.key.len()), record.value.len());
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
        let flags = state::LIVE | at_home | packed | if expires { state::EXPIRES } else { 0 };
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
        let expires = header.state.load(Ordering::Relaxed) & state::EXPIRES != 0;
        self.places.give(offset, bytes_of(lengths.key(), lengths.value(), expires), self);
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
                if self.end(&record) {
                    self.leave_to_holders(record.header);
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
            self.bytes += record.bytes();
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

/// A record in memory, readable for `'g`.
#[derive(Clone, Copy)]
pub struct Record<'g> {
    header: &'g Header,
    flags: u8,
    arena: &'g Arc<Arena>,
}

impl<'g> Record<'g> {
    #[inline]
    fn lengths(&self) -> Lengths {
        // Relaxed: the lengths were stored before `LIVE`; the count of holders beside them orders itself.
        Lengths(self.header.lengths.load(Ordering::Relaxed))
    }

    #[inline]
    fn body(&self) -> *const u8 {
        let skipped = HEADER_BYTES as usize + usize::from(self.flags & state::EXPIRES);
        // SAFETY: inside the record's place: `place` asserted that all of it fits.
        unsafe { ptr::from_ref(self.header).cast::<u8>().add(skipped) }
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &'g [u8] {
        // SAFETY: written before `LIVE` was seen, never changed, and kept by the guard of `'g`.
        unsafe { slice::from_raw_parts(self.body(), self.lengths().key()) }
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &'g [u8] {
        let lengths = self.lengths();
        // SAFETY: as in `key`.
        unsafe { slice::from_raw_parts(self.body().add(lengths.key()), lengths.value()) }
    }

    /// The number of the write that made it.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.header.sequence.load(Ordering::Relaxed)
    }

    /// Whether it has a deadline.
    #[inline]
    pub fn expires(&self) -> bool {
        self.flags & state::EXPIRES != 0
    }

    /// Unix time in ms; 0: never.
    #[inline]
    pub fn deadline_ms(&self) -> u64 {
        if self.flags & state::EXPIRES == 0 {
            return 0;
        }
        // SAFETY: eight bytes behind the header that `place` wrote before `LIVE`.
        unsafe { ptr::from_ref(self.header).add(1).cast::<u64>().read() }
    }

    /// Where the same record stands in the log; `None` while it is dirty.
    pub fn home(&self) -> Option<Location> {
        // Acquire: pairs with the Release in `give_home`.
        if self.header.state.load(Ordering::Acquire) & state::AT_HOME == 0 {
            return None;
        }
        let high = u64::from(self.header.home_high.load(Ordering::Relaxed));
        let address = high << 32 | u64::from(self.header.home_low.load(Ordering::Relaxed));
        Some(Location::new(Kind::Log, Address::from_bits(address), false))
    }

    /// Gives a dirty record its home, for life; `None` if it has one or gets one from somebody else, and otherwise whether the
    /// record was live still. If it was, whoever retires it sees the home.
    pub fn give_home(&self, home: Location) -> Option<bool> {
        // Relaxed: only decides who does it.
        let flags = self.header.state.fetch_or(state::MOVING_IN, Ordering::Relaxed);
        if flags & (state::MOVING_IN | state::AT_HOME) != 0 {
            return None;
        }
        let address = home.address().to_bits();
        self.header.home_low.store(address as u32, Ordering::Relaxed);
        self.header.home_high.store((address >> 32) as u8, Ordering::Relaxed);
        // Release: pairs with the Acquire in `home`.
        let flags = self.header.state.fetch_or(state::AT_HOME, Ordering::Release);
        Some(flags & state::LIVE != 0)
    }

    /// What is remembered of its accesses.
    #[inline]
    pub fn history(&self) -> u16 {
        self.header.history.load(Ordering::Relaxed)
    }

    /// Remembers something else. Of two who do so at once one is forgotten.
    #[inline]
    pub fn set_history(&self, history: u16) {
        self.header.history.store(history, Ordering::Relaxed);
    }

    /// Bytes of key and value.
    #[inline]
    pub fn payload_bytes(&self) -> u64 {
        let lengths = self.lengths();
        (lengths.key() + lengths.value()) as u64
    }

    /// What it takes of the arena.
    #[inline]
    pub fn bytes(&self) -> u64 {
        let lengths = self.lengths();
        rounded(bytes_of(lengths.key(), lengths.value(), self.flags & state::EXPIRES != 0))
    }

    /// [`RecordKind::Packed`] if its home is packed. The value here never is.
    pub fn kind(&self) -> RecordKind {
        if self.flags & state::PACKED != 0 { RecordKind::Packed } else { RecordKind::Value }
    }

    /// What it takes in the log, or would, if it is not packed there.
    pub fn log_bytes(&self) -> u64 {
        let lengths = self.lengths();
        crate::log::format::record_bytes(lengths.key(), lengths.value())
    }

    /// Shares the record with a holder, for as long as that wants it. `None` if very many do already.
    #[inline]
    pub fn hold(&self) -> Option<Held> {
        // The tier's own share cannot go before the guard does.
        hold(self.header).then(|| Held { header: self.header.into(), arena: NonNull::from(&**self.arena) })
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("sequence", &self.sequence()).field("bytes", &self.bytes()).finish()
    }
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

/// A share in a record, whatever becomes of its tier.
pub struct Held {
    header: NonNull<Header>,
    arena: NonNull<Arena>,
}

// SAFETY: what a holder reads is never changed, and its count is atomic.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the share in the record keeps it, and the record its arena.
        unsafe { self.header.as_ref() }
    }

    fn expires(&self) -> bool {
        // Relaxed: set before the record was live.
        self.header().state.load(Ordering::Relaxed) & state::EXPIRES != 0
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        let lengths = Lengths(self.header().lengths.load(Ordering::Relaxed));
        let skipped = HEADER_BYTES as usize + if self.expires() { 8 } else { 0 } + lengths.key();
        // SAFETY: written before the record was live and kept by our share; `place` asserted that it fits.
        unsafe { slice::from_raw_parts(self.header.as_ptr().cast::<u8>().add(skipped), lengths.value()) }
    }

    /// The number of the write that made it.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.header().sequence.load(Ordering::Relaxed)
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        let lengths = Lengths(self.header().lengths.load(Ordering::Relaxed));
        let skipped = HEADER_BYTES as usize + if self.expires() { 8 } else { 0 };
        // SAFETY: as in `value`.
        unsafe { slice::from_raw_parts(self.header.as_ptr().cast::<u8>().add(skipped), lengths.key()) }
    }

    /// Unix time in ms; 0: never.
    pub fn deadline_ms(&self) -> u64 {
        // SAFETY: eight bytes behind the header, if it says so, that `place` wrote before the record was live.
        if self.expires() { unsafe { self.header.as_ptr().add(1).cast::<u64>().read() } } else { 0 }
    }

    /// Whether it is in the log too.
    pub fn is_at_home(&self) -> bool {
        self.header().state.load(Ordering::Relaxed) & state::AT_HOME != 0
    }

    /// One more share. `None` if there are very many.
    #[inline]
    pub fn again(&self) -> Option<Self> {
        hold(self.header()).then_some(Self { header: self.header, arena: self.arena })
    }

    #[cold]
    fn forget(&self, lengths: Lengths) {
        // Acquire: pairs with the Release of other holders; what they read comes before.
        fence(Ordering::Acquire);
        let expires = self.expires();
        // SAFETY: whoever gave the tier's share up left one share of the arena to the holders; this is the last of them.
        let arena = unsafe { Arc::from_raw(self.arena.as_ptr().cast_const()) };
        let offset = arena.offset_of(self.header());
        arena.places.give(offset, bytes_of(lengths.key(), lengths.value(), expires), &arena);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("sequence", &self.sequence()).finish()
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        // Release: what we read comes before the place is used again; pairs with the fence in `forget` and `reclaim`.
        let before = self.header().lengths.fetch_sub(Lengths::HOLDER, Ordering::Release);
        let lengths = Lengths(before - Lengths::HOLDER);
        if lengths.is_forgotten() {
            self.forget(lengths);
        }
    }
}

const _: () = assert!(BLOCK_BYTES.is_multiple_of(8) && state::EXPIRES == 8);
