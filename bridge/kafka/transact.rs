//! Transactions: records and offsets that are committed together, or not at all.
//!
//! ```text
//!  the loop ──Batch + Membership──▶ thread ─▶ begin ▸ produce ▸ every report ▸ offsets ▸ commit
//!           ◀──────Finish──────────        ─▶ replaces the producer before the next begin, where anything is in doubt
//! ```
//!
//! librdkafka's calls block, so each [`Transactor`] has a thread. It retries nothing: an aborted batch is handed back,
//! and an unknown end is said to be unknown. What fences a member that was overtaken is the request with the offsets
//! (KIP-447), which is why a partition's records cannot be in a batch without its offset; what fences a producer that
//! was overtaken, and every late request of its own, is the epoch that `init_transactions` raises.

mod batch;
mod doubt;
mod instance;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::oneshot;

use self::doubt::Verdict;
use self::instance::{End, Instance};
use super::consume::Membership;
use super::{Client, Code, Error, TopicPartition};

pub use batch::{Batch, Oversized, Write};
pub use doubt::Reason;

/// How often an idle producer's log, errors and statistics are read.
const IDLE: Duration = Duration::from_millis(250);

/// Orders that may wait: whoever gives one waits for its answer, so that more wait only behind some that were cancelled.
const ORDERS: usize = 4;

/// Who commits: Kafka lets one producer of an id live, and the one that opened last is it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionalId(Arc<str>);

impl TransactionalId {
    /// `<prefix>.<sink>.<instance>`. The instance is a stable slot, so that a restarted process ends at once what it
    /// had left open; under another one that takes the transaction timeout and the coordinator's scan for it.
    #[must_use]
    pub fn new(prefix: &str, sink: &str, instance: &str) -> Self {
        Self(format!("{prefix}.{sink}.{instance}").into())
    }
}

impl fmt::Display for TransactionalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of a batch.
#[derive(Debug)]
#[must_use = "only `Committed` is success"]
pub enum Finish {
    /// With the offset of each record, in the order of the batch: partition after partition, and as they were held.
    Committed { offsets: Vec<i64> },
    /// Nothing of it is visible, nor will be. What is left of the batch goes into the next one, with no new send.
    Aborted { reason: Abort, batch: Batch },
    /// It may be committed. Await [`Transactor::ready`], which decides it; then the committed offsets and the receipts
    /// say what is true, and the windows are rebuilt from them.
    Unknown(Doubt),
    /// Another producer of the same transactional id was opened: this process has to stop, or they would go on fencing
    /// each other. Nothing more is committed.
    Fenced,
}

/// Why a transaction was aborted.
#[derive(Debug, Clone)]
pub enum Abort {
    /// The group has gone on without the snapshot's member: take the next [`Membership`].
    Generation { source: Code },
    /// No partition of the batch is held under the assignment that its outcomes are of; the batch is empty now.
    Stale,
    /// Records that their topics will never take: they have to be left out, or made smaller, before the rest can pass.
    TooLarge { records: Vec<Oversized> },
    /// A record was not written; `source` is empty where it was reported without an offset.
    NotWritten {
        /// The partition whose outcome it belongs to.
        origin: TopicPartition,
        topic: String,
        source: Option<Code>,
    },
    /// The records were not acknowledged in time.
    TimedOut { waited: Duration },
    /// Kafka, or librdkafka, refused to go on.
    Refused { source: Code },
    /// There is no producer to begin with.
    NoProducer { source: Error },
}

impl Abort {
    /// A bounded name, for metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Generation { .. } => "generation",
            Self::Stale => "stale",
            Self::TooLarge { .. } => "too_large",
            Self::NotWritten { .. } => "not_written",
            Self::TimedOut { .. } => "timed_out",
            Self::Refused { .. } => "refused",
            Self::NoProducer { .. } => "no_producer",
        }
    }
}

/// Why nobody knows how a transaction ended.
#[derive(Debug, Clone, Copy)]
pub enum Doubt {
    /// The commit failed or got no answer in time.
    Commit { source: Code },
    /// Whoever waited for an earlier commit has stopped waiting.
    Cancelled,
    /// The thread is gone.
    Stopped,
}

/// What has happened so far. Names under `aborted` and `replaced` are those of [`Abort::name`] and [`Reason::name`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub committed: u64,
    /// Records in committed transactions.
    pub records: u64,
    pub aborted: BTreeMap<&'static str, u64>,
    pub unknown: u64,
    /// Partitions whose outcomes were dropped, being of an assignment that has passed.
    pub stale: u64,
    pub replaced: BTreeMap<&'static str, u64>,
}

