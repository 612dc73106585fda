//! How long it takes to open a store whose process was killed, until the first look-up is answered.
//!
//! Data: 100 000 and 1 000 000 keys of 16 bytes with values of 100, each written once, in random order; nothing synced or
//! closed. Skew: none. Threads: as many as recovery takes. Durability: `Buffered`. A bench cannot be killed, so the
//! files of a store that is open are copied, which is what `kill -9` leaves: segments at full length, no `flushed`. Each
//! turn opens a fresh copy (in /dev/shm where there is one: page cache, no disk); copying and closing are off the clock.
//! Test mode takes 1 000 keys.

#[path = "support/workload.rs"]
mod workload;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use thermocline::Store;
use workload::{dir, fill, is_test, key};

fn recovery(criterion: &mut Criterion) {
    let sizes = if is_test() { vec![1_000] } else { vec![100_000, 1_000_000] };
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    for keys in sizes {
        let dir = dir();
        let store = Store::builder().memory_capacity(0).open(dir.path()).expect("an empty directory");
        fill(&store, keys).expect("room for the data");
        group.throughput(Throughput::Elements(keys));
        group.bench_function(BenchmarkId::new("killed", keys), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| open_copy(dir.path(), keys)).sum());
        });
    }
    group.finish();
}

/// The time from the call to the first answer, in a copy of the store at `from`.
fn open_copy(from: &Path, keys: u64) -> Duration {
    let copy = dir();
    for entry in fs::read_dir(from).expect("a store").flatten() {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("room for a copy");
    }
    let start = Instant::now();
    let store = Store::builder().memory_capacity(0).open(copy.path()).expect("a store that a kill left");
    let found = store.get(key(keys - 1)).expect("a sound store");
    let elapsed = start.elapsed();
    assert!(found.is_some() && store.len() == keys, "the copy lacks records");
    elapsed
}

criterion_group!(benches, recovery);
criterion_main!(benches);
