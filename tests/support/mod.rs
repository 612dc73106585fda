//! What several test files need.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{env, path::Path};

use proptest::test_runner::Config;

pub(crate) mod format;

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

/// A directory that goes away with the test, in memory where there is room for it.
pub(crate) fn dir() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a directory for the test")
}

/// A value that says for which key and as which version it was written, with filler that follows from both.
pub(crate) fn value(key: &str, version: u64) -> Vec<u8> {
    let mut random = Random(version);
    let words = if random.below(20) == 0 { 1 + random.below(600) } else { 1 + random.below(20) };
    let mut value = version.to_le_bytes().to_vec();
    value.extend(key.as_bytes());
    value.extend((0..words).flat_map(|_| random.below(u64::MAX).to_le_bytes()));
    value
}

/// The version that a value was written as.
///
/// # Panics
/// If the bytes were never written for `key`.
pub(crate) fn proven(key: &str, bytes: &[u8]) -> u64 {
    let version = bytes.first_chunk().map_or(0, |version| u64::from_le_bytes(*version));
    assert!(bytes == value(key, version), "{key}: {} bytes that nobody wrote", bytes.len());
    version
}
