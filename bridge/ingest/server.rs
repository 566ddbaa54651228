//! The accept loop: connections in, each with a limit on everything a peer can hold open, and a graceful end.
//!
//! What is bounded where: connections here, and whose goes first in [`crowd`]; waits and frames in [`pace`] and
//! [`frames`]; requests under way by the [`Gate`]; bytes of bodies in [`super::body`]; heads, streams and windows by the
//! numbers below, which hyper and h2 keep.

mod crowd;
pub mod descriptors;
mod frames;
mod pace;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use self::crowd::Crowd;
pub use self::pace::Arriving;
use self::pace::{Pace, Paced, UnderWay};
use super::answer::{self, Problem};
use crate::metrics::ServerMetrics;

/// A request's head, in bytes. Providers send about 2 KiB; 16 KiB leaves room for tracing and proxies.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Headers in a request. GitHub, the most talkative provider, sends some 15.
const MAX_HEADERS: usize = 100;

/// HTTP/2 streams open at once on one connection: as many as RFC 9113 section 6.5.2 recommends at least.
const MAX_STREAMS: u32 = 100;
/// Streams that their sender reset before we had looked at them, still in h2's queue (CVE-2023-44487). h2's own number,
/// written down so that it is ours: a client that changes its mind does not do so twenty times at once.
const MAX_UNSEEN_RESETS: usize = 20;
/// Streams that we reset for a sender's mistakes, until the connection goes (CVE-2025-8671: mistakes made on purpose
/// also empty the count of open streams). A sender that keeps the rules makes none.
const MAX_MISTAKES: usize = 64;
/// What a peer may send ahead on one stream: HTTP/2's own default. Most webhooks fit; the others wait for a round trip.
const STREAM_WINDOW: u32 = 64 * 1024;
/// And on a connection: with 4,096 of them half a gibibyte at the very worst, where nobody reads anything.
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// Answers are a few hundred bytes; one with a hundred violations has some 20 KiB.
const SEND_BUFFER: usize = 64 * 1024;

/// How long to wait after `accept` failed for want of descriptors, so that the loop does not spin on a full table, and
/// between two looks for a connection that may go.
const PAUSE: Duration = Duration::from_millis(50);

/// What peers may hold open, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_connections: usize,
    /// Requests under way over all connections; past it, 503. HTTP/1.1 has one a connection at most, HTTP/2 a hundred.
    pub max_requests: usize,
    /// After so many requests, or at that age, a connection is ended in good order.
    pub max_connection_requests: u64,
    pub max_connection_age: Duration,
    /// From the first byte of a request to the end of its head; also from `accept` to the first byte, and for how long
    /// an answer may find no reader.
    pub header_timeout: Duration,
    /// Between two requests of a kept-alive connection.
    pub idle_timeout: Duration,
    /// How long a graceful stop waits for requests that are under way.
    pub drain_timeout: Duration,
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request under way was answered.
    Clean,
    /// The deadline passed with connections still open; they were cut.
    Cut { connections: usize },
}

/// Why a connection was ended by us and in no good order. Its names are a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its place was needed.
    Crowded,
    /// No first byte, no end of the head, no next request.
    Silent,
    /// Nobody read our answer.
    Unread,
    /// More frames than its requests account for.
    Flood,
}

impl Cut {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::Silent => "silent",
            Self::Unread => "unread",
            Self::Flood => "flood",
        }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    gate: Gate,
    metrics: ServerMetrics,
}

/// Counts the requests under way against their limit.
#[derive(Debug)]
struct Gate {
    max: usize,
    inside: AtomicUsize,
}

impl Gate {
    /// Counts first and looks afterwards: two at the edge may both be refused, but never both pass it.
    fn enter(&self) -> bool {
        let admitted = self.inside.fetch_add(1, Ordering::Relaxed) < self.max;
        self.leave(!admitted);
        admitted
    }

