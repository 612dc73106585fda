//! The one way to files: a directory of them, and one file, as traits.
//!
//! [`Disk`] maps segments where the filesystem allows it and uses `pread`/`pwrite` elsewhere. [`Faulty`] is the
//! double for tests; [`Volatile`] is for stores without a log. Nothing above this module calls the operating system for a file.

mod disk;
mod faulty;
mod volatile;

use std::{fmt, io};

pub use disk::Disk;
pub use faulty::{Fault, Faulty, Plan};
pub use volatile::Volatile;

pub use super::map::Map;

/// A directory of files.
pub trait Medium: fmt::Debug + Send + Sync {
    /// The directory as its user named it, for messages.
    fn directory(&self) -> String;

    /// Whether its files can be mapped.
    fn is_mapped(&self) -> bool;

    /// The names of the files in the directory.
    ///
    /// # Errors
    /// What the system says, as everywhere here.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes a new, empty file that nobody else may read; an error if the name is taken.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// What the system says; a symbolic link is refused.
    fn open(&self, name: &str, writable: bool) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a name away; whoever has the file open keeps it.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes created, renamed and removed names durable.
    ///
    /// # Errors
    /// What the system says.
    fn flush_directory(&self) -> io::Result<()>;

    /// Locks the file `name` until the returned lock drops; `None` when somebody else holds it.
    /// The lock is the kernel's: it dies with its process.
    ///
    /// # Errors
    /// What the system says.
    fn lock(&self, name: &str, exclusive: bool) -> io::Result<Option<Lock>>;
}

/// Whatever keeps a file locked while it lives.
pub type Lock = Box<dyn fmt::Debug + Send + Sync>;

/// One open file. Offsets and lengths are in bytes.
pub trait File: fmt::Debug + Send + Sync {
    /// The file's length.
    ///
    /// # Errors
    /// What the system says, as everywhere here.
    fn bytes(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros that need no blocks yet.
    ///
    /// # Errors
    /// What the system says.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;

    /// Extends the file to `bytes` with zeros whose blocks are reserved.
    ///
    /// # Errors
    /// A full disk, for one.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says; a part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Maps the first `bytes`, or `None` where this medium cannot promise what the log needs of a map.
    ///
    /// # Errors
    /// What the system says.
    fn map(&self, bytes: u64, writable: bool) -> io::Result<Option<Map>>;

    /// Whether the file has no name any more, so that it goes with whoever has it open. Never, where nobody but us takes names away.
    ///
    /// # Errors
    /// What the system says.
    fn is_removed(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Makes all bytes written so far durable.
    ///
    /// # Errors
    /// What the system says; afterwards nobody knows which bytes are durable.
    fn flush(&self) -> io::Result<()>;
}
