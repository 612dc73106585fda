//! Compaction by the front door: space comes back, nothing else changes, whatever goes on meanwhile.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use thermocline::{Attributes, Compression, Progress, Store};

const SEGMENT_BYTES: u64 = 64 << 10;

fn open(dir: &tempfile::TempDir, memory_capacity: u64) -> Store {
    Store::builder().segment_bytes(SEGMENT_BYTES).memory_capacity(memory_capacity).open(dir.path()).unwrap()
}

fn value(key: u32, version: u32) -> Vec<u8> {
    [key, version].map(u32::to_le_bytes).concat().repeat(8)
}

fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.iter().map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap()).collect()
}

/// Bytes of the segments, as the system sees them.
fn bytes_on_disk(dir: &tempfile::TempDir) -> u64 {
    let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap());
    files
        .filter(|file| file.file_name().to_string_lossy().ends_with(".segment"))
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

#[test]
fn what_was_overwritten_and_removed_gives_its_space_back_and_everything_else_stays() {
    for memory_capacity in [0, 32 << 10, 64 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir, memory_capacity);
        for version in 0..10 {
            (0..2_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, version)).unwrap());
        }
        (0..2_000_u32).step_by(3).for_each(|key| assert!(store.remove(key.to_le_bytes()).unwrap()));
        let before = contents(&store);
        let done = store.compact().unwrap();
        let stats = store.stats().log;
        assert!(stats.bytes_reclaimed >= done.bytes_reclaimed && stats.bytes_compacted >= done.bytes_written);
        assert_eq!(contents(&store), before);
        let again = store.compact().unwrap();
        assert!(again.bytes_written <= stats.live_bytes, "{again:?}, {stats:?}");
        assert_eq!(store.verify().unwrap().damaged, []);
        store.close().unwrap();
        assert!(
            bytes_on_disk(&dir) <= stats.live_bytes * 12 / 10 + 2 * SEGMENT_BYTES,
            "{} bytes, {stats:?}",
            bytes_on_disk(&dir)
        );
        let store = open(&dir, memory_capacity);
        assert_eq!(contents(&store), before);
        assert_eq!(store.len(), before.len() as u64);
        assert_eq!(store.stats().log.live_bytes, stats.live_bytes);
    }
}

#[test]
fn a_store_gives_space_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 0);
    for version in 0..30 {
        (0..2_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, version)).unwrap());
    }
    let is_small = || store.stats().log.bytes <= store.stats().log.live_bytes * 3 / 2 + 4 * SEGMENT_BYTES;
    let waits = (0..20_000).any(|_| {
        is_small() || {
            std::thread::sleep(Duration::from_millis(1));
            false
        }
    });
    assert!(waits, "{:?}", store.stats());
    (0..2_000_u32).for_each(|key| assert_eq!(store.get(key.to_le_bytes()).unwrap().unwrap(), value(key, 29)));
    assert!(store.health().is_well(), "{:?}", store.health());
}

#[test]
fn a_store_that_rests_takes_little_more_than_what_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    // Of the default size: what is reserved is most of it.
    let store = Store::builder().memory_capacity(0).open(dir.path()).unwrap();
    for version in 0..4 {
        (0..200_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, version)).unwrap());
    }
    let live = store.stats().log.live_bytes;
    let is_small = || bytes_on_disk(&dir) <= live * 3 / 2 + (16 << 20);
    assert!(!is_small(), "{} bytes while it works", bytes_on_disk(&dir));
    let start = std::time::Instant::now();
    while !is_small() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} bytes, {:?}", bytes_on_disk(&dir), store.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    (0..300_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, 4)).unwrap());
    let (len, records) = (store.len(), store.verify().unwrap());
    assert_eq!((len, records.damaged.len()), (300_000, 0));
    assert!(store.health().is_well(), "{:?}", store.health());
    drop(store);
    let store = open(&dir, 0);
    assert_eq!(store.len(), len);
    (0..300_000_u32).step_by(7).for_each(|key| {
        assert_eq!(store.get(key.to_le_bytes()).unwrap().unwrap(), value(key, 4));
    });
}

#[test]
fn removals_are_forgotten_when_nothing_is_left_that_they_remove() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 1 << 20);
    (0..3_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, 0)).unwrap());
    (0..3_000_u32).for_each(|key| assert!(store.remove(key.to_le_bytes()).unwrap()));
    (0..3).for_each(|_| _ = store.compact().unwrap());
    assert!(store.verify().unwrap().records < 100, "{:?}", store.verify());
    drop(store);
    let store = open(&dir, 1 << 20);
    assert_eq!((store.len(), store.iter().count()), (0, 0));
}

#[test]
fn what_expired_goes_and_does_not_let_older_values_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 1 << 20);
    let soon = Attributes::new().ttl(Duration::from_millis(1));
    (0..2_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, 0)).unwrap());
    (0..1_000_u32).for_each(|key| store.insert_with(key.to_le_bytes(), value(key, 1), &soon).unwrap());
    std::thread::sleep(Duration::from_millis(20));
    (0..3).for_each(|_| _ = store.compact().unwrap());
    assert_eq!((store.len(), store.len_estimate()), (1_000, 1_000));
    assert!(store.verify().unwrap().records < 1_100, "{:?}", store.verify());
    drop(store);
    let store = open(&dir, 1 << 20);
    assert_eq!(store.len(), 1_000);
    assert_eq!(store.get(5_u32.to_le_bytes()).unwrap(), None);
}

