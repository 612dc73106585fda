//! The store: what users call. Every method delegates to the engine.
//!
//! Holds the handle and the conversions of arguments. Adds no meaning.

use std::{io, path::Path, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use thermocline_engine::{
    Engine, is_marked,
    medium::{Disk, Medium},
    unnamed,
};

use crate::{
    Attributes, Builder, Cache, CacheBuilder, Compacted, Error, Eviction, Health, HotKey, Metadata, Progress, Result,
    Stats, Value, Verified,
};

/// A key-value store in a directory. Clones are handles to the same one, which ends with the last of them.
///
/// Keys are 0 to 65 535 bytes (three less if they begin with the bytes `ff fe`), values up to 1 GiB − 64 KiB. Every call that returned `Ok` is seen by every later
/// call from any thread. Dropping the last handle keeps everything that was acknowledged through the death of the
/// process; [`close`](Self::close) also makes it durable and says what went wrong.
#[derive(Clone, Debug)]
pub struct Store {
    engine: Arc<Engine>,
}

/// An iterator over entries, in no order. See [`Store::iter`].
pub type Iter<'a> = thermocline_engine::Iter<'a>;

/// An iterator over keys, in no order. See [`Store::keys`].
pub type Keys<'a> = thermocline_engine::Keys<'a>;

/// An iterator over the keys in memory, in no order. See [`Store::resident_keys`].
pub type ResidentKeys<'a> = thermocline_engine::ResidentKeys<'a>;

/// An iterator over the keys in the log, in no order. See [`Store::logged_keys`].
pub type LoggedKeys<'a> = thermocline_engine::LoggedKeys<'a>;

/// Room in the memory tier that is kept free. See [`Store::reserve`].
#[derive(Debug)]
pub struct Permit<'a> {
    store: &'a Store,
    bytes: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.store.engine.release(self.bytes);
    }
}

