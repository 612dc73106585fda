//! The thread that makes the log ready ahead of the writers.
//!
//! Holds a thread and the means to wake and end it. Decides nothing: the log knows what is missing. Started by the first
//! write that asks for it. Invariant: it ends before the engine does, and what went wrong in it can be asked for.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

use thermocline_tiers::{Guard, log::Log};

#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    /// `None` inside: the system gave no thread, and writers do the work themselves.
    thread: OnceLock<Option<Thread>>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    woken: AtomicBool,
    ending: AtomicBool,
    problem: Mutex<Option<String>>,
}

impl Upkeep {
    /// Asks for readiness ahead of the tail. One load when it was asked for already.
    #[inline]
    pub(crate) fn wake(&self, log: &Arc<Log>) {
        // Relaxed: a hint. The thread looks at the log itself after it has cleared the flag.
        if !self.shared.woken.load(Ordering::Relaxed) {
            self.wake_slow(log);
        }
    }

    #[cold]
    fn wake_slow(&self, log: &Arc<Log>) {
        // AcqRel: one of those who wake it pays for the call.
        if self.shared.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(thread) = self.thread.get_or_init(|| self.start(log)) {
            thread.unpark();
        }
    }

    fn start(&self, log: &Arc<Log>) -> Option<Thread> {
        let (shared, log) = (self.shared.clone(), log.clone());
        let started = thread::Builder::new().name("thermocline-ahead".to_owned()).spawn(move || shared.run(&log));
        match started {
            Ok(handle) => {
                let thread = handle.thread().clone();
                *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
                Some(thread)
            }
            Err(error) => {
                self.shared.note(format!("no thread to prepare the log: {error}"));
                None
            }
        }
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&self) {
        self.shared.ending.store(true, Ordering::Release);
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            handle.thread().unpark();
            // Its panics are caught and noted inside.
            let _ = handle.join();
        }
    }

    /// What went wrong last, if anything did.
    pub(crate) fn problem(&self) -> Option<String> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn note(&self, problem: String) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    fn run(&self, log: &Log) {
        while !self.ending.load(Ordering::Acquire) {
            if !self.woken.swap(false, Ordering::AcqRel) {
                thread::park();
                continue;
            }
            // All writers that are active now will have finished when this runs: old tombstones may go then, and what
            // is flushed later can be noted.
            Guard::pin().retire(log.quiescer());
            Guard::reclaim();
            match catch_unwind(AssertUnwindSafe(|| log.prepare())) {
                Ok(Ok(())) => *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None,
                // The writer that needs the space meets the same error and reports it to its caller.
                Ok(Err(error)) => self.note(error.to_string()),
                Err(_) => return self.note("the thread that prepares the log panicked".to_owned()),
            }
        }
    }
}
