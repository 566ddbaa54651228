//! `hookbridge sink`: what sinks promise, where they stand, and orders for them.

mod order;
mod rewind;
mod shown;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use self::rewind::RewindArgs;
use super::desk::{Desk, Ended};
use super::{Common, Exit, report};
use crate::app::start::has_receipts;
use crate::cli::desk::{Progress, ago_ms};
use crate::config::units::parse_duration;
use crate::config::{Purpose, Sink, SinkKind};
use crate::control::{self, Control, Orders};
use crate::deliver::{self, dead};
use crate::kafka::lag::Standing;
use crate::sinks::postgres::{Postgres, Stand};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the sinks of the configuration: what each promises, and whether it is paused
    #[command(after_help = "\
Examples:
  hookbridge sink list
  hookbridge sink list --json

Exit codes: 0 fine, 69 Kafka or the registry cannot be reached, 78 configuration")]
    List,
    /// Show one sink: guarantee, consent that it needs, lag of each partition, what waits and what is dead
    #[command(after_help = "\
Examples:
  hookbridge sink show crm
  hookbridge sink show crm --since 24h     counts the receipts of a day instead of a week
  hookbridge sink show crm --json | jq .lag

Lag counts offsets, which markers of transactions take up as well.

Exit codes: 0 fine, 2 usage, 69 Kafka, the registry or the database cannot be reached,
78 configuration")]
    Show(ShowArgs),
    /// Stop sending, and keep everything: every process stays in the sink's group, with its partitions paused
    #[command(after_help = "\
Calls that are under way end as they end. Nothing expires meanwhile, and the clock of `retry.max_age`
stands still.

Examples:
  hookbridge sink pause crm --reason 'the vendor moves house'
  hookbridge sink resume crm

Exit codes: 0 fine, 2 usage, 69 Kafka or the registry cannot be reached, 78 configuration")]
    Pause(OrderArgs),
    /// Go on where it was paused
    #[command(after_help = "\
Examples:
  hookbridge sink resume crm

Exit codes: 0 fine, 2 usage, 69 Kafka or the registry cannot be reached, 78 configuration")]
    Resume(OrderArgs),
    /// Read again from an earlier place
    #[command(after_help = rewind::EXAMPLES)]
    Rewind(RewindArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The sink
    sink: String,
    /// Count the receipts that were written so long ago, or less
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_duration)]
    since: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct OrderArgs {
    /// The sink
    sink: String,
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) fn sink(common: &Common, command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let desk = match Desk::open(common, "sink", err)? {
        Ok(desk) => desk,
        Err(exit) => return Ok(exit),
    };
    let ended = match command {
        Command::List => list(common, &desk, out),
        Command::Show(args) => show(common, &desk, args, out, err),
        Command::Pause(args) => order::pause(common, &desk, args, true, out, err),
        Command::Resume(args) => order::pause(common, &desk, args, false, out, err),
        Command::Rewind(args) => rewind::rewind(common, &desk, args, out, err),
    };
    ended.or_else(|ended| ended.tell(err))
}

fn orders(desk: &Desk) -> Orders {
    Orders {
        client: desk.client.clone(),
        registry: desk.registry.clone(),
        group: desk.reader_group(),
        topic: control::topic(desk.prefix()),
    }
}

/// What is wanted of each sink now.
fn wanted(desk: &Desk) -> Result<BTreeMap<String, Control>, Ended> {
    Ok(desk.runtime.block_on(orders(desk).all())?)
}

impl From<control::Error> for Ended {
    fn from(error: control::Error) -> Self {
        match error {
            control::Error::Kafka(error) => Self::Kafka(error),
            control::Error::Registry(error) => Self::Registry(error),
            control::Error::Malformed { .. } => Self::Out(io::Error::other(error)),
        }
    }
}

fn kind(sink: &Sink) -> &'static str {
    match sink.kind {
        SinkKind::Postgres(_) => "postgres",
        SinkKind::Http(_) => "http",
        SinkKind::Kafka { .. } => "kafka",
        SinkKind::Preset(_) => "preset",
    }
}

fn guarantee(sink: &Sink) -> &'static str {
    sink.guarantee.map_or("-", crate::config::Guarantee::name)
}

fn purpose(sink: &Sink) -> &str {
    match &sink.purpose {
        Purpose::Unset => "-",
        Purpose::None => "none",
        Purpose::Named(name) => name,
    }
}

fn state(control: Option<&Control>) -> &'static str {
    if control.is_some_and(|control| control.paused) { "paused" } else { "running" }
}

