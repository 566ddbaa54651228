//! The consumer as a closed enum on one bounded channel, fed by one poll thread that never stops polling.
//!
//! ```text
//!   librdkafka ──poll──▶ poll thread ──Event──▶ the loop (deliver)
//!                          ▲   │                     │
//!                          │   └─blocking calls─▶ clerk thread (commit, committed offsets, end offsets, close)
//!                          └────────orders────── Control
//! ```
//!
//! The poll thread owns the assignment. A partition is paused from its assignment until the loop has said where it
//! starts, and again whenever the loop asks for it or the channel is full; polling goes on all the while, so that the
//! member keeps its place in the group.

mod assignment;
mod clerk;
mod context;
mod membership;
mod poll;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

pub(super) use self::poll::record;
use super::{Client, Code, Error, NextOffset, Record, TopicPartition};

pub use membership::Membership;

/// Events that may wait for the loop: with [`BATCH_BYTES`] a batch, at most 8 MiB for each sink.
const EVENTS: usize = 8;

/// Records in one [`Event::Records`], at most: enough to make the channel's cost small.
const BATCH_RECORDS: usize = 500;

/// Bytes of keys, values and headers in one [`Event::Records`]; a single larger record passes alone.
const BATCH_BYTES: usize = 1 << 20;

/// Commits that may wait, at most. A loop has one out at a time; more are a mistake.
const COMMITS: usize = 64;

/// How long a commit may wait for its answer: above the session timeout, for which librdkafka defers it. It retries a
/// request that it could not send for as long as the coordinator is away, and has no bound of its own.
const COMMIT_WITHIN: Duration = Duration::from_secs(15);

/// How long closing may take once everything was handed back: librdkafka's close has hung without a coordinator.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Counts the assignments of a consumer: what was read under an older epoch of a partition is not to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentEpoch(pub u64);

/// Everything that a consumer can tell its loop.
#[derive(Debug)]
pub enum Event {
    /// Partitions were assigned. They stay paused until the loop answers with [`Control::start`] for each.
    /// `committed` is the group's committed offset, if it has one.
    Assigned { epoch: AssignmentEpoch, partitions: Vec<(TopicPartition, Option<NextOffset>)> },
    /// Records in offset order, of partitions that were started; several partitions may be mixed.
    Records(Vec<Record>),
    /// Partitions are being taken away. The poll thread waits (a quarter of the session timeout) until `drained` is sent
    /// or dropped, and commits for them meanwhile; nobody may be listening to `drained` any more, which is no error.
    /// `lost`: they are already somebody else's; nothing may be settled or committed.
    Revoked { partitions: Vec<TopicPartition>, lost: bool, drained: oneshot::Sender<()> },
    /// Something that the loop has to know; the consumer goes on.
    Trouble(Trouble),
    /// The consumer has ended and will say nothing more.
    Ended(Option<Error>),
}

/// What goes wrong while the consumer goes on. A broker that is down is not among it: librdkafka reconnects by itself,
/// and [`Client::ping`] tells.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// The offset to read next is not in the log: retention has passed it, or the topic was created anew. The partition
    /// stands still until it is started again, which is a decision, since records are missing.
    OffsetOutOfRange {
        at: TopicPartition,
        wanted: NextOffset,
        first: NextOffset,
        end: NextOffset,
    },
    /// The committed offsets cannot be read, so new partitions are not announced yet; it is tried again.
    CommittedUnknown {
        source: Error,
    },
    /// The poll thread was held up for longer than `max.poll.interval.ms`, and the group has gone on without it.
    PolledTooLate,
    /// A topic does not exist or may not be read, or the login is refused.
    Refused {
        source: Code,
        reason: String,
    },
    Other {
        source: Code,
        reason: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OffsetOutOfRange { at, wanted, first, end } => write!(
                f,
                "{at} has no offset {}: the log holds {} to {}; records were lost to retention or the topic was created \
                 anew; rewind the sink to go on from where the log starts",
                wanted.get(),
                first.get(),
                end.get()
            ),
            Self::CommittedUnknown { source } => write!(
                f,
                "{source}; it is tried again; where that lasts for more than a minute while Kafka is up, a transaction hangs \
                 there: see `kafka-transactions.sh find-hanging`"
            ),
            Self::PolledTooLate => f.write_str("the process was held up and its partitions were given to others"),
            Self::Refused { source, reason } | Self::Other { source, reason } => write!(f, "{source}: {reason}"),
        }
    }
}

/// Where a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The group's committed offset, else the earliest record.
    CommittedOrEarliest,
    Offset(NextOffset),
}

/// How far a partition's log reaches beyond the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    pub at: TopicPartition,
    /// The end of what a `read_committed` reader may read, asked of the leader every few seconds.
    pub end: Option<NextOffset>,
    /// What the group has committed; where nothing is committed, where the partition was started.
    pub committed: Option<NextOffset>,
}

impl Lag {
    /// `None` until both ends are known.
    #[must_use]
    pub fn records(&self) -> Option<u64> {
        let behind = self.end?.get().saturating_sub(self.committed?.get());
        Some(u64::try_from(behind).unwrap_or(0))
    }
}

/// A member of a consumer group, as a stream of [`Event`]s.
pub struct Consumer {
    events: mpsc::Receiver<Event>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("group", &self.shared.group).finish_non_exhaustive()
    }
}

