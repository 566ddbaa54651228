//! The promises of the bridge, tested at its border: the real binary, a real Kafka, registry and Postgres.
//!
//! One binary, so that the services start once. Nothing is skipped where something is missing: the run fails and says
//! what to install.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on has to say so and end"
)]

mod bad_input;
mod batches;
mod borders;
mod cli;
mod commands;
mod crash;
mod dedupe;
mod drain;
mod harness;
mod http_batch;
mod http_sink;
mod isolation;
mod kafka_edge;
mod kafka_read;
mod kafka_sink;
mod load;
mod postgres_dead;
mod postgres_sink;
mod reload;
mod restarts;
mod restore;
mod rewind;
mod the_line;
mod tombstones;
mod too_large;
mod transactions;
mod trio;
mod way_back;
