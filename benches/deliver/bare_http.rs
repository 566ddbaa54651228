//! What delivery over HTTP is compared with: a consumer and an HTTP client, and as little as can stand between them. It
//! decodes nothing, signs nothing and keeps no order; 64 calls are under way at once, over all partitions, and what is
//! committed is the finished beginning of each partition, so that every record is sent at least once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hookbridge::event::header;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::sync::Semaphore;

/// What it is told on its command line, in this order.
pub(crate) struct Task<'a> {
    pub(crate) bootstrap: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) group: &'a str,
    pub(crate) url: &'a str,
    pub(crate) in_flight: usize,
    /// As long as the bodies that the other candidate sends.
    pub(crate) body_bytes: usize,
}

/// Delivers until the process is ended.
pub(crate) fn deliver(task: &Task<'_>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(task));
}

struct Bare {
    consumer: StreamConsumer,
    client: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
    topic: String,
    /// By partition.
    finished: Mutex<BTreeMap<i32, Prefix>>,
}

async fn run(task: &Task<'_>) {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", task.bootstrap)
        .set("group.id", task.group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.offset.store", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[task.topic]).expect("the topic");
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let bare = Arc::new(Bare {
        consumer,
        client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(task.in_flight).build(connector),
        url: task.url.parse().expect("a url"),
        topic: task.topic.to_owned(),
        finished: Mutex::default(),
    });
    let slots = Arc::new(Semaphore::new(task.in_flight));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok(message) = bare.consumer.recv().await else { continue };
        let (partition, offset) = (message.partition(), message.offset());
        let id = event_id(&message);
        let body = body(&id, task.body_bytes);
        bare.prefixes(|prefixes| prefixes.entry(partition).or_default().begun(offset));
        let bare = Arc::clone(&bare);
        tokio::spawn(async move {
            while !bare.send(&id, &body).await {}
            let settled = bare.prefixes(|prefixes| prefixes.entry(partition).or_default().done(offset));
            if let Some(settled) = settled {
                bare.consumer.store_offset(&bare.topic, partition, settled).expect("an assigned partition");
            }
            drop(slot);
        });
    }
}

impl Bare {
    fn prefixes<T>(&self, change: impl FnOnce(&mut BTreeMap<i32, Prefix>) -> T) -> T {
        change(&mut self.finished.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it was answered with a 2xx.
    async fn send(&self, id: &str, body: &Bytes) -> bool {
        let request = Request::post(self.url.clone())
            .header(http::header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .body(Full::new(body.clone()))
            .expect("a request");
        let Ok(response) = self.client.request(request).await else { return false };
        let is_success = response.status().is_success();
        response.into_body().collect().await.is_ok() && is_success
    }
}

fn event_id(message: &BorrowedMessage<'_>) -> String {
    let headers = message.headers().expect("headers");
    let id = headers.iter().find(|one| one.key == header::CE_ID).and_then(|one| one.value).expect("the event's id");
    String::from_utf8(id.to_vec()).expect("text")
}

/// JSON of that length, as far as the receiver looks.
fn body(id: &str, bytes: usize) -> Bytes {
    const AROUND: usize = r#"{"type":"purchase_completed","data":{"event_id":"","filler":""}}"#.len();
    let filler = bytes.saturating_sub(AROUND + id.len());
    let mut body = Vec::with_capacity(bytes);
    body.extend_from_slice(br#"{"type":"purchase_completed","data":{"event_id":""#);
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(br#"","filler":""#);
    body.resize(body.len() + filler, b'x');
    body.extend_from_slice(br#""}}"#);
    body.into()
}

/// Which of a partition's records are finished, from the first one that is not.
#[derive(Default)]
struct Prefix {
    /// The offset of the first entry.
    first: Option<i64>,
    finished: VecDeque<bool>,
}

impl Prefix {
    fn begun(&mut self, offset: i64) {
        self.first.get_or_insert(offset);
        self.finished.push_back(false);
    }

    /// The last offset of the finished beginning, where that has grown.
    fn done(&mut self, offset: i64) -> Option<i64> {
        let first = self.first.as_mut()?;
        *self.finished.get_mut(usize::try_from(offset - *first).ok()?)? = true;
        let before = *first;
        while self.finished.front() == Some(&true) {
            self.finished.pop_front();
            *first += 1;
        }
        (*first > before).then_some(*first - 1)
    }
}
