//! The learned sweep: how soon keys of like history come back, learnt from all keys, in memory or not.
//!
//! Holds counts of returns and of waiting by class and age, and the table of scores that follows from both. The score is a
//! Gittins index: the best ratio of expected hits to expected time in memory over all times to give up (Gittins 1979; for
//! caches: LHD, Beckmann and others, NSDI 2018). Never knows which keys there are: each that teaches is counted where it waits.
//! Invariant: a score is finite and not negative.

use std::sync::{
    LazyLock, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering::Relaxed},
};

use crate::{
    History, Policy,
    history::{AGES, count_of, interval_of},
};

/// All that a history says but its tick.
const CLASSES: usize = 256;
/// Ages are told apart one by one up to 8 ticks, then by quarter octaves.
const BUCKETS: usize = 28;
/// Ticks of the clock.
const TICKS: usize = 256;
/// The last bucket stands for this many ticks, so that keys that wait for long are not taken to be about to come.
const LAST_TICKS: f32 = 32.0;

/// Half a turn of the memory.
const STEP_TICKS: u8 = 10;
/// A step with fewer accesses teaches too little.
const LESSONS_MIN: u32 = 256;
/// So often are classes without evidence of their own scored anew, from what is known of wider ones.
const LESSONS_FOR_ALL: u32 = 8;
/// Evidence is believed less with every step.
const DECAY: f32 = 0.95;
/// So many returns weigh as much as what is believed of a wider class: of a group of classes, and of one.
const BELIEF_GROUP: f32 = 4.0;
const BELIEF: f32 = 2.0;
/// What is believed without evidence: keys come back at a rate that falls as this power of their age, and rises with their
/// count.
const AGE_POWER: f32 = 0.7;
const RATE_NEW: f32 = 0.3;
const RATE_KNOWN: f32 = 0.6;

/// What is to be hit as often as possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    /// Entries, whatever their size.
    #[default]
    Hits,
    /// Bytes.
    Bytes,
}

/// See the module.
#[derive(Debug)]
pub struct LearnedSweep {
    aim: Aim,
    /// By class and bucket, as the bits of floats.
    scores: Box<[AtomicU32]>,
    /// Returns since the last step, by class and bucket.
    returns: Box<[AtomicU32]>,
    /// Keys that wait, by class and the tick of their last access.
    waiting: Box<[AtomicI32]>,
    /// Classes that any key has waited in.
    known: Box<[AtomicBool]>,
    lessons: AtomicU32,
    learnt_at: AtomicU8,
    is_due: AtomicBool,
    evidence: Mutex<Evidence>,
}

/// Sums over the past, the older the less, by class and bucket; and how often something was learnt.
#[derive(Debug)]
struct Evidence {
    cells: Vec<Cell>,
    lesson: u32,
}

/// Returns at an age, and ticks that keys have waited there.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    returns: f32,
    waited: f32,
}

impl Cell {
    fn add(&mut self, other: Self) {
        self.returns += other.returns;
        self.waited += other.waited;
    }

    /// Returns per tick, shrunk towards a rate that is believed.
    fn rate(self, belief: f32, believed: f32) -> f32 {
        (self.returns + belief) / (self.waited + belief / believed)
    }
}

type Rates = [f32; BUCKETS];

/// See [`span`]; by bucket.
static SPANS: LazyLock<[(f32, f32); BUCKETS]> = LazyLock::new(|| std::array::from_fn(span));

/// How far the rate at which keys come back has fallen at each age: for new keys, and for others by their interval, not before
/// that is over. Raising to a power is most of the time that scores would take.
static FALL_NEW: LazyLock<Rates> = LazyLock::new(|| falling_after(0.0));
static FALL_KNOWN: LazyLock<[Rates; 32]> =
    LazyLock::new(|| std::array::from_fn(|interval| falling_after(2_f32.powf(interval as f32 / 4.0))));

