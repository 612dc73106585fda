//! Every call of the medium fails in turn, once and from then on: nothing acknowledged is lost, nothing refused comes
//! back changed, and nobody panics.
//!
//! The upkeep thread makes calls of its own, so the same number may meet another call in another run; every
//! number is tried, so every call has its turn: with `THERMOCLINE_SCALE=2` in every way and every kind of store.

mod support;

use std::thread;

use support::{Possible, at, damage, each, key, look, open, scale, small, tells_of_a_flush, value};
use thermocline_engine::{
    Durability, Engine, Error, Options,
    medium::{Fault, Faulty, Medium, Plan},
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert { key: u8, synced: bool },
    InsertMany { first: u8, count: u8, synced: bool },
    Remove(u8),
    Exchange { key: u8, remove: bool },
    Sync,
    Compact,
    Rest,
    Checkpoint,
    Hint,
    Close,
    Drop,
}

/// Overwrites, removes, exchanges, batches, a jumbo record, a segment that fills up, and every way to reopen.
fn script() -> Vec<Step> {
    use Step::*;
    let mut steps = vec![
        Insert { key: 0, synced: false },
        Insert { key: 1, synced: true },
        Insert { key: 0, synced: false },
        Remove(1),
        Exchange { key: 2, remove: false },
        Exchange { key: 0, remove: false },
        Sync,
        Insert { key: 3, synced: false },
        InsertMany { first: 4, count: 5, synced: false },
        Remove(4),
        Insert { key: 1, synced: true },
        InsertMany { first: 6, count: 5, synced: true },
        Exchange { key: 2, remove: true },
        Close,
        Insert { key: 0, synced: false },
        Insert { key: 20, synced: false },
        Remove(3),
        Sync,
        Insert { key: 21, synced: true },
        Checkpoint,
        Insert { key: 20, synced: false },
        Drop,
    ];
    // Two segments full: see `value`.
    steps.extend((0..9).map(|filler| Insert { key: 30 + filler % 7, synced: filler == 5 }));
    steps.extend([
        Remove(31),
        Compact,
        Insert { key: 8, synced: true },
        Sync,
        InsertMany { first: 30, count: 9, synced: false },
        Checkpoint,
        Exchange { key: 33, remove: false },
        Insert { key: 5, synced: true },
        Remove(5),
        Rest,
        Hint,
        Insert { key: 6, synced: true },
        Compact,
        Hint,
        Drop,
        Insert { key: 7, synced: false },
        Close,
        Insert { key: 40, synced: true },
        Insert { key: 0, synced: false },
        Sync,
    ]);
    steps
}

/// Versions that make some values large: see `value`.
fn version(step: usize) -> u64 {
    match step {
        22..31 => 58 + step as u64,
        35 => 77,
        _ => 100 + step as u64,
    }
}

struct Run {
    medium: Faulty,
    mapped: bool,
    options: Options,
    engine: Option<Engine>,
    possible: Possible,
    /// In this process a flush has failed.
    suspended: bool,
}

impl Run {
    fn new(mapped: bool, durability: Durability, plan: Option<Plan>) -> Self {
        let medium = Faulty::new(mapped);
        medium.plan(plan);
        let options = Options { durability, ..small() };
        Self { medium, mapped, options, engine: None, possible: Possible::default(), suspended: false }
    }

    /// Opens the store; a fault that strikes once is over at the second attempt.
    fn reopen(&mut self) {
        for _ in 0..3 {
            match open(&self.medium, &self.options) {
                Ok(engine) => {
                    (self.engine, self.suspended) = (Some(engine), false);
                    return;
                }
                Err(error) => self.note(&error),
            }
        }
    }

    fn note(&mut self, error: &Error) {
        assert!(error.to_string().contains("faulty"), "an error that names no file: {error}");
        self.suspended |= tells_of_a_flush(error);
    }

