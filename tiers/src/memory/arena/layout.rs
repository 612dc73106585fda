//! How a record in memory is laid out: its header, the flags and the lengths in it, and what it takes.
//!
//! Safe code, and no record: those are read in `arena.rs` and beside it. Invariant: header, deadline if there is one, key, value, and what is
//! kept besides on a border of eight bytes, in this order.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use super::kept::KEPT_BYTES;
use crate::{log::NewRecord, memory::classes::rounded};

/// What stands before the key. All of it atomic: those who sample look at records that come and go.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    pub(super) sequence: AtomicU64,
    /// The home: 40 bits of a log address.
    pub(super) home_low: AtomicU32,
    pub(super) home_high: AtomicU8,
    pub(super) state: AtomicU8,
    pub(super) history: AtomicU16,
    pub(super) lengths: AtomicU64,
}

pub(super) const HEADER_BYTES: u64 = size_of::<Header>() as u64;
const _: () = assert!(HEADER_BYTES == 24 && align_of::<Header>() == 8);

/// Flags of `Header::state`.
pub(super) mod state {
    /// Constructed and not retired.
    pub(in crate::memory::arena) const LIVE: u8 = 1;
    /// It has a home: a record in the log that says the same.
    pub(in crate::memory::arena) const AT_HOME: u8 = 2;
    /// Somebody is giving it one.
    pub(in crate::memory::arena) const MOVING_IN: u8 = 4;
    /// Eight bytes behind the header are its deadline.
    pub(in crate::memory::arena) const EXPIRES: u8 = 8;
    /// Its home is packed: it takes something else there than its lengths say.
    pub(in crate::memory::arena) const PACKED: u8 = 16;
    /// Behind the value is an object, and the value stands here only if it has no home.
    pub(in crate::memory::arena) const KEEPS: u8 = 32;
    /// Somebody asked for it since it was last looked at.
    pub(in crate::memory::arena) const VISITED: u8 = 64;
}

/// Bytes between the header and the key.
#[inline]
pub(super) fn skipped(flags: u8) -> usize {
    usize::from(flags & state::EXPIRES)
}

/// Where a record has what it keeps besides: bytes from its start.
#[inline]
pub(super) fn kept_at(key: usize, value: usize, flags: u8) -> usize {
    (HEADER_BYTES as usize + skipped(flags) + key + value).next_multiple_of(8)
}

/// `Header::lengths`: 16 bits of key, 30 bits of value, 16 bits of holders, and two flags.
#[derive(Clone, Copy)]
pub(super) struct Lengths(pub(super) u64);

impl Lengths {
    const VALUE_SHIFT: u32 = 16;
    pub(super) const HOLDER: u64 = 1 << 46;
    pub(super) const HOLDERS: u64 = 0xffff << 46;
    /// Nobody counts further; who comes later copies.
    pub(super) const HOLDERS_MAX: u64 = 60_000 << 46;
    /// The tier has it.
    pub(super) const TIER: u64 = 1 << 62;
    /// The tier has left it to its holders, and with it a share in the arena.
    pub(super) const LEFT: u64 = 1 << 63;

    pub(super) fn new(key: usize, value: usize) -> Self {
        Self(key as u64 | (value as u64) << Self::VALUE_SHIFT | Self::TIER)
    }

    #[inline]
    pub(super) fn key(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    #[inline]
    pub(super) fn value(self) -> usize {
        (self.0 >> Self::VALUE_SHIFT & 0x3fff_ffff) as usize
    }

    pub(super) fn is_forgotten(self) -> bool {
        self.0 & (Self::HOLDERS | Self::TIER) == 0
    }
}

/// Bytes that a record with such flags takes of the arena, before rounding.
#[inline]
pub(super) fn bytes_of(key: usize, value: usize, flags: u8) -> u64 {
    match flags & state::KEEPS {
        0 => HEADER_BYTES + skipped(flags) as u64 + key as u64 + value as u64,
        _ => kept_at(key, value, flags) as u64 + KEPT_BYTES,
    }
}

/// The flags that say what a record has beside key and value.
pub(super) fn flags_of(record: &NewRecord<'_>) -> u8 {
    let expires = if record.header.deadline_ms != 0 { state::EXPIRES } else { 0 };
    expires | if record.kept.is_some() { state::KEEPS } else { 0 }
}

/// Bytes that a record of a key and a value takes of the arena.
pub(in crate::memory) fn arena_bytes(record: &NewRecord<'_>) -> u64 {
    rounded(bytes_of(record.key.len(), record.value.len(), flags_of(record)))
}
