//! A call of a memoized function: look, compute what is not there, keep it.
//!
//! Holds what to do with what is found. Never encodes an argument. Invariant: whatever the store says, the caller has a result.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::{
    Arguments, CallOptions, Memo, Outcome, Split,
    deep::{self, Deep},
    trouble,
};
use crate::{Kept, Load, LoadError, Missed, Refresh, Wants, key::EncodedKey};

/// What is kept beside a result.
#[derive(Debug, Default)]
pub struct Keep {
    pub(super) arguments: Arguments,
    pub(super) tags: Vec<String>,
}

impl Keep {
    pub(super) fn argument(&mut self, name: &str, key: &[u8], shown: Vec<u8>) {
        self.arguments.push(name, key, shown);
    }

    /// One more tag.
    pub fn tag(&mut self, tag: impl Into<String>) {
        self.tags.push(tag.into());
    }

    /// What is kept of a result; the result itself, if that is an error.
    pub(super) fn take<V, R>(self, split: Split<V, R>) -> Result<(V, Kept), R> {
        let kept = |keep: Self| {
            let mut kept = Kept::new().tags(keep.tags);
            kept.arguments = Some(keep.arguments.to_bytes());
            kept
        };
        match split {
            Split::Keep(value) => Ok((value, kept(self))),
            Split::Pass(value) => Ok((value, kept(self).not())),
            Split::Fail(returned) => Err(returned),
        }
    }
}

/// What those who wait are told of an error: they compute, one at a time, because it need not be one that can be shared.
#[derive(Debug)]
struct Unkept;

/// Counts a look that failed; the caller computes.
#[inline]
fn told<V>(missed: &Missed<V>) {
    if let Some(error) = missed.error() {
        trouble::count("look for a result", error);
    }
}

