//! Waiting for a computation of somebody else: by threads and by tasks, each for as long as it likes.
//!
//! Holds one who waits. Invariant: it is counted by its flight until it is answered or leaves, however it leaves.

use std::{
    fmt, mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use thermocline_tiers::memory::Object;

use super::{Aside, Flight, Flights, Lead, Locked, Phase};
use crate::{sync::in_air::ThreadId, timer::Alarm};

/// How waiting ended.
#[derive(Debug)]
pub enum Landed {
    /// A value.
    Done(Object),
    /// An error, the same for all.
    Failed(Object),
    /// Nothing: whoever computed has gone, and this one is next.
    Lead(Lead),
    /// Nothing, and somebody wrote or removed the key meanwhile: look again.
    Again,
    /// Nothing yet.
    Late(Aside),
}

/// One who waits: a call of [`wait`](Self::wait), or a future of [`Landed`] that is polled by
/// [`poll_until`](Self::poll_until).
pub struct Waiter {
    flights: Arc<Flights>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
    me: Option<ThreadId>,
    is_counted: bool,
    waker: Option<u64>,
    alarm: Option<Alarm>,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("flight", &self.flight).finish_non_exhaustive()
    }
}

impl Waiter {
    /// One that its flight has counted.
    pub(super) fn new(flights: Arc<Flights>, key: Arc<[u8]>, flight: Arc<Flight>, me: Option<ThreadId>) -> Self {
        Self { flights, key, flight, me, is_counted: true, waker: None, alarm: None }
    }

    /// Waits until the flight ends, or until `deadline`.
    pub fn wait(mut self, deadline: Option<Instant>) -> Landed {
        let flight = self.flight.clone();
        let mut state = flight.lock();
        loop {
            state = match self.look(state) {
                Ok(landed) => return landed,
                Err(state) => state,
            };
            let Some(deadline) = deadline else {
                state = flight.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                return self.late();
            }
            (state, _) = flight.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Looks whether the flight has ended, or `deadline` has passed, and has the task woken when that may be so. The first
    /// call alone says until when; not to be called again once it was ready.
    pub fn poll_until(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> Poll<Landed> {
        let flight = self.flight.clone();
        let mut state = match self.look(flight.lock()) {
            Ok(landed) => return Poll::Ready(landed),
            Err(state) => state,
        };
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            drop(state);
            return Poll::Ready(self.late());
        }
        let id = *self.waker.get_or_insert_with(|| self.flights.number());
        let former = state.take_waker(id);
        state.wakers.push((id, context.waker().clone()));
        drop(state);
        drop(former);
        match (&self.alarm, deadline) {
            (Some(alarm), _) => alarm.wakes(context.waker()),
            (None, Some(deadline)) => self.alarm = Some(Alarm::set(deadline, context.waker())),
            (None, None) => {}
        }
        Poll::Pending
    }

    /// Takes what there is to take.
    fn look<'a>(&mut self, mut state: Locked<'a>) -> Result<Landed, Locked<'a>> {
        let landed = match &state.phase {
            Phase::Running(_) | Phase::Keeping => return Err(state),
            Phase::Done(value) => Landed::Done(value.clone()),
            Phase::Failed(error) => Landed::Failed(error.clone()),
            Phase::Gone => Landed::Again,
            Phase::Vacant => {
                state.phase = Phase::Running(self.me);
                let (flights, key, flight) = (self.flights.clone(), self.key.clone(), self.flight.clone());
                Landed::Lead(Lead { flights, key, flight })
            }
        };
        state.waiting -= 1;
        self.is_counted = false;
        Ok(landed)
    }

    fn late(&mut self) -> Landed {
        self.leave();
        Landed::Late(Aside { flights: self.flights.clone(), key: self.key.clone(), flight: self.flight.clone() })
    }

    fn leave(&mut self) {
        if !mem::take(&mut self.is_counted) {
            return;
        }
        let flight = self.flight.clone();
        // Before the lock, so that it goes after it: dropping a waker may be anybody's code.
        let _former;
        let mut state = flight.lock();
        state.waiting -= 1;
        _former = self.waker.and_then(|id| state.take_waker(id));
        // The last who could have claimed it.
        if state.waiting == 0 && matches!(state.phase, Phase::Vacant) {
            flight.change(state, Phase::Gone);
            self.flights.detach(&self.key, &self.flight);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.leave();
    }
}
