//! Codecs: values as bytes.
//!
//! Holds the trait and the three that every cache can read. Never holds a key or a record. Invariant: bytes that are no
//! value are an error, whatever they are; a codec's number never changes, because records remember it.

use std::{any::TypeId, sync::LazyLock};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, envelope::Envelope, shape::shape_of};

/// What a codec says of a value or of bytes that it can make nothing of.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Turns values into bytes and back.
///
/// A cache writes with one codec, and each record remembers by its number which that was, so that another can be chosen
/// while old records stay readable. A codec of your own is read back by caches that name it: see
/// [`CacheBuilder::codec`](crate::CacheBuilder::codec) and [`CacheBuilder::reads`](crate::CacheBuilder::reads).
///
/// ```
/// use thermocline::{Codec, CodecError};
///
/// /// Numbers as people write them.
/// struct Decimal;
///
/// impl Codec<u64> for Decimal {
///     fn id(&self) -> u8 {
///         200
///     }
///     fn encode(&self, value: &u64, into: &mut Vec<u8>) -> Result<(), CodecError> {
///         into.extend_from_slice(value.to_string().as_bytes());
///         Ok(())
///     }
///     fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
///         Ok(std::str::from_utf8(bytes)?.parse()?)
///     }
/// }
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// The number that records remember: 128 to 255 for codecs of your own, one each, for ever.
    fn id(&self) -> u8;

    /// Appends `value` to `into`.
    ///
    /// # Errors
    /// What cannot be encoded: then nothing is kept.
    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The value that `bytes` are. They come from disk: expect anything.
    ///
    /// # Errors
    /// Bytes that are no value: a miss.
    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError>;
}

/// [Postcard](https://postcard.jamesmunns.com/wire-format): compact and fast. The default. What a type wrote before its fields were edited
/// is a miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postcard;

/// MessagePack with named fields: fields may come and go, if they have defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessagePack;

/// JSON: for people and other programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl<V: Serialize + DeserializeOwned> Codec<V> for Postcard {
    fn id(&self) -> u8 {
        1
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        *into = postcard::to_extend(value, std::mem::take(into))?;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        all_is_used(value, rest.len())
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for MessagePack {
    fn id(&self) -> u8 {
        2
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(rmp_serde::encode::write_named(into, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        let mut rest = bytes;
        let value = rmp_serde::decode::from_read(&mut rest)?;
        all_is_used(value, rest.len())
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for Json {
    fn id(&self) -> u8 {
        3
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(into, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// What another type has written may begin like a value of this one.
fn all_is_used<V>(value: V, bytes_left: usize) -> Result<V, CodecError> {
    if bytes_left == 0 { Ok(value) } else { Err(format!("{bytes_left} bytes behind the value").into()) }
}

/// The codecs that a cache knows, with what tells them apart; the first writes.
pub(crate) struct Codecs<V> {
    all: Vec<(TypeId, Box<dyn Codec<V>>)>,
    /// The shape of the type, learnt when it is first asked for.
    shape: LazyLock<u32>,
}

/// Postcard and rkyv, whose bytes do not say what they are of.
const SHAPELESS: [u8; 2] = [1, 4];

/// The lowest number of a codec that is not ours.
const ID_FIRST: u8 = 128;

impl<V: 'static> Codecs<V> {
    pub(crate) fn builtin() -> Self
    where
        V: Serialize + DeserializeOwned,
    {
        let mut codecs = Self { all: Vec::new(), shape: LazyLock::new(shape_of::<V>) };
        codecs.read_with(Postcard);
        codecs.read_with(MessagePack);
        codecs.read_with(Json);
        codecs
    }

    /// Has `codec` write from here on.
    pub(crate) fn write_with<C: Codec<V>>(&mut self, codec: C) {
        self.all.insert(0, (TypeId::of::<C>(), Box::new(codec)));
    }

    pub(crate) fn read_with<C: Codec<V>>(&mut self, codec: C) {
        self.all.push((TypeId::of::<C>(), Box::new(codec)));
    }

    /// Each codec has a number of its own, and those that are not ours leave us ours.
    ///
    /// # Errors
    /// [`Error::Option`] with the number.
    pub(crate) fn check(&self) -> Result<()> {
        let ours = [
            TypeId::of::<Postcard>(),
            TypeId::of::<MessagePack>(),
            TypeId::of::<Json>(),
            #[cfg(feature = "rkyv")]
            TypeId::of::<crate::Rkyv>(),
        ];
        for (index, (of, codec)) in self.all.iter().enumerate() {
            let is_taken = self.all[..index].iter().any(|(other, one)| other != of && one.id() == codec.id());
            if is_taken || (codec.id() < ID_FIRST && !ours.contains(of)) {
                let found = format!("one with the number {}", codec.id());
                let expected = format!("numbers from {ID_FIRST} on, another for each");
                return Err(Error::Option { option: "codec", found, expected });
            }
        }
        Ok(())
    }

    pub(crate) fn writer(&self) -> &dyn Codec<V> {
        // There are three from the start, and none ever goes.
        &*self.all[0].1
    }

    /// The shape that stands beside what codec `id` writes: nothing beside what names its parts by itself.
    pub(crate) fn shape(&self, id: u8) -> u32 {
        if SHAPELESS.contains(&id) { *self.shape } else { 0 }
    }

    /// The value of an envelope; `None`: no such codec, another type's, or no such value.
    pub(crate) fn decode(&self, envelope: &Envelope<'_>) -> Option<V> {
        let (_, codec) = self.all.iter().find(|(_, codec)| codec.id() == envelope.codec)?;
        if self.shape(envelope.codec) != envelope.shape {
            return None;
        }
        codec.decode(envelope.value).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Debug};

    use super::*;

    fn decode<V: 'static>(codecs: &Codecs<V>, codec: u8, value: &[u8]) -> Option<V> {
        codecs.decode(&Envelope { codec, shape: codecs.shape(codec), value, ..Envelope::default() })
    }

    fn round<V: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(value: V) {
        let mut codecs = Codecs::<V>::builtin();
        for id in [1, 2, 3] {
            let mut bytes = b"before".to_vec();
            let (_, codec) = codecs.all.iter().find(|(_, codec)| codec.id() == id).expect("one of ours");
            codec.encode(&value, &mut bytes).unwrap();
            assert_eq!(decode(&codecs, id, &bytes[6..]).as_ref(), Some(&value), "codec {id}");
            bytes.push(b'0');
            assert_eq!(
                decode(&codecs, id, &bytes[6..]).filter(|_| id != 3),
                None,
                "codec {id} takes more than it wrote"
            );
            assert_eq!(decode(&codecs, 99, &bytes[6..]), None);
        }
        codecs.write_with(Json);
        assert_eq!(codecs.writer().id(), 3);
    }

    /// Idea 51: a value comes back as it was, type and all.
    #[test]
    fn values_come_back_as_they_were() {
        round((1u8, -1i64, "text".to_owned(), vec![1.5f64, -0.0], None::<u8>, Some(7i8), 'x'));
        round(BTreeMap::from([(3u32, (1u8, 2u8)), (4, (5, 6))]));
        round(vec![Some(vec![1u8, 2, 3]), None]);
        round(Err::<u8, String>("no".to_owned()));
    }
}
