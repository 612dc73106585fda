//! Getting a value or computing it: once, however many ask.
//!
//! Holds what a call wants, and the steps from it to a value; `asynchronous.rs` takes the same steps for tasks. Who computes and who
//! waits is the engine's. Invariant: a value that was computed reaches its caller, whether or not it could be kept.

use std::{
    any::Any,
    error, fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use thermocline_engine::{
    Aside, Decoded, Facts, Joined, Landed, Lead, Outcome, Pilot,
    fresh::{Freshness, judge},
};

use super::{
    Cache, Inner, Kept, OnTimeout,
    stored::{shared, times},
};
use crate::{Error, Result, key::EncodedKey};

/// Why there is no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The computation failed: one error for all who waited for it.
    Load(Arc<E>),
    /// The cache could not be asked.
    Store(Error),
}

impl<E> From<Error> for LoadError<E> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: error::Error + 'static> error::Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Load(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

/// A refresh that runs behind its caller.
#[doc(hidden)]
pub type Refresh<V, E> = Box<dyn FnOnce() -> Result<(V, Kept), E> + Send>;

/// What value a call wants.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Not older than this.
    pub max_age: Option<Duration>,
    /// Computed now, whatever there is.
    pub overwrite: bool,
}

/// What value a call wants, and how a stale one is refreshed.
#[doc(hidden)]
pub struct Load<'a, V, E> {
    /// What is taken.
    pub wants: Wants,
    /// What refreshes a stale value behind. `None`: one caller refreshes in line.
    pub refresh: Option<&'a dyn Fn() -> Refresh<V, E>>,
}

impl<V, E> Default for Load<'_, V, E> {
    fn default() -> Self {
        Self { wants: Wants::default(), refresh: None }
    }
}

impl<V, E> fmt::Debug for Load<'_, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("wants", &self.wants).finish_non_exhaustive()
    }
}

/// What a look found.
pub(super) enum Seen<V> {
    Good(Arc<V>),
    /// Served, and to be refreshed by one of those who see it, unless a higher sequence is there by then.
    Stale(Arc<V>, u64),
    /// Served to those who cannot wait for another.
    TooOld(Arc<V>),
    Nothing,
}

/// What comes after waiting.
pub(super) enum Next<V, E> {
    Take(Result<Arc<V>, LoadError<E>>),
    Lead(Lead),
    Aside(Aside),
    Again,
}

/// What is to be done.
pub(super) enum Step<V, E> {
    Take(Result<Arc<V>, LoadError<E>>),
    Compute(Computing),
    /// Once more.
    Wait(Seen<V>),
}

/// One who computes.
pub(super) enum Computing {
    Lead(Lead),
    /// Beside the lead.
    Aside(Aside),
    /// Within the lead's own computation: for itself.
    Within,
}

impl Computing {
    /// Computes, or a part of it: if that asks for its own key it is not to wait for itself.
    pub(super) fn run<R>(&self, part: impl FnOnce() -> R) -> R {
        let _within = match self {
            Self::Lead(lead) => Some(lead.enter()),
            Self::Aside(aside) => Some(aside.enter()),
            Self::Within => None,
        };
        part()
    }

    /// As [`run`](Self::run), around every poll of a task's computation.
    pub(super) async fn poll<F: Future>(&self, compute: impl FnOnce() -> F) -> F::Output {
        let mut computation = pin!(self.run(compute));
        poll_fn(|context| self.run(|| computation.as_mut().poll(context))).await
    }
}

impl<K, V: Send + Sync + 'static> Cache<K, V> {
    /// The value of a key, or what `compute` makes of it.
    #[doc(hidden)]
    pub fn get_or_load_key<E: Send + Sync + 'static>(
        &self,
        key: &EncodedKey,
        load: &Load<'_, V, E>,
        compute: impl FnOnce() -> Result<(V, Kept), E>,
    ) -> Result<Arc<V>, LoadError<E>> {
        self.inner.load(key.stored(), load, compute)
    }
}

