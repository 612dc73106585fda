//! Opening a log: identity, lock, segments; then, once they were scanned, the repair of what a crash left.
//!
//! Holds the order of steps that makes a second crash in the middle harmless. Never decides which record of a key
//! counts. Invariant: what was passed over above `flushed` cannot come back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_utils::CachePadded;

use super::{
    Flusher, Hint, Hints, Log, Note, Position, Roll, Table, Tail,
    format::{self, BadBlock, IDENTITY_BYTES, IDENTITY_COPY, Identity, Keys, RECORDS_START},
    medium::{File, Lock, Medium},
    scan::{Found, Item, Scan},
    segment::{self, Segment, SharedSegment},
    slots::Slots,
    snapshot::{self, Snapshot},
    space::{SEGMENTS_MIN, Space},
};
use crate::{
    Error, Result,
    slot::{Address, Kind, Location},
};

const STORE: &str = "store";
pub(super) const LOCK: &str = "lock";
/// How long a second opener waits for the first to end: short-lived processes take turns.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// A segment with less room than this is not appended to after opening.
const RESUME_BYTES_MIN: u64 = 4096;

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment: 64 KiB to 1 GiB, a multiple of 8.
    pub segment_bytes: u64,
    /// Take a shared lock and change nothing.
    pub read_only: bool,
    /// Make a store where there is none.
    pub create: bool,
    /// The most that the files of all segments may take, reserved bytes included: at least four segments.
    pub disk_capacity: Option<u64>,
    /// Segment slots that there are: [`Address::SLOTS`], or fewer.
    pub slots: usize,
}

/// What a scan of one segment found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Records whose checksum is right.
    pub records: u64,
    /// The bytes that they take.
    pub bytes: u64,
    /// Where the scan began.
    start: u64,
    /// Where the next record can go.
    pub end: u64,
    /// Damage to what was flushed once: offset and what.
    pub damaged: Vec<(u64, String)>,
    /// What a crash left above `flushed`: offset and bytes.
    torn: Vec<(u64, u64)>,
}

