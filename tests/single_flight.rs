//! One computation at a time per key, whoever asks and however it ends. Threads meet at barriers.

use std::{
    collections::HashSet,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use thermocline::{Cache, Error, LoadError, OnTimeout, Store};

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

/// One who is inside a computation until `go` is dropped or sent to.
struct Inside {
    go: mpsc::Sender<()>,
    thread: thread::JoinHandle<Result<u64, String>>,
}

/// Has a thread begin to compute `key`, and wait in there; it fails if `value` is `Err`.
fn begin(cache: &Cache<u64, u64>, key: u64, value: Result<u64, &'static str>) -> Inside {
    let ((go, wait), (tell, began)) = (mpsc::channel(), mpsc::channel());
    let cache = cache.clone();
    let thread = thread::spawn(move || {
        let computed = cache.get_or_try_insert_with(&key, || {
            tell.send(()).unwrap();
            let _ = wait.recv();
            value.map_err(str::to_owned)
        });
        computed.map(|value| *value).map_err(|error| error.to_string())
    });
    began.recv().unwrap();
    Inside { go, thread }
}

impl Inside {
    fn end(self) -> Result<u64, String> {
        drop(self.go);
        self.thread.join().unwrap()
    }
}

/// Ideas 12 and 21: one body, equal results, one miss.
#[test]
fn of_many_who_ask_at_once_one_computes() {
    const THREADS: u64 = 16;
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let (bodies, barrier) = (AtomicU64::new(0), Barrier::new(THREADS as usize));
    for key in 0..50 {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    let value = cache.get_or_insert_with(&key, || bodies.fetch_add(1, Ordering::Relaxed)).unwrap();
                    assert_eq!(*value, key);
                });
            }
        });
    }
    let info = cache.info();
    assert_eq!((bodies.into_inner(), info.misses, info.hits), (50, 50, 50 * (THREADS - 1)));
}

/// Idea 13: other keys never wait: all bodies are inside at the same time, or none would come out.
#[test]
fn other_keys_never_wait() {
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let barrier = Barrier::new(32);
    thread::scope(|scope| {
        for key in 0..32 {
            let (cache, barrier) = (&cache, &barrier);
            scope.spawn(move || {
                let body = || {
                    barrier.wait();
                    key
                };
                assert_eq!(*cache.get_or_insert_with(&key, body).unwrap(), key);
            });
        }
    });
}

/// Idea 16: one error for all who waited, and the next call computes again.
#[test]
fn an_error_goes_to_all_who_waited() {
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let bodies = AtomicU64::new(0);
    let (entered, go) = (Barrier::new(2), Barrier::new(2));
    let errors: Vec<Arc<String>> = thread::scope(|scope| {
        let ask = || {
            let failed = cache.get_or_try_insert_with(&1, || {
                if bodies.fetch_add(1, Ordering::Relaxed) == 0 {
                    entered.wait();
                    go.wait();
                }
                Err::<u64, _>("no".to_owned())
            });
            match failed {
                Err(LoadError::Load(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        let first = scope.spawn(ask);
        entered.wait();
        let waiting: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        // All of them have looked in vain: next they wait.
        while cache.info().misses < 5 {
            thread::yield_now();
        }
        go.wait();
        let mut errors = vec![first.join().unwrap()];
        for waiting in waiting {
            errors.push(waiting.join().unwrap());
        }
        errors
    });
    // Who came too late to wait has computed, and so may others have who waited for that.
    let distinct: HashSet<_> = errors.iter().map(Arc::as_ptr).collect();
    assert_eq!((distinct.len() as u64, errors.len()), (bodies.into_inner(), 5), "one `Arc` for all of a computation");
    assert_eq!(*cache.get_or_insert_with(&1, || 7).unwrap(), 7);
}

/// Idea 16: a panic reaches its own caller only; one of those who waited computes.
#[test]
fn a_panic_hands_over_to_one_who_waits() {
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let (entered, bodies) = (Barrier::new(2), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let broken = || {
                let body = || {
                    entered.wait();
                    thread::sleep(Duration::from_millis(30));
                    std::panic::resume_unwind(Box::new("broken"));
                };
                cache.get_or_insert_with(&1, body)
            };
            assert!(catch_unwind(AssertUnwindSafe(broken)).is_err());
        });
        entered.wait();
        for _ in 0..8 {
            scope.spawn(|| {
                let value = cache.get_or_insert_with(&1, || 6 + bodies.fetch_add(1, Ordering::Relaxed));
                assert_eq!(*value.unwrap(), 6);
            });
        }
    });
    assert_eq!(bodies.into_inner(), 1);
}

/// What was written, removed or cleared after a computation began wins over its result, which goes to its caller.
#[test]
fn what_happens_meanwhile_wins() {
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let inserted = begin(&cache, 1, Ok(10));
    let removed = begin(&cache, 2, Ok(20));
    cache.insert(&1, &11).unwrap();
    assert!(!cache.remove(&2).unwrap(), "it was not there yet");
    assert_eq!((inserted.end(), removed.end()), (Ok(10), Ok(20)));
    assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&11));
    assert_eq!(cache.get(&2).unwrap(), None);
    let (one, other) = (begin(&cache, 3, Ok(30)), begin(&cache, 4, Err("no")));
    cache.clear().unwrap();
    // Nobody who asks after that gets, or waits for, what was begun before.
    assert_eq!(*cache.get_or_insert_with(&3, || 31).unwrap(), 31);
    assert_eq!((one.end(), other.end()), (Ok(30), Err("no".to_owned())));
    assert_eq!(cache.get(&3).unwrap().as_deref(), Some(&31));
    assert_eq!(cache.info().entries, 1);
}

