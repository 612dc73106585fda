//! Objects: entries of namespaces, as the caches that have them work with them.
//!
//! Holds the ways to read and write one. Never knows its type, nor what its bytes mean: who asks brings a way to decode them. A hit in
//! memory decodes nothing. Invariant: what was cleared, has expired or cannot be decoded is a miss, and never an error.

use std::sync::Arc;

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    memory::{self, Decoded, Kept},
};

use crate::{
    Tier, clock,
    counters::Count,
    engine::Core,
    found::{Found, is_same},
    get::Trace,
    insert::Attributes,
    namespace::{Namespace, Tally},
};

/// What is known of an entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// The store-wide number of the write that made it.
    pub sequence: u64,
    /// When it was written: Unix time in ms.
    pub created_ms: u64,
    /// When it expires: Unix time in ms; 0: never.
    pub deadline_ms: u64,
    /// Where it was found.
    pub tier: Tier,
}

impl Facts {
    #[inline]
    fn of(sequence: u64, deadline_ms: u64, tier: Tier) -> Self {
        Self { sequence, created_ms: clock::created_ms(sequence), deadline_ms, tier }
    }
}

impl Core {
    /// Shows the entry of `key`, which begins as the namespace's keys do. If memory has none decoded, `decode` makes it of the entry's
    /// bytes, and memory keeps it; `None` says that the bytes are not what they should be. The store cannot shed what `show` looks at,
    /// so it should be short.
    ///
    /// # Errors
    /// [`Error::Io`]. What is damaged is a miss.
    #[inline]
    pub fn read_object<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        decode: &Decode<'_>,
        show: impl FnOnce(&Decoded, Facts) -> R,
    ) -> Result<Option<R>> {
        let (guard, hash) = (Guard::pin(), self.log.keys().hash(key));
        if let Some((record, kept)) = self.first_kept(hash, key, &guard)
            && namespace.has(record.sequence())
        {
            self.touch(hash, &record);
            if namespace.bound.is_bounded() {
                record.visit();
            }
            self.count_access(Count::HitMemory, &guard);
            namespace.count(Tally::Hit, &guard);
            let facts = Facts::of(record.sequence(), record.deadline_ms(), Tier::Memory);
            return Ok(Some(show(kept.decoded(), facts)));
        }
        let found = self.find_object(namespace, (hash, key), Trace::Full, &guard, decode)?;
        Ok(found.map(|(decoded, facts)| show(&decoded, facts)))
    }

    /// As [`read_object`](Self::read_object), leaving no trace in counters or history, and bringing nothing to memory.
    ///
    /// # Errors
    /// As for [`read_object`](Self::read_object).
    pub fn peek_object(
        &self,
        namespace: &Namespace,
        key: &[u8],
        decode: &Decode<'_>,
    ) -> Result<Option<(Decoded, Facts)>> {
        let hash = self.log.keys().hash(key);
        self.find_object(namespace, (hash, key), Trace::None, &Guard::pin(), decode)
    }

    /// The record of `key` and what it keeps, if its slot is the first whose tag agrees and it is in memory.
    #[inline(always)]
    fn first_kept<'a>(&'a self, hash: u64, key: &[u8], guard: &'a Guard) -> Option<(memory::Record<'a>, &'a Kept)> {
        let at = self.index.first_candidate(hash).filter(|at| at.kind() == Kind::Memory)?;
        let record = self.memory.record(at, guard)?;
        let is_it = is_same(record.key(), key) && (!record.expires() || self.is_living_until(record.deadline_ms()));
        Some((record, record.kept()?)).filter(|_| is_it)
    }

    #[inline(never)]
    fn find_object(
        &self,
        namespace: &Namespace,
        (hash, key): (u64, &[u8]),
        trace: Trace,
        guard: &Guard,
        decode: &Decode<'_>,
    ) -> Result<Option<(Decoded, Facts)>> {
        let found = self.look_for(hash, key, trace, guard, |found| {
            if !namespace.has(found.sequence()) {
                return Ok(None);
            }
            let (sequence, deadline_ms) = (found.sequence(), found.deadline_ms());
            if let Found::Memory(record) = found
                && let Some(kept) = record.kept()
            {
                return Ok(Some(Ok((kept.clone(), Facts::of(sequence, deadline_ms, Tier::Memory)))));
            }
            let tier = if matches!(found, Found::Memory(_)) { Tier::Memory } else { Tier::Log };
            let keep = |bytes: &[u8]| Some(Kept::new(decode(bytes)?, bytes.len() as u64));
            let kept = self.show_value(found, keep)?;
            Ok(Some(kept.map(|kept| (kept, Facts::of(sequence, deadline_ms, tier))).ok_or(Undecodable)))
        });
        let is_traced = trace == Trace::Full;
        let (at, taken) = match found {
            Ok((at, taken)) => (at, taken.transpose()),
            Err(error) => (Location::nothing(), Err(error)),
        };
        let why = match taken {
            Ok(Some(Some(Ok((kept, facts))))) => {
                if is_traced {
                    namespace.count(Tally::Hit, guard);
                    match at.kind() {
                        Kind::Memory => self.count_access(Count::HitMemory, guard),
                        _ => {
                            self.visit_member(namespace, hash);
                            self.found_in_log(hash, at, Some(&kept), guard);
                        }
                    }
                }
                return Ok(Some((kept.into_decoded(), facts)));
            }
            Ok(Some(Some(Err(Undecodable)))) | Err(Error::Corrupt { .. }) => Some(Count::MissUnreadable),
            // Cleared, and not swept yet.
            Ok(Some(None)) => Some(Count::MissRemoved),
            Ok(None) => None,
            Err(error) => return Err(error),
        };
        if is_traced {
            self.count_object_miss(namespace, why, guard);
        }
        Ok(None)
    }

    /// Shows the bytes of an entry where they stand, or where they were decompressed, whatever memory keeps of it; brings nothing to
    /// memory. `None` from `show` says that they are not what they should be: a miss.
    ///
    /// # Errors
    /// As for [`read_object`](Self::read_object).
    pub fn read_bytes<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        show: impl FnOnce(&[u8]) -> Option<R>,
    ) -> Result<Option<R>> {
        let (guard, hash) = (Guard::pin(), self.log.keys().hash(key));
        let found = self.look_for(hash, key, Trace::Full, &guard, |found| match namespace.has(found.sequence()) {
            true => {
                let (shown, is_logged) = self.show_bytes(found, show)?;
                Ok(Some(shown.map(|shown| (shown, is_logged))))
            }
            false => Ok(None),
        });
        let (at, shown) = match found {
            Ok((at, shown)) => (at, shown.transpose()),
            Err(error) => (Location::nothing(), Err(error)),
        };
        let why = match shown {
            Ok(Some(Some(Some((shown, is_logged))))) => {
                self.visit_member(namespace, hash);
                namespace.count(Tally::Hit, &guard);
                self.count_access(if is_logged { Count::HitLog } else { Count::HitMemory }, &guard);
                if at.is_unverified() {
                    self.note_verified(hash, at, &guard);
                }
                return Ok(Some(shown));
            }
            Ok(Some(Some(None))) | Err(Error::Corrupt { .. }) => Some(Count::MissUnreadable),
            Ok(Some(None)) => Some(Count::MissRemoved),
            Ok(None) => None,
            Err(error) => return Err(error),
        };
        self.count_object_miss(namespace, why, &guard);
        Ok(None)
    }

    /// Shows the bytes of a record, also of one that keeps what they say in their place: those are in its home. `true`: they are in
    /// the log.
    fn show_bytes<R>(&self, found: Found<'_>, show: impl FnOnce(&[u8]) -> R) -> Result<(R, bool)> {
        match found {
            Found::Memory(record) if let (Some(_), Some(home)) = (record.kept(), record.home()) => {
                let shown = self.log.read(home, |logged| self.show_value(Found::Log(logged, home), show))?;
                Ok((shown?, true))
            }
            Found::Memory(_) => Ok((self.show_value(found, show)?, false)),
            Found::Log(..) => Ok((self.show_value(found, show)?, true)),
        }
    }

    /// Counts a miss of a namespace; why, if nobody has counted that yet.
    fn count_object_miss(&self, namespace: &Namespace, why: Option<Count>, guard: &Guard) {
        namespace.count(Tally::Miss, guard);
        if let Some(why) = why {
            self.counters.add(why, 1, guard);
            if why == Count::MissUnreadable {
                namespace.count(Tally::Unreadable, guard);
            }
        }
    }

    /// Drops what memory kept for caches and lets go. That runs code of theirs, which may call the store: to be called, before a write,
    /// by those who hold nothing.
    #[inline]
    pub fn drop_released(&self) {
        self.memory.drop_released();
    }

    /// Writes an entry: `bytes` to the log, and to memory what they say, `decoded`.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn insert_object(
        &self,
        namespace: &Namespace,
        key: &[u8],
        bytes: &[u8],
        decoded: Decoded,
        attributes: &Attributes,
    ) -> Result<()> {
        debug_assert!(key.starts_with(namespace.prefix()));
        let kept = Kept::new(decoded, bytes.len() as u64);
        let sequence = self.insert_kept(key, bytes, Some(&kept), attributes)?;
        self.note_member(namespace, key, bytes.len(), sequence);
        Ok(())
    }

    /// Removes an entry; `true` if it was there.
    ///
    /// # Errors
    /// As for [`remove`](Self::remove).
    pub fn remove_object(&self, namespace: &Namespace, key: &[u8]) -> Result<bool> {
        let was_there = self.peek_sequence(key)?.is_some_and(|sequence| namespace.has(sequence));
        // Before the removal: what is noted behind it stays noted.
        let member = self.forget_member(namespace, key);
        let removed = self.remove(key);
        if removed.is_err() {
            self.note_again(namespace, key, member);
        }
        Ok(removed? && was_there)
    }

    fn peek_sequence(&self, key: &[u8]) -> Result<Option<u64>> {
        match self.metadata(key) {
            // Removing it is what heals it.
            Err(Error::Corrupt { .. }) => Ok(Some(u64::MAX)),
            found => Ok(found?.map(|found| found.sequence)),
        }
    }

    /// Walks over the entries of a namespace: each key, without what all of them begin with. Weakly consistent, never blocks writers,
    /// leaves no trace. What is damaged, and what `decode` refuses, is left out.
    pub fn objects<'a>(
        &'a self,
        namespace: &'a Arc<Namespace>,
        decode: impl Fn(&[u8]) -> Option<Decoded> + 'a,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Decoded, Facts)>> + 'a {
        self.keys_behind(namespace.prefix()).filter_map(move |key| {
            let found = match key {
                Err(Error::Corrupt { .. }) => return None,
                Err(error) => return Some(Err(error)),
                Ok(key) => {
                    let stored = [namespace.prefix(), &key[..]].concat();
                    self.peek_object(namespace, &stored, &decode)
                        .map(|found| found.map(|(decoded, facts)| (key, decoded, facts)))
                }
            };
            found.transpose()
        })
    }
}

/// Makes an entry of its bytes; `None`: they are not what they should be.
pub type Decode<'a> = dyn Fn(&[u8]) -> Option<Decoded> + 'a;

/// Bytes that are not what they should be.
struct Undecodable;
