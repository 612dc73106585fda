//! Queries: calls by their arguments.
//!
//! Holds what was named, and the walk over what is kept. Never decides how a call is kept. Unnamed arguments are wildcards.

use std::fmt;

use super::Call;
use crate::key::EncodedKey;

type Walk<R> = Box<dyn Fn() -> Box<dyn Iterator<Item = Call<R>>> + Send + Sync>;

/// A query for calls. Wrapped by what the macro makes, which has a setter for each argument.
pub struct Query<R> {
    walk: Option<Walk<R>>,
    /// Name and key of each argument that was named.
    named: Vec<(String, EncodedKey)>,
    /// An argument was named that cannot be encoded: no call has it.
    is_impossible: bool,
}

impl<R: 'static> Query<R> {
    /// One that finds nothing.
    pub fn nothing() -> Self {
        Self { walk: None, named: Vec::new(), is_impossible: true }
    }

    pub(super) fn new(walk: Walk<R>) -> Self {
        Self { walk: Some(walk), named: Vec::new(), is_impossible: false }
    }

    /// Only calls whose argument `name` is `argument`. For methods, whose queries have no setters by name. An argument of
    /// another type than the method's matches nothing.
    #[must_use]
    pub fn argument<T: serde::Serialize + ?Sized>(mut self, name: &str, argument: &T) -> Self {
        self.ask(name, EncodedKey::of(argument).ok());
        self
    }

    /// The calls that match, in no order.
    pub fn iter(&self) -> Calls<R> {
        let named = self.named.clone();
        let walk = self.walk.as_ref().filter(|_| !self.is_impossible);
        Calls { walk: walk.map(|walk| walk()), named }
    }

    /// The one call that matches.
    ///
    /// # Errors
    /// [`NotOne`].
    pub fn only(&self) -> Result<Call<R>, NotOne> {
        let mut calls = self.iter();
        let Some(call) = calls.next() else { return Err(NotOne::None) };
        match calls.next() {
            Some(_) => Err(NotOne::Many),
            None => Ok(call),
        }
    }
}

impl<R> Query<R> {
    pub(super) fn ask(&mut self, name: &str, key: Option<EncodedKey>) {
        match key {
            Some(key) => self.named.push((name.to_owned(), key)),
            None => self.is_impossible = true,
        }
    }
}

impl<R> fmt::Debug for Query<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<&str> = self.named.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Query").field("named", &named).finish_non_exhaustive()
    }
}

/// Calls that match a query, in no order. Weakly consistent: what is kept or removed meanwhile may be met or not.
pub struct Calls<R> {
    walk: Option<Box<dyn Iterator<Item = Call<R>>>>,
    named: Vec<(String, EncodedKey)>,
}

impl<R> Iterator for Calls<R> {
    type Item = Call<R>;

    fn next(&mut self) -> Option<Call<R>> {
        let Self { walk, named } = self;
        let matches = |call: &Call<R>| named.iter().all(|(name, key)| call.arguments.matches(name, key.as_bytes()));
        walk.as_mut()?.find(matches)
    }
}

impl<R> fmt::Debug for Calls<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

/// Why there is not the one call that a query asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotOne {
    /// No call matches.
    None,
    /// More than one call matches.
    Many,
}

impl fmt::Display for NotOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no call matches",
            Self::Many => "more than one call matches",
        })
    }
}

impl std::error::Error for NotOne {}
