//! The log's end and its segments, as numbers: what a reservation needs to know.
//!
//! Holds no file and no byte of a record. Invariant: a segment slot, once given out, names one segment for ever.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use super::segment::SharedSegment;
use crate::slot::Address;

const TABLE_PART: usize = 256;

/// Where the log ends: a segment slot and an offset in units of 8 bytes, in one word, so that one `fetch_add`
/// reserves in a segment that cannot change underneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tail(pub(super) u64);

impl Tail {
    const UNIT_BITS: u32 = 47;
    /// Before the first segment: nothing fits.
    pub(super) const NOWHERE: Self = Self(1 << (Self::UNIT_BITS - 1));

    pub(super) fn new(base: usize, offset: u64) -> Self {
        Self(((base as u64) << Self::UNIT_BITS) | (offset / 8))
    }

    /// Whether there is a segment to append to.
    pub(super) fn is_somewhere(self) -> bool {
        self.0 & Self::NOWHERE.0 == 0
    }

    #[inline]
    pub(super) fn base(self) -> usize {
        (self.0 >> Self::UNIT_BITS) as usize
    }

    #[inline]
    pub(super) fn offset(self) -> u64 {
        (self.0 & ((1 << Self::UNIT_BITS) - 1)) * 8
    }
}

/// The segments by segment slot. Grows by parts; a segment, once there, stays. Where those stood that are gone it may have holes.
#[derive(Debug)]
pub(super) struct Table {
    parts: Box<[OnceLock<Part>]>,
    /// Behind the last one.
    end: AtomicUsize,
}

type Part = Box<[OnceLock<SharedSegment>; TABLE_PART]>;

impl Table {
    pub(super) fn new() -> Self {
        let parts = (0..Address::SLOTS / TABLE_PART).map(|_| OnceLock::new()).collect();
        Self { parts, end: AtomicUsize::new(0) }
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&SharedSegment> {
        self.parts.get(slot / TABLE_PART)?.get()?[slot % TABLE_PART].get()
    }

    pub(super) fn set(&self, segment: &SharedSegment) {
        for slot in segment.base..segment.base + segment.slots() {
            let part = self.parts[slot / TABLE_PART].get_or_init(|| Box::new([const { OnceLock::new() }; TABLE_PART]));
            assert!(part[slot % TABLE_PART].set(segment.clone()).is_ok(), "a segment slot is given out once");
        }
        // Release: pairs with the Acquire in `iter`.
        self.end.fetch_max(segment.base + segment.slots(), Ordering::Release);
    }

    /// All segments, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = &SharedSegment> {
        // Acquire: pairs with the Release in `set`; whoever sees the end sees what is in front of it.
        let (mut slot, end) = (0, self.end.load(Ordering::Acquire));
        std::iter::from_fn(move || {
            while slot < end {
                let found = self.get(slot);
                slot += found.map_or(1, |segment| segment.slots());
                if found.is_some() {
                    return found;
                }
            }
            None
        })
    }
}
