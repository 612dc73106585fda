//! Models of flights: shuttle's random schedules under `cfg(shuttle)`, each many times; plain threads otherwise.

#[cfg(not(shuttle))]
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

#[cfg(shuttle)]
use shuttle::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::*;

/// Runs `model` over and over.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    #[cfg(shuttle)]
    {
        shuttle::check_random(model, 5_000);
    }
    #[cfg(not(shuttle))]
    (0..200).for_each(|_| model());
}

/// A namespace of one key: what is kept, by whom it was written, 0: nothing.
#[derive(Default)]
struct World {
    flights: Arc<Flights>,
    kept: AtomicU64,
    bodies: AtomicU64,
    /// What bodies make their values of.
    source: AtomicU64,
}

const KEY: &[u8] = b"key";

/// What a body does once it has looked at the source.
#[derive(Clone, Copy)]
enum Body {
    Succeeds,
    Fails,
    Goes,
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self { source: AtomicU64::new(1), ..Self::default() };
        Arc::new(world)
    }

    /// As a cache does: look, join, look again, compute, keep.
    fn get(&self, body: Body) -> Option<u64> {
        loop {
            let there = self.kept.load(Ordering::SeqCst);
            if there != 0 {
                return Some(there);
            }
            let landed = match self.flights.join(KEY, Pilot::ThisThread) {
                Joined::Own => unreachable!("nobody asks twice"),
                Joined::Lead(lead) => Landed::Lead(lead),
                Joined::Wait(waiter) => waiter.wait(None),
            };
            match landed {
                Landed::Done(value) => return value.downcast_ref().copied(),
                Landed::Failed(_) => return None,
                Landed::Again => {}
                Landed::Late(_) => unreachable!("nobody is in a hurry"),
                Landed::Lead(lead) => {
                    if self.kept.load(Ordering::SeqCst) != 0 {
                        drop(lead);
                        continue;
                    }
                    return self.lead(lead, body);
                }
            }
        }
    }

    fn lead(&self, lead: Lead, body: Body) -> Option<u64> {
        let value = self.source.load(Ordering::SeqCst);
        self.bodies.fetch_add(1, Ordering::SeqCst);
        match body {
            Body::Succeeds => {
                lead.succeed(Arc::new(value), || self.kept.store(value, Ordering::SeqCst));
                return Some(value);
            }
            Body::Fails => lead.fail(Arc::new("no")),
            Body::Goes => drop(lead),
        }
        None
    }

    /// Changes what bodies look at, then removes what was kept of it.
    fn change(&self) {
        self.source.store(2, Ordering::SeqCst);
        self.flights.overtake(KEY);
        self.kept.store(0, Ordering::SeqCst);
    }

    fn is_at_rest(&self) {
        assert!(self.flights.is_empty(), "a flight is left behind");
        assert_eq!(self.flights.in_air.load(Ordering::SeqCst), 0, "and counted");
    }
}

fn spawn<R: Send + 'static>(
    world: &Arc<World>,
    run: impl FnOnce(&World) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let world = world.clone();
    thread::spawn(move || run(&world))
}

#[test]
fn one_of_three_computes() {
    explore(|| {
        let world = World::new();
        let others = [0; 2].map(|_| spawn(&world, |world| world.get(Body::Succeeds)));
        assert_eq!(world.get(Body::Succeeds), Some(1));
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), Some(1)));
        assert_eq!(world.bodies.load(Ordering::SeqCst), 1);
        world.is_at_rest();
    });
}

#[test]
fn who_goes_hands_over_and_nobody_is_left_waiting() {
    explore(|| {
        let world = World::new();
        let goes = spawn(&world, |world| world.get(Body::Goes));
        let others = [0; 2].map(|_| spawn(&world, |world| world.get(Body::Succeeds)));
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), Some(1)));
        let gone = goes.join().unwrap();
        assert!(world.bodies.load(Ordering::SeqCst) == if gone.is_none() { 2 } else { 1 });
        world.is_at_rest();
    });
}

