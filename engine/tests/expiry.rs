//! Segments in which everything has expired go without being read, and nothing older comes back in the place of what was in them:
//! whatever took whose place, whoever is killed meanwhile, and wherever the wall clock stands afterwards.

mod support;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use support::{Random, START_MS, advance, clock, damage, each, key, look, open, seeds, small_at, value, version_of};
use thermocline_engine::{
    Attributes, Engine, Options,
    medium::{Fault, Faulty, Medium, Plan},
};

const HOUR_MS: u64 = 3_600_000;
/// Five of them and the beginning of another one fill a segment, beside one small entry.
const FILLER: [u8; 12_000] = [7; 12_000];
const LAST_BYTES: usize = 5_056;

fn living(ms: u64) -> Attributes {
    if ms == 0 { Attributes::new() } else { Attributes::new().ttl(Duration::from_millis(ms)) }
}

/// Six entries that fill a segment.
fn fill(engine: &Engine, name: &str, ttl_ms: u64) {
    for number in 0..6 {
        let bytes = if number < 5 { &FILLER[..] } else { &FILLER[..LAST_BYTES] };
        engine.insert(format!("{name:12} {number}").as_bytes(), bytes, &living(ttl_ms)).unwrap();
    }
}

/// A small entry.
fn write(engine: &Engine, number: u8, version: u8, ttl_ms: u64) {
    engine.insert(&key(number), &[version; 16], &living(ttl_ms)).unwrap();
}

fn written(engine: &Engine, number: u8) -> Option<u8> {
    engine.get(&key(number)).unwrap().map(|bytes| bytes[0])
}

/// Everything that a reader can ask of a key says that it is gone.
fn assert_gone(engine: &Engine, number: u8, when: &str) {
    assert_eq!(written(engine, number), None, "{when}");
    assert!(!engine.contains_key(&key(number)).unwrap(), "{when}");
    assert!(engine.keys().all(|found| found.unwrap() != key(number)), "{when}");
}

#[test]
fn what_has_expired_as_a_whole_goes_unread_with_its_keys_and_is_counted_once() {
    for (mapped, memory_capacity) in [(true, 0), (true, 1 << 20), (false, 0), (false, 1 << 20)] {
        let (medium, now) = (Faulty::new(mapped), clock());
        let options = Options { memory_capacity, hint_after: u64::MAX, ..small_at(&now) };
        let engine = open(&medium, &options).unwrap();
        engine.insert(&key(1), &value(1, 1), &living(0)).unwrap();
        (0..100).for_each(|round| fill(&engine, &format!("short {round}"), 1_000));
        engine.insert(&key(2), &value(2, 1), &living(0)).unwrap();
        let (keys, before) = (engine.len(), engine.stats());
        assert_eq!(engine.drop_expired_now().unwrap().segments, 0);
        advance(&now, 1_000);
        medium.plan(None);
        let done = engine.drop_expired_now().unwrap();
        // The first one has a key that stays, and the last one may not be full.
        assert!(done.segments >= before.log.segments - 4, "{done:?} of {}", before.log.segments);
        assert_eq!((done.bytes_read, done.bytes_written), (0, 0));
        // A name and the directory for each, and the note of the time: before anybody hears of it, and for good. A segment to go on in
        // and its reserve may be made meanwhile.
        assert!(medium.calls() <= 2 * done.segments + 20, "{} calls for {done:?}", medium.calls());
        let after = engine.stats();
        assert_eq!((engine.len(), keys), (2, 602));
        assert_eq!(after.log.expired + engine.len_estimate(), keys);
        assert_eq!(after.evictions.expired + after.memory.entries, before.memory.entries);
        assert_eq!(after.log.expired, 6 * done.segments, "six of each");
        assert_eq!([look(&engine, 1).unwrap(), look(&engine, 2).unwrap()], [Some(1); 2]);
        engine.compact().unwrap();
        assert_eq!((engine.len_estimate(), engine.stats().log.expired), (2, 600));
        let live_bytes = engine.stats().log.live_bytes;
        let again = open(&medium.after_kill(), &options).unwrap();
        assert_eq!((again.len(), again.stats().log.live_bytes), (2, live_bytes));
        assert_eq!((damage(&engine), damage(&again)), (vec![], vec![]));
    }
}

