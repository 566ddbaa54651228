//! The command line: what was typed, and which part of the bridge does it.
//!
//! Exit codes are stable: 0 fine, 1 found problems, 2 usage, 69 a service is unavailable, 78 configuration.

mod check;
mod dead;
mod desk;
mod eval;
mod logs;
mod quarantine;
mod run;
mod schema;
mod send;
mod sink;
mod source;
mod tail;
mod topics;
mod trace;
mod values;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Config;

/// How a command ended. The numbers follow sysexits.h where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Fine = 0,
    /// The command worked, and found something wrong.
    Problems = 1,
    Usage = 2,
    /// `EX_UNAVAILABLE`: Kafka, the registry, or an address of our own is not to be had.
    Unavailable = 69,
    /// `EX_CONFIG`.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Webhooks into Kafka as versioned Avro events, and out again to marketing sinks, with receipts.
#[derive(Debug, Parser)]
#[command(name = "hookbridge", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hookbridge dev                                     everything in one process, to look around
  hookbridge check --config hookbridge.yaml          every problem of a configuration at once
  hookbridge topics plan                             what Kafka lacks for it
  hookbridge run --config hookbridge.yaml            the bridge
  hookbridge source show stripe                      what to paste at the provider, what comes of it
  hookbridge send stripe                             a signed test event
  hookbridge tail --last 10                          the last ten events
  echo '{\"a\": 1}' | hookbridge eval '.a + 1'

Exit codes: 0 fine, 1 found problems, 2 usage, 69 a service is unavailable, 78 configuration";

/// Options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
struct Common {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "hookbridge.yaml",
        env = "HOOKBRIDGE_CONFIG",
        hide_env_values = true
    )]
    config: PathBuf,
    /// Machine-readable output
    #[arg(long, global = true)]
    json: bool,
    /// What to log, as a tracing filter: `info` (the default; `dev`: `warn`), `hookbridge=debug,librdkafka=info`
    #[arg(long, global = true, value_name = "FILTER", env = "HOOKBRIDGE_LOG", hide_env_values = true)]
    log: Option<String>,
    /// How to log: `text` by default on a terminal, `json` elsewhere
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        env = "HOOKBRIDGE_LOG_FORMAT",
        hide_env_values = true
    )]
    log_format: Option<logs::Format>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge
    #[command(after_help = run::EXAMPLES)]
    Run,
    /// A bridge with everything it needs in one process, no Docker, no Java: ephemeral, for a first look
    Dev(crate::dev::Options),
    /// Read a configuration, its schemas and its expressions, and name every problem
    #[command(after_help = check::EXAMPLES)]
    Check,
    /// Send a signed test event to a source
    #[command(after_help = send::EXAMPLES)]
    Send(send::Args),
    /// Try a jq expression on a JSON document from standard input or a file
    #[command(after_help = eval::EXAMPLES)]
    Eval(eval::Args),
    /// Show events as they are in Kafka: decoded, one a line
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::Args),
    /// Look at what a sink has refused for good, and send it again
    #[command(subcommand)]
    Dead(dead::Command),
    /// Look at authentic requests that were no valid events, and publish them once they are
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Work with sources
    #[command(subcommand)]
    Source(source::Command),
    /// Look at sinks, pause them, and read again for them
    #[command(subcommand)]
    Sink(sink::Command),
    /// Show one event's way: its request, its place in Kafka, and what each sink made of it
    #[command(after_help = trace::EXAMPLES)]
    Trace(trace::Args),
    /// Work with schemas
    #[command(subcommand)]
    Schema(schema::Command),
    /// Compare Kafka's topics with the configuration, and mend them
    #[command(subcommand)]
    Topics(topics::Command),
    /// Print shell completions
    #[command(after_help = "\
Examples:
  hookbridge completions bash > ~/.local/share/bash-completion/completions/hookbridge
  hookbridge completions zsh > ~/.zfunc/_hookbridge
  hookbridge completions fish > ~/.config/fish/completions/hookbridge.fish")]
    Completions {
        /// Whose
        shell: clap_complete::Shell,
    },
}

/// Parses the command line, runs the command, and answers its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            // Nobody is left to tell if printing fails.
            let _ = error.print();
            return if usage { Exit::Usage.into() } else { Exit::Fine.into() };
        }
    };
    let mut out = io::stdout();
    let mut err = io::stderr();
    let exit = dispatch(cli, &mut out, &mut err);
    let exit = exit.unwrap_or_else(|error| {
        // The reader of our output has gone (`| head`): that is its good right.
        if error.kind() == io::ErrorKind::BrokenPipe { Exit::Fine } else { Exit::Problems }
    });
    let _ = out.flush();
    exit.into()
}

