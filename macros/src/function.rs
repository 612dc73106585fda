//! A function as the user wrote it, checked: what it takes, what it gives, and what of that is the key.
//!
//! Holds syntax only. Invariant: every argument has a name of its own, also where the user wrote a pattern.

use std::mem;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{
    Attribute, Error, Expr, FnArg, GenericParam, Generics, ItemFn, Meta, Pat, PatType, Receiver, ReceiverKind, Result,
    ReturnType, Safety, Token, Type, TypeParamBound, WherePredicate, ext::IdentExt, parse_quote,
    punctuated::Punctuated, spanned::Spanned,
};

use crate::options::Options;

/// A function that can be memoized.
pub(crate) struct Function {
    pub(crate) item: ItemFn,
    pub(crate) options: Options,
    pub(crate) arguments: Vec<Argument>,
    /// What it gives; of an `async` one, what its future gives.
    pub(crate) output: Type,
    /// Whether it stands in an `impl` block.
    pub(crate) is_associated: bool,
}

/// One argument of it.
pub(crate) struct Argument {
    /// What the expansion calls it.
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    /// Where errors about it stand.
    pub(crate) span: Span,
    pub(crate) receiver: Option<Receiver>,
    /// The way of encoding that the user gave.
    pub(crate) with: Option<Expr>,
    /// Whether the key knows nothing of it.
    pub(crate) is_ignored: bool,
}

