//! The encoding of keys: a serde serialiser that writes what a value is before what it says.
//!
//! Every scalar has a tag of its type, so that `1u8` is not `1u32`, and floats keep their bits. Strings have their length
//! before them; sequences, sets and maps end with [`END`], which begins no value. So no value's encoding is the beginning of
//! another's, and values one after the other are told apart. Arrays, tuples and slices are encoded alike, because one may
//! borrow as the other. Maps are sorted by their encoded keys. serde says of sets only that they are sequences: who the
//! type's name says is a hash set is sorted too. That can miss a set (behind a type of one's own that is transparent to
//! serde), which costs a miss and never gives a wrong answer.

use std::{any::type_name, fmt::Display};

use serde::{Serialize, ser};

use super::buffer::Buffer;

/// Why a value could not be encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unencodable(String);

impl Display for Unencodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unencodable {}

impl ser::Error for Unencodable {
    fn custom<T: Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

type Result<T = ()> = std::result::Result<T, Unencodable>;

const END: u8 = 0;
const UNIT: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const I8: u8 = 4;
const I16: u8 = 5;
const I32: u8 = 6;
const I64: u8 = 7;
const I128: u8 = 8;
const U8: u8 = 9;
const U16: u8 = 10;
const U32: u8 = 11;
const U64: u8 = 12;
const U128: u8 = 13;
const F32: u8 = 14;
const F64: u8 = 15;
const CHAR: u8 = 16;
const STR: u8 = 17;
const BYTES: u8 = 18;
const NONE: u8 = 19;
const SOME: u8 = 20;
const SEQUENCE: u8 = 21;
const SET: u8 = 22;
const MAP: u8 = 23;
const STRUCT: u8 = 24;
const VARIANT: u8 = 25;
const ORDERED_MAP: u8 = 26;

/// Hash sets, whose order is not theirs to choose. Full paths: another type of that name may mean its order.
const SETS: [&str; 2] = ["std::collections::hash::set::HashSet<", "hashbrown::set::HashSet<"];
/// Maps whose order their users see.
const ORDERED: [&str; 2] = ["indexmap::map::IndexMap<", "serde_json::map::Map<"];
/// What serde looks through.
const POINTERS: [&str; 6] =
    ["&mut ", "&", "alloc::boxed::Box<", "alloc::sync::Arc<", "alloc::rc::Rc<", "core::cell::RefCell<"];

fn is_one_of(types: &[&str], mut name: &str) -> bool {
    while let Some(inner) = POINTERS.iter().find_map(|pointer| name.strip_prefix(pointer)) {
        name = inner;
    }
    types.iter().any(|one| name.starts_with(one))
}

/// Encodes a value behind what is there.
#[inline]
pub(super) fn write<T: Serialize + ?Sized>(to: &mut Buffer, value: &T) -> Result {
    value.serialize(Writer { to, type_name: type_name::<T>() })
}

/// Encodes bytes.
#[inline]
pub(super) fn write_bytes(to: &mut Buffer, bytes: &[u8]) {
    write_text(to, BYTES, bytes);
}

#[inline]
fn write_text(to: &mut Buffer, tag: u8, bytes: &[u8]) {
    if bytes.len() < u8::MAX.into() {
        to.extend_both(&[tag, bytes.len() as u8], bytes);
    } else {
        // 255 says that eight bytes follow.
        to.extend_both(&[tag, u8::MAX], &(bytes.len() as u64).to_le_bytes());
        to.extend(bytes);
    }
}

/// Where one value is encoded.
pub(super) struct Writer<'a> {
    to: &'a mut Buffer,
    type_name: &'static str,
}

macro_rules! scalars {
    ($($name:ident $type:ty, $tag:ident;)*) => {$(
        #[inline]
        fn $name(self, value: $type) -> Result {
            self.to.extend_both(&[$tag], &value.to_le_bytes());
            Ok(())
        }
    )*};
}

impl<'a> Writer<'a> {
    /// A variant by its name: those are not put in another order by the next version of a program.
    #[inline]
    fn variant(&mut self, variant: &str) {
        write_text(self.to, VARIANT, variant.as_bytes());
    }

