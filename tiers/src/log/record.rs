//! A record: as somebody wants it written, and as it stands in the log.
//!
//! Holds its fields and its encoding. Never knows where it stands. Invariant: what is encoded here is what `format`
//! describes.

use super::format::{self, Header, Keys, Lengths, commit_word};
use crate::memory::Kept;

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Kind, sequence and deadline.
    pub header: Header,
    /// 0: the unnamed namespace.
    pub namespace: u32,
    /// At most 65 535 bytes.
    pub key: &'a [u8],
    /// At most 1 GiB less 64 KiB; packed, if the kind says so.
    pub value: &'a [u8],
    /// What the memory tier is to keep of it besides; the log never does.
    pub kept: Option<&'a Kept>,
}

impl NewRecord<'_> {
    /// What it takes in the log, padding included.
    pub fn bytes(&self) -> u64 {
        format::record_bytes(self.key.len(), self.value.len())
    }

    /// The bytes themselves.
    pub(crate) fn encode(&self, keys: &Keys, placing: Placing) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes() as usize);
        self.encode_to(keys, placing, &mut bytes);
        bytes
    }

    pub(crate) fn encode_to(&self, keys: &Keys, placing: Placing, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend(0_u64.to_le_bytes());
        into.extend(keys.length_word(self.key.len(), self.value.len()).to_le_bytes());
        into.extend(self.header.encode());
        into.extend(self.key);
        into.extend(self.value);
        let sum = keys.checksum(self.namespace, &into[start + 8..]);
        let sum = if placing == Placing::Provisional { !sum } else { sum };
        into[start..start + 8].copy_from_slice(&commit_word(sum, self.namespace).to_le_bytes());
        into.resize(start + self.bytes() as usize, 0);
    }
}

/// A record as it stands in the log: in the map, or in a buffer that it was read into.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    commit: u64,
    header: Header,
    value_at: usize,
    /// From byte 8 of the record to the end of its value.
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// `body` is as long as its own length word, which says `lengths`, has it.
    #[inline]
    pub(crate) fn new(commit: u64, lengths: Lengths, body: &'a [u8]) -> Option<Self> {
        let header = Header::decode(body.get(8..24)?.first_chunk()?)?;
        Some(Self { commit, header, value_at: 24 + lengths.key as usize, body })
    }

    /// Kind, sequence and deadline.
    #[inline]
    pub fn header(&self) -> Header {
        self.header
    }

    /// What it takes in the log, padding included.
    #[inline]
    pub fn bytes(&self) -> u64 {
        (self.body.len() as u64 + 8).next_multiple_of(8)
    }

    /// The same without padding.
    #[inline]
    pub(crate) fn unpadded_bytes(&self) -> u64 {
        self.body.len() as u64 + 8
    }

    /// The record that `bytes` are, from its commit word to the end of its value.
    pub(crate) fn of_bytes(keys: &Keys, bytes: &'a [u8]) -> Option<Self> {
        let (commit, length) = (format::word_at(bytes, 0)?, format::word_at(bytes, 8)?);
        let lengths = keys.lengths(length).filter(|lengths| lengths.bytes() == bytes.len() as u64)?;
        Self::new(commit, lengths, &bytes[8..]).filter(|_| commit as u32 != 0)
    }

    /// 0: the unnamed namespace.
    #[inline]
    pub fn namespace(&self) -> u32 {
        (self.commit >> 32) as u32
    }

    /// The checksum that it states, and the one that it should.
    pub(crate) fn checksums(&self, keys: &Keys) -> (u32, u32) {
        (self.commit as u32, keys.checksum(self.namespace(), self.body))
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        &self.body[24..self.value_at]
    }

    /// The value as it stands here: packed, if the kind says so; empty for a tombstone.
    #[inline]
    pub fn stored(&self) -> &'a [u8] {
        &self.body[self.value_at..]
    }
}

/// How a record is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placing {
    /// Through the map where there is one; committed at once.
    Commit,
    /// The same, to be committed or voided later.
    Provisional,
    /// Committed by one `pwrite`, which dirties one page instead of 2 MiB; the caller flushes.
    Written,
}
