//! `tests/strangers/dead_letters.rs`, which says what must hold, for libFuzzer.
#![no_main]

#[path = "../../tests/strangers/dead_letters.rs"]
#[allow(dead_code, reason = "seeds are for the test")]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::meet(data));
