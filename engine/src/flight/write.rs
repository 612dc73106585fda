//! Writes of keys that may be computed at the same time.
//!
//! Holds how many write now. Invariant: what was written is not replaced by a computation that began before the write had landed.
//!
//! A writer overtakes before its write and after it, and is counted meanwhile. A flight that begins before the first of these
//! is met there; one that begins between them may have missed the write, and is met by the second; one that begins later finds
//! what was written. None can be kept between them, and so escape: who keeps looks, under its flight's lock, whether anybody
//! writes. A writer that it does not see meets the flight in its first overtaking, and waits until it is kept: then the write
//! is the newer one.

use std::sync::Arc;

use super::{Flight, Flights, Locked, Phase};
use crate::sync::in_air::{AtomicU64, Ordering, fence, yield_now};

/// Few, as writers are; keys that share one hold each other up for the time of a write only.
pub(super) const STRIPES: usize = 16;
/// So often one who keeps looks again before it goes without, the last ones a millisecond apart: longer than a write takes that
/// waits for the disk, unless that is full.
const LOOKS: u32 = 1_000;
#[cfg(not(any(loom, shuttle)))]
const LOOKS_APART: u32 = 100;

/// One who writes.
struct Writing<'a>(&'a AtomicU64);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // Release: flights were overtaken before; pairs with the Acquire in `when_nobody_writes`.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Flights {
    /// Writes `key` by `write`. What was being computed at its begin, or began before its end, is not kept. Two counts and two
    /// fences if nothing is in the air.
    #[inline]
    pub fn write<R>(&self, key: &[u8], write: impl FnOnce() -> R) -> R {
        let stripe = self.stripe(key);
        // Relaxed: the fence in `overtake` orders it, with that in `when_nobody_writes`: either that one sees this, or this
        // one sees its flight.
        stripe.fetch_add(1, Ordering::Relaxed);
        let _writing = Writing(stripe);
        self.overtake(key);
        let written = write();
        self.overtake(key);
        written
    }

    fn stripe(&self, key: &[u8]) -> &AtomicU64 {
        // Keys of a namespace begin alike.
        let last = key.last_chunk().map_or(key.len() as u64, |bytes| u64::from_le_bytes(*bytes));
        &self.writing[(last.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as usize % STRIPES]
    }

    /// The state of a flight that is running, or overtaken, at a moment when nobody writes its key; `None`: it runs no longer, or
    /// somebody writes for too long.
    pub(super) fn when_nobody_writes<'a>(&self, key: &[u8], flight: &'a Arc<Flight>) -> Option<Locked<'a>> {
        let stripe = self.stripe(key);
        for look in 0..LOOKS {
            let state = flight.lock();
            if !matches!(state.phase, Phase::Running(_)) {
                return None;
            }
            // SeqCst: see `write`. Acquire: who has written has overtaken before.
            fence(Ordering::SeqCst);
            if state.is_overtaken || stripe.load(Ordering::Acquire) == 0 {
                return Some(state);
            }
            // The writer may want this lock.
            drop(state);
            wait(look);
        }
        self.note_unkept("its key was written all the while".to_owned());
        self.detach(key, flight);
        let mut state = flight.lock();
        state.is_overtaken = true;
        matches!(state.phase, Phase::Running(_)).then_some(state)
    }
}

fn wait(look: u32) {
    #[cfg(not(any(loom, shuttle)))]
    if look >= LOOKS - LOOKS_APART {
        return std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = look;
    yield_now();
}
