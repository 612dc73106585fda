//! Compression by the front door: what is cold is small, what is asked for is whole, and hostile records take no memory.

mod support;

use std::fs;

use support::format::Identity;
use thermocline::{Compression, Error, Store};

fn key(number: u32) -> String {
    format!("user:{number}")
}

fn value(number: u32) -> String {
    let hash = number.wrapping_mul(0x9e37_79b1);
    format!(
        "{{\"id\":{number},\"city\":\"{}\",\"balance\":{},\"visits\":{},\"active\":true,\"tags\":[\"new\",\"press\"]}}",
        ["Oslo", "Rome", "Paris", "Vienna"][hash as usize >> 30],
        hash >> 12,
        hash % 1_000
    )
}

/// Bytes of memory that the process has had at most.
fn memory_bytes_max() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn what_compaction_moves_is_compressed_and_what_is_read_is_not() {
    for memory_capacity in [0, 1 << 20] {
        let dir = support::dir();
        let builder = || Store::builder().memory_capacity(memory_capacity).segment_bytes(1 << 20);
        let store = builder().open(dir.path()).unwrap();
        (0..20_000).for_each(|number| store.insert(key(number), value(number)).unwrap());
        let before = store.stats().log;
        assert_eq!(before.compression_ratio, 1.0);
        store.compact().unwrap();
        let after = store.stats().log;
        assert!(after.compression_ratio < 0.35 && !after.compression_time.is_zero(), "{after:?}");
        assert!(after.live_bytes < before.live_bytes * 6 / 10, "{after:?}, {before:?}");
        for number in (0..20_000).rev() {
            assert_eq!(store.get(key(number)).unwrap().unwrap(), value(number));
        }
        // Into itself: what is shown stays while another value is decoded.
        let shown = store.read(key(1), |outer| {
            let inner = store.read(key(2), <[u8]>::to_vec).unwrap().unwrap();
            assert_eq!((outer, &inner[..]), (value(1).as_bytes(), value(2).as_bytes()));
            store.read(key(3), |inner| assert_eq!((outer, inner), (value(1).as_bytes(), value(3).as_bytes()))).unwrap();
        });
        shown.unwrap().unwrap();
        if memory_capacity > 0 {
            let resident = |number| store.get_resident(key(number)).map(|value| (number, value));
            let promoted: Vec<_> = (0..20_000).filter_map(resident).collect();
            assert!(promoted.len() > 1_000, "{} were promoted", promoted.len());
            assert!(promoted.iter().all(|(number, shown)| *shown == value(*number)), "decoded");
        }
        assert_eq!(store.verify().unwrap().damaged, []);
        let copy = support::dir();
        store.backup(copy.path()).unwrap();
        store.close().unwrap();
        for dir in [&dir, &copy] {
            let store = builder().compression(Compression::none()).read_only().open(dir.path()).unwrap();
            let found: u32 = store.iter().map(|entry| entry.unwrap()).fold(0, |count, (key, found)| {
                let number = std::str::from_utf8(&key).unwrap().trim_start_matches("user:").parse().unwrap();
                assert_eq!(found, value(number));
                count + 1
            });
            assert_eq!(found, 20_000);
        }
    }
}

#[test]
fn many_threads_read_packed_values_while_they_move() {
    let dir = support::dir();
    let store = Store::builder().memory_capacity(64 << 10).segment_bytes(256 << 10).open(dir.path()).unwrap();
    (0..5_000).for_each(|number| store.insert(key(number), value(number)).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for step in 0..60_000_u32 {
                    let number = step.wrapping_mul(2_654_435_761).wrapping_add(thread * 7) % 5_000;
                    match step % 50 {
                        0 => store.insert(key(number), value(number)).unwrap(),
                        _ => assert_eq!(store.get(key(number)).unwrap().unwrap(), value(number)),
                    }
                }
            });
        }
        scope.spawn(|| (0..15).for_each(|_| _ = store.compact().unwrap()));
    });
    assert_eq!(store.len(), 5_000);
    assert_eq!(store.verify().unwrap().damaged, []);
}

#[test]
fn a_record_that_claims_a_gibibyte_is_damaged_and_takes_no_memory() {
    let identity = Identity { version: 1, id: *b"hostile store id", secret: *b"a secret of 16 b" };
    let frame = |stated: u32, blocks: &[u8]| [&[0, 0, 0xa0][..], &stated.to_le_bytes(), blocks].concat();
    let zeros = 0x0010_0002_u32.to_le_bytes(); // a block of 128 KiB of zeros, in four bytes, and not the last
    let stated = (1 << 30) - (64 << 10);
    let claims = [
        ("short", frame(stated, &[0x53, 0, 0, 0])),
        ("long", frame(stated, &[1; 40_000])),
        ("a lie", frame(stated, &[[0x53, 0, 0, 0]; 10_000].concat())),
        ("too much", frame(u32::MAX, &zeros.repeat(40_000))),
        ("too little", frame(1_000, &zeros)),
        ("another dictionary", [&[7, 1][..], &frame(10, &[0x53, 0, 0, 0])[2..]].concat()),
        ("nothing", vec![]),
        ("a number", vec![0, 0]),
        ("a flag", [&[0, 0, 0xa4][..], &10_u32.to_le_bytes(), &[0x53, 0, 0, 0]].concat()),
    ];
    let dir = support::dir();
    let mut segment = identity.segment_header(1, 1 << 20, 128);
    for (sequence, (key, stored)) in (1 << 60..).zip(&claims) {
        segment.extend(identity.packed_record(sequence, key.as_bytes(), stored));
    }
    segment.extend(identity.packed_record((1 << 60) + 100, b"whole", &frame(10, &[0x53, 0, 0, b'w'])));
    fs::write(dir.path().join("store"), identity.file()).unwrap();
    fs::write(dir.path().join("0000000000000001.segment"), &segment).unwrap();
    for mapped in [true, false] {
        let store = Store::builder().memory_capacity(1 << 20).mapped(mapped).open(dir.path()).unwrap();
        let before = memory_bytes_max();
        for (key, _) in &claims {
            for error in [store.get(key).unwrap_err(), store.read(key, |_| ()).unwrap_err()] {
                let is_told = matches!(&error, Error::Corrupt { file, offset, .. } if file.ends_with("1.segment") && *offset >= 128);
                assert!(is_told, "{key}: {error}");
            }
        }
        assert_eq!(store.get("whole").unwrap().unwrap(), [b'w'; 10]);
        assert_eq!(store.verify().unwrap().damaged.len(), claims.len());
        assert_eq!(store.iter().filter(|entry| entry.is_err()).count(), claims.len());
        let taken = memory_bytes_max() - before;
        assert!(taken < 40 << 20, "{taken} bytes of memory for {} bytes of files", segment.len());
        store.close().unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    claims.iter().for_each(|(key, _)| store.insert(key, "healed").unwrap());
    store.compact().unwrap();
    assert_eq!(store.verify().unwrap().damaged, []);
    claims.iter().for_each(|(key, _)| assert_eq!(store.get(key).unwrap().unwrap(), "healed"));
}
