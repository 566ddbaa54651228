//! The poll thread: the only one that polls, and the owner of the assignment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std::{future::Future, pin::Pin};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::assignment::{Assignment, Taken};
use super::clerk::{Answer, Clerk, Job, not_up_yet};
use super::context::{Notes, Rebalance, give_up, take_over};
use super::{
    AssignmentEpoch, BATCH_BYTES, BATCH_RECORDS, CLOSE_WITHIN, CommitOrder, EVENTS, Event, NextOffset, Record, Shared,
    TopicPartition, Trouble,
};
use crate::kafka::client::Client;
use crate::kafka::{Code, Error, code_of};

/// Everything that needs this thread wakes it; this only bounds what a missed wake-up would cost.
const SLEEP: Duration = Duration::from_millis(100);

/// While a seek waits for its partition's fetcher, for which librdkafka gives no sign.
const SLEEP_SEEKING: Duration = Duration::from_millis(5);

/// How long a seek may take: it only passes through librdkafka's main thread.
const SEEK_WITHIN: Duration = Duration::from_secs(1);

/// How long the channel may be full before partitions are paused: a pause throws the prefetched records away.
const PAUSE_AFTER: Duration = Duration::from_millis(200);

/// How often the ends of partitions are asked for, for the lag gauges.
const ENDS_EVERY: Duration = Duration::from_secs(5);

/// Events that may wait outside the channel: rebalances come one at a time, so more than these are repeated troubles.
const OUTBOX: usize = 64;

/// How long leaving may take before the consumer is closed with its partitions: the drain, and a commit on its way.
const LEAVE_WITHIN: Duration = Duration::from_secs(15);

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
        .spawn(move || run(consumer, shared, events, &ended, drain))
        .map(drop)
        .map_err(|cause| Error::Start { role: "consumer thread", reason: cause.to_string() })
}

