//! The accept loop: connections in, each with a limit on everything a peer can hold open, and a graceful end.
//!
//! `axum::serve` installs no timer, so hyper's own header timeout never fires there; and hyper's header timeout also
//! counts the wait between two requests of a kept-alive connection, with the same number, and starts only after the
//! protocol has been told apart. Here one clock in the stream itself covers all three waits: for the first byte, for
//! the rest of the head, and between requests. The body's limit is in [`super::body`].

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

/// A request's head, in bytes. Providers send about 2 KiB; 16 KiB leaves room for tracing and proxies.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Headers in a request. GitHub, the most talkative provider, sends some 15.
const MAX_HEADERS: usize = 100;
/// HTTP/2 streams open at once on one connection: as many as RFC 9113 section 6.5.2 recommends at least.
const MAX_STREAMS: u32 = 100;
/// How long to wait after `accept` failed for want of descriptors, so that the loop does not spin on a full table.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a peer may hold open, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_connections: usize,
    /// From the first byte of a request to the end of its head; also from `accept` to the first byte.
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

/// Serves `app` on `listener` until `stop` resolves, then drains. `app` is told when the first byte of the request was
/// read: where its deadline is counted from.
///
/// Past `max_connections` the loop stops accepting, and the kernel's backlog holds what comes: a provider's connect
/// timeout is then the limit, rather than our memory.
pub async fn serve<A, F>(listener: TcpListener, app: A, limits: Limits, stop: impl Future<Output = ()>) -> Drained
where
    A: Fn(Request<Incoming>, Instant) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = &mut stop => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = connection(stream, app.clone(), limits, &graceful);
        tokio::spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    // Closing the listener first makes a load balancer's next connect fail at once, rather than wait for nobody.
    drop(listener);
    let open = limits.max_connections - slots.available_permits();
    match tokio::time::timeout(limits.drain_timeout, graceful.shutdown()).await {
        Ok(()) => Drained::Clean,
        Err(_) => Drained::Cut { connections: open },
    }
}

/// One connection, HTTP/1.1 or HTTP/2 with prior knowledge.
fn connection<A, F>(
    stream: TcpStream,
    app: A,
    limits: Limits,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + use<A, F>
where
    A: Fn(Request<Incoming>, Instant) -> F + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // An answer is one small write: waiting for more to send with it would only add latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    let pace = Arc::new(Pace::new(limits));
    let service = hyper::service::service_fn({
        let pace = Arc::clone(&pace);
        move |request: Request<Incoming>| {
            let pace = Arc::clone(&pace);
            let first_byte = pace.begin(request.version());
            let answer = app(request, first_byte);
            async move {
                let answer = answer.await;
                pace.end();
                Ok::<_, Infallible>(answer)
            }
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX));
    let io = TokioIo::new(Paced { stream, pace, alarm: None });
    let connection = builder.serve_connection(io, service).into_owned();
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            // A peer that goes away or is too slow is daily business for a server on the internet.
            tracing::debug!(error = error.as_ref() as &dyn std::error::Error, "a connection ended early");
        }
    }
}

const WAITING: u8 = 0;
const HEAD: u8 = 1;
const ANSWERING: u8 = 2;

/// What a connection is waiting for, and since when. Shared by the stream, which sees bytes, and the service, which
/// sees requests.
#[derive(Debug)]
struct Pace {
    start: Instant,
    phase: AtomicU8,
    /// Nanoseconds after `start` at which the phase began.
    since: AtomicU64,
    /// Whether a request was served before: the first one gets the header timeout, later ones the idle timeout.
    served: AtomicBool,
    http2: AtomicBool,
    /// Requests under way: more than one with HTTP/2 only.
    active: AtomicU64,
    limits: Limits,
}

impl Pace {
    fn new(limits: Limits) -> Self {
        Self {
            start: Instant::now(),
            phase: AtomicU8::new(WAITING),
            since: AtomicU64::new(0),
            served: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            active: AtomicU64::new(0),
            limits,
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
        self.active.fetch_add(1, Ordering::Relaxed);
        self.phase.store(ANSWERING, Ordering::Relaxed);
        first_byte
    }

    fn end(&self) {
        self.served.store(true, Ordering::Relaxed);
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.mark(WAITING);
        }
    }

