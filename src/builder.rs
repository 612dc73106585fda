//! Options of a store, checked once, when it is opened.
//!
//! Holds setters and the choice of the medium. Never opens a file itself.

use std::{path::Path, sync::Arc, time::Duration};

use thermocline_engine::{Engine, Options, medium::Disk};

use crate::{Durability, Error, Result, Store};

/// How a store is to be opened. Made by [`Store::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct Builder {
    options: Options,
    mapped: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self { options: Options::default(), mapped: true }
    }
}

impl Builder {
    /// How long entries live that say nothing else. Default: for ever.
    pub fn time_to_live(mut self, ttl: Duration) -> Self {
        self.options.time_to_live = Some(ttl);
        self
    }

    /// What writes survive that say nothing else. Default: [`Durability::Buffered`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// Bytes of a segment of the log, 64 KiB to 1 GiB, a multiple of 8. Default: 64 MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.options.segment_bytes = bytes;
        self
    }

    /// Changes nothing; several readers can have the store open at once, while no writer has.
    pub fn read_only(mut self) -> Self {
        self.options.read_only = true;
        self
    }

    /// Whether to make a store where there is none. Default: yes.
    pub fn create(mut self, create: bool) -> Self {
        self.options.create = create;
        self
    }

    /// Whether segments may be mapped into memory. Default: yes, where the filesystem can promise what that needs.
    /// Without maps every read and write is a system call.
    pub fn mapped(mut self, mapped: bool) -> Self {
        self.mapped = mapped;
        self
    }

    /// Opens the store in the directory `dir`, which is made if it is missing.
    ///
    /// Reads the log once to rebuild the index. Whoever changes the store's files behind its back (cuts a
    /// segment, for one) may end this process with a signal; the lock keeps other thermocline processes out.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::NoStore`], [`Error::Locked`] after half a second, [`Error::Version`],
    /// [`Error::Corrupt`] if the store's identity is damaged, [`Error::Io`].
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Store> {
        let dir = dir.as_ref();
        if self.options.time_to_live == Some(Duration::ZERO) {
            let (found, expected) = ("0 s".to_owned(), "a duration above zero".to_owned());
            return Err(Error::Option { option: "time_to_live", found, expected });
        }
        let makes = self.options.create && !self.options.read_only;
        let disk = if makes { Disk::create(dir) } else { Disk::open(dir) };
        let disk = disk.map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound if !makes => Error::NoStore { directory: dir.display().to_string() },
            _ => Error::Io { action: "open", file: dir.display().to_string(), offset: 0, source },
        })?;
        let disk = if self.mapped { disk } else { disk.without_maps() };
        Engine::open(Arc::new(disk), self.options).map(Store::new)
    }
}
