//! A second reader and writer of the format, made from `DESIGN.md` alone; it shares no line with the library.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_secret};

/// The fields of the file `store`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) version: u32,
    pub(crate) id: [u8; 16],
    pub(crate) secret: [u8; 16],
}

/// A record, and whether it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: usize,
    pub(crate) namespace: u32,
    pub(crate) kind: u8,
    pub(crate) is_packed: bool,
    pub(crate) sequence: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// A segment's header and its records.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) capacity: u64,
    /// Compaction made it and packed what shrinks.
    pub(crate) is_packed: bool,
    pub(crate) flushed: u64,
    pub(crate) records: Vec<Record>,
    /// Behind the last record.
    pub(crate) end: usize,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn sealed(block: &[u8], magic: &[u8; 8]) -> bool {
    block[..8] == *magic && word(block, 56) == xxh3_64(&block[..56])
}

fn seal(mut block: Vec<u8>) -> Vec<u8> {
    let sum = xxh3_64(&block[..56]);
    block[56..64].copy_from_slice(&sum.to_le_bytes());
    block
}

impl Identity {
    pub(crate) fn read(file: &[u8]) -> Self {
        assert!(sealed(&file[..64], b"thermocl"), "no identity");
        assert_eq!((half(file, 12), word(file, 48)), (0, 0), "reserved bytes are zero");
        Self { version: half(file, 8), id: file[16..32].try_into().unwrap(), secret: file[32..48].try_into().unwrap() }
    }

    /// The 64 bytes of one block.
    pub(crate) fn block(&self) -> Vec<u8> {
        let mut block = vec![0; 64];
        block[..8].copy_from_slice(b"thermocl");
        block[8..12].copy_from_slice(&self.version.to_le_bytes());
        block[16..32].copy_from_slice(&self.id);
        block[32..48].copy_from_slice(&self.secret);
        seal(block)
    }

