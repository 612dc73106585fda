//! The store against a map: random operations, with reopening in between, give the same answers.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use thermocline::{Compression, Store, Value};

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, u8),
    InsertMany(Vec<(u8, u8)>),
    Remove(u8),
    Exchange { key: u8, stale: bool, new: Option<u8> },
    Get(u8),
    Walk,
    Sync,
    Compact,
    Reopen,
    Drop,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..40_u8;
    prop_oneof![
        8 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Op::Insert(key, value)),
        2 => prop::collection::vec((key.clone(), any::<u8>()), 0..12).prop_map(Op::InsertMany),
        4 => key.clone().prop_map(Op::Remove),
        4 => (key.clone(), any::<bool>(), any::<Option<u8>>())
            .prop_map(|(key, stale, new)| Op::Exchange { key, stale, new }),
        8 => key.prop_map(Op::Get),
        1 => Just(Op::Walk),
        1 => Just(Op::Sync),
        1 => Just(Op::Compact),
        1 => Just(Op::Reopen),
        1 => Just(Op::Drop),
    ]
}

/// Keys from none to long, values from none to several pages.
fn key(seed: u8) -> Vec<u8> {
    vec![seed; if seed.is_multiple_of(7) { seed as usize * 40 } else { seed as usize }]
}

fn value(seed: u8) -> Vec<u8> {
    vec![seed; if seed.is_multiple_of(16) { 9_000 } else { seed as usize }]
}

fn check(store: &Store, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut found: Vec<_> = store.iter().map(|entry| entry.unwrap()).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let found: Vec<_> = found.iter().map(|(key, value)| (key.clone(), value.to_vec())).collect();
    let expected: Vec<_> = model.clone().into_iter().collect();
    assert_eq!(found, expected);
    assert_eq!((store.len(), store.is_empty()), (model.len() as u64, model.is_empty()));
}

fn run(ops: Vec<Op>, mapped: bool, compression: Compression) {
    let dir = tempfile::tempdir().unwrap();
    let builder = Store::builder().segment_bytes(64 << 10).mapped(mapped).compression(compression);
    let open = || builder.clone().open(dir.path()).unwrap();
    let mut store = open();
    let mut model = BTreeMap::new();
    for op in ops {
        match op {
            Op::Insert(k, v) => {
                store.insert(key(k), value(v)).unwrap();
                model.insert(key(k), value(v));
            }
            Op::InsertMany(pairs) => {
                let pairs: Vec<_> = pairs.into_iter().map(|(k, v)| (key(k), value(v))).collect();
                store.insert_many(pairs.clone()).unwrap();
                model.extend(pairs);
            }
            Op::Remove(k) => assert_eq!(store.remove(key(k)).unwrap(), model.remove(&key(k)).is_some()),
            Op::Exchange { key: k, stale, new } => {
                let now = store.peek(key(k)).unwrap().map(|value| value.sequence());
                let expected = if stale { now.map_or(Some(1), |now| Some(now + 1)) } else { now };
                let result = store.compare_exchange(key(k), expected, new.map(value)).unwrap();
                if stale {
                    assert_eq!(result, Err(now));
                } else {
                    assert!(result.unwrap() > now.unwrap_or(0));
                    match new {
                        Some(new) => model.insert(key(k), value(new)),
                        None => model.remove(&key(k)),
                    };
                }
            }
            Op::Get(k) => {
                let expected = model.get(&key(k)).map(Vec::as_slice);
                assert_eq!(store.get(key(k)).unwrap().as_deref(), expected);
                assert_eq!(store.read(key(k), <[u8]>::to_vec).unwrap().as_deref(), expected);
                assert_eq!(store.contains_key(key(k)).unwrap(), expected.is_some());
            }
            Op::Walk => check(&store, &model),
            Op::Sync => store.sync().unwrap(),
            Op::Compact => _ = store.compact().unwrap(),
            Op::Reopen => {
                store.close().unwrap();
                store = open();
            }
            Op::Drop => {
                drop(store);
                store = open();
            }
        }
    }
    check(&store, &model);
    let verified = store.verify().unwrap();
    assert_eq!(verified.damaged, []);
}

proptest! {
    #![proptest_config(support::cases(60))]

    #[test]
    fn a_mapped_store_answers_like_a_map(ops in prop::collection::vec(op(), 1..400), packs in any::<bool>()) {
        run(ops, true, if packs { Compression::zstd(3) } else { Compression::none() });
    }

    #[test]
    fn an_unmapped_store_answers_like_a_map(ops in prop::collection::vec(op(), 1..400)) {
        run(ops, false, Compression::zstd(1));
    }
}

#[test]
fn batches_answer_in_order_and_the_last_of_equal_keys_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.insert_many([("a", "1"), ("b", "2"), ("a", "3")]).unwrap();
    let found = store.get_many(["b", "missing", "a"]).unwrap();
    let found: Vec<_> = found.iter().map(|value| value.as_deref()).collect();
    assert_eq!(found, [Some(&b"2"[..]), None, Some(&b"3"[..])]);
    assert_eq!(store.remove_many(["a", "b", "missing"]).unwrap(), 2);
}

#[test]
fn many_keys_of_a_large_store_are_answered_as_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    // An index that no core's cache holds, so that the keys of a group are looked up together.
    let count = 150_000_u32;
    let pairs: Vec<_> = (0..count).map(|key| (key.to_le_bytes(), (key ^ 1).to_le_bytes())).collect();
    store.insert_many(pairs).unwrap();
    assert!(store.stats().index.bytes > 1 << 20);
    (0..count).step_by(7).for_each(|key| assert!(store.remove(key.to_le_bytes()).unwrap()));
    let keys: Vec<_> = (0..2 * count).step_by(3).chain([5, 5]).collect();
    for some in [0, 1, 2, 31, 32, 33, keys.len()] {
        let found = store.get_many(keys[..some].iter().map(|key| key.to_le_bytes())).unwrap();
        assert_eq!(found.len(), some);
        for (key, found) in keys.iter().zip(found) {
            let expected = (*key < count && key % 7 != 0).then(|| (key ^ 1).to_le_bytes());
            assert_eq!(found.as_deref(), expected.as_ref().map(|value| &value[..]), "key {key}");
        }
    }
    let stats = store.stats();
    assert_eq!(stats.hits.memory + stats.hits.log + stats.misses.total, (1 + 2 + 31 + 32 + 33 + keys.len()) as u64);
}

#[test]
fn a_value_outlives_the_store_and_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.insert("k", [7; 10_000]).unwrap();
    let value: Value = store.get("k").unwrap().unwrap();
    store.insert("k", "other").unwrap();
    store.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    drop(store);
    assert_eq!(value, [7; 10_000]);
}

#[test]
fn the_public_types_are_shareable() {
    fn shared<T: Send + Sync + std::fmt::Debug + 'static>() {}
    shared::<Store>();
    shared::<Value>();
    shared::<thermocline::Error>();
    shared::<thermocline::Stats>();
    shared::<thermocline::Metadata>();
}
