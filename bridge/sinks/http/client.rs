//! The client: connections to one receiver, kept and used again. HTTP/1.1, as most receivers speak it.
//!
//! It follows no redirect (that would carry the event to where nobody configured), asks no proxy of the environment (that
//! would undo the egress rules) and repeats nothing: repeating is the loop's business, where it is counted and spaced.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper_tls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use native_tls::TlsConnector;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use super::super::egress::{self, Guard};
use crate::outcome::Outcome;

/// Opening a connection, its TLS included, takes a few round trips; a receiver that needs longer is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection that nobody uses is kept: longer than the usual pauses between events, and most receivers close it
/// earlier themselves.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// A connection whose peer has vanished is found out by probes, three of them, this far apart.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// How long what was sent may stay without an acknowledgement of TCP's before the connection is given up.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

type BoxError = Box<dyn StdError + Send + Sync>;

#[derive(Debug, Clone)]
pub(super) struct Client {
    connections: legacy::Client<Patient, Full<Bytes>>,
    /// Of a call, from connecting to the last byte of its answer.
    timeout: Duration,
}

impl Client {
    /// `concurrency`: calls at once, each of which may leave its connection behind for the next.
    pub(super) fn new(guard: Guard, concurrency: usize, timeout: Duration) -> Result<Self, native_tls::Error> {
        let mut tcp = HttpConnector::new_with_resolver(guard);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        // So that one address of several which does not answer leaves time for the next.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = TlsConnector::new()?;
        let connector = Patient(HttpsConnector::from((tcp, tls.into())));
        let connections = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(concurrency)
            .build(connector);
        Ok(Self { connections, timeout })
    }

    /// Sends a request; gives the head of its answer, and what is left to read of that.
    pub(super) async fn call(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, HeaderMap, Rest), Outcome> {
        let until = Instant::now() + self.timeout;
        let answer = timeout_at(until, self.connections.request(request)).await;
        let answer = answer.map_err(|_| Outcome::Unknown { reason: format!("no answer within {:?}", self.timeout) })?;
        let (head, body) = answer.map_err(|error| classify(&error))?.into_parts();
        Ok((head.status, head.headers, Rest { body, until }))
    }
}

/// What is left to read of an answer. Read to its end, its connection can be used again.
pub(super) struct Rest {
    body: Incoming,
    /// When the call has to be over.
    until: Instant,
}

impl Rest {
    /// All of it; `None` where it is longer than `most` bytes, or broke off.
    pub(super) async fn read(mut self, most: usize) -> Option<Vec<u8>> {
        let mut read = Vec::new();
        while let Some(bytes) = self.next().await? {
            if read.len() + bytes.len() > most {
                return None;
            }
            read.extend_from_slice(&bytes);
        }
        Some(read)
    }

    /// Reads it for the connection's sake, unless that is more work than another one. Whatever goes wrong changes nothing.
    pub(super) async fn pass_over(mut self, most: usize) {
        let mut read = 0;
        while let Some(Some(bytes)) = self.next().await {
            read += bytes.len();
            if read > most {
                return;
            }
        }
    }

    /// `Some(None)`: that was its end. `None`: it broke off.
    async fn next(&mut self) -> Option<Option<Bytes>> {
        if self.body.is_end_stream() {
            return Some(None);
        }
        match timeout_at(self.until, self.body.frame()).await.ok()? {
            None => Some(None),
            Some(frame) => Some(Some(frame.ok()?.into_data().unwrap_or_default())),
        }
    }
}

fn classify(error: &legacy::Error) -> Outcome {
    let mut reason = None;
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(blocked) = cause.downcast_ref::<egress::Error>() {
            return Outcome::Misconfigured { reason: blocked.to_string() };
        }
        if cause.is::<native_tls::Error>() {
            return Outcome::Misconfigured { reason: format!("TLS: {cause}") };
        }
        // The innermost says what happened.
        reason = Some(cause.to_string());
        next = cause.source();
    }
    let reason = reason.unwrap_or_else(|| "the request failed".into());
    if error.is_connect() {
        Outcome::Transient { reason }
    } else {
        // It was sent, or partly: the receiver may have taken it. The same `webhook-id` goes out again.
        Outcome::Unknown { reason }
    }
}

/// Connects, and waits only so long for TCP and TLS together.
#[derive(Debug, Clone)]
struct Patient(HttpsConnector<HttpConnector<Guard>>);

#[derive(Debug, thiserror::Error)]
#[error("no connection within {CONNECT_TIMEOUT:?}")]
struct TooSlow;

impl Service<Uri> for Patient {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async move { timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| TooSlow)? })
    }
}
