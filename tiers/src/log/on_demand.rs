//! A file that is open only while it is needed: a store may have more segments than a process may have files.
//!
//! Holds the file's name, and the file while it is kept. Invariant: a call goes to the file of that name, whether it was
//! kept or is opened for this one call.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::medium::{File, Map, Medium};

#[derive(Debug)]
pub(crate) struct OnDemand {
    medium: Arc<dyn Medium>,
    name: String,
    writable: bool,
    kept: Mutex<Option<Arc<dyn File>>>,
}

impl OnDemand {
    /// Keeps `file`, which is open under `name`.
    pub(crate) fn new(medium: Arc<dyn Medium>, name: String, writable: bool, file: Box<dyn File>) -> Self {
        Self { medium, name, writable, kept: Mutex::new(Some(file.into())) }
    }

    /// Closes the file; whoever needs it again opens it for one call.
    pub(crate) fn release(&self) {
        *self.kept() = None;
    }

    /// The file.
    ///
    /// # Errors
    /// What opening it says, if it is not kept.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn File>> {
        let kept = self.kept().clone();
        kept.map_or_else(|| Ok(self.medium.open(&self.name, self.writable)?.into()), Ok)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Arc<dyn File>>> {
        // Nothing panics under this lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File for OnDemand {
    fn bytes(&self) -> io::Result<u64> {
        self.file()?.bytes()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.file()?.set_bytes(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file()?.allocate(bytes)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file()?.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file()?.write_at(offset, bytes)
    }

    fn map(&self, bytes: u64, writable: bool) -> io::Result<Option<Map>> {
        self.file()?.map(bytes, writable)
    }

    fn is_removed(&self) -> io::Result<bool> {
        self.file()?.is_removed()
    }

    fn flush(&self) -> io::Result<()> {
        self.file()?.flush()
    }
}
