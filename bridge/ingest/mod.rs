//! HTTP → event: what happens to a request, in the order in which it happens.
//!
//! limits → look the source up → verify the raw bytes → split → map → validate and encode in one pass → dedupe → publish →
//! answer. A 2xx means that Kafka confirmed every event of the request on its topic, now or when it first came, or the
//! request in quarantine.

pub mod again;
pub mod answer;
mod batch;
pub mod body;
pub mod dedupe;
mod fault;
mod form;
mod handed;
pub mod handshake;
pub mod line;
pub mod map;
pub mod publish;
pub mod server;
pub mod split;
pub mod trace;
pub mod vectors;
pub mod verify;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::clock;
use crate::ingest::answer::{Problem, Receipt, Status};
use crate::ingest::dedupe::Token;
use crate::ingest::fault::{Fault, Faults};
use crate::ingest::line::{Line, Source};
use crate::ingest::map::{Mapped, Mapping};
use crate::ingest::publish::Encoded;
use crate::ingest::split::Splitter;
use crate::metrics::SourceMetrics;

/// The door: what is needed before the line behind it stands.
#[derive(Debug)]
pub struct Door {
    /// Empty until schemas and Kafka are there: until then every request is told to come again. A reload puts another
    /// one in its place; a request ends on the line that it began with.
    pub line: ArcSwapOption<Line>,
    /// Requests to sources that do not exist are counted under one name.
    pub unknown: SourceMetrics,
    pub bodies: body::Limits,
}

/// A request, read whole and not yet verified.
struct Unverified {
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
    received_ms: i64,
    deadline: Instant,
    /// The SHA-256, in hex, of what the source allows to come once only. Known once it is verified.
    replay_key: Option<String>,
}

