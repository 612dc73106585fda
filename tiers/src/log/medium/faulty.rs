//! The double for tests: a directory in memory, with a page cache that can lose what was not flushed and
//! calls that fail when they are told to.
//!
//! Never touches the operating system's files. A sector (512 bytes) is what a power cut keeps or loses whole.
//! A failed flush marks its pages clean although they never reached the disk, as real systems do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

mod node;

use node::{Node, SECTOR};

use super::{File, Lock, Map, Medium};

/// What happens to the call that a [`Plan`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and does nothing; a flush that fails marks its pages clean.
    Fail,
    /// A write does half of its work, then fails; other calls just fail.
    Short,
    /// It succeeds, but a read returns one flipped bit.
    Flip,
    /// It and all later calls fail: the process is gone.
    Crash,
}

/// Which call goes wrong, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The number of the call, from 0.
    pub call: u64,
    /// Whether all later calls go wrong as well.
    pub lasting: bool,
    /// What happens.
    pub fault: Fault,
}

#[derive(Debug, Default)]
struct World {
    names: BTreeMap<String, Shared>,
    durable_names: BTreeMap<String, Shared>,
    locks: Arc<Mutex<Locks>>,
    plan: Option<Plan>,
    calls: u64,
    /// Bytes that all files together may take.
    room: Option<u64>,
    random: u64,
}

type Shared = Arc<Mutex<Node>>;

#[derive(Debug, Default)]
struct Locks {
    shared: u64,
    exclusive: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory in memory. Clones name the same one.
#[derive(Clone)]
pub struct Faulty {
    world: Arc<Mutex<World>>,
    mapped: bool,
}

impl Faulty {
    /// An empty directory whose files are mapped, or read and written by calls only.
    pub fn new(mapped: bool) -> Self {
        Self { world: Arc::default(), mapped }
    }

    /// Has a call go wrong; calls are counted from now on.
    pub fn plan(&self, plan: Option<Plan>) {
        let mut world = lock(&self.world);
        (world.plan, world.calls) = (plan, 0);
    }

    /// How many calls there were since the last plan.
    pub fn calls(&self) -> u64 {
        lock(&self.world).calls
    }

    /// Limits the bytes that all files together may take.
    pub fn set_room(&self, room: Option<u64>) {
        lock(&self.world).room = room;
    }

    /// From now on the cache writes some pages by itself now and then, as `seed` has it.
    pub fn write_back(&self, seed: u64) {
        lock(&self.world).random = seed | 1;
    }

    /// The directory that a process finds after this one was killed: all that was written is there.
    pub fn after_kill(&self) -> Self {
        let world = lock(&self.world);
        let copy = |node: &Shared| {
            let node = lock(node);
            let mut new = Node::new(node.content()).expect("memory for a copy");
            (new.durable, new.clean, new.written) = (node.durable.clone(), node.clean.clone(), node.written.clone());
            Arc::new(Mutex::new(new))
        };
        let names: BTreeMap<_, _> = world.names.iter().map(|(name, node)| (name.clone(), copy(node))).collect();
        let durable_names = world.durable_names.iter().filter_map(|(name, node)| {
            let now = world.names.iter().find(|(_, other)| Arc::ptr_eq(node, other))?;
            Some((name.clone(), names[now.0].clone()))
        });
        let durable_names = durable_names.collect();
        let new = World { names, durable_names, room: world.room, ..World::default() };
        Self { world: Arc::new(Mutex::new(new)), mapped: self.mapped }
    }

