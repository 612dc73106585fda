//! What the engine's promise tests share: seeds, values that prove themselves, a model of what may be there.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use thermocline_engine::{
    Attributes, Durability, Engine, Error, Options, Result, TimeSource, Verified, medium::Faulty,
};

/// How much more than a commit's share of testing is asked for.
pub(crate) fn scale() -> u64 {
    env::var("THERMOCLINE_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// The seeds to run: `count` times the scale, or the one that `THERMOCLINE_SEED` names.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match env::var("THERMOCLINE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..count * scale()).collect(),
    }
}

/// Runs `test` for each case, goes on after a failure, and tells at the end what failed: failures that differ only in
/// their numbers once, with how many there are.
pub(crate) fn each<C: Copy + Debug>(cases: impl IntoIterator<Item = C>, mut test: impl FnMut(C)) {
    let mut count = 0;
    let mut failures = BTreeMap::<String, (u64, String)>::new();
    for case in cases {
        count += 1;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(case))) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
            let kind = text.lines().next().unwrap_or("").chars().filter(|char| !char.is_ascii_hexdigit()).collect();
            failures.entry(kind).or_insert_with(|| (0, format!("{case:?}: {text}"))).0 += 1;
        }
    }
    let sum: u64 = failures.values().map(|(times, _)| times).sum();
    let mut told: Vec<_> = failures.into_values().map(|(times, first)| format!("{times} such as {first}")).collect();
    told.truncate(40);
    assert!(told.is_empty(), "{sum} of {count} cases failed:\n{}", told.join("\n"));
}

/// A small generator for tests that print their seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number below `below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// One in `of`.
    pub(crate) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// A key's bytes: some short, some long.
pub(crate) fn key(number: u8) -> Vec<u8> {
    let mut key = format!("key {number}").into_bytes();
    if number.is_multiple_of(5) {
        key.resize(100 + number as usize, b'.');
    }
    key
}

/// A value that says for which key and as which version it was written, with filler that follows from both. Most are
/// short, some take pages; versions that end in 77 take a segment of their own, a few around 80 to 89 fill one.
pub(crate) fn value(key: u8, version: u64) -> Vec<u8> {
    let mut random = Random(version << 8 | u64::from(key));
    let bytes = match (version % 100, random.below(10)) {
        (77, _) => 70_000,
        (80..90, _) => 12_000,
        (_, 0) => random.below(9_000),
        _ => random.below(200),
    };
    let mut value = version.to_le_bytes().to_vec();
    value.push(key);
    let filler = random.below(u64::MAX).to_le_bytes();
    value.extend(filler.repeat(bytes.div_ceil(8).max(1) as usize));
    value
}

/// The version that a value was written as.
///
/// # Panics
/// If the bytes were never written for `key`.
pub(crate) fn version_of(key: u8, bytes: &[u8]) -> u64 {
    let version = bytes.first_chunk().map(|version| u64::from_le_bytes(*version)).unwrap_or(u64::MAX);
    assert!(bytes == value(key, version), "key {key}: {} bytes that nobody wrote", bytes.len());
    version
}

/// Options with segments of 64 KiB, and memory for some of the entries.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        memory_capacity: 16 << 10,
        compacts: false,
        snapshot_after: 0,
        hint_after: 0,
        ..Options::default()
    }
}

/// As [`small`], with a clock that the test sets.
pub(crate) fn small_at(now: &Arc<AtomicU64>) -> Options {
    Options { time: TimeSource::Manual(now.clone()), ..small() }
}

/// 2026, where tests with a clock of their own start.
pub(crate) const START_MS: u64 = 1_767_225_600_000;

/// Opens the store on `medium`.
pub(crate) fn open(medium: &Faulty, options: &Options) -> Result<Engine> {
    Engine::open(Arc::new(medium.clone()), options.clone())
}

/// The version that the store has of a key.
pub(crate) fn look(engine: &Engine, number: u8) -> Result<Option<u64>> {
    Ok(engine.get(&key(number))?.map(|value| version_of(number, &value)))
}

/// The damage that `verify` finds, in words.
pub(crate) fn damage(engine: &Engine) -> Vec<String> {
    let Verified { damaged, .. } = engine.verify().expect("files can be read");
    damaged.into_iter().map(|damage| format!("{}, offset {}: {}", damage.file, damage.offset, damage.what)).collect()
}

/// Attributes of a write at `Synced` or at the store's default.
pub(crate) fn at(synced: bool) -> Attributes {
    if synced { Attributes::new().durability(Durability::Synced) } else { Attributes::new() }
}

/// Whether an error says that a flush failed, now or earlier.
pub(crate) fn tells_of_a_flush(error: &Error) -> bool {
    matches!(error, Error::Suspended { .. } | Error::Io { action: "flush", .. })
}

/// What may be in the store: per key a set of versions (`None`: absent) that the first read narrows down to one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Possible {
    keys: BTreeMap<u8, BTreeSet<Option<u64>>>,
}

impl Possible {
    fn of(&mut self, key: u8) -> &mut BTreeSet<Option<u64>> {
        self.keys.entry(key).or_insert_with(|| BTreeSet::from([None]))
    }

    /// A write that returned `Ok`: now it is this.
    pub(crate) fn is(&mut self, key: u8, version: Option<u64>) {
        *self.of(key) = BTreeSet::from([version]);
    }

    /// A write that returned `Err`: it may be this too.
    pub(crate) fn may_be(&mut self, key: u8, version: Option<u64>) {
        self.of(key).insert(version);
    }

    /// Whether there is only one thing that it can be.
    pub(crate) fn is_certain(&self, key: u8) -> bool {
        self.keys.get(&key).is_none_or(|possible| possible.len() == 1)
    }

    /// A read: it was possible, and stays so.
    pub(crate) fn saw(&mut self, key: u8, version: Option<u64>, when: &str) {
        let possible = self.of(key).clone();
        assert!(possible.contains(&version), "{when}: key {key} is {version:?}, possible was {possible:?}");
        self.is(key, version);
    }

    /// Reads every key that was ever written, and the walk over all.
    pub(crate) fn check(&mut self, engine: &Engine, when: &str) {
        let numbers: Vec<_> = self.keys.keys().copied().collect();
        for number in &numbers {
            match look(engine, *number) {
                Ok(version) => self.saw(*number, version, when),
                Err(error) => panic!("{when}: key {number}: {error}"),
            }
        }
        let mut walked: Vec<_> = engine.keys().map(|key| key.expect("a walk over whole records")).collect();
        let mut present: Vec<_> =
            numbers.into_iter().filter(|number| !self.of(*number).contains(&None)).map(key).collect();
        walked.sort();
        present.sort();
        assert_eq!(walked, present, "{when}: a walk meets other keys than reads");
        assert_eq!(engine.len(), present.len() as u64, "{when}: the length");
    }
}

/// A manual clock.
pub(crate) fn clock() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(START_MS))
}

/// Moves a manual clock on.
pub(crate) fn advance(clock: &AtomicU64, ms: u64) {
    clock.fetch_add(ms, Ordering::Relaxed);
}
