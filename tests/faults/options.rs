//! The command line: `cargo test --test faults -- --rows F1,F6 --runs 3 --seed 7`.

use std::time::Duration;

use crate::rows::Row;

pub(crate) const USAGE: &str = "cargo test --test faults [-- OPTIONS]

Without options: the short run that is part of `cargo test`.
  --rows F1,F6   the rows to run, or `all`, or `twelve`
  --runs N       runs of each row (1), seeds counting up from
  --seed N       the first run's seed (1)
  --seconds N    how long faults are made in each run (60)
  --rate N       events a second (300)
  --http         an HTTP sink, too, and a vendor that it calls
  --kafka        a Kafka sink, too
  --bug NAME     with `--features seeded-bugs`: what is wrong with the bridge; its runs have to be found out
  --again        runs that the results have already, too
  --page         writes the results into docs/faults.md, and runs nothing";

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) rows: Vec<Row>,
    pub(crate) runs: u64,
    pub(crate) seed: u64,
    pub(crate) seconds: Duration,
    pub(crate) rate: u32,
    pub(crate) http: bool,
    pub(crate) kafka: bool,
    pub(crate) bug: Option<String>,
    pub(crate) again: bool,
    /// Results are kept, and those that are there are not run again.
    pub(crate) kept: bool,
}

#[derive(Debug)]
pub(crate) enum Order {
    Run(Options),
    Page,
    /// Somebody asked libtest for something that is not here.
    Nothing,
    Usage(String),
}

impl Options {
    /// What `cargo test` runs: a leader is killed, then bridges are, with both kinds of sinks at work.
    fn short() -> Self {
        Self {
            rows: vec![Row::F6, Row::F1],
            runs: 1,
            seed: 1,
            seconds: Duration::from_secs(10),
            rate: 120,
            http: true,
            kafka: false,
            bug: None,
            again: true,
            kept: false,
        }
    }

    fn full() -> Self {
        Self { seconds: Duration::from_secs(60), rate: 300, http: false, again: false, kept: true, ..Self::short() }
    }
}

pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Order {
    let of_libtest = ["--nocapture", "--no-capture", "--show-output", "--quiet", "--exact"];
    // `cargo test -- --nocapture` gives these to every target.
    let mut arguments = arguments.filter(|argument| !of_libtest.contains(&argument.as_str())).peekable();
    if arguments.peek().is_none() {
        return Order::Run(Options::short());
    }
    let mut options = Options::full();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        let read = match argument.as_str() {
            "--page" => return Order::Page,
            "--again" => {
                options.again = true;
                Ok(())
            }
            "--http" => {
                options.http = true;
                Ok(())
            }
            "--kafka" => {
                options.kafka = true;
                Ok(())
            }
            "--rows" => value().and_then(|text| rows(&text)).map(|rows| options.rows = rows),
            "--runs" => number(value()).map(|runs| options.runs = runs),
            "--seed" => number(value()).map(|seed| options.seed = seed),
            "--seconds" => number(value()).map(|seconds| options.seconds = Duration::from_secs(seconds)),
            "--rate" => number(value()).map(|rate| options.rate = u32::try_from(rate).unwrap_or(u32::MAX).max(1)),
            "--bug" => value().map(|bug| options.bug = Some(bug)),
            "--help" | "-h" => Err(String::new()),
            // `cargo test NAME` gives every test target its filter, and an editor may ask for a list.
            other if !other.starts_with("--") || other == "--list" => return Order::Nothing,
            other => Err(format!("{other} is not known")),
        };
        if let Err(error) = read {
            return Order::Usage(error);
        }
    }
    Order::Run(options)
}

fn rows(text: &str) -> Result<Vec<Row>, String> {
    match text {
        "all" => return Ok(Row::ALL.to_vec()),
        "twelve" => return Ok(Row::TWELVE.to_vec()),
        _ => {}
    }
    text.split(',').map(|name| Row::of(name).ok_or_else(|| format!("there is no row {name}"))).collect()
}

fn number(text: Result<String, String>) -> Result<u64, String> {
    let text = text?;
    text.parse().map_err(|_| format!("{text} is not a number"))
}
