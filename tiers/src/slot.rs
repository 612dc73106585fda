//! The slot: one atomic word that says where a key lives now.
//!
//! Holds the layout of the word (`DESIGN.md`, *The index*) and the tag's arithmetic.
//! Never holds keys or records. Invariant: a location enters a slot only as a tier made it, so what
//! a slot names was placed before.

mod bucket;
mod reserved;

use std::fmt;

pub use bucket::Bucket;
pub use reserved::{Reserved, Zeroed};

use crate::sync::{AtomicU64, Ordering};

const ADDRESS_BITS: u32 = 40;
/// Of the address of a record in memory: the place in its block.
const PLACE_BITS: u32 = 12;
const KIND_SHIFT: u32 = ADDRESS_BITS;
const UNVERIFIED: u64 = 1 << 42;
const TAG_SHIFT: u32 = 43;

/// What a slot's location is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A value in the log.
    Log = 1,
    /// A value in memory.
    Memory = 2,
    /// The key is gone: a tombstone in the log, or nothing at all.
    Removed = 3,
}

/// A position in the log: segment slot and offset, in units of 8 bytes. 40 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(u64);

impl Address {
    /// Bytes of a segment that one segment slot covers.
    pub const SLOT_BYTES: u64 = 8 << 23;
    /// How many segment slots there are.
    pub const SLOTS: usize = 1 << 17;

    /// The position `offset` bytes (a multiple of 8) into the segment whose first slot is `slot`.
    pub(crate) fn new(slot: usize, offset: u64) -> Self {
        let address = ((slot as u64) << 23) + offset / 8;
        debug_assert!(address < 1 << ADDRESS_BITS && offset.is_multiple_of(8));
        Self(address)
    }

    /// The segment slot.
    #[inline]
    pub(crate) fn slot(self) -> usize {
        (self.0 >> 23) as usize
    }

    /// The bits of the address, for who keeps them elsewhere.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// What [`to_bits`](Self::to_bits) gave.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bytes from the start of the segment whose first slot is `base`.
    #[inline]
    pub(crate) fn offset_from(self, base: usize) -> u64 {
        (self.0 - ((base as u64) << 23)) * 8
    }
}

/// Where a record lives: a word without its tag. Only the tiers make one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Location(u64);

impl Location {
    /// The record at `address`; `unverified` if reading it must hold it against its checksum.
    #[inline]
    pub(crate) fn new(kind: Kind, address: Address, unverified: bool) -> Self {
        let unverified = if unverified { UNVERIFIED } else { 0 };
        Self(unverified | (kind as u64) << KIND_SHIFT | address.0)
    }

    /// The record in place `place` of block `block` of the memory tier.
    #[inline]
    pub(crate) fn in_memory(block: usize, place: usize) -> Self {
        debug_assert!(block < 1 << (ADDRESS_BITS - PLACE_BITS) && place < 1 << PLACE_BITS);
        Self((Kind::Memory as u64) << KIND_SHIFT | (block as u64) << PLACE_BITS | place as u64)
    }

    /// Block and place of a record in memory.
    #[inline]
    pub(crate) fn block_and_place(self) -> (usize, usize) {
        let bits = self.address().0;
        ((bits >> PLACE_BITS) as usize, (bits & ((1 << PLACE_BITS) - 1)) as usize)
    }

    /// Memory, log, or gone.
    #[inline]
    pub fn kind(self) -> Kind {
        match self.0 >> KIND_SHIFT & 3 {
            2 => Kind::Memory,
            3 => Kind::Removed,
            _ => Kind::Log,
        }
    }

    /// A key that is gone and of which nothing is left to read.
    pub fn nothing() -> Self {
        // No record of the log starts at its first byte.
        Self::new(Kind::Removed, Address(0), false)
    }

    /// Whether it is [`nothing`](Self::nothing).
    #[inline]
    pub fn is_nothing(self) -> bool {
        self == Self::nothing()
    }

    /// The position in the log.
    #[inline]
    pub fn address(self) -> Address {
        Address(self.0 & ((1 << ADDRESS_BITS) - 1))
    }

    /// Whether reading the record must hold it against its checksum: it failed it when it was found, or nobody has read it
    /// since its place came from a snapshot.
    #[inline]
    pub fn is_unverified(self) -> bool {
        self.0 & UNVERIFIED != 0
    }

    /// The same place, its record held against its checksum.
    #[must_use]
    #[inline]
    pub fn as_verified(self) -> Self {
        Self(self.0 & !UNVERIFIED)
    }

