//! The end of the event topics, from which the memory is filled at a start.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ring::{Place, Print};
use super::{Destination, DestinationId, Identity, Memory, Token, seconds};
use crate::event::header;
use crate::kafka::{Extent, Glimpse, NextOffset, TopicPartition};
use crate::schema::wire;

/// Schemas of one event type that the end of its topic may name besides today's. Old ones are few; what is written with
/// yet another is not remembered.
const MAX_OLD_SCHEMAS: usize = 64;

/// What a record in an event topic gives to the memory.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub(super) event: Print,
    pub(super) token: Option<Print>,
    pub(super) place: Place,
    pub(super) at: u32,
}

/// Shortens what is to be read to the newest `max` records overall: every partition gives all it has, or as many as any
/// other. Offsets are counted, so that a log with gaps gives less. Beside them, the partitions that have more.
#[must_use]
pub fn shares(mut extents: Vec<Extent>, max: usize) -> (Vec<Extent>, Vec<TopicPartition>) {
    let len = |extent: &Extent| u64::try_from(extent.end.get() - extent.start.get()).unwrap_or(0);
    let mut lens: Vec<u64> = extents.iter().map(len).collect();
    lens.sort_unstable();
    // From the shortest on: what each of those that are left may have, as long as nobody leaves any of it.
    let mut left = u64::try_from(max).unwrap_or(u64::MAX);
    let mut share = u64::MAX;
    for (at, len) in lens.iter().enumerate() {
        let each = left / u64::try_from(lens.len() - at).unwrap_or(u64::MAX);
        if *len > each {
            share = each;
            break;
        }
        left -= len;
    }
    let mut cut = Vec::new();
    for extent in &mut extents {
        if len(extent) > share {
            cut.push(extent.at.clone());
        }
        let kept = i64::try_from(len(extent).min(share)).unwrap_or(i64::MAX);
        extent.start = NextOffset::stored(extent.end.get() - kept);
    }
    (extents, cut)
}

/// Reads records back into what the memory holds. It runs on the thread that reads.
#[derive(Debug)]
pub struct Finder {
    memory: Arc<Memory>,
    events: HashMap<String, Kind>,
    /// Partitions of which only the end is read, until their first record has come.
    cut: Vec<TopicPartition>,
}

/// Records of one event type.
#[derive(Debug)]
struct Kind {
    topic: String,
    subject: String,
    /// By schema id. One or two, usually.
    destinations: Vec<(u32, DestinationId)>,
}

impl Finder {
    /// `known`: of every event type that is configured, where it goes and as what, and after that what is known of its
    /// other schemas. Records of other types are of no use: no request can bring such an event. `cut`: the partitions
    /// that [`shares`] has cut.
    #[must_use]
    pub fn new(
        memory: Arc<Memory>,
        known: impl IntoIterator<Item = (String, Destination)>,
        cut: Vec<TopicPartition>,
    ) -> Self {
        let mut events: HashMap<String, Kind> = HashMap::new();
        for (event_type, destination) in known {
            let id = (destination.schema_id, memory.destination(&destination));
            let Destination { topic, subject, .. } = destination;
            let kind = events.entry(event_type).or_insert_with(|| Kind { topic, subject, destinations: Vec::new() });
            kind.destinations.push(id);
        }
        Self { memory, events, cut }
    }

    /// `None` for a record that is none of ours.
    pub fn find(&mut self, record: &Glimpse<'_>) -> Option<Found> {
        let at = seconds(record.timestamp_ms().unwrap_or(0));
        let is_here = |cut: &TopicPartition| cut.partition == record.partition() && *cut.topic == *record.topic();
        if let Some(place) = self.cut.iter().position(is_here) {
            self.cut.swap_remove(place);
            self.memory.unread.fetch_max(at, Ordering::Relaxed);
        }
        let [source, id, event_type, key] =
            record.headers([header::CE_SOURCE, header::CE_ID, header::CE_TYPE, header::REPLAY_KEY]);
        let (source, id, event_type) = (source?, id?, event_type?);
        let (schema_id, _) = wire::unframe(record.value()?).ok()?;
        let destination = self.destination(record.topic(), event_type, schema_id)?;
        Some(Found {
            event: self.memory.event(Identity { source, id, event_type }),
            token: key.and_then(token_of).map(|(nth, key)| self.memory.token(Token { source, key, nth })),
            place: Place { offset: record.offset(), partition: record.partition(), destination: destination.0 },
            at,
        })
    }

    fn destination(&mut self, topic: &str, event_type: &str, schema_id: u32) -> Option<DestinationId> {
        let kind = self.events.get_mut(event_type).filter(|kind| kind.topic == topic)?;
        if let Some((_, known)) = kind.destinations.iter().find(|(known, _)| *known == schema_id) {
            return Some(*known);
        }
        if kind.destinations.len() > MAX_OLD_SCHEMAS {
            return None;
        }
        let (topic, subject) = (kind.topic.clone(), kind.subject.clone());
        let id = self.memory.destination(&Destination { topic, subject, version: None, schema_id });
        kind.destinations.push((schema_id, id));
        Some(id)
    }
}

/// The other way of [`Token::header`].
fn token_of(text: &str) -> Option<(usize, &str)> {
    let (nth, key) = text.split_once(':')?;
    Some((nth.parse().ok()?, key))
}