impl Function {
    /// Takes the function apart.
    ///
    /// # Errors
    /// What cannot be memoized, on its span.
    pub(crate) fn new(mut item: ItemFn, options: Options) -> Result<Self> {
        refuse_qualifiers(&item)?;
        let output = match &item.sig.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, output) => (**output).clone(),
        };
        if let Some(span) = find_impl(&output) {
            return Err(Error::new(
                span,
                "a memoized function names the type that it gives: `impl Trait` cannot be read back",
            ));
        }
        let mut arguments = Vec::new();
        for (index, input) in item.sig.inputs.iter_mut().enumerate() {
            arguments.push(Argument::new(index, input, &options)?);
        }
        let names: Vec<String> = arguments.iter().map(|argument| argument.name.unraw().to_string()).collect();
        if let Some(unknown) = options.ignore.iter().find(|ignored| !names.contains(&ignored.unraw().to_string())) {
            let what = format!("`{}` has no argument `{unknown}`; it has {}", item.sig.ident, names.join(", "));
            return Err(Error::new(unknown.span(), what));
        }
        if let (Some(key), Some(with)) = (&options.key, arguments.iter().find_map(|argument| argument.with.as_ref())) {
            let _ = key;
            return Err(Error::new(with.span(), "`key` says all of the key; no argument is encoded besides"));
        }
        let has_receiver = arguments.iter().any(|argument| argument.receiver.is_some());
        let is_associated = has_receiver || mentions_self(item.to_token_stream());
        Ok(Self { item, options, arguments, output, is_associated })
    }

    /// The name without `r#`.
    pub(crate) fn plain_name(&self) -> String {
        self.item.sig.ident.unraw().to_string()
    }

    pub(crate) fn is_async(&self) -> bool {
        self.item.sig.asyncness.is_some()
    }

    /// `::<T, N>`, or nothing.
    pub(crate) fn turbofish(&self) -> TokenStream {
        let names = type_names(&self.item.sig.generics);
        if names.is_empty() { TokenStream::new() } else { quote!(::<#(#names),*>) }
    }

    /// The arguments as parameters of a companion: patterns have become names.
    pub(crate) fn parameters(&self) -> Vec<TokenStream> {
        let parameter = |argument: &Argument| match &argument.receiver {
            Some(receiver) => {
                let mut receiver = receiver.clone();
                receiver.mutability = None;
                receiver.to_token_stream()
            }
            None => {
                let (name, ty) = (&argument.name, &argument.ty);
                quote!(#name: #ty)
            }
        };
        self.arguments.iter().map(parameter).collect()
    }

    /// The arguments as they are passed on.
    pub(crate) fn names(&self) -> Vec<Ident> {
        self.arguments.iter().map(|argument| argument.name.clone()).collect()
    }

    /// The arguments that are part of the key one by one.
    pub(crate) fn encoded(&self) -> impl Iterator<Item = &Argument> {
        let has_own_key = self.options.key.is_some();
        self.arguments.iter().filter(move |argument| !argument.is_ignored && !has_own_key)
    }

    /// The attributes that switch the function on and off.
    pub(crate) fn conditions(&self) -> Vec<&Attribute> {
        self.item.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect()
    }

    /// The attributes of what is called. A lint that is expected is met in the body, and may be met here.
    pub(crate) fn entry_attributes(&self) -> Vec<Attribute> {
        let mut attributes = self.item.attrs.clone();
        for attribute in &mut attributes {
            if attribute.path().is_ident("expect")
                && let Meta::List(list) = &mut attribute.meta
            {
                list.path = Ident::new("allow", list.path.span()).into();
            }
        }
        attributes
    }

    /// The lints that it is allowed: its companions are, too.
    pub(crate) fn allowed(&self) -> Vec<Attribute> {
        self.entry_attributes().into_iter().filter(|attribute| attribute.path().is_ident("allow")).collect()
    }

    /// The attributes that matter to its body.
    pub(crate) fn body_attributes(&self) -> Vec<&Attribute> {
        let kept = |attribute: &&Attribute| {
            ["allow", "expect", "warn", "deny", "forbid"].iter().any(|lint| attribute.path().is_ident(lint))
        };
        self.item.attrs.iter().filter(kept).collect()
    }

    /// A number made of the function's own tokens, and of the options that say which calls are kept, and under which keys.
    pub(crate) fn digest(&self) -> u64 {
        let (sig, block, Options { ignore, key, require, .. }) = (&self.item.sig, &self.item.block, &self.options);
        let with = self.arguments.iter().map(|argument| {
            let (name, with) = (&argument.name, &argument.with);
            quote!(#name = #with)
        });
        let text = quote!(#sig #block ignore(#(#ignore),*) key(#key) require(#require) with(#(#with),*)).to_string();
        // FNV-1a: stable for ever, unlike the hashers of std.
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl Argument {
    fn new(index: usize, input: &mut FnArg, options: &Options) -> Result<Self> {
        let mut argument = match input {
            FnArg::Receiver(receiver) => Self {
                name: Ident::new("self", receiver.self_token.span),
                ty: type_of(receiver),
                span: receiver.self_token.span,
                with: take_with(&mut receiver.attrs)?,
                receiver: Some(receiver.clone()),
                is_ignored: false,
            },
            FnArg::Typed(typed) => {
                refuse_condition(typed)?;
                let with = take_with(&mut typed.attrs)?;
                let name = name_of(typed, index);
                Self { span: typed.pat.span(), name, ty: (*typed.ty).clone(), receiver: None, with, is_ignored: false }
            }
        };
        argument.is_ignored = options.ignore.iter().any(|ignored| ignored.unraw() == argument.name.unraw());
        argument.check()?;
        Ok(argument)
    }

    /// The name without `r#`.
    pub(crate) fn plain_name(&self) -> String {
        self.name.unraw().to_string()
    }

    fn check(&self) -> Result<()> {
        if let (true, Some(with)) = (self.is_ignored, &self.with) {
            return Err(Error::new(with.span(), format!("`{}` is ignored; there is nothing to encode", self.name)));
        }
        if let Some(span) = find_impl(&self.ty) {
            let what =
                format!("a memoized function names the type of `{}`: write `<T: …>` instead of `impl …`", self.name);
            return Err(Error::new(span, what));
        }
        match &self.ty {
            Type::Reference(reference) if reference.mutability.is_some() && !self.is_ignored => {
                let what = format!(
                    "a memoized function cannot take `{}` by `&mut`: what it changes there would happen only when it is computed; \
                     leave the argument out of the key with `ignore({})` if that is right",
                    self.name, self.name
                );
                Err(Error::new(self.span, what))
            }
            _ => Ok(()),
        }
    }
}

/// The type of `self`.
fn type_of(receiver: &Receiver) -> Type {
    match &receiver.kind {
        ReceiverKind::Reference(_, lifetime, Some(_)) => parse_quote!(&#lifetime mut Self),
        ReceiverKind::Reference(_, lifetime, None) => parse_quote!(&#lifetime Self),
        ReceiverKind::Typed(_, ty) => (**ty).clone(),
        _ => parse_quote!(Self),
    }
}

/// The names of type and constant parameters.
pub(crate) fn type_names(generics: &Generics) -> Vec<&Ident> {
    fn name(parameter: &GenericParam) -> Option<&Ident> {
        match parameter {
            GenericParam::Type(parameter) => Some(&parameter.ident),
            GenericParam::Const(parameter) => Some(&parameter.ident),
            _ => None,
        }
    }
    generics.params.iter().filter_map(name).collect()
}

fn refuse_qualifiers(item: &ItemFn) -> Result<()> {
    if let Some(constness) = &item.sig.constness {
        return Err(Error::new(constness.span(), "a `const fn` cannot be memoized: it has nowhere to look"));
    }
    if let Safety::Unsafe(unsafety) = &item.sig.safety {
        return Err(Error::new(
            unsafety.span(),
            "an `unsafe fn` cannot be memoized: its companions could not keep its promises",
        ));
    }
    if let Some(abi) = &item.sig.abi {
        return Err(Error::new(abi.span(), "a function of a foreign ABI cannot be memoized"));
    }
    match &item.sig.variadic {
        Some(variadic) => Err(Error::new(variadic.span(), "a function of a foreign ABI cannot be memoized")),
        None => Ok(()),
    }
}

/// An argument that is there at times has a place in some keys only.
fn refuse_condition(typed: &PatType) -> Result<()> {
    match typed.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
        Some(condition) => Err(Error::new(
            condition.path().span(),
            "an argument of a memoized function is there always; write the function twice, each with its `#[cfg(…)]`",
        )),
        None => Ok(()),
    }
}

/// The name of an argument; a pattern gets one.
fn name_of(typed: &PatType, index: usize) -> Ident {
    match &*typed.pat {
        Pat::Ident(pat) if pat.subpat.is_none() && pat.by_ref.is_none() => pat.ident.clone(),
        _ => format_ident!("argument{index}", span = Span::call_site()),
    }
}

/// Takes `#[memoize(with = f)]` off an argument.
fn take_with(attributes: &mut Vec<Attribute>) -> Result<Option<Expr>> {
    let Some(index) = attributes
        .iter()
        .position(|attribute| attribute.path().segments.last().is_some_and(|segment| segment.ident == "memoize"))
    else {
        return Ok(None);
    };
    let attribute = attributes.remove(index);
    let what = "an argument takes `#[memoize(with = f)]`";
    let Meta::List(list) = &attribute.meta else { return Err(Error::new(attribute.span(), what)) };
    let parse = |input: syn::parse::ParseStream<'_>| {
        let option: Ident = input.call(Ident::parse_any)?;
        if option != "with" {
            return Err(Error::new(option.span(), what));
        }
        input.parse::<Token![=]>()?;
        input.parse::<Expr>()
    };
    list.parse_args_with(parse).map(Some)
}

/// Where `impl Trait` stands in a type.
fn find_impl(ty: &Type) -> Option<Span> {
    struct Finder(Option<Span>);
    impl<'ast> syn::visit::Visit<'ast> for Finder {
        fn visit_type_impl_trait(&mut self, found: &'ast syn::TypeImplTrait) {
            self.0.get_or_insert(found.span());
        }
    }
    let mut finder = Finder(None);
    syn::visit::Visit::visit_type(&mut finder, ty);
    finder.0
}

/// Whether `Self` occurs, as it can only in an `impl` block, or in one that the body has of its own.
fn mentions_self(tokens: TokenStream) -> bool {
    let mut has_own_impl = false;
    let mut found = false;
    let mut rest: Vec<TokenTree> = tokens.into_iter().collect();
    while let Some(token) = rest.pop() {
        match token {
            TokenTree::Ident(ident) if ident == "Self" => found = true,
            TokenTree::Ident(ident) if ident == "impl" || ident == "trait" || ident == "struct" || ident == "enum" => {
                has_own_impl = true
            }
            TokenTree::Group(group) => rest.extend(group.stream()),
            _ => {}
        }
    }
    found && !has_own_impl
}

/// Type and constant parameters, and what is said of them alone: nothing that names a lifetime of the function's.
pub(crate) fn without_lifetimes(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    generics.params =
        generics.params.into_iter().filter(|parameter| !matches!(parameter, GenericParam::Lifetime(_))).collect();
    for parameter in &mut generics.params {
        if let GenericParam::Type(parameter) = parameter {
            parameter.bounds = outliving_nothing(&parameter.bounds);
        }
    }
    if let Some(clause) = &mut generics.where_clause {
        let predicates = mem::take(&mut clause.predicates).into_iter().filter_map(|predicate| match predicate {
            WherePredicate::Type(mut predicate) => {
                predicate.bounds = outliving_nothing(&predicate.bounds);
                (!predicate.bounds.is_empty()).then_some(WherePredicate::Type(predicate))
            }
            WherePredicate::Lifetime(_) => None,
            other => Some(other),
        });
        clause.predicates = predicates.collect();
    }
    generics
}

fn outliving_nothing(bounds: &Bounds) -> Bounds {
    let stays = |bound: &&TypeParamBound| match bound {
        TypeParamBound::Lifetime(lifetime) => lifetime.ident == "static",
        _ => true,
    };
    bounds.iter().filter(stays).cloned().collect()
}

type Bounds = Punctuated<TypeParamBound, Token![+]>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_all_that_makes_keys_and_results() {
        let digest = |attribute: TokenStream, item: ItemFn| {
            Function::new(item, syn::parse2(attribute).expect("options"))
                .map(|function| function.digest())
                .expect("a function")
        };
        let item: ItemFn = parse_quote!(
            fn f(a: u32, b: u32) -> u32 {
                a + b
            }
        );
        let plain = digest(quote!(), item.clone());
        assert_eq!(plain, digest(quote!(ttl = "1s"), item.clone()));
        let others = [
            digest(quote!(ignore(a)), item.clone()),
            digest(quote!(ignore(b)), item.clone()),
            digest(quote!(key = a), item.clone()),
            digest(quote!(require = a), item),
            digest(
                quote!(),
                parse_quote!(
                    fn f(#[memoize(with = g)] a: u32, b: u32) -> u32 {
                        a + b
                    }
                ),
            ),
            digest(
                quote!(),
                parse_quote!(
                    fn f(a: u32, #[memoize(with = g)] b: u32) -> u32 {
                        a + b
                    }
                ),
            ),
            digest(
                quote!(),
                parse_quote!(
                    fn f(a: u32, b: u32) -> u32 {
                        a * b
                    }
                ),
            ),
        ];
        for (index, other) in others.iter().enumerate() {
            assert!(*other != plain && !others[..index].contains(other), "{index}");
        }
    }
}
