//! The binary form of an export: every byte and what is left to live, and no damage goes unseen.
//!
//! ```text
//! head      89 "thermo" 01        8 bytes; text never starts with 89, the last byte is the version
//! record    01                    an entry that stays, or
//!           02 ttl_ms             an entry with milliseconds left to live, at least 1
//!           key_bytes value_bytes key value checksum
//! end mark  00 count checksum     how many records came before; nothing follows
//! ```
//!
//! Numbers are LEB128: 7 bits a byte, the lowest first, the high bit set on all but the last. A checksum is
//! the low half of the XXH3-64 of its record or mark from the first byte on, little-endian; each is seeded
//! with the whole XXH3-64 of the one before (the first with 0), so that a record that is lost, doubled or moved
//! is noticed like a flipped bit. A file that ends without its end mark was cut off.

use std::io::{self, BufRead, Read, Write};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::entry::{Broken, Entry, Found, Place};

/// No text starts with this byte, so it is enough to tell the form.
pub(crate) const FIRST_BYTE: u8 = 0x89;
const HEAD: [u8; 8] = [FIRST_BYTE, b't', b'h', b'e', b'r', b'm', b'o', 1];

const END: u8 = 0;
const STAYS: u8 = 1;
const EXPIRES: u8 = 2;

/// Longest key and value of the library; a longer one in a file is damage.
const KEY_BYTES_MAX: u64 = 65_535;
const VALUE_BYTES_MAX: u64 = 1 << 30;

/// Writes an export. Without [`finish`](Self::finish) it is a truncated one.
pub(crate) struct Writer<W> {
    out: W,
    record: Vec<u8>,
    chain: u64,
    count: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&HEAD)?;
        Ok(Self { out, record: Vec::new(), chain: 0, count: 0 })
    }

    pub(crate) fn entry(&mut self, key: &[u8], value: &[u8], ttl_ms: Option<u64>) -> io::Result<()> {
        self.record.clear();
        match ttl_ms {
            None => self.record.push(STAYS),
            Some(left) => {
                self.record.push(EXPIRES);
                push_number(&mut self.record, left);
            }
        }
        push_number(&mut self.record, key.len() as u64);
        push_number(&mut self.record, value.len() as u64);
        self.record.extend_from_slice(key);
        self.record.extend_from_slice(value);
        self.count += 1;
        self.seal()
    }

    /// Writes the end mark and gives the writer back, unflushed.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.record.clear();
        self.record.push(END);
        push_number(&mut self.record, self.count);
        self.seal()?;
        Ok(self.out)
    }

    fn seal(&mut self) -> io::Result<()> {
        self.chain = xxh3_64_with_seed(&self.record, self.chain);
        self.record.extend_from_slice(&stored(self.chain));
        self.out.write_all(&self.record)
    }
}

