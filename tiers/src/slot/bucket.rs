//! The bucket: the slots of one cache line.
//!
//! Holds the search for a tag in all of them at once. Invariant: what the search leaves out had another tag when it
//! looked; what it shows is for the caller to load and compare.

use std::ops::Deref;

use super::{Slot, Tag, Word};

/// So many slots that share a cache line. Fewer under loom, whose models grow with every one.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket([Slot; Bucket::SLOTS]);

impl Bucket {
    /// Slots of a bucket.
    pub const SLOTS: usize = if cfg!(loom) { 2 } else { 8 };

    /// Slots whose tag may agree, as bits: those with the ten bits that every tag knows, and vacant ones if these are
    /// zero. No branch depends on a slot, so that a miss in the cache does not become a mispredicted branch as well.
    #[inline]
    pub fn candidates(&self, tag: Tag) -> u32 {
        self.slots_with::<{ Tag::BUCKET_BITS }>(tag.bucket_bits())
    }

    /// The word of the first of `slots`, which are bits as above.
    #[inline]
    pub fn word(&self, slots: u32) -> Word {
        self[slots.trailing_zeros() as usize % Self::SLOTS].load()
    }

    /// Whether it has a vacant slot, so that nothing overflowed: slots are taken in order.
    #[inline]
    pub fn is_open(&self) -> bool {
        self[Self::SLOTS - 1].load().is_vacant()
    }

    /// The number of the first slot that has no key; at least [`SLOTS`](Self::SLOTS) if all have one.
    #[inline]
    pub fn vacant(&self) -> usize {
        // A tag is not zero, so neither is the upper half of a word that has one.
        self.slots_with::<32>(0).trailing_zeros() as usize
    }

    /// Slots whose word starts with these `BITS` bits, at most 32.
    #[inline]
    fn slots_with<const BITS: u32>(&self, bits: u32) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        return self.slots_with_sse2::<BITS>(bits);
        #[cfg(not(all(target_arch = "x86_64", not(any(loom, miri)))))]
        return self.slots_with_one_by_one::<BITS>(bits);
    }

    /// Asks for the bucket's cache line, for somebody who needs it soon and has other work first.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        // SAFETY: a prefetch changes nothing but the cache, and may be given any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(self).cast());
        }
    }

    /// Eight compares in four instructions. In assembler, because others store to the slots meanwhile: loads of the
    /// language would have to be atomic, and atomic loads cannot be made four words at a time.
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    #[inline]
    fn slots_with_sse2<const BITS: u32>(&self, bits: u32) -> u32 {
        let found: u32;
        // SAFETY: reads the 64 bytes of `self`, on a border of 16 as `movaps` and `shufps` want it, and writes none.
        // The processor loads each aligned word whole. Without `readonly` the compiler keeps later loads behind it, and
        // the processor does so by itself: each load is an Acquire, as in `Slot::load`.
        unsafe {
            std::arch::asm!(
                "movd {wanted}, {bits:e}",
                "pshufd {wanted}, {wanted}, 0",
                // The upper halves of two words and two more.
                "movaps {low}, [{slots}]",
                "shufps {low}, [{slots} + 16], 0xdd",
                "movaps {high}, [{slots} + 32]",
                "shufps {high}, [{slots} + 48], 0xdd",
                "psrld {low}, {ignored}",
                "psrld {high}, {ignored}",
                "pcmpeqd {low}, {wanted}",
                "pcmpeqd {high}, {wanted}",
                "packssdw {low}, {high}",
                "packsswb {low}, {low}",
                "pmovmskb {found:e}, {low}",
                slots = in(reg) self,
                bits = in(reg) bits,
                ignored = const 32 - BITS,
                wanted = out(xmm_reg) _,
                low = out(xmm_reg) _,
                high = out(xmm_reg) _,
                found = out(reg) found,
                options(nostack, preserves_flags),
            );
        }
        found & 0xff
    }

    #[cfg(any(test, not(all(target_arch = "x86_64", not(any(loom, miri))))))]
    fn slots_with_one_by_one<const BITS: u32>(&self, bits: u32) -> u32 {
        let agrees = |slot: &Slot| u32::from(slot.load().starts_with::<BITS>(bits));
        self.iter().enumerate().fold(0, |found, (index, slot)| found | agrees(slot) << index)
    }
}

impl Deref for Bucket {
    type Target = [Slot; Self::SLOTS];

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

const _: () = assert!(size_of::<Bucket>() == 64 || cfg!(loom));

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Address, Kind, Location};

    proptest! {
        #[test]
        fn both_searches_find_the_slots_whose_ten_bits_agree(hashes in proptest::collection::vec(0_u64..4, 0..=8), wanted in 0_u64..4) {
            let bucket = Bucket::default();
            // Neighbours in the ten bits, and equal ones that differ behind them.
            let tag_of = |n: u64| Tag::of((n << 53).wrapping_sub(1 << 54));
            for (slot, hash) in bucket.iter().zip(&hashes) {
                let at = Location::new(Kind::Log, Address::new(1, 8), false);
                slot.publish(Word::VACANT, tag_of(*hash), at).unwrap();
            }
            let bits = tag_of(wanted).bucket_bits();
            let agrees = |slot: &Slot| slot.load().tag().bucket_bits() == bits;
            let expected = bucket.iter().enumerate().filter(|(_, slot)| agrees(slot)).fold(0, |all, (index, _)| all | 1 << index);
            prop_assert_eq!(bucket.candidates(tag_of(wanted)), expected);
            prop_assert_eq!(bucket.slots_with_one_by_one::<{ Tag::BUCKET_BITS }>(bits), expected);
            let vacant = (0xff << hashes.len()) & 0xff;
            prop_assert_eq!(bucket.slots_with::<32>(0), vacant);
            prop_assert_eq!(bucket.slots_with_one_by_one::<32>(0), vacant);
            prop_assert!(bucket.vacant() == hashes.len() || hashes.len() == Bucket::SLOTS && bucket.vacant() > hashes.len());
        }
    }
}
