//! Memoized functions, by the front door. The numbers are those of the ideas in `SEEDS.md`, section 5.

mod keys;
mod methods;
mod options;
mod plain;
mod query;
mod results;
mod shapes;
mod stale;

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use thermocline::Store;

/// One store for all of these tests; each has functions of its own.
static STORE: LazyLock<Store> = LazyLock::new(|| Store::builder().in_memory().expect("a store in memory opens"));

/// Counts how often a body ran.
struct Bodies(AtomicU32);

impl Bodies {
    const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    fn run(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}
