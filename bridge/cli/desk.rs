//! What the commands of the way back have at hand: the configuration, Kafka, the registry; and how they end.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::check::logging;
use super::{Common, Exit, report};
use crate::app;
use crate::app::compile::{Compiled, compile};
use crate::app::start::max_record;
use crate::clock;
use crate::config::{self, Sink};
use crate::deliver::receipt;
use crate::expr::{self, Json, Program};
use crate::kafka::peek::Begin;
use crate::kafka::{self, Client, Record};
use crate::replay::receipts::{Receipts, Trails, Wanted};
use crate::replay::{TooMany, receipts};
use crate::schema::registry::{self, Registry};

/// Receipts and what they are of were written by the clocks of several machines.
pub(super) const CLOCKS: Duration = Duration::from_secs(10 * 60);

/// A command that looks into Kafka.
pub(super) struct Desk {
    pub(super) compiled: Compiled,
    pub(super) client: Client,
    pub(super) registry: Registry,
    pub(super) runtime: Runtime,
}

/// Why a command ends before it is done.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody reads what it prints.
    Out(io::Error),
    Kafka(kafka::Error),
    Registry(registry::Error),
    App(app::Error),
    TooMany(TooMany),
    /// Of a command that counts what it holds in another way.
    TooManyReceipts(usize),
    /// It has said why.
    Said(Exit),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Out(error)
    }
}

impl From<kafka::Error> for Ended {
    fn from(error: kafka::Error) -> Self {
        Self::Kafka(error)
    }
}

impl From<registry::Error> for Ended {
    fn from(error: registry::Error) -> Self {
        Self::Registry(error)
    }
}

impl From<app::Error> for Ended {
    fn from(error: app::Error) -> Self {
        Self::App(error)
    }
}

impl From<TooMany> for Ended {
    fn from(error: TooMany) -> Self {
        Self::TooMany(error)
    }
}

impl From<receipts::Error> for Ended {
    fn from(error: receipts::Error) -> Self {
        match error {
            receipts::Error::Kafka(error) => Self::Kafka(error),
            receipts::Error::Registry(error) => Self::Registry(error),
            receipts::Error::TooMany { most } => Self::TooManyReceipts(most),
        }
    }
}

impl Ended {
    /// Says why, and with which code the process ends.
    pub(super) fn tell(self, err: &mut dyn Write) -> io::Result<Exit> {
        const LESS: &str = "ask for less: `--since 1h` looks at what was written lately";
        match self {
            Self::Out(error) => Err(error),
            Self::Said(exit) => Ok(exit),
            Self::Kafka(error) => {
                let (exit, hint) = match &error {
                    kafka::Error::Unreachable { .. } => {
                        (Exit::Unavailable, Some("`kafka.bootstrap_servers` says where it is looked for"))
                    }
                    kafka::Error::Property { .. } | kafka::Error::Start { .. } => (Exit::Config, None),
                    kafka::Error::Transactions { .. } | kafka::Error::NoLeader { .. } => {
                        (Exit::Unavailable, Some("run it again: what was done is known, and only the rest is done"))
                    }
                    _ => (Exit::Problems, None),
                };
                report(err, &error, hint).map(|()| exit)
            }
            Self::Registry(error) => {
                let exit = if error.is_transient() { Exit::Unavailable } else { Exit::Problems };
                report(err, &error, Some("`registry.url` says where it is looked for")).map(|()| exit)
            }
            Self::App(error) => report(err, &error, None).map(|()| Exit::Problems),
            Self::TooMany(error) => report(err, &error, Some(LESS)).map(|()| Exit::Problems),
            Self::TooManyReceipts(most) => {
                writeln!(err, "error: more than {most} receipts are of interest\n\nhint: {LESS}")?;
                Ok(Exit::Problems)
            }
        }
    }
}

