//! A record in whichever tier it lives, as the flows see it.
//!
//! Holds the ways to read what a slot names. Never changes anything. Invariant: a location of the memory tier whose record
//! is gone says so, and whoever met it looks into the slot again.

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{self, DICTIONARIES, Header, Log, NewRecord, RecordKind},
    memory::{self, Memory},
};

use crate::index::{Look, Records, Verdict};

/// A record as it stands in memory, or in the log, and where there.
#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    Memory(memory::Record<'a>),
    Log(log::Record<'a>, Location),
}

impl<'a> Found<'a> {
    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        match self {
            Self::Memory(record) => record.key(),
            Self::Log(record, _) => record.key(),
        }
    }

    /// Whether it is a user's. A damaged one is, whatever it says of its namespace but exactly that of dictionaries.
    #[inline]
    pub(crate) fn is_users(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Log(record, _) => record.namespace() != DICTIONARIES,
        }
    }

    /// Whether it is the record of a user's key.
    #[inline]
    pub(crate) fn is_of(&self, key: &[u8]) -> bool {
        is_same(self.key(), key) && self.is_users()
    }

    #[inline]
    pub(crate) fn sequence(&self) -> u64 {
        match self {
            Self::Memory(record) => record.sequence(),
            Self::Log(record, _) => record.header().sequence,
        }
    }

    /// Where it is in the log.
    pub(crate) fn home(&self) -> Option<Location> {
        match self {
            Self::Memory(record) => record.home(),
            Self::Log(_, at) => Some(*at),
        }
    }

    pub(crate) fn header(&self) -> Header {
        match self {
            Self::Memory(record) => header_of(record),
            Self::Log(record, _) => record.header(),
        }
    }

    #[inline]
    pub(crate) fn deadline_ms(&self) -> u64 {
        match self {
            Self::Memory(record) => record.deadline_ms(),
            Self::Log(record, _) => record.header().deadline_ms,
        }
    }
}

/// Both tiers, under a guard.
#[derive(Clone, Copy)]
pub(crate) struct Tiers<'a> {
    pub(crate) log: &'a Log,
    pub(crate) memory: &'a Memory,
    pub(crate) guard: &'a Guard,
}

