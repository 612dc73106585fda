//! Recovery from a hint: what a segment has without reading it.
//!
//! Holds the same rule as for records that were read. A key is read from the log only where a slot's tag agrees, and compared then;
//! a record that turns out to be damaged is its hash's and its sequence's, as the hint says, so nothing older takes its place.

use std::collections::HashSet;

use thermocline_tiers::{
    Error, Guard, Result,
    log::{Hint, Hinted, Record},
};

use super::{Change, New, Rebuilding, Recovery};
use crate::{
    counters::Count,
    found::{Found, is_same},
};

/// So many records are published while the places in the index of as many more are on their way.
const GROUP: usize = 16;
/// The hash bits by which records are put in order first: those of neighbours are of the same pages of the index, or of the next.
const ORDER_BITS: u32 = 12;
/// So many records are put in order together, at least and at most; and not more than half of the keys that the index has, or
/// was made for: its pages are split in turn, so they have to grow alike, whoever publishes beside.
const BATCH_MIN: u64 = 1 << 10;
const BATCH_MAX: u64 = 1 << 18;
/// Of so many hashes one is looked at to tell how many keys there are, which is not worth it if fewer are found.
const SAMPLE: u64 = 256;
const SAMPLE_MIN: usize = 64;

/// Records about in the order of their hashes.
#[derive(Default)]
struct Batch {
    found: Vec<Hinted>,
    ordered: Vec<Hinted>,
}

impl Batch {
    /// Takes at most `count` records; `false` if there are no more.
    fn fill(&mut self, records: &mut impl Iterator<Item = Hinted>, count: u64) -> bool {
        self.found.clear();
        self.found.extend(records.take(count as usize));
        let Some(first) = self.found.first() else { return false };
        let place_of = |hinted: &Hinted| (hinted.hash >> (64 - ORDER_BITS)) as usize;
        self.ordered.clear();
        self.ordered.resize(self.found.len(), *first);
        let (mut places, mut next) = (vec![0; 1 << ORDER_BITS], 0);
        self.found.iter().for_each(|hinted| places[place_of(hinted)] += 1);
        for place in &mut places {
            next += std::mem::replace(place, next);
        }
        for hinted in &self.found {
            let place = &mut places[place_of(hinted)];
            self.ordered[*place] = *hinted;
            *place += 1;
        }
        true
    }
}

impl Rebuilding<'_> {
    /// Makes room in an index without keys for as many as hints tell of, so that it need not grow; `false` if it had to stay as it was.
    pub(super) fn make_room(&self) -> bool {
        if self.log.snapshot().is_some() {
            return false;
        }
        let sample = |segment| -> Vec<u64> {
            let hint = self.log.hint(segment);
            let hashes = hint.iter().flat_map(Hint::records).map(|hinted| hinted.hash);
            hashes.filter(|hash| hash % SAMPLE == 0).collect()
        };
        // A key that was written again counts once.
        let keys: HashSet<_> = self.each_segment(sample).into_iter().flatten().collect();
        keys.len() >= SAMPLE_MIN && self.index.make_room(keys.len() as u64 * SAMPLE)
    }

    /// Publishes the records of a hint.
    pub(super) fn publish_hinted(&self, hint: &Hint) -> Result<Recovery> {
        let mut recovery = Recovery { last_sequence: hint.figures().last_sequence, ..Recovery::default() };
        let (mut records, mut batch) = (hint.records(), Batch::default());
        let most = || if self.has_room { BATCH_MAX } else { (self.keys() / 2).clamp(BATCH_MIN, BATCH_MAX) };
        while batch.fill(&mut records, most()) {
            let mut change = Change::default();
            let mut groups = batch.ordered.chunks(GROUP).peekable();
            while let Some(group) = groups.next() {
                let guard = Guard::pin();
                groups.peek().iter().flat_map(|next| next.iter()).for_each(|next| self.index.prefetch(next.hash));
                for hinted in group {
                    recovery.records += u64::from(hinted.is_users);
                    recovery.bytes += hinted.bytes;
                    recovery.has_deadlines |= hinted.header.deadline_ms != 0;
                    change += self.publish_one_hinted(hinted, &guard)?;
                }
            }
            self.count(change, &Guard::pin());
        }
        recovery.hinted = recovery.records;
        Ok(recovery)
    }

    /// How many keys the index has, about.
    fn keys(&self) -> u64 {
        let taken = self.counters.sum(Count::Taken);
        self.counters.sum(Count::Added).saturating_sub(taken)
    }

    fn publish_one_hinted(&self, hinted: &Hinted, guard: &Guard) -> Result<Change> {
        let Hinted { at, hash, bytes, header, is_users } = *hinted;
        let new = New::of(at, hash, bytes, header, is_users);
        let tiers = self.tiers(guard);
        self.publish(&new, guard, |there| {
            let is_newer = |than: u64| self.is_newer((header.sequence, at), (than, there));
            let is_mine = |record: &Found<'_>| {
                if record.is_users() != is_users || self.log.keys().hash(record.key()) != hash {
                    return Ok(false);
                }
                match self.log.read(at, |mine: Record<'_>| is_same(mine.key(), record.key())) {
                    // What the hint says of it is all that is known.
                    Err(Error::Corrupt { .. }) => Ok(true),
                    other => other,
                }
            };
            self.judge(&tiers, there, &new, is_mine, is_newer)
        })
    }
}
