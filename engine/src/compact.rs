//! Compact: copy what lives in a segment to a cold one, have the slots name the copies, let the segment go.
//!
//! Holds the flow and its thread. What is chosen is said in `choice.rs`. Invariants: a copy is durable before a slot names it; a
//! segment goes only when no slot, and no record in memory, names a place in it, and when what made its other records needless
//! is durable too.

use std::{
    cell::Cell,
    ops::AddAssign,
    sync::{MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use thermocline_eviction::History;
use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{self, Cold, DICTIONARIES, Header, NewRecord, RecordKind, Sealed, scan::Found as Scanned},
};

use crate::{
    choice::{Aim, Effort, choose, is_pressing},
    counters::Count,
    engine::Core,
    found::{Found, is_same},
    index::Look,
    pack::Packer,
    worker::Next,
};

/// After so many bytes the thread rests for as long as they took it.
const STEP_BYTES: u64 = 1 << 20;
/// So many records are looked at while exchanges wait.
const CHUNK: usize = 256;
/// For each byte of a segment that is emptied for lack of room so much of one may stay, now or of the next ones.
const READMITTED_PART: u64 = 2;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Segments that went.
    pub segments: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// Bytes of records that were copied.
    pub bytes_written: u64,
    /// Bytes of the disk that came back.
    pub bytes_reclaimed: u64,
}

impl AddAssign for Compacted {
    fn add_assign(&mut self, other: Self) {
        self.segments += other.segments;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.bytes_reclaimed += other.bytes_reclaimed;
    }
}

/// What is kept between two compactions: the cold segment that is not full, what compresses, and how much may stay of what is emptied for lack
/// of room.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    cold: Option<Cold>,
    packer: Option<Packer>,
    credit: Cell<u64>,
    /// How far the log had grown when that was last looked at, and since when it has not.
    quiet: Option<(u64, Instant)>,
    has_rested: bool,
}

/// When nothing was written for so long, what is reserved is given back.
const REST_AFTER: Duration = Duration::from_secs(2);

impl Compaction {
    pub(crate) fn cold(&self) -> Option<&Cold> {
        self.cold.as_ref()
    }

    pub(crate) fn cold_mut(&mut self) -> &mut Option<Cold> {
        &mut self.cold
    }
}

/// How a record of a segment stands.
enum Standing {
    /// Its key's slot names it, or a record in memory whose home it is; what is remembered of the key.
    Needed(u16),
    /// The key has something newer.
    Superseded,
    /// The key has no slot.
    Unknown,
}

/// A record whose key needs it, or a removal in its place.
struct Move {
    hash: u64,
    from: Location,
    /// Nothing: it needs no copy, only its slot has to forget it.
    to: Location,
    bytes: u64,
    /// What it took before it was compressed, or goes.
    bytes_before: u64,
    sequence: u64,
    /// Of what it is now.
    kind: RecordKind,
    /// Why its key goes, if it does.
    leaves: Option<Why>,
}

/// Why a key goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Expired,
    /// There is no room for it.
    Evicted,
}

impl Move {
    /// Whether the key goes only with the file: nothing else keeps it from coming back.
    fn is_late(&self) -> bool {
        self.to.is_nothing() && self.leaves == Some(Why::Evicted)
    }
}

/// A segment that is being emptied.
struct Emptying<'a> {
    sealed: &'a Sealed,
    aim: Aim,
    /// Bytes that may stay.
    credit: &'a Cell<u64>,
    /// Keys that go with the file, in the order of their places.
    late: Vec<Move>,
}

impl Emptying<'_> {
    fn is_late(&self, at: Location) -> bool {
        self.late.binary_search_by_key(&at.address(), |moved| moved.from.address()).is_ok()
    }
}

/// How fast a segment is gone over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Steady,
    /// As long as it works, so long it rests.
    Resting,
}

/// Why a segment is gone over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    First(Pace),
    /// Looks for what was named again after it had been looked at.
    Again,
}

