//! What `#[memoize]` turns every function into, free or associated: the function itself, its body, and hidden functions
//! that know its arguments: one calls, one looks.
//!
//! Invariant: the arguments are encoded alike wherever a key is made.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{FnArg, ItemFn, Result, parse2, spanned::Spanned};

use crate::{
    companions,
    function::{Argument, Function},
    method,
    options::{self, Options},
    refresh,
};

/// The expansion, or the errors on the user's spans and the item as it was.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> TokenStream {
    try_expand(attribute, item.clone()).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        // It stays, so that nobody who uses it is told that it is missing.
        let plain = parse2::<ItemFn>(item.clone()).map_or(item, without_ways);
        quote!(#plain #error)
    })
}

fn try_expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options: Options = parse2(attribute)?;
    let item: ItemFn = parse2(item).map_err(|error| {
        syn::Error::new(error.span(), format!("only functions that have a body can be memoized: {error}"))
    })?;
    let function = Function::new(item, options)?;
    Ok(if function.is_associated { method::expand(&function) } else { companions::expand(&function) })
}

fn without_ways(mut item: ItemFn) -> TokenStream {
    for input in &mut item.sig.inputs {
        let attributes = match input {
            FnArg::Receiver(receiver) => &mut receiver.attrs,
            FnArg::Typed(typed) => &mut typed.attrs,
        };
        attributes.retain(|attribute| !attribute.path().is_ident("memoize"));
    }
    quote!(#item)
}

/// The hidden functions of one memoized function.
pub(crate) struct Hidden {
    pub(crate) site: Ident,
    pub(crate) setup: Ident,
    pub(crate) body: Ident,
    pub(crate) call: Ident,
    pub(crate) act: Ident,
    pub(crate) compute: Ident,
}

impl Hidden {
    /// `prefix` keeps the methods of one type apart.
    pub(crate) fn new(prefix: &str) -> Self {
        let ident = |what: &str| format_ident!("__{prefix}{what}", span = Span::mixed_site());
        Self {
            site: ident("site"),
            setup: ident("setup"),
            body: ident("body"),
            call: ident("call"),
            act: ident("act"),
            compute: ident("compute"),
        }
    }
}

/// A local of the expansion: no argument of the user can be taken for it, nor it for one.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// `extra` among arguments or parameters: behind `self`, if there is one.
pub(crate) fn with_extra<T>(function: &Function, mut all: Vec<T>, extra: T) -> Vec<T> {
    let place = usize::from(function.arguments.first().is_some_and(|argument| argument.receiver.is_some()));
    all.insert(place, extra);
    all
}

/// The function that everybody calls. `home` has the hidden functions.
pub(crate) fn entry(function: &Function, home: &TokenStream, hidden: &Hidden) -> TokenStream {
    let (ItemFn { vis, sig, .. }, attrs) = (&function.item, function.entry_attributes());
    let (asyncness, ident, output) = (&sig.asyncness, &sig.ident, &sig.output);
    let (generics, _, clause) = sig.generics.split_for_impl();
    let (parameters, turbofish, call, awaited) =
        (function.parameters(), function.turbofish(), &hidden.call, awaited(function));
    let names = function.names().into_iter().map(|name| quote!(#name)).collect();
    let names = with_extra(function, names, quote!(::thermocline::CallOptions::new()));
    quote_spanned! {Span::mixed_site()=>
        #(#attrs)*
        #vis #asyncness fn #ident #generics (#(#parameters),*) #output #clause {
            #home::#call #turbofish (#(#names),*) #awaited
        }
    }
}

pub(crate) fn awaited(function: &Function) -> TokenStream {
    if function.is_async() { quote!(.await) } else { TokenStream::new() }
}

/// The user's body, under a name of its own.
pub(crate) fn body(function: &Function, hidden: &Hidden) -> TokenStream {
    let ItemFn { sig, block, .. } = &function.item;
    let (attributes, mut sig) = (function.body_attributes(), sig.clone());
    sig.ident = hidden.body.clone();
    quote!(#(#attributes)* #[doc(hidden)] #sig #block)
}

/// All hidden functions but the body.
pub(crate) fn hidden(function: &Function, hidden: &Hidden, instance: &TokenStream) -> TokenStream {
    let (site, call, act) = (site(function, hidden), call(function, hidden, instance), act(function, hidden, instance));
    let compute = (!function.is_async()).then(|| compute(function, hidden));
    quote!(#site #call #act #compute)
}

/// The place of its handle, and how that is set up at first use.
fn site(function: &Function, hidden: &Hidden) -> TokenStream {
    let Hidden { site, setup, .. } = hidden;
    let (name, digest, options) = (function.plain_name(), function.digest(), &function.options);
    let is_associated = function.is_associated;
    let arguments = match options.key {
        Some(_) => vec!["key".to_owned()],
        None => function.encoded().map(Argument::plain_name).collect(),
    };
    let named = options.name.as_ref().map(|name| quote_spanned!(name.span()=> .name(#name)));
    let store = options
        .store
        .as_ref()
        .map(|store| quote_spanned!(store.span()=> .store(|| ::thermocline::memo::AsStore::as_store(&(#store)))));
    let durations = options.durations().map(|(option, written)| {
        let (setter, value) = (Ident::new(option, Span::call_site()), options::duration(option, written));
        quote!(.#setter(#value))
    });
    let max_entries = options.max_entries.as_ref().map(|most| quote_spanned!(most.span()=> .max_entries(#most)));
    let version = options.version.as_ref().map(|version| quote_spanned!(version.span()=> .version(#version)));
    let hash_code = options.hash_code.map(|_| quote!(.hash_code(#digest)));
    let isolate = options.isolate.map(|_| quote!(.isolate()));
    quote_spanned! {Span::mixed_site()=>
        #[doc(hidden)]
        fn #site() -> &'static ::thermocline::memo::Site {
            static SITE: ::thermocline::memo::Site = ::thermocline::memo::Site::new();
            &SITE
        }
        #[doc(hidden)]
        fn #setup() -> ::thermocline::memo::Setup {
            ::thermocline::memo::Setup::new(::thermocline::memo::Place {
                package: ::core::option_env!("CARGO_PKG_NAME"),
                program: ::core::option_env!("CARGO_BIN_NAME"),
                file: ::core::file!(),
                module: ::core::module_path!(),
                function: #name,
                home: ::core::any::type_name::<Self>(),
                digest: #digest,
                arguments: &[#(#arguments),*],
                is_associated: #is_associated,
            })
            #named #store #(#durations)* #max_entries #version #hash_code #isolate
        }
    }
}

/// `handle`: binds `kind` and `memo`, or does `otherwise`. `way` is `open`, which a switched-off memoization refuses, or `handle`.
pub(crate) fn open(
    function: &Function,
    hidden: &Hidden,
    how: &str,
    instance: &TokenStream,
    otherwise: &TokenStream,
) -> TokenStream {
    let Hidden { site, setup, .. } = hidden;
    let (how, kind, memo, of_kind) = (local(how), local("kind"), local("memo"), kind_of(function));
    let codec = match &function.options.codec {
        Some(codec) => quote_spanned!(codec.span()=> |builder| builder.codec(#codec)),
        None => quote!(|builder| builder),
    };
    // What the result has to be is said where its type stands.
    let opened = quote_spanned!(function.output.span()=> Self::#site().#how(#kind, #instance, Self::#setup, #codec));
    quote_spanned! {Span::mixed_site()=>
        #[allow(unused_imports)]
        use ::thermocline::memo::{ByPlain as _, BySerde as _};
        let #kind = #of_kind;
        let ::core::option::Option::Some(#memo) = #opened else {
            #otherwise
        };
    }
}

/// How results are kept, as their type tells.
fn kind_of(function: &Function) -> TokenStream {
    let output = &function.output;
    let mut kind = quote_spanned!(output.span()=> ::thermocline::memo::Kind::<#output>::new().kind());
    for (option, span) in [("cache_none", function.options.cache_none), ("cache_err", function.options.cache_err)] {
        if let Some(span) = span {
            let option = Ident::new(option, span);
            kind = quote_spanned!(span=> #kind.#option());
        }
    }
    kind
}

/// Binds `key`, or does `otherwise`.
fn encode(function: &Function, otherwise: &TokenStream) -> TokenStream {
    let (key, memo) = (local("key"), local("memo"));
    let encoded = function.encoded().map(|argument| {
        let shown = shown(argument);
        quote_spanned!(argument.span=> ::thermocline::memo::Way(#shown).way().encode(#shown, &mut #key);)
    });
    let own = function.options.key.as_ref().map(|expr| {
        quote_spanned!(expr.span()=> {
            let own = &(#expr);
            ::thermocline::memo::Way(own).way().encode(own, &mut #key);
        })
    });
    quote_spanned! {Span::mixed_site()=>
        let mut #key = #memo.key();
        #(#encoded)*
        #own
        let ::core::option::Option::Some(#key) = #memo.finish(&mut #key) else { #otherwise };
    }
}

/// Tells `keep` of the arguments and tags.
fn record(function: &Function) -> TokenStream {
    let keep = local("keep");
    let arguments = function.encoded().map(|argument| {
        let (shown, name) = (shown(argument), argument.plain_name());
        quote_spanned!(argument.span=> ::thermocline::memo::Way(#shown).way().record(#shown, #name, #keep);)
    });
    let own = function.options.key.as_ref().map(|expr| {
        quote_spanned!(expr.span()=> {
            let own = &(#expr);
            ::thermocline::memo::Way(own).way().record(own, "key", #keep);
        })
    });
    let tags = function.options.tags.iter().map(|tag| quote_spanned!(tag.span()=> #keep.tag(#tag);));
    quote!(#(#arguments)* #own #(#tags)*)
}

/// The argument as it is encoded, by reference.
fn shown(argument: &Argument) -> TokenStream {
    let name = &argument.name;
    match &argument.with {
        Some(with) => quote_spanned!(with.span()=> &(#with)(&#name)),
        None => quote_spanned!(argument.span=> &#name),
    }
}

/// Looks, and computes what is not there.
fn call(function: &Function, hidden: &Hidden, instance: &TokenStream) -> TokenStream {
    let ItemFn { sig, .. } = &function.item;
    let (asyncness, output, awaited) = (&sig.asyncness, &function.output, awaited(function));
    let (generics, _, clause) = sig.generics.split_for_impl();
    let (names, turbofish) = (function.names(), function.turbofish());
    let Hidden { body, call, compute, .. } = hidden;
    let (options, key, keep, kind, memo) =
        (local("options"), local("key"), local("keep"), local("kind"), local("memo"));
    let parameters = with_extra(function, function.parameters(), quote!(#options: ::thermocline::CallOptions));
    let plain = quote!(return Self::#body #turbofish (#(#names),*) #awaited);
    let open = open(function, hidden, "open", instance, &plain);
    let require =
        function.options.require.as_ref().map(|require| quote_spanned!(require.span()=> if !(#require) { #plain; }));
    let encode = encode(function, &plain);
    let look = match refresh::behind(function, hidden) {
        Some(owned) => quote!(look_or_refresh(#kind, #key, &#options, #owned)),
        None => quote!(look(#kind, #key, &#options)),
    };
    let (run, compute) = match function.is_async() {
        true => {
            let record = record(function);
            (quote!(run_async), quote!({ #record Self::#body #turbofish (#(#names),*) }))
        }
        false => {
            let names = with_extra(function, names.clone(), keep.clone());
            (quote!(run), quote!(Self::#compute #turbofish (#(#names),*)))
        }
    };
    quote_spanned! {Span::mixed_site()=>
        #[doc(hidden)]
        #[inline]
        #asyncness fn #call #generics (#(#parameters),*) -> #output #clause {
            #open
            if #options.skips() {
                #plain;
            }
            #require
            #encode
            let missed = match #memo.#look {
                ::core::result::Result::Ok(found) => return found,
                ::core::result::Result::Err(missed) => missed,
            };
            #memo.#run(#kind, #key, &#options, missed, move |#keep: &mut ::thermocline::memo::Keep| #compute) #awaited
        }
    }
}

/// Computes, and says what of.
fn compute(function: &Function, hidden: &Hidden) -> TokenStream {
    let (generics, _, clause) = function.item.sig.generics.split_for_impl();
    let (output, names, turbofish, record) =
        (&function.output, function.names(), function.turbofish(), record(function));
    let (Hidden { body, compute, .. }, keep) = (hidden, local("keep"));
    let parameters = with_extra(function, function.parameters(), quote!(#keep: &mut ::thermocline::memo::Keep));
    quote_spanned! {Span::mixed_site()=>
        #[doc(hidden)]
        fn #compute #generics (#(#parameters),*) -> #output #clause {
            #[allow(unused_imports)]
            use ::thermocline::memo::BySerde as _;
            #record
            Self::#body #turbofish (#(#names),*)
        }
    }
}

/// Everything that never computes.
fn act(function: &Function, hidden: &Hidden, instance: &TokenStream) -> TokenStream {
    let (generics, _, clause) = function.item.sig.generics.split_for_impl();
    let output = &function.output;
    let (act, key, keep, kind, memo) = (local("act"), local("key"), local("keep"), local("kind"), local("memo"));
    let parameters = with_extra(function, function.parameters(), quote!(#act: ::thermocline::memo::Act<#output>));
    let nothing = quote!(return ::thermocline::memo::Acted::default());
    let open = open(function, hidden, "handle", instance, &nothing);
    let (encode, record, name) = (encode(function, &nothing), record(function), &hidden.act);
    quote_spanned! {Span::mixed_site()=>
        #[doc(hidden)]
        #[allow(unused_variables)]
        fn #name #generics (#(#parameters),*) -> ::thermocline::memo::Acted<#output> #clause {
            #open
            #encode
            #memo.act(#kind, #key, #act, |#keep: &mut ::thermocline::memo::Keep| { #record })
        }
    }
}
