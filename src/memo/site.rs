//! Where a memoized function has its handle: one static per function, which holds the opened cache.
//!
//! Holds how a handle is found and opened. Invariant: a handle serves the store it was opened in, and no call once another
//! was set; finding it in the common case is one relaxed load, and no lock.

use std::{
    any::Any,
    env, fmt,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Keep, MemoKey, Outcome, Setup, arguments::DIRECTORY, setup::MakeStore, trouble};
use crate::{
    Cache, CacheBuilder, Result, Store,
    cache::WAIT_TIMEOUT,
    default_store::{
        AGAIN_AFTER, OFF, STATE, default_store_unless_refused, is_enabled_by_file, is_enabled_by_variable,
    },
    key::{EncodedKey, KeyBuilder},
};

/// The place of the handles of a function: of the first one, which is nearly always the only one, and of all others.
#[derive(Debug, Default)]
pub struct Site {
    first: OnceLock<Handle>,
    others: RwLock<Vec<Handle>>,
    /// The store that the function names, once it has opened.
    store: OnceLock<Store>,
    /// When that was refused last. Held while it is made, so that it is made once.
    refused: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Handle {
    /// The function with its types, if it is generic.
    instance: &'static str,
    /// What of the switch has to be `expected`: nothing but whether it is on, if the function names its store.
    mask: u32,
    expected: u32,
    memo: &'static (dyn Any + Send + Sync),
}

/// What a result has to be that is kept.
pub trait Value: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Value for V {}

/// Stands for the arguments, whatever their types: those are in each key.
#[derive(Debug)]
pub struct Call(());

/// What a cache of results is opened by.
pub type Builder<V> = CacheBuilder<Call, V>;

/// Chooses its codec. A plain function, so that opening is compiled once for each type of results.
pub(super) type ChooseCodec<V> = fn(Builder<V>) -> Builder<V>;

/// The opened handle of one function.
#[derive(Debug)]
pub struct Memo<V> {
    pub(super) cache: Cache<Call, V>,
    /// How many results could not be kept that were counted already.
    pub(super) unkept: Mutex<u64>,
    /// How long a caller waits for others, also for one after the other.
    pub(super) wait_timeout: Duration,
    pub(super) is_isolated: bool,
}

impl Handle {
    #[inline]
    fn serves(&self, state: u32, instance: &'static str) -> bool {
        let is_ours = instance.is_empty() || std::ptr::eq(self.instance, instance) || self.instance == instance;
        state & self.mask == self.expected && is_ours
    }
}

impl Site {
    /// A place without handles.
    pub const fn new() -> Self {
        Self {
            first: OnceLock::new(),
            others: RwLock::new(Vec::new()),
            store: OnceLock::new(),
            refused: Mutex::new(None),
        }
    }

    /// The handle, opened if need be. `None` if memoization is off or the store is not to be had.
    #[inline]
    pub fn open<K: Outcome>(
        &self,
        kind: K,
        instance: &'static str,
        setup: fn() -> Setup,
        codec: ChooseCodec<K::Kept>,
    ) -> Option<&'static Memo<K::Kept>> {
        let state = STATE.get();
        if let Some(first) = self.first.get()
            && first.serves(state, instance)
            && let Some(memo) = first.memo.downcast_ref()
        {
            return Some(memo);
        }
        if state & OFF != 0 {
            return None;
        }
        let memo = self.find(kind, instance, state, setup, codec, is_enabled_outside)?;
        // Its store's settings may have switched it off.
        (STATE.get() & OFF == 0).then_some(memo)
    }

    /// As [`open`](Self::open), also while memoization is off.
    pub fn handle<K: Outcome>(
        &self,
        kind: K,
        instance: &'static str,
        setup: fn() -> Setup,
        codec: ChooseCodec<K::Kept>,
    ) -> Option<&'static Memo<K::Kept>> {
        self.find(kind, instance, STATE.get() & !OFF, setup, codec, |_| true)
    }

    #[cold]
    #[inline(never)]
    fn find<K: Outcome>(
        &self,
        _: K,
        instance: &'static str,
        state: u32,
        setup: fn() -> Setup,
        codec: ChooseCodec<K::Kept>,
        may_open: fn(bool) -> bool,
    ) -> Option<&'static Memo<K::Kept>> {
        let search = |handles: &[Handle]| {
            let mut serving = handles.iter().filter(|handle| handle.serves(state, instance));
            serving.find_map(|handle| handle.memo.downcast_ref())
        };
        if let Some(found) = search(&self.others.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(found);
        }
        // The user's expressions are evaluated under no lock of ours, but for the one that makes the store.
        let setup = setup();
        if !may_open(setup.store.is_some()) {
            return None;
        }
        let (mask, expected) = if setup.store.is_some() { (OFF, 0) } else { (u32::MAX, state) };
        let opened = match setup.store {
            Some(make) => self.own_store(make),
            None => default_store_unless_refused(),
        };
        let memo = open(opened, &setup, instance, codec)?;
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = search(&others) {
            return Some(found);
        }
        // For as long as the process lives, as the function does.
        let memo: &'static Memo<K::Kept> = Box::leak(Box::new(memo));
        let handle = Handle { instance, mask, expected, memo };
        others.push(handle.clone());
        let _ = self.first.set(handle);
        Some(memo)
    }

    /// The store that the function names, made once; who asks meanwhile waits. `None` for a while after that has failed, as of the
    /// process-wide one.
    fn own_store(&self, make: MakeStore) -> Option<Result<Store>> {
        if let Some(store) = self.store.get() {
            return Some(Ok(store.clone()));
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = self.store.get() {
            return Some(Ok(store.clone()));
        }
        if refused.is_some_and(|refused| refused.elapsed() < AGAIN_AFTER) {
            return None;
        }
        let made = make();
        match &made {
            Ok(store) => _ = self.store.set(store.clone()),
            Err(_) => *refused = Some(Instant::now()),
        }
        Some(made)
    }
}

