//! Flights: values that are being computed, one computation at a time per key.
//!
//! Holds who computes, who waits, and what became of it; `flight/wait.rs` has the waiting. Never computes, and never looks
//! into a value. Invariants: at most one flight of a key can be met at a time; what is written to a key after its flight began
//! is not replaced by its result; whoever waits is answered, or leads next.
//!
//! ```text
//!             succeed              keep returns
//!   RUNNING ----------> KEEPING ------------------> DONE        DONE, FAILED, GONE: nobody meets the flight
//!    ^  |  \                                                    any more, whoever waits looks and leaves
//!    |  |   +--- fail -----------------------------> FAILED
//!    |  | lead is dropped: a panic, a cancelled future
//!    |  +---- somebody waits ---> VACANT --- all who waited left ---> GONE
//!    |  +---- nobody waits, or overtaken --------------------------->  ^
//!    +----------- one of those claims it (lead) -----/
//! ```
//!
//! A flight that is queued begins VACANT, with nobody who waits: the first who joins claims it, or whom it was queued for.

mod queued;
mod wait;
mod within;
mod write;

use std::{fmt, mem, sync::Arc, sync::PoisonError, task::Waker};

use crossbeam_utils::CachePadded;
use dashmap::{DashMap, Entry};

use thermocline_tiers::memory::Object;

use within::is_within;

use crate::{
    sync::in_air::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, ThreadId, current, fence},
    timer::wake,
};

pub use queued::Queued;
pub use wait::{Landed, Waiter};
pub use within::Within;

/// Locks of the map: a handful of computations begin at the same instant, not hundreds.
const SHARDS: usize = 16;

/// The computations in the air of one namespace.
pub struct Flights {
    /// How many flights can be met.
    in_air: AtomicU64,
    by_key: DashMap<Arc<[u8]>, Arc<Flight>>,
    outcomes: [AtomicU64; 4],
    /// What kept the last value from being kept that was not.
    why_unkept: std::sync::Mutex<Option<String>>,
    numbers: AtomicU64,
    /// How many are writing now, by stripes of keys.
    writing: [CachePadded<AtomicU64>; write::STRIPES],
}

impl Default for Flights {
    fn default() -> Self {
        let by_key = DashMap::with_shard_amount(SHARDS);
        let zero = || AtomicU64::new(0);
        let outcomes = std::array::from_fn(|_| zero());
        let writing = std::array::from_fn(|_| CachePadded::new(zero()));
        Self { in_air: zero(), by_key, outcomes, why_unkept: std::sync::Mutex::default(), numbers: zero(), writing }
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("in_air", &self.by_key.len()).finish_non_exhaustive()
    }
}

/// What became of a call, where that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Outcome {
    /// It missed, and was answered by a computation of somebody else.
    Answered,
    /// Its refresh failed; it was answered with the stale value.
    RefreshFailed,
    /// What it computed could not be kept.
    Unkept,
    /// It waited too long.
    Late,
}

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pilot {
    /// The thread that asks: if it asks for the same key once more, it would wait for itself.
    ThisThread,
    /// A task, or a thread of a pool: it says by [`Lead::enter`] when it computes.
    Other,
}

/// What a caller has to do.
#[derive(Debug)]
pub enum Joined {
    /// Compute, for all who come meanwhile.
    Lead(Lead),
    /// Wait.
    Wait(Waiter),
    /// Compute beside it: this very thread, or the task it polls, leads the flight.
    Own,
}

/// The one who computes. Dropped without a result, it hands over to one of those who wait.
#[must_use = "dropping it hands over"]
pub struct Lead {
    flights: Arc<Flights>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
}

/// One who computes beside the lead, having waited long enough. Whichever comes first answers those who still wait.
pub struct Aside {
    flights: Arc<Flights>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
}

#[derive(Debug)]
struct Flight {
    state: Mutex<State>,
    /// Told of every change of the phase.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Somebody wrote or removed the key since this began.
    is_overtaken: bool,
    waiting: usize,
    wakers: Vec<(u64, Waker)>,
}

#[derive(Clone, Debug)]
enum Phase {
    Running(Option<ThreadId>),
    Keeping,
    Vacant,
    Gone,
    Done(Object),
    Failed(Object),
}

