//! The log's end, and how what is in it stands in time.
//!
//! Holds numbers alone: no file and no byte of a record. Invariant: of two positions the later one is the higher, whatever slots their
//! segments have.

use super::segment::Segment;

/// Where the log ends: a segment slot and an offset in units of 8 bytes, in one word, so that one `fetch_add`
/// reserves in a segment that cannot change underneath. Says nothing of before and after, for slots are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A place in the log as it stands in time: the ordinal of a segment, and an offset in units of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(super) u64);

impl Position {
    /// 2 GiB: more than any segment has that is appended to twice.
    const UNIT_BITS: u32 = 28;
    const UNITS_MAX: u64 = (1 << Self::UNIT_BITS) - 1;
    /// In front of everything.
    pub(super) const START: Self = Self(0);
    /// Behind everything.
    pub(super) const END: Self = Self(u64::MAX);
    /// Segments have lower ordinals.
    pub(super) const ORDINALS: u64 = u64::MAX >> Self::UNIT_BITS;

    /// An offset that is too high is behind all others of the segment.
    pub(super) fn new(ordinal: u64, offset: u64) -> Self {
        Self(ordinal << Self::UNIT_BITS | (offset / 8).min(Self::UNITS_MAX))
    }

    pub(super) fn of(segment: &Segment, offset: u64) -> Self {
        Self::new(segment.ordinal, offset)
    }

    #[inline]
    pub(super) fn ordinal(self) -> u64 {
        self.0 >> Self::UNIT_BITS
    }

    #[inline]
    pub(super) fn offset(self) -> u64 {
        (self.0 & Self::UNITS_MAX) * 8
    }
}
