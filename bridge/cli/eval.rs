//! `hookbridge eval`: an expression tried outside the bridge, under the bridge's own rules.

use std::io::{self, Write};
use std::path::PathBuf;

use super::{Exit, read_input, report};
use crate::expr::{self, Tried};

pub(super) const EXAMPLES: &str = "\
Examples:
  echo '{\"amount\": 1999}' | hookbridge eval '.amount | minor_units(\"USD\")'
  hookbridge eval '.data.object.customer' --file event.json";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The jq expression
    expression: String,
    /// The JSON document; standard input where left out
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn eval(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let input = match read_input(args.file.as_deref()) {
        Ok(input) => input,
        Err(error) => {
            report(err, &error, Some("give a readable file, or the document on standard input"))?;
            return Ok(Exit::Usage);
        }
    };
    match expr::eval(&args.expression, &input) {
        Ok(results) => {
            for result in results {
                writeln!(out, "{result}")?;
            }
            Ok(Exit::Fine)
        }
        Err(Tried::Broken(problems)) => {
            for problem in problems {
                writeln!(err, "error: line {}, column {}: {}", problem.line, problem.column, problem.message)?;
            }
            Ok(Exit::Problems)
        }
        Err(Tried::Failed(error)) => {
            report(err, &error, None)?;
            Ok(Exit::Problems)
        }
    }
}
