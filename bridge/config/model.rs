//! The typed configuration: what the file means, once it has been read without a problem.
//! Each part of the bridge is given its own struct from here, never the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::units::Rate;
use super::{Network, Secret};

/// The whole file.
#[derive(Debug, Clone)]
pub struct Config {
    /// A stable slot, or empty.
    pub instance: String,
    pub kafka: Kafka,
    pub registry: Registry,
    pub ingest: Ingest,
    pub admin: Admin,
    pub egress: Egress,
    /// Folder of `<category>/<event_type>/<version>.avsc`, resolved against the configuration file's folder.
    pub schemas: PathBuf,
    pub events: BTreeMap<String, EventDef>,
    pub sources: BTreeMap<String, Source>,
    pub sinks: BTreeMap<String, Sink>,
    pub alerts: Option<Alerts>,
    pub written: Written,
}

/// The file as it was written, for what is told of it.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Of the file's own text (variables and files that it names are not in it): tells whether two processes read the
    /// same. The first 48 bits of its SHA-256, which is as much as a gauge holds exactly.
    pub digest: u64,
    /// Where the keys stand that a running process keeps to, by path: what is not written has none.
    pub places: BTreeMap<String, Location>,
}

impl Config {
    /// Every jq text of the file, with where it stands: for `check` and the start to compile.
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let events = self.events.values().flat_map(|event| event.key.iter().chain(&event.id));
        let sources = self.sources.values().flat_map(Source::expressions);
        let sinks = self.sinks.values().flat_map(Sink::expressions);
        events.chain(sources).chain(sinks)
    }

    /// The full names of the topics that hold a sink's events, each once.
    #[must_use]
    pub fn event_topics(&self, sink: &Sink) -> BTreeSet<String> {
        let prefix = &self.kafka.topic_prefix;
        let topics = sink.events.iter().filter_map(|event| self.events.get(event));
        topics.map(|event| format!("{prefix}{}", event.topic)).collect()
    }
}

#[derive(Debug, Clone)]
pub struct Kafka {
    pub bootstrap_servers: String,
    pub create_topics: bool,
    /// Before every topic and group name of ours; empty by default.
    pub topic_prefix: String,
    pub topic_defaults: TopicDefaults,
    /// Allow-listed librdkafka properties (`config::kafka_properties` has the list).
    pub librdkafka: BTreeMap<String, Secret>,
}

#[derive(Debug, Clone)]
pub struct TopicDefaults {
    pub partitions: i32,
    /// `None`: auto.
    pub replication_factor: Option<i32>,
    /// `None`: auto.
    pub min_insync_replicas: Option<i32>,
    pub retention: Duration,
}

