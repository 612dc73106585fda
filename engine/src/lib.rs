//! thermocline's engine: the index of slots, one file per flow, upkeep, recovery, counters.
//!
//! Never holds byte offsets, file names or `unsafe`. `DESIGN.md` has the life of an insert, a get and a crash.
#![forbid(unsafe_code)]

mod batch;
mod bound;
mod budget;
mod catalog;
mod checkpoint;
mod choice;
mod clock;
mod compact;
mod counters;
mod demote;
mod dictionaries;
mod engine;
mod exchange;
mod expire;
mod flight;
mod found;
pub mod fresh;
mod full;
mod get;
mod hint;
mod index;
mod insert;
mod inspect;
mod keeper;
mod namespace;
mod object;
mod pace;
mod pack;
mod promote;
mod recover;
mod refresh;
mod remove;
mod room;
mod seen;
mod snapshot;
mod sweep;
mod switch;
mod sync;
mod throttle;
mod timer;
mod walk;
mod worker;

pub use bound::Limits;
pub use clock::TimeSource;
pub use compact::Compacted;
pub use engine::{Core, Engine, Options};
pub use flight::{Aside, Flights, Joined, Landed, Lead, Outcome, Pilot, Queued, Waiter, Within};
pub use get::Metadata;
pub use insert::{Attributes, Durability};
pub use inspect::{
    Damage, Eviction, Evictions, Health, Hits, HotKey, IndexStats, LogStats, MemoryStats, Misses, Reason, Stats,
    Verified,
};
pub use namespace::{Namespace, Prefix, is_marked, unnamed};
pub use object::{Decode, Facts};
pub use pace::Progress;
pub use pack::Compression;
pub use recover::Recovery;
pub use refresh::Refresher;
pub use switch::Switch;
pub use thermocline_tiers::{
    Error, Result, Value,
    log::medium,
    memory::{Decoded, Object},
};
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
