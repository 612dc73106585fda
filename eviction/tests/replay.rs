//! Replays access traces through the policy alone: a memory that sweeps for victims as the engine does.
//!
//! `THERMOCLINE_TRACES` names a directory of traces and of what others reach on them; without it a made-up trace is replayed.

mod support;

use std::{collections::BTreeMap, env, path::Path};

use support::{CRATES, Trace, made_up, mix, peers, read, reduction};

use thermocline_eviction::{Aim, Frequent, History, LearnedSweep, Policy, Ticks, teachers};

/// Met for each victim, and kept of those that were met before.
const MET: usize = 8;
const CANDIDATES: usize = 12;
const NOWHERE: u32 = u32::MAX;

/// A memory that holds some of a trace's keys.
struct Memory<'a> {
    policy: &'a dyn Policy,
    trace: &'a Trace,
    by_size: bool,
    histories: Vec<History>,
    places: Vec<u32>,
    residents: Vec<u32>,
    vacant: Vec<u32>,
    hand: usize,
    /// The next-worst of those that the hand met, and the newest.
    candidates: Vec<u32>,
    used: u64,
}

impl Memory<'_> {
    fn size(&self, key: u32) -> u32 {
        if self.by_size { self.trace.sizes[key as usize] } else { 1 }
    }

    fn holds(&self, key: u32) -> bool {
        self.places[key as usize] != NOWHERE
    }

    fn count(&self) -> usize {
        self.residents.len() - self.vacant.len()
    }

    fn insert(&mut self, key: u32) {
        let place = self.vacant.pop().unwrap_or(self.residents.len() as u32);
        self.residents.resize(self.residents.len().max(place as usize + 1), NOWHERE);
        self.residents[place as usize] = key;
        self.places[key as usize] = place;
        self.used += u64::from(self.size(key));
    }

    fn remove(&mut self, key: u32) {
        let place = self.places[key as usize];
        self.residents[place as usize] = NOWHERE;
        self.vacant.push(place);
        self.places[key as usize] = NOWHERE;
        self.used -= u64::from(self.size(key));
    }

    fn evict(&mut self, now: u8) {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.retain(|key| self.holds(*key));
        let mut met = 0;
        while met < MET {
            self.hand = (self.hand + 1) % self.residents.len();
            let resident = self.residents[self.hand];
            if resident == NOWHERE {
                continue;
            }
            met += 1;
            if !candidates.contains(&resident) {
                candidates.push(resident);
            }
        }
        let worth = |key: &u32| self.policy.worth(self.histories[*key as usize], now, self.size(*key));
        candidates.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        let victim = candidates.pop().expect("there is a resident");
        self.candidates = candidates.split_off(candidates.len().saturating_sub(CANDIDATES));
        self.remove(victim);
    }
}

/// Hits: entries and bytes.
fn replay(policy: &dyn Policy, trace: &Trace, capacity: u64, by_size: bool) -> (u64, u64) {
    let mut memory = Memory {
        policy,
        trace,
        by_size,
        histories: vec![History::NEW; trace.keys],
        places: vec![NOWHERE; trace.keys],
        residents: Vec::new(),
        vacant: Vec::new(),
        hand: 0,
        candidates: Vec::new(),
        used: 0,
    };
    let mut entries = if by_size { 1 } else { capacity };
    let ticks = Ticks::new(entries);
    let (mut hits, mut hit_bytes) = (0, 0);
    for key in trace.ids.iter().copied() {
        let weight = memory.size(key);
        ticks.advance(1);
        let now = ticks.now();
        let before = memory.histories[key as usize];
        if before == History::NEW || before.tick() != now {
            let teaches = mix(key.into()).is_multiple_of(teachers(entries));
            memory.histories[key as usize] = policy.access(before, now, weight, teaches);
        }
        if policy.wants_to_learn() {
            policy.learn(now);
        }
        if memory.holds(key) {
            (hits, hit_bytes) = (hits + 1, hit_bytes + u64::from(weight));
            continue;
        }
        if u64::from(weight) > capacity {
            continue;
        }
        memory.insert(key);
        memory.candidates.push(key);
        while memory.used > capacity {
            memory.evict(now);
        }
        let fit = (u128::from(capacity) * memory.count() as u128 / u128::from(memory.used.max(1))) as u64;
        if by_size && fit.abs_diff(entries) > entries / 10 {
            entries = fit;
            ticks.resize(fit);
        }
    }
    (hits, hit_bytes)
}

