//! Compact: copy what lives in a segment to a cold one, have the slots name the copies, let the segment go.
//!
//! Holds the flow and its thread. What is chosen is said in `choice.rs`. Invariants: a copy is durable before a slot names it; a
//! segment goes only when no slot, and no record in memory, names a place in it, and when what made its other records needless
//! is durable too.

mod moving;

use std::{
    cell::Cell,
    ops::AddAssign,
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use thermocline_tiers::{
    Error, Guard, Result,
    log::{Cold, Position, Sealed},
};

use crate::{
    choice::{Aim, Effort, choose, choose_expired, due_bytes, is_pressing},
    counters::Count,
    engine::Core,
    full::is_full,
    pace::{Pace, Pacer, Progress, cost},
    pack::Packer,
    throttle::Throttle,
    worker::Next,
};
use moving::{Emptying, Pass};

/// For each byte of a segment that is emptied for lack of room so much of one may stay, now or of the next ones.
const READMITTED_PART: u64 = 2;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Segments that went.
    pub segments: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// Bytes of records that were copied.
    pub bytes_written: u64,
    /// Bytes of the disk that came back.
    pub bytes_reclaimed: u64,
}

impl AddAssign for Compacted {
    fn add_assign(&mut self, other: Self) {
        self.segments += other.segments;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.bytes_reclaimed += other.bytes_reclaimed;
    }
}

/// What is kept between two compactions: the cold segments that are not full, what compresses, and how much may stay of what is emptied for lack
/// of room.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    cold: Cold,
    packer: Option<Packer>,
    credit: Cell<u64>,
    /// How far the log had grown when that was last looked at, and since when it has not.
    quiet: Option<(Position, Instant)>,
    has_rested: bool,
    throttle: Throttle,
    /// Nothing was compacted behind the callers' backs since it was last looked what they feel.
    is_idle: bool,
}

/// When nothing was written for so long, what is reserved is given back.
const REST_AFTER: Duration = Duration::from_secs(2);

impl Compaction {
    pub(crate) fn cold(&self) -> &Cold {
        &self.cold
    }

    pub(crate) fn cold_mut(&mut self) -> &mut Cold {
        &mut self.cold
    }
}

