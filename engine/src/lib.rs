//! thermocline's engine: the index of slots, one file per flow, upkeep, recovery, counters.
//!
//! Never holds byte offsets, file names or `unsafe`. `DESIGN.md` has the life of an insert, a get and a crash.
#![forbid(unsafe_code)]

mod batch;
mod budget;
mod choice;
mod clock;
mod compact;
mod counters;
mod demote;
mod dictionaries;
mod engine;
mod exchange;
mod found;
mod get;
mod index;
mod insert;
mod inspect;
mod keeper;
mod pack;
mod promote;
mod recover;
mod room;
mod seen;
mod snapshot;
mod sweep;
mod sync;
mod walk;
mod worker;

pub use clock::TimeSource;
pub use compact::Compacted;
pub use engine::{Core, Engine, Options};
pub use get::Metadata;
pub use insert::{Attributes, Durability};
pub use inspect::{
    Damage, Eviction, Evictions, Health, Hits, HotKey, IndexStats, LogStats, MemoryStats, Misses, Reason, Stats,
    Verified,
};
pub use pack::Compression;
pub use recover::Recovery;
pub use thermocline_tiers::{Error, Result, Value, log::medium};
pub use walk::{Iter, Keys, LoggedKeys, ResidentKeys};

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
