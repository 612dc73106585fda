//! What stands around a value of a cache: its codec, and what the entry says of itself.
//!
//! Holds the one encoder and decoder; `DESIGN.md`, *Caches*, describes the bytes. Never looks into the value. Invariant:
//! nothing is trusted: any bytes are an envelope or a miss, and what is taken apart borrows them.

/// Fields by number. An unknown one is passed over: whoever wrote it means nothing that changes the value.
const STALE_AFTER: u64 = 1;
const COST: u64 = 2;
const TAG: u64 = 3;
const ARGUMENTS: u64 = 4;
const SHAPE: u64 = 5;
/// Ends the fields.
const VALUE: u64 = 0;

/// An entry as bytes, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Which codec wrote the value.
    pub codec: u8,
    /// Milliseconds from the write on after which the entry is stale; 0: never.
    pub stale_after_ms: u64,
    /// How long it took to compute, in microseconds; 0: nobody knows.
    pub cost_us: u64,
    /// What it can be removed by.
    pub tags: Vec<&'a str>,
    /// What it was computed from, as whoever computed it wrote that.
    pub arguments: Option<&'a [u8]>,
    /// The shape of the type that the codec wrote, if the value alone does not tell it; 0: nothing is said.
    pub shape: u32,
    /// The value, encoded.
    pub value: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Appends all but the value, which is to follow at once.
    pub fn write_head(&self, into: &mut Vec<u8>) {
        into.push(self.codec);
        if self.shape != 0 {
            write_field(into, SHAPE, &self.shape.to_le_bytes());
        }
        for (field, number) in [(STALE_AFTER, self.stale_after_ms), (COST, self.cost_us)] {
            if number != 0 {
                let bytes = varint_bytes(number);
                write_field(into, field, bytes.as_ref());
            }
        }
        for tag in &self.tags {
            write_field(into, TAG, tag.as_bytes());
        }
        if let Some(arguments) = self.arguments {
            write_field(into, ARGUMENTS, arguments);
        }
        write_varint(into, VALUE);
    }

    /// Takes `bytes` apart. `None`: they are no envelope.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (codec, mut rest) = bytes.split_first()?;
        let mut envelope = Self { codec: *codec, ..Self::default() };
        loop {
            let field = read_varint(&mut rest)?;
            if field == VALUE {
                envelope.value = rest;
                return Some(envelope);
            }
            let length = usize::try_from(read_varint(&mut rest)?).ok()?;
            let (mut content, after) = rest.split_at_checked(length)?;
            rest = after;
            match field {
                STALE_AFTER => envelope.stale_after_ms = read_whole_varint(&mut content)?,
                COST => envelope.cost_us = read_whole_varint(&mut content)?,
                TAG => envelope.tags.push(std::str::from_utf8(content).ok()?),
                ARGUMENTS => envelope.arguments = Some(content),
                SHAPE => envelope.shape = u32::from_le_bytes(content.try_into().ok()?),
                _ => {}
            }
        }
    }
}

fn write_field(into: &mut Vec<u8>, field: u64, content: &[u8]) {
    write_varint(into, field);
    write_varint(into, content.len() as u64);
    into.extend_from_slice(content);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn write_varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn varint_bytes(number: u64) -> impl AsRef<[u8]> {
    let mut bytes = Vec::with_capacity(10);
    write_varint(&mut bytes, number);
    bytes
}

/// Each number has one form: not with needless zeros, not beyond 64 bits.
fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits || (*byte == 0 && shift > 0) {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn read_whole_varint(content: &mut &[u8]) -> Option<u64> {
    read_varint(content).filter(|_| content.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(envelope: &Envelope<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        envelope.write_head(&mut bytes);
        bytes.extend_from_slice(envelope.value);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let full = Envelope {
            codec: 3,
            stale_after_ms: 300_000,
            cost_us: u64::MAX,
            tags: vec!["users", ""],
            arguments: Some(&[0, 255]),
            shape: 0x1234_5678,
            value: b"value",
        };
        let plain = Envelope { codec: 1, value: b"", ..Envelope::default() };
        assert_eq!(whole(&plain), [1, 0], "two bytes before the value, if there is nothing to say");
        for envelope in [full, plain] {
            assert_eq!(Envelope::parse(&whole(&envelope)), Some(envelope));
        }
    }

    #[test]
    fn a_field_that_nobody_knows_is_passed_over() {
        let parsed = Envelope::parse(&[1, 77, 2, 9, 9, 0, b'v']);
        assert_eq!(parsed, Some(Envelope { codec: 1, value: b"v", ..Envelope::default() }));
    }

    #[test]
    fn what_is_no_envelope_is_none() {
        let hostile: [&[u8]; 9] = [
            &[],
            &[1],
            &[1, 1],
            &[1, 1, 1],
            &[1, 3, 2, 0xff, 0xfe, 0],
            &[1, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0],
            &[1, 0x80, 0x00],
            &[1, 2, 2, 1, 1, 0],
            &[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02],
        ];
        for bytes in hostile {
            assert_eq!(Envelope::parse(bytes), None, "{bytes:?}");
        }
    }
}