fn falling_after(ticks: f32) -> Rates {
    std::array::from_fn(|bucket| (SPANS[bucket].1.max(ticks) + 1.0).powf(-AGE_POWER))
}

/// The scores without evidence, by class and bucket, which every sweep begins with.
static UNTAUGHT: LazyLock<Box<[f32]>> = LazyLock::new(|| {
    let evidence = Evidence::new();
    let sums = Sums::of(&evidence);
    (0..CLASSES).flat_map(|class| sums.scores(&evidence, class)).collect()
});

/// The bucket of each age.
const BUCKET_OF: [u8; TICKS] = bucket_table();

const fn bucket_table() -> [u8; TICKS] {
    let mut table = [0; TICKS];
    let mut age = 0;
    while age < TICKS {
        table[age] = if age < 8 {
            age as u8
        } else {
            let octave = age.ilog2() as usize;
            (8 + (octave - 3) * 4 + ((age * 4) >> octave) % 4) as u8
        };
        age += 1;
    }
    table
}

/// How many ticks a bucket has, and the middle one.
fn span(bucket: usize) -> (f32, f32) {
    let ages = (0..AGES as usize).filter(|age| BUCKET_OF[*age] as usize == bucket);
    let (count, sum) = ages.fold((0.0, 0.0), |(count, sum), age| (count + 1.0, sum + age as f32));
    (if bucket + 1 == BUCKETS { LAST_TICKS } else { count }, sum / count)
}

impl Default for LearnedSweep {
    fn default() -> Self {
        Self::new(Aim::default())
    }
}

impl LearnedSweep {
    /// Without evidence yet.
    pub fn new(aim: Aim) -> Self {
        Self {
            aim,
            scores: UNTAUGHT.iter().map(|score| AtomicU32::new(score.to_bits())).collect(),
            returns: bytemuck::zeroed_slice_box(CLASSES * BUCKETS),
            waiting: bytemuck::zeroed_slice_box(CLASSES * TICKS),
            known: bytemuck::zeroed_slice_box(CLASSES),
            lessons: AtomicU32::new(0),
            learnt_at: AtomicU8::new(0),
            is_due: AtomicBool::new(false),
            evidence: Mutex::new(Evidence::new()),
        }
    }

    fn score(&self, evidence: &Evidence) {
        let sums = Sums::of(evidence);
        let all = evidence.lesson.is_multiple_of(LESSONS_FOR_ALL);
        for class in (0..CLASSES).filter(|class| all || self.known[*class].load(Relaxed)) {
            for (bucket, score) in sums.scores(evidence, class).into_iter().enumerate() {
                self.scores[class * BUCKETS + bucket].store(score.to_bits(), Relaxed);
            }
        }
    }
}

impl Evidence {
    fn new() -> Self {
        Self { cells: vec![Cell::default(); CLASSES * BUCKETS], lesson: 0 }
    }

    fn of_class(&self, class: usize) -> &[Cell] {
        &self.cells[class * BUCKETS..][..BUCKETS]
    }
}

/// Evidence of wider classes.
struct Sums {
    all: [Cell; BUCKETS],
    new: [Cell; BUCKETS],
    by_octave: [[Cell; BUCKETS]; 8],
}

impl Sums {
    fn of(evidence: &Evidence) -> Self {
        let empty = [Cell::default(); BUCKETS];
        let mut sums = Self { all: empty, new: empty, by_octave: [empty; 8] };
        for class in 0..CLASSES {
            for (bucket, cell) in evidence.of_class(class).iter().copied().enumerate() {
                sums.all[bucket].add(cell);
                match count_of(class as u8) {
                    0 => {}
                    1 => sums.new[bucket].add(cell),
                    _ => sums.by_octave[interval_of(class as u8) as usize / 4][bucket].add(cell),
                }
            }
        }
        sums
    }

    /// What each age of a class is worth.
    fn scores(&self, evidence: &Evidence, class: usize) -> Rates {
        gittins(&self.rates(evidence.of_class(class), class))
    }

