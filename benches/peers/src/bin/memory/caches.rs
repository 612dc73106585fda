//! The caches: how each is made, looked up and written to, and the timed loops, which are compiled for each.
//!
//! Nothing is called through a vtable inside a timed loop. Peers are made as their documentation says and hold
//! `Arc<[u8]>`; all of them hash keys with quick_cache's default.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quick_cache::DefaultHashBuilder;
use tempfile::TempDir;
use thermocline::Store;

use crate::singles::Singles;
use thermocline_peers::engines::OURS;
use thermocline_peers::measure::ns_per;
use thermocline_peers::workload::{Key, Lookups, Tally, Values, key};

/// What thermocline charges for an entry of 16 + 100 bytes: its place, and its share of the index.
const ENTRY_BYTES: u64 = 158;

/// Whom ratios are to.
pub const REFERENCE: &str = "quick_cache";
pub const FOYER: &str = "foyer";

type Bytes = Arc<[u8]>;

/// A cache to be made.
pub struct Kind {
    pub engine: &'static str,
    /// Of thermocline, whether it has a log; else empty.
    pub variant: &'static str,
    /// Whether it lets entries go when it is full.
    pub forgets: bool,
    /// The cache with room for so many entries; a log is made in the directory.
    pub make: fn(&Path, u64) -> Result<Cache>,
}

const fn kind(engine: &'static str, make: fn(&Path, u64) -> Result<Cache>) -> Kind {
    Kind { engine, variant: "", forgets: true, make }
}

/// Every cache, in the order of all tables.
pub static KINDS: [Kind; 7] = [
    Kind { variant: "with its log", ..kind(OURS, logged) },
    Kind { variant: "in memory", ..kind(OURS, in_memory) },
    kind(REFERENCE, quick_cache),
    kind("moka", moka),
    kind(FOYER, foyer),
    Kind { forgets: false, ..kind("papaya", papaya) },
    Kind { forgets: false, ..kind("dashmap", dashmap) },
];

/// A cache, with its type forgotten.
pub struct Cache {
    pub ways: Vec<Way>,
    pub writer: Box<dyn Write>,
    resident: Box<dyn Fn() -> u64>,
    /// Thermocline itself, to ask it for its figures.
    pub store: Option<Store>,
    /// Removed last, when nobody has the store any more.
    _scratch: Option<TempDir>,
}

impl Cache {
    /// Entries in memory, after what was put off is done.
    pub fn resident(&self) -> u64 {
        (self.resident)()
    }

    /// What thermocline found in memory so far.
    pub fn memory_hits(&self) -> Option<u64> {
        self.store.as_ref().map(|store| store.stats().hits.memory)
    }

    /// Writes the entries, untimed, and makes sure that all of them are in memory.
    pub fn fill(&self, indices: Range<u64>, values: &Values) -> Result<()> {
        let count = indices.end - indices.start;
        let before = self.resident();
        self.writer.each(indices, values)?;
        let resident = self.resident() - before;
        ensure!(resident == count, "{resident} of {count} entries are in memory");
        Ok(())
    }
}

/// The caches that answer questions about hits, with `keys` entries and room for a quarter more.
pub fn filled(dir: &Path, keys: u64, values: &Values) -> Result<Vec<(&'static Kind, Cache)>> {
    let asked = KINDS.iter().filter(|kind| kind.variant != "in memory");
    let filled = asked.map(|kind| {
        let cache = (kind.make)(dir, with_slack(keys))?;
        cache.fill(0..keys, values)?;
        Ok((kind, cache))
    });
    filled.collect()
}

/// Room in which `entries` stay although they are not spread evenly over shards.
pub fn with_slack(entries: u64) -> u64 {
    entries * 5 / 4
}

/// One way of looking up.
pub struct Way {
    pub name: &'static str,
    pub look: Box<dyn Look>,
}

impl Way {
    fn new(name: &'static str, look: impl Fn(&Key, &mut Tally) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { name, look: Box::new(look) }
    }

