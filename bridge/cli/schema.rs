//! `hookbridge schema`: schemas tried and registered from the command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Common, Exit, read_input, report};
use crate::config::UnknownFields;
use crate::schema::files::{self, SharedTypes};
use crate::schema::plan::{Plan, Scratch};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write the Avro datum of a JSON document from standard input, or every violation as JSON, one a line
    #[command(
        after_help = "Example:\n  hookbridge schema encode schemas/identity/lead_captured/1.avsc --hex < lead.json"
    )]
    Encode(EncodeArgs),
    /// Register the schemas that the configuration's events are written with
    #[command(after_help = "\
A schema that the registry has already keeps its id. `registry.auto_register: true` does the same at each start of `run`.

Example:
  hookbridge schema register --config hookbridge.yaml

Exit codes: 0 fine, 1 the registry refuses one, 2 usage, 69 the registry cannot be reached, 78 configuration")]
    Register,
}

#[derive(Debug, clap::Args)]
pub(super) struct EncodeArgs {
    /// The schema
    #[arg(value_name = "FILE.avsc")]
    file: PathBuf,
    /// Print hexadecimal text
    #[arg(long)]
    hex: bool,
    /// What to do with fields that the schema does not have
    #[arg(long, value_enum, default_value = "reject")]
    unknown_fields: Unknown,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Unknown {
    Reject,
    Drop,
    Capture,
    Warn,
}

impl From<Unknown> for UnknownFields {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Reject => Self::Reject,
            Unknown::Drop => Self::Drop,
            Unknown::Capture => Self::Capture,
            Unknown::Warn => Self::Warn,
        }
    }
}

pub(super) fn schema(common: &Common, command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    match command {
        Command::Encode(args) => encode(args, out, err),
        Command::Register => super::run::register(common, out, err),
    }
}

fn encode(args: &EncodeArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let parsed = match parse(&args.file) {
        Ok(parsed) => parsed,
        Err(error) => {
            let hint = error.hint();
            let hint = hint.as_deref().unwrap_or("give an Avro schema; its shared types are looked for in `common/`");
            report(err, &error, Some(hint))?;
            return Ok(Exit::Usage);
        }
    };
    let plan = match Plan::compile(&parsed.inlined, args.unknown_fields.into()) {
        Ok(plan) => plan,
        Err(error) => {
            report(err, &error, None)?;
            return Ok(Exit::Usage);
        }
    };
    let document = read_input(None)?;
    let mut datum = Vec::new();
    match plan.encode(&document, &mut Scratch::default(), &mut datum) {
        Ok(_) if args.hex => {
            writeln!(out, "{}", hex::encode(datum))?;
            Ok(Exit::Fine)
        }
        Ok(_) => {
            out.write_all(&datum)?;
            Ok(Exit::Fine)
        }
        Err(refused) => {
            let violations = refused.into_violations();
            for violation in &violations.first {
                serde_json::to_writer(&mut *out, violation)?;
                writeln!(out)?;
            }
            let unsaid = violations.total - violations.first.len();
            if unsaid > 0 {
                writeln!(err, "and {unsaid} more")?;
            }
            Ok(Exit::Problems)
        }
    }
}

/// A schema by its file. Its shared types are in the nearest folder above it that has a `common/`, if one has.
fn parse(file: &Path) -> Result<files::Parsed, files::Error> {
    let text = files::read(file)?;
    let folder = file.ancestors().skip(1).find(|folder| folder.join("common").is_dir());
    let shared = folder.map(|folder| SharedTypes::load(folder).0).unwrap_or_default();
    files::parse(&text, &shared)
}
