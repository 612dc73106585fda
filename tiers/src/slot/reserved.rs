//! Long arrays of atomics whose memory comes with use.
//!
//! Holds addresses, and what the system put behind them: zeros. Never moves. Invariant: what was handed out as a
//! reference stays where it is while the array lives.

use std::{
    fmt,
    ops::{Deref, Range},
};

use super::{Bucket, Slot};

/// A long array of zeroed atomics whose addresses are reserved at once and whose memory comes with use.
pub struct Reserved<T>(memory::Reserved<T>);

impl<T: Zeroed> Reserved<T> {
    /// Reserves `count` items, fewer (by halving) when the system refuses so many addresses.
    ///
    /// # Errors
    /// What the system says when it refuses even 2 MiB.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let reserved = memory::Reserved::new(count)?;
        // Behind the first 2 MiB, so that a small store stays small.
        reserved.advise_huge((HUGE_PAGE_BYTES / size_of::<T>()).min(reserved.len())..reserved.len());
        Ok(Self(reserved))
    }

    /// As [`new`](Self::new), without asking for huge pages.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub(crate) fn plain(count: usize) -> std::io::Result<Self> {
        memory::Reserved::new(count).map(Self)
    }

    /// Asks for huge pages, where the system has them.
    pub(crate) fn advise_huge(&self, items: Range<usize>) {
        self.0.advise_huge(items);
    }

    /// Gives the memory of `items` back to the system; they are zero from here on.
    ///
    /// # Safety
    /// Nobody looks at them or has a reference that is not to an atomic.
    pub(crate) unsafe fn discard(&self, items: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe { self.0.discard(items) }
    }
}

const HUGE_PAGE_BYTES: usize = 2 << 20;

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
impl Zeroed for std::sync::atomic::AtomicU64 {}
impl Zeroed for std::sync::atomic::AtomicU32 {}
impl Zeroed for std::sync::atomic::AtomicU16 {}
#[cfg(loom)]
impl Zeroed for loom::sync::atomic::AtomicU64 {}
#[cfg(loom)]
impl Zeroed for loom::sync::atomic::AtomicU32 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Slot {}
    impl Sealed for super::Bucket {}
    impl Sealed for std::sync::atomic::AtomicU64 {}
    impl Sealed for std::sync::atomic::AtomicU32 {}
    impl Sealed for std::sync::atomic::AtomicU16 {}
    #[cfg(loom)]
    impl Sealed for loom::sync::atomic::AtomicU64 {}
    #[cfg(loom)]
    impl Sealed for loom::sync::atomic::AtomicU32 {}
}

#[cfg(not(any(loom, miri)))]
mod memory {
    use std::ops::Range;

    use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

    use super::HUGE_PAGE_BYTES;

    /// See [`super::Reserved`].
    pub(super) struct Reserved<T> {
        /// Inside `memory`, aligned to 2 MiB.
        start: *const T,
        count: usize,
        memory: MmapRaw,
    }

    // SAFETY: `start` points into memory that the value owns, and `Zeroed` types can be shared and sent.
    unsafe impl<T: super::Zeroed> Send for Reserved<T> {}
    // SAFETY: as above.
    unsafe impl<T: super::Zeroed> Sync for Reserved<T> {}

    impl<T: super::Zeroed> Reserved<T> {
        /// Reserves addresses for `count` zeroed items, or for as many halvings of that as the system allows.
        ///
        /// The start is aligned to 2 MiB. Memory is taken page by page at first touch.
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
                        let start = memory.as_ptr().wrapping_add(skipped).cast();
                        return Ok(Self { start, count, memory });
                    }
                    Err(error) if bytes <= 2 * HUGE_PAGE_BYTES => return Err(error),
                    Err(_) => count /= 2,
                }
            }
        }

        fn bytes(&self, items: Range<usize>) -> (usize, usize) {
            let skipped = self.start.addr() - self.memory.as_ptr().addr();
            (skipped + items.start * size_of::<T>(), items.len() * size_of::<T>())
        }

        /// See [`super::Reserved::advise_huge`].
        pub(super) fn advise_huge(&self, items: Range<usize>) {
            let (offset, bytes) = self.bytes(items);
            if bytes > 0 {
                // Advice only: without huge pages everything works, a little slower.
                let _ = self.memory.advise_range(Advice::HugePage, offset, bytes);
            }
        }

        /// See [`super::Reserved::discard`].
        pub(super) unsafe fn discard(&self, items: Range<usize>) {
            let (offset, bytes) = self.bytes(items);
            // SAFETY: inside the mapping, which is ours and anonymous; nobody looks, the caller promised.
            // If the system refuses, the memory stays ours, and what it holds does not matter.
            let _ = unsafe { self.memory.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, bytes) };
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

        /// Does nothing.
        pub(super) fn advise_huge(&self, _items: std::ops::Range<usize>) {}

        /// Does nothing.
        pub(super) unsafe fn discard(&self, _items: std::ops::Range<usize>) {}
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
