//! Trouble that callers of memoized functions never see: counted, and told through `tracing`.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
};

/// Not an atomic: trouble is rare, and nothing waits for it.
static FAILURES: Mutex<u64> = Mutex::new(0);

/// How often a memoized function had to compute, or could not keep a result, because its store or the encoding of an
/// argument failed. Each time an event of `tracing` says why.
pub fn failures() -> u64 {
    *FAILURES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts one failure and says why.
#[cold]
pub(crate) fn count(action: &'static str, why: &dyn Display) {
    *FAILURES.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    tracing::warn!(target: "thermocline::memo", action, %why, "a memoized function could not use its store");
}
