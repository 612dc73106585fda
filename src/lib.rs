//! An embedded tiered storage engine: bytes in, bytes out, and nothing that was acknowledged is lost.
//!
//! A [`Store`] is a directory. Records are appended to a memory-mapped log and found through a lock-free index in
//! memory, so that a read costs a few cache misses and a write is a copy; `kill -9` loses nothing, and
//! [`Durability::Synced`] survives a power cut.
//!
//! ```
//! use std::time::Duration;
//! use thermocline::{Attributes, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("cache");
//! let store = Store::open(&dir)?;
//! store.insert("user:1", b"Alice")?;
//! assert_eq!(store.get("user:1")?.as_deref(), Some(&b"Alice"[..]));
//!
//! store.insert_with("session", b"token", &Attributes::new().ttl(Duration::from_secs(900)))?;
//! assert!(store.remove("user:1")?);
//! store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod builder;
mod store;

pub use builder::Builder;
pub use store::{Iter, Keys, LoggedKeys, Permit, ResidentKeys, Store};
pub use thermocline_engine::{
    Attributes, Compacted, Compression, Damage, Durability, Error, Eviction, Evictions, Health, Hits, HotKey,
    IndexStats, LogStats, MemoryStats, Metadata, Misses, Reason, Recovery, Result, Stats, Tier, Value, Verified,
};
