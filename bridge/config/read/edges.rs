//! `instance`, `kafka`, `registry`, `ingest`, `admin`, `egress`: what the bridge is connected to, and its limits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::names::{self, MAX_NAME, MAX_PREFIX};
use crate::config::reader::{Field, Map};
use crate::config::{
    Admin, DedupeScope, Egress, Ingest, IngestDedupe, Kafka, Network, Registry, Secret, TopicDefaults, kafka_properties,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const BOOTSTRAP_SERVERS: &str = "127.0.0.1:9092";
/// Twelve divide among 1, 2, 3, 4 and 6 instances alike.
const PARTITIONS: i32 = 12;
/// A month: how long there is to notice and replay.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const REGISTRY_URL: &str = "http://127.0.0.1:8081";

const INGEST_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);
/// What Kafka takes in one message by default, and more than providers send.
const MAX_BODY: usize = MIB;
/// Below the 5 s that the quicker providers wait.
const DEADLINE: Duration = Duration::from_millis(4500);
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5 * 60);
/// A connection costs about 32 KiB of buffers: 128 MiB for all of them.
const MAX_CONNECTIONS: usize = 4096;
/// A provider sends its headers in one packet; ten seconds are for the slowest link, not for a Slowloris.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// 1 MiB at 70 KiB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// Providers keep connections for their next event; proxies in front close them after 60 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// As many as connections of HTTP/1.1, twice: the rest is for HTTP/2. With 16 KiB each, 128 MiB at the very worst.
const MAX_REQUESTS: usize = 8192;
/// Sixty-four of the largest bodies at once; small ones are not counted.
const MAX_BUFFERED: usize = 64 * MIB;
/// A telephone's worst link does ten times as much.
const MIN_BODY_RATE: usize = KIB;
/// A sender of a hundred a second comes anew every two minutes: nothing beside what its requests cost.
const MAX_CONNECTION_REQUESTS: u64 = 10_000;
/// After an instance was added, its share of the connections is there so soon.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(10 * 60);
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
/// Five seconds of the fastest load at 600 bytes an event, and a bound on memory while Kafka is slow.
const MAX_IN_FLIGHT: usize = 64 * MIB;
/// Kubernetes kills after 30 s; five are left for the consumers to leave their groups.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// At most 50 bytes each: 100 MiB when full. At a hundred events a second it reaches back for five hours.
const DEDUPE_ENTRIES: usize = 2_000_000;

pub(super) fn instance(field: &Field<'_>) -> String {
    let slot = field.text_or_empty().unwrap_or_default();
    if !slot.is_empty() && !names::is_name(&slot, "_-.", MAX_NAME) {
        let hint =
            format!("at most {MAX_NAME} letters, digits, `.`, `_` and `-`: it becomes part of transactional ids");
        field.error_with_hint(format!("{} cannot be an instance's name", field.quoted()), hint);
    }
    slot
}

pub(super) fn kafka(field: &Field<'_>) -> Kafka {
    field.map(|kafka| Kafka {
        bootstrap_servers: kafka.field("bootstrap_servers").parsed_or(BOOTSTRAP_SERVERS.to_owned(), bootstrap_servers),
        create_topics: kafka.field("create_topics").flag_or(false),
        topic_prefix: kafka.field("topic_prefix").parsed_or(String::new(), topic_prefix),
        topic_defaults: topic_defaults(&kafka.field("topic_defaults")),
        librdkafka: librdkafka(&kafka.field("librdkafka")),
    })
}

fn bootstrap_servers(text: &str) -> Result<String, String> {
    let sound = |server: &str| {
        server.trim().rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if text.split(',').all(sound) { Ok(text.to_owned()) } else { Err("is not a list `host:port,host:port`".to_owned()) }
}

fn topic_prefix(text: &str) -> Result<String, String> {
    if names::is_name(text, "._-", MAX_PREFIX) {
        Ok(text.to_owned())
    } else {
        Err(format!("cannot begin a topic's name: at most {MAX_PREFIX} letters, digits, `.`, `_` and `-`"))
    }
}

fn topic_defaults(field: &Field<'_>) -> TopicDefaults {
    field.map(|defaults| {
        let replication_factor = auto_or_number(&defaults.field("replication_factor"));
        let min_insync = defaults.field("min_insync_replicas");
        let min_insync_replicas = auto_or_number(&min_insync);
        if let (Some(replicas), Some(in_sync)) = (replication_factor, min_insync_replicas)
            && in_sync > replicas
        {
            min_insync
                .error(format!("{in_sync} of {replicas} replicas can never be in sync: nothing could be written"));
        }
        TopicDefaults {
            partitions: defaults.field("partitions").number_or(PARTITIONS, &(1..=10_000)),
            replication_factor,
            min_insync_replicas,
            retention: defaults.field("retention").duration_or(RETENTION, &(Duration::from_secs(60 * 60)..=DAY * 3650)),
        }
    })
}

/// `None`: `auto`, or not written.
fn auto_or_number(field: &Field<'_>) -> Option<i32> {
    if field.written_text() == Some("auto") { None } else { field.number(&(1..=100)) }
}

fn librdkafka(field: &Field<'_>) -> BTreeMap<String, Secret> {
    let mut properties = BTreeMap::new();
    for (name, value) in field.named() {
        if let Err(refusal) = kafka_properties::allow(name) {
            value.error_at_key(refusal.message, refusal.hint);
        } else if !value.is_written() {
            value.error("is empty");
        } else if let Some(text) = value.secret() {
            if name == "message.timeout.ms" && !is_give_up(text.expose()) {
                value.error("is not within 5000 to 300000: a record that is never given up is awaited for ever");
            }
            if matches!(name, "compression.type" | "compression.codec") && text.expose() == "zstd" {
                value.error_with_hint(
                    "is `zstd`, which this build of librdkafka cannot do",
                    "write `lz4` (the default), `snappy`, `gzip` or `none`, and set no topic's own `compression.type` to zstd",
                );
            }
            if name == "enable.ssl.certificate.verification" && text.expose() == "false" {
                value.warning("anybody on the way can pose as the broker", "set `ssl.ca.location` instead");
            }
            properties.insert(name.to_owned(), text);
        }
    }
    properties
}

/// Milliseconds after which a record may be given up: at least what one request to a broker may take.
fn is_give_up(text: &str) -> bool {
    text.parse().is_ok_and(|timeout: u32| (5_000..=300_000).contains(&timeout))
}

pub(super) fn registry(field: &Field<'_>) -> Registry {
    field.map(|registry| {
        let username = registry.field("username");
        let password = registry.field("password");
        match (username.is_written(), password.is_written()) {
            (true, false) => password.error("is missing, while `username` is given"),
            (false, true) => username.error("is missing, while `password` is given"),
            _ => {}
        }
        Registry {
            url: registry.field("url").parsed_unseen(http_url).unwrap_or_else(|| REGISTRY_URL.to_owned()),
            auto_register: registry.field("auto_register").flag_or(false),
            cache: registry.field("cache").path_or("var/registry"),
            username: username.text(),
            password: password.secret(),
        }
    })
}

/// For [`Field::parsed_unseen`]: an `http` or `https` address without a name and password in it, which logs would show.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let wrong = || "is not an address such as `https://example.com/path`".to_owned();
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("holds a user name: credentials have keys of their own".to_owned())
        }
        (Some("http" | "https"), Some(authority)) if !authority.host().is_empty() => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

