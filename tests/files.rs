//! Files, names, modes and locks: what a store leaves on the disk, and what it refuses.

mod support;

use std::{
    env, fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use support::format::Identity;
use thermocline::{Error, Store};

const CHILD: &str = "THERMOCLINE_TEST_CHILD";

/// Starts this binary again, behind a shell that runs `prefix` first; the child writes to the store in `dir` and then
/// keeps it open until its standard input ends.
fn start(prefix: &str, dir: &Path) -> Child {
    let command = format!("{prefix} exec \"$0\" --exact child --nocapture --test-threads=1");
    let mut child = Command::new("sh")
        .args(["-c", &command, env::current_exe().unwrap().to_str().unwrap()])
        .env(CHILD, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its first words come from the test harness, "open" is ours.
    let (mut said, mut byte) = (Vec::new(), [0]);
    let out = child.stdout.as_mut().unwrap();
    while !said.ends_with(b"open\n") && out.read(&mut byte).unwrap() == 1 {
        said.extend(byte);
    }
    assert!(said.ends_with(b"open\n"), "{}", String::from_utf8_lossy(&said));
    child
}

/// Ends a child in peace.
fn end(mut child: Child) {
    drop(child.stdin.take());
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&rest));
}

/// Runs only as the child of the tests below.
#[test]
fn child() {
    let Some(dir) = env::var_os(CHILD) else { return };
    let store = Store::builder().segment_bytes(64 << 10).open(Path::new(&dir)).unwrap();
    for number in 0..200 {
        store.insert(format!("key {number}"), [7; 1_000]).unwrap();
    }
    store.insert("large", [7; 100_000]).unwrap();
    store.sync().unwrap();
    println!("\nopen");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    store.close().unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn modes_are_0600_and_0700_whatever_the_umask_and_no_file_stands_elsewhere() {
    for umask in ["000", "022", "077", "777"] {
        let outer = support::dir();
        let dir = outer.path().join("store");
        let child = start(&format!("umask {umask}; cd '{}';", outer.path().display()), &dir);
        for when in ["open", "closed"] {
            assert_eq!(names(outer.path()), ["store"]);
            assert_eq!(mode(&dir), 0o700, "umask {umask}, the directory");
            for name in names(&dir) {
                let is_other = matches!(&*name, "store" | "lock" | "reserve.new");
                assert!(is_other || name.ends_with(".segment"), "{name}");
                assert_eq!(mode(&dir.join(&name)), 0o600, "umask {umask}, {when}, {name}");
            }
            if when == "closed" {
                break;
            }
            drop(Store::builder().open(&dir).unwrap_err());
        }
        end(child);
        let store = Store::open(&dir).unwrap();
        let copy = outer.path().join("copy");
        store.backup(&copy).unwrap();
        assert_eq!(mode(&copy), 0o700);
        names(&copy).iter().for_each(|name| assert_eq!(mode(&copy.join(name)), 0o600, "the copy of {name}"));
    }
}

#[test]
fn a_second_opener_is_told_at_once_and_waits_for_nobody_afterwards() {
    let dir = support::dir();
    let refused = |read_only: bool| {
        let start = Instant::now();
        let builder = Store::builder();
        let error = if read_only { builder.read_only() } else { builder }.open(dir.path()).unwrap_err();
        assert!(matches!(&error, Error::Locked { directory } if Path::new(directory) == dir.path()), "{error}");
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
        // Half a second, and what a loaded machine adds: nobody waits for the owner to end.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    };
    let store = Store::open(dir.path()).unwrap();
    refused(false);
    refused(true);
    drop(store);
    let child = start("", dir.path());
    refused(false);
    refused(true);
    end(child);
    drop(Store::open(dir.path()).unwrap());
    let mut child = start("", dir.path());
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    assert_eq!(Store::open(dir.path()).unwrap().len(), 201);
    assert!(start.elapsed() < Duration::from_secs(20), "a killed owner blocks nobody");
}

#[test]
fn readers_share_a_store_and_change_nothing() {
    let dir = support::dir();
    let store = Store::open(dir.path()).unwrap();
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    let bytes =
        || names(dir.path()).into_iter().map(|name| fs::read(dir.path().join(name)).unwrap()).collect::<Vec<_>>();
    let before = bytes();
    let readers: Vec<_> = (0..3).map(|_| Store::builder().read_only().open(dir.path()).unwrap()).collect();
    for reader in &readers {
        assert_eq!(reader.get("key").unwrap().as_deref(), Some(&b"value"[..]));
        assert!(matches!(reader.insert("key", "other"), Err(Error::ReadOnly { .. })));
        assert!(matches!(reader.remove("key"), Err(Error::ReadOnly { .. })));
        assert!(matches!(reader.compare_exchange("new", None, Some("x")), Err(Error::ReadOnly { .. })));
        reader.sync().unwrap();
        assert_eq!(reader.get("key").unwrap().as_deref(), Some(&b"value"[..]));
    }
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked { .. })), "no writer while there are readers");
    readers.into_iter().for_each(|reader| reader.close().unwrap());
    assert!(bytes() == before, "reading changed a file");
    drop(Store::open(dir.path()).unwrap());
}

