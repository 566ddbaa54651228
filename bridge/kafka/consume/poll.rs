//! The poll thread: the only one that polls, and the owner of the assignment.

mod desk;
mod rebalance;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::assignment::{Assignment, Taken};
use super::clerk::Clerk;
use super::context::Notes;
use super::{
    AssignmentEpoch, BATCH_BYTES, BATCH_RECORDS, CLOSE_WITHIN, CommitOrder, EVENTS, Event, NextOffset, Record, Shared,
    TopicPartition, Trouble,
};
use crate::kafka::client::Client;
use crate::kafka::{Error, code_of};

/// Everything that needs this thread wakes it; this only bounds what a missed wake-up would cost.
const SLEEP: Duration = Duration::from_millis(100);

/// While a seek waits for its partition's fetcher, for which librdkafka gives no sign.
const SLEEP_SEEKING: Duration = Duration::from_millis(5);

/// How long the channel may be full before partitions are paused: a pause throws the prefetched records away.
const PAUSE_AFTER: Duration = Duration::from_millis(200);

/// Events that may wait outside the channel: rebalances come one at a time, so more than these are repeated troubles.
const OUTBOX: usize = 64;

/// How long leaving may take before the consumer is closed with its partitions: the drain, and a commit on its way.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);

pub(super) fn start(
    client: &Client,
    topics: &[String],
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    ended: watch::Sender<bool>,
) -> Result<(), Error> {
    let config = client.consumer_config(&shared.group);
    let session: u64 = config.get("session.timeout.ms").and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let consumer: BaseConsumer<Notes> =
        config.create_with_context(Notes::default()).map_err(|cause| client.start_error("consumer", cause))?;
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer
        .subscribe(&names)
        .map_err(|cause| Error::Subscribe { group: shared.group.clone(), reason: cause.to_string() })?;
    // A quarter of the session timeout: longer, and the group might count us out while we hand over.
    let drain = Duration::from_millis(session / 4);
    thread::Builder::new()
        .name("kafka-poll".to_owned())
        .spawn(move || run(consumer, &shared, &events, &ended, drain))
        .map(drop)
        .map_err(|cause| Error::Start { role: "consumer thread", reason: cause.to_string() })
}

fn run(
    mut consumer: BaseConsumer<Notes>,
    shared: &Arc<Shared>,
    events: &mpsc::Sender<Event>,
    ended: &watch::Sender<bool>,
    drain: Duration,
) {
    let me = thread::current();
    shared.thread.get_or_init(|| me.clone());
    let wakes = me.clone();
    consumer.set_nonempty_callback(move || wakes.unpark());
    let consumer = Arc::new(consumer);
    let cause = match Clerk::start(Arc::downgrade(&consumer), me.clone()) {
        Ok(clerk) => {
            let mut poller = Poller::new(consumer, Arc::clone(shared), clerk, events.clone(), drain, me);
            let cause = poller.run();
            poller.close(cause)
        }
        Err(error) => Some(error),
    };
    let mut orders = shared.orders();
    orders.closed = true;
    // Answers them: their senders are dropped.
    orders.commits.clear();
    drop(orders);
    shared.lags().clear();
    shared.membership.send_replace(None);
    ended.send_replace(true);
    // This thread has no duty any more, so it may wait for room; nobody listening is fine too.
    let _ = events.blocking_send(Event::Ended(cause));
}

struct Poller {
    consumer: Arc<BaseConsumer<Notes>>,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    clerk: Clerk,
    drain: Duration,
    waker: Waker,
    assignment: Assignment,
    /// Events that wait for room in the channel.
    outbox: VecDeque<Event>,
    full_since: Option<Instant>,
    /// Partitions are paused because the channel is full.
    full: bool,
    /// Assignments whose committed offsets are to be looked up.
    lookups: VecDeque<(AssignmentEpoch, Vec<TopicPartition>)>,
    lookup_at: Instant,
    commits: VecDeque<CommitOrder>,
    committing: Option<Committing>,
    revoking: Option<Revoking>,
    /// Between a revocation and the assignment that follows it: commits wait (librdkafka issue 4059).
    between: bool,
    /// A partition's offset was refused, and librdkafka does not say which.
    suspect: bool,
    ends_at: Instant,
    seek_at: Instant,
    leaving: Option<Instant>,
    fatal: Option<Error>,
}

