//! The one door to reclamation: while a guard lives, nothing that was seen through it is reclaimed.
//!
//! Safe code over crossbeam-epoch. Under loom nothing is ever reclaimed and a pin is nothing, so that
//! the models look at the protocols alone.

/// A pin: whatever was reachable when it was made stays until it drops.
#[derive(Debug)]
pub struct Guard {
    #[cfg(not(loom))]
    epoch: crossbeam_epoch::Guard,
}

#[cfg(not(loom))]
impl Guard {
    /// Pins this thread. Costs one store and one fence; pins nest.
    #[inline]
    pub fn pin() -> Self {
        Self { epoch: crossbeam_epoch::pin() }
    }

    /// Calls `reclaim` once every guard that lives now is gone, from some thread.
    pub fn retire(&self, reclaim: impl FnOnce() + Send + 'static) {
        self.epoch.defer(reclaim);
    }

    /// Waits until every other guard that lives now is gone. Spins politely; drops no guard of this thread.
    pub fn wait_for_others() {
        use std::sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        };
        let gone = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&gone);
        // Release and Acquire: what the others did before they dropped their guards is visible after.
        Self::pin().retire(move || flag.store(true, Ordering::Release));
        while !gone.load(Ordering::Acquire) {
            Self::pin().epoch.flush();
            std::thread::yield_now();
        }
    }
}

#[cfg(loom)]
impl Guard {
    /// Pins nothing: under loom nothing is reclaimed.
    pub fn pin() -> Self {
        Self {}
    }

    /// Forgets `reclaim`.
    pub fn retire(&self, _reclaim: impl FnOnce() + Send + 'static) {}

    /// Returns at once.
    pub fn wait_for_others() {}
}
