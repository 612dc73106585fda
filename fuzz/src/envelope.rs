//! Any bytes as an envelope: what stands around a value of a cache.
//!
//! Holds what has to be true of them: they are no envelope, or one that says the same when it is written again; and no codec
//! makes more of the value than an error or a value that it would write. The first byte says by which codec the value is read.

use std::collections::BTreeMap;

use thermocline::{Codec, Json, MessagePack, Postcard, envelope::Envelope};

/// A type with a bit of everything.
type Value = (Vec<Option<String>>, BTreeMap<u16, (i64, bool)>, Vec<u8>);

/// Takes `data` apart as an envelope.
///
/// # Panics
/// When a promise is broken.
pub fn envelope(data: &[u8]) {
    let Some((codec, bytes)) = data.split_first() else { return };
    let Some(envelope) = Envelope::parse(bytes) else { return };
    let mut again = Vec::new();
    envelope.write_head(&mut again);
    again.extend_from_slice(envelope.value);
    assert_eq!(Envelope::parse(&again).as_ref(), Some(&envelope), "it says something else when written again");
    assert!(again.len() <= bytes.len(), "it is longer when written again");
    match codec % 3 {
        0 => comes_back(&Postcard, envelope.value),
        1 => comes_back(&MessagePack, envelope.value),
        _ => comes_back(&Json, envelope.value),
    }
}

fn comes_back(codec: &impl Codec<Value>, bytes: &[u8]) {
    let Ok(value) = codec.decode(bytes) else { return };
    let mut written = Vec::new();
    codec.encode(&value, &mut written).expect("what was decoded can be encoded");
    assert_eq!(codec.decode(&written).expect("what was encoded can be decoded"), value);
}
