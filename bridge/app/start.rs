//! What a start has to get through before requests are taken: Kafka, topics, schemas. Whatever waiting mends is waited
//! for, and said; what it does not mend ends the start.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::compile::Compiled;
use super::readiness::{Readiness, Step};
use super::{ASK_TIMEOUT, Error, Mode};
use crate::causes::chain;
use crate::config::{self, Config, SinkKind};
use crate::control;
use crate::deliver::{dead, receipt};
use crate::kafka::{self, Cleanup, Client, TopicPlan, preflight};
use crate::patience;
use crate::schema::EventSchema;
use crate::schema::registry::{self, Registry};
use crate::sinks;

/// Connections that the kernel holds for us while the loop does not accept: a burst of senders, not a queue.
const BACKLOG: u32 = 1024;
/// Between two looks at something that was not there: soon enough for a person who watches, rare enough for a log.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Schemas that the registry is asked for side by side: a hundred in the time of thirteen, and no burst for it.
const ASKED_AT_ONCE: usize = 8;

/// Binds before anything else is started, so that an address in use stops the start at once.
pub(super) fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source: io::Error| Error::Listen { what, address, source })
}

/// Waits for Kafka, sees to the topics, and learns the schemas' ids, by event type.
///
/// # Errors
/// What waiting does not mend.
pub(super) async fn start(
    compiled: &Compiled,
    mode: &Mode,
    client: &Client,
    registry: &Registry,
    readiness: &Arc<Readiness>,
) -> Result<HashMap<String, u32>, Error> {
    let Compiled { config, events, .. } = compiled;
    readiness.wait_for(Step::Kafka);
    let ping = || client.ping(ASK_TIMEOUT);
    patiently("kafka", readiness, ping, |_| true).await.map_err(Error::Kafka)?;
    if mode.real_cluster {
        readiness.wait_for(Step::Topics);
        // A cluster that has just come up answers, and elects its controller and leaders meanwhile.
        let may_pass = |error: &Error| {
            matches!(error, Error::Kafka(kafka::Error::Unreachable { .. } | kafka::Error::NoLeader { .. }))
        };
        let plans = topic_plans(config);
        let known = HashSet::new();
        let ask = || topics(config, &plans, &known, client, readiness);
        patiently("kafka", readiness, ask, may_pass).await?;
    }
    readiness.wait_for(Step::Schemas);
    let ask = |schema: EventSchema| {
        let (registry, readiness) = (registry.clone(), Arc::clone(readiness));
        async move { patiently("registry", &readiness, || registry.id_of(&schema), registry::Error::is_transient).await }
    };
    let ids = schema_ids(events.values().map(|event| &event.schema), config, ask).await?;
    if mode.real_cluster {
        let ask = || own_schemas(config, registry);
        let may_pass = |error: &registry::Error| error.is_transient();
        let registered = patiently("registry", readiness, ask, may_pass).await;
        registered.map_err(|error| Error::Schemas { problems: vec![chain(&error)] })?;
    }
    Ok(ids)
}

/// Registers the schemas of the records that the sinks write of themselves.
pub(super) async fn own_schemas(config: &Config, registry: &Registry) -> Result<(), registry::Error> {
    registry.own_id(control::SCHEMA).await?;
    if config.sinks.values().any(has_receipts) {
        registry.own_id(receipt::SCHEMA).await?;
    }
    Ok(())
}