pub(super) fn ingest(field: &Field<'_>) -> Ingest {
    field.map(|ingest| {
        let in_flight = ingest.field("max_in_flight_bytes");
        let buffered = ingest.field("max_buffered_bytes");
        let limits = Ingest {
            listen: ingest.field("listen").parsed_or(INGEST_LISTEN, listen),
            max_body: ingest.field("max_body").size_or(MAX_BODY, &(KIB..=64 * MIB)),
            deadline: ingest.field("deadline").duration_or(DEADLINE, &DEADLINES),
            max_connections: ingest.field("max_connections").number_or(MAX_CONNECTIONS, &(1..=1_000_000)),
            max_requests: ingest.field("max_requests").number_or(MAX_REQUESTS, &(1..=1_000_000)),
            max_buffered_bytes: buffered.size_or(MAX_BUFFERED, &(64 * KIB..=16 * 1024 * MIB)),
            header_timeout: ingest.field("header_timeout").duration_or(HEADER_TIMEOUT, &TIMEOUTS),
            body_timeout: ingest.field("body_timeout").duration_or(BODY_TIMEOUT, &TIMEOUTS),
            min_body_rate: ingest.field("min_body_rate").size_or(MIN_BODY_RATE, &(1..=MIB)),
            idle_timeout: ingest.field("idle_timeout").duration_or(IDLE_TIMEOUT, &TIMEOUTS),
            max_connection_requests: ingest
                .field("max_connection_requests")
                .number_or(MAX_CONNECTION_REQUESTS, &(1..=1_000_000_000)),
            max_connection_age: ingest.field("max_connection_age").duration_or(MAX_CONNECTION_AGE, &AGES),
            compressed_bodies: ingest.field("compressed_bodies").flag_or(false),
            max_in_flight_bytes: in_flight.size_or(MAX_IN_FLIGHT, &(64 * KIB..=16 * 1024 * MIB)),
            drain_timeout: ingest.field("drain_timeout").duration_or(DRAIN_TIMEOUT, &TIMEOUTS),
            dedupe: ingest_dedupe(ingest),
        };
        if limits.max_in_flight_bytes < limits.max_body {
            in_flight.error("is smaller than `max_body`: the largest request could never pass");
        }
        if limits.max_buffered_bytes < limits.max_body {
            buffered.error("is smaller than `max_body`: the largest request could never pass");
        }
        limits
    })
}

fn ingest_dedupe(ingest: &mut Map<'_>) -> IngestDedupe {
    ingest.field("dedupe").map(|dedupe| IngestDedupe {
        max_entries: dedupe.field("max_entries").number_or(DEDUPE_ENTRIES, &(1_000..=100_000_000)),
        scope: dedupe.field("scope").choice_or(
            DedupeScope::Instance,
            &[("instance", DedupeScope::Instance), ("cluster", DedupeScope::Cluster)],
        ),
    })
}

/// A source's own `deadline`.
pub(super) fn deadline(field: &Field<'_>) -> Option<Duration> {
    field.duration(&DEADLINES)
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an IP address and port such as `127.0.0.1:8080`".to_owned())
}

pub(super) fn admin(field: &Field<'_>) -> Admin {
    field.map(|admin| {
        let field = admin.field("listen");
        let listen = field.parsed_or(ADMIN_LISTEN, listen);
        if !listen.ip().is_loopback() {
            field.warning(
                "whoever reaches this address sees the metrics and the console: nobody is asked for a password",
                "listen on 127.0.0.1, or let a network policy guard the port",
            );
        }
        Admin { listen }
    })
}

pub(super) fn egress(field: &Field<'_>) -> Egress {
    field.map(|egress| Egress {
        allow: egress.field("allow").items().iter().filter_map(|item| item.parsed(str::parse::<Network>)).collect(),
    })
}
