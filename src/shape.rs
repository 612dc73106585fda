//! The shape of a type: which structs, fields, variants and primitives its bytes stand for, so that bytes which an edited type has
//! written are told from its own.
//!
//! Holds a deserialiser that reads nothing: it notes what a type asks for and answers with the least there is. Never sees a value that
//! somebody keeps. Invariants: the same type has the same shape in every process; it ends, whatever the type asks for.
//!
//! An optional part, a part of a sequence and a variant are *choices*. A type that holds itself is gone into once more and no further:
//! then the last choice is made otherwise, and all begins anew. Variants have their turn one after the other.

use std::{
    any::type_name,
    collections::BTreeMap,
    fmt::{self, Display},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
        Visitor,
    },
};

/// How often it begins anew at most, and how deep it goes.
const PASSES_MAX: usize = 500;
const DEPTH_MAX: usize = 60;
/// How often a type may stand within itself.
const NESTED_MAX: usize = 2;

/// The shape of a type as a number, never 0; 0 for one that its name says all of: it has no part that has a name of its own.
pub(crate) fn shape_of<V: DeserializeOwned>() -> u32 {
    let (mut probe, mut hasher) = (Probe::default(), blake3::Hasher::new());
    for _ in 0..PASSES_MAX {
        probe.begin();
        // A type may take offence at what it is given, in whichever way. What it is made into is nobody's: it is not dropped either.
        let _ = catch_unwind(AssertUnwindSafe(|| V::deserialize(&mut probe).map(mem::forget)));
        hasher.update(&(probe.notes.len() as u64).to_le_bytes()).update(probe.notes.as_bytes());
        if !probe.goes_on() {
            break;
        }
    }
    if !probe.has_names {
        return 0;
    }
    hasher.update(type_name::<V>().as_bytes());
    hasher.finalize().as_bytes().first_chunk().map_or(1, |bytes| u32::from_le_bytes(*bytes).max(1))
}

/// A choice that was made, and how many there were.
#[derive(Clone, Copy)]
struct Choice {
    made: usize,
    of: usize,
}

#[derive(Default)]
struct Probe {
    /// What was asked for in this pass.
    notes: String,
    has_names: bool,
    /// Types within each other, outermost first.
    open: Vec<&'static str>,
    depth: usize,
    /// Choices of this pass, in their order: those of the pass before up to the one that is made otherwise.
    choices: Vec<Choice>,
    chosen: usize,
    /// It went deeper than it should.
    is_too_deep: bool,
    /// Enums: how many variants have had their turn, how many there are, and whether it was met in this pass.
    enums: BTreeMap<&'static str, (usize, usize, bool)>,
}

impl Probe {
    fn begin(&mut self) {
        self.notes.clear();
        self.open.clear();
        (self.depth, self.chosen, self.is_too_deep) = (0, 0, false);
    }

    /// Whether there is another pass to be made.
    fn goes_on(&mut self) -> bool {
        self.choices.truncate(self.chosen);
        if self.is_too_deep {
            while let Some(last) = self.choices.last_mut() {
                last.made += 1;
                if last.made < last.of {
                    return true;
                }
                self.choices.pop();
            }
        }
        self.choices.clear();
        for (turn, _, is_met) in self.enums.values_mut() {
            *turn += usize::from(mem::take(is_met));
        }
        self.enums.values().any(|(turn, of, _)| turn < of)
    }

    fn note(&mut self, what: &str) {
        self.notes.push_str(what);
        self.notes.push(';');
    }

    fn choose(&mut self, of: usize) -> usize {
        if self.chosen == self.choices.len() {
            self.choices.push(Choice { made: 0, of });
        }
        self.chosen += 1;
        self.choices[self.chosen - 1].made
    }

    /// Goes into something, named or not.
    fn within<R>(
        &mut self,
        name: Option<&'static str>,
        act: impl FnOnce(&mut Self) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        if let Some(name) = name {
            self.has_names = true;
            self.note(name);
            if self.open.iter().filter(|open| **open == name).count() == NESTED_MAX {
                self.is_too_deep = true;
                return Err(Refused);
            }
            self.open.push(name);
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.is_too_deep = true;
            return Err(Refused);
        }
        let result = act(self);
        self.depth -= 1;
        if name.is_some() {
            self.open.pop();
        }
        result
    }
}

/// Why there is no value. Nobody asks.
#[derive(Debug)]
struct Refused;

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a type refused what it was given to learn its shape")
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

