//! A record in memory, as it is read.
//!
//! Holds the view that a guard allows, and the few words of a record that change while it is live. Invariant: a view is of a record that was
//! live under its guard, so what it shows stays until the guard goes.

use std::{
    fmt,
    ptr::{self, NonNull},
    slice,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Arena, Held, Kept, hold, kept_of,
    layout::{HEADER_BYTES, Header, Lengths, bytes_of, skipped, state},
};
use crate::{
    log::RecordKind,
    memory::classes::rounded,
    slot::{Address, Kind, Location},
};

/// A record in memory, readable for `'g`.
#[derive(Clone, Copy)]
pub struct Record<'g> {
    pub(super) header: &'g Header,
    pub(super) flags: u8,
    pub(super) arena: &'g Arc<Arena>,
}

impl<'g> Record<'g> {
    #[inline]
    pub(super) fn lengths(&self) -> Lengths {
        // Relaxed: the lengths were stored before `LIVE`; the count of holders beside them orders itself.
        Lengths(self.header.lengths.load(Ordering::Relaxed))
    }

    #[inline]
    fn body(&self) -> *const u8 {
        // SAFETY: inside the record's place: `place` asserted that all of it fits.
        unsafe { ptr::from_ref(self.header).cast::<u8>().add(HEADER_BYTES as usize + skipped(self.flags)) }
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

    /// Notes that somebody asked for it. Writes only the first time.
    #[inline]
    pub fn visit(&self) {
        if self.flags & state::VISITED == 0 {
            // Relaxed: a hint to those who choose who leaves.
            self.header.state.fetch_or(state::VISITED, Ordering::Relaxed);
        }
    }

    /// Whether somebody asked for it since this was asked last.
    pub fn take_visit(&self) -> bool {
        self.header.state.fetch_and(!state::VISITED, Ordering::Relaxed) & state::VISITED != 0
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

    /// What it keeps besides.
    #[inline]
    pub fn kept(&self) -> Option<&'g Kept> {
        // SAFETY: written before `LIVE` was seen, never changed, and kept by the guard of `'g`.
        kept_of(self.header, self.lengths(), self.flags).map(|kept| unsafe { &*kept })
    }

    /// Bytes of key and value, as far as they stand here.
    #[inline]
    pub fn payload_bytes(&self) -> u64 {
        let lengths = self.lengths();
        (lengths.key() + lengths.value()) as u64
    }

    fn kept_bytes(&self) -> u64 {
        self.kept().map_or(0, Kept::bytes)
    }

    /// What it takes of the arena, and what it keeps takes elsewhere.
    #[inline]
    pub fn charge(&self) -> u64 {
        self.bytes() + self.kept_bytes()
    }

    /// What it takes of the arena.
    #[inline]
    pub fn bytes(&self) -> u64 {
        let lengths = self.lengths();
        rounded(bytes_of(lengths.key(), lengths.value(), self.flags))
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
