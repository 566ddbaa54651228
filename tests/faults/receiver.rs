//! A vendor: writes each call down before it answers, and answers as its mood is.
//!
//! It does not remove repeats itself: the judge does, by `webhook-id`, as a vendor would that honours it, so that calls
//! and effects are counted apart.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::ledger::{Ledger, Line, fingerprint};

/// What the sink signs with.
pub(crate) const SIGNING_KEY: &[u8] = b"the-receiver-of-the-runs-has-one";

/// Longer than the sink's own time-out.
const SLOW: Duration = Duration::from_secs(8);

/// A vendor takes its time, for one event more than for another: outcomes come in another order than records.
const UNEVEN: Duration = Duration::from_millis(40);

/// How many times as long, at most.
const STEPS: i64 = 8;

/// Of a customer's events, these are refused for ever where the vendor is [`Mood::Picky`].
const REFUSED: (i64, i64) = (20, 7);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    /// 503 to everything.
    Down,
    /// 429 and `Retry-After: 1` to everything.
    Busy,
    /// 401 to everything: not the events' fault.
    Locked,
    /// 400 to one event in twenty, always the same.
    Picky,
    /// Does what it is asked, and says so too late.
    Slow,
}

/// Whether a picky vendor refuses the event.
pub(crate) fn is_refused(sequence: i64) -> bool {
    sequence % REFUSED.0 == REFUSED.1
}

struct Shared {
    ledger: Arc<Ledger>,
    mood: Mutex<Mood>,
    /// Events of which a call was answered 2xx, by key and sequence.
    taken: Mutex<HashSet<(String, i64)>>,
    /// How many calls were answered 2xx.
    calls: watch::Sender<u64>,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    pub(crate) port: u16,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Receiver {
    pub(crate) async fn start(ledger: Arc<Ledger>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (calls, _) = watch::channel(0);
        let shared = Arc::new(Shared { ledger, mood: Mutex::new(Mood::Fine), taken: Mutex::default(), calls });
        let router = axum::Router::new().fallback(take).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shared, port }
    }

    pub(crate) fn is(&self, mood: Mood) {
        *locked(&self.shared.mood) = mood;
    }

    /// Waits until another call is answered 2xx.
    pub(crate) async fn next_call(&self, bound: Duration) {
        let mut calls = self.shared.calls.subscribe();
        calls.borrow_and_update();
        let _ = tokio::time::timeout(bound, calls.changed()).await;
    }

    /// Whether of all of these each was answered 2xx, or is one that a picky vendor refuses.
    pub(crate) fn has_all<'a>(&self, mut events: impl Iterator<Item = (&'a str, i64)>, picky: bool) -> bool {
        let taken = locked(&self.shared.taken);
        events.all(|(key, sequence)| (picky && is_refused(sequence)) || taken.contains(&(key.to_owned(), sequence)))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let id = headers.get("webhook-id").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let data = &body["data"];
    let key = data["customer_id"].as_str().unwrap_or_default().to_owned();
    let sequence = data["sequence"].as_i64().unwrap_or_default();
    let mood = *locked(&shared.mood);
    let status = match mood {
        Mood::Down => 503,
        Mood::Busy => 429,
        Mood::Locked => 401,
        Mood::Picky if is_refused(sequence) => 400,
        Mood::Fine | Mood::Slow | Mood::Picky => 204,
    };
    shared.ledger.write(&Line::Call {
        at: shared.ledger.now(),
        id,
        body: fingerprint(&key, sequence, data["note"].as_str().unwrap_or_default()),
        key: key.clone(),
        sequence,
        status,
    });
    // Keys are at the same sequence at the same time.
    let step = key.bytes().fold(sequence, |sum, byte| sum.wrapping_add(i64::from(byte))).rem_euclid(STEPS);
    if status == 204 {
        locked(&shared.taken).insert((key, sequence));
        shared.calls.send_modify(|calls| *calls += 1);
    }
    let takes = if mood == Mood::Slow { SLOW } else { UNEVEN * u32::try_from(step).unwrap_or(0) };
    tokio::time::sleep(takes).await;
    let answer = Response::builder().status(status);
    let answer = if status == 429 { answer.header("retry-after", "1") } else { answer };
    answer.body(Body::empty()).expect("an answer")
}
