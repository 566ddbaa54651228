//! The compiled sources, put on the line.

use std::collections::HashMap;
use std::sync::Arc;

use super::compile::Compiled;
use super::start::{max_record, quarantine_topic};
use crate::ingest::line::{Line, Route, Source};
use crate::ingest::trace::Traces;
use crate::kafka::Publisher;
use crate::metrics::{Metrics, SourceMetrics};

/// Bytes of an event's key and headers: id, key and subject have 1 KiB at most, the others are our own.
const EVENT_HEADERS: usize = 16 * 1024;

/// Everything between a request and its answer. `ids`: the registry's, by event type.
pub(super) fn line(compiled: Compiled, ids: &HashMap<String, u32>, publisher: Publisher, metrics: Metrics) -> Line {
    let mut sources = HashMap::new();
    for source in compiled.sources {
        let config = source.config;
        let counters = SourceMetrics::new(&metrics, &config.name);
        let routes = compiled.events.iter().filter_map(|(event_type, event)| {
            let id = *ids.get(event_type)?;
            let route = Route {
                topic: event.schema.topic.clone(),
                subject: event.schema.subject.clone(),
                version: event.schema.version,
                id,
                plan: Arc::clone(&event.plan),
                data_schema: format!("{}/schemas/ids/{id}", compiled.config.registry.url),
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
            deadline: config.deadline,
            on_unmapped: config.on_unmapped,
            on_invalid: config.on_invalid,
            quarantine_topic: quarantine_topic(&compiled.config, &config.name),
            secret_uses: (0..config.secrets.len()).map(|index| counters.secret_use(index)).collect(),
            metrics: counters,
            name: config.name.clone(),
        };
        sources.insert(config.name, Arc::new(source));
    }
    let max_event_bytes = max_record(&compiled.config) - EVENT_HEADERS;
    Line { sources, publisher, max_event_bytes, traces: Traces::default(), metrics }
}
