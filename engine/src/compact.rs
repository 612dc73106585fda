//! Compact: copy what lives in a segment to a cold one, have the slots name the copies, let the segment go.
//!
//! Holds the flow and its thread. What is chosen is said in `choice.rs`. Invariants: a copy is durable before a slot names it; a
//! segment goes only when no slot, and no record in memory, names a place in it, and when what made its other records needless
//! is durable too.

use std::{
    ops::AddAssign,
    sync::{MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use thermocline_tiers::{
    Guard, Kind, Location, Result,
    log::{Cold, DICTIONARIES, Header, NewRecord, RecordKind, Sealed, scan::Found as Scanned},
};

use crate::{
    choice::{Effort, choose, is_pressing},
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

/// What is kept between two compactions: the cold segment that is not full, and what compresses.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    cold: Option<Cold>,
    packer: Option<Packer>,
}

/// How a record of a segment stands.
enum Standing {
    /// Its key's slot names it, or a record in memory whose home it is.
    Needed,
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
    /// What it took before it was compressed, or has expired.
    bytes_before: u64,
    sequence: u64,
    /// Of what it is now.
    kind: RecordKind,
    has_expired: bool,
}

/// How fast a segment is gone over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
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
    fn compaction(&self) -> MutexGuard<'_, Compaction> {
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
            Box::new(move || match this.upgrade() {
                Some(core) => core.compact_next().map_err(|error| error.to_string()),
                None => Ok(Next::Done),
            })
        });
    }

    fn compact_next(&self) -> Result<Next> {
        let mut compaction = self.compaction();
        match self.compact_chosen(&mut compaction, Effort::Steady)? {
            Some(_) => Ok(Next::Again),
            None => self.log.seal_cold(&mut compaction.cold).map(|()| Next::Done),
        }
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
        self.log.roll(self.clock.now_ms(), self.options.compression.is_some())?;
        // Those who write now may write to a segment that is full.
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        let mut compaction = self.compaction();
        // A segment that was chosen once has nothing dead in it afterwards; what dies meanwhile is for the next time.
        for _ in 0..self.log.sealed(compaction.cold.as_ref(), self.clock.now_ms())?.len() {
            match self.compact_chosen(&mut compaction, Effort::Full)? {
                Some(one) => done += one,
                None => break,
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
        self.compact_segments(chosen.as_slice(), &mut compaction, Pace::Steady)
    }

    /// Ends what is half done; the thread has stopped.
    pub(crate) fn end_compaction(&self) -> Result<()> {
        self.log.seal_cold(&mut self.compaction().cold)
    }

    fn compact_chosen(&self, compaction: &mut Compaction, effort: Effort) -> Result<Option<Compacted>> {
        let sealed = self.log.sealed(compaction.cold.as_ref(), self.clock.now_ms())?;
        let chosen = choose(&sealed, effort, self.options.compression.is_some());
        let pace = if effort == Effort::Full || is_pressing(&sealed) { Pace::Steady } else { Pace::Resting };
        match chosen.is_empty() {
            true => Ok(None),
            false => self.compact_segments(&chosen, compaction, pace).map(Some),
        }
    }

    /// Compacts some segments together: they share the waits and the flush of what made their records needless.
    fn compact_segments(&self, chosen: &[Sealed], compaction: &mut Compaction, pace: Pace) -> Result<Compacted> {
        let (mut done, mut emptied) = (Compacted::default(), Vec::new());
        if !chosen.is_empty() {
            self.prepare_packer(&mut compaction.packer, chosen, &mut compaction.cold)?;
        }
        for sealed in chosen {
            if self.move_living(sealed, compaction, Pass::First(pace), &mut done)?.is_some() {
                emptied.push(sealed);
            }
        }
        self.count_packed(&mut compaction.packer, &Guard::pin());
        let mut has_moved = true;
        while has_moved {
            // Whoever still has a place of these segments in hand has published it, or nothing, after this.
            Guard::wait_for_others();
            has_moved = false;
            let mut looked_at = Vec::new();
            for sealed in emptied {
                if let Some(count) = self.move_living(sealed, compaction, Pass::Again, &mut done)? {
                    has_moved |= count > 0;
                    looked_at.push(sealed);
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
        for sealed in emptied {
            done.bytes_reclaimed += self.log.drop_sealed(sealed)?;
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
        sealed: &Sealed,
        compaction: &mut Compaction,
        pass: Pass,
        done: &mut Compacted,
    ) -> Result<Option<usize>> {
        let mut moves = Vec::new();
        let copied = self.copy_living(sealed, compaction, pass, &mut moves).and_then(|copied| {
            // Nobody is told to look for a copy that may be lost.
            compaction.cold.as_ref().filter(|_| copied > Some(0)).map_or(Ok(()), |cold| self.log.flush_cold(cold))?;
            Ok(copied)
        });
        let Ok(Some(bytes_written)) = copied else {
            // What was copied is needless, and nothing is added to a segment of which it is not known what the disk has.
            moves.iter().for_each(|moved| self.give_up(moved));
            compaction.cold = compaction.cold.take().filter(|_| copied.is_ok());
            return copied.map(|_| None);
        };
        done.bytes_written += bytes_written;
        moves.iter().try_for_each(|moved| self.follow(moved))?;
        Ok(Some(moves.len()))
    }

    fn give_up(&self, moved: &Move) {
        if !moved.to.is_nothing() {
            self.log.note_dead(moved.to, moved.bytes, Some(moved.sequence).filter(|_| moved.kind.is_value()));
        }
    }

    /// Copies what the keys of a segment need; returns the bytes, or `None` if the segment is damaged, or the store ends.
    fn copy_living(
        &self,
        sealed: &Sealed,
        compaction: &mut Compaction,
        pass: Pass,
        moves: &mut Vec<Move>,
    ) -> Result<Option<u64>> {
        let Compaction { cold, packer } = compaction;
        let packs = packer.is_some();
        // Nobody waits for compression while exchanges wait.
        let mut packer = packer.as_mut().filter(|_| pass != Pass::Again);
        let mut written = 0;
        let oldest_dead = self.log.oldest_dead_outside(sealed);
        let (mut seen, mut step, mut start) = (0, 0, Instant::now());
        let mut exchanging = None;
        let mut is_ending = false;
        let is_whole = self.log.visit_sealed(sealed, |found, at| {
            is_ending |= self.compactor.is_ending();
            if is_ending {
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
            let Some((header, moved)) = self.judge_scanned(found, at, oldest_dead, pass)? else { return Ok(()) };
            let value = if header.kind.is_value() { found.value } else { &[] };
            let plain = NewRecord { header, namespace: found.namespace, key: found.key, value };
            let copy = packer.as_mut().map_or(plain, |packer| packer.pack(plain));
            let to = match moved {
                Fate::Forgotten => Location::nothing(),
                Fate::Copied | Fate::CopiedAlone => {
                    written += copy.bytes();
                    self.log.copy_cold(cold, &copy, packs)?
                }
            };
            if moved != Fate::CopiedAlone {
                let Header { kind, sequence, .. } = copy.header;
                let has_expired = header.kind != found.header.kind;
                let (hash, bytes, bytes_before) = (self.log.keys().hash(found.key), copy.bytes(), found.bytes);
                moves.push(Move { hash, from: at, to, bytes, bytes_before, sequence, kind, has_expired });
            }
            Ok(())
        })?;
        drop(exchanging);
        Ok((is_whole && !is_ending).then_some(written))
    }

    /// What is to become of a record: the header of its copy, or `None` if no key needs it.
    fn judge_scanned(
        &self,
        found: &Scanned<'_>,
        at: Location,
        oldest_dead: u64,
        pass: Pass,
    ) -> Result<Option<(Header, Fate)>> {
        let guard = Guard::pin();
        // What else a key has matters to removals alone: they are needed without a slot, too.
        let is_asked = found.header.kind == RecordKind::Tombstone && pass != Pass::Again;
        let standing = self.standing(found, at, is_asked, &guard)?;
        let header = found.header;
        // A removal is needed as long as there may be something older that it removes.
        let is_needless = header.sequence < oldest_dead;
        let tombstone = Header { kind: RecordKind::Tombstone, deadline_ms: 0, ..header };
        Ok(match (header.kind, standing) {
            (RecordKind::Value | RecordKind::Packed, Standing::Needed) if self.is_living_until(header.deadline_ms) => {
                Some((header, Fate::Copied))
            }
            (_, Standing::Needed) if is_needless => Some((tombstone, Fate::Forgotten)),
            (_, Standing::Needed) => Some((tombstone, Fate::Copied)),
            (RecordKind::Tombstone, Standing::Unknown) if !is_needless && pass != Pass::Again => {
                Some((tombstone, Fate::CopiedAlone))
            }
            _ => None,
        })
    }

    /// How the record at `at` stands. Whether its key has something newer costs a look at that, unless it is not asked.
    fn standing(&self, scanned: &Scanned<'_>, at: Location, is_asked: bool, guard: &Guard) -> Result<Standing> {
        let (tiers, key, is_users) = (self.tiers(guard), scanned.key, scanned.namespace != DICTIONARIES);
        let found = self.index.find(self.log.keys().hash(key), guard, |there| {
            if there == at {
                return Ok(Look::Found(Standing::Needed));
            }
            if there.kind() != Kind::Memory && !is_asked {
                return Ok(Look::Other);
            }
            tiers.read_to_replace(there, |record| match record {
                Some(record) if !is_same(record.key(), key) || record.is_users() != is_users => Look::Other,
                Some(Found::Memory(record)) if record.home().is_some_and(|home| home.address() == at.address()) => {
                    Look::Found(Standing::Needed)
                }
                _ => Look::Found(Standing::Superseded),
            })
        })?;
        Ok(found.unwrap_or(Standing::Unknown))
    }

    /// Has whatever names the old place of a record name the new one.
    fn follow(&self, moved: &Move) -> Result<()> {
        let guard = Guard::pin();
        loop {
            let history = self.index.touch(moved.hash, moved.from, &guard, |history| history);
            if let Some(history) = history {
                if self.index.exchange(moved.hash, moved.from, moved.to, history, &guard) {
                    self.count_moved(moved, &guard);
                    return Ok(());
                }
                continue;
            }
            let home = self.index.find(moved.hash, &guard, |there| {
                Ok(match self.memory.record(there, &guard).filter(|_| there.kind() == Kind::Memory) {
                    Some(record) if record.home().is_some_and(|home| home.address() == moved.from.address()) => {
                        Look::Found(there)
                    }
                    _ => Look::Other,
                })
            })?;
            match home {
                Some(there) if self.rehome(moved, there, &guard) => return Ok(()),
                Some(_) => {}
                // Something newer came; the copy is needed no more.
                None => {
                    self.give_up(moved);
                    return Ok(());
                }
            }
        }
    }

    /// Replaces the record in memory at `there` by one whose home is the new place; `false` if it has left the slot.
    fn rehome(&self, moved: &Move, there: Location, guard: &Guard) -> bool {
        let Some(record) = self.memory.record(there, guard) else { return false };
        let header = Header { kind: moved.kind, sequence: record.sequence(), deadline_ms: record.deadline_ms() };
        let copy = NewRecord { header, namespace: 0, key: record.key(), value: record.value() };
        let home = Some(moved.to).filter(|_| !moved.has_expired);
        let placed = home.and_then(|home| self.memory.place(&copy, Some(home), record.history(), false, guard));
        let to = placed.as_ref().map_or(moved.to, |placed| placed.location());
        if !self.index.exchange(moved.hash, there, to, record.history(), guard) {
            return false;
        }
        match placed {
            Some(placed) => placed.published(),
            None => {
                let reason = if moved.has_expired { Count::EvictedExpired } else { Count::EvictedCapacity };
                self.counters.add_all([(reason, 1), (Count::Demotion, 1)], guard);
            }
        }
        self.count_moved(moved, guard);
        self.memory.retire(there, guard);
        true
    }

    /// Counts what a key has less than before: what was compressed, or all.
    fn count_moved(&self, moved: &Move, guard: &Guard) {
        let bytes = moved.bytes_before - if moved.has_expired { 0 } else { moved.bytes };
        self.counters.add_all([(Count::Taken, u64::from(moved.has_expired)), (Count::LiveBytesTaken, bytes)], guard);
    }
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
