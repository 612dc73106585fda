//! What `#[memoize]` expands to: the support of memoized functions.
//!
//! What users need of it is at the crate's root; what is hidden here is for the macro's expansion and may change.
//! Invariant: no trouble with a store reaches the caller of a memoized function: it computes, and [`failures`] counts.

mod act;
mod arguments;
mod call;
mod deep;
mod kind;
mod method;
mod options;
mod query;
mod run;
mod setup;
mod site;
mod trouble;
mod way;

pub use arguments::Arguments;
pub use call::{Call, CallKey};
pub use options::CallOptions;
pub use query::{Calls, NotOne};
pub use trouble::failures;

#[doc(hidden)]
pub use {
    act::{Act, Acted},
    kind::{ByPlain, Kind, Outcome, Split},
    method::*,
    query::Query,
    run::Keep,
    setup::{AsStore, Place, Setup},
    site::{Builder, Memo, Site, Value},
    way::{BySerde, MemoKey, Way},
};
