//! What a connection is waiting for, and since when: one clock, in the stream itself.
//!
//! hyper's own header timeout also counts the wait between two requests of a kept-alive connection, with the same
//! number, and starts only after the protocol has been told apart. Here one clock covers all three waits: for the first
//! byte, for the rest of the head, and between requests. The body's limits are in [`crate::ingest::body`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::frames::Frames;
use super::{Cut, Shared};

const WAITING: u8 = 0;
const HEAD: u8 = 1;
const ANSWERING: u8 = 2;

/// What a connection is waiting for, and since when. Shared by the stream, which sees bytes, the service, which sees
/// requests, and the crowd, which may need its place.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) shared: Arc<Shared>,
    start: Instant,
    phase: AtomicU8,
    /// Nanoseconds after `start` at which the phase began.
    since: AtomicU64,
    http2: AtomicBool,
    /// Whether anything was ever answered with a 2xx.
    proven: AtomicBool,
    /// Requests under way: more than one with HTTP/2 only.
    active: AtomicU64,
    /// Of those, the ones whose bodies have not come to their ends.
    coming: AtomicU64,
    begun: AtomicU64,
    answers: AtomicU64,
    /// When the connection has served long enough.
    retires: Instant,
    /// Tells an HTTP/2 connection to take no more requests; one of HTTP/1.1 is told by the answer's own header.
    pub(super) retire: Notify,
}

impl Pace {
    /// `number`: of this connection, so that those which came together do not all go together.
    pub(super) fn new(shared: Arc<Shared>, number: u64) -> Self {
        let start = Instant::now();
        let age = shared.limits.max_connection_age;
        // Spread over the last fifth, in 64 steps.
        let retires = start + age - age.mul_f64(0.2) / 64 * u32::try_from(number % 64).unwrap_or(0);
        Self {
            shared,
            start,
            phase: AtomicU8::new(WAITING),
            since: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            active: AtomicU64::new(0),
            coming: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            retires,
            retire: Notify::new(),
        }
    }

    fn mark(&self, phase: u8) {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.since.store(nanos, Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn since(&self) -> Instant {
        self.start + Duration::from_nanos(self.since.load(Ordering::Relaxed))
    }

    fn bytes_came(&self) {
        if self.phase.load(Ordering::Relaxed) == WAITING {
            self.mark(HEAD);
        }
    }

    /// A request's head is complete; answers when its first byte came.
    fn begin(&self, version: Version) -> Instant {
        let first_byte = if self.phase.load(Ordering::Relaxed) == HEAD { self.since() } else { Instant::now() };
        self.http2.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.coming.fetch_add(1, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
        self.phase.store(ANSWERING, Ordering::Relaxed);
        first_byte
    }

    fn end(&self) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.mark(WAITING);
        }
    }

    /// Where it waits for its peer and we work on nothing of its: how soon it has to go when others want in, the least
    /// first. Whether it ever had a 2xx, and since when it waits.
    pub(super) fn waits_for_peer(&self) -> Option<(bool, Instant)> {
        let idle = self.active.load(Ordering::Relaxed) == self.coming.load(Ordering::Relaxed);
        idle.then(|| (self.proven.load(Ordering::Relaxed), self.since()))
    }

    /// Whether the connection has served long enough, so that a load balancer may spread its senders anew.
    fn is_spent(&self) -> bool {
        self.begun.load(Ordering::Relaxed) >= self.shared.limits.max_connection_requests
            || Instant::now() >= self.retires
    }

    /// Until when the peer may stay silent.
    ///
    /// While an answer is made it may be as silent as it likes, but an alarm has to be set all the same: hyper does
    /// not read again after the answer if a read was pending before, and so would never ask how long it may wait.
    fn deadline(&self) -> Instant {
        let limits = &self.shared.limits;
        let limit = match self.phase.load(Ordering::Relaxed) {
            ANSWERING => return Instant::now() + limits.idle_timeout,
            // HTTP/2 has frames that belong to no request; they are idling, not a head that does not end.
            HEAD if self.http2.load(Ordering::Relaxed) => limits.idle_timeout,
            HEAD => limits.header_timeout,
            // The first request gets the header timeout, later ones the idle timeout.
            _ if self.begun.load(Ordering::Relaxed) > 0 => limits.idle_timeout,
            _ => limits.header_timeout,
        };
        self.since() + limit
    }
}

/// A request under way: counted from its head to its answer, or to the moment at which its sender took it back.
#[derive(Debug)]
pub(super) struct UnderWay {
    pace: Arc<Pace>,
    pub(super) first_byte: Instant,
    /// Whether there was room for it.
    pub(super) admitted: bool,
}

impl UnderWay {
    pub(super) fn begin(pace: &Arc<Pace>, version: Version) -> Self {
        let first_byte = pace.begin(version);
        Self { pace: Arc::clone(pace), first_byte, admitted: pace.shared.gate.enter() }
    }

    /// There was no room for it.
    pub(super) fn turned_away(&self) {
        self.pace.shared.metrics.turned_away();
    }

    /// It was answered. Says whether the answer is to be the connection's last, which only HTTP/1.1 has to be told.
    pub(super) fn answered(self, success: bool) -> bool {
        let pace = &self.pace;
        pace.answers.fetch_add(1, Ordering::Relaxed);
        if success && !pace.proven.load(Ordering::Relaxed) {
            pace.proven.store(true, Ordering::Relaxed);
        }
        let spent = pace.is_spent();
        let http2 = pace.http2.load(Ordering::Relaxed);
        if spent && http2 {
            pace.retire.notify_one();
        }
        spent && !http2
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.pace.shared.gate.leave(self.admitted);
        self.pace.end();
    }
}

/// A request's body, which tells its connection's pace when it has come to its end.
#[derive(Debug)]
pub struct Arriving {
    body: Incoming,
    /// None once it has.
    pace: Option<Arc<Pace>>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, pace: &Arc<Pace>) -> Self {
        Self { body, pace: Some(Arc::clone(pace)) }
    }

    fn arrived(&mut self) {
        if let Some(pace) = self.pace.take() {
            pace.coming.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.arrived();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrived();
    }
}

/// A stream that fails when its peer keeps us waiting, or floods us with frames.
pub(super) struct Paced {
    stream: TcpStream,
    pace: Arc<Pace>,
    frames: Frames,
    /// Made at the first wait and then moved only when it rings too early or stands too late, so that a busy
    /// connection does no timer work per request.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Set while the peer takes nothing of what we have for it.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(stream: TcpStream, pace: Arc<Pace>) -> Self {
        Self { stream, pace, frames: Frames::new(), alarm: None, stalled: None }
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = self.pace.deadline();
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(self.cut(Cut::Silent)));
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// A write that the peer makes wait: for as long as a head may take, and no longer. Its window is full of answers
    /// that it asked for and does not read.
    fn written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.pace.shared.limits.header_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(self.cut(Cut::Unread)))
    }

    fn cut(&self, cut: Cut) -> io::Error {
        self.pace.shared.metrics.cut(cut.name());
        io::ErrorKind::TimedOut.into()
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Poll::Ready(done) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            return self.poll_alarm(cx);
        };
        let came = &buffer.filled()[before..];
        if !came.is_empty() {
            self.pace.bytes_came();
            self.frames.read(came);
            if self.frames.is_suspect() {
                let answers = self.pace.answers.load(Ordering::Relaxed);
                if self.frames.too_many(answers, self.pace.start.elapsed()) {
                    return Poll::Ready(Err(self.cut(Cut::Flood)));
                }
            }
        }
        Poll::Ready(done)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
