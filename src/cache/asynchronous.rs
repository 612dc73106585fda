//! Caches for tasks: the same steps as `load.rs`, tied to no runtime.
//!
//! Holds futures that are ready at the first poll when the value is in memory. What is asked of the store is done where the future is
//! polled: that is a copy to or from the page cache. Only waiting for somebody else's computation yields. Invariant: a future that is
//! dropped while it computes hands over to one of those who wait.

use std::{
    borrow::Borrow,
    convert::Infallible,
    error,
    future::poll_fn,
    sync::{Arc, Weak},
    time::Instant,
};

use serde::{Serialize, de::DeserializeOwned};
use thermocline_engine::{Flights, Joined, Outcome, Pilot, Queued};

use super::{
    Cache, CacheBuilder, CacheEntry, Inner, Kept, LoadError, Wants,
    entry::never_fails,
    load::{Computing, Next, Seen, Step},
    loader::{Loader, Loading, Refused, Spawn, told},
};
use crate::{Result, key::EncodedKey};

impl<K, V: Send + Sync + 'static> Cache<K, V> {
    /// As [`get`](Self::get). Ready at once.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_async<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<Arc<V>>>
    where
        K: Borrow<Q>,
    {
        self.get(key)
    }

    /// As [`read`](Self::read). Ready at once.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn read_async<Q: Serialize + ?Sized, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Result<Option<R>>
    where
        K: Borrow<Q>,
    {
        self.read(key, f)
    }

    /// As [`peek`](Self::peek). Ready at once.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn peek_async<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<Arc<V>>>
    where
        K: Borrow<Q>,
    {
        self.peek(key)
    }

    /// As [`contains_key`](Self::contains_key). Ready at once.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn contains_key_async<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.contains_key(key)
    }

    /// As [`insert`](Self::insert). Ready at once.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub async fn insert_async<Q: Serialize + ?Sized>(&self, key: &Q, value: &V) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.insert(key, value)
    }

    /// As [`remove`](Self::remove). Ready at once.
    ///
    /// # Errors
    /// As for [`remove`](Self::remove).
    pub async fn remove_async<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.remove(key)
    }

    /// As [`clear`](Self::clear). Ready at once.
    ///
    /// # Errors
    /// As for [`clear`](Self::clear).
    pub async fn clear_async(&self) -> Result<()> {
        self.clear()
    }

    /// As [`get_or_insert_with`](Self::get_or_insert_with): one computation at a time per key, over threads and tasks. Computes
    /// within this future: if that is dropped meanwhile, one of those who wait computes.
    ///
    /// A computation that asks for its own key runs through, as long as it does so in its own task: what it spawns waits for it.
    ///
    /// # Errors
    /// As for [`get_or_insert_with`](Self::get_or_insert_with).
    pub async fn get_or_insert_with_async<Q, F>(&self, key: &Q, compute: impl FnOnce() -> F) -> Result<Arc<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Future<Output = V>,
    {
        let compute = || async { Ok::<_, Infallible>((compute().await, Kept::default())) };
        self.get_or_load_key_async(&self.encode(key)?, Wants::default(), compute).await.map_err(never_fails)
    }

    /// As [`get_or_try_insert_with`](Self::get_or_try_insert_with), for tasks.
    ///
    /// # Errors
    /// As for [`get_or_try_insert_with`](Self::get_or_try_insert_with).
    pub async fn get_or_try_insert_with_async<Q, E, F>(
        &self,
        key: &Q,
        compute: impl FnOnce() -> F,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        E: Send + Sync + 'static,
        F: Future<Output = Result<V, E>>,
    {
        let compute = || async { compute().await.map(|value| (value, Kept::default())) };
        self.get_or_load_key_async(&self.encode(key)?, Wants::default(), compute).await
    }

    /// The value of a key, or what `compute` makes of it. A stale one is refreshed in line.
    #[doc(hidden)]
    pub async fn get_or_load_key_async<E, F>(
        &self,
        key: &EncodedKey,
        wants: Wants,
        compute: impl FnOnce() -> F,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<(V, Kept), E>>,
    {
        self.inner.load_async(key.stored(), wants, compute).await
    }
}

impl<V: Send + Sync + 'static> Inner<V> {
    async fn load_async<E, F>(
        self: &Arc<Self>,
        key: &[u8],
        wants: Wants,
        compute: impl FnOnce() -> F,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<(V, Kept), E>>,
    {
        let seen = self.look(key, wants, false);
        self.load_seen_async(key, wants, seen, compute).await
    }

    /// What follows from a look.
    pub(super) async fn load_seen_async<E, F>(
        &self,
        key: &[u8],
        wants: Wants,
        seen: Seen<V>,
        compute: impl FnOnce() -> F,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<(V, Kept), E>>,
    {
        match seen {
            Seen::Good(value) => Ok(value),
            Seen::Stale(stale, sequence) => {
                let Some(lead) = self.space.flights().lead(key, Pilot::Other) else { return Ok(stale) };
                if let Some(value) = self.refreshed_since(sequence, key) {
                    return Ok(value);
                }
                self.space.namespace().count_aged();
                let (computing, began) = (Computing::Lead(lead), Instant::now());
                let computed = computing.poll(compute).await;
                Ok(self.end_refresh(key, computing, computed, began.elapsed()).unwrap_or(stale))
            }
            seen => {
                let computing = match self.wait_async(key, wants, seen).await {
                    Ok(computing) => computing,
                    Err(taken) => return taken,
                };
                let began = Instant::now();
                let computed = computing.poll(compute).await;
                self.end(key, computing, computed, began.elapsed())
            }
        }
    }

    /// Waits until there is a value or an error, which is the `Err`, or this task is to compute.
    async fn wait_async<E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        wants: Wants,
        mut seen: Seen<V>,
    ) -> Result<Computing, Result<Arc<V>, LoadError<E>>> {
        let mut deadline = None;
        loop {
            let next = match self.space.flights().join(key, Pilot::Other) {
                // Within its own computation.
                Joined::Own => return Ok(Computing::Within),
                Joined::Lead(lead) => Next::Lead(lead),
                Joined::Wait(mut waiter) => {
                    let until = *deadline.get_or_insert_with(|| self.options.wait_until());
                    let landed = poll_fn(|context| waiter.poll_until(until, context)).await;
                    self.after_waiting(landed, &seen)
                }
            };
            match self.step(key, wants, next, seen) {
                Step::Take(taken) => return Err(taken),
                Step::Compute(computing) => return Ok(computing),
                Step::Wait(again) => seen = again,
            }
        }
    }
}

impl<K, V: Send + Sync + 'static> CacheEntry<'_, K, V> {
    /// As [`or_insert_with`](Self::or_insert_with), for tasks.
    ///
    /// # Errors
    /// As for [`Cache::get_or_insert_with`].
    pub async fn or_insert_with_async<F: Future<Output = V>>(self, compute: impl FnOnce() -> F) -> Result<Arc<V>> {
        self.or_try_insert_with_async(|| async { Ok::<_, Infallible>(compute().await) }).await.map_err(never_fails)
    }

    /// As [`or_try_insert_with`](Self::or_try_insert_with), for tasks.
    ///
    /// # Errors
    /// As for [`Cache::get_or_try_insert_with`].
    pub async fn or_try_insert_with_async<E, F>(self, compute: impl FnOnce() -> F) -> Result<Arc<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<V, E>>,
    {
        let (cache, key, kept, wants) = self.checked()?;
        let compute = || async { compute().await.map(|value| (value, kept)) };
        cache.get_or_load_key_async(&key, wants, compute).await
    }

    /// As [`insert`](Self::insert). Ready at once.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub async fn insert_async(self, value: &V) -> Result<()> {
        self.insert(value)
    }
}

