//! What the fuzz targets do with their bytes, callable without a fuzzer.
//!
//! One function per target, each of which panics when a promise is broken; `fuzz_targets/` and `tests/smoke.rs` only
//! call them. May import `tiers` and `engine`, and what the front door hides, to feed them bytes that no store ever wrote.
#![forbid(unsafe_code)]

pub mod crash;
pub mod envelope;
pub mod forge;
pub mod hint;
pub mod operations;
pub mod packed;
pub mod recipe;
pub mod record_decode;
pub mod script;
pub mod segment_scan;

pub use crash::crash;
pub use envelope::envelope;
pub use hint::hint;
pub use operations::operations;
pub use packed::packed;
pub use record_decode::record_decode;
pub use segment_scan::segment_scan;

/// Runs a target on the files that the command names: a found input, without the fuzzer.
///
/// # Errors
/// When a file cannot be read.
pub fn replay(run: fn(&[u8])) -> std::io::Result<()> {
    std::env::args_os().skip(1).try_for_each(|path| std::fs::read(path).map(|bytes| run(&bytes)))
}

/// A target's name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("record_decode", record_decode),
    ("segment_scan", segment_scan),
    ("operations", operations),
    ("crash", crash),
    ("packed", packed),
    ("hint", hint),
    ("envelope", envelope),
];
