//! One segment: a file of records, mapped where the medium allows it.
//!
//! Holds the two ways to place and read a record (through the map, or by `pwrite` and `pread`), and makes the bytes
//! ahead of the writers ready. Never chooses where a record goes. Invariant: a byte of the map is
//! stored to only below `ready`.

use std::{
    borrow::Cow,
    io,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

mod cut;

use super::{
    Medium,
    compact::Dead,
    format::{self, BadBlock, HEADER_BYTES, Header, Keys, RECORDS_START, RecordKind, SegmentHeader, commit_word},
    map::{Map, STEP_BYTES},
    medium::File,
    on_demand::OnDemand,
    record::{NewRecord, Placing, Record},
    space::{Share, Space},
};
use crate::{Error, Result, slot::Address};

static ZEROS: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; STEP_BYTES as usize]);
/// How much of an unmapped record is read at once, before its length is known.
const READ_BYTES: u64 = 512;

/// One file of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) capacity: u64,
    /// The first of its segment slots.
    pub(crate) base: usize,
    path: String,
    file: OnDemand,
    map: Option<Map>,
    /// Every byte below is allocated, and mapped writable if there is a map.
    ready: AtomicU64,
    /// Whether the bytes behind `ready` were given back.
    readying: Mutex<bool>,
    /// How long the file is, if nobody cut it.
    length: AtomicU64,
    /// Nobody writes below any more, and records reach up to here; 0: not known yet.
    settled: AtomicU64,
    /// The header's words as read at open: all below was flushed once.
    pub(crate) flushed: u64,
    /// Bytes of the file when it was opened; 0 if it was made by this process.
    pub(crate) found_bytes: u64,
    /// What is wrong with the header, if anything.
    pub(crate) header_damage: Option<String>,
    /// Whether it can be appended to.
    pub(crate) can_grow: bool,
    /// What is known of its dead records.
    pub(crate) dead: Dead,
    /// What its file takes.
    share: Share,
    /// Whether whatever shrinks was compressed when it came here: nothing is appended to it after opening.
    pub(crate) is_packed: bool,
}

/// The name of segment `number`.
pub(crate) fn name_of(number: u64) -> String {
    format!("{number:016x}.segment")
}

/// The number in a segment's name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits.len() == 16 && lower).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// How many segment slots a segment of `capacity` bytes takes.
pub(crate) fn slots_of(capacity: u64) -> usize {
    capacity.div_ceil(Address::SLOT_BYTES).max(1) as usize
}

impl Segment {
    /// Makes a new segment, its blocks reserved and its first `ready` bytes ready.
    pub(super) fn create(
        medium: Arc<dyn Medium>,
        header: SegmentHeader,
        base: usize,
        ready: u64,
        share: Share,
    ) -> Result<Self> {
        let name = name_of(header.number);
        let path = format!("{}/{name}", medium.directory());
        let unfinished = format!("{name}.new");
        // Left behind by an attempt that failed.
        let _ = medium.remove(&unfinished);
        // It gets its name when its header is durable, and its first record when its name is: a segment without a
        // header is damaged.
        let made = || -> io::Result<_> {
            let file = medium.create(&unfinished)?;
            file.allocate(header.capacity)?;
            file.write_at(0, &header.encode())?;
            file.flush()?;
            medium.rename(&unfinished, &name)?;
            medium.flush_directory()?;
            let map = file.map(header.capacity, true)?;
            Ok((file, map))
        };
        let undo = |error| {
            // Best effort: what stays behind is empty, or is removed at the next open.
            let _ = medium.remove(&unfinished).or_else(|_| medium.remove(&name));
            error
        };
        let (file, map) = made().map_err(Error::io("create", &path, 0)).map_err(undo)?;
        let segment = Self {
            number: header.number,
            capacity: header.capacity,
            base,
            path,
            file: OnDemand::new(medium.clone(), name.clone(), true, file),
            map,
            ready: AtomicU64::new(0),
            readying: Mutex::new(false),
            length: AtomicU64::new(header.capacity),
            settled: AtomicU64::new(0),
            flushed: RECORDS_START,
            found_bytes: 0,
            header_damage: None,
            can_grow: true,
            dead: Dead::default(),
            share,
            is_packed: header.is_packed,
        };
        segment.make_ready(ready).map_err(undo)?;
        segment.share.set(header.capacity);
        Ok(segment)
    }