impl<K, V> CacheBuilder<K, V>
where
    K: 'static,
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// How the cache gets a value by itself, for tasks: for [`Cache::get_or_load_async`].
    pub fn loader_async<F>(self, load: impl Fn(K) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = V> + Send + 'static,
    {
        self.await_by(move |key| {
            let loading = load(key);
            Box::pin(async move { Ok((loading.await, Kept::default())) })
        })
    }

    /// As [`loader_async`](Self::loader_async), with one that can fail, and says how long each value is good.
    pub fn try_loader_async<F, E>(self, load: impl Fn(K) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(V, Kept), E>> + Send + 'static,
        E: Into<Box<dyn error::Error + Send + Sync>>,
    {
        self.await_by(move |key| {
            let loading = load(key);
            Box::pin(async move { loading.await.map_err(|error| Refused(error.into().into())) })
        })
    }

    fn await_by(mut self, load: impl Fn(K) -> Loading<V> + Send + Sync + 'static) -> Self {
        self.loader = Some(Loader::Await(Arc::new(load)));
        self
    }

    /// How futures run that refresh behind, as `|future| drop(tokio::spawn(future))`. Without it one of the callers that meet a stale
    /// value refreshes it within its own future, and the others have the stale value at once.
    pub fn spawner(
        mut self,
        spawn: impl Fn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static,
    ) -> Self {
        self.options.spawn = Some(Arc::new(spawn));
        self
    }
}

impl<K: Send + 'static, V: Send + Sync + 'static> Cache<K, V> {
    /// The value of `key`, by the cache's async loader if there is none. A stale one is served at once; its refresh runs where
    /// [`CacheBuilder::spawner`] says.
    ///
    /// # Errors
    /// As for [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_async<Q>(&self, key: &Q) -> Result<Arc<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ToOwned<Owned = K> + ?Sized,
    {
        let loader = match &self.loader {
            Some(Loader::Await(loader)) => loader,
            Some(Loader::Call(loader)) => {
                let encoded = self.encode(key)?;
                let seen = self.look_or_refresh(&encoded, key, loader);
                let compute = || {
                    let key = key.to_owned();
                    async move { loader(&key) }
                };
                let loaded = self.inner.load_seen_async(encoded.stored(), Wants::default(), seen, compute).await;
                return loaded.map_err(|error| told(self.name(), error));
            }
            None => return Err(self.no_loader()),
        };
        let encoded = self.encode(key)?;
        let load = || loader(key.to_owned());
        let loaded = match &self.inner.options.spawn {
            Some(spawn) => self.inner.load_behind(encoded.stored(), spawn, load).await,
            None => self.inner.load_async(encoded.stored(), Wants::default(), load).await,
        };
        loaded.map_err(|error| told(self.name(), error))
    }
}

impl<V: Send + Sync + 'static> Inner<V> {
    async fn load_behind(
        self: &Arc<Self>,
        key: &[u8],
        spawn: &Spawn,
        load: impl Fn() -> Loading<V>,
    ) -> Result<Arc<V>, LoadError<Refused>> {
        match self.look(key, Wants::default(), true) {
            Seen::Good(value) => Ok(value),
            Seen::Stale(stale, sequence) => {
                if let Some(queued) = self.space.flights().queue(key)
                    && self.refreshed_since(sequence, key).is_none()
                {
                    let (cache, flights) = (Arc::downgrade(self), self.space.flights().clone());
                    let refresh = Behind { cache, flights, has_ended: false };
                    spawn(Box::pin(refresh.run(key.to_vec(), queued, load())));
                }
                Ok(stale)
            }
            seen => {
                let computing = match self.wait_async(key, Wants::default(), seen).await {
                    Ok(computing) => computing,
                    Err(taken) => return taken,
                };
                let began = Instant::now();
                let computed = computing.poll(load).await;
                self.end(key, computing, computed, began.elapsed())
            }
        }
    }
}

/// What a refresh needs that runs behind: not the store itself, which may end meanwhile. Dropped with its future, or by a panic in that,
/// it counts as failed.
struct Behind<V> {
    cache: Weak<Inner<V>>,
    flights: Arc<Flights>,
    has_ended: bool,
}

impl<V: Send + Sync + 'static> Behind<V> {
    async fn run(mut self, key: Vec<u8>, queued: Queued, loading: Loading<V>) {
        let Some(lead) = queued.claim() else {
            self.has_ended = true;
            return;
        };
        let (computing, began) = (Computing::Lead(lead), Instant::now());
        let computed = computing.poll(|| loading).await;
        self.has_ended = true;
        if let Some(cache) = self.cache.upgrade() {
            cache.end_refresh(&key, computing, computed, began.elapsed());
        }
    }
}

impl<V> Drop for Behind<V> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.flights.note(Outcome::RefreshFailed);
        }
    }
}
