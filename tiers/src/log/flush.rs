//! The group flush: concurrent callers share one flush of every file that may need it.
//!
//! Holds the list of unflushed segments and the first failure. Never writes records. Invariant: a call
//! returns `Ok` only if a flush that started after the call began has covered every listed segment; after a
//! failure no call ever returns `Ok` again.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{medium::Medium, segment::SharedSegment};
use crate::{Error, Result};

#[derive(Debug, Default)]
pub(crate) struct Flusher {
    state: Mutex<State>,
    done: Condvar,
    failed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    unflushed: Vec<SharedSegment>,
    running: bool,
    /// How many flushes have started, and the number of the last one that ended.
    started: u64,
    completed: u64,
    failure: Option<String>,
}

impl Flusher {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if something did, the state is still what it says.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a segment that gets, or may have, bytes that were never flushed.
    pub(crate) fn add(&self, segment: SharedSegment) {
        let mut state = self.state();
        if !state.unflushed.iter().any(|listed| listed.number == segment.number) {
            state.unflushed.push(segment);
        }
    }

    /// Takes segments off the list which no writer writes to any more and which a flush has covered.
    pub(crate) fn remove(&self, is_done: impl Fn(&SharedSegment) -> bool) {
        self.state().unflushed.retain(|segment| !is_done(segment));
    }

    /// What is on the list.
    pub(crate) fn unflushed(&self) -> Vec<SharedSegment> {
        self.state().unflushed.clone()
    }

    /// The first failure, if there was one.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    /// Whether a flush has failed. One relaxed load, for every write.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        // Relaxed: a write that races with the failure is covered by no later `Ok` of a flush either way.
        self.failed.load(Ordering::Relaxed)
    }

    fn refuse(medium: &dyn Medium, cause: &str) -> Error {
        Error::Suspended { directory: medium.directory(), cause: cause.to_owned() }
    }

    /// The error that every write gets after a failure.
    pub(crate) fn suspended(&self, medium: &dyn Medium) -> Error {
        Self::refuse(medium, self.failure().as_deref().unwrap_or("unknown"))
    }

    /// Makes durable what was written before the call. Blocks; joins a flush that has not started yet.
    ///
    /// # Errors
    /// What the flush said; [`Error::Suspended`] for those who only waited, and for ever after.
    pub(crate) fn flush(&self, medium: &dyn Medium, on_failure: impl Fn(u64)) -> Result<()> {
        let mut state = self.state();
        let mine = state.started + 1;
        loop {
            if let Some(cause) = &state.failure {
                return Err(Self::refuse(medium, cause));
            }
            if state.completed >= mine {
                return Ok(());
            }
            if state.running {
                state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            state.started += 1;
            let (number, segments) = (state.started, state.unflushed.clone());
            drop(state);
            let flushed = flush_all(&segments);
            state = self.state();
            state.running = false;
            let result = match flushed {
                Ok(result) => result,
                Err(error) => {
                    // Nothing is lost yet; whoever waits tries for itself.
                    self.done.notify_all();
                    return Err(error);
                }
            };
            state.completed = number;
            if let Err(error) = &result {
                self.failed.store(true, Ordering::Relaxed);
                state.failure.get_or_insert(error.to_string());
                on_failure(segments.iter().map(|segment| segment.number).min().unwrap_or(0));
            }
            self.done.notify_all();
            return result;
        }
    }
}

/// Flushes all segments.
///
/// # Errors
/// A file cannot be opened; inside, a flush fails.
fn flush_all(segments: &[SharedSegment]) -> Result<Result<()>> {
    for segment in segments {
        // One after the other: there may be more than a process may have open.
        let file = segment.file()?;
        if let Err(error) = segment.flush_file(&*file) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}
