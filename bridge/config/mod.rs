//! The configuration: one YAML file, read whole, every problem named at once.
//!
//! ```text
//!  text ──yaml──▶ nodes with line and column ──reader, read/*──▶ Config      what it means
//!                 what was written            │                └▶ not built  what `run` refuses
//!                                             └─────────────────▶ problems   what is wrong, all of it
//! ```

mod environment;
mod interpolate;
pub mod kafka_properties;
mod model;
mod network;
mod not_built;
mod problem;
mod read;
mod reader;
mod same;
mod scheme;
mod secret;
#[cfg(test)]
mod tests;
pub mod units;
mod yaml;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

pub use environment::{Environment, Process};
pub use model::*;
pub use network::Network;
pub use problem::{Problem, Problems, Severity};
pub(crate) use read::postgres_url;
pub use secret::Secret;

/// Bytes of a configuration file. A thousand sources take about 300 KiB; a file beyond this is not a configuration.
const MAX_FILE: u64 = 1024 * 1024;

/// Problems that are told of one file. Whoever has a thousand will not read the next.
const MAX_PROBLEMS: usize = 1_000;

/// A file that was read without an error.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub file: PathBuf,
    pub config: Config,
    /// What a person should look at.
    pub warnings: Vec<Problem>,
    /// What the file asks for and this version cannot do: a warning of `check`, a refusal of `run`.
    pub not_built: Vec<Problem>,
}

/// Reads the configuration file at `path`, with the variables and files that `env` answers with.
///
/// # Errors
/// Everything that is wrong with it, warnings included, sorted by line.
pub fn load(path: &Path, env: &dyn Environment) -> Result<Loaded, Problems> {
    let refuse = |message: String| {
        let problem = Problem::error(path, Location::default(), message);
        Problems { file: path.to_owned(), all: vec![problem], expressions: Vec::new() }
    };
    let unread = |error: std::io::Error| {
        let mut problems = refuse(format!("cannot be read: {error}"));
        if error.kind() == std::io::ErrorKind::NotFound {
            const HINT: &str = "`--config` says where it is; hookbridge.example.yaml is one to begin with";
            problems.all = problems.all.into_iter().map(|problem| problem.with_hint(HINT)).collect();
        }
        problems
    };
    let bytes = env.read_file(path, MAX_FILE).map_err(unread)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(refuse(format!("is larger than {MAX_FILE} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = String::from_utf8_lossy(before).matches('\n').count() + 1;
        refuse(format!("is not UTF-8 (in line {line})"))
    })?;
    parse(path, &text, env)
}

/// Reads a configuration from `text`; `path` says where relative paths start and what to call it in messages.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str, env: &dyn Environment) -> Result<Loaded, Problems> {
    let document = yaml::parse(text);
    let reader = reader::Reader::new(path, env);
    for fault in document.faults {
        reader.fault(fault);
    }
    // Of a file that could be read in part only, nothing else is worth telling.
    let config = document.complete.then(|| read::config(&reader.root(&document.root)));
    let findings = reader.finish();
    let refused = findings.has_errors();
    match config {
        Some(config) if !refused => Ok(Loaded {
            file: path.to_owned(),
            config: Config { written: Written { digest: digest(text), ..config.written }, ..config },
            warnings: sorted(findings.problems),
            not_built: sorted(findings.not_built),
        }),
        _ => {
            let all = sorted(findings.problems.into_iter().chain(findings.not_built).collect());
            Err(Problems { file: path.to_owned(), all, expressions: findings.expressions })
        }
    }
}

/// Reads a text that is nothing but a description, such as a source's in the catalogue: by the same reader as a file's
/// own, so that both take and refuse the same. `name` is what messages call it.
///
/// # Errors
/// Everything that is wrong with it, sorted by line.
pub(crate) fn description<T: DeserializeOwned>(name: &Path, text: &str) -> Result<T, Problems> {
    let document = yaml::parse(text);
    // Nothing is filled in, in a description, so the environment is never asked.
    let reader = reader::Reader::new(name, &Process);
    for fault in document.faults {
        reader.fault(fault);
    }
    let read = if document.complete { scheme::described(&reader.root(&document.root)) } else { None };
    let findings = reader.finish();
    match read {
        Some(read) if !findings.has_errors() => Ok(read),
        _ => Err(Problems { file: name.to_owned(), all: sorted(findings.problems), expressions: findings.expressions }),
    }
}

fn digest(text: &str) -> u64 {
    Sha256::digest(text)[..6].iter().fold(0, |digest, &byte| digest << 8 | u64::from(byte))
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| (problem.at.line, problem.at.column));
    problems.truncate(MAX_PROBLEMS);
    problems
}
