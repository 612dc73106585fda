//! Packed values: compressed on their way to a cold segment, small ones with a dictionary.
//!
//! Holds the one encoder and decoder of what `DESIGN.md`, *Packed values*, describes. Never knows where a record stands or a
//! dictionary comes from. Invariant: what decodes has exactly the length that it states, and decoding takes no more
//! memory than a small multiple of what has come out so far.

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::RangeInclusive,
};

use zstd_safe::{CCtx, CDict, CParameter, DCtx, DParameter, FrameFormat};

use super::{
    dictionary::{Dictionary, SMALL_BYTES_MAX},
    format::{VALUE_BYTES_MAX, record_bytes},
};

/// The levels of compression that there are: higher ones than these take hundreds of megabytes of memory.
pub const LEVELS: RangeInclusive<i32> = 1..=19;
/// So many bytes come out of one at most: a block of 128 KiB takes four.
const RATIO_MAX: u64 = 32 << 10;
/// Room that decoding starts with, for each byte that goes in and on top of that, and how it grows.
const ROOM_FACTOR: usize = 64;
const ROOM_BYTES: usize = 4 << 10;
const ROOM_GROWTH: usize = 8;
/// A buffer that is longer than this is not kept.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Bytes before the frame: the number of the dictionary.
const FRAME_AT: usize = 2;

thread_local! {
    static DECODER: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    static DECODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A packed value as it stands in a record.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    dictionary: u16,
    bytes: u64,
    frame: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Reads what a record of this kind has for a value. Says nothing of what is in the frame.
    ///
    /// # Errors
    /// In words, what cannot be.
    #[inline]
    pub fn parse(stored: &'a [u8]) -> Result<Self, String> {
        let parsed = (|| {
            let (dictionary, frame) = stored.split_first_chunk::<FRAME_AT>()?;
            Some(Self { dictionary: u16::from_le_bytes(*dictionary), bytes: content_bytes(frame)?, frame })
        })();
        let bytes_max = (stored.len() as u64).saturating_mul(RATIO_MAX).min(VALUE_BYTES_MAX as u64);
        match parsed {
            Some(packed) if packed.bytes <= bytes_max => Ok(packed),
            Some(packed) => Err(format!(
                "a packed value of {} bytes states {} bytes, {bytes_max} is the most that it could have",
                stored.len(),
                packed.bytes
            )),
            None => Err(format!("{} bytes that are no packed value", stored.len())),
        }
    }

    /// The number of the dictionary that it takes to decode it; 0: none.
    #[inline]
    pub fn dictionary(&self) -> u16 {
        self.dictionary
    }

    /// Bytes of the value.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Shows the value. `dictionary` is what [`dictionary`](Self::dictionary) names.
    ///
    /// # Errors
    /// In words, what did not decode.
    pub fn show<R>(&self, dictionary: Option<&Dictionary>, show: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        assert_eq!(self.dictionary, dictionary.map_or(0, Dictionary::number), "the dictionary that it names");
        // Out of its place meanwhile: whoever is shown the value may read another one.
        let mut value = DECODED.take();
        let shown = self.decode(dictionary, &mut value).map(|()| show(&value));
        if value.capacity() <= KEPT_BYTES_MAX {
            DECODED.set(value);
        }
        shown
    }

    fn decode(&self, dictionary: Option<&Dictionary>, into: &mut Vec<u8>) -> Result<(), String> {
        // What is stated is not believed: the room grows with what comes out.
        let mut room = self.frame.len().saturating_mul(ROOM_FACTOR) + ROOM_BYTES;
        let bytes = self.bytes as usize;
        DECODER.with_borrow_mut(|decoder| {
            let decoder = match decoder {
                Some(decoder) => decoder,
                None => decoder.insert(new_decoder()?),
            };
            loop {
                into.clear();
                into.try_reserve_exact(room.min(bytes)).map_err(|_| format!("no memory for {bytes} bytes"))?;
                let decoded = match dictionary {
                    Some(dictionary) => decoder.decompress_using_ddict(into, self.frame, dictionary.decoder()),
                    None => decoder.decompress(into, self.frame),
                };
                match decoded {
                    Ok(count) if count == bytes => return Ok(()),
                    Ok(count) => return Err(format!("a packed value states {bytes} bytes and has {count}")),
                    Err(_) if into.capacity() < bytes => room = room.saturating_mul(ROOM_GROWTH),
                    Err(code) => {
                        let why = zstd_safe::get_error_name(code);
                        return Err(format!("a packed value of {bytes} bytes cannot be decoded: {why}"));
                    }
                }
            }
        })
    }
}