    /// Opens the segment `number`; one that needs at most `growth_max` more bytes for that, if any are said, is mapped up to its
    /// capacity so that it can go on. Its place among the segment slots is for the caller to say.
    pub(super) fn open(
        medium: &Arc<dyn Medium>,
        store: [u8; 16],
        number: u64,
        writable: bool,
        growth_max: Option<u64>,
        share: Share,
    ) -> Result<Self> {
        let name = name_of(number);
        let path = format!("{}/{name}", medium.directory());
        let io = |action| Error::io(action, path.clone(), 0);
        let file = medium.open(&name, writable).map_err(io("open"))?;
        let found_bytes = file.bytes().map_err(io("measure"))?;
        let mut head = [0; RECORDS_START as usize];
        let head_bytes = found_bytes.min(RECORDS_START) as usize;
        file.read_at(0, &mut head[..head_bytes]).map_err(io("read"))?;
        let words = [64, 72].map(|at| format::word_at(&head, at).unwrap_or(0));
        let (capacity, is_packed, mut header_damage) = match read_header(&head, store, number) {
            Ok(header) => (header.capacity.max(found_bytes), header.is_packed, None),
            Err(BadHeader::Version(found)) => {
                return Err(Error::Version { file: path, found, supported: format::VERSION });
            }
            // Nothing of another store's is repaired, or called damaged.
            Err(BadHeader::Foreign(what)) => return Err(Error::Corrupt { file: path, offset: 16, what }),
            Err(BadHeader::Damaged(what)) => (found_bytes, false, Some(what)),
        };
        let flushed = format::decode_flushed(words, capacity);
        if head[80..].iter().any(|byte| *byte != 0) {
            header_damage.get_or_insert("the words behind the header are not zero".to_owned());
        }
        let may_grow = growth_max.is_some_and(|growth_max| capacity - found_bytes <= growth_max);
        let append = writable && may_grow && header_damage.is_none() && capacity <= 1 << 30 && !is_packed;
        if append && capacity > found_bytes {
            file.set_bytes(capacity).map_err(io("extend"))?;
        }
        share.set(if append { capacity } else { found_bytes });
        let map = file.map(if append { capacity } else { found_bytes }, append).map_err(io("map"))?;
        let file = OnDemand::new(medium.clone(), name, writable, file);
        let segment = Self {
            number,
            capacity,
            base: 0,
            file,
            map,
            ready: AtomicU64::new(0),
            readying: Mutex::new(false),
            length: AtomicU64::new(if append { capacity } else { found_bytes }),
            settled: AtomicU64::new(0),
            flushed,
            found_bytes,
            header_damage,
            can_grow: append,
            dead: Dead::default(),
            share,
            is_packed,
            path,
        };
        if !append {
            segment.release();
        }
        Ok(segment)
    }

    /// Closes the file if its records are read through a map: from now on it is needed seldom.
    pub(crate) fn release(&self) {
        if self.is_mapped() {
            self.file.release();
        }
    }

    /// What was done with the file, or `None` if that failed because compaction has removed it.
    ///
    /// # Errors
    /// As `result` says.
    pub(crate) fn unless_gone<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(_) if self.dead.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the space of a file back that has no name any more. Nobody looks into it, or will.
    pub(crate) fn forget(&self) {
        self.file.release();
        if let Some(map) = &self.map {
            map.forget();
        }
        self.share.set(0);
    }

    /// The path for messages.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// How many segment slots it takes.
    pub(crate) fn slots(&self) -> usize {
        slots_of(self.capacity)
    }

    /// Whether its records are read through a map.
    pub(crate) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// Bytes that have been made ready.
    #[inline]
    pub(crate) fn ready(&self) -> u64 {
        // Acquire: pairs with the Release in `make_ready`; below it stores cannot fail.
        self.ready.load(Ordering::Acquire)
    }

