//! Options of a store, checked once, when it is opened.
//!
//! Holds setters and the choice of the medium. Never opens a file itself.

use std::{path::Path, sync::Arc, time::Duration};

use thermocline_engine::{
    Engine, Options, TimeSource,
    medium::{Disk, Volatile},
};

use crate::{Compression, Durability, Error, Result, Store};

/// How a store is to be opened. Made by [`Store::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct Builder {
    options: Options,
    /// What the user said of it.
    segment_bytes: Option<u64>,
    mapped: bool,
}

/// A ceiling is so many segments or more, unless the user says how large those are.
const SEGMENTS_AT_CEILING: u64 = 16;

impl Default for Builder {
    fn default() -> Self {
        Self { options: Options::default(), segment_bytes: None, mapped: true }
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

    /// Bytes of the memory tier, our overhead counted: what entries take there and their share of the index. Default:
    /// 64 MiB. 0: nothing is kept in memory beside the index. What the log's own threads hold while they work, some MiB,
    /// comes on top.
    pub fn memory_capacity(mut self, bytes: u64) -> Self {
        self.options.memory_capacity = bytes;
        self
    }

    /// Keeps so many bytes of memory available on the machine, or in this process's share of it: entries leave memory
    /// when others need it. Default: the machine is not watched.
    pub fn free_memory_target(mut self, bytes: u64) -> Self {
        self.options.free_memory_target = Some(bytes);
        self
    }

    /// Bytes of a segment of the log, 64 KiB to 1 GiB, a multiple of 8. Default: 64 MiB, or a sixteenth of the
    /// [`disk_capacity`](Self::disk_capacity) if that is less.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// The most that the files of the log may take, space reserved for writes and for compaction included. Default: as much as
    /// there is. At least four segments. When it is reached the entries go that were written longest ago, a segment at a
    /// time; those that came back lately stay, as far as half of the space that comes free. Each that goes is counted in
    /// `stats().evictions.disk_capacity`, and the last ones are in the eviction log.
    pub fn disk_capacity(mut self, bytes: u64) -> Self {
        self.options.disk_capacity = Some(bytes);
        self
    }

    /// How records are compressed that compaction moves. Default: [`Compression::zstd`] of level 3. Others are not: what was just
    /// written is read as fast as ever.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.options.compression = compression;
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

    /// Where the time comes from; for tests.
    #[doc(hidden)]
    pub fn time(mut self, time: TimeSource) -> Self {
        self.options.time = time;
        self
    }

    /// Whether segments may be mapped into memory. Default: yes, where the filesystem can promise what that needs.
    /// Without maps every read and write is a system call, and no signal handler is installed.
    pub fn mapped(mut self, mapped: bool) -> Self {
        self.mapped = mapped;
        self
    }

    /// Opens a store without a log: what leaves memory is gone, and all of it with the last handle.
    ///
    /// # Errors
    /// [`Error::Option`] for options that need a directory.
    pub fn in_memory(self) -> Result<Store> {
        self.check()?;
        let directory = ("a store in memory", "a store in a directory");
        let refused = [
            ("read_only", self.options.read_only, directory),
            ("disk_capacity", self.options.disk_capacity.is_some(), directory),
            ("memory_capacity", self.options.memory_capacity == 0, ("0", "a number above zero")),
        ];
        if let Some((option, _, (found, expected))) = refused.into_iter().find(|(_, is_refused, _)| *is_refused) {
            return Err(Error::Option { option, found: found.to_owned(), expected: expected.to_owned() });
        }
        let options = Options { in_memory: true, create: true, ..self.sized() };
        Engine::open(Arc::new(Volatile::default()), options).map(Store::new)
    }

    fn check(&self) -> Result<()> {
        if self.options.time_to_live == Some(Duration::ZERO) {
            let (found, expected) = ("0 s".to_owned(), "a duration above zero".to_owned());
            return Err(Error::Option { option: "time_to_live", found, expected });
        }
        Ok(())
    }

    /// The options, with segments of a size that suits the ceiling.
    fn sized(&self) -> Options {
        let default = Options::default().segment_bytes;
        let suits = |capacity: u64| (capacity / SEGMENTS_AT_CEILING + 1).next_power_of_two() / 2;
        let suiting = self.options.disk_capacity.map_or(default, |capacity| suits(capacity).clamp(64 << 10, default));
        Options { segment_bytes: self.segment_bytes.unwrap_or(suiting), ..self.options.clone() }
    }

    /// Opens the store in the directory `dir`, which is made if it is missing.
    ///
    /// Reads the log once to rebuild the index. The lock keeps other thermocline processes out; if somebody else cuts a segment,
    /// what was in it is [`Error::Corrupt`]. For that the first store that maps a segment installs a handler of SIGBUS in the process, which
    /// passes on every fault that is not in a segment; without maps ([`mapped`](Self::mapped)) there is none.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::NoStore`], [`Error::Locked`] after half a second, [`Error::Version`],
    /// [`Error::Corrupt`] if the store's identity is damaged, [`Error::Io`].
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Store> {
        let dir = dir.as_ref();
        self.check()?;
        let makes = self.options.create && !self.options.read_only;
        let disk = if makes { Disk::create(dir) } else { Disk::open(dir) };
        let disk = disk.map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound if !makes => Error::NoStore { directory: dir.display().to_string() },
            _ => Error::Io { action: "open", file: dir.display().to_string(), offset: 0, source },
        })?;
        let disk = if self.mapped { disk } else { disk.without_maps() };
        Engine::open(Arc::new(disk), self.sized()).map(Store::new)
    }
}