    /// What a write to `key` returned, and what it was to write.
    fn wrote(&mut self, key: u8, version: Option<u64>, result: Result<(), Error>) {
        match result {
            Ok(()) => {
                assert!(!self.suspended, "key {key} was written after a flush had failed");
                self.possible.is(key, version);
            }
            Err(error) => {
                self.note(&error);
                self.possible.may_be(key, version);
            }
        }
    }

    /// Reads a key whose write failed, and now and then another; only what is read by calls can fail.
    fn read(&mut self, key: u8, when: &str) {
        if self.possible.is_certain(key) && !key.is_multiple_of(4) {
            return;
        }
        let engine = self.engine.as_ref().expect("an open store");
        match look(engine, key) {
            Ok(version) => self.possible.saw(key, version, when),
            Err(error) => assert!(!self.mapped, "{when}: key {key}: {error}"),
        }
    }

    fn step(&mut self, index: usize, step: Step) {
        let engine = self.engine.as_ref().expect("an open store");
        let new = version(index);
        match step {
            Step::Insert { key: number, synced } => {
                let result = engine.insert(&key(number), &value(number, new), &at(synced));
                self.wrote(number, Some(new), result);
                self.read(number, "after an insert");
            }
            Step::InsertMany { first, count, synced } => {
                let pairs: Vec<_> = (first..first + count).map(|number| (key(number), value(number, new))).collect();
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
                let error = engine.insert_many(&pairs, &at(synced)).err();
                for number in first..first + count {
                    match &error {
                        None => self.wrote(number, Some(new), Ok(())),
                        Some(_) => self.possible.may_be(number, Some(new)),
                    }
                }
                error.iter().for_each(|error| self.note(error));
                (first..first + count).for_each(|number| self.read(number, "after a batch"));
            }
            Step::Remove(number) => {
                match engine.remove(&key(number)) {
                    // Nothing was there, so nothing was written.
                    Ok(false) => self.possible.saw(number, None, "remove says"),
                    Ok(true) => self.wrote(number, None, Ok(())),
                    Err(error) => self.wrote(number, None, Err(error)),
                }
                self.read(number, "after a remove");
            }
            Step::Exchange { key: number, remove } => {
                let Ok(found) = engine.peek(&key(number)) else { return assert!(!self.mapped, "a mapped read failed") };
                let expected = found.map(|value| value.sequence());
                let (new, bytes) = if remove { (None, None) } else { (Some(new), Some(value(number, new))) };
                match engine.compare_exchange(&key(number), expected, bytes.as_deref()) {
                    Ok(Ok(_)) if remove && expected.is_none() => {}
                    Ok(Ok(_)) => self.wrote(number, new, Ok(())),
                    Ok(Err(other)) => panic!("expected {expected:?} and found {other:?} with nobody else there"),
                    Err(error) => self.wrote(number, new, Err(error)),
                }
                self.read(number, "after an exchange");
            }
            Step::Sync => match engine.sync() {
                Ok(()) => assert!(!self.suspended, "sync after a flush had failed"),
                Err(error) => self.note(&error),
            },
            Step::Compact | Step::Checkpoint => {
                let done = match step {
                    Step::Compact => engine.compact().map(drop),
                    _ => engine.checkpoint().map(drop),
                };
                if let Err(error) = done {
                    assert!(error.to_string().contains("faulty"), "an error that names no file: {error}");
                    // A flush of copies that fails harms nobody else.
                    let synced = engine.sync();
                    synced.iter().for_each(|()| assert!(!self.suspended, "sync after a flush had failed"));
                    synced.err().iter().for_each(|error| self.note(error));
                }
            }
            Step::Rest => {
                let rested = engine.rest_now();
                rested.err().iter().for_each(|error| assert!(error.to_string().contains("faulty"), "{error}"));
            }
            Step::Hint => {
                if let Err(error) = engine.hint_now() {
                    assert!(error.to_string().contains("faulty"), "an error that names no file: {error}");
                    self.suspended |= tells_of_a_flush(&error);
                }
            }
            Step::Close => {
                let engine = self.engine.take().expect("an open store");
                match engine.close() {
                    Ok(()) => assert!(!self.suspended, "close after a flush had failed"),
                    Err(error) => self.note(&error),
                }
                self.reopen();
            }
            Step::Drop => {
                drop(self.engine.take());
                self.reopen();
            }
        }
    }

