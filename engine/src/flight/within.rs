//! Whose computation this thread is within: what a task computes that is polled now.
//!
//! Holds the flights of computations that are being polled. A task has no number that it could be known by when it asks for the key it
//! computes; but then it does so while it is polled. Invariant: a flight is here exactly while its computation is polled by this thread.

use std::{cell::RefCell, marker::PhantomData, sync::Arc};

use super::{Aside, Flight, Lead};
use crate::sync::in_air::thread_local;

thread_local! {
    /// Addresses, the innermost last. Each is kept by whoever leads it.
    static WITHIN: RefCell<Vec<usize>> = RefCell::default();
}

/// What `f` says of them; `None` at the end of the thread, when what goes with it may still ask for keys.
fn with<R>(f: impl FnOnce(&mut Vec<usize>) -> R) -> Option<R> {
    WITHIN.try_with(|within| f(&mut within.borrow_mut())).ok()
}

/// Says, as long as it lives, that this thread is within a computation.
#[derive(Debug)]
#[must_use = "it says so only as long as it lives"]
pub struct Within {
    stays_on_its_thread: PhantomData<*const ()>,
}

impl Within {
    fn enter(flight: &Arc<Flight>) -> Self {
        with(|within| within.push(Arc::as_ptr(flight).addr()));
        Self { stays_on_its_thread: PhantomData }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        with(|within| within.pop());
    }
}

pub(super) fn is_within(flight: &Arc<Flight>) -> bool {
    with(|within| within.contains(&Arc::as_ptr(flight).addr())).unwrap_or(false)
}

impl Lead {
    /// To be called around each poll of the computation: asked for its own key meanwhile, the flight is [`Joined::Own`](super::Joined::Own).
    pub fn enter(&self) -> Within {
        Within::enter(&self.flight)
    }
}

impl Aside {
    /// As [`Lead::enter`].
    pub fn enter(&self) -> Within {
        Within::enter(&self.flight)
    }
}
