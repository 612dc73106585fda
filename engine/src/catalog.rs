//! The catalog: what a store remembers of its namespaces.
//!
//! Holds names, their numbers and watermarks, and clearing, which sets one. It is a namespace itself, or a map if there is no log.
//! Invariants: a number is given once; what is under a namespace's watermark is seen by nobody, whether or not its record was
//! removed yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use thermocline_tiers::{Error, Result, Value};

use crate::{
    bound::Limits,
    engine::Core,
    insert::{Attributes, Durability},
    namespace::{Namespace, Prefix, split},
    worker::{Next, Worker},
};

/// The namespace of the catalog: (fingerprint, name) to number and watermark, and an empty key to the number that is given next.
const CATALOG: u32 = 1;
const NUMBER_FIRST: u32 = 16;
/// What is sought in a store that is only read and has no such namespace.
const NUMBER_ABSENT: u32 = u32::MAX;

/// Whether a stored key is the catalog's.
pub(crate) fn is_of_catalog(stored: &[u8]) -> bool {
    split(stored).0 == CATALOG
}

/// Whose a stored key is, by `names`, and the key itself, for people to read. `None`: it is the catalog's own.
pub(crate) fn named(stored: &[u8], names: &HashMap<u32, String>) -> Option<(Option<String>, Vec<u8>)> {
    let (number, key) = split(stored);
    let name = || names.get(&number).cloned().unwrap_or_else(|| format!("namespace {number}"));
    (number != CATALOG).then(|| ((number != 0).then(name), key.to_vec()))
}

/// What the catalog says of a namespace.
#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u32,
    /// Entries of lower sequences are gone.
    cleared: u64,
    /// And their records removed, as far as this one.
    swept: u64,
}

impl Entry {
    const VERSION: u32 = 1;

    fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&Self::VERSION.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.cleared.to_le_bytes());
        bytes[16..].copy_from_slice(&self.swept.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 24] = bytes.try_into().ok()?;
        let word = |at: usize| bytes[at..].first_chunk().map(|word| u64::from_le_bytes(*word));
        let [version, number] = [0, 4].map(|at| bytes[at..].first_chunk().map(|word| u32::from_le_bytes(*word)));
        (version? == Self::VERSION).then_some(Self { number: number?, cleared: word(8)?, swept: word(16)? })
    }
}

/// A namespace that was cleared, without a handle to it.
#[derive(Debug)]
struct Cleared {
    /// Its key in the catalog.
    key: Vec<u8>,
    prefix: Prefix,
    entry: Entry,
}

type Open = HashMap<String, Weak<Namespace>>;

/// The namespaces of a store that are open, and those that are being cleared.
#[derive(Debug)]
pub(crate) struct Namespaces {
    open: Mutex<Open>,
    /// Of a store without a log, which has no catalog.
    entries: Mutex<HashMap<Vec<u8>, Entry>>,
    clearing: Mutex<Vec<Cleared>>,
    sweeper: Worker,
}

impl Default for Namespaces {
    fn default() -> Self {
        let sweeper = Worker::new("thermocline-clear");
        Self { open: Mutex::default(), entries: Mutex::default(), clearing: Mutex::default(), sweeper }
    }
}

