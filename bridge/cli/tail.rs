//! `hookbridge tail`: events as they are in Kafka, decoded, one a line. No group is joined, and none is left behind.

mod line;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use tokio::runtime::Runtime;

use self::line::{Kind, Lines};
use super::check::logging;
use super::{Common, Exit, no_such_source, report};
use crate::app::start::quarantine_topic;
use crate::clock;
use crate::config::units::parse_duration;
use crate::config::{self, Config};
use crate::kafka::peek::{Begin, Peek, Seen};
use crate::kafka::{Client, Error, Record, TopicPartition};
use crate::schema::registry::Registry;

pub(super) const EXAMPLES: &str = "\
Examples:
  hookbridge tail                                  what comes in from now on; Ctrl-C ends it
  hookbridge tail --last 10                        the last ten
  hookbridge tail purchase_completed --since 10m   one event type, of the last ten minutes
  hookbridge tail --source stripe -n 1             waits for the next event of one source
  hookbridge tail quarantine.stripe --from-beginning
  hookbridge tail --from-beginning --json | jq .data

A line: time of receipt, event type, event id, key, topic, partition@offset, and the event without \
its nulls. Of a request in quarantine: why, and its body as it came. With --json nothing is left out.

Exit codes: 0 fine, 1 there is no such topic yet, 69 Kafka cannot be reached, 78 configuration";

/// Records that `--last` may ask for: they are held and sorted by time.
const MAX_LAST: u64 = 10_000;

/// Offsets of a partition that are looked through for them.
const MAX_WINDOW: u64 = 100_000;

/// Between two looks whether something came; nothing else happens meanwhile.
const WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Event types or topics; every topic of events and of quarantine where left out
    #[arg(value_name = "TOPIC|EVENT_TYPE")]
    topics: Vec<String>,
    /// Of this source only
    #[arg(long)]
    source: Option<String>,
    /// Begin with the oldest that is kept
    #[arg(long, conflicts_with_all = ["last", "since"])]
    from_beginning: bool,
    /// The last so many, in the order of their times
    #[arg(long, value_name = "N", conflicts_with = "since", value_parser = clap::value_parser!(u64).range(1..=MAX_LAST))]
    last: Option<u64>,
    /// Begin with those that were written so long ago: `10m`, `24h`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Go on with what comes; without `--from-beginning`, `--last` or `--since` it does so anyway
    #[arg(long, short)]
    follow: bool,
    /// End after so many
    #[arg(long = "limit", short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

pub(super) fn tail(common: &Common, args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    if let Some(exit) = logging(common, "error", err)? {
        return Ok(exit);
    }
    let config = match config::load(&common.config, &config::Process) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            writeln!(err, "{problems}")?;
            return Ok(Exit::Config);
        }
    };
    if let Some(name) = args.source.as_ref().filter(|name| !config.sources.contains_key(*name)) {
        return no_such_source(&config, name, err);
    }
    let (client, registry) = match (Client::new(&config.kafka, "hookbridge-tail"), Registry::new(&config.registry)) {
        (Ok(client), Ok(registry)) => (client, registry),
        (Err(error), _) => return report(err, &error, None).map(|()| Exit::Config),
        (_, Err(error)) => return report(err, &error, None).map(|()| Exit::Config),
    };
    let topics = topics(&config, args);
    let runtime = Runtime::new()?;
    let lines = Lines::new(registry, common.json, args.source.clone(), quarantine_topic(&config, ""));
    let mut tail = Tail { args, client: &client, runtime: &runtime, lines, left: args.limit };
    match tail.run(&topics, out, err) {
        Ok(exit) => Ok(exit),
        Err(Ended::Out(error)) => Err(error),
        Err(Ended::Kafka(error)) => {
            let reached = !matches!(error, Error::Unreachable { .. });
            let hint = (!reached).then_some("`kafka.bootstrap_servers` says where it is looked for");
            report(err, &error, hint)?;
            Ok(if reached { Exit::Problems } else { Exit::Unavailable })
        }
    }
}

