//! The companions of a free function. They are functions of a type of the same name: types and functions live in different
//! namespaces, and unlike a module a type sees what the function sees, wherever that stands.
//!
//! Names of types are not hygienic: those here are such as no user has.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{GenericParam, ItemFn, ext::IdentExt};

use crate::{
    expansion::{self, Hidden, awaited, local, open},
    function::{Argument, Function, type_names, without_lifetimes},
};

/// What a setter of a query must not be called.
const RESERVED: [&str; 2] = ["iter", "only"];

pub(crate) fn expand(function: &Function) -> TokenStream {
    let ItemFn { vis, sig, .. } = &function.item;
    let (hidden, ident) = (Hidden::new("memo_"), &sig.ident);
    let (conditions, allowed) = (function.conditions(), function.allowed());
    let instance = match type_names(&sig.generics).is_empty() {
        true => quote!(""),
        false => {
            let turbofish = function.turbofish();
            quote!(::core::any::type_name_of_val(&#ident #turbofish))
        }
    };
    let entry = expansion::entry(function, &quote!(#ident), &hidden);
    let (body, inner) = (expansion::body(function, &hidden), expansion::hidden(function, &hidden, &instance));
    let (plain, with, query) =
        (plain(function, &hidden, &instance), with(function, &hidden), query(function, &hidden, &instance));
    let about = format!("What goes with the memoized function [`{ident}`](fn@{ident}).");
    quote_spanned! {Span::mixed_site()=>
        #entry
        #(#conditions)*
        #[doc = #about]
        #[allow(non_camel_case_types, dead_code)]
        #vis struct #ident {}
        #(#conditions)*
        #[allow(non_local_definitions)]
        #(#allowed)*
        const _: () = {
            impl #ident {
                #[allow(clippy::too_many_arguments)]
                #body
            }
            #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery)]
            impl #ident {
                #inner
                #plain
            }
            #with
            #query
        };
    }
}

/// The companions that take the arguments, or none.
fn plain(function: &Function, hidden: &Hidden, instance: &TokenStream) -> TokenStream {
    let ItemFn { vis, sig, .. } = &function.item;
    let (asyncness, awaited, output) = (&sig.asyncness, awaited(function), &function.output);
    let (generics, _, clause) = sig.generics.split_for_impl();
    let (parameters, names, turbofish) = (function.parameters(), function.names(), function.turbofish());
    let Hidden { call, act, .. } = hidden;
    let (value, memo, options) = (local("value"), local("memo"), local("options"));
    let handle = |nothing: TokenStream| open(function, hidden, "handle", instance, &nothing);
    let (info_handle, clear_handle) =
        (handle(quote!(return ::thermocline::CacheInfo::default())), handle(quote!(return)));
    quote_spanned! {Span::mixed_site()=>
        /// Hits, misses and entries.
        #vis fn info #generics () -> ::thermocline::CacheInfo #clause {
            #info_handle
            #memo.info()
        }
        /// Forgets every call.
        #vis fn clear #generics () #clause {
            #clear_handle
            #memo.clear();
        }
        /// Whether the result of this call is kept.
        #vis fn contains #generics (#(#parameters),*) -> bool #clause {
            Self::#act #turbofish (::thermocline::memo::Act::Contains, #(#names),*).is_there()
        }
        /// The result of this call, if it is kept. Never computes.
        #vis fn get #generics (#(#parameters),*) -> ::core::option::Option<#output> #clause {
            Self::#act #turbofish (::thermocline::memo::Act::Get, #(#names),*).result()
        }
        /// Keeps a result for this call without computing it.
        #vis fn insert #generics (#(#parameters,)* #value: #output) #clause {
            Self::#act #turbofish (::thermocline::memo::Act::Insert(#value), #(#names),*);
        }
        /// Forgets this call; `true` if it was kept.
        #vis fn remove #generics (#(#parameters),*) -> bool #clause {
            Self::#act #turbofish (::thermocline::memo::Act::Remove, #(#names),*).is_there()
        }
        /// The digest of this call.
        #vis fn key #generics (#(#parameters),*) -> ::thermocline::CallKey #clause {
            Self::#act #turbofish (::thermocline::memo::Act::Key, #(#names),*).key()
        }
        /// All that is kept of this call.
        #vis fn call #generics (#(#parameters),*) -> ::core::option::Option<::thermocline::Call<#output>> #clause {
            Self::#act #turbofish (::thermocline::memo::Act::Call, #(#names),*).call()
        }
        /// Computes anew, and keeps that.
        #vis #asyncness fn refresh #generics (#(#parameters),*) -> #output #clause {
            Self::#call #turbofish (::thermocline::CallOptions::new().overwrite(), #(#names),*) #awaited
        }
        /// Computes: neither looks nor keeps.
        #vis #asyncness fn uncached #generics (#(#parameters),*) -> #output #clause {
            Self::#call #turbofish (::thermocline::CallOptions::new().skip(), #(#names),*) #awaited
        }
        /// One call with options of its own: `with(…).call(…)`.
        #vis fn with(#options: ::thermocline::CallOptions) -> __MemoWith {
            __MemoWith { #options }
        }
    }
}

