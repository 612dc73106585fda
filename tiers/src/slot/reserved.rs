//! Long arrays of atomics whose memory comes with use.
//!
//! Holds addresses, and what the system put behind them: zeros. Never moves. Invariant: what was handed out as a
//! reference stays where it is while the array lives.

use std::{fmt, ops::Deref};

use super::{Bucket, Slot};
use crate::sync::AtomicU64;

/// A long array of zeroed atomics whose addresses are reserved at once and whose memory comes with use.
pub struct Reserved<T>(memory::Reserved<T>);

impl<T: Zeroed> Reserved<T> {
    /// Reserves `count` items, fewer (by halving) when the system refuses so many addresses.
    ///
    /// # Errors
    /// What the system says when it refuses even 2 MiB.
    pub fn new(count: usize) -> std::io::Result<Self> {
        memory::Reserved::new(count).map(Self)
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

/// A type for which zeroed memory is a value, and which needs no drop. Sealed: our own atomics.
pub trait Zeroed: Default + Sync + Send + sealed::Sealed {}
impl Zeroed for Slot {}
impl Zeroed for Bucket {}
impl Zeroed for AtomicU64 {}
#[cfg(not(loom))]
impl Zeroed for std::sync::atomic::AtomicU32 {}
#[cfg(loom)]
impl Zeroed for loom::sync::atomic::AtomicU32 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Slot {}
    impl Sealed for super::Bucket {}
    impl Sealed for super::AtomicU64 {}
    #[cfg(not(loom))]
    impl Sealed for std::sync::atomic::AtomicU32 {}
    #[cfg(loom)]
    impl Sealed for loom::sync::atomic::AtomicU32 {}
}

#[cfg(not(any(loom, miri)))]
mod memory {
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
mod memory {
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn reserved_memory_is_zeroed_and_aligned_for_buckets() {
        let buckets = Reserved::<Bucket>::new(1 << 20).unwrap();
        assert_eq!(buckets.len(), if cfg!(miri) { 1 << 16 } else { 1 << 20 });
        assert!(buckets[0][0].load().is_vacant() && buckets[buckets.len() - 1][0].load().is_vacant());
        assert!(cfg!(miri) || buckets.as_ptr().addr().is_multiple_of(64));
    }
}
