//! A disk that is really full: a small tmpfs, where this process may mount one.

use std::{io::ErrorKind, path::Path, process::Command};

use thermocline::{Error, Store};

/// A mounted tmpfs; unmounted when it drops.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// `None` where mounting is not allowed.
    fn mount(at: &'a Path, bytes: u64) -> Option<Self> {
        let size = format!("size={bytes}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?.status;
        status.success().then_some(Self(at))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(dir.path(), 6 << 20) else {
        eprintln!("no tmpfs may be mounted here: not tested");
        return;
    };
    let path = dir.path().join("store");
    let open = || Store::builder().segment_bytes(1 << 20).open(&path).unwrap();
    let value = |number: u32| vec![number as u8; 5_000];
    let store = open();
    let mut kept = 0_u32;
    let error = loop {
        match store.insert(kept.to_le_bytes(), value(kept)) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 2_000, "a disk of 6 MiB that never fills");
    };
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull), "{error}");
    assert!(kept > 500, "{kept} values of 5 kB in 6 MiB");
    // The old value stays, and so does everything else; trying again changes nothing.
    for attempt in 0..3 {
        assert!(store.insert(0_u32.to_le_bytes(), vec![9; 100_000]).is_err(), "attempt {attempt}");
        assert!((0..kept).all(|number| store.get(number.to_le_bytes()).unwrap().unwrap() == value(number)[..]));
    }
    drop(store);
    let store = open();
    assert_eq!(store.len(), u64::from(kept));
    assert!((0..kept).all(|number| store.get(number.to_le_bytes()).unwrap().unwrap() == value(number)[..]));
    assert!(store.verify().unwrap().damaged.is_empty());
}

#[test]
fn a_full_disk_can_be_emptied_and_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(dir.path(), 12 << 20) else {
        eprintln!("no tmpfs may be mounted here: not tested");
        return;
    };
    let path = dir.path().join("store");
    let open = || Store::builder().segment_bytes(1 << 20).memory_capacity(0).open(&path).unwrap();
    // Random bytes, so that compression is no help.
    let value = |number: u32, version: u64| -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(u64::from(number) << 32 | version);
        (0..500).map(|_| random.u8(..)).collect()
    };
    let mut kept = 0_u32;
    for version in 0..3 {
        let store = open();
        let error = loop {
            match store.insert(kept.to_le_bytes(), value(kept, version)) {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept < 100_000, "a disk of 12 MiB that never fills");
        };
        assert!(error.is_disk_full(), "{error}");
        drop(store);
        // The next process finds it as full as it was.
        let store = open();
        assert_eq!(store.len(), u64::from(kept), "version {version}");
        // Every tenth stays, so that no segment is dead as a whole.
        for number in 0..kept {
            assert!(number % 10 == 0 || store.remove(number.to_le_bytes()).unwrap(), "version {version}, key {number}");
        }
        assert!(store.compact().unwrap().bytes_reclaimed > 0 || store.stats().log.bytes_reclaimed > 0);
        for number in (0..kept).step_by(10) {
            assert_eq!(store.get(number.to_le_bytes()).unwrap().unwrap(), value(number, version)[..]);
            store.remove(number.to_le_bytes()).unwrap();
        }
        store.compact().unwrap();
        let live = store.stats().log;
        assert!(live.bytes < 6 << 20, "version {version}: {live:?}");
        assert!(store.verify().unwrap().damaged.is_empty());
        assert!(kept > 5_000, "version {version}: {kept} values of 500 bytes in 12 MiB");
        kept = 0;
    }
}
