//! Bytes from strangers, against everything that reads them: seeds of what really comes, bent and broken by chance. Each
//! module says what must hold of any bytes whatever; that nothing panics is the least of it.
//!
//! This is the regression test, a moment for each reader. `fuzz/` gives the same modules to libFuzzer, which finds more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on has to say so"
)]

mod avro_to_json;
mod bend;
mod configuration;
mod dead_letters;
mod handshake_request;
mod json_to_avro;
mod orders;
mod quarantined;
mod receipts;
mod signature_headers;
mod split_request;

use bend::meet;

#[test]
fn signature_headers_are_refused_where_no_key_has_signed() {
    meet(&signature_headers::seeds(), signature_headers::meet);
}

#[test]
fn handshakes_tell_nobody_what_only_the_provider_may_hear() {
    meet(&handshake_request::seeds(), handshake_request::meet);
}

#[test]
fn a_body_is_split_as_it_is_read_or_not_at_all() {
    meet(&split_request::seeds(), split_request::meet);
}

#[test]
fn json_becomes_avro_that_can_be_read_or_nothing() {
    meet(&json_to_avro::seeds(), json_to_avro::meet);
}

#[test]
fn avro_becomes_json_that_can_be_read_or_nothing() {
    meet(&avro_to_json::seeds(), avro_to_json::meet);
}

#[test]
fn a_configuration_is_taken_or_refused_with_reasons() {
    meet(&configuration::seeds(), configuration::meet);
}

#[test]
fn a_receipt_that_is_read_is_written_as_it_was() {
    meet(&receipts::seeds(), receipts::meet);
}

#[test]
fn a_dead_letter_that_is_read_dies_again_as_itself() {
    meet(&dead_letters::seeds(), dead_letters::meet);
}

#[test]
fn a_record_of_a_quarantine_is_a_request_a_mark_or_foreign() {
    meet(&quarantined::seeds(), quarantined::meet);
}

#[test]
fn an_order_is_understood_or_refused() {
    meet(&orders::seeds(), orders::meet);
}
