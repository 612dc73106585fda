//! Looking first and computing later, in two calls: for memoized functions, whose arguments are lent to the one and given to the
//! other.
//!
//! Holds no step of its own: those of `load.rs` and `asynchronous.rs`. Invariant: both together count as one call.

use std::{fmt, sync::Arc};

use thermocline_engine::{Outcome, fresh::Freshness};

use super::{
    Cache, Kept, Load, LoadError, Wants,
    load::Seen,
    stored::{shared, show_value},
};
use crate::{Error, key::EncodedKey};

/// What a look saw that was not what the call wants.
#[doc(hidden)]
pub struct Missed<V> {
    wants: Wants,
    seen: Seen<V>,
    /// Why the store could not be asked.
    error: Option<Box<Error>>,
}

impl<V> Missed<V> {
    /// As if nothing had been there.
    pub fn nothing(wants: Wants) -> Self {
        Self::seen(wants, Seen::Nothing)
    }

    fn seen(wants: Wants, seen: Seen<V>) -> Self {
        Self { wants, seen, error: None }
    }

    /// What the call wants.
    pub fn wants(&self) -> Wants {
        self.wants
    }

    /// Why the store could not be asked, if that is why there was nothing.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_deref()
    }
}

impl<V> fmt::Debug for Missed<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Missed").finish_non_exhaustive()
    }
}

impl<K, V: Send + Sync + 'static> Cache<K, V> {
    /// Shows the value of a key, if it is what the call wants: not even its reference count is touched if it is fresh.
    #[doc(hidden)]
    #[inline]
    pub fn look_key<E: Send + Sync + 'static, R>(
        &self,
        key: &EncodedKey,
        load: &Load<'_, V, E>,
        show: impl Fn(&V) -> R,
    ) -> Result<R, Missed<V>> {
        // Of what is wanted each part by itself: to copy the whole takes longer than to look at it.
        let (inner, wants) = (&self.inner, &load.wants);
        if wants.overwrite {
            return Err(Missed::seen(*wants, inner.look(key.stored(), *wants, false)));
        }
        let seen = inner.space.read(key.stored(), &|bytes| inner.decode(bytes), |decoded, facts| {
            Some(match inner.judge(decoded, facts, wants.max_age, load.refresh.is_some()) {
                Freshness::Fresh => Ok(show_value(decoded, &show)?),
                Freshness::TooOld => Err(Seen::TooOld(shared(decoded)?)),
                Freshness::Ahead | Freshness::Stale => Err(Seen::Stale(shared(decoded)?, facts.sequence)),
            })
        });
        match seen {
            Ok(Some(Some(Ok(shown)))) => Ok(shown),
            Ok(Some(Some(Err(seen)))) => self.shown_stale(key, load, seen, show),
            Ok(_) => Err(Missed::nothing(*wants)),
            Err(error) => Err(Missed { wants: *wants, seen: Seen::Nothing, error: Some(Box::new(error)) }),
        }
    }

    #[inline(never)]
    fn shown_stale<E: Send + Sync + 'static, R>(
        &self,
        key: &EncodedKey,
        load: &Load<'_, V, E>,
        seen: Seen<V>,
        show: impl Fn(&V) -> R,
    ) -> Result<R, Missed<V>> {
        match (seen, load.refresh) {
            (Seen::Stale(stale, sequence), Some(refresh)) => {
                self.inner.refresh_behind(key.stored(), sequence, refresh);
                Ok(show(&stale))
            }
            (seen, _) => {
                if let Seen::TooOld(_) = seen {
                    self.inner.space.namespace().count_aged();
                }
                Err(Missed::seen(load.wants, seen))
            }
        }
    }

    /// As [`get_or_load_key`](Self::get_or_load_key), after a look.
    #[doc(hidden)]
    pub fn load_missed_key<E: Send + Sync + 'static>(
        &self,
        key: &EncodedKey,
        missed: Missed<V>,
        compute: impl FnOnce() -> Result<(V, Kept), E>,
    ) -> Result<Arc<V>, LoadError<E>> {
        self.inner.load_seen(key.stored(), missed.wants, missed.seen, compute)
    }

    /// As [`get_or_load_key_async`](Self::get_or_load_key_async), after a look.
    #[doc(hidden)]
    pub async fn load_missed_key_async<E, F>(
        &self,
        key: &EncodedKey,
        missed: Missed<V>,
        compute: impl FnOnce() -> F,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<(V, Kept), E>>,
    {
        self.inner.load_seen_async(key.stored(), missed.wants, missed.seen, compute).await
    }

    /// How many values were computed and could not be kept. As in [`info`](Self::info), without counting entries.
    #[doc(hidden)]
    pub fn unkept(&self) -> u64 {
        self.inner.space.flights().noted(Outcome::Unkept)
    }
}