impl Desk {
    /// Reads the configuration and makes what it needs; connects to nothing yet.
    pub(super) fn open(common: &Common, name: &str, err: &mut dyn Write) -> io::Result<Result<Self, Exit>> {
        if let Some(exit) = logging(common, "error", err)? {
            return Ok(Err(exit));
        }
        let loaded = match config::load(&common.config, &config::Process) {
            Ok(loaded) => loaded,
            Err(problems) => {
                writeln!(err, "{problems}")?;
                return Ok(Err(Exit::Config));
            }
        };
        let compiled = match compile(loaded.config, &loaded.file) {
            Ok(compiled) => compiled,
            Err(problems) => {
                for problem in problems {
                    writeln!(err, "{problem}")?;
                }
                return Ok(Err(Exit::Config));
            }
        };
        let config = &compiled.config;
        let client = Client::new(&config.kafka, &format!("hookbridge-{name}"))
            .map(|client| client.with_max_message_bytes(max_record(config)));
        match (client, Registry::new(&config.registry)) {
            (Ok(client), Ok(registry)) => Ok(Ok(Self { client, registry, runtime: Runtime::new()?, compiled })),
            (Err(error), _) => report(err, &error, None).map(|()| Err(Exit::Config)),
            (_, Err(error)) => report(err, &error, None).map(|()| Err(Exit::Config)),
        }
    }

    /// Of all topics.
    pub(super) fn prefix(&self) -> &str {
        &self.compiled.config.kafka.topic_prefix
    }

    /// A name that librdkafka wants for readers; nobody joins such a group.
    pub(super) fn reader_group(&self) -> String {
        format!("{}hookbridge.reader", self.prefix())
    }

    /// The sink of that name, or a word on which ones there are.
    pub(super) fn sink(&self, name: &str, err: &mut dyn Write) -> Result<&Sink, Ended> {
        let sinks = &self.compiled.config.sinks;
        if let Some(sink) = sinks.get(name) {
            return Ok(sink);
        }
        let known = if sinks.is_empty() { "none".to_owned() } else { names(sinks.keys()) };
        writeln!(err, "error: there is no sink `{name}` in the configuration\n\nhint: there are: {known}")?;
        Err(Ended::Said(Exit::Usage))
    }

    /// What a sink has written of the events of these topics, from some time on (milliseconds since the epoch).
    pub(super) fn receipts<'t>(
        &self,
        sink: &Sink,
        events: impl IntoIterator<Item = &'t str>,
        since_ms: i64,
    ) -> Result<Receipts, Ended> {
        let topics: BTreeSet<String> =
            events.into_iter().map(|topic| receipt::topic(self.prefix(), &sink.name, topic)).collect();
        Ok(Receipts {
            client: self.client.clone(),
            registry: self.registry.clone(),
            group: self.reader_group(),
            topics: self.client.existing(&topics.into_iter().collect::<Vec<_>>())?,
            since_ms,
        })
    }

    /// What became of these deliveries, whose events are of these topics and were there at `first_ms`.
    pub(super) fn trails<'t>(
        &self,
        sink: &Sink,
        events: impl IntoIterator<Item = &'t str>,
        first_ms: i64,
        wanted: Wanted,
    ) -> Result<Trails, Ended> {
        let since_ms = first_ms - i64::try_from(CLOCKS.as_millis()).unwrap_or_default();
        let receipts = self.receipts(sink, events, since_ms)?;
        if receipts.topics.is_empty() {
            return Ok(Trails::default());
        }
        let mut progress = Progress::of(format!("receipts of {}", sink.name));
        Ok(self.runtime.block_on(receipts.of(wanted, |read| progress.tell(read)))?)
    }

    /// The full names of the topics that hold a sink's events.
    pub(super) fn event_topics(&self, sink: &Sink) -> Vec<String> {
        self.compiled.config.event_topics(sink).into_iter().collect()
    }
}

