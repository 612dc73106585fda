//! What a cache keeps in a record beside or instead of the value's bytes: the decoded value, of whatever type, and what its entry says.
//!
//! Holds that, and what it weighs. Safe code, and no record: it is written to and read from one in `arena.rs`. Invariant: it is
//! dropped once, when nobody can see the record any more.

use std::{
    any::Any,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// What a cache works with.
pub type Object = Arc<dyn Any + Send + Sync>;

/// An entry as a cache works with it: its value is one step from the record, and what is asked for at every hit stands in it.
#[derive(Clone)]
pub struct Decoded {
    /// The value.
    pub object: Object,
    /// The value again, for whoever can say it in a word.
    pub word: u64,
    /// Milliseconds from the write on after which it is stale; 0: never.
    pub stale_after_ms: u64,
    /// How long it took to compute, in microseconds; 0: nobody knows.
    pub cost_us: u64,
    /// What else the entry says.
    pub note: Option<Object>,
}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoded").field("stale_after_ms", &self.stale_after_ms).finish_non_exhaustive()
    }
}

/// A decoded entry, and the bytes of the value that it stands for.
#[derive(Clone, Debug)]
pub struct Kept {
    decoded: Decoded,
    value_bytes: u64,
}

/// What an object and its note take beside what their bytes would, about.
const OBJECT_BYTES: u64 = 64;

pub(super) const KEPT_BYTES: u64 = size_of::<Kept>() as u64;
const _: () = assert!(KEPT_BYTES == 64 && align_of::<Kept>() == 8);

impl Kept {
    /// `decoded` is what a value of so many bytes says.
    pub fn new(decoded: Decoded, value_bytes: u64) -> Self {
        Self { decoded, value_bytes }
    }

    /// The entry.
    #[inline]
    pub fn decoded(&self) -> &Decoded {
        &self.decoded
    }

    /// The entry, to keep it.
    pub fn into_decoded(self) -> Decoded {
        self.decoded
    }

    /// Bytes of the value.
    pub fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    /// What the memory tier is charged for it.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.value_bytes + OBJECT_BYTES
    }
}

/// Objects that nobody can see any more. Dropping one runs its user's code, which may call the store: so whoever reclaims only
/// leaves them here, and somebody drops them who holds nothing.
#[derive(Debug, Default)]
pub(in crate::memory) struct Released {
    objects: Mutex<Vec<Kept>>,
    has_some: AtomicBool,
}

impl Released {
    pub(super) fn add(&self, kept: Kept) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        // Relaxed: a hint; who misses it comes again.
        self.has_some.store(true, Ordering::Relaxed);
    }

    /// Drops them. One load if there are none.
    #[inline]
    pub(in crate::memory) fn drop_all(&self) {
        if self.has_some.load(Ordering::Relaxed) {
            self.drop_some();
        }
    }

    #[cold]
    fn drop_some(&self) {
        self.has_some.store(false, Ordering::Relaxed);
        let objects = mem::take(&mut *self.objects.lock().unwrap_or_else(PoisonError::into_inner));
        for object in objects {
            // A panic of its own ends here, and so does what it panicked with: neither is the caller's.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(object))) {
                mem::forget(panic);
            }
        }
    }
}