impl Log {
    /// Opens the log on `medium` and takes its lock. Its records are found by [`scan`](Self::scan); it is ready
    /// to append after [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::NoStore`], [`Error::Locked`] (after half a second), [`Error::Version`], [`Error::Corrupt`] when
    /// the file `store` is damaged, [`Error::Io`], [`Error::Option`].
    pub fn open(medium: Arc<dyn Medium>, options: Options) -> Result<Self> {
        check_options(&options)?;
        let names = medium.names().map_err(Error::io("list", medium.directory(), 0))?;
        let exists = names.iter().any(|name| name == STORE);
        let numbered: Vec<_> = names.iter().filter_map(|name| segment::number_of(name)).collect();
        if !exists && (options.read_only || !options.create) {
            return Err(Error::NoStore { directory: medium.directory() });
        }
        let lock = take_lock(&*medium, !options.read_only)?;
        // The store may have been made while we waited for the lock.
        let exists = exists || medium.open(STORE, false).is_ok();
        if !exists && !numbered.is_empty() {
            let what = format!("missing, while there are {} segments beside it", numbered.len());
            return Err(Error::Corrupt { file: path_of(&*medium, STORE), offset: 0, what });
        }
        let identity = if exists { read_identity(&*medium, !options.read_only)? } else { create_identity(&*medium)? };
        let names = medium.names().map_err(Error::io("list", medium.directory(), 0))?;
        if !options.read_only {
            for leftover in names.iter().filter(|name| name.ends_with(".new")) {
                medium.remove(leftover).map_err(Error::io("remove", path_of(&*medium, leftover), 0))?;
            }
        }
        let notes = medium.open(LOCK, !options.read_only).map_err(Error::io("open", path_of(&*medium, LOCK), 0))?;
        let mut numbers: Vec<_> = names.iter().filter_map(|name| segment::number_of(name)).collect();
        numbers.sort_unstable();
        let keys = Keys::new(identity.secret);
        let space = Space::new(options.disk_capacity, options.segment_bytes);
        let mut found = open_segments(&medium, &identity, &numbers, &options, &space)?;
        let doubt = read_note(&*medium, &*notes, Note::Doubt)?;
        let snapshot = Snapshot::open(&*medium, identity.id, &keys);
        let snapshot = snapshot.filter(|snapshot| doubt.is_none() && snapshot.fits(&found));
        let places = snapshot.as_ref().and_then(|snapshot| give_places(&mut found, Some(snapshot), options.slots));
        // What no snapshot says has room wherever it had some.
        let snapshot = snapshot.filter(|_| places.is_some());
        let places = places.or_else(|| give_places(&mut found, None, options.slots));
        let slots = places.ok_or_else(|| too_many(&found, &options, &*medium))?;
        if snapshot.is_none() && !options.read_only {
            // Before anything changes that it could fit by chance.
            snapshot::remove(&*medium, &names)?;
        }
        let hints = Hints::find(&*medium, &names, &found, &options, doubt.is_none())?;
        // Its file is there as long as this one.
        snapshot.as_ref().inspect(|snapshot| drop(space.share(snapshot.bytes)));
        space.note_found();
        let last = numbers.last().copied().unwrap_or(0);
        let next_number = last.checked_add(1).ok_or_else(|| Error::Corrupt {
            file: path_of(&*medium, &segment::name_of(last)),
            offset: 0,
            what: "no segment can have a higher number".to_owned(),
        })?;
        let next_number = snapshot.as_ref().map_or(next_number, |snapshot| next_number.max(snapshot.next_number));
        // Before anybody notes what was written since. A segment of which nothing is covered is read as a whole.
        let covered = |segment: &Segment| snapshot.as_ref().and_then(|snapshot| snapshot.covered(segment.number));
        for segment in &found {
            covered(segment)
                .filter(|covered| covered.bytes > RECORDS_START)
                .inspect(|covered| covered.restore(segment));
        }
        if snapshot.as_ref().is_some_and(|snapshot| !snapshot.is_all_of(&found)) {
            // Segments may have gone that stood for something older which is here: nobody has said so to the snapshot.
            found.iter().for_each(|segment| segment.dead.note_some_gone());
        }
        let found: Vec<_> = found.into_iter().map(SharedSegment::new).collect();
        let table = Table::new(slots);
        found.iter().for_each(|segment| table.put(segment));
        let next_ordinal = found.len() as u64;
        Ok(Self {
            keys,
            identity,
            options,
            space,
            ordinals: AtomicU64::new(next_ordinal),
            quiet_ordinals: Arc::new(AtomicU64::new(next_ordinal)),
            tail: CachePadded::new(AtomicU64::new(Tail::NOWHERE.0)),
            table,
            roll: Mutex::new(Roll { next_ordinal, next_number, spare: None }),
            flusher: Flusher::default(),
            quiescent: Arc::default(),
            durable: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            unsettled: AtomicU64::new(u64::MAX),
            reads_by_calls: !medium.is_mapped(),
            walks: Mutex::default(),
            leaving: Arc::default(),
            oldest_lingering: AtomicU64::new(u64::MAX),
            beside: AtomicU64::new(0),
            is_damaged: AtomicBool::new(false),
            has_spare: AtomicBool::new(false),
            reserve: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            notes,
            found,
            snapshot,
            medium,
            hints,
            _lock: lock,
        })
    }

    /// How many segments were found at open; [`scan`](Self::scan) takes their indexes.
    pub fn found_count(&self) -> usize {
        self.found.len()
    }

    /// Up to where the records of a segment are known from the snapshot.
    pub(super) fn covered_bytes(&self, segment: &Segment) -> u64 {
        let covered = self.snapshot.as_ref().and_then(|snapshot| snapshot.covered(segment.number));
        covered.map_or(RECORDS_START, |covered| covered.bytes)
    }