/// Hands over every record of a topic, from there to its present end; of one that does not exist, none.
pub(super) fn read_all(
    client: &Client,
    topic: &str,
    begin: Begin,
    mut take: impl FnMut(Record) -> Result<(), TooMany>,
) -> Result<(), Ended> {
    let existing = client.existing(&[topic.to_owned()])?;
    if existing.is_empty() {
        return Ok(());
    }
    let mut too_many = None;
    let (mut progress, mut read) = (Progress::of(topic), 0);
    client.peek(&existing, begin)?.to_the_end(|record| {
        read += 1;
        progress.tell(read);
        too_many = take(record).err();
        if too_many.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    too_many.map_or(Ok(()), |error| Err(error.into()))
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Which records to look at, by when they were written.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Choice {
    /// Only those of which this jq expression is true; it sees what `list --json` prints
    #[arg(long = "where", value_name = "JQ")]
    pub(super) filter: Option<String>,
    /// Only those that were set aside so long ago, or less: `10m`, `24h`, `7d`
    #[arg(long, value_name = "DURATION", value_parser = config::units::parse_duration)]
    pub(super) since: Option<Duration>,
}

impl Choice {
    pub(super) fn begin(&self) -> Begin {
        self.since.map_or(Begin::Beginning, |ago| Begin::Since(ago_ms(ago)))
    }

    /// The expression, compiled.
    pub(super) fn program(&self, err: &mut dyn Write) -> Result<Option<Program>, Ended> {
        let Some(text) = &self.filter else { return Ok(None) };
        match Program::compile(text) {
            Ok(program) => Ok(Some(program)),
            Err(problems) => {
                for expr::Problem { line, column, message } in problems {
                    writeln!(err, "error: --where, line {line}, column {column}: {message}")?;
                }
                writeln!(err, "\nhint: `hookbridge eval` tries an expression")?;
                Err(Ended::Said(Exit::Usage))
            }
        }
    }
}

/// Chooses by an expression. What it fails for is not chosen, and said at the end: of `.data.country | ascii_upcase` an
/// event that cannot be read has none.
pub(super) struct Sieve {
    program: Option<Program>,
    failures: u64,
    first: Option<expr::Error>,
}

impl Sieve {
    pub(super) fn new(program: Option<Program>) -> Self {
        Self { program, failures: 0, first: None }
    }

    pub(super) fn takes(&mut self, document: impl FnOnce() -> String) -> bool {
        let Some(program) = &self.program else { return true };
        match program.is_true(&Json::from(std::borrow::Cow::Owned(document()))) {
            Ok(taken) => taken,
            Err(error) => {
                self.failures += 1;
                self.first.get_or_insert(error);
                false
            }
        }
    }

    pub(super) fn tell(&self, err: &mut dyn Write) -> io::Result<()> {
        let Some(first) = &self.first else { return Ok(()) };
        writeln!(err, "warning: `--where` fails for {} of them, which are left out: {first}", self.failures)
    }
}

/// So long ago, in milliseconds since the epoch.
pub(super) fn ago_ms(ago: Duration) -> i64 {
    clock::now_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
}

/// Says on a terminal how far a long reading has come, once a second.
pub(super) struct Progress {
    what: String,
    shown: Instant,
    terminal: bool,
    told: bool,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(1);

    pub(super) fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), shown: Instant::now(), terminal: io::stderr().is_terminal(), told: false }
    }

    pub(super) fn tell(&mut self, records: u64) {
        if self.terminal && self.shown.elapsed() >= Self::EVERY {
            self.shown = Instant::now();
            self.told = true;
            // Nobody has to see it.
            let _ = write!(io::stderr(), "\r{}: {records} records read", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told {
            let _ = writeln!(io::stderr());
        }
    }
}

/// At most so many characters, for a cell of a table.
pub(super) fn cut(text: &str, most: usize) -> String {
    let text = super::printable(text);
    match text.char_indices().nth(most) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
