//! The plain HTTP sink: one event, one POST of `{"type", "timestamp", "data"}`, signed as Standard Webhooks says.
//!
//! `webhook-id` is the delivery id, so that a receiver which remembers ids takes each event once however often it is
//! sent. Only so much of an answer is read as keeps the connection.

mod batch;
mod client;
mod lines;
mod sign;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use reqwest::Url;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

pub use self::batch::{Batch, Body, Failed, Wrap};
use self::client::{Client, Rest};
use self::sign::Signer;
use super::egress::{self, Guard};
use super::{Content, Delivery, Item, Progress, json};
use crate::calendar::{Rfc3339, parse_http_date};
use crate::clock;
use crate::config::{self, Network};
use crate::outcome::{Answers, Outcome};
use crate::schema::reader::text;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Bytes of an answer that are read: enough for any receiver's acknowledgement, so that its connection can be used
/// again; beyond it the connection is closed instead.
const MAX_ANSWER: usize = 64 * 1024;

/// What is wrong with an HTTP sink's configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sink {sink}: the url is not an http or https url")]
    Url { sink: String },
    #[error("sink {sink}: sign.standard_webhooks is not base64, with or without whsec_ before it")]
    Secret { sink: String },
    #[error("sink {sink}: the header {name} cannot be sent")]
    Header { sink: String, name: String },
    #[error("sink {sink}: its address is refused")]
    Egress {
        sink: String,
        #[source]
        source: egress::Error,
    },
    #[error("sink {sink}: the HTTP client cannot be built")]
    Client {
        sink: String,
        #[source]
        source: native_tls::Error,
    },
}

/// An HTTP endpoint that takes events.
#[derive(Debug)]
pub struct Http {
    /// The path that is called, and its query.
    uri: Uri,
    /// What every request carries; what is of one call stands there empty.
    headers: HeaderMap,
    signer: Option<Signer>,
    concurrency: usize,
    client: Client,
    /// How events are sent together; `None`: each is a call of its own.
    batch: Option<Batch>,
}

impl Http {
    /// Checks the whole of the configuration; sends nothing. `allow`: networks that may be reached besides public ones.
    pub fn new(sink: &str, config: &config::Http, allow: &[Network]) -> Result<Self, Error> {
        let name = || sink.to_owned();
        let url = Url::parse(&config.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| Error::Url { sink: name() })?;
        let refused = |source| Error::Egress { sink: name(), source };
        let guard = Guard::new(allow);
        guard.check_literal(url.host_str().unwrap_or_default()).map_err(refused)?;
        let signer = match &config.standard_webhooks {
            None => None,
            Some(secret) => Some(Signer::new(secret.expose()).ok_or_else(|| Error::Secret { sink: name() })?),
        };
        let (to, mut headers) = target(url).ok_or_else(|| Error::Url { sink: name() })?;
        let uri = to.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        for (header, value) in &config.headers {
            let read = HeaderName::from_bytes(header.as_bytes()).ok().zip(HeaderValue::from_str(value.expose()).ok());
            let (name, mut value) = read.ok_or_else(|| Error::Header { sink: name(), name: header.clone() })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let concurrency = config.concurrency.max(1);
        let client = Client::new(guard, to, concurrency, config.timeout);
        let client = client.map_err(|source| Error::Client { sink: name(), source })?;
        Ok(Self { uri, headers, signer, concurrency, client, batch: None })
    }

    pub(super) fn concurrency(&self) -> usize {
        self.concurrency
    }

    pub(super) async fn deliver(&self, items: &[Item]) -> Progress {
        for (settled, item) in items.iter().enumerate() {
            let Item::Send(delivery) = item else { continue };
            match self.send_alone(delivery).await {
                Outcome::Delivered => {}
                outcome => return Progress::halted(settled, outcome),
            }
        }
        Progress::whole(items.len())
    }

    /// One attempt at one event, in the form that the receiver takes.
    async fn send_alone(&self, delivery: &Delivery) -> Outcome {
        if self.batch.is_none() {
            return self.send(delivery).await;
        }
        match self.send_together(&[delivery]).await.0 {
            Answers::All(outcome) => outcome,
            Answers::Each(outcomes) => outcomes.into_iter().next().unwrap_or(Outcome::Delivered),
        }
    }

    /// One attempt at one event.
    pub async fn send(&self, delivery: &Delivery) -> Outcome {
        let body = match body_of(delivery) {
            Ok(body) => body,
            Err(error) => return Outcome::Rejected { reason: error.to_string() },
        };
        match self.post(delivery.delivery_id, HeaderValue::from_static("application/json"), body).await {
            Err(outcome) => outcome,
            Ok((outcome, rest)) => {
                rest.pass_over(MAX_ANSWER).await;
                outcome
            }
        }
    }

    /// Sends a signed body; gives what the status of its answer says, and what there is to read of the answer.
    async fn post(&self, id: Uuid, content_type: HeaderValue, body: Vec<u8>) -> Result<(Outcome, Rest<'_>), Outcome> {
        let request = self.request(id, content_type, body.into(), clock::now_ms());
        let request = request.map_err(|error| Outcome::Misconfigured { reason: error.to_string() })?;
        let (status, headers, rest) = self.client.call(request).await?;
        let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok((classify(status, after, clock::now_ms()), rest))
    }

    fn request(
        &self,
        id: Uuid,
        content_type: HeaderValue,
        body: Bytes,
        now_ms: i64,
    ) -> Result<Request<Full<Bytes>>, InvalidHeaderValue> {
        let mut text = [0; Hyphenated::LENGTH];
        let id = id.hyphenated().encode_lower(&mut text).as_bytes();
        let mut timestamp = Vec::with_capacity(20);
        text::integer(now_ms / 1_000, &mut timestamp);
        // All have a place already, so that none of this makes it grow.
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(WEBHOOK_ID, HeaderValue::from_bytes(id)?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from_bytes(&timestamp)?);
        if let Some(signer) = &self.signer {
            let signature = signer.sign(id, &timestamp, &body);
            headers.insert(WEBHOOK_SIGNATURE, HeaderValue::from_bytes(&signature)?);
        } else {
            headers.remove(WEBHOOK_SIGNATURE);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Where requests go, and the headers of all of them, in which what is of one call is empty. A login in the address is sent
/// as HTTP's own (RFC 7617). `None`: the address is none.
fn target(mut url: Url) -> Option<(Uri, HeaderMap)> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("hookbridge/", env!("CARGO_PKG_VERSION"))));
    if !url.username().is_empty() || url.password().is_some() {
        let mut login = unescaped(url.username());
        login.push(b':');
        login.extend(unescaped(url.password().unwrap_or_default()));
        let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(login))).ok()?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
        url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    }
    let host = match (url.host_str()?, url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    headers.insert(header::HOST, HeaderValue::from_str(&host).ok()?);
    for of_a_call in [header::CONTENT_TYPE, WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE] {
        headers.insert(of_a_call, HeaderValue::from_static(""));
    }
    url.set_fragment(None);
    Some((url.as_str().parse().ok()?, headers))
}

