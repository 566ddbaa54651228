//! The typed configuration: what the file means, once it has been read without a problem.
//! Each part of the bridge is given its own struct from here, never the whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

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
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    /// Bytes of events handed to Kafka and not yet confirmed; past it, 503.
    pub max_in_flight_bytes: usize,
    /// How long a graceful stop may take.
    pub drain_timeout: Duration,
    pub dedupe: IngestDedupe,
}

#[derive(Debug, Clone, Copy)]
pub struct IngestDedupe {
    pub max_entries: usize,
    pub scope: DedupeScope,
    /// Whether the section was written in the file (deduplication itself is not built yet).
    pub written: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DedupeScope {
    Instance,
    Cluster,
}

#[derive(Debug, Clone)]
pub struct Admin {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// CIDR networks that sinks may reach besides public addresses.
    pub allow: Vec<String>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expr {
    pub text: String,
    pub at: Location,
}

/// Where in the file something was written: 1-based line and column, and the key path (`sources.stripe.secrets`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    pub line: usize,
    pub column: usize,
    pub path: String,
}

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
    pub public_url: Option<String>,
    pub events: EventRules,
    pub on_unmapped: OnUnmapped,
    pub on_invalid: OnInvalid,
    /// Already the smaller of the file's and the preset's limit less a second.
    pub deadline: Duration,
    pub at: Location,
}

/// How a request becomes events.
#[derive(Debug, Clone)]
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
    pub guarantee: Option<Guarantee>,
    pub kind: SinkKind,
    pub at: Location,
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

#[derive(Debug, Clone)]
pub enum SinkKind {
    Postgres(Postgres),
    Http(Http),
    /// A section that `check` reads and `run` refuses by name.
    Kafka {
        topic: String,
    },
    /// A catalogue sink.
    Preset {
        preset: String,
    },
}

#[derive(Debug, Clone)]
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

#[derive(Debug, Clone)]
pub struct Http {
    pub url: String,
    /// Standard Webhooks secret that requests are signed with.
    pub standard_webhooks: Option<Secret>,
    pub concurrency: usize,
    pub timeout: Duration,
}

/// Read and checked; alerting itself is not built yet.
#[derive(Debug, Clone)]
pub struct Alerts {
    pub at: Location,
}
