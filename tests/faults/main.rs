//! Faults made on purpose, and a judge who was not there: three real brokers, two bridges, a sender that repeats as
//! providers do, a nemesis, and a verdict from what was sent and what stands in topics and tables.
//!
//! `cargo test` runs a short form of it; `cargo test --test faults -- --rows all --runs 3` is the real thing, goes on
//! where it was stopped, and `--page` writes what it found into `docs/faults.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a run that cannot go on has to say so and end"
)]

mod cluster;
mod deployment;
mod evidence;
#[path = "../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the border tests use the rest")]
mod harness;
mod judge;
mod ledger;
mod options;
mod receiver;
mod results;
mod rows;
mod run;
mod sender;
mod victims;

use std::process::ExitCode;

use crate::harness::process::progress;
use crate::options::{Options, Order, USAGE};
use crate::results::Results;
use crate::run::Rig;

fn main() -> ExitCode {
    let done = match options::read(std::env::args().skip(1)) {
        Order::Nothing => Ok(true),
        Order::Usage(error) => Err(format!("{error}\n{USAGE}")),
        Order::Page => Results::open().write_page().map(|()| true),
        Order::Run(options) => run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what is asked for, and says whether all of it was good; of a seeded bug, whether it was found out.
fn run(options: &Options) -> Result<bool, String> {
    let mut results = Results::open();
    let mut open = Vec::new();
    for row in &options.rows {
        for seed in options.seed..options.seed + options.runs {
            if options.again || !results.has(*row, seed, options) {
                open.push((*row, seed));
            }
        }
    }
    if open.is_empty() {
        progress("every one of these runs is in the results");
        return Ok(true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut rig = Rig::start()?;
    let mut bad = 0;
    for (row, seed) in &open {
        let outcome = runtime.block_on(rig.run(*row, *seed, options));
        progress(&outcome.line());
        bad += usize::from(!outcome.is_good());
        if options.kept {
            results.add(outcome)?;
        }
    }
    progress(&format!("{} runs, {bad} with findings", open.len()));
    Ok(if options.bug.is_some() { bad > 0 } else { bad == 0 })
}