fn replay_all(directory: &Path, only: Option<&str>) {
    let peers = peers(&directory.join("peers.tsv"));
    let mut means = BTreeMap::<String, Vec<f64>>::new();
    let mut traces = BTreeMap::new();
    for ((name, mode, fraction), (capacity, figures)) in &peers {
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let trace = traces.entry(name).or_insert_with(|| read(&directory.join(format!("{name}.tht.zst"))));
        let by_size = mode != "count";
        for aim in if by_size { &["hits", "bytes"][..] } else { &["hits"][..] } {
            let pick = |ratios: &(f64, f64)| if *aim == "bytes" { ratios.1 } else { ratios.0 };
            let policy = LearnedSweep::new(if *aim == "bytes" { Aim::Bytes } else { Aim::Hits });
            let (hits, hit_bytes) = replay(&policy, trace, *capacity, by_size);
            let total: u64 =
                if by_size { trace.ids.iter().map(|id| u64::from(trace.sizes[*id as usize])).sum() } else { 1 };
            let ratio =
                if *aim == "bytes" { hit_bytes as f64 / total as f64 } else { hits as f64 / trace.ids.len() as f64 };
            let fifo = pick(&figures["fifo"]);
            let best = CRATES.iter().filter_map(|name| figures.get(*name)).map(pick).fold(0.0, f64::max);
            let gain = reduction(ratio, fifo);
            let kind = if name.starts_with("syn") { "synthetic" } else { "real" };
            means.entry(format!("{kind} {mode} {aim}")).or_default().push(gain);
            println!(
                "{name:14} {mode:6} {aim:6} {fraction:6} {capacity:>12}  {:6.2} %  fifo {:6.2}  best crate {:6.2} ({:+.2})  {:+.1} %",
                100.0 * ratio,
                100.0 * fifo,
                100.0 * best,
                100.0 * (ratio - best),
                100.0 * gain,
            );
        }
    }
    let mean = |gains: &[f64]| 100.0 * gains.iter().sum::<f64>() / gains.len() as f64;
    let worst = |gains: &[f64]| 100.0 * gains.iter().copied().fold(1.0, f64::min);
    for (what, gains) in &means {
        println!("{what}: {} cells, mean {:+.2} %, worst {:+.2} %", gains.len(), mean(gains), worst(gains));
    }
    if only.is_none() {
        assert!(mean(&means["real count hits"]) > 9.0 && worst(&means["real count hits"]) > -2.0);
        assert!(mean(&means["real bytes hits"]) > 8.0);
    }
}

/// As if nothing were remembered: the oldest of those that are drawn leaves.
#[derive(Debug)]
struct Oldest;

impl Policy for Oldest {
    fn access(&self, before: History, now: u8, weight: u32, _teaches: bool) -> History {
        Frequent.access(before, now, weight, false)
    }

    fn worth(&self, history: History, now: u8, _weight: u32) -> f32 {
        -f32::from(now.wrapping_sub(history.tick()))
    }

    fn wants_to_learn(&self) -> bool {
        false
    }

    fn learn(&self, _now: u8) {}
}

#[test]
fn what_is_learnt_beats_age_and_frequency_alone() {
    let trace = made_up();
    let ratio = |policy: &dyn Policy| replay(policy, &trace, 400, false).0 as f64 / trace.ids.len() as f64;
    let (learned, frequent, oldest) = (ratio(&LearnedSweep::default()), ratio(&Frequent), ratio(&Oldest));
    println!("learned {learned:.3}, frequent {frequent:.3}, oldest {oldest:.3}");
    assert!(learned > frequent && frequent > oldest);
}

#[test]
fn the_same_accesses_teach_the_same() {
    let trace = made_up();
    let hits = || replay(&LearnedSweep::default(), &trace, 400, false);
    assert_eq!(hits(), hits());
}

#[test]
fn traces() {
    if let Ok(directory) = env::var("THERMOCLINE_TRACES") {
        replay_all(Path::new(&directory), env::var("THERMOCLINE_TRACE").ok().as_deref());
    }
}
