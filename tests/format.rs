//! The bytes on disk, by a reader that was made from `DESIGN.md` alone, and by a store whose bytes never change.
//!
//! When the format changes, `THERMOCLINE_BLESS=1 cargo test --test format` writes the golden files again; that comes
//! with a new version, `DESIGN.md` and a line in `CHANGELOG.md`.

mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use support::format::{Identity, Record, hole, provisional, unpacked};
use thermocline::{Attributes, Compression, Store};

const DEADLINE_MS: u64 = 7_258_118_400_000; // 2200

/// The newest record of each key, by the rule of the highest sequence.
fn newest(segments: impl IntoIterator<Item = Vec<Record>>) -> BTreeMap<Vec<u8>, Record> {
    let mut newest = BTreeMap::<_, Record>::new();
    for record in segments.into_iter().flatten() {
        let best = newest.entry(record.key.clone()).or_insert_with(|| record.clone());
        if best.sequence < record.sequence {
            *best = record;
        }
    }
    newest.retain(|_, record| record.kind == 1);
    newest
}

fn segments_in(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == "segment")).collect();
    segments.sort();
    segments
}

fn what_the_library_writes_is_what_the_design_says(mapped: bool) {
    let dir = support::dir();
    let start_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let store = Store::builder().segment_bytes(64 << 10).mapped(mapped).open(dir.path()).unwrap();
    let mut expected = BTreeMap::new();
    for number in 0..200_u8 {
        let (key, value) = (vec![number; number as usize % 23], vec![number; number as usize * 7]);
        store.insert(&key, &value).unwrap();
        expected.insert(key, value);
    }
    for (key, value) in [(&b"large"[..], vec![7; 100_000]), (&[9; 65_535], b"long key".to_vec())] {
        store.insert(key, &value).unwrap();
        expected.insert(key.to_vec(), value);
    }
    store.insert_many([("batch 1", "1"), ("batch 2", ""), ("gone", "x")]).unwrap();
    expected.extend([(b"batch 1".to_vec(), b"1".to_vec()), (b"batch 2".to_vec(), vec![])]);
    store.insert_with("hour", "h", &Attributes::new().ttl(Duration::from_secs(3_600))).unwrap();
    expected.insert(b"hour".to_vec(), b"h".to_vec());
    store.compare_exchange("exchanged", None, Some("e")).unwrap().unwrap();
    expected.insert(b"exchanged".to_vec(), b"e".to_vec());
    assert!(store.remove("gone").unwrap());
    store.close().unwrap();

    let identity = Identity::read(&fs::read(dir.path().join("store")).unwrap());
    assert_eq!(identity.version, 1);
    assert_eq!(fs::read(dir.path().join("store")).unwrap(), identity.file());
    let paths = segments_in(dir.path());
    let mut all = Vec::new();
    for path in &paths {
        let bytes = fs::read(path).unwrap();
        let segment = identity.segment(&bytes);
        assert_eq!(path.file_name().unwrap(), &*format!("{:016x}.segment", segment.number));
        assert!(bytes.len() as u64 <= segment.capacity, "{path:?}");
        let covers = segment.flushed >= segment.end as u64;
        assert!(covers, "{path:?}: flushed {}, the last record ends at {}", segment.flushed, segment.end);
        all.push(segment.records);
    }
    assert!(paths.len() >= 4, "a segment that filled up, one of its own, the active one");
    let mut sequences: Vec<_> = all.iter().flatten().map(|record| record.sequence).collect();
    sequences.sort_unstable();
    assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]), "one sequence per write");
    let first_ms = (sequences[0] >> 22) + 1_577_836_800_000;
    assert!(first_ms.abs_diff(start_ms) < 60_000, "a sequence is a time: {first_ms}, {start_ms}");
    let newest = newest(all);
    let hour_ms = newest[&b"hour"[..]].deadline_ms;
    assert!(hour_ms.abs_diff(start_ms + 3_600_000) < 60_000, "a deadline is a time: {hour_ms}, {start_ms}");
    let found: BTreeMap<_, _> = newest.into_iter().map(|(key, record)| (key, record.value)).collect();
    assert!(found == expected, "{} keys, expected {}", found.len(), expected.len());
}

#[test]
fn what_a_mapped_store_writes_is_what_the_design_says() {
    what_the_library_writes_is_what_the_design_says(true);
}

#[test]
fn what_an_unmapped_store_writes_is_what_the_design_says() {
    what_the_library_writes_is_what_the_design_says(false);
}

