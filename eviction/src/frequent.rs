//! The simple policy: who came more often stays longer.
//!
//! Holds no state: a count of accesses, halved for each turn of the memory since the last one. The yardstick for what is
//! learnt; a sweep with second chances (SIEVE, NSDI 2024) with the index's count in place of one bit.

use crate::{History, Policy, ticks::TICKS_PER_TURNOVER};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frequent;

impl Policy for Frequent {
    fn access(&self, before: History, now: u8, weight: u32, _teaches: bool) -> History {
        before.accessed(now, weight)
    }

    fn worth(&self, history: History, now: u8, weight: u32) -> f32 {
        let turns = f32::from(history.age(now)) / TICKS_PER_TURNOVER as f32;
        f32::from(history.count()) * (-turns).exp2() / weight.max(1) as f32
    }

    fn wants_to_learn(&self) -> bool {
        false
    }

    fn learn(&self, _now: u8) {}
}