impl Core {
    pub(crate) fn compaction(&self) -> MutexGuard<'_, Compaction> {
        // What a compaction that panicked left is whole: a cold segment says itself where it ends.
        self.compaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps compaction out while somebody reads segments as files.
    pub(crate) fn without_compaction<R>(&self, read: impl FnOnce() -> R) -> R {
        let _compaction = self.compaction();
        read()
    }

    /// Has the compacting thread look whether there is something to do.
    pub(crate) fn wake_compactor(&self) {
        if self.options.in_memory || self.options.read_only || !self.options.compacts {
            return;
        }
        self.compactor.wake(|| {
            let this = self.this.clone();
            Box::new(move || match this.upgrade().map_or(Ok(Next::Done), |core| core.compact_next()) {
                // What went is given back when those are gone who still look into it.
                Err(Error::DiskCapacity { .. }) => Ok(Next::Soon),
                done => done.map_err(|error| error.to_string()),
            })
        });
    }

    fn compact_next(&self) -> Result<Next> {
        let mut compaction = self.compaction();
        if self.log.lacks_room() {
            // Before a writer has to wait for it.
            self.empty_some(&mut compaction)?;
            self.wake_ahead();
            return Ok(if self.log.lacks_room() { Next::Soon } else { Next::Again });
        }
        match self.compact_chosen(&mut compaction, Effort::Steady)? {
            Some(_) => Ok(Next::Again),
            None => {
                self.log.seal_cold(&mut compaction.cold)?;
                self.rest(&mut compaction)
            }
        }
    }

    /// Waits until nobody has written for a while, then compacts what is worth it only now, and gives back what is reserved.
    fn rest(&self, compaction: &mut Compaction) -> Result<Next> {
        let position = self.log.position();
        match compaction.quiet {
            Some((then, _)) if then == position && compaction.has_rested => return Ok(Next::Done),
            Some((then, since)) if then == position && since.elapsed() >= REST_AFTER => {}
            Some((then, _)) if then == position => return Ok(Next::Soon),
            _ => {
                (compaction.quiet, compaction.has_rested) = (Some((position, Instant::now())), false);
                return Ok(Next::Soon);
            }
        }
        // What was displaced last lies in segments whose writers have finished.
        Guard::pin().retire(self.log.quiescer());
        Guard::reclaim();
        if self.compact_chosen(compaction, Effort::Idle)?.is_some() {
            return Ok(Next::Again);
        }
        self.log.seal_cold(&mut compaction.cold)?;
        self.log.rest()?;
        compaction.has_rested = true;
        Ok(Next::Done)
    }

    /// Gives back what is reserved for writes; for tests of what comes after.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`].
    pub fn rest_now(&self) -> Result<()> {
        let _compaction = self.compaction();
        self.log.rest()
    }

