//! Refreshing behind the caller's back: the arguments are cloned, so that they outlive the call.
//!
//! Holds the choice whether that can be, by the types of the arguments, and the clones.

use proc_macro2::TokenStream;
use quote::{format_ident, quote_spanned};
use syn::{Lifetime, Type, TypeReference, visit::Visit};

use crate::{
    expansion::{Hidden, local, with_extra},
    function::{Argument, Function},
};

/// A closure that clones the arguments and gives one that computes with them. `None`: nothing gets stale, or something is
/// borrowed deep within an argument; then one caller refreshes in line.
pub(crate) fn behind(function: &Function, hidden: &Hidden) -> Option<TokenStream> {
    function.options.stale_after.as_ref()?;
    if function.is_async() || !function.arguments.iter().all(can_be_owned) {
        return None;
    }
    let (keep, compute, turbofish) = (local("keep"), &hidden.compute, function.turbofish());
    let mixed = proc_macro2::Span::mixed_site();
    let owned = |argument: &Argument| format_ident!("owned_{}", argument.plain_name(), span = mixed);
    let clones = function.arguments.iter().map(|argument| {
        let (name, owned) = (&argument.name, owned(argument));
        match &argument.ty {
            Type::Reference(TypeReference { elem, .. }) => {
                quote_spanned!(argument.span=> let #owned = <#elem as ::std::borrow::ToOwned>::to_owned(#name);)
            }
            ty => quote_spanned!(argument.span=> let #owned: #ty = ::core::clone::Clone::clone(&#name);),
        }
    });
    let passed = function.arguments.iter().map(|argument| {
        let owned = owned(argument);
        match &argument.ty {
            Type::Reference(TypeReference { elem, .. }) => {
                quote_spanned!(argument.span=> ::core::borrow::Borrow::<#elem>::borrow(&#owned))
            }
            _ => quote_spanned!(argument.span=> #owned),
        }
    });
    let passed = with_extra(function, passed.collect(), quote_spanned!(mixed=> #keep));
    Some(quote_spanned! {mixed=> || {
        #(#clones)*
        move |#keep: &mut ::thermocline::memo::Keep| Self::#compute #turbofish (#(#passed),*)
    }})
}

fn can_be_owned(argument: &Argument) -> bool {
    match &argument.ty {
        Type::Reference(reference) => reference.mutability.is_none() && !borrows(&reference.elem),
        ty => !borrows(ty),
    }
}

/// Whether a type borrows anything that is not static.
fn borrows(ty: &Type) -> bool {
    struct Finder(bool);
    impl<'ast> Visit<'ast> for Finder {
        fn visit_type_reference(&mut self, found: &'ast TypeReference) {
            self.0 |= found.lifetime.as_ref().is_none_or(|lifetime| lifetime.ident != "static");
        }
        fn visit_lifetime(&mut self, found: &'ast Lifetime) {
            self.0 |= found.ident != "static";
        }
    }
    let mut finder = Finder(false);
    finder.visit_type(ty);
    finder.0
}
