//! Loaders: how a cache gets a value by itself.
//!
//! Holds what the user gave, by value, so that it can run behind its callers. Never holds the store.

use std::{borrow::Borrow, error, fmt, pin::Pin, sync::Arc};

use serde::Serialize;

use super::{Cache, Kept, Load, LoadError, Refresh, load::Seen};
use crate::{Error, Result, key::EncodedKey};

/// What a loader said when it failed.
pub(super) type Refusal = Arc<dyn error::Error + Send + Sync>;

/// Keeps an error that many share apart from errors of closures.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Refusal);

pub(super) type Loaded<V> = Result<(V, Kept), Refused>;
pub(super) type Loading<V> = Pin<Box<dyn Future<Output = Loaded<V>> + Send>>;
/// Runs a future of the caller's on the caller's runtime.
pub(super) type Spawn = Arc<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

pub(super) type Call<K, V> = dyn Fn(&K) -> Loaded<V> + Send + Sync;
type Await<K, V> = dyn Fn(K) -> Loading<V> + Send + Sync;

/// How the values of keys `K` are got.
pub(super) enum Loader<K, V> {
    Call(Arc<Call<K, V>>),
    Await(Arc<Await<K, V>>),
}

impl<K, V> Clone for Loader<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Call(load) => Self::Call(load.clone()),
            Self::Await(load) => Self::Await(load.clone()),
        }
    }
}

/// As an error that the loader's cache gives.
pub(super) fn told(cache: &str, error: LoadError<Refused>) -> Error {
    match error {
        LoadError::Load(refused) => Error::Load { namespace: cache.to_owned(), source: refused.0.clone() },
        LoadError::Store(error) => error,
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Send + 'static, V: Send + Sync + 'static> Cache<K, V> {
    /// The value of `key`, by the cache's loader if there is none. A stale one is served at once, and one refresh runs
    /// behind on a thread of the store's.
    ///
    /// # Errors
    /// [`Error::Load`] when the loader fails, the same for all who waited; [`Error::Option`] if the cache has no loader that
    /// can be called: one that is async is for [`get_or_load_async`](Self::get_or_load_async);
    /// [`Error::WaitTimeout`] if that was chosen.
    pub fn get_or_load<Q>(&self, key: &Q) -> Result<Arc<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ToOwned<Owned = K> + ?Sized,
    {
        let Some(Loader::Call(loader)) = &self.loader else { return Err(self.no_loader()) };
        let encoded = self.encode(key)?;
        let refresh = || -> Refresh<V, Refused> {
            let (loader, key) = (loader.clone(), key.to_owned());
            Box::new(move || loader(&key))
        };
        let load = Load { refresh: Some(&refresh), ..Load::default() };
        // The key is owned only when it is computed.
        let loaded = self.get_or_load_key(&encoded, &load, || loader(&key.to_owned()));
        loaded.map_err(|error| told(self.name(), error))
    }

    /// Looks, and has a stale value refreshed behind by `loader`.
    pub(super) fn look_or_refresh<Q>(&self, encoded: &EncodedKey, key: &Q, loader: &Arc<Call<K, V>>) -> Seen<V>
    where
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let refresh = || -> Refresh<V, Refused> {
            let (loader, key) = (loader.clone(), key.to_owned());
            Box::new(move || loader(&key))
        };
        self.inner.first_look(encoded.stored(), &Load { refresh: Some(&refresh), ..Load::default() })
    }

    pub(super) fn no_loader(&self) -> Error {
        let (found, expected) = ("missing, or of the other kind".to_owned(), "a loader".to_owned());
        Error::Option { option: "loader", found, expected }
    }
}
