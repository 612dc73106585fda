//! Load, expiry, compaction and reopening, again and again: memory, descriptors and disk stay flat. `THERMOCLINE_SCALE=100` goes on for
//! a hundred times as long. One test, so that nothing else runs here.
#![cfg(target_os = "linux")]

use std::{env, fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use thermocline::{Attributes, Store};

const MIB: u64 = 1 << 20;
const SEGMENT_BYTES: u64 = MIB;
const ROUNDS: u64 = 10;
const STEPS: u64 = 50_000;
const KEYS: u64 = 20_000;
/// Of memory, whatever the allocator keeps for a while: 20 to 42 MiB were seen.
const BYTES_MAX: u64 = 64 * MIB;

/// Bytes of this process's own memory, and how many files it has open.
fn own() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    let bytes = line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024;
    (bytes, fs::read_dir("/proc/self/fd").unwrap().count() as u64)
}

/// What the files take of the disk.
fn disk_bytes(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn memory_descriptors_and_disk_stay_flat() {
    let scale = env::var("THERMOCLINE_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1);
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut first = None;
    for round in 0..ROUNDS * scale {
        let store = Store::builder().segment_bytes(SEGMENT_BYTES).memory_capacity(2 * MIB).open(dir.path()).unwrap();
        for step in 0..STEPS {
            let key = random.u64(..KEYS).to_le_bytes();
            match step % 10 {
                0 | 1 => {
                    let short = Attributes::new().ttl(Duration::from_millis(1 + step % 3));
                    store.insert_with(format!("short {}", step % 1_000), [1; 300], &short).unwrap();
                }
                2 => _ = store.remove(key).unwrap(),
                3 | 4 => _ = store.get(key).unwrap(),
                _ => store.insert(key, random.u64(..).to_le_bytes().repeat(12)).unwrap(),
            }
        }
        store.compact().unwrap();
        let (live_bytes, disk) = (store.stats().log.live_bytes, disk_bytes(dir.path()));
        assert!(disk <= 4 * live_bytes + 2 * SEGMENT_BYTES, "round {round}: {disk} bytes for {live_bytes} alive");
        let (bytes, files) = own();
        assert!(bytes <= BYTES_MAX, "round {round}: {bytes} bytes of memory");
        let files_first = *first.get_or_insert(files);
        assert!(files <= files_first + 8, "round {round}: {files} files, once {files_first}");
        assert!(store.health().is_well(), "{:?}", store.health());
        // Every other process ends without a word.
        if round % 2 == 0 { store.close().unwrap() } else { drop(store) }
    }
}
