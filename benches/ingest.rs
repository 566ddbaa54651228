//! The incoming half, measured beside a bare `axum` + `rdkafka` handler: both in rounds that take turns, on a real
//! Kafka, each a process of its own, both built from this Cargo.lock. What counts is the ratio within a round.
//!
//! ```text
//! cargo bench --bench ingest                      five rounds, all loads; gates on the ratios
//! cargo bench --bench ingest -- --smoke           a round of seconds: does it run, is every 2xx in the topic
//! cargo bench --bench ingest -- --memory          60 s at 5,000 events/s: peak memory
//! ```
//! docs/speed.md has the protocol and what came out.

#[path = "ingest/bare.rs"]
mod bare;
#[path = "../tests/it/harness/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod harness;
#[path = "ingest/load.rs"]
mod load;
#[path = "ingest/process.rs"]
mod process;
#[path = "ingest/rounds.rs"]
mod rounds;

use std::time::Duration;

use self::rounds::{Limits, Plan};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if let Some(at) = args.iter().position(|arg| arg == "--bare") {
        // This same binary is the bare candidate: nothing else to build.
        return bare::serve(args[at + 1].parse().expect("an address"), &args[at + 2], &args[at + 3]);
    }
    if has("--memory") {
        std::process::exit(rounds::memory(Duration::from_secs(60), 5_000, 100.0));
    }
    let plan = if has("--smoke") {
        // Too short to judge by: the gates are left far open, and the count is what is checked.
        Plan { rounds: 1, run: Duration::from_secs(2), limits: Limits { rate: 0.3, cpu: 4.0, p50: 4.0 } }
    } else {
        Plan { rounds: 5, run: Duration::from_secs(10), limits: Limits { rate: 0.75, cpu: 1.8, p50: 1.3 } }
    };
    std::process::exit(rounds::run(&plan));
}
