//! The last step before the answer: an event, or a request for quarantine, handed to Kafka and waited for.

use std::cell::RefCell;
use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, header as http_header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Unverified;
use super::dedupe::{Entry, Identity, Token};
use super::fault::{Fault, Faults};
use super::handed::Handed;
use super::line::{Line, Route, Source};
use super::map::{Failure, Mapped};
use super::trace::TraceParent;
use crate::calendar::Rfc3339;
use crate::event::header;
use crate::kafka::{self, Outgoing, Pending, Position};
use crate::metrics::Counter;
use crate::schema::plan::Scratch;
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
    /// Buffers kept by each worker thread: encoding never awaits, so no two requests share them.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static VALUE: RefCell<Vec<u8>> = RefCell::default();
}

/// What the two kinds of record need of a request.
pub(super) struct Origin<'a> {
    headers: &'a HeaderMap,
    body: &'a [u8],
    received_ms: i64,
    received: Rfc3339,
    replay_key: Option<&'a str>,
}

impl<'a> From<&'a Unverified> for Origin<'a> {
    fn from(request: &'a Unverified) -> Self {
        Self {
            headers: &request.headers,
            body: &request.body,
            received_ms: request.received_ms,
            received: Rfc3339::from_ms(request.received_ms),
            replay_key: request.replay_key.as_deref(),
        }
    }
}

/// Why an event is not confirmed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconfirmed {
    #[error("kafka did not confirm within the deadline")]
    Deadline,
    #[error("kafka did not take the record")]
    Kafka(#[source] kafka::Error),
    /// It is not authentic after all.
    #[error("the replay key brought another event before")]
    Replayed,
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
            Self::Replayed => "replayed",
        }
    }

    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Deadline => "kafka did not confirm in time; the event may have landed all the same",
            Self::Kafka(kafka::Error::Full { .. }) => "too much is waiting for kafka",
            Self::Kafka(_) => "kafka did not confirm",
            Self::Replayed => "a replay key is good for one event",
        }
    }
}

/// A record on its way. Its success is counted even if the sender has gone or the deadline has passed by then.
pub(super) struct Sent(Option<Waiting>);

struct Waiting {
    pending: Pending,
    count: Count,
}

/// What an acknowledgement adds to.
enum Count {
    Event(Counter),
    /// The events of a request that went to quarantine, by reason.
    Quarantined(Vec<(Counter, u64)>),
}

impl Count {
    fn add(&self) {
        match self {
            Self::Event(counter) => counter.inc_by(1),
            Self::Quarantined(counters) => counters.iter().for_each(|(counter, count)| counter.inc_by(*count)),
        }
    }
}

impl Sent {
    fn new(pending: Pending, count: Count) -> Self {
        Self(Some(Waiting { pending, count }))
    }

    /// Waits for Kafka's word, until the deadline.
    pub(super) async fn confirmed(mut self, deadline: Instant) -> Result<Position, Unconfirmed> {
        tokio::time::timeout_at(deadline, self.reported()).await.map_err(|_| Unconfirmed::Deadline)?
    }

    /// Whether the outcome is not known yet.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// The place where a record's outcome is learnt, and counted. May be dropped and asked again.
    pub(super) async fn reported(&mut self) -> Result<Position, Unconfirmed> {
        let Some(waiting) = &mut self.0 else { return Err(Unconfirmed::Deadline) };
        let report = (&mut waiting.pending).await;
        if report.is_ok() {
            waiting.count.add();
        }
        self.0 = None;
        report.map_err(Unconfirmed::Kafka)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let Some(waiting) = self.0.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move { Self(Some(waiting)).reported().await });
    }
}

/// Validates one event and appends it to `value` as its topic has it, framed; on a fault `value` is as before.
pub(super) fn encode(line: &Line, route: &Route, event: &Mapped<'_>, value: &mut Vec<u8>) -> Result<(), Fault> {
    let start = value.len();
    wire::frame(route.id, value);
    let encoded = SCRATCH.with_borrow_mut(|scratch| route.plan.encode(event.json.as_bytes(), scratch, value));
    let bytes = value.len() - start;
    let fault = match encoded {
        Ok(_) if bytes > line.max_event_bytes => Fault::too_large(bytes, line.max_event_bytes),
        Ok(warnings) => {
            if !warnings.is_empty() {
                route.unknown_fields.inc_by(1);
            }
            return Ok(());
        }
        Err(refused) => Fault::of_schema(refused, None),
    };
    value.truncate(start);
    Err(Fault { event_id: Some(event.id.clone()), ..fault })
}

/// What is wrong with a mapping that failed. Where it made an event without an id or a key, what the schema says of that
/// event comes first: the sender hears of everything at once, and of the field rather than of the key.
pub(super) fn unmade(source: &Source, failure: Failure) -> Fault {
    let route = failure.event_type.as_deref().and_then(|event_type| source.routes.get(event_type));
    if let (Some(route), Some(json)) = (route, &failure.json) {
        let encoded = SCRATCH.with_borrow_mut(|scratch| route.plan.encode(json.as_bytes(), scratch, &mut Vec::new()));
        if let Err(refused) = encoded {
            return Fault::of_schema(refused, None);
        }
    }
    Fault::of_mapping(failure)
}

/// Encodes a request's only event and hands it over.
pub(super) fn event(
    line: &Line,
    source: &Source,
    route: &Route,
    origin: &Origin<'_>,
    event: &Mapped<'_>,
) -> Result<Result<Handed, Unconfirmed>, Fault> {
    VALUE.with_borrow_mut(|value| {
        value.clear();
        encode(line, route, event, value)?;
        Ok(hand_over(line, source, origin, Encoded { nth: 0, route, event, value }))
    })
}