    /// The directory that is left after a power cut: of what was not flushed, `seed` decides sector by
    /// sector and name by name what had reached the disk.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let world = lock(&self.world);
        let mut random = seed;
        let mut names = BTreeMap::new();
        let all: BTreeSet<_> = world.names.keys().chain(world.durable_names.keys()).collect();
        for name in all {
            let (now, durable) = (world.names.get(name), world.durable_names.get(name));
            let same = matches!((now, durable), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            let kept = if same || splitmix(&mut random) & 1 == 0 { now } else { durable };
            if let Some(node) = kept {
                let content = lock(node).cut(&mut random);
                let node = Arc::new(Mutex::new(Node::new(&content).expect("memory for a copy")));
                names.insert(name.clone(), node);
            }
        }
        let new = World { durable_names: names.clone(), names, room: world.room, ..World::default() };
        Self { world: Arc::new(Mutex::new(new)), mapped: self.mapped }
    }

    /// The bytes of a file, or `None` if there is none.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let world = lock(&self.world);
        world.names.get(name).map(|node| lock(node).content().to_vec())
    }

    /// Puts a file there with these bytes, durable.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let node = Arc::new(Mutex::new(Node::new(bytes).expect("memory for a file")));
        let mut world = lock(&self.world);
        world.names.insert(name.to_owned(), node.clone());
        world.durable_names.insert(name.to_owned(), node);
    }

    /// Counts a call and says whether it goes wrong.
    fn step(&self) -> io::Result<Option<Fault>> {
        let mut world = lock(&self.world);
        let call = world.calls;
        world.calls += 1;
        if world.random != 0 && splitmix(&mut world.random).is_multiple_of(8) {
            let mut random = world.random;
            for node in world.names.values() {
                let mut node = lock(node);
                let mut dirty = node.dirty();
                dirty.retain(|_| splitmix(&mut random).is_multiple_of(3));
                node.persist(&dirty);
            }
            world.random = random | 1;
        }
        let due = |plan: &Plan| call == plan.call || call > plan.call && (plan.lasting || plan.fault == Fault::Crash);
        match world.plan.filter(due).map(|plan| plan.fault) {
            Some(Fault::Fail | Fault::Crash) => Err(io::Error::other("this call was to fail")),
            other => Ok(other),
        }
    }

    fn simple(&self) -> io::Result<()> {
        match self.step()? {
            Some(Fault::Short) => Err(io::Error::other("this call was to fail")),
            _ => Ok(()),
        }
    }

    fn check_room(&self, node: &Shared, bytes: u64) -> io::Result<()> {
        let world = lock(&self.world);
        let Some(room) = world.room else { return Ok(()) };
        let others = world.names.values().filter(|other| !Arc::ptr_eq(node, other));
        let used: u64 = others.map(|other| lock(other).bytes).sum();
        if used + bytes > room { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl Medium for Faulty {
    fn directory(&self) -> String {
        "faulty".to_owned()
    }

    fn is_mapped(&self) -> bool {
        self.mapped
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.simple()?;
        Ok(lock(&self.world).names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.simple()?;
        let node = Arc::new(Mutex::new(Node::new(&[])?));
        let mut world = lock(&self.world);
        if world.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        world.names.insert(name.to_owned(), node.clone());
        Ok(Box::new(FaultyFile { medium: self.clone(), node, writable: true }))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Box<dyn File>> {
        self.simple()?;
        let node = lock(&self.world).names.get(name).cloned();
        let node = node.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Box::new(FaultyFile { medium: self.clone(), node, writable }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.simple()?;
        let mut world = lock(&self.world);
        let node = world.names.remove(from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        world.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.simple()?;
        let removed = lock(&self.world).names.remove(name);
        removed.map(|_| ()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn flush_directory(&self) -> io::Result<()> {
        self.simple()?;
        let mut world = lock(&self.world);
        world.durable_names = world.names.clone();
        Ok(())
    }

    fn lock(&self, name: &str, exclusive: bool) -> io::Result<Option<Lock>> {
        self.simple()?;
        let mut world = lock(&self.world);
        if !world.names.contains_key(name) {
            let node = Arc::new(Mutex::new(Node::new(&[])?));
            world.names.insert(name.to_owned(), node);
        }
        let mut locks = lock(&world.locks);
        if locks.exclusive || exclusive && locks.shared > 0 {
            return Ok(None);
        }
        if exclusive {
            locks.exclusive = true;
        } else {
            locks.shared += 1;
        }
        Ok(Some(Box::new(Held { locks: world.locks.clone(), exclusive })))
    }
}

#[derive(Debug)]
struct Held {
    locks: Arc<Mutex<Locks>>,
    exclusive: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut locks = lock(&self.locks);
        if self.exclusive {
            locks.exclusive = false;
        } else {
            locks.shared -= 1;
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    medium: Faulty,
    node: Shared,
    writable: bool,
}

impl FaultyFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::Error::from(io::ErrorKind::PermissionDenied)) }
    }
}

impl File for FaultyFile {
    fn bytes(&self) -> io::Result<u64> {
        self.medium.simple()?;
        Ok(lock(&self.node).bytes)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.medium.simple()?;
        self.check_writable()?;
        lock(&self.node).resize(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.medium.simple()?;
        self.check_writable()?;
        self.medium.check_room(&self.node, bytes)?;
        let mut node = lock(&self.node);
        if bytes > node.bytes { node.resize(bytes) } else { Ok(()) }
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let fault = self.medium.step()?;
        if fault == Some(Fault::Short) {
            return Err(io::Error::other("this call was to fail"));
        }
        let node = lock(&self.node);
        let end = offset + into.len() as u64;
        if end > node.bytes && !into.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        if into.is_empty() {
            return Ok(());
        }
        into.copy_from_slice(&node.content()[offset as usize..end as usize]);
        if let (Some(Fault::Flip), Some(byte)) = (fault, into.first_mut()) {
            *byte ^= 1;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.medium.step()?;
        self.check_writable()?;
        let bytes = if fault == Some(Fault::Short) { &bytes[..bytes.len() / 2] } else { bytes };
        let end = offset + bytes.len() as u64;
        let grown = end.max(lock(&self.node).bytes);
        self.medium.check_room(&self.node, grown)?;
        let mut node = lock(&self.node);
        if end > node.bytes {
            node.resize(end)?;
        }
        node.cache.fill(offset, [bytes]);
        if !bytes.is_empty() {
            node.written.extend(offset as usize / SECTOR..=(end as usize - 1) / SECTOR);
        }
        if fault == Some(Fault::Short) { Err(io::Error::other("half of this call was to fail")) } else { Ok(()) }
    }

    fn map(&self, bytes: u64, writable: bool) -> io::Result<Option<Map>> {
        self.medium.simple()?;
        if !self.medium.mapped || bytes == 0 {
            return Ok(None);
        }
        let node = lock(&self.node);
        if bytes > node.bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        if writable {
            self.check_writable()?;
        }
        let map = node.cache.clone();
        Ok(Some(if writable { map } else { map.read_only() }))
    }

    fn flush(&self) -> io::Result<()> {
        let result = self.medium.simple();
        let has_crashed = lock(&self.medium.world).plan.is_some_and(|plan| plan.fault == Fault::Crash);
        let mut node = lock(&self.node);
        let dirty = node.dirty();
        match &result {
            Ok(()) => node.persist(&dirty),
            Err(_) if has_crashed => {}
            Err(_) => {
                node.clean = node.content().to_vec();
                node.written.clear();
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn what_was_opened_or_mapped_to_read_is_not_written() {
        let medium = Faulty::new(true);
        medium.write("a", &[0; 64]);
        let file = medium.open("a", false).unwrap();
        for refused in [file.write_at(0, b"1"), file.set_bytes(8), file.allocate(128), file.map(64, true).map(drop)] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        let map = medium.open("a", true).unwrap().map(64, false).unwrap().unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| map.store_word(0, 1))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| map.fill(0, [b"1"]))).is_err());
        assert_eq!(medium.read("a").unwrap(), [0; 64]);
    }
}
