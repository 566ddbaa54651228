//! Structured logs on standard error: text for people, JSON for everything else.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// Starts logging for the life of the process.
///
/// # Errors
/// Where the filter cannot be read.
pub(super) fn start(filter: &str, format: Option<Format>) -> Result<(), ParseError> {
    let filter: EnvFilter = filter.parse()?;
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second start in one process is a test's; the first subscriber stays.
    let _ = match format {
        Format::Text => builder.with_ansi(terminal).with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
