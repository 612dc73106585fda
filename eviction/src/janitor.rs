//! The threads that take out of memory what has expired, and what the machine needs elsewhere.
//!
//! Holds two workers and what each does in a round. Never holds entries: what it asks of the memory tier is a trait.
//! Never waits for an interval to pass when it is asked to end. Invariant: a worker ends before [`Janitor::stop`]
//! returns, and a panic in one ends it and is told.

mod worker;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use self::worker::Worker;
use crate::{Level, Machine, Pressure, System, Verdict, View};

/// What the janitor asks of the memory tier. Its threads may ask at the same time.
pub trait Tier: Send + Sync + 'static {
    /// The bytes that the tier takes now, its own overhead included.
    fn resident_bytes(&self) -> u64;

    /// Takes out what has expired, and says how many entries that were. Cheap when nothing is due.
    fn evict_expired(&self) -> u64;

    /// Takes out the least valuable entries until `bytes` are free, or as many as there are, gives their memory back to
    /// the system, and says how many bytes left.
    fn evict(&self, bytes: u64) -> u64;

    /// Bounds the tier to `bytes` until the next call, whatever its capacity; `None` is no bound.
    fn set_allowance(&self, bytes: Option<u64>);
}

/// What keeps memory available on the machine.
#[derive(Debug)]
pub struct Watch {
    /// What should be available, to whomever.
    pub target_bytes: u64,
    /// The time between two looks.
    pub interval: Duration,
    /// Where to look.
    pub machine: Box<dyn Machine>,
}

impl Watch {
    /// Looks at the real machine every second.
    pub fn new(target_bytes: u64) -> Self {
        Self { target_bytes, interval: Duration::from_secs(1), machine: Box::new(System::new()) }
    }
}

/// What a janitor does.
#[derive(Debug)]
pub struct Options {
    /// The time between two looks for what has expired.
    pub expiry_interval: Duration,
    /// How memory is watched, if it is.
    pub watch: Option<Watch>,
}

impl Default for Options {
    fn default() -> Self {
        Self { expiry_interval: Duration::from_secs(1), watch: None }
    }
}

/// What the last round of the pressure thread saw and decided.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// The machine as it was.
    pub view: View,
    /// How that stands to the target.
    pub level: Level,
    /// What the tier was told.
    pub verdict: Verdict,
    /// The bytes that then left.
    pub evicted_bytes: u64,
}

/// A thread of the janitor, for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadState {
    /// Its name.
    pub name: &'static str,
    /// Whether it goes on doing its job: not before it was started, after it was stopped or after a panic.
    pub is_alive: bool,
}

/// Runs the threads. Dropping it stops them.
pub struct Janitor {
    expiry: Worker,
    pressure: Option<Worker>,
    observed: Arc<Mutex<Option<Observation>>>,
}

impl Janitor {
    /// Starts the expiry thread, and the pressure thread if memory is to be watched.
    ///
    /// Their first rounds come after one interval; [`poke`](Self::poke) does not wait for that. The threads hold `tier`
    /// until they are stopped, so its owner must be another object. A thread that the system refuses is a
    /// [problem](Self::problems).
    pub fn start(tier: Arc<dyn Tier>, options: Options) -> Self {
        let observed = Arc::default();
        let pressure = options.watch.map(|watch| {
            let mut watcher = Watcher::new(&watch, Arc::clone(&observed));
            let (tier, mut machine) = (Arc::clone(&tier), watch.machine);
            Worker::start("thermocline-pressure", watch.interval, move || watcher.round(&*tier, &mut *machine))
        });
        let expiry = Worker::start("thermocline-expiry", options.expiry_interval, move || {
            tier.evict_expired();
        });
        Self { expiry, pressure, observed }
    }

    /// Runs a round of each thread now, expiry first, and returns when they are done; whether all of them ran.
    ///
    /// If the tier or the machine calls it from inside a round, nothing runs.
    pub fn poke(&self) -> bool {
        if self.is_called_from_inside() {
            return false;
        }
        let mut all_ran = true;
        for worker in self.workers() {
            all_ran &= worker.poke();
        }
        all_ran
    }

    /// Ends the threads, first pressure, then expiry, and waits for the rounds that are under way.
    ///
    /// What was said last about the allowance stays said. May be called again. If the tier or the machine calls it from
    /// inside a round, the threads end after that, and it does not wait.
    pub fn stop(&self) {
        if self.is_called_from_inside() {
            return self.workers().for_each(Worker::end_soon);
        }
        if let Some(pressure) = &self.pressure {
            pressure.stop();
        }
        self.expiry.stop();
    }

    /// What went wrong, one sentence each; empty if nothing did.
    pub fn problems(&self) -> Vec<String> {
        self.workers().filter_map(Worker::problem).collect()
    }

    /// How the threads are.
    pub fn threads(&self) -> Vec<ThreadState> {
        self.workers().map(|worker| ThreadState { name: worker.name(), is_alive: worker.is_alive() }).collect()
    }

    /// What the pressure thread saw last; nothing if there is none or it had no round yet.
    pub fn observed(&self) -> Option<Observation> {
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_called_from_inside(&self) -> bool {
        self.workers().any(Worker::is_current_thread)
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        [&self.expiry].into_iter().chain(&self.pressure)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Janitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (threads, problems, observed) = (self.threads(), self.problems(), self.observed());
        f.debug_struct("Janitor")
            .field("threads", &threads)
            .field("problems", &problems)
            .field("observed", &observed)
            .finish()
    }
}

/// The job of the pressure thread.
struct Watcher {
    pressure: Pressure,
    observed: Arc<Mutex<Option<Observation>>>,
}

impl Watcher {
    fn new(watch: &Watch, observed: Arc<Mutex<Option<Observation>>>) -> Self {
        Self { pressure: Pressure::new(watch.target_bytes), observed }
    }

    /// Looks, decides, and has the tier do it.
    fn round(&mut self, tier: &dyn Tier, machine: &mut dyn Machine) {
        let view = machine.look();
        let verdict = self.pressure.decide(&view, tier.resident_bytes());
        // Before anything leaves, or inserts would take its place at once.
        tier.set_allowance(verdict.allowance_bytes);
        let evicted_bytes = if verdict.evict_bytes > 0 { tier.evict(verdict.evict_bytes) } else { 0 };
        let observation = Observation { view, level: self.pressure.level(), verdict, evicted_bytes };
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner) = Some(observation);
    }
}

#[cfg(test)]
mod tests;