#[test]
fn no_store_is_made_where_none_was_asked_for() {
    let dir = support::dir();
    let missing = dir.path().join("missing");
    for builder in [Store::builder().create(false), Store::builder().read_only()] {
        for path in [dir.path(), &missing] {
            let error = builder.clone().open(path).unwrap_err();
            assert!(matches!(error, Error::NoStore { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
    assert_eq!(names(dir.path()), [""; 0], "looking leaves nothing behind");
}

#[test]
fn a_link_to_the_directory_works_and_is_the_same_store() {
    let dir = support::dir();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    symlink(&real, &link).unwrap();
    let error = Store::open(&link).unwrap_err();
    assert!(error.to_string().contains(link.to_str().unwrap()), "a link to nothing: {error}");
    fs::create_dir(&real).unwrap();
    let store = Store::open(&link).unwrap();
    store.insert("key", "value").unwrap();
    assert!(matches!(Store::open(&real), Err(Error::Locked { .. })));
    // The directory that was opened stays the store's, wherever the link points.
    fs::remove_file(&link).unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), &link).unwrap();
    store.insert("large", vec![7; 70 << 20]).unwrap();
    store.close().unwrap();
    assert_eq!(names(&dir.path().join("elsewhere")), [""; 0]);
    assert_eq!(Store::open(&real).unwrap().get("large").unwrap().map(|value| value.len()), Some(70 << 20));
}

#[test]
fn what_cannot_be_made_or_written_is_named() {
    let dir = support::dir();
    let file = dir.path().join("a file");
    fs::write(&file, "no directory").unwrap();
    for path in [file.clone(), file.join("below"), "/proc/thermocline/store".into()] {
        let error = Store::open(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{path:?}: {error}");
    }
    for name in ["lock", "store", "0000000000000001.segment", "store.new"] {
        let home = dir.path().join(format!("home of {name}"));
        let store = Store::open(&home).unwrap();
        store.insert("key", "value").unwrap();
        store.close().unwrap();
        let path = home.join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        match Store::open(&home) {
            Err(error) => assert!(error.to_string().contains(path.to_str().unwrap()), "{name}: {error}"),
            Ok(_) => panic!("a directory was taken for {name}"),
        }
    }
    let home = dir.path().join("read only");
    drop(Store::open(&home).unwrap());
    fs::set_permissions(&home, fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(home.join("store"), fs::Permissions::from_mode(0o400)).unwrap();
    // The superuser may write what nobody may.
    if fs::metadata(&home).unwrap().uid() != 0 {
        let error = Store::open(&home).unwrap_err();
        assert!(error.to_string().contains(home.to_str().unwrap()), "{error}");
    }
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn names_of_others_are_left_alone_and_unfinished_files_of_ours_are_not() {
    let dir = support::dir();
    let store = Store::open(dir.path()).unwrap();
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    let others = ["notes.txt", "1.segment", "000000000000000G.segment", "0000000000000002.segment.bak", "store.bak"];
    others.iter().for_each(|name| fs::write(dir.path().join(name), name).unwrap());
    fs::write(dir.path().join("store.new"), "unfinished").unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!((store.len(), store.verify().unwrap().damaged), (1, vec![]));
    store.close().unwrap();
    for name in others {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), name.as_bytes());
    }
    assert!(!dir.path().join("store.new").exists());
}

#[test]
fn a_newer_format_is_refused_naming_both_versions() {
    for what in ["store", "segment"] {
        let dir = support::dir();
        let store = Store::open(dir.path()).unwrap();
        store.insert("key", "value").unwrap();
        store.close().unwrap();
        let path = dir.path().join("store");
        let next = Identity { version: 2, ..Identity::read(&fs::read(&path).unwrap()) };
        let path = if what == "store" { path } else { dir.path().join("0000000000000001.segment") };
        let new = if what == "store" { next.file() } else { next.segment_header(1, 64 << 20, 128) };
        fs::write(&path, &new).unwrap();
        for builder in [Store::builder(), Store::builder().read_only()] {
            let error = builder.open(dir.path()).unwrap_err();
            assert!(matches!(error, Error::Version { found: 2, supported: 1, .. }), "{error}");
            let text = error.to_string();
            assert!([path.to_str().unwrap(), "version 2", "to 1"].iter().all(|part| text.contains(part)), "{text}");
        }
        assert!(fs::read(&path).unwrap() == new, "what is not understood is not touched");
    }
}

#[test]
fn a_file_that_is_no_store_is_named_and_not_touched() {
    for content in [&b""[..], b"short", &[b'x'; 64], &[0; 64], &[0xff; 5_000]] {
        let dir = support::dir();
        let path = dir.path().join("store");
        fs::write(&path, content).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    // Segments without the file that says whose they are.
    let dir = support::dir();
    let store = Store::open(dir.path()).unwrap();
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    fs::remove_file(dir.path().join("store")).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains(dir.path().join("store").to_str().unwrap()), "{error}");
    assert!(!dir.path().join("store").exists(), "no new identity hides the old segments");
}

#[test]
fn a_record_costs_at_most_40_bytes_on_disk() {
    for mapped in [true, false] {
        let dir = support::dir();
        let open = || Store::builder().segment_bytes(1 << 20).mapped(mapped).open(dir.path()).unwrap();
        let store = open();
        let count = 20_000;
        for number in 0..count {
            store.insert(format!("{number:016}"), [7; 100]).unwrap();
        }
        assert_eq!(store.stats().log.records, count);
        store.close().unwrap();
        let bytes = |name: &String| fs::metadata(dir.path().join(name)).unwrap().len();
        let (snapshot, others): (Vec<_>, Vec<_>) = names(dir.path()).into_iter().partition(|name| name == "index");
        let on_disk: u64 = others.iter().map(bytes).sum();
        assert!(snapshot.iter().map(bytes).sum::<u64>() <= 11 * count, "the snapshot takes more than 11 bytes a key");
        let log = open().stats().log;
        let over = |bytes: u64| bytes as f64 / count as f64 - 116.0;
        assert!(over(on_disk) <= 40.0, "{} bytes above key and value", over(on_disk));
        // The active segment has its reserved space back while the store is open.
        assert!(over(log.bytes.saturating_sub(1 << 20)) <= 40.0, "{}", over(log.bytes));
        assert!(over(log.live_bytes) <= 40.0 && log.live_bytes >= 116 * count, "{}", log.live_bytes);
    }
}
