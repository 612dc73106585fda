//! The snapshot: the index as a file, so that opening needs not read the whole log.
//!
//! Holds the file's format (`DESIGN.md`, *Snapshot*): pages of words, and how far each segment is covered by them. Never knows
//! what a page is for. Nothing here is believed over the log: the directory is held against its checksum and against the
//! segments when the log is opened, each page when it is asked for, each record when it is read. Opening reads nothing but the
//! directory, whose length does not depend on the number of keys.

use std::{io, ops::Range};

use super::{
    Log,
    dead::Dead,
    format::{Keys, RECORDS_START, SnapshotHead},
    medium::{File, Medium},
    quiet::QuietEnd,
    scan::Found,
    segment::{self, Segment, SharedSegment},
    space::Purpose,
};
use crate::{
    Error, Guard, Result,
    slot::{Address, Location, Word},
};

const NAME: &str = "index";
const UNFINISHED: &str = "index.new";
/// More than the segments of any store take.
const DIRECTORY_BYTES_MAX: u64 = 16 << 20;
/// So much is written at once.
const WRITE_BYTES: usize = 1 << 20;
/// What a page takes for its checksum, and for each word: the word itself and its history.
const SUM_BYTES: usize = 8;
const WORD_BYTES: usize = 8 + 2;
/// Words in front of the lists of the directory.
const COUNTS: usize = 11;
/// Words that the directory has for a segment.
const SEGMENT_WORDS: usize = 4 + Dead::FIGURES;
// A store with a segment in every slot can be handed on.
const _: () = assert!((SEGMENT_WORDS * 8) as u64 * Address::SLOTS as u64 + (64 << 10) <= DIRECTORY_BYTES_MAX);
/// Of a word of the table: the bits of a page's place, in front of which stands how many words it has.
const PLACE_BITS: u32 = 48;

/// What a store counts, beside what the words say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The highest sequence.
    pub last_sequence: u64,
    /// Keys that have a value.
    pub keys: u64,
    /// Bytes of their records.
    pub live_bytes: u64,
    /// Whether any record may have a deadline.
    pub has_deadlines: bool,
}

/// How far a segment is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Covered {
    pub(super) number: u64,
    pub(super) base: usize,
    capacity: u64,
    /// Every record below is in the words.
    pub(super) bytes: u64,
    dead: [u64; Dead::FIGURES],
}

/// A snapshot that was found at open.
#[derive(Debug)]
pub(super) struct Snapshot {
    file: Box<dyn File>,
    /// Of the file.
    pub(super) bytes: u64,
    pub(super) figures: Figures,
    pub(super) next_number: u64,
    shards: Vec<u64>,
    segments: Vec<Covered>,
    /// A number that no other snapshot of the store has: part of every page's checksum.
    stamp: u64,
    /// Where the table stands that says where the pages stand, and how many there are.
    table_at: u64,
    pages: usize,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub struct NewSnapshot<'a> {
    log: &'a Log,
    file: Box<dyn File>,
    buffer: Vec<u8>,
    /// Bytes in front of the buffer.
    written: u64,
    stamp: u64,
    table: Vec<u64>,
}

/// Removes the snapshot, if there is one, for good.
pub(super) fn remove(medium: &dyn Medium, names: &[String]) -> Result<()> {
    if !names.iter().any(|name| name == NAME) {
        return Ok(());
    }
    let removed = medium.remove(NAME).and_then(|()| medium.flush_directory());
    removed.map_err(Error::io("remove", format!("{}/{NAME}", medium.directory()), 0))
}

impl Snapshot {
    /// The snapshot in `medium`, or `None` if there is none that is whole and this store's.
    pub(super) fn open(medium: &dyn Medium, store: [u8; 16], keys: &Keys) -> Option<Self> {
        let file = medium.open(NAME, false).ok()?;
        let bytes = file.bytes().ok()?;
        let mut head = [0; SnapshotHead::BYTES];
        file.read_at(0, &mut head).ok()?;
        let head = SnapshotHead::decode(&head).ok().filter(|head| head.store == store)?;
        let is_inside = head.directory_at <= bytes
            && head.directory_bytes == bytes - head.directory_at
            && head.directory_bytes <= DIRECTORY_BYTES_MAX;
        let mut directory = vec![0; usize::try_from(head.directory_bytes).ok().filter(|_| is_inside)?];
        file.read_at(head.directory_at, &mut directory).ok()?;
        (keys.sum(&directory) == head.sum).then(|| Self::decode(file, bytes, &directory)).flatten()
    }