    /// Until when the peer may stay silent.
    ///
    /// While an answer is made it may be as silent as it likes, but an alarm has to be set all the same: hyper does
    /// not read again after the answer if a read was pending before, and so would never ask how long it may wait.
    fn deadline(&self) -> Instant {
        let limit = match self.phase.load(Ordering::Relaxed) {
            ANSWERING => return Instant::now() + self.limits.idle_timeout,
            // HTTP/2 has frames that belong to no request; they are idling, not a head that does not end.
            HEAD if self.http2.load(Ordering::Relaxed) => self.limits.idle_timeout,
            HEAD => self.limits.header_timeout,
            _ if self.served.load(Ordering::Relaxed) => self.limits.idle_timeout,
            _ => self.limits.header_timeout,
        };
        self.since() + limit
    }
}

/// A stream that fails when its peer keeps us waiting.
struct Paced {
    stream: TcpStream,
    pace: Arc<Pace>,
    /// Made at the first wait and then moved only when it rings too early or stands too late, so that a busy
    /// connection does no timer work per request.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(done) => {
                if buffer.filled().len() > before {
                    self.pace.bytes_came();
                }
                Poll::Ready(done)
            }
            Poll::Pending => self.poll_alarm(cx),
        }
    }
}

impl Paced {
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = self.pace.deadline();
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    const LIMITS: Limits = Limits {
        max_connections: 4,
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_secs(30),
        drain_timeout: Duration::from_secs(5),
    };

    async fn started(limits: Limits) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<Drained>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let app = |_, _| async { Response::new(Full::from("fine")) };
        let server = tokio::spawn(serve(listener, app, limits, async {
            let _ = stopped.await;
        }));
        (address, stop, server)
    }

    async fn read_to_end(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_closes_its_connection() {
        let (address, _stop, _server) = started(LIMITS).await;
        for start in ["", "G", "GET / HTTP/1.1\r\nhost: a\r\nx-slow: "] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(start.as_bytes()).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_secs(10), read_to_end(&mut stream)).await;
            assert!(waited.is_ok(), "still open after {start:?}");
        }
    }

    #[tokio::test]
    async fn a_kept_alive_connection_may_idle_longer_than_a_head_may_take() {
        let (address, _stop, _server) = started(LIMITS).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = [0; 512];
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let read = stream.read(&mut answer).await.unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
            // Longer than the head's limit, shorter than the idle limit: silence itself is what is tested.
            let silence = tokio::time::timeout(LIMITS.header_timeout * 2, stream.read(&mut answer)).await;
            assert!(silence.is_err(), "the connection was closed while idle");
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_in_the_end() {
        let (address, _stop, _server) = started(Limits { idle_timeout: Duration::from_millis(200), ..LIMITS }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let all = tokio::time::timeout(Duration::from_secs(10), read_to_end(&mut stream)).await.unwrap();
        assert!(all.ends_with("fine"), "{all}");
    }

    #[tokio::test]
    async fn a_flood_of_headers_is_431() {
        let (address, _stop, _server) = started(LIMITS).await;
        let many = "x-a: 1\r\n".repeat(MAX_HEADERS + 1);
        let large = format!("x-a: {}\r\n", "a".repeat(MAX_HEAD_BYTES));
        for headers in [many, large] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let mut answer = [0; 64];
            let read = stream.read(&mut answer).await.unwrap_or(0);
            assert!(answer[..read].starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer[..read]));
        }
    }

    #[tokio::test]
    async fn a_stop_drains_and_closes_idle_connections() {
        let (address, stop, server) = started(LIMITS).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 512];
        let _ = stream.read(&mut answer).await.unwrap();
        stop.send(()).unwrap();
        assert_eq!(server.await.unwrap(), Drained::Clean);
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }
}
