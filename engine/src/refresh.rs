//! Refreshes behind: a few threads that compute what callers do not wait for.
//!
//! Holds the threads and what they are to do, oldest first. Never knows what that is. Invariant: a thread lives no longer
//! than [`IDLE`] without work, nor than the store and its work; what was not begun when the store ends is dropped.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::engine::Core;

/// At most so many at once: loaders wait for others more than they compute.
const THREADS_MAX: usize = 4;
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// The threads of a store that refresh. None until there is something to do.
#[derive(Default)]
pub struct Refresher(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    has_ended: bool,
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Refresher").field("threads", &state.threads).field("jobs", &state.jobs.len()).finish()
    }
}

impl Refresher {
    /// Has a thread do `job` before long. Its panic ends nothing else. Must not hold the store, which would not end before it.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        if state.has_ended {
            return;
        }
        state.jobs.push_back(Box::new(job));
        if state.idle < state.jobs.len() && state.threads < THREADS_MAX {
            let (shared, name) = (self.0.clone(), format!("thermocline-refresh-{}", state.threads));
            // Without a thread the job waits for those there are; without any it is dropped, and the next caller tries again.
            match thread::Builder::new().name(name).spawn(move || shared.run()) {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads == 0 => {
                    let jobs = std::mem::take(&mut state.jobs);
                    drop(state);
                    return drop(jobs);
                }
                Err(_) => {}
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.0.changed.notify_all();
        drop(jobs);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // Whoever submitted it hears of its panic by what it drops.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            if state.has_ended {
                break;
            }
            state.idle += 1;
            let (woken, waited) = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

impl Core {
    /// The threads that refresh what is stale.
    pub fn refresher(&self) -> &Refresher {
        &self.refresher
    }

    /// Unix time in ms, as deadlines are held against it.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}
