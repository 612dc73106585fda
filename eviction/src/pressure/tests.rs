use proptest::{collection::vec, prelude::*};

use super::*;
use crate::Stall;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn stalled(view: View, some_percent_avg10: f32) -> View {
    View { stall: Some(Stall { some_percent_avg10, full_percent_avg10: 0.0 }), ..view }
}

/// A machine, what others take of it, and a tier that fills whatever it is allowed.
struct Simulation {
    pressure: Pressure,
    total_bytes: u64,
    others_bytes: u64,
    resident_bytes: u64,
    /// What the tier would like to grow by in a round.
    inflow_bytes: u64,
    /// What was available in the last rounds, newest first; the last of them is what is seen.
    seen: Vec<u64>,
    evicted_bytes: u64,
    steps: u64,
}

impl Simulation {
    fn new(target_bytes: u64, total_bytes: u64, resident_bytes: u64, delay_rounds: usize) -> Self {
        Self {
            pressure: Pressure::new(target_bytes),
            total_bytes,
            others_bytes: 0,
            resident_bytes,
            inflow_bytes: 0,
            seen: vec![total_bytes - resident_bytes; delay_rounds + 1],
            evicted_bytes: 0,
            steps: 0,
        }
    }

    fn available_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.others_bytes).saturating_sub(self.resident_bytes)
    }

    fn round(&mut self) {
        self.seen.rotate_right(1);
        self.seen[0] = self.available_bytes();
        let view = View::new(self.total_bytes, *self.seen.last().unwrap());
        let verdict = self.pressure.decide(&view, self.resident_bytes);
        self.resident_bytes -= verdict.evict_bytes;
        self.evicted_bytes += verdict.evict_bytes;
        self.steps += u64::from(verdict.evict_bytes > 0);
        let allowance_bytes = verdict.allowance_bytes.unwrap();
        assert!(allowance_bytes >= self.resident_bytes);
        self.resident_bytes = (self.resident_bytes + self.inflow_bytes).min(allowance_bytes);
    }

    fn rounds(&mut self, count: usize) -> &mut Self {
        (0..count).for_each(|_| self.round());
        self
    }

    /// What leaves in the next rounds.
    fn evicted_in(&mut self, rounds: usize) -> u64 {
        let before = self.evicted_bytes;
        self.rounds(rounds).evicted_bytes - before
    }
}

#[test]
fn what_is_missing_is_given_up_in_capped_steps() {
    let mut pressure = Pressure::new(1000 * MIB);
    // 1050 MiB would be enough.
    let verdict = pressure.decide(&View::new(8 * GIB, 900 * MIB), 4 * GIB);
    assert_eq!(verdict, Verdict { evict_bytes: 150 * MIB, allowance_bytes: Some(4 * GIB - 150 * MIB) });
    assert_eq!(pressure.level(), Level::Tight);
    let verdict = Pressure::new(1000 * MIB).decide(&View::new(8 * GIB, 0), GIB);
    assert_eq!(verdict, Verdict { evict_bytes: GIB / 4, allowance_bytes: Some(GIB / 4 * 3) });
    let verdict = Pressure::new(1000 * MIB).decide(&View::new(8 * GIB, 0), MIB);
    assert_eq!(verdict, Verdict { evict_bytes: MIB, allowance_bytes: Some(0) });
}

#[test]
fn it_starts_below_the_target_and_ends_a_little_above() {
    let mut pressure = Pressure::new(100 * MIB);
    let mut decide = |available_mib| {
        let verdict = pressure.decide(&View::new(GIB, available_mib * MIB), 500 * MIB);
        (verdict.evict_bytes / MIB, pressure.level())
    };
    assert_eq!(decide(101), (0, Level::Near));
    assert_eq!(decide(99), (6, Level::Tight));
    // Five of the six have shown; the last is waited for, but not for ever.
    assert_eq!(decide(104), (0, Level::Tight));
    assert_eq!(decide(104), (0, Level::Tight));
    assert_eq!(decide(104), (2, Level::Tight));
    assert_eq!(decide(106), (0, Level::Near));
    assert_eq!(decide(101), (0, Level::Near));
    assert_eq!(decide(150), (0, Level::Calm));
}

