//! A share in a record: what a caller holds while the record's tier goes on.
//!
//! Holds the unsafe lines of reading and giving up a share. Invariant: as long as one is left, the record's bytes stay, and the arena
//! under them.

use std::{
    fmt,
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use super::{Arena, HEADER_BYTES, Header, Lengths, hold, skipped, state};

/// A share in a record, whatever becomes of its tier.
pub struct Held {
    pub(super) header: NonNull<Header>,
    pub(super) arena: NonNull<Arena>,
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

    fn flags(&self) -> u8 {
        // Relaxed: what is asked of them was set before the record was live.
        self.header().state.load(Ordering::Relaxed)
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        let lengths = Lengths(self.header().lengths.load(Ordering::Relaxed));
        let skipped = HEADER_BYTES as usize + skipped(self.flags()) + lengths.key();
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
        let skipped = HEADER_BYTES as usize + skipped(self.flags());
        // SAFETY: as in `value`.
        unsafe { slice::from_raw_parts(self.header.as_ptr().cast::<u8>().add(skipped), lengths.key()) }
    }

    /// Unix time in ms; 0: never.
    pub fn deadline_ms(&self) -> u64 {
        let expires = self.flags() & state::EXPIRES != 0;
        // SAFETY: eight bytes behind the header, if it says so, that `place` wrote before the record was live.
        if expires { unsafe { self.header.as_ptr().add(1).cast::<u64>().read() } } else { 0 }
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
    fn forget(&self) {
        // Acquire: pairs with the Release of other holders; what they read comes before.
        fence(Ordering::Acquire);
        // SAFETY: whoever gave the tier's share up left one share of the arena to the holders; this is the last of them.
        let arena = unsafe { Arc::from_raw(self.arena.as_ptr().cast_const()) };
        // SAFETY: the tier has left the record to its holders, and we are the last of them.
        unsafe { arena.vacate(self.header()) };
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
            self.forget();
        }
    }
}
