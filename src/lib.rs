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
mod cache;
mod codec;
#[cfg(feature = "memoize")]
mod config;
#[cfg(feature = "memoize")]
mod default_store;
#[doc(hidden)]
pub mod envelope;
#[doc(hidden)]
pub mod key;
#[cfg(feature = "memoize")]
pub mod memo;
mod shape;
mod store;

pub use builder::Builder;
#[cfg(feature = "rkyv")]
pub use cache::Rkyv;
pub use cache::{
    Cache, CacheBuilder, CacheEntry, CacheInfo, FoundEntry, Kept, Load, LoadError, Missed, OnTimeout, Refresh, Wants,
};
pub use codec::{Codec, CodecError, Json, MessagePack, Postcard};
#[cfg(feature = "memoize")]
pub use config::Config;
#[cfg(feature = "memoize")]
pub use default_store::{default_store, is_enabled, set_default, set_enabled};
#[cfg(feature = "memoize")]
pub use memo::{Call, CallKey, CallOptions};
pub use store::{Iter, Keys, LoggedKeys, Permit, ResidentKeys, Store};
#[doc(hidden)]
pub use thermocline_engine::TimeSource;
pub use thermocline_engine::{
    Attributes, Compacted, Compression, Damage, Durability, Error, Eviction, Evictions, Health, Hits, HotKey,
    IndexStats, LogStats, MemoryStats, Metadata, Misses, Progress, Reason, Recovery, Result, Stats, Tier, Value,
    Verified,
};
/// Keeps the results of a function, in memory and on disk, by its arguments.
///
/// ```
/// use thermocline::memoize;
///
/// #[memoize(ttl = "15m", max_entries = 10_000)]
/// fn appraise(painting: &str, year: u32) -> u64 {
///     painting.len() as u64 * u64::from(year)
/// }
///
/// # thermocline::set_default(thermocline::Store::builder().in_memory()?);
/// appraise("Nighthawks", 1942);                     // computed, and kept across restarts
/// appraise("Nighthawks", 1942);                     // from memory: a clone
/// assert!(appraise::contains("Nighthawks", 1942));
/// assert_eq!(appraise::info().hits, 1);
/// assert_eq!(appraise::query().year(1942).iter().count(), 1);
/// # Ok::<(), thermocline::Error>(())
/// ```
///
/// What it gives is `Clone + Serialize + DeserializeOwned + Send + Sync + 'static`, what it takes `Serialize`, or a path. Of a function
/// that gives a `Result` or an `Option`, whatever they are called, `Err` and `None` are not kept, unless it says so; errors need to be
/// nothing of all that. Arguments come by value or reference. Generic functions, `async` ones and methods are memoized alike;
/// methods of a trait's implementation are not, because there is no place for their companions: let them call a method of the type, or a
/// function. The compiler says so by the name of a hidden method, `__…_is_memoized_and_cannot_implement_a_trait`.
///
/// # Companions
/// They stand beside a free function under its own name, as functions of a type: `info`, `clear`, and with the arguments of the
/// function `contains`, `get`, `insert` (and the result), `remove`, `key`, `call` (all that is kept of it), `refresh`, `uncached`, and
/// `with(CallOptions).call(…)`; `query()` has a setter for each argument, and `iter` and `only`. A generic function's take its turbofish:
/// `largest::info::<u32>()`. A method `area` of `Shape` has them as `Shape::area_memo()`, where queries name arguments as
/// `.argument("scale", &2.0)`. An attribute on a method without `self` needs a `Self` in it to be told from a free function.
///
/// # Options
/// | option | meaning |
/// | --- | --- |
/// | `store = EXPR`, `name = "…"` | which store (default: the process-wide one), evaluated once, at the first call, and again at the earliest 5 s after it failed; the namespace (default: package, program, module path, name and file), to which the names of the arguments in the key are added |
/// | `ttl`, `stale_after`, `wait_timeout` | as on a cache: `"15m"`, `"1h 30m"`, `"250ms"`, or a constant `Duration` |
/// | `max_entries = N`, `tags = […]`, `codec = EXPR` | as on a cache; tags may be made of the arguments |
/// | `version = N`, `hash_code` | part of the namespace: a number, the function's own tokens (not what it calls) and options of its key; the old one keeps its results |
/// | `isolate` | the working directory is part of the key, and queries find the calls made in it |
/// | `ignore(a, b)`, `key = EXPR` | leave arguments out of the key; compute all of the key |
/// | `#[memoize(with = f)] arg` | encode an argument your way: `f(&arg)` is what is encoded |
/// | `require = EXPR` | keep only calls for which it is true |
/// | `cache_none`, `cache_err` | keep `None` and `Err`, too |
///
/// Raise `version` when the function, or what it calls, gives something else, and when fields of a type it gives change their meaning and
/// neither name, type nor place, as serde sees them: what was kept of a type that was edited otherwise is a miss.
///
/// A free function `f` takes the name `f` among types, too, for its companions: it clashes with a module, a type or a crate called `f` where it
/// stands, as in `mod f; use f::f;`. The types of a generic function tell its instances apart, also where they are only those of an argument
/// that is ignored: take a `&dyn Fn(…)` in place of an `F: Fn(…)`, which is another type for each closure.
///
/// What is past `stale_after` is served, and refreshed: behind, with clones of the arguments; in line by one caller, if the function is
/// `async` or an argument borrows deep within.
///
/// Who asks for what another computes waits for it, 30 s unless `wait_timeout` says otherwise, also if one after the other fails
/// meanwhile; then it computes for itself. With a very long duration it waits for ever.
///
/// Trouble with the store never reaches a caller: the function computes, [`memo::failures`] counts, and an event of `tracing` says why.
/// [`set_enabled`] and, from outside, the variable `THERMOCLINE_MEMO=off` switch memoization off: then all functions compute.
#[cfg(feature = "memoize")]
#[doc(inline)]
pub use thermocline_macros::memoize;