impl Core {
    pub(crate) fn compaction(&self) -> MutexGuard<'_, Compaction> {
        // What a compaction that panicked left is whole: a cold segment says itself where it ends.
        self.feeling.hasten(|| self.compaction.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps compaction out while somebody reads segments as files.
    pub(crate) fn without_compaction<R>(&self, read: impl FnOnce() -> R) -> R {
        let _compaction = self.compaction();
        read()
    }

    /// Has the compacting thread look whether there is something to do.
    pub(crate) fn wake_compactor(&self) {
        if self.options.in_memory || self.options.read_only || !self.options.compacts {
            return;
        }
        self.compactor.wake(|| {
            let this = self.this.clone();
            Box::new(move || match this.upgrade().map_or(Ok(Next::Done), |core| core.compact_next()) {
                // What went is given back when those are gone who still look into it.
                Err(Error::DiskCapacity { .. }) => Ok(Next::Soon),
                done => done.map_err(|error| error.to_string()),
            })
        });
    }

    fn compact_next(&self) -> Result<Next> {
        // Nobody hurries it.
        let mut compaction = self.compaction.lock().unwrap_or_else(PoisonError::into_inner);
        self.log.give_back();
        if self.log.lacks_room() {
            // Before a writer has to wait for it.
            self.empty_some(&mut compaction)?;
            self.wake_ahead();
            return Ok(if self.log.lacks_room() { Next::Soon } else { Next::Again });
        }
        if self.log.is_full() && self.empty_on_full_disk(&mut compaction)?.is_some() {
            return Ok(Next::Again);
        }
        let effort = if self.log.lacks_slots() { Effort::Pressed } else { Effort::Steady };
        match self.compact_chosen(&mut compaction, effort, Pace::Throttled)? {
            Some(_) => Ok(Next::Again),
            None => {
                compaction.throttle.note_quiet(self.feeling.take());
                compaction.is_idle = true;
                self.log.seal_cold(&mut compaction.cold)?;
                self.wake_hinter();
                let next = self.rest(&mut compaction)?;
                Guard::reclaim();
                match next {
                    // What went is given back when those are gone who still look into it.
                    Next::Done if !self.log.give_back() => Ok(Next::Soon),
                    next => Ok(next),
                }
            }
        }
    }

    /// Waits until nobody has written for a while, then compacts what is worth it only now, and gives back what is reserved.
    fn rest(&self, compaction: &mut Compaction) -> Result<Next> {
        let position = self.log.position();
        match compaction.quiet {
            Some((then, _)) if then == position && compaction.has_rested => return Ok(Next::Done),
            Some((then, since)) if then == position && since.elapsed() >= REST_AFTER => {}
            Some((then, _)) if then == position => return Ok(Next::Soon),
            _ => {
                (compaction.quiet, compaction.has_rested) = (Some((position, Instant::now())), false);
                return Ok(Next::Soon);
            }
        }
        // What was displaced last lies in segments whose writers have finished.
        Guard::pin().retire(self.log.quiescer());
        Guard::reclaim();
        if self.compact_chosen(compaction, Effort::Idle, Pace::Throttled)?.is_some() {
            return Ok(Next::Again);
        }
        self.log.seal_cold(&mut compaction.cold)?;
        self.log.rest()?;
        compaction.has_rested = true;
        Ok(Next::Done)
    }

    /// Gives back what is reserved for writes; for tests of what comes after.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`].
    pub fn rest_now(&self) -> Result<()> {
        let _compaction = self.compaction();
        self.log.rest()
    }

    /// Compacts everything that has anything dead in it, or was never compressed if that is to be, now. Returns what that did.
    ///
    /// # Errors
    /// [`thermocline_tiers::Error::Io`], [`thermocline_tiers::Error::Suspended`]: nothing is lost, and what was done stays done.
    pub fn compact(&self) -> Result<Compacted> {
        self.compact_with(&mut |_| ())
    }

    /// As [`compact`](Self::compact), and `tell` hears how far it has come, each time that some bytes were gone over.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    pub fn compact_with(&self, tell: &mut dyn FnMut(Progress)) -> Result<Compacted> {
        crate::inspect::check_outside_read("compact")?;
        let mut done = Compacted::default();
        if self.options.in_memory || self.options.read_only {
            return Ok(done);
        }
        self.sync()?;
        match self.log.roll(self.clock.now_ms(), self.options.compression.is_some()) {
            // What is dead in the segment that is appended to goes when there is room for another.
            Err(error) if matches!(error, Error::DiskCapacity { .. }) || is_full(&error) => {}
            rolled => rolled?,
        }
        // Those who write now may write to a segment that is full.
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        let mut compaction = self.compaction();
        self.give_back_dropped();
        // A segment that was chosen once has nothing dead in it afterwards; what dies meanwhile is for the next time.
        let sealed = self.log.sealed(&compaction.cold, self.clock.now_ms())?;
        let mut progress =
            Progress { bytes_total: due_bytes(&sealed, self.options.compression.is_some()), bytes_done: 0 };
        let mut is_refused = false;
        for _ in 0..=sealed.len() {
            let mut told = |bytes| {
                progress.bytes_done += bytes;
                // What died meanwhile may be chosen, too.
                progress.bytes_total = progress.bytes_total.max(progress.bytes_done);
                tell(progress);
            };
            // On a full disk what is alive cannot be moved for compression alone.
            let effort = if self.log.is_full() { Effort::Pressed } else { Effort::Full };
            match self.compact_chosen(&mut compaction, effort, Pace::Told(&mut told)) {
                Ok(Some(one)) => done += one,
                // Under a ceiling some of it may have to wait until there is room for what stays.
                Ok(None) | Err(Error::DiskCapacity { .. }) => break,
                // From here on segment by segment.
                Err(error) if is_full(&error) && !is_refused => is_refused = true,
                Err(error) if is_full(&error) && done.bytes_reclaimed > 0 => break,
                Err(error) => return Err(error),
            }
        }
        self.log.seal_cold(&mut compaction.cold)?;
        self.wake_hinter();
        if !self.give_back_dropped() {
            self.wake_compactor();
        }
        self.take_back_reserve();
        Ok(done)
    }

    /// Compacts one of the segments that can be, `number` modulo their count, and no other; for tests of what that leaves behind.
    ///
    /// # Errors
    /// As for [`compact`](Self::compact).
    pub fn compact_any(&self, number: u64) -> Result<Compacted> {
        Guard::pin().retire(self.log.quiescer());
        Guard::wait_for_others();
        let mut compaction = self.compaction();
        let sealed = self.log.sealed(&compaction.cold, self.clock.now_ms())?;
        let chosen = sealed.get((number % sealed.len().max(1) as u64) as usize).copied();
        self.compact_segments(chosen.as_slice(), &mut compaction, Pace::Full, Aim::Keep)
    }

