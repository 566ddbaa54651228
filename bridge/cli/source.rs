//! `hookbridge source`: what can be asked of sources.

use std::io::{self, Write};
use std::path::PathBuf;

use super::{Exit, read_input, report};
use crate::ingest::vectors;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Verify recorded requests, each at its own time, and print every mismatch
    #[command(after_help = "Example:\n  hookbridge source test tests/vectors/stripe.json")]
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Request vectors, as in tests/vectors; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The preset to verify with, whatever the vectors name
    #[arg(long, value_name = "PRESET")]
    provider: Option<String>,
}

pub(super) fn test(args: &TestArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let hint = format!("`{}` should be a JSON list of request vectors", args.file.display());
    let text = match read_input(Some(&args.file)).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            report(err, &error, Some(&hint))?;
            return Ok(Exit::Usage);
        }
        Err(error) => {
            report(err, &error, Some(&hint))?;
            return Ok(Exit::Usage);
        }
    };
    match vectors::run(&text, args.provider.as_deref(), out) {
        Ok(counts) => Ok(if counts.failed == 0 { Exit::Fine } else { Exit::Problems }),
        Err(error) => {
            report(err, &error, Some(&hint))?;
            Ok(Exit::Usage)
        }
    }
}
