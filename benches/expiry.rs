//! How soon what has expired gives its space back, and what callers feel of it.
//!
//! Data: keys of 16 bytes, values of 100. *At once*: 10 000 000 entries (or the first argument) that all expire at one moment, and
//! 100 000 that never do. Threads: one reads, asks for and writes uniformly drawn keys, 20 000 calls a second, before that
//! moment and after it; a third of its calls are of what expires. *Mixed*: 2 000 000 writes (a fifth of the first argument) at a
//! steady pace, every other one of them with a time to live of a second, the others of an hour, and two looks: at the last
//! write, and when the store rests. Durability: `Buffered`, in /dev/shm where there is one. The expiry thread's interval is a second.
//! Says the goals, and exits with 1 if one of them is missed. Test mode takes 20 000 entries and has no goals.
//!
//! ```text
//! cargo bench --bench expiry
//! ```

#[path = "support/workload.rs"]
mod workload;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use thermocline::{Attributes, Compression, Result, Store};
use workload::{Lookups, dir, is_test, key, value};

const INTERVAL: Duration = Duration::from_secs(1);
/// Space is to be back within so many intervals, and no call is to take longer than that.
const INTERVALS_MAX: f64 = 2.0;
const CALL_US_MAX: f64 = 1_000.0;
const LASTING: u64 = 100_000;
const PACE: Duration = Duration::from_micros(50);
/// Calls are looked at for so long before the deadline, and at least so long after it.
const LOOK: Duration = Duration::from_secs(4);
const SEGMENT_BYTES: u64 = 64 << 20;

