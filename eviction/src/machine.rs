//! The machine as the memory tier sees it: how much memory there is, and how much of it can be had.
//!
//! Holds what a look gives and the look at the real machine: sysinfo for the whole of it, the limits of the process's
//! own cgroups and the kernel's account of stalls where there are any. Decides nothing. Invariant: what cannot be read
//! is no limit, never an error.

mod cgroup;
mod stall;

use std::{fmt, path::Path};

use sysinfo::MemoryRefreshKind;

use self::cgroup::{Cgroups, Room};

/// The share of the last ten seconds in which work stood still for want of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Some of the work stood still: 0 to 100.
    pub some_percent_avg10: f32,
    /// All of it did: 0 to 100.
    pub full_percent_avg10: f32,
}

/// What a look at the machine gives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    /// The most that the process could ever have: the machine's memory, or its strictest limit. 0 only if neither could
    /// be read.
    pub total_bytes: u64,
    /// What a program can be given now without swapping: page cache that can be dropped counts as available.
    pub available_bytes: u64,
    /// How work stalls for want of memory, where the kernel says so.
    pub stall: Option<Stall>,
}

impl View {
    /// Nothing could be read.
    pub const UNKNOWN: Self = Self { total_bytes: 0, available_bytes: 0, stall: None };

    /// A look that saw so much, and no stalls.
    pub const fn new(total_bytes: u64, available_bytes: u64) -> Self {
        Self { total_bytes, available_bytes, stall: None }
    }

    /// Whether the figures of memory are known at all.
    pub const fn is_known(&self) -> bool {
        self.total_bytes > 0
    }

    /// The least of what the machine (0 in all if it is not known) and the rooms of the cgroups give.
    fn narrowed(machine: Self, rooms: impl IntoIterator<Item = Room>, stall: Option<Stall>) -> Self {
        let known = machine.is_known().then_some((machine.total_bytes, machine.available_bytes));
        // A limit of 0 is a limit: the total stays above 0, which would say that nothing is known.
        let rooms = rooms.into_iter().map(|room| (room.limit_bytes.max(1), room.available_bytes));
        let least = known.into_iter().chain(rooms).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
        let (total_bytes, available_bytes) = least.unwrap_or_default();
        Self { total_bytes, available_bytes, stall }
    }
}

/// Where memory is looked at: the real machine, or a made-up one.
pub trait Machine: Send + fmt::Debug {
    /// Looks at the machine as it is now. May read some small files; never fails.
    fn look(&mut self) -> View;
}

/// The machine that the process runs on.
#[derive(Debug)]
pub struct System {
    /// `None` on a platform that sysinfo does not know.
    memory: Option<sysinfo::System>,
    cgroups: Cgroups,
}

impl System {
    /// Prepares to look; reads nothing yet.
    pub fn new() -> Self {
        Self { memory: sysinfo::System::new().ok(), cgroups: Cgroups::new(Path::new("/")) }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine for System {
    fn look(&mut self) -> View {
        let machine = self.memory.as_mut().map_or(View::UNKNOWN, |memory| {
            memory.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            View::new(memory.total_memory(), memory.available_memory())
        });
        self.cgroups.find();
        View::narrowed(machine, self.cgroups.rooms(), self.cgroups.stall())
    }
}

#[cfg(test)]
mod tests;
