//! `hookbridge trace`: one event's way, from its request to what each sink made of it.

mod found;
mod shown;

use std::io::{self, Write};
use std::time::Duration;

use uuid::Uuid;

use self::found::{Event, search};
use self::shown::{AtSink, Trace};
use super::desk::{Desk, Ended, ago_ms};
use super::{Common, Exit, no_such_source, report};
use crate::clock;
use crate::config::units::parse_duration;
use crate::config::{Sink, SinkKind};
use crate::event::Identity;
use crate::replay::receipts::{Trails, Wanted};
use crate::sinks::postgres::Postgres;

pub(super) const EXAMPLES: &str = "\
Reads the event topics, quarantine and receipts of the time that `--since` names, and asks the databases \
of Postgres sinks. It joins no group and leaves nothing behind.

Examples:
  hookbridge trace evt_1P4x
  hookbridge trace evt_1P4x --source stripe --since 7d
  hookbridge trace evt_1P4x --json | jq '.sinks[] | {sink, state}'

States at a sink: delivered, skipped, dead, parked, requeued, intent (about to be sent), in the database, \
or waiting (nothing is known yet). What `sink rewind --again` delivered anew, under another delivery id, \
stands below as \"again\".

Exit codes: 0 fine, 1 it was not found, or is dead at a sink or still in quarantine, 2 usage, \
69 Kafka, the registry or a database cannot be reached, 78 configuration";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The event's id, as the source gave it or as `tail` shows it
    #[arg(value_name = "EVENT_ID")]
    event_id: String,
    /// Of this source only
    #[arg(long)]
    source: Option<String>,
    /// Look at what was written so long ago, or less
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    since: Duration,
}

pub(super) fn trace(common: &Common, args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let desk = match Desk::open(common, "trace", err)? {
        Ok(desk) => desk,
        Err(exit) => return Ok(exit),
    };
    let sources = &desk.compiled.config.sources;
    if let Some(name) = args.source.as_ref().filter(|name| !sources.contains_key(*name)) {
        return no_such_source(&desk.compiled.config, name, err);
    }
    run(common, &desk, args, out, err).or_else(|ended| ended.tell(err))
}

fn run(common: &Common, desk: &Desk, args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Ended> {
    let (events, kept) = desk.runtime.block_on(search(desk, args))?;
    if events.is_empty() && kept.is_empty() {
        writeln!(
            err,
            "error: no event {} was written in that time\n\nhint: `--since 7d` looks further back; retention may have taken it",
            super::printable(&args.event_id)
        )?;
        return Ok(Exit::Problems);
    }
    let sinks = at_sinks(desk, &events, err)?;
    let trace = Trace { events: &events, quarantined: &kept, sinks: &sinks };
    if common.json {
        writeln!(out, "{}", trace.json())?;
    } else {
        trace.print(out)?;
    }
    let unavailable = sinks.iter().any(|sink| sink.unavailable);
    Ok(match trace.is_fine() {
        _ if unavailable => Exit::Unavailable,
        true => Exit::Fine,
        false => Exit::Problems,
    })
}

/// What each sink made of each event that it takes.
fn at_sinks(desk: &Desk, events: &[Event], err: &mut dyn Write) -> Result<Vec<AtSink>, Ended> {
    let mut all = Vec::new();
    for sink in desk.compiled.config.sinks.values() {
        let wanted: Vec<(usize, Uuid)> = events
            .iter()
            .enumerate()
            .filter(|(_, event)| sink.events.contains(&event.kind))
            .map(|(place, event)| (place, delivery_id(event, &sink.name)))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let trails = receipts(desk, sink, events, &wanted)?;
        for (place, id) in wanted {
            let Some(event) = events.get(place) else { continue };
            let again = trails.again((&event.topic, event.partition, event.offset), id);
            let mut at_sink = AtSink::new(sink, event, id, trails.of(id).to_vec());
            if let SinkKind::Postgres(postgres) = &sink.kind {
                ask(desk, sink, postgres, event, &mut at_sink, err)?;
            }
            all.push(at_sink);
            all.extend(again.into_iter().filter_map(|stages| {
                let id = stages.first()?.delivery_id;
                Some(AtSink::new(sink, event, id, stages.to_vec()).once_more())
            }));
        }
    }
    Ok(all)
}

fn delivery_id(event: &Event, sink: &str) -> Uuid {
    let identity = Identity { source: event.source.clone(), id: event.id.clone(), event_type: event.kind.clone() };
    identity.delivery_id(sink)
}

fn receipts(desk: &Desk, sink: &Sink, events: &[Event], wanted: &[(usize, Uuid)]) -> Result<Trails, Ended> {
    let of_sink = wanted.iter().filter_map(|(place, _)| events.get(*place));
    let first_ms = of_sink.clone().filter_map(|event| event.written_ms).min().unwrap_or_else(clock::now_ms);
    let topics = of_sink.clone().map(|event| event.topic.as_str());
    let origins = of_sink.map(|event| (event.topic.clone(), event.partition, event.offset)).collect();
    let deliveries = wanted.iter().map(|(_, id)| *id).collect();
    desk.trails(sink, topics, first_ms, Wanted { deliveries, origins })
}

/// The database knows what a missing receipt does not say.
fn ask(
    desk: &Desk,
    sink: &Sink,
    postgres: &crate::config::Postgres,
    event: &Event,
    at_sink: &mut AtSink,
    err: &mut dyn Write,
) -> Result<(), Ended> {
    let database = match Postgres::new(&sink.name, postgres) {
        Ok(database) => database,
        Err(error) => {
            report(err, &error, None)?;
            return Err(Ended::Said(Exit::Config));
        }
    };
    match desk.runtime.block_on(database.seen(&event.kind, at_sink.delivery_id)) {
        Ok(rows) => at_sink.rows = rows,
        Err(outcome) => {
            writeln!(err, "error: the database of {} cannot be asked: {}", sink.name, outcome.reason())?;
            at_sink.unavailable = true;
        }
    }
    Ok(())
}

/// Since when records are looked at, milliseconds since the epoch.
fn since_ms(args: &Args) -> i64 {
    ago_ms(args.since)
}

/// Whether a record's id is the one that was asked for: itself, or one of its results.
fn is_meant(found: &str, wanted: &str) -> bool {
    found == wanted || found.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_means_itself_and_the_results_of_its_event() {
        for (found, meant) in [("e1", true), ("e1#bought.2", true), ("e12", false), ("e", false)] {
            assert_eq!(is_meant(found, "e1"), meant, "{found}");
        }
        assert!(is_meant("e1#bought.2", "e1#bought.2"));
    }
}
