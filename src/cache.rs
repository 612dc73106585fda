//! Caches: typed namespaces of a store.
//!
//! Holds the handle and its plain calls; `cache/` has the rest by noun. Values are kept decoded in memory, and as an
//! envelope in the log. Invariant: what a caller gets is a value of `V` that was written for exactly that key, or nothing.

#[cfg(feature = "rkyv")]
mod archived;
mod asynchronous;
mod builder;
mod entry;
mod found;
mod info;
mod kept;
mod load;
mod loader;
mod look;
mod space;
mod stored;
mod word;

use std::{borrow::Borrow, fmt, marker::PhantomData, sync::Arc};

use serde::Serialize;

#[cfg(feature = "rkyv")]
pub use archived::Rkyv;
#[cfg(feature = "memoize")]
pub(crate) use builder::WAIT_TIMEOUT;
pub use builder::{CacheBuilder, OnTimeout};
pub use entry::CacheEntry;
pub use found::FoundEntry;
pub use info::CacheInfo;
pub use kept::Kept;
pub use load::{Load, LoadError, Refresh, Wants};
pub use look::Missed;

use crate::{
    Error, Result,
    key::{EncodedKey, KeyBuilder},
};
use loader::Loader;
use space::Space;
use stored::{shared, show_value};

/// A namespace of a store with keys `K` and values `V`: made by [`Store::cache`](crate::Store::cache). Clones are handles
/// to the same one, and keep the store open.
///
/// A value in memory is handed out as it is, without decoding: an `Arc` that is the cache's own. Keys are anything that
/// serialises; what is equal is the same key, in its borrowed form too. At most one caller at a time computes the value of
/// a key, and others who want it wait for that; other keys never wait.
///
/// ```
/// use std::time::Duration;
/// # let dir = tempfile::tempdir()?;
/// # let store = thermocline::Store::open(dir.path())?;
/// let quotes = store.cache::<String, f64>("quotes")?;
/// quotes.insert("Alice", &1.5)?;
/// assert_eq!(quotes.get("Alice")?.as_deref(), Some(&1.5));
///
/// let quote = quotes.get_or_insert_with("Bob", || 2.5)?;           // computed, and kept
/// let again = quotes.get_or_insert_with("Bob", || unreachable!())?;
/// assert_eq!(quote, again);
///
/// let parsed = quotes.entry("Carol").ttl(Duration::from_secs(60)).or_try_insert_with(|| "x".parse::<f64>());
/// assert!(parsed.is_err() && !quotes.contains_key("Carol")?);      // errors are not kept
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cache<K, V> {
    inner: Arc<Inner<V>>,
    loader: Option<Loader<K, V>>,
    key: PhantomData<fn(&K)>,
}

/// What all handles of one opening share, whatever their keys.
struct Inner<V> {
    space: Space,
    options: builder::Options<V>,
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), loader: self.loader.clone(), key: PhantomData }
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.inner.space.name()).finish_non_exhaustive()
    }
}

