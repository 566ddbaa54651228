//! What each section means: defaults, limits, and the checks that need more than one place of the file.

mod alerts;
mod edges;
mod events;
mod names;
mod sinks;
mod sources;

pub(crate) use sinks::postgres_url;

use std::collections::BTreeMap;

use super::reader::Field;
use super::{Config, Location, Written};

/// The sections of what a running process keeps to.
const KEPT: [&str; 5] = ["instance", "kafka", "registry", "ingest", "admin"];

/// Reads the whole file. Where a problem was noted a stand-in takes the place of the value: such a configuration is
/// never handed out.
pub(super) fn config(root: &Field<'_>) -> Config {
    root.map(|file| {
        let ingest = edges::ingest(&file.field("ingest"));
        let events = events::events(&file.field("events"));
        let mut written = Written::default();
        for section in KEPT {
            places(&file.field(section), &mut written.places);
        }
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
            written,
        }
    })
}

/// Where a field and all below it stand.
fn places(field: &Field<'_>, found: &mut BTreeMap<String, Location>) {
    if !field.is_written() {
        return;
    }
    found.insert(field.path().to_owned(), field.location());
    if field.is_map() {
        field.named().iter().for_each(|(_, below)| places(below, found));
    }
}