    /// The file: a block, and a copy of it in the next sector.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut file = self.block();
        file.resize(512, 0);
        file.extend(self.block());
        file
    }

    fn derived(&self, key: u64, index: u64) -> u64 {
        xxh3_64(&[&self.secret[..], &key.to_le_bytes(), &index.to_le_bytes()].concat())
    }

    fn mark(&self) -> u16 {
        match self.derived(3, 0) as u16 {
            0 => 0x7c15,
            mark => mark,
        }
    }

    /// Over byte 8 of the record to the end of the value; the namespace is mixed in.
    fn checksum(&self, namespace: u32, body: &[u8]) -> u32 {
        let key: Vec<u8> = (0..24).flat_map(|index| self.derived(1, index).to_le_bytes()).collect();
        match xxh3_64_with_secret(body, &key) as u32 ^ namespace.wrapping_mul(0x9e37_79b1) {
            0 => 1,
            sum => sum,
        }
    }

    /// Reads a segment that nothing happened to: records, voids and holes of known length, one behind the other.
    pub(crate) fn segment(&self, file: &[u8]) -> Segment {
        assert!(sealed(&file[..64], b"thermseg"), "no segment");
        assert_eq!((half(file, 8), half(file, 12)), (1, 0));
        assert_eq!((&file[16..32], word(file, 48) & !1), (&self.id[..], 0));
        let flushed = match word(file, 72) == word(file, 64) ^ 0x7468_6572_6d6f_636c {
            true => word(file, 64),
            false => 128,
        };
        assert_eq!(file[80..128], [0; 48], "reserved bytes are zero");
        let mut records = Vec::new();
        let mut at = 128;
        while at + 32 <= file.len() && word(file, at + 8) != 0 {
            let lengths = word(file, at + 8);
            assert_eq!((lengths >> 48) as u16, self.mark(), "offset {at}: not this store's mark");
            let (value_len, key_len) = (lengths as u32 as usize, (lengths >> 32) as u16 as usize);
            let (key_at, value_at, end) = (at + 32, at + 32 + key_len, at + 32 + key_len + value_len);
            let (stored, namespace, last) = (half(file, at), half(file, at + 4), word(file, at + 24));
            let kind = (last >> 48) as u8;
            let covered = if kind == 3 { at + 32 } else { end };
            let sum = self.checksum(namespace, &file[at + 8..covered]);
            let is_provisional = stored == !sum;
            assert!(stored == sum || stored == 0 || is_provisional, "offset {at}: checksum {stored:x}, not {sum:x}");
            if stored == sum && kind != 3 {
                let flags = last >> 56;
                assert!(matches!((kind, flags), (1 | 2, 0) | (1, 1)), "offset {at}: kind {kind}, flags {flags}");
                assert!(file[end..end.next_multiple_of(8)].iter().all(|byte| *byte == 0), "padding is zero");
                records.push(Record {
                    offset: at,
                    namespace,
                    kind,
                    is_packed: flags == 1,
                    sequence: word(file, at + 16),
                    deadline_ms: last & ((1 << 48) - 1),
                    key: file[key_at..value_at].to_vec(),
                    value: file[value_at..end].to_vec(),
                });
            }
            at = end.next_multiple_of(8);
        }
        assert!(file[at.min(file.len())..].iter().all(|byte| *byte == 0), "zeros behind the last record");
        let (number, capacity, is_packed) = (word(file, 32), word(file, 40), word(file, 48) == 1);
        Segment { number, capacity, is_packed, flushed, records, end: at }
    }

    /// The 128 bytes before a segment's first record.
    pub(crate) fn segment_header(&self, number: u64, capacity: u64, flushed: u64) -> Vec<u8> {
        let mut block = vec![0; 128];
        block[..8].copy_from_slice(b"thermseg");
        block[8..12].copy_from_slice(&self.version.to_le_bytes());
        block[16..32].copy_from_slice(&self.id);
        block[32..40].copy_from_slice(&number.to_le_bytes());
        block[40..48].copy_from_slice(&capacity.to_le_bytes());
        let mut block = seal(block);
        block[64..72].copy_from_slice(&flushed.to_le_bytes());
        block[72..80].copy_from_slice(&(flushed ^ 0x7468_6572_6d6f_636c).to_le_bytes());
        block
    }

    /// A committed record, padding included.
    pub(crate) fn record(&self, kind: u8, sequence: u64, deadline_ms: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
        self.record_of_kind(kind.into(), sequence, deadline_ms, key, value)
    }

    /// A committed record whose value is packed.
    pub(crate) fn packed_record(&self, sequence: u64, key: &[u8], stored: &[u8]) -> Vec<u8> {
        self.record_of_kind(0x0101, sequence, 0, key, stored)
    }

    /// A committed record, by its kind and its flags above that.
    fn record_of_kind(&self, kind: u16, sequence: u64, deadline_ms: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
        let lengths = u64::from(self.mark()) << 48 | (key.len() as u64) << 32 | value.len() as u64;
        let last = u64::from(kind) << 48 | deadline_ms;
        let mut record = vec![0; 8];
        record.extend([lengths, sequence, last].iter().flat_map(|word| word.to_le_bytes()));
        record.extend([key, value].concat());
        let covered = if kind == 3 { 32 } else { record.len() };
        let sum = self.checksum(0, &record[8..covered]);
        record[..4].copy_from_slice(&sum.to_le_bytes());
        record.resize(record.len().next_multiple_of(8), 0);
        record
    }
}

/// Decodes a packed value with the dictionaries of its store, by another decoder than the library's: one of whole frames.
pub(crate) fn unpacked(stored: &[u8], dictionaries: &[Record]) -> Vec<u8> {
    let number = u16::from_le_bytes(stored[..2].try_into().unwrap());
    let number_of = |record: &Record| {
        assert_eq!((&record.key[..11], record.key.len()), (&b"dictionary\0"[..], 12));
        u16::from(record.key[11]) + 64 * u16::try_from((xxh3_64(&record.value) % 1024).max(1)).unwrap()
    };
    let named = dictionaries.iter().find(|record| number_of(record) == number);
    assert!(number == 0 || named.is_some(), "no dictionary {number:04x}");
    let dictionary = named.map_or(&[][..], |record| &record.value);
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd][..], &stored[2..]].concat();
    let mut decoder = zstd::bulk::Decompressor::with_dictionary(dictionary).unwrap();
    let bytes = zstd::zstd_safe::get_frame_content_size(&frame).unwrap().expect("a frame that states its length");
    let value = decoder.decompress(&frame, bytes as usize).unwrap();
    assert_eq!((value.len() as u64, stored[2] & 0x1f), (bytes, 0));
    value
}

/// Makes a committed record provisional: its checksum with all bits inverted.
pub(crate) fn provisional(mut record: Vec<u8>) -> Vec<u8> {
    record[..4].iter_mut().for_each(|byte| *byte = !*byte);
    record
}

/// Takes a record's commit away: a hole of known length.
pub(crate) fn hole(mut record: Vec<u8>) -> Vec<u8> {
    record[..8].fill(0);
    record
}
