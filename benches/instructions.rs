//! How many instructions one operation takes: the number that no neighbour on the machine changes.
//!
//! Data: 100 000 keys of 16 bytes with values of 100 (so many that the index has split as it will). Skew: none. Threads:
//! one. Durability: `Buffered`, in /dev/shm where there is one. Runs N operations of one kind (`get`, `read`, `miss`, `insert`,
//! `overwrite`, `remove`; `get_log` and `read_log` without a memory tier; `cache_get`, `cache_read`, `cache_load` of a cache with `u64` keys and values of
//! 100 or, with `_1k`, 1 024 bytes; `memo`, `memo_three` of memoized functions with a `u64`, or with two and a text of 20 bytes) and says so; callgrind counts only inside `measured`, which does nothing else but draw keys:
//!
//! ```text
//! cargo bench --bench instructions --no-run          # prints the path of the program
//! valgrind --tool=callgrind --collect-atstart=no '--toggle-collect=*instructions::measured*' \
//!     --callgrind-out-file=/tmp/callgrind.out target/release/deps/instructions-… get 20000
//! callgrind_annotate /tmp/callgrind.out | head -40   # "Collected" / 20000 = instructions per operation
//! ```
//!
//! Subtract what `none` takes, the drawing of keys. Without arguments, as in test mode, every kind runs 100 times.

#[path = "support/workload.rs"]
mod workload;

use std::{env, hint::black_box, process::ExitCode};

use thermocline::{Cache, Result, Store, memoize};
use workload::{Lookups, dir, fill, key, value};

const KEYS: u64 = 100_000;
const KINDS: [&str; 15] = [
    "none",
    "get",
    "read",
    "get_log",
    "read_log",
    "miss",
    "insert",
    "overwrite",
    "remove",
    "cache_get",
    "cache_get_1k",
    "cache_read",
    "cache_load",
    "memo",
    "memo_three",
];

#[memoize]
fn one(number: u64) -> u64 {
    number + 1
}

#[memoize]
fn three(number: u64, text: &str, other: u64) -> u64 {
    number + text.len() as u64 + other
}

const TEXT: &str = "a text of 20 letters";

fn main() -> ExitCode {
    // Cargo says `--bench`, and its users say `--test` or a filter.
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let done = match &arguments[..] {
        [] => KINDS.iter().try_for_each(|kind| run(kind, 100, 1_000)),
        [kind, count] if KINDS.contains(&kind.as_str()) && count.parse::<u64>().is_ok() => {
            run(kind, count.parse().unwrap_or(0), KEYS)
        }
        _ => {
            eprintln!("usage: instructions [{} N]", KINDS.join("|"));
            return ExitCode::from(2);
        }
    };
    done.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// Fills a store, runs `count` operations of one kind and says what they found.
fn run(kind: &str, count: u64, keys: u64) -> Result<()> {
    let dir = dir();
    let builder = match kind {
        _ if kind.ends_with("_log") => Store::builder().memory_capacity(0),
        _ if kind.starts_with("cache") || kind.starts_with("memo") => Store::builder().memory_capacity(512 << 20),
        _ => Store::builder(),
    };
    let store = builder.open(dir.path())?;
    let cache = store.cache::<u64, Vec<u8>>("numbers")?;
    thermocline::set_default(store.clone());
    if kind.starts_with("memo") {
        (0..keys).for_each(|key| _ = if kind == "memo" { one(key) } else { three(key, TEXT, 7) });
    } else if kind.starts_with("cache") {
        let value = vec![7; if kind.ends_with("_1k") { 1_024 } else { 100 }];
        (0..keys).try_for_each(|key| cache.insert(&key, &value))?;
    } else {
        fill(&store, keys)?;
    }
    let indexes = match kind {
        "miss" | "insert" => keys..2 * keys,
        _ => 0..keys,
    };
    let found = measured(&store, &cache, kind, count, &mut Lookups::new(indexes))?;
    println!("{count} {kind} over {keys} keys, {found} of which found their key");
    drop(cache);
    store.close()
}

/// All that callgrind looks at. New keys are drawn at random too: few are drawn twice.
#[inline(never)]
fn measured(store: &Store, cache: &Cache<u64, Vec<u8>>, kind: &str, count: u64, lookups: &mut Lookups) -> Result<u64> {
    if let Some(call) = kind.strip_prefix("cache_") {
        let mut draw = || black_box(lookups.draw());
        return match call {
            "read" => (0..count).map(|_| Ok(u64::from(cache.read(&draw(), |value| value.len())?.is_some()))).sum(),
            "load" => (0..count).map(|_| Ok(cache.get_or_insert_with(&draw(), Vec::new)?.len() as u64 / 100)).sum(),
            _ => (0..count).map(|_| Ok(u64::from(black_box(cache.get(&draw())?).is_some()))).sum(),
        };
    }
    if kind.starts_with("memo") {
        let mut draw = || black_box(lookups.draw());
        return Ok(match kind {
            "memo" => (0..count).map(|_| u64::from(one(draw()) > 0)).sum(),
            _ => (0..count).map(|_| u64::from(three(draw(), black_box(TEXT), 7) > 0)).sum(),
        });
    }
    let mut draw = || black_box(key(lookups.draw()));
    match kind {
        "get" | "get_log" | "miss" => (0..count).map(|_| Ok(u64::from(black_box(store.get(draw())?).is_some()))).sum(),
        "read" | "read_log" => {
            (0..count).map(|_| Ok(u64::from(store.read(draw(), |value| value.len())?.is_some()))).sum()
        }
        "insert" | "overwrite" => (0..count).map(|index| store.insert(draw(), value(index)).map(|()| 0)).sum(),
        "remove" => (0..count).map(|_| store.remove(draw()).map(u64::from)).sum(),
        _ => Ok((0..count).filter(|_| draw().is_empty()).count() as u64),
    }
}
