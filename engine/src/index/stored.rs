//! Pages that an earlier process has written: each is fetched when it is first asked for.
//!
//! Holds which page of the store is whose node. Never believes more than a page's place: whoever fetches it answers for its words.
//! Invariant: a node has a page of its own from the moment that anybody looks into it or changes it.

use std::{fmt::Debug, sync::PoisonError};

use thermocline_tiers::{Error, Result, Tag, Word, slot::Bucket};

use super::{
    Gate, Index, NODES_MAX, Pages, SHARDS,
    page::Building,
    pool::{PAGE_BUCKETS_MAX, Run},
    shard_of,
};
use crate::sync::{Ordering, yield_now};

/// Where stored pages come from.
pub(crate) trait Source: Debug + Send + Sync {
    /// The words of page `number` of `layout` and what is remembered of their keys.
    ///
    /// # Errors
    /// What reading them says.
    fn page(&self, number: usize, layout: &Layout) -> Result<Vec<(Word, u16)>>;
}

/// Which hashes each stored page has.
#[derive(Debug)]
pub(crate) struct Layout {
    shards: Vec<Pages>,
    /// The first page of each shard, and behind the last one.
    first: Vec<usize>,
}

impl Layout {
    /// The pages of an index in the state that `shards` says, `pages` altogether; `None` if there can be no such index.
    pub(crate) fn new(shards: &[u64], pages: usize) -> Option<Self> {
        let shards: Vec<_> = shards.iter().map(|word| Pages(*word)).collect();
        let is_possible = |shard: &Pages| {
            let (level, split) = (shard.level(), shard.split());
            level < NODES_MAX.ilog2() && split >> level == 0 && *shard == Pages::of(level, split)
        };
        if shards.len() != SHARDS || !shards.iter().all(is_possible) {
            return None;
        }
        let mut first = vec![0];
        for shard in &shards {
            // Twice as many nodes as pages, and as many again when each is split.
            if 4 * shard.count() as usize * SHARDS > NODES_MAX {
                return None;
            }
            first.push(first.last()? + shard.count() as usize);
        }
        (first.last() == Some(&pages)).then_some(Self { shards, first })
    }

    /// The page that a hash belongs to.
    pub(crate) fn number_of(&self, hash: u64) -> usize {
        let (shard, rest) = shard_of(hash);
        let pages = self.shards[shard];
        self.first[shard] + (pages.id_of(rest).0 - pages.count()) as usize
    }

    /// The tag that a hash has in its page.
    pub(crate) fn tag_of(&self, hash: u64) -> Tag {
        let (shard, rest) = shard_of(hash);
        Tag::of(rest << self.shards[shard].level_of(rest))
    }

    /// The page of a node, if it has one.
    fn number_at(&self, node: usize) -> Option<usize> {
        let (id, shard) = (node / SHARDS, node % SHARDS);
        let page = id.checked_sub(self.shards[shard].count() as usize)?;
        let number = self.first[shard] + page;
        (number < self.first[shard + 1]).then_some(number)
    }

    fn nodes_end(&self) -> usize {
        let count = self.shards.iter().map(|pages| pages.count() as usize).max().unwrap_or(0);
        2 * count * SHARDS
    }
}

/// What comes after a page that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Save {
    /// The next one.
    Next,
    /// The same once more.
    Again,
    /// None.
    Stop,
}

/// Stored pages, and where they come from.
#[derive(Debug)]
pub(super) struct Stored {
    source: Box<dyn Source>,
    layout: Layout,
}

impl Index {
    /// An index whose pages are those of `layout`, each fetched from `source` when it is first asked for.
    pub(crate) fn stored(source: Box<dyn Source>, layout: Layout) -> Result<Self> {
        let mut index = Self::reserve()?;
        if layout.nodes_end() > index.nodes.len().min(index.gates.len()) {
            return Err(Error::IndexFull { bytes: index.pool.bytes_max() });
        }
        for (shard, pages) in index.shards.iter().zip(&layout.shards) {
            // Relaxed: nobody else has the index yet.
            shard.pages.store(pages.0, Ordering::Relaxed);
        }
        index.stored = Some(Stored { source, layout });
        Ok(index)
    }

