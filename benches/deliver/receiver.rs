//! What the events are delivered to: an HTTP server on one thread that counts. It says whether each event came once and
//! in the order of its customer, how many connections that took, and when the first and the last one came.

use std::cell::Cell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::events::{CUSTOMERS, Place};
use crate::shared::process;

/// What came so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) calls: u64,
    /// `webhook-id`s.
    pub(crate) ids: HashSet<Vec<u8>>,
    pub(crate) connections: u64,
    pub(crate) body_bytes: u64,
    /// Calls without an id, or whose event does not say whose it is.
    pub(crate) unreadable: u64,
    /// Events that came before an earlier one of their customer.
    pub(crate) out_of_order: u64,
    /// Events by customer: the next one's sequence.
    next: Vec<u32>,
    pub(crate) first: Option<Instant>,
    pub(crate) last: Option<Instant>,
}

impl Seen {
    fn new() -> Self {
        Self { next: vec![0; CUSTOMERS], ..Self::default() }
    }

    fn call(&mut self, headers: &HeaderMap, body: &[u8], now: Instant) {
        self.calls += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.body_bytes += body.len() as u64;
        let (Some(id), Some(place)) = (headers.get("webhook-id"), event_id(body).and_then(Place::of)) else {
            self.unreadable += 1;
            return;
        };
        if !self.ids.insert(id.as_bytes().to_vec()) {
            return;
        }
        let next = &mut self.next[place.customer];
        if place.sequence != *next {
            self.out_of_order += 1;
        }
        *next = (*next).max(place.sequence + 1);
    }
}

/// The event's own id, wherever it stands in the body.
fn event_id(body: &[u8]) -> Option<&[u8]> {
    const BEFORE: &[u8] = br#""event_id":""#;
    let start = body.windows(BEFORE.len()).position(|bytes| bytes == BEFORE)? + BEFORE.len();
    let length = body[start..].iter().position(|&byte| byte == b'"')?;
    Some(&body[start..start + length])
}

/// A receiver that listens, for as long as this process runs.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    seen: Mutex<Seen>,
    latency: Mutex<Duration>,
    /// Of its thread, under `/proc`.
    thread: String,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
            let state = Arc::new(State {
                seen: Mutex::new(Seen::new()),
                latency: Mutex::default(),
                thread: process::this_thread().expect("/proc"),
            });
            let address = listener.local_addr().expect("its address");
            tell.send(Self { address, state: Arc::clone(&state) }).expect("somebody who started it");
            LocalSet::new().block_on(&runtime, accept(listener, state));
        });
        told.recv().expect("a receiver that listens")
    }

    /// Forgets what came; answers take `latency` from now on.
    pub(crate) fn begin(&self, latency: Duration) {
        *self.seen() = Seen::new();
        *lock(&self.state.latency) = latency;
    }

    /// What came so far; the receiver waits as long as it is held.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.state.seen)
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        process::thread_cpu_seconds(&self.state.thread)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::task::spawn_local(async move {
            // A connection counts where it is used: what only probes the port is none.
            let used = Cell::new(false);
            let service = service_fn(|request| answer(request, &state, &used));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: &State,
    used: &Cell<bool>,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    {
        let mut seen = lock(&state.seen);
        seen.connections += u64::from(!used.replace(true));
        seen.call(&head.headers, &body, Instant::now());
    }
    let latency = *lock(&state.latency);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    Ok(Response::new(Empty::new()))
}