/// Within its own computation too.
#[test]
fn a_body_may_write_and_clear_its_own_key() {
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("numbers").unwrap();
    let body = || {
        cache.insert(&1, &5).unwrap();
        6
    };
    assert_eq!(*cache.get_or_insert_with(&1, body).unwrap(), 6);
    assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&5));
    let body = || {
        cache.clear().unwrap();
        7
    };
    assert_eq!(*cache.get_or_insert_with(&2, body).unwrap(), 7);
    assert_eq!(cache.get(&2).unwrap(), None);
}

/// Idea 20: a recursive computation from four threads.
#[test]
fn recursion_runs_through() {
    fn fibonacci(cache: &Cache<u64, u64>, n: u64) -> u64 {
        let body = || if n < 2 { n } else { fibonacci(cache, n - 1) + fibonacci(cache, n - 2) };
        *cache.get_or_insert_with(&n, body).unwrap()
    }
    let (_dir, store) = open();
    let cache = store.cache::<u64, u64>("fibonacci").unwrap();
    thread::scope(|scope| {
        (0..4).for_each(|_| _ = scope.spawn(|| assert_eq!(fibonacci(&cache, 80), 23_416_728_348_467_685)))
    });
    assert_eq!(cache.info().entries, 81);
    let itself = cache.get_or_insert_with(&1_000, || *cache.get_or_insert_with(&1_000, || 1).unwrap() + 1);
    assert_eq!(*itself.unwrap(), 2);
}

/// A cycle over two threads ends at the limit.
#[test]
fn a_cycle_over_threads_ends() {
    let (_dir, store) = open();
    let cache = store.cache_builder::<u64, u64>("cycle").wait_timeout(Duration::from_millis(100)).open().unwrap();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for (own, other) in [(1, 2), (2, 1)] {
            let (cache, barrier) = (&cache, &barrier);
            scope.spawn(move || {
                let body = || {
                    barrier.wait();
                    *cache.get_or_insert_with(&other, || other * 10).unwrap()
                };
                let value = *cache.get_or_insert_with(&own, body).unwrap();
                assert!(value == other * 10 || value == own * 10, "{value}");
            });
        }
    });
}

/// Idea 17: the limit is obeyed to 50 ms, and the policy with it.
#[test]
fn who_has_waited_long_enough_does_as_was_chosen() {
    let limit = Duration::from_millis(200);
    for policy in [OnTimeout::Compute, OnTimeout::Stale, OnTimeout::Error] {
        let (_dir, store) = open();
        let cache = store.cache_builder::<u64, u64>("n").wait_timeout(limit).on_timeout(policy).open().unwrap();
        cache.insert(&1, &1).unwrap();
        let aged =
            |value: u64| cache.entry(&1).max_age(Duration::ZERO).or_insert_with(move || value).map(|value| *value);
        let (go, wait) = mpsc::channel::<()>();
        let (tell, began) = mpsc::channel();
        thread::scope(|scope| {
            let (cache, aged) = (&cache, &aged);
            let lead = scope.spawn(move || {
                let body = || {
                    tell.send(()).unwrap();
                    let _ = wait.recv();
                    2
                };
                cache.entry(&1).max_age(Duration::ZERO).or_insert_with(body).map(|value| *value)
            });
            began.recv().unwrap();
            let asked = Instant::now();
            let answer = aged(3);
            let waited = asked.elapsed();
            assert!((limit..limit + Duration::from_millis(50)).contains(&waited), "{policy:?}: {waited:?}");
            match policy {
                OnTimeout::Compute => assert_eq!(answer.unwrap(), 3),
                OnTimeout::Stale => assert_eq!(answer.unwrap(), 1),
                _ => assert!(matches!(answer, Err(Error::WaitTimeout { .. })), "{answer:?}"),
            }
            drop(go);
            assert_eq!(lead.join().unwrap().unwrap(), 2);
        });
        // Who was first is kept.
        let kept = if policy == OnTimeout::Compute { 3 } else { 2 };
        assert_eq!((cache.get(&1).unwrap().as_deref(), cache.info().late), (Some(&kept), 1));
    }
}

/// Ideas 19 and 21: everything at once; every call is a hit or a miss, and no bound is exceeded at rest.
#[test]
fn every_call_is_a_hit_or_a_miss() {
    let (_dir, store) = open();
    let cache = store.cache_builder::<u64, u64>("numbers").max_entries(10).open().unwrap();
    thread::scope(|scope| {
        for thread in 0..5u64 {
            let cache = &cache;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                for _ in 0..400 {
                    let key = random.u64(..20);
                    let value = cache.get_or_try_insert_with(&key, || Ok::<_, Infallible>(key * 2)).unwrap();
                    assert_eq!(*value, key * 2);
                }
            });
        }
    });
    let info = cache.info();
    assert_eq!(info.hits + info.misses, 5 * 400);
    assert!(info.entries <= 10, "{info:?}");
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let cache = &cache;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                for _ in 0..300 {
                    let key = random.u64(..10);
                    match random.u8(..8) {
                        0 => cache.clear().unwrap(),
                        1 => _ = cache.remove(&key).unwrap(),
                        2 => cache.insert(&key, &(key * 2)).unwrap(),
                        _ => assert_eq!(*cache.get_or_insert_with(&key, || key * 2).unwrap(), key * 2),
                    }
                }
            });
        }
    });
}