    fn decode(file: Box<dyn File>, bytes: u64, directory: &[u8]) -> Option<Self> {
        let words: Vec<_> = directory.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (counts, lists) = words.split_first_chunk::<COUNTS>()?;
        let [last_sequence, keys, live_bytes, has_deadlines, rest @ ..] = *counts;
        let [slots_end, next_number, stamp, table_at, pages, shards, segments] = rest;
        let count = |number: u64| usize::try_from(number).ok();
        let (shards, segments_words) = lists.split_at_checked(count(shards)?)?;
        let (segment_words, rest) = segments_words.as_chunks::<SEGMENT_WORDS>();
        let is_whole = rest.is_empty() && count(segments)? == segment_words.len();
        let snapshot = Self {
            file,
            bytes,
            figures: Figures { last_sequence, keys, live_bytes, has_deadlines: has_deadlines != 0 },
            next_number,
            shards: shards.to_vec(),
            segments: segment_words.iter().map(Covered::decode).collect::<Option<_>>()?,
            stamp,
            table_at,
            pages: count(pages)?,
        };
        (is_whole && snapshot.is_possible(count(slots_end)?)).then_some(snapshot)
    }

    /// Whether segments stand apart, in front of the slot `slots_end`, and in the order of their numbers.
    fn is_possible(&self, slots_end: usize) -> bool {
        let is_within = |segment: &Covered| segment.base <= Address::SLOTS && segment.capacity <= 1 << 40;
        if !self.segments.iter().all(is_within) {
            return false;
        }
        let mut slots: Vec<_> = self.segments.iter().map(Covered::slots).collect();
        slots.sort_unstable_by_key(|slots| slots.start);
        slots.is_sorted_by(|a, b| a.end <= b.start)
            && slots.last().map_or(0, |last| last.end) <= slots_end
            && slots_end <= Address::SLOTS
            && self.next_number <= u64::MAX >> 1
            && self.segments.is_sorted_by(|a, b| a.number < b.number)
            && self.segments.last().is_none_or(|last| last.number < self.next_number)
    }

    /// What it says of a segment.
    pub(super) fn covered(&self, number: u64) -> Option<&Covered> {
        self.segments.binary_search_by_key(&number, |covered| covered.number).ok().map(|at| &self.segments[at])
    }

    /// Whether it can be of the log with these segments: those that it covers are as long as that at least, or gone.
    pub(super) fn fits(&self, segments: &[Segment]) -> bool {
        segments.iter().all(|segment| match self.covered(segment.number) {
            Some(covered) => {
                segment.header_damage.is_none()
                    && segment.capacity == covered.capacity
                    && segment.found_bytes >= covered.bytes.max(segment.flushed)
            }
            None => segment.number >= self.next_number,
        })
    }

    /// Whether the log is what it was when the snapshot was written: nothing has come since, or gone.
    pub(super) fn is_all_of(&self, segments: &[Segment]) -> bool {
        let is_there = |covered: &Covered| {
            covered.bytes <= RECORDS_START || segments.iter().any(|segment| segment.number == covered.number)
        };
        let is_covered = |segment: &Segment| {
            self.covered(segment.number).is_some_and(|covered| segment.found_bytes <= covered.bytes)
        };
        self.segments.iter().all(is_there) && segments.iter().all(is_covered)
    }

    /// The words of page `number` and what is remembered of their keys, or `None` if they are not what was written.
    fn page(&self, number: usize, keys: &Keys) -> io::Result<Option<Vec<(Word, u16)>>> {
        let mut entry = [0; 8];
        let Some(entry_at) = self.table_at.checked_add(8 * number as u64) else { return Ok(None) };
        if !self.read_at(entry_at, &mut entry)? {
            return Ok(None);
        }
        let entry = u64::from_le_bytes(entry);
        let count = (entry >> PLACE_BITS) as usize;
        let mut bytes = vec![0; SUM_BYTES + count * WORD_BYTES];
        if !self.read_at(entry & ((1 << PLACE_BITS) - 1), &mut bytes)? {
            return Ok(None);
        }
        let stored = bytes.first_chunk().map_or(0, |sum| u64::from_le_bytes(*sum));
        if sum_of(&mut bytes, keys, self.stamp, number) != stored {
            return Ok(None);
        }
        let (words, histories) = bytes[SUM_BYTES..].split_at(count * 8);
        let words = words.as_chunks().0.iter().map(|word| Word::from_bits(u64::from_le_bytes(*word)));
        let histories = histories.as_chunks().0.iter().map(|history| u16::from_le_bytes(*history));
        Ok(words.zip(histories).map(|(word, history)| Some((word?, history))).collect())
    }

