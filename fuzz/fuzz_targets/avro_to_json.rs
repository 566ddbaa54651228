//! `tests/strangers/avro_to_json.rs`, which says what must hold, for libFuzzer.
#![no_main]

#[path = "../../tests/strangers/avro_to_json.rs"]
#[allow(dead_code, reason = "seeds are for the test")]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::meet(data));
