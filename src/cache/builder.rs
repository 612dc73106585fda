//! Options of a cache, checked once, when it is opened.

use std::{
    any::type_name,
    error, fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use thermocline_engine::{Engine, Limits, fresh::Eager};

use super::{
    Cache, Inner, Kept, check_time,
    loader::{Loader, Refused, Spawn},
    space::Space,
};
use crate::{
    Error, Result,
    codec::{Codec, Codecs},
};

/// How long a caller waits for somebody else's computation, unless it is said otherwise.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a caller does who has waited for somebody else's computation as long as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnTimeout {
    /// Computes by itself. Whoever is first answers all.
    #[default]
    Compute,
    /// Takes the value there is, though it is older than was asked for; if there is none it computes.
    Stale,
    /// Gives up with [`Error::WaitTimeout`].
    Error,
}

/// What a cache does by default for its entries and callers.
pub(super) struct Options<V> {
    pub(super) codecs: Codecs<V>,
    pub(super) entry_bytes_max: Option<u64>,
    pub(super) time_to_live: Option<Duration>,
    pub(super) stale_after: Option<Duration>,
    pub(super) jitter: f64,
    pub(super) eager: Eager,
    /// Whether that asks for anything.
    pub(super) is_eager: bool,
    pub(super) wait_timeout: Option<Duration>,
    pub(super) on_timeout: OnTimeout,
    pub(super) spawn: Option<Spawn>,
}

impl<V> Options<V> {
    /// Until when somebody waits who begins now; `None`: for ever.
    pub(super) fn wait_until(&self) -> Option<Instant> {
        Instant::now().checked_add(self.wait_timeout?)
    }
}

/// How a cache is to be opened. Made by [`Store::cache_builder`](crate::Store::cache_builder).
#[must_use = "a builder does nothing until `open`"]
pub struct CacheBuilder<K, V> {
    engine: Arc<Engine>,
    name: String,
    version: u64,
    max_entries: Option<u64>,
    max_bytes: Option<u64>,
    pub(super) options: Options<V>,
    pub(super) loader: Option<Loader<K, V>>,
    key: PhantomData<fn(&K)>,
}

impl<K, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

impl<K: 'static, V: Serialize + DeserializeOwned + Send + Sync + 'static> CacheBuilder<K, V> {
    pub(crate) fn new(engine: Arc<Engine>, name: String) -> Self {
        let options = Options {
            codecs: Codecs::builtin(),
            entry_bytes_max: None,
            time_to_live: None,
            stale_after: None,
            jitter: 0.0,
            eager: Eager::default(),
            is_eager: false,
            wait_timeout: Some(WAIT_TIMEOUT),
            on_timeout: OnTimeout::default(),
            spawn: None,
        };
        let (max_entries, max_bytes, version) = (None, None, 0);
        Self { engine, name, version, max_entries, max_bytes, options, loader: None, key: PhantomData }
    }