    fn script(&mut self) {
        self.reopen();
        for (index, step) in script().into_iter().enumerate() {
            if self.engine.is_none() {
                return;
            }
            self.step(index, step);
        }
    }

    /// What is left: in this process, for the next one, and for the one after a power cut.
    fn check(mut self, plan: Plan) {
        self.medium.plan(None);
        if let Some(engine) = &self.engine {
            self.possible.check(engine, "in the same process");
        }
        let killed = self.medium.after_kill();
        let engine = open(&killed, &self.options).expect("a store that a killed process left can be opened");
        self.possible.check(&engine, "after a kill");
        assert_eq!(damage(&engine), [""; 0], "after a kill");
        engine.sync().expect("a new process can flush");
        // A medium that went on failing may have failed a flush, and its note, where nobody was told: nobody can know then
        // what has to be written again.
        if !plan.lasting && plan.fault != Fault::Crash {
            let cut = open(&killed.after_power_cut(plan.call), &self.options).expect("a store after a power cut");
            self.possible.clone().check(&cut, "after a kill, reopening, a sync and a power cut");
            assert_eq!(damage(&cut), [""; 0], "after a kill, reopening, a sync and a power cut");
        }
        drop(self.engine.take());
        let engine = open(&self.medium, &self.options).expect("a store that was dropped can be opened");
        self.possible.check(&engine, "after dropping it");
    }
}

fn run(mapped: bool, durability: Durability) {
    let mut whole = Run::new(mapped, durability, None);
    whole.script();
    let calls = whole.medium.calls();
    assert!(calls > 80, "the script makes {calls} calls");
    whole.check(Plan { call: 0, lasting: false, fault: Fault::Fail });
    let faults =
        [(Fault::Fail, false), (Fault::Short, false), (Fault::Fail, true), (Fault::Short, true), (Fault::Crash, false)];
    // Unless more is asked for, each call fails once in a mapped store or in one that is not, by turns, whether or not its writes are
    // synced; and it goes wrong in one of the other ways in one of the four kinds.
    let (is_synced, others) = (u64::from(durability == Durability::Synced), faults.len() as u64 - 1);
    let is_due = |call: u64, way: usize| match way {
        _ if scale() > 1 => true,
        0 => call.is_multiple_of(2) == mapped,
        way => call % 4 == u64::from(mapped) + 2 * is_synced && call / 4 % others == way as u64 - 1,
    };
    // Other interleavings of the upkeep thread make a few more calls.
    let plans = (0..calls + 10).flat_map(|call| {
        let due = faults.into_iter().enumerate().filter(move |(way, _)| is_due(call, *way));
        due.map(move |(_, (fault, lasting))| Plan { call, lasting, fault })
    });
    each(plans, |plan| {
        let mut run = Run::new(mapped, durability, Some(plan));
        run.script();
        run.check(plan);
    });
}

#[test]
fn a_mapped_store_keeps_its_word_whichever_call_fails() {
    run(true, Durability::Buffered);
}

#[test]
fn an_unmapped_store_keeps_its_word_whichever_call_fails() {
    run(false, Durability::Buffered);
}

#[test]
fn a_mapped_store_that_syncs_every_write_keeps_its_word_whichever_call_fails() {
    run(true, Durability::Synced);
}

#[test]
fn an_unmapped_store_that_syncs_every_write_keeps_its_word_whichever_call_fails() {
    run(false, Durability::Synced);
}

