//! The group flush: concurrent callers share one flush of every file that may need it, and the write before it.
//!
//! Holds the list of unflushed segments, the records that wait for the next flush, and the first failure. Invariant: a
//! call returns `Ok` only if a flush that started after the call began has covered every listed segment; after a
//! failure no call ever returns `Ok` again.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
};

use super::{medium::Medium, segment::SharedSegment};
use crate::{Error, Result};

#[derive(Debug, Default)]
pub(crate) struct Flusher {
    state: Mutex<State>,
    /// How many flushes have ended, and the number of the last one that covered what it should. For those who wait, so
    /// that they need not queue for the lock when they are woken; changed under it.
    ended: AtomicU64,
    completed: AtomicU64,
    failed: AtomicBool,
    /// Whether there are refused records.
    has_refused: AtomicBool,
}

/// A record whose place is reserved and whose bytes are written with the next flush.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) segment: SharedSegment,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// How often a flush lets others run before it begins, for each caller that the last one served.
const YIELDS: usize = 16;

/// Names a pending record.
type Ticket = u64;

#[derive(Debug, Default)]
struct State {
    unflushed: Vec<SharedSegment>,
    pending: Vec<(Ticket, Pending)>,
    last_ticket: Ticket,
    /// Records that could not be written, until their writers hear of it.
    refused: Vec<(Ticket, Error)>,
    running: bool,
    /// How many calls wait for the next flush, and how many the last one served.
    joined: usize,
    served: usize,
    waiting: Vec<Thread>,
    /// How many flushes have started.
    started: u64,
    failure: Option<String>,
}

impl State {
    fn queue(&mut self, pending: Pending) -> Ticket {
        self.last_ticket += 1;
        self.pending.push((self.last_ticket, pending));
        self.last_ticket
    }

    /// Takes a record back that nobody has begun to write; `false` if somebody has.
    fn withdraw(&mut self, ticket: Ticket) -> bool {
        let count = self.pending.len();
        self.pending.retain(|(other, _)| *other != ticket);
        self.pending.len() < count
    }

    /// Why a record could not be written.
    fn refusal(&mut self, ticket: Ticket) -> Option<Error> {
        let found = self.refused.iter().position(|(other, _)| *other == ticket)?;
        Some(self.refused.swap_remove(found).1)
    }
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

    /// Writes `pending` and makes durable what was written before the call: what came of the one and of the other.
    /// Blocks; joins a flush that has not started yet.
    ///
    /// # Errors
    /// What the write or the flush said; [`Error::Suspended`] for those who only waited for it, and for ever after.
    pub(crate) fn flush(
        &self,
        medium: &dyn Medium,
        pending: Option<Pending>,
        on_failure: impl Fn(u64),
    ) -> (Result<()>, Result<()>) {
        let mut state = self.state();
        let ticket = pending.map(|pending| state.queue(pending));
        state.joined += 1;
        let mine = state.started + 1;
        loop {
            if let Some(error) = ticket.and_then(|ticket| state.refusal(ticket)) {
                return (Err(error), Ok(()));
            }
            if let Some(cause) = &state.failure {
                let error = Self::refuse(medium, cause);
                let is_unwritten = ticket.is_some_and(|ticket| state.withdraw(ticket));
                return if is_unwritten { (Err(error), Ok(())) } else { (Ok(()), Err(error)) };
            }
            if self.completed.load(Ordering::Relaxed) >= mine {
                return (Ok(()), Ok(()));
            }
            if state.running {
                self.wait(state);
                // Relaxed: `wait` has seen the end of a flush, and what that flush said came before it.
                let is_covered = self.completed.load(Ordering::Relaxed) >= mine;
                if is_covered && !self.has_failed() && !self.has_refused.load(Ordering::Relaxed) {
                    return (Ok(()), Ok(()));
                }
                state = self.state();
                continue;
            }
            state.running = true;
            state = self.gather(state);
            state.started += 1;
            state.served = mem::take(&mut state.joined);
            let (number, segments) = (state.started, state.unflushed.clone());
            let pending = mem::take(&mut state.pending);
            drop(state);
            let refused = write_all(pending);
            let flushed = flush_all(&segments);
            state = self.state();
            state.running = false;
            state.refused.extend(refused);
            let refusal = ticket.and_then(|ticket| state.refusal(ticket));
            let result = match flushed {
                // Nothing is lost yet; whoever waits tries for itself.
                Err(error) => Err(error),
                Ok(result) => {
                    self.completed.store(number, Ordering::Relaxed);
                    if let Err(error) = &result {
                        self.failed.store(true, Ordering::Relaxed);
                        state.failure.get_or_insert(error.to_string());
                        on_failure(segments.iter().map(|segment| segment.number).min().unwrap_or(0));
                    }
                    result
                }
            };
            self.has_refused.store(!state.refused.is_empty(), Ordering::Relaxed);
            // Release: pairs with the Acquire in `wait`; what this flush said is seen by those it wakes.
            self.ended.fetch_add(1, Ordering::Release);
            let waiting = mem::take(&mut state.waiting);
            drop(state);
            waiting.iter().for_each(Thread::unpark);
            return match refusal {
                Some(error) => (Err(error), Ok(())),
                None => (Ok(()), result),
            };
        }
    }

