//! What a hit in the log and a miss cost.
//!
//! Data: 100 000 and 1 000 000 keys of 16 bytes with values of 100, inserted in random order. Skew: none, look-ups are
//! uniform and independent; misses are keys of the same form that were never written. Threads: one. Durability: does
//! not matter to reads; the store is in /dev/shm where there is one, so that no disk writes meanwhile. Test mode takes 1 000
//! keys. Says the machine with `lscpu`; numbers of different machines do not compare.

#[path = "support/workload.rs"]
mod workload;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use thermocline::Store;
use workload::{Lookups, dir, fill, is_test, key};

fn get_log(criterion: &mut Criterion) {
    let sizes = if is_test() { vec![1_000] } else { vec![100_000, 1_000_000] };
    let mut group = criterion.benchmark_group("get_log");
    group.throughput(Throughput::Elements(1));
    for keys in sizes {
        let dir = dir();
        let store = Store::builder().memory_capacity(0).open(dir.path()).expect("an empty directory");
        fill(&store, keys).expect("room for the data");
        let mut hits = Lookups::new(0..keys);
        group.bench_function(BenchmarkId::new("get_hit", keys), |bencher| {
            bencher.iter(|| store.get(black_box(key(hits.draw()))).expect("a sound store").expect("a hit"));
        });
        group.bench_function(BenchmarkId::new("read_hit", keys), |bencher| {
            bencher.iter(|| {
                let last = store.read(black_box(key(hits.draw())), |value| value.last().copied());
                last.expect("a sound store").expect("a hit")
            });
        });
        let mut misses = Lookups::new(keys..2 * keys);
        group.bench_function(BenchmarkId::new("get_miss", keys), |bencher| {
            bencher.iter(|| assert!(store.get(black_box(key(misses.draw()))).expect("a sound store").is_none()));
        });
    }
    group.finish();
}

criterion_group!(benches, get_log);
criterion_main!(benches);
