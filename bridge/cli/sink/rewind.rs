//! Back with a sink: its partitions are read again from an earlier offset. A Postgres sink's rows of offsets are put back
//! here; of any other sink it is an order for the owners of its partitions (`orders`).

mod orders;

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::time::Duration;

use serde_json::json;

use super::{Desk, Ended, exists, opened, order};
use crate::cli::desk::ago_ms;
use crate::cli::{Common, Exit};
use crate::config::units::parse_duration;
use crate::config::{Sink, SinkKind};
use crate::control::{self, Control};
use crate::kafka::TopicPartition;
use crate::sinks::postgres::{Postgres, Rewound};

pub(super) const EXAMPLES: &str = "\
Never forward: nothing is skipped.

Of an HTTP or a Kafka sink: an order in the control topic. The owner of each partition carries it
out once, in one transaction, as soon as it hears of it; where the bridge does not run, when it
starts. What was delivered is not sent again: what was skipped, and what is a dead letter, is tried
once more, as the configuration is now. Dead letters of which nobody knows whether they arrived
(`no_answer`, `past_window`) stay dead. With `--again` everything is sent once more, under other
delivery ids: vendors take each for a new event, and every effect repeats.

Of a Postgres sink: each partition's row in `hookbridge_offsets` is put back by one
compare-and-swap, whether the bridge runs or not. Its owner finds the row moved, and reads on from
there. Rows that are in the table stay single, by their delivery id.

Examples:
  hookbridge sink rewind crm --since 2h                      after `where` or a consent was mended
  hookbridge sink rewind crm --since 2h --again              the vendor has lost them
  hookbridge sink rewind warehouse --since 2h --dry-run      what would be put back
  hookbridge sink rewind warehouse --since 2h --yes          for scripts
  hookbridge sink rewind warehouse --topic events.purchase_completed --partition 3 --offset 41
  hookbridge sink rewind warehouse --from-beginning          after the table was dropped

Exit codes: 0 fine, 1 nobody said yes, or the sink has never run, 2 usage, 69 Kafka, the registry
or the database cannot be reached, 78 configuration";

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("place").required(true))]
pub(in crate::cli) struct RewindArgs {
    /// The sink
    sink: String,
    /// To the first event that was written so long ago, or less
    #[arg(long, value_name = "DURATION", group = "place", value_parser = parse_duration)]
    since: Option<Duration>,
    /// To the oldest event that is kept
    #[arg(long, group = "place")]
    from_beginning: bool,
    /// To this offset, of one partition
    #[arg(long, value_name = "N", group = "place", requires = "topic", requires = "partition",
        value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Of this topic only, or of an event type's
    #[arg(long, value_name = "TOPIC|EVENT_TYPE")]
    topic: Option<String>,
    /// Of this partition only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Send everything once more, delivered or not, under other delivery ids: every effect repeats
    #[arg(long)]
    again: bool,
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "")]
    reason: String,
    /// Say what would be put back; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl RewindArgs {
    /// Without one of its own, an order leaves the reason of the one before it.
    fn with_reason(&self, control: Control) -> Control {
        if self.reason.is_empty() { control } else { Control { reason: self.reason.clone(), ..control } }
    }
}

/// A partition that goes back.
struct Step {
    at: TopicPartition,
    from: i64,
    to: i64,
}

pub(super) fn rewind(
    common: &Common,
    desk: &Desk,
    args: &RewindArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    let sink = desk.sink(&args.sink, err)?;
    let SinkKind::Postgres(postgres) = &sink.kind else {
        return orders::rewind(common, desk, sink, args, out, err);
    };
    if args.again {
        writeln!(
            err,
            "error: rows of {} stay single by their delivery id: `--again` is for sinks that are called\n\n\
             hint: delete the rows, and rewind without it",
            sink.name
        )?;
        return Ok(Exit::Usage);
    }
    let database = opened(sink, postgres, err)?;
    let stands = desk.runtime.block_on(database.stands()).map_err(|outcome| said(sink, outcome.reason(), err))?;
    let stands: Vec<_> = stands
        .iter()
        .map(|stand| {
            let at = TopicPartition { topic: stand.topic.as_str().into(), partition: stand.partition };
            (at, stand.next_offset)
        })
        .collect();
    let steps = steps(desk, sink, args, &stands, err)?;
    if let Some(exit) = propose(common, sink, args, &steps, out, err)? {
        return Ok(exit);
    }
    carry_out(desk, sink, &database, args, &steps, err)
}