/// Segments that could not be removed, or may come back, still count: removals of what is in them are not forgotten.
fn what_is_removed_stays_removed_whichever_call_of_a_compaction_fails(mapped: bool) {
    let fill = |engine: &Engine, version| {
        (10..20).for_each(|filler| engine.insert(&key(filler), &value(filler, version), &at(false)).unwrap());
    };
    each((0..120).flat_map(|call| [(call, true), (call, false)]), |(call, goes_on)| {
        let medium = Faulty::new(mapped);
        let engine = open(&medium, &small()).unwrap();
        // A value, and its removal in a later segment.
        engine.insert(&key(1), &value(1, 1), &at(false)).unwrap();
        fill(&engine, 80);
        assert!(engine.remove(&key(1)).unwrap());
        fill(&engine, 81);
        engine.sync().unwrap();
        medium.plan(Some(Plan { call, lasting: false, fault: Fault::Fail }));
        // The first with the value, then the others, until the removal is needed no more. Whatever they say.
        for number in [0].into_iter().chain((0..3).flat_map(|_| 0..6)) {
            if engine.compact_any(number).is_err() && !goes_on {
                break;
            }
        }
        medium.plan(None);
        for (number, left) in (0..8).map(|seed| medium.after_power_cut(seed)).chain([medium.after_kill()]).enumerate() {
            let engine = open(&left, &small()).unwrap();
            assert_eq!(look(&engine, 1).unwrap(), None, "image {number}");
            assert!((10..20).all(|filler| look(&engine, filler).unwrap() == Some(81)), "image {number}");
        }
        // What is removed after that stays so in the next process, and in one that knows nothing but the log.
        // Unless a flush of the log was what failed.
        let Ok(was_there) = engine.remove(&key(12)) else { return };
        assert!(was_there);
        if goes_on {
            let _ = engine.compact_any(call);
        }
        if engine.close().is_err() {
            return;
        }
        for snapshot in [true, false] {
            let left = medium.after_kill();
            if !snapshot && left.read("index").is_some() {
                left.remove("index").unwrap();
            }
            let engine = open(&left, &small()).unwrap();
            assert_eq!((look(&engine, 1).unwrap(), look(&engine, 12).unwrap()), (None, None), "snapshot: {snapshot}");
            assert_eq!(engine.len(), 9, "snapshot: {snapshot}");
        }
    });
}

#[test]
fn what_is_removed_stays_removed_whichever_call_of_a_mapped_compaction_fails() {
    what_is_removed_stays_removed_whichever_call_of_a_compaction_fails(true);
}

#[test]
fn what_is_removed_stays_removed_whichever_call_of_an_unmapped_compaction_fails() {
    what_is_removed_stays_removed_whichever_call_of_a_compaction_fails(false);
}

/// Writers who share writes and flushes, while a call goes wrong: what each was told holds, live and for the next process.
fn shared_writes_fail_alone(mapped: bool) {
    const WRITERS: u8 = 4;
    let plans = (0..40).flat_map(|call| {
        [Fault::Fail, Fault::Short]
            .into_iter()
            .flat_map(move |fault| [false, true].map(|lasting| Plan { call, lasting, fault }))
    });
    each(plans, |plan| {
        let medium = Faulty::new(mapped);
        let engine = open(&medium, &small()).unwrap();
        (0..WRITERS).for_each(|writer| engine.insert(&key(writer), &value(writer, 1), &at(true)).unwrap());
        medium.plan(Some(plan));
        let write = |writer: u8| -> Vec<_> {
            (2..12).map(|version| (version, engine.insert(&key(writer), &value(writer, version), &at(true)))).collect()
        };
        let told: Vec<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        medium.plan(None);
        let mut possible = Possible::default();
        for (writer, told) in (0..WRITERS).zip(told) {
            possible.is(writer, Some(1));
            for (version, result) in told {
                match result {
                    Ok(()) => possible.is(writer, Some(version)),
                    Err(error) if tells_of_a_flush(&error) => possible.may_be(writer, Some(version)),
                    Err(_) => {}
                }
            }
        }
        possible.check(&engine, "in the same process");
        let left = open(&medium.after_kill(), &small()).unwrap();
        possible.check(&left, "after a kill");
        assert_eq!(damage(&left), [""; 0], "after a kill");
    });
}

