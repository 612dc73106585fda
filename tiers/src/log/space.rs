//! What the log's files take on disk, and the ceiling on that.
//!
//! Holds one sum and the rule for who may add to it. Never touches a file. Invariant: the sum counts a file with all of its
//! reserved bytes, from before it is made until nobody looks into it any more.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::format::RECORDS_START;
use crate::{Error, Result};

/// Segments that a ceiling leaves room for at least: one that is appended to, one to go on in, the compactor's, and one that can
/// be emptied.
pub(super) const SEGMENTS_MIN: u64 = 4;

/// For whom a file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For writers: they leave room for one cold segment.
    Written,
    /// For one large value.
    Alone,
    /// For removals, which come first on a full disk.
    Removed,
    /// For copies, which give back at least as much as they take.
    Copied,
}

/// The bytes of all files of one log.
#[derive(Debug)]
pub(crate) struct Space {
    taken: Arc<AtomicU64>,
    /// The most they may be.
    capacity: Option<u64>,
    segment_bytes: u64,
    /// The store was opened with more than its ceiling allows, and has not come down yet.
    is_over: AtomicBool,
    /// Somebody was refused room.
    is_wanted: AtomicBool,
}

/// What one file takes of a sum.
#[derive(Debug)]
pub(super) struct Share {
    sum: Arc<AtomicU64>,
    bytes: AtomicU64,
}

impl Share {
    fn new(sum: Arc<AtomicU64>, bytes: u64) -> Self {
        // Relaxed, here and below: a sum orders nothing, and files are made under one lock.
        sum.fetch_add(bytes, Ordering::Relaxed);
        Self { sum, bytes: AtomicU64::new(bytes) }
    }

    /// From now on it takes so many.
    pub(super) fn set(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.sum.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Space {
    pub(super) fn new(capacity: Option<u64>, segment_bytes: u64) -> Self {
        Self {
            taken: Arc::default(),
            capacity,
            segment_bytes,
            is_over: AtomicBool::new(false),
            is_wanted: AtomicBool::new(false),
        }
    }

    /// Counts a file that is there.
    pub(super) fn share(&self, bytes: u64) -> Share {
        Share::new(self.taken.clone(), bytes)
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// To be called when all files that were found are counted.
    pub(super) fn note_found(&self) {
        let is_over = self.capacity.is_some_and(|capacity| self.taken() > capacity);
        self.is_over.store(is_over, Ordering::Relaxed);
    }

    /// Whether a record of so many bytes can fit beside what is always there.
    ///
    /// # Errors
    /// [`Error::NeverFits`].
    pub(super) fn check_record(&self, bytes: u64) -> Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let segment_bytes = self.segment_bytes;
        let bytes_max = capacity - (SEGMENTS_MIN - 1) * segment_bytes - RECORDS_START;
        if bytes <= bytes_max { Ok(()) } else { Err(Error::NeverFits { bytes, bytes_max, capacity, segment_bytes }) }
    }

    fn bytes_with(&self, bytes: u64, purpose: Purpose) -> u64 {
        let headroom = if purpose == Purpose::Copied { 0 } else { self.segment_bytes };
        self.taken() + bytes + headroom
    }

    pub(super) fn has_room(&self, bytes: u64, purpose: Purpose) -> bool {
        let Some(capacity) = self.capacity else { return true };
        if self.taken() + self.segment_bytes <= capacity {
            self.is_over.store(false, Ordering::Relaxed);
        }
        // What is over its ceiling comes down by copying, too.
        self.bytes_with(bytes, purpose) <= capacity
            || purpose == Purpose::Copied && self.is_over.load(Ordering::Relaxed)
    }

    /// Whether a file of so many bytes may be made. Refused writers are remembered until [`clear_want`](Self::clear_want).
    pub(super) fn check(&self, bytes: u64, purpose: Purpose, directory: impl FnOnce() -> String) -> Result<()> {
        if self.has_room(bytes, purpose) {
            return Ok(());
        }
        if purpose != Purpose::Copied {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
        let (taken, capacity) = (self.taken(), self.capacity.unwrap_or(u64::MAX));
        Err(Error::DiskCapacity { directory: directory(), bytes, taken, capacity })
    }

    /// By how much a file that was found may grow for writers.
    pub(super) fn growth_max(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.bytes_with(0, Purpose::Written)))
    }

    /// Bytes of a cold segment for a record of so many: a whole segment's, or what is left.
    pub(super) fn cold_bytes(&self, record_bytes: u64) -> u64 {
        let is_over = self.is_over.load(Ordering::Relaxed);
        let left =
            self.capacity.filter(|_| !is_over).map_or(u64::MAX, |capacity| capacity.saturating_sub(self.taken()));
        (left.min(self.segment_bytes) & !7).max(RECORDS_START + record_bytes)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    pub(super) fn clear_want(&self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.capacity.is_some()
    }
}
