//! What every engine is asked to store and to find: keys, values and the order of look-ups.
//!
//! All of it follows from an index and a seed, so that two engines, or two processes, see the same bytes. Nothing
//! here formats text or allocates per record: a key is two splitmix64 of its index, a value a window of a pool.

/// What all engines are given as a key.
pub type Key = [u8; 16];

/// Value bytes of everything but the batches.
pub const VALUE_BYTES: usize = 100;
/// Value bytes of the batches.
pub const BATCH_VALUE_BYTES: usize = 1024;
/// Records of one batch.
pub const BATCH_RECORDS: usize = 1000;

const POOL_BITS: u32 = 16;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits.
#[inline]
pub fn splitmix64(index: u64) -> u64 {
    let mut z = index.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of record `index`. Distinct for distinct indices, and in random order as they count up.
#[inline]
pub fn key(index: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&splitmix64(index).to_le_bytes());
    key[8..].copy_from_slice(&splitmix64(!index).to_le_bytes());
    key
}

/// The values: windows of one pool of random bytes that stays in the processor's cache.
pub struct Values {
    pool: Vec<u8>,
}

impl Default for Values {
    fn default() -> Self {
        Self { pool: random_bytes((1 << POOL_BITS) + VALUE_BYTES) }
    }
}

impl Values {
    /// The value of record `index`: `VALUE_BYTES` bytes.
    #[inline]
    pub fn of(&self, index: u64) -> &[u8] {
        let start = (index.wrapping_mul(GOLDEN) >> (64 - POOL_BITS)) as usize;
        &self.pool[start..start + VALUE_BYTES]
    }
}

/// Which records are looked up: `count` of the `keys`, uniform and independent, in an order that `seed` decides.
#[derive(Clone)]
pub struct Lookups {
    next: u64,
    end: u64,
    keys: u64,
}

impl Lookups {
    pub fn new(keys: u64, count: u64, seed: u64) -> Self {
        let next = splitmix64(seed) >> 1;
        Self { next, end: next + count, keys }
    }

    /// What [`Tally`] must come to when each of them was found with the right value.
    pub fn expected(&self, values: &Values) -> Tally {
        Tally::of(self.clone(), values)
    }
}

impl Iterator for Lookups {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        Some(((u128::from(splitmix64(self.next)) * u128::from(self.keys)) >> 64) as u64)
    }
}

/// A running sum over the values that were found: reads their last bytes, so that no engine gets away with a pointer.
#[derive(Default, PartialEq, Eq, Debug, Clone, Copy)]
pub struct Tally {
    found: u64,
    bytes: u64,
    tails: u64,
}

impl Tally {
    /// What looking up records with these indices must come to.
    pub fn of(indices: impl Iterator<Item = u64>, values: &Values) -> Self {
        let mut tally = Self::default();
        indices.for_each(|index| tally.add(values.of(index)));
        tally
    }

    #[inline]
    pub fn add(&mut self, value: &[u8]) {
        self.found += 1;
        self.bytes += value.len() as u64;
        let tail = value.last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail));
        self.tails = self.tails.wrapping_add(tail);
    }

    pub fn found(&self) -> u64 {
        self.found
    }
}

/// `count` bytes that do not compress.
pub fn random_bytes(count: usize) -> Vec<u8> {
    let words = count.div_ceil(8) as u64;
    let mut bytes: Vec<u8> = (0..words).flat_map(|word| splitmix64(!GOLDEN ^ word).to_le_bytes()).collect();
    bytes.truncate(count);
    bytes
}