fn main() -> ExitCode {
    let asked = std::env::args().find_map(|argument| argument.parse().ok());
    let entries = asked.unwrap_or(if is_test() { 20_000 } else { 10_000_000 });
    match at_once(entries).and_then(|is_reached| mixed(entries / 5).map(|()| is_reached)) {
        Ok(is_reached) if is_reached || is_test() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// What a caller met: when, since the deadline, and for how long.
struct Calls {
    before: Vec<Duration>,
    after: Vec<Duration>,
}

/// Calls at a steady pace until it `is_done`.
fn call(store: &Store, entries: u64, deadline: Instant, is_done: &AtomicBool) -> Result<Calls> {
    let (mut lasting, mut expiring) = (Lookups::new(0..LASTING), Lookups::new(LASTING..LASTING + entries));
    let (mut calls, mut next) = (Calls { before: Vec::new(), after: Vec::new() }, Instant::now());
    for count in 0_u64.. {
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        next += PACE;
        let index = if count % 3 == 0 { expiring.draw() } else { lasting.draw() };
        let start = Instant::now();
        match count % 9 {
            0..4 => drop(store.get(key(index))?),
            4..7 => drop(store.contains_key(key(index))?),
            _ => store.insert(key(index), value(index))?,
        }
        let took = start.elapsed();
        match start < deadline {
            true if deadline - start <= LOOK => calls.before.push(took),
            true => {}
            false => calls.after.push(took),
        }
        if is_done.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(calls)
}

fn at_once(entries: u64) -> Result<bool> {
    let dir = dir();
    let store = Store::builder().compression(Compression::none()).open(dir.path())?;
    let fill = Duration::from_secs(2) + Duration::from_micros(5) * u32::try_from(entries).unwrap_or(u32::MAX);
    let deadline = Instant::now() + fill.min(Duration::from_secs(45)) + LOOK;
    workload::fill(&store, LASTING)?;
    for index in LASTING..LASTING + entries {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the entries came too slowly to expire at once");
        store.insert_with(key(index), value(index), &Attributes::new().ttl(left))?;
    }
    let filled = store.stats();
    println!(
        "at once: {entries} entries, {:.0} MiB, written {:.1} s before they expire",
        mib(filled.log.bytes),
        deadline.saturating_duration_since(Instant::now()).as_secs_f64()
    );
    let is_done = AtomicBool::new(false);
    let (mut half, mut back) = (None, None);
    let mut calls = thread::scope(|scope| {
        let caller = scope.spawn(|| call(&store, entries, deadline, &is_done));
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        let end = deadline + Duration::from_secs(60);
        while Instant::now() < end && (back.is_none() || Instant::now() < deadline + LOOK) {
            let bytes = store.stats().log.bytes;
            if bytes <= filled.log.bytes / 2 {
                half.get_or_insert(deadline.elapsed());
            }
            // What lasts, what is reserved ahead, and what is written meanwhile.
            if bytes <= 4 * SEGMENT_BYTES {
                back.get_or_insert(deadline.elapsed());
            }
            thread::sleep(Duration::from_millis(10));
        }
        is_done.store(true, Ordering::Relaxed);
        caller.join().expect("a caller that does not panic")
    })?;
    let stats = store.stats();
    let intervals =
        |took: Option<Duration>| took.map_or(f64::INFINITY, |took| took.as_secs_f64() / INTERVAL.as_secs_f64());
    println!(
        "half of the space back after {:.2} intervals, nearly all of it after {:.2}; {:.0} MiB are left",
        intervals(half),
        intervals(back),
        mib(stats.log.bytes)
    );
    println!(
        "copied {:.1} MiB, gave back {:.0} MiB; {} expired, {} of them in memory; the index takes {:.1} MiB",
        mib(stats.log.bytes_compacted),
        mib(stats.log.bytes_reclaimed),
        stats.log.expired,
        stats.evictions.expired,
        mib(stats.index.bytes)
    );
    let longest = tell("before", &mut calls.before).max(tell("after", &mut calls.after));
    let is_reached = intervals(back) <= INTERVALS_MAX && longest <= CALL_US_MAX;
    println!(
        "Goals: within {INTERVALS_MAX} intervals, no call of more than {CALL_US_MAX} us: {}.\n",
        if is_reached { "reached" } else { "missed" }
    );
    store.close()?;
    Ok(is_reached)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// Prints what the calls took; returns the longest, in us.
fn tell(when: &str, calls: &mut [Duration]) -> f64 {
    calls.sort_unstable();
    let at = |part: f64| {
        let index = ((calls.len() as f64 * part) as usize).min(calls.len().saturating_sub(1));
        calls.get(index).map_or(0.0, |took| took.as_nanos() as f64 / 1e3)
    };
    println!(
        "{when}: {} calls, median {:.1} us, 99.9 % {:.1} us, 99.99 % {:.1} us, longest {:.1} us, {} above {CALL_US_MAX} us",
        calls.len(),
        at(0.5),
        at(0.999),
        at(0.9999),
        at(1.0),
        calls.iter().filter(|took| took.as_nanos() as f64 / 1e3 > CALL_US_MAX).count()
    );
    at(1.0)
}

fn mixed(writes: u64) -> Result<()> {
    let dir = dir();
    let store = Store::builder().compression(Compression::none()).open(dir.path())?;
    let times = [Duration::from_secs(1), Duration::from_secs(3_600)].map(|ttl| Attributes::new().ttl(ttl));
    let (start, rate) = (Instant::now(), 200_000);
    for index in 0..writes {
        if index % 256 == 0 {
            thread::sleep(
                (start + Duration::from_nanos(index * 1_000_000_000 / rate)).saturating_duration_since(Instant::now()),
            );
        }
        store.insert_with(key(index), value(index), &times[index as usize % 2])?;
    }
    let tell = |when: &str| {
        let log = store.stats().log;
        let live = store.len() * log.bytes_written / writes.max(1);
        println!(
            "mixed, {when}: {:.0} MiB on disk, {:.0} MiB of it alive; copied {:.0} MiB of {:.0} MiB written",
            mib(log.bytes),
            mib(live),
            mib(log.bytes_compacted),
            mib(log.bytes_written)
        );
    };
    tell("at the last write");
    thread::sleep(8 * INTERVAL);
    tell("at rest");
    store.close()
}