#[test]
fn a_snapshot_knows_which_segments_have_expired() {
    let (medium, now) = (Faulty::new(true), clock());
    let engine = open(&medium, &small_at(&now)).unwrap();
    (0..20).for_each(|round| fill(&engine, &format!("short {round}"), 1_000));
    engine.insert(&key(1), &value(1, 1), &living(0)).unwrap();
    engine.close().unwrap();
    let engine = open(&medium, &small_at(&now)).unwrap();
    assert_eq!(engine.stats().recovery.records, 0, "nothing had to be read");
    advance(&now, 1_000);
    let (segments, done) = (engine.stats().log.segments, engine.drop_expired_now().unwrap());
    assert!(done.segments >= segments - 2, "{done:?} of {segments}");
    assert_eq!((engine.len(), look(&engine, 1).unwrap()), (1, Some(1)));
}

/// Has key 1 written so that each version is in a segment of its own, the last one with others that expire with it; lets all of that
/// go that can; and looks whether an older version comes back in the next process.
fn comes_back(versions: &[Option<u64>], dropped_first: Option<u64>) -> bool {
    let (medium, now) = (Faulty::new(true), clock());
    let options = Options { memory_capacity: 0, ..small_at(&now) };
    let engine = open(&medium, &options).unwrap();
    for (version, ttl_ms) in (1..).zip(versions) {
        match ttl_ms {
            Some(ttl_ms) => write(&engine, 1, version, *ttl_ms),
            None => assert!(engine.remove(&key(1)).unwrap()),
        }
        let is_last = usize::from(version) == versions.len();
        fill(&engine, &format!("beside {version}"), if is_last { 1_000 } else { 0 });
    }
    fill(&engine, "behind", 0);
    if let Some(number) = dropped_first {
        engine.compact_any(number).unwrap();
    }
    advance(&now, 1_000);
    assert_gone(&engine, 1, "it has expired");
    engine.drop_expired_now().unwrap();
    // What could not go as a whole goes by being copied in part; any other may go as well, before or after.
    let again = |medium: Faulty| open(&medium, &options).unwrap();
    let mut has_come_back = written(&again(medium.after_kill()), 1).is_some();
    for number in [versions.len() as u64 - 1, 0, 1] {
        engine.compact_any(number).unwrap();
        has_come_back |= written(&again(medium.after_kill()), 1).is_some();
    }
    has_come_back
}

#[test]
fn what_lives_longer_does_not_come_back_when_what_took_its_place_has_expired() {
    each([0, 1, 2, 3, 4], |dropped| {
        let dropped = Some(dropped).filter(|dropped| *dropped < 4);
        assert!(!comes_back(&[Some(0), Some(1_000)], dropped), "one that lasts");
        assert!(!comes_back(&[Some(HOUR_MS), Some(1_000)], dropped), "an hour");
        assert!(!comes_back(&[Some(0), Some(0), Some(1_000)], dropped), "two that last");
        assert!(!comes_back(&[Some(HOUR_MS), Some(2 * HOUR_MS), Some(1_000)], dropped), "an hour, two hours");
        assert!(!comes_back(&[Some(0), None, Some(1_000)], dropped), "one that was removed");
        assert!(!comes_back(&[Some(0), Some(500), Some(1_000)], dropped), "one behind another that has expired");
    });
}

#[test]
fn nor_when_a_snapshot_does_not_know_that_the_version_in_between_has_gone() {
    let (medium, now) = (Faulty::new(true), clock());
    let options = Options { memory_capacity: 0, ..small_at(&now) };
    let engine = open(&medium, &options).unwrap();
    for (version, ttl_ms, beside_ms) in [(1, HOUR_MS, 0), (2, 0, 0), (3, 1_000, 1_000)] {
        write(&engine, 1, version, ttl_ms);
        fill(&engine, &format!("beside {version}"), beside_ms);
    }
    fill(&engine, "behind", 0);
    assert!(engine.checkpoint().unwrap());
    // The second one's segment.
    assert_eq!(engine.compact_any(1).unwrap().segments, 1);
    let killed = medium.after_kill();
    let engine = open(&killed, &options).unwrap();
    advance(&now, 1_000);
    assert_gone(&engine, 1, "it has expired");
    engine.drop_expired_now().unwrap();
    engine.compact_any(1).unwrap();
    let left = killed.after_kill();
    left.remove("index").unwrap();
    assert_gone(&open(&left, &options).unwrap(), 1, "its segment has gone, and the snapshot");
}

#[test]
fn nor_when_that_is_in_the_segment_of_the_version_in_between() {
    let (medium, now) = (Faulty::new(true), clock());
    let options = Options { memory_capacity: 0, ..small_at(&now) };
    let engine = open(&medium, &options).unwrap();
    write(&engine, 1, 1, 0);
    fill(&engine, "beside", 0);
    write(&engine, 1, 2, 0);
    write(&engine, 1, 3, 1_000);
    (0..2).for_each(|round| fill(&engine, &format!("behind {round}"), 0));
    advance(&now, 1_000);
    assert_gone(&engine, 1, "it has expired");
    engine.compact_any(1).unwrap();
    assert_gone(&open(&medium.after_kill(), &options).unwrap(), 1, "its segment has gone");
}

