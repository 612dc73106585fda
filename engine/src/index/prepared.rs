//! An index made for a number of keys before the first of them comes, so that it need not grow while they do.
//!
//! Holds how many pages that takes. Never holds keys, and never touches an index that has some. Invariant: what is made is what
//! growth would have made, but for the order of time.

use thermocline_tiers::slot::Bucket;

use super::{
    Index, Pages, SHARDS, SHARES,
    pool::{Run, SPLIT},
};
use crate::sync::Ordering;

/// The share of the slots that the keys are to take, in percent: between what a page is copied to and from what on. One page in
/// seven gets so many more than the average that it is copied.
const LOAD: u64 = 79;
/// At most so many keys of a page, on the average: it has 24 buckets then, of which growth makes halves.
const PAGE_KEYS: u64 = (24 * Bucket::SLOTS as u64) * LOAD / 100;

impl Index {
    /// Gives an index without keys, which nobody else uses yet, the pages that `keys` keys need. `false` if some of it stays as it was,
    /// for want of memory.
    pub(crate) fn make_room(&self, keys: u64) -> bool {
        (0..SHARDS).all(|shard| self.make_room_in(shard, keys.saturating_mul(SHARES[shard] as u64) / 256))
    }

    fn make_room_in(&self, shard: usize, keys: u64) -> bool {
        let level = keys.div_ceil(PAGE_KEYS).max(1).next_power_of_two().ilog2();
        let pages = 1_usize << level;
        // Each page needs room for its halves as well.
        if level == 0 || pages > self.nodes.len().min(self.gates.len()) / (4 * SHARDS) {
            return level == 0;
        }
        let buckets = ((keys >> level) * 100).div_ceil(Bucket::SLOTS as u64 * LOAD) as u32;
        let mut runs = Vec::with_capacity(pages);
        while runs.len() < pages {
            let Some(run) = self.pool.take(buckets) else {
                runs.into_iter().for_each(|run| self.pool.give(run));
                return false;
            };
            runs.push(run);
        }
        let node = |id: usize| &self.nodes[id * SHARDS + shard];
        // Relaxed, here and below: nobody else has the index yet.
        if let Some(root) = Run::unpack(node(1).load(Ordering::Relaxed)) {
            self.pool.give(root);
        }
        (1..pages).for_each(|id| node(id).store(SPLIT, Ordering::Relaxed));
        runs.into_iter().zip(pages..).for_each(|(run, id)| node(id).store(run.pack(), Ordering::Relaxed));
        self.shards[shard].pages.store(Pages::of(level, 0).0, Ordering::Relaxed);
        true
    }
}