#[test]
fn memory_that_comes_late_is_not_asked_for_twice() {
    let mut pressure = Pressure::new(100 * MIB);
    let mut decide = |available_mib| pressure.decide(&View::new(GIB, available_mib * MIB), 400 * MIB).evict_bytes / MIB;
    assert_eq!(decide(65), 40);
    assert_eq!(decide(65), 0);
    // Somebody took five more.
    assert_eq!(decide(60), 5);
    assert_eq!(decide(70), 0);
    // Most of it never came.
    assert_eq!(decide(70), 0);
    assert_eq!(decide(70), 35);
}

#[test]
fn one_wrong_figure_does_not_empty_the_tier() {
    let mut pressure = Pressure::new(GIB);
    assert_eq!(pressure.decide(&View::new(8 * GIB, 4 * GIB), 4 * GIB).evict_bytes, 0);
    assert_eq!(pressure.decide(&View::new(8 * GIB, 0), 4 * GIB).evict_bytes, GIB);
    let verdict = pressure.decide(&View::new(8 * GIB, 5 * GIB), 3 * GIB);
    assert_eq!(verdict.evict_bytes, 0);
    assert!(verdict.allowance_bytes > Some(3 * GIB));
}

#[test]
fn stalls_near_the_target_are_pressure_and_elsewhere_are_not() {
    let mut pressure = Pressure::new(GIB);
    assert_eq!(pressure.decide(&stalled(View::new(8 * GIB, 2 * GIB), 80.0), 4 * GIB).evict_bytes, 0);
    assert_eq!(pressure.level(), Level::Calm);
    let near = View::new(8 * GIB, GIB / 5 * 6);
    assert_eq!(pressure.decide(&stalled(near, 9.9), 4 * GIB).evict_bytes, 0);
    assert_eq!(pressure.level(), Level::Near);
    let verdict = pressure.decide(&stalled(near, 10.0), 4 * GIB);
    assert_eq!(verdict, Verdict { evict_bytes: GIB / 4, allowance_bytes: Some(4 * GIB - GIB / 4) });
    assert_eq!(pressure.level(), Level::Tight);
    // An average is slow to forget: the next step waits, and the tier does not grow.
    for _ in 0..9 {
        let verdict = pressure.decide(&stalled(near, 50.0), 3 * GIB);
        assert_eq!(verdict, Verdict { evict_bytes: 0, allowance_bytes: Some(3 * GIB) });
    }
    assert_eq!(pressure.decide(&stalled(near, 50.0), 3 * GIB).evict_bytes, 3 * GIB / 16);
    assert_eq!(pressure.decide(&stalled(near, 0.0), 2 * GIB).evict_bytes, 0);
    assert_eq!(pressure.level(), Level::Near);
}

#[test]
fn a_machine_that_cannot_be_seen_changes_nothing() {
    let mut pressure = Pressure::new(GIB);
    assert_eq!(pressure.decide(&View::UNKNOWN, GIB), Verdict { evict_bytes: 0, allowance_bytes: None });
    let bound = pressure.decide(&View::new(8 * GIB, 2 * GIB), GIB).allowance_bytes;
    assert!(bound.is_some());
    let unseen = stalled(View::UNKNOWN, 99.0);
    assert_eq!(pressure.decide(&unseen, 2 * GIB), Verdict { evict_bytes: 0, allowance_bytes: bound });
    assert_eq!(pressure.level(), Level::Unknown);
}

#[test]
fn without_a_target_there_is_neither_pressure_nor_a_bound() {
    let mut pressure = Pressure::new(0);
    assert_eq!(pressure.decide(&stalled(View::new(GIB, 0), 100.0), GIB), Verdict::default());
}