impl Store {
    /// What caches and memoized functions work with.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Opens the store in the directory `dir` with default options; makes it if it is missing.
    ///
    /// # Errors
    /// See [`Builder::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(dir)
    }

    /// Options other than the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine: Arc::new(engine) }
    }

    /// Writes `value` under `key`, replacing what was there. One copy; no lock and no system call in the common
    /// case.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::ReadOnly`], [`Error::Suspended`] after a failed flush, [`Error::Io`] when the disk
    /// is full or fails: then the old value stays.
    #[inline]
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.insert_with(key, value, &Attributes::new())
    }

    /// As [`insert`](Self::insert), with a time to live or another durability.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and [`Error::Option`] for a time to live of zero.
    #[inline]
    pub fn insert_with(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, attributes: &Attributes) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        match is_marked(key) {
            true => self.insert_marked(key, value, attributes),
            false => self.engine.insert(key, value, attributes),
        }
    }

    /// The value of `key`: shared if it is in memory, else one allocation and copy. Waits for nobody.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if its record is damaged (a later write heals the key), [`Error::Io`].
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        if is_marked(key) { self.get_marked(key) } else { self.engine.get(key) }
    }

    /// The value of `key` if it is in memory: touches no file, never blocks.
    #[inline]
    pub fn get_resident(&self, key: impl AsRef<[u8]>) -> Option<Value> {
        self.engine.get_resident(&unnamed(key.as_ref()))
    }

    /// Shows the value of `key` to `f` where it lies: no copy, no allocation. For short looks; what `f` sees cannot be
    /// reclaimed meanwhile. If somebody cuts the file while `f` looks, what it saw counts for nothing: the call is an error.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    #[inline]
    pub fn read<R>(&self, key: impl AsRef<[u8]>, f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let key = key.as_ref();
        if is_marked(key) { self.read_marked(key, f) } else { self.engine.read(key, f) }
    }

    /// As [`get`](Self::get), leaving no trace in statistics or history.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn peek(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.engine.peek(&unnamed(key.as_ref()))
    }

    /// Whether `key` is there.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.contains_key(&unnamed(key.as_ref()))
    }

    /// What is known of the entry of `key`, without its value.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn metadata(&self, key: impl AsRef<[u8]>) -> Result<Option<Metadata>> {
        self.engine.metadata(&unnamed(key.as_ref()))
    }

    /// Removes `key`; `true` if it was there.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.remove(&unnamed(key.as_ref()))
    }

    /// The values of `keys`, in their order. Asks for the cache lines of many before it looks at the first, so that their
    /// misses overlap.
    ///
    /// # Errors
    /// The first that any of them meets.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Value>>> {
        let keys: Vec<_> = keys.into_iter().collect();
        let keys: Vec<_> = keys.iter().map(|key| unnamed(key.as_ref())).collect();
        let keys: Vec<_> = keys.iter().map(|key| &**key).collect();
        self.engine.get_many(&keys)
    }

    /// Writes all pairs, each for itself; of equal keys the last wins. Cheaper than single writes, and one flush for
    /// all if they are to be durable.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert); some of the pairs may have been written.
    pub fn insert_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (unnamed(key.as_ref()), value.as_ref())).collect();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&**key, *value)).collect();
        self.engine.insert_many(&pairs, &Attributes::new())
    }

    /// Removes all `keys` and returns how many were there. One flush for all on a store whose writes are durable.
    ///
    /// # Errors
    /// As for [`remove`](Self::remove); some of them may be gone.
    pub fn remove_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<u64> {
        let keys: Vec<_> = keys.into_iter().collect();
        let keys: Vec<_> = keys.iter().map(|key| unnamed(key.as_ref())).collect();
        let keys: Vec<_> = keys.iter().map(|key| &**key).collect();
        self.engine.remove_many(&keys)
    }

    /// Writes `new` under `key` (or removes it, for `None`) if the sequence of its entry is `expected`, where `None`
    /// expects that there is none. Returns the new sequence, or the one that was found instead.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = thermocline::Store::open(dir.path())?;
    /// let first = store.compare_exchange("counter", None, Some("1"))?.expect("nobody else is here");
    /// assert_eq!(store.compare_exchange("counter", None, Some("2"))?, Err(Some(first)));
    /// assert!(store.compare_exchange("counter", Some(first), Some("2"))?.is_ok());
    /// # Ok::<(), thermocline::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`insert`](Self::insert) and [`get`](Self::get).
    pub fn compare_exchange<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<u64>,
        new: Option<V>,
    ) -> Result<Result<u64, Option<u64>>> {
        self.engine.compare_exchange(&unnamed(key.as_ref()), expected, new.as_ref().map(AsRef::as_ref))
    }

    /// Walks over all entries in no order. Weakly consistent: what is written meanwhile may be met or not, what is
    /// there throughout is met once. Never blocks writers. As long as the walk lives the log gives no space back.
    pub fn iter(&self) -> Iter<'_> {
        self.engine.iter()
    }

    /// Walks over all keys, as [`iter`](Self::iter) does over entries.
    pub fn keys(&self) -> Keys<'_> {
        self.engine.keys()
    }

    /// The keys of the entries that are in memory, as [`iter`](Self::iter) has entries. A key that moves within memory while
    /// the walk goes on may be met twice, or not at all.
    pub fn resident_keys(&self) -> ResidentKeys<'_> {
        self.engine.resident_keys()
    }

    /// The keys of the entries that are in the log, in memory too or not, as [`iter`](Self::iter) has entries.
    pub fn logged_keys(&self) -> LoggedKeys<'_> {
        self.engine.logged_keys()
    }

    /// Lets the entry of `key` go from memory; it stays in the log. `true` if it was in memory.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), if it was not in the log yet.
    pub fn evict(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.evict(&unnamed(key.as_ref()))
    }

    /// Lets all entries go from memory; they stay in the log. Returns how many went.
    ///
    /// # Errors
    /// As for [`evict`](Self::evict).
    pub fn evict_all(&self) -> Result<u64> {
        self.engine.evict_all()
    }

    /// Changes the capacity of the memory tier. What is too much leaves soon after, behind the call's back.
    pub fn set_memory_capacity(&self, bytes: u64) {
        self.engine.set_memory_capacity(bytes);
    }

    /// A permit for `bytes` of the memory tier, for a value that is about to be computed: entries leave to make room for
    /// it, and nothing else takes that room while the permit lives.
    pub fn reserve(&self, bytes: u64) -> Permit<'_> {
        self.engine.reserve(bytes);
        Permit { store: self, bytes }
    }

    /// The `count` keys in memory that come most often, the hottest first. Walks over the memory tier.
    pub fn hot_keys(&self, count: usize) -> Vec<HotKey> {
        self.engine.hot_keys(count)
    }

    /// Who left memory last, when and why; the newest first, at most about a thousand.
    pub fn eviction_log(&self) -> Vec<Eviction> {
        self.engine.eviction_log()
    }

    /// Whether all is well: disk, memory, threads. Looks at no file.
    pub fn health(&self) -> Health {
        self.engine.health()
    }

    /// The number of entries, exactly; walks over them if some can expire.
    ///
    /// Entries whose records cannot be read are not counted.
    pub fn len(&self) -> u64 {
        self.engine.len()
    }

    /// Whether there are no entries. See [`len`](Self::len).
    pub fn is_empty(&self) -> bool {
        self.engine.is_empty()
    }

    /// The number of entries, those included that have expired and were not replaced. Never walks.
    pub fn len_estimate(&self) -> u64 {
        self.engine.len_estimate()
    }

    /// The cache `name` of keys `K` and values `V`, with default options; made if it is missing. See [`Cache`].
    ///
    /// Values are told from those of another type by the type's name and the cache's [`version`](CacheBuilder::version), and from those
    /// that `V` wrote before it was edited by its shape, as far as serde sees that: its names, their order, and what they are made of. Raise
    /// the version when the meaning changes and the shape does not.
    ///
    /// # Errors
    /// As for [`CacheBuilder::open`].
    pub fn cache<K, V>(&self, name: impl Into<String>) -> Result<Cache<K, V>>
    where
        K: 'static,
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.cache_builder(name).open()
    }

    /// As [`cache`](Self::cache), with options other than the defaults.
    pub fn cache_builder<K, V>(&self, name: impl Into<String>) -> CacheBuilder<K, V>
    where
        K: 'static,
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        CacheBuilder::new(self.engine().clone(), name.into())
    }

    /// Makes everything durable that was acknowledged, or seen by a read, before the call.
    ///
    /// # Errors
    /// [`Error::Io`] when a flush fails; then [`Error::Suspended`] for every write until the store is opened again.
    pub fn sync(&self) -> Result<()> {
        self.engine.sync()
    }

    /// Holds every record in the log against its checksum, and decodes what is compressed. Damage is in the report, not an `Err`. Reads all of the
    /// log.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read.
    pub fn verify(&self) -> Result<Verified> {
        self.engine.verify()
    }

    /// Gives back the space of everything in the log that no key needs, now, and compresses what was not; the store does so by itself
    /// with what it moves, when a third of the log is needless. Writers and readers go on. Needs room for one segment,
    /// which a store that is written to keeps in reserve: on a full disk segments are emptied one by one.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Suspended`]: nothing is lost, and what was done stays done.
    pub fn compact(&self) -> Result<Compacted> {
        self.engine.compact()
    }

    /// As [`compact`](Self::compact), and `tell` hears how far it has come, again and again.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    pub fn compact_with(&self, mut tell: impl FnMut(Progress)) -> Result<Compacted> {
        self.engine.compact_with(&mut tell)
    }

    /// Writes a durable copy of the store, as of one sequence, into `dir`, which is absent or empty. Writers go on.
    ///
    /// # Errors
    /// [`Error::Option`] if `dir` is not empty, [`Error::Io`]; what was copied so far stays behind.
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let io = |source: io::Error| Error::Io { action: "create", file: dir.display().to_string(), offset: 0, source };
        let target = Disk::create(dir).map_err(io)?;
        let names = target.names().map_err(io)?;
        if let Some(name) = names.iter().find(|name| !matches!(name.as_str(), "." | "..")) {
            let found = format!("{} with {name} in it", dir.display());
            return Err(Error::Option {
                option: "backup directory",
                found,
                expected: "an absent or empty one".to_owned(),
            });
        }
        self.engine.backup(Arc::new(target))
    }

    /// All figures of the store. Looks at no record.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Makes everything durable and ends this handle. The last one to close gives reserved space back and releases the
    /// lock before it returns; other handles keep the store open.
    ///
    /// # Errors
    /// As for [`sync`](Self::sync). Whatever it says, the handle is closed.
    pub fn close(self) -> Result<()> {
        if Arc::strong_count(&self.engine) > 1 {
            self.engine.sync()?;
        }
        Arc::into_inner(self.engine).map_or(Ok(()), Engine::close)
    }

    // Apart from the hot paths, and by other calls than those, so that each of those is compiled into its one caller here.

    #[cold]
    fn get_marked(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.engine.get_many(&[&unnamed(key)])?.pop().flatten())
    }

    #[cold]
    fn read_marked<R>(&self, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.get_marked(key)?.map(|value| f(&value)))
    }

    #[cold]
    fn insert_marked(&self, key: &[u8], value: &[u8], attributes: &Attributes) -> Result<()> {
        self.engine.insert_many(&[(&unnamed(key), value)], attributes)
    }
}
