//! Remove: place a tombstone in the log, publish it in the key's slot, count what it displaced.
//!
//! Holds what is a removal's own; its steps are those of `insert.rs`. Invariant: a tombstone that a slot has named stands behind every older
//! record of its key that is not void. So whoever forgets it, having waited for all writers from before, forgets nothing that what
//! stands behind it, and is scanned at the next open, could miss.

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result,
    log::{Header, NewRecord, RecordKind},
};

use crate::{counters::Count, engine::Core, index::Look};

impl Core {
    /// Removes `key`; `true` if it was there. Writes nothing for a key that is not.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn remove(&self, key: &[u8]) -> Result<bool> {
        match self.remove_once(key) {
            Err(full @ Error::DiskCapacity { .. }) => self.with_room(full, || self.remove_once(key)),
            Err(refused) => self.with_room_on_disk(refused, || self.remove_once(key)),
            done => done,
        }
    }

    fn remove_once(&self, key: &[u8]) -> Result<bool> {
        let guard = Guard::pin();
        let hash = self.log.keys().hash(key);
        if !self.is_there(hash, key, &guard)? {
            return Ok(false);
        }
        if self.options.in_memory {
            return self.remove_from_memory(hash, key, &guard);
        }
        let header = Header { kind: RecordKind::Tombstone, sequence: self.clock.draw(1), deadline_ms: 0 };
        let record = NewRecord { header, namespace: 0, key, value: &[], kept: None };
        let displaced = self.write(hash, &record, self.options.durability.survives(), &guard)?;
        Ok(displaced.is_some_and(|old| old.kind() != Kind::Removed))
    }

    /// Removes a key from a store without a log; `true` if it was there.
    pub(crate) fn remove_from_memory(&self, hash: u64, key: &[u8], guard: &Guard) -> Result<bool> {
        loop {
            let found = self.index.find(hash, guard, |at| {
                self.tiers(guard).read(at, |record| if record.is_of(key) { Look::Found(at) } else { Look::Other })
            })?;
            let Some(at) = found else { return Ok(false) };
            if self.index.exchange(hash, at, Location::nothing(), 0, guard) {
                self.counters.add_all([(Count::Removal, 1), (Count::Taken, 1)], guard);
                self.memory.retire(at, guard);
                return Ok(true);
            }
        }
    }

    /// Whether a key has an entry that can be removed: a living one, or a damaged one.
    pub(crate) fn is_there(&self, hash: u64, key: &[u8], guard: &Guard) -> Result<bool> {
        let found = self.index.find(hash, guard, |at| {
            self.tiers(guard).read_to_replace(at, |record| match record {
                Some(record) if !record.is_of(key) => Look::Other,
                Some(record) => Look::Found(self.is_living(at, &record)),
                None => Look::Found(true),
            })
        })?;
        Ok(found == Some(true))
    }

    /// Has a removal at `home` stand behind what it has displaced, at `old`: its writer may have reserved its place first and been seen
    /// last. A copy takes its place then, of equal sequence, as compaction makes them.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert): the key is removed for this process.
    pub(crate) fn stand_behind(
        &self,
        hash: u64,
        record: &NewRecord<'_>,
        home: Location,
        old: Location,
        guard: &Guard,
    ) -> Result<()> {
        if self.log.position_of(old) < self.log.position_of(home) {
            return Ok(());
        }
        let copy = self.log.append(record)?;
        self.counters.add(Count::BytesWritten, record.bytes(), guard);
        match self.index.exchange(hash, home, copy.location, 0, guard) {
            true => self.log.note_dead(home, record.bytes(), &record.header, true),
            // Something newer came.
            false => self.take_back_overtaken(record, copy.location),
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use thermocline_tiers::log::medium::Faulty;

    use super::*;
    use crate::{Attributes, Engine, Options};

    #[test]
    fn a_removal_that_was_placed_first_and_seen_last_stands_after_a_checkpoint() {
        let medium = Faulty::new(true);
        let options = Options { segment_bytes: 64 << 10, compacts: false, memory_capacity: 0, ..Options::default() };
        let engine = Engine::open(Arc::new(medium.clone()), options.clone()).unwrap();
        engine.insert(b"key", b"first", &Attributes::new()).unwrap();
        {
            let (guard, hash) = (Guard::pin(), engine.log.keys().hash(b"key"));
            let header = |kind| Header { kind, sequence: engine.clock.draw(1), deadline_ms: 0 };
            let record = |header, value| NewRecord { header, namespace: 0, key: b"key", value, kept: None };
            let value = record(header(RecordKind::Value), b"second");
            let removal = record(header(RecordKind::Tombstone), b"");
            let placed = engine.log.append(&removal).unwrap();
            // The value comes to another segment, and is seen first.
            (0..4).for_each(|i| engine.insert(&[i], &[0; 20_000], &Attributes::new()).unwrap());
            let behind = engine.log.append(&value).unwrap();
            engine.publish_logged(hash, &value, behind, None, &guard).unwrap();
            engine.publish_logged(hash, &removal, placed, None, &guard).unwrap();
        }
        assert_eq!(engine.get(b"key").unwrap(), None);
        for round in 0..3 {
            // Whatever is forgotten meanwhile.
            engine.sync().unwrap();
            engine.checkpoint().unwrap();
            let killed = Engine::open(Arc::new(medium.after_kill()), options.clone()).unwrap();
            assert_eq!(killed.get(b"key").unwrap(), None, "round {round}");
        }
    }
}
