//! What each section means: defaults, limits, and the checks that need more than one place of the file.

mod alerts;
mod edges;
mod events;
mod names;
mod sinks;
mod sources;

pub(crate) use sinks::postgres_url;

use super::Config;
use super::reader::Field;

/// Reads the whole file. Where a problem was noted a stand-in takes the place of the value: such a configuration is
/// never handed out.
pub(super) fn config(root: &Field<'_>) -> Config {
    root.map(|file| {
        let ingest = edges::ingest(&file.field("ingest"));
        let events = events::events(&file.field("events"));
        Config {
            instance: edges::instance(&file.field("instance")),
            kafka: edges::kafka(&file.field("kafka")),
            registry: edges::registry(&file.field("registry")),
            admin: edges::admin(&file.field("admin")),
            egress: edges::egress(&file.field("egress")),
            schemas: file.field("schemas").path_or("schemas"),
            sources: sources::sources(&file.field("sources"), &events, ingest.deadline),
            sinks: sinks::sinks(&file.field("sinks"), &events),
            alerts: alerts::alerts(&file.field("alerts")),
            ingest,
            events,
        }
    })
}