    /// Nanoseconds of one of the look-ups; fails unless all of them are found.
    pub fn ns_each(&self, lookups: Lookups, count: u64, values: &Values) -> Result<f64> {
        let expected = lookups.expected(values);
        let (elapsed, tally) = self.look.uniform(lookups)?;
        ensure!(tally == expected, "found {tally:?} instead of {expected:?}");
        Ok(ns_per(elapsed, count))
    }
}

/// The timed loops over one way of looking up.
pub trait Look: Send + Sync {
    fn uniform(&self, lookups: Lookups) -> Result<(Duration, Tally)>;

    /// The same, of records that were chosen before.
    fn drawn(&self, indices: &[u32]) -> Result<(Duration, Tally)>;

    /// Times each look-up that finds something, from its key being ready to its value being given back.
    fn singly(&self, lookups: Lookups, singles: &mut Singles) -> Result<()>;
}

impl<F: Fn(&Key, &mut Tally) -> Result<()> + Send + Sync> Look for F {
    fn uniform(&self, lookups: Lookups) -> Result<(Duration, Tally)> {
        timed(self, lookups)
    }

    fn drawn(&self, indices: &[u32]) -> Result<(Duration, Tally)> {
        timed(self, indices.iter().map(|index| u64::from(*index)))
    }

    fn singly(&self, lookups: Lookups, singles: &mut Singles) -> Result<()> {
        let mut tally = Tally::default();
        for index in lookups {
            let key = std::hint::black_box(key(index));
            let found = tally.found();
            let start = Instant::now();
            self(&key, &mut tally)?;
            let elapsed = start.elapsed();
            if tally.found() > found { singles.record(elapsed) } else { singles.missed.push(index) }
        }
        std::hint::black_box(tally);
        Ok(())
    }
}

#[inline]
fn timed(
    look: &impl Fn(&Key, &mut Tally) -> Result<()>,
    indices: impl Iterator<Item = u64>,
) -> Result<(Duration, Tally)> {
    let mut tally = Tally::default();
    let start = Instant::now();
    for index in indices {
        look(&key(index), &mut tally)?;
    }
    Ok((start.elapsed(), tally))
}

/// The timed loops over writing.
pub trait Write: Send + Sync {
    fn each(&self, indices: Range<u64>, values: &Values) -> Result<Duration>;

    fn singly(&self, indices: Range<u64>, values: &Values, singles: &mut Singles) -> Result<()>;
}

impl<F: Fn(&Key, &[u8]) -> Result<()> + Send + Sync> Write for F {
    fn each(&self, indices: Range<u64>, values: &Values) -> Result<Duration> {
        let start = Instant::now();
        for index in indices {
            self(&key(index), values.of(index))?;
        }
        Ok(start.elapsed())
    }

    fn singly(&self, indices: Range<u64>, values: &Values, singles: &mut Singles) -> Result<()> {
        for index in indices {
            let (key, value) = std::hint::black_box((key(index), values.of(index)));
            let start = Instant::now();
            self(&key, value)?;
            singles.record(start.elapsed());
        }
        Ok(())
    }
}

fn logged(dir: &Path, entries: u64) -> Result<Cache> {
    let scratch = tempfile::Builder::new().prefix("log-").tempdir_in(dir)?;
    let store = Store::builder().memory_capacity(entries * ENTRY_BYTES).open(scratch.path())?;
    Ok(Cache { _scratch: Some(scratch), ..thermocline(store, ["read", "get"]) })
}

fn in_memory(_dir: &Path, entries: u64) -> Result<Cache> {
    let store = Store::builder().memory_capacity(entries * ENTRY_BYTES).in_memory()?;
    Ok(thermocline(store, ["in memory, read", "in memory, get"]))
}

