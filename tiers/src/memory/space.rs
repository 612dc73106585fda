//! The arena's pages: which of them are in use, and which were given back to the system.
//!
//! Holds a bit per page. Never holds records. Invariant: pages are given out from the lowest address up and never behind
//! the limit, so that what the arena takes of the machine's memory is a prefix of its addresses.

use super::classes::{BLOCK_PAGES, PAGE_BYTES};

/// Pages of a region: what the system gives and takes as one huge page.
pub(super) const REGION_PAGES: usize = (2 << 20) / PAGE_BYTES as usize;
/// Pages of a word of bits.
const WORD_PAGES: usize = u64::BITS as usize;
const BLOCK_MASK: u64 = (1 << BLOCK_PAGES) - 1;
/// Empty regions that are kept for the next record.
const SPARE_REGIONS: usize = 2;

/// What the system is to be told about a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// It gets its first record, and all of it may be used.
    Huge,
    /// Its memory is not needed now.
    Discard,
}

#[derive(Debug, Default)]
struct Region {
    used: usize,
    /// Whether pages of it may be resident.
    is_touched: bool,
}

#[derive(Debug)]
pub(super) struct Space {
    used: Vec<u64>,
    regions: Vec<Region>,
    /// No free block in words before this one; no free page in those before the other.
    first_block: usize,
    first_page: usize,
    used_pages: usize,
    /// Behind the last page that was ever in use.
    end_pages: usize,
    /// Blocks any page of which is used.
    used_blocks: usize,
    limit_pages: usize,
    pages_max: usize,
}

impl Space {
    /// All of `pages_max` pages free, none of them to be given out before a limit is set.
    pub(super) fn new(pages_max: usize) -> Self {
        Self {
            used: Vec::new(),
            regions: Vec::new(),
            first_block: 0,
            first_page: 0,
            used_pages: 0,
            end_pages: 0,
            used_blocks: 0,
            limit_pages: 0,
            pages_max,
        }
    }

    /// Pages behind this number are not given out.
    pub(super) fn set_limit(&mut self, limit_pages: usize) {
        self.limit_pages = limit_pages.min(self.pages_max);
    }

    pub(super) fn limit_pages(&self) -> usize {
        self.limit_pages
    }

    /// Pages in use.
    pub(super) fn used_pages(&self) -> usize {
        self.used_pages
    }

    /// Whole blocks within the limit that are free, if none is used behind it.
    pub(super) fn free_blocks(&self) -> usize {
        (self.limit_pages / BLOCK_PAGES).saturating_sub(self.used_blocks)
    }

    /// How many of the blocks that a run of pages touches are free.
    fn free_among(&self, page: usize, count: usize) -> usize {
        let is_free = |block: &usize| {
            let page = block * BLOCK_PAGES;
            self.used.get(page / WORD_PAGES).is_none_or(|word| word >> (page % WORD_PAGES) & BLOCK_MASK == 0)
        };
        (page / BLOCK_PAGES..(page + count).div_ceil(BLOCK_PAGES)).filter(is_free).count()
    }

    /// Behind the last page that was ever in use.
    pub(super) fn end_pages(&self) -> usize {
        self.end_pages
    }

    /// Pages that may be resident.
    pub(super) fn touched_pages(&self) -> usize {
        self.regions.iter().filter(|region| region.is_touched).count() * REGION_PAGES
    }

    /// The number of a free block within the limit (behind it too, if `forced`), now in use.
    pub(super) fn take_block(&mut self, forced: bool, advise: impl FnMut(usize, Advice)) -> Option<usize> {
        let end = self.end(forced);
        let mut word = self.first_block;
        loop {
            let bits = self.used.get(word).copied().unwrap_or(0);
            let quarters = (0..WORD_PAGES / BLOCK_PAGES).map(|quarter| quarter * BLOCK_PAGES);
            let free = quarters.map(|shift| (shift, bits >> shift & BLOCK_MASK)).find(|(_, used)| *used == 0);
            if let Some((shift, _)) = free {
                let page = word * WORD_PAGES + shift;
                self.first_block = word;
                return (page + BLOCK_PAGES <= end).then(|| {
                    self.mark(page, BLOCK_PAGES, advise);
                    page / BLOCK_PAGES
                });
            }
            word += 1;
        }
    }

    /// The first of `count` free pages side by side, now in use.
    pub(super) fn take_pages(
        &mut self,
        count: usize,
        forced: bool,
        advise: impl FnMut(usize, Advice),
    ) -> Option<usize> {
        let end = self.end(forced);
        let (mut start, mut page) = (self.first_page * WORD_PAGES, self.first_page * WORD_PAGES);
        let mut has_seen_free = false;
        while start + count <= end {
            if page - start >= count {
                self.mark(start, count, advise);
                return Some(start);
            }
            let bits = self.used.get(page / WORD_PAGES).copied().unwrap_or(0) >> (page % WORD_PAGES);
            let left = WORD_PAGES - page % WORD_PAGES;
            let free = (bits.trailing_zeros() as usize).min(left);
            if free > 0 && !has_seen_free {
                (has_seen_free, self.first_page) = (true, page / WORD_PAGES);
            }
            page += free;
            if free < left && page - start < count {
                page += ((bits >> free).trailing_ones() as usize).min(left - free);
                start = page;
            }
        }
        None
    }

    fn end(&self, forced: bool) -> usize {
        if forced { self.pages_max } else { self.limit_pages }
    }

