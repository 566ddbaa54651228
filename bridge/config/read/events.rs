//! `events`: what may be in a topic.

use std::collections::BTreeMap;

use super::names::{self, MAX_TOPIC};
use crate::config::reader::{Field, Map};
use crate::config::{Compatibility, EventDef, SchemaVersion, UnknownFields};

/// Characters of an event type: `events.` before it is a topic.
const MAX_EVENT_TYPE: usize = MAX_TOPIC - "events.".len();

const COMPATIBILITIES: &[(&str, Compatibility)] = &[
    ("NONE", Compatibility::None),
    ("BACKWARD", Compatibility::Backward),
    ("BACKWARD_TRANSITIVE", Compatibility::BackwardTransitive),
    ("FORWARD", Compatibility::Forward),
    ("FORWARD_TRANSITIVE", Compatibility::ForwardTransitive),
    ("FULL", Compatibility::Full),
    ("FULL_TRANSITIVE", Compatibility::FullTransitive),
];

const UNKNOWN_FIELDS: &[(&str, UnknownFields)] = &[
    ("reject", UnknownFields::Reject),
    ("drop", UnknownFields::Drop),
    ("capture", UnknownFields::Capture),
    ("warn", UnknownFields::Warn),
];

pub(super) fn events(field: &Field<'_>) -> BTreeMap<String, EventDef> {
    let mut events: BTreeMap<String, EventDef> = BTreeMap::new();
    let mut topics: BTreeMap<String, &str> = BTreeMap::new();
    for (name, field) in field.named() {
        if !names::is_name(name, "._-", MAX_EVENT_TYPE) {
            let hint =
                format!("at most {MAX_EVENT_TYPE} letters, digits, `.`, `_` and `-`, the first a letter or digit");
            field.error_with_hint(format!("`{name}` cannot be an event type"), hint);
        }
        let event = field.map(|map| event(name, map));
        if let Some(other) = topics.insert(event.topic.clone(), name) {
            field.error(format!("its topic is that of `{other}` already"));
        }
        events.insert(name.to_owned(), event);
    }
    events
}

fn event(name: &str, event: &mut Map<'_>) -> EventDef {
    let owner = event.field("owner");
    if !owner.is_written() {
        owner.warning("nobody is named to ask about this event", "write `owner: <a team's address>`");
    }
    EventDef {
        category: event.required("category").parsed(category).unwrap_or_default(),
        owner: owner.text().unwrap_or_default(),
        version: event.field("version").parsed_or(SchemaVersion::Latest, version),
        // Producers change first here, so that readers need FORWARD; and a replay reads old records: BACKWARD.
        compatibility: event.field("compatibility").choice_or(Compatibility::FullTransitive, COMPATIBILITIES),
        key: event.field("key").expr(),
        id: event.field("id").expr(),
        // Nothing is refused for a field more, and it is not lost in silence either.
        unknown_fields: event.field("unknown_fields").choice_or(UnknownFields::Warn, UNKNOWN_FIELDS),
        topic: event.field("topic").parsed_or(format!("events.{name}"), names::topic),
        at: event.holder().location(),
    }
}

/// A folder under `schemas`.
fn category(text: &str) -> Result<String, String> {
    if names::is_name(text, "_-", names::MAX_NAME) {
        Ok(text.to_owned())
    } else {
        Err("cannot be a folder's name: letters, digits, `_` and `-`".to_owned())
    }
}

fn version(text: &str) -> Result<SchemaVersion, String> {
    match text {
        "latest" => Ok(SchemaVersion::Latest),
        _ => match text.parse() {
            Ok(number) if number > 0 => Ok(SchemaVersion::Number(number)),
            _ => Err("is neither `latest` nor the number of a file, such as `1`".to_owned()),
        },
    }
}