fn new_decoder() -> Result<DCtx<'static>, String> {
    let mut decoder = DCtx::try_create().ok_or("no memory for a decoder")?;
    decoder
        .set_parameter(DParameter::Format(FrameFormat::Magicless))
        .map_err(|code| zstd_safe::get_error_name(code))?;
    Ok(decoder)
}

/// The length that the header of a frame states (RFC 8878, 3.1.1.1); `None` if it states none, or is none of ours.
#[inline]
fn content_bytes(frame: &[u8]) -> Option<u64> {
    let (descriptor, rest) = frame.split_first()?;
    // No dictionary's number, no checksum, nothing reserved: the record has what it takes.
    if descriptor & 0x1f != 0 {
        return None;
    }
    let is_in_one_piece = descriptor & 0x20 != 0;
    let field = if is_in_one_piece { rest } else { rest.get(1..)? };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    match descriptor >> 6 {
        0 if is_in_one_piece => field.get(..1).map(number),
        1 => field.get(..2).map(|bytes| number(bytes) + 256),
        2 => field.get(..4).map(number),
        3 => field.get(..8).map(number),
        _ => None,
    }
}

/// What compresses values.
pub struct Encoder {
    plain: CCtx<'static>,
    small: Option<Small>,
    packed: Vec<u8>,
}

/// What compresses small values. The context points to the dictionary: they are made and dropped together, in this order.
struct Small {
    context: CCtx<'static>,
    _dictionary: CDict<'static>,
    number: u16,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("dictionary", &self.small.as_ref().map(|small| small.number)).finish()
    }
}

impl Encoder {
    /// An encoder of one of the [`LEVELS`] that uses `dictionary` for small values.
    ///
    /// # Errors
    /// In words, what could not be made.
    pub fn new(level: i32, dictionary: Option<&Dictionary>) -> Result<Self, String> {
        let small = dictionary.map(|dictionary| -> Result<_, String> {
            let prepared = CDict::try_create(dictionary.bytes(), level).ok_or("not a dictionary")?;
            let mut context = new_context(level)?;
            context.ref_cdict(&prepared).map_err(zstd_safe::get_error_name)?;
            Ok(Small { context, _dictionary: prepared, number: dictionary.number() })
        });
        Ok(Self { plain: new_context(level)?, small: small.transpose()?, packed: Vec::new() })
    }

    /// The packed form of a value, unless a record with a key of `key_len` bytes would not become smaller by it.
    pub fn pack(&mut self, key_len: usize, value: &[u8]) -> Option<&[u8]> {
        let (context, number) = match &mut self.small {
            Some(small) if value.len() <= SMALL_BYTES_MAX => (&mut small.context, small.number),
            _ => (&mut self.plain, 0),
        };
        if self.packed.capacity() > KEPT_BYTES_MAX {
            self.packed = Vec::new();
        }
        let mut packed = std::io::Cursor::new(std::mem::take(&mut self.packed));
        packed.get_mut().clear();
        packed.get_mut().extend(number.to_le_bytes());
        packed.set_position(FRAME_AT as u64);
        // With room for what did not shrink nothing is compressed in vain; without it little is.
        let room = zstd_safe::compress_bound(value.len()).min(value.len().max(KEPT_BYTES_MAX / 2));
        packed.get_mut().reserve(room);
        let is_packed = context.compress2(&mut packed, value).is_ok();
        self.packed = packed.into_inner();
        let shrinks = record_bytes(key_len, self.packed.len()) < record_bytes(key_len, value.len());
        (is_packed && shrinks).then_some(&self.packed)
    }
}

