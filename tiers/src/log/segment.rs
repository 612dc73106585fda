//! One segment: a file of records, mapped where the medium allows it.
//!
//! Holds the two ways to place and read a record (through the map, or by `pwrite` and `pread`), and makes the bytes
//! ahead of the writers ready. Never chooses where a record goes. Invariant: a byte of the map is
//! stored to only below `ready`.

use std::{
    io,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

mod cut;
mod shown;
mod written;

use super::{
    Medium,
    dead::Dead,
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
    /// How many segments were made, or found at open, before it.
    pub(super) ordinal: u64,
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
    /// Whether there is a file of that name which may be its hint.
    pub(super) has_hint: AtomicBool,
    /// Whether words of the snapshot that was found at open may name places in it.
    pub(super) is_covered: bool,
}

/// The name of segment `number`.
pub(crate) fn name_of(number: u64) -> String {
    format!("{number:016x}.segment")
}

/// The number in a segment's name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    number_in(name, ".segment")
}

/// The number in a name that ends so.
pub(super) fn number_in(name: &str, end: &str) -> Option<u64> {
    let digits = name.strip_suffix(end)?;
    let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits.len() == 16 && lower).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// How many segment slots a segment of `capacity` bytes takes.
pub(crate) fn slots_of(capacity: u64) -> usize {
    capacity.div_ceil(Address::SLOT_BYTES).max(1) as usize
}

impl Segment {
    /// Makes a new segment, of the file `reserve` if one is named, its blocks reserved and its first `ready` bytes ready.
    pub(super) fn create(
        medium: Arc<dyn Medium>,
        header: SegmentHeader,
        (ordinal, base): (u64, usize),
        ready: u64,
        share: Share,
        reserve: Option<&str>,
    ) -> Result<Self> {
        let name = name_of(header.number);
        let path = format!("{}/{name}", medium.directory());
        let unfinished = format!("{name}.new");
        // Left behind by an attempt that failed.
        let _ = medium.remove(&unfinished);
        // It gets its name when its header is durable, and its first record when its name is: a segment without a
        // header is damaged.
        let made = || -> io::Result<_> {
            let file = match reserve {
                None => medium.create(&unfinished)?,
                Some(reserve) => {
                    medium.rename(reserve, &unfinished)?;
                    let file = medium.open(&unfinished, true)?;
                    file.set_bytes(header.capacity)?;
                    file
                }
            };
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
            ordinal,
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
            has_hint: AtomicBool::new(false),
            is_covered: false,
        };
        segment.make_ready(ready).map_err(undo)?;
        segment.share.set(header.capacity);
        Ok(segment)
    }

    /// Opens the segment `number`; one that needs at most `growth_max` more bytes for that, if any are said, is mapped up to its
    /// capacity so that it can go on. Its ordinal, and its place among the segment slots, are for the caller to say.
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
            ordinal: 0,
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
            dead: Dead::unknown(),
            share,
            is_packed,
            path,
            has_hint: AtomicBool::new(false),
            is_covered: false,
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
        let copy = Self::create(target, header, (0, 0), 0, Space::new(None, 0).share(0), None)?;
        for (index, chunk) in bytes.chunks(STEP_BYTES as usize).enumerate() {
            copy.write_at(RECORDS_START + index as u64 * STEP_BYTES, chunk)?;
        }
        voids.iter().try_for_each(|(offset, bytes)| copy.make_void(keys, *offset, *bytes))?;
        copy.trim(end)?;
        copy.note_flushed(end)?;
        copy.flush()
    }
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
