//! A word that everybody reads and hardly anybody writes: what is on in this process.
//!
//! Holds one atomic word and its ordering. Knows no meaning of its bits.

use std::sync::atomic::{AtomicU32, Ordering};

/// A word that is read on hot paths: one relaxed load, no line that anybody writes.
#[derive(Debug, Default)]
pub struct Switch(AtomicU32);

impl Switch {
    /// A switch that stands at `state`.
    pub const fn new(state: u32) -> Self {
        Self(AtomicU32::new(state))
    }

    /// How it stands. Relaxed: whoever needs what was written before the switch was set takes a lock to get that.
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it to what `change` makes of it; returns what it was. Relaxed, as for [`get`](Self::get).
    pub fn change(&self, change: impl Fn(u32) -> u32) -> u32 {
        self.0.update(Ordering::Relaxed, Ordering::Relaxed, change)
    }
}
