//! Keys, values and the order of look-ups, the same in every process.
//!
//! Nothing here formats text or allocates per record, so that little but the store is measured.
#![allow(dead_code, reason = "each bench uses a part")]

use std::{ops::Range, path::Path};

use tempfile::TempDir;
use thermocline::{Result, Store};

/// Bytes of a value, unless a bench says otherwise.
pub(crate) const VALUE_BYTES: usize = 100;

/// One step of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits.
#[inline]
fn splitmix(index: u64) -> u64 {
    let mut z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of record `index`: distinct for distinct indexes, and in random order as they count up.
#[inline]
pub(crate) fn key(index: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&splitmix(index).to_le_bytes());
    key[8..].copy_from_slice(&splitmix(!index).to_le_bytes());
    key
}

/// The value of record `index`.
#[inline]
pub(crate) fn value(index: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0x5a; VALUE_BYTES];
    value[..8].copy_from_slice(&index.to_le_bytes());
    value
}

/// Uniform, independent draws from a range of indexes.
pub(crate) struct Lookups {
    range: Range<u64>,
    state: u64,
}

impl Lookups {
    /// Draws from `range`; the order is the same each time.
    pub(crate) fn new(range: Range<u64>) -> Self {
        Self { range, state: 1 }
    }

    /// The next index.
    #[inline]
    pub(crate) fn draw(&mut self) -> u64 {
        self.state += 1;
        let count = self.range.end - self.range.start;
        self.range.start + ((u128::from(splitmix(self.state)) * u128::from(count)) >> 64) as u64
    }
}

/// Writes records 0 to `keys`.
///
/// # Errors
/// What the store says.
pub(crate) fn fill(store: &Store, keys: u64) -> Result<()> {
    (0..keys).try_for_each(|index| store.insert(key(index), value(index)))
}

/// A directory that goes away, in memory where there is room for it.
pub(crate) fn dir() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a directory for the bench")
}

/// A directory that goes away, on the disk that has the build directory: for what waits for a disk.
pub(crate) fn dir_on_disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the bench")
}

/// Whether criterion only runs everything once, to see that it runs (`cargo test --benches`).
pub(crate) fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench") || std::env::args().any(|argument| argument == "--test")
}
