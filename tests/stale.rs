//! Entries that are fresh, stale, and gone: who is served what, who refreshes, and that there is one refresh. The clock is the test's.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use thermocline::{Cache, CacheBuilder, Kept, Load, LoadError, OnTimeout, Store, TimeSource, Wants};

const STALE_AFTER: Duration = Duration::from_secs(300);
const TTL: Duration = Duration::from_secs(900);

struct World {
    now: Arc<AtomicU64>,
    store: Store,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (now, dir) = (Arc::new(AtomicU64::new(1_900_000_000_000)), tempfile::tempdir().unwrap());
        let store = Store::builder().time(TimeSource::Manual(now.clone())).open(dir.path()).unwrap();
        Self { now, store, dir }
    }

    fn builder(&self) -> CacheBuilder<u64, u64> {
        self.store.cache_builder("numbers").stale_after(STALE_AFTER).time_to_live(TTL)
    }

    fn cache(&self) -> Cache<u64, u64> {
        self.builder().open().unwrap()
    }

    fn pass(&self, time: Duration) {
        self.now.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Waits for what happens on another thread, for as long as that may take.
fn until(happens: impl Fn() -> bool) {
    while !happens() {
        thread::yield_now();
    }
}

/// Idea 29: what has expired is served from nowhere.
#[test]
fn an_expired_entry_is_served_from_no_tier() {
    let World { now, store, dir } = World::new();
    let builder = |store: &Store| store.cache_builder::<u64, u64>("numbers").time_to_live(TTL);
    let cache = builder(&store).open().unwrap();
    (0..4).for_each(|key| cache.insert(&key, &key).unwrap());
    store.evict_all().unwrap();
    assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&1), "and it is in memory again");
    now.fetch_add(TTL.as_millis() as u64 - 1, Ordering::Relaxed);
    assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&1));
    now.fetch_add(1, Ordering::Relaxed);
    assert_eq!((cache.get(&1).unwrap(), cache.get(&2).unwrap()), (None, None));
    assert_eq!(*cache.get_or_insert_with(&1, || 10).unwrap(), 10);
    drop(cache);
    store.close().unwrap();
    let store = Store::builder().time(TimeSource::Manual(now.clone())).open(dir.path()).unwrap();
    let cache = builder(&store).open().unwrap();
    assert_eq!((cache.get(&1).unwrap().as_deref(), cache.get(&2).unwrap()), (Some(&10), None));
}

/// Idea 30: what a call takes may be stricter or looser than what the entry says, nothing, or anything.
#[test]
fn a_call_may_ask_for_younger_values() {
    let world = World::new();
    let cache = world.cache();
    cache.insert(&1, &1).unwrap();
    world.pass(Duration::from_secs(60));
    let ask = |max_age: u64, value: u64| {
        *cache.entry(&1).max_age(Duration::from_secs(max_age)).or_insert_with(|| value).unwrap()
    };
    assert_eq!(ask(61, 2), 1, "younger");
    assert_eq!(ask(60, 3), 3, "too old, and kept");
    assert_eq!(ask(60, 4), 3);
    assert_eq!(ask(0, 5), 5, "nothing is young enough");
    world.pass(STALE_AFTER);
    assert_eq!(ask(10_000, 6), 6, "a loose bound does not make the stale fresh");
    world.pass(TTL);
    assert_eq!(ask(10_000, 7), 7);
    let info = cache.info();
    assert_eq!((info.hits, info.misses), (2, 4), "whoever computed has missed");
}

/// Idea 21: of callers who find a value too old, one misses, and the others are answered by it.
#[test]
fn a_value_that_is_too_old_is_one_miss() {
    let world = World::new();
    let (cache, barrier, bodies) = (world.cache(), Barrier::new(8), AtomicU64::new(0));
    cache.insert(&1, &1).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                let compute = || {
                    thread::sleep(Duration::from_millis(20));
                    bodies.fetch_add(1, Ordering::Relaxed)
                };
                cache.entry(&1).max_age(Duration::ZERO).or_insert_with(compute).unwrap();
            });
        }
    });
    let (info, bodies) = (cache.info(), bodies.into_inner());
    assert_eq!((info.hits + info.misses, info.misses), (8, bodies));
}

