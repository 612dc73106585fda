//! How fast compaction goes behind its callers' backs: a token bucket whose rate follows what they feel of it.
//!
//! Numbers in, numbers out: holds no clock and no thread. Invariant: it never goes slower than the log grows.

/// Bytes that are gone over without a pause.
pub(crate) const STEP_BYTES: u64 = 128 << 10;
/// What may be saved up while there was nothing to do, in bytes.
const BURST: f64 = 2.0 * STEP_BYTES as f64;
/// Bytes a second: where it starts, and what callers can bring it down and up to.
const RATE_START: f64 = 128e6;
const RATE_MIN: f64 = 8e6;
const RATE_MAX: f64 = 4e9;
/// What one look at callers who feel it, or do not, makes of the rate.
const SLOWER: f64 = 0.7;
const FASTER: f64 = 1.25;
/// Callers feel it when they take so many times as long as without.
const FELT_RATIO: f64 = 1.5;
/// What takes less than this is not felt, in ns.
const FELT_NS_MIN: f64 = 1_000.0;
/// So many calls have to be timed before anything follows from them.
const CALLS_MIN: u64 = 16;
/// The log's growth is looked at this often, in ns.
const GROWTH_NS: u64 = 20_000_000;
/// How much faster than the log's growth it goes at least.
const HEADWAY: f64 = 1.25;

/// So much may be dead for each byte that is alive, beside one segment, before writers wait, and when they wait longest.
const DEAD_PER_LIVE: f64 = 1.5;
const DEAD_PER_LIVE_MAX: f64 = 2.5;
/// The longest that a writer waits, each time that some MiB were appended.
const BEHIND_NS_MAX: f64 = 50_000_000.0;

/// How many ns a writer waits, now and then, because compaction is behind with what is `dead`.
pub(crate) fn behind_ns(dead: u64, live: u64, segment_bytes: u64) -> u64 {
    let dead = dead.saturating_sub(segment_bytes) as f64;
    // Of little that is alive a segment is much.
    let live = live.max(segment_bytes) as f64;
    let part = (dead / live - DEAD_PER_LIVE) / (DEAD_PER_LIVE_MAX - DEAD_PER_LIVE);
    (part.clamp(0.0, 1.0) * BEHIND_NS_MAX) as u64
}

/// Calls that were timed, and how long they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Felt {
    pub(crate) calls: u64,
    pub(crate) nanos: u64,
}

impl Felt {
    fn add(&mut self, other: Self) {
        (self.calls, self.nanos) = (self.calls + other.calls, self.nanos + other.nanos);
    }

    /// The mean, once there are enough of them; then it starts again.
    fn take_mean(&mut self) -> Option<f64> {
        (self.calls >= CALLS_MIN).then(|| {
            let felt = std::mem::take(self);
            felt.nanos as f64 / felt.calls as f64
        })
    }
}

/// What is asked about: when, and how far the log had grown then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) nanos: u64,
    pub(crate) appended_bytes: u64,
}

/// The bucket, and what its rate follows from.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes a second.
    rate: f64,
    /// Bytes that may be gone over now; below zero: that has to be waited for.
    tokens: f64,
    last_nanos: u64,
    /// How long a call takes without compaction, in ns; 0: not known yet.
    quiet_ns: f64,
    quiet: Felt,
    felt: Felt,
    /// When the log's growth was last looked at, and the bytes a second that it grew by.
    grown: Moment,
    growth: f64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            rate: RATE_START,
            tokens: BURST,
            last_nanos: 0,
            quiet_ns: 0.0,
            quiet: Felt::default(),
            felt: Felt::default(),
            grown: Moment::default(),
            growth: 0.0,
        }
    }
}

impl Throttle {
    /// Calls that were timed while nothing was compacted.
    pub(crate) fn note_quiet(&mut self, felt: Felt) {
        self.quiet.add(felt);
        if let Some(mean) = self.quiet.take_mean() {
            self.quiet_ns = if self.quiet_ns == 0.0 { mean } else { (3.0 * self.quiet_ns + mean) / 4.0 };
        }
        // What was timed before is not what is felt now.
        self.felt = Felt::default();
    }

    /// Calls that were timed while something was.
    pub(crate) fn note_felt(&mut self, felt: Felt) {
        self.felt.add(felt);
        if let Some(mean) = self.felt.take_mean() {
            let is_felt = self.quiet_ns > 0.0 && mean > FELT_RATIO * self.quiet_ns.max(FELT_NS_MIN);
            self.rate = (self.rate * if is_felt { SLOWER } else { FASTER }).clamp(RATE_MIN, RATE_MAX);
        }
    }

