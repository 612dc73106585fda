//! What can go wrong, for every floor of the house: the engine and the front door add no meaning to a
//! failed write or a damaged record, so they pass this one enum on.

use std::{io, result};

/// A result with thermocline's [`Error`].
pub type Result<T, E = Error> = result::Result<T, E>;

/// Why a call failed: what was being done, to what, and both numbers when two disagree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a read, a write or a flush.
    #[error("{action} {file}{}: {source}", place(*offset))]
    Io {
        /// What was being done, as a verb: `write`, `flush`.
        action: &'static str,
        /// The path of the file or directory.
        file: String,
        /// The offset in bytes; 0 also stands for the file as a whole.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes on disk are not what was written there.
    #[error("{file}{}: {what}", place(*offset))]
    Corrupt {
        /// The path of the file.
        file: String,
        /// The offset of the damage in bytes; 0 also stands for the file as a whole.
        offset: u64,
        /// What was found, and what was expected.
        what: String,
    },
    /// The directory holds no store, and none was to be made.
    #[error("no store in {directory}")]
    NoStore {
        /// The directory as it was given.
        directory: String,
    },
    /// A file carries a format version that this build does not know.
    #[error("{file}: format version {found}, this build reads up to {supported}")]
    Version {
        /// The path of the file.
        file: String,
        /// The version found.
        found: u32,
        /// The highest version known here.
        supported: u32,
    },
    /// Another process or handle has the store open.
    #[error("{directory} is in use by another process or handle")]
    Locked {
        /// The store's directory.
        directory: String,
    },
    /// A key or a value is longer than the format allows, or an entry than its cache does.
    #[error("{what} of {bytes} bytes is too long, the limit is {bytes_max}")]
    TooLarge {
        /// `key`, `value` or `entry`.
        what: &'static str,
        /// Its length in bytes.
        bytes: u64,
        /// The longest that is allowed.
        bytes_max: u64,
    },
    /// An option has a value that cannot be.
    #[error("option {option} is {found}, expected {expected}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// The value found.
        found: String,
        /// What would have been right.
        expected: String,
    },
    /// A file of settings says what cannot be.
    #[error("{file}, line {line}: {what}")]
    Config {
        /// The path of the file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A key or a value refuses to be encoded.
    #[error("a {what} of type {type_name} cannot be encoded: {cause}")]
    Encode {
        /// `key` or `value`.
        what: &'static str,
        /// Its type.
        type_name: &'static str,
        /// What the type or the codec said.
        cause: String,
    },
    /// Somebody else was computing the value of a key for longer than this caller waits.
    #[error("cache {namespace}: another caller computes this value, and has for more than {waited:?} (wait_timeout)")]
    WaitTimeout {
        /// The cache.
        namespace: String,
        /// How long it was waited for.
        waited: std::time::Duration,
    },
    /// The loader of a cache failed.
    #[error("cache {namespace}: the loader failed: {source}")]
    Load {
        /// The cache.
        namespace: String,
        /// What the loader said; one for all who waited.
        source: std::sync::Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store was opened to read only.
    #[error("{directory} was opened to read only")]
    ReadOnly {
        /// The store's directory.
        directory: String,
    },
    /// A flush failed earlier, so nothing more is accepted until the store is opened again.
    #[error("{directory} takes no more writes since a flush failed ({cause}); open it again")]
    Suspended {
        /// The store's directory.
        directory: String,
        /// The first failure.
        cause: String,
    },
    /// The log has no room left for another segment's address.
    #[error("{directory}: {slots} of {slots_max} segment slots are taken, too few are left for another segment")]
    Full {
        /// The store's directory.
        directory: String,
        /// Segment slots that are taken, one for each segment and for each 64 MiB of it.
        slots: u64,
        /// How many there are.
        slots_max: u64,
    },
    /// The log takes as much of the disk as it may.
    #[error("{directory}: no room for {bytes} more bytes, {taken} of at most {capacity} are taken (disk_capacity)")]
    DiskCapacity {
        /// The store's directory.
        directory: String,
        /// Bytes that were needed, those of a whole segment for all but large values.
        bytes: u64,
        /// Bytes that the files take.
        taken: u64,
        /// Bytes that they may take.
        capacity: u64,
    },
    /// The process has a namespace open in another way.
    #[error("namespace {name} is open with another version, other types or other limits")]
    NamespaceInUse {
        /// The namespace.
        name: String,
    },
    /// A record could not be kept even if nothing else were there.
    #[error(
        "a record of {bytes} bytes never fits: of disk_capacity {capacity} and segments of {segment_bytes} one record can have {bytes_max}"
    )]
    NeverFits {
        /// Bytes of the record, key and header included.
        bytes: u64,
        /// The most that would fit.
        bytes_max: u64,
        /// The ceiling on the log's files.
        capacity: u64,
        /// Bytes of a segment.
        segment_bytes: u64,
    },
    /// The system gives no more memory for the index.
    #[error("no memory for more keys: the index has {bytes} bytes, which is all that could be reserved")]
    IndexFull {
        /// Bytes reserved.
        bytes: u64,
    },
}

/// Where in a file, for a message; nothing for its start, which also stands for the whole of it.
fn place(offset: u64) -> String {
    if offset == 0 { String::new() } else { format!(", offset {offset}") }
}

impl Error {
    /// Whether the system refused because the disk, or a quota on it, is full.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Wraps what the system said with what was being done; made for `map_err`.
    pub(crate) fn io(action: &'static str, file: impl Into<String>, offset: u64) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { action, file, offset, source }
    }
}
