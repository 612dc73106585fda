//! One key of a cache, and what its entry is to say of itself.

use std::{borrow::Borrow, convert::Infallible, fmt, sync::Arc, time::Duration};

use serde::Serialize;

use super::{Cache, Kept, Load, LoadError, Wants};
use crate::{Durability, Result, key::EncodedKey};

/// A key of a cache, with what is to be said of its entry should it be written. Made by [`Cache::entry`].
#[must_use = "an entry does nothing until it is asked for a value"]
pub struct CacheEntry<'a, K, V> {
    pub(super) cache: &'a Cache<K, V>,
    /// A key that cannot be encoded is told of by whoever asks for its value.
    pub(super) key: Result<EncodedKey>,
    pub(super) kept: Kept,
    pub(super) max_age: Option<Duration>,
}

impl<K, V> fmt::Debug for CacheEntry<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheEntry").field("cache", self.cache).field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl<K, V: Send + Sync + 'static> Cache<K, V> {
    /// `key`, to say more of its entry before it is written.
    pub fn entry<Q: Serialize + ?Sized>(&self, key: &Q) -> CacheEntry<'_, K, V>
    where
        K: Borrow<Q>,
    {
        CacheEntry { cache: self, key: self.encode(key), kept: Kept::default(), max_age: None }
    }

    /// The value of `key`, or what `compute` makes, which is kept. One caller at a time computes, and others who ask for the same
    /// key wait for it, as long as `wait_timeout` says; for other keys nobody waits. A stale value is served, and one of those who
    /// meet it computes another first. What was computed is returned even if it could not be kept.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) for a key that cannot be encoded,
    /// [`Error::WaitTimeout`](crate::Error::WaitTimeout) if that was chosen.
    #[inline]
    pub fn get_or_insert_with<Q: Serialize + ?Sized>(&self, key: &Q, compute: impl FnOnce() -> V) -> Result<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let compute = || Ok::<_, Infallible>((compute(), Kept::default()));
        self.get_or_load_key(&self.encode(key)?, &Load::default(), compute).map_err(never_fails)
    }

    /// As [`get_or_insert_with`](Self::get_or_insert_with), with what can fail. An error is not kept; it goes to all who waited. If
    /// there is a stale value, that stays, and is returned instead.
    ///
    /// # Errors
    /// [`LoadError::Load`] with what `compute` said, or somebody else's whose result this caller waited for;
    /// [`LoadError::Store`] as for [`get_or_insert_with`](Self::get_or_insert_with).
    #[inline]
    pub fn get_or_try_insert_with<Q: Serialize + ?Sized, E: Send + Sync + 'static>(
        &self,
        key: &Q,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        K: Borrow<Q>,
    {
        let compute = || compute().map(|value| (value, Kept::default()));
        self.get_or_load_key(&self.encode(key)?, &Load::default(), compute)
    }
}

impl<'a, V: Send + Sync + 'static, K> CacheEntry<'a, K, V> {
    /// The entry expires `ttl` after it was written. Zero is refused.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.kept.ttl = Some(ttl);
        self
    }

    /// The entry is stale `stale_after` after it was written. Zero is refused.
    pub fn stale_after(mut self, stale_after: Duration) -> Self {
        self.kept.stale_after = Some(stale_after);
        self
    }

    /// The entry can be removed by these.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.kept.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// What the write survives.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.kept.durability = Some(durability);
        self
    }

    /// A value that is there counts only if it is younger than `age`; zero: none does.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// What there is to be done, if it can be.
    pub(super) fn checked(self) -> Result<(&'a Cache<K, V>, EncodedKey, Kept, Wants)> {
        let Self { cache, key, kept, max_age } = self;
        super::check_time("ttl", kept.ttl)?;
        super::check_time("stale_after", kept.stale_after)?;
        Ok((cache, key?, kept, Wants { max_age, overwrite: false }))
    }

    /// Keeps a copy of `value`. See [`Cache::insert`].
    ///
    /// # Errors
    /// As for [`Cache::insert`], and [`Error::Option`](crate::Error::Option) for a time of zero.
    pub fn insert(self, value: &V) -> Result<()> {
        self.cache.insert_key(&self.key?, value, &self.kept)
    }

    /// The value that is there, or what `compute` makes. See [`Cache::get_or_insert_with`].
    ///
    /// # Errors
    /// As for [`Cache::get_or_insert_with`].
    pub fn or_insert_with(self, compute: impl FnOnce() -> V) -> Result<Arc<V>> {
        self.or_try_insert_with(|| Ok::<_, Infallible>(compute())).map_err(never_fails)
    }

    /// The value that is there, or what `compute` makes. See [`Cache::get_or_try_insert_with`].
    ///
    /// # Errors
    /// As for [`Cache::get_or_try_insert_with`].
    pub fn or_try_insert_with<E: Send + Sync + 'static>(
        self,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, LoadError<E>> {
        let (cache, key, kept, wants) = self.checked()?;
        let load = Load { wants, refresh: None };
        cache.get_or_load_key(&key, &load, || compute().map(|value| (value, kept)))
    }
}

/// The error of a computation that has none.
pub(super) fn never_fails(error: LoadError<Infallible>) -> crate::Error {
    match error {
        LoadError::Load(never) => match *never {},
        LoadError::Store(error) => error,
    }
}