impl Tiers<'_> {
    /// Shows the record at `at`; holds it against its checksum only if the location is unverified.
    ///
    /// # Errors
    /// As for [`Log::read`].
    #[inline]
    pub(crate) fn read<R>(&self, at: Location, show: impl FnOnce(Found<'_>) -> Look<R>) -> Result<Look<R>> {
        match at.kind() {
            Kind::Memory => {
                Ok(self.memory.record(at, self.guard).map_or(Look::Moved, |record| show(Found::Memory(record))))
            }
            _ if at.is_nothing() => Ok(Look::Other),
            _ => self.log.read(at, |record| show(Found::Log(record, at))),
        }
    }

    /// Shows the record at `at` to somebody who will replace it: `None` if it is so damaged that it says nothing any
    /// more. Then its tag is all that is known of its key, and is believed.
    ///
    /// # Errors
    /// As for [`Log::read`].
    #[inline]
    pub(crate) fn read_to_replace<R>(
        &self,
        at: Location,
        show: impl Fn(Option<Found<'_>>) -> Look<R>,
    ) -> Result<Look<R>> {
        match at.kind() {
            Kind::Memory => {
                Ok(self.memory.record(at, self.guard).map_or(Look::Moved, |record| show(Some(Found::Memory(record)))))
            }
            _ if at.is_nothing() => Ok(Look::Other),
            // Checked if it is unverified: what it says of its key may be wrong.
            _ => match self.log.read(at, |record| show(Some(Found::Log(record, at)))) {
                Err(Error::Corrupt { .. }) => Ok(show(None)),
                other => other,
            },
        }
    }

    /// What is to become of the record at `at`, as `judge` says who sees it as in [`read_to_replace`](Self::read_to_replace).
    ///
    /// # Errors
    /// As for [`Log::read`].
    #[inline]
    pub(crate) fn judge(&self, at: Location, judge: impl Fn(Option<Found<'_>>) -> Verdict) -> Result<Verdict> {
        Ok(match self.read_to_replace(at, |found| Look::Found(judge(found)))? {
            Look::Found(verdict) => verdict,
            Look::Other => Verdict::Other,
            Look::Moved => Verdict::Moved,
        })
    }

    /// The record of the log that the one at `at` is, or has for its home; `None` if there is none. For counting.
    pub(crate) fn logged(&self, at: Location) -> Option<Logged> {
        match at.kind() {
            Kind::Memory => self.memory.record(at, self.guard).and_then(|record| self.home_of(&record)),
            _ if at.is_nothing() => None,
            _ => Some(self.logged_at(at)),
        }
    }

    fn logged_at(&self, at: Location) -> Logged {
        let logged =
            |record: log::Record<'_>| Logged { at, bytes: record.bytes().next_multiple_of(8), header: record.header() };
        // Of one that cannot be read the worst is believed: that it is older than everything, and lives for ever.
        let worst = Header { kind: RecordKind::Value, sequence: 0, deadline_ms: 0 };
        self.log.read_unchecked(at, logged).unwrap_or(Logged { at, bytes: 0, header: worst })
    }

    /// The record of the log that one in memory has for its home; `None` while it is dirty.
    pub(crate) fn home_of(&self, record: &memory::Record<'_>) -> Option<Logged> {
        let at = record.home()?;
        Some(match record.kind() {
            // What it takes there only the record there knows.
            RecordKind::Packed => self.logged_at(at),
            _ if record.kept().is_some() => self.logged_at(at),
            _ => Logged { at, bytes: record.log_bytes(), header: header_of(record) },
        })
    }
}

/// A record in memory as it is to be placed again, there or in the log.
pub(crate) fn copy_of<'a>(record: &memory::Record<'a>) -> NewRecord<'a> {
    NewRecord { header: header_of(record), namespace: 0, key: record.key(), value: record.value(), kept: record.kept() }
}

fn header_of(record: &memory::Record<'_>) -> Header {
    Header { kind: record.kind(), sequence: record.sequence(), deadline_ms: record.deadline_ms() }
}

/// A record of the log, as it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged {
    pub(crate) at: Location,
    pub(crate) bytes: u64,
    pub(crate) header: Header,
}

impl Logged {
    /// Whether it may live on if what took its place was gone by its deadline.
    pub(crate) fn outlives(&self, successor: &Header) -> bool {
        outlives(&self.header, successor)
    }
}

/// Whether a value may live on if its successor was gone: a removal, or what expires earlier.
pub(crate) fn outlives(value: &Header, successor: &Header) -> bool {
    let never_first = |header: &Header| header.deadline_ms.wrapping_sub(1);
    !successor.kind.is_value() || never_first(value) > never_first(successor)
}

impl Records for Tiers<'_> {
    fn hash_at(&self, at: Location) -> Result<Option<u64>> {
        let keys = self.log.keys();
        if at.kind() == Kind::Memory {
            // What a slot names under a closed gate is there.
            return Ok(self.memory.record(at, self.guard).map(|record| keys.hash(record.key())));
        }
        match self.log.read_unchecked(at, |record| keys.hash(record.key())) {
            Err(Error::Corrupt { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn is_forgettable(&self, at: Location) -> bool {
        at.is_nothing() || self.log.is_quiescent(at)
    }
}

/// Whether two keys are the same. Keys of 8 to 16 bytes are compared by their first and last eight, without a call.
#[inline]
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    let words = |key: &[u8]| Some((u64::from_ne_bytes(*key.first_chunk()?), u64::from_ne_bytes(*key.last_chunk()?)));
    if a.len() == b.len() && a.len() <= 16 && a.len() >= 8 { words(a) == words(b) } else { a == b }
}