fn run(
    mut consumer: BaseConsumer<Notes>,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
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
            let mut poller = Poller::new(consumer, Arc::clone(&shared), clerk, events.clone(), drain, me);
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
    commits: VecDeque<CommitOrder>,
    committing: Option<CommitOrder>,
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
        let (starts, holds, mut commits, stop) = {
            let mut orders = self.shared.orders();
            let (starts, holds) = (std::mem::take(&mut orders.starts), std::mem::take(&mut orders.holds));
            (starts, holds, std::mem::take(&mut orders.commits), orders.stop)
        };
        for (at, (epoch, start)) in starts {
            self.assignment.start(epoch, &at, start);
        }
        for (at, held) in holds {
            self.assignment.hold(&at, held);
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
                        bytes += weight(&record);
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

    // --- rebalances

    fn rebalance(&mut self, rebalance: Rebalance) {
        if rebalance.assign { self.assign(&rebalance.partitions) } else { self.revoke(rebalance) }
    }

    /// Takes the partitions at once, paused, so that the group goes on; the loop says later where each starts.
    fn assign(&mut self, partitions: &[TopicPartition]) {
        self.between = false;
        // The place does not matter: every start seeks. It has to be one that exists, or librdkafka would look
        // committed offsets up itself and complain where there are none.
        let list = list(partitions, Some(Offset::Beginning));
        if let Err(error) = take_over(&self.consumer, &list) {
            self.trouble(Trouble::Other { source: code_of(&error), reason: error.to_string() });
            return;
        }
        if partitions.is_empty() {
            return;
        }
        self.pause(partitions);
        let epoch = self.assignment.assign(partitions);
        self.lookups.push_back((epoch, partitions.to_vec()));
    }

    fn revoke(&mut self, rebalance: Rebalance) {
        let Rebalance { partitions, lost, .. } = rebalance;
        self.assignment.revoke(&partitions);
        for (_, waiting) in &mut self.lookups {
            waiting.retain(|at| !partitions.contains(at));
        }
        self.forget_undelivered(&partitions);
        let told: Vec<_> = partitions.iter().filter(|at| self.assignment.announced(at)).cloned().collect();
        let drained = if told.is_empty() {
            None
        } else {
            let (drained, word) = oneshot::channel();
            self.outbox.push_back(Event::Revoked { partitions: told, lost, drained });
            // What is lost is somebody else's already: nobody is helped by waiting.
            (!lost).then_some(word)
        };
        self.revoking = Some(Revoking { partitions, lost, drained, until: Instant::now() + self.drain });
    }

    /// The new owner reads them again; the loop need not see them.
    fn forget_undelivered(&mut self, revoked: &[TopicPartition]) {
        for event in &mut self.outbox {
            if let Event::Records(records) = event {
                records.retain(|record| !revoked.contains(&record.at));
            }
        }
        self.outbox.retain(|event| !matches!(event, Event::Records(records) if records.is_empty()));
    }

    /// Gives revoked partitions back once the loop has drained or its time is up, and never while a commit is out: sent
    /// late, it would move the next owner's offset.
    fn hand_over(&mut self) {
        let Some(revoking) = &mut self.revoking else { return };
        if let Some(word) = &mut revoking.drained {
            let said = Pin::new(word).poll(&mut Context::from_waker(&self.waker)) != Poll::Pending;
            if said || Instant::now() >= revoking.until {
                revoking.drained = None;
            }
        }
        if revoking.drained.is_some() || self.committing.is_some() {
            return;
        }
        if let Some(revoking) = self.revoking.take() {
            if let Err(error) = give_up(&self.consumer, &list(&revoking.partitions, None)) {
                self.trouble(Trouble::Other { source: code_of(&error), reason: error.to_string() });
            }
            self.assignment.remove(&revoking.partitions);
            *self.shared.lags() = self.assignment.lags();
            self.between = true;
        }
    }

    // --- starting

    fn seek(&mut self) {
        let seeks = self.assignment.seeks();
        // While a rebalance waits for us, librdkafka stops and starts fetchers by itself.
        if seeks.is_empty() || self.revoking.is_some() || Instant::now() < self.seek_at {
            return;
        }
        self.revive();
        let mut wanted = TopicPartitionList::with_capacity(seeks.len());
        for (at, to) in &seeks {
            let to = to.map_or(Offset::Beginning, |next| Offset::Offset(next.get()));
            if let Err(error) = wanted.add_partition_offset(&at.topic, at.partition, to) {
                self.trouble(Trouble::Other { source: code_of(&error), reason: format!("{at}: {error}") });
                self.assignment.stuck(at);
            }
        }
        // As a whole it fails only when it takes too long, and is tried again.
        let Ok(sought) = self.consumer.seek_partitions(wanted, SEEK_WITHIN) else { return };
        for one in sought.elements() {
            match one.error() {
                Ok(()) => self.assignment.sought(one.topic(), one.partition()),
                Err(error) if not_up_yet(code_of(&error)) => {
                    self.seek_at = Instant::now() + SLEEP_SEEKING;
                    self.assignment.not_up(one.topic(), one.partition());
                }
                Err(error) => {
                    let at = TopicPartition { topic: Arc::from(one.topic()), partition: one.partition() };
                    self.trouble(Trouble::Other { source: code_of(&error), reason: format!("{at}: {error}") });
                    self.assignment.stuck(&at);
                }
            }
        }
    }

    /// Brings fetchers up that librdkafka has stopped for good, as it does where an offset was refused: a seek does not.
    /// Taken out of the assignment and put back, a partition gets a new one; the group is not told and does not mind.
    fn revive(&mut self) {
        let stopped = self.assignment.stopped();
        if stopped.is_empty() {
            return;
        }
        let again = list(&stopped, Some(Offset::Beginning));
        let done = self.consumer.incremental_unassign(&again).and_then(|()| self.consumer.incremental_assign(&again));
        if let Err(error) = done {
            self.trouble(Trouble::Other { source: code_of(&error), reason: error.to_string() });
        }
        self.pause(&stopped);
    }

    /// Pauses and resumes what has to be.
    fn flow(&mut self) {
        let (pause, resume) = self.assignment.flow(self.full);
        self.pause(&pause);
        if !resume.is_empty()
            && let Err(error) = self.consumer.resume(&list(&resume, None))
        {
            tracing::warn!(group = self.shared.group, %error, "partitions cannot be resumed");
        }
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        if !partitions.is_empty()
            && let Err(error) = self.consumer.pause(&list(partitions, None))
        {
            tracing::warn!(group = self.shared.group, %error, "partitions cannot be paused");
        }
    }

    // --- the clerk

    /// What a rebalance waits for goes first, gauges last.
    fn ask_clerk(&mut self) {
        if !self.clerk.idle() {
            return;
        }
        if !self.between
            && let Some(job) = self.next_commit()
        {
            self.clerk.ask(job);
        } else if let Some((epoch, partitions)) = self.lookups.pop_front() {
            if !partitions.is_empty() {
                self.clerk.ask(Job::Committed(epoch, partitions));
            }
        } else if self.revoking.is_none() && std::mem::take(&mut self.suspect) {
            self.clerk.ask(Job::Bounds(self.assignment.reading()));
        } else if self.revoking.is_none() && self.leaving.is_none() && Instant::now() >= self.ends_at {
            self.ends_at = Instant::now() + ENDS_EVERY;
            let all = self.assignment.all();
            if !all.is_empty() {
                self.clerk.ask(Job::Ends(all));
            }
        }
        self.expire_commits();
    }

    fn next_commit(&mut self) -> Option<Job> {
        while let Some(order) = self.commits.pop_front() {
            let lost = self.revoking.as_ref().is_some_and(|revoking| revoking.lost);
            let refused = order.offsets.iter().find(|(at, _)| !self.assignment.may_commit(at, lost));
            if let Some((at, _)) = refused {
                let error = Error::NotAssigned { group: self.shared.group.clone(), at: at.clone() };
                let _ = order.reply.send(Err(error));
                continue;
            }
            let offsets = order.offsets.clone();
            self.committing = Some(order);
            return Some(Job::Commit(offsets));
        }
        None
    }

    fn expire_commits(&mut self) {
        let now = Instant::now();
        while self.commits.front().is_some_and(|order| order.until <= now) {
            if let Some(order) = self.commits.pop_front() {
                let source = Code(RDKafkaErrorCode::RebalanceInProgress);
                let error = match order.offsets.first() {
                    Some((at, _)) => Error::Commit { group: self.shared.group.clone(), at: at.clone(), source },
                    None => Error::Stopped { role: "consumer" },
                };
                let _ = order.reply.send(Err(error));
            }
        }
    }

    fn take_answer(&mut self) {
        let Some(answer) = self.clerk.answer() else { return };
        match answer {
            Answer::Commit(result) => self.committed(result),
            Answer::Committed(epoch, _, Ok(found)) => {
                let fresh = self.assignment.announce(epoch, found);
                if !fresh.is_empty() {
                    self.outbox.push_back(Event::Assigned { epoch, partitions: fresh });
                }
                // The gauges of new partitions need not wait.
                self.ends_at = Instant::now();
            }
            Answer::Committed(epoch, partitions, Err(source)) => {
                let source = Error::Committed { group: self.shared.group.clone(), source };
                self.trouble(Trouble::CommittedUnknown { source });
                let left = self.assignment.all();
                self.lookups.push_back((epoch, partitions.into_iter().filter(|at| left.contains(at)).collect()));
            }
            Answer::Ends(ends) => {
                for (at, end) in ends {
                    self.assignment.end(&at, end);
                }
                *self.shared.lags() = self.assignment.lags();
            }
            Answer::Bounds(bounds) => self.judge(bounds),
            Answer::Closed => {}
        }
    }

    fn committed(&mut self, result: Result<(), (TopicPartition, Code)>) {
        let Some(order) = self.committing.take() else { return };
        if result.is_ok() {
            for (at, next) in &order.offsets {
                self.assignment.committed(at, *next);
            }
            *self.shared.lags() = self.assignment.lags();
        }
        let group = &self.shared.group;
        let answer = result.map_err(|(at, source)| match source.0 {
            RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::MessageTimedOut => {
                Error::CommitTimedOut { group: group.clone(), waited: super::COMMIT_WITHIN }
            }
            _ => Error::Commit { group: group.clone(), at, source },
        });
        // The loop may have stopped waiting.
        let _ = order.reply.send(answer);
    }

    /// Finds the partitions whose offset was refused. One that turns out fine is sought again: its fetcher has stopped.
    fn judge(&mut self, bounds: Vec<(TopicPartition, Option<NextOffset>, i64, i64)>) {
        for (at, wanted, first, end) in bounds {
            match wanted {
                Some(wanted) if wanted.get() < first || wanted.get() > end => {
                    self.assignment.stuck(&at);
                    let (first, end) = (NextOffset::stored(first), NextOffset::stored(end));
                    self.trouble(Trouble::OffsetOutOfRange { at, wanted, first, end });
                }
                _ => self.assignment.again(&at),
            }
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

fn list(partitions: &[TopicPartition], at: Option<Offset>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for one in partitions {
        let mut added = list.add_partition(&one.topic, one.partition);
        if let Some(at) = at
            && let Err(error) = added.set_offset(at)
        {
            tracing::warn!(%error, at = %one, "an offset that librdkafka does not know");
        }
    }
    list
}

fn record(at: TopicPartition, message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        let all = headers.iter();
        all.map(|one| (one.key.to_owned(), one.value.unwrap_or_default().to_vec())).collect::<Vec<_>>()
    });
    Record {
        at,
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}

fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len) + headers
}