/// RFC 3986, section 2.1. What is no escape stays as it is.
fn unescaped(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'%');
        let escaped = digits.and_then(|digits| hex::decode(digits).ok());
        rest = if escaped.is_some() { &behind[2..] } else { behind };
        out.extend(escaped.unwrap_or_else(|| vec![*first]));
    }
    out
}

/// The request's body: the same bytes on every attempt.
fn body_of(delivery: &Delivery) -> Result<Vec<u8>, json::Error> {
    /// Bytes around type, timestamp and data; a null is as long as quotes and two more.
    const AROUND: usize = r#"{"type":"","timestamp":null,"data":}"#.len();
    let data = match &delivery.content {
        Content::Json(json) | Content::Mapped(json) => json,
        // Whoever gives events to this sink gives it JSON.
        Content::Value { .. } => return Err(json::Error::Mismatch { expected: "an event as JSON" }),
    };
    let received = delivery.received_at_ms.map(Rfc3339::from_ms);
    let timestamp = delivery.occurred_at.as_deref().or(received.as_ref().map(Rfc3339::as_str));
    let around = AROUND + delivery.identity.event_type.len() + timestamp.map_or(0, str::len);
    let mut body = Vec::with_capacity(data.len() + around);
    body.extend_from_slice(br#"{"type":"#);
    text::string(&delivery.identity.event_type, &mut body);
    body.extend_from_slice(br#","timestamp":"#);
    match timestamp {
        Some(timestamp) => text::string(timestamp, &mut body),
        None => body.extend_from_slice(b"null"),
    }
    body.extend_from_slice(br#","data":"#);
    body.extend_from_slice(data);
    body.push(b'}');
    Ok(body)
}

/// What to do next, by the answer's status and its `Retry-After` (RFC 9110, section 10.2.3).
fn classify(status: StatusCode, retry_after: Option<&str>, now_ms: i64) -> Outcome {
    let reason = format!("the receiver answered {}", status.as_u16());
    let after = retry_after.and_then(|text| pause_of(text, now_ms));
    match status.as_u16() {
        200..=299 => Outcome::Delivered,
        429 => Outcome::Throttled { after },
        503 if after.is_some() => Outcome::Throttled { after },
        // A redirect that nobody follows: the endpoint has moved and the configuration has not.
        300..=399 => Outcome::Misconfigured { reason },
        401 | 403 => Outcome::Denied { reason },
        408 | 500..=599 => Outcome::Transient { reason },
        400..=499 => Outcome::Rejected { reason },
        _ => Outcome::Unknown { reason },
    }
}

/// Seconds, or a date.
fn pause_of(text: &str, now_ms: i64) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = parse_http_date(text.trim())?;
    Some(Duration::from_secs(u64::try_from(until - now_ms / 1_000).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
