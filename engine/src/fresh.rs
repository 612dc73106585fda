//! Whether an entry is fresh, and for how long it will be: pure functions of numbers.
//!
//! Holds no clock and no randomness; both are arguments. Invariant: what is past its time is never called fresh, and what
//! is called stale early is so with a probability that grows with what it cost and with its age.

use std::time::Duration;

/// What is known of an entry's times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When it was written.
    pub created_ms: u64,
    /// When it expires; 0: never.
    pub deadline_ms: u64,
    /// After how long it is stale; 0: never.
    pub stale_after_ms: u64,
    /// How long it took to compute, in microseconds; 0: nobody knows.
    pub cost_us: u64,
}

/// When an entry is to be computed again before it has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Eager {
    /// How eagerly an entry is computed early: the beta of XFetch; 0: not at all, 1: as its paper has it.
    pub beta: f64,
    /// The part of its fresh time after which an entry that is asked for is refreshed ahead; 0: never.
    pub ahead: f64,
}

/// What an entry is at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Good.
    Fresh,
    /// Good, and worth a refresh behind.
    Ahead,
    /// Past its fresh time, or drawn to be computed early.
    Stale,
    /// Older than the caller takes.
    TooOld,
}

/// Judges an entry. `random` is drawn from 0 to 1.
#[inline]
pub fn judge(
    times: Times,
    now_ms: u64,
    max_age: Option<Duration>,
    eager: Eager,
    random: impl FnOnce() -> f64,
) -> Freshness {
    let age_ms = now_ms.saturating_sub(times.created_ms);
    // Of age zero too, if nothing is young enough.
    if max_age.is_some_and(|max_age| u128::from(age_ms) >= max_age.as_millis()) {
        return Freshness::TooOld;
    }
    if times.stale_after_ms != 0 && age_ms >= times.stale_after_ms {
        return Freshness::Stale;
    }
    let lives_ms = match (times.stale_after_ms, times.deadline_ms) {
        (0, 0) => return Freshness::Fresh,
        (0, deadline_ms) => deadline_ms.saturating_sub(times.created_ms),
        (stale_after_ms, _) => stale_after_ms,
    };
    let left_ms = lives_ms.saturating_sub(age_ms) as f64;
    // XFetch: a value that is asked for often is computed once, about as long before its end as that takes.
    if eager.beta > 0.0
        && times.cost_us as f64 / 1_000.0 * eager.beta * -random().max(f64::MIN_POSITIVE).ln() >= left_ms
    {
        return Freshness::Stale;
    }
    if eager.ahead > 0.0 && age_ms as f64 >= lives_ms as f64 * eager.ahead {
        Freshness::Ahead
    } else {
        Freshness::Fresh
    }
}

/// `lives`, shortened by up to the part `jitter` of it, so that what was written together does not end together.
pub fn jittered(lives: Duration, jitter: f64, random: f64) -> Duration {
    if jitter == 0.0 {
        return lives;
    }
    let part = 1.0 - (jitter * random).clamp(0.0, 1.0);
    // As a float the longest time is longer than itself.
    let shortened = Duration::try_from_secs_f64(lives.as_secs_f64() * part).unwrap_or(lives);
    shortened.max(Duration::from_millis(1)).min(lives)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(age_ms: u64, times: Times, max_age_ms: Option<u64>, eager: Eager, random: f64) -> Freshness {
        let times = Times { created_ms: 1_000, ..times };
        judge(times, 1_000 + age_ms, max_age_ms.map(Duration::from_millis), eager, || random)
    }

    /// Idea 30: a caller's own bound is stricter, looser, zero, or absent.
    #[test]
    fn the_stricter_bound_counts() {
        let times = Times { stale_after_ms: 100, ..Times::default() };
        let plain = |age_ms, max_age_ms| at(age_ms, times, max_age_ms, Eager::default(), 0.5);
        assert_eq!(plain(99, None), Freshness::Fresh);
        assert_eq!(plain(100, None), Freshness::Stale);
        assert_eq!(plain(60, Some(50)), Freshness::TooOld);
        assert_eq!(plain(40, Some(50)), Freshness::Fresh);
        assert_eq!(plain(150, Some(200)), Freshness::Stale);
        assert_eq!(plain(0, Some(0)), Freshness::TooOld);
        assert_eq!(at(u64::MAX / 2, Times::default(), None, Eager::default(), 0.5), Freshness::Fresh);
    }

    #[test]
    fn what_costs_much_is_computed_early_and_by_few() {
        let eager = Eager { beta: 1.0, ahead: 0.0 };
        let times = |cost_us| Times { stale_after_ms: 1_000, cost_us, ..Times::default() };
        let share = |age_ms, cost_us| {
            let draws = (1..1_000).map(|draw| f64::from(draw) / 1_000.0);
            draws.filter(|random| at(age_ms, times(cost_us), None, eager, *random) == Freshness::Stale).count()
        };
        assert_eq!(share(500, 1_000), 0, "half a second before its end, for what takes a millisecond");
        assert!((300..450).contains(&share(900, 100_000)), "about one in e, as long before as it takes");
        assert!(share(990, 100_000) > share(900, 100_000));
        assert_eq!(share(999, 0), 0, "what cost nothing can wait");
    }

    #[test]
    fn what_is_asked_for_late_in_its_life_is_refreshed_ahead() {
        let eager = Eager { beta: 0.0, ahead: 0.8 };
        let times = Times { deadline_ms: 2_000, ..Times::default() };
        assert_eq!(at(799, times, None, eager, 0.5), Freshness::Fresh);
        assert_eq!(at(800, times, None, eager, 0.5), Freshness::Ahead);
    }

    #[test]
    fn jitter_shortens_and_never_to_nothing() {
        let day = Duration::from_secs(86_400);
        assert_eq!(jittered(day, 0.0, 0.9), day);
        assert_eq!(jittered(day, 0.5, 1.0), day / 2);
        assert_eq!(jittered(day, 1.0, 1.0), Duration::from_millis(1));
        assert_eq!(jittered(Duration::from_micros(5), 1.0, 1.0), Duration::from_micros(5));
        assert_eq!(jittered(Duration::MAX, 0.0, 0.0), Duration::MAX);
        assert_eq!(jittered(Duration::MAX, 0.5, 0.0), Duration::MAX);
    }
}
