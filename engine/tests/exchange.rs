//! An exchange in the moment between being seen and counting.

mod support;

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{key, look, open, small, value};
use thermocline_engine::{
    Engine,
    medium::{Faulty, File, Lock, Map, Medium},
};

/// A directory, read and written by calls, in which a write of eight bytes can be held up: an exchange's last one.
#[derive(Debug)]
struct Slow {
    inner: Faulty,
    door: Arc<Door>,
}

#[derive(Debug, Default)]
struct Door {
    /// Whether the next write of eight bytes waits, and whether one does.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Door {
    fn set(&self, change: impl FnOnce(&mut (bool, bool))) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_while(&self, is: impl Fn((bool, bool)) -> bool) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| is(*state)).unwrap());
    }
}

#[derive(Debug)]
struct SlowFile {
    inner: Box<dyn File>,
    door: Arc<Door>,
}

impl Slow {
    fn file(&self, inner: Box<dyn File>) -> Box<dyn File> {
        Box::new(SlowFile { inner, door: self.door.clone() })
    }
}

impl Medium for Slow {
    fn directory(&self) -> String {
        self.inner.directory()
    }
    fn is_mapped(&self) -> bool {
        self.inner.is_mapped()
    }
    fn names(&self) -> io::Result<Vec<String>> {
        self.inner.names()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.inner.create(name)?))
    }
    fn open(&self, name: &str, writable: bool) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.inner.open(name, writable)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn flush_directory(&self) -> io::Result<()> {
        self.inner.flush_directory()
    }
    fn lock(&self, name: &str, exclusive: bool) -> io::Result<Option<Lock>> {
        self.inner.lock(name, exclusive)
    }
}

impl File for SlowFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }
    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_bytes(bytes)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.inner.allocate(bytes)
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() == 8 {
            self.door.set(|(closed, waits)| *waits = *closed);
            self.door.wait_while(|(closed, _)| closed);
        }
        self.inner.write_at(offset, bytes)
    }
    fn map(&self, bytes: u64, writable: bool) -> io::Result<Option<Map>> {
        self.inner.map(bytes, writable)
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[test]
fn a_sync_covers_every_exchange_that_was_seen_before_it() {
    let (inner, door) = (Faulty::new(false), Arc::new(Door::default()));
    let engine = Engine::open(Arc::new(Slow { inner: inner.clone(), door: door.clone() }), small()).unwrap();
    engine.insert(&key(0), &value(0, 1), &support::at(false)).unwrap();
    let old = engine.metadata(&key(0)).unwrap().unwrap().sequence;
    let synced = AtomicBool::new(false);
    thread::scope(|scope| {
        door.set(|(closed, _)| *closed = true);
        scope.spawn(|| engine.compare_exchange(&key(0), Some(old), Some(&value(0, 2))).unwrap().unwrap());
        door.wait_while(|(_, waits)| !waits);
        assert_eq!(look(&engine, 0).unwrap(), Some(2), "the exchange is seen");
        scope.spawn(|| {
            engine.sync().unwrap();
            synced.store(true, Ordering::Relaxed);
            let left = open(&inner.after_power_cut(0), &small()).unwrap();
            assert_eq!(look(&left, 0).unwrap(), Some(2), "what was seen before a sync is there after it");
        });
        // A sync that does not wait for the exchange ends at once; for one that does there is nothing to see.
        let start = Instant::now();
        while !synced.load(Ordering::Relaxed) && start.elapsed() < Duration::from_millis(200) {
            thread::yield_now();
        }
        door.set(|(closed, _)| *closed = false);
    });
}
