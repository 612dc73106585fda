//! What compression of cold records saves, and what it costs to read them.
//!
//! Data: 1 000 000 values of 100 to 300 bytes that look like JSON as services write it (names and cities of a few dozen, numbers,
//! times, now and then an address, tags, a random session of 64 bits), keys of 16 bytes, inserted in random order and compacted by
//! `compact()`. Skew: none, look-ups are uniform and independent. Threads: one reads. Durability: does not matter; the store is in
//! /dev/shm where there is one. The memory tier is off, so every read is of the log, and warm: each was read before. Each row is a
//! store of its own; a time is the median of nine rounds of 200 000 reads, beside the best and the worst. Says the goals, and exits
//! with 1 if one of them is missed. Test mode takes 3 000 records and has no goals.
//!
//! ```text
//! cargo bench --bench compression
//! ```

#[path = "support/workload.rs"]
mod workload;

use std::{fmt::Write, hint::black_box, process::ExitCode, time::Instant};

use thermocline::{Compression, Result, Store};
use workload::{Lookups, dir, is_test, key};

/// At most so much is to be left of a byte, and a read is to take at most so long.
const RATIO_MAX: f64 = 0.35;
const GET_NS_MAX: f64 = 3_000.0;
const ROUNDS: usize = 9;

const NAMES: [&str; 20] = [
    "Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi", "Ivan", "Judy", "Mallory", "Niaj", "Olivia",
    "Peggy", "Rupert", "Sybil", "Trent", "Victor", "Walter", "Wendy",
];
const CITIES: [&str; 12] =
    ["Berlin", "Paris", "London", "Madrid", "Rome", "Vienna", "Oslo", "Lisbon", "Prague", "Warsaw", "Dublin", "Athens"];
const STREETS: [&str; 4] = ["Main Street", "High Street", "Station Road", "Park Avenue"];
const TAGS: [&str; 8] = ["new", "vip", "trial", "press", "staff", "beta", "gold", "silver"];

/// The value of record `index`, the same in every process.
fn value(index: u64, into: &mut String) {
    let mut random = fastrand::Rng::with_seed(index);
    let (first, last, city) = (random.choice(NAMES), random.choice(NAMES), random.choice(CITIES));
    let (first, last, city) = (first.unwrap_or_default(), last.unwrap_or_default(), city.unwrap_or_default());
    into.clear();
    let written = write!(
        into,
        "{{\"id\":{index},\"name\":\"{first} {last}\",\"email\":\"{}{}@example.org\",\"city\":\"{city}\",\"balance\":{}.{:02},\
         \"active\":{}",
        last.to_lowercase(),
        random.u32(..100_000),
        random.u32(..10_000),
        random.u32(..100),
        random.bool(),
    );
    written.expect("a string takes what is written");
    if random.bool() {
        let (day, hour, minute) = (random.u32(1..29), random.u32(..24), random.u32(..60));
        let (year, month) = (random.u32(10..27), random.u32(1..13));
        let _ = write!(into, ",\"created\":\"20{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:00Z\"");
    }
    if random.bool() {
        let [one, other] = [0, 0].map(|_| random.choice(TAGS).unwrap_or_default());
        let _ = write!(into, ",\"tags\":[\"{one}\",\"{other}\"]");
    }
    if random.u32(..4) == 0 {
        let _ = write!(into, ",\"session\":\"{:016x}\"", random.u64(..));
    }
    if random.u32(..3) == 0 {
        let street = random.choice(STREETS).unwrap_or_default();
        let (number, code) = (random.u32(1..200), random.u32(..100_000));
        let _ = write!(into, ",\"address\":{{\"street\":\"{street} {number}\",\"zip\":\"{code:05}\"}}");
    }
    into.push('}');
}

/// What one store gave.
struct Row {
    name: &'static str,
    ratio: f64,
    bytes_per_record: f64,
    compact_s: f64,
    compression_s: f64,
    /// Nanoseconds per read: best, median, worst.
    get: [f64; 3],
    read: [f64; 3],
}

fn main() -> ExitCode {
    let records = if is_test() { 3_000 } else { 1_000_000 };
    match report(records) {
        Ok(is_reached) if is_reached || is_test() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Measures and prints; whether the goals are reached by the default.
fn report(records: u64) -> Result<bool> {
    let (mut text, mut lengths) = (String::new(), Vec::new());
    for index in 0..records {
        value(index, &mut text);
        lengths.push(text.len());
    }
    let raw: usize = lengths.iter().sum();
    lengths.sort_unstable();
    println!(
        "{records} values of {} to {} bytes, {:.1} on average\n",
        lengths[0],
        lengths[lengths.len() - 1],
        raw as f64 / records as f64
    );
    println!(
        "| compression | of a byte of values | bytes of the log a record | compaction | of it compressing | get ns | read ns |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let levels = [
        ("none", Compression::none()),
        ("zstd(1)", Compression::zstd(1)),
        ("zstd(3)", Compression::zstd(3)),
        ("zstd(9)", Compression::zstd(9)),
    ];
    let mut is_reached = false;
    for (name, compression) in levels {
        let row = measure(name, compression, records)?;
        let times = |[best, median, worst]: [f64; 3]| format!("{median:.0} ({best:.0} to {worst:.0})");
        println!(
            "| {} | {:.1} % | {:.1} | {:.2} s | {:.2} s | {} | {} |",
            row.name,
            row.ratio * 100.0,
            row.bytes_per_record,
            row.compact_s,
            row.compression_s,
            times(row.get),
            times(row.read)
        );
        if compression == Compression::default() {
            is_reached = row.ratio <= RATIO_MAX && row.get[1] <= GET_NS_MAX;
        }
    }
    println!(
        "\nGoals of the default, zstd(3): at most {:.0} % of a byte, a get of at most {GET_NS_MAX} ns: {}.",
        RATIO_MAX * 100.0,
        if is_reached { "reached" } else { "missed" }
    );
    Ok(is_reached)
}

fn measure(name: &'static str, compression: Compression, records: u64) -> Result<Row> {
    let dir = dir();
    let store = Store::builder().memory_capacity(0).compression(compression).open(dir.path())?;
    let mut text = String::new();
    for index in 0..records {
        value(index, &mut text);
        store.insert(key(index), &text)?;
    }
    let start = Instant::now();
    store.compact()?;
    let compact_s = start.elapsed().as_secs_f64();
    let log = store.stats().log;
    // Every value comes back, and is warm from here on.
    for index in 0..records {
        value(index, &mut text);
        let is_same = store.read(key(index), |found| found == text.as_bytes())?;
        assert_eq!(is_same, Some(true), "record {index} came back as something else");
    }
    let count = records.min(200_000);
    let mut lookups = Lookups::new(0..records);
    let mut timed = |read: &dyn Fn([u8; 16]) -> Result<bool>| -> Result<[f64; 3]> {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..count {
                assert!(read(black_box(key(lookups.draw())))?, "a record that is there");
            }
            rounds.push(start.elapsed().as_nanos() as f64 / count as f64);
        }
        rounds.sort_by(f64::total_cmp);
        Ok([rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]])
    };
    let get = timed(&|key| Ok(black_box(store.get(key)?).is_some()))?;
    let read = timed(&|key| Ok(black_box(store.read(key, |value| value.last().copied())?).is_some()))?;
    let (ratio, bytes_per_record) = (log.compression_ratio, log.live_bytes as f64 / records as f64);
    Ok(Row { name, ratio, bytes_per_record, compact_s, compression_s: log.compression_time.as_secs_f64(), get, read })
}
