//! The compiled sources, put on the line.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::compile::{CompiledEvent, CompiledSource};
use super::start::{max_record, quarantine_topic};
use crate::config::Config;
use crate::ingest::dedupe::{Destination, Memory};
use crate::ingest::line::{Line, Route, Source};
use crate::ingest::trace::Traces;
use crate::kafka::Publisher;
use crate::metrics::{Metrics, SourceMetrics};
use crate::schema::EventSchema;

/// Bytes of an event's key and headers: id, key and subject have 1 KiB at most, the others are our own.
const EVENT_HEADERS: usize = 16 * 1024;

/// Everything between a request and its answer. `ids`: the registry's, by event type.
pub(super) fn line(
    config: &Config,
    events: &BTreeMap<String, CompiledEvent>,
    compiled: Vec<CompiledSource>,
    ids: &HashMap<String, u32>,
    publisher: Publisher,
    memory: Arc<Memory>,
    metrics: Metrics,
) -> Line {
    let mut sources = HashMap::new();
    for source in compiled {
        let written = source.config;
        let counters = SourceMetrics::new(&metrics, &written.name);
        let routes = events.iter().filter_map(|(event_type, event)| {
            let id = *ids.get(event_type)?;
            let route = Route {
                topic: event.schema.topic.clone(),
                subject: event.schema.subject.clone(),
                version: event.schema.version,
                id,
                plan: Arc::clone(&event.plan),
                destination: memory.destination(&destination(&event.schema, id)),
                data_schema: format!("{}/schemas/ids/{id}", config.registry.url),
                accepted: counters.accepted(event_type),
                unknown_fields: counters.unknown_fields(event_type),
            };
            Some((event_type.clone(), route))
        });
        let source = Source {
            verifier: source.verifier,
            handshakes: source.handshakes,
            splitter: source.splitter,
            mapper: source.mapper,
            routes: routes.collect(),
            deadline: written.deadline,
            on_unmapped: written.on_unmapped,
            on_invalid: written.on_invalid,
            quarantine_topic: quarantine_topic(config, &written.name),
            secret_uses: (0..written.secrets.len()).map(|index| counters.secret_use(index)).collect(),
            deduplicated: counters.deduplicated(),
            metrics: counters,
            name: written.name.clone(),
        };
        sources.insert(written.name, Arc::new(source));
    }
    let max_event_bytes = max_record(config) - EVENT_HEADERS;
    Line { sources, publisher, memory, max_event_bytes, traces: Traces::default(), metrics }
}

/// Where events of a schema go, which the registry knows by `id`.
pub(super) fn destination(schema: &EventSchema, id: u32) -> Destination {
    Destination {
        topic: schema.topic.clone(),
        subject: schema.subject.clone(),
        version: Some(schema.version),
        schema_id: id,
    }
}