    /// Whether a segment is on the list.
    pub(crate) fn lists(&self, segment: &SharedSegment) -> bool {
        self.state().unflushed.iter().any(|listed| listed.number == segment.number)
    }

    /// Makes one segment durable, while no other flush runs: what the system says of a file that failed it may say but once.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush).
    pub(crate) fn flush_one(
        &self,
        medium: &dyn Medium,
        segment: &SharedSegment,
        on_failure: impl Fn(u64),
    ) -> Result<()> {
        let mut state = self.state();
        while state.running && state.failure.is_none() {
            self.wait(state);
            state = self.state();
        }
        if let Some(cause) = &state.failure {
            return Err(Self::refuse(medium, cause));
        }
        state.running = true;
        drop(state);
        let flushed = flush_all(std::slice::from_ref(segment));
        let mut state = self.state();
        state.running = false;
        if let Ok(Err(error)) = &flushed {
            self.failed.store(true, Ordering::Relaxed);
            state.failure.get_or_insert(error.to_string());
            on_failure(segment.number);
        }
        // Release: as in `flush`. Those who waited look whether it was theirs, and flush for themselves.
        self.ended.fetch_add(1, Ordering::Release);
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.iter().for_each(Thread::unpark);
        flushed?
    }

    /// Waits until the flush that is running ends.
    fn wait(&self, mut state: MutexGuard<'_, State>) {
        let ended = self.ended.load(Ordering::Relaxed);
        state.waiting.push(thread::current());
        drop(state);
        // Acquire: pairs with the Release in `flush`.
        while self.ended.load(Ordering::Acquire) == ended {
            thread::park();
        }
    }

    /// Lets those that the last flush served come back, so that they share the next one instead of waiting for it to end.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        for _ in 0..YIELDS * state.served {
            if state.joined >= state.served {
                break;
            }
            drop(state);
            thread::yield_now();
            state = self.state();
        }
        state
    }
}

/// Writes records, those that lie side by side by one call; returns those that could not be written.
fn write_all(mut pending: Vec<(Ticket, Pending)>) -> Vec<(Ticket, Error)> {
    let mut refused = Vec::new();
    pending.sort_unstable_by_key(|(_, record)| (record.segment.number, record.offset));
    let follows = |(_, a): &(Ticket, Pending), (_, b): &(Ticket, Pending)| {
        a.segment.number == b.segment.number && a.offset + a.bytes.len() as u64 == b.offset
    };
    for run in pending.chunk_by(follows) {
        let (_, first) = &run[0];
        let is_written = run.len() > 1 && first.segment.is_mapped() && {
            let bytes: Vec<_> = run.iter().map(|(_, record)| &record.bytes[..]).collect();
            first.segment.write_at(first.offset, &bytes.concat()).is_ok()
        };
        for (ticket, Pending { segment, offset, bytes }) in run.iter().filter(|_| !is_written) {
            // Each by itself: one that fails is one writer's error. A write that failed may have come that far.
            if !segment.holds(*offset, bytes)
                && let Err(error) = segment.write_at(*offset, bytes)
            {
                refused.push((*ticket, error));
            }
        }
    }
    refused
}

/// Flushes all segments.
///
/// # Errors
/// A file cannot be opened, has lost its name, or was cut; inside, a flush fails.
fn flush_all(segments: &[SharedSegment]) -> Result<Result<()>> {
    for segment in segments {
        // One after the other: there may be more than a process may have open.
        let Some(file) = segment.unless_gone(segment.file())? else { continue };
        if let Err(error) = segment.flush_file(&*file) {
            return Ok(Err(error));
        }
        // Flushed is what is left of it. That is no failure of the disk: the store goes on, and says so again.
        segment.unless_gone(segment.check_named(&*file).and_then(|()| segment.check_length()))?;
    }
    Ok(Ok(()))
}