#[test]
fn what_compaction_packs_is_what_the_design_says() {
    let value =
        |number: u32| format!("{{\"id\":{number},\"name\":\"user {}\",\"active\":true}}", number ^ 0x5555).into_bytes();
    for (compression, mapped) in
        [(Compression::zstd(3), true), (Compression::zstd(9), false), (Compression::none(), true)]
    {
        let dir = support::dir();
        let builder = Store::builder().segment_bytes(64 << 10).mapped(mapped).compression(compression);
        let store = builder.open(dir.path()).unwrap();
        let mut expected: BTreeMap<_, _> =
            (0..3_000).map(|number| (number.to_string().into_bytes(), value(number))).collect();
        expected.insert(b" long".to_vec(), value(1).repeat(2_000));
        expected.insert(b" zeros".to_vec(), vec![0; 3 << 20]);
        expected.insert(b"noise".to_vec(), (0..90_u8).map(|byte| byte.wrapping_mul(197) ^ byte >> 1).collect());
        // The large ones first: a segment of its own is full when the log has gone on behind it.
        expected.iter().for_each(|(key, value)| store.insert(key, value).unwrap());
        store.compact().unwrap();
        store.close().unwrap();
        let identity = Identity::read(&fs::read(dir.path().join("store")).unwrap());
        let segments: Vec<_> =
            segments_in(dir.path()).iter().map(|path| identity.segment(&fs::read(path).unwrap())).collect();
        let packs = compression != Compression::none();
        for segment in segments.iter().filter(|segment| !segment.records.is_empty()) {
            assert_eq!(segment.is_packed, packs, "segment {}", segment.number);
        }
        let records = segments.into_iter().flat_map(|segment| segment.records);
        let (dictionaries, records): (Vec<_>, Vec<_>) = records.partition(|record| record.namespace != 0);
        assert!(dictionaries.iter().all(|record| record.namespace == u32::MAX && record.value.len() <= 64 << 10));
        assert_eq!(dictionaries.len(), usize::from(packs));
        let packed = records.iter().filter(|record| record.is_packed).count();
        assert!(if packs { packed > 2_900 } else { packed == 0 }, "{packed}");
        let show = |record: Record| match record.is_packed {
            true => (record.key, unpacked(&record.value, &dictionaries)),
            false => (record.key, record.value),
        };
        let found: BTreeMap<_, _> = newest([records]).into_values().map(show).collect();
        assert!(found == expected, "{} keys, expected {}", found.len(), expected.len());
    }
}

/// A store with one of everything; its bytes are the golden files.
fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    let identity = Identity { version: 1, id: *b"golden store id!", secret: *b"a secret of 16 b" };
    let sequence = |count: u64| (200_000_000_000 << 22) + count;
    let records = [
        identity.record(1, sequence(1), 0, b"key", b"old"),
        identity.record(1, sequence(2), 0, b"", b"the empty key"),
        identity.record(1, sequence(3), 0, b"the empty value", b""),
        identity.record(1, sequence(4), DEADLINE_MS, b"expires in 2200", b"value"),
        identity.record(1, sequence(5), 1_600_000_000_000, b"expired in 2020", b"value"),
        identity.record(1, sequence(6), 0, b"gone", b"value"),
        identity.record(2, sequence(7), 0, b"gone", b""),
        identity.record(3, 0, 0, b"", &[0xee; 40]),
        provisional(identity.record(1, sequence(9), 0, b"key", b"provisional")),
        hole(identity.record(1, sequence(10), 0, b"key", b"a hole")),
        // A copy keeps its sequence: older than what stands before it.
        identity.record(1, sequence(0), 0, b"key", b"oldest"),
        identity.record(1, sequence(11), 0, b"key", b"new"),
        // Packed without a dictionary: a frame of one piece that states 40 bytes, and a block that repeats one byte.
        identity.packed_record(sequence(12), b"packed", &[0, 0, 0x20, 40, 0x43, 1, 0, b'p']),
    ];
    let records = records.concat();
    let mut segment = identity.segment_header(0x1a, 64 << 10, 128);
    segment.extend(records);
    BTreeMap::from([("store", identity.file()), ("000000000000001a.segment", segment)])
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn the_golden_store_has_the_bytes_it_always_had() {
    for (name, bytes) in golden() {
        let path = golden_dir().join(name);
        if env::var_os("THERMOCLINE_BLESS").is_some() {
            fs::create_dir_all(golden_dir()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).unwrap() == bytes, "{path:?} differs from what the format's second writer makes");
    }
}

#[test]
fn the_library_reads_the_golden_store() {
    for (mapped, read_only) in [(true, true), (false, true), (true, false), (false, false)] {
        let dir = support::dir();
        for name in golden().keys() {
            fs::copy(golden_dir().join(name), dir.path().join(name)).unwrap();
        }
        let builder = Store::builder().mapped(mapped).create(false);
        let store = if read_only { builder.clone().read_only() } else { builder.clone() }.open(dir.path()).unwrap();
        assert_golden(&store);
        if read_only {
            continue;
        }
        store.insert("more", "value").unwrap();
        store.remove("more").unwrap();
        store.close().unwrap();
        let identity = Identity::read(&fs::read(dir.path().join("store")).unwrap());
        let all = segments_in(dir.path())
            .iter()
            .map(|path| identity.segment(&fs::read(path).unwrap()).records)
            .collect::<Vec<_>>();
        assert_eq!(newest(all).len(), 6, "the second reader still reads it");
        assert_golden(&builder.open(dir.path()).unwrap());
    }
}

fn assert_golden(store: &Store) {
    let found: BTreeMap<_, _> =
        store.iter().map(|entry| entry.unwrap()).map(|(key, value)| (key, value.to_vec())).collect();
    let expected = [("key", "new"), ("", "the empty key"), ("the empty value", ""), ("expires in 2200", "value")];
    let expected = expected.map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let mut expected = BTreeMap::from(expected);
    expected.insert(b"packed".to_vec(), vec![b'p'; 40]);
    assert_eq!(found, expected);
    assert_eq!(store.metadata("packed").unwrap().unwrap().size_bytes, 40);
    assert_eq!(store.get("gone").unwrap(), None);
    assert_eq!(store.get("expired in 2020").unwrap(), None);
    let metadata = store.metadata("key").unwrap().unwrap();
    assert_eq!(metadata.sequence, (200_000_000_000 << 22) + 11);
    assert_eq!(metadata.created, SystemTime::UNIX_EPOCH + Duration::from_millis(1_577_836_800_000 + 200_000_000_000));
    let left = store.metadata("expires in 2200").unwrap().unwrap().ttl_left.unwrap();
    let now_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    assert!((DEADLINE_MS - now_ms).abs_diff(left.as_millis() as u64) < 60_000, "{left:?}");
    assert_eq!(store.verify().unwrap().damaged, []);
}
