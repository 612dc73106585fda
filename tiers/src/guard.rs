//! The one door to reclamation: while a guard lives, nothing that was seen through it is reclaimed.
//!
//! Epochs, as in Fraser's thesis (2004), with the fence moved from readers to the reclaimer (`membarrier`), so that a
//! pin is a load and a store. Holds no memory of others: what is to happen later is a closure. Invariant: a closure
//! runs only when every guard is gone that was made before it was retired.
//!
//! Why that holds: retiring and advancing the epoch happen under one lock, so whoever reads an epoch above a closure's
//! tag sees the world without what was retired. Whoever has not announced an epoch when the reclaimer looks, after
//! its barrier, announces it after that barrier and sees that world as well.

mod shared;

#[cfg(not(loom))]
pub use epoch::Guard;
#[cfg(loom)]
pub use nothing::Guard;
pub(crate) use shared::Shared;

#[cfg(not(loom))]
mod epoch {
    use std::{
        cell::Cell,
        collections::VecDeque,
        marker::PhantomData,
        sync::{
            Arc, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError,
            atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence},
        },
        thread,
        time::Duration,
    };

    use crossbeam_utils::CachePadded;

    const IDLE: u64 = 0;
    /// So many closures are collected before the barrier is paid for.
    const RETIRED_MAX: usize = 32;

    /// One thread's announcement. Never freed; handed on when its thread ends.
    #[derive(Debug)]
    struct Announced {
        /// The epoch at which its thread pinned, or [`IDLE`].
        epoch: AtomicU64,
        /// How many guards the thread has; only that thread looks.
        depth: AtomicU64,
        /// From 0, in the order in which participants were made.
        number: usize,
        /// Whether the system's barrier stands in for this thread's fences.
        has_barrier: bool,
    }

    type Participant = &'static CachePadded<Announced>;

    static EPOCH: AtomicU64 = AtomicU64::new(1);
    static PARTICIPANTS: Mutex<Participants> = Mutex::new(Participants { all: Vec::new(), free: Vec::new() });
    static RETIRED: Mutex<VecDeque<Retired>> = Mutex::new(VecDeque::new());
    /// Held by whoever runs closures, so that they run in the order of retiring.
    static RUNNING: Mutex<()> = Mutex::new(());
    /// Whether the system's barrier stands in for the readers' fences.
    static HAS_BARRIER: LazyLock<bool> = LazyLock::new(barrier::register);

    struct Participants {
        all: Vec<Participant>,
        free: Vec<Participant>,
    }

    struct Retired {
        /// The epoch at which it was retired.
        tag: u64,
        reclaim: Box<dyn FnOnce() + Send>,
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    mod barrier {
        use rustix::thread::{MembarrierCommand, membarrier};

        pub(super) fn register() -> bool {
            membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
        }

        pub(super) fn all_threads() -> bool {
            membarrier(MembarrierCommand::PrivateExpedited).is_ok()
        }
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    mod barrier {
        pub(super) fn register() -> bool {
            false
        }

        pub(super) fn all_threads() -> bool {
            false
        }
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        // Nothing that can panic runs under these locks.
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim() -> Participant {
        let mut participants = lock(&PARTICIPANTS);
        participants.free.pop().unwrap_or_else(|| {
            let new: Participant = Box::leak(Box::new(CachePadded::new(Announced {
                epoch: AtomicU64::new(IDLE),
                depth: AtomicU64::new(0),
                number: participants.all.len(),
                has_barrier: *HAS_BARRIER,
            })));
            participants.all.push(new);
            new
        })
    }

    thread_local! {
        /// This thread's participant, once it has one.
        static LOCAL: Cell<Option<Participant>> = const { Cell::new(None) };
        /// Apart from it: what has no destructor is read without a look whether that has run.
        static RETURN: Return = const { Return };
    }

    /// Gives the thread's participant back when the thread ends.
    struct Return;

    impl Drop for Return {
        fn drop(&mut self) {
            // With a guard still alive, somewhere in another destructor, the participant stays that guard's.
            if let Some(participant) = LOCAL.take().filter(|mine| mine.depth.load(Ordering::Relaxed) == 0) {
                lock(&PARTICIPANTS).free.push(participant);
            }
        }
    }

    #[inline]
    fn participant() -> Participant {
        if let Some(participant) = LOCAL.get() { participant } else { new_participant() }
    }

    #[cold]
    fn new_participant() -> Participant {
        let participant = claim();
        LOCAL.set(Some(participant));
        // In a thread that is ending already nobody gives it back.
        let _ = RETURN.try_with(|_| ());
        participant
    }

    /// A pin: whatever was reachable when it was made stays until it drops.
    #[derive(Debug)]
    pub struct Guard {
        participant: Participant,
        /// A guard belongs to its thread.
        not_send: PhantomData<*const ()>,
    }

    impl Guard {
        /// Pins this thread. Costs a load and a store; pins nest.
        #[inline]
        pub fn pin() -> Self {
            let participant = participant();
            // Relaxed: only this thread counts its guards.
            let depth = participant.depth.load(Ordering::Relaxed);
            participant.depth.store(depth + 1, Ordering::Relaxed);
            if depth == 0 {
                // Acquire: pairs with the Release in `collect`; what was retired before that epoch is gone for us.
                participant.epoch.store(EPOCH.load(Ordering::Acquire), Ordering::Relaxed);
                if participant.has_barrier {
                    // The reclaimer's barrier orders the announcement before our later loads; see `collect`.
                    compiler_fence(Ordering::SeqCst);
                } else {
                    fence(Ordering::SeqCst);
                }
            }
            Self { participant, not_send: PhantomData }
        }

        /// Calls `reclaim` once every guard that lives now is gone, from some thread that retires or waits.
        pub fn retire(&self, reclaim: impl FnOnce() + Send + 'static) {
            let mut retired = lock(&RETIRED);
            // Relaxed: it changes under this lock only.
            retired.push_back(Retired { tag: EPOCH.load(Ordering::Relaxed), reclaim: Box::new(reclaim) });
            let is_due = retired.len().is_multiple_of(RETIRED_MAX);
            drop(retired);
            if is_due {
                collect();
            }
        }

        /// The number of this thread: no other one that lives has it, and it is low as long as threads are few.
        #[inline]
        pub fn thread_number(&self) -> usize {
            self.participant.number
        }

        /// Whether this thread has a guard.
        pub fn is_pinned() -> bool {
            participant().depth.load(Ordering::Relaxed) > 0
        }

        /// Runs what was retired and nobody can see any more, without waiting for more of it.
        pub fn reclaim() {
            collect();
        }

        /// Waits until every guard of other threads that lives now is gone, and what was retired before has run. This
        /// thread must have none.
        pub fn wait_for_others() {
            let gone = Arc::new(AtomicBool::new(false));
            let flag = gone.clone();
            // Release and Acquire: what the others did before they dropped their guards is visible after.
            Self::pin().retire(move || flag.store(true, Ordering::Release));
            for turn in 0_u64.. {
                collect();
                if gone.load(Ordering::Acquire) {
                    return;
                }
                // Most guards go at once; for one that stays nobody else is to be held up, by barriers least of all.
                match turn {
                    0..8 => thread::yield_now(),
                    _ => thread::sleep(Duration::from_micros(1 << (turn - 8).min(10))),
                }
            }
        }
    }

    impl Drop for Guard {
        #[inline]
        fn drop(&mut self) {
            let depth = self.participant.depth.load(Ordering::Relaxed) - 1;
            self.participant.depth.store(depth, Ordering::Relaxed);
            if depth == 0 {
                // Release: what was done under the guard comes before; pairs with the Acquire in `collect`.
                self.participant.epoch.store(IDLE, Ordering::Release);
            }
        }
    }

    /// Advances the epoch and runs what nobody can see any more, unless somebody is at it.
    fn collect() {
        let _turn = match RUNNING.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::WouldBlock) => return,
            // A closure that panicked took its own turn along and nobody else's.
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
        };
        {
            let _retired = lock(&RETIRED);
            // Release: pairs with the Acquire in `pin`. Under the lock: everything retired so far has a lower tag.
            EPOCH.fetch_add(1, Ordering::Release);
        }
        if !(*HAS_BARRIER && barrier::all_threads()) {
            fence(Ordering::SeqCst);
        }
        let oldest = {
            let participants = lock(&PARTICIPANTS);
            let announced = participants.all.iter().map(|participant| participant.epoch.load(Ordering::Acquire));
            announced.filter(|epoch| *epoch != IDLE).min()
        };
        let oldest = oldest.unwrap_or_else(|| EPOCH.load(Ordering::Relaxed));
        let due: Vec<Retired> = {
            let mut retired = lock(&RETIRED);
            let count = retired.iter().take_while(|retired| retired.tag < oldest).count();
            retired.drain(..count).collect()
        };
        // Outside the other locks: a closure may retire or pin in turn.
        due.into_iter().for_each(|retired| (retired.reclaim)());
    }

    #[cfg(test)]
    mod tests {
        use std::sync::mpsc;

        use super::*;

        #[test]
        fn nothing_is_reclaimed_under_a_guard_and_everything_after_it() {
            let done = Arc::new(AtomicU64::new(0));
            let (pinned, is_pinned) = mpsc::channel();
            let (release, is_released) = mpsc::channel::<()>();
            let reader = std::thread::spawn(move || {
                let guard = Guard::pin();
                let nested = Guard::pin();
                drop(nested);
                pinned.send(()).unwrap();
                is_released.recv().unwrap();
                drop(guard);
            });
            is_pinned.recv().unwrap();
            for _ in 0..10 * RETIRED_MAX {
                let done = done.clone();
                Guard::pin().retire(move || {
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            assert_eq!(done.load(Ordering::Relaxed), 0);
            release.send(()).unwrap();
            reader.join().unwrap();
            Guard::wait_for_others();
            assert_eq!(done.load(Ordering::Relaxed), 10 * RETIRED_MAX as u64);
        }

        #[test]
        fn what_readers_hold_is_never_reclaimed() {
            const DEAD: u64 = u64::MAX;
            let rounds = if cfg!(miri) { 50 } else { 20_000 };
            // Each cell is named once, and dies when nobody can have seen its name any more.
            let cells: Arc<Vec<AtomicU64>> = Arc::new((0..rounds).map(AtomicU64::new).collect());
            let named = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..rounds {
                            let _guard = Guard::pin();
                            let index = named.load(Ordering::Acquire) as usize;
                            (0..20).for_each(|_| assert_ne!(cells[index].load(Ordering::Relaxed), DEAD));
                        }
                    });
                }
                for next in 1..rounds {
                    let old = named.swap(next, Ordering::AcqRel) as usize;
                    let cells = cells.clone();
                    Guard::pin().retire(move || cells[old].store(DEAD, Ordering::Relaxed));
                }
            });
            Guard::wait_for_others();
            assert_eq!(cells.iter().filter(|cell| cell.load(Ordering::Relaxed) != DEAD).count(), 1);
        }
    }
}

#[cfg(loom)]
mod nothing {
    /// Pins nothing: under loom nothing is reclaimed, so that the models look at the protocols alone.
    #[derive(Debug)]
    pub struct Guard;

    impl Guard {
        /// Does nothing.
        pub fn pin() -> Self {
            Self
        }

        /// Forgets `reclaim`, and what it holds.
        pub fn retire(&self, reclaim: impl FnOnce() + Send + 'static) {
            std::mem::forget(reclaim);
        }

        /// No.
        pub fn is_pinned() -> bool {
            false
        }

        /// Zero.
        pub fn thread_number(&self) -> usize {
            0
        }

        /// Does nothing.
        pub fn reclaim() {}

        /// Returns at once.
        pub fn wait_for_others() {}
    }
}
