//! What several test files need.
#![allow(dead_code, reason = "each test file uses a part")]

use std::env;

use proptest::test_runner::Config;

/// `count` cases a commit; `THERMOCLINE_SCALE` multiplies it before a release.
pub(crate) fn cases(count: u32) -> Config {
    Config { cases: count * scale() as u32, ..Config::default() }
}

/// How much more than a commit's share of testing is asked for.
pub(crate) fn scale() -> u64 {
    env::var("THERMOCLINE_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// A small generator for tests that print their seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number below `below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}
