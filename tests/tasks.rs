//! Caches for tasks: ready when there is nothing to wait for, one computation over tasks and threads, and hand-over when a future is dropped.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use pollster::block_on;
use thermocline::{Cache, CacheBuilder, Error, Kept, OnTimeout, Store, TimeSource};

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicU64);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_is_in_memory_is_ready_at_the_first_poll() {
    fn can_be_spawned<F: Future + Send>(future: F) -> F {
        future
    }
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let compute = || async { 7 };
    assert!(
        matches!(poll(pin!(can_be_spawned(cache.get_or_insert_with_async(&1, compute)))), Poll::Ready(Ok(value)) if *value == 7)
    );
    let hit = cache.get_or_insert_with_async(&1, std::future::pending::<u64>);
    assert!(matches!(poll(pin!(hit)), Poll::Ready(Ok(value)) if *value == 7));
    assert!(matches!(poll(pin!(cache.get_async(&1))), Poll::Ready(Ok(Some(_)))));
    assert!(matches!(poll(pin!(cache.read_async(&1, |value| value + 1))), Poll::Ready(Ok(Some(8)))));
    assert!(matches!(poll(pin!(cache.peek_async(&1))), Poll::Ready(Ok(Some(value))) if *value == 7));
    assert!(matches!(poll(pin!(cache.contains_key_async(&1))), Poll::Ready(Ok(true))));
    block_on(cache.insert_async(&2, &8)).unwrap();
    assert!(block_on(cache.remove_async(&2)).unwrap());
    let entry = cache.entry(&3).ttl(Duration::from_secs(60)).or_try_insert_with_async(|| async { "9".parse::<u64>() });
    assert_eq!(*block_on(can_be_spawned(entry)).unwrap(), 9);
    block_on(cache.clear_async()).unwrap();
    assert_eq!(cache.get(&1).unwrap(), None);
}

/// Idea 12: over tasks and threads alike.
#[test]
fn tasks_and_threads_wait_for_one_computation() {
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let bodies = AtomicU64::new(0);
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let body = || {
        let _ = gate.lock().unwrap().recv();
        bodies.fetch_add(1, Ordering::Relaxed)
    };
    let mut lead = pin!(cache.get_or_insert_with_async(&1, || poll_fn(|_| match go_is_given(&gate) {
        true => Poll::Ready(bodies.fetch_add(1, Ordering::Relaxed)),
        false => Poll::Pending,
    })));
    assert!(poll(lead.as_mut()).is_pending());
    thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, body) = (&cache, &body);
            scope.spawn(move || {
                let value = match thread % 2 {
                    0 => cache.get_or_insert_with(&1, body),
                    _ => block_on(cache.get_or_insert_with_async(&1, || async { body() })),
                };
                assert_eq!(*value.unwrap(), 0);
            });
        }
        drop(go);
        assert!(matches!(poll(lead.as_mut()), Poll::Ready(Ok(value)) if *value == 0));
    });
    assert_eq!((bodies.load(Ordering::Relaxed), cache.info().misses, cache.info().hits), (1, 1, 8));
}

fn go_is_given(gate: &Mutex<mpsc::Receiver<()>>) -> bool {
    gate.lock().unwrap().try_recv() == Err(mpsc::TryRecvError::Disconnected)
}

