//! `#[memoize]`: parsing, and a short expansion that calls `thermocline::memo`. Never holds caching logic.
//!
//! Every error stands on the user's own span. Locals of the expansion are hygienic, so that no argument of the user can be
//! shadowed, whatever it is called.
#![forbid(unsafe_code)]

mod companions;
mod duration;
mod expansion;
mod function;
mod method;
mod options;
mod refresh;

use proc_macro::TokenStream;

// Documented where users find it, as `thermocline::memoize`.
#[allow(missing_docs)]
#[proc_macro_attribute]
pub fn memoize(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expansion::expand(attribute.into(), item.into()).into()
}