/// What `with(…)` gives.
fn with(function: &Function, hidden: &Hidden) -> TokenStream {
    let ItemFn { vis, sig, .. } = &function.item;
    let (asyncness, awaited, output, ident) = (&sig.asyncness, awaited(function), &function.output, &sig.ident);
    let (generics, _, clause) = sig.generics.split_for_impl();
    let (parameters, names, turbofish, call) =
        (function.parameters(), function.names(), function.turbofish(), &hidden.call);
    let options = local("options");
    quote_spanned! {Span::mixed_site()=>
        /// A call with options of its own.
        #[derive(Clone, Debug)]
        #[allow(dead_code)]
        #vis struct __MemoWith {
            #options: ::thermocline::CallOptions,
        }
        #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery)]
        impl __MemoWith {
            /// Calls.
            #vis #asyncness fn call #generics (self, #(#parameters),*) -> #output #clause {
                #ident::#call #turbofish (self.#options, #(#names),*) #awaited
            }
        }
    }
}

/// What `query()` gives, with a setter for each argument.
fn query(function: &Function, hidden: &Hidden, instance: &TokenStream) -> TokenStream {
    let ItemFn { vis, sig, .. } = &function.item;
    let (output, ident, generics) = (&function.output, &sig.ident, without_lifetimes(&sig.generics));
    let (declared, used, clause) = generics.split_for_impl();
    let types = generics.type_params().map(|parameter| &parameter.ident);
    let setters = function.encoded().map(|argument| setter(function, argument));
    let (memo, kind, inner) = (local("memo"), local("kind"), local("inner"));
    let empty = quote!(return __MemoQuery { #inner: ::thermocline::memo::Query::nothing(), marker: ::core::marker::PhantomData });
    let open = open(function, hidden, "handle", instance, &empty);
    quote_spanned! {Span::mixed_site()=>
        /// Asks for calls by their arguments; those that are not named are wildcards.
        #[allow(dead_code)]
        #vis struct __MemoQuery #declared #clause {
            #inner: ::thermocline::memo::Query<#output>,
            marker: ::core::marker::PhantomData<(#(fn() -> ::core::marker::PhantomData<#types>,)*)>,
        }
        #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery)]
        impl #declared __MemoQuery #used #clause {
            #(#setters)*
            /// The calls that match, in no order.
            #vis fn iter(&self) -> ::thermocline::memo::Calls<#output> {
                self.#inner.iter()
            }
            /// The one call that matches.
            ///
            /// # Errors
            /// If there is none, or more than one.
            #vis fn only(&self) -> ::core::result::Result<::thermocline::Call<#output>, ::thermocline::memo::NotOne> {
                self.#inner.only()
            }
        }
        #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery)]
        impl #ident {
            /// Asks for calls by their arguments; those that are not named are wildcards.
            #vis fn query #declared () -> __MemoQuery #used #clause {
                #open
                __MemoQuery { #inner: #memo.query(#kind), marker: ::core::marker::PhantomData }
            }
        }
    }
}

fn setter(function: &Function, argument: &Argument) -> TokenStream {
    let (vis, name, ty, text) = (&function.item.vis, &argument.name, &argument.ty, argument.plain_name());
    let setter = match RESERVED.contains(&text.as_str()) {
        true => format_ident!("{}_", name.unraw(), span = name.span()),
        false => name.clone(),
    };
    let lifetimes: Vec<&GenericParam> = function
        .item
        .sig
        .generics
        .params
        .iter()
        .filter(|parameter| matches!(parameter, GenericParam::Lifetime(_)))
        .collect();
    let inner = local("inner");
    let shown = match &argument.with {
        Some(with) => quote!(&(#with)(&#name)),
        None => quote!(&#name),
    };
    let about = format!("Calls whose `{text}` is this.");
    quote_spanned! {argument.span=>
        #[doc = #about]
        #vis fn #setter <#(#lifetimes),*> (mut self, #name: #ty) -> Self {
            #[allow(unused_imports)]
            use ::thermocline::memo::BySerde as _;
            ::thermocline::memo::Way(#shown).way().ask(#shown, #text, &mut self.#inner);
            self
        }
    }
}