/// Idea 18: with a closure one caller refreshes in line, and the others have the stale value at once.
#[test]
fn one_caller_refreshes_and_the_others_have_the_stale_value() {
    let world = World::new();
    let cache = world.cache();
    cache.insert(&1, &1).unwrap();
    world.pass(STALE_AFTER);
    assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&1), "`get` serves it too");
    let (entered, go) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let refresh = scope.spawn(|| {
            let body = || {
                entered.wait();
                go.wait();
                2
            };
            *cache.get_or_insert_with(&1, body).unwrap()
        });
        entered.wait();
        for _ in 0..100 {
            assert_eq!(*cache.get_or_insert_with(&1, || unreachable!("there is one refresh")).unwrap(), 1);
        }
        go.wait();
        assert_eq!(refresh.join().unwrap(), 2);
    });
    assert_eq!(*cache.get_or_insert_with(&1, || unreachable!("it is fresh")).unwrap(), 2);
}

/// Idea 18: with a loader nobody waits, and one refresh runs behind.
#[test]
fn a_loader_refreshes_behind() {
    let world = World::new();
    let (loads, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(2)));
    let loader = {
        let (loads, gate) = (loads.clone(), gate.clone());
        move |key: &u64| {
            let load = loads.fetch_add(1, Ordering::Relaxed);
            if load > 0 {
                assert!(thread::current().name().is_some_and(|name| name.starts_with("thermocline-refresh")));
                gate.wait();
            }
            key + load
        }
    };
    let cache = world.builder().loader(loader).open().unwrap();
    assert_eq!(*cache.get_or_load(&10).unwrap(), 10);
    for round in 1..3 {
        world.pass(STALE_AFTER);
        (0..100).for_each(|_| assert_eq!(*cache.get_or_load(&10).unwrap(), 9 + round));
        gate.wait();
        until(|| cache.peek(&10).unwrap().as_deref() == Some(&(10 + round)));
        assert_eq!(loads.load(Ordering::Relaxed), 1 + round);
    }
}

/// Idea 18: a refresh that fails, or panics, leaves the old value; gone is gone nevertheless.
#[test]
fn a_failing_refresh_keeps_the_stale_value() {
    let world = World::new();
    let cache = world.cache();
    cache.insert(&1, &1).unwrap();
    world.pass(STALE_AFTER);
    let fail = || cache.get_or_try_insert_with(&1, || Err::<u64, _>("no"));
    assert_eq!((fail().map(|value| *value).ok(), cache.info().refresh_failures), (Some(1), 1));
    let panics = || cache.get_or_insert_with(&1, || std::panic::resume_unwind(Box::new("broken")));
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err(), "it reaches its own caller");
    assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&1));
    assert_eq!(*cache.get_or_insert_with(&1, || 2).unwrap(), 2, "and the next one refreshes");
    world.pass(TTL);
    assert!(matches!(fail(), Err(LoadError::Load(error)) if *error == "no"));
}

#[test]
fn a_failing_loader_is_told_of_and_counted() {
    let world = World::new();
    let (tell, told) = mpsc::channel();
    let (tell, plan) = (Mutex::new(tell), Arc::new(AtomicU64::new(0)));
    let steps = plan.clone();
    let loader = move |key: &u64| {
        tell.lock().unwrap().send(()).unwrap();
        match steps.load(Ordering::Relaxed) {
            0 => Ok(*key),
            1 => Err("no such number"),
            _ => std::panic::resume_unwind(Box::new("broken")),
        }
    };
    let cache = world.builder().try_loader(loader).open().unwrap();
    assert_eq!(*cache.get_or_load(&1).unwrap(), 1);
    told.recv().unwrap();
    plan.store(1, Ordering::Relaxed);
    let error = cache.get_or_load(&2).unwrap_err().to_string();
    assert!(error.contains("no such number") && error.contains("numbers"), "{error}");
    told.recv().unwrap();
    world.pass(STALE_AFTER);
    for failures in 1..3 {
        assert_eq!(*cache.get_or_load(&1).unwrap(), 1);
        told.recv().unwrap();
        until(|| cache.info().refresh_failures == failures);
        plan.store(2, Ordering::Relaxed);
    }
}

/// A loader may say how long its value is good.
#[test]
fn a_loader_may_set_its_entrys_times() {
    let world = World::new();
    let loads = Arc::new(AtomicU64::new(0));
    let counted = loads.clone();
    let loader = move |key: &u64| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok::<_, String>((
            *key,
            Kept::new().ttl(Duration::from_secs(*key)).stale_after(Duration::from_secs(*key)).tags(["mine"]),
        ))
    };
    let cache = world.builder().try_loader_with(loader).open().unwrap();
    (10..12).for_each(|key| assert_eq!(*cache.get_or_load(&key).unwrap(), key));
    world.pass(Duration::from_secs(10));
    assert_eq!((cache.get(&10).unwrap(), cache.get(&11).unwrap().as_deref()), (None, Some(&11)));
    assert_eq!(loads.load(Ordering::Relaxed), 2);
    let tags: Vec<_> = cache.entries().map(|entry| entry.unwrap().tags).collect();
    assert_eq!(tags, [["mine"]]);
}

