//! A store with more segments than the process may have open files. Alone in its process, whose limit it lowers.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thermocline::Store;

const FILES_MAX: u64 = 64;

#[test]
fn a_store_may_have_more_segments_than_a_process_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let limit = Rlimit { current: Some(FILES_MAX), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let open = || Store::builder().segment_bytes(64 << 10).open(dir.path()).unwrap();
    let value = |number: u32| vec![number as u8; 20_000];
    let store = open();
    // Three records a segment.
    let count = 3 * 3 * FILES_MAX as u32;
    (0..count).for_each(|number| store.insert(number.to_le_bytes(), value(number)).unwrap());
    assert!(store.stats().log.segments > 2 * FILES_MAX && store.stats().log.mapped);
    store.sync().unwrap();
    drop(store);
    let store = open();
    for number in 0..count {
        assert_eq!(store.get(number.to_le_bytes()).unwrap().unwrap(), value(number)[..]);
    }
    assert_eq!(store.verify().unwrap().records, u64::from(count));
    store.backup(dir.path().join("copy")).unwrap();
    store.insert("one", "more").unwrap();
    store.close().unwrap();
    let copy = Store::open(dir.path().join("copy")).unwrap();
    assert_eq!(copy.len(), u64::from(count));
}
