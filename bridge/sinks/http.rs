//! The plain HTTP sink: one event, one POST of `{"type", "timestamp", "data"}`, signed as Standard Webhooks says.
//!
//! `webhook-id` is the delivery id, so that a receiver which remembers ids takes each event once however often it is
//! sent. Redirects are not followed (they would carry the event to where nobody configured), proxies in the environment
//! are not used (they would undo the egress rules), and only so much of an answer is read as keeps the connection.

mod batch;

use std::error::Error as StdError;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Response, StatusCode, Url, header};
use sha2::Sha256;

pub use self::batch::{Batch, Body, Failed, Wrap};
use super::egress::{self, Guard};
use super::{Content, Delivery, Item, Progress, json};
use crate::calendar::{Rfc3339, parse_http_date};
use crate::clock;
use crate::config::{self, Network};
use crate::outcome::{Answers, Outcome};
use crate::schema::reader::text;

/// Bytes of an answer that are read: enough for any receiver's acknowledgement, so that its connection can be used
/// again; beyond it the connection is closed instead.
const MAX_ANSWER: usize = 64 * 1024;

/// Opening a connection takes a few round trips; a receiver that needs longer is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is wrong with an HTTP sink's configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sink {sink}: the url is not an http or https url")]
    Url { sink: String },
    #[error("sink {sink}: sign.standard_webhooks is not base64, with or without whsec_ before it")]
    Secret { sink: String },
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
        source: reqwest::Error,
    },
}

/// An HTTP endpoint that takes events.
#[derive(Debug)]
pub struct Http {
    url: Url,
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
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Repeating is the loop's business, where it is counted and spaced.
            .retry(reqwest::retry::never())
            .dns_resolver(guard)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(config.timeout)
            .user_agent(concat!("hookbridge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| Error::Client { sink: name(), source })?;
        Ok(Self { url, signer, concurrency: config.concurrency.max(1), client, batch: None })
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
        match self.post(&delivery.delivery_id.to_string(), "application/json", body).await {
            Err(outcome) => outcome,
            Ok((outcome, mut response)) => {
                let mut read = 0;
                // The status has decided already: what goes wrong while the rest is read changes nothing.
                while let Ok(Some(chunk)) = response.chunk().await {
                    read += chunk.len();
                    if read > MAX_ANSWER {
                        break;
                    }
                }
                outcome
            }
        }
    }

    /// Sends a signed body; gives what the status of its answer says, and the answer.
    async fn post(&self, id: &str, content_type: &str, body: Vec<u8>) -> Result<(Outcome, Response), Outcome> {
        let timestamp = (clock::now_ms() / 1_000).to_string();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, content_type)
            .header("webhook-id", id)
            .header("webhook-timestamp", &timestamp);
        if let Some(signer) = &self.signer {
            request = request.header("webhook-signature", signer.sign(id, &timestamp, &body));
        }
        let response = request.body(body).send().await.map_err(|error| classify_error(&error))?;
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok((classify(response.status(), after, clock::now_ms()), response))
    }
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

fn classify_error(error: &reqwest::Error) -> Outcome {
    let mut causes = Vec::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(blocked) = cause.downcast_ref::<egress::Error>() {
            return Outcome::Misconfigured { reason: blocked.to_string() };
        }
        if cause.is::<native_tls::Error>() {
            return Outcome::Misconfigured { reason: format!("TLS: {cause}") };
        }
        causes.push(cause.to_string());
        next = cause.source();
    }
    // The outermost text holds the url, which may hold a token; the innermost says what happened.
    let reason = causes.pop().filter(|_| !causes.is_empty()).unwrap_or_else(|| "the request failed".into());
    if error.is_connect() {
        Outcome::Transient { reason }
    } else if error.is_builder() {
        Outcome::Misconfigured { reason }
    } else {
        // It was sent, or partly: the receiver may have taken it. The same `webhook-id` goes out again.
        Outcome::Unknown { reason }
    }
}

/// Signs as the Standard Webhooks specification says: HMAC-SHA256 of `id.timestamp.body`, base64 after `v1,`.
#[derive(Clone)]
struct Signer {
    key: Vec<u8>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer([redacted])")
    }
}

impl Signer {
    /// `None`: no base64, or nothing in it.
    fn new(secret: &str) -> Option<Self> {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?;
        (!key.is_empty()).then_some(Self { key })
    }

    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        // HMAC takes a key of any length; there is no error to speak of.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests;