fn new_context(level: i32) -> Result<CCtx<'static>, String> {
    let mut context = CCtx::try_create().ok_or("no memory for an encoder")?;
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::Format(FrameFormat::Magicless),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).map_err(zstd_safe::get_error_name)?;
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    use super::{super::dictionary::Samples, *};

    fn value(number: usize) -> Vec<u8> {
        format!("{{\"id\":{number},\"name\":\"user {}\",\"city\":\"Oslo\",\"active\":true}}", number * 7919)
            .into_bytes()
    }

    fn dictionary() -> Dictionary {
        let mut samples = Samples::default();
        (0..2_000).for_each(|number| samples.add(&value(number)));
        Dictionary::new(5, &samples.train().expect("they have much in common")).expect("a dictionary")
    }

    fn decoded(stored: &[u8], dictionary: Option<&Dictionary>) -> Result<Vec<u8>, String> {
        let packed = Packed::parse(stored)?;
        if packed.dictionary() != dictionary.map_or(0, Dictionary::number) {
            return Err("another dictionary".to_owned());
        }
        packed.show(dictionary, <[u8]>::to_vec)
    }

    #[test]
    fn values_come_back_and_state_their_length() {
        let dictionary = dictionary();
        let mut encoder = Encoder::new(3, Some(&dictionary)).unwrap();
        let long = value(7).repeat(10_000);
        for value in [value(100_000), value(3).repeat(9), value(3).repeat(500), long, vec![0; 3 << 20]] {
            let stored = encoder.pack(8, &value).expect("it shrinks").to_vec();
            let packed = Packed::parse(&stored).unwrap();
            assert_eq!(packed.bytes(), value.len() as u64);
            assert_eq!(packed.dictionary() != 0, value.len() <= SMALL_BYTES_MAX);
            let dictionary = Some(&dictionary).filter(|_| packed.dictionary() != 0);
            assert!(decoded(&stored, dictionary).unwrap() == value);
        }
        let stored = encoder.pack(8, &value(100_000)).unwrap();
        assert!(stored.len() < 40, "{} bytes", stored.len());
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        let mut encoder = Encoder::new(3, None).unwrap();
        let noise: Vec<u8> = (0..40_000_u64).map(|number| xxh3_64(&number.to_le_bytes()) as u8).collect();
        for bytes in [0, 1, 7, 30, 300, 40_000] {
            assert_eq!(encoder.pack(8, &noise[..bytes]), None, "{bytes} bytes");
        }
        assert_eq!(encoder.pack(8, &[0; 8]), None, "a record is a multiple of 8 bytes long");
    }

    #[test]
    fn what_stands_behind_a_frame_makes_it_no_longer() {
        let frame = |bytes: u8| [0x20, bytes, 0x3 | bytes << 3, 0, 0, b'x'];
        DECODED.set(Vec::with_capacity(1_000));
        assert_eq!(decoded(&[&[0, 0][..], &frame(10)].concat(), None).unwrap(), [b'x'; 10]);
        let error = decoded(&[&[0, 0][..], &frame(10), &frame(5)].concat(), None).unwrap_err();
        assert!(error.contains("states 10 bytes"), "{error}");
    }

    #[test]
    fn a_claim_of_a_gibibyte_takes_no_memory() {
        // One block of zeros, 10 bytes long; the header states almost a gibibyte.
        let frame = |bytes: u32| [&[0, 0, 0xa0][..], &bytes.to_le_bytes(), &[0x53, 0, 0, 0]].concat();
        assert_eq!(decoded(&frame(10), None).unwrap(), [0; 10], "the frame is one");
        let error = decoded(&frame(1 << 30), None).unwrap_err();
        assert!(error.contains("states 1073741824 bytes, 360448 is the most"), "{error}");
        // With as many bytes as it takes to be believed.
        let mut frame = frame(VALUE_BYTES_MAX as u32);
        frame.extend([0x53, 0, 0, 0].repeat(16 << 10));
        Packed::parse(&frame).expect("it could be");
        assert!(decoded(&frame, None).is_err());
        let kept = DECODED.take().capacity();
        assert!(kept <= frame.len() * ROOM_FACTOR * ROOM_GROWTH, "{kept} bytes were made ready");
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), number in 0..100_usize, flips in 0..4_usize, knows in any::<bool>(),
        ) {
            let dictionary = Dictionary::new(1, &value(1).repeat(20)).unwrap();
            let known = Some(&dictionary).filter(|_| knows);
            let _ = decoded(&bytes, known);
            let mut stored = Encoder::new(1, known).unwrap().pack(0, &value(number).repeat(3)).unwrap().to_vec();
            for (flip, byte) in bytes.iter().take(flips).enumerate() {
                let at = (*byte as usize * 7 + flip) % stored.len();
                stored[at] ^= byte.rotate_left(3) | 1;
            }
            if let Ok(value) = decoded(&stored, known) {
                prop_assert_eq!(value.len() as u64, Packed::parse(&stored).unwrap().bytes());
            }
        }
    }
}