impl Consumer {
    /// Joins `group` for `topics`, on a poll thread of its own.
    ///
    /// # Errors
    /// [`Error::Property`], [`Error::Start`] or [`Error::Subscribe`]; a broker that is down is none.
    pub fn subscribe(client: &Client, group: &str, topics: &[String]) -> Result<Self, Error> {
        let (sender, events) = mpsc::channel(EVENTS);
        let (ended, watched) = watch::channel(false);
        let shared = Arc::new(Shared {
            group: group.to_owned(),
            orders: Mutex::new(Orders::default()),
            thread: OnceLock::new(),
            starved: AtomicBool::new(false),
            lags: Mutex::new(Vec::new()),
            ended: watched,
            membership: watch::Sender::new(None),
        });
        poll::start(client, topics, Arc::clone(&shared), sender, ended)?;
        Ok(Self { events, shared })
    }

    /// The next event; `None` after [`Event::Ended`]. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        if self.shared.starved.swap(false, Ordering::SeqCst) {
            self.shared.wake();
        }
        event
    }

    /// The next event, if one waits.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.events.try_recv().ok();
        if self.shared.starved.swap(false, Ordering::SeqCst) {
            self.shared.wake();
        }
        event
    }

    #[must_use]
    pub fn control(&self) -> Control {
        Control { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Consumer {
    /// The poll thread sees that nobody listens, and leaves the group.
    fn drop(&mut self) {
        self.events.close();
        self.shared.wake();
    }
}

/// Orders to the poll thread. Cheap to clone; nothing here blocks.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("group", &self.shared.group).finish_non_exhaustive()
    }
}

impl Control {
    /// Says where an assigned partition starts, or starts it anew elsewhere: records that were read before may still come
    /// then. An epoch that has passed is ignored: its [`Event::Revoked`] is on the way.
    pub fn start(&self, epoch: AssignmentEpoch, at: TopicPartition, start: StartAt) {
        self.shared.order(|orders| {
            orders.starts.insert(at, (epoch, start));
        });
    }

    /// Holds partitions, started or not, until [`Control::resume`]. Forgotten when a partition is revoked.
    pub fn pause(&self, partitions: Vec<TopicPartition>) {
        self.hold(partitions, true);
    }

    pub fn resume(&self, partitions: Vec<TopicPartition>) {
        self.hold(partitions, false);
    }

    fn hold(&self, partitions: Vec<TopicPartition>, held: bool) {
        self.shared.order(|orders| orders.holds.extend(partitions.into_iter().map(|at| (at, held))));
    }

    /// Commits offsets to the group, and waits for the broker's word. While a rebalance is under way it waits for the
    /// new assignment.
    ///
    /// # Errors
    /// [`Error::NotAssigned`] for a partition that is not assigned, or not started under its current epoch: nothing is
    /// committed then. [`Error::Commit`] where the broker refused. [`Error::CommitTimedOut`]: unknown.
    pub async fn commit(&self, offsets: Vec<(TopicPartition, NextOffset)>) -> Result<(), Error> {
        if offsets.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let order = CommitOrder { offsets, reply, until: Instant::now() + COMMIT_WITHIN };
        self.shared.order_commit(order)?;
        answer.await.unwrap_or(Err(Error::Stopped { role: "consumer" }))
    }

    /// Offsets that a transaction has committed for the group: for the lag only.
    pub fn committed(&self, offsets: Vec<(TopicPartition, NextOffset)>) {
        self.shared.order(|orders| orders.committed.extend(offsets));
    }

    /// What a transaction is to be begun with, and every change of it; `None` while there is nothing to commit for.
    #[must_use]
    pub fn membership(&self) -> watch::Receiver<Option<Membership>> {
        self.shared.membership.subscribe()
    }

    /// The lag of each assigned partition.
    #[must_use]
    pub fn lag(&self) -> Vec<Lag> {
        self.shared.lags().clone()
    }

    /// Leaves the group: partitions are revoked as in a rebalance (so keep reading events), then [`Event::Ended`]
    /// follows. Returns when the consumer is closed, or was given up as it would not close.
    pub async fn stop(&self) {
        self.shared.order(|orders| orders.stop = true);
        let mut ended = self.shared.ended.clone();
        // An error means that the thread is gone, which is what is waited for.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

/// What the loop and the poll thread share.
struct Shared {
    group: String,
    orders: Mutex<Orders>,
    thread: OnceLock<Thread>,
    /// The poll thread waits for room in the channel.
    starved: AtomicBool,
    lags: Mutex<Vec<Lag>>,
    ended: watch::Receiver<bool>,
    membership: watch::Sender<Option<Membership>>,
}

/// What the loop has ordered since the poll thread last looked. Orders for one partition replace each other, so the
/// maps are bounded by the partitions.
#[derive(Default)]
struct Orders {
    starts: BTreeMap<TopicPartition, (AssignmentEpoch, StartAt)>,
    holds: BTreeMap<TopicPartition, bool>,
    committed: BTreeMap<TopicPartition, NextOffset>,
    commits: VecDeque<CommitOrder>,
    stop: bool,
    /// The poll thread is gone.
    closed: bool,
}

struct CommitOrder {
    offsets: Vec<(TopicPartition, NextOffset)>,
    reply: oneshot::Sender<Result<(), Error>>,
    until: Instant,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lags(&self) -> MutexGuard<'_, Vec<Lag>> {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, write: impl FnOnce(&mut Orders)) {
        let mut orders = self.orders();
        if !orders.closed {
            write(&mut orders);
        }
        drop(orders);
        self.wake();
    }

    fn order_commit(&self, order: CommitOrder) -> Result<(), Error> {
        let mut orders = self.orders();
        if orders.closed {
            return Err(Error::Stopped { role: "consumer" });
        }
        if orders.commits.len() >= COMMITS {
            return Err(Error::TooManyCommits { group: self.group.clone(), waiting: orders.commits.len() });
        }
        orders.commits.push_back(order);
        drop(orders);
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests;
