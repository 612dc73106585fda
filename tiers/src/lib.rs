//! Where thermocline's records live, and the pieces that name and protect them.
//!
//! Holds the log tier ([`log`]), the [`Slot`] word that names a record, the [`Guard`] that keeps what a
//! reader saw, and the [`Value`] that callers hold. Never holds the index, a policy, a thread or the time.
//! The bytes on disk are described in `DESIGN.md`, section *Format*.

mod error;
pub mod guard;
pub mod log;
pub mod memory;
pub mod slot;
mod sync;
mod value;

pub use error::{Error, Result};
pub use guard::Guard;
pub use slot::{Address, Kind, Location, Slot, Tag, Word};
pub use value::Value;
