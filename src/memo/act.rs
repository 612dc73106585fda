//! Everything that companions do without computing.
//!
//! Holds what is asked for, and what came of it. Trouble with the store is as if nothing were there, and counted.

use super::{Arguments, Call, CallKey, Keep, Memo, Outcome, Query, arguments::DIRECTORY, trouble};
use crate::{CacheInfo, FoundEntry, Result, key::EncodedKey};

/// What to do with a call without computing it.
#[derive(Debug)]
pub enum Act<R> {
    /// Say whether it is kept.
    Contains,
    /// Show its result.
    Get,
    /// Keep a result.
    Insert(R),
    /// Forget it.
    Remove,
    /// Tell its digest.
    Key,
    /// Show all of it.
    Call,
}

/// What came of an [`Act`].
#[derive(Debug, Default)]
pub enum Acted<R> {
    /// Nothing: there is no store, or no key.
    #[default]
    Nothing,
    /// Whether it is, or was, there.
    There(bool),
    /// Its result.
    Result(Option<R>),
    /// Its digest.
    Key(CallKey),
    /// All of it.
    Call(Option<Box<Call<R>>>),
}

impl<R> Acted<R> {
    /// Whether it is, or was, there.
    pub fn is_there(self) -> bool {
        matches!(self, Self::There(true))
    }

    /// Its result.
    pub fn result(self) -> Option<R> {
        if let Self::Result(result) = self { result } else { None }
    }

    /// Its digest; zeros if it has none.
    pub fn key(self) -> CallKey {
        if let Self::Key(key) = self { key } else { CallKey::none() }
    }

    /// All of it.
    pub fn call(self) -> Option<Call<R>> {
        if let Self::Call(call) = self { call.map(|call| *call) } else { None }
    }
}
impl<V: Send + Sync + 'static> Memo<V> {
    /// Does what is asked for. `record` tells of the arguments.
    pub fn act<K: Outcome<Kept = V>>(
        &self,
        kind: K,
        key: &EncodedKey,
        act: Act<K::Returned>,
        record: impl FnOnce(&mut Keep),
    ) -> Acted<K::Returned> {
        let cache = &self.cache;
        match act {
            Act::Contains => Acted::There(told(cache.contains_encoded(key)).unwrap_or_default()),
            Act::Get => Acted::Result(told(cache.read_key(key, |kept| kind.whole(kept))).flatten()),
            Act::Insert(returned) => {
                let mut keep = self.keep();
                record(&mut keep);
                let kept = match keep.take(kind.split(returned)) {
                    Ok((value, kept)) if kept.keep => told(cache.insert_key(key, &value, &kept)).is_some(),
                    _ => false,
                };
                Acted::There(kept)
            }
            Act::Remove => Acted::There(told(cache.remove_key(key)).unwrap_or_default()),
            Act::Key => Acted::Key(CallKey::new(cache.name(), key.as_bytes())),
            Act::Call => {
                let found = told(cache.peek_entry(key)).flatten();
                Acted::Call(found.map(|found| Box::new(self.call(kind, found))))
            }
        }
    }

    /// Hits, misses and entries.
    pub fn info(&self) -> CacheInfo {
        self.cache.info()
    }

    /// Forgets every call.
    pub fn clear(&self) {
        told(self.cache.clear());
    }

    /// A query for calls; of an isolated function, for those of the working directory.
    pub fn query<K: Outcome<Kept = V> + Send + Sync>(&'static self, kind: K) -> Query<K::Returned> {
        let mut query = Query::new(Box::new(move || {
            let found = self.cache.entries().filter_map(told);
            Box::new(found.map(move |found| self.call(kind, found)))
        }));
        if self.is_isolated {
            query.ask(DIRECTORY, self.directory());
        }
        query
    }

    fn call<K: Outcome<Kept = V>>(&self, kind: K, found: FoundEntry<V>) -> Call<K::Returned> {
        Call {
            key: CallKey::new(self.cache.name(), &found.key),
            arguments: found.arguments.as_deref().map(Arguments::from_bytes).unwrap_or_default(),
            result: kind.whole(&found.value),
            created: found.created,
            duration: found.cost,
            ttl_left: found.ttl_left,
            is_stale: found.is_stale,
            tags: found.tags,
        }
    }
}

/// What was found; nothing, and counted, if that failed.
fn told<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|error| trouble::count("use the store", error)).ok()
}
