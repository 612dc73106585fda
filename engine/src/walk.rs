//! Walks over all entries, page of the index by page.
//!
//! Holds nothing that blocks a writer: a page's locations are copied, then read one by one. Invariant: a key that is
//! there throughout is met exactly once.

use std::vec;

use thermocline_tiers::{Guard, Kind, Location, Result, Value, log::Walking, memory::Held};

use crate::{
    engine::Core,
    found::Found,
    index::{Cursor, Look},
    namespace::{Prefix, as_unnamed},
};

/// An iterator over entries, in no order. See [`Core::iter`].
#[derive(Debug)]
pub struct Iter<'a>(Walk<'a>);

/// An iterator over keys, in no order. See [`Core::keys`].
#[derive(Debug)]
pub struct Keys<'a>(Walk<'a>);

/// An iterator over the keys that are in the log, in no order. See [`Core::logged_keys`].
#[derive(Debug)]
pub struct LoggedKeys<'a>(Walk<'a>);

/// An iterator over the keys that are in memory, in no order. See [`Core::resident_keys`].
#[derive(Debug)]
pub struct ResidentKeys<'a> {
    core: &'a Core,
    block: usize,
    keys: vec::IntoIter<Vec<u8>>,
}

#[derive(Debug)]
struct Walk<'a> {
    core: &'a Core,
    whose: Whose,
    /// What the pages name stays until it was shown.
    _walking: Walking,
    cursor: Option<Cursor>,
    page: vec::IntoIter<Met>,
}

/// Whose keys are shown, and how.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// Those of the unnamed namespace, as its users know them.
    Unnamed,
    /// Those that begin so, without it.
    Behind(Prefix),
    /// All, as they are stored.
    All,
}

impl Whose {
    fn shown(self, stored: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Unnamed => as_unnamed(stored),
            Self::Behind(prefix) => stored.strip_prefix(&*prefix),
            Self::All => Some(stored),
        }
    }
}

/// A record that a walk met: its place in the log, or the record itself, which may have left its place when it is its turn.
#[derive(Debug)]
enum Met {
    Log(Location),
    Memory(Held),
    /// One that very many hold.
    Copied(Vec<u8>, Value, u64),
}

/// What is taken of an entry: it is shown the key, a way to the value, and whether it is in the log.
trait Take<R>: Fn(&[u8], &dyn Fn() -> Result<Value>, bool) -> Option<Result<R>> {}

impl<R, F: Fn(&[u8], &dyn Fn() -> Result<Value>, bool) -> Option<Result<R>>> Take<R> for F {}

impl Core {
    /// Walks over all entries. Weakly consistent: what is written meanwhile may be seen or not. Never blocks writers.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.walk(Whose::Unnamed))
    }

    /// Walks over all keys, as [`iter`](Self::iter) does over entries.
    pub fn keys(&self) -> Keys<'_> {
        Keys(self.walk(Whose::Unnamed))
    }

    /// The keys that begin with `prefix`, without it.
    pub(crate) fn keys_behind(&self, prefix: &Prefix) -> Keys<'_> {
        Keys(self.walk(Whose::Behind(*prefix)))
    }

    /// All keys of all namespaces, as they are stored.
    pub(crate) fn stored_keys(&self) -> Keys<'_> {
        Keys(self.walk(Whose::All))
    }

    /// The keys of the entries that are in memory.
    pub fn resident_keys(&self) -> ResidentKeys<'_> {
        ResidentKeys { core: self, block: 0, keys: Vec::new().into_iter() }
    }

    /// The keys of the entries that are in the log, in memory too or not.
    pub fn logged_keys(&self) -> LoggedKeys<'_> {
        LoggedKeys(self.walk(Whose::Unnamed))
    }

    fn walk(&self, whose: Whose) -> Walk<'_> {
        Walk {
            core: self,
            whose,
            _walking: self.log.walking(),
            cursor: Some(Cursor::default()),
            page: Vec::new().into_iter(),
        }
    }
}