macro_rules! plain {
    ($($method:ident $visit:ident $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.note(&stringify!($method)["deserialize_".len()..]);
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Probe {
    type Error = Refused;

    // One rather than zero: more types take it.
    plain! {
        deserialize_bool visit_bool false; deserialize_char visit_char 'a';
        deserialize_i8 visit_i8 1; deserialize_i16 visit_i16 1; deserialize_i32 visit_i32 1; deserialize_i64 visit_i64 1;
        deserialize_i128 visit_i128 1; deserialize_u8 visit_u8 1; deserialize_u16 visit_u16 1; deserialize_u32 visit_u32 1;
        deserialize_u64 visit_u64 1; deserialize_u128 visit_u128 1; deserialize_f32 visit_f32 1.0;
        deserialize_f64 visit_f64 1.0; deserialize_str visit_str ""; deserialize_string visit_str "";
        deserialize_bytes visit_bytes &[]; deserialize_byte_buf visit_bytes &[];
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        self.note("any");
        Err(Refused)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("option");
        match self.choose(2) {
            0 => self.within(None, |probe| visitor.visit_some(probe)),
            _ => visitor.visit_none(),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("unit");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refused> {
        self.within(Some(name), |_| visitor.visit_unit())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refused> {
        self.within(Some(name), |probe| visitor.visit_newtype_struct(probe))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("seq");
        let left = 1 - self.choose(2);
        self.within(None, |probe| visitor.visit_seq(Parts { probe, fields: &[], left }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Refused> {
        self.note(&format!("tuple {left}"));
        self.within(None, |probe| visitor.visit_seq(Parts { probe, fields: &[], left }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.within(Some(name), |probe| visitor.visit_seq(Parts { probe, fields: &[], left }))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("map");
        let left = 1 - self.choose(2);
        self.within(None, |probe| visitor.visit_map(Parts { probe, fields: &[], left }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.within(Some(name), |probe| visitor.visit_seq(Parts { probe, fields, left: fields.len() }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let of = variants.len().max(1);
        let known = self.enums.entry(name).or_insert((0, of, false));
        known.2 = true;
        let turn = known.0;
        let variant = (turn + self.choose(of)) % of;
        self.within(Some(name), |probe| {
            variants.iter().for_each(|variant| probe.note(variant));
            visitor.visit_enum(Variant { probe, variant })
        })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// So many parts, with the names of fields.
struct Parts<'a> {
    probe: &'a mut Probe,
    fields: &'static [&'static str],
    left: usize,
}

impl Parts<'_> {
    fn is_over(&mut self) -> bool {
        if let Some((field, others)) = self.fields.split_first() {
            self.probe.note(field);
            self.fields = others;
        }
        self.left == 0
    }
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.is_over() {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.probe).map(Some)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        seed.deserialize(&mut *self.probe)
    }
}

/// The variant whose turn it is.
struct Variant<'a> {
    probe: &'a mut Probe,
    variant: usize,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refused> {
        let number: de::value::U32Deserializer<Refused> = (self.variant as u32).into_deserializer();
        self.probe.note(&format!("variant {}", self.variant));
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        self.probe.note("unit");
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        self.probe.note("newtype");
        seed.deserialize(self.probe)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.probe.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_seq(Parts { probe: self.probe, fields, left: fields.len() })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, num::NonZeroU64, path::PathBuf, time::Duration};

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
    }

    /// The shape, whatever the type's path.
    fn bare<V: DeserializeOwned>() -> Vec<String> {
        let (mut probe, mut passes) = (Probe::default(), Vec::new());
        loop {
            probe.begin();
            let _ = V::deserialize(&mut probe).map(mem::forget);
            passes.push(probe.notes.clone());
            assert!(passes.len() < PASSES_MAX);
            if !probe.goes_on() {
                return passes;
            }
        }
    }

    #[test]
    fn an_edited_type_has_another_shape() {
        let structs = [
            bare::<before::Quote>(),
            bare::<swapped::Quote>(),
            bare::<retyped::Quote>(),
            bare::<behind::Quote>(),
            bare::<few::Quote>(),
            bare::<many::Quote>(),
            bare::<late::Quote>(),
            bare::<field::Quote>(),
        ];
        for (index, one) in structs.iter().enumerate() {
            assert!(structs[..index].iter().all(|other| one != other), "{one:?}");
        }
        assert_eq!(bare::<before::Quote>(), bare::<again::Quote>());
        assert_eq!(bare::<Vec<HashMap<String, before::Quote>>>(), bare::<Vec<HashMap<String, again::Quote>>>());
        assert_ne!(bare::<Vec<HashMap<String, before::Quote>>>(), bare::<Vec<HashMap<String, behind::Quote>>>());
    }

    #[test]
    fn a_type_has_one_shape_and_plain_ones_need_none() {
        assert_eq!(shape_of::<before::Quote>(), shape_of::<before::Quote>());
        assert_ne!(shape_of::<before::Quote>(), 0);
        assert_ne!(shape_of::<Vec<Option<few::Quote>>>(), shape_of::<Vec<Option<many::Quote>>>());
        assert_eq!(shape_of::<(u64, String, Vec<Option<[f32; 3]>>, HashMap<u8, char>)>(), 0);
        assert_eq!((shape_of::<NonZeroU64>(), shape_of::<PathBuf>()), (0, 0));
        assert_ne!(shape_of::<Duration>(), 0);
    }

    #[test]
    fn what_takes_offence_has_a_shape_all_the_same() {
        #[derive(Deserialize)]
        #[serde(try_from = "u8")]
        struct Never;
        impl TryFrom<u8> for Never {
            type Error = String;
            fn try_from(_: u8) -> Result<Self, String> {
                Err("never".to_owned())
            }
        }
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "nobody reads the parts")]
        struct Holder {
            first: u16,
            second: Never,
        }
        assert_ne!(shape_of::<Holder>(), 0);
        assert_eq!(bare::<Holder>(), ["Holder;first;u16;second;u8;"]);
    }
}
