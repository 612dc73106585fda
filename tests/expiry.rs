//! Times to live by the front door: what has expired is a miss for every reader, also after reopening.

mod support;

use std::time::{Duration, Instant};

use thermocline::{Attributes, Error, Store};

fn ttl(ttl: Duration) -> Attributes {
    Attributes::new().ttl(ttl)
}

/// Asserts that `key` is gone for every reader.
fn assert_gone(store: &Store, key: &str) {
    assert_eq!(store.get(key).unwrap(), None, "get");
    assert_eq!(store.peek(key).unwrap(), None, "peek");
    assert_eq!(store.read(key, <[u8]>::len).unwrap(), None, "read");
    assert!(!store.contains_key(key).unwrap(), "contains_key");
    assert_eq!(store.metadata(key).unwrap(), None, "metadata");
    assert_eq!(store.get_many([key]).unwrap(), [None::<thermocline::Value>], "get_many");
    assert!(store.iter().all(|entry| entry.unwrap().0 != key.as_bytes()), "iter");
    assert!(store.keys().all(|found| found.unwrap() != key.as_bytes()), "keys");
}

/// Reads `key` until it is gone, which is no sooner than `ttl` after `written`; waits for nothing else.
fn wait_until_gone(store: &Store, key: &str, written: Instant, ttl: Duration) {
    loop {
        let before = store.get(key).unwrap();
        match before {
            Some(_) => assert!(written.elapsed() < ttl + Duration::from_secs(20), "{key} is immortal"),
            // A millisecond is what the clocks may differ by.
            None => return assert!(written.elapsed() + Duration::from_millis(1) >= ttl, "{key} went early"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn what_has_expired_is_gone_for_every_reader_and_after_reopening() {
    for mapped in [true, false] {
        let dir = support::dir();
        let open = || Store::builder().segment_bytes(64 << 10).mapped(mapped).open(dir.path()).unwrap();
        let store = open();
        store.insert("stays", "1").unwrap();
        for ms in [1, 2, 15] {
            let (key, live) = (format!("{ms} ms"), Duration::from_millis(ms));
            let written = Instant::now();
            store.insert_with(&key, "value", &ttl(live)).unwrap();
            wait_until_gone(&store, &key, written, live);
            assert_gone(&store, &key);
            assert!(!store.remove(&key).unwrap(), "there is nothing to remove");
        }
        assert_eq!((store.len(), store.len_estimate() >= 1, store.is_empty()), (1, true, false));
        assert!(store.stats().misses.expired >= 3);
        store.close().unwrap();
        let store = open();
        ["1 ms", "2 ms", "15 ms"].iter().for_each(|key| assert_gone(&store, key));
        assert_eq!((store.len(), store.get("stays").unwrap().as_deref()), (1, Some(&b"1"[..])));
    }
}

#[test]
fn an_expired_entry_can_be_written_exchanged_and_inserted_again() {
    let dir = support::dir();
    let store = Store::open(dir.path()).unwrap();
    let live = Duration::from_millis(1);
    for round in 0..3_u8 {
        let written = Instant::now();
        store.insert_with("key", "old", &ttl(live)).unwrap();
        wait_until_gone(&store, "key", written, live);
        match round {
            0 => store.insert("key", "new").unwrap(),
            1 => drop(store.compare_exchange("key", None, Some("new")).unwrap().expect("nothing is there")),
            _ => store.insert_many([("key", "new")]).unwrap(),
        }
        assert_eq!(store.get("key").unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(store.metadata("key").unwrap().unwrap().ttl_left, None);
    }
}

#[test]
fn overwriting_changes_the_time_to_live() {
    let dir = support::dir();
    let store = Store::open(dir.path()).unwrap();
    let (short, hour) = (Duration::from_millis(30), Duration::from_secs(3_600));
    store.insert_with("longer", "1", &ttl(short)).unwrap();
    store.insert_with("longer", "2", &ttl(hour)).unwrap();
    store.insert_with("for ever", "1", &ttl(short)).unwrap();
    store.insert("for ever", "2").unwrap();
    store.insert("shorter", "1").unwrap();
    let written = Instant::now();
    store.insert_with("shorter", "2", &ttl(short)).unwrap();
    wait_until_gone(&store, "shorter", written, short);
    assert_eq!(store.get("longer").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(store.get("for ever").unwrap().as_deref(), Some(&b"2"[..]));
    let left = store.metadata("longer").unwrap().unwrap().ttl_left.unwrap();
    assert!(left <= hour && left > hour - Duration::from_secs(60), "{left:?}");
    store.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_gone(&store, "shorter");
    let again = store.metadata("longer").unwrap().unwrap().ttl_left.unwrap();
    assert!(again <= left, "time has gone on: {again:?} of {left:?}");
}

#[test]
fn a_time_to_live_of_zero_is_refused_and_changes_nothing() {
    let dir = support::dir();
    let store = Store::open(dir.path()).unwrap();
    store.insert("key", "old").unwrap();
    let error = store.insert_with("key", "new", &ttl(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, Error::Option { option: "ttl", .. }), "{error}");
    assert_eq!(store.get("key").unwrap().as_deref(), Some(&b"old"[..]));
    store.close().unwrap();
    let error = Store::builder().time_to_live(Duration::ZERO).open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Option { option: "time_to_live", .. }), "{error}");
}

#[test]
fn the_longest_time_to_live_is_never_and_the_shortest_is_not_zero() {
    let dir = support::dir();
    let store = Store::open(dir.path()).unwrap();
    let century = Duration::from_secs(100 * 365 * 86_400);
    for (key, live, expected) in [("max", Duration::MAX, None), ("year 12000", 100 * century, None)] {
        store.insert_with(key, "1", &ttl(live)).unwrap();
        assert_eq!(store.metadata(key).unwrap().unwrap().ttl_left, expected);
    }
    store.insert_with("century", "1", &ttl(century)).unwrap();
    assert!(store.metadata("century").unwrap().unwrap().ttl_left.unwrap() > century / 2);
    let written = Instant::now();
    store.insert_with("nanosecond", "1", &ttl(Duration::from_nanos(1))).unwrap();
    wait_until_gone(&store, "nanosecond", written, Duration::from_nanos(1));
}

#[test]
fn the_stores_time_to_live_counts_for_writes_that_say_nothing() {
    let dir = support::dir();
    let live = Duration::from_millis(40);
    let store = Store::builder().time_to_live(live).open(dir.path()).unwrap();
    let hour = Duration::from_secs(3_600);
    store.insert_with("own", "1", &ttl(hour)).unwrap();
    store.insert_with("never", "1", &ttl(Duration::MAX)).unwrap();
    let written = Instant::now();
    store.insert("default", "1").unwrap();
    store.insert_many([("batch", "1")]).unwrap();
    store.compare_exchange("exchanged", None, Some("1")).unwrap().unwrap();
    for key in ["default", "batch", "exchanged"] {
        wait_until_gone(&store, key, written, live);
    }
    drop(store);
    // Deadlines are the records', not the next opener's.
    let store = Store::builder().time_to_live(hour).open(dir.path()).unwrap();
    ["default", "batch", "exchanged"].iter().for_each(|key| assert_gone(&store, key));
    assert!(store.contains_key("own").unwrap() && store.contains_key("never").unwrap());
    assert_eq!(store.metadata("never").unwrap().unwrap().ttl_left, None);
}

#[test]
fn what_has_expired_gives_its_space_back_by_itself_and_in_the_next_process() {
    for reopens in [false, true] {
        let dir = support::dir();
        let open = || Store::builder().segment_bytes(64 << 10).open(dir.path()).unwrap();
        let store = open();
        store.insert("stays", "1").unwrap();
        let start = Instant::now();
        for number in 0..2_000 {
            store.insert_with(format!("{number}"), [7; 1_000], &ttl(Duration::from_millis(300))).unwrap();
        }
        let store = if reopens {
            store.close().unwrap();
            open()
        } else {
            store
        };
        // The first segment has something that stays, the last one is written to, and one is ready behind it.
        while store.stats().log.bytes > 4 * (64 << 10) {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", store.stats().log);
            std::thread::yield_now();
        }
        assert_eq!((store.len(), store.get("stays").unwrap().as_deref()), (1, Some(&b"1"[..])));
        assert!(store.stats().log.expired > 1_500 || reopens, "{:?}", store.stats().log);
    }
}
