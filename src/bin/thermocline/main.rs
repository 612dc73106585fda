//! The command: a store's entries and figures, from a shell.
//!
//! This file parses and dispatches; each family of commands has a module. All of them come in by the
//! library's front door. Data goes to stdout, words to stderr; exit 0, 1 (no such key) or 2 (failure, with
//! one line that says what and where).
#![forbid(unsafe_code)]

mod args;
mod batch;
mod binary;
mod damage;
mod entries;
mod entry;
mod keys;
mod listing;
mod loading;
mod outcome;
mod output;
mod progress;
mod rows;
mod stores;
mod transfer;
mod upkeep;

use std::process::ExitCode;

use args::{Cli, Command};
use outcome::Ending;

fn main() -> ExitCode {
    outcome::exit_code(run(Cli::from_command_line()))
}

fn run(cli: Cli) -> Ending {
    let common = &cli.common;
    match &cli.command {
        Command::Set(set) => entries::set(common, set),
        Command::Get { key } => entries::get(common, key),
        Command::Rm { keys } => entries::rm(common, keys),
        Command::Metadata { key } => entries::metadata(common, key),
        Command::Ls(ls) => listing::ls(common, ls),
        Command::SetMany(keeping) => batch::set_many(common, keeping),
        Command::GetMany { keys } => batch::get_many(common, keys),
        Command::Import { file, keeping } => transfer::import(common, file, keeping),
        Command::Export { file } => transfer::export(common, file),
        Command::Stats => upkeep::stats(common),
        Command::Verify => upkeep::verify(common),
        Command::Compact(keeping) => upkeep::compact(common, keeping),
        Command::Backup { directory } => upkeep::backup(common, directory),
        Command::Completions { shell } => args::completions(*shell),
    }
}
