//! What is compared: one trait that each engine fills in, and the list of those that do.
//!
//! Nothing is called through a vtable inside a timed loop: the measures are generic over the engine, and
//! [`Peer`] holds them as function pointers, one set per engine, called once per repeat.

mod fjall;
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
mod sqlite;
mod thermocline;

use std::path::Path;

use anyhow::Result;

use crate::measure::Bench;
use crate::workload::Key;
use crate::{batch, measure, reopen, synced};

/// Whose figures all others are divided by.
pub const OURS: &str = "thermocline";

/// What a write that returned survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// At most the process's death: nothing waits for the disk.
    Buffered,
    /// A power cut: the call returns after the disk said so.
    Synced,
}

/// What a store will hold, for engines that want to know.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub records: u64,
    pub value_bytes: usize,
}

/// An embedded store as its own documentation says to use it for speed.
pub trait Engine: Sized + Send + Sync {
    const NAME: &'static str;
    /// The ways in which this engine can look up many keys, the first one first in every table.
    const WAYS: &'static [&'static str] = &["get"];

    /// Opens the store in `dir`, an existing directory; makes it if there is none.
    fn open(dir: &Path, mode: Mode, expected: Expected) -> Result<Self>;

    /// Writes one record, as durable on return as the mode says.
    fn insert(&self, key: &Key, value: &[u8]) -> Result<()>;

    /// Looks each key up in the way `WAYS[way]` and shows the value of each one found.
    fn get_each(&self, way: usize, keys: impl Iterator<Item = Key>, found: impl FnMut(&[u8])) -> Result<()>;

    /// Writes the records in one call of the engine's batch interface.
    fn insert_many(&self, records: &[(Key, &[u8])]) -> Result<()>;

    /// Finishes what the engine put off (flushes, compactions): never timed, called before look-ups are.
    fn settle(&self) -> Result<()>;

    /// Ends the store; on return it may be opened again.
    fn close(self) -> Result<()>;

    /// Whether the file of this name holds only what the engine could make anew (a hint): left out of `space`.
    fn is_hint(_file_name: &str) -> bool {
        false
    }
}

/// One turn of an engine at some questions.
pub type Round = fn(&mut Bench) -> Result<()>;

/// An engine, with its type forgotten.
#[derive(Clone, Copy)]
pub struct Peer {
    pub name: &'static str,
    pub life: Round,
    pub synced: Round,
    pub batch: Round,
    pub reopen: Round,
    /// Fills a store and keeps it open until the process is killed.
    pub load: fn(&Path, u64) -> Result<()>,
}

impl Peer {
    fn of<E: Engine>() -> Self {
        Self {
            name: E::NAME,
            life: measure::life::<E>,
            synced: synced::run::<E>,
            batch: batch::run::<E>,
            reopen: reopen::run::<E>,
            load: reopen::load::<E>,
        }
    }
}

/// Every engine that was compiled in, thermocline first.
pub fn all() -> Vec<Peer> {
    vec![
        Peer::of::<thermocline::Thermocline>(),
        Peer::of::<lmdb::Lmdb<false>>(),
        Peer::of::<lmdb::Lmdb<true>>(),
        Peer::of::<redb::Redb>(),
        Peer::of::<sled::Sled>(),
        Peer::of::<fjall::Fjall>(),
        Peer::of::<sqlite::Sqlite>(),
        #[cfg(feature = "rocksdb")]
        Peer::of::<rocksdb::RocksDb>(),
    ]
}