    /// At which rate the keys of a class come back at each age.
    fn rates(&self, own: &[Cell], class: usize) -> Rates {
        let (count, interval) = (count_of(class as u8), interval_of(class as u8));
        std::array::from_fn(|bucket| {
            let own = own[bucket];
            if count > 1 {
                let believed = RATE_KNOWN * f32::from(count - 1) * FALL_KNOWN[interval as usize][bucket];
                let group = self.by_octave[interval as usize / 4][bucket];
                return own.rate(BELIEF, group.rate(BELIEF_GROUP, believed));
            }
            let believed = RATE_NEW * FALL_NEW[bucket];
            let all = self.all[bucket].rate(BELIEF_GROUP, believed);
            let new = self.new[bucket].rate(BELIEF_GROUP, all.min(believed));
            if count == 0 { new / 2.0 } else { own.rate(BELIEF, new) }
        })
    }
}

/// The best ratio of hits to time from each age on, over all later ages to give up at.
fn gittins(rates: &Rates) -> Rates {
    let mut scores = [0.0; BUCKETS];
    // Hits and time of a key from each age to the next, as seen from the first.
    let mut waits = 1.0_f32;
    let steps: [(f32, f32); BUCKETS] = std::array::from_fn(|bucket| {
        let due = rates[bucket] * SPANS[bucket].0;
        let hits = waits * due / (1.0 + due);
        waits = (waits - hits).max(1e-20);
        (hits, (hits / rates[bucket]).max(1e-30))
    });
    // From the last age back: stretches are joined while the later one is the better.
    let (mut stretches, mut count) = ([(0.0, 0.0); BUCKETS], 0);
    for bucket in (0..BUCKETS).rev() {
        let (mut hits, mut time) = steps[bucket];
        while count > 0 && stretches[count - 1].0 * time > hits * stretches[count - 1].1 {
            count -= 1;
            (hits, time) = (hits + stretches[count].0, time + stretches[count].1);
        }
        stretches[count] = (hits, time);
        count += 1;
        scores[bucket] = hits / time;
    }
    scores
}

impl Policy for LearnedSweep {
    fn access(&self, before: History, now: u8, weight: u32, teaches: bool) -> History {
        let after = before.accessed(now, weight);
        // Relaxed, all of them: counts, of which one more or less does not matter.
        if teaches {
            if before != History::NEW {
                let class = usize::from(before.class());
                let bucket = usize::from(BUCKET_OF[usize::from(before.age(now))]);
                self.returns[class * BUCKETS + bucket].fetch_add(1, Relaxed);
                self.waiting[class * TICKS + usize::from(before.tick())].fetch_sub(1, Relaxed);
            }
            self.waiting[usize::from(after.class()) * TICKS + usize::from(now)].fetch_add(1, Relaxed);
            let known = &self.known[usize::from(after.class())];
            if !known.load(Relaxed) {
                known.store(true, Relaxed);
            }
            let lessons = self.lessons.fetch_add(1, Relaxed);
            if lessons >= LESSONS_MIN && now.wrapping_sub(self.learnt_at.load(Relaxed)) >= STEP_TICKS {
                self.is_due.store(true, Relaxed);
            }
        }
        after
    }

    fn worth(&self, history: History, now: u8, weight: u32) -> f32 {
        let bucket = usize::from(BUCKET_OF[usize::from(history.age(now))]);
        let score = f32::from_bits(self.scores[usize::from(history.class()) * BUCKETS + bucket].load(Relaxed));
        match self.aim {
            Aim::Hits => score / weight.max(1) as f32,
            Aim::Bytes => score,
        }
    }

    fn wants_to_learn(&self) -> bool {
        self.is_due.load(Relaxed)
    }