/// An event, and what [`encode`] made of it.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'e> {
    /// Which of its request's entries it is.
    pub(super) nth: usize,
    pub(super) route: &'e Route,
    pub(super) event: &'e Mapped<'e>,
    pub(super) value: &'e [u8],
}

/// The place where an event is handed to Kafka, unless it is there, or on its way, already.
pub(super) fn hand_over(
    line: &Line,
    source: &Source,
    origin: &Origin<'_>,
    encoded: Encoded<'_>,
) -> Result<Handed, Unconfirmed> {
    let Encoded { nth, route, event, value } = encoded;
    let identity = Identity { source: &source.name, id: &event.id, event_type: &event.event_type };
    let token = origin.replay_key.map(|key| Token { source: &source.name, key, nth });
    let claim = match line.memory.enter(identity, token, route.destination, origin.received_ms) {
        Entry::New(claim) => claim,
        Entry::Duplicate(duplicate) => return Ok(Handed::Duplicate(duplicate)),
        Entry::InFlight(waiter) => return Ok(Handed::Awaited { waiter, value: value.to_vec() }),
        Entry::Replayed => return Err(Unconfirmed::Replayed),
    };
    let replay_key = token.map(Token::header);
    let trace = line.traces.carry_on(origin.headers.get(header::TRACEPARENT).map(http::HeaderValue::as_bytes));
    let all = headers(&source.name, origin.received.as_bytes(), route, event, &trace, replay_key.as_deref());
    let headers = if replay_key.is_some() { &all[..] } else { &all[..all.len() - 1] };
    let outgoing = Outgoing {
        topic: &route.topic,
        partition: None,
        key: Some(event.key.as_bytes()),
        value: Some(value),
        headers,
        timestamp_ms: None,
    };
    let pending = line.publisher.publish_telling(outgoing, claim.ticket()).map_err(Unconfirmed::Kafka)?;
    claim.handed_over();
    Ok(Handed::Sent(Sent::new(pending, Count::Event(route.accepted.clone()))))
}

/// The headers of an event, the last being its replay key, which few have and which is to be left out where it is none.
/// `received`: RFC 3339.
pub(super) fn headers<'h>(
    source: &'h str,
    received: &'h [u8],
    route: &'h Route,
    event: &'h Mapped<'_>,
    trace: &'h TraceParent,
    replay_key: Option<&'h str>,
) -> [(&'h str, &'h [u8]); 11] {
    [
        (header::CE_SPECVERSION, b"1.0"),
        (header::CE_ID, event.id.as_bytes()),
        (header::CE_SOURCE, source.as_bytes()),
        (header::CE_TYPE, event.event_type.as_bytes()),
        (header::CE_TIME, event.time.as_deref().map_or(received, str::as_bytes)),
        (header::CE_SUBJECT, event.key.as_bytes()),
        (header::CE_DATASCHEMA, route.data_schema.as_bytes()),
        (header::CONTENT_TYPE, b"application/avro"),
        (header::RECEIVED_AT, received),
        (header::TRACEPARENT, trace.as_bytes()),
        (header::REPLAY_KEY, replay_key.unwrap_or_default().as_bytes()),
    ]
}

/// What a quarantined request adds to: its events at fault, by reason.
fn counts(source: &Source, faults: &Faults<'_>) -> Count {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (_, fault) in faults.list {
        *counts.entry(fault.reason).or_default() += 1;
    }
    let counters = counts.into_iter().map(|(reason, count)| (source.metrics.quarantined(reason), count));
    Count::Quarantined(counters.collect())
}

/// Hands a request over for quarantine: its raw bytes, why it is there, and its headers less the secrets.
pub(super) fn quarantine(
    line: &Line,
    source: &Source,
    origin: &Origin<'_>,
    faults: &Faults<'_>,
) -> Result<Sent, Unconfirmed> {
    let hash;
    let key = if let Some(id) = faults.event_id() {
        id.as_bytes()
    } else {
        hash = hex::encode(Sha256::digest(origin.body));
        hash.as_bytes()
    };
    let violations = faults.violations_json();
    let told = faults.events.map(|events| (events.to_string(), faults.failed_json()));
    let mut headers: Vec<(&str, &[u8])> = vec![
        (header::REASON, faults.reason().as_bytes()),
        (header::VIOLATIONS, &violations),
        (header::SOURCE, source.name.as_bytes()),
        (header::RECEIVED_AT, origin.received.as_bytes()),
    ];
    if let Some((events, failed)) = &told {
        headers.extend([(header::EVENTS, events.as_bytes()), (header::FAILED, failed)]);
    }
    // The digest alone: which event the key will bring is known once the request is mended.
    headers.extend(origin.replay_key.map(|key| (header::REPLAY_KEY, key.as_bytes())));
    // A sender must not speak in our name: readers go by these headers.
    let is_kept = |name: &HeaderName| !SECRET_HEADERS.contains(name) && !name.as_str().starts_with(header::OURS);
    let kept = origin.headers.iter().filter(|(name, value)| is_kept(name) && value.len() <= MAX_HEADER_VALUE);
    headers.extend(kept.map(|(name, value)| (name.as_str(), value.as_bytes())));
    let outgoing = Outgoing {
        topic: &source.quarantine_topic,
        partition: None,
        key: Some(key),
        value: Some(origin.body),
        headers: &headers,
        timestamp_ms: None,
    };
    let pending = line.publisher.publish(outgoing).map_err(Unconfirmed::Kafka)?;
    Ok(Sent::new(pending, counts(source, faults)))
}
