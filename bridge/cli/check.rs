//! `hookbridge check`: the configuration, its schemas and its expressions, every problem at once, offline.

use std::io::{self, Write};
use std::path::Path;

use super::{Common, Exit, report};
use crate::app::compile::{self, Compiled, compile};
use crate::config::{self, Config, Location, Problem};
use crate::ingest::server::descriptors;

pub(super) const EXAMPLES: &str = "\
Examples:
  hookbridge check --config hookbridge.yaml
  hookbridge check --json | jq 'select(.severity == \"error\")'

Exit codes: 0 nothing is wrong with it (there may be warnings; a part that this version cannot do yet is one), 2 usage, \
78 it is refused";

pub(super) fn check(common: &Common, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let loaded = match config::load(&common.config, &config::Process) {
        Ok(loaded) => loaded,
        Err(problems) => return print(common, &compile::everything(&problems), out).map(|()| Exit::Config),
    };
    let config = &loaded.config;
    let summary = [("event", config.events.len()), ("source", config.sources.len()), ("sink", config.sinks.len())]
        .map(|(what, count)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .join(", ");
    let refused_by_run = loaded.not_built.len();
    let descriptors = short_of_descriptors(config, &loaded.file);
    let (mut all, exit) = match compile(loaded.config, &loaded.file) {
        Ok(_) => (Vec::new(), Exit::Fine),
        Err(problems) => (problems, Exit::Config),
    };
    all.extend(loaded.warnings);
    all.extend(descriptors);
    all.extend(loaded.not_built);
    all.sort_by_key(|problem| (problem.at.line, problem.at.column));
    print(common, &all, out)?;
    if exit == Exit::Fine {
        let but = match refused_by_run {
            0 => String::new(),
            1 => ", but `run` refuses it for the part that is not built yet".to_owned(),
            several => format!(", but `run` refuses it for the {several} parts that are not built yet"),
        };
        writeln!(err, "{}: fine: {summary}{but}", common.config.display())?;
    }
    Ok(exit)
}

/// A warning where this process, whose limits a bridge started from here would have, may open too few files.
fn short_of_descriptors(config: &Config, file: &Path) -> Option<Problem> {
    const KEY: &str = "ingest.max_connections";
    let asked = config.ingest.max_connections;
    let descriptors::Room::Short { connections, limit } = descriptors::room_for(asked) else { return None };
    let places = &config.written.places;
    let at = places.get(KEY).or_else(|| places.get("ingest")).cloned().unwrap_or_default();
    let message = format!("is {asked}, and the limit on open files here, {limit}, leaves {connections} connections");
    let problem = Problem::warning(file, Location { path: KEY.to_owned(), ..at }, message);
    Some(
        problem
            .with_hint("raise the limit where the bridge is started (`ulimit -Hn`, `LimitNOFILE=`), or ask for fewer"),
    )
}

/// For `run` and its like: the configuration compiled, or its problems printed.
pub(super) fn compiled(common: &Common, err: &mut dyn Write) -> io::Result<Result<Compiled, Exit>> {
    match compile::read(&common.config, &config::Process) {
        Ok(compiled) => Ok(Ok(compiled)),
        Err(problems) => print(common, &problems, err).map(|()| Err(Exit::Config)),
    }
}

fn print(common: &Common, problems: &[Problem], out: &mut dyn Write) -> io::Result<()> {
    for problem in problems {
        if common.json {
            serde_json::to_writer(&mut *out, problem)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{problem}")?;
        }
    }
    Ok(())
}

/// Starts logging, or says why not.
pub(super) fn logging(common: &Common, default: &str, err: &mut dyn Write) -> io::Result<Option<Exit>> {
    match super::logs::start(common.log.as_deref().unwrap_or(default), common.log_format) {
        Ok(()) => Ok(None),
        Err(error) => {
            report(err, &error, Some("a filter looks like `info` or `hookbridge=debug,librdkafka=info`"))?;
            Ok(Some(Exit::Usage))
        }
    }
}
