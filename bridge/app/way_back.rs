//! Parts of a bridge that does not run, for the commands that send back what was set aside.

use std::collections::HashMap;
use std::sync::Arc;

use super::compile::Compiled;
use super::{Error, sinks, sources, start};
use crate::deliver::Rehearsal;
use crate::ingest::dedupe::Memory;
use crate::ingest::line::Line;
use crate::kafka::{self, Client, Publisher};
use crate::metrics::Metrics;
use crate::schema::registry::{self, Registry};
use crate::schema::{Decoder, EventSchema};

/// What a sink would make of a record now; `None`: there is no such sink.
pub(crate) fn rehearsal(compiled: Compiled, sink: &str, registry: &Registry) -> Option<Rehearsal> {
    let Compiled { config, events, sinks, .. } = compiled;
    let found = sinks.into_iter().find(|found| found.config.name == sink)?;
    Some(Rehearsal::new(sink, Decoder::new(registry.clone()), sinks::policy_of(found, &config, &events)))
}

/// The registry's id of each event's schema, by event type.
///
/// # Errors
/// [`Error::Schemas`], with every schema that has none.
pub(crate) async fn schema_ids(compiled: &Compiled, registry: &Registry) -> Result<HashMap<String, u32>, Error> {
    let schemas = compiled.events.values().map(|event| &event.schema);
    let ask = |schema: EventSchema| {
        let registry = registry.clone();
        async move { registry.id_of(&schema).await.map_err(|error: registry::Error| error) }
    };
    start::schema_ids(schemas, &compiled.config, ask).await
}

/// The line that requests would be put on, with no door before it.
///
/// # Errors
/// [`Error::Kafka`] or [`Error::Metrics`].
pub(crate) fn line(compiled: Compiled, ids: &HashMap<String, u32>, client: &Client) -> Result<Line, Error> {
    let Compiled { config, events, sources, .. } = compiled;
    let publisher = Publisher::start(client, kafka::Limits::default()).map_err(Error::Kafka)?;
    let metrics = Metrics::new()?;
    // Nobody deduplicates by it: the marks say what was sent back.
    let memory = Arc::new(Memory::new(1, metrics.dedupe_uncertain.clone().into()));
    Ok(sources::line(&config, &events, sources, ids, publisher, memory, metrics))
}
