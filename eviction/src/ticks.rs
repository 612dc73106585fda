//! Time as policies know it: accesses, counted coarsely.
//!
//! A tick is a twentieth of the capacity in accesses. Invariant: reading it costs one load of a word that changes
//! rarely.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// The clock of accesses.
#[derive(Debug)]
pub struct Ticks {
    now: AtomicU8,
    accesses: AtomicU64,
    per_tick: AtomicU64,
}