/// What is written while a refresh runs wins over it.
#[test]
fn what_is_written_during_a_refresh_wins() {
    let world = World::new();
    let (entered, gate) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let ended = Arc::new(Barrier::new(2));
    let loader = {
        let (entered, gate, ended) = (entered.clone(), gate.clone(), ended.clone());
        move |key: &u64| {
            entered.wait();
            gate.wait();
            ended.wait();
            key + 100
        }
    };
    let cache = world.builder().loader(loader).open().unwrap();
    cache.insert(&1, &1).unwrap();
    world.pass(STALE_AFTER);
    assert_eq!(*cache.get_or_load(&1).unwrap(), 1);
    entered.wait();
    cache.insert(&1, &2).unwrap();
    gate.wait();
    ended.wait();
    for _ in 0..100 {
        assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&2));
        thread::yield_now();
    }
}

#[test]
fn what_is_in_use_is_refreshed_ahead() {
    let world = World::new();
    let loads = Arc::new(AtomicU64::new(0));
    let counted = loads.clone();
    let loader = move |key: &u64| key + counted.fetch_add(1, Ordering::Relaxed);
    let cache = world.builder().loader(loader).refresh_ahead(0.8).open().unwrap();
    assert_eq!(*cache.get_or_load(&10).unwrap(), 10);
    world.pass(STALE_AFTER.mul_f64(0.79));
    assert_eq!((*cache.get_or_load(&10).unwrap(), loads.load(Ordering::Relaxed)), (10, 1));
    world.pass(STALE_AFTER.mul_f64(0.02));
    assert_eq!(*cache.get_or_load(&10).unwrap(), 10);
    until(|| cache.peek(&10).unwrap().as_deref() == Some(&11));
    // It is young again.
    assert_eq!((*cache.get_or_load(&10).unwrap(), loads.load(Ordering::Relaxed)), (11, 2));
}

/// The more a value cost, and the nearer its end, the likelier it is computed early: one that costs nothing never is.
#[test]
fn what_is_dear_is_computed_early() {
    let world = World::new();
    let computed = AtomicU64::new(0);
    let dear = |cache: &Cache<u64, u64>| {
        let compute = || {
            thread::sleep(Duration::from_millis(2));
            computed.fetch_add(1, Ordering::Relaxed)
        };
        *cache.get_or_insert_with(&1, compute).unwrap()
    };
    let patient = world.cache();
    assert_eq!((dear(&patient), dear(&patient)), (0, 0), "it is fresh");
    // So eager that a cost of 2 ms counts as years.
    let eager = world.builder().early_refresh(1e12).open().unwrap();
    assert_eq!((dear(&eager), dear(&eager), dear(&patient)), (1, 2, 2));
    // What was inserted cost nothing that anybody knows of.
    eager.insert(&1, &7).unwrap();
    assert_eq!(dear(&eager), 7);
    for wrong in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(world.builder().early_refresh(wrong).open().is_err(), "{wrong}");
    }
}

#[test]
fn jitter_spreads_the_ends_of_what_was_written_together() {
    let world = World::new();
    let cache = world.builder().jitter(0.5).open().unwrap();
    (0..200).for_each(|key| cache.insert(&key, &key).unwrap());
    let left: Vec<_> = cache.entries().map(|entry| entry.unwrap().ttl_left.unwrap()).collect();
    assert_eq!(left.len(), 200);
    assert!(left.iter().all(|left| (TTL / 2..=TTL).contains(left)), "{left:?}");
    let (first, last) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!(*last - *first > TTL / 4, "{first:?} to {last:?}");
}

/// A refresh that no thread has begun holds up nobody, not even the threads that refresh.
#[test]
fn nobody_waits_for_a_refresh_that_has_not_begun() {
    const THREADS: u64 = 4;
    let world = World::new();
    let (entered, gate) = (Arc::new(Barrier::new(5)), Arc::new(Barrier::new(5)));
    let bodies = Arc::new(AtomicU64::new(0));
    let loader = {
        let (entered, gate, bodies) = (entered.clone(), gate.clone(), bodies.clone());
        move |key: &u64| {
            if *key < THREADS {
                entered.wait();
                gate.wait();
            } else {
                bodies.fetch_add(1, Ordering::Relaxed);
            }
            key + 100
        }
    };
    let cache = world.builder().loader(loader).on_timeout(OnTimeout::Error).open().unwrap();
    (0..=THREADS).for_each(|key| cache.insert(&key, &key).unwrap());
    world.pass(STALE_AFTER);
    (0..THREADS).for_each(|key| assert_eq!(*cache.get_or_load(&key).unwrap(), key));
    entered.wait();
    // All threads are busy: this one's refresh is queued.
    (0..3).for_each(|_| assert_eq!(*cache.get_or_load(&THREADS).unwrap(), THREADS));
    assert_eq!(bodies.load(Ordering::Relaxed), 0);
    world.pass(TTL);
    assert_eq!(*cache.get_or_load(&THREADS).unwrap(), THREADS + 100, "it has expired, and nobody computes it");
    gate.wait();
    until(|| (0..THREADS).all(|key| cache.peek(&key).unwrap().is_some()));
    assert_eq!(bodies.load(Ordering::Relaxed), 1, "and nobody does so again");
}