/// The half of a checksum that is written.
fn stored(checksum: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = checksum.to_le_bytes();
    [a, b, c, d]
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads an export to its end mark. Ends at the first broken record.
pub(crate) struct Reader<R> {
    input: R,
    record: Vec<u8>,
    chain: u64,
    count: u64,
    bytes_read: u64,
    ended: bool,
}

/// A record as it was read: an entry, or the end mark.
enum Record {
    Entry(Entry),
    End { count: u64 },
}

impl<R: BufRead> Reader<R> {
    /// Reads the head.
    pub(crate) fn new(input: R) -> Result<Self, Broken> {
        let mut reader = Self { input, record: Vec::new(), chain: 0, count: 0, bytes_read: 0, ended: false };
        let head: [u8; 8] = reader.array().map_err(|what| reader.place().broken(what))?;
        let [name @ .., version] = head;
        if !HEAD.starts_with(&name) {
            return Err(reader.place().broken("no head, expected that of a binary export"));
        }
        if !HEAD.ends_with(&[version]) {
            return Err(reader.place().broken(format!("form version {version}, expected 1")));
        }
        reader.record.clear();
        Ok(reader)
    }

    /// The record being read.
    fn place(&self) -> Place {
        Place::Record(self.count + 1)
    }

    fn next_found(&mut self) -> Result<Option<Found>, String> {
        let place = self.place();
        match self.next_record()? {
            Record::Entry(entry) => {
                self.count += 1;
                Ok(Some(Found { entry, place, bytes_read: self.bytes_read }))
            }
            Record::End { count } if count != self.count => {
                Err(format!("the end mark counts {count} records, expected {}", self.count))
            }
            Record::End { .. } => self.nothing_follows().map(|()| None),
        }
    }

    fn next_record(&mut self) -> Result<Record, String> {
        self.record.clear();
        let [kind] = self.array()?;
        let record = match kind {
            END => Record::End { count: self.number()? },
            STAYS => Record::Entry(self.entry(None)?),
            EXPIRES => {
                let ttl_ms = self.number()?;
                Record::Entry(self.entry(Some(ttl_ms))?)
            }
            other => return Err(format!("a record of kind {other}, expected 0, 1 or 2")),
        };
        self.check()?;
        Ok(record)
    }

    fn entry(&mut self, ttl_ms: Option<u64>) -> Result<Entry, String> {
        let key_bytes = self.length("key", KEY_BYTES_MAX)?;
        let value_bytes = self.length("value", VALUE_BYTES_MAX)?;
        let key = self.bytes(key_bytes)?.to_vec();
        let value = self.bytes(value_bytes)?.to_vec();
        Ok(Entry { key, value, ttl_ms })
    }

    /// Holds the checksum that comes next against what was read of the record.
    fn check(&mut self) -> Result<(), String> {
        self.chain = xxh3_64_with_seed(&self.record, self.chain);
        let [expected, found] = [stored(self.chain), self.array()?].map(u32::from_le_bytes);
        if expected != found {
            return Err(format!("checksum mismatch (stored {found:08x}, expected {expected:08x})"));
        }
        Ok(())
    }

    fn nothing_follows(&mut self) -> Result<(), String> {
        let rest = self.input.fill_buf().map_err(|error| format!("read: {error}"))?;
        if rest.is_empty() { Ok(()) } else { Err("bytes after the end mark, expected none".into()) }
    }

    fn length(&mut self, what: &str, bytes_max: u64) -> Result<u64, String> {
        match self.number()? {
            bytes if bytes <= bytes_max => Ok(bytes),
            bytes => Err(format!("a {what} of {bytes} bytes, expected at most {bytes_max}")),
        }
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number too large, expected 64 bits".into())
    }

    fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], String> {
        let bytes = self.bytes(BYTES as u64)?;
        Ok(bytes.try_into().expect("as many bytes as were asked for"))
    }

    /// Reads bytes of the record; allocates no more than there are.
    fn bytes(&mut self, count: u64) -> Result<&[u8], String> {
        let start = self.record.len();
        let read = (&mut self.input).take(count).read_to_end(&mut self.record);
        let read = read.map_err(|error| format!("read: {error}"))? as u64;
        self.bytes_read += read;
        if read < count {
            return Err(format!("the file ends at byte {}, expected {} more", self.bytes_read, count - read));
        }
        Ok(&self.record[start..])
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Found, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let found = self.next_found().map_err(|what| self.place().broken(what)).transpose();
        self.ended = !matches!(found, Some(Ok(_)));
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (any::<Vec<u8>>(), vec(any::<u8>(), 0..300), any::<Option<u64>>());
        vec(entry.prop_map(|(key, value, ttl_ms)| Entry { key, value, ttl_ms }), 0..8)
    }

    fn encode(entries: &[Entry]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        for Entry { key, value, ttl_ms } in entries {
            writer.entry(key, value, *ttl_ms).unwrap();
        }
        writer.finish().unwrap()
    }

    /// The entries before the first broken record, and whether there was one.
    fn decode(bytes: &[u8]) -> (Vec<Entry>, Option<Broken>) {
        let reader = match Reader::new(bytes) {
            Ok(reader) => reader,
            Err(broken) => return (Vec::new(), Some(broken)),
        };
        let mut entries = Vec::new();
        for found in reader {
            match found {
                Ok(found) => entries.push(found.entry),
                Err(broken) => return (entries, Some(broken)),
            }
        }
        (entries, None)
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_what_was_written(entries in entries()) {
            let (found, broken) = decode(&encode(&entries));
            prop_assert!(broken.is_none(), "{broken:?}");
            prop_assert_eq!(found, entries);
        }

        #[test]
        fn a_file_cut_anywhere_keeps_the_records_before_and_is_broken(entries in entries()) {
            let bytes = encode(&entries);
            for length in 0..bytes.len() {
                let (found, broken) = decode(&bytes[..length]);
                prop_assert!(entries.starts_with(&found));
                let place = broken.expect("a cut is noticed").place;
                prop_assert_eq!(place, Place::Record(found.len() as u64 + 1));
            }
        }

        #[test]
        fn a_flipped_bit_keeps_the_records_before_and_is_broken(entries in entries(), bit: prop::sample::Index) {
            let mut bytes = encode(&entries);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (found, broken) = decode(&bytes);
            prop_assert!(broken.is_some());
            prop_assert!(entries.starts_with(&found));
        }

        #[test]
        fn any_bytes_at_all_are_read_without_a_panic(bytes: Vec<u8>) {
            decode(&bytes);
            decode(&[&HEAD[..], &bytes].concat());
        }
    }

    #[test]
    fn a_record_that_is_lost_or_moved_is_noticed() {
        let [a, b] = [1, 2].map(|n| Entry { key: vec![n], value: vec![n], ttl_ms: None });
        let bytes = encode(&[a, b]);
        let (head, records) = bytes.split_at(HEAD.len());
        let (first, rest) = records.split_at(9);
        let (second, end) = rest.split_at(9);
        assert!(decode(&[head, second, end].concat()).1.is_some());
        assert!(decode(&[head, second, first, end].concat()).1.is_some());
        assert!(decode(&[head, first, first, second, end].concat()).1.is_some());
        assert!(decode(&[head, first, second, end, head].concat()).1.is_some());
        assert!(decode(&[head, first, second, end].concat()).1.is_none());
    }

    #[test]
    fn a_length_that_lies_costs_no_memory() {
        let lie = [&HEAD[..], &[STAYS, 1, 0xff, 0xff, 0xff, 0xff, 3, b'k']].concat();
        let (found, broken) = decode(&lie);
        assert_eq!(found, []);
        assert!(broken.is_some_and(|broken| broken.what.contains("the file ends at byte 16")));
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let mut bytes = encode(&[]);
        bytes[7] = 2;
        assert!(decode(&bytes).1.is_some_and(|broken| broken.what == "form version 2, expected 1"));
    }
}
