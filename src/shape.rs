//! The shape of a type: which structs, fields, variants and primitives its bytes stand for, so that bytes which an edited type has
//! written are told from its own.
//!
//! Holds a deserialiser that reads nothing: it notes what a type asks for and answers with the least there is. Never sees a value that
//! somebody keeps. Invariants: the same type has the same shape in every process; it ends, whatever the type asks for.
//!
//! An optional part, a part of a sequence and a variant are *choices*. A type that holds itself is gone into once more and no further:
//! then the last choice is made otherwise, and all begins anew. Variants have their turn one after the other. Of a type that refuses
//! what it is given, what stands behind that is known by the names of its fields only.

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

/// How often it begins anew, and how much it notes, at most: some ten milliseconds. What is beyond that has no part in the shape.
const PASSES_MAX: usize = 5_000;
const NOTES_MAX: usize = 200_000;
/// How deep it goes: not so deep that a small stack ends.
const DEPTH_MAX: usize = 60;
/// How often a type may stand within itself: once more, so that what follows its own part is seen.
const NESTED_MAX: usize = 2;

/// The shape of a type as a number, never 0; 0 for one of the standard library's, which its name says all of.
pub(crate) fn shape_of<V: DeserializeOwned>() -> u32 {
    if is_of_std(type_name::<V>()) {
        return 0;
    }
    let (mut probe, mut hasher) = (Probe::default(), blake3::Hasher::new());
    for _ in 0..PASSES_MAX {
        probe.begin();
        // A type may take offence at what it is given, in whichever way; who panics is not asked again.
        let asked = catch_unwind(AssertUnwindSafe(|| V::deserialize(&mut probe).is_ok()));
        hasher.update(&(probe.notes.len() as u64).to_le_bytes()).update(probe.notes.as_bytes());
        if asked.is_err() || !probe.goes_on() {
            break;
        }
    }
    hasher.finalize().as_bytes().first_chunk().map_or(1, |bytes| u32::from_le_bytes(*bytes).max(1))
}

/// Whether all that a type's name speaks of is the language's or the standard library's.
fn is_of_std(name: &str) -> bool {
    let is_word = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
    let mut paths = name.split(|char| !is_word(char)).filter(|path| path.contains("::"));
    paths.all(|path| ["core::", "alloc::", "std::"].iter().any(|of| path.starts_with(of)))
}

/// A choice that was made, and how many there were.
#[derive(Clone, Copy)]
struct Choice {
    made: usize,
    of: usize,
}

#[derive(Default)]
struct Probe {
    /// What was asked for in this pass, and how much in all.
    notes: String,
    noted: usize,
    /// Types within each other, outermost first.
    open: Vec<&'static str>,
    /// Choices of this pass, in their order: those of the pass before up to the one that is made otherwise.
    choices: Vec<Choice>,
    chosen: usize,
    /// It went deeper than it should.
    is_too_deep: bool,
    /// By type.
    enums: BTreeMap<&'static str, Turns>,
}

/// The variants of an enum.
#[derive(Default)]
struct Turns {
    /// How many had their turn, of how many.
    had: usize,
    of: usize,
    /// Whether it was met in this pass.
    is_met: bool,
}

impl Probe {
    fn begin(&mut self) {
        self.notes.clear();
        self.open.clear();
        (self.chosen, self.is_too_deep) = (0, false);
    }

    /// Whether there is another pass to be made.
    fn goes_on(&mut self) -> bool {
        if self.noted > NOTES_MAX {
            return false;
        }
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
        for turns in self.enums.values_mut() {
            turns.had += usize::from(mem::take(&mut turns.is_met));
        }
        self.enums.values().any(|turns| turns.had < turns.of)
    }

    fn note(&mut self, what: &str) {
        self.noted += 1;
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

    /// Goes into a type, which serde may know by a `name`.
    fn within<T>(
        &mut self,
        name: &str,
        visited: &'static str,
        act: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.note(name);
        if self.noted > NOTES_MAX {
            return Err(Refused);
        }
        let nested = self.open.iter().filter(|open| **open == visited).count();
        if self.open.len() == DEPTH_MAX || nested == NESTED_MAX {
            self.is_too_deep = true;
            return Err(Refused);
        }
        self.open.push(visited);
        let result = act(self);
        self.open.pop();
        self.note("end");
        result
    }

    fn note_all(&mut self, names: &[&str]) {
        self.note(&names.len().to_string());
        names.iter().for_each(|name| self.note(name));
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
        self.within("option", type_name::<V::Value>(), |probe| match probe.choose(2) {
            0 => visitor.visit_some(probe),
            _ => visitor.visit_none(),
        })
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("unit");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refused> {
        self.note(name);
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refused> {
        self.within(name, type_name::<V::Value>(), |probe| visitor.visit_newtype_struct(probe))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.within("seq", type_name::<V::Value>(), |probe| {
            let left = 1 - probe.choose(2);
            visitor.visit_seq(Parts { probe, left })
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_tuple_struct("tuple", left, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.within(name, type_name::<V::Value>(), |probe| {
            probe.note(&left.to_string());
            visitor.visit_seq(Parts { probe, left })
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.within("map", type_name::<V::Value>(), |probe| {
            let left = 1 - probe.choose(2);
            visitor.visit_map(Parts { probe, left })
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.within(name, type_name::<V::Value>(), |probe| {
            // All of them first: a part that refuses its answer ends the pass.
            probe.note_all(fields);
            visitor.visit_seq(Parts { probe, left: fields.len() })
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let visited = type_name::<V::Value>();
        self.within(name, visited, |probe| {
            probe.note_all(variants);
            let of = variants.len().max(1);
            let turns = probe.enums.entry(visited).or_default();
            (turns.of, turns.is_met) = (of, true);
            let had = turns.had;
            let variant = (had + probe.choose(of)) % of;
            visitor.visit_enum(Variant { probe, variant })
        })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// So many parts.
struct Parts<'a> {
    probe: &'a mut Probe,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        if self.probe.noted > NOTES_MAX {
            return Err(Refused);
        }
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
        // Its visitor's value is the enum, which it is within already.
        self.probe.note(&len.to_string());
        visitor.visit_seq(Parts { probe: self.probe, left: len })
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        self.probe.note_all(fields);
        visitor.visit_seq(Parts { probe: self.probe, left: fields.len() })
    }
}

#[cfg(test)]
mod tests;
