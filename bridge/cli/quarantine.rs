//! `hookbridge quarantine`: requests that were authentic and no valid events, looked at and published once they are.

mod replay;
mod shown;

use std::io::{self, Write};

use self::shown::Shown;
use super::desk::{Choice, Desk, Ended, Sieve, read_all};
use super::{Common, Exit, no_such_source};
use crate::app::start::quarantine_topic;
use crate::kafka::Client;
use crate::kafka::peek::Begin;
use crate::replay::quarantine::{Quarantine, Request, Standing};

const LIST: &str = "\
`--where` sees what `list --json` prints: .state .reason .violations .received_at .events .failed .key \
.headers .body (as JSON where it is JSON, else as text)

Examples:
  hookbridge quarantine list stripe
  hookbridge quarantine list stripe --where '.reason == \"unmapped\"'
  hookbridge quarantine list stripe --where '.body.type == \"invoice.paid\"' --since 24h
  hookbridge quarantine list stripe --json | jq .violations

States: kept (waits for you), partly (some of its events are published since), replayed.

Exit codes: 0 fine, 2 usage, 69 Kafka cannot be reached, 78 configuration";

const REPLAY: &str = "\
A request is mapped and validated once more, by the rules and schemas of today, and only those of its \
events that it is kept for are published. What is still wrong stays where it is. Events and a mark that \
says so are one transaction: to run it twice publishes once, and a second one at the same time ends the \
first. Signatures are not checked again. `--dry-run` writes nothing.

Examples:
  hookbridge quarantine replay stripe 0@17
  hookbridge quarantine replay stripe --where '.reason == \"invalid\"' --dry-run
  hookbridge quarantine replay stripe --every

A request that now splits into another number of events is left alone, unless `--all` publishes all of \
it: events that were good when it came are then published once more, under the same ids.

Exit codes: 0 fine, 1 some did not pass, or there is none, 2 usage, 69 Kafka or the registry cannot be \
reached, 78 configuration";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show a source's quarantined requests: what is wrong with them, and which were replayed
    #[command(after_help = LIST)]
    List(ListArgs),
    /// Show one request with all that is wrong with it, as it came
    #[command(after_help = "\
Examples:
  hookbridge quarantine show stripe 0@17
  hookbridge quarantine show stripe 0@17 --json | jq .body

Exit codes: 0 fine, 1 there is none there, 2 usage, 69 Kafka cannot be reached, 78 configuration")]
    Show(ShowArgs),
    /// Publish what has become valid: a rule, a schema or a mapping was mended
    #[command(after_help = REPLAY)]
    Replay(ReplayArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Of this source
    source: String,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// Of this source
    source: String,
    /// Its place (PARTITION@OFFSET), or its key: the event id of a request with one event
    #[arg(value_name = "PLACE|KEY")]
    which: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// Of this source
    source: String,
    /// Their places (PARTITION@OFFSET) or keys
    #[arg(value_name = "PLACE|KEY")]
    which: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    /// Every request that `--where` and `--since` leave, without naming any
    #[arg(long, conflicts_with = "which")]
    every: bool,
    /// Of a request that splits into another number than when it came, publish all
    #[arg(long)]
    all: bool,
    /// Say what would be published, and what is still wrong; write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn quarantine(
    common: &Common,
    command: &Command,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let desk = match Desk::open(common, "quarantine", err)? {
        Ok(desk) => desk,
        Err(exit) => return Ok(exit),
    };
    let (Command::List(ListArgs { source, .. })
    | Command::Show(ShowArgs { source, .. })
    | Command::Replay(ReplayArgs { source, .. })) = command;
    if !desk.compiled.config.sources.contains_key(source) {
        return no_such_source(&desk.compiled.config, source, err);
    }
    let ended = match command {
        Command::List(args) => list(common, &desk, args, out, err),
        Command::Show(args) => show(common, &desk, args, out, err),
        Command::Replay(args) => replay::replay(common, desk, args, out, err),
    };
    ended.or_else(|ended| ended.tell(err))
}

/// A source's quarantine, from some time on.
fn read(client: &Client, topic: &str, begin: Begin, err: &mut dyn Write) -> Result<Quarantine, Ended> {
    let mut quarantine = Quarantine::default();
    read_all(client, topic, begin, |record| quarantine.take(record))?;
    if quarantine.foreign > 0 {
        let foreign = quarantine.foreign;
        writeln!(err, "{foreign} record(s) of {topic} are no requests of hookbridge, and were left out")?;
    }
    Ok(quarantine)
}

/// Those that were asked for, in the order in which they came.
fn chosen<'q>(
    quarantine: &'q Quarantine,
    choice: &Choice,
    which: &[String],
    err: &mut dyn Write,
) -> Result<Vec<(&'q Request, Shown)>, Ended> {
    let mut sieve = Sieve::new(choice.program(err)?);
    let named = quarantine
        .in_order()
        .into_iter()
        .filter(|request| which.is_empty() || which.iter().any(|which| is_named(request, which)));
    let shown =
        named.map(|request| (request, Shown::new(request, quarantine.standing(request), quarantine.marks(request))));
    let chosen = shown.filter(|(_, shown)| sieve.takes(|| shown.json())).collect();
    sieve.tell(err)?;
    Ok(chosen)
}

fn is_named(request: &Request, which: &str) -> bool {
    let (partition, offset) = request.place;
    which == format!("{partition}@{offset}") || request.key.as_deref() == Some(which.as_bytes())
}

fn list(
    common: &Common,
    desk: &Desk,
    args: &ListArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    // Before anything is read for it.
    args.choice.program(err)?;
    let topic = quarantine_topic(&desk.compiled.config, &args.source);
    let quarantine = read(&desk.client, &topic, args.choice.begin(), err)?;
    let chosen = chosen(&quarantine, &args.choice, &[], err)?;
    if common.json {
        for (_, shown) in &chosen {
            writeln!(out, "{}", shown.json())?;
        }
        return Ok(Exit::Fine);
    }
    if !chosen.is_empty() {
        super::table(out, shown::HEAD, chosen.iter().map(|(request, shown)| shown.row(request)))?;
    }
    let of = |standing: Standing| {
        let count = chosen.iter().filter(|(request, _)| quarantine.standing(request) == standing).count();
        format!("{count} {}", standing.name())
    };
    let states = [Standing::Kept, Standing::Partly, Standing::Replayed].map(of).join(", ");
    writeln!(err, "{} request(s) in quarantine: {states}", chosen.len())?;
    Ok(Exit::Fine)
}

fn show(
    common: &Common,
    desk: &Desk,
    args: &ShowArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    let topic = quarantine_topic(&desk.compiled.config, &args.source);
    let quarantine = read(&desk.client, &topic, Begin::Beginning, err)?;
    let none = Choice { filter: None, since: None };
    let chosen = chosen(&quarantine, &none, std::slice::from_ref(&args.which), err)?;
    if chosen.is_empty() {
        return nothing(&args.source, err);
    }
    for (request, shown) in &chosen {
        if common.json {
            writeln!(out, "{}", shown.json())?;
        } else {
            shown.print(request, quarantine.marks(request), out)?;
        }
    }
    Ok(Exit::Fine)
}

fn nothing(source: &str, err: &mut dyn Write) -> Result<Exit, Ended> {
    writeln!(
        err,
        "error: there is no such request\n\nhint: `hookbridge quarantine list {source}` shows what there is"
    )?;
    Ok(Exit::Problems)
}
