//! Memoized calls beside the in-memory macro of `cached`, and beside a bare get of the same store: interleaved repeats in one process.
//!
//! Data: 10 000 calls of one `u64` argument, drawn uniformly, all of them kept; then each once after the store was opened anew; then
//! eight threads on one key, 10 000 rounds. Threads: one but for that. Prints the minimum and the median of the repeats, in ns a call.

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use cached::macros::cached;
use thermocline::{Cache, Store, memoize};

const KEYS: u64 = 10_000;
const CALLS: u64 = 400_000;
const REPEATS: usize = 9;
const ROUNDS: u64 = 10_000;

#[memoize]
fn ours(number: u64) -> u64 {
    number + 1
}

#[memoize]
fn ours_three(number: u64, text: &str, other: u64) -> u64 {
    number + text.len() as u64 + other
}

#[cached(max_size = 20_000)]
fn theirs(number: u64) -> u64 {
    number + 1
}

/// What one kind of call takes, in ns.
fn measure(call: impl Fn(u64) -> u64) -> f64 {
    let mut random = fastrand::Rng::with_seed(1);
    let start = Instant::now();
    for _ in 0..CALLS {
        black_box(call(black_box(random.u64(..KEYS))));
    }
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

fn main() -> thermocline::Result<()> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::builder().memory_capacity(512 << 20).open(dir.path())?;
    thermocline::set_default(store.clone());
    let small: Cache<u64, Vec<u8>> = store.cache("small")?;
    let large: Cache<u64, Vec<u8>> = store.cache("large")?;
    for key in 0..KEYS {
        store.insert(key.to_le_bytes(), key.to_le_bytes())?;
        small.insert(&key, &vec![7; 100])?;
        large.insert(&key, &vec![7; 1_024])?;
        (ours(key), ours_three(key, "a text of 20 letters", 7), theirs(key));
    }
    let get = |cache: &Cache<u64, Vec<u8>>, key| cache.get(&key).map_or(0, |value| value.map_or(0, |v| v.len() as u64));
    let kinds: [(&str, &dyn Fn(u64) -> u64); 7] = [
        ("nothing", &|key| key),
        ("Store::get", &|key| store.get(key.to_le_bytes()).map_or(0, |value| u64::from(value.is_some()))),
        ("memoize, u64", &ours),
        ("memoize, u64, &str of 20, u64", &|key| ours_three(key, "a text of 20 letters", 7)),
        ("cached, u64", &theirs),
        ("Cache::get, 100 B", &|key| get(&small, key)),
        ("Cache::get, 1 KiB", &|key| get(&large, key)),
    ];
    let mut took = vec![Vec::new(); kinds.len()];
    for _ in 0..REPEATS {
        for (took, (_, call)) in took.iter_mut().zip(&kinds) {
            took.push(measure(call));
        }
    }
    for (took, (name, _)) in took.iter_mut().zip(&kinds) {
        took.sort_by(f64::total_cmp);
        println!("{name:32} min {:7.1} median {:7.1}", took[0], took[REPEATS / 2]);
    }

    drop((small, large));
    let bodies = AtomicU64::new(0);
    let numbers: Cache<u64, u64> = store.cache("rounds")?;
    let barrier = Barrier::new(8);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    barrier.wait();
                    let compute = || round + bodies.fetch_add(1, Ordering::Relaxed) * 0;
                    let value = numbers.get_or_insert_with(&round, compute).expect("the store works");
                    assert_eq!(*value, round);
                }
            });
        }
    });
    println!("8 threads, {ROUNDS} rounds of one cold key: {} computations, {:?}", bodies.into_inner(), start.elapsed());

    // The handle of a memoized function keeps its store open, so another one is opened anew.
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path())?;
    let cache: Cache<u64, Vec<u8>> = store.cache("again")?;
    (0..KEYS).try_for_each(|key| cache.insert(&key, &vec![7; 100]))?;
    drop(cache);
    store.close()?;
    let mut first = Vec::new();
    for _ in 0..REPEATS {
        let store = Store::open(dir.path())?;
        let cache: Cache<u64, Vec<u8>> = store.cache("again")?;
        let start = Instant::now();
        for key in 0..KEYS {
            black_box(cache.get(&key)?);
        }
        first.push(start.elapsed().as_nanos() as f64 / KEYS as f64);
        drop(cache);
        store.close()?;
    }
    first.sort_by(f64::total_cmp);
    println!("first hit after a restart, 100 B      min {:7.1} median {:7.1}", first[0], first[REPEATS / 2]);
    Ok(())
}