/// A commit that the clerk carries out.
struct Committing {
    offsets: Vec<(TopicPartition, NextOffset)>,
    /// `None`: the loop was told that nobody knows.
    reply: Option<oneshot::Sender<Result<(), Error>>>,
    until: Instant,
}

struct Revoking {
    partitions: Vec<TopicPartition>,
    lost: bool,
    /// The loop's word; `None` once it was given.
    drained: Option<oneshot::Receiver<()>>,
    until: Instant,
}

/// Wakes the poll thread when an awaited word comes.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Poller {
    fn new(
        consumer: Arc<BaseConsumer<Notes>>,
        shared: Arc<Shared>,
        clerk: Clerk,
        events: mpsc::Sender<Event>,
        drain: Duration,
        me: Thread,
    ) -> Self {
        Self {
            consumer,
            shared,
            events,
            clerk,
            drain,
            waker: Waker::from(Arc::new(Unpark(me))),
            assignment: Assignment::default(),
            outbox: VecDeque::new(),
            full_since: None,
            full: false,
            lookups: VecDeque::new(),
            lookup_at: Instant::now(),
            commits: VecDeque::new(),
            committing: None,
            revoking: None,
            between: false,
            suspect: false,
            ends_at: Instant::now(),
            seek_at: Instant::now(),
            leaving: None,
            fatal: None,
        }
    }

    fn run(&mut self) -> Option<Error> {
        loop {
            self.take_orders();
            self.take_answer();
            let more = self.read();
            while let Some(rebalance) = self.consumer.context().next_rebalance() {
                self.rebalance(rebalance);
            }
            self.hand_over();
            self.seek();
            self.ask_clerk();
            self.deliver();
            self.flow();
            if self.fatal.is_some() || self.left() {
                return self.fatal.take();
            }
            if !more {
                let seeking = !self.assignment.seeks().is_empty();
                thread::park_timeout(if seeking { SLEEP_SEEKING } else { SLEEP });
            }
        }
    }

    /// Closes the consumer, which leaves the group. What is still assigned then is given back in the callback.
    fn close(self, cause: Option<Error>) -> Option<Error> {
        self.consumer.context().closing();
        let Self { consumer, clerk, shared, .. } = self;
        if clerk.close(consumer, CLOSE_WITHIN) {
            return cause;
        }
        tracing::error!(group = shared.group, "a consumer does not close and is left behind");
        cause.or_else(|| Some(Error::CloseTimedOut { group: shared.group.clone(), waited: CLOSE_WITHIN }))
    }

    // --- the loop's orders

    fn take_orders(&mut self) {
        let (starts, holds, committed, mut commits, stop) = {
            let mut orders = self.shared.orders();
            let (starts, holds) = (std::mem::take(&mut orders.starts), std::mem::take(&mut orders.holds));
            let committed = std::mem::take(&mut orders.committed);
            (starts, holds, committed, std::mem::take(&mut orders.commits), orders.stop)
        };
        for (at, (epoch, start)) in starts {
            self.assignment.start(epoch, &at, start);
        }
        for (at, held) in holds {
            self.assignment.hold(&at, held);
        }
        if !committed.is_empty() {
            for (at, next) in &committed {
                self.assignment.committed(at, *next);
            }
            *self.shared.lags() = self.assignment.lags();
        }
        self.commits.append(&mut commits);
        if (stop || self.events.is_closed()) && self.leaving.is_none() {
            self.leaving = Some(Instant::now());
            // Revokes what is assigned, by way of an ordinary rebalance.
            self.consumer.unsubscribe();
        }
    }

    /// Whether everything was handed back, or takes too long.
    fn left(&self) -> bool {
        let Some(since) = self.leaving else { return false };
        let handed_back = self.assignment.is_empty() && self.revoking.is_none() && self.committing.is_none();
        (handed_back && self.outbox.is_empty()) || since.elapsed() > LEAVE_WITHIN
    }

    // --- reading

    /// Reads at most a batch. Says whether there may be more at once.
    fn read(&mut self) -> bool {
        if !self.outbox.is_empty() && !self.full {
            // Room is near, or soon everything is paused: reading on would only pile up.
            return false;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        let consumer = Arc::clone(&self.consumer);
        let more = loop {
            let served = consumer.context().served();
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    if let Taken::Yes(at) = self.assignment.take(message.topic(), message.partition(), message.offset())
                    {
                        let record = record(at, &message);
                        bytes += record.bytes();
                        batch.push(record);
                    }
                    if batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
                        break true;
                    }
                }
                Some(Err(error)) => self.heed(&error),
                // A log line or a rebalance ends a poll too, with records behind it.
                None if consumer.context().served() == served => break false,
                None => {}
            }
        };
        if !batch.is_empty() {
            self.outbox.push_back(Event::Records(batch));
        }
        more
    }

    fn heed(&mut self, error: &KafkaError) {
        use RDKafkaErrorCode as C;
        let code = code_of(error);
        let reason = self.consumer.context().reason();
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if fatal || self.consumer.client().fatal_error().is_some() {
            self.fatal = Some(Error::ConsumerFatal { group: self.shared.group.clone(), reason, source: code });
            return;
        }
        match code.0 {
            C::AutoOffsetReset | C::OffsetOutOfRange | C::LogTruncation | C::NoOffset => self.suspect = true,
            // Connections come and go, and librdkafka says "all brokers down" at odd times.
            C::AllBrokersDown | C::BrokerTransportFailure | C::Resolve | C::OperationTimedOut | C::PartitionEOF => {}
            C::PollExceeded => self.trouble(Trouble::PolledTooLate),
            C::UnknownTopicOrPartition
            | C::UnknownTopic
            | C::UnknownPartition
            | C::TopicAuthorizationFailed
            | C::GroupAuthorizationFailed
            | C::ClusterAuthorizationFailed
            | C::Authentication
            | C::SaslAuthenticationFailed
            | C::UnsupportedSASLMechanism
            | C::SSL => self.trouble(Trouble::Refused { source: code, reason }),
            _ => self.trouble(Trouble::Other { source: code, reason }),
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back(Event::Trouble(trouble));
        } else {
            tracing::warn!(group = self.shared.group, %trouble, "a trouble that nobody listens to");
        }
    }

    // --- the channel

    fn deliver(&mut self) {
        loop {
            let Some(event) = self.outbox.pop_front() else {
                self.full_since = None;
                // Half empty before it flows again, or it would stop and start with every batch.
                if self.full && self.events.capacity() * 2 >= EVENTS {
                    self.full = false;
                } else if self.full {
                    self.shared.starved.store(true, Ordering::SeqCst);
                    // The loop may have made room just before it could see that.
                    self.full = self.events.capacity() * 2 < EVENTS;
                }
                return;
            };
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => self.outbox.clear(),
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    // Asked for before the second look, so that room made meanwhile is seen by one of the two.
                    if !self.shared.starved.swap(true, Ordering::SeqCst) {
                        continue;
                    }
                    let since = *self.full_since.get_or_insert_with(Instant::now);
                    self.full = self.full || since.elapsed() >= PAUSE_AFTER;
                    return;
                }
            }
        }
    }
}

/// The record, with nothing borrowed from librdkafka.
pub(in crate::kafka) fn record(at: TopicPartition, message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Record {
        at,
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|one| (one.key, one.value.unwrap_or_default())).collect(),
    }
}