    /// The same place, its record to be held against its checksum by who reads it.
    #[must_use]
    pub fn as_unverified(self) -> Self {
        Self(self.0 | UNVERIFIED)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unverified = if self.is_unverified() { ", unverified" } else { "" };
        write!(f, "{:?} at {:x}{unverified}", self.kind(), self.address().0)
    }
}

#[cfg(feature = "model")]
impl Location {
    /// A location that names the number `n`, below 2⁴⁰, and no record; for tests of the index alone.
    pub fn of_model(n: u64, kind: Kind) -> Self {
        Self::new(kind, Address(n), false)
    }

    /// The number.
    pub fn model_number(self) -> u64 {
        self.address().0
    }
}

/// Up to 20 bits of a key's hash, the highest first, ended by a 1 and filled with zeros: 21 bits.
///
/// A split of the index consumes the highest bit; [`matches`](Self::matches) looks at what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u32);

impl Tag {
    /// Hash bits in a fresh tag.
    pub const BITS: u32 = 20;
    /// Hash bits that every tag keeps: the ones that choose a bucket.
    pub const BUCKET_BITS: u32 = 10;

    /// A full tag of the highest 20 bits of `hash`.
    #[inline]
    pub fn of(hash: u64) -> Self {
        Self(((hash >> 44) as u32) << 1 | 1)
    }

    /// The highest 10 bits, which are always known.
    #[inline]
    pub fn bucket_bits(self) -> u32 {
        self.0 >> (Self::BITS + 1 - Self::BUCKET_BITS)
    }

    /// Whether `full`, a fresh tag, agrees with all that is known here.
    #[inline]
    pub fn matches(self, full: Self) -> bool {
        let unknown = self.0 ^ self.0.wrapping_sub(1);
        (self.0 ^ full.0) & !unknown == 0
    }

    /// Consumes the highest bit, or `None` when the rest would be too short to choose a bucket.
    #[inline]
    pub fn split(self) -> Option<(bool, Self)> {
        let known = Self::BITS - self.0.trailing_zeros();
        let high = self.0 >> Self::BITS & 1 == 1;
        (known > Self::BUCKET_BITS).then_some((high, Self(self.0 << 1 & ((2 << Self::BITS) - 1))))
    }
}

/// The content of a slot at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// No key yet.
    pub const VACANT: Self = Self(0);

    #[inline]
    fn new(tag: Tag, at: Location) -> Self {
        Self((tag.0 as u64) << TAG_SHIFT | at.0)
    }

    /// The word of a key whose tag is `tag`, for a page that nobody can see yet.
    #[inline]
    pub fn of(tag: Tag, at: Location) -> Self {
        Self::new(tag, at)
    }

    /// The same key elsewhere, for a page that nobody can see yet.
    #[must_use]
    #[inline]
    pub fn with_location(self, at: Location) -> Self {
        Self::new(self.tag(), at)
    }

    /// The bits, for who keeps them elsewhere.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The word of a key, from bits that may be anything: `None` if they are not of a place in the log, or of nothing.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        let word = Self(bits);
        word.location().filter(|at| at.kind() != Kind::Memory && bits >> KIND_SHIFT & 3 != 0)?;
        Some(word)
    }

    /// Whether the slot has no key.
    #[inline]
    pub fn is_vacant(self) -> bool {
        self.0 == 0
    }

    /// The tag; meaningless in a vacant word.
    #[inline]
    pub fn tag(self) -> Tag {
        Tag((self.0 >> TAG_SHIFT) as u32)
    }

    /// Whether the word's first `COUNT` bits are these.
    #[cfg(any(test, loom, miri, not(target_arch = "x86_64")))]
    fn starts_with<const COUNT: u32>(self, bits: u32) -> bool {
        self.0 >> (u64::BITS - COUNT) == bits.into()
    }

    /// A number from 1 to 2⁴³ − 1 in place of a key, for whoever owns memory that no page is in. Readers who still look there
    /// find no location.
    #[inline]
    pub fn link(number: u64) -> Self {
        debug_assert!(number > 0 && number >> TAG_SHIFT == 0);
        Self(number)
    }

    /// The number of a link.
    #[inline]
    pub fn as_link(self) -> Option<u64> {
        (self.0 != 0 && self.0 >> TAG_SHIFT == 0).then_some(self.0)
    }

    /// Where the key lives, or `None` in a word without one.
    #[inline]
    pub fn location(self) -> Option<Location> {
        // A tag is never zero.
        (self.0 >> TAG_SHIFT != 0).then_some(Location(self.0 & ((1 << TAG_SHIFT) - 1)))
    }

    /// The same location under another tag; for copying a page that splits.
    #[inline]
    pub fn with_tag(self, tag: Tag) -> Self {
        Self(self.0 & ((1 << TAG_SHIFT) - 1) | (tag.0 as u64) << TAG_SHIFT)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.location() {
            Some(at) => write!(f, "Word({:05x}, {at:?})", self.tag().0),
            None => write!(f, "Word(vacant)"),
        }
    }
}

