//! A medium that ends with its process: for a store without a log, which still has an identity.
//!
//! Holds small files in memory. Never maps any. Invariant: what was written is read back while the medium lives.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{File, Lock, Map, Medium};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A directory in memory that nobody else can see.
#[derive(Debug, Default)]
pub struct Volatile(Mutex<BTreeMap<String, Bytes>>);

#[derive(Debug)]
struct VolatileFile(Bytes);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn found<T>(file: Option<T>) -> io::Result<T> {
    file.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Medium for Volatile {
    fn directory(&self) -> String {
        "a store in memory".to_owned()
    }

    fn is_mapped(&self) -> bool {
        false
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.0).keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut files = lock(&self.0);
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Bytes::default();
        files.insert(name.to_owned(), bytes.clone());
        Ok(Box::new(VolatileFile(bytes)))
    }

    fn open(&self, name: &str, _writable: bool) -> io::Result<Box<dyn File>> {
        Ok(Box::new(VolatileFile(found(lock(&self.0).get(name).cloned())?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.0);
        let file = found(files.remove(from))?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        found(lock(&self.0).remove(name)).map(|_| ())
    }

    fn flush_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, name: &str, _exclusive: bool) -> io::Result<Option<Lock>> {
        // Nobody else has this directory.
        lock(&self.0).entry(name.to_owned()).or_default();
        Ok(Some(Box::new(())))
    }
}

impl File for VolatileFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        lock(&self.0).resize(bytes as usize, 0);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.set_bytes(bytes.max(self.bytes()?))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = lock(&self.0);
        let from = bytes.get(offset as usize..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        let (start, end) = (offset as usize, offset as usize + from.len());
        let length = bytes.len().max(end);
        bytes.resize(length, 0);
        bytes[start..end].copy_from_slice(from);
        Ok(())
    }

    fn map(&self, _bytes: u64, _writable: bool) -> io::Result<Option<Map>> {
        Ok(None)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
