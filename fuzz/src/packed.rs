//! Bytes as a packed value and as a dictionary, in a store whose checksums say that they are whole.
//!
//! Holds what has to be true of any such bytes: they decode to as many as they state, the same for everybody who reads, or are
//! damaged; and what stands beside them is not harmed. The first byte says whether files are mapped (bit 0), whether there is
//! no dictionary (bit 1), and whether the rest is the packed value itself (bit 2) or what is packed and then flipped.

use std::sync::Arc;

use thermocline_engine::{Attributes, Engine, Error, Options, Result, medium::Faulty};
use thermocline_tiers::log::{Dictionary, Encoder, Packed};

use crate::{
    forge::{DICTIONARIES, Forge, PACKED, RECORDS_START, Record, VALUE},
    recipe::NOW_SEQUENCE,
};

const CAPACITY: u64 = 64 << 10;
const PLACE: u8 = 3;
const KEY: &[u8] = b"packed";
const OTHER: (&[u8], &[u8]) = (b"other", b"as it is");

/// Serves `data` as a packed value.
///
/// # Panics
/// When a promise is broken.
pub fn packed(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<3>() else { return };
    let [flags, dictionary_bytes, flips] = *head;
    let (flips, rest) = rest.split_at(rest.len().min(flips as usize % 16));
    let (dictionary, rest) = rest.split_at(rest.len().min(dictionary_bytes as usize * 4));
    let dictionary = Some(dictionary).filter(|_| flags & 2 == 0);
    let prepared = dictionary.and_then(|bytes| Dictionary::new(PLACE.into(), bytes).ok());
    let (stored, expected) = match flags & 4 {
        0 => {
            let mut encoder = Encoder::new(1, prepared.as_ref()).expect("a level that there is");
            let Some(packed) = encoder.pack(KEY.len(), rest) else { return };
            let stored = flipped(packed.to_vec(), flips);
            let is_ours = flips.is_empty();
            (stored, Some(rest).filter(|_| is_ours))
        }
        _ => (rest.to_vec(), None),
    };
    let decoded = decode(&stored, prepared.as_ref());
    if let Some(expected) = expected {
        assert_eq!(decoded.as_deref(), Some(expected), "what was packed does not come back");
    }
    serve(flags & 1 == 0, dictionary, &stored, decoded.as_deref());
}

fn flipped(mut stored: Vec<u8>, flips: &[u8]) -> Vec<u8> {
    let bytes = stored.len();
    flips.iter().for_each(|flip| stored[*flip as usize % bytes] ^= 1 << (flip % 7));
    stored
}

fn decode(stored: &[u8], dictionary: Option<&Dictionary>) -> Option<Vec<u8>> {
    let packed = Packed::parse(stored).ok()?;
    let dictionary = dictionary.filter(|dictionary| dictionary.number() == packed.dictionary());
    if dictionary.is_none() && packed.dictionary() != 0 {
        return None;
    }
    let value = packed.show(dictionary, <[u8]>::to_vec).ok()?;
    assert_eq!(value.len() as u64, packed.bytes(), "another length than is stated");
    Some(value)
}

/// A store with these records serves what they decode to, before and after a compaction and a reopening.
fn serve(mapped: bool, dictionary: Option<&[u8]>, stored: &[u8], expected: Option<&[u8]>) {
    let forge = Forge::default();
    let mut records = Vec::new();
    let mut add = |namespace, flags, key: &[u8], value: &[u8]| {
        let (key, value, sequence) = (key.to_vec(), value.to_vec(), NOW_SEQUENCE + records.len() as u64);
        let record = Record { kind: VALUE, sequence, deadline_ms: 0, key, value };
        records.extend(forge.record_in(namespace, flags, &record));
    };
    if let Some(bytes) = dictionary {
        add(DICTIONARIES, 0, &[&b"dictionary\0"[..], &[PLACE]].concat(), bytes);
    }
    add(0, PACKED, KEY, stored);
    add(0, 0, OTHER.0, OTHER.1);
    let medium = Faulty::new(mapped);
    medium.write("store", &Forge::store_file());
    let mut file = Forge::segment_header(1, CAPACITY, (RECORDS_START + records.len()) as u64);
    file.extend(records);
    medium.write(&Forge::segment_name(1), &file);
    let open = || Engine::open(Arc::new(medium.clone()), Options { segment_bytes: CAPACITY, ..Options::default() });
    let engine = open().expect("a sound store");
    check(&engine, expected);
    engine.insert(b"third", b"dead", &Attributes::new()).expect("nothing fails here");
    engine.remove(b"third").expect("nothing fails here");
    engine.compact().expect("nothing fails here");
    check(&engine, expected);
    engine.close().expect("nothing fails here");
    let engine = open().expect("a sound store");
    check(&engine, expected);
    assert!(engine.remove(KEY).expect("a key that is there"), "what is damaged can be removed");
    assert_eq!(engine.len(), 1);
}

/// Everybody who reads sees the same, several times.
fn check(engine: &Engine, expected: Option<&[u8]>) {
    let agrees = |found: Result<Option<Vec<u8>>>, who: &str| match (found, expected) {
        (Ok(Some(found)), Some(expected)) => assert!(found == expected, "{who}: other bytes"),
        (Err(Error::Corrupt { .. }), None) => {}
        (found, _) => panic!("{who}: {found:?}, expected {expected:?}"),
    };
    let damaged = engine.verify().expect("files can be read").damaged;
    assert_eq!(damaged.len(), usize::from(expected.is_none()), "{damaged:?}");
    for _ in 0..2 {
        agrees(engine.read(KEY, <[u8]>::to_vec), "read");
        agrees(engine.get(KEY).map(|found| found.map(|value| value.to_vec())), "get");
        assert_eq!(engine.get(OTHER.0).expect("a sound record").as_deref(), Some(OTHER.1));
    }
    agrees(engine.peek(KEY).map(|found| found.map(|value| value.to_vec())), "peek");
    if let (Some(expected), Ok(Some(metadata))) = (expected, engine.metadata(KEY)) {
        assert_eq!(metadata.size_bytes, expected.len() as u64);
    }
    assert!(engine.contains_key(KEY).expect("its key is whole"));
    let walked: Vec<_> = engine.iter().collect();
    assert_eq!((walked.len(), engine.len()), (2, 2), "a dictionary is nobody's entry");
    assert_eq!(walked.iter().filter(|entry| entry.is_err()).count(), usize::from(expected.is_none()));
}
