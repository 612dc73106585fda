//! Looking a key up: bucket by bucket, without a store.
//!
//! Holds what a reader does; writers look for their slot in `index.rs`. Invariant: nothing is said not to be there before the page was
//! still its node's after its slots had been looked at.

use thermocline_tiers::{Guard, Location, Result, slot::Bucket};

use super::{Index, Look, Place, page::home};

/// A search for a key, between two buckets.
#[derive(Clone, Copy)]
struct Search<'a> {
    hash: u64,
    place: Place,
    /// The bucket, and how many were looked into before.
    at: usize,
    passed: usize,
    bucket: &'a Bucket,
    /// Slots in it whose tag may agree and that were not looked at.
    left: u32,
}

impl Search<'_> {
    #[inline]
    fn next_candidate(&mut self) -> Option<Location> {
        while self.left != 0 {
            let word = self.bucket.word(self.left);
            self.left &= self.left - 1;
            if word.tag().matches(self.place.tag)
                && let Some(at) = word.location()
            {
                return Some(at);
            }
        }
        None
    }
}

impl Index {
    /// Calls `is` with each location whose tag agrees, until it returns something.
    ///
    /// Looks again if the page was replaced meanwhile and nothing was found: its memory may have been given to another
    /// one. What was found was the key's at some time during the call either way. Never waits. Costs one or two cache
    /// lines and, per location, what `is` reads; a location of another key is shown with probability 2⁻¹⁵.
    ///
    /// # Errors
    /// What `is` returns.
    #[inline]
    pub(crate) fn find<R>(
        &self,
        hash: u64,
        _guard: &Guard,
        mut is: impl FnMut(Location) -> Result<Look<R>>,
    ) -> Result<Option<R>> {
        let mut search = self.search(hash)?;
        loop {
            while let Some(at) = search.next_candidate() {
                match is(at)? {
                    Look::Other => {}
                    Look::Found(found) => return Ok(Some(found)),
                    Look::Moved => search = self.search(hash)?,
                }
            }
            match self.search_on(search)? {
                Some(next) => search = next,
                None => return Ok(None),
            }
        }
    }

    #[inline(always)]
    fn search(&self, hash: u64) -> Result<Search<'_>> {
        Ok(self.search_in(self.place(hash)?, hash))
    }

    #[inline(always)]
    fn search_in(&self, place: Place, hash: u64) -> Search<'_> {
        let at = home(place.tag, place.run.buckets);
        let bucket = self.pool.bucket(place.run, at);
        Search { hash, place, at, passed: 0, bucket, left: bucket.candidates(place.tag) }
    }

    /// The next bucket to look into; `None` if the key is in none of them.
    #[inline]
    fn search_on<'a>(&'a self, search: Search<'a>) -> Result<Option<Search<'a>>> {
        if search.bucket.is_open() && self.is_current(search.place.node, search.place.run) {
            return Ok(None);
        }
        self.search_elsewhere(search)
    }

    /// Apart from the common case, which is so short that a processor can look ahead to the next call.
    #[inline(never)]
    fn search_elsewhere<'a>(&'a self, search: Search<'a>) -> Result<Option<Search<'a>>> {
        let Search { hash, place, at, passed, bucket, .. } = search;
        let buckets = place.run.buckets as usize;
        if bucket.is_open() || passed + 1 == buckets {
            return (!self.is_current(place.node, place.run)).then(|| self.search(hash)).transpose();
        }
        let at = if at + 1 == buckets { 0 } else { at + 1 };
        let bucket = self.pool.bucket(place.run, at);
        Ok(Some(Search { at, passed: passed + 1, bucket, left: bucket.candidates(place.tag), ..search }))
    }

    /// The first location whose tag agrees, in the bucket where the search starts: nearly always the key's, if it has one.
    /// Reads no file.
    #[inline]
    pub(crate) fn first_candidate(&self, hash: u64) -> Option<Location> {
        self.search_in(self.place_at_once(hash)?, hash).next_candidate()
    }

    /// Asks for the cache line where the search for a hash starts.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let Some(place) = self.place_at_once(hash) else { return };
        self.pool.bucket(place.run, home(place.tag, place.run.buckets)).prefetch();
    }
}
