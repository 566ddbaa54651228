//! The last step before the answer: an event, or a request for quarantine, handed to Kafka and waited for.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, header as http_header};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Unverified;
use super::answer::Wrong;
use super::line::{Line, Route, Source};
use super::map::{Failure, Mapped};
use crate::calendar::Rfc3339;
use crate::event::header;
use crate::kafka::{self, Outgoing, Pending, Position};
use crate::metrics::Counter;
use crate::schema::plan::{Refused, Scratch};
use crate::schema::wire;

/// Request headers that are secrets whatever the source: they are not kept in quarantine.
const SECRET_HEADERS: [HeaderName; 4] = [
    http_header::AUTHORIZATION,
    http_header::PROXY_AUTHORIZATION,
    http_header::COOKIE,
    HeaderName::from_static("x-api-key"),
];
/// Bytes of one original header's value kept in quarantine; with at most 100 headers in a head of 16 KiB, all of them.
const MAX_HEADER_VALUE: usize = 16 * 1024;

thread_local! {
    /// Buffers of the encoder, kept by each worker thread: encoding never awaits, so no two requests share them.
    static BUFFERS: RefCell<(Scratch, Vec<u8>)> = RefCell::default();
}

/// What the two kinds of record need of a request.
pub(super) struct Origin<'a> {
    headers: &'a HeaderMap,
    body: &'a [u8],
    received_ms: i64,
}

impl<'a> From<&'a Unverified> for Origin<'a> {
    fn from(request: &'a Unverified) -> Self {
        Self { headers: &request.headers, body: &request.body, received_ms: request.received_ms }
    }
}

/// Why an authentic request is no event.
#[derive(Debug)]
pub(super) struct Fault {
    /// Bounded: a name of ours.
    pub(super) reason: &'static str,
    /// The first hundred things that are wrong; at least one.
    pub(super) wrongs: Vec<Wrong>,
    /// How many there are.
    pub(super) total: usize,
    /// Where it was known already.
    pub(super) event_id: Option<String>,
}

impl Fault {
    /// A fault of the whole request.
    fn new(reason: &'static str, message: String) -> Self {
        let wrongs = vec![Wrong { pointer: String::new(), reason, message }];
        Self { reason, wrongs, total: 1, event_id: None }
    }

    pub(super) fn unmapped() -> Self {
        Self::new("unmapped", "no rule of the source takes this request".to_owned())
    }

    pub(super) fn several(count: usize) -> Self {
        Self::new("several_events", format!("the request has {count} events; one a request is taken"))
    }

    pub(super) fn undefined(event_type: &str) -> Self {
        Self::new("unknown_event_type", format!("the event type `{event_type}` is not defined under `events:`"))
    }

    /// A mapping that failed. Where it made an event without an id or a key, what the schema says of that event comes
    /// first: the sender hears of everything at once, and of the field rather than of the key.
    pub(super) fn of_mapping(source: &Source, failure: Failure) -> Self {
        let route = failure.event_type.as_deref().and_then(|event_type| source.routes.get(event_type));
        if let (Some(route), Some(json)) = (route, &failure.json) {
            let encoded = BUFFERS.with_borrow_mut(|(scratch, value)| {
                value.clear();
                route.plan.encode(json.as_bytes(), scratch, value)
            });
            if let Err(refused) = encoded {
                return Self::from(refused);
            }
        }
        Self::new(failure.reason.name(), failure.message)
    }

    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self.reason, "not_json" | "too_deep")
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        let reason = match &refused {
            Refused::NotJson { .. } => "not_json",
            Refused::TooDeep { .. } => "too_deep",
            Refused::Invalid(_) => "invalid",
        };
        let violations = refused.into_violations();
        let wrongs = violations.first.into_iter().map(|violation| Wrong {
            pointer: violation.pointer,
            reason: violation.reason.name(),
            message: violation.message,
        });
        Self { reason, wrongs: wrongs.collect(), total: violations.total, event_id: None }
    }
}

/// Why Kafka has not confirmed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconfirmed {
    #[error("kafka did not confirm within the deadline")]
    Deadline,
    #[error("kafka did not take the record")]
    Kafka(#[source] kafka::Error),
}

impl Unconfirmed {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Kafka(kafka::Error::Full { .. }) => "full",
            Self::Kafka(kafka::Error::TooLarge { .. }) => "too_large",
            Self::Kafka(kafka::Error::Unknown { .. }) => "unknown",
            Self::Kafka(kafka::Error::Refused { .. }) => "refused",
            Self::Kafka(kafka::Error::Fatal { .. }) => "fatal",
            Self::Kafka(_) => "other",
        }
    }

    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Deadline => "kafka did not confirm in time; the event may have landed all the same",
            Self::Kafka(kafka::Error::Full { .. }) => "too much is waiting for kafka",
            Self::Kafka(_) => "kafka did not confirm",
        }
    }
}

