//! The memory of the index's pages: buckets of one cache line, given out in runs.
//!
//! Holds which runs are free, in lists by length, whose links stand in the free buckets themselves (boundary tags, as in
//! Knuth, *The Art of Computer Programming* 2.5). Invariant: a run is in use, or free, or behind `next`; no two free
//! runs are side by side unless they are too long to be joined; runs that are given out are vacant throughout.
//!
//! Readers may still look into a free run: a link has no tag, so it is no location to them.

use std::{
    io,
    sync::atomic::{AtomicU16, Ordering},
};

use thermocline_tiers::{
    Word,
    slot::{Bucket, Reserved},
};

use crate::sync::Mutex;

/// The largest page, in buckets.
pub(super) const PAGE_BUCKETS_MAX: u32 = 255;
/// What a bucket takes, its histories included.
const BUCKET_BYTES: u64 = (size_of::<Bucket>() + Bucket::SLOTS * size_of::<AtomicU16>()) as u64;
/// Addresses for 64 GiB: five billion keys.
const BUCKETS_MAX: usize = 1 << 30;

/// What a node says whose page was split: no run, and not the zero of a node that nobody has looked at.
pub(super) const SPLIT: u64 = 1 << 63;

/// A run of buckets, and how often its node got another one; packed into a node of the directory: never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) buckets: u32,
    /// 24 bits, wrapping.
    pub(super) version: u32,
}

impl Run {
    #[inline]
    pub(super) fn pack(self) -> u64 {
        ((self.version as u64) << 40) | ((self.buckets as u64) << 32) | self.start as u64
    }

    #[inline]
    pub(super) fn unpack(node: u64) -> Option<Self> {
        let run = Self { start: node as u32, buckets: (node >> 32) as u8 as u32, version: (node >> 40) as u32 };
        (run.buckets > 0).then_some(run)
    }

    /// The run that takes this one's place in its node.
    pub(super) fn replaced_by(self, run: Self) -> Self {
        Self { version: (self.version + 1) & 0xff_ffff, ..run }
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    buckets: Reserved<Bucket>,
    /// What is remembered of the keys' accesses, one for each slot. Nothing depends on it: of two that are written at once
    /// one is lost, and a run that is given out may show what was there before.
    histories: Reserved<AtomicU16>,
    free: Mutex<Free>,
}

/// Which runs are free.
#[derive(Debug)]
struct Free {
    /// Behind every run ever given out.
    next: u32,
    /// Where free runs start, by their length; the last list has those that are longer than any page.
    by_length: Vec<Vec<u32>>,
}

/// What stands in the first slot of a free run: its length, and its place in its list.
#[derive(Clone, Copy)]
struct Header {
    length: u32,
    place: usize,
}

impl Header {
    const LENGTH_BITS: u32 = 20;
    /// Runs are not joined to longer ones.
    const LENGTH_MAX: u32 = (1 << Self::LENGTH_BITS) - 1;
    /// More runs of one length than this are forgotten.
    const PLACES: usize = 1 << 22;

    fn word(self) -> Word {
        Word::link((self.place as u64) << Self::LENGTH_BITS | u64::from(self.length))
    }

    fn of(word: Word) -> Option<Self> {
        let link = word.as_link()?;
        let length = link as u32 & Self::LENGTH_MAX;
        Some(Self { length, place: (link >> Self::LENGTH_BITS) as usize })
    }
}

/// The list of runs of a length.
fn list_of(length: u32) -> usize {
    length.min(PAGE_BUCKETS_MAX + 1) as usize
}

impl Free {
    /// Lists a run, and writes its length to both its ends.
    fn add(&mut self, buckets: &[Bucket], start: u32, length: u32) {
        let list = &mut self.by_length[list_of(length)];
        let header = Header { length, place: list.len() };
        if header.place < Header::PLACES {
            list.push(start);
            let run = &buckets[start as usize..][..length as usize];
            run[0][0].copy_unpublished(header.word());
            run[run.len() - 1][Bucket::SLOTS - 1].copy_unpublished(header.word());
        }
    }

    /// Takes a run off its list and its length off its ends.
    fn delete(&mut self, buckets: &[Bucket], start: u32, header: Header) {
        let list = &mut self.by_length[list_of(header.length)];
        list.swap_remove(header.place);
        if let Some(moved) = list.get(header.place) {
            let moved = &buckets[*moved as usize][0];
            let length = Header::of(moved.load()).map_or(header.length, |moved| moved.length);
            moved.copy_unpublished(Header { length, ..header }.word());
        }
        Self::clear_ends(buckets, start, header.length);
    }

    /// So that neighbours do not take what stands there for a free run.
    fn clear_ends(buckets: &[Bucket], start: u32, length: u32) {
        let run = &buckets[start as usize..][..length as usize];
        run[0][0].copy_unpublished(Word::VACANT);
        run[run.len() - 1][Bucket::SLOTS - 1].copy_unpublished(Word::VACANT);
    }

    /// Cuts `length` buckets off the shortest run that has them.
    fn cut(&mut self, buckets: &[Bucket], length: u32) -> Option<u32> {
        let list = self.by_length[list_of(length)..].iter().find(|list| !list.is_empty())?;
        let start = *list.last()?;
        let header = Header::of(buckets[start as usize][0].load())?;
        self.delete(buckets, start, header);
        if header.length > length {
            Self::clear_ends(buckets, start, length);
            self.add(buckets, start + length, header.length - length);
        }
        Some(start)
    }

