//! The other side of an HTTP sink: it remembers every call, checks the signature by itself, and answers as it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;

use super::eventually;

/// What the sink signs with.
pub(crate) const SIGNING_KEY: &[u8] = b"the-receiver-of-the-tests-checks";

/// A call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// `webhook-id`.
    pub(crate) id: String,
    pub(crate) body: Value,
    pub(crate) from: SocketAddr,
    /// What it was answered; `None`: nothing, or not yet.
    pub(crate) answered: Option<u16>,
}

impl Call {
    pub(crate) fn customer(&self) -> &str {
        self.body["data"]["customer_id"].as_str().expect("an order has a customer")
    }

    pub(crate) fn sequence(&self) -> i64 {
        self.body["data"]["sequence"].as_i64().expect("an order has a sequence")
    }
}

/// What a call is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Status(u16),
    /// With a body.
    Json(u16, Value),
    /// Taken, and never answered.
    Never,
}

type Script = Box<dyn FnMut(&Call) -> Answer + Send>;

struct Shared {
    calls: Mutex<Vec<Call>>,
    script: Mutex<Script>,
}

/// A receiver that lives as long as its test.
#[derive(Clone)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    port: u16,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Answers 204 to everything until it is told otherwise.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let script: Script = Box::new(|_| Answer::Status(204));
        let shared = Arc::new(Shared { calls: Mutex::default(), script: Mutex::new(script) });
        let router = axum::Router::new().fallback(take).with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { shared, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks", self.port)
    }

    pub(crate) fn answer(&self, script: impl FnMut(&Call) -> Answer + Send + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls().clone()
    }

    /// Calls that were answered 2xx, by id and in the order in which each came first.
    pub(crate) fn taken(&self) -> Vec<Call> {
        let mut seen = BTreeSet::new();
        let taken = self.calls().into_iter().filter(|call| call.answered.is_some_and(|status| status < 300));
        taken.filter(|call| seen.insert(call.id.clone())).collect()
    }

    /// How often each id was answered 2xx.
    pub(crate) fn times_taken(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for call in self.calls().into_iter().filter(|call| call.answered.is_some_and(|status| status < 300)) {
            *times.entry(call.id).or_default() += 1;
        }
        times
    }

    pub(crate) async fn wait_taken(&self, count: usize, bound: Duration) {
        let what = format!("{count} deliveries");
        eventually(&what, bound, async || (self.times_taken().len() >= count).then_some(())).await;
    }

    pub(crate) fn connections(&self) -> usize {
        self.calls().iter().map(|call| call.from).collect::<BTreeSet<_>>().len()
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (id, timestamp, signature) = (text("webhook-id"), text("webhook-timestamp"), text("webhook-signature"));
    assert_eq!(signature, signed(&id, &timestamp, &body), "the signature of {id}");
    let body = serde_json::from_slice(&body).expect("a body of JSON");
    let mut call = Call { id, body, from, answered: None };
    let place = {
        let mut calls = shared.calls();
        calls.push(call.clone());
        calls.len() - 1
    };
    let answer = (shared.script.lock().unwrap_or_else(PoisonError::into_inner))(&call);
    let (status, body) = match answer {
        Answer::Status(status) => (status, Body::empty()),
        Answer::Json(status, body) => (status, Body::from(body.to_string())),
        Answer::Never => std::future::pending().await,
    };
    call.answered = Some(status);
    shared.calls()[place] = call;
    let status = StatusCode::from_u16(status).expect("a status");
    Response::builder().status(status).body(body).expect("an answer")
}

/// Standard Webhooks 1.0.0, written a second time.
fn signed(id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SIGNING_KEY).expect("a key of any length");
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}