impl<V: Send + Sync + 'static> Inner<V> {
    #[inline]
    fn load<E: Send + Sync + 'static>(
        self: &Arc<Self>,
        key: &[u8],
        load: &Load<'_, V, E>,
        compute: impl FnOnce() -> Result<(V, Kept), E>,
    ) -> Result<Arc<V>, LoadError<E>> {
        self.load_seen(key, load.wants, self.first_look(key, load), compute)
    }

    /// What follows from a look.
    #[inline]
    pub(super) fn load_seen<E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        wants: Wants,
        seen: Seen<V>,
        compute: impl FnOnce() -> Result<(V, Kept), E>,
    ) -> Result<Arc<V>, LoadError<E>> {
        match seen {
            Seen::Good(value) => Ok(value),
            Seen::Stale(stale, sequence) => Ok(self.refresh_in_line(key, stale, sequence, compute)),
            seen => {
                let computing = match self.wait(key, wants, seen) {
                    Ok(computing) => computing,
                    Err(taken) => return taken,
                };
                let began = Instant::now();
                let computed = computing.run(compute);
                self.end(key, computing, computed, began.elapsed())
            }
        }
    }

    /// Looks, and has a stale value refreshed behind if it can be.
    #[inline]
    pub(super) fn first_look<E: Send + Sync + 'static>(self: &Arc<Self>, key: &[u8], load: &Load<'_, V, E>) -> Seen<V> {
        match (self.look(key, load.wants, load.refresh.is_some()), load.refresh) {
            (Seen::Stale(stale, sequence), Some(refresh)) => {
                self.refresh_behind(key, sequence, refresh);
                Seen::Good(stale)
            }
            (seen, _) => seen,
        }
    }

    /// Looks for what a call wants. `can_behind`: it can have a value refreshed before that is stale.
    #[inline]
    pub(super) fn look(&self, key: &[u8], wants: Wants, can_behind: bool) -> Seen<V> {
        if wants.overwrite {
            // Nobody who asks from here on gets what is being computed.
            self.space.flights().overtake(key);
            self.space.namespace().count_miss();
            return Seen::Nothing;
        }
        let seen = self.space.read(key, &|bytes| self.decode(bytes), |decoded, facts| {
            Some((self.judge(decoded, facts, wants.max_age, can_behind), shared(decoded)?, facts.sequence))
        });
        // Who can compute needs no store that answers: the value is as right.
        let Ok(Some(Some((freshness, value, sequence)))) = seen else { return Seen::Nothing };
        match freshness {
            Freshness::Fresh => Seen::Good(value),
            Freshness::TooOld => {
                self.space.namespace().count_aged();
                Seen::TooOld(value)
            }
            // Ahead only for who can.
            Freshness::Ahead | Freshness::Stale => Seen::Stale(value, sequence),
        }
    }

    #[inline]
    pub(super) fn judge(
        &self,
        decoded: &Decoded,
        facts: Facts,
        max_age: Option<Duration>,
        can_behind: bool,
    ) -> Freshness {
        let is_timeless = decoded.stale_after_ms == 0 && max_age.is_none() && !self.options.is_eager;
        if is_timeless { Freshness::Fresh } else { self.judge_by_time(decoded, facts, max_age, can_behind) }
    }

    #[inline(never)]
    fn judge_by_time(&self, decoded: &Decoded, facts: Facts, max_age: Option<Duration>, can_behind: bool) -> Freshness {
        let mut eager = self.options.eager;
        if !can_behind {
            eager.ahead = 0.0;
        }
        judge(times(decoded, facts), self.space.now_ms(), max_age, eager, fastrand::f64)
    }

    /// One of those who see a stale value computes another; the others have it at once.
    #[inline(never)]
    fn refresh_in_line<E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        stale: Arc<V>,
        sequence: u64,
        compute: impl FnOnce() -> Result<(V, Kept), E>,
    ) -> Arc<V> {
        let Some(lead) = self.space.flights().lead(key, Pilot::ThisThread) else { return stale };
        if let Some(value) = self.refreshed_since(sequence, key) {
            return value;
        }
        self.space.namespace().count_aged();
        let (computing, began) = (Computing::Lead(lead), Instant::now());
        let computed = computing.run(compute);
        self.end_refresh(key, computing, computed, began.elapsed()).unwrap_or(stale)
    }

    /// What was written since `sequence` was seen. The lead is dropped then: who waits looks too.
    pub(super) fn refreshed_since(&self, sequence: u64, key: &[u8]) -> Option<Arc<V>> {
        let (decoded, facts) = self.peek(key).ok().flatten()?;
        if facts.sequence > sequence { shared(&decoded) } else { None }
    }

    /// Keeps what a refresh has computed, or counts that it failed. `None`: it failed.
    pub(super) fn end_refresh<E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        computing: Computing,
        computed: Result<(V, Kept), E>,
        cost: Duration,
    ) -> Option<Arc<V>> {
        if computed.is_err() {
            self.space.flights().note(Outcome::RefreshFailed);
        }
        self.end(key, computing, computed, cost).ok()
    }

    /// Waits until there is a value or an error, which is the `Err`, or this thread is to compute.
    #[inline(never)]
    fn wait<E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        wants: Wants,
        mut seen: Seen<V>,
    ) -> Result<Computing, Result<Arc<V>, LoadError<E>>> {
        let mut deadline = None;
        loop {
            let next = match self.space.flights().join(key, Pilot::ThisThread) {
                Joined::Own => return Ok(Computing::Within),
                Joined::Lead(lead) => Next::Lead(lead),
                Joined::Wait(waiter) => {
                    let until = *deadline.get_or_insert_with(|| self.options.wait_until());
                    self.after_waiting(waiter.wait(until), &seen)
                }
            };
            match self.step(key, wants, next, seen) {
                Step::Take(taken) => return Err(taken),
                Step::Compute(computing) => return Ok(computing),
                Step::Wait(again) => seen = again,
            }
        }
    }

    /// What follows from a wait.
    pub(super) fn step<E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        wants: Wants,
        next: Next<V, E>,
        seen: Seen<V>,
    ) -> Step<V, E> {
        match next {
            Next::Take(taken) => Step::Take(taken),
            Next::Aside(aside) => Step::Compute(Computing::Aside(aside)),
            Next::Lead(lead) => match self.look_again(key, wants, lead) {
                Ok(value) => Step::Take(Ok(value)),
                Err(lead) => Step::Compute(Computing::Lead(lead)),
            },
            Next::Again => match self.seen_again(key, wants, seen) {
                Seen::Good(value) => Step::Take(Ok(value)),
                seen => Step::Wait(seen),
            },
        }
    }

    /// Who leads looks once more: somebody may have led between the look and that.
    pub(super) fn look_again(&self, key: &[u8], wants: Wants, lead: Lead) -> Result<Arc<V>, Lead> {
        if wants.overwrite {
            return Err(lead);
        }
        let Ok(Some((decoded, facts))) = self.peek(key) else { return Err(lead) };
        let is_young = wants.max_age.is_none()
            || judge(times(&decoded, facts), self.space.now_ms(), wants.max_age, Default::default(), || 1.0)
                != Freshness::TooOld;
        let Some(value) = shared::<V>(&decoded).filter(|_| is_young) else { return Err(lead) };
        self.space.flights().note(Outcome::Answered);
        lead.succeed(value.clone(), || ());
        Ok(value)
    }

    /// What there is after somebody wrote or removed the key; the look before counted for this one too.
    pub(super) fn seen_again(&self, key: &[u8], wants: Wants, before: Seen<V>) -> Seen<V> {
        if wants.overwrite {
            return before;
        }
        let Ok(Some((decoded, facts))) = self.peek(key) else { return Seen::Nothing };
        match (self.judge(&decoded, facts, wants.max_age, false), shared(&decoded)) {
            (Freshness::TooOld, Some(value)) => Seen::TooOld(value),
            (_, Some(value)) => {
                self.space.flights().note(Outcome::Answered);
                Seen::Good(value)
            }
            (_, None) => Seen::Nothing,
        }
    }

    pub(super) fn after_waiting<E: Send + Sync + 'static>(&self, landed: Landed, seen: &Seen<V>) -> Next<V, E> {
        let flights = self.space.flights();
        match landed {
            Landed::Done(object) => match Arc::downcast(object) {
                Ok(value) => {
                    flights.note(Outcome::Answered);
                    Next::Take(Ok(value))
                }
                // No cache has met one: types are part of what names a namespace.
                Err(_) => Next::Again,
            },
            // Another caller's closure may fail with an error of another type: that is nothing to this one.
            Landed::Failed(error) => match Arc::downcast::<E>(error) {
                Ok(error) => Next::Take(Err(LoadError::Load(error))),
                Err(_) => Next::Again,
            },
            Landed::Lead(lead) => Next::Lead(lead),
            Landed::Again => Next::Again,
            Landed::Late(aside) => {
                flights.note(Outcome::Late);
                match (self.options.on_timeout, seen) {
                    (OnTimeout::Stale, Seen::TooOld(value)) => Next::Take(Ok(value.clone())),
                    (OnTimeout::Compute | OnTimeout::Stale, _) => Next::Aside(aside),
                    (OnTimeout::Error, _) => Next::Take(Err(LoadError::Store(Error::WaitTimeout {
                        namespace: self.space.name().to_owned(),
                        waited: self.options.wait_timeout.unwrap_or_default(),
                    }))),
                }
            }
        }
    }

    /// Ends a computation: its value goes to all who wait, and is kept unless somebody wrote or removed the key meanwhile.
    pub(super) fn end<E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        computing: Computing,
        computed: Result<(V, Kept), E>,
        cost: Duration,
    ) -> Result<Arc<V>, LoadError<E>> {
        let (value, kept) = match computed {
            Ok(computed) => computed,
            Err(error) => {
                let error = Arc::new(error);
                if let Computing::Lead(lead) = computing {
                    lead.fail(error.clone() as Arc<dyn Any + Send + Sync>);
                }
                return Err(LoadError::Load(error));
            }
        };
        let value = Arc::new(value);
        let packed = kept.keep.then(|| self.pack(&value, &kept, cost));
        // What was there has a newer answer, also if that cannot be kept: it would be served in its place.
        let keep = || match packed {
            Some(packed) => match packed
                .and_then(|(bytes, decoded, attributes)| self.space.keep(key, &bytes, decoded, &attributes))
            {
                Err(error @ (Error::Encode { .. } | Error::TooLarge { .. })) => {
                    self.space.keep_nothing(key).and(Err(error))
                }
                kept => kept,
            },
            None => self.space.keep_nothing(key),
        };
        // What is dropped here may ask for this very key.
        self.space.drop_released();
        let done = match computing {
            Computing::Lead(lead) => lead.succeed(value.clone(), keep),
            Computing::Aside(aside) => aside.succeed(value.clone(), keep),
            Computing::Within => None,
        };
        if let Some(Err(error)) = done {
            self.space.flights().note_unkept(error.to_string());
        }
        Ok(value)
    }

    /// Has one refresh of `key` run behind, unless there is one.
    pub(super) fn refresh_behind<E: Send + Sync + 'static>(
        self: &Arc<Self>,
        key: &[u8],
        sequence: u64,
        refresh: &dyn Fn() -> Refresh<V, E>,
    ) {
        // Until a thread begins, whoever finds the value expired computes instead of waiting for that.
        let Some(queued) = self.space.flights().queue(key) else { return };
        if self.refreshed_since(sequence, key).is_some() {
            return;
        }
        // Not the store itself: it may end while a loader runs.
        let (cache, flights, key, refresh) =
            (Arc::downgrade(self), self.space.flights().clone(), key.to_vec(), refresh());
        self.space.refresher().submit(move || {
            let Some(lead) = queued.claim() else { return };
            let (computing, began) = (Computing::Lead(lead), Instant::now());
            let computed = catch_unwind(AssertUnwindSafe(|| computing.run(refresh)));
            match (computed, cache.upgrade()) {
                (Ok(computed), Some(cache)) => _ = cache.end_refresh(&key, computing, computed, began.elapsed()),
                (Ok(_), None) => {}
                (Err(_), _) => flights.note(Outcome::RefreshFailed),
            }
        });
    }
}
