//! Time as policies know it: accesses, counted coarsely.
//!
//! A tick is a twentieth of the capacity in accesses. Invariant: reading it costs one load of a word that changes
//! rarely.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Ticks that pass while as many accesses happen as entries fit.
pub(crate) const TICKS_PER_TURNOVER: u64 = 20;

/// The clock may jump by this much at once: what is less than half way round still has an order.
const JUMP_MAX: u64 = 64;

/// The clock of accesses.
#[derive(Debug)]
pub struct Ticks {
    now: AtomicU8,
    /// Since the tick began.
    accesses: AtomicU64,
    per_tick: AtomicU64,
}

impl Ticks {
    /// A clock for a memory that holds `entries`.
    pub fn new(entries: u64) -> Self {
        Self { now: AtomicU8::new(0), accesses: AtomicU64::new(0), per_tick: AtomicU64::new(per_tick(entries)) }
    }

    /// The tick. It wraps.
    #[inline]
    pub fn now(&self) -> u8 {
        // Relaxed: a tick read late makes an entry look a tick younger, and nothing is read through it.
        self.now.load(Relaxed)
    }

    /// Lets `accesses` pass. Meant to be called now and then for many of them: all callers write the same word.
    #[inline]
    pub fn advance(&self, accesses: u64) {
        // Relaxed, all of them: only counts, and each is an atomic of its own.
        let total = self.accesses.fetch_add(accesses, Relaxed).wrapping_add(accesses);
        let per_tick = self.per_tick.load(Relaxed);
        if total >= per_tick {
            self.tick(total, per_tick);
        }
    }

    /// Moves the clock. Who added last moves it; the others find that the count has changed, and leave it to them.
    #[cold]
    fn tick(&self, total: u64, per_tick: u64) {
        if self.accesses.compare_exchange(total, total % per_tick, Relaxed, Relaxed).is_ok() {
            self.now.fetch_add((total / per_tick).min(JUMP_MAX) as u8, Relaxed);
        }
    }

    /// Says that memory holds `entries` now. The tick goes on from where it is.
    pub fn resize(&self, entries: u64) {
        // Relaxed: whoever reads the old length makes one tick of it.
        self.per_tick.store(per_tick(entries), Relaxed);
    }

    /// How many accesses make a tick; at least one.
    #[inline]
    pub fn accesses_per_tick(&self) -> u64 {
        self.per_tick.load(Relaxed)
    }
}

fn per_tick(entries: u64) -> u64 {
    (entries / TICKS_PER_TURNOVER).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_a_twentieth_of_the_entries() {
        let ticks = Ticks::new(200);
        assert_eq!(ticks.accesses_per_tick(), 10);
        ticks.advance(9);
        assert_eq!(ticks.now(), 0);
        ticks.advance(1);
        assert_eq!(ticks.now(), 1);
        ticks.advance(25);
        assert_eq!(ticks.now(), 3);
        ticks.advance(5);
        assert_eq!(ticks.now(), 4);
    }

    #[test]
    fn ticks_wrap() {
        let ticks = Ticks::new(0);
        assert_eq!(ticks.accesses_per_tick(), 1);
        for expected in (0..=255).chain(0..=255) {
            assert_eq!(ticks.now(), expected);
            ticks.advance(1);
        }
        ticks.advance(u64::MAX);
        assert_eq!(ticks.now(), JUMP_MAX as u8);
    }

    #[test]
    fn a_resized_clock_goes_on() {
        let ticks = Ticks::new(2000);
        ticks.advance(150);
        ticks.resize(200);
        assert_eq!(ticks.now(), 1);
        ticks.advance(10);
        assert_eq!(ticks.now(), 7);
    }

    #[test]
    fn no_access_is_lost_between_threads() {
        let ticks = Ticks::new(20_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| ticks.advance(5)));
            }
        });
        assert_eq!(ticks.now(), 200);
    }
}