/// The one type that knows transactions. One at a time.
pub struct Transactor {
    id: TransactionalId,
    client: Client,
    orders: SyncSender<Order>,
    counts: Arc<Mutex<Counts>>,
    closed: Arc<AtomicBool>,
    /// An answer that was not awaited to its end.
    owed: bool,
}

impl fmt::Debug for Transactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactor").field("id", &self.id).finish_non_exhaustive()
    }
}

enum Order {
    /// `membership`: whose offsets go with it; `None`: it has none.
    Commit {
        batch: Batch,
        membership: Option<Membership>,
        reply: oneshot::Sender<Finish>,
    },
    Ready {
        reply: oneshot::Sender<Result<(), Error>>,
    },
}

impl Transactor {
    /// Opens a producer, and thereby fences every other of this id; what those had open is aborted, and every end that
    /// is under way is decided. Look committed offsets up after it, and not before.
    ///
    /// # Errors
    /// [`Error::Transactions`] where the coordinator cannot be had within half a minute, or refuses the id;
    /// [`Error::Fenced`] where another one was opened meanwhile; [`Error::Property`] or [`Error::Start`].
    pub async fn open(client: &Client, id: &TransactionalId) -> Result<Self, Error> {
        let (sender, orders) = sync_channel(ORDERS);
        let (counts, closed) = (Arc::<Mutex<Counts>>::default(), Arc::<AtomicBool>::default());
        let worker = Worker {
            client: client.clone(),
            id: id.clone(),
            orders,
            counts: Arc::clone(&counts),
            closed: Arc::clone(&closed),
            instance: None,
            verdict: Verdict::Keep,
            singly: false,
            fenced: false,
        };
        thread::Builder::new()
            .name("kafka-transact".to_owned())
            .spawn(move || worker.run())
            .map_err(|cause| Error::Start { role: "transaction thread", reason: cause.to_string() })?;
        let transactor = Self { id: id.clone(), client: client.clone(), orders: sender, counts, closed, owed: false };
        transactor.ready().await?;
        Ok(transactor)
    }

    /// Commits the outcomes of the batch that are of current assignments, in one transaction.
    ///
    /// It is not to be cancelled: the transaction goes on, and the next call says [`Doubt::Cancelled`].
    pub async fn commit(&mut self, batch: Batch, membership: &Membership) -> Finish {
        self.order(batch, Some(membership.clone())).await
    }

    /// Commits the records alone, of whoever reads no group's partitions: nothing but another producer of this id fences
    /// it. As little to be cancelled as [`Transactor::commit`].
    pub async fn commit_records(&mut self, batch: Batch) -> Finish {
        self.order(batch, None).await
    }

    async fn order(&mut self, batch: Batch, membership: Option<Membership>) -> Finish {
        if std::mem::replace(&mut self.owed, true) {
            self.owed = false;
            return Finish::Unknown(Doubt::Cancelled);
        }
        let (reply, answer) = oneshot::channel();
        let order = Order::Commit { batch, membership, reply };
        let finish = match self.orders.try_send(order) {
            Ok(()) => answer.await.unwrap_or(Finish::Unknown(Doubt::Stopped)),
            Err(TrySendError::Full(_)) => Finish::Unknown(Doubt::Cancelled),
            Err(TrySendError::Disconnected(_)) => Finish::Unknown(Doubt::Stopped),
        };
        self.owed = false;
        finish
    }

