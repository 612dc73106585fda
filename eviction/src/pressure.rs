//! How much the memory tier should give up, and how far it may grow, so that the machine keeps some memory available.
//!
//! Holds a decision: numbers in, numbers out; no clock (a round is a look at the machine, about a second after the last
//! one), no thread. Invariants: nothing is given up without pressure, and never much at once.
//!
//! ```text
//!                    target                      + 5 %           + 50 %
//!   available  --------|---------------------------|----------------|---------->
//!              TIGHT   |  tight until past this    | NEAR           | CALM
//!              gives   |  gives, if it was tight   | may grow, less and less
//! ```
//!
//! Below the target the tier gives up what is missing to the second mark: at most a quarter of itself in a round, and
//! not again what it gave before that had time to show. Above that mark it may grow by a quarter of the room in a
//! round: with figures that are one round late, larger shares overshoot and swing.

use std::fmt;

use crate::View;

/// The least that is given up, when anything is: a region of the memory tier.
const STEP_BYTES_MIN: u64 = 2 << 20;

/// At most one part in so many is given up in one round, so that one wrong figure does not empty the tier.
const STEP_PARTS: u64 = 4;

/// At most one part in so many of the room is grown into in one round.
const ROOM_PARTS: u64 = 4;

/// In so many parts the tier's ceiling rises again after pressure, one a round: to the double in six rounds.
const RISE_PARTS: u64 = 8;

/// For so many rounds memory that was given up is taken to be on its way.
const AWAITED_ROUNDS: u32 = 2;

/// Work that stands still for so large a share of the time is a sign of pressure.
const STALL_PERCENT_MIN: f32 = 10.0;

/// One part in so many is given up because of stalls alone.
const STALL_PARTS: u64 = 16;

/// The rounds between any step and one because of stalls alone: their average forgets in about ten seconds.
const STALL_ROUNDS: u32 = 10;

/// How the machine's memory stands to the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The machine was not looked at yet, or nothing could be read of it.
    #[default]
    Unknown,
    /// There is room.
    Calm,
    /// The target is kept, and not far.
    Near,
    /// The target is not kept, or work stalls: the tier gives up memory.
    Tight,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Calm => "calm",
            Self::Near => "near",
            Self::Tight => "tight",
        })
    }
}

/// What the tier is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// So many bytes should leave now; 0 is nothing.
    pub evict_bytes: u64,
    /// The tier should not be larger than this until the next round, whatever its capacity; `None` is no bound. Below
    /// what is resident only under pressure.
    pub allowance_bytes: Option<u64>,
}

/// What was given up and may not have shown yet.
#[derive(Clone, Copy, Debug, Default)]
struct Awaited {
    bytes: u64,
    /// What was available before it was given up.
    available_bytes: u64,
    rounds_left: u32,
}

/// The decision, and what it has to remember from round to round.
#[derive(Clone, Debug)]
pub struct Pressure {
    target_bytes: u64,
    level: Level,
    awaited: Awaited,
    /// What the tier was pressed down to, rising since; the largest number if there was no pressure for long.
    ceiling_bytes: u64,
    /// `None` until the machine could be seen.
    allowance_bytes: Option<u64>,
    stall_rounds_left: u32,
}

impl Pressure {
    /// A decision that keeps `target_bytes` available on the machine. With 0 there is never pressure and no bound.
    pub fn new(target_bytes: u64) -> Self {
        Self {
            target_bytes,
            level: Level::Unknown,
            awaited: Awaited::default(),
            ceiling_bytes: u64::MAX,
            allowance_bytes: None,
            stall_rounds_left: 0,
        }
    }

    /// What is to be kept available.
    pub fn target_bytes(&self) -> u64 {
        self.target_bytes
    }