    fn learn(&self, now: u8) {
        let mut evidence = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        let ticks = f32::from(now.wrapping_sub(self.learnt_at.swap(now, Relaxed)));
        self.is_due.store(false, Relaxed);
        self.lessons.store(0, Relaxed);
        let decay = DECAY.powf(ticks / f32::from(STEP_TICKS));
        for (class, cells) in evidence.cells.chunks_exact_mut(BUCKETS).enumerate() {
            if !self.known[class].load(Relaxed) {
                continue;
            }
            let waiting = self.waiting_of(class, now);
            for (bucket, cell) in cells.iter_mut().enumerate() {
                let returns = self.returns[class * BUCKETS + bucket].swap(0, Relaxed) as f32;
                cell.returns = cell.returns * decay + returns;
                // As if those that wait now had waited all the while.
                cell.waited = cell.waited * decay + waiting[bucket] * ticks;
            }
        }
        evidence.lesson += 1;
        self.score(&evidence);
    }
}

impl LearnedSweep {
    /// How many keys of a class wait at each age. Those that have become too old for the clock wait no more.
    fn waiting_of(&self, class: usize, now: u8) -> Rates {
        let mut waiting = [0.0; BUCKETS];
        for (tick, count) in self.waiting[class * TICKS..][..TICKS].iter().enumerate() {
            let (keys, age) = (count.load(Relaxed), usize::from(now.wrapping_sub(tick as u8)));
            if keys == 0 {
                continue;
            }
            if keys > 0 && age < usize::from(AGES) {
                waiting[usize::from(BUCKET_OF[age])] += keys as f32;
            } else {
                // Fewer than none: keys too old for the clock that came back were taken for others.
                count.store(0, Relaxed);
            }
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key that comes every other tick, and many that come once.
    fn taught() -> (LearnedSweep, History, History) {
        let sweep = LearnedSweep::default();
        let mut often = History::NEW;
        let mut once = History::NEW;
        for tick in 0..200_u8 {
            if tick % 2 == 0 {
                often = sweep.access(often, tick, 100, true);
            }
            for _ in 0..50 {
                once = sweep.access(History::NEW, tick, 100, true);
            }
            if sweep.wants_to_learn() {
                sweep.learn(tick);
            }
        }
        (sweep, often, once)
    }

    #[test]
    fn a_key_that_comes_often_is_worth_more_than_one_that_came_once() {
        let (sweep, often, once) = taught();
        for age in [0, 1, 2, 5] {
            assert!(sweep.worth(often, 199 + age, 100) > sweep.worth(once, 199 + age, 100));
        }
        assert!(sweep.worth(often, 199, 100) > sweep.worth(often, 199, 200), "what is small is worth more by the byte");
    }

    #[test]
    fn the_same_accesses_teach_the_same() {
        let ((one, often, _), (other, ..)) = (taught(), taught());
        assert_eq!(one.worth(often, 210, 1), other.worth(often, 210, 1));
    }

    #[test]
    fn to_give_up_late_pays_when_the_returns_are_late() {
        let mut rates = [0.001; BUCKETS];
        rates[5] = 10.0;
        let scores = gittins(&rates);
        assert!(scores[..=5].is_sorted() && scores[5] > scores[0] && scores[0] > 10.0 * scores[6]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
        #[test]
        fn a_score_is_finite_whatever_happens(
            accesses in proptest::collection::vec((any::<u16>(), any::<u8>(), any::<u32>(), any::<bool>()), 1..600),
        ) {
            for aim in [Aim::Hits, Aim::Bytes] {
                let sweep = LearnedSweep::new(aim);
                for (number, (bits, now, weight, teaches)) in accesses.iter().enumerate() {
                    let history = sweep.access(History::from_bits(*bits), *now, *weight, *teaches);
                    if number % 50 == 0 {
                        sweep.learn(*now);
                    }
                    for weight in [0, 1, *weight, u32::MAX] {
                        let worth = sweep.worth(history, *now, weight);
                        prop_assert!(worth.is_finite() && worth >= 0.0, "{}", worth);
                    }
                }
            }
        }
    }
}
