//! A named thread that does one job again and again.
//!
//! Holds the thread and the means to wake and end it. Never knows what the job is. Invariant: nobody waits for a worker
//! that has ended, and its end is noted before anybody is woken by it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle, ThreadId},
    time::{Duration, Instant},
};

/// With less between two rounds a worker would do nothing else.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// A thread with a job. To be stopped by its owner: dropping it leaves the thread alone.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    shared: Arc<Shared>,
    id: Option<ThreadId>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// `state` has changed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Rounds that were asked for; counts up.
    asked: u64,
    /// As many of them are done.
    done: u64,
    ending: bool,
    ended: bool,
    problem: Option<String>,
}

impl Worker {
    /// Starts a thread that runs `job` every `interval`, the first time after one.
    pub(super) fn start(name: &'static str, interval: Duration, job: impl FnMut() + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.to_owned());
        let handle = match thread.spawn(move || theirs.run(name, interval.max(INTERVAL_MIN), job)) {
            Ok(handle) => Some(handle),
            Err(error) => {
                shared.end(Some(format!("{name}: no thread: {error}")));
                None
            }
        };
        Self { name, shared, id: handle.as_ref().map(|handle| handle.thread().id()), handle: Mutex::new(handle) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether there will be more rounds.
    pub(super) fn is_alive(&self) -> bool {
        let state = self.shared.lock();
        !state.ending && !state.ended
    }

    pub(super) fn problem(&self) -> Option<String> {
        self.shared.lock().problem.clone()
    }

    /// Has a round run that begins after this call, waits for it, and says whether it ran to its end. Not for the job.
    pub(super) fn poke(&self) -> bool {
        let mut state = self.shared.lock();
        state.asked += 1;
        let mine = state.asked;
        self.shared.changed.notify_all();
        while state.done < mine && !state.ended {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.done >= mine
    }

    /// Has the thread end after the round that is under way, if any.
    pub(super) fn end_soon(&self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_all();
    }

    /// Ends the thread and waits for it. Not for the job.
    pub(super) fn stop(&self) {
        self.end_soon();
        // Held while waiting: who stops it at the same time also returns when it has ended.
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handle.take() {
            // Its panics are caught and noted inside.
            let _ = handle.join();
        }
    }

    pub(super) fn is_current_thread(&self) -> bool {
        self.id == Some(thread::current().id())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, name: &str, interval: Duration, mut job: impl FnMut()) {
        while let Some(asked) = self.wait(interval) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(&mut job)) {
                // What the job holds goes before anybody hears of the end.
                let dropped = catch_unwind(AssertUnwindSafe(|| drop(job)));
                let payload = dropped.err().unwrap_or(payload);
                return self.end(Some(format!("{name} panicked: {}", message(&*payload))));
            }
            self.lock().done = asked;
            self.changed.notify_all();
        }
        self.end(None);
    }

    /// Waits until a round is due, and says how many were asked for by now; nothing if it is time to end.
    fn wait(&self, interval: Duration) -> Option<u64> {
        let due = Instant::now().checked_add(interval);
        let mut state = self.lock();
        loop {
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            if state.ending {
                return None;
            }
            if state.asked > state.done || left == Some(Duration::ZERO) {
                return Some(state.asked);
            }
            state = match left {
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn end(&self, problem: Option<String>) {
        let mut state = self.lock();
        (state.ended, state.problem) = (true, problem);
        drop(state);
        self.changed.notify_all();
    }
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