    fn leave(&self, was_inside: bool) {
        if was_inside {
            self.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Serves `app` on `listener` until `stop` resolves, then drains. `app` is told when the first byte of the request was
/// read: where its deadline is counted from.
///
/// Past `max_connections` a new connection takes the place of one that waits for its peer. Where there is none, the
/// kernel's backlog holds what comes: a provider's connect timeout is then the limit, rather than our memory.
pub async fn serve<A, F>(
    listener: TcpListener,
    app: A,
    limits: Limits,
    metrics: ServerMetrics,
    stop: impl Future<Output = ()>,
) -> Drained
where
    A: Fn(Request<Arriving>, Instant) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let crowd = Arc::new(Crowd::default());
    let gate = Gate { max: limits.max_requests, inside: AtomicUsize::new(0) };
    let shared = Arc::new(Shared { limits, gate, metrics });
    let (drain, draining) = watch::channel(());
    let mut stop = std::pin::pin!(stop);
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                shared.make_room(&crowd);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let slot = tokio::select! {
            slot = slot(&slots, &shared, &crowd) => slot,
            () = &mut stop => break,
        };
        number += 1;
        let pace = Arc::new(Pace::new(Arc::clone(&shared), number));
        let seat = crowd.seat(&pace);
        let index = seat.index();
        let connection = connection(stream, app.clone(), pace, draining.clone());
        let open = shared.metrics.opened();
        let task = tokio::spawn(async move {
            connection.await;
            drop((seat, open, slot));
        });
        crowd.started(index, task.abort_handle());
    }
    // Closing the listener first makes a load balancer's next connect fail at once, rather than wait for nobody.
    drop(listener);
    let _ = drain.send(());
    let all = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
    match tokio::time::timeout(limits.drain_timeout, slots.acquire_many(all)).await {
        Ok(_) => Drained::Clean,
        Err(_) => Drained::Cut { connections: limits.max_connections - slots.available_permits() },
    }
}

/// A slot for a connection that has come, made free where there is none.
async fn slot(slots: &Arc<Semaphore>, shared: &Shared, crowd: &Crowd) -> Option<OwnedSemaphorePermit> {
    if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        return Some(slot);
    }
    loop {
        shared.make_room(crowd);
        // What was cut ends when its task is run next; where nothing could be, something may wait for its peer soon.
        if let Ok(slot) = tokio::time::timeout(PAUSE, Arc::clone(slots).acquire_owned()).await {
            return slot.ok();
        }
    }
}

impl Shared {
    fn make_room(&self, crowd: &Crowd) {
        let cut = crowd.make_room();
        (0..cut).for_each(|_| self.metrics.cut(Cut::Crowded.name()));
        tracing::debug!(cut, "made room for connections");
    }
}

/// One connection, HTTP/1.1 or HTTP/2 with prior knowledge.
fn connection<A, F>(
    stream: TcpStream,
    app: A,
    pace: Arc<Pace>,
    mut draining: watch::Receiver<()>,
) -> impl Future<Output = ()> + use<A, F>
where
    A: Fn(Request<Arriving>, Instant) -> F + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // An answer is one small write: waiting for more to send with it would only add latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    let service = hyper::service::service_fn({
        let pace = Arc::clone(&pace);
        move |request: Request<Incoming>| {
            let under_way = UnderWay::begin(&pace, request.version());
            let answer = under_way.admitted.then(|| {
                let request = request.map(|body| Arriving::new(body, &pace));
                // On the heap, where the last request's was: hyper keeps what is returned here for as long as the
                // connection lives, and it would be moved three times on its way there.
                Box::pin(app(request, under_way.first_byte))
            });
            async move { Ok::<_, Infallible>(answered(under_way, answer).await) }
        }
    });
    let io = TokioIo::new(Paced::new(stream, Arc::clone(&pace)));
    let connection = builder().serve_connection(io, service).into_owned();
    async move {
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = async { tokio::select! { _ = draining.changed() => (), () = pace.retire.notified() => () } } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // A peer that goes away or is too slow is daily business for a server on the internet.
            tracing::debug!(error = error.as_ref() as &dyn std::error::Error, "a connection ended early");
        }
    }
}

/// The answer to a request, which may be the last of its connection. `answer`: none where there was no room for it.
async fn answered<F>(under_way: UnderWay, answer: Option<F>) -> Response<Full<Bytes>>
where
    F: Future<Output = Response<Full<Bytes>>>,
{
    let mut response = if let Some(answer) = answer {
        answer.await
    } else {
        under_way.turned_away();
        answer::problem(&Problem::unavailable("too many requests are under way"))
    };
    if under_way.answered(response.status().is_success()) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// hyper's and h2's numbers. h2 derives from them how many frames may continue a head (CVE-2024-27316: five here) and
/// how many small DATA frames may come ahead of being read.
fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A sender that closes its half early still gets its answer, and one that has gone is not looked for while an
        // answer is made: every such look would take a new read buffer, the old one being the request's until then.
        .half_close(true)
        // An answer is one small buffer: head and body in one piece are cheaper to hand over than in two.
        .writev(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(MAX_MISTAKES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX));
    builder
}

#[cfg(test)]
mod tests;
