//! A segment whose file somebody cut while the store was open.
//!
//! Holds how that is noticed. A cut leaves zeros behind it in the map, up to the end of the page without any sign, and in the pages
//! after it with a mark (`map/cut.rs`); growing the file again leaves zeros too. So a record is whole if its last byte is
//! not zero, or if something is written behind it where nobody writes any more, and no page of the map was missing; otherwise its checksum says.
//! Never repairs anything. Invariant: what a cut took is an error, not a miss, not other bytes.

use std::sync::atomic::Ordering;

use super::{Keys, Map, RECORDS_START, Record, Segment, shown::read_mapped};
use crate::{Error, Result, log::medium::File};

/// A record of at most this size is copied to the stack to be checked.
const SMALL_BYTES: usize = 512;

impl Segment {
    /// Whether the record that ends at `end` is known to be whole by a look at its last byte.
    #[inline]
    pub(super) fn is_plainly_whole(&self, map: &Map, end: u64) -> bool {
        // In this order: the mark is asked for after the bytes.
        (map.byte(end - 1) != 0 || self.is_followed(map, end)) && !map.is_cut()
    }

    /// Whether something stands behind a record that was there when the last writer had gone.
    fn is_followed(&self, map: &Map, end: u64) -> bool {
        let next = end.next_multiple_of(8);
        // Relaxed: a bound that only grows, and nothing is read through it but the map.
        next + 8 <= self.settled.load(Ordering::Relaxed) && next + 8 <= map.bytes() && map.word(next) != 0
    }

    /// Shows a copy of the record, once its checksum was found to be right.
    #[cold]
    #[inline(never)]
    pub(super) fn read_carefully<R>(
        &self,
        map: &Map,
        keys: &Keys,
        offset: u64,
        unverified: bool,
        show: impl FnOnce(Record<'_>) -> R,
    ) -> Result<R> {
        let lost = || self.no_record(offset);
        let bytes = read_mapped(map, keys, offset).ok_or_else(lost)?.unpadded_bytes() as usize;
        let (mut small, mut large) = ([0; SMALL_BYTES], Vec::new());
        let copy = match small.get_mut(..bytes) {
            Some(small) => small,
            None => {
                large.resize(bytes, 0);
                &mut large[..]
            }
        };
        copy.copy_from_slice(map.quiet(offset, bytes as u64).ok_or_else(lost)?);
        let record = Record::of_bytes(keys, copy).ok_or_else(lost)?;
        if !unverified {
            self.check(keys, offset, &record)?;
        }
        Ok(show(record))
    }

    /// What was written at `offset` through `map` is nowhere if the page was missing.
    #[inline]
    pub(super) fn check_uncut(&self, map: &Map, offset: u64) -> Result<()> {
        if map.is_cut() { Err(self.cut(offset)) } else { Ok(()) }
    }

    /// Whether a page of the map was missing.
    pub(crate) fn is_cut(&self) -> bool {
        self.map.as_ref().is_some_and(Map::is_cut)
    }

    #[cold]
    fn cut(&self, offset: u64) -> Error {
        let lost = || self.corrupt(offset, "the file was cut while the store was open, or cannot be read".to_owned());
        self.cut_at(offset).unwrap_or_else(lost)
    }

    /// The error that says that the file is shorter than it was, if it is. From here on nothing of the segment is taken for dead.
    #[cold]
    pub(super) fn cut_at(&self, offset: u64) -> Option<Error> {
        // Looked at on both sides of the file: it may grow or be cut on purpose meanwhile, and is at least as long as the less says.
        let before = self.length.load(Ordering::Relaxed);
        let bytes = self.file.bytes().ok()?;
        let length = before.min(self.length.load(Ordering::Relaxed));
        (bytes < length).then(|| {
            self.dead.set_damaged();
            let what = format!("the file was cut while the store was open: {bytes} bytes, expected at least {length}");
            self.corrupt(offset, what)
        })
    }

    /// # Errors
    /// [`Error::Corrupt`] if the file is shorter than it was, or a page of it was missing.
    pub(crate) fn check_length(&self) -> Result<()> {
        match self.cut_at(0) {
            Some(error) => Err(error),
            None if self.is_cut() => Err(self.cut(0)),
            None => Ok(()),
        }
    }

    /// # Errors
    /// [`Error::Io`] if `file`, which is this segment's, has no name any more: it goes with this process.
    pub(crate) fn check_named(&self, file: &dyn File) -> Result<()> {
        if file.is_removed().map_err(Error::io("measure", &self.path, 0))? {
            let removed = std::io::Error::new(std::io::ErrorKind::NotFound, "removed while the store was open");
            return Err(Error::io("flush", &self.path, 0)(removed));
        }
        Ok(())
    }

    /// Says that records reach up to `end` and nobody writes below it any more.
    pub(crate) fn settle(&self, end: u64) {
        self.settled.fetch_max(end, Ordering::Relaxed);
    }

    /// Up to where there were records, as far as that is known.
    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// What is missing of the records up to `expected`, of which those up to `end` were found; to be asked when they were looked at.
    pub(crate) fn missing(&self, end: u64, expected: u64) -> Option<Error> {
        if let Err(error) = self.check_length() {
            return Some(error);
        }
        (end.max(RECORDS_START) < expected).then(|| {
            self.dead.set_damaged();
            self.corrupt(end, format!("the last record ends here, there were records up to {expected}"))
        })
    }

    /// A void in the place of a record that could not be written whole, if the file reaches so far.
    pub(crate) fn make_void_if_there(&self, keys: &Keys, offset: u64, bytes: u64) -> Result<()> {
        match self.is_cut() && self.file_bytes()? < offset + bytes {
            true => Ok(()),
            false => self.make_void(keys, offset, bytes),
        }
    }
}
