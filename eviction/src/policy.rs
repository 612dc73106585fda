//! What the engine asks of a policy.

use std::fmt;

use crate::History;

/// Who is worth least in memory.
///
/// Entries are known by their history and their weight in bytes; time is the tick of an access clock.
pub trait Policy: Send + Sync + fmt::Debug {
    /// The history after an access at tick `now` to an entry of `weight` bytes, whose history says another tick. One key
    /// in [`TEACHERS`] `teaches`: what it does is evidence.
    fn access(&self, before: History, now: u8, weight: u32, teaches: bool) -> History;

    /// What it is worth to keep an entry at tick `now`; the lowest leaves.
    fn worth(&self, history: History, now: u8, weight: u32) -> f32;

    /// Whether there is enough evidence for [`learn`](Self::learn) to be called at tick `now`.
    fn wants_to_learn(&self, now: u8) -> bool;

    /// Turns evidence into what `worth` says. `keys` are known in all, resident or not; `sample` draws one of them at random,
    /// or none if it had no luck. To be called by one thread at a time; takes less than a millisecond.
    fn learn(&self, now: u8, keys: u64, sample: &mut dyn FnMut() -> Option<History>);
}

/// One key in so many teaches.
pub const TEACHERS: u64 = 8;
