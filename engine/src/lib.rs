//! thermocline's engine: the index of slots, one file per flow, upkeep, recovery, counters.
//!
//! Never holds byte offsets, file names or `unsafe`. `DESIGN.md` has the life of an insert, a get and a crash.
#![forbid(unsafe_code)]

mod batch;
mod clock;
mod counters;
mod engine;
mod exchange;
mod get;
mod index;
mod insert;
mod inspect;
mod recover;
mod seen;
mod sync;
mod upkeep;
mod walk;

pub use clock::TimeSource;
pub use engine::{Engine, Options};
pub use get::Metadata;
pub use insert::{Attributes, Durability};
pub use inspect::{Damage, Hits, IndexStats, LogStats, Misses, Stats, Verified};
pub use recover::Recovery;
pub use thermocline_tiers::{Error, Result, Value, log::medium};
pub use walk::{Iter, Keys};

/// The tier a record lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// In memory.
    Memory,
    /// In the log.
    Log,
    /// In the remote store.
    Remote,
}