    /// `false` if the file ends before that.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        match self.file.read_at(offset, into) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            other => other.map(|()| true),
        }
    }
}

/// The checksum of a page, in whose place its number and the snapshot's stamp count.
fn sum_of(page: &mut [u8], keys: &Keys, stamp: u64, number: usize) -> u64 {
    page[..SUM_BYTES].copy_from_slice(&(stamp ^ (number as u64).rotate_left(32)).to_le_bytes());
    keys.sum(page)
}

impl Covered {
    fn slots(&self) -> Range<usize> {
        self.base..self.base + segment::slots_of(self.capacity)
    }

    fn decode(words: &[u64; SEGMENT_WORDS]) -> Option<Self> {
        let (&[number, base, capacity, bytes], dead) = words.split_first_chunk()?;
        let base = usize::try_from(base).ok()?;
        let dead: &[u64; Dead::FIGURES] = dead.first_chunk()?;
        // Sums of bytes, of which no segment has so many.
        let [dead_bytes, _, removals, _, expiring, ..] = *dead;
        let is_possible = [dead_bytes, removals, expiring].into_iter().all(|bytes| bytes <= u64::MAX >> 2);
        (is_possible && (RECORDS_START..=capacity).contains(&bytes) && bytes.is_multiple_of(8)).then_some(())?;
        Some(Self { number, base, capacity, bytes, dead: *dead })
    }

    /// Hands on what is known of the segment.
    pub(super) fn restore(&self, segment: &Segment) {
        segment.dead.restore(self.dead);
    }
}

impl Log {
    /// The words that a snapshot has for the state of the index's shards and what it counts, if one was found that fits the log.
    pub fn snapshot(&self) -> Option<(&[u64], Figures)> {
        self.snapshot.as_ref().map(|snapshot| (&snapshot.shards[..], snapshot.figures))
    }

    /// About how many bytes of records, somebody's newest when the snapshot was written, are in segments that have gone since;
    /// `None` if all are there.
    pub fn snapshot_gone_bytes(&self) -> Option<u64> {
        let snapshot = self.snapshot.as_ref()?;
        let is_there = |covered: &&Covered| self.found.iter().any(|segment| segment.number == covered.number);
        let is_gone = |covered: &&Covered| covered.bytes > RECORDS_START && !is_there(covered);
        let gone: Vec<_> = snapshot.segments.iter().filter(is_gone).collect();
        let live = |covered: &&Covered| {
            let [dead, _, removals, ..] = covered.dead;
            (covered.bytes - RECORDS_START).saturating_sub(dead.saturating_add(removals))
        };
        (!gone.is_empty()).then(|| gone.iter().map(live).sum())
    }

    /// Whether the figures of the snapshot have it that the record at `displaced` is dead, since one of the sequence `by` came.
    pub fn is_counted(&self, displaced: Location, by: u64) -> bool {
        let Some(snapshot) = self.snapshot.as_ref().filter(|snapshot| by <= snapshot.figures.last_sequence) else {
            return false;
        };
        let covered = |segment: &Segment| snapshot.covered(segment.number);
        let is_covered = |(segment, offset): (&Segment, u64)| covered(segment).is_some_and(|is| offset < is.bytes);
        self.find(displaced, &Guard::pin()).is_ok_and(is_covered)
    }

    /// Removes the snapshot, which says something that cannot be: the log is to be opened anew.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] for who only reads, and changes nothing.
    pub fn remove_snapshot(&self) -> Result<()> {
        if self.options.read_only {
            let what = "of no index that there can be; opening the store to write removes it".to_owned();
            return Err(Error::Corrupt { file: self.path_of_snapshot(), offset: 0, what });
        }
        remove(&*self.medium, &[NAME.to_owned()])
    }

