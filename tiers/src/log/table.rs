//! The segments, by their slots and in the order of their numbers.
//!
//! Holds who has which slot. Never looks into a segment. Invariant: a slot that was named by what somebody has seen under a guard is that
//! segment's until the guard drops: whoever lets a segment go waits before he frees its slots.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{
    segment::{Segment, SharedSegment},
    slots::Slots,
};
use crate::{Guard, guard::Shared, slot::Address};

const PART: usize = 256;

/// What is where. Grows by parts.
#[derive(Debug)]
pub(super) struct Table {
    parts: Box<[OnceLock<Part>]>,
    kept: Mutex<Kept>,
}

type Part = Box<[Shared<Segment>; PART]>;

#[derive(Debug)]
struct Kept {
    slots: Slots,
    /// By their numbers.
    segments: BTreeMap<u64, SharedSegment>,
}

fn slots_of(segment: &Segment) -> Range<usize> {
    segment.base..segment.base + segment.slots()
}

impl Table {
    /// With no segment, and `slots` of which some may be taken already, by segments that are [put](Self::put) there.
    pub(super) fn new(slots: Slots) -> Self {
        let parts = (0..Address::SLOTS / PART).map(|_| OnceLock::new()).collect();
        Self { parts, kept: Mutex::new(Kept { slots, segments: BTreeMap::new() }) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics between two changes that belong together.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(super) fn get<'a>(&'a self, slot: usize, guard: &'a Guard) -> Option<&'a Segment> {
        self.parts.get(slot / PART)?.get()?[slot % PART].get(guard)
    }

    pub(super) fn share(&self, slot: usize, guard: &Guard) -> Option<SharedSegment> {
        self.parts.get(slot / PART)?.get()?[slot % PART].share(guard)
    }

    /// Takes so many slots side by side for a segment if `left` are free then.
    ///
    /// # Errors
    /// How many are taken, and how many there are.
    pub(super) fn take_slots(&self, count: usize, left: usize) -> Result<usize, (usize, usize)> {
        let slots = &mut self.kept().slots;
        let has_left = slots.free() >= count + left;
        let taken = if has_left { slots.take(count) } else { None };
        taken.ok_or_else(|| (slots.count() - slots.free(), slots.count()))
    }

    /// Gives slots back that nothing was put into, or from which it was taken.
    pub(super) fn give_slots(&self, slots: Range<usize>) {
        self.kept().slots.give(slots);
    }

    /// How many slots are free, and how many there are.
    pub(super) fn free_slots(&self) -> (usize, usize) {
        let slots = &self.kept().slots;
        (slots.free(), slots.count())
    }

    /// Puts a segment into its slots, which are its own.
    pub(super) fn put(&self, segment: &SharedSegment) {
        for slot in slots_of(segment) {
            let part = self.parts[slot / PART].get_or_init(|| Box::new([const { Shared::empty() }; PART]));
            assert!(part[slot % PART].put(segment.clone()), "a segment slot is one segment's");
        }
        self.kept().segments.insert(segment.number, segment.clone());
    }

    /// Takes a segment out that nobody can name a place in, and frees its slots.
    pub(super) fn remove(&self, segment: &Segment) {
        let slots = slots_of(segment);
        for slot in slots.clone() {
            if let Some(part) = self.parts[slot / PART].get() {
                part[slot % PART].take();
            }
        }
        let kept = &mut *self.kept();
        kept.segments.remove(&segment.number);
        kept.slots.give(slots);
    }

    /// All segments, in the order of their numbers.
    pub(super) fn all(&self) -> Vec<SharedSegment> {
        self.kept().segments.values().cloned().collect()
    }

    /// The segment of a number.
    pub(super) fn numbered(&self, number: u64) -> Option<SharedSegment> {
        self.kept().segments.get(&number).cloned()
    }
}