#[test]
fn after_pressure_the_tier_grows_again_slowly_at_first() {
    let mut simulation = Simulation::new(GIB, 16 * GIB, 8 * GIB, 1);
    simulation.inflow_bytes = GIB;
    simulation.others_bytes = 12 * GIB;
    simulation.rounds(30);
    assert!(simulation.resident_bytes < 3 * GIB);
    let pressed_bytes = simulation.resident_bytes;
    simulation.others_bytes = 0;
    // Two rounds until it is seen, then an eighth more each.
    assert!(simulation.rounds(4).resident_bytes < pressed_bytes * 3 / 2);
    assert!(simulation.rounds(60).resident_bytes > 14 * GIB);
}

#[test]
fn pressure_that_is_long_over_is_forgotten() {
    let mut pressure = Pressure::new(GIB);
    let mut allowance_bytes = |available_bytes, resident_bytes| {
        pressure.decide(&View::new(64 * GIB, available_bytes), resident_bytes).allowance_bytes.unwrap()
    };
    assert_eq!(allowance_bytes(0, 2 * GIB), 2 * GIB / 4 * 3);
    // At first it binds: an eighth more.
    assert_eq!(allowance_bytes(20 * GIB, GIB), GIB / 16 * 27);
    for _ in 0..20 {
        allowance_bytes(20 * GIB, GIB);
    }
    // A quarter of the room, and however little there was in between.
    let enough_bytes = GIB + GIB / 20;
    assert_eq!(allowance_bytes(2 * GIB, 0), (2 * GIB - enough_bytes) / 4);
    assert_eq!(allowance_bytes(40 * GIB, 0), (40 * GIB - enough_bytes) / 4);
}

#[test]
fn levels_have_words() {
    let words = [Level::Unknown, Level::Calm, Level::Near, Level::Tight].map(|level| level.to_string());
    assert_eq!(words, ["unknown", "calm", "near", "tight"]);
}

#[test]
fn public_types_are_send_sync_and_debug() {
    fn assert<T: Send + Sync + fmt::Debug>() {}
    assert::<Pressure>();
    assert::<Verdict>();
    assert::<Level>();
}

/// Numbers of all sizes, the ends of the scale often.
fn any_bytes() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), 0..64 * MIB, 0..64 * GIB, any::<u64>()]
}

fn any_view() -> impl Strategy<Value = View> {
    let stall = proptest::option::of((0.0_f32..=100.0, 0.0_f32..=100.0));
    (any_bytes(), any_bytes(), stall).prop_map(|(total_bytes, available_bytes, stall)| View {
        total_bytes,
        available_bytes,
        stall: stall.map(|(some_percent_avg10, full_percent_avg10)| Stall { some_percent_avg10, full_percent_avg10 }),
    })
}