    /// Compacts everything that has anything dead in it, or was never compressed if that is to be, now. Returns what that did.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`], [`thermocline_tiers::Error::Suspended`]: nothing is lost, and what was done stays done.
    pub fn compact(&self) -> Result<Compacted> {
        crate::inspect::check_outside_read("compact")?;
        let mut done = Compacted::default();
        if self.options.in_memory || self.options.read_only {
            return Ok(done);
        }
        self.sync()?;
        match self.log.roll(self.clock.now_ms(), self.options.compression.is_some()) {
            // What is dead in the segment that is appended to goes when there is room for another.
            Err(Error::DiskCapacity { .. }) => {}
            rolled => rolled?,
        }
        // Those who write now may write to a segment that is full.
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        let mut compaction = self.compaction();
        // A segment that was chosen once has nothing dead in it afterwards; what dies meanwhile is for the next time.
        for _ in 0..self.log.sealed(compaction.cold.as_ref(), self.clock.now_ms())?.len() {
            match self.compact_chosen(&mut compaction, Effort::Full) {
                Ok(Some(one)) => done += one,
                // Under a ceiling some of it may have to wait until there is room for what stays.
                Ok(None) | Err(Error::DiskCapacity { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        self.log.seal_cold(&mut compaction.cold)?;
        Guard::reclaim();
        Ok(done)
    }

    /// Compacts one of the segments that can be, `number` modulo their count, and no other; for tests of what that leaves behind.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    pub fn compact_any(&self, number: u64) -> Result<Compacted> {
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        let mut compaction = self.compaction();
        let sealed = self.log.sealed(compaction.cold.as_ref(), self.clock.now_ms())?;
        let chosen = sealed.get((number % sealed.len().max(1) as u64) as usize).copied();
        self.compact_segments(chosen.as_slice(), &mut compaction, Pace::Steady, Aim::Keep)
    }

    /// Ends what is half done; the thread has stopped.
    pub(crate) fn end_compaction(&self) -> Result<()> {
        self.log.seal_cold(&mut self.compaction().cold)
    }

    fn compact_chosen(&self, compaction: &mut Compaction, effort: Effort) -> Result<Option<Compacted>> {
        let sealed = self.log.sealed(compaction.cold.as_ref(), self.clock.now_ms())?;
        // Under a ceiling as much at a time as there is always room for.
        let bytes_max = if self.log.is_bounded() { self.options.segment_bytes } else { u64::MAX };
        let chosen = choose(&sealed, effort, bytes_max, self.options.compression.is_some());
        let pace = if effort == Effort::Full || is_pressing(&sealed) { Pace::Steady } else { Pace::Resting };
        match chosen.is_empty() {
            true => Ok(None),
            false => self.compact_segments(&chosen, compaction, pace, Aim::Keep).map(Some),
        }
    }

    /// Compacts some segments together: they share the waits and the flush of what made their records needless.
    pub(crate) fn compact_segments(
        &self,
        chosen: &[Sealed],
        compaction: &mut Compaction,
        pace: Pace,
        aim: Aim,
    ) -> Result<Compacted> {
        let done = self.empty_segments(chosen, compaction, pace, aim);
        // Copies of what is in those that stay after all can be removed before they go.
        chosen.iter().for_each(|sealed| self.log.note_left(sealed));
        done
    }

    fn empty_segments(
        &self,
        chosen: &[Sealed],
        compaction: &mut Compaction,
        pace: Pace,
        aim: Aim,
    ) -> Result<Compacted> {
        let Compaction { cold, packer, credit, .. } = compaction;
        let (mut done, mut emptied) = (Compacted::default(), Vec::new());
        if self.log.is_bounded() {
            self.log.seal_cold_for(cold, chosen.iter().map(|sealed| sealed.bytes).sum())?;
        }
        if aim == Aim::Keep && !chosen.is_empty() {
            self.prepare_packer(packer, chosen, cold)?;
        }
        for sealed in chosen {
            let mut emptying = Emptying { sealed, aim, credit, late: Vec::new() };
            if aim == Aim::Evict {
                credit.set((credit.get() + sealed.bytes / READMITTED_PART).min(self.options.segment_bytes));
            }
            if self.move_living(&mut emptying, cold, packer, Pass::First(pace), &mut done)?.is_some() {
                emptied.push(emptying);
            }
        }
        self.count_packed(packer, &Guard::pin());
        let mut has_moved = true;
        while has_moved {
            // Whoever still has a place of these segments in hand has published it, or nothing, after this.
            Guard::wait_for_others();
            has_moved = false;
            let mut looked_at = Vec::new();
            for mut emptying in emptied {
                if let Some(count) = self.move_living(&mut emptying, cold, packer, Pass::Again, &mut done)? {
                    has_moved |= count > 0;
                    looked_at.push(emptying);
                }
            }
            emptied = looked_at;
        }
        if emptied.is_empty() {
            return Ok(done);
        }
        // What made the others needless is as durable as they were.
        self.let_exchanges_count();
        self.log.flush()?;
        for Emptying { sealed, late, .. } in emptied {
            let forget = || late.iter().for_each(|moved| self.follow(moved));
            done.bytes_reclaimed += self.log.drop_sealed(sealed, forget)?;
            (done.segments, done.bytes_read) = (done.segments + 1, done.bytes_read + sealed.bytes);
        }
        let guard = Guard::pin();
        let counts = [(Count::BytesCompacted, done.bytes_written), (Count::BytesReclaimed, done.bytes_reclaimed)];
        self.counters.add_all(counts, &guard);
        Ok(done)
    }

    /// Moves what the keys of a segment need to `cold`; returns how many slots follow, or `None` if the segment is damaged and left
    /// as it is, or the store is being closed.
    fn move_living(
        &self,
        emptying: &mut Emptying<'_>,
        cold: &mut Option<Cold>,
        packer: &mut Option<Packer>,
        pass: Pass,
        done: &mut Compacted,
    ) -> Result<Option<usize>> {
        let mut moves = Vec::new();
        let copied = self.copy_living(emptying, cold, packer, pass, &mut moves).and_then(|copied| {
            // Nobody is told to look for a copy that may be lost.
            cold.as_ref().filter(|_| copied > Some(0)).map_or(Ok(()), |cold| self.log.flush_cold(cold))?;
            Ok(copied)
        });
        let Ok(Some(bytes_written)) = copied else {
            // What was copied is needless, and nothing is added to a segment of which it is not known what the disk has.
            moves.iter().for_each(|moved| self.give_up(moved));
            *cold = cold.take().filter(|_| matches!(copied, Ok(_) | Err(Error::DiskCapacity { .. })));
            return copied.map(|_| None);
        };
        done.bytes_written += bytes_written;
        moves.iter().filter(|moved| !moved.is_late()).for_each(|moved| self.follow(moved));
        let count = moves.len();
        emptying.late.extend(moves.into_iter().filter(Move::is_late));
        Ok(Some(count))
    }

    fn give_up(&self, moved: &Move) {
        if !moved.to.is_nothing() {
            self.log.note_dead(moved.to, moved.bytes, Some(moved.sequence).filter(|_| moved.kind.is_value()));
        }
    }

    /// Copies what the keys of a segment need; returns the bytes, or `None` if the segment is damaged, or the store ends.
    fn copy_living(
        &self,
        emptying: &Emptying<'_>,
        cold: &mut Option<Cold>,
        packer: &mut Option<Packer>,
        pass: Pass,
        moves: &mut Vec<Move>,
    ) -> Result<Option<u64>> {
        let (sealed, mut written) = (emptying.sealed, 0);
        let packs = packer.is_some();
        // Nobody waits for compression while exchanges wait.
        let mut packer = packer.as_mut().filter(|_| pass != Pass::Again);
        let oldest_dead = self.log.oldest_dead_outside(sealed);
        let (mut seen, mut step, mut start) = (0, 0, Instant::now());
        let mut exchanging = None;
        let mut is_ending = false;
        let is_whole = self.log.visit_sealed(sealed, |found, at| {
            // Whoever waits for room at the end needs it for what would be lost.
            is_ending |= self.compactor.is_ending() && emptying.aim == Aim::Keep;
            if is_ending || emptying.is_late(at) {
                return Ok(());
            }
            if pass == Pass::Again && seen % CHUNK == 0 {
                // What is seen, and not what an exchange in flight may take back.
                exchanging = None;
                exchanging = Some(self.exchanging.write().unwrap_or_else(PoisonError::into_inner));
            }
            seen += 1;
            step += found.bytes;
            if step >= STEP_BYTES && pass == Pass::First(Pace::Resting) {
                thread::sleep(start.elapsed());
                (step, start) = (0, Instant::now());
            }
            let stays = pass == Pass::Again || emptying.aim == Aim::Keep || found.namespace == DICTIONARIES;
            let is_full = found.bytes > emptying.credit.get();
            let stays = if stays {
                Stays::All
            } else if is_full {
                Stays::None
            } else {
                Stays::CameBack
            };
            let judged = self.judge_scanned(found, at, oldest_dead, pass, stays)?;
            let Some((header, moved, why)) = judged else { return Ok(()) };
            let value = if header.kind.is_value() { found.value } else { &[] };
            let plain = NewRecord { header, namespace: found.namespace, key: found.key, value };
            let copy = packer.as_mut().map_or(plain, |packer| packer.pack(plain));
            let to = match moved {
                Fate::Forgotten => Location::nothing(),
                Fate::Copied | Fate::CopiedAlone => {
                    written += copy.bytes();
                    if matches!(stays, Stays::CameBack) {
                        emptying.credit.set(emptying.credit.get().saturating_sub(copy.bytes()));
                    }
                    self.log.copy_cold(cold, &copy, packs)?
                }
            };
            if moved != Fate::CopiedAlone {
                let Header { kind, sequence, .. } = copy.header;
                let (hash, bytes, bytes_before) = (self.log.keys().hash(found.key), copy.bytes(), found.bytes);
                moves.push(Move { hash, from: at, to, bytes, bytes_before, sequence, kind, leaves: why });
            }
            Ok(())
        })?;
        drop(exchanging);
        Ok((is_whole && !is_ending).then_some(written))
    }

    /// What is to become of a record: the header of its copy, and why its key goes if it does; or `None` if no key needs it.
    fn judge_scanned(
        &self,
        found: &Scanned<'_>,
        at: Location,
        oldest_dead: u64,
        pass: Pass,
        stays: Stays,
    ) -> Result<Option<(Header, Fate, Option<Why>)>> {
        let guard = Guard::pin();
        // What else a key has matters to removals alone: they are needed without a slot, too.
        let is_asked = found.header.kind == RecordKind::Tombstone && pass != Pass::Again;
        let standing = self.standing(found, at, is_asked, &guard)?;
        let header = found.header;
        // A removal is needed as long as there may be something older that it removes.
        let is_needless = header.sequence < oldest_dead;
        let tombstone = Header { kind: RecordKind::Tombstone, deadline_ms: 0, ..header };
        let fate = if is_needless { Fate::Forgotten } else { Fate::Copied };
        Ok(match (header.kind, standing) {
            (RecordKind::Value | RecordKind::Packed, Standing::Needed(history)) => {
                let is_living = self.is_living_until(header.deadline_ms);
                let why = if is_living { Why::Evicted } else { Why::Expired };
                match is_living && self.is_to_stay(history, stays) {
                    true => Some((header, Fate::Copied, None)),
                    false => Some((tombstone, fate, Some(why))),
                }
            }
            (_, Standing::Needed(_)) => Some((tombstone, fate, None)),
            (RecordKind::Tombstone, Standing::Unknown) if !is_needless && pass != Pass::Again => {
                Some((tombstone, Fate::CopiedAlone, None))
            }
            _ => None,
        })
    }

    fn is_to_stay(&self, history: u16, stays: Stays) -> bool {
        match stays {
            Stays::All => true,
            Stays::CameBack => History::from_bits(history).came_back(self.keeper.tick()),
            Stays::None => false,
        }
    }

    /// How the record at `at` stands. Whether its key has something newer costs a look at that, unless it is not asked.
    fn standing(&self, scanned: &Scanned<'_>, at: Location, is_asked: bool, guard: &Guard) -> Result<Standing> {
        let (tiers, key, is_users) = (self.tiers(guard), scanned.key, scanned.namespace != DICTIONARIES);
        let hash = self.log.keys().hash(key);
        let found = self.index.find(hash, guard, |there| {
            if there.as_verified() == at {
                let history = self.index.touch(hash, there, guard, |history| history);
                return Ok(Look::Found(Standing::Needed(history.unwrap_or_default())));
            }
            if there.kind() != Kind::Memory && !is_asked {
                return Ok(Look::Other);
            }
            tiers.read_to_replace(there, |record| match record {
                Some(record) if !is_same(record.key(), key) || record.is_users() != is_users => Look::Other,
                Some(Found::Memory(record)) if record.home().is_some_and(|home| home.address() == at.address()) => {
                    Look::Found(Standing::Needed(record.history()))
                }
                // Damaged: what it would have taken the place of may come back, should it be gone at the next open.
                None => Look::Found(Standing::Unknown),
                _ => Look::Found(Standing::Superseded),
            })
        })?;
        Ok(found.unwrap_or(Standing::Unknown))
    }

    /// Has whatever names the old place of a record name the new one.
    fn follow(&self, moved: &Move) {
        let guard = Guard::pin();
        loop {
            // The slot names it, read since it came from a snapshot or not, or a record in memory whose home it is.
            let named = self.index.find(moved.hash, &guard, |there| {
                if there.as_verified() == moved.from {
                    return Ok(Look::Found(there));
                }
                if there.kind() != Kind::Memory {
                    return Ok(Look::Other);
                }
                Ok(match self.memory.record(there, &guard) {
                    None => Look::Moved,
                    Some(record) if record.home().is_some_and(|home| home.address() == moved.from.address()) => {
                        Look::Found(there)
                    }
                    Some(_) => Look::Other,
                })
            });
            match named.ok().flatten() {
                Some(there) if there.kind() == Kind::Memory => {
                    if self.rehome(moved, there, &guard) {
                        return;
                    }
                }
                Some(there) => {
                    let history = self.index.touch(moved.hash, there, &guard, |history| history).unwrap_or(0);
                    if self.index.exchange(moved.hash, there, moved.to, history, &guard) {
                        self.note_gone(moved);
                        return self.count_moved(moved, &guard);
                    }
                }
                // Something newer came; the copy is needed no more.
                None => return self.give_up(moved),
            }
        }
    }

    /// Replaces the record in memory at `there` by one whose home is the new place; `false` if it has left the slot.
    fn rehome(&self, moved: &Move, there: Location, guard: &Guard) -> bool {
        let Some(record) = self.memory.record(there, guard) else { return false };
        let header = Header { kind: moved.kind, sequence: record.sequence(), deadline_ms: record.deadline_ms() };
        let copy = NewRecord { header, namespace: 0, key: record.key(), value: record.value() };
        let home = Some(moved.to).filter(|_| moved.leaves.is_none());
        let placed = home.and_then(|home| self.memory.place(&copy, Some(home), record.history(), false, guard));
        let to = placed.as_ref().map_or(moved.to, |placed| placed.location());
        if !self.index.exchange(moved.hash, there, to, record.history(), guard) {
            return false;
        }
        match placed {
            Some(placed) => placed.published(),
            None => {
                let reason = match moved.leaves {
                    None => Some(Count::EvictedCapacity),
                    Some(Why::Expired) => Some(Count::EvictedExpired),
                    // Counted as what left the log.
                    Some(Why::Evicted) => None,
                };
                let counts = reason.into_iter().flat_map(|reason| [(reason, 1), (Count::Demotion, 1)]);
                self.counters.add_all(counts, guard);
                self.note_gone(moved);
            }
        }
        self.count_moved(moved, guard);
        self.memory.retire(there, guard);
        true
    }

    /// Counts what a key has less than before: what was compressed, or all.
    fn count_moved(&self, moved: &Move, guard: &Guard) {
        let taken = u64::from(moved.leaves.is_some());
        let evicted = u64::from(moved.leaves == Some(Why::Evicted));
        let bytes = moved.bytes_before - if moved.leaves.is_some() { 0 } else { moved.bytes };
        let counts = [(Count::Taken, taken), (Count::LiveBytesTaken, bytes), (Count::EvictedDiskCapacity, evicted)];
        self.counters.add_all(counts, guard);
    }

    /// Remembers who had to go for lack of room. The record is there as long as its segment is.
    fn note_gone(&self, moved: &Move) {
        if moved.leaves == Some(Why::Evicted) {
            let note = |record: log::Record<'_>| {
                self.keeper.note_eviction(record.key(), Count::EvictedDiskCapacity, self.clock.now_coarse_ms());
            };
            // Counted all the same if it cannot be read a second time.
            let _ = self.log.read_unchecked(moved.from, note);
        }
    }
}

/// What of the living stays.
#[derive(Clone, Copy)]
enum Stays {
    All,
    CameBack,
    None,
}

/// What becomes of a record that is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It moves, and its slot with it.
    Copied,
    /// It moves; no slot names it.
    CopiedAlone,
    /// Its slot forgets it.
    Forgotten,
}