    /// How many pages the snapshot has.
    pub fn snapshot_pages(&self) -> usize {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.pages)
    }

    /// The words of page `number` of the snapshot and what is remembered of their keys, or `None` if they are not what was
    /// written. What stood in segments that have gone since is left out, whoever has their slots by now; the others are unverified.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn snapshot_page(&self, number: usize) -> Result<Option<Vec<(Word, u16)>>> {
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        let words = snapshot.page(number, &self.keys).map_err(Error::io("read", self.path_of_snapshot(), 0))?;
        let guard = Guard::pin();
        let is_there = |(word, history): (Word, u16)| {
            let at = word.location()?;
            let segment = self.table.get(at.address().slot(), &guard);
            let segment = segment.filter(|segment| segment.is_covered && !segment.dead.is_gone());
            let at = if at.is_nothing() { at } else { segment.map(|_| at.as_unverified())? };
            Some((word.with_location(at), history))
        };
        Ok(words.map(|words| words.into_iter().filter_map(is_there).collect()))
    }

    /// Calls `visit` with every record that the snapshot covers, whatever its pages say; a damaged one has an unverified location.
    /// The caller holds a guard.
    ///
    /// # Errors
    /// [`Error::Io`], and what `visit` returns.
    pub fn visit_covered(&self, mut visit: impl FnMut(&Found<'_>, Location) -> Result<()>) -> Result<()> {
        for segment in self.segments() {
            let covered = self.snapshot.as_ref().and_then(|snapshot| snapshot.covered(segment.number));
            let Some(covered) = covered else { continue };
            let Some(bytes) = segment.unless_gone(segment.found_bytes(covered.bytes))? else { continue };
            let scanned = self.scan_bytes(&segment, (RECORDS_START, &bytes), u64::MAX, &mut visit)?;
            if let Some(error) = segment.missing(scanned.end, covered.bytes) {
                return Err(error);
            }
        }
        Ok(())
    }

    fn path_of_snapshot(&self) -> String {
        format!("{}/{NAME}", self.directory())
    }

    /// Bytes of records that would have to be read to open the store now: what no snapshot covers. `None` if none can cover them. No
    /// writer may be active.
    pub fn uncovered_bytes(&self) -> Option<u64> {
        let before = |number| self.snapshot.as_ref().and_then(|snapshot| snapshot.covered(number));
        let bytes =
            |now: Covered| now.bytes - before(now.number).map_or(RECORDS_START, |before| before.bytes.min(now.bytes));
        Some(self.covered_by(self.end())?.into_iter().map(bytes).sum())
    }

    /// Begins a snapshot. `stamp` is a number that no other one of this store had.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin_snapshot(&self, stamp: u64) -> Result<NewSnapshot<'_>> {
        // Left behind by an attempt that failed.
        let _ = self.medium.remove(UNFINISHED);
        let file = self.medium.create(UNFINISHED).map_err(Error::io("create", self.path_of_snapshot(), 0))?;
        let buffer = vec![0; SnapshotHead::BYTES];
        Ok(NewSnapshot { log: self, file, buffer, written: 0, stamp, table: Vec::new() })
    }
}