proptest! {
    /// The caps, and no overflow, whatever is seen.
    #[test]
    fn a_step_is_never_larger_than_a_quarter(target in any_bytes(), rounds in vec((any_view(), any_bytes()), 1..50)) {
        let mut pressure = Pressure::new(target);
        for (view, resident) in rounds {
            let Verdict { evict_bytes, allowance_bytes } = pressure.decide(&view, resident);
            prop_assert!(evict_bytes <= resident);
            prop_assert!(evict_bytes <= (resident / 4).max(2 * MIB));
            prop_assert!(evict_bytes == 0 || evict_bytes >= resident.min(2 * MIB));
            prop_assert!(evict_bytes == 0 || pressure.level() == Level::Tight);
            prop_assert!(evict_bytes == 0 || allowance_bytes.is_some_and(|bytes| bytes <= resident - evict_bytes));
            if matches!(pressure.level(), Level::Calm | Level::Near) {
                prop_assert!(allowance_bytes.is_none_or(|bytes| bytes >= resident));
            }
        }
    }

    #[test]
    fn nothing_leaves_without_pressure(
        target in any_bytes(),
        rounds in vec((any_bytes(), any_bytes(), 0.0_f32..10.0), 1..50),
    ) {
        let mut pressure = Pressure::new(target);
        for (above, resident, percent) in rounds {
            let view = stalled(View::new(u64::MAX, target.saturating_add(above)), percent);
            let verdict = pressure.decide(&view, resident);
            prop_assert_eq!(verdict.evict_bytes, 0);
            prop_assert!(verdict.allowance_bytes.is_none_or(|bytes| bytes >= resident));
        }
    }

    /// From below: others hold so much that the target is not kept, and more figures are late or none.
    #[test]
    fn it_reaches_the_target_from_below_and_rests(
        target_mib in 64_u64..4096,
        resident_mib in 0_u64..16384,
        short_percent in 1_u64..=100,
        delay in 0_usize..=1,
        inflow_mib in prop_oneof![Just(0_u64), 0..1000_u64],
    ) {
        let (target, resident) = (target_mib * MIB, resident_mib * MIB);
        let mut simulation = Simulation::new(target, target + resident, resident, delay);
        simulation.inflow_bytes = inflow_mib * MIB;
        simulation.others_bytes = target * short_percent / 100;
        simulation.rounds(200);
        let floor = target.min(target + resident - simulation.others_bytes);
        prop_assert!(simulation.available_bytes() >= floor, "{} of {floor}", simulation.available_bytes());
        prop_assert!(simulation.resident_bytes == 0 || simulation.available_bytes() <= target + target / 20 + 3 * MIB
            || inflow_mib == 0);
        // Not more than needed: once for what was missing, and a region.
        prop_assert!(simulation.evicted_bytes <= simulation.others_bytes + target / 20 + 6 * MIB);
        prop_assert_eq!(simulation.evicted_in(200), 0);
    }

    /// From above: a tier that fills all it is allowed to stops before the target without giving anything up.
    #[test]
    fn it_comes_to_the_target_from_above_without_a_step(
        target_mib in 1_u64..4096,
        room_mib in 0_u64..65536,
        inflow_mib in 1_u64..4096,
        delay in 0_usize..=1,
    ) {
        let target = target_mib * MIB;
        let enough = target + target / 20;
        let mut simulation = Simulation::new(target, target + room_mib * MIB, 0, delay);
        // Enough to fill the room in a hundred rounds.
        simulation.inflow_bytes = (inflow_mib + room_mib / 100) * MIB;
        for _ in 0..300 {
            simulation.round();
            prop_assert!(simulation.available_bytes() >= simulation.total_bytes.min(enough));
        }
        prop_assert_eq!(simulation.evicted_bytes, 0);
        prop_assert!(simulation.available_bytes() <= enough + MIB);
    }

    /// Somebody takes and gives back memory; the figures are a round late. Each time it is taken, about that much
    /// leaves and no more, and in between nothing does.
    #[test]
    fn it_does_not_swing_while_others_take_and_give_back(
        swing_mib in 100_u64..6000,
        half_period in 1_usize..120,
        inflow_mib in 0_u64..2000,
    ) {
        let mut simulation = Simulation::new(GIB, 16 * GIB, 8 * GIB, 1);
        simulation.inflow_bytes = inflow_mib * MIB;
        simulation.rounds(100);
        let mut swings = 0;
        for round in 0..1200 {
            simulation.others_bytes = if round / half_period % 2 == 0 { swing_mib * MIB } else { 0 };
            swings += u64::from(round % (2 * half_period) == 0);
            simulation.round();
        }
        let most = swings * (swing_mib * MIB + GIB / 20 + 8 * MIB);
        prop_assert!(simulation.evicted_bytes <= most, "{} of {most}", simulation.evicted_bytes);
        simulation.others_bytes = 0;
        simulation.rounds(50);
        prop_assert_eq!(simulation.evicted_in(200), 0);
        prop_assert!(simulation.available_bytes() >= GIB);
    }
}