/// Answers one request, and counts the answer. There is one address: `POST /hooks/{source}`, and `GET` for the providers
/// that ask by it whether somebody is there. `first_byte` is when the request's first byte came.
pub async fn receive(
    door: Arc<Door>,
    request: Request<server::Arriving>,
    first_byte: Instant,
) -> Response<Full<Bytes>> {
    let Some(name) = source_name(request.uri().path()) else {
        return answer::problem(&Problem {
            detail: Some("webhooks go to POST /hooks/{source}".to_owned()),
            ..Problem::new(StatusCode::NOT_FOUND, "no such path")
        });
    };
    if !matches!(*request.method(), Method::POST | Method::GET | Method::HEAD) {
        let mut response = answer::problem(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, "webhooks are POSTed"));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        return response;
    }
    let Some(line) = door.line.load_full() else {
        let response = answer::problem(&Problem::unavailable("the bridge is starting"));
        door.unknown.answered(response.status().as_u16(), first_byte.elapsed().as_secs_f64());
        return response;
    };
    let source = line.sources.get(name);
    let received_ms = clock::now_ms() - i64::try_from(first_byte.elapsed().as_millis()).unwrap_or(0);
    let (mut head, body) = request.into_parts();
    // The body is read before an unknown source is refused, so that the two refusals take the same time.
    let response = match body::read(&mut head.headers, body, &door.bodies).await {
        Err(refused) => {
            let mut response = answer::problem(&unread(refused, &door.bodies));
            if head.version < http::Version::HTTP_2 {
                // What is left of the body stands before the next request: the sender has to know that none is read.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
        Ok(body) => match source {
            None => answer::problem(&Problem::unauthorized()),
            Some(source) => {
                let request = Unverified {
                    method: head.method,
                    uri: head.uri,
                    headers: head.headers,
                    body,
                    received_ms,
                    deadline: first_byte + source.deadline,
                    replay_key: None,
                };
                take(&line, source, request).await
            }
        },
    };
    let metrics = source.map_or(&door.unknown, |source| &source.metrics);
    metrics.answered(response.status().as_u16(), first_byte.elapsed().as_secs_f64());
    response
}

/// The source that an address names, whether there is such a one or not.
fn source_name(path: &str) -> Option<&str> {
    path.strip_prefix("/hooks/").filter(|name| !name.is_empty() && !name.contains('/'))
}

/// A request for a source that exists: verified, and no handshake.
async fn take(line: &Line, source: &Source, mut request: Unverified) -> Response<Full<Bytes>> {
    let seen = verify::Request {
        method: request.method.as_str(),
        url: request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        headers: &request.headers,
        body: &request.body,
    };
    if let Some(asked) = source.handshakes.unsigned(&seen) {
        return answer::handshake(asked);
    }
    match source.verifier.verify(&seen, request.received_ms) {
        Ok(verified) => {
            source.secret_used(verified.secret_index);
            if let Some(asked) = source.handshakes.signed(&seen, &verified) {
                return answer::handshake(asked);
            }
        }
        Err(rejection) => {
            source.metrics.signature_rejected(rejection.name());
            return answer::problem(&Problem::unauthorized());
        }
    }
    request.replay_key = source.verifier.replay_key(&seen).map(|key| hex::encode(Sha256::digest(key)));
    match &source.splitter {
        None => one(line, source, &request).await,
        // On the heap, so that the many requests with one event do not carry its state.
        Some(splitter) => Box::pin(several(line, source, &request, splitter)).await,
    }
}

/// A request that may carry several events.
async fn several(line: &Line, source: &Source, request: &Unverified, splitter: &Splitter) -> Response<Full<Bytes>> {
    let document = match splitter.document(&request.body) {
        Ok(document) => document,
        Err(error) => return invalid(line, source, request, Fault::of_split(&error), None).await,
    };
    match splitter.split(&document) {
        Ok(events) => batch::take(line, source, request, &events).await,
        Err(error) => invalid(line, source, request, Fault::of_split(&error), None).await,
    }
}

/// A request that is one event.
async fn one(line: &Line, source: &Source, request: &Unverified) -> Response<Full<Bytes>> {
    match source.map(&request.headers, &request.body) {
        Mapping::Events(events) => match events.as_slice() {
            [event] => accept(line, source, request, event).await,
            _ => Box::pin(batch::results(line, source, request, Mapping::Events(events))).await,
        },
        Mapping::Unmapped if source.ignores_unmapped() => {
            source.metrics.ignored();
            answer::receipts(&[Receipt::new(Status::Ignored)])
        }
        Mapping::Unmapped => quarantine(line, source, request, Fault::unmapped(), Some(1)).await,
        Mapping::Failed(failure) => invalid(line, source, request, publish::unmade(source, failure), Some(1)).await,
    }
}

/// One event: encoded, published, confirmed.
async fn accept(line: &Line, source: &Source, request: &Unverified, event: &Mapped<'_>) -> Response<Full<Bytes>> {
    let Some(route) = source.routes.get(&*event.event_type) else {
        return invalid(line, source, request, Fault::undefined(&event.event_type), Some(1)).await;
    };
    let handed = match publish::event(line, source, route, &request.into(), event) {
        Ok(Ok(handed)) => handed,
        Ok(Err(error)) => return unconfirmed(line, source, Some(&event.id), &error),
        Err(fault) => return invalid(line, source, request, fault, Some(1)).await,
    };
    let again = |value: &_| publish::hand_over(line, source, &request.into(), Encoded { nth: 0, route, event, value });
    match handed.confirmed(&line.memory, request.deadline, again).await {
        Ok(confirmed) => answer::receipts(&[source.receipt(&confirmed, event, route)]),
        Err(error) => unconfirmed(line, source, Some(&event.id), &error),
    }
}

/// Authentic, but not an event that its topic may hold: quarantined or refused, as the source says. `events`: as many as
/// the request has, where that is known.
async fn invalid(
    line: &Line,
    source: &Source,
    request: &Unverified,
    fault: Fault,
    events: Option<usize>,
) -> Response<Full<Bytes>> {
    if !source.refuses_invalid() {
        return quarantine(line, source, request, fault, events).await;
    }
    let (status, title) = if fault.is_unreadable() {
        (StatusCode::BAD_REQUEST, "the request cannot be read")
    } else {
        (StatusCode::UNPROCESSABLE_ENTITY, "the event does not fit its schema")
    };
    answer::problem(&Problem { violations: Some(fault.violations()), ..Problem::new(status, title) })
}

/// The request's raw bytes go to `quarantine.<source>`: a 2xx, since the provider did nothing wrong that a repeat mends.
async fn quarantine(
    line: &Line,
    source: &Source,
    request: &Unverified,
    fault: Fault,
    events: Option<usize>,
) -> Response<Full<Bytes>> {
    // What is kept here does not spend a key: once it is mended, the provider's own repeat lands. One that is spent
    // brings nothing, here neither.
    let token = request.replay_key.as_deref().map(|key| Token { source: &source.name, key, nth: 0 });
    if token.is_some_and(|token| line.memory.is_spent(token)) {
        return unconfirmed(line, source, None, &publish::Unconfirmed::Replayed);
    }
    let list = [(0, fault)];
    let [(_, fault)] = &list;
    let sent = match publish::quarantine(line, source, &request.into(), &Faults { list: &list, events }) {
        Ok(sent) => sent,
        Err(error) => return unconfirmed(line, source, fault.event_id.as_deref(), &error),
    };
    match sent.confirmed(request.deadline).await {
        Ok(position) => answer::receipts(&[Receipt::quarantined(source, fault, position)]),
        Err(error) => unconfirmed(line, source, fault.event_id.as_deref(), &error),
    }
}

/// Kafka did not confirm: never a 2xx, for nobody knows; never a 4xx, for the sender did nothing wrong.
/// Unless the request turns out to be no authentic one.
fn unconfirmed(
    line: &Line,
    source: &Source,
    event_id: Option<&str>,
    error: &publish::Unconfirmed,
) -> Response<Full<Bytes>> {
    if matches!(error, publish::Unconfirmed::Replayed) {
        source.metrics.signature_rejected(error.reason());
        return answer::problem(&Problem::unauthorized());
    }
    line.metrics.publish_failures.with_label_values(&[error.reason()]).inc();
    tracing::warn!(event_id, error = error as &dyn std::error::Error, "an event was not confirmed");
    answer::problem(&Problem { event_id, ..Problem::unavailable(error.advice()) })
}

fn unread(refused: body::Refused, limits: &body::Limits) -> Problem<'static> {
    match refused {
        body::Refused::TooLarge => Problem {
            detail: Some(format!("the body may have {} bytes", limits.max)),
            ..Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
        },
        body::Refused::TooSlow => Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        body::Refused::Broken => Problem::new(StatusCode::BAD_REQUEST, "the body ended early"),
        body::Refused::Corrupt => Problem::new(StatusCode::BAD_REQUEST, "the body is not compressed as it says"),
        body::Refused::Full => Problem::unavailable("too many large bodies are on their way"),
        body::Refused::Encoded if limits.compressed => Problem {
            detail: Some("send the body with content-encoding gzip or deflate, or without".to_owned()),
            ..Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body's compression is not known here")
        },
        body::Refused::Encoded => Problem {
            detail: Some("send the body without content-encoding".to_owned()),
            ..Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken")
        },
    }
}