impl NewSnapshot<'_> {
    /// Adds a page: its words, and what is remembered of their keys.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add_page(&mut self, words: &[(Word, u16)]) -> Result<()> {
        let start = self.buffer.len();
        self.buffer.extend([0; SUM_BYTES]);
        words.iter().for_each(|(word, _)| self.buffer.extend(word.to_bits().to_le_bytes()));
        words.iter().for_each(|(_, history)| self.buffer.extend(history.to_le_bytes()));
        let page = &mut self.buffer[start..];
        let sum = sum_of(page, &self.log.keys, self.stamp, self.table.len());
        page[..SUM_BYTES].copy_from_slice(&sum.to_le_bytes());
        self.table.push((self.written + start as u64) | (words.len() as u64) << PLACE_BITS);
        if self.buffer.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let io = Error::io("write", self.log.path_of_snapshot(), self.written);
        self.file.write_at(self.written, &self.buffer).map_err(io)?;
        self.log.note_beside(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends it and puts it in the place of the one before. `covered` is where the log ended before the first page was
    /// looked at; every record below it was in the index then, and is durable now. `shards` is the state of the index's shards. What
    /// was displaced by records of no higher a sequence than the last one of `figures` is in those of the segments, which are taken now.
    ///
    /// # Errors
    /// [`Error::Io`]: the one before stays.
    pub fn finish(mut self, figures: Figures, shards: &[u64], covered: QuietEnd) -> Result<()> {
        let log = self.log;
        let unknown = || Error::Corrupt {
            file: log.directory(),
            offset: 0,
            what: "it is not known of every segment where its records end".to_owned(),
        };
        let segments = log.covered_by(covered).ok_or_else(unknown)?;
        let Figures { last_sequence, keys, live_bytes, has_deadlines } = figures;
        let slots_end = segments.iter().map(|segment| segment.slots().end).max().unwrap_or(0);
        let table_at = self.written + self.buffer.len() as u64;
        self.table.iter().for_each(|entry| self.buffer.extend(entry.to_le_bytes()));
        let counts: [u64; COUNTS] = [
            last_sequence,
            keys,
            live_bytes,
            has_deadlines.into(),
            slots_end as u64,
            covered.next_number(),
            self.stamp,
            table_at,
            self.table.len() as u64,
            shards.len() as u64,
            segments.len() as u64,
        ];
        let segment_words = segments.iter().flat_map(|segment| {
            let Covered { number, base, capacity, bytes, dead } = *segment;
            [number, base as u64, capacity, bytes].into_iter().chain(dead)
        });
        let words = counts.into_iter().chain(shards.iter().copied()).chain(segment_words);
        let directory: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let directory_at = self.written + self.buffer.len() as u64;
        self.buffer.extend(&directory);
        self.write()?;
        let head = SnapshotHead {
            store: log.identity.id,
            directory_at,
            directory_bytes: directory.len() as u64,
            sum: log.keys.sum(&directory),
        };
        let put = || -> io::Result<()> {
            self.file.write_at(0, &head.encode())?;
            self.file.flush()?;
            log.medium.rename(UNFINISHED, NAME)?;
            log.medium.flush_directory()
        };
        put().map_err(Error::io("write", log.path_of_snapshot(), 0))
    }
}

impl Drop for NewSnapshot<'_> {
    fn drop(&mut self) {
        // Nothing is there any more if it was finished.
        let _ = self.log.medium.remove(UNFINISHED);
    }
}

impl Log {
    /// How far the segments that are there now are covered by what was below `end`; `None` if it is not known of one where its
    /// records end. (It would have to be read from its start, and would show what was removed since.)
    fn covered_by(&self, end: QuietEnd) -> Option<Vec<Covered>> {
        let mut all = Vec::new();
        for segment in self.segments() {
            // Up to where the records end, and not the file: the next process may go on there.
            let Some(bytes) = self.records_end(&segment, &end) else { continue };
            let bytes = Some(bytes.min(segment.capacity)).filter(|bytes| *bytes >= RECORDS_START)?;
            let (number, base, capacity) = (segment.number, segment.base, segment.capacity);
            all.push(Covered { number, base, capacity, bytes, dead: segment.dead.figures() });
        }
        Some(all)
    }

    /// About how many bytes of what is between two moments are somebody's newest records.
    pub fn live_bytes_behind(&self, from: &QuietEnd, to: &QuietEnd) -> u64 {
        let live = |segment: SharedSegment| {
            let [start, end] = [from, to].map(|end| self.records_end(&segment, end).unwrap_or(RECORDS_START));
            let [dead, _, removals, ..] = segment.dead.figures();
            match start < end {
                true => (end - start).saturating_sub(dead.saturating_add(removals)),
                false => 0,
            }
        };
        self.segments().into_iter().map(live).sum()
    }

    /// Whether it is known of every segment where its records in front of `end` end.
    pub fn is_known_up_to(&self, end: &QuietEnd) -> bool {
        self.covered_by(*end).is_some()
    }

    /// Whether an index of so many keys can be written as it is: nothing in the log is damaged, and there is room under the ceiling.
    pub fn can_be_covered(&self, keys: u64) -> bool {
        let bytes = SnapshotHead::BYTES as u64 + keys.saturating_mul(WORD_BYTES as u64 + 1);
        let is_whole = |segment: &Segment| segment.header_damage.is_none() && !segment.dead.is_damaged();
        self.failure().is_none()
            && !self.is_damaged()
            && self.space.has_room(bytes, Purpose::Copied)
            && self.segments().iter().all(|segment| is_whole(segment))
    }

    /// Whether anything that was found at open is dead.
    pub fn has_dead(&self) -> bool {
        self.segments().into_iter().any(|segment| segment.dead.is_there())
    }
}
