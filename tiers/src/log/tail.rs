//! The log's end and its segments, as numbers: what a reservation needs to know.
//!
//! Holds no file and no byte of a record. Invariant: a segment slot, once given out, names one segment for ever.

use std::sync::OnceLock;

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

/// The segments by segment slot. Grows by parts; a segment, once there, stays.
#[derive(Debug)]
pub(super) struct Table(Box<[OnceLock<Part>]>);

type Part = Box<[OnceLock<SharedSegment>; TABLE_PART]>;

impl Table {
    pub(super) fn new() -> Self {
        Self((0..Address::SLOTS / TABLE_PART).map(|_| OnceLock::new()).collect())
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&SharedSegment> {
        self.0.get(slot / TABLE_PART)?.get()?[slot % TABLE_PART].get()
    }

    pub(super) fn set(&self, segment: &SharedSegment) {
        for slot in segment.base..segment.base + segment.slots() {
            let part = self.0[slot / TABLE_PART].get_or_init(|| Box::new([const { OnceLock::new() }; TABLE_PART]));
            assert!(part[slot % TABLE_PART].set(segment.clone()).is_ok(), "a segment slot is given out once");
        }
    }
}
