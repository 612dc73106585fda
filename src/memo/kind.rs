//! How the result of a function is kept: told by its type, aliases included, because the compiler picks the implementation.
//!
//! `Kind::<R>::new().kind()` finds the inherent method for a `Result` or an `Option`, and for anything else the one of
//! [`ByPlain`]. Never holds a key or a cache.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

/// Stands for the type that a function gives.
#[derive(Debug)]
pub struct Kind<R>(PhantomData<fn() -> R>);

/// What a result is, to those who keep it.
#[derive(Debug)]
pub enum Split<V, R> {
    /// Kept.
    Keep(V),
    /// Given to all who wait for it, and not kept.
    Pass(V),
    /// Given to its own caller only.
    Fail(R),
}

/// How results are kept.
pub trait Outcome: Copy + 'static {
    /// What the function gives.
    type Returned;
    /// What is kept of that.
    type Kept: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Takes a result apart.
    fn split(self, returned: Self::Returned) -> Split<Self::Kept, Self::Returned>;

    /// A result as it was.
    fn whole(self, kept: &Self::Kept) -> Self::Returned;
}

impl<R> Kind<R> {
    /// The kind of `R`.
    #[inline]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// Every result is kept.
#[derive(Debug)]
pub struct Plain<R>(PhantomData<fn() -> R>);

/// `None` is not kept.
#[derive(Debug)]
pub struct Optional<T>(PhantomData<fn() -> T>);

/// `Err` is not kept.
#[derive(Debug)]
pub struct Fallible<T, E>(PhantomData<fn() -> (T, E)>);

impl<T> Kind<Option<T>> {
    /// An option: `None` is not kept.
    #[inline]
    pub const fn kind(self) -> Optional<T> {
        Optional(PhantomData)
    }
}

impl<T, E> Kind<Result<T, E>> {
    /// A result: `Err` is not kept.
    #[inline]
    pub const fn kind(self) -> Fallible<T, E> {
        Fallible(PhantomData)
    }
}

/// Whatever is no `Option` and no `Result`.
pub trait ByPlain<R>: Sized {
    /// Anything: always kept.
    #[inline]
    fn kind(self) -> Plain<R> {
        Plain(PhantomData)
    }
}

impl<R> ByPlain<R> for Kind<R> {}

impl<T> Optional<T> {
    /// Keeps `None`, too.
    #[inline]
    pub const fn cache_none(self) -> Plain<Option<T>> {
        Plain(PhantomData)
    }
}

impl<T, E> Fallible<T, E> {
    /// Keeps `Err`, too.
    #[inline]
    pub const fn cache_err(self) -> Plain<Result<T, E>> {
        Plain(PhantomData)
    }
}

impl<R> Clone for Plain<R> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Plain<R> {}

impl<T> Clone for Optional<T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Optional<T> {}

impl<T, E> Clone for Fallible<T, E> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, E> Copy for Fallible<T, E> {}

impl<R: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Outcome for Plain<R> {
    type Returned = R;
    type Kept = R;

    #[inline]
    fn split(self, returned: R) -> Split<R, R> {
        Split::Keep(returned)
    }

    #[inline]
    fn whole(self, kept: &R) -> R {
        kept.clone()
    }
}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Outcome for Optional<T> {
    type Returned = Option<T>;
    type Kept = Option<T>;

    #[inline]
    fn split(self, returned: Option<T>) -> Split<Option<T>, Option<T>> {
        if returned.is_some() { Split::Keep(returned) } else { Split::Pass(returned) }
    }

    #[inline]
    fn whole(self, kept: &Option<T>) -> Option<T> {
        kept.clone()
    }
}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static, E: 'static> Outcome for Fallible<T, E> {
    type Returned = Result<T, E>;
    type Kept = T;

    #[inline]
    fn split(self, returned: Result<T, E>) -> Split<T, Result<T, E>> {
        match returned {
            Ok(value) => Split::Keep(value),
            error => Split::Fail(error),
        }
    }

    #[inline]
    fn whole(self, kept: &T) -> Result<T, E> {
        Ok(kept.clone())
    }
}
