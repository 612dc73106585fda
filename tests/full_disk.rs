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
