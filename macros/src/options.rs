//! What stands in the brackets of `#[memoize(…)]`.
//!
//! Holds the options as they were written, each with its span. Invariant: no option is given twice.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote_spanned;
use syn::{
    Error, Expr, ExprLit, Lit, Result, Token, bracketed,
    ext::IdentExt,
    parenthesized,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    spanned::Spanned,
};

use crate::duration;

/// All options of one memoized function.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) store: Option<Expr>,
    pub(crate) name: Option<Expr>,
    pub(crate) ttl: Option<Expr>,
    pub(crate) stale_after: Option<Expr>,
    pub(crate) wait_timeout: Option<Expr>,
    pub(crate) max_entries: Option<Expr>,
    pub(crate) tags: Vec<Expr>,
    pub(crate) codec: Option<Expr>,
    pub(crate) version: Option<Expr>,
    pub(crate) hash_code: Option<Span>,
    pub(crate) isolate: Option<Span>,
    pub(crate) ignore: Vec<Ident>,
    pub(crate) key: Option<Expr>,
    pub(crate) require: Option<Expr>,
    pub(crate) cache_none: Option<Span>,
    pub(crate) cache_err: Option<Span>,
}

const KNOWN: &str = "store, name, ttl, stale_after, wait_timeout, max_entries, tags, codec, version, hash_code, isolate, \
                     ignore, key, require, cache_none, cache_err";

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            let option = input.call(Ident::parse_any)?;
            if seen.contains(&option) {
                return Err(Error::new(option.span(), format!("option `{option}` is given twice")));
            }
            options.parse_one(&option, input)?;
            seen.push(option);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        options.check(&seen)?;
        Ok(options)
    }
}

impl Options {
    fn parse_one(&mut self, option: &Ident, input: ParseStream<'_>) -> Result<()> {
        match option.to_string().as_str() {
            "store" => self.store = Some(value(option, input)?),
            "name" => self.name = Some(value(option, input)?),
            "ttl" => self.ttl = Some(value(option, input)?),
            "stale_after" => self.stale_after = Some(value(option, input)?),
            "wait_timeout" => self.wait_timeout = Some(value(option, input)?),
            "max_entries" => self.max_entries = Some(value(option, input)?),
            "tags" => self.tags = tags(option, input)?,
            "codec" => self.codec = Some(value(option, input)?),
            "version" => self.version = Some(value(option, input)?),
            "hash_code" => self.hash_code = Some(flag(option, input)?),
            "isolate" => self.isolate = Some(flag(option, input)?),
            "ignore" => self.ignore = names(option, input)?,
            "key" => self.key = Some(value(option, input)?),
            "require" => self.require = Some(value(option, input)?),
            "cache_none" => self.cache_none = Some(flag(option, input)?),
            "cache_err" => self.cache_err = Some(flag(option, input)?),
            _ => return Err(Error::new(option.span(), format!("no option is called `{option}`; there are {KNOWN}"))),
        }
        Ok(())
    }

    /// Those that are given, each with its name.
    pub(crate) fn durations(&self) -> impl Iterator<Item = (&'static str, &Expr)> {
        let all = [("ttl", &self.ttl), ("stale_after", &self.stale_after), ("wait_timeout", &self.wait_timeout)];
        all.into_iter().filter_map(|(option, written)| Some((option, written.as_ref()?)))
    }

    fn check(&self, seen: &[Ident]) -> Result<()> {
        for (option, written) in self.durations() {
            if let Some(text) = literal_text(written) {
                let what = match duration::parse(&text) {
                    Ok(duration) if duration.is_zero() => zero_means(option).to_owned(),
                    Ok(_) => continue,
                    Err(what) => what,
                };
                return Err(Error::new(written.span(), what));
            }
        }
        let zero = |expr: &Expr| matches!(expr, Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) if number.base10_digits() == "0");
        if let Some(max_entries) = self.max_entries.as_ref().filter(|max_entries| zero(max_entries)) {
            return Err(Error::new(max_entries.span(), "a limit of zero entries keeps nothing"));
        }
        let text = |duration: &Option<Expr>| {
            duration.as_ref().and_then(literal_text).and_then(|text| duration::parse(&text).ok())
        };
        if let (Some(ttl), Some(stale_after)) = (text(&self.ttl), text(&self.stale_after))
            && stale_after >= ttl
        {
            let what = format!("nothing is stale before it is gone: `stale_after` is {stale_after:?}, `ttl` {ttl:?}");
            return Err(Error::new(self.stale_after.span(), what));
        }
        if let (Some(_), Some(ignored)) = (&self.key, seen.iter().find(|option| *option == "ignore")) {
            return Err(Error::new(ignored.span(), "`key` says all of the key; there is nothing left to ignore"));
        }
        Ok(())
    }
}

/// What is wrong with a duration of zero.
fn zero_means(option: &str) -> &'static str {
    match option {
        "wait_timeout" => {
            "a wait of zero: nobody would wait for a computation of another's; without the option callers wait 30 s, with a very \
             long duration for ever"
        }
        _ => "a duration of zero; leave the option out if there is to be no limit",
    }
}

/// The duration of an option as an expression that is constant: of a text that was checked, or as the user wrote it.
pub(crate) fn duration(option: &str, written: &Expr) -> TokenStream {
    let (span, zero) = (written.span(), zero_means(option));
    match literal_text(written).and_then(|text| duration::parse(&text).ok()) {
        Some(duration) => {
            let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
            quote_spanned!(span=> ::core::time::Duration::new(#seconds, #nanos))
        }
        None => quote_spanned!(span=> const {
            let duration: ::core::time::Duration = #written;
            assert!(!duration.is_zero(), #zero);
            duration
        }),
    }
}

fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

fn value(option: &Ident, input: ParseStream<'_>) -> Result<Expr> {
    if !input.peek(Token![=]) {
        return Err(Error::new(option.span(), format!("`{option}` needs a value: `{option} = …`")));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

fn flag(option: &Ident, input: ParseStream<'_>) -> Result<Span> {
    if input.peek(Token![=]) || input.peek(syn::token::Paren) {
        return Err(Error::new(option.span(), format!("`{option}` takes no value")));
    }
    Ok(option.span())
}

fn tags(option: &Ident, input: ParseStream<'_>) -> Result<Vec<Expr>> {
    if !input.peek(Token![=]) {
        return Err(Error::new(option.span(), "`tags` needs a list: `tags = [\"users\"]`"));
    }
    input.parse::<Token![=]>()?;
    if !input.peek(syn::token::Bracket) {
        return Err(input.error("tags are a list: `tags = [\"users\"]`"));
    }
    let list;
    bracketed!(list in input);
    Ok(Punctuated::<Expr, Token![,]>::parse_terminated(&list)?.into_iter().collect())
}

fn names(option: &Ident, input: ParseStream<'_>) -> Result<Vec<Ident>> {
    if !input.peek(syn::token::Paren) {
        return Err(Error::new(option.span(), format!("`{option}` needs names of arguments: `{option}(conn, log)`")));
    }
    let list;
    parenthesized!(list in input);
    let list = list.parse_terminated(Ident::parse_any, Token![,])?;
    Ok(list.into_iter().collect())
}
