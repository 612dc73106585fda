//! `kill -9`: a child process works on a store and tells what was acknowledged; it is killed after a random number of
//! steps or while it opens the store, and everything it told is there.
//!
//! What a thread of the child does follows from the seed, so that its last acknowledged step says what must be there,
//! and the step behind it what may be.

mod support;

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use support::{Random, proven, scale, value};
use thermocline::{Attributes, Durability, Store};

const THREADS: u64 = 3;
const KEYS: u64 = 12;
const CHILD: &str = "THERMOCLINE_TEST_CHILD";

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    InsertSynced(u64),
    InsertMany(Vec<u64>),
    Remove(u64),
    Exchange(u64),
    Sync,
    Compact,
}

/// What `thread` does as its `step`th operation.
fn op(seed: u64, thread: u64, step: u64) -> Op {
    let mut random = Random(seed << 40 | thread << 32 | step);
    let key = random.below(KEYS);
    match random.below(61) {
        0..30 => Op::Insert(key),
        30..31 => Op::InsertSynced(key),
        31..37 => Op::InsertMany((key..KEYS).take(4).collect()),
        37..47 => Op::Remove(key),
        47..59 => Op::Exchange(key),
        59 => Op::Sync,
        _ => Op::Compact,
    }
}

fn key(thread: u64, number: u64) -> String {
    format!("thread {thread} key {number}")
}

fn version(seed: u64, step: u64) -> u64 {
    seed << 32 | step
}

fn open(dir: &Path, mapped: bool) -> Store {
    Store::builder().segment_bytes(64 << 10).mapped(mapped).open(dir).expect("a store that a killed process left")
}

fn apply(store: &Store, seed: u64, thread: u64, step: u64) -> thermocline::Result<()> {
    let new = |number: &u64| {
        let key = key(thread, *number);
        let value = value(&key, version(seed, step));
        (key, value)
    };
    match op(seed, thread, step) {
        Op::Insert(number) => store.insert(key(thread, number), new(&number).1),
        Op::InsertSynced(number) => {
            let synced = Attributes::new().durability(Durability::Synced);
            store.insert_with(key(thread, number), new(&number).1, &synced)
        }
        Op::InsertMany(numbers) => store.insert_many(numbers.iter().map(new)),
        Op::Remove(number) => store.remove(key(thread, number)).map(drop),
        Op::Exchange(number) => {
            let now = store.peek(key(thread, number))?.map(|value| value.sequence());
            let won = store.compare_exchange(key(thread, number), now, Some(new(&number).1))?;
            assert!(won.is_ok(), "nobody else writes this key");
            Ok(())
        }
        Op::Sync => store.sync(),
        Op::Compact => store.compact().map(drop),
    }
}

/// Adds one to the counter that all threads share.
fn count(store: &Store) -> thermocline::Result<u64> {
    loop {
        let now = store.get("counter")?;
        let number = now.as_ref().map_or(0, |value| u64::from_le_bytes(*value.first_chunk().expect("a counter")));
        let next = (number + 1).to_le_bytes();
        if store.compare_exchange("counter", now.map(|value| value.sequence()), Some(next))?.is_ok() {
            return Ok(number + 1);
        }
    }
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("a parent that listens");
}

/// Runs only as the child of the tests below.
#[test]
fn child() {
    let Ok(task) = env::var(CHILD) else { return };
    let words: Vec<_> = task.splitn(4, ' ').collect();
    let (seed, mapped, works) = (words[0].parse().unwrap(), words[1] == "mapped", words[2] == "works");
    let dir = Path::new(words[3]);
    tell("\nopening\n");
    if !works {
        loop {
            drop(open(dir, mapped));
        }
    }
    let store = open(dir, mapped);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for step in 0.. {
                    apply(store, seed, thread, step).unwrap();
                    tell(&format!("done {thread} {step}\n"));
                    if step % 8 == 0 {
                        tell(&format!("counted {}\n", count(store).unwrap()));
                    }
                }
            });
        }
    });
}

/// What a killed child had told.
#[derive(Debug, Default)]
struct Told {
    /// How many steps each thread had acknowledged.
    steps: BTreeMap<u64, u64>,
    counted: u64,
}

