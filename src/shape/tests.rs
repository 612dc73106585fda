//! What an edit of a type changes of its shape, and what has one all the same.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU64,
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;

use super::*;

/// As if the type had been edited: the same name, other parts.
macro_rules! edits {
    ($($edit:ident: $kind:tt { $($parts:tt)* })*) => {$(
        mod $edit {
            use super::*;

            #[derive(Deserialize)]
            #[allow(dead_code, reason = "nobody reads the parts")]
            pub(super) $kind Quote { $($parts)* }
        }
    )*};
}

edits! {
    before: struct { bid: u64, ask: u64, of: Option<Box<Quote>> }
    again: struct { bid: u64, ask: u64, of: Option<Box<Quote>> }
    swapped: struct { ask: u64, bid: u64, of: Option<Box<Quote>> }
    retyped: struct { bid: u64, ask: f64, of: Option<Box<Quote>> }
    behind: struct { bid: u64, ask: u64, of: Option<Box<Quote>>, at: u8 }
    few: enum { Add(Box<Quote>, Box<Quote>, u8), Of { value: Vec<Quote> }, Number(u32) }
    many: enum { Add(Box<Quote>, Box<Quote>, u8), Of { value: Vec<Quote> }, Number(u64) }
    late: enum { Add(Box<Quote>, Box<Quote>, u16), Of { value: Vec<Quote> }, Number(u32) }
    field: enum { Add(Box<Quote>, Box<Quote>, u8), Of { worth: Vec<Quote> }, Number(u32) }
    aliases: struct { #[serde(alias = "a", alias = "b")] c: u64, bid: u64, ask: u64 }
    aliases_swapped: struct { #[serde(alias = "a", alias = "b")] c: u64, ask: u64, bid: u64 }
    offended: struct { of: Never, bid: u64, ask: u64 }
    offended_swapped: struct { of: Never, ask: u64, bid: u64 }
    within: struct { all: Vec<two::Quote> }
    beside: struct { all: Vec<one::Quote>, last: u8 }
    one: struct { of: Option<u8> }
    two: struct { of: Option<u8>, last: u8 }
    results: enum { Ping(Result<(), String>), Of(Result<one::Quote, String>) }
    other_results: enum { Ping(Result<(), String>), Of(Result<two::Quote, String>) }
    tree: enum { A(Box<Quote>, Box<Quote>), B(Box<Quote>), C(Vec<Quote>), D(Box<Quote>), E(Box<Quote>), F(Box<Quote>),
        G(Box<Quote>), H(Box<Quote>), I(Box<Quote>, Box<Quote>), J(u8), K(u16), L(u32) }
    other_tree: enum { A(Box<Quote>, Box<Quote>), B(Box<Quote>), C(Vec<Quote>), D(Box<Quote>), E(Box<Quote>), F(Box<Quote>),
        G(Box<Quote>), H(Box<Quote>), I(Box<Quote>, Box<Quote>), J(u8), K(u16), L(u64) }
}

/// Takes offence at whatever it is given.
#[derive(Deserialize)]
#[serde(try_from = "u8")]
struct Never;

impl TryFrom<u8> for Never {
    type Error = String;

    fn try_from(_: u8) -> Result<Self, String> {
        Err("never".to_owned())
    }
}

/// Known by what they hold alone.
mod plain {
    use super::*;

    #[derive(Deserialize)]
    #[serde(transparent)]
    pub(super) struct Quote(#[allow(dead_code, reason = "nobody reads it")] u64);
}

mod signed {
    use super::*;

    #[derive(Deserialize)]
    #[serde(transparent)]
    pub(super) struct Quote(#[allow(dead_code, reason = "nobody reads it")] i64);
}

#[test]
fn an_edited_type_has_another_shape() {
    let shapes = [
        shape_of::<before::Quote>(),
        shape_of::<swapped::Quote>(),
        shape_of::<retyped::Quote>(),
        shape_of::<behind::Quote>(),
        shape_of::<few::Quote>(),
        shape_of::<many::Quote>(),
        shape_of::<late::Quote>(),
        shape_of::<field::Quote>(),
        shape_of::<plain::Quote>(),
        shape_of::<signed::Quote>(),
        shape_of::<aliases::Quote>(),
        shape_of::<aliases_swapped::Quote>(),
        shape_of::<offended::Quote>(),
        shape_of::<offended_swapped::Quote>(),
        shape_of::<within::Quote>(),
        shape_of::<beside::Quote>(),
        shape_of::<results::Quote>(),
        shape_of::<other_results::Quote>(),
        shape_of::<tree::Quote>(),
        shape_of::<other_tree::Quote>(),
    ];
    let distinct: BTreeSet<_> = shapes.iter().collect();
    assert_eq!(distinct.len(), shapes.len(), "{shapes:?}");
    assert!(!distinct.contains(&0));
}

#[test]
fn a_type_has_one_shape_and_those_of_the_standard_library_need_none() {
    assert_eq!(shape_of::<before::Quote>(), shape_of::<again::Quote>());
    assert_eq!(shape_of::<Vec<HashMap<String, few::Quote>>>(), shape_of::<Vec<HashMap<String, few::Quote>>>());
    assert_ne!(shape_of::<Vec<HashMap<String, few::Quote>>>(), shape_of::<Vec<HashMap<String, many::Quote>>>());
    assert_eq!(shape_of::<(u64, String, Vec<Option<[f32; 3]>>, HashMap<u8, char>)>(), 0);
    assert_eq!((shape_of::<NonZeroU64>(), shape_of::<PathBuf>(), shape_of::<Duration>()), (0, 0, 0));
}

#[test]
fn what_panics_or_is_far_too_large_has_a_shape_all_the_same() {
    struct Panics;
    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("a type that takes no dummies")
        }
    }
    /// Parts without end.
    struct Endless;
    impl<'de> Deserialize<'de> for Endless {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct All;
            impl<'de> Visitor<'de> for All {
                type Value = Endless;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("parts")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Endless, A::Error> {
                    while parts.next_element::<(u8, u8)>()?.is_some() {}
                    Ok(Endless)
                }
            }
            deserializer.deserialize_tuple(usize::MAX, All)
        }
    }
    assert_ne!(shape_of::<Panics>(), 0);
    assert_ne!(shape_of::<Endless>(), 0);
}
