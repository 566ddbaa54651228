//! `hookbridge dead`: events that a sink has refused for good, looked at and sent again to that sink.

mod shown;

pub(super) use self::shown::{stage_json, stage_line};

use std::collections::BTreeMap;
use std::io::{self, Write};

use self::shown::Shown;
use super::desk::{Choice, Desk, Ended, Sieve, read_all};
use super::values::Values;
use super::{Common, Exit, report};
use crate::app::way_back;
use crate::clock;
use crate::config::{Sink, SinkKind};
use crate::deliver::receipt::{SCHEMA, receipt_of};
use crate::deliver::{Verdict, dead, receipt};
use crate::kafka::{self, Limits, Outgoing, Publisher};
use crate::outcome::Outcome;
use crate::replay::dead::{Letter, Letters, Standing};
use crate::replay::receipts::{Trails, Wanted};

/// Records that are handed to Kafka before they are awaited: what fails leaves few behind it.
const AT_ONCE: usize = 500;

const PLACES: &str = "\
A dead letter is named by its place (PARTITION@OFFSET, the first column), by its delivery id, or by its \
event id. `--where` sees what `list --json` prints: .reason .message .state .event_id .event_type \
.source .key .attempts .origin .data";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show a sink's dead letters: why they are dead, and whether they were sent again
    #[command(after_help = "\
`--where` sees what `list --json` prints: .reason .message .state .event_id .event_type .source .key \
.attempts .origin .data

Examples:
  hookbridge dead list crm
  hookbridge dead list crm --where '.state == \"dead\" and .reason == \"rejected\"'
  hookbridge dead list crm --since 24h --json | jq .data

States: dead (waits for you), requeued (sent again, not settled yet), delivered, skipped.

Exit codes: 0 fine, 2 usage, 69 Kafka or the registry cannot be reached, 78 configuration")]
    List(ListArgs),
    /// Show one dead letter, and all that became of it
    #[command(after_help = "\
Examples:
  hookbridge dead show crm 0@17
  hookbridge dead show crm evt_1 --json

Exit codes: 0 fine, 1 there is none of that name, 2 usage, 69 Kafka or the registry cannot be reached, \
78 configuration")]
    Show(ShowArgs),
    /// Send dead letters to their own sink again
    #[command(after_help = "\
Each goes back to the owner of its partition, who sends it behind what its key has waiting. One that is \
delivered, or on its way again, is left alone: to run it twice sends once. `--dry-run` says what would \
pass with today's schemas, `where`, consent and `map`; what the sink would say is not asked.

Examples:
  hookbridge dead replay crm 0@17                                 one
  hookbridge dead replay crm --where '.reason == \"rejected\"' --dry-run
  hookbridge dead replay crm --all --since 24h

A Postgres sink goes back by `hookbridge sink rewind`: rows that are there already stay single.

Exit codes: 0 fine, 1 some would not pass, or there is none, 2 usage, 69 Kafka or the registry cannot be \
reached, 78 configuration")]
    Replay(ReplayArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Of this sink
    sink: String,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = PLACES)]
pub(super) struct ShowArgs {
    /// Of this sink
    sink: String,
    /// Its place (PARTITION@OFFSET), delivery id or event id
    #[arg(value_name = "PLACE|ID")]
    which: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// To this sink, whose they are
    sink: String,
    /// Their places (PARTITION@OFFSET), delivery ids or event ids
    #[arg(value_name = "PLACE|ID")]
    which: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    /// All that `--where` and `--since` leave, without naming any
    #[arg(long, conflicts_with = "which")]
    all: bool,
    /// Say what would be done, and what would pass; write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn dead(common: &Common, command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let desk = match Desk::open(common, "dead", err)? {
        Ok(desk) => desk,
        Err(exit) => return Ok(exit),
    };
    let ended = match command {
        Command::List(args) => list(common, &desk, args, out, err),
        Command::Show(args) => show(common, &desk, args, out, err),
        Command::Replay(args) => replay(common, desk, args, out, err),
    };
    ended.or_else(|ended| ended.tell(err))
}