    /// Fetches the page of `node`, which says `seen` instead of a run; or waits a moment, if it was split or somebody fetches it.
    ///
    /// # Errors
    /// What the source says, [`Error::IndexFull`]: it can be asked for again.
    #[cold]
    pub(super) fn fetch(&self, node: usize, seen: u64) -> Result<()> {
        let Some((stored, number)) = self.asleep(node, seen) else {
            yield_now();
            return Ok(());
        };
        if !self.close(node) {
            yield_now();
            return Ok(());
        }
        // Acquire: as in `page`. Somebody may have been faster.
        if self.nodes[node].load(Ordering::Acquire) != seen {
            self.reopen(node, Gate::taken(self.gates[node].load(Ordering::Relaxed)));
            return Ok(());
        }
        match self.build_stored(stored, number) {
            Ok(page) => {
                // Release: pairs with the Acquire in `page`; its slots are written.
                self.nodes[node].store(page.run.pack(), Ordering::Release);
                self.reopen(node, page.taken);
                Ok(())
            }
            Err(error) => {
                self.reopen(node, 0);
                Err(error)
            }
        }
    }

    /// Where the page of `node`, which says `seen`, comes from, if nobody has asked for it before.
    fn asleep(&self, node: usize, seen: u64) -> Option<(&Stored, usize)> {
        let stored = self.stored.as_ref().filter(|_| seen == 0)?;
        Some((stored, stored.layout.number_at(node)?))
    }

    fn build_stored(&self, stored: &Stored, number: usize) -> Result<Building<'_>> {
        let words = stored.source.page(number, &stored.layout)?;
        let fits = words.len() < PAGE_BUCKETS_MAX as usize * Bucket::SLOTS;
        let page = fits.then(|| Building::new(&self.pool, words.len() as u32)).flatten();
        let mut page = page.ok_or(Error::IndexFull { bytes: self.pool.bytes_max() })?;
        words.into_iter().for_each(|word| page.put(word));
        Ok(page)
    }

    /// Whether the page of `hash` was never asked for: then nothing of it is in memory.
    pub(crate) fn is_asleep(&self, hash: u64) -> bool {
        let (shard, rest) = shard_of(hash);
        let (node, _, seen) = self.node(shard, rest);
        self.asleep(node, seen).is_some()
    }

    /// Hands every page to `put`, in the order of a layout, and returns the state of the shards; `None` if `put` stops it. Each page
    /// is one that was there at some moment of the call, while what `still` returns was held.
    ///
    /// # Errors
    /// What `put` returns, and what fetching a page says.
    pub(crate) fn save<G>(
        &self,
        still: impl Fn() -> G,
        mut put: impl FnMut(Vec<(Word, u16)>) -> Result<Save>,
    ) -> Result<Option<Vec<u64>>> {
        let mut shards = Vec::new();
        for (shard, state) in self.shards.iter().enumerate() {
            // So that no page splits meanwhile.
            // It guards nothing but the turn.
            let _turn = state.splitting.lock().unwrap_or_else(PoisonError::into_inner);
            let pages = Pages(state.pages.load(Ordering::Relaxed));
            for id in pages.count()..2 * pages.count() {
                loop {
                    let node = id as usize * SHARDS + shard;
                    let words = match self.words_asleep(node)? {
                        Some(words) => words,
                        None => {
                            let _held = still();
                            self.words_of(node)?
                        }
                    };
                    match put(words)? {
                        Save::Next => break,
                        Save::Again => {}
                        Save::Stop => return Ok(None),
                    }
                }
            }
            shards.push(pages.0);
        }
        Ok(Some(shards))
    }

    /// The words of a page that nobody has asked for. It is not fetched for that.
    fn words_asleep(&self, node: usize) -> Result<Option<Vec<(Word, u16)>>> {
        let seen = self.nodes[node].load(Ordering::Acquire);
        let page = |(stored, number): (&Stored, usize)| stored.source.page(number, &stored.layout);
        self.asleep(node, seen).map(page).transpose()
    }

    /// The words of a page.
    fn words_of(&self, node: usize) -> Result<Vec<(Word, u16)>> {
        loop {
            let seen = self.nodes[node].load(Ordering::Acquire);
            let Some(run) = Run::unpack(seen) else {
                // Somebody fetches it.
                yield_now();
                continue;
            };
            let slots = self.pool.buckets(run).iter().flat_map(|bucket| bucket.iter()).enumerate();
            let words = slots.map(|(slot, word)| (word.load(), self.pool.history(run, slot)));
            let words = words.filter(|(word, _)| word.location().is_some()).collect();
            if self.is_current(node, run) {
                return Ok(words);
            }
        }
    }
}
