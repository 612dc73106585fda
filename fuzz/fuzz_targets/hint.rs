//! Feeds the fuzzer's bytes to [`thermocline_fuzz::hint`], which says what has to hold; without a fuzzer, files.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| thermocline_fuzz::hint(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    thermocline_fuzz::replay(thermocline_fuzz::hint)
}
