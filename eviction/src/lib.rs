//! Who leaves memory, and when: decisions as functions of numbers.
//!
//! Never holds keys, bytes, files or a tier. What it asks of memory and machine are traits that it defines.
#![forbid(unsafe_code)]

mod frequent;
mod history;
mod janitor;
mod learned;
mod machine;
mod policy;
mod pressure;
mod ticks;

pub use frequent::Frequent;
pub use history::History;
pub use janitor::{Janitor, Observation, Options, ThreadState, Tier, Watch};
pub use learned::{Aim, LearnedSweep};
pub use machine::{Machine, Stall, System, View};
pub use policy::{Policy, teachers};
pub use pressure::{Level, Pressure, Verdict};
pub use ticks::Ticks;
