//! The pages of a shard, as numbers: how many there are, and which one a hash belongs to (linear hashing, in prefix order).
//!
//! Never holds a page. Invariant: the pages of a shard are apart and have all of its hashes between them.

/// How many pages a shard has: 2^level + split. Packed as the lowest hash bits that are not split yet, `split` in the
/// highest `level` bits, and the level in the lowest six.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages(pub(super) u64);

impl Pages {
    const LEVEL: u64 = 63;

    #[inline]
    pub(super) fn level(self) -> u32 {
        (self.0 & Self::LEVEL) as u32
    }

    pub(super) fn split(self) -> u64 {
        self.0 >> 1 >> (63 - self.level())
    }

    pub(super) fn count(self) -> u64 {
        (1 << self.level()) + self.split()
    }

    pub(super) fn one_more(self) -> Self {
        let (level, split) = (self.level(), self.split() + 1);
        if split >> level == 1 { Self::of(level + 1, 0) } else { Self::of(level, split) }
    }

    pub(super) fn of(level: u32, split: u64) -> Self {
        Self(split << 1 << (63 - level) | u64::from(level))
    }

    /// The level of the page that the hash bits `rest` belong to: one more below what was split already.
    #[inline]
    pub(super) fn level_of(self, rest: u64) -> u32 {
        self.level() + u32::from(rest < self.0 & !Self::LEVEL)
    }

    /// The page that the hash bits `rest` belong to, 2^level and the highest bits, and its level.
    #[inline]
    pub(super) fn id_of(self, rest: u64) -> (u64, u32) {
        let level = self.level_of(rest);
        ((rest >> 1 | 1 << 63) >> (63 - level), level)
    }
}
