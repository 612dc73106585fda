//! How a command ends: the exit code, and the one line that explains it.
//!
//! A reader that closes our stdout has seen enough, so that ends the command quietly.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

/// What a command gives back to `main`.
pub(crate) type Ending = Result<Outcome, Failure>;

/// The ends that need no explanation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit 0.
    Done,
    /// Exit 1: a key was not there, and the rest was done.
    Missing,
}

/// The end that does.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit 2, after this line.
    Told(String),
    /// Exit 0: nobody reads our stdout any more.
    PipeClosed,
}

impl Failure {
    /// Says what was being done to `what` when the system refused; made for `map_err`.
    pub(crate) fn io(action: &'static str, what: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::BrokenPipe => Self::PipeClosed,
            _ => Self::Told(format!("{action} {what}: {source}")),
        }
    }
}

impl From<thermocline::Error> for Failure {
    fn from(error: thermocline::Error) -> Self {
        Self::Told(error.to_string())
    }
}

/// Says what is to be said, and turns the end into the process's exit code.
pub(crate) fn exit_code(ending: Ending) -> ExitCode {
    match ending {
        Ok(Outcome::Done) | Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Ok(Outcome::Missing) => ExitCode::from(1),
        Err(Failure::Told(line)) => {
            say(&line);
            ExitCode::from(2)
        }
    }
}

/// Writes one line to stderr, whatever is in it.
pub(crate) fn say(words: &str) {
    let mut line = String::from("thermocline: ");
    for character in words.chars() {
        if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
    }
    line.push('\n');
    // Without a stderr there is nobody left to tell.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// A number of things in words: `1 entry`, `16 entries`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