#[derive(Debug, Clone)]
pub struct Registry {
    pub url: String,
    pub auto_register: bool,
    /// Folder of the disk cache.
    pub cache: PathBuf,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

#[derive(Debug, Clone)]
pub struct Ingest {
    pub listen: SocketAddr,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// From the first byte of the request to our answer.
    pub deadline: Duration,
    pub max_connections: usize,
    /// Under way at once, over all connections.
    pub max_requests: usize,
    /// Of all bodies together, beyond the first 16 KiB of each.
    pub max_buffered_bytes: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    /// Bytes a second.
    pub min_body_rate: usize,
    pub idle_timeout: Duration,
    pub max_connection_requests: u64,
    pub max_connection_age: Duration,
    pub compressed_bodies: bool,
    /// Bytes of events handed to Kafka and not yet confirmed; past it, 503.
    pub max_in_flight_bytes: usize,
    /// How long a graceful stop may take.
    pub drain_timeout: Duration,
    pub dedupe: IngestDedupe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestDedupe {
    /// Events that are remembered.
    pub max_entries: usize,
    pub scope: DedupeScope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DedupeScope {
    /// What this process publishes, and what was in the topics when it started.
    Instance,
    /// What others publish as well: every event is read once more by every instance.
    Cluster,
}

#[derive(Debug, Clone)]
pub struct Admin {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// Networks that sinks may reach besides public addresses.
    pub allow: Vec<Network>,
}

/// An event definition: what may be in a topic.
#[derive(Debug, Clone)]
pub struct EventDef {
    pub category: String,
    pub owner: String,
    pub version: SchemaVersion,
    pub compatibility: Compatibility,
    /// jq text, evaluated on the event (after mapping); `None`: the event id.
    pub key: Option<Expr>,
    /// jq text, evaluated on the event (after mapping); `None`: the source's own event id.
    pub id: Option<Expr>,
    pub unknown_fields: UnknownFields,
    /// The topic, without the prefix; default `events.<event_type>`.
    pub topic: String,
    pub at: Location,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaVersion {
    /// The highest file.
    Latest,
    /// A file's number.
    Number(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compatibility {
    None,
    Backward,
    BackwardTransitive,
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    Reject,
    Drop,
    Capture,
    Warn,
}

/// jq text, and where it was written.
#[derive(Debug, Clone)]
pub struct Expr {
    pub text: String,
    /// Where its first character stands.
    pub at: Location,
}

impl Expr {
    /// Where in the file a line and column (both from 1) of the text stand. Exact for a text in one line and for a
    /// block after `|`; a folded text has lost its lines.
    #[must_use]
    pub fn place(&self, line: usize, column: usize) -> Location {
        Location {
            line: self.at.line + line.saturating_sub(1),
            column: self.at.column + column.saturating_sub(1),
            path: self.at.path.clone(),
        }
    }
}

/// Where in the file something was written: 1-based line and column, and the key path (`sources.stripe.secrets`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    pub line: usize,
    pub column: usize,
    pub path: String,
}

/// Live secrets of a source: the old and the new one while a secret is changed, and as much again. Each is one more pass
/// over the body of a request that nobody signed, and each has a counter.
pub const MAX_SECRETS: usize = 4;

/// A source: who may send, how it is verified, and what its requests become.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    /// The catalogue entry's name; `None`: the scheme is written in the source itself.
    pub preset: Option<String>,
    /// The preset's description, with what the source writes laid over it.
    pub scheme: crate::catalog::SourceScheme,
    /// In order; empty ones were left out. At least one unless the scheme needs none.
    pub secrets: Vec<Secret>,
    /// What a handshake that is not signed must show.
    pub verify_token: Option<Secret>,
    /// What the provider calls, as the provider knows it: part of what some of them sign.
    pub public_url: Option<String>,
    /// The jq texts of the description that this file writes; those of a preset are the catalogue's.
    pub described: Vec<Expr>,
    pub events: EventRules,
    /// What the expressions for one event may take together, besides what goes with the event's size.
    pub max_steps: u64,
    pub on_unmapped: OnUnmapped,
    pub on_invalid: OnInvalid,
    /// Already the smaller of the file's and the preset's limit less a second.
    pub deadline: Duration,
    pub at: Location,
}

impl Source {
    fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let (direct, rules) = match &self.events {
            EventRules::Direct { event_type, payload } => (Some((event_type, payload)), &[][..]),
            EventRules::Rules { rules, .. } => (None, &rules[..]),
        };
        let direct = direct.into_iter().flat_map(|(event_type, payload)| std::iter::once(event_type).chain(payload));
        let rules = rules.iter().flat_map(|rule| rule.when.iter().chain(&rule.map));
        self.described.iter().chain(direct).chain(rules)
    }
}

/// How a request becomes events.
#[derive(Debug, Clone, PartialEq)]
pub enum EventRules {
    /// Event type and data stand in the body: `event_type: .type`, `payload: .data`.
    Direct { event_type: Expr, payload: Option<Expr> },
    /// `events:` rules, the first that matches.
    Rules { rules: Vec<EventRule>, all: bool },
}

#[derive(Debug, Clone)]
pub struct EventRule {
    pub when: Option<Expr>,
    pub event: String,
    pub map: Option<Expr>,
    pub at: Location,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnmapped {
    Quarantine,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    Quarantine,
    Reject,
}

/// A sink: where events go.
#[derive(Debug, Clone)]
pub struct Sink {
    pub name: String,
    /// Event types.
    pub events: Vec<String>,
    pub filter: Option<Expr>,
    pub map: Option<Expr>,
    /// The consent that this sink needs.
    pub purpose: Purpose,
    /// As the file says, else what its kind gives by default. `None`: a preset's own.
    pub guarantee: Option<Guarantee>,
    pub kind: SinkKind,
    pub at: Location,
}

impl Sink {
    fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.filter.iter().chain(&self.map).chain(self.batch_body()).chain(self.batch_failed())
    }

    /// What a batch's body is made with, where that is jq.
    #[must_use]
    pub fn batch_body(&self) -> Option<&Expr> {
        match &self.batch()?.body {
            BatchBody::Expr(expr) => Some(expr),
            BatchBody::Array | BatchBody::Lines => None,
        }
    }

    /// What the answer to a batch is read with.
    #[must_use]
    pub fn batch_failed(&self) -> Option<&Expr> {
        self.batch()?.failed.as_ref()
    }

    fn batch(&self) -> Option<&Batch> {
        if let SinkKind::Http(http) = &self.kind { http.batch.as_ref() } else { None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Not written: allowed for kinds that are no marketing action (postgres, kafka).
    Unset,
    /// `purpose: none`, written out.
    None,
    Named(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    ExactlyOnce,
    EffectivelyOnce,
    AtLeastOnce,
    AtMostOnce,
}

impl Guarantee {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::EffectivelyOnce => "effectively_once",
            Self::AtLeastOnce => "at_least_once",
            Self::AtMostOnce => "at_most_once",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum SinkKind {
    Postgres(Postgres),
    Http(Http),
    /// A section that `check` reads and `run` refuses by name.
    Kafka {
        topic: String,
    },
    /// A catalogue sink.
    Preset(PresetSink),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Postgres {
    /// A libpq connection string or URL; it holds a password.
    pub url: Secret,
    /// May hold `{event_type}`.
    pub table: String,
    /// PostgreSQL schema; default `public`.
    pub schema: String,
    pub ddl: Ddl,
    /// Records in one transaction, at most.
    pub max_batch: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ddl {
    Create,
    Evolve,
    Manual,
}

#[derive(Clone, PartialEq)]
pub struct Http {
    /// Its path may be a secret of its own: `Debug` shows the scheme and host only.
    pub url: String,
    /// Sent with every request, by names in lower case; any may be a secret.
    pub headers: BTreeMap<String, Secret>,
    /// Standard Webhooks secret that requests are signed with.
    pub standard_webhooks: Option<Secret>,
    pub concurrency: usize,
    pub timeout: Duration,
    pub pacing: Pacing,
    /// How events are sent together; `None`: each is a call of its own.
    pub batch: Option<Batch>,
}

/// Several events in one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Events of one call, at most.
    pub max_events: usize,
    /// Of a request's body, at most.
    pub max_bytes: usize,
    /// How long the first event of a batch waits for others.
    pub linger: Duration,
    pub body: BatchBody,
    /// jq on the answer: which of the events have failed.
    pub failed: Option<Expr>,
}

/// What a batch looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchBody {
    /// A JSON array.
    Array,
    /// A line of JSON for each event.
    Lines,
    /// jq on the array.
    Expr(Expr),
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin_ends = self.url.find("://").map_or(0, |at| at + 3);
        let path = self.url[origin_ends..].find(['/', '?', '#']).map_or(self.url.len(), |at| origin_ends + at);
        f.debug_struct("Http")
            .field("origin", &&self.url[..path])
            .field("headers", &self.headers)
            .field("standard_webhooks", &self.standard_webhooks)
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .field("pacing", &self.pacing)
            .field("batch", &self.batch)
            .finish()
    }
}

/// How fast a sink is called, and how long it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Calls of this process; `None`: as many as `concurrency` lets through.
    pub rate_limit: Option<Rate>,
    /// How long a record is tried again in its place; then its key is parked.
    pub in_place: Duration,
    /// How long it is tried again at all; then it is a dead letter.
    pub max_age: Duration,
    /// How far back a delivery id is remembered.
    pub dedupe_window: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        // In place for as long as a restart of the other side takes; at all for as long as it takes a person to see.
        Self { rate_limit: None, in_place: Duration::from_secs(30), max_age: DAY, dedupe_window: DAY }
    }
}

/// A sink that the catalogue describes.
#[derive(Debug, Clone, PartialEq)]
pub struct PresetSink {
    pub preset: String,
    pub api_key: Option<Secret>,
    /// Instead of the preset's own, for a proxy or a test.
    pub base_url: Option<String>,
    pub concurrency: usize,
    pub timeout: Duration,
    pub pacing: Pacing,
}

/// Read and checked; alerting itself is not built yet.
#[derive(Debug, Clone)]
pub struct Alerts {
    pub drift: Option<DriftAlert>,
    pub dead_letters: Option<DeadLetterAlert>,
    pub receivers: BTreeMap<String, Receiver>,
    pub at: Location,
}

#[derive(Debug, Clone)]
pub struct DriftAlert {
    /// Names of receivers.
    pub to: Vec<String>,
    /// How often a finding must have been seen.
    pub min_count: u32,
}

#[derive(Debug, Clone)]
pub struct DeadLetterAlert {
    /// Names of receivers.
    pub to: Vec<String>,
    /// More than so many in so long.
    pub over: Rate,
}

/// Where alerts go. The address is a capability, and so a secret.
#[derive(Debug, Clone)]
pub enum Receiver {
    Slack(Secret),
    Webhook(Secret),
    Alertmanager(Secret),
}
