//! The outgoing half, measured beside what little could do the same: over HTTP a bare consumer and client, into Postgres a
//! bare COPY loop. They take turns on one topic of a real Kafka, each a process of its own, all built from this
//! Cargo.lock. What counts is the ratio within a round, and nothing counts unless every event came once, and in order.
//!
//! ```text
//! cargo bench --bench deliver                      five rounds of 200,000 records; gates on the ratios
//! cargo bench --bench deliver -- --smoke           a round of 5,000: does it run, did all of it come once
//! cargo bench --bench deliver -- --sweep           the product's settings beside each other
//! cargo bench --bench deliver -- --restore         a start on a million receipts of one partition: time, memory
//! ```
//! `--http` or `--postgres` leave the other out; `--rounds N`, `--records N` make it shorter or longer. Services, and
//! `--broker PID`, as in benches/ingest.rs; docs/speed.md has the protocol and what came out.

// A bench talks to a person, ends with a status, and stops where it cannot go on. Counts and times become ratios.
#![allow(clippy::print_stdout, clippy::exit, clippy::expect_used)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "deliver/bare_copy.rs"]
mod bare_copy;
#[path = "deliver/bare_http.rs"]
mod bare_http;
#[path = "deliver/events.rs"]
mod events;
#[path = "../tests/it/harness/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::print_stderr, reason = "the tests use more of it, and say so there")]
mod harness;
#[path = "deliver/measure.rs"]
mod measure;
#[path = "deliver/receiver.rs"]
mod receiver;
#[path = "deliver/restore.rs"]
mod restore;
#[path = "deliver/rounds.rs"]
mod rounds;
#[allow(dead_code, reason = "each bench uses a part of it")]
mod shared;
#[path = "deliver/world.rs"]
mod world;

use self::rounds::{Limits, Plan};
use self::shared::Arguments;
use self::world::{PARTITIONS, World};

const RECORDS: u64 = 200_000;
/// Too short to judge by: the count is what is checked, and the gates are left far open.
const SMOKE_RECORDS: u64 = 5_000;
const RECEIPTS: u64 = 1_000_000;

fn main() {
    let args = Arguments::read();
    if candidate(&args) {
        return;
    }
    let (smoke, broker) = (args.has("--smoke"), args.broker());
    let records = args.number("--records");
    if args.has("--restore") {
        let world = World::start(broker, 1, 1);
        let status = restore::run(&world, records.unwrap_or(RECEIPTS));
        drop(world);
        std::process::exit(status);
    }
    let count = records.unwrap_or(if smoke { SMOKE_RECORDS } else { RECORDS });
    let world = World::start(broker, PARTITIONS, count as usize);
    let (http, postgres) = (!args.has("--postgres"), !args.has("--http"));
    let status = if args.has("--sweep") {
        rounds::sweep(&world, http, postgres)
    } else {
        let rounds = args.number("--rounds").unwrap_or(if smoke { 1 } else { 5 }) as usize;
        let limits = if smoke { OPEN } else { GATES };
        rounds::run(&world, &Plan { rounds, http, postgres, repeat: !smoke, limits })
    };
    drop(world);
    std::process::exit(status);
}

const GATES: Limits =
    Limits { http_rate: 0.6, http_cpu: 1.7, connections: 2.0, copy_rate: 0.7, rows_per_second: 20_000.0 };
const OPEN: Limits =
    Limits { http_rate: 0.0, http_cpu: f64::INFINITY, connections: 2.0, copy_rate: 0.0, rows_per_second: 0.0 };

/// This same binary is the bare candidates: whether it was started as one, and has been it until its end.
fn candidate(args: &Arguments) -> bool {
    if let Some([bootstrap, topic, group, url, in_flight, body_bytes, ..]) = args.behind("--bare-http") {
        let number = |text: &String| text.parse().expect("a number");
        let (in_flight, body_bytes) = (number(in_flight), number(body_bytes));
        bare_http::deliver(&bare_http::Task { bootstrap, topic, group, url, in_flight, body_bytes });
        return true;
    }
    if let Some([bootstrap, topic, group, database, model, table, ..]) = args.behind("--bare-copy") {
        bare_copy::copy(&bare_copy::Task { bootstrap, topic, group, database, model, table });
        return true;
    }
    false
}