/// Receives when the child begins to open the store, and for each step that it acknowledges.
fn hear(child: &mut Child) -> (mpsc::Receiver<()>, thread::JoinHandle<Told>) {
    let (began, begun) = mpsc::channel();
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let reader = thread::spawn(move || {
        let mut told = Told::default();
        for line in lines.map_while(Result::ok) {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["opening"] => began.send(()).unwrap_or_default(),
                // A line that the kill cut short is no acknowledgement, but it was one: the call had returned.
                ["done", thread, step] => {
                    began.send(()).unwrap_or_default();
                    if let (Ok(thread), Ok(step)) = (thread.parse(), step.parse::<u64>()) {
                        let steps = told.steps.entry(thread).or_insert(0);
                        *steps = (*steps).max(step + 1);
                    }
                }
                ["counted", number] => told.counted = told.counted.max(number.parse().unwrap_or(0)),
                _ => {}
            }
        }
        told
    });
    (begun, reader)
}

/// Starts a child, kills it a while `after` it acknowledged so many `steps`, and returns what it had told.
///
/// A child that shall do no step only opens the store, over and over.
fn kill_one(dir: &Path, seed: u64, mapped: bool, steps: u64, after: Duration) -> Told {
    let mode = (if mapped { "mapped" } else { "unmapped" }, if steps > 0 { "works" } else { "opens" });
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{seed} {} {} {}", mode.0, mode.1, dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let (begun, reader) = hear(&mut child);
    for _ in 0..=steps {
        begun.recv_timeout(Duration::from_secs(60)).expect("a child that works");
    }
    thread::sleep(after);
    let died = child.try_wait().unwrap();
    assert!(died.is_none(), "the child ended by itself: {died:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

type Model = BTreeMap<String, Option<u64>>;

/// What a step makes of the keys that it writes.
fn effects(seed: u64, thread: u64, step: u64) -> Vec<(String, Option<u64>)> {
    let new = Some(version(seed, step));
    match op(seed, thread, step) {
        Op::Insert(number) | Op::InsertSynced(number) | Op::Exchange(number) => vec![(key(thread, number), new)],
        Op::InsertMany(numbers) => numbers.iter().map(|number| (key(thread, *number), new)).collect(),
        Op::Remove(number) => vec![(key(thread, number), None)],
        Op::Sync | Op::Compact => vec![],
    }
}

/// Holds the store against what was told, and makes what it has the model of the next round.
fn check(store: &Store, model: &mut Model, counted: &mut u64, seed: u64, told: &Told) {
    for thread in 0..THREADS {
        let steps = told.steps.get(&thread).copied().unwrap_or(0);
        for step in 0..steps {
            model.extend(effects(seed, thread, step));
        }
        let maybe: Model = effects(seed, thread, steps).into_iter().collect();
        for number in 0..KEYS {
            let key = key(thread, number);
            let found = store.get(&key).unwrap().map(|value| proven(&key, &value));
            let expected = model.get(&key).copied().flatten();
            let possible = found == expected || maybe.get(&key) == Some(&found);
            assert!(possible, "{key} is {found:x?}, acknowledged was {expected:x?}, begun was {:x?}", maybe.get(&key));
            model.insert(key, found);
        }
    }
    let number = store.get("counter").unwrap().map_or(0, |value| u64::from_le_bytes(*value.first_chunk().unwrap()));
    let begun = (*counted).max(told.counted) + THREADS;
    assert!(number >= (*counted).max(told.counted) && number <= begun, "the counter is {number}, {told:?}");
    *counted = number;
    let present = model.values().filter(|version| version.is_some()).count() as u64 + u64::from(number > 0);
    assert_eq!((store.len(), store.keys().count() as u64), (present, present));
    assert_eq!(store.verify().unwrap().damaged, []);
}

/// `rounds` kills of children that work on one store; a third of the kills hit a child that opens it.
fn rounds(first_seed: u64, rounds: u64, mapped: bool) {
    let dir = support::dir();
    let (mut model, mut counted) = (Model::new(), 0);
    for seed in first_seed..first_seed + rounds {
        println!("seed {seed}, mapped {mapped}");
        let mut random = Random(seed);
        let steps = 1 + random.below(400);
        let told = kill_one(dir.path(), seed, mapped, steps, Duration::from_micros(random.below(2_000)));
        if seed % 2 == 1 {
            for _ in 0..random.below(3) {
                let after = Duration::from_micros(random.below(8_000));
                kill_one(dir.path(), seed, mapped, 0, after);
            }
        }
        // Now and then it is opened the other way.
        let store = open(dir.path(), mapped != random.below(4).eq(&0));
        check(&store, &mut model, &mut counted, seed, &told);
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    for group in 0..6 * scale() {
        rounds(group * 10 + 1, 10, true);
    }
}

#[test]
fn what_was_acknowledged_without_maps_survives_kill_9() {
    for group in 0..5 * scale() {
        rounds(1_000_000 + group * 10, 10, false);
    }
}
