//! What may be typed: the commands, their options, and which of them go together.
//!
//! Holds names and shapes only. Keys stay as they were typed until [`Common::key`] reads them, because
//! `--key-hex` may stand anywhere on the line.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint, error::ErrorKind};
use clap_complete::Shell;
use thermocline::Compression;

use crate::{
    keys,
    outcome::{Ending, Failure, Outcome},
    output::Output,
};

const EXAMPLES: &str = "\
Examples:
  thermocline set user:1 '{\"name\":\"Alice\"}' --ttl 1h
  thermocline get user:1
  thermocline ls --prefix user: --format json
  thermocline export --format binary cache.bin

Exit status: 0; 1 when there is no such key; 2 on failure, with one line that says what and where.";

/// Look into a thermocline store and change it
#[derive(Parser)]
#[command(name = "thermocline", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
pub(crate) struct Common {
    /// The store's directory
    #[arg(long, global = true, value_name = "DIR", env = "THERMOCLINE_DIR", default_value = "./thermocline.d")]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Tables for people or JSON lines for programs; `binary` is for export
    #[arg(long, global = true, value_name = "FORM")]
    pub(crate) format: Option<Format>,
    /// Keys are typed, and shown in tables, as hexadecimal digits
    #[arg(long, global = true)]
    pub(crate) key_hex: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Binary,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write one entry; the store is made if it is missing
    Set(Set),
    /// Write a value to stdout, untouched
    Get {
        /// The entry's key
        key: OsString,
    },
    /// Remove entries
    Rm {
        /// The entries' keys
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<OsString>,
    },
    /// List entries, in no particular order
    Ls(Ls),
    /// Show what is known of an entry
    Metadata {
        /// The entry's key
        key: OsString,
    },
    /// Write the entries that come in on stdin as JSON lines
    ///
    /// One entry a line: {"key": …, "value": …, "ttl_ms": …}. Bytes that are no UTF-8 come as `key_base64`
    /// and `value_base64`; without `ttl_ms` the entry stays.
    SetMany(Keeping),
    /// Write entries to stdout as JSON lines, in the order of the keys
    ///
    /// A key that is not there gives {"key": …, "value": null}.
    GetMany {
        /// The entries' keys
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<OsString>,
    },
    /// Write every entry of a file into the store
    ///
    /// Reads what `export` writes and tells its form by the first bytes. Stops at a broken line or record, keeps
    /// what came before and says how many and where.
    Import {
        /// The file to read [default: stdin]
        #[arg(default_value = "-", hide_default_value = true, value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        keeping: Keeping,
    },
    /// Write every entry into a file, as JSON lines or with `--format binary`
    Export {
        /// The file to write [default: stdout]
        #[arg(default_value = "-", hide_default_value = true, value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Show the store's figures
    Stats,
    /// Check every record; exits 2 on damage
    Verify,
    /// Give back the space of what is no longer needed
    Compact(Keeping),
    /// Copy the store into a directory that is absent or empty
    Backup {
        /// Where the copy goes
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Write the completion script of a shell to stdout
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// How the log is kept while a command works on it.
#[derive(Args)]
pub(crate) struct Keeping {
    /// How records are compressed that compaction moves: none, zstd, or zstd:LEVEL [default: zstd]
    #[arg(long, value_name = "METHOD", value_parser = compression)]
    pub(crate) compression: Option<Compression>,
    /// The most that the log's files may take, in bytes; the oldest entries go when it is reached [default: no limit]
    #[arg(long, value_name = "BYTES")]
    pub(crate) disk_capacity: Option<u64>,
}

fn compression(typed: &str) -> Result<Compression, String> {
    match typed.split_once(':') {
        None if typed == "none" => Ok(Compression::none()),
        None if typed == "zstd" => Ok(Compression::default()),
        Some(("zstd", level)) => {
            level.parse().map(Compression::zstd).map_err(|_| format!("{level} is no level of zstd"))
        }
        _ => Err("expected none, zstd, or zstd:LEVEL as in zstd:9".to_owned()),
    }
}

#[derive(Args)]
pub(crate) struct Set {
    /// The entry's key
    pub(crate) key: OsString,
    /// The entry's value; `-` reads it from stdin
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    pub(crate) value: Option<OsString>,
    /// Take the value from a file
    #[arg(long, value_name = "PATH", conflicts_with = "value", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// How long the entry lives, as in 1h, 15m or 250ms [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// What the write survives: the process's death, or a power cut
    #[arg(long, value_name = "LEVEL")]
    pub(crate) durability: Option<Durability>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Durability {
    Buffered,
    Synced,
}

#[derive(Args)]
pub(crate) struct Ls {
    /// Only keys that start so
    #[arg(long, value_name = "KEY")]
    pub(crate) prefix: Option<OsString>,
    /// Only keys that match, as in 'user:*'
    #[arg(long, value_name = "PATTERN", value_parser = globset::Glob::new)]
    pub(crate) glob: Option<globset::Glob>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
}

impl Cli {
    /// Reads the command line; on misuse says what is wrong and ends the process with 2.
    pub(crate) fn from_command_line() -> Self {
        let cli = Self::parse();
        if let Some(misuse) = cli.misuse() {
            Self::command().error(ErrorKind::InvalidValue, misuse).exit();
        }
        cli
    }

    /// What `--format` cannot mean for this command, if so.
    fn misuse(&self) -> Option<&'static str> {
        match (&self.command, self.common.format) {
            (Command::Export { .. }, Some(Format::Table)) => Some("export writes json or binary, not a table"),
            (Command::Export { .. } | Command::Import { .. }, _) => None,
            (_, Some(Format::Binary)) => Some("only export writes the binary form"),
            _ => None,
        }
    }
}

impl Common {
    /// Whether rows are for a program.
    pub(crate) fn json(&self) -> bool {
        self.format == Some(Format::Json)
    }

    /// The bytes of a key, from the way it was typed.
    pub(crate) fn key(&self, typed: &OsStr) -> Result<Vec<u8>, Failure> {
        if self.key_hex { keys::from_hex(typed) } else { Ok(typed.as_encoded_bytes().to_vec()) }
    }

    /// The key as people see it.
    pub(crate) fn shown(&self, key: &[u8]) -> String {
        match key {
            [] => "\"\"".into(),
            _ if self.key_hex => keys::hex(key),
            _ => keys::escaped(key),
        }
    }
}

/// Writes the completion script of `shell` to stdout.
pub(crate) fn completions(shell: Shell) -> Ending {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "thermocline", &mut script);
    let mut output = Output::stdout();
    output.bytes(&script)?;
    output.finish()?;
    Ok(Outcome::Done)
}
