//! What the engine asks of a policy.

use std::fmt;

use crate::History;

/// Who is worth least in memory.
///
/// Entries are known by their history and their weight in bytes; time is the tick of an access clock.
pub trait Policy: Send + Sync + fmt::Debug {
    /// The history after an access at tick `now` to an entry of `weight` bytes, whose history says another tick. Of keys that
    /// `teach`, always the same ones, all accesses are evidence.
    fn access(&self, before: History, now: u8, weight: u32, teaches: bool) -> History;

    /// What it is worth to keep an entry at tick `now`; the lowest leaves.
    fn worth(&self, history: History, now: u8, weight: u32) -> f32;

    /// Whether there is enough evidence for [`learn`](Self::learn) to be called.
    fn wants_to_learn(&self) -> bool;

    /// Turns evidence into what `worth` says, in less than a millisecond. To be called by one thread at a time.
    fn learn(&self, now: u8);
}

/// A key teaches if its hash is divisible by this power of two, where memory holds so many `entries`: small ones learn from
/// all keys.
pub fn teachers(entries: u64) -> u64 {
    if entries < 4096 { 1 } else { 8 }
}
