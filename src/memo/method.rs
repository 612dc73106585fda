//! Companions of methods: the same as those of a function, as methods of a value, for each number of arguments.
//!
//! The types of the arguments, which may borrow, are told by [`Lend`]: `dyn for<'a> Lend<'a, Of = &'a str>` stands for `&str`
//! of any lifetime. Holds functions that the macro made; never a key.

use std::marker::PhantomData;

use super::{Act, Acted, Query};
use crate::{CacheInfo, Call, CallKey, CallOptions};

/// A type for each lifetime.
pub trait Lend<'a> {
    /// The type.
    type Of;
}

/// The companions that take no arguments.
#[derive(Debug)]
pub struct Whole<R> {
    /// Hits, misses and entries.
    pub info: fn() -> CacheInfo,
    /// Forgets all.
    pub clear: fn(),
    /// Asks.
    pub query: fn() -> Query<R>,
}

impl<R> Clone for Whole<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Whole<R> {}

macro_rules! methods {
    ($($method:ident ( $($argument:ident: $lent:ident),* ))*) => {$(
        /// The companions of a method.
        #[allow(missing_debug_implementations)]
        pub struct $method<R, O: ?Sized, $($lent: ?Sized),*>
        where
            O: for<'a> Lend<'a>,
            $($lent: for<'a> Lend<'a>,)*
        {
            whole: Whole<R>,
            act: for<'a> fn(Act<R>, $(<$lent as Lend<'a>>::Of),*) -> Acted<R>,
            call: for<'a> fn(PhantomData<&'a ()>, CallOptions, $(<$lent as Lend<'a>>::Of),*) -> <O as Lend<'a>>::Of,
        }

        #[allow(clippy::too_many_arguments, clippy::extra_unused_lifetimes)]
        impl<R, O: ?Sized, $($lent: ?Sized),*> $method<R, O, $($lent),*>
        where
            O: for<'a> Lend<'a>,
            $($lent: for<'a> Lend<'a>,)*
        {
            #[doc(hidden)]
            pub fn new(
                whole: Whole<R>,
                act: for<'a> fn(Act<R>, $(<$lent as Lend<'a>>::Of),*) -> Acted<R>,
                call: for<'a> fn(PhantomData<&'a ()>, CallOptions, $(<$lent as Lend<'a>>::Of),*) -> <O as Lend<'a>>::Of,
            ) -> Self {
                Self { whole, act, call }
            }

            /// Hits, misses and entries.
            pub fn info(&self) -> CacheInfo {
                (self.whole.info)()
            }

            /// Forgets every call.
            pub fn clear(&self) {
                (self.whole.clear)();
            }

            /// Asks for calls by their arguments.
            pub fn query(&self) -> Query<R> {
                (self.whole.query)()
            }

            /// Whether the result of this call is kept.
            pub fn contains<'a>(&self, $($argument: <$lent as Lend<'a>>::Of),*) -> bool {
                (self.act)(Act::Contains, $($argument),*).is_there()
            }

            /// The result of this call, if it is kept. Never computes.
            pub fn get<'a>(&self, $($argument: <$lent as Lend<'a>>::Of),*) -> Option<R> {
                (self.act)(Act::Get, $($argument),*).result()
            }

            /// Keeps a result for this call without computing it.
            pub fn insert<'a>(&self, $($argument: <$lent as Lend<'a>>::Of,)* value: R) {
                (self.act)(Act::Insert(value), $($argument),*);
            }

            /// Forgets this call; `true` if it was kept.
            pub fn remove<'a>(&self, $($argument: <$lent as Lend<'a>>::Of),*) -> bool {
                (self.act)(Act::Remove, $($argument),*).is_there()
            }

            /// The digest of this call.
            pub fn key<'a>(&self, $($argument: <$lent as Lend<'a>>::Of),*) -> CallKey {
                (self.act)(Act::Key, $($argument),*).key()
            }

            /// All that is kept of this call. One that is made with options is [`with`](Self::with).
            pub fn call<'a>(&self, $($argument: <$lent as Lend<'a>>::Of),*) -> Option<Call<R>> {
                (self.act)(Act::Call, $($argument),*).call()
            }

            /// Computes anew, and keeps that.
            pub fn refresh<'a>(&self, $($argument: <$lent as Lend<'a>>::Of),*) -> <O as Lend<'a>>::Of {
                (self.call)(PhantomData, CallOptions::new().overwrite(), $($argument),*)
            }

            /// Computes: neither looks nor keeps.
            pub fn uncached<'a>(&self, $($argument: <$lent as Lend<'a>>::Of),*) -> <O as Lend<'a>>::Of {
                (self.call)(PhantomData, CallOptions::new().skip(), $($argument),*)
            }

            /// One call with options of its own: `with(…).call(…)`.
            pub fn with(&self, options: CallOptions) -> With<'_, Self> {
                With { companions: self, options }
            }
        }

        #[allow(clippy::too_many_arguments, clippy::extra_unused_lifetimes)]
        impl<R, O: ?Sized, $($lent: ?Sized),*> With<'_, $method<R, O, $($lent),*>>
        where
            O: for<'a> Lend<'a>,
            $($lent: for<'a> Lend<'a>,)*
        {
            /// Calls.
            pub fn call<'a>(self, $($argument: <$lent as Lend<'a>>::Of),*) -> <O as Lend<'a>>::Of {
                (self.companions.call)(PhantomData, self.options, $($argument),*)
            }
        }
    )*};
}

methods! {
    Method0()
    Method1(a: A)
    Method2(a: A, b: B)
    Method3(a: A, b: B, c: C)
    Method4(a: A, b: B, c: C, d: D)
    Method5(a: A, b: B, c: C, d: D, e: E)
    Method6(a: A, b: B, c: C, d: D, e: E, f: F)
    Method7(a: A, b: B, c: C, d: D, e: E, f: F, g: G)
    Method8(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H)
    Method9(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H, i: I)
    Method10(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H, i: I, j: J)
    Method11(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H, i: I, j: J, k: K)
    Method12(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H, i: I, j: J, k: K, l: L)
}

/// One call of a method with options of its own.
#[derive(Debug)]
pub struct With<'a, M> {
    companions: &'a M,
    options: CallOptions,
}
