//! Hint: what full segments hold, written beside them behind the callers' backs, for the process that opens the store after this one
//! was killed.
//!
//! Holds the thread and when it works. What a hint says is the tiers' business. Invariant: nobody waits for a hint.

use thermocline_tiers::{Guard, Result};

use crate::{engine::Core, worker::Next};

impl Core {
    /// Has hints written for segments that are full, if there are such.
    pub(crate) fn wake_hinter(&self) {
        if !self.log.wants_hints() || !self.writes_hints() {
            return;
        }
        self.hinter.wake(|| {
            let this = self.this.clone();
            Box::new(move || {
                let written = this.upgrade().map_or(Ok(Next::Done), |core| core.hint_full());
                written.map_err(|error| error.to_string())
            })
        });
    }

    fn writes_hints(&self) -> bool {
        !self.options.in_memory && !self.options.read_only && self.options.hint_after < u64::MAX
    }

    fn hint_full(&self) -> Result<Next> {
        // Whoever may still fill a place in a full segment has finished when this runs.
        Guard::pin().retire(self.log.quiescer());
        Guard::reclaim();
        let are_left = self.log.write_hints(self.options.hint_after, || self.hinter.is_ending())?;
        Ok(if are_left { Next::Soon } else { Next::Done })
    }

    /// Writes the hints of all segments that are full now; for tests of what comes after.
    ///
    /// # Errors
    /// As for [`sync`](Self::sync).
    pub fn hint_now(&self) -> Result<()> {
        if !self.writes_hints() {
            return Ok(());
        }
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        self.log.write_hints(self.options.hint_after, || false).map(drop)
    }
}