#[test]
fn what_is_gone_with_its_deadline_stays_gone_when_power_and_clock_fail() {
    each(0..20, |seed| {
        let (medium, now) = (Faulty::new(true), clock());
        let options = Options { memory_capacity: 0, ..small_at(&now) };
        let engine = open(&medium, &options).unwrap();
        write(&engine, 1, 1, 1_000);
        fill(&engine, "beside", 0);
        write(&engine, 1, 2, 2_000);
        fill(&engine, "with it", 2_000);
        fill(&engine, "behind", 0);
        engine.sync().unwrap();
        advance(&now, 2_000);
        let done = engine.drop_expired_now().unwrap();
        assert!(done.segments == 1 && done.bytes_written == 0, "{done:?}");
        let left = medium.after_power_cut(seed);
        now.store(START_MS, Ordering::Relaxed);
        assert_gone(&open(&left, &options).unwrap(), 1, "the clock was set back");
    });
}

/// What the keys were written as last, and until when they live; and which were said to be gone, or are.
#[derive(Clone, Default)]
struct Known(BTreeMap<u8, (u64, u64, bool)>);

impl Known {
    /// A key has what was written last as long as that lives, nothing when it was told so once, and never anything older.
    fn check(&mut self, engine: &Engine, latest_ms: u64, when: &str) {
        for (number, (version, deadline_ms, is_gone)) in &mut self.0 {
            let found = look(engine, *number).unwrap_or_else(|error| panic!("{when}: key {number}: {error}"));
            let has_expired = *deadline_ms != 0 && *deadline_ms <= latest_ms;
            match found {
                None => assert!(*is_gone || has_expired, "{when}: key {number} is gone early"),
                Some(found) => assert!(!*is_gone && found == *version, "{when}: key {number} came back as {found}"),
            }
            *is_gone |= found.is_none();
        }
    }
}

/// Keys that live for ever or for some time, in whatever order, and segments that go in whatever order.
fn run(seed: u64) {
    let (mut random, mut medium, now) = (Random(seed), Faulty::new(seed.is_multiple_of(2)), clock());
    let options = Options { memory_capacity: [0, 64 << 10][(seed / 2 % 2) as usize], ..small_at(&now) };
    let (mut known, mut latest_ms) = (Known::default(), START_MS);
    let mut engine = open(&medium, &options).unwrap();
    for version in 1..70 {
        let number = random.below(6) as u8;
        match random.below(20) {
            0..9 => {
                let ttl_ms = [0, 0, 10, 100, 1_000][random.below(5) as usize];
                engine.insert(&key(number), &value(number, version * 100), &living(ttl_ms)).unwrap();
                let deadline_ms = if ttl_ms == 0 { 0 } else { latest_ms + ttl_ms };
                known.0.insert(number, (version * 100, deadline_ms, false));
            }
            9..10 => {
                engine.remove(&key(number)).unwrap();
                known.0.entry(number).or_default().2 = true;
            }
            10..14 => fill(&engine, &random.below(4).to_string(), [0, 10, 100, 1_000][random.below(4) as usize]),
            14..16 => {
                advance(&now, [1, 15, 150, 1_500][random.below(4) as usize]);
                latest_ms = latest_ms.max(now.load(Ordering::Relaxed));
            }
            16..17 => drop(engine.drop_expired_now().unwrap()),
            17..19 => drop(engine.compact_any(random.below(1 << 20)).unwrap()),
            _ => {
                let left = medium.after_kill();
                drop(std::mem::replace(&mut engine, open(&Faulty::new(true), &options).unwrap()));
                let is_set_back = random.one_in(2);
                now.store(if is_set_back { START_MS } else { latest_ms }, Ordering::Relaxed);
                engine = open(&left, &options).unwrap();
                medium = left;
                known.check(&engine, latest_ms, "after a kill");
                if is_set_back {
                    // What has expired and was not asked for may live again, but not for longer than it would have.
                    drop(engine);
                    latest_ms += 1_000;
                    now.store(latest_ms, Ordering::Relaxed);
                    medium = medium.after_kill();
                    engine = open(&medium, &options).unwrap();
                }
            }
        }
        if random.one_in(6) {
            known.check(&engine, latest_ms, "in between");
        }
    }
}

#[test]
fn nothing_older_comes_back_whatever_took_whose_place() {
    each(seeds(300), run);
}

