//! Traces, and what others reach on them. Also used by the hit-ratio test of the front door.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{collections::BTreeMap, fs, path::Path};

/// An access trace.
pub(crate) struct Trace {
    /// The key of each access.
    pub(crate) ids: Vec<u32>,
    /// Of every key; empty if all weigh one.
    pub(crate) sizes: Vec<u32>,
    /// How many there are.
    pub(crate) keys: usize,
}

/// Reads a trace, whose format is described beside them.
pub(crate) fn read(path: &Path) -> Trace {
    let bytes = zstd::decode_all(fs::File::open(path).unwrap()).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    assert_eq!(&bytes[..4], b"THT1");
    let (has_sizes, count, keys) = (word(4) & 1 == 1, long(8), long(16));
    let sizes: Vec<_> = (0..if has_sizes { keys } else { 0 }).map(|key| word(24 + 4 * key)).collect();
    let start = 24 + 4 * sizes.len();
    let mut id = 0_u32;
    let ids = (0..count).map(|at| {
        id = id.wrapping_add(word(start + 4 * at));
        id
    });
    Trace { ids: ids.collect(), sizes, keys }
}

/// A key that says nothing about its neighbours.
pub(crate) fn mix(id: u64) -> u64 {
    let z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Reduction of the miss ratio against another one, from -1 to 1.
pub(crate) fn reduction(hits: f64, others: f64) -> f64 {
    let (mine, other) = (1.0 - hits, 1.0 - others);
    if mine <= other { (other - mine) / other.max(1e-12) } else { -(mine - other) / mine }
}

/// Hit ratios by policy, of entries and of bytes, for each trace, mode and fraction, with the capacity.
pub(crate) type Peers = BTreeMap<(String, String, String), (u64, BTreeMap<String, (f64, f64)>)>;

pub(crate) fn peers(path: &Path) -> Peers {
    let mut peers = Peers::new();
    for line in fs::read_to_string(path).unwrap().lines().skip(1) {
        let columns: Vec<_> = line.split('\t').collect();
        let number = |column: usize| columns[column].parse::<f64>().unwrap_or(0.0);
        let cell = (columns[0].to_owned(), columns[1].to_owned(), columns[2].to_owned());
        let entry = peers.entry(cell).or_insert_with(|| (columns[3].parse().unwrap(), BTreeMap::new()));
        let ratios = (number(6) / number(5), number(8) / number(7).max(1.0));
        entry.1.insert(columns[4].to_owned(), ratios);
    }
    peers
}

/// The policies that are crates, not textbooks.
pub(crate) const CRATES: [&str; 7] =
    ["moka", "mini-moka", "quick_cache", "foyer-s3fifo", "foyer-lfu", "foyer-lru", "stretto"];

/// Keys that come again and again, drawn by a law of powers, between scans of keys that never do.
pub(crate) fn made_up() -> Trace {
    let mut random = fastrand::Rng::with_seed(1);
    let (hot, mut next) = (2_000_u32, 2_000_u32);
    let mut ids = Vec::new();
    for round in 0..200 {
        ids.extend((0..1_000).map(|_| (f64::from(hot).powf(random.f64()) as u32 - 1) % hot));
        if round % 2 == 0 {
            ids.extend(next..next + 500);
            next += 500;
        }
    }
    Trace { ids, sizes: Vec::new(), keys: next as usize }
}