    /// How it stood at the last look.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Decides for a tier that holds `resident_bytes`. To be called once a round.
    ///
    /// If the machine cannot be seen, nothing is given up and the allowance stays as it was.
    pub fn decide(&mut self, view: &View, resident_bytes: u64) -> Verdict {
        let awaited_bytes = self.await_more(view);
        let stalls = self.stalls(view);
        self.level = self.judge(view, stalls);
        let evict_bytes = match self.level {
            Level::Tight => self.step(view.available_bytes.saturating_add(awaited_bytes), resident_bytes, stalls),
            _ => 0,
        };
        if evict_bytes > 0 {
            self.stall_rounds_left = STALL_ROUNDS;
            let bytes = awaited_bytes.saturating_add(evict_bytes);
            self.awaited = Awaited { bytes, available_bytes: view.available_bytes, rounds_left: AWAITED_ROUNDS };
        }
        self.allow(view, resident_bytes, evict_bytes);
        Verdict { evict_bytes, allowance_bytes: self.allowance_bytes }
    }

    /// Counts a round down, and says what was given up and does not show in `view`.
    fn await_more(&mut self, view: &View) -> u64 {
        self.stall_rounds_left = self.stall_rounds_left.saturating_sub(1);
        if self.awaited.rounds_left == 0 {
            return 0;
        }
        self.awaited.rounds_left -= 1;
        let shown_bytes = view.available_bytes.saturating_sub(self.awaited.available_bytes);
        self.awaited.bytes.saturating_sub(shown_bytes)
    }

    fn stalls(&self, view: &View) -> bool {
        let percent = view.stall.map_or(0.0, |stall| stall.some_percent_avg10);
        percent >= STALL_PERCENT_MIN && view.available_bytes < self.near_bytes()
    }

    fn judge(&self, view: &View, stalls: bool) -> Level {
        let tight_below = if self.level == Level::Tight { self.enough_bytes() } else { self.target_bytes };
        match view.available_bytes {
            _ if !view.is_known() => Level::Unknown,
            available_bytes if available_bytes < tight_below || stalls => Level::Tight,
            available_bytes if available_bytes < self.near_bytes() => Level::Near,
            _ => Level::Calm,
        }
    }

    /// What a tight tier gives up in this round.
    fn step(&self, available_bytes: u64, resident_bytes: u64, stalls: bool) -> u64 {
        let missing_bytes = self.enough_bytes().saturating_sub(available_bytes);
        let wanted_bytes = if missing_bytes > 0 {
            missing_bytes
        } else if stalls && self.stall_rounds_left == 0 {
            resident_bytes / STALL_PARTS
        } else {
            return 0;
        };
        let most_bytes = (resident_bytes / STEP_PARTS).max(STEP_BYTES_MIN);
        wanted_bytes.clamp(STEP_BYTES_MIN, most_bytes).min(resident_bytes)
    }

    fn allow(&mut self, view: &View, resident_bytes: u64, evict_bytes: u64) {
        match self.level {
            Level::Unknown => (),
            _ if self.target_bytes == 0 => self.allowance_bytes = None,
            Level::Tight => {
                self.ceiling_bytes = self.ceiling_bytes.min(resident_bytes - evict_bytes);
                self.allowance_bytes = Some(self.ceiling_bytes);
            }
            Level::Calm | Level::Near => {
                let room_bytes = view.available_bytes.saturating_sub(self.enough_bytes());
                let grown_bytes = resident_bytes.saturating_add(room_bytes / ROOM_PARTS);
                let rise_bytes = (self.ceiling_bytes / RISE_PARTS).max(STEP_BYTES_MIN);
                let risen_bytes = self.ceiling_bytes.saturating_add(rise_bytes);
                let allowance_bytes = grown_bytes.min(risen_bytes).max(resident_bytes);
                // Forgotten when it no longer binds and the target is far; else room that comes back is taken slowly.
                let is_over = grown_bytes <= risen_bytes && self.level == Level::Calm;
                let had_none = self.ceiling_bytes == u64::MAX;
                self.ceiling_bytes = if is_over || had_none { u64::MAX } else { allowance_bytes };
                self.allowance_bytes = Some(allowance_bytes);
            }
        }
    }

    /// Where pressure ends that has begun: a little above the target, so that it does not flap.
    fn enough_bytes(&self) -> u64 {
        self.target_bytes.saturating_add(self.target_bytes / 20)
    }

    /// Below this stalls count: what stands still with more memory than that does so for another reason.
    fn near_bytes(&self) -> u64 {
        self.target_bytes.saturating_add(self.target_bytes / 2)
    }
}

#[cfg(test)]
mod tests;