    /// Adds a run and joins it with its free neighbours.
    fn join(&mut self, buckets: &[Bucket], run: Run) {
        let (mut start, mut length) = (run.start, run.buckets);
        let end = start + length;
        if end < self.next
            && let Some(behind) = Header::of(buckets[end as usize][0].load())
            && length + behind.length <= Header::LENGTH_MAX
        {
            self.delete(buckets, end, behind);
            length += behind.length;
        }
        if start > 0
            && let Some(before) = Header::of(buckets[start as usize - 1][Bucket::SLOTS - 1].load())
            && length + before.length <= Header::LENGTH_MAX
        {
            start -= before.length;
            // Its place in the list is kept true at its first end only.
            let before = Header::of(buckets[start as usize][0].load()).unwrap_or(before);
            self.delete(buckets, start, before);
            length += before.length;
        }
        self.add(buckets, start, length);
    }
}

impl Pool {
    pub(super) fn new() -> io::Result<Self> {
        let by_length = vec![Vec::new(); PAGE_BUCKETS_MAX as usize + 2];
        Ok(Self {
            buckets: Reserved::new(BUCKETS_MAX)?,
            histories: Reserved::new(BUCKETS_MAX * Bucket::SLOTS)?,
            free: Mutex::new(Free { next: 0, by_length }),
        })
    }

    #[inline]
    pub(super) fn buckets(&self, run: Run) -> &[Bucket] {
        let start = run.start as usize;
        &self.buckets[start..start + run.buckets as usize]
    }

    /// The bucket `at` of a run.
    #[inline]
    pub(super) fn bucket(&self, run: Run, at: usize) -> &Bucket {
        &self.buckets[run.start as usize + at]
    }

    /// The history of slot `slot` of a run, counted from its first bucket on.
    #[inline]
    pub(super) fn history(&self, run: Run, slot: usize) -> u16 {
        let history = self.histories.get(run.start as usize * Bucket::SLOTS + slot);
        history.map_or(0, |history| history.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn set_history(&self, run: Run, slot: usize, to: u16) {
        if let Some(history) = self.histories.get(run.start as usize * Bucket::SLOTS + slot) {
            history.store(to, Ordering::Relaxed);
        }
    }

    /// A vacant run, or `None` when all that could be reserved is in use.
    pub(super) fn take(&self, buckets: u32) -> Option<Run> {
        let mut free = self.free.lock().expect("nothing panics under this lock");
        if let Some(start) = free.cut(&self.buckets, buckets) {
            drop(free);
            let run = Run { start, buckets, version: 0 };
            self.buckets(run)
                .iter()
                .flat_map(|bucket| bucket.iter())
                .for_each(|slot| slot.copy_unpublished(Word::VACANT));
            return Some(run);
        }
        let start = free.next;
        let end = start.checked_add(buckets)?;
        if end as usize > self.buckets.len() {
            return None;
        }
        free.next = end;
        Some(Run { start, buckets, version: 0 })
    }

    /// Gives a run back. Readers that still look at it find out that its node has another one.
    pub(super) fn give(&self, run: Run) {
        self.free.lock().expect("nothing panics under this lock").join(&self.buckets, run);
    }

    /// Bytes in use, free runs included: memory that was touched once.
    pub(super) fn bytes(&self) -> u64 {
        let free = self.free.lock().expect("nothing panics under this lock");
        u64::from(free.next) * BUCKET_BYTES
    }

    /// Bytes that could be reserved at most.
    pub(super) fn bytes_max(&self) -> u64 {
        (self.buckets.len() * size_of::<Bucket>()) as u64
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;
    use thermocline_tiers::{Kind, Location, Slot, Tag};

    use super::*;

    fn is_vacant(pool: &Pool, run: Run) -> bool {
        pool.buckets(run).iter().all(|bucket| bucket.iter().all(|slot| slot.load().is_vacant()))
    }

    /// What a page in use may have in any of its slots.
    fn fill(pool: &Pool, run: Run) {
        let publish = |slot: &Slot| slot.publish(Word::VACANT, Tag::of(0), Location::of_model(0, Kind::Log));
        pool.buckets(run).iter().flat_map(|bucket| bucket.iter()).for_each(|slot| publish(slot).unwrap());
    }

    proptest! {
        #[test]
        fn runs_are_vacant_apart_and_joined_again(steps in proptest::collection::vec((1..=PAGE_BUCKETS_MAX, any::<bool>(), any::<u16>()), 1..300)) {
            let pool = Pool::new().unwrap();
            let mut taken: Vec<Run> = Vec::new();
            for (buckets, filled, chosen) in steps {
                if chosen % 3 == 0 && !taken.is_empty() {
                    pool.give(taken.swap_remove(chosen as usize % taken.len()));
                    continue;
                }
                let run = pool.take(buckets).unwrap();
                prop_assert_eq!(run.buckets, buckets);
                prop_assert!(is_vacant(&pool, run));
                let apart = |other: &Run| run.start + run.buckets <= other.start || other.start + other.buckets <= run.start;
                prop_assert!(taken.iter().all(apart));
                if filled {
                    fill(&pool, run);
                }
                taken.push(run);
            }
            let bytes = pool.bytes();
            taken.drain(..).for_each(|run| pool.give(run));
            let free = pool.free.lock().unwrap();
            let runs: Vec<_> = free.by_length.iter().flatten().collect();
            prop_assert_eq!(runs, [&0]);
            drop(free);
            while pool.bytes() == bytes {
                taken.push(pool.take(PAGE_BUCKETS_MAX).unwrap());
            }
            let all = u64::from(PAGE_BUCKETS_MAX) * (taken.len() as u64 - 1) * BUCKET_BYTES;
            prop_assert!(all + u64::from(PAGE_BUCKETS_MAX) * BUCKET_BYTES > bytes, "all of it was given out again");
        }
    }
}