impl State {
    fn take_waker(&mut self, id: u64) -> Option<Waker> {
        let place = self.wakers.iter().position(|(other, _)| *other == id)?;
        Some(self.wakers.swap_remove(place).1)
    }
}

impl Flights {
    /// Leads the flight of `key` if there is none, else says how to take part in it.
    pub fn join(self: &Arc<Self>, key: &[u8], pilot: Pilot) -> Joined {
        let me = (pilot == Pilot::ThisThread).then(|| current().id());
        loop {
            let (key, flight) = match self.begin_or_meet(key, Phase::Running(me)) {
                Ok((key, flight)) => return Joined::Lead(Lead { flights: self.clone(), key, flight }),
                Err(met) => met,
            };
            let mut state = flight.lock();
            match &state.phase {
                Phase::Running(leader) if (leader.is_some() && *leader == me) || is_within(&flight) => {
                    return Joined::Own;
                }
                Phase::Vacant => {
                    state.phase = Phase::Running(me);
                    drop(state);
                    return Joined::Lead(Lead { flights: self.clone(), key, flight });
                }
                Phase::Gone => {
                    drop(state);
                    self.detach(&key, &flight);
                }
                _ => {
                    state.waiting += 1;
                    drop(state);
                    return Joined::Wait(Waiter::new(self.clone(), key, flight, me));
                }
            }
        }
    }

    /// Leads the flight of `key` if there is none. For who has a value to go on with: nobody waits here.
    pub fn lead(self: &Arc<Self>, key: &[u8], pilot: Pilot) -> Option<Lead> {
        let me = (pilot == Pilot::ThisThread).then(|| current().id());
        let (key, flight) = self.begin_or_meet(key, Phase::Running(me)).ok()?;
        Some(Lead { flights: self.clone(), key, flight })
    }

    /// A flight of `key` that begins as `phase`, or the `Err` that is there.
    fn begin_or_meet(&self, key: &[u8], phase: Phase) -> Result<Met, Met> {
        // Before the flight can be met; pairs with the fence in `overtake`. SeqCst: see there.
        self.in_air.fetch_add(1, Ordering::SeqCst);
        // SeqCst, with the fence after a write: either the writer sees this flight, or its lead sees what was written.
        fence(Ordering::SeqCst);
        let met = match self.by_key.entry(key.into()) {
            Entry::Vacant(place) => {
                let (key, flight) = (place.key().clone(), Arc::new(Flight::new(phase)));
                place.insert(flight.clone());
                return Ok((key, flight));
            }
            Entry::Occupied(met) => (met.key().clone(), met.get().clone()),
        };
        self.land(1);
        Err(met)
    }

    /// To be called before `key` is written or removed: what is being computed now is not kept, and nobody who asks from
    /// here on gets it. A fence and a load if nothing is in the air.
    #[inline]
    pub fn overtake(&self, key: &[u8]) {
        if self.are_in_air()
            && let Some((_, flight)) = self.by_key.remove(key)
        {
            self.land(1);
            flight.overtake();
        }
    }

    /// As [`overtake`](Self::overtake), for every key: to be called before the namespace is cleared.
    pub fn overtake_all(&self) {
        if !self.are_in_air() {
            return;
        }
        let mut flights = Vec::new();
        self.by_key.retain(|_, flight| {
            flights.push(flight.clone());
            false
        });
        self.land(flights.len() as u64);
        flights.iter().for_each(|flight| flight.overtake());
    }

    #[inline]
    fn are_in_air(&self) -> bool {
        // SeqCst, with the count in `begin_or_meet`: a writer changes what bodies read, and looks here; a caller counts
        // itself here, and its body reads that. Either the writer sees the flight, or the body sees what was changed.
        // With less each could miss the other.
        fence(Ordering::SeqCst);
        self.in_air.load(Ordering::Relaxed) != 0
    }

