//! Compare and exchange: an update that counts only if nobody came between.
//!
//! Holds the order that keeps a lost exchange lost, live and in recovery: its record is placed provisionally, published
//! only over exactly what was looked at, and committed after that; a loser's record becomes a void. A flush waits for
//! the moment in between.

use std::{cell::Cell, sync::PoisonError};

use thermocline_tiers::{
    Error, Guard, Location, Result,
    log::{Header, NewRecord, RecordKind},
};

use crate::{
    counters::Count,
    engine::Core,
    index::{Look, Published, Verdict},
};

impl Core {
    /// Writes `new` under `key`, or removes the key for `None`, if the sequence of its entry is `expected`; `None` expects
    /// that there is none. Returns the new sequence, or the one that was found.
    ///
    /// With `Synced` the new value is seen by others shortly before it is durable.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and [`thermocline_tiers::Error::Corrupt`] if the record there is damaged.
    pub fn compare_exchange(
        &self,
        key: &[u8],
        expected: Option<u64>,
        new: Option<&[u8]>,
    ) -> Result<Result<u64, Option<u64>>> {
        match self.compare_exchange_once(key, expected, new) {
            Err(full @ Error::DiskCapacity { .. }) => {
                self.with_room(full, || self.compare_exchange_once(key, expected, new))
            }
            done => done,
        }
    }

    fn compare_exchange_once(
        &self,
        key: &[u8],
        expected: Option<u64>,
        new: Option<&[u8]>,
    ) -> Result<Result<u64, Option<u64>>> {
        let deadline_ms = self.deadline_of(new)?;
        loop {
            let guard = Guard::pin();
            let hash = self.log.keys().hash(key);
            let found = self.index.find(hash, &guard, |at| {
                self.tiers(&guard).read(at, |record| {
                    if !record.is_of(key) {
                        return Look::Other;
                    }
                    Look::Found((at, self.is_living(at, &record).then(|| record.sequence())))
                })
            })?;
            let sequence = found.and_then(|(_, sequence)| sequence);
            if sequence != expected {
                return Ok(Err(sequence));
            }
            let kind = if new.is_some() { RecordKind::Value } else { RecordKind::Tombstone };
            let header = Header { kind, sequence: self.clock.draw(1), deadline_ms };
            if new.is_none() && sequence.is_none() {
                return Ok(Ok(header.sequence));
            }
            let record = NewRecord { header, namespace: 0, key, value: new.unwrap_or_default(), kept: None };
            let seen = found.map(|(at, _)| at);
            let is_ours = match self.options.in_memory {
                true => self.try_exchange_in_memory(hash, &record, seen, &guard)?,
                false => self.try_exchange(hash, &record, seen, &guard)?,
            };
            if is_ours {
                return Ok(Ok(header.sequence));
            }
        }
    }

    fn deadline_of(&self, new: Option<&[u8]>) -> Result<u64> {
        if new.is_some() { self.deadline_ms(None) } else { Ok(0) }
    }

    /// Publishes over exactly `seen`; `false` if the slot has moved on.
    fn try_exchange(&self, hash: u64, record: &NewRecord<'_>, seen: Option<Location>, guard: &Guard) -> Result<bool> {
        let placed = self.log.append_provisional(record)?;
        let counting = self.exchanging.read().unwrap_or_else(PoisonError::into_inner);
        let published = self.publish_over(hash, record, placed.location, seen, guard);
        match published {
            Ok(published) if published != Published::Kept => {
                if let Err(error) = self.log.commit(placed.location, record) {
                    // Half of the word may have been written, and that half may count.
                    let _ = self.log.revoke(placed.location, record);
                    self.take_back(hash, placed.location, seen, guard);
                    return Err(error);
                }
                drop(counting);
                self.count_exchanged(record, published, record.bytes(), guard);
                self.make_durable(self.options.durability.survives()).map(|()| true)
            }
            lost => {
                self.log.revoke(placed.location, record)?;
                lost.map(|_| false)
            }
        }
    }

    /// The same in a store without a log.
    fn try_exchange_in_memory(
        &self,
        hash: u64,
        record: &NewRecord<'_>,
        seen: Option<Location>,
        guard: &Guard,
    ) -> Result<bool> {
        self.log.check(record)?;
        if record.header.kind == RecordKind::Tombstone {
            let Some(seen) = seen else { return Ok(false) };
            let is_ours = self.index.exchange(hash, seen, Location::nothing(), 0, guard);
            if is_ours {
                self.count_exchanged(record, Published::Replaced(seen), 0, guard);
            }
            return Ok(is_ours);
        }
        // By force: the caller hears that his value is there.
        let Some(placed) = self.memory.place(record, None, 0, true, guard) else {
            return Err(Error::IndexFull { bytes: self.memory.usage().bytes });
        };
        let published = self.publish_over(hash, record, placed.location(), seen, guard)?;
        if published == Published::Kept {
            return Ok(false);
        }
        self.count_exchanged(record, published, 0, guard);
        self.settle_placed(Some(placed), published, guard);
        Ok(true)
    }

    fn publish_over(
        &self,
        hash: u64,
        record: &NewRecord<'_>,
        at: Location,
        seen: Option<Location>,
        guard: &Guard,
    ) -> Result<Published> {
        let tiers = self.tiers(guard);
        self.index.publish(hash, at, guard, &tiers, &Cell::new(0), |there, _| {
            if Some(there) == seen {
                return Ok(Verdict::Replace);
            }
            tiers.judge(there, |found| match found {
                Some(found) if !found.is_of(record.key) => Verdict::Other,
                _ => Verdict::Keep,
            })
        })
    }

    fn count_exchanged(&self, record: &NewRecord<'_>, published: Published, logged: u64, guard: &Guard) {
        if record.header.kind == RecordKind::Value {
            self.count_access(Count::Insertion, guard);
        }
        self.count_published(record, published, logged, guard);
    }

    /// Names again what was there before `placed`, which could not be committed and which the next process will not see.
    fn take_back(&self, hash: u64, placed: Location, before: Option<Location>, guard: &Guard) {
        // What was in memory stays there until this displaces it: nobody has let it go yet.
        self.index.exchange(hash, placed, before.unwrap_or(Location::nothing()), 0, guard);
    }
}
