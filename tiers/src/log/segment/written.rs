//! Records of a segment, written: through the map, or by a call.
//!
//! Holds the order of stores that leaves a record or a hole of known length after a crash. Never chooses a place: its callers have
//! reserved it.

use super::{
    File, HEADER_BYTES, Header, Keys, NewRecord, Placing, RecordKind, STEP_BYTES, Segment, ZEROS, commit_word,
};
use crate::{Error, Result};

impl Segment {
    /// Writes `record` at `offset`, which the caller reserved.
    #[inline]
    pub(crate) fn place(&self, keys: &Keys, offset: u64, record: &NewRecord<'_>, placing: Placing) -> Result<()> {
        debug_assert!(offset + record.bytes() <= self.ready());
        match &self.map {
            Some(map) if placing != Placing::Written => {
                map.store_word(offset + 8, keys.length_word(record.key.len(), record.value.len()));
                map.fill(offset + 16, [&record.header.encode(), record.key, record.value]);
                let body = map.quiet(offset + 8, HEADER_BYTES - 8 + (record.key.len() + record.value.len()) as u64);
                let sum = keys.checksum(record.namespace, body.unwrap_or_default());
                let sum = if placing == Placing::Provisional { !sum } else { sum };
                map.store_word(offset, commit_word(sum, record.namespace));
                self.check_uncut(map, offset)
            }
            _ => self.write_at(offset, &record.encode(keys, placing)),
        }
    }

    /// Writes `records` from `offset` on, all of which the caller reserved; returns how many of them are there.
    pub(crate) fn place_side_by_side(
        &self,
        keys: &Keys,
        offset: u64,
        records: &[NewRecord<'_>],
        placing: Placing,
    ) -> (usize, Result<()>) {
        if self.is_mapped() && placing == Placing::Written {
            return self.write_side_by_side(keys, offset, records);
        }
        let mut offset = offset;
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = self.place(keys, offset, record, placing) {
                return (index, Err(error));
            }
            offset += record.bytes();
        }
        (records.len(), Ok(()))
    }

    /// By one call. Where that fails the map shows how far it came.
    fn write_side_by_side(&self, keys: &Keys, offset: u64, records: &[NewRecord<'_>]) -> (usize, Result<()>) {
        let mut bytes = Vec::with_capacity(records.iter().map(|record| record.bytes() as usize).sum());
        records.iter().for_each(|record| record.encode_to(keys, Placing::Written, &mut bytes));
        let Err(error) = self.write_at(offset, &bytes) else { return (records.len(), Ok(())) };
        let mut start = 0;
        let is_there = |record: &&NewRecord<'_>| {
            let end = start + record.bytes() as usize;
            let is_there = self.holds(offset + start as u64, &bytes[start..end]);
            start = end;
            is_there
        };
        (records.iter().take_while(is_there).count(), Err(error))
    }

    /// Whether the map shows `bytes` at `offset`, where nobody but the caller writes.
    pub(crate) fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        self.map.as_ref().is_some_and(|map| map.quiet(offset, bytes.len() as u64) == Some(bytes))
    }

    /// Turns a provisional record into a committed one.
    pub(crate) fn commit(&self, offset: u64, record: &NewRecord<'_>, keys: &Keys) -> Result<()> {
        match &self.map {
            Some(map) => {
                map.store_word(offset, map.word(offset) ^ u64::from(u32::MAX));
                self.check_uncut(map, offset)
            }
            None => self.write_at(offset, &record.encode(keys, Placing::Commit)[..8]),
        }
    }

    /// Overwrites `bytes` at `offset` with a void record.
    pub(crate) fn make_void(&self, keys: &Keys, offset: u64, bytes: u64) -> Result<()> {
        let header = Header { kind: RecordKind::Void, sequence: 0, deadline_ms: 0 };
        let length = keys.length_word(0, 0) | (bytes - HEADER_BYTES);
        let mut body = length.to_le_bytes().to_vec();
        body.extend(header.encode());
        let commit = commit_word(keys.checksum(0, &body), 0);
        // In this order a crash leaves a hole of the same length.
        self.write_at(offset, &0_u64.to_le_bytes())?;
        self.write_at(offset + 8, &body)?;
        self.write_at(offset, &commit.to_le_bytes())
    }

    /// Overwrites a range with zeros.
    pub(crate) fn zero(&self, offset: u64, bytes: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes {
            let step = (bytes - done).min(STEP_BYTES);
            self.write_at(offset + done, &ZEROS[..step as usize])?;
            done += step;
        }
        Ok(())
    }

    /// Writes a range again as it is, so that the next flush covers it whatever an earlier one did.
    pub(crate) fn rewrite(&self) -> Result<()> {
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < self.found_bytes {
            buffer.resize((self.found_bytes - at).min(STEP_BYTES) as usize, 0);
            self.file.read_at(at, &mut buffer).map_err(Error::io("read", &self.path, at))?;
            self.write_at(at, &buffer)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset` by a call.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset, bytes).map_err(Error::io("write", &self.path, offset))
    }
}
