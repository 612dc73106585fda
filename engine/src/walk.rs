//! Walks over all entries, page of the index by page.
//!
//! Holds nothing that blocks a writer: a page's locations are copied, then read one by one. Invariant: a key that is
//! there throughout is met exactly once.

use std::vec;

use thermocline_tiers::{Guard, Kind, Location, Result, Value, log::Record};

use crate::{engine::Engine, index::Cursor};

/// An iterator over entries, in no order. See [`Engine::iter`].
#[derive(Debug)]
pub struct Iter<'a>(Walk<'a>);

/// An iterator over keys, in no order. See [`Engine::keys`].
#[derive(Debug)]
pub struct Keys<'a>(Walk<'a>);

#[derive(Debug)]
struct Walk<'a> {
    engine: &'a Engine,
    cursor: Option<Cursor>,
    page: vec::IntoIter<Location>,
}

impl Engine {
    /// Walks over all entries. Weakly consistent: what is written meanwhile may be seen or not. Never blocks writers.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.walk())
    }

    /// Walks over all keys, as [`iter`](Self::iter) does over entries.
    pub fn keys(&self) -> Keys<'_> {
        Keys(self.walk())
    }

    fn walk(&self) -> Walk<'_> {
        Walk { engine: self, cursor: Some(Cursor::default()), page: Vec::new().into_iter() }
    }
}

impl Walk<'_> {
    fn next_location(&mut self) -> Option<Location> {
        loop {
            if let Some(at) = self.page.find(|at| at.kind() == Kind::Log) {
                return Some(at);
            }
            let mut page = Vec::new();
            self.cursor = self.engine.index.page_at(self.cursor?, &Guard::pin(), &mut page);
            self.page = page.into_iter();
        }
    }

    fn next<R>(&mut self, take: impl Fn(&Record<'_>) -> R) -> Option<Result<R>> {
        loop {
            let at = self.next_location()?;
            let _guard = Guard::pin();
            let living = |record: Record<'_>| self.engine.is_living(at, &record).then(|| take(&record));
            if let Some(taken) = self.engine.log.read(at, living).transpose() {
                return Some(taken);
            }
        }
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<(Vec<u8>, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|record| (record.key().to_vec(), Value::copy_of(record.value(), record.header().sequence)))
    }
}

impl Iterator for Keys<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|record| record.key().to_vec())
    }
}