pub(super) enum NotSent {
    Invalid(Fault),
    Kafka(Unconfirmed),
}

/// A record on its way. Its success is counted even if the sender has gone or the deadline has passed by then.
pub(super) struct Sent(Option<Waiting>);

struct Waiting {
    pending: Pending,
    count: Counter,
}

impl Sent {
    pub(super) async fn confirmed(mut self, deadline: Instant) -> Result<Position, Unconfirmed> {
        let Some(waiting) = &mut self.0 else { return Err(Unconfirmed::Deadline) };
        let report = tokio::time::timeout_at(deadline, &mut waiting.pending).await;
        let report = report.map_err(|_| Unconfirmed::Deadline)?;
        if report.is_ok() {
            waiting.count.inc();
        }
        self.0 = None;
        report.map_err(Unconfirmed::Kafka)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let Some(waiting) = self.0.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if waiting.pending.await.is_ok() {
                waiting.count.inc();
            }
        });
    }
}

/// Validates, encodes and hands over one event.
pub(super) fn event(
    line: &Line,
    source: &Source,
    route: &Route,
    origin: &Origin<'_>,
    event: &Mapped<'_>,
) -> Result<Sent, NotSent> {
    BUFFERS.with_borrow_mut(|(scratch, value)| {
        value.clear();
        wire::frame(route.id, value);
        let warnings = route
            .plan
            .encode(event.json.as_bytes(), scratch, value)
            .map_err(|refused| NotSent::Invalid(Fault { event_id: Some(event.id.clone()), ..Fault::from(refused) }))?;
        if !warnings.is_empty() {
            route.unknown_fields.inc();
        }
        let received = Rfc3339::from_ms(origin.received_ms);
        let trace = line.traces.carry_on(origin.headers.get(header::TRACEPARENT).map(http::HeaderValue::as_bytes));
        let headers: [(&str, &[u8]); 10] = [
            (header::CE_SPECVERSION, b"1.0"),
            (header::CE_ID, event.id.as_bytes()),
            (header::CE_SOURCE, source.name.as_bytes()),
            (header::CE_TYPE, event.event_type.as_bytes()),
            (header::CE_TIME, event.time.as_deref().map_or(received.as_bytes(), str::as_bytes)),
            (header::CE_SUBJECT, event.key.as_bytes()),
            (header::CE_DATASCHEMA, route.data_schema.as_bytes()),
            (header::CONTENT_TYPE, b"application/avro"),
            (header::RECEIVED_AT, received.as_bytes()),
            (header::TRACEPARENT, trace.as_bytes()),
        ];
        let outgoing = Outgoing {
            topic: &route.topic,
            partition: None,
            key: Some(event.key.as_bytes()),
            value,
            headers: &headers,
            timestamp_ms: None,
        };
        let pending = line.publisher.publish(outgoing).map_err(|e| NotSent::Kafka(Unconfirmed::Kafka(e)))?;
        Ok(Sent(Some(Waiting { pending, count: route.accepted.clone() })))
    })
}

/// Hands a request over for quarantine: its raw bytes, why it is there, and its headers less the secrets.
pub(super) fn quarantine(
    line: &Line,
    source: &Source,
    origin: &Origin<'_>,
    fault: &Fault,
) -> Result<Sent, Unconfirmed> {
    let hash;
    let key = if let Some(id) = &fault.event_id {
        id.as_bytes()
    } else {
        hash = hex::encode(Sha256::digest(origin.body));
        hash.as_bytes()
    };
    let received = Rfc3339::from_ms(origin.received_ms);
    let violations = violations_json(fault);
    let mut headers: Vec<(&str, &[u8])> = vec![
        (header::REASON, fault.reason.as_bytes()),
        (header::FAILED, b"[0]"),
        (header::VIOLATIONS, &violations),
        (header::SOURCE, source.name.as_bytes()),
        (header::RECEIVED_AT, received.as_bytes()),
    ];
    let kept =
        origin.headers.iter().filter(|(name, value)| !SECRET_HEADERS.contains(name) && value.len() <= MAX_HEADER_VALUE);
    headers.extend(kept.map(|(name, value)| (name.as_str(), value.as_bytes())));
    let outgoing = Outgoing {
        topic: &source.quarantine_topic,
        partition: None,
        key: Some(key),
        value: origin.body,
        headers: &headers,
        timestamp_ms: None,
    };
    let pending = line.publisher.publish(outgoing).map_err(Unconfirmed::Kafka)?;
    Ok(Sent(Some(Waiting { pending, count: source.metrics.quarantined(fault.reason) })))
}

/// `{"total": n, "violations": [...]}`.
fn violations_json(fault: &Fault) -> Vec<u8> {
    #[derive(Serialize)]
    struct Header<'a> {
        total: usize,
        violations: &'a [Wrong],
    }
    // Text and numbers always serialize.
    serde_json::to_vec(&Header { total: fault.total, violations: &fault.wrongs }).unwrap_or_default()
}