fn dispatch(cli: Cli, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let common = &cli.common;
    match cli.command {
        Command::Run => run::run(common, err),
        Command::Dev(options) => run::dev(common, &options, err),
        Command::Check => check::check(common, out, err),
        Command::Send(args) => send::send(common, &args, out, err),
        Command::Eval(args) => eval::eval(&args, out, err),
        Command::Tail(args) => tail::tail(common, &args, out, err),
        Command::Dead(command) => dead::dead(common, &command, out, err),
        Command::Quarantine(command) => quarantine::quarantine(common, &command, out, err),
        Command::Source(command) => source::source(common, &command, out, err),
        Command::Sink(command) => sink::sink(common, &command, out, err),
        Command::Trace(args) => trace::trace(common, &args, out, err),
        Command::Topics(command) => topics::topics(common, &command, out, err),
        Command::Schema(command) => schema::schema(common, &command, out, err),
        Command::Completions { shell } => {
            // Into memory first: the generator panics where its reader has gone.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "hookbridge", &mut script);
            out.write_all(&script).map(|()| Exit::Fine)
        }
    }
}

/// Prints an error with its chain of causes, and a hint for what to do.
fn report(err: &mut dyn Write, error: &(dyn std::error::Error + 'static), hint: Option<&str>) -> io::Result<()> {
    writeln!(err, "error: {error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        writeln!(err, "  caused by: {error}")?;
        cause = error.source();
    }
    if let Some(hint) = hint {
        writeln!(err, "\nhint: {hint}")?;
    }
    Ok(())
}

/// Says that the configuration has no such source, and which ones it has.
fn no_such_source(config: &Config, name: &str, err: &mut dyn Write) -> io::Result<Exit> {
    let names: Vec<_> = config.sources.keys().map(String::as_str).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    writeln!(err, "error: there is no source `{name}` in the configuration\n\nhint: there are: {known}")?;
    Ok(Exit::Usage)
}

/// Columns for people: each as wide as its widest cell, the last one as it comes.
fn table<const N: usize>(
    out: &mut dyn Write,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Without control characters: what a sender wrote must not steer a terminal. In JSON they stand in texts only, where
/// the escape means the same.
fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON on one line without control characters: within texts as escapes, which mean the same, and between tokens as
/// blanks.
fn printable_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut in_text, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            c if c.is_control() && in_text => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
        in_text ^= c == '"' && !escaped;
        escaped = in_text && c == '\\' && !escaped;
    }
    out
}

/// Reads a file, or standard input where none is named or `-` is. Bounded, so that a slip (`< /dev/zero`) ends.
fn read_input(file: Option<&std::path::Path>) -> io::Result<Vec<u8>> {
    /// Far above any event, far below what hurts.
    const MAX_INPUT: u64 = 64 << 20;
    let reader: Box<dyn io::Read> = match file {
        Some(path) if path.as_os_str() != "-" => {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            Box::new(std::fs::File::open(path).map_err(named)?)
        }
        _ => Box::new(io::stdin()),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(reader, MAX_INPUT + 1), &mut bytes)?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the input is larger than 64 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn json_stays_json_whatever_stands_between_its_tokens() {
        let text = "{\n\t\"a\": \"x\u{9b}\\\"\\\\\",\r\n\"b\": [1,\n2]}";
        let printed = printable_json(text);
        assert_eq!(printed, "{  \"a\": \"x\\u009b\\\"\\\\\",  \"b\": [1, 2]}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&printed), value(text));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// docs/commands.md, as the command line describes itself.
    fn page() -> String {
        let mut page = "<!-- Written by `HOOKBRIDGE_WRITE_DOCS=1 cargo test --lib the_page_of_commands`. -->\n\n\
                        # Commands\n\n\
                        What `--help` says of each. A configuration is read from `--config`, from `HOOKBRIDGE_CONFIG`, or\n\
                        else from `hookbridge.yaml`; results go to standard output, everything else to standard error.\n\n\
                        | exit code | |\n|---|---|\n| 0 | fine |\n| 1 | it worked, and found problems |\n| 2 | usage |\n\
                        | 69 | a service cannot be reached |\n| 78 | configuration |\n"
            .to_owned();
        let mut root = Cli::command().term_width(100);
        root.build();
        describe(&mut root, "hookbridge", &mut page);
        page
    }

    fn describe(command: &mut clap::Command, path: &str, page: &mut String) {
        let help = command.render_long_help().to_string();
        let lines: Vec<_> = help.lines().map(str::trim_end).collect();
        let (level, help) = (if path.contains(' ') { "###" } else { "##" }, lines.join("\n"));
        let _ = write!(page, "\n{level} {path}\n\n```\n{}\n```\n", help.trim_end());
        for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            describe(inner, &path, page);
        }
    }

    #[test]
    fn the_page_of_commands_is_what_the_command_line_says() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
        if std::env::var_os("HOOKBRIDGE_WRITE_DOCS").is_some() {
            std::fs::write(&file, page()).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            written == page(),
            "docs/commands.md is not what `--help` says: HOOKBRIDGE_WRITE_DOCS=1 writes it anew"
        );
    }

    #[test]
    fn every_preset_is_described_for_its_users() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sources.md");
        let page = std::fs::read_to_string(file).unwrap();
        for name in crate::catalog::preset_names() {
            let section = page.split("\n### ").find(|section| section.starts_with(&format!("`{name}`")));
            let section = section.unwrap_or_else(|| panic!("docs/sources.md has no section `{name}`"));
            for part in ["**Where**", "**Secret**", "**Signed**", "**Event**", "**Limits**"] {
                assert!(section.contains(part), "docs/sources.md: `{name}` says nothing under {part}");
            }
        }
    }
}
