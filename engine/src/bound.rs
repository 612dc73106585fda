//! The limits of a namespace: how many entries it may have over both tiers, and how many bytes.
//!
//! Holds who is there, by hash, in the order of coming. Never holds a key. Invariant: every entry that was written since the
//! namespace was opened, or was there then, is a member until it has left; a member may have left already.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashlink::LinkedHashMap;
use thermocline_tiers::{Error, Guard, Result};

use crate::{counters::Count, engine::Core, found::Found, index::Look, namespace::Namespace};

/// How many entries a write passes over that were asked for since they were last looked at.
const PASSED_OVER_MAX: u32 = 16;
/// How many stay before a write looks no further: beyond those passed over, others are writing them, and look themselves.
const STAYED_MAX: u32 = 64;

/// How much a namespace may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Entries.
    pub entries_max: Option<u64>,
    /// Bytes of keys and values.
    pub bytes_max: Option<u64>,
}

impl Limits {
    /// Limits; `None` is no limit.
    pub fn new(entries_max: Option<u64>, bytes_max: Option<u64>) -> Self {
        Self { entries_max, bytes_max }
    }

    pub(crate) fn check(self) -> Result<()> {
        for (option, limit) in [("max_entries", self.entries_max), ("max_bytes", self.bytes_max)] {
            if limit == Some(0) {
                let (found, expected) = ("0".to_owned(), "a number above zero".to_owned());
                return Err(Error::Option { option, found, expected });
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Bound {
    limits: Limits,
    members: Mutex<Members>,
}

/// Who is there: the one that came first, or was passed over longest ago, in front.
#[derive(Debug, Default)]
struct Members {
    by_hash: LinkedHashMap<u64, Member>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    bytes: u64,
    /// Of the write that was noted.
    sequence: u64,
    /// Somebody found it in the log since it was last looked at. Of hits in memory its record there knows.
    is_visited: bool,
}

impl Members {
    /// Notes a write; of two of one key the later one counts, whichever is noted first. A key that was there keeps its place.
    fn add(&mut self, hash: u64, member: Member) {
        let there = self.by_hash.get_mut(&hash);
        match there {
            Some(there) if there.sequence > member.sequence => {}
            Some(there) => self.bytes = self.bytes + member.bytes - std::mem::replace(there, member).bytes,
            None => {
                self.bytes += member.bytes;
                self.by_hash.insert(hash, member);
            }
        }
    }

    fn remove(&mut self, hash: u64) -> Option<Member> {
        let member = self.by_hash.remove(&hash)?;
        self.bytes -= member.bytes;
        Some(member)
    }

    fn take_first(&mut self) -> Option<(u64, Member)> {
        let (hash, member) = self.by_hash.pop_front()?;
        self.bytes -= member.bytes;
        Some((hash, member))
    }
}

impl Bound {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, members: Mutex::default() }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn is_bounded(&self) -> bool {
        self.limits != Limits::default()
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Nothing panics under it.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the one that is to be looked at next out, if there are too many.
    fn take_excess(&self) -> Option<(u64, Member)> {
        let mut members = self.members();
        let count = members.by_hash.len() as u64;
        let is_over = self.limits.entries_max.is_some_and(|max| count > max)
            || self.limits.bytes_max.is_some_and(|max| members.bytes > max);
        is_over.then(|| members.take_first()).flatten()
    }
}

impl Core {
    /// Notes who is there when a namespace with limits is opened. Walks over the index.
    pub(crate) fn count_members(&self, namespace: &Namespace) -> Result<()> {
        if !namespace.bound.is_bounded() {
            return Ok(());
        }
        let mut there = Vec::new();
        for key in self.keys_behind(namespace.prefix()) {
            let stored = match key {
                Err(Error::Corrupt { .. }) => continue,
                key => [namespace.prefix(), &key?[..]].concat(),
            };
            let bytes_of = |metadata: crate::Metadata| (metadata.sequence, metadata.size_bytes + stored.len() as u64);
            match self.metadata(&stored) {
                Err(Error::Corrupt { .. }) => {}
                found => there.extend(found?.map(|found| (bytes_of(found), self.log.keys().hash(&stored)))),
            }
        }
        there.sort_unstable();
        let mut members = namespace.bound.members();
        for ((sequence, bytes), hash) in there {
            if namespace.has(sequence) {
                members.add(hash, Member { bytes, sequence, is_visited: false });
            }
        }
        Ok(())
    }

    /// Counts an entry that was written, and lets others go for it if they are too many. Of one that cannot be removed now that is tried
    /// again with the next write.
    pub(crate) fn note_member(&self, namespace: &Namespace, key: &[u8], value_bytes: usize, sequence: u64) {
        if !namespace.bound.is_bounded() {
            return;
        }
        let (hash, bytes) = (self.log.keys().hash(key), (key.len() + value_bytes) as u64);
        namespace.bound.members().add(hash, Member { bytes, sequence, is_visited: false });
        let mut stayed = 0;
        while let Some((hash, member)) = namespace.bound.take_excess() {
            let stays = self.stays(namespace, hash, member.is_visited, stayed < PASSED_OVER_MAX);
            if let Ok(true) | Err(_) = stays {
                namespace.bound.members().add(hash, Member { is_visited: false, ..member });
                stayed += 1;
            }
            if stays.is_err() || stayed == STAYED_MAX {
                return;
            }
        }
    }

    /// An entry was found in the log.
    pub(crate) fn visit_member(&self, namespace: &Namespace, hash: u64) {
        if namespace.bound.is_bounded()
            && let Some(member) = namespace.bound.members().by_hash.get_mut(&hash)
        {
            member.is_visited = true;
        }
    }

    /// An entry is about to be removed.
    pub(crate) fn forget_member(&self, namespace: &Namespace, key: &[u8]) -> Option<Member> {
        let is_bounded = namespace.bound.is_bounded();
        is_bounded.then(|| namespace.bound.members().remove(self.log.keys().hash(key))).flatten()
    }

    /// It was not.
    pub(crate) fn note_again(&self, namespace: &Namespace, key: &[u8], member: Option<Member>) {
        if let Some(member) = member {
            namespace.bound.members().add(self.log.keys().hash(key), member);
        }
    }

    /// Removes a member and says `false`, unless somebody asked for it and that is to count, or it is written just now.
    fn stays(&self, namespace: &Namespace, hash: u64, was_visited: bool, visits_count: bool) -> Result<bool> {
        let found = {
            let guard = Guard::pin();
            self.index.find(hash, &guard, |at| {
                self.tiers(&guard).read(at, |record| {
                    if !record.key().starts_with(namespace.prefix()) || self.log.keys().hash(record.key()) != hash {
                        return Look::Other;
                    }
                    let is_there = self.is_living(at, &record) && namespace.has(record.sequence());
                    let is_visited = matches!(record, Found::Memory(record) if record.take_visit());
                    Look::Found(is_there.then(|| (record.key().to_vec(), record.sequence(), is_visited)))
                })
            })
        };
        let (key, sequence, is_visited) = match found {
            Ok(Some(Some(found))) => found,
            // It has left by itself, or cannot be read: nobody gets it any more.
            Ok(_) | Err(Error::Corrupt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if (is_visited || was_visited) && visits_count {
            return Ok(true);
        }
        let exchanged = self.compare_exchange(&key, Some(sequence), None)?;
        if exchanged.is_ok() {
            let guard = Guard::pin();
            self.counters.add(Count::EvictedBound, 1, &guard);
            self.keeper.note_eviction(&key, Count::EvictedBound, self.clock.now_coarse_ms());
        }
        // What was written again meanwhile is looked at again.
        Ok(matches!(exchanged, Err(Some(_))))
    }
}
