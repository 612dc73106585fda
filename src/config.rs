//! `thermocline.toml`: how the process-wide store is opened.
//!
//! Holds the search for the files and their meaning. The nearest file wins, setting by setting; `root = true` ends the
//! search. Never opens a store.

mod size;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

use crate::{Builder, Durability, Error, Result};
use size::Size;

/// The name of the file.
const FILE: &str = "thermocline.toml";
/// A file of settings is not longer; what is, was not meant.
const BYTES_MAX: u64 = 1 << 20;

/// The settings of the process-wide store, gathered from the files `thermocline.toml` of a directory and those above it.
///
/// ```toml
/// root = true                   # look no further up
/// directory = "target/memo"     # relative to this file
/// enabled = true                # false: memoized functions compute, unless the program or `THERMOCLINE_MEMO` says otherwise
/// memory_capacity = "256 MiB"
/// disk_capacity = "10 GiB"
/// free_memory_target = "512 MiB"
/// time_to_live = "7 days"
/// durability = "buffered"       # volatile, buffered, synced
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Where the store is; absolute if the directory that was searched from is.
    pub directory: Option<PathBuf>,
    /// Whether memoization is on.
    pub enabled: Option<bool>,
    /// As [`Builder::memory_capacity`].
    pub memory_capacity: Option<u64>,
    /// As [`Builder::disk_capacity`].
    pub disk_capacity: Option<u64>,
    /// As [`Builder::free_memory_target`].
    pub free_memory_target: Option<u64>,
    /// As [`Builder::time_to_live`].
    pub time_to_live: Option<Duration>,
    /// As [`Builder::durability`].
    pub durability: Option<Durability>,
    /// The files that were read, the nearest first.
    pub files: Vec<PathBuf>,
}

/// One file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    root: bool,
    directory: Option<PathBuf>,
    enabled: Option<bool>,
    memory_capacity: Option<Size>,
    disk_capacity: Option<Size>,
    free_memory_target: Option<Size>,
    #[serde(deserialize_with = "time")]
    time_to_live: Option<Duration>,
    #[serde(deserialize_with = "durability")]
    durability: Option<Durability>,
}

impl Config {
    /// The settings for a process that works in `start`: of its `thermocline.toml`, then of those in the directories above, up to
    /// one with `root = true`. Without any file nothing is set.
    ///
    /// # Errors
    /// [`Error::Config`] for a file that is no TOML or has settings that cannot be, with the line; [`Error::Io`] for one that
    /// cannot be read.
    pub fn find(start: impl AsRef<Path>) -> Result<Self> {
        let mut config = Self::default();
        for directory in start.as_ref().ancestors() {
            let file = directory.join(FILE);
            let Some(text) = read(&file)? else { continue };
            let found = parse(&file, &text)?;
            let is_root = found.root;
            config.take(found, directory);
            config.files.push(file);
            if is_root {
                break;
            }
        }
        Ok(config)
    }

    /// Takes over what no nearer file has said.
    fn take(&mut self, file: File, place: &Path) {
        self.directory = self.directory.take().or_else(|| file.directory.map(|directory| place.join(directory)));
        self.enabled = self.enabled.or(file.enabled);
        self.memory_capacity = self.memory_capacity.or(file.memory_capacity.map(Size::bytes));
        self.disk_capacity = self.disk_capacity.or(file.disk_capacity.map(Size::bytes));
        self.free_memory_target = self.free_memory_target.or(file.free_memory_target.map(Size::bytes));
        self.time_to_live = self.time_to_live.or(file.time_to_live);
        self.durability = self.durability.or(file.durability);
    }

    /// Sets what is set.
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        if let Some(bytes) = self.memory_capacity {
            builder = builder.memory_capacity(bytes);
        }
        if let Some(bytes) = self.disk_capacity {
            builder = builder.disk_capacity(bytes);
        }
        if let Some(bytes) = self.free_memory_target {
            builder = builder.free_memory_target(bytes);
        }
        if let Some(ttl) = self.time_to_live {
            builder = builder.time_to_live(ttl);
        }
        if let Some(durability) = self.durability {
            builder = builder.durability(durability);
        }
        builder
    }
}

/// The text of a file; `None` if there is none.
fn read(file: &Path) -> Result<Option<String>> {
    let io = |source| Error::Io { action: "read", file: file.display().to_string(), offset: 0, source };
    match fs::metadata(file) {
        Ok(found) if found.len() > BYTES_MAX => {
            Err(io(io::Error::other(format!("{} bytes are too many", found.len()))))
        }
        Ok(_) => fs::read_to_string(file).map(Some).map_err(io),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(io(error)),
    }
}

fn parse(file: &Path, text: &str) -> Result<File> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
        Error::Config { file: file.display().to_string(), line, what: error.message().replace('\n', ", ") }
    })
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = humantime::parse_duration(&text).map_err(|error| de::Error::custom(format!("`{text}`: {error}")))?;
    if duration.is_zero() {
        return Err(de::Error::custom("a duration of zero; leave it out if there is to be no limit"));
    }
    Ok(Some(duration))
}

fn durability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Durability>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "volatile" => Ok(Some(Durability::Volatile)),
        "buffered" => Ok(Some(Durability::Buffered)),
        "synced" => Ok(Some(Durability::Synced)),
        _ => Err(de::Error::custom(format!("`{text}` is none of volatile, buffered, synced"))),
    }
}
