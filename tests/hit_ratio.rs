//! Hit ratios by the front door: traces are replayed through a store, and what memory answers counts.
//!
//! `THERMOCLINE_TRACES` names a directory of traces and of what others reach on them; without it a made-up trace is replayed.

#[path = "../eviction/tests/support/mod.rs"]
mod support;

use std::{collections::VecDeque, env, path::Path};

use support::{CRATES, Trace, made_up, mix, peers, read, reduction};
use thermocline::Store;

/// What an entry with an 8-byte key and a 16-byte value is charged.
const ENTRY_BYTES: u64 = 62;

/// The share of accesses that memory answers. What it does not is asked of the log, and written if it is not there either.
fn replay(trace: &Trace, capacity: u64) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder().memory_capacity(capacity * ENTRY_BYTES).open(dir.path()).unwrap();
    for id in &trace.ids {
        let key = mix(u64::from(*id)).to_le_bytes();
        if store.get_resident(key).is_none() && store.get(key).unwrap().is_none() {
            store.insert(key, [0; 16]).unwrap();
        }
    }
    let stats = store.stats();
    assert!(stats.memory.bytes <= (capacity * ENTRY_BYTES) * 101 / 100 + ENTRY_BYTES, "{:?}", stats.memory);
    assert_eq!(stats.hits.memory + stats.hits.log + stats.misses.absent, trace.ids.len() as u64);
    stats.hits.memory as f64 / trace.ids.len() as f64
}

fn fifo(trace: &Trace, capacity: usize) -> f64 {
    let (mut held, mut queue, mut hits) = (vec![false; trace.keys], VecDeque::new(), 0);
    for id in &trace.ids {
        if held[*id as usize] {
            hits += 1;
            continue;
        }
        if queue.len() == capacity {
            let oldest: u32 = queue.pop_front().unwrap();
            held[oldest as usize] = false;
        }
        queue.push_back(*id);
        held[*id as usize] = true;
    }
    f64::from(hits) / trace.ids.len() as f64
}

fn replay_all(directory: &Path) {
    let mut gains = Vec::new();
    let mut trace = (String::new(), None);
    for ((name, mode, fraction), (capacity, figures)) in peers(&directory.join("peers.tsv")) {
        if mode != "count" || name.starts_with("syn") {
            continue;
        }
        if trace.0 != name {
            trace = (name.clone(), Some(read(&directory.join(format!("{name}.tht.zst")))));
        }
        let ratio = replay(trace.1.as_ref().unwrap(), capacity);
        let best = CRATES.iter().filter_map(|name| figures.get(*name)).map(|(hits, _)| *hits).fold(0.0, f64::max);
        let gain = reduction(ratio, figures["fifo"].0);
        println!(
            "{name:14} {fraction:6} {capacity:>8}  {:6.2} %  fifo {:6.2}  best crate {:6.2} ({:+.2})  {:+.1} %",
            100.0 * ratio,
            100.0 * figures["fifo"].0,
            100.0 * best,
            100.0 * (ratio - best),
            100.0 * gain,
        );
        gains.push(100.0 * gain);
    }
    let mean = gains.iter().sum::<f64>() / gains.len() as f64;
    let worst = gains.iter().copied().fold(100.0, f64::min);
    println!("{} cells, mean {mean:+.2} %, worst {worst:+.2} %", gains.len());
    assert!(mean > 9.0 && worst > -3.0);
}

#[test]
fn memory_holds_what_is_asked_for_again() {
    if let Ok(directory) = env::var("THERMOCLINE_TRACES") {
        return replay_all(Path::new(&directory));
    }
    let trace = made_up();
    let (ours, fifo) = (replay(&trace, 400), fifo(&trace, 400));
    println!("{ours:.3}, fifo {fifo:.3}");
    assert!(ours > fifo + 0.02, "{ours:.3}, fifo {fifo:.3}");
}
