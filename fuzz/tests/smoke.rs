//! Every target without a fuzzer: pseudo-random inputs that are the same each time, and the seeds.

use std::{fs, panic, path::Path};

use thermocline_fuzz::{TARGETS, Target};

const INPUTS: u64 = 2_000;
/// Fewer for those that open stores, again and again for each input.
const STORE_INPUTS: u64 = 200;
const STORES: [&str; 2] = ["operations", "crash"];

/// An input that follows from its number: many short, some of a few KiB.
fn input(number: u64) -> Vec<u8> {
    let mut state = number;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let bytes = if number.is_multiple_of(10) { next() % 3_000 } else { next() % 300 } as usize;
    let words = (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes());
    words.take(bytes).collect()
}

/// Feeds one input; a panic says which it was.
fn feed(target: Target, bytes: &[u8], name: &str) {
    let (target, run) = target;
    if panic::catch_unwind(|| run(bytes)).is_err() {
        panic!("{target} broke on {name}");
    }
}

fn feed_all(index: usize) {
    let inputs = if STORES.contains(&TARGETS[index].0) { STORE_INPUTS } else { INPUTS };
    (0..inputs).for_each(|number| feed(TARGETS[index], &input(number), &format!("input {number}")));
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(TARGETS[index].0);
    for seed in fs::read_dir(&seeds).expect("a directory of seeds") {
        let path = seed.expect("a seed").path();
        feed(TARGETS[index], &fs::read(&path).expect("a seed"), &path.display().to_string());
    }
}

#[test]
fn any_bytes_decode_to_whole_records_or_none() {
    feed_all(0);
}

#[test]
fn any_segments_open_as_a_store_that_serves_only_what_is_whole() {
    feed_all(1);
}

#[test]
fn any_operations_answer_like_a_map() {
    feed_all(2);
}

#[test]
fn any_crash_keeps_what_was_acknowledged() {
    feed_all(3);
}

#[test]
fn any_packed_values_decode_to_what_they_state_or_are_damaged() {
    feed_all(4);
}

#[test]
fn any_hints_are_believed_or_not_and_serve_nothing_that_was_not_written() {
    feed_all(5);
}

#[test]
fn any_envelopes_say_the_same_when_they_are_written_again() {
    feed_all(6);
}