    /// Whether nothing is being computed.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Counts what became of a call.
    pub fn note(&self, outcome: Outcome) {
        // Relaxed: a count orders nothing.
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a value that was computed and not kept, and why.
    pub fn note_unkept(&self, why: String) {
        *self.why_unkept.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.note(Outcome::Unkept);
    }

    /// Why the last value was not kept that was noted so.
    pub fn why_unkept(&self) -> Option<String> {
        self.why_unkept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often that was noted.
    pub fn noted(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    /// A number that no other waiter has.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn land(&self, flights: u64) {
        // Relaxed: whoever still sees a flight that has ended only looks for it in vain.
        self.in_air.fetch_sub(flights, Ordering::Relaxed);
    }

    fn detach(&self, key: &[u8], flight: &Arc<Flight>) {
        if self.by_key.remove_if(key, |_, met| Arc::ptr_eq(met, flight)).is_some() {
            self.land(1);
        }
    }

    /// Ends a flight that is running; `None` if it no longer is, or was overtaken before: then nothing was kept.
    fn succeed<R>(&self, key: &[u8], flight: &Arc<Flight>, value: Object, keep: impl FnOnce() -> R) -> Option<R> {
        let mut state = self.when_nobody_writes(key, flight)?;
        if state.is_overtaken {
            flight.change(state, Phase::Done(value));
            return None;
        }
        state.phase = Phase::Keeping;
        drop(state);
        // Should it panic: those who wait look again.
        let broken = Broken { flights: self, key, flight };
        let kept = keep();
        mem::forget(broken);
        // In this order: who no longer meets the flight finds what was kept.
        self.detach(key, flight);
        flight.change(flight.lock(), Phase::Done(value));
        Some(kept)
    }
}

struct Broken<'a> {
    flights: &'a Flights,
    key: &'a [u8],
    flight: &'a Arc<Flight>,
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        self.flights.detach(self.key, self.flight);
        self.flight.change(self.flight.lock(), Phase::Gone);
    }
}

impl Lead {
    /// Ends the flight with `value`, for all who wait. `keep` is called unless somebody wrote or removed the key since the
    /// flight began, and whoever does so meanwhile waits for it. `None`: it was not called.
    pub fn succeed<R>(self, value: Object, keep: impl FnOnce() -> R) -> Option<R> {
        self.flights.succeed(&self.key, &self.flight, value, keep)
    }

    /// Ends the flight with an error, for all who wait. Nothing is kept.
    pub fn fail(self, error: Object) {
        // In this order: who has been told, and asks again, does not meet the same flight.
        self.flights.detach(&self.key, &self.flight);
        let state = self.flight.lock();
        if matches!(state.phase, Phase::Running(_)) {
            self.flight.change(state, Phase::Failed(error));
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let state = self.flight.lock();
        if !matches!(state.phase, Phase::Running(_)) {
            return;
        }
        if state.waiting > 0 && !state.is_overtaken {
            return self.flight.change(state, Phase::Vacant);
        }
        self.flight.change(state, Phase::Gone);
        self.flights.detach(&self.key, &self.flight);
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").field("flight", &self.flight).finish_non_exhaustive()
    }
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").field("flight", &self.flight).finish_non_exhaustive()
    }
}

impl Aside {
    /// As [`Lead::succeed`]; not kept either if the lead was first.
    pub fn succeed<R>(self, value: Object, keep: impl FnOnce() -> R) -> Option<R> {
        self.flights.succeed(&self.key, &self.flight, value, keep)
    }
}

impl Flight {
    fn new(phase: Phase) -> Self {
        let state = State { phase, is_overtaken: false, waiting: 0, wakers: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> Locked<'_> {
        // Nothing that is done under the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the phase and tells all who wait.
    fn change(&self, mut state: Locked<'_>, phase: Phase) {
        state.phase = phase;
        let wakers = mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(|(_, waker)| wake(waker));
    }

    /// Marks a flight that nobody can meet any more; what is being kept at this moment is kept on return.
    fn overtake(&self) {
        let mut state = self.lock();
        state.is_overtaken = true;
        if matches!(state.phase, Phase::Vacant) {
            return self.change(state, Phase::Gone);
        }
        while matches!(state.phase, Phase::Keeping) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A flight by its key.
type Met = (Arc<[u8]>, Arc<Flight>);
type Locked<'a> = MutexGuard<'a, State>;

#[cfg(all(test, any(shuttle, not(loom))))]
mod tests;