    fn mark(&mut self, page: usize, count: usize, mut advise: impl FnMut(usize, Advice)) {
        let end = page + count;
        self.used_blocks += self.free_among(page, count);
        self.used.resize(self.used.len().max(end.div_ceil(WORD_PAGES)), 0);
        (page..end).for_each(|page| self.used[page / WORD_PAGES] |= 1 << (page % WORD_PAGES));
        self.used_pages += count;
        self.end_pages = self.end_pages.max(end);
        self.regions.resize_with(self.regions.len().max(end.div_ceil(REGION_PAGES)), Region::default);
        for (region, pages) in by_region(page, count) {
            let is_whole = (region + 1) * REGION_PAGES <= self.limit_pages;
            let state = &mut self.regions[region];
            state.used += pages;
            // The first one never, so that a small store stays small.
            if !state.is_touched && is_whole && region > 0 {
                advise(region, Advice::Huge);
            }
            state.is_touched = true;
        }
    }

    /// Takes pages back that were given out.
    pub(super) fn give(&mut self, page: usize, count: usize, mut advise: impl FnMut(usize, Advice)) {
        (page..page + count).for_each(|page| self.used[page / WORD_PAGES] &= !(1 << (page % WORD_PAGES)));
        self.used_pages -= count;
        self.used_blocks -= self.free_among(page, count);
        self.first_block = self.first_block.min(page / WORD_PAGES);
        self.first_page = self.first_page.min(page / WORD_PAGES);
        for (region, pages) in by_region(page, count) {
            self.regions[region].used -= pages;
            let is_beyond = region * REGION_PAGES >= self.limit_pages;
            if self.regions[region].used == 0 && (is_beyond || self.spare_regions() > SPARE_REGIONS) {
                self.regions[region].is_touched = false;
                advise(region, Advice::Discard);
            }
        }
    }

    /// Gives all regions back that nobody uses; returns their bytes.
    pub(super) fn discard_spare(&mut self, mut advise: impl FnMut(usize, Advice)) -> u64 {
        let mut bytes = 0;
        for (number, region) in self.regions.iter_mut().enumerate() {
            if region.used == 0 && region.is_touched {
                region.is_touched = false;
                advise(number, Advice::Discard);
                bytes += (REGION_PAGES as u64) * PAGE_BYTES;
            }
        }
        bytes
    }

    fn spare_regions(&self) -> usize {
        self.regions.iter().filter(|region| region.used == 0 && region.is_touched).count()
    }
}

/// The regions of a run of pages, and how many of its pages are in each.
fn by_region(page: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
    let end = page + count;
    (page / REGION_PAGES..end.div_ceil(REGION_PAGES)).map(move |region| {
        let start = page.max(region * REGION_PAGES);
        (region, end.min((region + 1) * REGION_PAGES) - start)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_are_given_out_once_and_the_lowest_first(
            steps in proptest::collection::vec((0_usize..3, 1_usize..80, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut space = Space::new(4 * REGION_PAGES);
            space.set_limit(3 * REGION_PAGES);
            let mut taken = BTreeMap::new();
            let is_free = |taken: &BTreeMap<usize, usize>, from: usize, count: usize| {
                taken.iter().all(|(page, pages)| page + pages <= from || from + count <= *page)
            };
            for (step, count, chosen) in steps {
                if step == 2 && !taken.is_empty() {
                    let page = *taken.keys().nth(chosen.index(taken.len())).unwrap();
                    space.give(page, taken.remove(&page).unwrap(), |_, _| {});
                    continue;
                }
                let (count, step_pages) = if step == 0 { (BLOCK_PAGES, BLOCK_PAGES) } else { (count, 1) };
                let got = match step {
                    0 => space.take_block(false, |_, _| {}).map(|block| block * BLOCK_PAGES),
                    _ => space.take_pages(count, false, |_, _| {}),
                };
                let expected = (0..=3 * REGION_PAGES - count).step_by(step_pages).find(|page| is_free(&taken, *page, count));
                prop_assert_eq!(got, expected);
                if let Some(page) = got {
                    taken.insert(page, count);
                }
                prop_assert_eq!(space.used_pages(), taken.values().sum::<usize>());
                let blocks = (0..3 * REGION_PAGES).step_by(BLOCK_PAGES).filter(|page| is_free(&taken, *page, BLOCK_PAGES));
                prop_assert_eq!(space.free_blocks(), blocks.count());
            }
        }
    }

    #[test]
    fn an_empty_region_behind_the_limit_goes_back_to_the_system() {
        let mut space = Space::new(8 * REGION_PAGES);
        space.set_limit(4 * REGION_PAGES);
        let mut told = Vec::new();
        let first = space.take_pages(4 * REGION_PAGES, false, |region, advice| told.push((region, advice))).unwrap();
        assert_eq!((first, space.touched_pages()), (0, 4 * REGION_PAGES));
        assert_eq!(told, [(1, Advice::Huge), (2, Advice::Huge), (3, Advice::Huge)]);
        assert_eq!(space.take_block(false, |_, _| {}), None);
        assert_eq!(space.take_block(true, |_, _| {}), Some(4 * REGION_PAGES / BLOCK_PAGES));
        space.set_limit(2 * REGION_PAGES);
        told.clear();
        space.give(0, 4 * REGION_PAGES, |region, advice| told.push((region, advice)));
        assert_eq!(told, [(2, Advice::Discard), (3, Advice::Discard)]);
        assert_eq!(space.discard_spare(|_, _| {}), 2 * (2 << 20), "the spare ones");
        assert_eq!(space.touched_pages(), REGION_PAGES, "the forced block's");
    }
}
