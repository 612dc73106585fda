//! Records of a segment, shown: from the map, or from what a call reads.
//!
//! Holds the looks that make a file somebody cuts an error and not other bytes (`cut.rs`). Never believes a length before it is held
//! against what is there.

use std::{borrow::Cow, io};

use super::{File, Keys, Map, READ_BYTES, RECORDS_START, Record, Segment, format};
use crate::{Error, Result};

impl Segment {
    /// Shows the record at `offset`, as it was written: if the file was cut that may cost a checksum.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is none, or not all of it any more. Otherwise its checksum is not looked at, nor if it is
    /// `unverified`.
    #[inline]
    pub(crate) fn read<R>(
        &self,
        keys: &Keys,
        offset: u64,
        unverified: bool,
        show: impl FnOnce(Record<'_>) -> R,
    ) -> Result<R> {
        let Some(map) = &self.map else { return self.read_unmapped(keys, offset, unverified, show) };
        let Some(record) = read_mapped(map, keys, offset) else { return Err(self.no_record(offset)) };
        let end = offset + record.unpadded_bytes();
        if !self.is_plainly_whole(map, end) {
            return self.read_carefully(map, keys, offset, unverified, show);
        }
        let shown = show(record);
        // What a cut takes away does not come back: what is whole now was whole when it was shown.
        if !self.is_plainly_whole(map, end) {
            self.read_carefully(map, keys, offset, unverified, |_| ())?;
        }
        Ok(shown)
    }

    /// Asks for the first cache lines of the record at `offset`, if it is mapped.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64) {
        if let Some(map) = &self.map {
            map.prefetch(offset);
        }
    }

    #[cold]
    fn read_unmapped<R>(
        &self,
        keys: &Keys,
        offset: u64,
        unverified: bool,
        show: impl FnOnce(Record<'_>) -> R,
    ) -> Result<R> {
        let io = |offset| Error::io("read", self.path.clone(), offset);
        let (mut bytes, left) = self.first_bytes(offset).map_err(io(offset))?;
        let words = (format::word_at(&bytes, 0), format::word_at(&bytes, 8));
        let (Some(commit), Some(lengths)) = (words.0, words.1.and_then(|word| keys.lengths(word))) else {
            return Err(self.no_record(offset));
        };
        if lengths.bytes() > left || commit as u32 == 0 {
            return Err(self.no_record(offset));
        }
        let have = bytes.len() as u64;
        bytes.resize(lengths.bytes() as usize, 0);
        if lengths.bytes() > have {
            self.file.read_at(offset + have, &mut bytes[have as usize..]).map_err(io(offset))?;
        }
        let record = Record::new(commit, lengths, &bytes[8..]).ok_or_else(|| self.no_record(offset))?;
        if bytes.last() == Some(&0) && !unverified {
            self.check(keys, offset, &record)?;
        }
        Ok(show(record))
    }

    /// The namespace that the record at `offset` states, whatever else is wrong with it.
    pub(crate) fn stated_namespace(&self, offset: u64) -> Result<u32> {
        let mut word = [0; 8];
        self.file()?.read_at(offset, &mut word).map_err(Error::io("read", &self.path, offset))?;
        Ok((u64::from_le_bytes(word) >> 32) as u32)
    }

    /// What most records fit in, from `offset` on, and how many bytes the file has from there.
    fn first_bytes(&self, offset: u64) -> io::Result<(Vec<u8>, u64)> {
        let measure = || self.file.bytes().map(|bytes| bytes.saturating_sub(offset));
        let mut left = measure()?;
        loop {
            let mut bytes = vec![0; left.min(READ_BYTES) as usize];
            match self.file.read_at(offset, &mut bytes) {
                Ok(()) => return Ok((bytes, left)),
                Err(error) => {
                    // What lay behind the last record may have been given back meanwhile.
                    let before = std::mem::replace(&mut left, measure()?);
                    if error.kind() != io::ErrorKind::UnexpectedEof || left >= before {
                        return Err(error);
                    }
                }
            }
        }
    }

    #[cold]
    pub(super) fn no_record(&self, offset: u64) -> Error {
        self.cut_at(offset).unwrap_or_else(|| self.corrupt(offset, "no record where the index names one".to_owned()))
    }

    /// Holds a record against its checksum.
    pub(crate) fn check(&self, keys: &Keys, offset: u64, record: &Record<'_>) -> Result<()> {
        let (stored, computed) = record.checksums(keys);
        if stored == computed || stored == !computed {
            return Ok(());
        }
        let cut = self.cut_at(offset);
        Err(cut.unwrap_or_else(|| self.mismatch(offset, stored, computed)))
    }

    /// Damage at `offset`.
    #[cold]
    fn mismatch(&self, offset: u64, stored: u32, computed: u32) -> Error {
        self.corrupt(offset, format!("checksum mismatch (stored {stored:08x}, computed {computed:08x})"))
    }

    #[cold]
    pub(crate) fn corrupt(&self, offset: u64, what: String) -> Error {
        Error::Corrupt { file: self.path.clone(), offset, what }
    }

    /// The bytes from `start` up to `end`, or to the end of the file. No writer may be active there.
    pub(crate) fn quiet_bytes(&self, start: u64, end: u64) -> Result<Cow<'_, [u8]>> {
        // Whoever scans what is left says what is missing: see `cut.rs`.
        let bytes = end.min(self.file_bytes()?).saturating_sub(start);
        if bytes == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if let Some(map) = &self.map {
            let bytes = bytes.min(map.bytes().saturating_sub(start));
            return Ok(map.quiet(start, bytes).unwrap_or_default().into());
        }
        let mut buffer = vec![0; bytes as usize];
        self.file.read_at(start, &mut buffer).map_err(Error::io("read", &self.path, start))?;
        Ok(buffer.into())
    }

    /// As [`quiet_bytes`](Self::quiet_bytes), of what was there when the file was opened: asks for its length only if it is not mapped.
    pub(crate) fn found_bytes(&self, end: u64) -> Result<Cow<'_, [u8]>> {
        let bytes = end.saturating_sub(RECORDS_START);
        match self.map.as_ref().and_then(|map| map.quiet(RECORDS_START, bytes)) {
            Some(bytes) => Ok(bytes.into()),
            None => self.quiet_bytes(RECORDS_START, end),
        }
    }
}

#[inline]
pub(super) fn read_mapped<'a>(map: &'a Map, keys: &Keys, offset: u64) -> Option<Record<'a>> {
    map.prefetch(offset);
    let (commit, length) = map.first_words(offset)?;
    let lengths = keys.lengths(length).filter(|_| commit as u32 != 0)?;
    Record::new(commit, lengths, map.quiet(offset + 8, lengths.bytes() - 8)?)
}
