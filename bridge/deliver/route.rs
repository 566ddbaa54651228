//! What a record is: which event type, which identity. Headers say so; where a foreign producer wrote none, the topic
//! and the offset do.

use std::collections::HashMap;

use uuid::Uuid;

use crate::event::{self, Identity, header};
use crate::kafka::Record;

/// Which event types a topic holds, and which of them the sink wants.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    topics: HashMap<String, Vec<(String, bool)>>,
}

/// Where a record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the sink, as an event of this identity.
    Here(Identity),
    /// Nowhere: an event type that the sink does not list.
    Elsewhere,
    /// The topic holds several event types, and the record does not say which it is.
    Unknown { ce_type: Option<String> },
}

impl Routes {
    /// Adds an event type of a topic (its full name, with the prefix); `wanted`: the sink lists it under `events`.
    /// Every event type that shares a topic with a wanted one has to be added, so that it is known and left out.
    pub fn add(&mut self, topic: &str, event_type: &str, wanted: bool) {
        self.topics.entry(topic.to_owned()).or_default().push((event_type.to_owned(), wanted));
    }

    /// The topics that hold something the sink wants.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let wanted = self.topics.iter().filter(|(_, types)| types.iter().any(|(_, wanted)| *wanted));
        wanted.map(|(topic, _)| topic.as_str())
    }

    /// The delivery id of a record at `sink`, the same on every attempt. One that goes nowhere has that of its place.
    pub(super) fn delivery_id(&self, sink: &str, record: &Record) -> Uuid {
        let Some((event_type, true)) = self.find(record) else { return by_place(record, "").delivery_id(sink) };
        match written(record) {
            Some((source, id)) => event::delivery_id(sink, source, id, event_type),
            None => by_place(record, event_type).delivery_id(sink),
        }
    }

    /// Where a record goes. A topic of one event type holds nothing else, whatever `ce_type` a producer wrote.
    #[must_use]
    pub fn route(&self, record: &Record) -> Route {
        match self.find(record) {
            None => Route::Unknown { ce_type: record.header(header::CE_TYPE).map(str::to_owned) },
            Some((_, false)) => Route::Elsewhere,
            Some((event_type, true)) => Route::Here(identify(record, event_type)),
        }
    }

    /// The record's event type, and whether it is wanted.
    fn find(&self, record: &Record) -> Option<(&str, bool)> {
        let types = self.topics.get(&*record.at.topic).map_or(&[][..], Vec::as_slice);
        let found = match types {
            [only] => only,
            several => {
                let ce_type = record.header(header::CE_TYPE);
                several.iter().find(|(event_type, _)| Some(event_type.as_str()) == ce_type)?
            }
        };
        Some((found.0.as_str(), found.1))
    }
}

/// The identity that ingest gave the event; of a record without one, where it stands, which does not change either.
fn identify(record: &Record, event_type: &str) -> Identity {
    match written(record) {
        // Tables and types go by the event type; a foreign `ce_type` in a topic of one type is only its name for it.
        Some((source, id)) => {
            Identity { source: source.to_owned(), id: id.to_owned(), event_type: event_type.to_owned() }
        }
        None => by_place(record, event_type),
    }
}

/// The source and the id that its headers give it.
fn written(record: &Record) -> Option<(&str, &str)> {
    // Identities stay apart by zero bytes between their parts, so a header that holds one identifies nothing.
    let sound = |name| record.header(name).filter(|text| !text.is_empty() && !text.contains('\0'));
    let (source, id, _) = (sound(header::CE_SOURCE)?, sound(header::CE_ID)?, sound(header::CE_TYPE)?);
    Some((source, id))
}

fn by_place(record: &Record, event_type: &str) -> Identity {
    Identity {
        source: format!("kafka:{}", record.at.topic),
        id: format!("{}/{}", record.at.partition, record.offset),
        event_type: event_type.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kafka::TopicPartition;

    fn record(topic: &str, headers: &[(&str, &str)]) -> Record {
        Record {
            at: TopicPartition { topic: Arc::from(topic), partition: 3 },
            offset: 41,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: headers.iter().copied().collect(),
        }
    }

    fn routes() -> Routes {
        let mut routes = Routes::default();
        routes.add("orders", "purchase_completed", true);
        routes.add("shared", "trial_started", true);
        routes.add("shared", "trial_canceled", false);
        routes
    }

    fn identity(source: &str, id: &str, event_type: &str) -> Route {
        Route::Here(Identity { source: source.into(), id: id.into(), event_type: event_type.into() })
    }

    #[test]
    fn a_record_goes_by_its_headers_or_by_where_it_stands() {
        let ours = [("ce_source", "shop"), ("ce_id", "e1"), ("ce_type", "purchase_completed")];
        let foreign = [("ce_source", "shop"), ("ce_id", "e1"), ("ce_type", "com.shop.purchase")];
        for (record, expected) in [
            (record("orders", &ours), identity("shop", "e1", "purchase_completed")),
            (record("orders", &foreign), identity("shop", "e1", "purchase_completed")),
            (record("orders", &[]), identity("kafka:orders", "3/41", "purchase_completed")),
            (record("orders", &ours[..2]), identity("kafka:orders", "3/41", "purchase_completed")),
            (
                record("orders", &[("ce_source", "a\0b"), ours[1], ours[2]]),
                identity("kafka:orders", "3/41", "purchase_completed"),
            ),
            (record("shared", &[("ce_type", "trial_started")]), identity("kafka:shared", "3/41", "trial_started")),
            (record("shared", &[("ce_type", "trial_canceled")]), Route::Elsewhere),
            (record("shared", &[("ce_type", "other")]), Route::Unknown { ce_type: Some("other".into()) }),
            (record("shared", &[]), Route::Unknown { ce_type: None }),
            (record("nowhere", &ours), Route::Unknown { ce_type: Some("purchase_completed".into()) }),
        ] {
            assert_eq!(routes().route(&record), expected, "{:?}", record.headers);
        }
    }

    #[test]
    fn only_topics_that_hold_something_wanted_are_read() {
        let mut routes = routes();
        routes.add("others", "unwanted", false);
        let mut topics: Vec<_> = routes.topics().collect();
        topics.sort_unstable();
        assert_eq!(topics, ["orders", "shared"]);
    }
}
