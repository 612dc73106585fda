//! The sweep: a hand that goes over the records in memory round and round, and the worst of those that it met lately.
//!
//! Holds what one evictor knows of the memory tier. Never lets anything go, and never knows why one entry is worth more than
//! another. Invariant: what it names may be gone; whoever takes a victim looks at it first.

use thermocline_tiers::{
    Guard, Location,
    memory::{Hand, Memory},
};

/// How many records the hand meets at a time.
pub(crate) const MET: usize = 8;
/// How many of the worst are remembered between two times.
const CANDIDATES: usize = 12;

#[derive(Debug)]
pub(crate) struct Sweep {
    hand: Hand,
    /// Those that the hand meets next, so that their cache lines are there by then.
    next: [Option<Location>; MET],
    /// By falling worth, as of `tick` or later.
    candidates: Vec<(f32, Location)>,
    tick: u8,
}

impl Sweep {
    /// Each number starts elsewhere.
    pub(crate) fn new(number: usize) -> Self {
        Self { hand: Hand::new(number), next: [None; MET], candidates: Vec::with_capacity(CANDIDATES), tick: 0 }
    }

    /// Locations of the records that the hand meets now. The cache lines of the next ones are on their way.
    pub(crate) fn meet(&mut self, memory: &Memory, guard: &Guard) -> [Option<Location>; MET] {
        let mut following = [None; MET];
        memory.sweep(&mut self.hand, &mut following, guard);
        std::mem::replace(&mut self.next, following)
    }

    /// Remembers a record if it is among the worst.
    pub(crate) fn add(&mut self, at: Location, worth: f32) {
        let is_full = self.candidates.len() == CANDIDATES;
        if is_full && worth >= self.candidates[0].0 || self.candidates.iter().any(|(_, other)| *other == at) {
            return;
        }
        if is_full {
            self.candidates.remove(0);
        }
        let index = self.candidates.iter().rposition(|(other, _)| *other > worth).map_or(0, |index| index + 1);
        self.candidates.insert(index, (worth, at));
    }

    /// Takes the worst one out. `worth` says what a record is worth now, if it is still there.
    pub(crate) fn worst(&mut self, tick: u8, worth: impl Fn(Location) -> Option<f32>) -> Option<Location> {
        if self.tick != tick {
            self.tick = tick;
            self.candidates.retain_mut(|(known, at)| worth(*at).inspect(|now| *known = *now).is_some());
            self.candidates.sort_unstable_by(|(a, _), (b, _)| b.total_cmp(a));
        }
        // Each may have become worth more since it was met.
        for _ in 0..=self.candidates.len() {
            let (known, at) = self.candidates.pop()?;
            match worth(at) {
                Some(now) if now > known && self.candidates.last().is_some_and(|(next, _)| *next < now) => {
                    self.add(at, now);
                }
                Some(_) => return Some(at),
                None => {}
            }
        }
        None
    }

    /// Who is likely to be the worst the next time.
    pub(crate) fn next_worst(&self) -> Option<Location> {
        self.candidates.last().map(|(_, at)| *at)
    }
}