/// One key's place in the index.
///
/// ```text
///               publish                  demote: the same record
///   VACANT --------------> MEMORY <--------------------------> LOG <-+ publish: a higher sequence
///      |                      |  ^ \__ evacuate: the same       ^ |  |
///      |  publish             |  |     record, elsewhere         | +--+
///      +----------------------|--|------------------------------+ |
///                      remove |  | insert                         |
///                             v  |                         remove |
///                           REMOVED <-----------------------------+
///        (names the tombstone, or nothing in a store without a log; goes when its page is copied)
/// ```
#[derive(Debug, Default)]
pub struct Slot(AtomicU64);

impl Slot {
    /// What the slot says now.
    #[inline]
    pub fn load(&self) -> Word {
        // Acquire: pairs with the Release in `publish`, so the record that the word names can be read.
        Word(self.0.load(Ordering::Acquire))
    }

    /// Names `at` if the slot still says `seen`: the moment at which a write becomes visible.
    ///
    /// # Errors
    /// What the slot says instead.
    #[inline]
    pub fn publish(&self, seen: Word, tag: Tag, at: Location) -> Result<(), Word> {
        let next = Word::new(tag, at);
        // Release: the record was written before this word; pairs with the Acquire in `load`. Acquire on
        // failure: the caller goes on to read what the word that beat us names.
        match self.0.compare_exchange(seen.0, next.0, Ordering::Release, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(Word(now)),
        }
    }

    /// Copies a word into a page that nobody can see yet.
    #[inline]
    pub fn copy_unpublished(&self, word: Word) {
        // Release: a reader that still looks at what this memory was before, and loads this word (Acquire), then also
        // sees that its page is gone.
        self.0.store(word.0, Ordering::Release);
    }
}

const _: () = assert!(size_of::<Slot>() == 8 || cfg!(loom));

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(address: u64) -> Location {
        Location::new(Kind::Log, Address(address), false)
    }

    #[test]
    fn a_word_keeps_tag_kind_and_address_apart() {
        for address in [0, 1, (1 << 40) - 1] {
            for (kind, unverified) in [(Kind::Log, false), (Kind::Log, true), (Kind::Removed, false)] {
                let location = Location::new(kind, Address(address), unverified);
                let tag = Tag::of(0xfedc_ba98_7654_3210);
                let word = Word::new(tag, location);
                assert_eq!((word.location(), word.tag()), (Some(location), tag));
                assert!(!word.is_vacant());
            }
        }
        assert_eq!((Word::VACANT.location(), Word::VACANT.as_link()), (None, None));
        let link = Word::link((1 << TAG_SHIFT) - 1);
        assert_eq!((link.location(), link.as_link()), (None, Some((1 << TAG_SHIFT) - 1)));
        assert_eq!(Word::new(Tag::of(0), at(0)).as_link(), None);
    }

    #[test]
    fn a_tag_matches_its_hash_after_every_split_and_no_other() {
        let hash = 0x9e37_79b9_7f4a_7c15_u64;
        let (mut tag, mut rest) = (Tag::of(hash), hash);
        while let Some((high, next)) = tag.split() {
            assert_eq!(high, rest >> 63 == 1);
            rest <<= 1;
            tag = next;
            assert!(tag.matches(Tag::of(rest)));
            assert!(!tag.matches(Tag::of(rest ^ 1 << 63)));
            assert!(!tag.matches(Tag::of(rest ^ 1 << 54)), "the tenth bit is always known");
            assert_eq!(tag.bucket_bits(), (rest >> 54) as u32);
        }
        assert!(tag.matches(Tag::of(rest ^ 1 << 53)), "after ten splits the eleventh bit is unknown");
    }

    #[test]
    fn only_the_first_of_two_publishers_wins() {
        let slot = Slot::default();
        let tag = Tag::of(7);
        assert_eq!(slot.publish(Word::VACANT, tag, at(1)), Ok(()));
        let beaten_by = slot.publish(Word::VACANT, tag, at(2)).unwrap_err();
        assert_eq!(beaten_by.location(), Some(at(1)));
    }
}
