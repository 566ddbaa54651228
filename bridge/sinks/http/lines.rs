//! Connections to one receiver, each used by one call at a time and driven by that call: HTTP/1.1, as most receivers speak
//! it. A connection has no task of its own, so that a call wakes nobody but whoever waits for its answer.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::rt::{Read, Write};
use hyper_tls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower_service::Service;

use super::super::egress::Guard;

/// Opening a connection, its TLS included, takes a few round trips; a receiver that needs longer is not there.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection that nobody uses is kept: longer than the usual pauses between events, and most receivers close it
/// earlier themselves.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How soon a connection that rests and was closed by its peer is let go, where no call comes to find it so.
const SWEEP: Duration = Duration::from_secs(10);

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// How connections are opened, and those that rest.
#[derive(Clone)]
pub(super) struct Lines {
    connector: HttpsConnector<HttpConnector<Guard>>,
    /// At most so many rest.
    most: usize,
    resting: Arc<Mutex<Resting>>,
}

#[derive(Default)]
struct Resting {
    /// The one that was used last goes first, since its memory is warm; the others are let go when they have rested long.
    lines: VecDeque<(Instant, Box<Line>)>,
    /// Somebody looks after them.
    swept: bool,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("most", &self.most).finish_non_exhaustive()
    }
}

/// Why a call has no answer.
pub(super) enum Failed {
    /// The connection was closed before anything of the request was written.
    Unsent {
        request: Box<Request<Full<Bytes>>>,
        error: hyper::Error,
    },
    /// It was sent, or partly.
    Broken(hyper::Error),
    TooLate,
}

#[derive(Debug, thiserror::Error)]
#[error("no connection within {CONNECT_TIMEOUT:?}")]
struct TooSlow;

impl Lines {
    pub(super) fn new(connector: HttpsConnector<HttpConnector<Guard>>, most: usize) -> Self {
        Self { connector, most, resting: Arc::default() }
    }

    /// Opens a connection, and waits only so long for TCP and TLS together.
    pub(super) async fn open(&self, to: Uri) -> Result<Box<Line>, BoxError> {
        let mut connector = self.connector.clone();
        let stream = timeout(CONNECT_TIMEOUT, async {
            poll_fn(|context| connector.poll_ready(context)).await?;
            connector.call(to).await
        });
        let stream = stream.await.map_err(|_| TooSlow)??;
        let (requests, driver) = http1::handshake(stream).await?;
        Ok(Box::new(Line { requests, driver, is_over: false, alarm: Box::pin(sleep_until(Instant::now())) }))
    }

    /// A connection that was used before, if one rests.
    pub(super) fn rested(&self) -> Option<Box<Line>> {
        let (since, line) = lock(&self.resting).lines.pop_back()?;
        // All before it have rested for longer, and wait to be swept.
        (since.elapsed() < IDLE_TIMEOUT).then_some(line)
    }

    /// Keeps a connection whose answer was read to its end for the next call.
    pub(super) fn rest(&self, mut line: Box<Line>) {
        if !line.lie_down() {
            return;
        }
        let mut resting = lock(&self.resting);
        resting.lines.push_back((Instant::now(), line));
        if resting.lines.len() > self.most {
            resting.lines.pop_front();
        }
        if !std::mem::replace(&mut resting.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.resting)));
        }
    }
}

/// Lets go what has rested for too long or was closed, until nothing rests.
async fn sweep(resting: Weak<Mutex<Resting>>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(resting) = resting.upgrade() else { return };
        let mut resting = lock(&resting);
        resting.lines.retain_mut(|(since, line)| since.elapsed() < IDLE_TIMEOUT && line.lie_down());
        if resting.lines.is_empty() {
            resting.swept = false;
            return;
        }
    }
}

fn lock(resting: &Mutex<Resting>) -> MutexGuard<'_, Resting> {
    resting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection. Whoever has it drives it; dropping it closes it.
pub(super) struct Line<S: Read + Write + Unpin = Stream> {
    requests: SendRequest<Full<Bytes>>,
    driver: Connection<S, Full<Bytes>>,
    /// The driver has ended and must not be asked again.
    is_over: bool,
    /// Moved from call to call, which costs less than one for each.
    alarm: Pin<Box<Sleep>>,
}

impl<S: Read + Write + Unpin> Line<S> {
    /// Sends a request; the head of its answer.
    pub(super) async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
        until: Instant,
    ) -> Result<Response<Incoming>, Failed> {
        self.alarm.as_mut().reset(until);
        let mut answer = pin!(self.requests.try_send_request(request));
        poll_fn(|context| {
            drive(&mut self.driver, &mut self.is_over, context);
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer.map_err(|mut failed| match failed.take_message() {
                    Some(request) => Failed::Unsent { request: Box::new(request), error: failed.into_error() },
                    None => Failed::Broken(failed.into_error()),
                }));
            }
            self.alarm.as_mut().poll(context).map(|()| Err(Failed::TooLate))
        })
        .await
    }

    /// The next frame of an answer's body, within the time that its call has. `None`: that was its end. An error: it broke
    /// off, or takes too long.
    pub(super) async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, ()>> {
        poll_fn(|context| {
            drive(&mut self.driver, &mut self.is_over, context);
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                return Poll::Ready(frame.map(|frame| frame.map_err(|_| ())));
            }
            self.alarm.as_mut().poll(context).map(|()| Some(Err(())))
        })
        .await
    }

    /// Whether it can be used again. What happens to it from here on wakes nobody: whoever takes it up looks first.
    fn lie_down(&mut self) -> bool {
        drive(&mut self.driver, &mut self.is_over, &mut Context::from_waker(Waker::noop()));
        !self.is_over && self.requests.is_ready()
    }
}

fn drive<S: Read + Write + Unpin>(
    driver: &mut Connection<S, Full<Bytes>>,
    is_over: &mut bool,
    context: &mut Context<'_>,
) {
    // How it ended is told to whoever waits for the answer.
    *is_over = *is_over || Pin::new(driver).poll(context).is_ready();
}
