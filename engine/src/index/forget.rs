//! Forgetting: a page without the words that its caller does not want any more.
//!
//! Holds a copy of a page that leaves out, as growth holds one that grows. Reads no record and no hash. Never waits for readers.
//! Invariant: what is left out is exactly what the caller is told of.

use thermocline_tiers::{Error, Location, Result, Slot};

use super::{Cursor, Gate, Index, page::Building, pool::Run};
use crate::sync::{Ordering, yield_now};

impl Index {
    /// Leaves the words of one page out whose locations are `needless`, puts those into `gone`, and says where the next page begins;
    /// `None` behind the last. A page of which nothing is needless is only read.
    ///
    /// Writers of that page wait as for a copy of it.
    ///
    /// # Errors
    /// What fetching a stored page says; [`Error::IndexFull`]: the page is as it was.
    pub(crate) fn forget(
        &self,
        cursor: Cursor,
        needless: impl Fn(Location) -> bool,
        gone: &mut Vec<Location>,
    ) -> Result<Option<Cursor>> {
        let Some((shard, rest)) = cursor.place() else { return Ok(None) };
        let is_needless = |at: &Location| needless(*at);
        loop {
            let (node, level, run) = self.page(shard, rest)?;
            let mut slots = self.pool.buckets(run).iter().flat_map(|bucket| bucket.iter());
            let has_any = slots.any(|slot| slot.load().location().as_ref().is_some_and(is_needless));
            if !has_any {
                if self.is_current(node, run) {
                    return Ok(Some(cursor.next(level)));
                }
                continue;
            }
            if !self.close(node) {
                yield_now();
                continue;
            }
            // Acquire: as in `page`. Somebody may have copied it before us; one that was split stays closed.
            let run = Run::unpack(self.nodes[node].load(Ordering::Acquire)).expect("an open page is in its node");
            let taken = Gate::taken(self.gates[node].load(Ordering::Relaxed));
            let mut words = Vec::with_capacity(taken as usize);
            let first = gone.len();
            let slots = self.pool.buckets(run).iter().flat_map(|bucket| bucket.iter());
            for (slot, word) in slots.map(Slot::load).enumerate() {
                match word.location() {
                    Some(at) if is_needless(&at) => gone.push(at),
                    Some(at) if !at.is_nothing() => words.push((word, self.pool.history(run, slot))),
                    _ => {}
                }
            }
            let Some(mut copy) = Building::new(&self.pool, words.len() as u32) else {
                gone.truncate(first);
                self.reopen(node, taken);
                return Err(Error::IndexFull { bytes: self.pool.bytes_max() });
            };
            words.into_iter().for_each(|word| copy.put(word));
            // Release: pairs with the Acquire in `page`.
            self.nodes[node].store(run.replaced_by(copy.run).pack(), Ordering::Release);
            self.reopen(node, copy.taken);
            self.pool.give(run);
            return Ok(Some(cursor.next(level)));
        }
    }
}