/// Says what goes back, and asks; an exit code where nothing is to be done.
fn propose(
    common: &Common,
    sink: &Sink,
    args: &RewindArgs,
    steps: &[Step],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Option<Exit>, Ended> {
    for Step { at, from, to } in steps {
        if common.json {
            let step = json!({
                "topic": &*at.topic, "partition": at.partition, "from": from, "to": to, "again": args.again,
                "dry_run": args.dry_run,
            });
            writeln!(out, "{step}")?;
        } else {
            writeln!(out, "{} {}: {from} -> {to}, {} offset(s)", at.topic, at.partition, from - to)?;
        }
    }
    if args.again && !steps.is_empty() {
        writeln!(
            err,
            "every effect repeats: {} is sent all of these once more, delivered or not, under other delivery ids",
            sink.name
        )?;
    }
    if steps.is_empty() || args.dry_run {
        let what = if steps.is_empty() {
            "nothing goes back: no partition stands beyond that place"
        } else {
            "nothing was changed"
        };
        writeln!(err, "{what}")?;
        return Ok(Some(Exit::Fine));
    }
    out.flush()?;
    if !args.yes && !agreed(sink, err)? {
        return Ok(Some(if io::stdin().is_terminal() { Exit::Problems } else { Exit::Usage }));
    }
    Ok(None)
}

/// The partitions that stand beyond the place that was asked for.
fn steps(
    desk: &Desk,
    sink: &Sink,
    args: &RewindArgs,
    stands: &[(TopicPartition, i64)],
    err: &mut dyn Write,
) -> Result<Vec<Step>, Ended> {
    if stands.is_empty() {
        writeln!(
            err,
            "error: {} has settled nothing yet\n\nhint: it begins with the oldest event by itself",
            sink.name
        )?;
        return Err(Ended::Said(Exit::Problems));
    }
    let events = &desk.compiled.config.events;
    let named = args
        .topic
        .as_ref()
        .map(|name| events.get(name).map_or_else(|| name.clone(), |event| format!("{}{}", desk.prefix(), event.topic)));
    let topics = desk.event_topics(sink);
    if let Some(named) = named.as_ref().filter(|named| !topics.contains(*named)) {
        writeln!(err, "error: {} does not read {named}\n\nhint: it reads {}", sink.name, topics.join(", "))?;
        return Err(Ended::Said(Exit::Usage));
    }
    let since_ms = args.since.map_or(0, ago_ms);
    let extents = desk.runtime.block_on(desk.client.extents(&desk.reader_group(), topics, since_ms))?;
    let mut steps = Vec::new();
    for (at, next) in stands {
        let is_meant = named.as_ref().is_none_or(|named| **named == *at.topic)
            && args.partition.is_none_or(|partition| partition == at.partition);
        let extent = extents.iter().find(|one| one.at == *at);
        let Some(extent) = extent.filter(|_| is_meant) else { continue };
        // With an offset the extent begins with the first record that is kept.
        let to = args.offset.map_or(extent.start.get(), |offset| offset.max(extent.start.get()));
        if to < *next {
            steps.push(Step { at: at.clone(), from: *next, to });
        }
    }
    Ok(steps)
}

fn agreed(sink: &Sink, err: &mut dyn Write) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        writeln!(err, "error: nobody is there to be asked\n\nhint: `--yes` carries it out without a question")?;
        return Ok(false);
    }
    write!(err, "\nRead these again for {}? [y/N] ", sink.name)?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let agreed = matches!(answer.trim(), "y" | "Y" | "yes");
    if !agreed {
        writeln!(err, "nothing was changed")?;
    }
    Ok(agreed)
}

fn carry_out(
    desk: &Desk,
    sink: &Sink,
    database: &Postgres,
    args: &RewindArgs,
    steps: &[Step],
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    // Before the first row is moved: owners with nothing to do have to be told afterwards.
    exists(desk, &control::topic(desk.prefix()), err)?;
    let before = order::before(desk, sink)?;
    let (mut back, mut failed) = (0, None);
    for step in steps {
        match desk.runtime.block_on(database.rewind(&step.at, step.to)) {
            Ok(Rewound::Back { .. }) => back += 1,
            // Somebody else was faster.
            Ok(Rewound::NotBeyond { .. } | Rewound::Unknown) => {}
            Err(outcome) => {
                failed = Some(outcome);
                break;
            }
        }
    }
    if back > 0 {
        order::give(desk, args.with_reason(Control { rewinds: before.rewinds + 1, ..before }))?;
    }
    if let Some(outcome) = failed {
        writeln!(err, "{back} of {} partition(s) went back", steps.len())?;
        return Err(said(sink, outcome.reason(), err));
    }
    writeln!(err, "{back} partition(s) went back; their owners read on from there")?;
    Ok(Exit::Fine)
}

fn said(sink: &Sink, reason: &str, err: &mut dyn Write) -> Ended {
    match writeln!(err, "error: the database of {} cannot be asked: {reason}", sink.name) {
        Ok(()) => Ended::Said(Exit::Unavailable),
        Err(error) => Ended::Out(error),
    }
}
