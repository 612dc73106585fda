//! A place for something shared that may be taken out while others look at it.
//!
//! Holds one pointer. Invariant: what was seen through a guard is there until that guard drops, whatever comes to the place meanwhile.

use std::{
    fmt,
    marker::PhantomData,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicPtr, Ordering},
    },
};

use super::Guard;

/// Something shared, or nothing. Looking at it is a load.
pub(crate) struct Shared<T: Send + Sync + 'static> {
    /// Of an [`Arc`] that is this one's, or null.
    pointer: AtomicPtr<T>,
    owner: PhantomData<Arc<T>>,
}

impl<T: Send + Sync + 'static> Shared<T> {
    pub(crate) const fn empty() -> Self {
        Self { pointer: AtomicPtr::new(ptr::null_mut()), owner: PhantomData }
    }

    /// What is here; it stays as long as the guard does.
    #[inline]
    pub(crate) fn get<'a>(&'a self, _guard: &'a Guard) -> Option<&'a T> {
        // Acquire: pairs with the Release in `put`.
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: `put` got the pointer from an `Arc` that is ours until `take` hands it to the guards, or `drop` has us alone.
        // What `take` retires is dropped after every guard that was there then, and a guard that came later finds no pointer to it.
        unsafe { pointer.as_ref() }
    }

    /// The same, for longer than a guard lives.
    pub(crate) fn share(&self, guard: &Guard) -> Option<Arc<T>> {
        let pointer = ptr::from_ref(self.get(guard)?);
        // SAFETY: as in `get`, so the count is at least one while the guard is there; the one that is added is what is returned.
        Some(unsafe {
            Arc::increment_strong_count(pointer);
            Arc::from_raw(pointer)
        })
    }

    /// Puts something here. `false` if something is.
    #[must_use]
    pub(crate) fn put(&self, shared: Arc<T>) -> bool {
        let pointer = Arc::into_raw(shared).cast_mut();
        // Release: pairs with the Acquire in `get`.
        let put = self.pointer.compare_exchange(ptr::null_mut(), pointer, Ordering::Release, Ordering::Relaxed);
        if put.is_err() {
            // SAFETY: the pointer is of the `Arc` above, and nobody else has seen it.
            drop(unsafe { Arc::from_raw(pointer) });
        }
        put.is_ok()
    }

    /// Takes out what is here: it is dropped when nobody looks at it any more.
    pub(crate) fn take(&self) {
        // Acquire: whoever drops it comes after who has put it here.
        let pointer = self.pointer.swap(ptr::null_mut(), Ordering::Acquire);
        if !pointer.is_null() {
            // SAFETY: as in `get`: the pointer is of an `Arc` that was ours, and nobody finds it here any more.
            let taken = unsafe { Arc::from_raw(pointer) };
            Guard::pin().retire(move || drop(taken));
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Shared<T> {
    fn drop(&mut self) {
        let pointer = *self.pointer.get_mut();
        if !pointer.is_null() {
            // SAFETY: as in `get`. Nobody looks through a place that is dropped.
            drop(unsafe { Arc::from_raw(pointer) });
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.pointer.load(Ordering::Relaxed).is_null() {
            "Shared(nothing)"
        } else {
            "Shared(something)"
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{sync::atomic::AtomicU64, thread};

    use super::*;

    const GONE: u64 = u64::MAX;

    /// Says that it is gone when it is dropped.
    struct Told(Arc<AtomicU64>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(GONE, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_seen_under_a_guard_stays_until_it_drops() {
        let rounds = if cfg!(miri) { 30 } else { 5_000 };
        let place = Shared::empty();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut last = 0;
                        while last < rounds {
                            let guard = Guard::pin();
                            let Some(told) = place.get(&guard) else { continue };
                            let value: &Told = told;
                            last = value.0.load(Ordering::Relaxed);
                            (0..20).for_each(|_| assert_ne!(value.0.load(Ordering::Relaxed), GONE));
                        }
                    })
                })
                .collect();
            for round in 1..=rounds {
                place.take();
                assert!(place.put(Arc::new(Told(Arc::new(AtomicU64::new(round))))));
            }
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        let shared = place.share(&Guard::pin()).unwrap();
        assert!(!place.put(Arc::new(Told(Arc::default()))), "it is taken");
        drop(place);
        assert_eq!(shared.0.load(Ordering::Relaxed), rounds);
    }
}