impl Walk<'_> {
    /// Copies the next page that has entries; `false` behind the last.
    ///
    /// # Errors
    /// What reading the index says: the walk is over.
    fn next_page(&mut self) -> Result<bool> {
        let core = self.core;
        while let Some(cursor) = self.cursor {
            let guard = Guard::pin();
            let mut locations = Vec::new();
            let next = core.index.page_at(cursor, &guard, &mut locations).inspect_err(|_| self.cursor = None)?;
            let living = locations.into_iter().filter(|at| at.kind() != Kind::Removed);
            let page: Option<Vec<_>> = living.map(|at| Met::new(core, at, &guard)).collect();
            // If a record has moved meanwhile, the page says something else by now.
            let Some(page) = page else { continue };
            self.cursor = next;
            if !page.is_empty() {
                self.page = page.into_iter();
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next<R>(&mut self, take: impl Take<R>) -> Option<Result<R>> {
        loop {
            let Some(met) = self.page.next() else {
                match self.next_page() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                }
            };
            if let Some(taken) = met.take(self.core, self.whose, &take).transpose() {
                return Some(taken);
            }
        }
    }
}

impl Met {
    fn new(core: &Core, at: Location, guard: &Guard) -> Option<Self> {
        if at.kind() == Kind::Log {
            return Some(Self::Log(at));
        }
        let record = core.memory.record(at, guard)?;
        Some(match record.hold() {
            Some(held) => Self::Memory(held),
            None => Self::Copied(record.key().to_vec(), Value::of(&record), record.deadline_ms()),
        })
    }

    /// Shows key, value, and whether it is in the log, unless it has expired or is none of the user's.
    fn take<R>(self, core: &Core, whose: Whose, take: &impl Take<R>) -> Result<Option<R>> {
        let guard = Guard::pin();
        let take = |key: &[u8], value: &dyn Fn() -> Result<Value>, is_logged| take(whose.shown(key)?, value, is_logged);
        let is_before = |deadline_ms| core.is_living_until(deadline_ms);
        match self {
            // Even a damaged one is for those to hear who need it.
            Self::Log(at) if at.is_unverified() && core.is_dictionary(at) => Ok(None),
            Self::Log(at) => {
                let taken = core.tiers(&guard).read(at, |record| {
                    let living = record.is_users() && core.is_living(at, &record);
                    Look::Found(living.then(|| take(record.key(), &|| core.value_of(record), true)).flatten())
                })?;
                if let Look::Found(taken) = taken { taken.transpose() } else { Ok(None) }
            }
            Self::Memory(held) => {
                let is_logged = held.is_at_home();
                let is_living = is_before(held.deadline_ms());
                let key = held.key().to_vec();
                let value = Value::from(held);
                is_living.then(|| take(&key, &|| Ok(value.clone()), is_logged)).flatten().transpose()
            }
            Self::Copied(key, value, deadline_ms) => {
                is_before(deadline_ms).then(|| take(&key, &|| Ok(value.clone()), true)).flatten().transpose()
            }
        }
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<(Vec<u8>, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|key, value, _| Some(value().map(|value| (key.to_vec(), value))))
    }
}

impl Iterator for Keys<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|key, _, _| Some(Ok(key.to_vec())))
    }
}

impl Iterator for LoggedKeys<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|key, _, is_logged| is_logged.then(|| Ok(key.to_vec())))
    }
}

impl Iterator for ResidentKeys<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(key) = self.keys.next() {
                return Some(key);
            }
            if self.block >= self.core.memory.blocks_end() {
                return None;
            }
            let guard = Guard::pin();
            let records = self.core.memory.records_of(self.block, &guard);
            let living = records.filter(|(at, record)| self.core.is_living(*at, &Found::Memory(*record)));
            self.keys = living
                .filter_map(|(_, record)| Some(as_unnamed(record.key())?.to_vec()))
                .collect::<Vec<_>>()
                .into_iter();
            self.block += 1;
        }
    }
}
