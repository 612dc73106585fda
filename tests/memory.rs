//! The memory tier by the front door: what enters it, what leaves it, and that nobody can tell from the answers.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use thermocline::{Attributes, Durability, Error, Reason, Store, Tier};

fn store(capacity: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder().memory_capacity(capacity).segment_bytes(1 << 20).open(dir.path()).unwrap();
    (dir, store)
}

/// Waits until `is_so`: the store's threads may be at work.
fn settles(is_so: impl Fn() -> bool) -> bool {
    (0..10_000).any(|_| {
        is_so() || {
            std::thread::sleep(Duration::from_millis(1));
            false
        }
    })
}

fn tier(store: &Store, key: &str) -> Option<Tier> {
    store.metadata(key).unwrap().map(|metadata| metadata.tier)
}

#[test]
fn what_is_written_is_in_both_tiers_and_leaves_memory_alone() {
    let (_dir, store) = store(1 << 20);
    store.insert("k", "value").unwrap();
    assert_eq!(tier(&store, "k"), Some(Tier::Memory));
    assert_eq!(store.get_resident("k").as_deref(), Some(&b"value"[..]));
    assert_eq!(store.resident_keys().collect::<Vec<_>>(), [b"k"]);
    assert_eq!(store.logged_keys().collect::<Result<Vec<_>, _>>().unwrap(), [b"k"]);
    assert!(store.evict("k").unwrap());
    assert!(!store.evict("k").unwrap());
    assert_eq!(tier(&store, "k"), Some(Tier::Log));
    assert_eq!((store.get_resident("k"), store.resident_keys().count()), (None, 0));
    assert_eq!(store.peek("k").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(tier(&store, "k"), Some(Tier::Log), "a look that leaves no trace brings nothing to memory");
    assert_eq!(store.get("k").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(tier(&store, "k"), Some(Tier::Memory));
    let stats = store.stats();
    assert_eq!((stats.promotions, stats.demotions, stats.evictions.manual), (1, 1, 1));
    assert_eq!((stats.hits.log, stats.hits.memory), (1, 1));
    let evictions = store.eviction_log();
    assert_eq!(evictions.len(), 1);
    assert_eq!((&evictions[0].key[..], evictions[0].reason), (&b"k"[..], Reason::Manual));
}

#[test]
fn a_value_in_hand_stays_whatever_happens_to_its_record() {
    let (dir, store) = store(1 << 20);
    store.insert("k", "first").unwrap();
    let held = store.get("k").unwrap().unwrap();
    let clone = held.clone();
    store.insert("k", "second").unwrap();
    store.evict_all().unwrap();
    for round in 0..2_000_u32 {
        store.insert(round.to_le_bytes(), [7; 400]).unwrap();
    }
    assert_eq!(held, b"first");
    store.close().unwrap();
    drop(dir);
    assert_eq!((&held[..], &clone[..]), (&b"first"[..], &b"first"[..]));
    assert!(held.sequence() > 0);
}

#[test]
fn a_removed_key_is_gone_from_both_tiers_and_a_new_one_has_the_old_key() {
    let (_dir, store) = store(1 << 20);
    store.insert("k", "1").unwrap();
    assert!(store.remove("k").unwrap());
    assert!(!store.remove("k").unwrap());
    assert_eq!((store.get("k").unwrap(), store.get_resident("k"), store.len()), (None, None, 0));
    store.insert("k", "2").unwrap();
    assert_eq!(store.get("k").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!((store.len(), store.stats().memory.entries), (1, 1));
}

#[test]
fn volatile_writes_reach_the_log_when_they_leave_memory_and_by_sync_and_close() {
    let dir = tempfile::tempdir().unwrap();
    let volatile = Attributes::new().durability(Durability::Volatile);
    let builder = || Store::builder().memory_capacity(1 << 20);
    let store = builder().open(dir.path()).unwrap();
    for key in ["evicted", "synced", "closed", "removed", "overwritten"] {
        store.insert_with(key, key, &volatile).unwrap();
    }
    assert_eq!(store.stats().log.bytes_written, 0);
    assert_eq!(store.logged_keys().count(), 0);
    assert_eq!((store.len(), store.iter().count()), (5, 5));
    assert!(store.evict("evicted").unwrap());
    assert_eq!(store.logged_keys().map(Result::unwrap).collect::<Vec<_>>(), [b"evicted"]);
    assert_eq!(store.peek("evicted").unwrap().as_deref(), Some(&b"evicted"[..]));
    assert!(store.remove("removed").unwrap());
    store.insert_with("overwritten", "again", &volatile).unwrap();
    let sequence = store.peek("synced").unwrap().unwrap().sequence();
    store.sync().unwrap();
    let logged: BTreeSet<_> = store.logged_keys().map(|key| String::from_utf8(key.unwrap()).unwrap()).collect();
    assert_eq!(logged.iter().map(String::as_str).collect::<Vec<_>>(), ["closed", "evicted", "overwritten", "synced"]);
    store.insert_with("late", "late", &volatile).unwrap();
    drop(store);
    let store = builder().open(dir.path()).unwrap();
    assert_eq!(store.peek("synced").unwrap().unwrap().sequence(), sequence);
    assert_eq!(store.peek("late").unwrap().as_deref(), Some(&b"late"[..]));
    assert_eq!(store.peek("overwritten").unwrap().as_deref(), Some(&b"again"[..]));
    assert_eq!((store.peek("removed").unwrap(), store.len()), (None, 5));
    assert!(store.verify().unwrap().damaged.is_empty());
}

#[test]
fn a_store_in_memory_keeps_what_fits_and_nothing_else() {
    let store = Store::builder().memory_capacity(256 << 10).in_memory().unwrap();
    let mut found = 0;
    for key in 0..10_000_u32 {
        store.insert(key.to_le_bytes(), [key as u8; 100]).unwrap();
        // What has just come may be the first to leave.
        if let Some(value) = store.get(key.to_le_bytes()).unwrap() {
            assert_eq!(value, [key as u8; 100], "key {key}");
            found += 1;
        }
    }
    assert!(found > 9_000, "{found}");
    let stats = store.stats();
    assert!(stats.memory.bytes <= (256 << 10) * 101 / 100, "{stats:?}");
    assert!(stats.evictions.capacity > 7_000, "{stats:?}");
    assert!(settles(|| store.len() == store.iter().count() as u64));
    assert!(settles(|| store.iter().count() == store.resident_keys().count()));
    for entry in store.iter() {
        let (key, value) = entry.unwrap();
        assert_eq!(value, [key[0]; 100]);
    }
    assert_eq!((stats.log.segments, stats.log.bytes_written), (0, 0));
    let found = store.compare_exchange("counter", None, Some("1")).unwrap().unwrap();
    assert_eq!(store.compare_exchange("counter", None, Some("2")).unwrap(), Err(Some(found)));
    assert!(store.compare_exchange("counter", Some(found), None::<&str>).unwrap().is_ok());
    assert_eq!(store.get("counter").unwrap(), None);
    assert!(store.insert_many([("a", "1"), ("b", "2")]).is_ok());
    assert_eq!(store.remove_many(["a", "b", "c"]).unwrap(), 2);
    store.sync().unwrap();
    assert!(store.verify().unwrap().damaged.is_empty());
    let value = store.resident_keys().next().and_then(|key| store.get(key).unwrap()).unwrap();
    assert!(store.evict_all().unwrap() > 100);
    assert!(store.is_empty());
    store.close().unwrap();
    assert_eq!(value.len(), 100);
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    let refused = [Store::builder().read_only().in_memory(), Store::builder().memory_capacity(0).in_memory()];
    for (refused, name) in refused.into_iter().zip(["read_only", "memory_capacity"]) {
        assert!(matches!(refused, Err(Error::Option { option, .. }) if option == name), "{refused:?}");
    }
}

#[test]
fn without_a_memory_tier_everything_is_answered_by_the_log() {
    let (_dir, store) = store(0);
    store.insert("k", "v").unwrap();
    store.insert_with("w", "v", &Attributes::new().durability(Durability::Volatile)).unwrap();
    assert_eq!((tier(&store, "k"), tier(&store, "w")), (Some(Tier::Log), Some(Tier::Log)));
    assert_eq!(store.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!((store.get_resident("k"), store.stats().memory.entries, store.stats().evictions.rejected), (None, 0, 0));
}

#[test]
fn what_is_too_large_for_memory_goes_to_the_log_and_is_counted() {
    let (_dir, store) = store(64 << 10);
    store.insert("k", vec![1; 100 << 10]).unwrap();
    assert_eq!(tier(&store, "k"), Some(Tier::Log));
    assert_eq!(store.stats().evictions.rejected, 1);
    assert_eq!(store.get("k").unwrap().unwrap().len(), 100 << 10);
}

#[test]
fn the_capacity_can_be_changed_while_entries_come() {
    let (_dir, store) = store(4 << 20);
    let fill = |from: u32| (from..from + 40_000).for_each(|key| store.insert(key.to_le_bytes(), [1; 100]).unwrap());
    fill(0);
    let full = store.stats().memory;
    assert!(full.bytes > 3 << 20 && full.bytes <= (4 << 20) * 101 / 100, "{full:?}");
    store.set_memory_capacity(1 << 20);
    fill(100_000);
    let small = store.stats().memory;
    assert!(small.bytes <= (1 << 20) * 101 / 100 && small.capacity == 1 << 20, "{small:?}");
    {
        let _permit = store.reserve(512 << 10);
        fill(200_000);
        assert!(store.stats().memory.bytes <= (512 << 10) * 101 / 100);
    }
    store.set_memory_capacity(8 << 20);
    fill(300_000);
    let large = store.stats();
    assert!(large.memory.bytes > 4 << 20, "{large:?}");
    assert_eq!(store.len(), 160_000);
}

#[test]
fn what_expires_leaves_memory_by_itself() {
    let (_dir, store) = store(1 << 20);
    let soon = Attributes::new().ttl(Duration::from_millis(20));
    (0..100_u32).for_each(|key| store.insert_with(key.to_le_bytes(), "v", &soon).unwrap());
    store.insert("stays", "v").unwrap();
    // The thread looks every second; nothing here depends on when.
    while store.stats().memory.entries > 1 {
        std::thread::yield_now();
    }
    let stats = store.stats();
    assert_eq!((stats.evictions.expired, store.len()), (100, 1));
    assert!(store.health().is_well());
    assert_eq!(store.health().threads.len(), 1);
}

#[test]
fn hot_keys_are_those_that_come_often() {
    let (_dir, store) = store(1 << 20);
    (0..1_000_u32).for_each(|key| store.insert(key.to_le_bytes(), [0; 100]).unwrap());
    for _ in 0..200 {
        (0..1_000_u32).step_by(100).for_each(|key| drop(store.get(key.to_le_bytes()).unwrap()));
        (0..1_000_u32).step_by(13).take(5).for_each(|key| drop(store.get(key.to_le_bytes()).unwrap()));
    }
    let hottest = store.hot_keys(3);
    assert_eq!(hottest.len(), 3);
    assert!(hottest.is_sorted_by(|a, b| a.access_count >= b.access_count));
    assert!(hottest.iter().all(|hot| {
        let key = u32::from_le_bytes(hot.key[..].try_into().unwrap());
        key.is_multiple_of(100) || key.is_multiple_of(13)
    }));
}

/// Threads that read, write, remove, evict and walk over few keys in a memory that has room for half of them: every value is
/// one that was written for its key, and no key goes back to an older version.
#[test]
fn nobody_sees_a_wrong_or_older_value_while_records_move() {
    const KEYS: u64 = 600;
    for in_memory in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let builder = Store::builder().memory_capacity(64 << 10).segment_bytes(1 << 20);
        let store = if in_memory { builder.in_memory().unwrap() } else { builder.open(dir.path()).unwrap() };
        let is_done = AtomicBool::new(false);
        let reads = AtomicU64::new(0);
        let value =
            |key: u64, version: u64| [key, version].map(u64::to_le_bytes).concat().repeat(1 + key as usize % 20);
        std::thread::scope(|scope| {
            for writer in 0..2_u64 {
                let (store, is_done) = (&store, &is_done);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(writer);
                    let volatile = Attributes::new().durability(Durability::Volatile);
                    for version in 1..60_000 {
                        // A key has one writer, so its versions rise.
                        let key = random.u64(..KEYS) & !1 | writer;
                        match random.u32(..20) {
                            0 => drop(store.remove(key.to_le_bytes()).unwrap()),
                            1 => drop(store.evict(key.to_le_bytes()).unwrap()),
                            2..8 => store.insert_with(key.to_le_bytes(), value(key, version), &volatile).unwrap(),
                            _ => store.insert(key.to_le_bytes(), value(key, version)).unwrap(),
                        }
                        if version % 20_000 == 0 {
                            store.evict_all().unwrap();
                            store.sync().unwrap();
                        }
                    }
                    is_done.store(true, Ordering::Relaxed);
                });
            }
            for reader in 0..2_u64 {
                let (store, is_done, reads) = (&store, &is_done, &reads);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(100 + reader);
                    let mut latest = vec![0; KEYS as usize];
                    let mut held = Vec::new();
                    while !is_done.load(Ordering::Relaxed) {
                        let key = random.u64(..KEYS);
                        let Some(found) = store.get(key.to_le_bytes()).unwrap() else { continue };
                        let version = u64::from_le_bytes(found[8..16].try_into().unwrap());
                        assert_eq!(found, value(key, version));
                        assert!(version >= latest[key as usize], "key {key} went back to {version}");
                        latest[key as usize] = version;
                        reads.fetch_add(1, Ordering::Relaxed);
                        if held.len() == 100 {
                            held.clear();
                        }
                        held.push(found);
                        if random.u32(..2_000) == 0 {
                            for entry in store.iter() {
                                let (key, found) = entry.unwrap();
                                let key = u64::from_le_bytes(key.try_into().unwrap());
                                let version = u64::from_le_bytes(found[8..16].try_into().unwrap());
                                assert_eq!(found, value(key, version));
                            }
                        }
                    }
                });
            }
        });
        assert!(reads.into_inner() > 100);
        assert!(settles(|| store.len() == store.iter().count() as u64));
        assert!(settles(|| store.len() == store.len_estimate()));
        assert!(store.health().is_well(), "{:?}", store.health());
        let before: std::collections::BTreeMap<_, _> =
            store.iter().map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap()).collect();
        if !in_memory {
            drop(store);
            let store = Store::open(dir.path()).unwrap();
            let after = store.iter().map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap()).collect();
            assert_eq!(before, after);
        }
    }
}
