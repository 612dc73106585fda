//! Damaged and hostile stores by the front door, on real files: no panic, no hang, nothing wrong served.
//!
//! Every byte of a small store is done in `engine/tests/corruption.rs`, in memory; here is a sample of it, and what
//! needs real files or somebody who means harm.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use support::{
    Random,
    format::{Identity, hole},
    proven, scale, value,
};
use thermocline::{Error, Store};

type Files = BTreeMap<String, Vec<u8>>;

/// Runs `test`, which is to end: it has a minute.
fn within_a_minute<R: Send>(what: &str, test: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let (done, waiting) = mpsc::channel();
        scope.spawn(move || done.send(catch_unwind(AssertUnwindSafe(test))));
        match waiting.recv_timeout(Duration::from_secs(60)) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => panic!("{what}: a panic"),
            // The thread cannot be ended, and the scope would wait for it.
            Err(_) => {
                eprintln!("{what}: no end after a minute");
                std::process::abort()
            }
        }
    })
}

fn read_all(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn write_all(dir: &Path, files: &Files) {
    files.iter().for_each(|(name, bytes)| fs::write(dir.join(name), bytes).unwrap());
}

fn small(mapped: bool) -> thermocline::Builder {
    Store::builder().segment_bytes(64 << 10).mapped(mapped)
}

const KEYS: u64 = 60;

fn key(number: u64) -> String {
    format!("key {number}")
}

/// Some keys written once, one in a segment of its own.
fn sound() -> Files {
    let dir = support::dir();
    let store = small(true).open(dir.path()).unwrap();
    for number in 0..KEYS {
        store.insert(key(number), value(&key(number), number)).unwrap();
    }
    store.insert("large", [7; 40_000]).unwrap();
    store.close().unwrap();
    read_all(dir.path())
}

#[test]
fn a_store_with_flips_and_cuts_never_serves_what_was_not_written() {
    let files = sound();
    let segments: Vec<_> = files.keys().filter(|name| name.ends_with(".segment")).collect();
    let mut failures = Vec::new();
    for seed in 0..300 * scale() {
        let mut random = Random(seed);
        let mut harmed = files.clone();
        for _ in 0..1 + random.below(4) {
            let bytes = harmed.get_mut(segments[random.below(segments.len() as u64) as usize]).unwrap();
            let at = random.below(bytes.len().max(1) as u64) as usize;
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => bytes
                    .iter_mut()
                    .skip(at)
                    .take(1 << random.below(12))
                    .for_each(|byte| *byte = random.below(256) as u8),
                2 => bytes.iter_mut().skip(at / 512 * 512).take(512).for_each(|byte| *byte = 0),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            }
        }
        let dir = support::dir();
        write_all(dir.path(), &harmed);
        let serves = || serves_nothing_wrong(dir.path(), seed % 2 == 0, harmed == files);
        if catch_unwind(AssertUnwindSafe(|| within_a_minute("a damaged store", serves))).is_err() {
            failures.push(seed);
        }
    }
    assert!(failures.is_empty(), "seeds {failures:?} fail");
}

fn serves_nothing_wrong(dir: &Path, mapped: bool, is_whole: bool) {
    let store = small(mapped).open(dir).unwrap();
    let mut wounded = Vec::new();
    for number in 0..KEYS {
        match store.get(key(number)) {
            Ok(Some(found)) => assert_eq!(proven(&key(number), &found), number),
            Ok(None) => wounded.push(number),
            Err(Error::Corrupt { file, .. }) => {
                assert!(file.contains(".segment"), "{file}");
                wounded.push(number);
            }
            Err(error) => panic!("{error}"),
        }
    }
    if let Ok(Some(found)) = store.get("large") {
        assert_eq!(found, [7; 40_000]);
    }
    for (key, found) in store.iter().filter_map(Result::ok).filter(|(key, _)| key != b"large") {
        proven(std::str::from_utf8(&key).unwrap(), &found);
    }
    let damaged = store.verify().unwrap().damaged;
    assert!(!is_whole || wounded.is_empty() && damaged.is_empty(), "{wounded:?} {damaged:?}");
    assert!(wounded.is_empty() || !damaged.is_empty(), "keys {wounded:?} are gone, and verify says nothing");
    wounded.iter().for_each(|number| store.insert(key(*number), value(&key(*number), 1_000)).unwrap());
    store.close().unwrap();
    let store = small(!mapped).open(dir).unwrap();
    for number in wounded {
        let found = store.get(key(number)).unwrap().expect("a write healed it");
        assert_eq!(proven(&key(number), &found), 1_000);
    }
}

/// Opens a hostile directory and does a little of everything; errors are fine.
fn visit(dir: &Path) -> Result<(), Error> {
    for (mapped, read_only) in [(true, true), (false, true), (true, false), (false, false)] {
        let builder = small(mapped);
        let store = if read_only { builder.read_only() } else { builder }.open(dir)?;
        let _ = store.get("key");
        let _ = store.iter().count();
        let _ = (store.len(), store.stats());
        let _ = store.verify();
        if !read_only {
            store.insert("key", "value")?;
            assert_eq!(store.get("key")?.as_deref(), Some(&b"value"[..]));
            assert!(store.remove("key")?);
            store.close()?;
        }
    }
    Ok(())
}