/// Asks until there is an answer, or an error that may not pass. What is awaited is told to `/readyz`, and logged when
/// that changes.
pub(super) async fn patiently<T, E, F>(
    part: &str,
    readiness: &Readiness,
    ask: impl FnMut() -> F,
    may_pass: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + 'static,
{
    let tell = |error: &E, what: &str| {
        if readiness.amiss(part, &error.to_string()) {
            tracing::warn!(part, error = what, "waiting");
        }
    };
    let answer = patience::patiently(ask, may_pass, LOOK_AGAIN, tell).await?;
    if readiness.well(part) {
        tracing::info!(part, "it is there");
    }
    Ok(answer)
}

/// Creates what is missing where the configuration says so, then refuses what would break the promise. Of topics that
/// are `known`, since they are in use, that is said and refuses nothing.
///
/// # Errors
/// [`Error::Kafka`] or [`Error::Preflight`].
pub(super) async fn topics(
    config: &Config,
    plans: &[TopicPlan],
    known: &HashSet<String>,
    client: &Client,
    readiness: &Readiness,
) -> Result<(), Error> {
    let admin = client.admin().map_err(Error::Kafka)?;
    if config.kafka.create_topics {
        let missing: Vec<TopicPlan> = plans.iter().filter(|plan| !known.contains(&plan.name)).cloned().collect();
        for topic in admin.ensure_topics(&missing).await.map_err(Error::Kafka)? {
            if !topic.existed {
                let (partitions, replication) = (topic.partitions, topic.replication);
                tracing::info!(topic = topic.name, partitions, replication, "topic created");
            }
        }
    }
    let preflight = admin.preflight(plans, max_record(config)).await.map_err(Error::Kafka)?;
    let in_use = |finding: &&preflight::Finding| finding.topic.as_ref().is_some_and(|topic| known.contains(topic));
    let (told, problems): (Vec<_>, Vec<_>) = preflight.problems.iter().partition(in_use);
    let warnings: Vec<String> = preflight.warnings.iter().chain(told).map(ToString::to_string).collect();
    for warning in &warnings {
        tracing::warn!(warning, "the cluster gives less than it could");
    }
    if !problems.is_empty() {
        return Err(Error::Preflight { problems: problems.iter().map(ToString::to_string).collect() });
    }
    if warnings.is_empty() {
        readiness.well("cluster");
    } else {
        readiness.amiss("cluster", &warnings.join("; "));
    }
    Ok(())
}

/// The topics that the line and the sinks need.
pub(crate) fn topic_plans(config: &Config) -> Vec<TopicPlan> {
    let defaults = &config.kafka.topic_defaults;
    let plan = |name: String| TopicPlan {
        name,
        partitions: defaults.partitions,
        partitioned_as: None,
        replication: defaults.replication_factor,
        min_isr: defaults.min_insync_replicas,
        retention: Some(defaults.retention),
        cleanup: Cleanup::Delete,
        max_message_bytes: Some(max_record(config)),
    };
    let events = config.events.values().map(|event| plan(format!("{}{}", config.kafka.topic_prefix, event.topic)));
    let quarantine = config.sources.keys().map(|source| plan(quarantine_topic(config, source)));
    let of_sinks = config.sinks.values().filter(|sink| has_receipts(sink)).flat_map(|sink| {
        let prefix = &config.kafka.topic_prefix;
        // Written to the partition that the event was read from.
        let receipts = config.event_topics(sink).into_iter().map(|events| {
            let receipts = plan(receipt::topic(prefix, &sink.name, &events));
            TopicPlan { partitioned_as: Some(events), ..receipts }
        });
        let copies = outputs(sink, prefix).into_iter().map(plan);
        receipts.chain([plan(dead::topic(prefix, &sink.name))]).chain(copies).collect::<Vec<_>>()
    });
    // One order after the other, and no more of them than there are sinks.
    let control = TopicPlan {
        partitions: 1,
        retention: None,
        cleanup: Cleanup::Compact,
        ..plan(control::topic(&config.kafka.topic_prefix))
    };
    events.chain(quarantine).chain(of_sinks).chain([control]).collect()
}

/// The topics that a Kafka sink writes to, each once.
fn outputs(sink: &config::Sink, prefix: &str) -> BTreeSet<String> {
    let SinkKind::Kafka { topic } = &sink.kind else { return BTreeSet::new() };
    sink.events.iter().map(|event| sinks::kafka::topic(prefix, topic, event)).collect()
}

/// Whether a sink keeps receipts in Kafka, and dead letters with them.
pub(crate) fn has_receipts(sink: &config::Sink) -> bool {
    matches!(sink.kind, SinkKind::Http(_) | SinkKind::Postgres(_) | SinkKind::Kafka { .. })
}

/// The largest record that we write: a request's whole body, as an event or in quarantine, with its headers and the
/// violations, which librdkafka and brokers count too.
pub(crate) fn max_record(config: &Config) -> usize {
    const HEADERS: usize = 256 * 1024;
    config.ingest.max_body + HEADERS
}

pub(crate) fn quarantine_topic(config: &Config, source: &str) -> String {
    format!("{}quarantine.{source}", config.kafka.topic_prefix)
}

/// The registry's id of each schema, by event type: `ask` asks for one.
///
/// # Errors
/// [`Error::Schemas`], with every schema that has none.
pub(super) async fn schema_ids<'a, F>(
    schemas: impl Iterator<Item = &'a EventSchema>,
    config: &Config,
    ask: impl Fn(EventSchema) -> F,
) -> Result<HashMap<String, u32>, Error>
where
    F: Future<Output = Result<u32, registry::Error>> + Send + 'static,
{
    // Registries answer two registrations of one shared type at once with a conflict.
    let at_once = if config.registry.auto_register { 1 } else { ASKED_AT_ONCE };
    let permits = Arc::new(Semaphore::new(at_once));
    let mut asked = JoinSet::new();
    for schema in schemas {
        let (event_type, permits) = (schema.event_type.clone(), Arc::clone(&permits));
        let answer = ask(schema.clone());
        asked.spawn(async move {
            let _permit = permits.acquire().await;
            (event_type, answer.await)
        });
    }
    let mut ids = HashMap::new();
    let mut problems = Vec::new();
    for (event_type, id) in asked.join_all().await {
        match id {
            Ok(id) => _ = ids.insert(event_type, id),
            Err(error) => problems.push(format!("{event_type}: {}", chain(&error))),
        }
    }
    problems.sort_unstable();
    if problems.is_empty() { Ok(ids) } else { Err(Error::Schemas { problems }) }
}