/// Two segments that have expired, one that lasts; the process ends before any call of the medium, or that call fails.
fn drop_with(plan: Plan, mapped: bool) -> bool {
    let (medium, now) = (Faulty::new(mapped), clock());
    // Nobody else calls.
    let engine = open(&medium, &Options { hint_after: u64::MAX, ..small_at(&now) }).unwrap();
    write(&engine, 1, 1, 2_000);
    fill(&engine, "lasts", 0);
    write(&engine, 1, 2, 3_000);
    fill(&engine, "short", 3_000);
    write(&engine, 3, 1, 3_000);
    fill(&engine, "other", 3_000);
    write(&engine, 2, 1, 0);
    engine.sync().unwrap();
    advance(&now, 3_000);
    medium.plan(Some(plan));
    let done = engine.drop_expired_now();
    let has_failed = medium.calls() > plan.call;
    medium.plan(None);
    // A thread of the store's own may have met it.
    assert!(done.as_ref().map_or(has_failed, |done| done.segments == 2), "{done:?}");
    for (left, when) in [(medium.after_kill(), "a kill"), (medium.after_power_cut(plan.call), "a power cut")] {
        let engine = open(&left, &small_at(&now)).unwrap();
        assert_gone(&engine, 1, when);
        assert_eq!((written(&engine, 2), engine.len()), (Some(1), 7), "{when}");
        assert_eq!(damage(&engine), [""; 0], "{when}");
    }
    if plan.fault != Fault::Crash {
        // What failed is tried again, by copying what was left over.
        engine.compact().unwrap();
        assert_gone(&engine, 1, "after another try");
        assert_eq!((engine.len(), engine.len_estimate()), (7, 7));
        let engine = open(&medium.after_kill(), &small_at(&now)).unwrap();
        assert_eq!((engine.len(), engine.len_estimate()), (7, 7));
    }
    has_failed
}

#[test]
fn a_drop_that_ends_or_fails_before_any_call_loses_nothing_and_brings_nothing_back() {
    let faults = [(Fault::Crash, true), (Fault::Fail, false), (Fault::Fail, true)];
    let cases = faults.into_iter().flat_map(|fault| [true, false].map(|mapped| (fault, mapped)));
    each(cases, |((fault, lasting), mapped)| {
        let mut call = 0;
        while drop_with(Plan { call, lasting, fault }, mapped) {
            call += 1;
        }
        assert!(call >= 6, "only {call} calls");
    });
}

#[test]
fn readers_walks_and_writers_of_the_same_keys_do_not_notice_what_is_dropped() {
    const LASTING: u8 = 4;
    let (medium, now) = (Faulty::new(true), clock());
    let engine = open(&medium, &small_at(&now)).unwrap();
    (0..LASTING).for_each(|number| engine.insert(&key(number), &value(number, 1), &living(0)).unwrap());
    let (is_done, newest) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                (0..LASTING).for_each(|number| assert_eq!(look(&engine, number).unwrap(), Some(1)));
                let held: Vec<_> = engine.iter().map(Result::unwrap).collect();
                assert!(held.iter().filter(|(name, _)| name.starts_with(b"key")).count() >= usize::from(LASTING));
                // What somebody holds stays as it was, whatever goes.
                thread::yield_now();
                assert!(
                    held.iter().all(|(name, bytes)| name.starts_with(b"key") || bytes.iter().all(|byte| *byte == 7))
                );
            }
        });
        scope.spawn(|| {
            // Its time to live changes all the time; it never expires before it is written again.
            for version in 1..2_000_u64 {
                let ttl_ms = [0, HOUR_MS, 1 << 40][(version % 3) as usize];
                engine.insert(&key(100), &value(100, version * 100), &living(ttl_ms)).unwrap();
                newest.store(version * 100, Ordering::Relaxed);
                let found = engine.get(&key(100)).unwrap().expect("what was just written");
                assert_eq!(version_of(100, &found), version * 100);
            }
        });
        let mut dropped = 0;
        for round in 0..60 {
            fill(&engine, &format!("short {round}"), 10);
            advance(&now, 10);
            dropped += engine.drop_expired_now().unwrap().segments;
            if round % 16 == 0 {
                engine.compact().unwrap();
            }
        }
        assert!(dropped > 0, "nothing was dropped as a whole");
        is_done.store(true, Ordering::Relaxed);
    });
    assert_eq!(look(&engine, 100).unwrap(), Some(newest.load(Ordering::Relaxed)));
    engine.compact().unwrap();
    assert_eq!((engine.len(), engine.len_estimate()), (5, 5));
    assert_eq!(damage(&engine), [""; 0]);
}