/// A sink's dead letters, in the order of their origins, and where each stands.
struct Found {
    letters: Vec<Letter>,
    trails: Trails,
}

impl Found {
    fn standing(&self, letter: &Letter) -> Standing {
        Standing::of(self.trails.of(letter.grave.delivery_id))
    }
}

fn find(desk: &Desk, sink: &Sink, choice: &Choice, err: &mut dyn Write) -> Result<Found, Ended> {
    let topic = dead::topic(desk.prefix(), &sink.name);
    let mut letters = Letters::default();
    read_all(&desk.client, &topic, choice.begin(), |record| letters.take(record))?;
    if letters.foreign > 0 {
        writeln!(err, "{} record(s) of {topic} are no dead letters of hookbridge, and were left out", letters.foreign)?;
    }
    let letters = letters.in_order();
    let trails = trails(desk, sink, &letters)?;
    Ok(Found { letters, trails })
}

/// What became of them since the first of them died.
fn trails(desk: &Desk, sink: &Sink, letters: &[Letter]) -> Result<Trails, Ended> {
    let Some(first_ms) = letters.iter().filter_map(|letter| letter.record.timestamp_ms).min() else {
        return Ok(Trails::default());
    };
    let topics = letters.iter().map(|letter| letter.grave.origin_topic.as_str());
    let deliveries = letters.iter().map(|letter| letter.grave.delivery_id).collect();
    desk.trails(sink, topics, first_ms, Wanted { deliveries, ..Wanted::default() })
}

/// Those that were asked for, with what is shown of them.
fn chosen<'f>(
    desk: &Desk,
    found: &'f Found,
    choice: &Choice,
    is_named: impl Fn(&Letter) -> bool,
    err: &mut dyn Write,
) -> Result<Vec<(&'f Letter, Shown)>, Ended> {
    let mut sieve = Sieve::new(choice.program(err)?);
    let values = Values::new(desk.registry.clone());
    let mut chosen = Vec::new();
    for letter in found.letters.iter().filter(|letter| is_named(letter)) {
        let data = desk.runtime.block_on(values.json(letter.record.value.as_deref()));
        let shown = Shown::new(letter, found.standing(letter), data);
        if sieve.takes(|| shown.json()) {
            chosen.push((letter, shown));
        }
    }
    sieve.tell(err)?;
    Ok(chosen)
}

fn list(
    common: &Common,
    desk: &Desk,
    args: &ListArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    let sink = desk.sink(&args.sink, err)?;
    // Before anything is read for it.
    args.choice.program(err)?;
    let found = find(desk, sink, &args.choice, err)?;
    let chosen = chosen(desk, &found, &args.choice, |_| true, err)?;
    if common.json {
        for (_, shown) in &chosen {
            writeln!(out, "{}", shown.json())?;
        }
        return Ok(Exit::Fine);
    }
    if !chosen.is_empty() {
        super::table(out, shown::HEAD, chosen.iter().map(|(_, shown)| shown.row()))?;
    }
    writeln!(err, "{}", counted(chosen.iter().map(|(letter, _)| found.standing(letter))))?;
    Ok(Exit::Fine)
}

/// `3 dead letters: 2 dead, 1 delivered`.
fn counted(standings: impl Iterator<Item = Standing>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    standings.for_each(|standing| *counts.entry(standing.name()).or_default() += 1);
    let total: usize = counts.values().sum();
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let of = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!("{total} dead letter(s){of}")
}

fn is_named(letter: &Letter, which: &str) -> bool {
    let place = format!("{}@{}", letter.record.at.partition, letter.record.offset);
    which == place
        || letter.grave.delivery_id.to_string() == which
        || letter.record.header(crate::event::header::CE_ID) == Some(which)
}

fn show(
    common: &Common,
    desk: &Desk,
    args: &ShowArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    let sink = desk.sink(&args.sink, err)?;
    let choice = Choice { filter: None, since: None };
    let found = find(desk, sink, &choice, err)?;
    let chosen = chosen(desk, &found, &choice, |letter| is_named(letter, &args.which), err)?;
    if chosen.is_empty() {
        return nothing(&sink.name, err);
    }
    for (letter, shown) in &chosen {
        let stages = found.trails.of(letter.grave.delivery_id);
        if common.json {
            writeln!(out, "{}", shown.json_with(letter, stages))?;
        } else {
            shown.print(letter, stages, out)?;
        }
    }
    Ok(Exit::Fine)
}