#[test]
fn random_bytes_in_place_of_any_file_cause_an_error_at_worst() {
    let files = sound();
    for seed in 0..60 * scale() {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut noise = |bytes: u64| (0..bytes).map(|_| random.below(256) as u8).collect::<Vec<_>>();
        for name in ["store", "lock", "0000000000000001.segment", "00000000000000ff.segment", "store.new"] {
            let bytes = [0, 1, 63, 64, 127, 128, 129, 1_000, 70_000][seed as usize % 9];
            let dir = support::dir();
            write_all(dir.path(), &files);
            fs::write(dir.path().join(name), noise(bytes)).unwrap();
            let result = within_a_minute(name, || visit(dir.path()));
            match result {
                Ok(()) => assert_ne!(name, "store", "noise was taken for an identity"),
                Err(error) => assert!(name == "store" && error.to_string().contains("/store"), "{name}: {error}"),
            }
        }
    }
}

/// Lengths, numbers and sequences as large as they can be, with right checksums: by somebody who knows the secret.
#[test]
fn forged_headers_and_records_cause_an_error_at_worst() {
    let identity = Identity { version: 1, id: [1; 16], secret: [2; 16] };
    let record = |sequence, deadline_ms, key: &[u8]| identity.record(1, sequence, deadline_ms, key, b"value");
    let mut long = record(1, 0, b"key");
    long[8..14].fill(0xff);
    let name = |number: u64| format!("{number:016x}.segment");
    let cases = [
        ("capacity", name(1), identity.segment_header(1, u64::MAX, 128)),
        ("capacity of 8 TiB", name(1), identity.segment_header(1, 8 << 40, 128)),
        ("capacity of 1 GiB", name(1), identity.segment_header(1, 1 << 30, 128)),
        ("capacity of 0", name(1), identity.segment_header(1, 0, 0)),
        ("odd capacity", name(1), identity.segment_header(1, 64 << 10 | 5, 128)),
        ("flushed", name(1), identity.segment_header(1, 64 << 10, u64::MAX)),
        ("number", name(u64::MAX), identity.segment_header(u64::MAX, 64 << 10, 128)),
        ("length", name(1), [identity.segment_header(1, 64 << 10, 128), long.clone()].concat()),
        ("length of a hole", name(1), [identity.segment_header(1, 64 << 10, 128), hole(long.clone())].concat()),
        ("flushed length", name(1), [identity.segment_header(1, 64 << 10, 4_000), long].concat()),
        ("sequence", name(1), [identity.segment_header(1, 64 << 10, 128), record(u64::MAX, 0, b"key")].concat()),
        ("time", name(1), [identity.segment_header(1, 64 << 10, 128), record(u64::MAX << 23, 0, b"key")].concat()),
        ("deadline", name(1), [identity.segment_header(1, 64 << 10, 128), record(1, (1 << 48) - 1, b"key")].concat()),
    ];
    let mut failures = Vec::new();
    for (what, name, segment) in cases {
        let dir = support::dir();
        fs::write(dir.path().join("store"), identity.file()).unwrap();
        fs::write(dir.path().join(&name), &segment).unwrap();
        let ended = catch_unwind(|| within_a_minute(what, || visit(dir.path())));
        match ended {
            Err(_) => failures.push(format!("{what}: a panic")),
            Ok(Err(error)) if !error.to_string().contains(dir.path().to_str().unwrap()) => {
                failures.push(format!("{what}: {error}"));
            }
            Ok(_) => {}
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn links_and_pipes_in_place_of_files_are_refused_by_name_and_not_followed() {
    let files = sound();
    for name in ["lock", "store", "0000000000000001.segment"] {
        for kind in ["link", "dangling link", "pipe"] {
            let (outer, dir) = (support::dir(), support::dir());
            let victim = outer.path().join("victim");
            write_all(dir.path(), &files);
            let path = dir.path().join(name);
            fs::remove_file(&path).unwrap();
            match kind {
                "pipe" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                _ => symlink(&victim, &path).unwrap(),
            }
            if kind == "link" {
                fs::write(&victim, &files[name]).unwrap();
            }
            let error = within_a_minute(name, || small(true).open(dir.path()).map(drop)).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{kind} as {name}: {error}");
            match kind {
                "link" => assert_eq!(fs::read(&victim).unwrap(), files[name], "what the link names was written"),
                _ => assert!(!victim.exists(), "a link was followed"),
            }
        }
    }
}

#[test]
fn a_file_that_is_replaced_under_a_live_store_changes_nothing_in_hand() {
    let dir = support::dir();
    let store = small(true).open(dir.path()).unwrap();
    store.insert("key", value("key", 1)).unwrap();
    let held = store.get("key").unwrap().unwrap();
    for name in ["store", "lock", "0000000000000001.segment"] {
        fs::remove_file(dir.path().join(name)).unwrap();
        symlink("/nowhere", dir.path().join(name)).unwrap();
    }
    store.insert("other", value("other", 2)).unwrap();
    assert_eq!(proven("key", &held), 1);
    assert_eq!(proven("key", &store.get("key").unwrap().unwrap()), 1);
    assert_eq!(proven("other", &store.get("other").unwrap().unwrap()), 2);
    fs::remove_dir_all(dir.path()).unwrap();
    store.insert("more", value("more", 3)).unwrap();
    assert_eq!(proven("more", &store.get("more").unwrap().unwrap()), 3);
    // What closing says is open, that it ends is not.
    let _ = store.close();
    assert_eq!(proven("key", &held), 1);
}