    /// Calls `visit` with every record of the segment `index` that neither a snapshot covers nor `hint`, which is its, and where it is,
    /// in the order of the file. May run for several segments at once, before [`start`](Self::start).
    ///
    /// A damaged record in what was flushed once is visited with an unverified location: its key is
    /// probably right, and reading it says [`Error::Corrupt`].
    ///
    /// # Errors
    /// [`Error::Io`], and what `visit` returns.
    pub fn scan(
        &self,
        index: usize,
        hint: Option<&Hint>,
        mut visit: impl FnMut(&Found<'_>, Location) -> Result<()>,
    ) -> Result<Scanned> {
        let segment = &self.found[index];
        let start = hint.map_or_else(|| self.covered_bytes(segment), |hint| hint.end);
        hint.iter().for_each(|hint| self.note_hint(segment, hint));
        let bytes = segment.quiet_bytes(start, segment.found_bytes)?;
        if start == RECORDS_START {
            segment.dead.note_nothing();
        }
        let scanned = self.scan_bytes(segment, (start, &bytes), segment.flushed, |found, at| {
            segment.dead.note_placed(found.bytes, &found.header);
            visit(found, at)
        })?;
        // What was cut meanwhile looked like the end.
        segment.check_length()?;
        if !scanned.damaged.is_empty() {
            segment.dead.set_damaged();
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        Ok(scanned)
    }

    pub(super) fn scan_bytes(
        &self,
        segment: &Segment,
        (start, bytes): (u64, &[u8]),
        damaged_below: u64,
        mut visit: impl FnMut(&Found<'_>, Location) -> Result<()>,
    ) -> Result<Scanned> {
        let (mut scanned, flushed) = (Scanned { start, ..Scanned::default() }, segment.flushed);
        let mut scan = Scan::starting_at(&self.keys, start, bytes);
        for item in scan.by_ref() {
            match item {
                Item::Record(found) => {
                    (scanned.records, scanned.bytes) = (scanned.records + 1, scanned.bytes + found.bytes);
                    visit(&found, location(segment, &found, false))?;
                }
                Item::Damaged(found) if found.offset < damaged_below => {
                    scanned.damaged.push((found.offset, "record checksum mismatch".to_owned()));
                    visit(&found, location(segment, &found, true))?;
                }
                Item::Damaged(Found { offset, bytes, .. }) => scanned.torn.push((offset, bytes)),
                Item::Gap { offset, bytes } if offset < flushed => {
                    scanned.damaged.push((offset, format!("{bytes} bytes are no record")));
                }
                Item::Gap { offset, bytes } => scanned.torn.push((offset, bytes)),
            }
        }
        scanned.end = scan.end();
        if let Some(what) = &segment.header_damage {
            scanned.damaged.push((0, what.clone()));
        }
        if flushed > segment.found_bytes && segment.found_bytes > 0 {
            let what = format!("the file was cut here, it was flushed up to {flushed}");
            scanned.damaged.push((segment.found_bytes, what));
        } else if flushed > scanned.end && flushed < segment.capacity {
            let what = format!("the last record ends here, there were records up to {flushed}");
            scanned.damaged.push((scanned.end, what));
        }
        Ok(scanned)
    }

    /// Repairs what a crash left and makes the log ready to append. `scanned` are the results of all scans, in order.
    ///
    /// # Errors
    /// [`Error::Io`]; the files are then as good as before, and can be opened again.
    pub fn start(&self, scanned: &[Scanned]) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        self.settle_doubt()?;
        let (mut last, mut ends) = (None, Vec::new());
        for (segment, scanned) in self.found.iter().zip(scanned) {
            let end = self.repair(segment, scanned)?;
            segment.settle(end);
            segment.dead.note_void(end.saturating_sub(scanned.start + scanned.bytes));
            ends.push(end);
            if end > segment.flushed {
                self.flusher.add(segment.clone());
            }
            last = Some((segment, end)).filter(|_| scanned.damaged.is_empty());
        }
        let resumed = last.filter(|(segment, end)| {
            // A segment that was left for the next one is flushed beyond its last record: what would be torn there
            // later could not be told from damage.
            let goes_on = segment.header_damage.is_none() && segment.flushed <= *end && !segment.is_packed;
            goes_on
                && end + RESUME_BYTES_MIN <= segment.capacity
                && segment.capacity <= self.options.segment_bytes.max(Address::SLOT_BYTES)
                && segment.can_grow
        });
        let resumed_number = resumed.map(|(segment, _)| segment.number);
        for ((segment, scanned), end) in self.found.iter().zip(scanned).zip(ends) {
            if resumed_number != Some(segment.number) && scanned.damaged.is_empty() {
                // Behind the last record, not behind what was torn: that is zeros by now, and what a file has is noted as flushed.
                // What a flush of it has failed to make durable is written again by the next process, which may be this one once more.
                segment.give_back_behind(end).inspect_err(|_| self.note_doubt(segment.number))?;
                if self.covered_bytes(segment) == RECORDS_START && !segment.has_hint.load(Ordering::Relaxed) {
                    self.queue_for_hint(segment);
                }
            }
        }
        let mut roll = self.lock_roll();
        let behind = Position::new(roll.next_ordinal, 0);
        let quiescent = resumed.map_or(behind, |(segment, end)| Position::of(segment, end));
        // Release: pairs with the Acquire in `is_quiescent`; nobody writes yet.
        self.quiescent.store(quiescent.0, Ordering::Release);
        roll.spare = resumed.map(|(segment, end)| (segment.clone(), end));
        drop(roll);
        self.hints.forget();
        Ok(())
    }

    /// Voids what is torn, zeroes what is behind the last record, and returns where that ends.
    fn repair(&self, segment: &Segment, scanned: &Scanned) -> Result<u64> {
        let mut end = scanned.end;
        if segment.header_damage.is_some() {
            // Whether anything here is torn cannot be told.
            return Ok(end);
        }
        for (offset, bytes) in &scanned.torn {
            if offset + bytes == scanned.end {
                segment.zero(*offset, *bytes)?;
                end = *offset;
            } else if *bytes >= format::HEADER_BYTES {
                segment.make_void(&self.keys, *offset, *bytes)?;
            }
        }
        Ok(end)
    }

    /// Writes again what a failed flush may have lost (see `DESIGN.md`, *Notes*).
    fn settle_doubt(&self) -> Result<()> {
        let Some(first) = self.read_note(Note::Doubt)? else { return Ok(()) };
        for segment in self.found.iter().filter(|segment| segment.number >= first) {
            segment.rewrite()?;
            segment.flush()?;
        }
        self.medium.flush_directory().map_err(Error::io("flush", self.directory(), 0))?;
        let at = Note::Doubt.place();
        let io = Error::io("clear", path_of(&*self.medium, LOCK), at);
        self.notes.write_at(at, &[0; format::NOTE_BYTES]).map_err(io)
    }
}

pub(super) fn location(segment: &Segment, found: &Found<'_>, unverified: bool) -> Location {
    let kind = if found.header.kind == format::RecordKind::Tombstone { Kind::Removed } else { Kind::Log };
    Location::new(kind, Address::new(segment.base, found.offset), unverified)
}

fn check_options(options: &Options) -> Result<()> {
    let bytes = options.segment_bytes;
    if !(64 << 10..=1 << 30).contains(&bytes) || !bytes.is_multiple_of(8) {
        let expected = "65536 (64 KiB) to 1073741824 (1 GiB), a multiple of 8".to_owned();
        return Err(Error::Option { option: "segment_bytes", found: bytes.to_string(), expected });
    }
    if options.slots > Address::SLOTS {
        let expected = format!("at most {}", Address::SLOTS);
        return Err(Error::Option { option: "segment_slots", found: options.slots.to_string(), expected });
    }
    match options.disk_capacity.filter(|capacity| *capacity < SEGMENTS_MIN * bytes) {
        None => Ok(()),
        Some(capacity) => {
            let least = SEGMENTS_MIN * bytes;
            let expected = format!("at least {least}, {SEGMENTS_MIN} segments of {bytes}");
            Err(Error::Option { option: "disk_capacity", found: capacity.to_string(), expected })
        }
    }
}

fn path_of(medium: &dyn Medium, name: &str) -> String {
    format!("{}/{name}", medium.directory())
}

fn take_lock(medium: &dyn Medium, exclusive: bool) -> Result<Lock> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        let taken = medium.lock(LOCK, exclusive).map_err(Error::io("lock", path_of(medium, LOCK), 0))?;
        match taken {
            Some(lock) => return Ok(lock),
            None if Instant::now() >= deadline => return Err(Error::Locked { directory: medium.directory() }),
            None => std::thread::sleep(LOCK_RETRY),
        }
    }
}