    /// Ends what is half done; the thread has stopped.
    pub(crate) fn end_compaction(&self) -> Result<()> {
        self.log.seal_cold(&mut self.compaction().cold)
    }

    pub(crate) fn compact_chosen(
        &self,
        compaction: &mut Compaction,
        effort: Effort,
        pace: Pace<'_>,
    ) -> Result<Option<Compacted>> {
        let sealed = self.log.sealed(&compaction.cold, self.clock.now_ms())?;
        let expired = choose_expired(&sealed);
        if !expired.is_empty() {
            let done = self.drop_expired(&expired);
            self.take_back_reserve();
            return done.map(Some);
        }
        // Under a ceiling, on a full disk, and with few segment slots, as much at a time as there is always room for.
        let is_short = self.log.is_bounded() || self.log.is_full() || self.log.lacks_slots();
        let bytes_max = if is_short { self.options.segment_bytes } else { u64::MAX };
        let chosen = choose(&sealed, effort, bytes_max, self.options.compression.is_some());
        if chosen.is_empty() {
            return Ok(None);
        }
        let pace = match pace {
            Pace::Throttled if is_pressing(&sealed) => Pace::Full,
            pace => pace,
        };
        let felt = self.feeling.take();
        if std::mem::take(&mut compaction.is_idle) {
            compaction.throttle.note_quiet(felt);
        }
        let done = self.compact_segments(&chosen, compaction, pace, Aim::Keep);
        self.take_back_reserve();
        done.map(Some)
    }

    /// Compacts some segments together: they share the waits and the flush of what made their records needless.
    pub(crate) fn compact_segments(
        &self,
        chosen: &[Sealed],
        compaction: &mut Compaction,
        pace: Pace<'_>,
        aim: Aim,
    ) -> Result<Compacted> {
        let done = self.empty_segments(chosen, compaction, pace, aim);
        // Copies of what is in those that stay after all can be removed before they go.
        chosen.iter().for_each(|sealed| self.log.note_left(sealed));
        done
    }

    fn empty_segments(
        &self,
        chosen: &[Sealed],
        compaction: &mut Compaction,
        pace: Pace<'_>,
        aim: Aim,
    ) -> Result<Compacted> {
        let Compaction { cold, packer, credit, throttle, .. } = compaction;
        let mut pacer = Pacer { core: self, pace, throttle, cost: cost(chosen), step: 0, segment_bytes: 0 };
        let (mut done, mut emptied) = (Compacted::default(), Vec::new());
        if self.log.is_bounded() || self.log.is_full() {
            self.log.seal_cold_for(cold, chosen.iter().map(|sealed| sealed.bytes).sum())?;
        }
        if aim == Aim::Keep && !chosen.is_empty() {
            self.prepare_packer(packer, chosen, cold)?;
        }
        for sealed in chosen {
            let mut emptying = Emptying { sealed, aim, credit, late: Vec::new() };
            if aim == Aim::Evict {
                credit.set((credit.get() + sealed.bytes / READMITTED_PART).min(self.options.segment_bytes));
            }
            if self.move_living(&mut emptying, cold, packer, Pass::First, &mut pacer, &mut done)?.is_some() {
                emptied.push(emptying);
            }
            pacer.end_segment(sealed.bytes);
        }
        self.count_packed(packer, &Guard::pin());
        let mut has_moved = true;
        while has_moved {
            // Whoever still has a place of these segments in hand has published it, or nothing, after this.
            Guard::wait_for_others();
            has_moved = false;
            let mut looked_at = Vec::new();
            for mut emptying in emptied {
                if let Some(count) =
                    self.move_living(&mut emptying, cold, packer, Pass::Again, &mut pacer, &mut done)?
                {
                    has_moved |= count > 0;
                    looked_at.push(emptying);
                }
            }
            emptied = looked_at;
        }
        if emptied.is_empty() {
            return Ok(done);
        }
        // What made the others needless is as durable as they were.
        self.let_exchanges_count();
        self.log.flush()?;
        self.make_expiry_durable()?;
        for Emptying { sealed, late, .. } in emptied {
            let forget = || late.iter().for_each(|moved| self.follow(moved));
            done.bytes_reclaimed += self.log.drop_sealed(sealed, self.clock.now_ms(), forget)?;
            (done.segments, done.bytes_read) = (done.segments + 1, done.bytes_read + sealed.bytes);
        }
        self.counters.add(Count::BytesReclaimed, done.bytes_reclaimed, &Guard::pin());
        self.give_back_dropped();
        Ok(done)
    }
}