impl<V: Send + Sync + 'static> Memo<V> {
    #[inline(always)]
    fn wants(&self, key: &EncodedKey, options: &CallOptions) -> Wants {
        // Always asked: who overwrites by itself within a deep refresh has done so.
        let begins = deep::is_on() && deep::begins(self.address(), key);
        Wants { max_age: options.oldest(), overwrite: begins || options.overwrites() }
    }

    /// What tells it from other functions.
    #[inline]
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// What is kept of a call, if it is what the call wants.
    #[inline]
    pub fn look<K: Outcome<Kept = V>>(
        &self,
        kind: K,
        key: &EncodedKey,
        options: &CallOptions,
    ) -> Result<K::Returned, Missed<V>> {
        let load = Load::<V, Unkept> { wants: self.wants(key, options), refresh: None };
        self.cache.look_key(key, &load, |kept| kind.whole(kept)).inspect_err(told)
    }

    /// As [`look`](Self::look); what is stale is refreshed behind, by what `owned` makes of the arguments.
    #[inline]
    pub fn look_or_refresh<K, F>(
        &self,
        kind: K,
        key: &EncodedKey,
        options: &CallOptions,
        owned: impl Fn() -> F,
    ) -> Result<K::Returned, Missed<V>>
    where
        K: Outcome<Kept = V> + Send,
        F: FnOnce(&mut Keep) -> K::Returned + Send + 'static,
    {
        let refresh = || -> Refresh<V, Unkept> {
            let (compute, mut keep) = (owned(), self.keep());
            Box::new(move || {
                let returned = compute(&mut keep);
                keep.take(kind.split(returned)).map_err(|_| Unkept)
            })
        };
        let load = Load { wants: self.wants(key, options), refresh: Some(&refresh) };
        self.cache.look_key(key, &load, |kept| kind.whole(kept)).inspect_err(told)
    }

    /// Computes what a look has not found, once for all who ask meanwhile. Who waited for one that failed computes in its turn, or
    /// at once when it has waited long enough for all of them.
    pub fn run<K: Outcome<Kept = V>>(
        &self,
        kind: K,
        key: &EncodedKey,
        options: &CallOptions,
        missed: Missed<V>,
        compute: impl FnOnce(&mut Keep) -> K::Returned,
    ) -> K::Returned {
        let (mut compute, mut deep) = (Some(compute), options.is_deep().then(|| Deep::of(self.address(), key)));
        self.run_once(kind, key, missed, &mut |keep| {
            let compute = compute.take()?;
            Some(match &mut deep {
                Some(deep) => deep.run(|| compute(keep)),
                None => compute(keep),
            })
        })
    }

    /// As [`run`](Self::run), compiled once for each type of results: `compute` has a result the first time it is called, and then
    /// the loop ends.
    fn run_once<K: Outcome<Kept = V>>(
        &self,
        kind: K,
        key: &EncodedKey,
        mut missed: Missed<V>,
        compute: &mut dyn FnMut(&mut Keep) -> Option<K::Returned>,
    ) -> K::Returned {
        let (wants, mut failed, began) = (missed.wants(), None, Instant::now());
        loop {
            let run = || {
                let mut keep = self.keep();
                let returned = compute(&mut keep).ok_or(Unkept)?;
                keep.take(kind.split(returned)).map_err(|returned| {
                    failed = Some(returned);
                    Unkept
                })
            };
            let loaded = self.cache.load_missed_key(key, missed, run);
            self.count_unkept();
            match loaded {
                // Stale, if the computation was a refresh that failed.
                Ok(kept) => return kind.whole(&kept),
                Err(LoadError::Load(_)) => {
                    if let Some(returned) = failed.take() {
                        return returned;
                    }
                    if self.has_waited(began)
                        && let Some(returned) = compute(&mut Keep::default())
                    {
                        return returned;
                    }
                }
                Err(LoadError::Store(error)) => {
                    trouble::count("look for a result", &error);
                    if let Some(returned) = compute(&mut Keep::default()) {
                        return returned;
                    }
                }
            }
            missed = Missed::nothing(wants);
        }
    }

    /// As [`run`](Self::run), within the caller's future.
    pub async fn run_async<K: Outcome<Kept = V>, F: Future<Output = K::Returned>>(
        &self,
        kind: K,
        key: &EncodedKey,
        options: &CallOptions,
        mut missed: Missed<V>,
        compute: impl FnOnce(&mut Keep) -> F,
    ) -> K::Returned {
        let (wants, failed, began) = (missed.wants(), Mutex::new(None), Instant::now());
        let mut compute = Some(compute);
        loop {
            let (taken, failed) = (&mut compute, &failed);
            let run = || {
                let mut keep = self.keep();
                let returned = taken.take().map(|compute| compute(&mut keep));
                let deep = options.is_deep().then(|| Deep::of(self.address(), key));
                async move {
                    let Some(returned) = returned else { return Err(Unkept) };
                    let returned = match deep {
                        Some(mut deep) => deep.poll(returned).await,
                        None => returned.await,
                    };
                    keep.take(kind.split(returned)).map_err(|returned| {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(returned);
                        Unkept
                    })
                }
            };
            let loaded = self.cache.load_missed_key_async(key, missed, run).await;
            self.count_unkept();
            match loaded {
                // Stale, if the computation was a refresh that failed.
                Ok(kept) => return kind.whole(&kept),
                Err(LoadError::Load(_)) => {
                    if let Some(returned) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                        return returned;
                    }
                    if self.has_waited(began)
                        && let Some(compute) = compute.take()
                    {
                        return compute(&mut Keep::default()).await;
                    }
                }
                Err(LoadError::Store(error)) => {
                    trouble::count("look for a result", &error);
                    if let Some(compute) = compute.take() {
                        return compute(&mut Keep::default()).await;
                    }
                }
            }
            missed = Missed::nothing(wants);
        }
    }

    /// Whether no wait may follow: others have failed for as long as a caller waits. It computes beside them then, for itself.
    fn has_waited(&self, began: Instant) -> bool {
        began.elapsed() >= self.wait_timeout
    }

    /// Counts results that could not be kept since the last time.
    fn count_unkept(&self) {
        let unkept = self.cache.unkept();
        // Whoever is told may call a memoized function: not under the lock.
        let new = {
            let mut counted = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
            let new = unkept.saturating_sub(*counted);
            *counted += new;
            new
        };
        for _ in 0..new {
            trouble::count("keep a result", &self.cache.why_unkept().unwrap_or_default());
        }
    }
}
