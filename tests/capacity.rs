//! A ceiling on the disk by the front door, on real files.

use thermocline::{Error, Store};

fn bytes_on_disk(dir: &tempfile::TempDir) -> u64 {
    std::fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap())
        .filter(|file| file.file_name().to_string_lossy().contains(".segment"))
        // It may be gone since it was listed.
        .map(|file| file.metadata().map_or(0, |metadata| metadata.len()))
        .sum()
}

#[test]
fn a_store_with_a_ceiling_takes_writes_for_ever_and_no_more_space() {
    const CAPACITY: u64 = 4 << 20;
    for mapped in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::builder().disk_capacity(CAPACITY).memory_capacity(1 << 20).mapped(mapped).open(dir.path());
        let store = open().unwrap();
        let count = 60_000_u32;
        for number in 0..count {
            store.insert(number.to_le_bytes(), [number as u8; 300]).unwrap();
            if number % 1_000 == 0 {
                assert!(bytes_on_disk(&dir) <= CAPACITY);
            }
        }
        let stats = store.stats();
        assert!(stats.log.bytes <= CAPACITY, "{stats:?}");
        assert_eq!(store.len() + stats.evictions.disk_capacity, u64::from(count), "{stats:?}");
        assert!(store.len() * 336 > CAPACITY / 2, "{} of {count} are left", store.len());
        // The oldest went, and stay away.
        assert_eq!(store.get(0_u32.to_le_bytes()).unwrap(), None);
        let len = store.len();
        store.close().unwrap();
        let store = open().unwrap();
        assert_eq!(store.len(), len);
        assert_eq!(store.get((count - 1).to_le_bytes()).unwrap().unwrap(), [(count - 1) as u8; 300]);
        assert!(store.health().is_well(), "{:?}", store.health());
    }
}

#[test]
fn options_that_cannot_be_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let told = |error: Error| error.to_string();
    let small = Store::builder().disk_capacity(200_000).open(dir.path()).unwrap_err();
    assert_eq!(told(small), "option disk_capacity is 200000, expected at least 262144, 4 segments of 65536");
    let few = Store::builder().disk_capacity(100 << 20).segment_bytes(64 << 20).open(dir.path()).unwrap_err();
    assert_eq!(told(few), "option disk_capacity is 104857600, expected at least 268435456, 4 segments of 67108864");
    let nowhere = Store::builder().disk_capacity(1 << 30).in_memory().unwrap_err();
    assert_eq!(told(nowhere), "option disk_capacity is a store in memory, expected a store in a directory");
}