/// The topics that are asked for: an event type's, or a topic by its name, with or without the prefix.
fn topics(config: &Config, args: &Args) -> Vec<String> {
    let prefix = &config.kafka.topic_prefix;
    let of_event = |event: &config::EventDef| format!("{prefix}{}", event.topic);
    if args.topics.is_empty() {
        let events = config.events.values().map(of_event);
        let is_meant = |name: &&String| args.source.as_ref().is_none_or(|source| source == *name);
        let quarantine = config.sources.keys().filter(is_meant).map(|source| quarantine_topic(config, source));
        return events.chain(quarantine).collect();
    }
    let known: Vec<String> = config
        .events
        .values()
        .map(of_event)
        .chain(config.sources.keys().map(|source| quarantine_topic(config, source)))
        .collect();
    let topic = |name: &String| match config.events.get(name) {
        Some(event) => of_event(event),
        None if known.contains(name) => name.clone(),
        None if known.contains(&format!("{prefix}{name}")) => format!("{prefix}{name}"),
        // Whatever else there may be: a copy that a sink writes, another team's.
        None => name.clone(),
    };
    let mut topics: Vec<String> = args.topics.iter().map(topic).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// Why it ended early.
enum Ended {
    Out(io::Error),
    Kafka(Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Out(error)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Kafka(error)
    }
}

struct Tail<'a> {
    args: &'a Args,
    client: &'a Client,
    runtime: &'a Runtime,
    lines: Lines,
    /// How many may still be shown.
    left: Option<u64>,
}

impl Tail<'_> {
    fn run(&mut self, topics: &[String], out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Ended> {
        let existing = self.client.existing(topics)?;
        for missing in topics.iter().filter(|topic| !existing.contains(topic)) {
            // Unasked-for topics need no word each.
            if !self.args.topics.is_empty() {
                writeln!(err, "topic {missing} does not exist")?;
            }
        }
        if existing.is_empty() {
            let hint =
                "`hookbridge topics apply` creates the configuration's topics; `hookbridge check` names its events";
            writeln!(err, "error: there is nothing to read yet\n\nhint: {hint}")?;
            return Ok(Exit::Problems);
        }
        let begin = match (self.args.from_beginning, self.args.since) {
            (true, _) => Begin::Beginning,
            (_, Some(ago)) => {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Begin::Since(clock::now_ms().saturating_sub(ago))
            }
            _ => Begin::End,
        };
        let follows = self.args.follow || (begin == Begin::End && self.args.last.is_none());
        let mut peek = match self.args.last {
            Some(count) => self.last(&existing, count, out)?,
            None => self.client.peek(&existing, begin)?,
        };
        if begin == Begin::End && follows {
            writeln!(err, "waiting for events in {} topic(s); Ctrl-C ends it", existing.len())?;
        }
        let mut at_end = self.args.last.is_some();
        while self.left != Some(0) && (follows || !at_end) {
            match peek.next(WAIT)? {
                Seen::Record(record) if self.lines.is_wanted(&record) => self.show(&record, out)?,
                Seen::End => at_end = true,
                Seen::Record(_) | Seen::Nothing => {}
            }
        }
        Ok(Exit::Fine)
    }

    /// Shows the last `count`; what follows them can be read on.
    fn last(&mut self, topics: &[String], count: u64, out: &mut dyn Write) -> Result<Peek, Ended> {
        let mut window = count;
        let (latest, peek) = loop {
            let mut peek = self.client.peek(topics, Begin::Last(window))?;
            let mut found = 0;
            // By time, and of one time by place; never more than were asked for.
            let mut latest: BTreeMap<(Option<i64>, TopicPartition, i64), Record> = BTreeMap::new();
            loop {
                match peek.next(WAIT)? {
                    Seen::Record(record) if self.lines.is_wanted(&record) => {
                        found += 1;
                        latest.insert((record.timestamp_ms, record.at.clone(), record.offset), record);
                        if latest.len() as u64 > count {
                            latest.pop_first();
                        }
                    }
                    Seen::Record(_) | Seen::Nothing => {}
                    Seen::End => break,
                }
            }
            // Markers of transactions and other sources' events take up offsets as well.
            if found >= count || peek.is_whole() || window >= MAX_WINDOW {
                break (latest, peek);
            }
            window = window.saturating_mul(4);
        };
        for record in latest.values() {
            self.show(record, out)?;
        }
        Ok(peek)
    }

    fn show(&mut self, record: &Record, out: &mut dyn Write) -> Result<(), Ended> {
        if self.left == Some(0) {
            return Ok(());
        }
        self.left = self.left.map(|left| left - 1);
        let kind = self.lines.kind(record);
        let line = match kind {
            Kind::Event => self.runtime.block_on(self.lines.event(record)),
            Kind::Quarantined => self.lines.quarantined(record),
            Kind::Mark => self.lines.mark(record),
        };
        writeln!(out, "{line}")?;
        out.flush()?;
        Ok(())
    }
}
