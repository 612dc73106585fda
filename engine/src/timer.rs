//! Alarms for tasks: wakers that are woken at an instant, without a runtime.
//!
//! Holds one thread for the process, which lives while an alarm is set. Never runs anything else than a waker. Invariant: an
//! alarm that was dropped wakes nobody.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    thread,
    time::Instant,
};

/// An instant, and one of many at that instant.
type Id = (Instant, u64);

#[derive(Debug)]
struct Timer {
    alarms: BTreeMap<Id, Waker>,
    next: u64,
    is_running: bool,
}

static TIMER: Mutex<Timer> = Mutex::new(Timer { alarms: BTreeMap::new(), next: 0, is_running: false });
/// Told when an alarm is set that comes before all others, or the last one is dropped.
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Timer> {
    TIMER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes a task at an instant, unless it is dropped before.
#[derive(Debug)]
pub(crate) struct Alarm(Id);

impl Alarm {
    /// Has `waker` woken at `instant`, or as soon as the system has a thread.
    pub(crate) fn set(instant: Instant, waker: &Waker) -> Self {
        let mut timer = lock();
        let id = (instant, timer.next);
        timer.next += 1;
        timer.alarms.insert(id, waker.clone());
        let is_first = timer.alarms.first_key_value().is_some_and(|(first, _)| *first == id);
        if !timer.is_running {
            timer.is_running = thread::Builder::new().name("thermocline-timer".to_owned()).spawn(run).is_ok();
        }
        drop(timer);
        if is_first {
            CHANGED.notify_one();
        }
        Self(id)
    }

    /// Has it wake another waker from here on.
    pub(crate) fn wakes(&self, waker: &Waker) {
        if let Some(there) = lock().alarms.get_mut(&self.0) {
            there.clone_from(waker);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut timer = lock();
        let waker = timer.alarms.remove(&self.0);
        let is_last = timer.alarms.is_empty();
        // A waker's own drop may be anybody's code.
        drop(timer);
        drop(waker);
        if is_last {
            CHANGED.notify_one();
        }
    }
}

/// Wakes, whatever comes of it: a waker may be anybody's code, and its panic is nothing to others who wait.
pub(crate) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

fn run() {
    let mut timer = lock();
    loop {
        let Some((instant, _)) = timer.alarms.first_key_value().map(|(id, _)| *id) else {
            timer.is_running = false;
            return;
        };
        let left = instant.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let waker = timer.alarms.pop_first();
            drop(timer);
            if let Some((_, waker)) = waker {
                wake(waker);
            }
            timer = lock();
        } else {
            (timer, _) = CHANGED.wait_timeout(timer, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, sync::mpsc, task::Wake, time::Duration};

    use super::*;

    struct Bell(Option<mpsc::SyncSender<()>>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            match &self.0 {
                Some(tell) => tell.send(()).unwrap(),
                None => std::panic::resume_unwind(Box::new("broken")),
            }
        }
    }

    #[test]
    fn a_waker_that_panics_stops_no_other() {
        let (tell, told) = mpsc::sync_channel(1);
        let (broken, bell) = (Waker::from(Arc::new(Bell(None))), Waker::from(Arc::new(Bell(Some(tell)))));
        let now = Instant::now();
        let _alarms = [Alarm::set(now, &broken), Alarm::set(now + Duration::from_millis(1), &bell)];
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(()));
    }
}
