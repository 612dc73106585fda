//! Compare and exchange: an update that counts only if nobody came between.
//!
//! Holds the order that keeps a lost exchange lost, live and in recovery: its record is placed provisionally, published
//! only over exactly what was looked at, and committed after that; a loser's record becomes a void. A flush waits for
//! the moment in between.

use std::sync::PoisonError;

use thermocline_tiers::{
    Guard, Location, Result,
    log::{Header, NewRecord, RecordKind},
};

use crate::{
    engine::{Engine, InLog},
    index::{Published, Verdict},
};

impl Engine {
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
        let deadline_ms = self.deadline_of(new)?;
        loop {
            let guard = Guard::pin();
            let found = self.find(self.log.keys().hash(key), key, &guard, |at, record| {
                (at, self.is_living(at, &record).then(|| record.header().sequence))
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
            let record = NewRecord { header, namespace: 0, key, value: new.unwrap_or_default() };
            if self.try_exchange(&record, found.map(|(at, _)| at), &guard)? {
                return Ok(Ok(header.sequence));
            }
        }
    }

    fn deadline_of(&self, new: Option<&[u8]>) -> Result<u64> {
        if new.is_some() { self.deadline_ms(None) } else { Ok(0) }
    }

    /// Publishes over exactly `seen`; `false` if the slot has moved on.
    fn try_exchange(&self, record: &NewRecord<'_>, seen: Option<Location>, guard: &Guard) -> Result<bool> {
        let placed = self.log.append_provisional(record)?;
        let hash = self.log.keys().hash(record.key);
        let counting = self.exchanging.read().unwrap_or_else(PoisonError::into_inner);
        let published = self.index.publish(hash, placed.location, guard, &InLog(&self.log), |there| {
            if Some(there) == seen {
                return Ok(Verdict::Replace);
            }
            self.log
                .read_unchecked(there, |found| if found.key() == record.key { Verdict::Keep } else { Verdict::Other })
        });
        match published {
            Ok(published) if published != Published::Kept => {
                if let Err(error) = self.log.commit(placed.location, record) {
                    // Half of the word may have been written, and that half may count.
                    let _ = self.log.revoke(placed.location, record);
                    self.take_back(hash, placed.location, seen, guard)?;
                    return Err(error);
                }
                drop(counting);
                self.count_published(record, published, guard);
                self.make_durable(self.options.durability.survives()).map(|()| true)
            }
            lost => {
                self.log.revoke(placed.location, record)?;
                lost.map(|_| false)
            }
        }
    }

    /// Names again what was there before `placed`, which could not be committed and which the next process will not see.
    fn take_back(&self, hash: u64, placed: Location, before: Option<Location>, guard: &Guard) -> Result<()> {
        let before = before.unwrap_or(placed.as_removed());
        let is_ours = |there| Ok(if there == placed { Verdict::Replace } else { Verdict::Keep });
        // Another key of the same tag would be taken for a newer write here, with probability 2^-15: then the new value
        // is seen until the store is opened again.
        self.index.publish(hash, before, guard, &InLog(&self.log), is_ours).map(|_| ())
    }
}
