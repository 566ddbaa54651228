//! The incoming half, measured beside a bare `axum` + `rdkafka` handler: both in rounds that take turns, on a real
//! Kafka, each a process of its own, both built from this Cargo.lock. What counts is the ratio within a round.
//!
//! ```text
//! cargo bench --bench ingest                      five rounds, all loads; gates on the ratios
//! cargo bench --bench ingest -- --smoke           a round of seconds: does it run, is every 2xx in the topic
//! cargo bench --bench ingest -- --memory          60 s at 5,000 events/s: peak memory
//! cargo bench --bench ingest -- --attack          500 events/s beside peers that mean harm: p99, memory
//! ```
//! `--rounds N` and `--seconds N` make it shorter or longer. Kafka and the registry are those of the tests: started
//! here, or given by `KAFKA_BOOTSTRAP_SERVERS` and `SCHEMA_REGISTRY_URL`; `--broker PID` then says which process the
//! broker is, so that it is not taken for foreign load. docs/speed.md has the protocol and what came out.

// A bench talks to a person, ends with a status, and stops where it cannot go on. Counts and times become ratios.
#![allow(clippy::print_stdout, clippy::exit, clippy::expect_used)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "ingest/attack.rs"]
mod attack;
#[path = "ingest/bare.rs"]
mod bare;
#[path = "../tests/it/harness/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::print_stderr, reason = "the tests use more of it, and say so there")]
mod harness;
#[path = "ingest/load.rs"]
mod load;
#[path = "ingest/rounds.rs"]
mod rounds;
#[allow(dead_code, reason = "each bench uses a part of it")]
mod shared;
#[path = "ingest/world.rs"]
mod world;

use std::time::Duration;

use self::rounds::{Limits, Plan};
use self::shared::Arguments;

/// 60 s at 5,000 events/s stay below this, whatever the machine.
const MEMORY_MIB: f64 = 100.0;

fn main() {
    let args = Arguments::read();
    if let Some([address, bootstrap, topic, ..]) = args.behind("--bare") {
        // This same binary is the bare candidate: nothing else to build.
        return bare::serve(address.parse().expect("an address"), bootstrap, topic);
    }
    let broker = args.broker();
    if args.has("--memory") {
        let run = Duration::from_secs(args.number("--seconds").unwrap_or(60));
        std::process::exit(rounds::memory(broker, run, 5_000, MEMORY_MIB));
    }
    if args.has("--attack") {
        std::process::exit(attack::run(broker, Duration::from_secs(args.number("--seconds").unwrap_or(10))));
    }
    let mut plan = if args.has("--smoke") {
        // Too short to judge by: the gates are left far open, and the count is what is checked.
        Plan { rounds: 1, run: Duration::from_secs(2), limits: Limits { rate: 0.3, cpu: 4.0, p50: 4.0 } }
    } else {
        Plan { rounds: 5, run: Duration::from_secs(10), limits: Limits { rate: 0.75, cpu: 1.8, p50: 1.3 } }
    };
    if let Some(rounds) = args.number("--rounds") {
        plan.rounds = rounds as usize;
    }
    if let Some(seconds) = args.number("--seconds") {
        plan.run = Duration::from_secs(seconds);
    }
    std::process::exit(rounds::run(broker, &plan));
}