    /// The most entries there may be, in both tiers together. When there are more, one goes that was not asked for lately.
    /// Default: no limit.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = Some(entries);
        self
    }

    /// The most bytes that keys and values may take, encoded. Default: no limit.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// The most bytes that one entry may take, encoded: a larger one is returned to those who asked, and not kept. Default: no limit
    /// but the store's. Counted is all that is written for the value: tags and recorded arguments too.
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.options.entry_bytes_max = Some(bytes);
        self
    }

    /// How long entries live that say nothing else. Default: as the store has it.
    pub fn time_to_live(mut self, ttl: Duration) -> Self {
        self.options.time_to_live = Some(ttl);
        self
    }

    /// After how long entries are stale that say nothing else: still served, and refreshed. Default: never.
    pub fn stale_after(mut self, stale_after: Duration) -> Self {
        self.options.stale_after = Some(stale_after);
        self
    }

    /// Shortens both times of each entry by a random part of them, up to this one, so that what was written together does not
    /// end together. 0 to 1; default: 0.
    pub fn jitter(mut self, part: f64) -> Self {
        self.options.jitter = part;
        self
    }

    /// Computes entries early by chance, the likelier the nearer their end and the more they cost to compute: of many who
    /// ask one refreshes before all would have to wait. 1 is a good start, more is earlier; default: 0, never.
    pub fn early_refresh(mut self, beta: f64) -> Self {
        self.options.eager.beta = beta;
        self
    }

    /// Refreshes an entry behind that is asked for when this part of its fresh time has passed, so that what is in use does
    /// not become stale. Needs a loader. 0 to 1; default: 0, never.
    pub fn refresh_ahead(mut self, part: f64) -> Self {
        self.options.eager.ahead = part;
        self
    }

    /// How long a caller waits for somebody else's computation. Default: 30 s.
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.options.wait_timeout = Some(timeout);
        self
    }

    /// What a caller does then. Default: [`OnTimeout::Compute`].
    pub fn on_timeout(mut self, policy: OnTimeout) -> Self {
        self.options.on_timeout = policy;
        self
    }

    /// How values are written from here on. Default: [`Postcard`](crate::Postcard). What other known codecs wrote stays readable.
    pub fn codec(mut self, codec: impl Codec<V>) -> Self {
        self.options.codecs.write_with(codec);
        self
    }

    /// How values may have been written, besides the codecs of ours.
    pub fn reads(mut self, codec: impl Codec<V>) -> Self {
        self.options.codecs.read_with(codec);
        self
    }

    /// What values mean: those of another version are not met. Default: 0.
    pub fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// How the cache gets a value by itself: for [`Cache::get_or_load`].
    pub fn loader(self, load: impl Fn(&K) -> V + Send + Sync + 'static) -> Self {
        self.load_by(move |key| Ok((load(key), Kept::default())))
    }

    /// As [`loader`](Self::loader), with one that can fail.
    pub fn try_loader<E>(self, load: impl Fn(&K) -> Result<V, E> + Send + Sync + 'static) -> Self
    where
        E: Into<Box<dyn error::Error + Send + Sync>>,
    {
        self.try_loader_with(move |key| load(key).map(|value| (value, Kept::default())))
    }

    /// As [`try_loader`](Self::try_loader), with one that says how long each value is good, and what tags it has.
    pub fn try_loader_with<E>(self, load: impl Fn(&K) -> Result<(V, Kept), E> + Send + Sync + 'static) -> Self
    where
        E: Into<Box<dyn error::Error + Send + Sync>>,
    {
        self.load_by(move |key| load(key).map_err(|error| Refused(error.into().into())))
    }

    fn load_by(mut self, load: impl Fn(&K) -> Result<(V, Kept), Refused> + Send + Sync + 'static) -> Self {
        self.loader = Some(Loader::Call(Arc::new(load)));
        self
    }

    /// Opens the cache.
    ///
    /// # Errors
    /// [`Error::Option`] for what cannot be, and for a codec whose number is taken; [`Error::NamespaceInUse`] if this process has a cache of this name open with
    /// other types, another version or other limits; as for [`Store::insert`](crate::Store::insert).
    pub fn open(mut self) -> Result<Cache<K, V>> {
        let Options { time_to_live, stale_after, jitter, eager, .. } = &self.options;
        check_time("time_to_live", *time_to_live)?;
        check_time("stale_after", *stale_after)?;
        self.options.codecs.check()?;
        check_part("jitter", *jitter, 1.0)?;
        check_part("refresh_ahead", eager.ahead, 1.0)?;
        check_part("early_refresh", eager.beta, f64::MAX)?;
        self.options.is_eager = self.options.eager != Eager::default();
        let limits = Limits::new(self.max_entries, self.max_bytes);
        let space = Space::open(self.engine, &self.name, fingerprint::<K, V>(self.version), limits)?;
        let inner = Arc::new(Inner { space, options: self.options });
        Ok(Cache { inner, loader: self.loader, key: PhantomData })
    }
}

fn check_part(option: &'static str, part: f64, part_max: f64) -> Result<()> {
    if (0.0..=part_max).contains(&part) {
        return Ok(());
    }
    Err(Error::Option { option, found: part.to_string(), expected: format!("0 to {part_max}") })
}

/// Of what entries mean: the version, and both types by name.
fn fingerprint<K, V>(version: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&version.to_le_bytes());
    for name in [type_name::<K>(), type_name::<V>()] {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
