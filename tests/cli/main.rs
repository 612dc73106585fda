//! The command, as a shell sees it: what goes to stdout, what to stderr, and the exit code.
//!
//! Every test runs the real binary in a directory of its own; none shares a store with another.
#![cfg(feature = "cli")]

mod absence;
mod batch;
mod failure;
mod key;
mod listing;
mod shell;
mod transfer;
mod usage;
mod value;