/// An answer that is not to be kept is newer than what is there, which goes.
#[test]
fn an_answer_that_is_not_kept_replaces_the_older_one() {
    let world = World::new();
    let loads = Arc::new(AtomicU64::new(0));
    let counted = loads.clone();
    let loader = move |key: &u64| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => Ok::<_, String>((*key, Kept::new())),
        _ => Ok((*key + 1, Kept::new().not())),
    };
    let cache = world.builder().try_loader_with(loader).open().unwrap();
    assert_eq!(*cache.get_or_load(&1).unwrap(), 1);
    world.store.evict_all().unwrap();
    world.pass(STALE_AFTER);
    assert_eq!(*cache.get_or_load(&1).unwrap(), 1, "it is stale");
    until(|| cache.peek(&1).unwrap().is_none());
    assert_eq!(*cache.get_or_load(&1).unwrap(), 2);

    let key = |key: u64| {
        let mut builder = cache.key_builder();
        builder.push(&key).unwrap();
        builder.finish()
    };
    for (wants, passes) in [
        (Wants { overwrite: true, ..Wants::default() }, Duration::ZERO),
        (Wants { max_age: Some(Duration::ZERO), ..Wants::default() }, Duration::ZERO),
        (Wants::default(), STALE_AFTER),
    ] {
        cache.insert(&2, &2).unwrap();
        world.pass(passes);
        let load = Load { wants, ..Load::default() };
        let failed = cache.get_or_load_key(&key(2), &load, || Err::<(u64, Kept), _>("no"));
        assert!(failed.is_err() || passes == STALE_AFTER);
        assert_eq!(cache.peek(&2).unwrap().as_deref(), Some(&2), "an error is no answer");
        let answered = cache.get_or_load_key(&key(2), &load, || Ok((3, Kept::new().not())));
        assert_eq!(answered.ok().as_deref(), Some(&3));
        assert_eq!(cache.peek(&2).unwrap(), None, "{wants:?}");
    }
    assert_eq!(cache.info().unkept, 0);
}

/// Longer than any clock: never.
#[test]
fn the_longest_times_are_times_too() {
    let world = World::new();
    let never = Duration::MAX;
    for (part, name) in [(0.0, "plain"), (0.5, "spread")] {
        let builder = world.store.cache_builder::<u64, u64>(name).time_to_live(never).stale_after(never);
        let cache = builder.jitter(part).open().unwrap();
        cache.insert(&1, &1).unwrap();
        cache.entry(&2).ttl(never).stale_after(never).insert(&2).unwrap();
        assert_eq!(*cache.get_or_insert_with(&3, || 3).unwrap(), 3);
        world.store.evict_all().unwrap();
        for key in 1..4 {
            let is_there = || unreachable!("it is there, and fresh");
            assert_eq!(*cache.get_or_insert_with(&key, is_there).unwrap(), key);
        }
    }
}

/// The store ends when its handles do, whatever a loader is doing; what that brings then is for nobody.
#[test]
fn a_loader_does_not_keep_the_store_open() {
    let World { now, store, dir } = World::new();
    let (entered, gate) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let loader = {
        let (entered, gate) = (entered.clone(), gate.clone());
        move |key: &u64| {
            entered.wait();
            gate.wait();
            key + 1
        }
    };
    let cache = store.cache_builder::<u64, u64>("numbers").stale_after(STALE_AFTER).loader(loader).open().unwrap();
    cache.insert(&1, &1).unwrap();
    now.fetch_add(STALE_AFTER.as_millis() as u64, Ordering::Relaxed);
    assert_eq!(*cache.get_or_load(&1).unwrap(), 1);
    entered.wait();
    drop(cache);
    store.close().unwrap();
    let store = Store::builder().time(TimeSource::Manual(now)).open(dir.path()).unwrap();
    gate.wait();
    assert_eq!(store.cache::<u64, u64>("numbers").unwrap().get(&1).unwrap().as_deref(), Some(&1));
}
