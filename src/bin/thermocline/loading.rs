//! Bringing many entries into a store, in their order, from whatever form they are read.
//!
//! Entries that stay are gathered and go in by the chunk. Invariant: when it ends early, every entry before
//! the place that is named is in the store, and the number that is told counts exactly those.

use std::{mem, time::Duration};

use thermocline::{Attributes, Store};

use crate::{
    entry::{Broken, Found, Place},
    outcome::{Failure, count},
    progress::Progress,
};

const CHUNK_ENTRIES_MAX: usize = 1024;
const CHUNK_BYTES_MAX: usize = 8 << 20;

/// Writes all entries, and says how many; `source` is the file's name, for the line on failure.
pub(crate) fn load(
    store: &Store,
    source: &str,
    entries: impl IntoIterator<Item = Result<Found, Broken>>,
    progress: &Progress,
) -> Result<u64, Failure> {
    let mut loader = Loader { store, chunk: Vec::new(), chunk_bytes: 0, kept: 0 };
    let read = entries.into_iter().try_for_each(|found| {
        let found = found?;
        progress.reach(found.bytes_read);
        loader.take(found)
    });
    // What is still in the chunk came before the place where reading broke.
    match loader.flush().and(read) {
        Ok(()) => Ok(loader.kept),
        Err(Broken { place, what }) => {
            let kept = count(loader.kept, "entry", "entries");
            Err(Failure::Told(format!("{source}, {place}: {what}; kept {kept}")))
        }
    }
}

struct Loader<'s> {
    store: &'s Store,
    chunk: Vec<Found>,
    chunk_bytes: usize,
    kept: u64,
}

impl Loader<'_> {
    fn take(&mut self, found: Found) -> Result<(), Broken> {
        if let Some(ttl_ms) = found.entry.ttl_ms {
            return self.insert_expiring(&found, ttl_ms);
        }
        self.chunk_bytes += found.entry.key.len() + found.entry.value.len();
        self.chunk.push(found);
        if self.chunk.len() < CHUNK_ENTRIES_MAX && self.chunk_bytes < CHUNK_BYTES_MAX {
            return Ok(());
        }
        self.flush()
    }

    /// Writes an entry that expires, after those that came before it: the last of equal keys wins.
    fn insert_expiring(&mut self, found: &Found, ttl_ms: u64) -> Result<(), Broken> {
        self.flush()?;
        let attributes = Attributes::new().ttl(Duration::from_millis(ttl_ms));
        let written = self.store.insert_with(&found.entry.key, &found.entry.value, &attributes);
        self.kept(found.place, written)
    }

    fn flush(&mut self) -> Result<(), Broken> {
        let chunk = mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        let pairs = chunk.iter().map(|found| (&found.entry.key, &found.entry.value));
        if self.store.insert_many(pairs).is_ok() {
            self.kept += chunk.len() as u64;
            return Ok(());
        }
        // Some of the chunk may be in. Written again one by one, the entry that is refused can be named.
        chunk.iter().try_for_each(|found| {
            let written = self.store.insert(&found.entry.key, &found.entry.value);
            self.kept(found.place, written)
        })
    }

    fn kept(&mut self, place: Place, written: thermocline::Result<()>) -> Result<(), Broken> {
        written.map_err(|error| place.broken(error.to_string()))?;
        self.kept += 1;
        Ok(())
    }
}
