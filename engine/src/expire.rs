//! Expire: let segments go in which everything has expired, without reading them.
//!
//! Holds the flow alone: who is chosen is said in `choice.rs`, when the thread looks in `keeper.rs`. Instead of looking up each record's
//! key this goes over the index, page by page, and leaves out what names a place in those segments: in the order of memory, and
//! without a look at a record. Invariant: the next process knows that the deadlines have passed before a file goes.

use std::sync::{PoisonError, atomic::Ordering};

use thermocline_tiers::{
    Guard, Kind, Location, Result,
    log::{Places, Sealed},
};

use crate::{compact::Compacted, counters::Count, engine::Core, index::Cursor};

impl Core {
    /// Lets the segments go in which everything has expired, and no others; for tests of what that leaves behind.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    pub fn drop_expired_now(&self) -> Result<Compacted> {
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        let compaction = self.compaction();
        let sealed = self.log.sealed(compaction.cold(), self.clock.now_ms())?;
        self.drop_expired(&sealed.into_iter().filter(|segment| segment.is_expired).collect::<Vec<_>>())
    }

    /// Lets segments go that were found expired as a whole.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    pub(crate) fn drop_expired(&self, chosen: &[Sealed]) -> Result<Compacted> {
        let done = self.drop_expired_of(chosen);
        // Keys of those that stay after all are gone already.
        chosen.iter().for_each(|sealed| self.log.note_left(sealed));
        done
    }

    fn drop_expired_of(&self, chosen: &[Sealed]) -> Result<Compacted> {
        let mut done = Compacted::default();
        // Before anybody hears that something is gone.
        self.seen_time.note(&self.clock, &self.log)?;
        let places = self.log.places_of(chosen);
        let Some(_) = self.forget_places(&places, false)? else { return Ok(done) };
        loop {
            // Whoever still has one of these places in hand has published it, or nothing, after this.
            Guard::wait_for_others();
            match self.forget_places(&places, true)? {
                None => return Ok(done),
                Some(0) => break,
                Some(_) => {}
            }
        }
        // And who has displaced something there has said so.
        Guard::wait_for_others();
        let live_bytes = chosen.iter().map(|sealed| self.log.expiring_bytes(sealed)).fold(0, u64::saturating_add);
        self.counters.add(Count::LiveBytesTaken, live_bytes, &Guard::pin());
        self.make_expiry_durable()?;
        for sealed in chosen {
            done.bytes_reclaimed += self.log.drop_sealed(sealed, self.clock.now_ms(), || ())?;
            done.segments += 1;
        }
        self.counters.add(Count::BytesReclaimed, done.bytes_reclaimed, &Guard::pin());
        self.give_back_dropped();
        Ok(done)
    }

    /// Leaves out of the index what names one of these places, or a record in memory whose home that is; returns how much that was, or
    /// `None` if the store ends. In the second look no exchange is between being seen and counting.
    fn forget_places(&self, places: &Places, is_again: bool) -> Result<Option<usize>> {
        let (mut cursor, mut count) = (Some(Cursor::default()), 0);
        let mut gone = Vec::new();
        while let Some(page) = cursor {
            if self.compactor.is_ending() {
                return Ok(None);
            }
            // Both for one page: a few microseconds.
            let _exchanging = is_again.then(|| self.exchanging.write().unwrap_or_else(PoisonError::into_inner));
            let guard = Guard::pin();
            let is_there = |at: Location| match at.kind() {
                Kind::Memory => {
                    let home = self.memory.record(at, &guard).and_then(|record| record.home());
                    home.is_some_and(|home| places.contains(home))
                }
                _ => places.contains(at),
            };
            cursor = self.index.forget(page, is_there, &mut gone)?;
            count += gone.len();
            self.count_expired(&gone, &guard);
            gone.clear();
        }
        Ok(Some(count))
    }

    /// Counts keys that are gone, and lets go from memory what of them was there.
    fn count_expired(&self, gone: &[Location], guard: &Guard) {
        if gone.is_empty() {
            return;
        }
        let of = |kind: Kind| gone.iter().copied().filter(move |at| at.kind() == kind);
        for at in of(Kind::Memory) {
            if let Some(record) = self.memory.record(at, guard) {
                self.keeper.note_eviction(record.key(), Count::EvictedExpired, self.clock.now_coarse_ms());
            }
            self.memory.retire(at, guard);
        }
        let (in_memory, in_log) = (of(Kind::Memory).count() as u64, of(Kind::Log).count() as u64);
        let keys = in_memory + in_log;
        let counts = [(Count::Taken, keys), (Count::ExpiredLogged, keys), (Count::EvictedExpired, in_memory)];
        self.counters.add_all(counts, guard);
    }

    /// Has the next process know what time it is, should the wall clock be set back: what is gone for good because of its deadline must
    /// not make something older come back that has one, too.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`].
    pub(crate) fn make_expiry_durable(&self) -> Result<()> {
        match self.has_deadlines.load(Ordering::Relaxed) {
            true => self.seen_time.make_durable(&self.clock, &self.log),
            false => Ok(()),
        }
    }

    /// Gives the space back of files that nobody looks into any more; by whoever has removed them, and not by those who happen to be
    /// the last to have looked. Whether all of it is back.
    pub(crate) fn give_back_dropped(&self) -> bool {
        Guard::reclaim();
        self.log.give_back()
    }
}
