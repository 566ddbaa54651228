//! A provider: sends each event until it is answered 2xx, under the same id, and of one key nothing before that.
//!
//! A key has a home among the bridges, as behind a load balancer with affinity; a request that fails goes to the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::harness::Random;
use crate::harness::bridge::Receipt;
use crate::harness::http::{Connection, Request};
use crate::harness::senders;
use crate::ledger::{Answer, Ledger, Line, fingerprint};

/// Longer than the bridge's own deadline, as the preset says that senders wait.
const PATIENCE: Duration = Duration::from_secs(6);

/// A provider comes again after seconds; the shorter, the harder for deduplication.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// An event that is not taken for so long, after everything was mended, is a failure of liveness.
pub(crate) const TAKEN_WITHIN: Duration = Duration::from_secs(120);

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Events a second, over all keys.
    pub(crate) rate: u32,
    pub(crate) keys: u32,
    /// Requests that bring each event at once, from one to this, spread over the bridges.
    pub(crate) copies: u64,
    pub(crate) ports: Vec<(String, u16)>,
    pub(crate) seed: u64,
}

/// Senders at work.
pub(crate) struct Sending {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Sending {
    pub(crate) fn start(load: &Load, ledger: &Arc<Ledger>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let numbers = Arc::new(AtomicU64::new(1));
        let period = Duration::from_secs(1) * load.keys / load.rate;
        let mut tasks = JoinSet::new();
        for key in 0..load.keys {
            let sender = Sender {
                key: format!("customer-{key}"),
                home: key as usize,
                load: load.clone(),
                ledger: Arc::clone(ledger),
                numbers: Arc::clone(&numbers),
                random: Random::from(load.seed ^ u64::from(key).wrapping_mul(0x9E37_79B9)),
            };
            // Keys take turns, so that the rate is even.
            let first = Instant::now() + period * key / load.keys;
            tasks.spawn(sender.send_on(first, period, stopped.clone()));
        }
        Self { stop, tasks }
    }

    /// No new events; waits until each that was begun is taken.
    ///
    /// # Errors
    /// Where one is not taken within [`TAKEN_WITHIN`], or a sender met an answer that it cannot read.
    pub(crate) async fn finish(mut self) -> Result<(), String> {
        self.stop.send_replace(true);
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.map_err(|error| format!("a sender: {error}"))?;
            }
            Ok(())
        };
        timeout(TAKEN_WITHIN, all)
            .await
            .unwrap_or_else(|_| Err(format!("an event was not taken within {TAKEN_WITHIN:?}")))
    }
}

struct Sender {
    key: String,
    home: usize,
    load: Load,
    ledger: Arc<Ledger>,
    /// The next event's number, over all keys.
    numbers: Arc<AtomicU64>,
    random: Random,
}

impl Sender {
    async fn send_on(mut self, first: Instant, period: Duration, mut stopped: watch::Receiver<bool>) {
        let mut ticks = interval_at(first, period);
        // What a fault held back is not sent all at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connections = None;
        for sequence in 1.. {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let event = Event::new(number, &self.key, sequence, self.random.next());
            let copies = if self.load.copies > 1 { 2 + self.random.below(self.load.copies - 1) } else { 1 };
            if copies == 1 {
                connections = Some(self.until_taken(&event, 0, connections.take()).await);
            } else {
                let sender = &self;
                let copies: Vec<_> = (0..copies).map(|copy| sender.until_taken(&event, copy, None)).collect();
                join_all(copies).await;
            }
        }
    }

    /// One sender's event, again and again. `copy` sets both the bridge it begins with and its traces apart.
    async fn until_taken(&self, event: &Event, copy: u64, kept: Option<Kept>) -> Kept {
        let mut kept = kept;
        let bridges = self.load.ports.len();
        let first = self.home + usize::try_from(copy).expect("a few");
        for attempt in 0.. {
            let (name, port) = &self.load.ports[(first + attempt) % bridges];
            let connection = kept.take().filter(|kept: &Kept| kept.port == *port);
            let trace = format!("{:016x}{:08x}{attempt:08x}", event.number, copy);
            let began = Instant::now();
            self.ledger.write(&Line::Intent {
                at: self.ledger.now(),
                trace: trace.clone(),
                event: event.id.clone(),
                key: self.key.clone(),
                sequence: event.sequence,
                body: event.fingerprint.clone(),
                to: name.clone(),
            });
            let (answer, connection) = ask(*port, connection, &event.request(&trace)).await;
            self.ledger.write(&Line::Outcome { at: self.ledger.now(), trace, answer: answer.clone() });
            kept = connection;
            if matches!(answer, Answer::Accepted { .. }) {
                break;
            }
            tokio::time::sleep_until(began + AGAIN_AFTER).await;
        }
        kept.unwrap_or(Kept { port: 0, connection: None })
    }
}

/// A connection that the next request may use.
struct Kept {
    port: u16,
    connection: Option<Connection>,
}

/// One request, and what is known of it afterwards.
async fn ask(port: u16, kept: Option<Kept>, request: &Request) -> (Answer, Option<Kept>) {
    let connection = match kept.and_then(|kept| kept.connection) {
        Some(connection) => Some(connection),
        None => timeout(PATIENCE, Connection::open(port)).await.ok().and_then(Result::ok),
    };
    let Some(mut connection) = connection else { return (Answer::Refused, None) };
    match timeout(PATIENCE, connection.send(request)).await {
        Err(_) => (Answer::Timeout, None),
        Ok(Err(_)) => (Answer::Cut, None),
        Ok(Ok(response)) => {
            let kept = (!response.closes()).then_some(Kept { port, connection: Some(connection) });
            if !response.is_success() {
                return (Answer::Status(response.status), kept);
            }
            let receipt = Receipt::of(&response);
            let (_, partition, offset) = receipt.place();
            (Answer::Accepted { duplicate: receipt.status() == "duplicate", partition, offset }, kept)
        }
    }
}

struct Event {
    number: u64,
    id: String,
    sequence: i64,
    fingerprint: String,
    body: Vec<u8>,
}

impl Event {
    fn new(number: u64, key: &str, sequence: i64, noise: u64) -> Self {
        let note = format!("{noise:016x}");
        let body = format!(
            r#"{{"type": "order_placed", "data": {{"customer_id": "{key}", "sequence": {sequence}, "note": "{note}", "consent": {{}}}}}}"#
        );
        Self {
            number,
            id: format!("evt_{number}"),
            sequence,
            fingerprint: fingerprint(key, sequence, &note),
            body: body.into_bytes(),
        }
    }

    fn request(&self, trace: &str) -> Request {
        senders::standard("shop", &self.id, &self.body).header("traceparent", format!("00-{trace}-0000000000000001-01"))
    }
}

/// All of them at once, on this task: they share what they borrow.
async fn join_all<T>(futures: Vec<impl Future<Output = T>>) {
    let mut open: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        open.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if open.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