fn nothing(sink: &str, err: &mut dyn Write) -> Result<Exit, Ended> {
    writeln!(err, "error: there is no such dead letter\n\nhint: `hookbridge dead list {sink}` shows what there is")?;
    Ok(Exit::Problems)
}

fn replay(
    common: &Common,
    desk: Desk,
    args: &ReplayArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    let sink = desk.sink(&args.sink, err)?.clone();
    if args.which.is_empty() && args.choice.filter.is_none() && !args.all {
        writeln!(err, "error: which ones?\n\nhint: name them, choose them by `--where`, or say `--all`")?;
        return Ok(Exit::Usage);
    }
    args.choice.program(err)?;
    let found = find(&desk, &sink, &args.choice, err)?;
    let named = |letter: &Letter| args.which.is_empty() || args.which.iter().any(|which| is_named(letter, which));
    let chosen = chosen(&desk, &found, &args.choice, named, err)?;
    let mut missing = args.which.clone();
    missing.retain(|which| !found.letters.iter().any(|letter| is_named(letter, which)));
    for which in &missing {
        writeln!(err, "error: there is no dead letter {which}")?;
    }
    if chosen.is_empty() {
        return nothing(&sink.name, err);
    }
    if matches!(sink.kind, SinkKind::Postgres(_)) {
        return by_rewind(&sink, &chosen, err);
    }
    let (sendable, left_alone): (Vec<_>, Vec<_>) =
        chosen.iter().partition(|(letter, _)| found.standing(letter).may_be_sent_again());
    for (letter, shown) in left_alone {
        said(common, shown, "left_alone", Some(found.standing(letter).name()), out)?;
    }
    let exit = if missing.is_empty() { Exit::Fine } else { Exit::Problems };
    if args.dry_run {
        let rehearsed = rehearse(common, desk, &sink, &sendable, out, err)?;
        return Ok(if rehearsed == Exit::Fine { exit } else { rehearsed });
    }
    let sent = send(common, &desk, &sink, &sendable, out, err)?;
    Ok(if sent == Exit::Fine { exit } else { sent })
}

/// Nobody follows receipts for a database: the offset goes back instead, and rows that are there stay single.
fn by_rewind(sink: &Sink, chosen: &[(&Letter, Shown)], err: &mut dyn Write) -> Result<Exit, Ended> {
    let mut lowest: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for (letter, _) in chosen {
        let grave = &letter.grave;
        let offset = lowest.entry((&grave.origin_topic, grave.origin_partition)).or_insert(grave.origin_offset);
        *offset = grave.origin_offset.min(*offset);
    }
    writeln!(
        err,
        "error: {} writes to Postgres, where the offset stands beside the rows: a dead letter is read again, not sent again\n\n\
         hint: mend the table or the mapping, then go back to the first of them; rows that are there stay single:",
        sink.name
    )?;
    for ((topic, partition), offset) in lowest {
        writeln!(
            err,
            "  hookbridge sink rewind {} --topic {topic} --partition {partition} --offset {offset}",
            sink.name
        )?;
    }
    Ok(Exit::Usage)
}

/// One line about one dead letter.
fn said(common: &Common, shown: &Shown, result: &str, why: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    if common.json {
        return writeln!(out, "{}", shown.result(result, why));
    }
    let why = why.map(|why| format!(" ({})", super::printable(why))).unwrap_or_default();
    writeln!(out, "{} {}{why}: {}", shown.place(), result.replace('_', " "), shown.name())
}