    /// Prepares a segment that was found at open for appending at `end`: what is below keeps its bytes.
    pub(crate) fn resume(&self, end: u64) -> Result<()> {
        self.check_length()?;
        self.file.allocate(self.capacity).map_err(Error::io("allocate", &self.path, end))?;
        self.length.store(self.capacity, Ordering::Relaxed);
        // Release: pairs with the Acquire in `ready`. Nothing below `end` is stored to.
        self.ready.fetch_max(end, Ordering::Release);
        Ok(())
    }

    /// Allocates, zeroes and maps what is missing up to `to`, rounded up to 2 MiB.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full or fails; what was ready stays so.
    #[inline]
    pub(crate) fn make_ready(&self, to: u64) -> Result<()> {
        if self.ready() >= to { Ok(()) } else { self.make_ready_now(to) }
    }

    #[cold]
    fn make_ready_now(&self, to: u64) -> Result<()> {
        let to = to.next_multiple_of(STEP_BYTES).min(self.capacity);
        // Guards nothing but the order of the steps: two threads must not zero what one of them filled.
        let mut is_short = self.readying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ready() > 0 {
            // Zeros behind a cut would make the file as long as it was.
            self.check_length()?;
        }
        if *is_short {
            self.file.allocate(self.capacity).map_err(Error::io("allocate", &self.path, self.ready()))?;
            self.length.store(self.capacity, Ordering::Relaxed);
            self.share.set(self.capacity);
            *is_short = false;
        }
        let mut from = self.ready();
        assert!(from > 0 || self.found_bytes == 0, "a segment found at open is resumed before it grows");
        while from < to {
            let next = (from + STEP_BYTES - from % STEP_BYTES).min(to);
            // A new segment's header is there already.
            let behind_header = from.max(RECORDS_START);
            let zeros = &ZEROS[..(next - behind_header) as usize];
            self.file.write_at(behind_header, zeros).map_err(Error::io("extend", &self.path, from))?;
            if let Some(map) = &self.map {
                map.populate(from, next).map_err(Error::io("populate", &self.path, from))?;
            }
            // Release: pairs with the Acquire in `ready`.
            self.ready.store(next, Ordering::Release);
            from = next;
        }
        Ok(())
    }

    /// Writes `record` at `offset`, which the caller reserved.
    #[inline]
    pub(crate) fn place(&self, keys: &Keys, offset: u64, record: &NewRecord<'_>, placing: Placing) -> Result<()> {
        debug_assert!(offset + record.bytes() <= self.ready());
        match &self.map {
            Some(map) if placing != Placing::Written => {
                map.store_word(offset + 8, keys.length_word(record.key.len(), record.value.len()));
                map.fill(offset + 16, [&record.header.encode(), record.key, record.value]);
                let body = map.quiet(offset + 8, HEADER_BYTES - 8 + (record.key.len() + record.value.len()) as u64);
                let sum = keys.checksum(record.namespace, body.unwrap_or_default());
                let sum = if placing == Placing::Provisional { !sum } else { sum };
                map.store_word(offset, commit_word(sum, record.namespace));
                self.check_uncut(map, offset)
            }
            _ => self.write_at(offset, &record.encode(keys, placing)),
        }
    }

    /// Writes `records` from `offset` on, all of which the caller reserved; returns how many of them are there.
    pub(crate) fn place_side_by_side(
        &self,
        keys: &Keys,
        offset: u64,
        records: &[NewRecord<'_>],
        placing: Placing,
    ) -> (usize, Result<()>) {
        if self.is_mapped() && placing == Placing::Written {
            return self.write_side_by_side(keys, offset, records);
        }
        let mut offset = offset;
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = self.place(keys, offset, record, placing) {
                return (index, Err(error));
            }
            offset += record.bytes();
        }
        (records.len(), Ok(()))
    }

