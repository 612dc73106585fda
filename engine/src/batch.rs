//! Batches: many writes that share reservations and one flush.
//!
//! Each write counts for itself; a batch is no transaction. Invariant: what was placed is published or void when the
//! call returns, whatever failed in between.

use thermocline_tiers::{
    Error, Guard, Kind, Result,
    log::{Header, NewRecord, RecordKind, Survives},
};

use crate::{Attributes, engine::Core};

/// How many records ahead a batch asks for the index's cache lines.
const PREFETCHED: usize = 8;

impl Core {
    /// Writes all pairs, each for itself, with one reservation for as many as fit and one flush if they are to be
    /// durable; of equal keys the last wins.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert); some of the pairs may have been written.
    pub fn insert_many(&self, pairs: &[(&[u8], &[u8])], attributes: &Attributes) -> Result<()> {
        self.wait_behind();
        let mut left = pairs;
        match self.insert_some(&mut left, attributes) {
            Err(full @ Error::DiskCapacity { .. }) => self.with_room(full, || self.insert_some(&mut left, attributes)),
            Err(refused) => Err(self.told_of(refused)),
            done => done,
        }
    }

    /// Writes pairs and takes those off that were written, with sequences that are drawn under the guard of their writing.
    fn insert_some(&self, pairs: &mut &[(&[u8], &[u8])], attributes: &Attributes) -> Result<()> {
        let deadline_ms = self.deadline_ms(attributes.ttl)?;
        let guard = Guard::pin();
        let first = self.clock.draw(pairs.len() as u64);
        let records = (first..).zip(*pairs).map(|(sequence, (key, value))| {
            let header = Header { kind: RecordKind::Value, sequence, deadline_ms };
            NewRecord { header, namespace: 0, key, value, kept: None }
        });
        if self.options.in_memory {
            let hash = |record: &NewRecord<'_>| self.log.keys().hash(record.key);
            return records.into_iter().try_for_each(|record| self.write_in_memory(hash(&record), &record, &guard));
        }
        let survives = attributes.durability.unwrap_or(self.options.durability).survives();
        let (count, _, written) = self.write_many(&records.collect::<Vec<_>>(), survives, &guard);
        *pairs = &pairs[count..];
        written
    }

    /// Removes all `keys`, with one flush if that is to be durable; returns how many were there.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert); some of them may be gone.
    pub fn remove_many(&self, keys: &[&[u8]]) -> Result<u64> {
        if self.options.in_memory {
            return keys.iter().try_fold(0, |count, key| Ok(count + u64::from(self.remove(key)?)));
        }
        let mut count = 0;
        // Whatever went is not there the second time.
        match self.remove_some(keys, &mut count) {
            Err(full @ Error::DiskCapacity { .. }) => self.with_room(full, || self.remove_some(keys, &mut count)),
            Err(refused) => self.with_room_on_disk(refused, || self.remove_some(keys, &mut count)),
            done => done,
        }?;
        Ok(count)
    }

    fn remove_some(&self, keys: &[&[u8]], count: &mut u64) -> Result<()> {
        let guard = Guard::pin();
        let mut records = Vec::new();
        for key in keys {
            if self.is_there(self.log.keys().hash(key), key, &guard)? {
                let header = Header { kind: RecordKind::Tombstone, sequence: self.clock.draw(1), deadline_ms: 0 };
                records.push(NewRecord { header, namespace: 0, key, value: &[], kept: None });
            }
        }
        let (_, displaced, written) = self.write_many(&records, self.options.durability.survives(), &guard);
        *count += displaced;
        written
    }

    /// Appends records, makes them durable if they are to be, and publishes them; returns how many were appended, how many of
    /// those displaced a value, and what went wrong.
    fn write_many(&self, records: &[NewRecord<'_>], survives: Survives, guard: &Guard) -> (usize, u64, Result<()>) {
        let hashes: Vec<_> = records.iter().map(|record| self.log.keys().hash(record.key)).collect();
        let known = hashes.iter().zip(records).map(|(hash, record)| self.known(*hash, record.key, guard));
        let known = match known.collect::<Result<Vec<_>>>() {
            Ok(known) => known,
            Err(error) => return (0, 0, Err(error)),
        };
        let (placed, appended) = self.log.append_many(records, survives);
        let durable = self.make_durable(survives);
        let (count, mut displaced, mut published) = (placed.len(), 0, Ok(()));
        // One that fails does not keep the others from being seen: they are in the log.
        for (index, placed) in placed.into_iter().enumerate() {
            if let Some(hash) = hashes.get(index + PREFETCHED) {
                self.index.prefetch(*hash);
            }
            match self.publish_logged(hashes[index], &records[index], placed, known[index], guard) {
                Ok(old) => displaced += u64::from(old.is_some_and(|old| old.kind() != Kind::Removed)),
                Err(error) => published = published.and(Err(error)),
            }
        }
        // What befell those that were appended comes first: the others may be tried again.
        (count, displaced, durable.and(published).and(appended))
    }
}
