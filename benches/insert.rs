//! What a write costs: new keys, overwrites, batches, and one that waits for the disk.
//!
//! Data: keys of 16 bytes with values of 100; batches of 1 000 values of 1 KiB. Skew: none, new keys come in random order
//! and overwrites are uniform over 100 000 keys. Threads: one. Durability: `Buffered` in /dev/shm where there is one (the
//! work of the store, not of a disk), `Synced` on the disk of the build directory. A store is replaced by an empty one, off the clock,
//! before it has 2 GiB. Test mode takes 100 keys.

#[path = "support/workload.rs"]
mod workload;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use thermocline::{Durability, Store};
use workload::{Lookups, dir, dir_on_disk, fill, is_test, key, value};

const BATCH: usize = 1_000;
const BATCH_VALUE: [u8; 1024] = [0x5a; 1024];
/// So much is written to one store before the next takes over.
const STORE_BYTES_MAX: u64 = 2 << 30;

/// A store that is renewed when it has become large.
struct Renewed {
    store: Option<Store>,
    /// Of the store, which ends first.
    dir: TempDir,
    /// Writes left until it is renewed.
    left: u64,
    index: u64,
    writes_max: u64,
}

impl Renewed {
    fn new(write_bytes: u64) -> Self {
        let dir = dir();
        let store = Some(Store::builder().memory_capacity(0).open(dir.path()).expect("an empty directory"));
        let writes_max = STORE_BYTES_MAX / write_bytes;
        Self { store, dir, left: writes_max, index: 0, writes_max }
    }

    fn renew(&mut self) {
        self.store = None;
        self.dir = dir();
        self.store = Some(Store::builder().memory_capacity(0).open(self.dir.path()).expect("an empty directory"));
        self.left = self.writes_max;
    }

    /// The time that `count` writes take, each of which gets the number of the first record that it may write.
    fn time(&mut self, count: u64, records: u64, write: impl Fn(&Store, u64)) -> Duration {
        let mut elapsed = Duration::ZERO;
        let mut done = 0;
        while done < count {
            if self.left == 0 {
                self.renew();
            }
            let now = self.left.min(count - done);
            let store = self.store.as_ref().expect("an open store");
            let start = Instant::now();
            (0..now).for_each(|write_number| write(store, self.index + write_number * records));
            elapsed += start.elapsed();
            (self.left, self.index, done) = (self.left - now, self.index + now * records, done + now);
        }
        elapsed
    }
}

fn single(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert");
    group.throughput(Throughput::Elements(1));
    group.bench_function("new", |bencher| {
        let mut renewed = Renewed::new(152);
        bencher.iter_custom(|count| {
            renewed.time(count, 1, |store, index| {
                store.insert(black_box(key(index)), black_box(value(index))).expect("room for the data");
            })
        });
    });
    group.bench_function("overwrite", |bencher| {
        let keys = if is_test() { 100 } else { 100_000 };
        let (dir, mut lookups) = (dir(), Lookups::new(0..keys));
        let mut store = Store::builder().memory_capacity(0).open(dir.path()).expect("an empty directory");
        fill(&store, keys).expect("room for the data");
        let mut written = 0;
        bencher.iter_custom(|count| {
            // Nothing compacts yet, so what was overwritten takes room until the store is made anew.
            if written > STORE_BYTES_MAX / 152 {
                drop(std::mem::replace(&mut store, renewed_at(&dir, keys)));
                written = 0;
            }
            written += count;
            let start = Instant::now();
            for index in 0..count {
                let key = black_box(key(lookups.draw()));
                store.insert(key, black_box(value(index))).expect("room for the data");
            }
            start.elapsed()
        });
    });
    group.finish();
}

/// A full store beside those that `dir` had before, which are removed.
fn renewed_at(dir: &TempDir, keys: u64) -> Store {
    let old: Vec<_> = dir.path().read_dir().expect("a directory").flatten().map(|entry| entry.path()).collect();
    let next = tempfile::tempdir_in(dir.path()).expect("a directory for the bench").keep();
    for path in old {
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    let store = Store::builder().memory_capacity(0).open(next).expect("an empty directory");
    fill(&store, keys).expect("room for the data");
    store
}

fn batch(criterion: &mut Criterion) {
    let records = if is_test() { 100 } else { BATCH };
    let mut group = criterion.benchmark_group("insert_many");
    group.throughput(Throughput::Bytes((records * BATCH_VALUE.len()) as u64));
    group.bench_function("1000_of_1_KiB", |bencher| {
        let mut renewed = Renewed::new((records * (BATCH_VALUE.len() + 48)) as u64);
        bencher.iter_custom(|count| {
            renewed.time(count, records as u64, |store, index| {
                let pairs = (index..index + records as u64).map(|index| (key(index), &BATCH_VALUE));
                store.insert_many(pairs).expect("room for the data");
            })
        });
    });
    group.finish();
}

fn synced(criterion: &mut Criterion) {
    let dir = dir_on_disk();
    let store = Store::builder().durability(Durability::Synced).open(dir.path()).expect("an empty directory");
    let mut index = 0;
    let mut group = criterion.benchmark_group("insert_synced");
    group.sample_size(20).throughput(Throughput::Elements(1));
    group.bench_function("new", |bencher| {
        bencher.iter(|| {
            index += 1;
            store.insert(black_box(key(index)), black_box(value(index))).expect("room for the data");
        });
    });
    group.finish();
}

criterion_group!(benches, single, batch, synced);
criterion_main!(benches);
