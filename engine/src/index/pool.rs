//! The memory of the index's pages: buckets of one cache line, given out in runs.
//!
//! Holds which runs are free. Never looks into a page. Invariant: a run is in use, or free, or behind
//! `next`; runs that are given out are vacant throughout.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use thermocline_tiers::{
    Word,
    slot::{Bucket, Reserved},
};

use crate::sync::Mutex;

/// The largest page, in buckets.
pub(super) const PAGE_BUCKETS_MAX: u32 = 255;
/// Addresses for 64 GiB: five billion keys.
const BUCKETS_MAX: usize = 1 << 30;

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
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Behind every run ever given out.
    next: u32,
    /// Free runs by where they start; never two side by side.
    by_start: BTreeMap<u32, u32>,
    /// The same by length, the shortest first.
    by_length: BTreeSet<(u32, u32)>,
}

impl Free {
    fn add(&mut self, start: u32, buckets: u32) {
        self.by_start.insert(start, buckets);
        self.by_length.insert((buckets, start));
    }

    fn delete(&mut self, start: u32, buckets: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(buckets, start));
    }

    /// Cuts `buckets` off the shortest run that has them.
    fn cut(&mut self, buckets: u32) -> Option<u32> {
        let (length, start) = *self.by_length.range((buckets, 0)..).next()?;
        self.delete(start, length);
        if length > buckets {
            self.add(start + buckets, length - buckets);
        }
        Some(start)
    }

    /// Adds a run and joins it with its neighbours.
    fn join(&mut self, run: Run) {
        let (mut start, mut buckets) = (run.start, run.buckets);
        if let Some((before, length)) = self.by_start.range(..start).next_back().map(|(at, length)| (*at, *length))
            && before + length == start
        {
            self.delete(before, length);
            (start, buckets) = (before, buckets + length);
        }
        if let Some(length) = self.by_start.get(&(start + buckets)).copied() {
            self.delete(start + buckets, length);
            buckets += length;
        }
        self.add(start, buckets);
    }
}

impl Pool {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { buckets: Reserved::new(BUCKETS_MAX)?, free: Mutex::new(Free::default()) })
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

    /// A vacant run, or `None` when all that could be reserved is in use.
    pub(super) fn take(&self, buckets: u32) -> Option<Run> {
        let mut free = self.free.lock().expect("nothing panics under this lock");
        if let Some(start) = free.cut(buckets) {
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
        self.free.lock().expect("nothing panics under this lock").join(run);
    }

    /// Bytes in use, free runs included: memory that was touched once.
    pub(super) fn bytes(&self) -> u64 {
        let free = self.free.lock().expect("nothing panics under this lock");
        u64::from(free.next) * size_of::<Bucket>() as u64
    }

    /// Bytes that could be reserved at most.
    pub(super) fn bytes_max(&self) -> u64 {
        (self.buckets.len() * size_of::<Bucket>()) as u64
    }
}
