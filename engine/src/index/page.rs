//! A page being built: the copy of another one, or of a half of it, before anybody sees it.
//!
//! Holds the rule by which a tag chooses its bucket and overflows to the next. Invariant: the taken slots
//! of a bucket come before its vacant ones, and a bucket overflows only when it is full.

use thermocline_tiers::{Tag, Word, slot::Bucket};

use super::pool::{PAGE_BUCKETS_MAX, Pool, Run};

/// Above this share of its slots a page is copied, in percent.
const LOAD_MAX: u32 = 87;
/// To this share.
const LOAD_COPIED: u32 = 74;

/// A power of two, so that a remainder stands for a check.
const FILLED: usize = (PAGE_BUCKETS_MAX as usize).next_power_of_two();

/// Where a tag's search starts in a page of `buckets`.
#[inline]
pub(super) fn home(tag: Tag, buckets: u32) -> usize {
    ((tag.bucket_bits() * buckets) >> Tag::BUCKET_BITS) as usize
}

/// Whether a page with `taken` slots is to be copied.
#[inline]
pub(super) fn is_full(taken: u32, buckets: u32) -> bool {
    taken * 100 > buckets * Bucket::SLOTS as u32 * LOAD_MAX
}

/// Buckets for `count` keys.
pub(super) fn buckets_for(count: u32) -> u32 {
    (count * 100).div_ceil(Bucket::SLOTS as u32 * LOAD_COPIED).clamp(1, PAGE_BUCKETS_MAX)
}

/// A page that only its builder sees.
pub(super) struct Building<'a> {
    pub(super) run: Run,
    pool: &'a Pool,
    buckets: &'a [Bucket],
    /// How many slots of each bucket are taken.
    filled: [u8; FILLED],
    pub(super) taken: u32,
}

impl<'a> Building<'a> {
    /// Starts a page for `count` keys; `None` when there is no memory for it.
    pub(super) fn new(pool: &'a Pool, count: u32) -> Option<Self> {
        let run = pool.take(buckets_for(count))?;
        Some(Self { run, pool, buckets: pool.buckets(run), filled: [0; FILLED], taken: 0 })
    }

    /// Puts a word and its key's history into the first vacant slot from its home on.
    #[inline]
    pub(super) fn put(&mut self, (word, history): (Word, u16)) {
        let mut bucket = home(word.tag(), self.run.buckets);
        while self.filled[bucket % FILLED] as usize == Bucket::SLOTS {
            bucket = if bucket + 1 == self.run.buckets as usize { 0 } else { bucket + 1 };
        }
        let filled = &mut self.filled[bucket % FILLED];
        let slot = *filled as usize % Bucket::SLOTS;
        self.buckets[bucket][slot].copy_unpublished(word);
        self.pool.set_history(self.run, bucket * Bucket::SLOTS + slot, history);
        *filled += 1;
        self.taken += 1;
    }
}
