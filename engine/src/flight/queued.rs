//! Computations that nobody has begun: refreshes that wait for a thread.
//!
//! Holds the claim of one who computes later. Invariant: it holds up nobody; whoever needs the value first computes it.

use std::{fmt, sync::Arc};

use super::{Flight, Flights, Lead, Phase};

/// A computation that nobody has begun: whoever comes first does, one who cannot go on without it or one who
/// [`claim`](Self::claim)s it. Dropped before, it is as if it had never been.
#[must_use = "dropping it lets it go"]
pub struct Queued {
    flights: Arc<Flights>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
}

impl Flights {
    /// As [`lead`](Self::lead), for who computes later, or leaves it to one who comes before that and would have to wait.
    pub fn queue(self: &Arc<Self>, key: &[u8]) -> Option<Queued> {
        let (key, flight) = self.begin_or_meet(key, Phase::Vacant).ok()?;
        Some(Queued { flights: self.clone(), key, flight })
    }
}

impl Queued {
    /// Leads it, unless somebody else has begun it, or the key was written or removed since.
    pub fn claim(self) -> Option<Lead> {
        let mut state = self.flight.lock();
        if !matches!(state.phase, Phase::Vacant) {
            return None;
        }
        state.phase = Phase::Running(None);
        drop(state);
        Some(Lead { flights: self.flights.clone(), key: self.key.clone(), flight: self.flight.clone() })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let state = self.flight.lock();
        // If somebody waits, one who led it has left it to them.
        if matches!(state.phase, Phase::Vacant) && state.waiting == 0 {
            self.flight.change(state, Phase::Gone);
            self.flights.detach(&self.key, &self.flight);
        }
    }
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").field("flight", &self.flight).finish_non_exhaustive()
    }
}
