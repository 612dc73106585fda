//! The slot: one atomic word that says where a key lives now, and arrays of such words.
//!
//! Holds the layout of the word (`DESIGN.md`, *The index*), the tag's arithmetic and [`Reserved`] memory.
//! Never holds keys or records. Invariant: a location enters a slot only as a tier made it, so what
//! a slot names was placed before.

use std::{fmt, ops::Deref};

use crate::sync::{AtomicU64, Ordering};

const ADDRESS_BITS: u32 = 40;
const KIND_SHIFT: u32 = ADDRESS_BITS;
const UNVERIFIED: u64 = 1 << 42;
const TAG_SHIFT: u32 = 43;

/// What a slot's location is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A value in the log. (2 is reserved for a record in memory.)
    Log = 1,
    /// A tombstone in the log: the key is gone.
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

    /// Bytes from the start of the segment whose first slot is `base`.
    #[inline]
    pub(crate) fn offset_from(self, base: usize) -> u64 {
        (self.0 - ((base as u64) << 23)) * 8
    }
}

/// Where a record lives. Only the tiers make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub(crate) kind: Kind,
    pub(crate) address: Address,
    pub(crate) unverified: bool,
}

impl Location {
    /// Value or tombstone.
    #[inline]
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// The position in the log.
    #[inline]
    pub fn address(self) -> Address {
        self.address
    }

    /// The same place as that of a removed key: for a slot whose new key is to be gone again.
    #[must_use]
    pub fn as_removed(self) -> Self {
        Self { kind: Kind::Removed, ..self }
    }

    /// Whether the record failed its checksum when it was found, so that reading it must say so.
    #[inline]
    pub fn is_unverified(self) -> bool {
        self.unverified
    }
}

#[cfg(feature = "model")]
impl Location {
    /// A location that names the number `n`, below 2⁴⁰, and no record; for tests of the index alone.
    pub fn of_model(n: u64, kind: Kind) -> Self {
        Self { kind, address: Address(n), unverified: false }
    }

    /// The number.
    pub fn model_number(self) -> u64 {
        self.address.0
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
        let unverified = if at.unverified { UNVERIFIED } else { 0 };
        Self((tag.0 as u64) << TAG_SHIFT | unverified | (at.kind as u64) << KIND_SHIFT | at.address.0)
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

    /// Where the key lives, or `None` in a vacant word.
    #[inline]
    pub fn location(self) -> Option<Location> {
        let kind = match self.0 >> KIND_SHIFT & 3 {
            1 => Kind::Log,
            3 => Kind::Removed,
            _ => return None,
        };
        let address = Address(self.0 & ((1 << ADDRESS_BITS) - 1));
        Some(Location { kind, address, unverified: self.0 & UNVERIFIED != 0 })
    }

    /// The same location under another tag; for copying a page that splits.
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
///   VACANT --publish--> LOG --publish--> LOG, of a higher sequence
///                        |  ^
///                 remove |  | insert
///                        v  |
///                      REMOVED   (names the tombstone; goes when its page is copied)
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

    /// Asks for the slot's cache line, for somebody who needs it soon and has other work first.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        // SAFETY: a prefetch changes nothing but the cache, and may be given any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(self).cast());
        }
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

/// A type for which zeroed memory is a value, and which needs no drop. Sealed: our three atomics.
pub trait Zeroed: Default + Sync + Send + sealed::Sealed {}
impl Zeroed for Slot {}
impl Zeroed for AtomicU64 {}
#[cfg(not(loom))]
impl Zeroed for std::sync::atomic::AtomicU32 {}
#[cfg(loom)]
impl Zeroed for loom::sync::atomic::AtomicU32 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Slot {}
    impl Sealed for super::AtomicU64 {}
    #[cfg(not(loom))]
    impl Sealed for std::sync::atomic::AtomicU32 {}
    #[cfg(loom)]
    impl Sealed for loom::sync::atomic::AtomicU32 {}
}

#[cfg(not(any(loom, miri)))]
mod reserved {
    use memmap2::{Advice, MmapOptions, MmapRaw};

    const HUGE_PAGE_BYTES: usize = 2 << 20;

    /// See [`super::Reserved`].
    pub(super) struct Reserved<T> {
        /// Inside `_memory`, aligned to 2 MiB.
        start: *const T,
        count: usize,
        _memory: MmapRaw,
    }

    // SAFETY: `start` points into memory that the value owns, and `Zeroed` types can be shared and sent.
    unsafe impl<T: super::Zeroed> Send for Reserved<T> {}
    // SAFETY: as above.
    unsafe impl<T: super::Zeroed> Sync for Reserved<T> {}