/// Idea 16: a future that is dropped while it computes hands over to one of those who wait, and wakes it.
#[test]
fn a_dropped_future_hands_over() {
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let mut lead = Box::pin(cache.get_or_insert_with_async(&1, std::future::pending::<u64>));
    assert!(poll(lead.as_mut()).is_pending());
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut waiting: Vec<_> =
        (0..3).map(|value| Box::pin(cache.get_or_insert_with_async(&1, move || async move { value }))).collect();
    for waiting in &mut waiting {
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    // One that waits and leaves is no trouble.
    drop(waiting.remove(0));
    assert_eq!(bell.0.load(Ordering::Relaxed), 0);
    drop(lead);
    assert!(bell.0.load(Ordering::Relaxed) > 0);
    let thread = thread::spawn({
        let cache = cache.clone();
        move || *cache.get_or_insert_with(&1, || 1).unwrap()
    });
    assert!(matches!(poll(waiting[0].as_mut()), Poll::Ready(Ok(value)) if *value == 1));
    assert!(matches!(poll(waiting[1].as_mut()), Poll::Ready(Ok(value)) if *value == 1));
    assert_eq!(thread.join().unwrap(), 1);
    // Nobody waited: nothing is left behind.
    drop(Box::pin(cache.get_or_insert_with_async(&2, std::future::pending::<u64>)));
    assert_eq!(*cache.get_or_insert_with(&2, || 5).unwrap(), 5);
}

/// Idea 17, for tasks: woken in time without a runtime.
#[test]
fn a_task_that_has_waited_long_enough_is_woken() {
    let limit = Duration::from_millis(200);
    for policy in [OnTimeout::Compute, OnTimeout::Error] {
        let (_dir, store) = open();
        let cache = store.cache_builder::<u64, u64>("n").wait_timeout(limit).on_timeout(policy).open().unwrap();
        let mut lead = Box::pin(cache.get_or_insert_with_async(&1, std::future::pending::<u64>));
        assert!(poll(lead.as_mut()).is_pending());
        let asked = Instant::now();
        let answer = block_on(cache.get_or_insert_with_async(&1, || async { 3 }));
        let waited = asked.elapsed();
        assert!((limit..limit + Duration::from_millis(50)).contains(&waited), "{policy:?}: {waited:?}");
        match policy {
            OnTimeout::Compute => assert_eq!(*answer.unwrap(), 3),
            _ => assert!(matches!(answer, Err(Error::WaitTimeout { .. })), "{answer:?}"),
        }
    }
}

struct World {
    now: Arc<AtomicU64>,
    store: Store,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (now, dir) = (Arc::new(AtomicU64::new(1_900_000_000_000)), tempfile::tempdir().unwrap());
        let store = Store::builder().time(TimeSource::Manual(now.clone())).open(dir.path()).unwrap();
        Self { now, store, _dir: dir }
    }

    /// Each load counts on, after it has yielded once.
    fn builder(&self) -> CacheBuilder<u64, u64> {
        let loads = Arc::new(AtomicU64::new(0));
        let builder = self.store.cache_builder("numbers").stale_after(Duration::from_secs(300));
        builder.loader_async(move |key: u64| {
            let (loads, mut yielded) = (loads.clone(), false);
            poll_fn(move |context| {
                if !std::mem::replace(&mut yielded, true) {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(key + loads.fetch_add(1, Ordering::Relaxed))
            })
        })
    }

    fn make_stale(&self) {
        self.now.fetch_add(300_000, Ordering::Relaxed);
    }
}

fn load(cache: &Cache<u64, u64>) -> u64 {
    *block_on(cache.get_or_load_async(&10)).unwrap()
}

/// Idea 18: a refresh runs where the caller says, and the caller has the stale value at once.
#[test]
fn a_refresh_runs_on_the_callers_runtime() {
    let world = World::new();
    let spawned = Arc::new(Mutex::new(Vec::new()));
    let spawn = spawned.clone();
    let cache = world.builder().spawner(move |future| spawn.lock().unwrap().push(future)).open().unwrap();
    assert_eq!(load(&cache), 10);
    world.make_stale();
    (0..5).for_each(|_| assert_eq!(load(&cache), 10));
    let mut refreshes = std::mem::take(&mut *spawned.lock().unwrap());
    assert_eq!(refreshes.len(), 1);
    block_on(refreshes.remove(0));
    assert_eq!((load(&cache), load(&cache)), (11, 11));
    world.make_stale();
    assert_eq!(load(&cache), 11);
    // A runtime that ends drops what it runs: the next caller tries again.
    spawned.lock().unwrap().clear();
    assert_eq!((load(&cache), cache.info().refresh_failures), (11, 1));
    assert_eq!(spawned.lock().unwrap().len(), 1);
}

/// Without one, within the future of one of those who meet it.
#[test]
fn without_a_runtime_one_caller_refreshes() {
    let world = World::new();
    let cache = world.builder().open().unwrap();
    assert_eq!(load(&cache), 10);
    world.make_stale();
    let mut refresh = pin!(cache.get_or_load_async(&10));
    assert!(poll(refresh.as_mut()).is_pending());
    assert!(matches!(poll(pin!(cache.get_or_load_async(&10))), Poll::Ready(Ok(value)) if *value == 10));
    assert!(matches!(poll(refresh), Poll::Ready(Ok(value)) if *value == 11));
    assert_eq!(load(&cache), 11);
}

#[test]
fn an_async_loader_may_fail_and_set_times() {
    let (_dir, store) = open();
    let builder = store.cache_builder::<u64, u64>("numbers");
    let loader = |key: u64| async move {
        match key {
            0 => Err("nothing"),
            _ => Ok((key, Kept::new().ttl(Duration::from_secs(key)))),
        }
    };
    let cache = builder.try_loader_async(loader).open().unwrap();
    assert!(
        matches!(block_on(cache.get_or_load_async(&0)), Err(Error::Load { source, .. }) if source.to_string() == "nothing")
    );
    assert_eq!(*block_on(cache.get_or_load_async(&60)).unwrap(), 60);
    assert!(cache.entries().all(|entry| entry.unwrap().ttl_left.is_some()));
    assert!(matches!(cache.get_or_load(&1), Err(Error::Option { option: "loader", .. })));
}

/// A task waits as tasks do, whatever the loader is.
#[test]
fn a_task_with_a_plain_loader_does_not_hold_up_its_thread() {
    let (_dir, store) = open();
    let cache = store.cache_builder::<u64, u64>("numbers").loader(|key| key + 1).open().unwrap();
    let mut lead = Box::pin(cache.get_or_insert_with_async(&1, std::future::pending::<u64>));
    assert!(poll(lead.as_mut()).is_pending());
    let mut waits = pin!(cache.get_or_load_async(&1));
    assert!(poll(waits.as_mut()).is_pending());
    drop(lead);
    assert!(matches!(poll(waits.as_mut()), Poll::Ready(Ok(value)) if *value == 2));
    assert_eq!((cache.info().hits, cache.info().misses), (0, 2));
}

/// A future that is ready at its second poll.
async fn pause() {
    let mut has_paused = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut has_paused, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Polls once: what it is ready with, or itself.
fn step<F: Future>(mut future: Pin<Box<F>>) -> Result<F::Output, Pin<Box<F>>> {
    match poll(future.as_mut()) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(future),
    }
}

/// Idea 20, for tasks: whoever computes a key and asks for it runs through, however often it is polled and wherever; another task that
/// the same thread polls meanwhile waits.
#[test]
fn a_task_that_asks_for_the_key_it_computes_does_not_wait_for_itself() {
    let (_dir, store) = open();
    let cache = store.cache_builder::<u64, u64>("numbers").on_timeout(OnTimeout::Error).open().unwrap();
    let inner = || async {
        pause().await;
        7
    };
    let outer = || async {
        pause().await;
        let inner = *cache.get_or_insert_with_async(&1, inner).await.unwrap();
        pause().await;
        inner + *cache.get_or_insert_with(&1, || 1).unwrap()
    };
    let mut computes = Box::pin(cache.get_or_insert_with_async(&1, outer));
    assert!(poll(computes.as_mut()).is_pending());
    let mut waits = pin!(cache.get_or_insert_with_async(&1, async || unreachable!("somebody computes")));
    assert!(poll(waits.as_mut()).is_pending());
    let computed = thread::scope(|scope| {
        let mut others = vec![computes];
        loop {
            let future = others.pop().unwrap();
            match scope.spawn(|| step(future)).join().unwrap() {
                Ok(computed) => return computed,
                Err(future) => others.push(future),
            }
            assert!(poll(waits.as_mut()).is_pending());
        }
    });
    assert_eq!(*computed.unwrap(), 8);
    assert!(matches!(poll(waits), Poll::Ready(Ok(value)) if *value == 8));
    assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&8), "the outer one is kept");
}

/// Idea 20: by a task within a plain computation, and in what a loader does before it has a future.
#[test]
fn a_thread_that_asks_as_a_task_for_the_key_it_computes_does_not_wait_for_itself() {
    let (_dir, store) = open();
    let cache = store.cache_builder::<u64, u64>("numbers").on_timeout(OnTimeout::Error).open().unwrap();
    let as_a_task = || *block_on(cache.get_or_insert_with_async(&1, || async { 7 })).unwrap() + 1;
    assert_eq!(*cache.get_or_insert_with(&1, as_a_task).unwrap(), 8);
    let before = || {
        let inner = *cache.get_or_insert_with(&2, || 7).unwrap();
        async move { inner + 2 }
    };
    assert_eq!(*block_on(cache.get_or_insert_with_async(&2, before)).unwrap(), 9);
}
