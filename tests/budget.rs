//! The memory tier's budget against what the system says that the process takes. One test, so that nothing else runs here.
#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use thermocline::Store;

const MIB: u64 = 1 << 20;
/// What the log's own threads may hold at a time beside the tier: a hint in the making, a page of a checkpoint, what goes to a file.
const BESIDE: u64 = 8 * MIB;

/// Bytes of this process's own memory: mapped files not counted, which the system takes back when it wants to.
fn own_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// What nobody needs has gone when this returns: the threads that see to that take a moment.
fn settle(store: &Store, is_settled: impl Fn(&Store) -> bool) {
    let waits = (0..30_000).find(|_| {
        is_settled(store) || {
            std::thread::sleep(Duration::from_millis(1));
            false
        }
    });
    assert!(waits.is_some(), "{:?}", store.stats().memory);
}

#[test]
fn the_process_takes_what_the_capacity_says_and_gives_back_what_it_no_longer_needs() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = 96 * MIB;
    let store = Store::builder().memory_capacity(capacity).open(dir.path()).unwrap();
    // Sizes from a few bytes to some kilobytes, and now and then a large one, in another mixture in each round.
    let mut random = fastrand::Rng::with_seed(3);
    let mut key = 0_u64;
    let mut fill = |bytes: u64, round: u32| {
        let mut written = 0;
        while written < bytes {
            let len = match random.u32(..100) {
                0 => random.usize(..100_000),
                n if n < 30 * round => random.usize(..4_000),
                _ => random.usize(..400),
            };
            store.insert(key.to_le_bytes(), vec![1; len]).unwrap();
            (written, key) = (written + len as u64, key + 1);
            if random.u32(..4) == 0 {
                store.get(random.u64(..key).to_le_bytes()).unwrap();
            }
        }
    };
    let before = own_bytes();
    for round in 0..3 {
        fill(2 * capacity, round);
        let stats = store.stats();
        let taken = own_bytes() - before - stats.index.bytes;
        println!("round {round}: {taken} bytes taken, {:?}, {:?}", stats.memory, stats.evictions);
        assert!(stats.memory.bytes <= capacity * 101 / 100, "{:?}", stats.memory);
        assert!(taken <= capacity * 101 / 100 + BESIDE, "{} MiB taken, {:?}", taken / MIB, stats.memory);
        assert!(stats.memory.bytes >= capacity * 8 / 10, "{:?}", stats.memory);
    }
    let full = own_bytes();
    store.set_memory_capacity(capacity / 5);
    settle(&store, |store| store.stats().memory.arena_bytes <= capacity / 5 + 4 * MIB);
    let (freed, due) = (full - own_bytes(), capacity * 4 / 5);
    assert!(freed >= due * 8 / 10, "{} of {} MiB came back, {:?}", freed / MIB, due / MIB, store.stats().memory);
    // Of many sizes in little memory some blocks are not full.
    assert!(store.stats().memory.bytes >= capacity / 5 / 2, "the survivors stayed: {:?}", store.stats().memory);
    let stats = store.stats();
    let accounted = stats.memory.entries + stats.evictions.capacity + stats.evictions.rejected;
    assert!(accounted >= key, "every entry is there, has left or was turned away: {stats:?}");
}