fn list(common: &Common, desk: &Desk, out: &mut dyn Write) -> Result<Exit, Ended> {
    let wanted = wanted(desk)?;
    let sinks = desk.compiled.config.sinks.values();
    if common.json {
        let sinks: Vec<_> = sinks
            .map(|sink| {
                json!({
                    "sink": sink.name, "type": kind(sink), "guarantee": guarantee(sink), "purpose": purpose(sink),
                    "events": sink.events, "wanted": state(wanted.get(&sink.name)),
                })
            })
            .collect();
        writeln!(out, "{}", serde_json::Value::from(sinks))?;
        return Ok(Exit::Fine);
    }
    let row = |sink: &Sink| {
        let cells = [kind(sink), guarantee(sink), purpose(sink), state(wanted.get(&sink.name))].map(str::to_owned);
        let [kind, guarantee, purpose, state] = cells;
        [sink.name.clone(), kind, guarantee, purpose, state, sink.events.join(", ")]
    };
    super::table(out, ["SINK", "TYPE", "GUARANTEE", "PURPOSE", "WANTED", "EVENTS"], sinks.map(row))?;
    Ok(Exit::Fine)
}

/// All that is known of a sink from outside.
struct Known<'k> {
    sink: &'k Sink,
    group: String,
    control: Option<Control>,
    lag: Vec<Standing>,
    /// In the sink's database.
    stands: Vec<Stand>,
    /// Deliveries by their last receipt; none where the sink has no receipts.
    counts: BTreeMap<&'static str, u64>,
    since: Duration,
    /// Offsets of its topic of dead letters.
    dead: u64,
}

fn show(
    common: &Common,
    desk: &Desk,
    args: &ShowArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    let sink = desk.sink(&args.sink, err)?;
    let group = deliver::group(desk.prefix(), &sink.name);
    let topics = desk.event_topics(sink);
    let lag = desk.runtime.block_on(desk.client.standings(&group, desk.client.existing(&topics)?))?;
    let (mut stands, mut exit) = (Vec::new(), Exit::Fine);
    if let SinkKind::Postgres(postgres) = &sink.kind {
        match database(desk, sink, postgres, err)? {
            Some(found) => stands = found,
            None => exit = Exit::Unavailable,
        }
    }
    let counts = if has_receipts(sink) { counts(desk, sink, &topics, args.since)? } else { BTreeMap::new() };
    let dead = dead::topic(desk.prefix(), &sink.name);
    let dead = desk.runtime.block_on(desk.client.standings(&desk.reader_group(), desk.client.existing(&[dead])?))?;
    let known = Known {
        sink,
        group,
        control: wanted(desk)?.remove(&sink.name),
        lag,
        stands,
        counts,
        since: args.since,
        dead: dead.iter().map(|one| u64::try_from(one.end.get() - one.first.get()).unwrap_or_default()).sum(),
    };
    if common.json {
        writeln!(out, "{}", known.json())?;
    } else {
        known.print(out)?;
    }
    Ok(exit)
}

/// Where the partitions stand in the sink's own table; `None`: it cannot be asked, and why was said.
fn database(
    desk: &Desk,
    sink: &Sink,
    postgres: &crate::config::Postgres,
    err: &mut dyn Write,
) -> Result<Option<Vec<Stand>>, Ended> {
    let database = opened(sink, postgres, err)?;
    match desk.runtime.block_on(database.stands()) {
        Ok(stands) => Ok(Some(stands)),
        Err(outcome) => {
            writeln!(err, "error: the database of {} cannot be asked: {}", sink.name, outcome.reason())?;
            Ok(None)
        }
    }
}

fn opened(sink: &Sink, postgres: &crate::config::Postgres, err: &mut dyn Write) -> Result<Postgres, Ended> {
    match Postgres::new(&sink.name, postgres) {
        Ok(database) => Ok(database),
        Err(error) => {
            report(err, &error, None)?;
            Err(Ended::Said(Exit::Config))
        }
    }
}

fn counts(desk: &Desk, sink: &Sink, topics: &[String], since: Duration) -> Result<BTreeMap<&'static str, u64>, Ended> {
    let receipts = desk.receipts(sink, topics.iter().map(String::as_str), ago_ms(since))?;
    if receipts.topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut progress = Progress::of(format!("receipts of {}", sink.name));
    Ok(desk.runtime.block_on(receipts.counts(|read| progress.tell(read)))?)
}

/// A topic of ours that has to be there.
fn exists(desk: &Desk, topic: &str, err: &mut dyn Write) -> Result<(), Ended> {
    if desk.client.existing(&[topic.to_owned()])?.is_empty() {
        writeln!(err, "error: topic {topic} does not exist\n\nhint: `hookbridge topics apply` creates it")?;
        return Err(Ended::Said(Exit::Problems));
    }
    Ok(())
}