    #[inline]
    fn compound(self, tag: u8) -> Compound<'a> {
        self.to.push(tag);
        let sorted = matches!(tag, SET | MAP);
        Compound { starts: sorted.then(Vec::new), begin: self.to.len(), to: self.to }
    }
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unencodable;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    scalars! {
        serialize_i8 i8, I8; serialize_i16 i16, I16; serialize_i32 i32, I32; serialize_i64 i64, I64;
        serialize_i128 i128, I128; serialize_u8 u8, U8; serialize_u16 u16, U16; serialize_u32 u32, U32;
        serialize_u64 u64, U64; serialize_u128 u128, U128; serialize_f32 f32, F32; serialize_f64 f64, F64;
    }

    fn serialize_bool(self, value: bool) -> Result {
        self.to.push(if value { TRUE } else { FALSE });
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result {
        self.to.extend_both(&[CHAR], &u32::from(value).to_le_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result {
        write_text(self.to, STR, value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result {
        write_bytes(self.to, value);
        Ok(())
    }

    fn serialize_none(self) -> Result {
        self.to.push(NONE);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        self.to.push(SOME);
        write(self.to, value)
    }

    fn serialize_unit(self) -> Result {
        self.to.push(UNIT);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result {
        self.serialize_unit()
    }

    fn serialize_unit_variant(mut self, _: &'static str, _: u32, variant: &'static str) -> Result {
        self.variant(variant);
        self.serialize_unit()
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result {
        write(self.to, value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result {
        self.variant(variant);
        write(self.to, value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a>> {
        let tag = if is_one_of(&SETS, self.type_name) { SET } else { SEQUENCE };
        Ok(self.compound(tag))
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Compound<'a>> {
        Ok(self.compound(SEQUENCE))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>> {
        Ok(self.compound(SEQUENCE))
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>> {
        self.variant(variant);
        Ok(self.compound(SEQUENCE))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a>> {
        let is_ordered = is_one_of(&ORDERED, self.type_name);
        Ok(self.compound(if is_ordered { ORDERED_MAP } else { MAP }))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>> {
        Ok(self.compound(STRUCT))
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>> {
        self.variant(variant);
        Ok(self.compound(STRUCT))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// What has parts.
pub(crate) struct Compound<'a> {
    to: &'a mut Buffer,
    begin: usize,
    /// Where each part begins, if they are to be sorted.
    starts: Option<Vec<usize>>,
}

impl Compound<'_> {
    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        if let Some(starts) = &mut self.starts {
            starts.push(self.to.len());
        }
        write(self.to, value)
    }

    /// Fields have their names: which were left out is told by that.
    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result {
        write_text(self.to, STR, name.as_bytes());
        write(self.to, value)
    }

    #[inline]
    fn finish(self) -> Result {
        if let Some(starts) = self.starts.filter(|starts| starts.len() > 1) {
            sort(self.to, self.begin, &starts);
        }
        self.to.push(END);
        Ok(())
    }
}

/// Puts the parts that begin at `starts`, the first at `begin`, in the order of their bytes.
#[cold]
fn sort(to: &mut Buffer, begin: usize, starts: &[usize]) {
    let unsorted = to[begin..].to_vec();
    let ends = starts[1..].iter().copied().chain([to.len()]);
    let mut parts: Vec<_> = starts.iter().zip(ends).map(|(start, end)| &unsorted[start - begin..end - begin]).collect();
    parts.sort_unstable();
    to.truncate(begin);
    parts.into_iter().for_each(|part| to.extend(part));
}

macro_rules! sequences {
    ($($trait:ident $part:ident;)*) => {$(
        impl ser::$trait for Compound<'_> {
            type Ok = ();
            type Error = Unencodable;

            #[inline]
            fn $part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
                self.part(value)
            }

            #[inline]
            fn end(self) -> Result {
                self.finish()
            }
        }
    )*};
}

sequences! {
    SerializeSeq serialize_element; SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field; SerializeTupleVariant serialize_field;
}

macro_rules! structs {
    ($($trait:ident)*) => {$(
        impl ser::$trait for Compound<'_> {
            type Ok = ();
            type Error = Unencodable;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result {
                self.field(name, value)
            }

            #[inline]
            fn end(self) -> Result {
                self.finish()
            }
        }
    )*};
}

structs! { SerializeStruct SerializeStructVariant }

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Unencodable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        write(self.to, value)
    }

    fn end(self) -> Result {
        self.finish()
    }
}