fn rehearse(
    common: &Common,
    desk: Desk,
    sink: &Sink,
    sendable: &[&(&Letter, Shown)],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    let Desk { compiled, registry, runtime, .. } = desk;
    let Some(rehearsal) = way_back::rehearsal(compiled, &sink.name, &registry) else { return Ok(Exit::Config) };
    let (mut pass, mut unavailable) = (0, None);
    for (letter, shown) in sendable {
        if letter.is_without_body() {
            let why = "its body is not here; when it is sent again it is read from the event's own topic";
            said(common, shown, "cannot_be_rehearsed", Some(why), out)?;
            continue;
        }
        match runtime.block_on(rehearsal.of(&letter.event())) {
            Verdict::Sent => {
                pass += 1;
                said(common, shown, "would_pass", None, out)?;
            }
            Verdict::Skipped(reason) => said(common, shown, "would_be_skipped", Some(reason.name()), out)?,
            Verdict::Refused(outcome) => {
                said(common, shown, "would_be_refused", Some(outcome.reason()), out)?;
                if let Outcome::Transient { reason } = outcome {
                    // The next one would wait for the registry as long.
                    unavailable = Some(reason);
                    break;
                }
            }
        }
    }
    writeln!(err, "{pass} of {} would pass; nothing was written", sendable.len())?;
    if let Some(reason) = unavailable {
        writeln!(err, "error: {reason}\n\nhint: `registry.url` says where the registry is looked for")?;
        return Ok(Exit::Unavailable);
    }
    Ok(if pass == sendable.len() { Exit::Fine } else { Exit::Problems })
}

fn send(
    common: &Common,
    desk: &Desk,
    sink: &Sink,
    sendable: &[&(&Letter, Shown)],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    if sendable.is_empty() {
        writeln!(err, "nothing to send: all of them are delivered or on their way")?;
        return Ok(Exit::Fine);
    }
    let topic_of = |letter: &Letter| receipt::topic(desk.prefix(), &sink.name, &letter.grave.origin_topic);
    let mut topics: Vec<String> = sendable.iter().map(|(letter, _)| topic_of(letter)).collect();
    topics.sort_unstable();
    topics.dedup();
    let existing = desk.client.existing(&topics)?;
    if let Some(missing) = topics.iter().find(|topic| !existing.contains(topic)) {
        writeln!(err, "error: topic {missing} does not exist\n\nhint: `hookbridge topics apply` creates it")?;
        return Ok(Exit::Problems);
    }
    let schema_id = desk.runtime.block_on(desk.registry.own_id(SCHEMA))?;
    let publisher = Publisher::start(&desk.client, Limits::default())?;
    let mut sent = 0;
    let outcome = desk.runtime.block_on(async {
        for chunk in sendable.chunks(AT_ONCE) {
            let mut pending = Vec::with_capacity(chunk.len());
            for (letter, _) in chunk {
                pending.push(requeue(&publisher, &topic_of(letter), schema_id, letter)?);
            }
            for (report, (_, shown)) in pending.into_iter().zip(chunk) {
                report.await.map_err(Ended::Kafka)?;
                sent += 1;
                said(common, shown, "requeued", None, out)?;
            }
        }
        Ok::<_, Ended>(())
    });
    if let Err(Ended::Kafka(error)) = outcome {
        report(err, &error, Some("run it again: what was sent is known, and left alone"))?;
        writeln!(err, "{sent} of {} requeued", sendable.len())?;
        return Ok(if matches!(error, kafka::Error::Refused { .. }) { Exit::Problems } else { Exit::Unavailable });
    }
    outcome?;
    let hint = format!("`hookbridge dead list {}` shows what becomes of them", sink.name);
    writeln!(err, "{sent} requeued for {}; {hint}", sink.name)?;
    Ok(Exit::Fine)
}

/// In the explicit partition of its origin, whose owner follows it.
fn requeue(
    publisher: &Publisher,
    topic: &str,
    schema_id: u32,
    letter: &Letter,
) -> Result<kafka::publish::Pending, kafka::Error> {
    let receipt = letter.requeued(clock::now_ms());
    let mut value = Vec::new();
    receipt_of(&receipt).encode(schema_id, &mut value);
    publisher.publish(Outgoing {
        topic,
        partition: Some(letter.grave.origin_partition),
        key: letter.record.key.as_deref(),
        value: Some(&value),
        headers: &[],
        timestamp_ms: None,
    })
}
