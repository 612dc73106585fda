//! The companions of a method. An attribute on a method can add nothing outside of the `impl` block, so they are one more
//! function there, which gives a value of a type of the library's, made for as many arguments as the method has.

use std::mem;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Attribute, Error, ItemFn, Lifetime, ParenthesizedGenericArguments, Result, Type, TypeFnPtr, TypeReference,
    WherePredicate,
    ext::IdentExt,
    visit_mut::{self, VisitMut},
};

use crate::{
    expansion::{self, Hidden, local, open, with_extra},
    function::{Argument, Function, without_lifetimes},
};

/// The library has companions for so many arguments, `self` included.
const ARGUMENTS_MAX: usize = 12;

pub(crate) fn expand(function: &Function) -> TokenStream {
    let ItemFn { sig, .. } = &function.item;
    if let Err(error) = check(function) {
        let (item, error) = (&function.item, error.into_compile_error());
        return quote!(#item #error);
    }
    let (name, ident, turbofish) = (function.plain_name(), &sig.ident, function.turbofish());
    let mut hidden = Hidden::new(&format!("{name}_"));
    // It stands first: in a trait's implementation, which an attribute cannot see, the first error is about it and tells why.
    hidden.site = local(&format!("__{name}_is_memoized_and_cannot_implement_a_trait"));
    let instance = quote!(::core::any::type_name_of_val(&Self::#ident #turbofish));
    let (conditions, entry) = (function.conditions(), expansion::entry(function, &quote!(Self), &hidden));
    let (body, inner) = (expansion::body(function, &hidden), expansion::hidden(function, &hidden, &instance));
    let companion = companion(function, &hidden, &instance);
    let allowed = function.allowed();
    let inner = allowing(&conditions, &allowed, &inner);
    quote_spanned! {Span::mixed_site()=>
        #entry
        #inner
        #(#conditions)*
        #[allow(clippy::too_many_arguments)]
        #body
        #(#conditions)*
        #(#allowed)*
        #companion
    }
}

/// Refuses what the companions could not say.
fn check(function: &Function) -> Result<()> {
    let ItemFn { sig, .. } = &function.item;
    if function.arguments.len() > ARGUMENTS_MAX {
        let what = format!("a memoized method takes at most {ARGUMENTS_MAX} arguments");
        return Err(Error::new(sig.ident.span(), what));
    }
    let own = own_lifetimes(function);
    let is_own = |lifetime: &Lifetime| own.contains(&lifetime.ident.to_string());
    let declared = sig.generics.lifetimes().map(|parameter| (&parameter.lifetime, &parameter.bounds));
    let clause = sig.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let said = clause.filter_map(|predicate| match predicate {
        WherePredicate::Lifetime(predicate) => Some((&predicate.lifetime, &predicate.bounds)),
        _ => None,
    });
    let mut bounds = declared.chain(said).flat_map(|(of, bounds)| bounds.iter().map(move |bound| (of, bound)));
    match bounds.find(|(of, bound)| is_own(of) != is_own(bound)) {
        Some((of, bound)) => {
            let what = format!(
                "the companions of a memoized method take any lifetime for its own: `{of}: {bound}` must not bind one of them to \
                 another; write the lifetime of the `impl` block in its place"
            );
            Err(Error::new(bound.span(), what))
        }
        None => Ok(()),
    }
}

fn own_lifetimes(function: &Function) -> Vec<String> {
    function.item.sig.generics.lifetimes().map(|parameter| parameter.lifetime.ident.to_string()).collect()
}

/// Puts attributes before each of several functions.
fn allowing(conditions: &[&Attribute], allowed: &[Attribute], functions: &TokenStream) -> TokenStream {
    let Ok(block) = syn::parse2::<syn::ItemImpl>(quote!(impl Nothing { #functions })) else { return functions.clone() };
    let (functions, conditions) = (&block.items, quote!(#(#conditions)* #(#allowed)*));
    quote!(#(#conditions #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery)] #functions)*)
}

fn companion(function: &Function, hidden: &Hidden, instance: &TokenStream) -> TokenStream {
    let ItemFn { vis, sig, .. } = &function.item;
    let (output, turbofish) = (&function.output, function.turbofish());
    let Hidden { act, call, .. } = hidden;
    let name = format_ident!("{}_memo", sig.ident.unraw(), span = sig.ident.span());
    let method = format_ident!("Method{}", function.arguments.len());
    let generics = without_lifetimes(&sig.generics);
    let (declared, _, clause) = generics.split_for_impl();
    let lent = function.arguments.iter().map(|argument| lent(argument, function));
    let numbered: Vec<Ident> = (0..function.arguments.len()).map(|index| local(&format!("a{index}"))).collect();
    let (acted, options) = (local("act"), local("options"));
    let to_act = with_extra(function, numbered.clone(), acted.clone());
    let to_call = with_extra(function, numbered.clone(), options.clone());
    let (called, out) = match function.is_async() {
        true => (
            quote!(::std::boxed::Box::pin(Self::#call #turbofish (#(#to_call),*))),
            quote!(::core::pin::Pin<::std::boxed::Box<dyn ::core::future::Future<Output = #output> + ::core::marker::Send + 'lent>>),
        ),
        false => (quote!(Self::#call #turbofish (#(#to_call),*)), quote!(#output)),
    };
    let (kind, memo) = (local("kind"), local("memo"));
    let handle = |nothing: TokenStream| open(function, hidden, "handle", instance, &nothing);
    let (info, clear) = (handle(quote!(return ::thermocline::CacheInfo::default())), handle(quote!(return)));
    let query = handle(quote!(return ::thermocline::memo::Query::nothing()));
    let about = format!("What goes with the memoized method [`{0}`](Self::{0}).", function.plain_name());
    quote_spanned! {Span::mixed_site()=>
        #[doc = #about]
        #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery)]
        #vis fn #name #declared () -> ::thermocline::memo::#method<
            #output,
            dyn for<'lent> ::thermocline::memo::Lend<'lent, Of = #out>,
            #(#lent),*
        > #clause {
            ::thermocline::memo::#method::new(
                ::thermocline::memo::Whole {
                    info: || { #info #memo.info() },
                    clear: || { #clear #memo.clear(); },
                    query: || { #query #memo.query(#kind) },
                },
                |#acted, #(#numbered),*| Self::#act #turbofish (#(#to_act),*),
                |_, #options, #(#numbered),*| #called,
            )
        }
    }
}

/// The type of an argument, for any lifetime: those of the function's own become `'lent`; those of the `impl` block stay.
fn lent(argument: &Argument, function: &Function) -> TokenStream {
    let mut ty: Type = argument.ty.clone();
    Lending { own: own_lifetimes(function), is_in_closure: false }.visit_type_mut(&mut ty);
    quote_spanned!(Span::mixed_site()=> dyn for<'lent> ::thermocline::memo::Lend<'lent, Of = #ty>)
}

/// Renames lifetimes. What the arguments of closures and function pointers do not name is a lifetime of each call of those.
struct Lending {
    own: Vec<String>,
    is_in_closure: bool,
}

impl Lending {
    fn within_closure(&mut self, visit: impl FnOnce(&mut Self)) {
        let before = mem::replace(&mut self.is_in_closure, true);
        visit(self);
        self.is_in_closure = before;
    }
}

impl VisitMut for Lending {
    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        if !self.is_in_closure {
            reference.lifetime.get_or_insert_with(|| Lifetime::new("'_", Span::mixed_site()));
        }
        visit_mut::visit_type_reference_mut(self, reference);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        let is_lent = match lifetime.ident == "_" {
            true => !self.is_in_closure,
            false => self.own.iter().any(|own| lifetime.ident == own),
        };
        if is_lent {
            *lifetime = Lifetime::new("'lent", Span::mixed_site());
        }
    }

    fn visit_parenthesized_generic_arguments_mut(&mut self, arguments: &mut ParenthesizedGenericArguments) {
        self.within_closure(|lending| visit_mut::visit_parenthesized_generic_arguments_mut(lending, arguments));
    }

    fn visit_type_fn_ptr_mut(&mut self, pointer: &mut TypeFnPtr) {
        self.within_closure(|lending| visit_mut::visit_type_fn_ptr_mut(lending, pointer));
    }
}
