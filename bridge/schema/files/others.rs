//! The other versions of an event's schema: nothing is written with them now, and topics hold what was.

use std::path::Path;

use super::{SharedTypes, is_schema, parse, read, version_number};
use crate::schema::EventSchema;

/// Versions of one event that are looked at, the newest first: what a topic still holds was written with the last few.
const MOST: usize = 16;

/// The versions in the event's folder besides `schema`, the newest first. One that cannot be read is left out: it is
/// refused where it is to be written, and here it only goes unnamed.
pub fn others(dir: &Path, schema: &EventSchema) -> Vec<EventSchema> {
    let Ok(entries) = std::fs::read_dir(dir.join(&schema.category).join(&schema.event_type)) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_schema(path));
    let mut versions: Vec<_> =
        paths.filter_map(|path| Some((version_number(path.file_stem()?.to_str()?)?, path))).collect();
    versions.retain(|(version, _)| *version != schema.version);
    if versions.is_empty() {
        return Vec::new();
    }
    versions.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
    versions.truncate(MOST);
    let (shared, _) = SharedTypes::load(dir);
    let parsed = versions.into_iter().filter_map(|(version, path)| {
        let parsed = parse(&read(&path).ok()?, &shared).ok()?;
        Some(parsed.into_event(&schema.event_type, &schema.category, version, schema.topic.clone()))
    });
    parsed.collect()
}
