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
#[path = "ingest/process.rs"]
mod process;
#[path = "ingest/rounds.rs"]
mod rounds;
#[path = "ingest/world.rs"]
mod world;

use std::time::Duration;

use self::rounds::{Limits, Plan};

/// 60 s at 5,000 events/s stay below this, whatever the machine.
const MEMORY_MIB: f64 = 100.0;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let number = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        Some(args.get(at + 1)?.parse::<u64>().expect("a number"))
    };
    if let Some(at) = args.iter().position(|arg| arg == "--bare") {
        // This same binary is the bare candidate: nothing else to build.
        return bare::serve(args[at + 1].parse().expect("an address"), &args[at + 2], &args[at + 3]);
    }
    let broker = number("--broker").map(|pid| pid as u32);
    if has("--memory") {
        let run = Duration::from_secs(number("--seconds").unwrap_or(60));
        std::process::exit(rounds::memory(broker, run, 5_000, MEMORY_MIB));
    }
    if has("--attack") {
        std::process::exit(attack::run(broker, Duration::from_secs(number("--seconds").unwrap_or(10))));
    }
    let mut plan = if has("--smoke") {
        // Too short to judge by: the gates are left far open, and the count is what is checked.
        Plan { rounds: 1, run: Duration::from_secs(2), limits: Limits { rate: 0.3, cpu: 4.0, p50: 4.0 } }
    } else {
        Plan { rounds: 5, run: Duration::from_secs(10), limits: Limits { rate: 0.75, cpu: 1.8, p50: 1.3 } }
    };
    if let Some(rounds) = number("--rounds") {
        plan.rounds = rounds as usize;
    }
    if let Some(seconds) = number("--seconds") {
        plan.run = Duration::from_secs(seconds);
    }
    std::process::exit(rounds::run(broker, &plan));
}
