//! What the engine asks of a policy.

use std::fmt;

use crate::History;

/// A resident entry that might leave. `at` is whatever its owner knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<T> {
    /// Names the entry.
    pub at: T,
    /// Its accesses.
    pub history: History,
    /// Bytes that it takes.
    pub weight: u32,
}

/// A key met while walking over the index: its history, whether it is resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its accesses.
    pub history: History,
    /// Whether it is in memory.
    pub is_resident: bool,
}

/// Who may enter memory, and who is worth least there.
pub trait Policy: Send + Sync + fmt::Debug {
    /// The history after an access at tick `now` to an entry of `weight` bytes. May learn from it.
    fn access(&self, before: History, now: u8, weight: u32) -> History;

    /// Whether an entry may enter memory at tick `now`.
    fn admits(&self, history: History, now: u8, weight: u32) -> bool;

    /// What it is worth to keep an entry at tick `now`; the lowest leaves.
    fn worth(&self, history: History, now: u8, weight: u32) -> f32;

    /// Whether enough has happened for [`learn`](Self::learn) to be called.
    fn wants_to_learn(&self) -> bool;

    /// Turns what was observed into what `worth` says. `keys` gives some keys of the index, resident or not, at random.
    /// To be called by one thread at a time; takes less than a millisecond.
    fn learn(&self, now: u8, keys: &mut dyn FnMut() -> Option<Sample>);
}
