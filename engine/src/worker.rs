//! A thread with one job, done whenever somebody asks for it.
//!
//! Holds the thread and the means to start, wake and end it. Decides nothing: the job knows what there is to do. Started by
//! the first who asks. Invariant: it ends before [`Worker::stop`] returns, and what went wrong in it can be asked for.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

/// What the thread does when it is woken: an error is noted, and the next round tries again.
pub(crate) type Job = Box<dyn FnMut() -> Result<Next, String> + Send>;

/// What comes after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, until somebody asks.
    Done,
    /// One more at once.
    Again,
    /// One more before long: what is left waits for others.
    Soon,
}

/// Between two rounds of which the second was not asked for: twice as long each time.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Worker {
    name: &'static str,
    shared: Arc<Shared>,
    /// `None` inside: the system gave no thread, and others do the work themselves.
    thread: OnceLock<Option<Thread>>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    woken: AtomicBool,
    ending: AtomicBool,
    problem: Mutex<Option<String>>,
}

impl Worker {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, shared: Arc::default(), thread: OnceLock::new(), handle: Mutex::default() }
    }

    /// Asks for a round. One load when it was asked for already. `job` is what the thread will do if this starts it.
    #[inline]
    pub(crate) fn wake(&self, job: impl FnOnce() -> Job) {
        // Relaxed: a hint. The job looks for itself after the flag was cleared.
        if !self.shared.woken.load(Ordering::Relaxed) {
            self.wake_slow(job);
        }
    }

    #[cold]
    fn wake_slow(&self, job: impl FnOnce() -> Job) {
        // AcqRel: one of those who wake it pays for the call.
        if self.shared.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(thread) = self.thread.get_or_init(|| self.start(job())) {
            thread.unpark();
        }
    }

    fn start(&self, job: Job) -> Option<Thread> {
        let shared = self.shared.clone();
        let started = thread::Builder::new().name(self.name.to_owned()).spawn(move || shared.run(job));
        match started {
            Ok(handle) => {
                let thread = handle.thread().clone();
                *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
                Some(thread)
            }
            Err(error) => {
                self.shared.note(Some(format!("the system refused a thread: {error}")));
                None
            }
        }
    }

    /// Whether the thread is asked to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.shared.ending.load(Ordering::Acquire)
    }

    /// Asks the thread to end, without waiting for it.
    pub(crate) fn end(&self) {
        self.shared.ending.store(true, Ordering::Release);
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&self) {
        self.end();
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            handle.thread().unpark();
            // Its panics are caught and noted inside. The last handle of a store may be dropped by its own thread.
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join();
            }
        }
    }

    /// What went wrong last, if anything did.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        problem.map(|problem| format!("{}: {problem}", self.name))
    }
}

impl Shared {
    fn note(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn run(&self, mut job: Job) {
        let mut pause = None::<Duration>;
        while !self.ending.load(Ordering::Acquire) {
            if !self.woken.swap(false, Ordering::AcqRel) {
                match pause {
                    None => {
                        thread::park();
                        continue;
                    }
                    Some(pause) => thread::park_timeout(pause),
                }
                if self.ending.load(Ordering::Acquire) {
                    return;
                }
            }
            match catch_unwind(AssertUnwindSafe(&mut job)) {
                Ok(Ok(Next::Soon)) => pause = Some(pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX))),
                Ok(Ok(Next::Again)) => self.woken.store(true, Ordering::Release),
                Ok(done) => {
                    pause = None;
                    self.note(done.err());
                }
                Err(_) => return self.note(Some("panicked, and has ended".to_owned())),
            }
        }
    }
}
