//! The client: connections to one receiver, kept and used again.
//!
//! It follows no redirect (that would carry the event to where nobody configured), asks no proxy of the environment (that
//! would undo the egress rules) and repeats nothing that was sent: repeating is the loop's business, where it is counted and
//! spaced.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper_tls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use native_tls::TlsConnector;
use tokio::time::{Instant, timeout_at};

use super::super::egress::{self, Guard};
use super::lines::{BoxError, CONNECT_TIMEOUT, Failed, Line, Lines};
use crate::outcome::Outcome;

/// A connection whose peer has vanished is found out by probes, three of them, this far apart.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// How long what was sent may stay without an acknowledgement of TCP's before the connection is given up.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(super) struct Client {
    /// The receiver: what of its address says where to connect to.
    to: Uri,
    lines: Lines,
    /// Of a call, from connecting to the last byte of its answer.
    timeout: Duration,
}

impl Client {
    /// `concurrency`: calls at once, each of which may leave its connection behind for the next.
    pub(super) fn new(guard: Guard, to: Uri, concurrency: usize, timeout: Duration) -> Result<Self, native_tls::Error> {
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
        let lines = Lines::new(HttpsConnector::from((tcp, tls.into())), concurrency);
        Ok(Self { to, lines, timeout })
    }

    /// Sends a request, whose target is a path; gives the head of its answer, and what is left to read of that.
    pub(super) async fn call(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Rest<'_>), Outcome> {
        let until = Instant::now() + self.timeout;
        let too_late = || Outcome::Unknown { reason: format!("no answer within {:?}", self.timeout) };
        loop {
            let rested = self.lines.rested();
            let may_be_stale = rested.is_some();
            let mut line = if let Some(line) = rested {
                line
            } else {
                let opened = timeout_at(until, self.lines.open(self.to.clone())).await;
                opened.map_err(|_| too_late())?.map_err(|error| not_connected(&error))?
            };
            match line.ask(request, until).await {
                Ok(answer) => {
                    let (head, body) = answer.into_parts();
                    return Ok((head.status, head.headers, Rest { body, line, lines: &self.lines }));
                }
                // Its peer had closed it while it rested, and nothing was sent.
                Err(Failed::Unsent { request: unsent, .. }) if may_be_stale => request = *unsent,
                Err(Failed::Unsent { error, .. } | Failed::Broken(error)) => return Err(no_answer(&error)),
                Err(Failed::TooLate) => return Err(too_late()),
            }
        }
    }
}

/// What is left to read of an answer. Read to its end, its connection can be used again.
pub(super) struct Rest<'a> {
    body: Incoming,
    line: Box<Line>,
    lines: &'a Lines,
}

impl Rest<'_> {
    /// All of it; `None` where it is longer than `most` bytes, or broke off.
    pub(super) async fn read(mut self, most: usize) -> Option<Vec<u8>> {
        let mut read = Vec::new();
        while let Some(bytes) = self.next().await? {
            if read.len() + bytes.len() > most {
                return None;
            }
            read.extend_from_slice(&bytes);
        }
        self.lines.rest(self.line);
        Some(read)
    }

    /// Reads it for the connection's sake, unless that is more work than another one. Whatever goes wrong changes nothing.
    pub(super) async fn pass_over(mut self, most: usize) {
        let mut read = 0;
        loop {
            match self.next().await {
                Some(Some(bytes)) if read + bytes.len() <= most => read += bytes.len(),
                Some(None) => return self.lines.rest(self.line),
                Some(Some(_)) | None => return,
            }
        }
    }

    /// `Some(None)`: that was its end. `None`: it broke off.
    async fn next(&mut self) -> Option<Option<Bytes>> {
        if self.body.is_end_stream() {
            return Some(None);
        }
        match self.line.frame(&mut self.body).await {
            None => Some(None),
            Some(frame) => Some(Some(frame.ok()?.into_data().unwrap_or_default())),
        }
    }
}

/// Nothing was sent.
fn not_connected(error: &BoxError) -> Outcome {
    misconfigured(&**error).unwrap_or_else(|| Outcome::Transient { reason: innermost(&**error) })
}

/// It was sent, or partly: the receiver may have taken it. The same `webhook-id` goes out again.
fn no_answer(error: &hyper::Error) -> Outcome {
    misconfigured(error).unwrap_or_else(|| Outcome::Unknown { reason: innermost(error) })
}

/// What a person has to mend, where that is among an error's causes.
fn misconfigured(error: &(dyn StdError + 'static)) -> Option<Outcome> {
    causes(error).find_map(|cause| {
        if let Some(blocked) = cause.downcast_ref::<egress::Error>() {
            return Some(Outcome::Misconfigured { reason: blocked.to_string() });
        }
        cause.is::<native_tls::Error>().then(|| Outcome::Misconfigured { reason: format!("TLS: {cause}") })
    })
}

/// The innermost cause says what happened.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map_or_else(|| "the request failed".into(), ToString::to_string)
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
