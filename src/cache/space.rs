//! A namespace of the engine, as caches use it.
//!
//! Holds the store open, and the order of things in a write: what is being computed is overtaken before it, and once
//! more behind an insert: what removes may be followed by what was computed since it began. Adds nothing else.

use std::sync::Arc;

use thermocline_engine::{Decode, Decoded, Engine, Facts, Flights, Limits, Namespace, Prefix, Refresher};

use crate::{Attributes, Result};

#[derive(Debug)]
pub(super) struct Space {
    engine: Arc<Engine>,
    namespace: Arc<Namespace>,
}

impl Space {
    pub(super) fn open(engine: Arc<Engine>, name: &str, fingerprint: u64, limits: Limits) -> Result<Self> {
        let namespace = engine.namespace(name, fingerprint, limits)?;
        Ok(Self { engine, namespace })
    }

    #[inline]
    pub(super) fn prefix(&self) -> &Prefix {
        self.namespace.prefix()
    }

    pub(super) fn name(&self) -> &str {
        self.namespace.name()
    }

    pub(super) fn flights(&self) -> &Arc<Flights> {
        self.namespace.flights()
    }

    pub(super) fn refresher(&self) -> &Refresher {
        self.engine.refresher()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.engine.now_ms()
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn entries(&self) -> u64 {
        self.engine.entries(&self.namespace)
    }

    #[inline]
    pub(super) fn read<R>(
        &self,
        key: &[u8],
        decode: &Decode<'_>,
        show: impl FnOnce(&Decoded, Facts) -> R,
    ) -> Result<Option<R>> {
        self.engine.read_object(&self.namespace, key, decode, show)
    }

    pub(super) fn peek(&self, key: &[u8], decode: &Decode<'_>) -> Result<Option<(Decoded, Facts)>> {
        self.engine.peek_object(&self.namespace, key, decode)
    }

    #[cfg(feature = "rkyv")]
    pub(super) fn read_bytes<R>(&self, key: &[u8], show: impl FnOnce(&[u8]) -> Option<R>) -> Result<Option<R>> {
        self.engine.read_bytes(&self.namespace, key, show)
    }

    /// Drops values that memory has let go. Before the steps of a write: dropping one may ask for the same key.
    pub(super) fn drop_released(&self) {
        self.engine.drop_released();
    }

    /// Keeps what nobody has overtaken.
    pub(super) fn keep(&self, key: &[u8], bytes: &[u8], decoded: Decoded, attributes: &Attributes) -> Result<()> {
        self.engine.insert_object(&self.namespace, key, bytes, decoded, attributes)
    }

    /// Removes what a newer answer has overtaken that is not to be kept itself. To be called as [`keep`](Self::keep) is.
    pub(super) fn keep_nothing(&self, key: &[u8]) -> Result<()> {
        self.engine.remove_object(&self.namespace, key).map(drop)
    }

    pub(super) fn insert(&self, key: &[u8], bytes: &[u8], decoded: Decoded, attributes: &Attributes) -> Result<()> {
        self.drop_released();
        self.flights().write(key, || self.keep(key, bytes, decoded, attributes))
    }

    pub(super) fn remove(&self, key: &[u8]) -> Result<bool> {
        self.drop_released();
        self.flights().overtake(key);
        self.engine.remove_object(&self.namespace, key)
    }

    pub(super) fn clear(&self) -> Result<()> {
        self.flights().overtake_all();
        self.engine.clear_namespace(&self.namespace)
    }

    pub(super) fn walk<'a>(
        &'a self,
        decode: impl Fn(&[u8]) -> Option<Decoded> + 'a,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Decoded, Facts)>> + 'a {
        self.engine.objects(&self.namespace, decode)
    }
}