    /// By one call. Where that fails the map shows how far it came.
    fn write_side_by_side(&self, keys: &Keys, offset: u64, records: &[NewRecord<'_>]) -> (usize, Result<()>) {
        let mut bytes = Vec::with_capacity(records.iter().map(|record| record.bytes() as usize).sum());
        records.iter().for_each(|record| record.encode_to(keys, Placing::Written, &mut bytes));
        let Err(error) = self.write_at(offset, &bytes) else { return (records.len(), Ok(())) };
        let mut start = 0;
        let is_there = |record: &&NewRecord<'_>| {
            let end = start + record.bytes() as usize;
            let is_there = self.holds(offset + start as u64, &bytes[start..end]);
            start = end;
            is_there
        };
        (records.iter().take_while(is_there).count(), Err(error))
    }

    /// Whether the map shows `bytes` at `offset`, where nobody but the caller writes.
    pub(crate) fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        self.map.as_ref().is_some_and(|map| map.quiet(offset, bytes.len() as u64) == Some(bytes))
    }

    /// Turns a provisional record into a committed one.
    pub(crate) fn commit(&self, offset: u64, record: &NewRecord<'_>, keys: &Keys) -> Result<()> {
        match &self.map {
            Some(map) => {
                map.store_word(offset, map.word(offset) ^ u64::from(u32::MAX));
                self.check_uncut(map, offset)
            }
            None => self.write_at(offset, &record.encode(keys, Placing::Commit)[..8]),
        }
    }

    /// Overwrites `bytes` at `offset` with a void record.
    pub(crate) fn make_void(&self, keys: &Keys, offset: u64, bytes: u64) -> Result<()> {
        let header = Header { kind: RecordKind::Void, sequence: 0, deadline_ms: 0 };
        let length = keys.length_word(0, 0) | (bytes - HEADER_BYTES);
        let mut body = length.to_le_bytes().to_vec();
        body.extend(header.encode());
        let commit = commit_word(keys.checksum(0, &body), 0);
        // In this order a crash leaves a hole of the same length.
        self.write_at(offset, &0_u64.to_le_bytes())?;
        self.write_at(offset + 8, &body)?;
        self.write_at(offset, &commit.to_le_bytes())
    }

    /// Overwrites a range with zeros.
    pub(crate) fn zero(&self, offset: u64, bytes: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes {
            let step = (bytes - done).min(STEP_BYTES);
            self.write_at(offset + done, &ZEROS[..step as usize])?;
            done += step;
        }
        Ok(())
    }

    /// Writes a range again as it is, so that the next flush covers it whatever an earlier one did.
    pub(crate) fn rewrite(&self) -> Result<()> {
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < self.found_bytes {
            buffer.resize((self.found_bytes - at).min(STEP_BYTES) as usize, 0);
            self.file.read_at(at, &mut buffer).map_err(Error::io("read", &self.path, at))?;
            self.write_at(at, &buffer)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset` by a call.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset, bytes).map_err(Error::io("write", &self.path, offset))
    }

    /// Notes in the header that every byte below `flushed` was flushed.
    pub(crate) fn note_flushed(&self, flushed: u64) -> Result<()> {
        let [word, check] = format::encode_flushed(flushed);
        let mut bytes = word.to_le_bytes().to_vec();
        bytes.extend(check.to_le_bytes());
        self.write_at(SegmentHeader::FLUSHED_AT, &bytes)
    }

    /// Makes everything written so far durable.
    pub(crate) fn flush(&self) -> Result<()> {
        self.flush_file(&*self.file()?)
    }

    /// The file, for [`flush_file`](Self::flush_file): opening it may fail without any harm.
    pub(crate) fn file(&self) -> Result<Arc<dyn File>> {
        self.file.file().map_err(Error::io("open", &self.path, 0))
    }

    /// Flushes `file`, which is this segment's; if that fails nobody knows what is durable.
    pub(crate) fn flush_file(&self, file: &dyn File) -> Result<()> {
        file.flush().map_err(Error::io("flush", &self.path, 0))
    }

    /// Gives back what a process that was killed had reserved behind `end`, where the records of this segment end for good.
    pub(crate) fn give_back_behind(&self, end: u64) -> Result<()> {
        let end = end.max(RECORDS_START);
        if self.found_bytes <= end + STEP_BYTES / 512 {
            return Ok(());
        }
        if self.flushed > end {
            // Or the next process would take it for a file that was cut.
            self.note_flushed(end)?;
            self.flush()?;
        }
        self.trim(end)
    }

    /// Gives back what is reserved and was not made ready, until somebody needs it.
    pub(crate) fn shorten(&self) -> Result<()> {
        let mut is_short = self.readying.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = self.ready();
        if !*is_short && ready >= RECORDS_START && ready < self.capacity {
            self.trim(ready)?;
            *is_short = true;
        }
        Ok(())
    }

    /// Gives back what lies behind `end`.
    pub(crate) fn trim(&self, end: u64) -> Result<()> {
        // First: nobody is to take the file for cut meanwhile.
        self.length.store(end, Ordering::Relaxed);
        self.file.set_bytes(end).map_err(Error::io("trim", &self.path, end))?;
        self.share.set(end);
        Ok(())
    }

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
    fn no_record(&self, offset: u64) -> Error {
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

    /// The file's length now. Of one whose name is gone, but which is mapped: as long as it was.
    pub(crate) fn file_bytes(&self) -> Result<u64> {
        match self.file.bytes() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_mapped() && !self.dead.is_gone() => {
                Ok(self.length.load(Ordering::Relaxed))
            }
            bytes => bytes.map_err(Error::io("measure", &self.path, 0)),
        }
    }

    /// Writes a segment of the same number with `bytes` as its records to `target`, the ranges in `voids` voided.
    pub(crate) fn copy_to(
        &self,
        target: Arc<dyn Medium>,
        keys: &Keys,
        store: [u8; 16],
        bytes: &[u8],
        voids: &[(u64, u64)],
    ) -> Result<()> {
        let (number, capacity, is_packed) = (self.number, self.capacity, self.is_packed);
        let header = SegmentHeader { store, number, capacity, is_packed };
        let end = RECORDS_START + bytes.len() as u64;
        let copy = Self::create(target, header, 0, 0, Space::new(None, 0).share(0))?;
        for (index, chunk) in bytes.chunks(STEP_BYTES as usize).enumerate() {
            copy.write_at(RECORDS_START + index as u64 * STEP_BYTES, chunk)?;
        }
        voids.iter().try_for_each(|(offset, bytes)| copy.make_void(keys, *offset, *bytes))?;
        copy.trim(end)?;
        copy.note_flushed(end)?;
        copy.flush()
    }
}

#[inline]
fn read_mapped<'a>(map: &'a Map, keys: &Keys, offset: u64) -> Option<Record<'a>> {
    map.prefetch(offset);
    let (commit, length) = map.first_words(offset)?;
    let lengths = keys.lengths(length).filter(|_| commit as u32 != 0)?;
    Record::new(commit, lengths, map.quiet(offset + 8, lengths.bytes() - 8)?)
}

enum BadHeader {
    Version(u32),
    Foreign(String),
    Damaged(String),
}

fn read_header(head: &[u8; RECORDS_START as usize], store: [u8; 16], number: u64) -> Result<SegmentHeader, BadHeader> {
    let block = head.first_chunk().unwrap_or(&[0; SegmentHeader::BYTES]);
    match SegmentHeader::decode(block) {
        Ok(header) if header.store != store => {
            let [found, expected] = [header.store, store].map(u128::from_be_bytes);
            Err(BadHeader::Foreign(format!("it belongs to store {found:032x}, this is {expected:032x}")))
        }
        Ok(header) if header.number != number => {
            Err(BadHeader::Damaged(format!("it says that it is segment {:x}", header.number)))
        }
        Ok(header) => Ok(header),
        Err(BadBlock::Version(version)) => Err(BadHeader::Version(version)),
        Err(BadBlock::Magic) => Err(BadHeader::Damaged("not a segment's first bytes".to_owned())),
        Err(BadBlock::Checksum { stored, computed }) => Err(BadHeader::Damaged(format!(
            "header checksum mismatch (stored {stored:016x}, computed {computed:016x})"
        ))),
    }
}

/// A shared segment.
pub(crate) type SharedSegment = Arc<Segment>;
