//! Growth: copying a page that is full, splitting the next page in line.
//!
//! Holds what writers wait for: a page is closed, copied and opened again. Never waits for readers. Invariant: a page
//! that readers can reach is complete, whatever becomes of its copy.

use thermocline_tiers::{Error, Kind, Location, Result, Slot, Tag, Word, slot::Bucket};

use super::{
    Gate, Index, Pages, Place, Records, SHARD_BITS, SHARDS,
    page::{Building, is_full},
    pool::{PAGE_BUCKETS_MAX, Run, SPLIT},
};
use crate::sync::{Ordering, yield_now};

/// A copy at least this large, in buckets, also splits the next page in line.
const SPLIT_BUCKETS: u32 = if cfg!(loom) { 3 } else { 24 };

impl Index {
    /// Closes a page's gate and waits for the writers inside; `false` if somebody else has closed it.
    pub(super) fn close(&self, node: usize) -> bool {
        let gate = &self.gates[node];
        // Acquire: pairs with the Release in `leave` of writers that have left already.
        if gate.fetch_or(Gate::CLOSED, Ordering::Acquire) & Gate::CLOSED != 0 {
            return false;
        }
        // Acquire: pairs with the Release in `leave`.
        while gate.load(Ordering::Acquire) & Gate::WRITERS != 0 {
            yield_now();
        }
        true
    }

    /// Opens a closed gate with a new count; writers may be knocking meanwhile.
    pub(super) fn reopen(&self, node: usize, taken: u32) {
        let gate = &self.gates[node];
        let old = Gate::taken(gate.load(Ordering::Relaxed));
        let change = (taken.wrapping_sub(old)).wrapping_mul(Gate::TAKEN).wrapping_sub(Gate::CLOSED);
        // Release: the new page is in its node before the gate opens.
        gate.fetch_add(change, Ordering::Release);
    }

    /// Copies a page into one that fits its keys, and splits another one if it has grown large.
    #[cold]
    pub(super) fn copy_page(&self, place: &Place, is_needed: bool, records: &impl Records) -> Result<()> {
        if !self.close(place.node) {
            yield_now();
            return Ok(());
        }
        let taken = Gate::taken(self.gates[place.node].load(Ordering::Relaxed));
        // Acquire: as in `place`. A page that was split stays closed, so the node is a page.
        let run = Run::unpack(self.nodes[place.node].load(Ordering::Acquire)).expect("an open page is in its node");
        if !is_full(taken, run.buckets) {
            self.reopen(place.node, taken);
            return Ok(());
        }
        let words = self.living(run, taken, records);
        let fits = words.len() < PAGE_BUCKETS_MAX as usize * Bucket::SLOTS;
        let Some(mut copy) = fits.then(|| Building::new(&self.pool, words.len() as u32)).flatten() else {
            self.reopen(place.node, taken);
            // A page that is merely full enough to be copied still takes the key.
            return if is_needed { Err(Error::IndexFull { bytes: self.pool.bytes_max() }) } else { Ok(()) };
        };
        words.into_iter().for_each(|word| copy.put(word));
        // Release: pairs with the Acquire in `place`.
        self.nodes[place.node].store(run.replaced_by(copy.run).pack(), Ordering::Release);
        self.reopen(place.node, copy.taken);
        self.pool.give(run);
        if copy.run.buckets >= SPLIT_BUCKETS {
            self.split_next(place.shard, records);
        }
        Ok(())
    }

    /// The words and histories of a closed page of `taken` slots, without keys that can be forgotten.
    fn living(&self, run: Run, taken: u32, records: &impl Records) -> Vec<(Word, u16)> {
        let mut words = Vec::with_capacity(taken as usize);
        let is_forgettable = |at: Location| at.kind() == Kind::Removed && records.is_forgettable(at);
        let slots = self.pool.buckets(run).iter().flat_map(|bucket| bucket.iter());
        for (slot, word) in slots.map(Slot::load).enumerate() {
            if word.location().is_some_and(|at| !is_forgettable(at)) {
                words.push((word, self.pool.history(run, slot)));
            }
        }
        words
    }

    /// Splits the next page in line of a shard, unless another thread is at it or there is no memory.
    fn split_next(&self, shard: usize, records: &impl Records) {
        let Ok(_turn) = self.shards[shard].splitting.try_lock() else { return };
        let pages = Pages(self.shards[shard].pages.load(Ordering::Relaxed));
        // Of 2^level + split pages, the next in line is page `split` of that level.
        let parent_id = pages.count() as usize;
        let parent = parent_id * SHARDS + shard;
        let halves = [2 * parent_id, 2 * parent_id + 1].map(|id| id * SHARDS + shard);
        if halves[1] >= self.nodes.len().min(self.gates.len()) {
            return;
        }
        loop {
            let seen = self.nodes[parent].load(Ordering::Acquire);
            if Run::unpack(seen).is_some() {
                break;
            }
            // A page that cannot be read is split another time.
            if self.fetch(parent, seen).is_err() {
                return;
            }
        }
        while !self.close(parent) {
            yield_now();
        }
        let run = Run::unpack(self.nodes[parent].load(Ordering::Acquire)).expect("the next page in line is a page");
        let taken = Gate::taken(self.gates[parent].load(Ordering::Relaxed));
        let mut words = [Vec::with_capacity(taken as usize), Vec::with_capacity(taken as usize)];
        for (word, history) in self.living(run, taken, records) {
            match Self::split_word(word, pages.level(), records) {
                Ok(Some((high, word))) => words[usize::from(high)].push((word, history)),
                Ok(None) => {}
                // No key is lost because the disk fails for a moment: the page stays whole until the next turn.
                Err(_) => return self.reopen(parent, taken),
            }
        }
        let Some(mut low) = Building::new(&self.pool, words[0].len() as u32) else {
            return self.reopen(parent, taken);
        };
        let Some(mut high) = Building::new(&self.pool, words[1].len() as u32) else {
            self.pool.give(low.run);
            return self.reopen(parent, taken);
        };
        for (half, words, node) in [(&mut low, &words[0], halves[0]), (&mut high, &words[1], halves[1])] {
            words.iter().for_each(|word| half.put(*word));
            // Relaxed: nobody knows this gate before `pages` says that there is such a page.
            self.gates[node].store(half.taken * Gate::TAKEN, Ordering::Relaxed);
            self.nodes[node].store(half.run.pack(), Ordering::Release);
        }
        // Release: pairs with the Acquire in `place`. From here on the halves are found; the parent,
        // closed and complete, serves those who counted the pages before, until its node is cleared.
        self.shards[shard].pages.store(pages.one_more().0, Ordering::Release);
        self.nodes[parent].store(SPLIT, Ordering::Release);
        self.pool.give(run);
    }

    /// Which half a word goes to, and the word there. A tag that has run out of bits is filled up from the key; what is
    /// no record any more has none and leaves the index.
    ///
    /// # Errors
    /// What reading the key says.
    #[inline]
    fn split_word(word: Word, level: u32, records: &impl Records) -> Result<Option<(bool, Word)>> {
        let known = word.tag().split();
        let split = match (known, word.location()) {
            (None, Some(at)) => records.hash_at(at)?.and_then(|hash| Tag::of(hash << SHARD_BITS << level).split()),
            _ => known,
        };
        Ok(split.map(|(high, tag)| (high, word.with_tag(tag))))
    }
}
