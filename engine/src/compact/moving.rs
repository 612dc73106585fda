//! Moving what lives in a segment: each record is judged, copied, and followed by whatever names it.
//!
//! Holds what becomes of one record, and of the segment that is gone over. Invariants: a copy is durable before a slot names it; a lost
//! race is looked at again until no key rests on the segment.

use std::{cell::Cell, sync::PoisonError};

use thermocline_eviction::History;
use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{self, Cold, DICTIONARIES, Header, NewRecord, Older, RecordKind, Sealed, scan::Found as Scanned},
};

use super::Compacted;
use crate::{
    catalog::is_of_catalog,
    choice::Aim,
    counters::Count,
    engine::Core,
    found::{Found, copy_of, is_same},
    full::is_full,
    index::Look,
    pace::Pacer,
    pack::Packer,
};

/// So many records are looked at while exchanges wait.
const CHUNK: usize = 256;

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
pub(super) struct Move {
    hash: u64,
    from: Location,
    /// Nothing: it needs no copy, only its slot has to forget it.
    to: Location,
    bytes: u64,
    /// What it took before it was compressed, or goes.
    bytes_before: u64,
    /// Of what it is now.
    header: Header,
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
pub(super) struct Emptying<'a> {
    pub(super) sealed: &'a Sealed,
    pub(super) aim: Aim,
    /// Bytes that may stay.
    pub(super) credit: &'a Cell<u64>,
    /// Keys that go with the file, in the order of their places.
    pub(super) late: Vec<Move>,
}

impl Emptying<'_> {
    fn is_late(&self, at: Location) -> bool {
        self.late.binary_search_by_key(&at.address(), |moved| moved.from.address()).is_ok()
    }
}

/// Why a segment is gone over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    First,
    /// Looks for what was named again after it had been looked at.
    Again,
}

impl Core {
    /// Moves what the keys of a segment need to `cold`; returns how many slots follow, or `None` if the segment is damaged and left
    /// as it is, or the store is being closed.
    pub(super) fn move_living(
        &self,
        emptying: &mut Emptying<'_>,
        cold: &mut Cold,
        packer: &mut Option<Packer>,
        pass: Pass,
        pacer: &mut Pacer<'_, '_>,
        done: &mut Compacted,
    ) -> Result<Option<usize>> {
        let mut moves = Vec::new();
        let copied = self.copy_living(emptying, cold, packer, pass, pacer, &mut moves).and_then(|copied| {
            // Nobody is told to look for a copy that may be lost.
            if copied > Some(0) {
                self.log.flush_cold(cold)?;
            }
            Ok(copied)
        });
        let Ok(Some(bytes_written)) = copied else {
            // What was copied is needless, and nothing is added to a segment of which it is not known what the disk has.
            moves.iter().for_each(|moved| self.give_up(moved));
            let is_known = match &copied {
                Ok(_) | Err(Error::DiskCapacity { .. }) => true,
                Err(error) => is_full(error) && !matches!(error, Error::Io { action: "flush", .. }),
            };
            if !is_known {
                cold.leave_unflushed();
            }
            return copied.map(|_| None);
        };
        done.bytes_written += bytes_written;
        let scanned = if pass == Pass::First { emptying.sealed.bytes } else { 0 };
        let counts = [(Count::BytesScanned, scanned), (Count::BytesCompacted, bytes_written)];
        self.counters.add_all(counts, &Guard::pin());
        moves.iter().filter(|moved| !moved.is_late()).for_each(|moved| self.follow(moved));
        let count = moves.len();
        emptying.late.extend(moves.into_iter().filter(Move::is_late));
        Ok(Some(count))
    }

    fn give_up(&self, moved: &Move) {
        if !moved.to.is_nothing() {
            // By what it was overtaken nobody has looked.
            self.log.note_dead(moved.to, moved.bytes, &moved.header, true);
        }
    }

