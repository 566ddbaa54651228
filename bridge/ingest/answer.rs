//! What a sender is told: receipts for what was taken, `application/problem+json` (RFC 9457) for what was not.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use crate::ingest::fault::Fault;
use crate::ingest::handshake::Answer as Handshake;
use crate::ingest::line::Source;
use crate::kafka::Position;

/// How long a sender should wait before it tries again after a 503, in seconds. Leader elections take some ten seconds
/// at worst, and most providers back off by themselves: a small number gets the event in soonest.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// `{"events": [...]}`: an entry for each event of the request.
#[derive(Debug, Serialize)]
pub struct Receipts<'a> {
    pub events: &'a [Receipt<'a>],
}

/// What became of one event.
#[derive(Debug, Serialize)]
pub struct Receipt<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<&'a str>,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema<'a>>,
    pub deduplicated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(flatten)]
    pub violations: Option<Violations<'a>>,
}

/// One thing that is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Which event of a request that was split, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// RFC 6901, from the event's root; empty where it is the event as a whole.
    pub pointer: String,
    /// Bounded: a name of ours.
    pub reason: &'static str,
    /// For people; it does not repeat the value.
    pub message: String,
}

/// The first hundred violations of an event, and how many there are. Of a request with several events, the first hundred
/// of them all are shown.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Violations<'a> {
    pub violations: &'a [Wrong],
    pub violations_total: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Accepted,
    /// It was there already.
    Duplicate,
    Quarantined,
    Ignored,
}

/// The schema that an event was written with.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Schema<'a> {
    pub subject: &'a str,
    /// Not of a schema that an earlier record was written with and that is no more ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    pub id: u32,
}

impl<'a> Receipt<'a> {
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            event_id: None,
            event_type: None,
            status,
            topic: None,
            partition: None,
            offset: None,
            schema: None,
            deduplicated: false,
            reason: None,
            violations: None,
        }
    }

    /// Of an event that is kept in its source's quarantine, within its request.
    pub(super) fn quarantined(source: &'a Source, fault: &'a Fault, position: Position) -> Self {
        Self {
            event_id: fault.event_id.as_deref(),
            reason: Some(fault.reason),
            violations: Some(fault.violations()),
            ..Self::new(Status::Quarantined).at(&source.quarantine_topic, position)
        }
    }

    #[must_use]
    pub fn at(mut self, topic: &'a str, position: Position) -> Self {
        self.topic = Some(topic);
        self.partition = Some(position.partition);
        self.offset = Some(position.offset);
        self
    }
}

/// A request that was not taken, and what the sender may do about it.
#[derive(Debug)]
pub struct Problem<'a> {
    pub status: StatusCode,
    pub title: &'static str,
    pub detail: Option<String>,
    pub event_id: Option<&'a str>,
    pub violations: Option<Violations<'a>>,
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(flatten)]
    violations: Option<Violations<'a>>,
}

impl Problem<'_> {
    #[must_use]
    pub fn new(status: StatusCode, title: &'static str) -> Self {
        Self { status, title, detail: None, event_id: None, violations: None }
    }

    /// One text for every authentication failure and for a source that does not exist, so that nobody learns which
    /// sources there are, or what was wrong with a signature.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "the request could not be authenticated")
    }

    /// Kafka did not confirm: the event may or may not be there, and sending it again is right.
    #[must_use]
    pub fn unavailable(detail: &str) -> Self {
        Self {
            detail: Some(detail.to_owned()),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "not confirmed; send it again")
        }
    }
}

/// 200 with receipts.
#[must_use]
pub fn receipts(events: &[Receipt<'_>]) -> Response<Full<Bytes>> {
    json(StatusCode::OK, "application/json", &Receipts { events })
}

/// The problem as `application/problem+json`, with `Retry-After` on a 503.
#[must_use]
pub fn problem(problem: &Problem<'_>) -> Response<Full<Bytes>> {
    let body = ProblemJson {
        r#type: "about:blank",
        title: problem.title,
        status: problem.status.as_u16(),
        detail: problem.detail.as_deref(),
        event_id: problem.event_id,
        violations: problem.violations,
    };
    let mut response = json(problem.status, "application/problem+json", &body);
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// What a provider wants to hear before it sends anything. `nosniff`, since some of it echoes the provider's own text.
#[must_use]
pub fn handshake(answer: Handshake) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn json<T: Serialize>(status: StatusCode, content_type: &'static str, body: &T) -> Response<Full<Bytes>> {
    let mut bytes = Vec::with_capacity(512);
    // Our own structs of text and numbers always serialize; an empty body would be the mildest way to be wrong.
    if serde_json::to_writer(&mut bytes, body).is_err() {
        bytes.clear();
    }
    let mut response = Response::new(Full::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