#[test]
fn what_somebody_holds_or_walks_over_stays_while_its_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 0);
    (0..3_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, 0)).unwrap());
    let held = store.get(7_u32.to_le_bytes()).unwrap().unwrap();
    let mut walk = store.iter();
    let mut met: Vec<_> = walk.by_ref().take(50).map(Result::unwrap).collect();
    (0..3_000_u32).step_by(2).for_each(|key| store.insert(key.to_le_bytes(), value(key, 1)).unwrap());
    (0..2).for_each(|_| _ = store.compact().unwrap());
    met.extend(walk.map(Result::unwrap));
    assert_eq!(met.len(), 3_000);
    for (key, found) in met {
        let key = u32::from_le_bytes(key.try_into().unwrap());
        assert!(found == value(key, 0) || key % 2 == 0 && found == value(key, 1));
    }
    assert_eq!(held, value(7, 0));
}

#[test]
fn nobody_sees_a_wrong_or_older_value_while_segments_go() {
    const KEYS: u32 = 500;
    for mapped in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let builder = || Store::builder().segment_bytes(SEGMENT_BYTES).memory_capacity(32 << 10).mapped(mapped);
        let store = builder().open(dir.path()).unwrap();
        let (is_done, compacted) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2_u32)
                .map(|writer| {
                    let (store, compacted) = (&store, &compacted);
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(writer.into());
                        let versions_min = if mapped { 30_000 } else { 5_000 };
                        let goes_on = |version| version < versions_min || compacted.load(Ordering::Relaxed) < 20;
                        for version in (1..).take_while(|version| goes_on(*version)) {
                            let key = random.u32(..KEYS) & !1 | writer;
                            match random.u32(..20) {
                                0..3 => drop(store.remove(key.to_le_bytes()).unwrap()),
                                3 => drop(store.evict(key.to_le_bytes()).unwrap()),
                                4..6 => {
                                    let seen = store.peek(key.to_le_bytes()).unwrap().map(|value| value.sequence());
                                    let new =
                                        store.compare_exchange(key.to_le_bytes(), seen, Some(value(key, version)));
                                    assert!(new.unwrap().is_ok(), "a key has one writer");
                                }
                                _ => store.insert(key.to_le_bytes(), value(key, version)).unwrap(),
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    compacted.fetch_add(store.compact().unwrap().segments, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(9);
                let mut latest = vec![0; KEYS as usize];
                while !is_done.load(Ordering::Relaxed) {
                    let key = random.u32(..KEYS);
                    let Some(found) = store.get(key.to_le_bytes()).unwrap() else { continue };
                    let version = u32::from_le_bytes(found[4..8].try_into().unwrap());
                    assert_eq!(found, value(key, version));
                    assert!(version >= latest[key as usize], "key {key} went back to {version}");
                    latest[key as usize] = version;
                    if random.u32(..500) == 0 {
                        for entry in store.iter() {
                            let (key, found) = entry.unwrap();
                            let version = u32::from_le_bytes(found[4..8].try_into().unwrap());
                            assert_eq!(found, value(u32::from_le_bytes(key.try_into().unwrap()), version));
                        }
                    }
                }
            });
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            is_done.store(true, Ordering::Relaxed);
        });
        let before = contents(&store);
        assert_eq!(store.len(), before.len() as u64);
        drop(store);
        let store = builder().open(dir.path()).unwrap();
        assert_eq!(contents(&store), before);
        assert_eq!(store.verify().unwrap().damaged, []);
    }
}

#[test]
fn the_figures_of_compaction_say_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Store::builder().segment_bytes(SEGMENT_BYTES).memory_capacity(0);
    let store = options().compression(Compression::none()).open(dir.path()).unwrap();
    let log = store.stats().log;
    assert_eq!((log.write_amplification, log.live_ratio, log.bytes_scanned), (1.0, 1.0, 0));
    // Two of three records of each segment are dead, which is too little to wait for and too much to leave.
    for version in 0..3 {
        (0..4_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, version)).unwrap());
    }
    store.compact().unwrap();
    let log = store.stats().log;
    let reclaimed = log.bytes_written + log.bytes_compacted - log.bytes_reclaimed;
    assert!(log.bytes.abs_diff(reclaimed) < 4 * SEGMENT_BYTES, "what was written and did not go is there: {log:?}");
    assert!(log.bytes_scanned >= log.bytes_compacted && log.bytes_scanned >= log.bytes_reclaimed, "{log:?}");
    let amplification = (log.bytes_written + log.bytes_compacted + log.bytes_beside) as f64 / log.bytes_written as f64;
    assert!((log.write_amplification - amplification).abs() < 1e-9, "{log:?}");
    assert!((log.live_ratio - log.live_bytes as f64 / log.bytes as f64).abs() < 1e-9, "{log:?}");
}

#[test]
fn who_waits_for_a_compaction_hears_how_far_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder().memory_capacity(0).segment_bytes(1 << 20).open(dir.path()).unwrap();
    for version in 0..2 {
        (0..40_000_u32).for_each(|key| store.insert(key.to_le_bytes(), value(key, version)).unwrap());
    }
    let mut told = Vec::new();
    let done = store.compact_with(|at: Progress| told.push(at)).unwrap();
    assert!(done.segments > 1 && told.len() > 4, "{done:?}, told {} times", told.len());
    assert!(told.is_sorted_by_key(|at| at.bytes_done));
    assert!(told.iter().all(|at| at.bytes_done <= at.bytes_total && at.bytes_total >= done.bytes_read));
    assert_eq!(told.last().map(|at| at.bytes_done), Some(done.bytes_read));
}