    /// Waits until nothing of earlier transactions can land any more: the producer is clean, or was replaced. After
    /// [`Finish::Unknown`] the committed offsets are the truth from here on.
    ///
    /// # Errors
    /// As [`Transactor::open`]; it may be asked again.
    pub async fn ready(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let stopped = || Error::Stopped { role: "transactor" };
        self.orders.try_send(Order::Ready { reply }).map_err(|error| match error {
            TrySendError::Disconnected(_) => stopped(),
            TrySendError::Full(_) => Error::Transactions {
                transactional_id: self.id.to_string(),
                waited: Duration::ZERO,
                source: Code::from(RDKafkaErrorCode::PreviousInProgress),
            },
        })?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The largest record that a topic takes from us, by the topic's settings and our own.
    pub async fn limit_of(&self, topic: &str) -> usize {
        let own = self.client.max_message_bytes();
        let told = match self.client.admin() {
            Ok(admin) => admin.max_message_bytes(topic).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(limit) => limit.unwrap_or(own).min(own),
            // Not everybody may describe topics, and it is only said to people.
            Err(error) => {
                tracing::debug!(topic, %error, "a topic does not say how large its records may be");
                own
            }
        }
    }

    #[must_use]
    pub fn id(&self) -> &TransactionalId {
        &self.id
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }
}

impl Drop for Transactor {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    client: Client,
    id: TransactionalId,
    orders: Receiver<Order>,
    counts: Arc<Mutex<Counts>>,
    closed: Arc<AtomicBool>,
    instance: Option<Instance>,
    /// Of the last transaction.
    verdict: Verdict,
    /// A batch was too large for its topic, and nobody knows for which of its records: the next producer sends each by
    /// itself.
    singly: bool,
    fenced: bool,
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.orders.recv_timeout(IDLE) {
                // Whoever asked may have stopped waiting.
                Ok(Order::Ready { reply }) => _ = reply.send(self.ready()),
                Ok(Order::Commit { batch, membership, reply }) => {
                    let finish = self.commit(batch, membership.as_ref());
                    let _ = reply.send(finish);
                    // Not only at the next order: what is still open holds up every reader.
                    let wanted = !self.fenced && !self.closed.load(Ordering::Relaxed);
                    if wanted
                        && self.verdict != Verdict::Keep
                        && let Err(error) = self.ready()
                    {
                        tracing::warn!(id = %self.id, %error, "the transactional producer is not replaced yet");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(instance) = &self.instance {
                        instance.serve();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// A producer of whose earlier transactions nothing can land any more.
    fn ready(&mut self) -> Result<(), Error> {
        if self.fenced {
            return Err(Error::Fenced { transactional_id: self.id.to_string() });
        }
        if self.verdict == Verdict::Look {
            self.verdict = self.instance.as_ref().map_or(Verdict::Keep, Instance::look);
        }
        if let Verdict::Replace(reason) = self.verdict
            && let Some(instance) = self.instance.take()
        {
            tracing::info!(id = %self.id, reason = reason.name(), "the transactional producer is replaced");
            *lock(&self.counts).replaced.entry(reason.name()).or_default() += 1;
            drop(instance);
        }
        if self.instance.is_none() {
            let opened = Instance::open(&self.client, &self.id.0, self.singly, || self.closed.load(Ordering::Relaxed));
            self.fenced = matches!(opened, Err(Error::Fenced { .. }));
            self.instance = Some(opened?);
            self.singly = false;
            self.verdict = Verdict::Keep;
        }
        Ok(())
    }

    fn commit(&mut self, mut batch: Batch, membership: Option<&Membership>) -> Finish {
        match self.ready() {
            Ok(()) => {}
            Err(Error::Fenced { .. }) => return Finish::Fenced,
            Err(source) => return self.aborted(Abort::NoProducer { source }, batch),
        }
        let stale = batch.keep(|at, epoch| membership.is_none_or(|membership| membership.holds(at, epoch)));
        lock(&self.counts).stale += u64::try_from(stale).unwrap_or(u64::MAX);
        let Some(instance) = self.instance.as_mut().filter(|_| !batch.is_empty()) else {
            return self.aborted(Abort::Stale, batch);
        };
        let (end, verdict) = instance.run(&batch, membership);
        self.verdict = verdict;
        match end {
            End::Committed(offsets) => {
                let mut counts = lock(&self.counts);
                counts.committed += 1;
                counts.records += u64::try_from(batch.records()).unwrap_or(u64::MAX);
                Finish::Committed { offsets }
            }
            End::Aborted(reason) => {
                self.singly = matches!(reason, Abort::NotWritten { source: Some(code), .. } if code.is_too_large());
                self.aborted(reason, batch)
            }
            End::Unknown(doubt) => {
                lock(&self.counts).unknown += 1;
                tracing::warn!(id = %self.id, ?doubt, "it is unknown whether a transaction was committed");
                Finish::Unknown(doubt)
            }
            End::Fenced => {
                tracing::error!(id = %self.id, "another process has opened a producer of this transactional id");
                self.fenced = true;
                Finish::Fenced
            }
        }
    }

    fn aborted(&self, reason: Abort, batch: Batch) -> Finish {
        tracing::info!(id = %self.id, ?reason, "a transaction was aborted");
        *lock(&self.counts).aborted.entry(reason.name()).or_default() += 1;
        Finish::Aborted { reason, batch }
    }
}