    impl<T: super::Zeroed> Reserved<T> {
        /// Reserves addresses for `count` zeroed items, or for as many halvings of that as the system allows.
        ///
        /// The start is aligned to 2 MiB. Memory is taken page by page at first touch; huge pages are
        /// asked for, where the system has them, behind the first 2 MiB, so that a small store stays small.
        ///
        /// # Errors
        /// What the system says when it refuses even 2 MiB.
        pub(super) fn new(count: usize) -> std::io::Result<Self> {
            let mut count = count;
            loop {
                let bytes = count.max(1) * size_of::<T>() + HUGE_PAGE_BYTES;
                match MmapOptions::new().len(bytes).no_reserve_swap().map_anon() {
                    Ok(map) => {
                        let skipped = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
                        let memory = MmapRaw::from(map);
                        let behind = skipped + HUGE_PAGE_BYTES;
                        if behind < bytes {
                            // Advice only: without huge pages everything works, a little slower.
                            let _ = memory.advise_range(Advice::HugePage, behind, bytes - behind);
                        }
                        let start = memory.as_ptr().wrapping_add(skipped).cast();
                        return Ok(Self { start, count, _memory: memory });
                    }
                    Err(error) if bytes <= 2 * HUGE_PAGE_BYTES => return Err(error),
                    Err(_) => count /= 2,
                }
            }
        }
    }

    impl<T: super::Zeroed> std::ops::Deref for Reserved<T> {
        type Target = [T];

        #[inline]
        fn deref(&self) -> &[T] {
            // SAFETY: the anonymous mapping is private to `self`, readable and writable, and reaches at least
            // `count` items behind `start` (`new`), which is aligned to 2 MiB; the system zeroed it and `Zeroed`
            // promises that zeros are values of `T`, which are atomics, so shared references suffice for
            // every change.
            unsafe { std::slice::from_raw_parts(self.start, self.count) }
        }
    }
}

#[cfg(any(loom, miri))]
mod reserved {
    /// See [`super::Reserved`]; a vector where the system's mappings cannot be used.
    #[derive(Debug)]
    pub(super) struct Reserved<T>(Vec<T>);

    impl<T: super::Zeroed> Reserved<T> {
        /// Makes at most 4 096 items.
        pub(super) fn new(count: usize) -> std::io::Result<Self> {
            Ok(Self((0..count.min(if cfg!(loom) { 64 } else { 1 << 16 })).map(|_| T::default()).collect()))
        }
    }

    impl<T> std::ops::Deref for Reserved<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }
}

/// A long array of zeroed atomics whose addresses are reserved at once and whose memory comes with use.
pub struct Reserved<T>(reserved::Reserved<T>);

impl<T: Zeroed> Reserved<T> {
    /// Reserves `count` items, fewer (by halving) when the system refuses so many addresses.
    ///
    /// # Errors
    /// What the system says when it refuses even 2 MiB.
    pub fn new(count: usize) -> std::io::Result<Self> {
        reserved::Reserved::new(count).map(Self)
    }
}

impl<T: Zeroed> Deref for Reserved<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Zeroed> fmt::Debug for Reserved<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reserved({})", self.len())
    }
}

const _: () = assert!(size_of::<Slot>() == 8 || cfg!(loom));

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(address: u64) -> Location {
        Location { kind: Kind::Log, address: Address(address), unverified: false }
    }

    #[test]
    fn a_word_keeps_tag_kind_and_address_apart() {
        for address in [0, 1, (1 << 40) - 1] {
            for (kind, unverified) in [(Kind::Log, false), (Kind::Log, true), (Kind::Removed, false)] {
                let location = Location { kind, address: Address(address), unverified };
                let tag = Tag::of(0xfedc_ba98_7654_3210);
                let word = Word::new(tag, location);
                assert_eq!((word.location(), word.tag()), (Some(location), tag));
                assert!(!word.is_vacant());
            }
        }
        assert_eq!(Word::VACANT.location(), None);
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

    #[test]
    fn reserved_memory_is_zeroed_and_aligned_for_buckets() {
        let slots = Reserved::<Slot>::new(1 << 20).unwrap();
        assert_eq!(slots.len(), if cfg!(miri) { 1 << 16 } else { 1 << 20 });
        assert!(slots[0].load().is_vacant() && slots[slots.len() - 1].load().is_vacant());
        assert!(cfg!(miri) || slots.as_ptr().addr().is_multiple_of(64));
    }
}