#[test]
fn writers_who_share_a_mapped_store_are_told_the_truth() {
    shared_writes_fail_alone(true);
}

#[test]
fn writers_who_share_an_unmapped_store_are_told_the_truth() {
    shared_writes_fail_alone(false);
}

/// A segment that was full before its last page, noted as flushed up to its end: opening notes another end, flushes that, and cuts the
/// file. If the flush fails the next process has to know.
fn an_opening_that_fails_leaves_no_damage(mapped: bool) {
    let full = Faulty::new(mapped);
    let engine = open(&full, &small()).unwrap();
    (0..4).for_each(|number| engine.insert(&key(number), &value(number, 1), &at(false)).unwrap());
    (4..9).for_each(|number| engine.insert(&key(number), &[7; 14_900], &at(false)).unwrap());
    engine.sync().unwrap();
    // Has the note flushed, too.
    engine.hint_now().unwrap();
    let full = full.after_kill();
    let opened = full.after_kill();
    opened.plan(None);
    drop(open(&opened, &small()).unwrap());
    each(0..opened.calls(), |call| {
        let medium = full.after_kill();
        medium.plan(Some(Plan { call, lasting: false, fault: Fault::Fail }));
        drop(open(&medium, &small()));
        medium.plan(None);
        let engine = open(&medium, &small()).unwrap();
        engine.sync().unwrap();
        for seed in 0..8 {
            let cut = open(&medium.after_power_cut(seed), &small()).unwrap();
            assert_eq!(damage(&cut), [""; 0], "image {seed}");
            assert!((0..4).all(|number| look(&cut, number).unwrap() == Some(1)), "image {seed}");
        }
    });
}

#[test]
fn an_opening_of_a_mapped_store_that_fails_leaves_no_damage() {
    an_opening_that_fails_leaves_no_damage(true);
}

#[test]
fn an_opening_of_an_unmapped_store_that_fails_leaves_no_damage() {
    an_opening_that_fails_leaves_no_damage(false);
}

/// An exchange of a key that was not there: told of an error the key may be there or not, and is read as before ever after, also when
/// the segment of what could not be committed is gone.
#[test]
fn an_exchange_that_fails_leaves_nothing_behind() {
    each((0..12).flat_map(|call| [(call, true), (call, false)]), |(call, mapped)| {
        let medium = Faulty::new(mapped);
        let engine = open(&medium, &small()).unwrap();
        engine.insert(&key(1), &value(1, 1), &at(true)).unwrap();
        medium.plan(Some(Plan { call, lasting: false, fault: Fault::Fail }));
        let exchanged = engine.compare_exchange(&key(2), None, Some(&value(2, 1)));
        medium.plan(None);
        let there = look(&engine, 2).unwrap();
        assert!(there == exchanged.is_ok().then_some(1), "{exchanged:?}, and then {there:?}");
        // Its segment goes, and others come in its place.
        for version in 80..84 {
            (10..20).for_each(|filler| engine.insert(&key(filler), &value(filler, version), &at(false)).unwrap());
            engine.compact().unwrap();
        }
        assert_eq!((look(&engine, 2).unwrap(), look(&engine, 1).unwrap()), (there, Some(1)));
        let left = open(&medium.after_kill(), &small()).unwrap();
        assert_eq!((look(&left, 2).unwrap(), look(&left, 1).unwrap()), (there, Some(1)));
        assert_eq!((damage(&engine), damage(&left)), (vec![], vec![]));
    });
}
