//! An entry on its way to memory and to bytes, and back.
//!
//! Holds what memory keeps of it, and where that comes from. Invariant: what was read back says the same as what was written.

use std::{any::Any, sync::Arc, time::Duration};

use thermocline_engine::{
    Decoded, Facts, Object,
    fresh::{self, Times},
};

use super::{
    Inner, Kept, check_time,
    word::{show_word, word_of},
};
use crate::{Attributes, Error, Result, envelope::Envelope};

/// What few ask an entry for.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) tags: Box<[Box<str>]>,
    pub(super) arguments: Option<Box<[u8]>>,
}

impl Note {
    fn from_envelope(envelope: &Envelope<'_>) -> Option<Object> {
        if envelope.tags.is_empty() && envelope.arguments.is_none() {
            return None;
        }
        let tags = envelope.tags.iter().map(|tag| Box::from(*tag)).collect();
        Some(Arc::new(Self { tags, arguments: envelope.arguments.map(Into::into) }))
    }

    pub(super) fn of(decoded: &Decoded) -> Option<&Self> {
        decoded.note.as_ref()?.downcast_ref()
    }
}

/// Shows the value of an entry. `None`: it is of another type. No cache has met one: types are part of what names a namespace.
#[inline]
pub(super) fn show_value<V: Any, R>(decoded: &Decoded, show: impl FnOnce(&V) -> R) -> Option<R> {
    match show_word(decoded.word, show) {
        Ok(shown) => Some(shown),
        Err(show) => decoded.object.downcast_ref().map(show),
    }
}

/// The value of an entry, for longer; `None` as for [`show_value`].
#[inline]
pub(super) fn shared<V: Any + Send + Sync>(decoded: &Decoded) -> Option<Arc<V>> {
    Arc::downcast(decoded.object.clone()).ok()
}

pub(super) fn times(decoded: &Decoded, facts: Facts) -> Times {
    Times {
        created_ms: facts.created_ms,
        deadline_ms: facts.deadline_ms,
        stale_after_ms: decoded.stale_after_ms,
        cost_us: decoded.cost_us,
    }
}

/// An entry as bytes and as memory keeps it, and what its write says besides.
pub(super) type Packed = (Vec<u8>, Decoded, Attributes);

impl<V: Send + Sync + 'static> Inner<V> {
    /// The entry of `bytes`; `None` for what this cache cannot read.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<Decoded> {
        let envelope = Envelope::parse(bytes)?;
        let value: V = self.options.codecs.decode(&envelope)?;
        Some(with_envelope(Arc::new(value), &envelope))
    }

    /// Shows an entry, stale or not.
    #[inline]
    pub(super) fn read<R>(&self, key: &[u8], show: impl FnOnce(&Decoded) -> Option<R>) -> Result<Option<R>> {
        let shown = self.space.read(key, &|bytes| self.decode(bytes), |decoded, _| show(decoded))?;
        Ok(shown.flatten())
    }

    /// An entry, stale or not, and no trace of having looked.
    pub(super) fn peek(&self, key: &[u8]) -> Result<Option<(Decoded, Facts)>> {
        self.space.peek(key, &|bytes| self.decode(bytes))
    }

    pub(super) fn insert(&self, key: &[u8], value: &V, kept: &Kept) -> Result<()> {
        let (bytes, attributes) = self.encode(value, kept, None)?;
        let decoded = self.decode(&bytes).ok_or_else(unreadable::<V>)?;
        self.space.insert(key, &bytes, decoded, &attributes)
    }

    /// The entry of what was computed.
    pub(super) fn pack(&self, value: &Arc<V>, kept: &Kept, cost: Duration) -> Result<Packed> {
        let cost_us = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
        let (bytes, attributes) = self.encode(value, kept, Some(cost_us))?;
        let envelope = Envelope::parse(&bytes).ok_or_else(unreadable::<V>)?;
        let decoded = with_envelope(value.clone(), &envelope);
        Ok((bytes, decoded, attributes))
    }

    fn encode(&self, value: &V, kept: &Kept, cost_us: Option<u64>) -> Result<(Vec<u8>, Attributes)> {
        check_time("ttl", kept.ttl)?;
        check_time("stale_after", kept.stale_after)?;
        let options = &self.options;
        let random = if options.jitter > 0.0 { fastrand::f64() } else { 0.0 };
        let lives = |time: Duration| fresh::jittered(time, options.jitter, random);
        let stale_after = kept.stale_after.or(options.stale_after).map(lives);
        let stale_after_ms = stale_after.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
        let codec = options.codecs.writer();
        let envelope = Envelope {
            codec: codec.id(),
            shape: options.codecs.shape(codec.id()),
            stale_after_ms,
            cost_us: cost_us.unwrap_or(0),
            tags: kept.tags.iter().map(String::as_str).collect(),
            arguments: kept.arguments.as_deref(),
            value: &[],
        };
        let mut bytes = Vec::with_capacity(64);
        envelope.write_head(&mut bytes);
        codec.encode(value, &mut bytes).map_err(|why| Error::Encode {
            what: "value",
            type_name: std::any::type_name::<V>(),
            cause: why.to_string(),
        })?;
        let (bytes_max, bytes_len) = (options.entry_bytes_max.unwrap_or(u64::MAX), bytes.len() as u64);
        if bytes_len > bytes_max {
            return Err(Error::TooLarge { what: "entry", bytes: bytes_len, bytes_max });
        }
        let ttl = kept.ttl.or(options.time_to_live).map(lives);
        let attributes = ttl.map_or(Attributes::new(), |ttl| Attributes::new().ttl(ttl));
        Ok((bytes, kept.durability.map_or(attributes, |durability| attributes.durability(durability))))
    }
}

fn with_envelope<V: Any + Send + Sync>(object: Arc<V>, envelope: &Envelope<'_>) -> Decoded {
    let (stale_after_ms, cost_us) = (envelope.stale_after_ms, envelope.cost_us);
    Decoded { word: word_of(&*object), object, stale_after_ms, cost_us, note: Note::from_envelope(envelope) }
}

fn unreadable<V>() -> Error {
    let cause = "the codec cannot read what it wrote".to_owned();
    Error::Encode { what: "value", type_name: std::any::type_name::<V>(), cause }
}
