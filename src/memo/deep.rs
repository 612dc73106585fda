//! Deep refreshes: a call that is computed anew has every memoized call computed anew that it makes meanwhile, each once.
//!
//! Holds which were, for the thread that computes or polls. Never computes. Invariant: outside of a deep refresh a call pays for one
//! load that nobody else writes.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    future::poll_fn,
    mem,
    pin::pin,
};

use crate::key::EncodedKey;

/// Calls: the address of the function's handle, and the key.
type Calls = HashSet<(usize, EncodedKey)>;

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static BEGUN: RefCell<Calls> = RefCell::default();
}

/// What `f` says of those that have begun; `None` at the end of the thread.
fn with<R>(f: impl FnOnce(&mut Calls) -> R) -> Option<R> {
    BEGUN.try_with(|begun| f(&mut begun.borrow_mut())).ok()
}

/// Whether calls are made within a deep refresh.
#[inline]
pub(super) fn is_on() -> bool {
    IS_ON.get()
}

/// Whether this call, which is made within a deep refresh, is the first of its kind there.
#[cold]
pub(super) fn begins(memo: usize, key: &EncodedKey) -> bool {
    with(|begun| begun.insert((memo, key.clone()))).unwrap_or(false)
}

/// One deep refresh.
#[derive(Debug)]
pub(super) struct Deep(Calls);

impl Deep {
    /// One that begins with this call.
    pub(super) fn of(memo: usize, key: &EncodedKey) -> Self {
        Self(HashSet::from([(memo, key.clone())]))
    }

    /// Runs a part of it. Lent another one it is a part of that.
    pub(super) fn run<R>(&mut self, part: impl FnOnce() -> R) -> R {
        if IS_ON.get() {
            return part();
        }
        let _within = Lent::enter(&mut self.0);
        part()
    }

    /// Polls all of it.
    pub(super) async fn poll<F: Future>(&mut self, computation: F) -> F::Output {
        let mut computation = pin!(computation);
        poll_fn(|context| self.run(|| computation.as_mut().poll(context))).await
    }
}

/// Lends the calls of a refresh to this thread.
struct Lent<'a>(&'a mut Calls);

impl<'a> Lent<'a> {
    fn enter(calls: &'a mut Calls) -> Self {
        with(|begun| mem::swap(begun, calls));
        IS_ON.set(true);
        Self(calls)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        IS_ON.set(false);
        with(|begun| mem::swap(begun, self.0));
    }
}
