//! Mapped bytes: a segment's file, or anonymous memory for the faulty medium.
//!
//! Holds the only stores and loads that go through a mapping. Every access is held against the length.
//! Protocol: a range is written by the one that reserved it, before its commit word is stored with Release;
//! others look at it after they loaded that word with Acquire and found it set. Words that change
//! later (commit word, length word, the header's `flushed`) are only ever accessed as atomics.
//! A page that is missing reads as zeros and is noted (`map/cut.rs`): who relies on bytes asks `is_cut` after he has read them.

mod cut;

use std::{
    fmt, fs, io, ptr, slice,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use cut::Guarded;
use memmap2::{Advice, MmapOptions, MmapRaw};

/// Bytes that are made ready at once, and the border on which the system can map them as one page.
pub(crate) const STEP_BYTES: u64 = 2 << 20;

/// A shared mapping. Clones name the same bytes.
#[derive(Clone)]
pub struct Map {
    /// Keeps the mapping; `start` and `bytes` are its own, one pointer nearer.
    raw: Arc<Mapping>,
    start: Start,
    bytes: u64,
    writable: bool,
}

/// The mapping itself. In this order: what is unmapped is not guarded any more.
struct Mapping {
    /// `None` if no file is behind it.
    guarded: Option<Guarded>,
    raw: MmapRaw,
}

/// Where a mapping starts.
#[derive(Clone, Copy)]
struct Start(*mut u8);

// SAFETY: the pointer is only followed by `Map`, which keeps the mapping alive and says how it is shared.
unsafe impl Send for Start {}
// SAFETY: as above.
unsafe impl Sync for Start {}

impl Map {
    /// Maps the first `bytes` of `file`, which must be that long.
    ///
    /// Another process that cuts the file takes the ground away from under the mapping: what is missing reads as zeros then,
    /// and [`is_cut`](Self::is_cut) says so. Installs the process's handler of SIGBUS for that, once.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn file(file: &fs::File, bytes: u64, writable: bool) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let mut options = MmapOptions::new();
        options.len(bytes);
        let raw = if writable { options.map_raw(file)? } else { options.map_raw_read_only(file)? };
        // Advice only. One write fault then makes 2 MiB writable instead of walking a large folio per page.
        let _ = raw.advise(Advice::HugePage);
        let guarded = Guarded::new(raw.as_ptr(), raw.len(), writable);
        Ok(Self::new(raw, writable, Some(guarded)))
    }

    /// Zeroed memory that no file backs.
    pub(crate) fn anonymous(bytes: u64) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?.max(1);
        let raw = MmapRaw::from(MmapOptions::new().len(bytes).map_anon()?);
        Ok(Self::new(raw, true, None))
    }

    fn new(raw: MmapRaw, writable: bool, guarded: Option<Guarded>) -> Self {
        let (start, bytes) = (Start(raw.as_mut_ptr()), raw.len() as u64);
        Self { start, bytes, raw: Arc::new(Mapping { guarded, raw }), writable }
    }

    /// Whether a page was missing when somebody read or wrote it: what was read may be zeros that nobody wrote, and what was
    /// written may be nowhere. To be asked afterwards. One load of a word that never changes in a process where no file was cut.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        cut::any_cut() && self.is_this_cut()
    }

    #[cold]
    fn is_this_cut(&self) -> bool {
        self.raw.guarded.as_ref().is_some_and(Guarded::is_cut)
    }

    /// The same bytes, to be read only.
    pub(crate) fn read_only(self) -> Self {
        Self { writable: false, ..self }
    }

    /// Puts zeros in the place of a file, so that the system can have its space back. To be called when nobody has a slice of it;
    /// whoever looks later sees no record.
    pub(crate) fn forget(&self) {
        if self.raw.guarded.is_none() {
            return;
        }
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: exactly the range of our own mapping, which stays mapped until `raw` drops. By the protocol above nobody has
        // a slice of it: `compact.rs` calls this for segments that no slot names, when every guard and walk from before is gone.
        // If the system refuses, the old mapping stays, and with it the file's space until the store is closed.
        let _ = unsafe { mmap_anonymous(self.start.0.cast(), self.bytes as usize, ProtFlags::READ, flags) };
    }

    /// Length in bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Maps the pages of a range writable now, so that a store to them cannot fail later.
    ///
    /// # Errors
    /// What the system says: `ENOSPC` and `EIO` come from here instead of as a signal.
    pub(crate) fn populate(&self, from: u64, to: u64) -> io::Result<()> {
        let to = to.min(self.bytes());
        if from >= to {
            return Ok(());
        }
        let from = from - from % 4096;
        match self.raw.raw.advise_range(Advice::PopulateWrite, from as usize, (to - from) as usize) {
            // Kernels before 5.14 do not know the advice. The caller wrote the range through the file just
            // before, so its blocks and pages are there, and a store takes a minor fault instead.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    #[inline]
    fn check(&self, offset: u64, bytes: u64) -> usize {
        let fits = self.bytes.checked_sub(bytes).is_some_and(|last| offset <= last);
        assert!(fits, "offset {offset} and {bytes} bytes are beyond the map");
        offset as usize
    }

    #[inline]
    fn atomic(&self, offset: u64) -> &AtomicU64 {
        let offset = self.check(offset, 8);
        assert!(offset.is_multiple_of(8), "words are aligned");
        // SAFETY: the word is inside the mapping (`check`), which lives as long as `self`, and aligned: the
        // mapping starts on a page. Words at these places are accessed as atomics only, while others may
        // change them.
        unsafe { AtomicU64::from_ptr(self.start.0.add(offset).cast()) }
    }

    /// Loads the aligned little-endian word at `offset`.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> u64 {
        // Acquire: pairs with `store_word`; behind a commit word lies the record.
        u64::from_le(self.atomic(offset).load(Ordering::Acquire))
    }

    /// The first two words of the record at `offset`, or `None` beyond the end.
    #[inline]
    pub(crate) fn first_words(&self, offset: u64) -> Option<(u64, u64)> {
        if offset > self.bytes.checked_sub(16)? || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: as in `atomic`; both words are inside the mapping and aligned.
        let words = unsafe { &*self.start.0.add(offset as usize).cast::<[AtomicU64; 2]>() };
        // Acquire: pairs with `store_word`; behind a commit word lies the record.
        let [commit, length] = [words[0].load(Ordering::Acquire), words[1].load(Ordering::Acquire)];
        Some((u64::from_le(commit), u64::from_le(length)))
    }

    /// Asks for three cache lines from `offset` on, the first ones of a record: where its value lies is known only when its
    /// header has come, and by then the value should be on its way.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        for line in [0, 64, 128] {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch changes nothing but the cache, and may be given any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.start.0.wrapping_add(offset as usize + line).cast()) }
        }
    }

    /// The byte at `offset`; zero beyond the end.
    #[inline]
    pub(crate) fn byte(&self, offset: u64) -> u8 {
        if offset >= self.bytes {
            return 0;
        }
        // SAFETY: inside the mapping. As an atomic, because what was committed changes after all when somebody cuts the file.
        unsafe { AtomicU8::from_ptr(self.start.0.add(offset as usize)) }.load(Ordering::Relaxed)
    }

    /// Stores the aligned little-endian word at `offset`.
    #[inline]
    pub(crate) fn store_word(&self, offset: u64, word: u64) {
        assert!(self.writable, "only writable segments are written");
        // Release: what was written before is seen by whoever loads this word.
        self.atomic(offset).store(word.to_le(), Ordering::Release);
    }

    /// Copies `parts` side by side to `offset`, into a range that the caller reserved.
    #[inline]
    pub(crate) fn fill<const COUNT: usize>(&self, offset: u64, parts: [&[u8]; COUNT]) {
        assert!(self.writable, "only writable segments are written");
        let mut at = self.check(offset, parts.iter().map(|part| part.len() as u64).sum());
        for part in parts {
            // SAFETY: the target is inside the mapping (`check`, for all parts) and writable; `part` cannot overlap it,
            // since slices into the map cover committed records only, and the caller's range is not committed.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), self.start.0.add(at), part.len()) }
            at += part.len();
        }
    }

    /// The bytes of a range that nobody writes: committed, or quiet because no writer is in flight.
    #[inline]
    pub(crate) fn quiet(&self, offset: u64, bytes: u64) -> Option<&[u8]> {
        if offset > self.bytes.checked_sub(bytes)? {
            return None;
        }
        // SAFETY: the range is inside the mapping, which lives as long as `self`. The module's protocol has
        // nobody write a committed record or a range without writers.
        Some(unsafe { slice::from_raw_parts(self.start.0.add(offset as usize), bytes as usize) })
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} bytes)", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_nothing_beyond_the_end() {
        let map = Map::anonymous(4096).unwrap();
        map.fill(8, [b"thermo", b"", b"cline"]);
        map.store_word(0, 7);
        assert_eq!((map.word(0), map.quiet(8, 11)), (7, Some(&b"thermocline"[..])));
        assert_eq!(map.quiet(4096, 1), None);
        assert_eq!(map.quiet(u64::MAX, 2), None);
        assert!(std::panic::catch_unwind(|| map.fill(4090, [b"1234", b"567"])).is_err());
    }

    #[test]
    fn segments_are_mapped_on_a_border_of_two_mebibytes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * STEP_BYTES).unwrap();
        let map = Map::file(&file, 4 * STEP_BYTES, true).unwrap();
        // A misaligned mapping costs up to 100 times more per page; filesystems without large pages
        // (tmpfs with huge pages off, for one) may place it anywhere.
        if !map.start.0.addr().is_multiple_of(STEP_BYTES as usize) {
            eprintln!("this filesystem maps on 4 KiB borders");
        }
        assert!(map.start.0.addr().is_multiple_of(4096));
    }
}