/// Whether the environment, and the file if it is for that to say, have memoization on; trouble is counted.
fn is_enabled_outside(has_own_store: bool) -> bool {
    match is_enabled_by_variable() {
        Ok(is_enabled) => is_enabled && (has_own_store || is_enabled_by_file()),
        Err(error) => {
            trouble::count("read the environment", &error);
            false
        }
    }
}

/// Opens the cache of a function; `None`, counted, if that fails.
fn open<V: Value>(
    opened: Option<Result<Store>>,
    setup: &Setup,
    instance: &str,
    codec: ChooseCodec<V>,
) -> Option<Memo<V>> {
    let namespace = setup.namespace(instance);
    let Some(opened) = opened else {
        trouble::count("open the store", &"it could not be opened a moment ago");
        return None;
    };
    match opened.and_then(|store| open_cache(&store, &namespace, setup, codec)) {
        Ok(cache) => {
            let unkept = Mutex::new(cache.unkept());
            let wait_timeout = setup.wait_timeout.unwrap_or(WAIT_TIMEOUT);
            Some(Memo { cache, unkept, wait_timeout, is_isolated: setup.is_isolated })
        }
        Err(error) => {
            trouble::count("open the store", &error);
            None
        }
    }
}

fn open_cache<V: Value>(
    store: &Store,
    namespace: &str,
    setup: &Setup,
    codec: ChooseCodec<V>,
) -> Result<Cache<Call, V>> {
    let mut builder = codec(store.cache_builder(namespace));
    if let Some(ttl) = setup.ttl {
        builder = builder.time_to_live(ttl);
    }
    if let Some(stale_after) = setup.stale_after {
        builder = builder.stale_after(stale_after);
    }
    if let Some(timeout) = setup.wait_timeout {
        builder = builder.wait_timeout(timeout);
    }
    if let Some(most) = setup.max_entries {
        builder = builder.max_entries(most);
    }
    builder.open()
}

impl<V: Send + Sync + 'static> Memo<V> {
    /// A key to encode the arguments into.
    #[inline]
    pub fn key(&self) -> MemoKey {
        // Not one key that is changed: that one would be moved, and moving takes longer than making.
        if self.is_isolated { self.isolated_key() } else { MemoKey::of(self.cache.key_builder()) }
    }

    #[inline(never)]
    fn isolated_key(&self) -> MemoKey {
        let mut key = MemoKey::of(self.cache.key_builder());
        match directory() {
            Some(directory) => key.builder.push_bytes(directory.as_os_str().as_encoded_bytes()),
            None => key.is_whole = false,
        }
        key
    }

    /// What is kept beside a result of this call: of one that is isolated, the directory.
    pub(super) fn keep(&self) -> Keep {
        let mut keep = Keep::default();
        if let Some(directory) = self.directory() {
            keep.argument(DIRECTORY, directory.as_bytes(), Vec::new());
        }
        keep
    }

    /// The directory as an argument of queries; `None` if calls know of none.
    pub(super) fn directory(&self) -> Option<EncodedKey> {
        let directory = if self.is_isolated { directory() } else { None };
        directory.map(|directory| {
            let mut builder = KeyBuilder::new();
            builder.push_bytes(directory.as_os_str().as_encoded_bytes());
            builder.finish()
        })
    }

    /// The key; `None` if an argument could not be encoded.
    #[inline]
    pub fn finish<'a>(&self, key: &'a mut MemoKey) -> Option<&'a EncodedKey> {
        if key.is_whole { Some(key.builder.finish_here()) } else { None }
    }
}

/// The working directory; `None`, counted, if there is none.
fn directory() -> Option<PathBuf> {
    env::current_dir().inspect_err(|error| trouble::count("find the working directory", error)).ok()
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("instance", &self.instance).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Place, *};
    use crate::memo::{ByPlain, Kind};

    const PLACE: Place = Place {
        package: None,
        program: None,
        file: "src/memo/site.rs",
        module: "site",
        function: "f",
        home: "site::f",
        digest: 7,
        arguments: &[],
        is_associated: false,
    };

    fn setup() -> Setup {
        Setup::new(PLACE).store(|| Store::builder().in_memory())
    }

    #[test]
    fn callers_wait_as_long_as_those_of_a_cache() {
        static PLAIN: Site = Site::new();
        static PATIENT: Site = Site::new();
        let wait = |site: &Site, setup| {
            site.handle(Kind::<u32>::new().kind(), "", setup, |builder| builder).unwrap().wait_timeout
        };
        assert_eq!(wait(&PLAIN, setup), WAIT_TIMEOUT);
        assert_eq!(wait(&PATIENT, || setup().wait_timeout(Duration::MAX)), Duration::MAX);
    }
}