fn create_identity(medium: &dyn Medium) -> Result<Identity> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Error::io("read", "the system's random numbers", 0)(std::io::Error::other(error)))?;
    let [mut id, mut secret] = [[0; 16]; 2];
    id.copy_from_slice(&random[..16]);
    secret.copy_from_slice(&random[16..]);
    let identity = Identity { id, secret };
    write_identity(medium, &identity)?;
    Ok(identity)
}

pub(super) fn write_identity(medium: &dyn Medium, identity: &Identity) -> Result<()> {
    let new = format!("{STORE}.new");
    let io = |action| Error::io(action, path_of(medium, STORE), 0);
    // Left behind by a crash.
    let _ = medium.remove(&new);
    let file = medium.create(&new).map_err(io("create"))?;
    let mut bytes = vec![0; IDENTITY_COPY + IDENTITY_BYTES];
    bytes[..IDENTITY_BYTES].copy_from_slice(&identity.encode());
    bytes[IDENTITY_COPY..].copy_from_slice(&identity.encode());
    file.write_at(0, &bytes).map_err(io("write"))?;
    file.flush().map_err(io("flush"))?;
    medium.rename(&new, STORE).map_err(io("rename"))?;
    medium.flush_directory().map_err(io("flush"))
}

/// Reads the first whole copy of the identity, and writes the other one again if it is damaged.
fn read_identity(medium: &dyn Medium, writable: bool) -> Result<Identity> {
    let path = path_of(medium, STORE);
    let io = |action| Error::io(action, path.clone(), 0);
    let file = medium.open(STORE, writable).map_err(io("open"))?;
    let read = |at: usize| -> Result<Result<Identity, BadBlock>> {
        let mut block = [0; IDENTITY_BYTES];
        match file.read_at(at as u64, &mut block) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Err(BadBlock::Magic)),
            Err(error) => Err(io("read")(error)),
            Ok(()) => Ok(Identity::decode(&block)),
        }
    };
    let heal = |at: usize, identity: &Identity| match writable {
        true => file.write_at(at as u64, &identity.encode()).map_err(io("write")),
        false => Ok(()),
    };
    match (read(0)?, read(IDENTITY_COPY)?) {
        (Ok(identity), Ok(_)) => Ok(identity),
        (Ok(identity), Err(_)) => heal(IDENTITY_COPY, &identity).map(|()| identity),
        (Err(BadBlock::Version(found)), _) => Err(Error::Version { file: path, found, supported: format::VERSION }),
        (Err(_), Ok(identity)) => heal(0, &identity).map(|()| identity),
        (Err(first), Err(_)) => {
            let what = match first {
                BadBlock::Checksum { stored, computed } => {
                    format!("checksum mismatch in both copies (stored {stored:016x}, computed {computed:016x})")
                }
                _ => "not a thermocline store".to_owned(),
            };
            Err(Error::Corrupt { file: path, offset: 0, what })
        }
    }
}