#[test]
fn an_error_ends_its_own_flight_only() {
    explore(|| {
        let world = World::new();
        let fails = [0; 2].map(|_| spawn(&world, |world| world.get(Body::Fails)));
        let succeeds = spawn(&world, |world| world.get(Body::Succeeds));
        let failed = fails.map(|fails| fails.join().unwrap());
        let there = succeeds.join().unwrap();
        assert!(failed.iter().chain([&there]).all(|value| matches!(value, None | Some(1))));
        // Once all have been told, whoever asks computes.
        world.kept.store(0, Ordering::SeqCst);
        assert_eq!(world.get(Body::Succeeds), Some(1));
        world.is_at_rest();
    });
}

/// Whatever was computed of what was there before a change is not kept after it, and nobody gets it who asks after it.
#[test]
fn what_is_changed_meanwhile_is_not_hidden() {
    explore(|| {
        let world = World::new();
        let others = [0; 2].map(|_| spawn(&world, |world| world.get(Body::Succeeds)));
        world.change();
        assert_eq!(world.get(Body::Succeeds), Some(2));
        others.into_iter().for_each(|other| assert!(other.join().unwrap().is_some()));
        assert!(matches!(world.kept.load(Ordering::SeqCst), 0 | 2));
        world.is_at_rest();
    });
}

/// What was inserted is there at the end, whatever was being computed when it came, or began while it was written.
#[test]
fn what_is_inserted_stays() {
    explore(|| {
        let world = World::new();
        let others = [0; 2].map(|_| spawn(&world, |world| world.get(Body::Succeeds)));
        world.flights.write(KEY, || world.kept.store(3, Ordering::SeqCst));
        assert_eq!(world.get(Body::Fails), Some(3));
        others.into_iter().for_each(|other| assert!(matches!(other.join().unwrap(), Some(1 | 3))));
        assert_eq!(world.kept.load(Ordering::SeqCst), 3);
        world.is_at_rest();
    });
}

/// The same with a flight that begins and ends while the write is under way: only a model with steps of its own meets that.
#[test]
fn what_begins_during_a_write_is_not_kept() {
    explore(|| {
        let world = World::new();
        let (lead, kept) = (Mutex::new(None), AtomicU64::new(0));
        world.flights.write(KEY, || {
            *lead.lock().unwrap() = world.flights.lead(KEY, Pilot::Other);
            kept.store(3, Ordering::SeqCst);
        });
        let Some(lead) = lead.into_inner().unwrap() else { unreachable!("nobody else is here") };
        assert!(lead.succeed(Arc::new(1u64), || kept.store(1, Ordering::SeqCst)).is_none());
        assert_eq!(kept.into_inner(), 3);
        world.is_at_rest();
    });
}

#[test]
#[cfg(not(shuttle))]
fn who_keeps_does_not_wait_for_a_write_that_does_not_end() {
    let world = World::new();
    world.flights.write(KEY, || {
        let Some(lead) = world.flights.lead(KEY, Pilot::Other) else { unreachable!("nobody else is here") };
        assert!(lead.succeed(Arc::new(1u64), || ()).is_none());
    });
    assert_eq!(world.flights.noted(Outcome::Unkept), 1);
    world.is_at_rest();
}

#[test]
fn clearing_overtakes_what_was_left_to_others_too() {
    explore(|| {
        let world = World::new();
        let goes = spawn(&world, |world| world.get(Body::Goes));
        let waits = spawn(&world, |world| world.get(Body::Succeeds));
        world.source.store(2, Ordering::SeqCst);
        world.flights.overtake_all();
        world.kept.store(0, Ordering::SeqCst);
        assert_eq!(world.get(Body::Succeeds), Some(2));
        goes.join().unwrap();
        assert!(waits.join().unwrap().is_some());
        world.is_at_rest();
    });
}