impl<K, V: Send + Sync + 'static> Cache<K, V> {
    /// Does something with a key as this cache's store knows it. No allocation for short ones.
    #[inline]
    fn with_key<Q: Serialize + ?Sized, R>(&self, key: &Q, act: impl FnOnce(&EncodedKey) -> Result<R>) -> Result<R> {
        let mut builder = self.key_builder();
        builder.push(key)?;
        act(builder.finish_here())
    }

    /// The key as this cache's store knows it, to be kept.
    #[inline]
    fn encode<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<EncodedKey> {
        let mut builder = self.key_builder();
        builder.push(key)?;
        Ok(builder.finish())
    }

    /// Makes keys of this cache out of several values.
    #[doc(hidden)]
    #[inline]
    pub fn key_builder(&self) -> KeyBuilder {
        KeyBuilder::behind(self.inner.space.prefix())
    }

    /// The value of `key`, stale or not: shared if it is in memory, else decoded once for all who ask later.
    ///
    /// # Errors
    /// [`Error::Encode`] for a key that cannot be encoded, [`Error::Io`]. What is damaged is a miss, counted.
    #[inline]
    pub fn get<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<Arc<V>>>
    where
        K: Borrow<Q>,
    {
        self.with_key(key, |key| self.get_key(key))
    }

    /// As [`get`](Self::get), of a key that was encoded before.
    #[doc(hidden)]
    #[inline]
    pub fn get_key(&self, key: &EncodedKey) -> Result<Option<Arc<V>>> {
        self.inner.read(key.stored(), shared)
    }

    /// Shows the value of `key` to `f`: not even its reference count is touched. For short looks.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    #[inline]
    pub fn read<Q: Serialize + ?Sized, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Result<Option<R>>
    where
        K: Borrow<Q>,
    {
        self.with_key(key, |key| self.read_key(key, f))
    }

    /// As [`read`](Self::read), of a key that was encoded before.
    #[doc(hidden)]
    #[inline]
    pub fn read_key<R>(&self, key: &EncodedKey, f: impl FnOnce(&V) -> R) -> Result<Option<R>> {
        self.inner.read(key.stored(), |decoded| show_value(decoded, f))
    }

    /// As [`get`](Self::get), leaving no trace in statistics or history.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn peek<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<Arc<V>>>
    where
        K: Borrow<Q>,
    {
        let found = self.with_key(key, |key| self.inner.peek(key.stored()))?;
        Ok(found.and_then(|(decoded, _)| shared(&decoded)))
    }

    /// Whether `key` has a value, stale or not. Leaves no trace.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn contains_key<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.with_key(key, |key| self.contains_encoded(key))
    }

    /// As [`contains_key`](Self::contains_key), of a key that was encoded before.
    #[doc(hidden)]
    pub fn contains_encoded(&self, key: &EncodedKey) -> Result<bool> {
        Ok(self.inner.peek(key.stored())?.is_some())
    }

    /// Keeps a copy of `value` under `key`, replacing what was there. Wins over what is being computed for the key: that
    /// goes to its callers only. Encodes, and decodes to have a copy.
    ///
    /// # Errors
    /// [`Error::Encode`] for what cannot be encoded, or not be decoded again, [`Error::TooLarge`] above `max_entry_bytes`, and as
    /// for [`Store::insert`](crate::Store::insert): then the old value stays.
    pub fn insert<Q: Serialize + ?Sized>(&self, key: &Q, value: &V) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.with_key(key, |key| self.insert_key(key, value, &Kept::default()))
    }

    /// As [`insert`](Self::insert), of a key that was encoded before, with what the entry says of itself.
    #[doc(hidden)]
    pub fn insert_key(&self, key: &EncodedKey, value: &V, kept: &Kept) -> Result<()> {
        self.inner.insert(key.stored(), value, kept)
    }

    /// Removes `key`; `true` if it was there. Wins over what is being computed for the key.
    ///
    /// # Errors
    /// As for [`Store::remove`](crate::Store::remove).
    pub fn remove<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.with_key(key, |key| self.remove_key(key))
    }

    /// As [`remove`](Self::remove), of a key that was encoded before.
    #[doc(hidden)]
    pub fn remove_key(&self, key: &EncodedKey) -> Result<bool> {
        self.inner.space.remove(key.stored())
    }

    /// Removes all entries, for the same price however many they are. Wins over what is being computed.
    ///
    /// # Errors
    /// As for [`Store::insert`](crate::Store::insert): then they are all there.
    pub fn clear(&self) -> Result<()> {
        self.inner.space.clear()
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        self.inner.space.name()
    }
}

/// A time of zero is a mistake, not "default" and not "never".
fn check_time(option: &'static str, time: Option<std::time::Duration>) -> Result<()> {
    match time {
        Some(time) if time.is_zero() => {
            Err(Error::Option { option, found: "0 s".to_owned(), expected: "a duration above zero".to_owned() })
        }
        _ => Ok(()),
    }
}