fn thermocline(store: Store, [read, get]: [&'static str; 2]) -> Cache {
    let (reader, getter, writer, counter) = (store.clone(), store.clone(), store.clone(), store.clone());
    let read = Way::new(read, move |key, tally| {
        reader.read(key, |value| tally.add(value))?;
        Ok(())
    });
    let get = Way::new(get, move |key, tally| {
        if let Some(value) = getter.get(key)? {
            tally.add(&value);
        }
        Ok(())
    });
    Cache {
        ways: vec![read, get],
        writer: Box::new(move |key: &Key, value: &[u8]| Ok(writer.insert(key, value)?)),
        resident: Box::new(move || counter.stats().memory.entries),
        store: Some(store),
        _scratch: None,
    }
}

fn quick_cache(_dir: &Path, entries: u64) -> Result<Cache> {
    let look = |cache: &quick_cache::sync::Cache<Key, Bytes>, key: &Key, tally: &mut Tally| {
        if let Some(value) = cache.get(key) {
            tally.add(&value);
        }
    };
    let cache = quick_cache::sync::Cache::new(entries as usize);
    Ok(peer(cache, look, |cache, key, value| cache.insert(*key, value.into()), |cache| cache.len() as u64))
}

fn moka(_dir: &Path, entries: u64) -> Result<Cache> {
    let look = |cache: &moka::sync::Cache<Key, Bytes, DefaultHashBuilder>, key: &Key, tally: &mut Tally| {
        if let Some(value) = cache.get(key) {
            tally.add(&value);
        }
    };
    let cache = moka::sync::Cache::builder().max_capacity(entries).build_with_hasher(DefaultHashBuilder::default());
    let resident = |cache: &moka::sync::Cache<Key, Bytes, DefaultHashBuilder>| {
        cache.run_pending_tasks();
        cache.entry_count()
    };
    Ok(peer(cache, look, |cache, key, value| cache.insert(*key, value.into()), resident))
}

fn foyer(_dir: &Path, entries: u64) -> Result<Cache> {
    let look = |cache: &foyer_memory::Cache<Key, Bytes, DefaultHashBuilder>, key: &Key, tally: &mut Tally| {
        if let Some(entry) = cache.get(key) {
            tally.add(entry.value());
        }
    };
    let builder = foyer_memory::CacheBuilder::new(entries as usize);
    let cache = builder.with_hash_builder(DefaultHashBuilder::default()).build();
    let write = |cache: &foyer_memory::Cache<Key, Bytes, DefaultHashBuilder>, key: &Key, value: &[u8]| {
        cache.insert(*key, value.into());
    };
    Ok(peer(cache, look, write, |cache| cache.entries() as u64))
}

fn papaya(_dir: &Path, _entries: u64) -> Result<Cache> {
    let look = |map: &papaya::HashMap<Key, Bytes, DefaultHashBuilder>, key: &Key, tally: &mut Tally| {
        if let Some(value) = map.pin().get(key) {
            tally.add(value);
        }
    };
    let write = |map: &papaya::HashMap<Key, Bytes, DefaultHashBuilder>, key: &Key, value: &[u8]| {
        map.pin().insert(*key, value.into());
    };
    Ok(peer(papaya::HashMap::with_hasher(DefaultHashBuilder::default()), look, write, |map| map.len() as u64))
}

fn dashmap(_dir: &Path, _entries: u64) -> Result<Cache> {
    let look = |map: &dashmap::DashMap<Key, Bytes, DefaultHashBuilder>, key: &Key, tally: &mut Tally| {
        if let Some(value) = map.get(key) {
            tally.add(&value);
        }
    };
    let write = |map: &dashmap::DashMap<Key, Bytes, DefaultHashBuilder>, key: &Key, value: &[u8]| {
        map.insert(*key, value.into());
    };
    Ok(peer(dashmap::DashMap::with_hasher(DefaultHashBuilder::default()), look, write, |map| map.len() as u64))
}

fn peer<C: Send + Sync + 'static>(
    cache: C,
    look: impl Fn(&C, &Key, &mut Tally) + Send + Sync + 'static,
    write: impl Fn(&C, &Key, &[u8]) + Send + Sync + 'static,
    resident: impl Fn(&C) -> u64 + 'static,
) -> Cache {
    let cache = Arc::new(cache);
    let (reader, writer) = (Arc::clone(&cache), Arc::clone(&cache));
    let get = Way::new("", move |key, tally| {
        look(&reader, key, tally);
        Ok(())
    });
    Cache {
        ways: vec![get],
        writer: Box::new(move |key: &Key, value: &[u8]| {
            write(&writer, key, value);
            Ok(())
        }),
        resident: Box::new(move || resident(&cache)),
        store: None,
        _scratch: None,
    }
}