    /// How many ns to wait now that `bytes` more were gone over, of which one in `cost` comes back.
    pub(crate) fn wait_ns(&mut self, now: Moment, bytes: u64, cost: f64) -> u64 {
        self.look_at_growth(now);
        let rate = self.rate.max(self.growth * cost * HEADWAY);
        let passed = now.nanos.saturating_sub(self.last_nanos) as f64 / 1e9;
        self.last_nanos = now.nanos;
        self.tokens = (self.tokens + passed * rate).min(BURST) - bytes as f64;
        if self.tokens >= 0.0 { 0 } else { (-self.tokens / rate * 1e9) as u64 }
    }

    fn look_at_growth(&mut self, now: Moment) {
        let passed = now.nanos.saturating_sub(self.grown.nanos);
        if passed >= GROWTH_NS {
            let grown = now.appended_bytes.saturating_sub(self.grown.appended_bytes);
            (self.growth, self.grown) = (grown as f64 / passed as f64 * 1e9, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that goes on by what is waited for, and `work_ns` for each step.
    struct Run {
        throttle: Throttle,
        now: Moment,
        work_ns: u64,
    }

    impl Run {
        fn new() -> Self {
            let mut run = Self { throttle: Throttle::default(), now: Moment::default(), work_ns: 1 };
            run.now.nanos = 1_000_000_000;
            run.throttle.note_quiet(Felt { calls: 100, nanos: 100 * 2_000 });
            run
        }

        /// Bytes a second over `steps` steps, while a call takes `call_ns` and the log grows by `growth` bytes a second.
        fn rate(&mut self, steps: u64, call_ns: u64, growth: f64, cost: f64) -> f64 {
            let start = self.now.nanos;
            for _ in 0..steps {
                self.throttle.note_felt(Felt { calls: CALLS_MIN, nanos: CALLS_MIN * call_ns });
                let waited = self.throttle.wait_ns(self.now, STEP_BYTES, cost) + self.work_ns;
                self.now.nanos += waited;
                self.now.appended_bytes += (growth * waited as f64 / 1e9) as u64;
            }
            (steps * STEP_BYTES) as f64 / (self.now.nanos - start) as f64 * 1e9
        }
    }

    #[test]
    fn callers_who_wait_slow_it_down_and_callers_who_do_not_speed_it_up() {
        let mut run = Run::new();
        run.rate(100, 20_000, 0.0, 2.0);
        let slow = run.rate(100, 20_000, 0.0, 2.0);
        assert!((slow - RATE_MIN).abs() < RATE_MIN / 20.0, "{slow} bytes a second while callers wait");
        run.rate(100, 2_000, 0.0, 2.0);
        let fast = run.rate(1_000, 2_000, 0.0, 2.0);
        assert!(fast > RATE_MAX * 0.9, "{fast} bytes a second while nobody does");
    }

    #[test]
    fn it_keeps_up_with_a_log_that_grows_whatever_callers_feel() {
        let mut run = Run::new();
        // A third of what is gone over comes back.
        run.rate(2_000, 1_000_000, 100e6, 3.0);
        let rate = run.rate(2_000, 1_000_000, 100e6, 3.0);
        assert!((300e6..400e6).contains(&rate), "{rate} bytes a second beside 100 MB/s of writes");
        // When the writes end, so does that.
        run.rate(2_000, 1_000_000, 0.0, 3.0);
        let rate = run.rate(100, 1_000_000, 0.0, 3.0);
        assert!(rate < RATE_MIN * 1.1, "{rate} bytes a second when nobody writes");
    }

    #[test]
    fn without_callers_and_without_knowing_better_it_goes_on_as_it_was() {
        let mut run = Run::new();
        run.throttle = Throttle::default();
        let felt = Felt { calls: CALLS_MIN - 1, nanos: u64::MAX / 2 };
        run.throttle.note_felt(felt);
        let mut rate = |steps| {
            let start = run.now.nanos;
            for _ in 0..steps {
                run.now.nanos += run.throttle.wait_ns(run.now, STEP_BYTES, 2.0);
            }
            (steps * STEP_BYTES) as f64 / (run.now.nanos - start) as f64 * 1e9
        };
        rate(10);
        assert!((rate(100) - RATE_START).abs() < RATE_START / 20.0);
    }

    #[test]
    fn writers_wait_the_longer_the_more_is_dead() {
        const MIB: u64 = 1 << 20;
        let waits = |dead: u64, live: u64| behind_ns(dead * MIB, live * MIB, 64 * MIB) / 1_000_000;
        assert_eq!((waits(0, 0), waits(160, 0), waits(1_564, 1_000)), (0, 0, 0));
        assert_eq!((waits(2_064, 1_000), waits(2_564, 1_000), waits(9_000, 1_000)), (25, 50, 50));
        assert_eq!(waits(224, 10), 50);
    }

    #[test]
    fn what_is_saved_up_is_little() {
        let mut run = Run::new();
        run.now.nanos += 3_600_000_000_000;
        let steps = (0..1_000).take_while(|_| run.throttle.wait_ns(run.now, STEP_BYTES, 2.0) == 0).count();
        assert!(steps <= 3, "{steps} steps without a pause after an hour");
    }
}