#[test]
fn one_refreshes_and_nobody_waits() {
    explore(|| {
        let world = World::new();
        let refresh = |world: &World| {
            let Some(lead) = world.flights.lead(KEY, Pilot::Other) else { return false };
            world.lead(lead, Body::Succeeds);
            true
        };
        let other = spawn(&world, refresh);
        let refreshed = refresh(&world);
        let both = u64::from(refreshed) + u64::from(other.join().unwrap());
        assert!(both >= 1);
        assert_eq!(world.bodies.load(Ordering::SeqCst), both);
        world.is_at_rest();
    });
}

/// What is queued is computed once, by whoever comes first, and if it is dropped nobody waits for it.
#[test]
fn what_is_queued_is_nobodys_until_somebody_comes() {
    explore(|| {
        let world = World::new();
        let Some(queued) = world.flights.queue(KEY) else { unreachable!("nobody else is here") };
        assert!(world.flights.lead(KEY, Pilot::Other).is_none() && world.flights.queue(KEY).is_none());
        let claims = spawn(&world, |world| queued.claim().map(|lead| world.lead(lead, Body::Succeeds)));
        let other = spawn(&world, |world| world.get(Body::Succeeds));
        assert_eq!((world.get(Body::Succeeds), other.join().unwrap()), (Some(1), Some(1)));
        claims.join().unwrap();
        assert!((1..=2).contains(&world.bodies.load(Ordering::SeqCst)), "twice only if all had ended before");
        world.is_at_rest();
    });
}

#[test]
fn what_is_queued_and_dropped_or_overtaken_is_nobodys() {
    explore(|| {
        let world = World::new();
        let Some(queued) = world.flights.queue(KEY) else { unreachable!("nobody else is here") };
        let drops = spawn(&world, |_| drop(queued));
        let goes = spawn(&world, |world| world.get(Body::Goes));
        assert_eq!(world.get(Body::Succeeds), Some(1));
        drops.join().unwrap();
        goes.join().unwrap();
        world.is_at_rest();
        world.kept.store(0, Ordering::SeqCst);
        let queued = world.flights.queue(KEY);
        world.change();
        assert!(queued.is_some_and(|queued| queued.claim().is_none()), "somebody wrote what it would");
        world.is_at_rest();
    });
}

/// Threads and one task: a task that leaves takes its claim with it.
#[test]
fn a_task_may_leave_at_any_time() {
    explore(|| {
        let world = World::new();
        let goes = spawn(&world, |world| world.get(Body::Goes));
        let leaves = spawn(&world, |world| {
            if let Joined::Wait(mut waiter) = world.flights.join(KEY, Pilot::Other) {
                let context = &mut std::task::Context::from_waker(Waker::noop());
                if let std::task::Poll::Ready(Landed::Lead(lead)) = waiter.poll_until(None, context) {
                    drop(lead);
                }
            }
        });
        assert!(world.get(Body::Succeeds).is_some());
        goes.join().unwrap();
        leaves.join().unwrap();
        world.is_at_rest();
    });
}

#[test]
fn who_computes_beside_the_lead_answers_all() {
    explore(|| {
        let world = World::new();
        let Some(lead) = world.flights.lead(KEY, Pilot::Other) else { unreachable!("nobody else is here") };
        let [in_a_hurry, patient] = [0; 2].map(|_| match world.flights.join(KEY, Pilot::Other) {
            Joined::Wait(waiter) => waiter,
            other => unreachable!("{other:?}"),
        });
        let late = spawn(&world, |world| match in_a_hurry.wait(Some(std::time::Instant::now())) {
            Landed::Late(aside) => aside.succeed(Arc::new(7u64), || world.kept.store(7, Ordering::SeqCst)),
            _ => None,
        });
        let waits = spawn(&world, |_| match patient.wait(None) {
            Landed::Done(value) => value.downcast_ref::<u64>().copied(),
            _ => None,
        });
        let kept = lead.succeed(Arc::new(8u64), || world.kept.store(8, Ordering::SeqCst)).is_some();
        let kept_aside = late.join().unwrap().is_some();
        assert!(kept != kept_aside, "one of them is kept");
        let first = if kept { 8 } else { 7 };
        assert_eq!((world.kept.load(Ordering::SeqCst), waits.join().unwrap()), (first, Some(first)));
        world.is_at_rest();
    });
}
