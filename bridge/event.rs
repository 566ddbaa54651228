//! The words that every stage shares: what identifies an event, and the names of the headers that carry it.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Kafka header names, in the CloudEvents Kafka binding's binary mode
/// (CloudEvents 1.0.2, "Kafka Protocol Binding", section 3.2) and our own.
pub mod header {
    pub const CE_SPECVERSION: &str = "ce_specversion";
    pub const CE_ID: &str = "ce_id";
    pub const CE_SOURCE: &str = "ce_source";
    pub const CE_TYPE: &str = "ce_type";
    pub const CE_TIME: &str = "ce_time";
    pub const CE_SUBJECT: &str = "ce_subject";
    pub const CE_DATASCHEMA: &str = "ce_dataschema";
    pub const CONTENT_TYPE: &str = "content-type";
    pub const TRACEPARENT: &str = "traceparent";
    /// RFC 3339, UTC, milliseconds: when the first byte of the request was read.
    pub const RECEIVED_AT: &str = "hookbridge-received-at";
    /// What all names of our own begin with.
    pub const OURS: &str = "hookbridge-";
    /// `<n>:<SHA-256 in hex>`: the event's place among those of its request, and the digest of the source's `replay_key`,
    /// where it has one, so that a bridge that starts anew knows which keys came. Of a request in quarantine the digest
    /// alone: it has not spent its key, and whoever replays it writes the key with each event that it brings.
    pub const REPLAY_KEY: &str = "hookbridge-replay-key";
    /// The same on every attempt of one sink at one event ([`super::Identity::delivery_id`]).
    pub const DELIVERY_ID: &str = "hookbridge-delivery-id";
    pub const REASON: &str = "hookbridge-reason";
    /// How many events a quarantined request has; left out, as the next, where that could not be told.
    pub const EVENTS: &str = "hookbridge-events";
    /// Their places among them, from 0, as JSON: `[1,4]`.
    pub const FAILED: &str = "hookbridge-failed";
    pub const VIOLATIONS: &str = "hookbridge-violations";
    pub const SOURCE: &str = "hookbridge-source";
    /// The first header of a mark among quarantined requests: what was done with one of them.
    pub const MARK: &str = "hookbridge-mark";
    /// Of an event that was in quarantine: where its request is kept there, and which of its events it is.
    pub const REPLAYED_FROM: &str = "hookbridge-replayed-from";
}

/// What makes an event the same event wherever it is met: its source, the source's own id for it, and its type.
/// Where one request's event gives several results, `id` carries the ordinal (`#<event_type>.<ordinal>`),
/// so that source + id stays unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub source: String,
    pub id: String,
    pub event_type: String,
}

/// Namespace of our UUIDv5s: the UUIDv5 of the name `hookbridge` under the RFC 4122 OID namespace.
static NAMESPACE: LazyLock<Uuid> = LazyLock::new(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, b"hookbridge"));

impl Identity {
    /// The delivery id: the same for every attempt at this event by this sink, before and after any restart.
    ///
    /// Parts are separated by a zero byte, which none of them can contain, so that no two identities share a name.
    #[must_use]
    pub fn delivery_id(&self, sink: &str) -> Uuid {
        delivery_id(sink, &self.source, &self.id, &self.event_type)
    }
}

/// The same of the parts of an identity, for whoever has them at hand.
#[must_use]
pub fn delivery_id(sink: &str, source: &str, id: &str, event_type: &str) -> Uuid {
    let mut name = Vec::with_capacity(sink.len() + source.len() + id.len() + event_type.len() + 3);
    for (at, part) in [sink, source, id, event_type].into_iter().enumerate() {
        if at > 0 {
            name.push(0);
        }
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

/// The delivery id of an event that an operator has sent once more on purpose (`sink rewind --again`): whoever remembers ids
/// takes it for a new one. `id` is the first one, `order` the number of the order.
#[must_use]
pub fn delivered_again(id: Uuid, order: u64) -> Uuid {
    Uuid::new_v5(&id, format!("again {order}").as_bytes())
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.source, self.id, self.event_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: &str) -> Identity {
        Identity { source: "stripe".into(), id: id.into(), event_type: "purchase_completed".into() }
    }

    #[test]
    fn the_delivery_id_of_an_event_never_changes() {
        // A literal: vendors dedupe by this value, so a release that changes it doubles effects.
        let id = identity("evt_1").delivery_id("crm");
        assert_eq!(id.to_string(), "d8297d33-8b54-560c-a168-46298c33f79f");
        assert_eq!(delivered_again(id, 1).to_string(), "2e2890be-7e36-555c-9731-05109ea0ab2b");
    }

    #[test]
    fn parts_of_an_identity_cannot_run_into_each_other() {
        let left = Identity { source: "a".into(), id: "bc".into(), event_type: "d".into() };
        let right = Identity { source: "ab".into(), id: "c".into(), event_type: "d".into() };
        assert_ne!(left.delivery_id("s"), right.delivery_id("s"));
        assert_ne!(identity("evt_1").delivery_id("crm"), identity("evt_1").delivery_id("warehouse"));
    }
}
