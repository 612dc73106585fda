//! What compaction costs: bytes written for each byte appended, what callers feel of it, and memory.
//!
//! Data: 1 000 000 random keys of 16 bytes, values of 100 bytes, uncompressed, overwritten eight times: of uniform random keys, four
//! fifths of the writes to a fifth of the keys, or all of them to that fifth. The space is what the store chooses by itself, at
//! 250 000 writes a second and as fast as one thread writes, or a `disk_capacity` of which 70 % is alive. Write amplification is (appended + copied + hints and snapshots) / appended, over the last half of the writes.
//! Memory is the process's own (`RssAnon`) above what it had before, the store's memory tier is off. Latency: one thread alternates
//! uniform gets and overwriting inserts, one pair each 20 µs, alternately while there is too little dead for compaction, while the
//! store compacts by itself, and while another thread calls `compact()` again and again; five rounds of each, 100 000 pairs a round,
//! percentiles over all of a kind. Durability: does not matter; the store is in /dev/shm where there is one. Says the goals, and
//! exits with 1 if one is missed. Test mode takes 20 000 records and has no goals.
//!
//! ```text
//! cargo bench --bench compaction
//! ```

#[path = "support/workload.rs"]
mod workload;

use std::{
    fs,
    hint::{black_box, spin_loop},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use thermocline::{Builder, Compression, LogStats, Result, Store};
use workload::{Lookups, dir, fill, is_test, key, value};

/// What is to be reached.
const WA_UNIFORM_MAX: f64 = 2.5;
const WA_HOT_MAX: f64 = 1.5;
const LATENCY_RATIO_MAX: f64 = 2.0;
const BYTES_PER_KEY_MAX: u64 = 12;
const BYTES_BESIDE_KEYS_MAX: u64 = 64 << 20;

const OVERWRITES: u64 = 8;
/// How fast paced writes come, and how many at a time.
const WRITES_PER_S: u32 = 250_000;
const WRITES_PACED: u64 = 100;
const PACE: Duration = Duration::from_micros(20);
const ROUNDS: usize = 5;

/// Which keys are written.
#[derive(Clone, Copy)]
struct Skew {
    name: &'static str,
    /// So many of ten writes go to the first fifth of the keys, the others to any.
    hot_tenths: u64,
    goal: f64,
}

const SKEWS: [Skew; 3] = [
    Skew { name: "uniform", hot_tenths: 0, goal: WA_UNIFORM_MAX },
    Skew { name: "80 % to a fifth", hot_tenths: 8, goal: WA_HOT_MAX },
    Skew { name: "100 % to a fifth", hot_tenths: 10, goal: WA_HOT_MAX },
];

fn main() -> ExitCode {
    let records = if is_test() { 20_000 } else { 1_000_000 };
    let report = || -> Result<bool> { Ok(amplification(records)? & latency(records)?) };
    match report() {
        Ok(is_reached) if is_reached || is_test() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn builder() -> Builder {
    Store::builder().memory_capacity(0).compression(Compression::none())
}

/// Measures and prints how much is written in all; whether the goals are reached.
fn amplification(records: u64) -> Result<bool> {
    println!("| writes | space | segments | live of it | amplification | most memory | per key, less 64 MiB |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    let live_bytes = live_bytes(records)?;
    let small = if is_test() { 64 << 10 } else { 8 << 20 };
    let mut is_reached = true;
    for skew in SKEWS {
        let spaces = [
            ("its own", builder().segment_bytes(small), true),
            ("its own, at full speed", builder().segment_bytes(small), false),
            ("its own, segments of 64 MiB, at full speed", builder(), false),
            ("70 % alive", builder().disk_capacity(live_bytes * 10 / 7), false),
        ];
        for (space, builder, is_paced) in spaces {
            let row = overwrite(builder, records, skew, is_paced)?;
            let beside = (row.memory.saturating_sub(BYTES_BESIDE_KEYS_MAX)) as f64 / records as f64;
            let LogStats { segments, bytes, live_bytes, .. } = row.log;
            println!(
                "| {} | {space} | {segments} | {:.1} % | {:.2} | {} MiB | {beside:.1} B |",
                skew.name,
                live_bytes as f64 / bytes as f64 * 100.0,
                row.amplification,
                row.memory >> 20,
            );
            assert_eq!(row.kept, records, "an entry went for lack of room");
            is_reached &= row.amplification <= skew.goal;
            is_reached &= row.memory <= BYTES_BESIDE_KEYS_MAX + BYTES_PER_KEY_MAX * records;
        }
    }
    println!(
        "\nGoals: at most {WA_UNIFORM_MAX} of uniform writes and {WA_HOT_MAX} of others, {BYTES_PER_KEY_MAX} bytes a key and {} MiB: {}.\n",
        BYTES_BESIDE_KEYS_MAX >> 20,
        if is_reached { "reached" } else { "missed" }
    );
    Ok(is_reached)
}

/// What so many records take.
fn live_bytes(records: u64) -> Result<u64> {
    let dir = dir();
    let store = builder().open(dir.path())?;
    fill(&store, records)?;
    Ok(store.stats().log.live_bytes)
}

struct Row {
    log: LogStats,
    amplification: f64,
    memory: u64,
    kept: u64,
}

fn overwrite(builder: Builder, records: u64, skew: Skew, is_paced: bool) -> Result<Row> {
    let before = memory();
    let dir = dir();
    let store = builder.open(dir.path())?;
    fill(&store, records)?;
    let mut most = memory();
    let (mut all, mut hot, mut tenths) = (draws(records), draws(records / 5), draws(10));
    let mut half = store.stats().log;
    for round in 0..OVERWRITES {
        if round == OVERWRITES / 2 {
            half = store.stats().log;
        }
        let start = Instant::now();
        for write in 0..records {
            if is_paced && write % WRITES_PACED == 0 {
                let due = Duration::from_secs(write) / WRITES_PER_S;
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
            let index = if tenths.draw() < skew.hot_tenths { hot.draw() } else { all.draw() };
            store.insert(key(index), value(index ^ write))?;
        }
        most = most.max(memory());
    }
    let (log, kept) = (store.stats().log, store.len());
    let appended = (log.bytes_written - half.bytes_written) as f64;
    let copied = log.bytes_compacted - half.bytes_compacted;
    let amplification = 1.0 + (copied + log.bytes_beside - half.bytes_beside) as f64 / appended;
    Ok(Row { log, amplification, memory: most.saturating_sub(before), kept })
}

fn draws(below: u64) -> Lookups {
    Lookups::new(0..below)
}

/// Bytes of memory that are the process's own.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// What goes on beside the calls that are measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    ByItself,
    Called,
}

const KINDS: [(&str, Beside); 3] = [
    ("too little is dead", Beside::Nothing),
    ("by itself", Beside::ByItself),
    ("`compact()` in a loop", Beside::Called),
];

/// Nanoseconds of calls.
#[derive(Default)]
struct Latencies {
    get: Vec<u64>,
    insert: Vec<u64>,
    compacted: u64,
}

/// Measures and prints what callers feel; whether the goal is reached.
fn latency(records: u64) -> Result<bool> {
    let dir = dir();
    let store = builder().segment_bytes(if is_test() { 64 << 10 } else { 8 << 20 }).open(dir.path())?;
    fill(&store, records)?;
    let mut all = draws(records);
    let pairs = records / 10;
    let mut kinds = KINDS.map(|_| Latencies::default());
    for _ in 0..ROUNDS {
        for (latencies, (_, beside)) in kinds.iter_mut().zip(KINDS) {
            store.compact()?;
            if beside == Beside::ByItself {
                // So much is dead that it goes on all the time.
                for _ in 0..records * 5 / 10 {
                    let index = all.draw();
                    store.insert(key(index), value(index))?;
                }
            }
            let before = store.stats().log.bytes_compacted;
            round(&store, beside, &mut all, pairs, latencies)?;
            latencies.compacted += store.stats().log.bytes_compacted - before;
        }
    }
    println!("| compaction | call | p50 µs | p99 µs | p99.9 µs | worst µs | copied meanwhile |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    let mut tails = Vec::new();
    for (latencies, (name, _)) in kinds.iter_mut().zip(KINDS) {
        let compacted = latencies.compacted >> 20;
        for (call, times) in [("get", &mut latencies.get), ("insert", &mut latencies.insert)] {
            times.sort_unstable();
            let of = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)] as f64 / 1e3;
            tails.push(of(0.999));
            println!(
                "| {name} | {call} | {:.2} | {:.2} | {:.2} | {:.1} | {compacted} MiB |",
                of(0.5),
                of(0.99),
                of(0.999),
                of(1.0)
            );
        }
    }
    let ratios = [tails[2] / tails[0], tails[3] / tails[1]];
    let is_reached = ratios.iter().all(|ratio| *ratio <= LATENCY_RATIO_MAX);
    println!(
        "\nGoal: p99.9 while it compacts by itself at most {LATENCY_RATIO_MAX} times as long as without: get {:.2}, insert {:.2}: {}.",
        ratios[0],
        ratios[1],
        if is_reached { "reached" } else { "missed" }
    );
    Ok(is_reached)
}

fn round(store: &Store, beside: Beside, all: &mut Lookups, pairs: u64, latencies: &mut Latencies) -> Result<()> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        if beside == Beside::Called {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    store.compact().expect("a store that can be compacted");
                }
            });
        }
        let measured = paced(store, all, pairs, latencies);
        is_over.store(true, Ordering::Relaxed);
        measured
    })
}

fn paced(store: &Store, all: &mut Lookups, pairs: u64, latencies: &mut Latencies) -> Result<()> {
    let mut due = Instant::now();
    for _ in 0..pairs {
        due += PACE;
        while Instant::now() < due {
            spin_loop();
        }
        let (read, written) = (key(all.draw()), all.draw());
        let start = Instant::now();
        black_box(store.get(read)?);
        let between = Instant::now();
        store.insert(key(written), value(written))?;
        latencies.insert.push(between.elapsed().as_nanos() as u64);
        latencies.get.push((between - start).as_nanos() as u64);
        // Who was stopped by others does not hurry afterwards.
        due = due.max(start);
    }
    Ok(())
}