impl Namespaces {
    pub(crate) fn worker(&self) -> &Worker {
        &self.sweeper
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is changed by one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn catalog_key(fingerprint: u64, name: &str) -> Vec<u8> {
    Prefix::of(CATALOG).join(&[&fingerprint.to_le_bytes(), name.as_bytes()].concat())
}

impl Core {
    /// The namespace `name` of entries whose meaning has this `fingerprint`, made if it is missing. What is written under another
    /// fingerprint is another namespace's. Walks over the index if the namespace has limits.
    ///
    /// # Errors
    /// [`Error::NamespaceInUse`] if this process has it open with another fingerprint or other limits, [`Error::Option`] for limits of zero,
    /// and as for [`get`](Self::get) and [`insert`](Self::insert).
    pub fn namespace(&self, name: &str, fingerprint: u64, limits: Limits) -> Result<Arc<Namespace>> {
        limits.check()?;
        let mut open = lock(&self.namespaces.open);
        if let Some(there) = open.get(name).and_then(Weak::upgrade) {
            let is_same = there.fingerprint() == fingerprint && there.limits() == limits;
            return if is_same { Ok(there) } else { Err(Error::NamespaceInUse { name: name.to_owned() }) };
        }
        let key = catalog_key(fingerprint, name);
        let entry = match self.catalogued(&key)? {
            Some(entry) => entry,
            None => self.make_entry(&key, &open)?,
        };
        let namespace = Arc::new(Namespace::new(name, fingerprint, entry.number, entry.cleared, limits));
        self.count_members(&namespace)?;
        open.retain(|_, namespace| namespace.strong_count() > 0);
        open.insert(name.to_owned(), Arc::downgrade(&namespace));
        drop(open);
        if entry.swept < entry.cleared && !self.options.read_only {
            self.sweep_cleared(Cleared { key, prefix: *namespace.prefix(), entry });
        }
        Ok(namespace)
    }

    /// What the catalog says; what is damaged is written anew.
    fn catalogued(&self, key: &[u8]) -> Result<Option<Entry>> {
        if self.options.in_memory {
            return Ok(lock(&self.namespaces.entries).get(key).copied());
        }
        Ok(self.undamaged(key)?.as_deref().and_then(Entry::decode))
    }

    fn undamaged(&self, key: &[u8]) -> Result<Option<Value>> {
        match self.peek(key) {
            Err(Error::Corrupt { .. }) => Ok(None),
            other => other,
        }
    }

    fn catalogue(&self, key: &[u8], entry: Entry) -> Result<()> {
        if self.options.in_memory {
            lock(&self.namespaces.entries).insert(key.to_vec(), entry);
            return Ok(());
        }
        self.insert(key, &entry.encode(), &self.of_catalog())
    }

    /// The catalog survives what its entries may survive.
    fn of_catalog(&self) -> Attributes {
        let durability = match self.options.durability {
            Durability::Volatile => Durability::Buffered,
            durability => durability,
        };
        Attributes::new().never().durability(durability)
    }

    fn make_entry(&self, key: &[u8], open: &Open) -> Result<Entry> {
        if self.options.read_only {
            return Ok(Entry { number: NUMBER_ABSENT, cleared: 0, swept: 0 });
        }
        let entry = Entry { number: self.next_number(open)?, cleared: 0, swept: 0 };
        self.catalogue(key, entry)?;
        Ok(entry)
    }

    /// A number that no namespace has or had. Whoever asks holds the lock over those that are open.
    fn next_number(&self, open: &Open) -> Result<u32> {
        if self.options.in_memory {
            return Ok(NUMBER_FIRST + lock(&self.namespaces.entries).len() as u32);
        }
        let key = Prefix::of(CATALOG).join(&[]);
        let noted = self.undamaged(&key)?.and_then(|value| Some(u32::from_le_bytes(*value.first_chunk()?)));
        let number = match noted {
            Some(number) => number,
            None => self.highest_number(open)?.map_or(NUMBER_FIRST, |number| number + 1),
        };
        self.insert(&key, &(number + 1).to_le_bytes(), &self.of_catalog())?;
        Ok(number)
    }

    /// The highest number that is open, in the catalog, or before any key. Walks over the index: for stores whose catalog is new, or was
    /// damaged.
    fn highest_number(&self, open: &Open) -> Result<Option<u32>> {
        let mut highest = open.values().filter_map(Weak::upgrade).map(|namespace| namespace.number()).max();
        for stored in self.stored_keys() {
            let stored = match stored {
                Err(Error::Corrupt { .. }) => continue,
                stored => stored?,
            };
            let number = match split(&stored).0 {
                CATALOG => self.catalogued(&stored)?.map(|entry| entry.number),
                number => Some(number),
            };
            highest = highest.max(number.filter(|number| (NUMBER_FIRST..NUMBER_ABSENT).contains(number)));
        }
        Ok(highest)
    }

    /// Makes nothing of all entries of a namespace that were written before, for the same price however many they are. Their space
    /// comes back soon after.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert): then they are all there, unless it is a flush that failed.
    pub fn clear_namespace(&self, namespace: &Arc<Namespace>) -> Result<()> {
        self.memory.drop_released();
        let key = catalog_key(namespace.fingerprint(), namespace.name());
        let open = lock(&self.namespaces.open);
        let cleared = self.clock.draw(1);
        let before = self.catalogued(&key)?.filter(|entry| entry.number == namespace.number());
        let swept = before.map_or(0, |entry| entry.swept);
        let entry = Entry { number: namespace.number(), cleared, swept };
        let noted = self.catalogue(&key, entry);
        // What is read says what counts, also if its flush failed.
        let is_noted = self.catalogued(&key)?.is_some_and(|entry| entry.cleared == cleared);
        if is_noted {
            namespace.clear(cleared);
            self.sweep_cleared(Cleared { key, prefix: *namespace.prefix(), entry });
        }
        drop(open);
        noted
    }

    /// Has the records removed of what was cleared, behind everybody's back.
    fn sweep_cleared(&self, cleared: Cleared) {
        lock(&self.namespaces.clearing).push(cleared);
        let core = self.this.clone();
        self.namespaces.sweeper.wake(|| {
            Box::new(move || {
                let Some(core) = core.upgrade() else { return Ok(Next::Done) };
                loop {
                    let Some(cleared) = lock(&core.namespaces.clearing).pop() else { return Ok(Next::Done) };
                    core.remove_cleared(&cleared).map_err(|error| error.to_string())?;
                }
            })
        });
    }

    fn remove_cleared(&self, cleared: &Cleared) -> Result<()> {
        for key in self.keys_behind(&cleared.prefix) {
            if self.namespaces.sweeper.is_ending() {
                // Whoever opens it next goes on.
                return Ok(());
            }
            let stored = match key {
                // Compaction takes it away one day.
                Err(Error::Corrupt { .. }) => continue,
                key => cleared.prefix.join(&key?),
            };
            match self.metadata(&stored) {
                // Only if nobody has come between.
                Ok(Some(found)) if found.sequence <= cleared.entry.cleared => {
                    let _ = self.compare_exchange(&stored, Some(found.sequence), None)?;
                }
                Ok(_) | Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let _open = lock(&self.namespaces.open);
        match self.catalogued(&cleared.key)? {
            Some(entry) if entry.number == cleared.entry.number => {
                self.catalogue(&cleared.key, Entry { swept: entry.swept.max(cleared.entry.cleared), ..entry })
            }
            _ => Ok(()),
        }
    }

    /// The number of entries of a namespace, exactly. Walks over the index.
    pub fn entries(&self, namespace: &Namespace) -> u64 {
        let is_there = |key: &Result<Vec<u8>>| {
            let Ok(key) = key else { return false };
            let found = self.metadata(&namespace.prefix().join(key));
            matches!(found, Ok(Some(metadata)) if namespace.has(metadata.sequence))
        };
        self.keys_behind(namespace.prefix()).filter(is_there).count() as u64
    }

    /// The names of the namespaces, by number; of those whose entry in the catalog is whole.
    pub(crate) fn namespace_names(&self) -> HashMap<u32, String> {
        let name_in = |key: &[u8]| Some(String::from_utf8_lossy(key.get(8..)?).into_owned());
        if self.options.in_memory {
            let entries = lock(&self.namespaces.entries);
            let named = |(key, entry): (&Vec<u8>, &Entry)| Some((entry.number, name_in(split(key).1)?));
            return entries.iter().filter_map(named).collect();
        }
        if !self.has_namespaces() {
            return HashMap::new();
        }
        let catalog = Prefix::of(CATALOG);
        let named = |key: Vec<u8>| {
            let entry = Entry::decode(&self.peek(&catalog.join(&key)).ok()??)?;
            Some((entry.number, name_in(&key)?))
        };
        self.keys_behind(&catalog).filter_map(|key| named(key.ok()?)).collect()
    }

    /// Whether any namespace was ever made.
    pub(crate) fn has_namespaces(&self) -> bool {
        // Of a catalog that cannot be read the worst is believed.
        !lock(&self.namespaces.entries).is_empty() || !matches!(self.contains_key(&Prefix::of(CATALOG)), Ok(false))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_catalog_is_read_as_it_was_written_and_nothing_else_is() {
        let entry = Entry { number: 17, cleared: 5, swept: 3 };
        let read = Entry::decode(&entry.encode()).unwrap();
        assert_eq!((read.number, read.cleared, read.swept), (17, 5, 3));
        assert!(Entry::decode(&entry.encode()[..23]).is_none());
        assert!(Entry::decode(&[0; 24]).is_none());
    }
}