    /// Copies what the keys of a segment need; returns the bytes, or `None` if the segment is damaged, or the store ends.
    fn copy_living(
        &self,
        emptying: &Emptying<'_>,
        cold: &mut Cold,
        packer: &mut Option<Packer>,
        pass: Pass,
        pacer: &mut Pacer<'_, '_>,
        moves: &mut Vec<Move>,
    ) -> Result<Option<u64>> {
        let (sealed, mut written) = (emptying.sealed, 0);
        let packs = packer.is_some();
        // Nobody waits for compression while exchanges wait.
        let mut packer = packer.as_mut().filter(|_| pass != Pass::Again);
        let now_ms = self.clock.now_ms();
        let older = self.log.older_outside(sealed, now_ms);
        let (mut seen, mut unpaced) = (0, 0);
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
                pacer.pass_again(std::mem::take(&mut unpaced));
                exchanging = Some(self.exchanging.write().unwrap_or_else(PoisonError::into_inner));
            }
            seen += 1;
            match pass {
                Pass::First => pacer.pass(found.bytes),
                Pass::Again => unpaced += found.bytes,
            }
            let is_ours = found.namespace == DICTIONARIES || is_of_catalog(found.key);
            let stays = pass == Pass::Again || emptying.aim == Aim::Keep || is_ours;
            let is_full = found.bytes > emptying.credit.get();
            let stays = if stays {
                Stays::All
            } else if is_full {
                Stays::None
            } else {
                Stays::CameBack
            };
            let judged = self.judge_scanned(found, at, older, pass, stays)?;
            let Some((header, moved, why)) = judged else { return Ok(()) };
            let value = if header.kind.is_value() { found.value } else { &[] };
            let plain = NewRecord { header, namespace: found.namespace, key: found.key, value, kept: None };
            let copy = packer.as_mut().map_or(plain, |packer| packer.pack(plain));
            let to = match moved {
                Fate::Forgotten => Location::nothing(),
                Fate::Copied | Fate::CopiedAlone => {
                    written += copy.bytes();
                    if matches!(stays, Stays::CameBack) {
                        emptying.credit.set(emptying.credit.get().saturating_sub(copy.bytes()));
                    }
                    self.log.copy_cold(cold, &copy, packs, now_ms)?
                }
            };
            if moved != Fate::CopiedAlone {
                let (hash, bytes, bytes_before) = (self.log.keys().hash(found.key), copy.bytes(), found.bytes);
                moves.push(Move { hash, from: at, to, bytes, bytes_before, header: copy.header, leaves: why });
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
        older: Older,
        pass: Pass,
        stays: Stays,
    ) -> Result<Option<(Header, Fate, Option<Why>)>> {
        let guard = Guard::pin();
        // What else a key has matters to removals alone: they are needed without a slot, too.
        let is_asked = found.header.kind == RecordKind::Tombstone && pass != Pass::Again;
        let standing = self.standing(found, at, is_asked, &guard)?;
        let header = found.header;
        // A removal is needed as long as there may be something older that it removes, and in the place of what has expired as
        // long as that may live on.
        let is_needless = header.sequence < older.any;
        let tombstone = Header { kind: RecordKind::Tombstone, deadline_ms: 0, ..header };
        let fate = |oldest: u64| if header.sequence < oldest { Fate::Forgotten } else { Fate::Copied };
        Ok(match (header.kind, standing) {
            (RecordKind::Value | RecordKind::Packed, Standing::Needed(history)) => {
                let is_living = self.is_living_until(header.deadline_ms);
                match (is_living, is_living && self.is_to_stay(history, stays)) {
                    (_, true) => Some((header, Fate::Copied, None)),
                    (true, false) => Some((tombstone, fate(older.any), Some(Why::Evicted))),
                    (false, false) => Some((tombstone, fate(older.outliving), Some(Why::Expired))),
                }
            }
            (_, Standing::Needed(_)) => Some((tombstone, fate(older.any), None)),
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
    pub(super) fn follow(&self, moved: &Move) {
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
        let header = Header { kind: moved.header.kind, sequence: record.sequence(), deadline_ms: record.deadline_ms() };
        let copy = NewRecord { header, ..copy_of(&record) };
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
        let [evicted, expired] = [Why::Evicted, Why::Expired].map(|why| u64::from(moved.leaves == Some(why)));
        let bytes = moved.bytes_before - if moved.leaves.is_some() { 0 } else { moved.bytes };
        let left = [(Count::EvictedDiskCapacity, evicted), (Count::ExpiredLogged, expired)];
        self.counters.add_all([(Count::Taken, taken), (Count::LiveBytesTaken, bytes)].into_iter().chain(left), guard);
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