fn open_segments(
    medium: &Arc<dyn Medium>,
    identity: &Identity,
    numbers: &[u64],
    options: &Options,
    space: &Space,
) -> Result<Vec<Segment>> {
    let open = |number: &u64| {
        let growth_max = (Some(number) == numbers.last()).then(|| space.growth_max());
        Segment::open(medium, identity.id, *number, !options.read_only, growth_max, space.share(0))
    };
    numbers.iter().map(open).collect()
}

/// Gives each segment its ordinal and its place among `count` segment slots, the one that the words of a snapshot name; returns what
/// is left. `None` if they have no room.
fn give_places(segments: &mut [Segment], snapshot: Option<&Snapshot>, count: usize) -> Option<Slots> {
    let covered = |segment: &Segment| Some(snapshot?.covered(segment.number)?.base);
    let is_taken = |segment: &Segment| covered(segment).map(|base| base..base + segment.slots());
    let mut taken: Vec<_> = segments.iter().filter_map(is_taken).collect();
    taken.sort_unstable_by_key(|slots| slots.start);
    let mut slots = Slots::new(count, &taken)?;
    for (ordinal, segment) in (0..).zip(segments) {
        let base = covered(segment);
        (segment.ordinal, segment.is_covered) = (ordinal, base.is_some());
        segment.base = if let Some(base) = base { base } else { slots.take(segment.slots())? };
    }
    Some(slots)
}

#[cold]
fn too_many(segments: &[Segment], options: &Options, medium: &dyn Medium) -> Error {
    let slots = segments.iter().map(|segment| segment.slots() as u64).sum();
    Error::Full { directory: medium.directory(), slots, slots_max: options.slots as u64 }
}

/// What the last process says to this one.
pub(super) fn read_note(medium: &dyn Medium, notes: &dyn File, note: Note) -> Result<Option<u64>> {
    let io = |action| Error::io(action, path_of(medium, LOCK), note.place());
    let mut bytes = [0; format::NOTE_BYTES];
    if notes.bytes().map_err(io("measure"))? < note.place() + bytes.len() as u64 {
        return Ok(None);
    }
    notes.read_at(note.place(), &mut bytes).map_err(io("read"))?;
    Ok(format::decode_note(note, &bytes))
}
