//! What is remembered of a key's accesses, in 16 bits.
//!
//! Holds the layout. Zero means that the key was never seen.

/// The history of one key: when it was last accessed (in ticks), how long its reuse interval was, how often it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History(u16);

impl History {
    /// Never seen.
    pub const NEW: Self = Self(0);

    /// What [`to_bits`](Self::to_bits) gave.
    #[inline]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The history in a form that can be stored.
    #[inline]
    pub fn to_bits(self) -> u16 {
        self.0
    }

    /// The tick of the last access: the highest eight bits.
    #[inline]
    pub fn tick(self) -> u8 {
        (self.0 >> 8) as u8
    }
}
