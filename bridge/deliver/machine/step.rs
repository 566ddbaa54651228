//! What can happen to a sink's machine, and what it can ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::config::Guarantee;
use crate::config::units::Rate;
use crate::deliver::rewound::{Rewind, Rewound};
use crate::deliver::settle::{Followed, Receipt, Transaction, TxnAnswer};
use crate::deliver::window::Limits;
use crate::kafka::consume::AssignmentEpoch;
use crate::kafka::{NextOffset, Record, TopicPartition, Write};
use crate::outcome::{Answers, Outcome, SkipReason};

/// How a sink is to be treated.
#[derive(Debug, Clone)]
pub struct Settings {
    pub guarantee: Guarantee,
    /// Of each partition's window.
    pub window: Limits,
    /// Calls out at once.
    pub concurrency: usize,
    pub rate: Option<Rate>,
    /// How long a record is tried in its place before its key parks.
    pub in_place: Duration,
    /// How long a record is tried at all before it is dead. Time for which the sink is held does not count.
    pub max_age: Duration,
    /// How far back delivery ids are remembered.
    pub dedupe_window: Duration,
    /// How long the sink remembers an idempotency key; `None`: for ever, or the guarantee does not lean on it.
    pub vendor_window: Option<Duration>,
    /// Delivery ids remembered for each partition.
    pub max_seen: usize,
    /// Settled records of each partition that may come again, as far as a restore remembers them: past it the partition is
    /// read in parts, and its receipts once for each.
    pub max_beyond: usize,
    /// Parked records of each partition; past it a failing key stays in its place, and the window fills.
    pub max_open: usize,
    /// Receipts in one transaction.
    pub max_transaction: usize,
    /// How events are sent together; `None`: each is a call of its own.
    pub batch: Option<Batching>,
}

/// How large a batch grows, and how long it waits for company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    pub events: usize,
    /// Of the records' values, as Kafka has them: what goes out is measured where it is made.
    pub bytes: usize,
    /// From its first event on.
    pub linger: Duration,
}

/// A record that came, with the delivery id that its identity and the sink give.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub delivery_id: Uuid,
    pub record: Record,
}

/// A call, until it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// A call that carries several events, until it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// One event of a batch. `attempt` begins at 1.
#[derive(Debug, Clone)]
pub struct Bundled {
    pub call: CallId,
    pub delivery_id: Uuid,
    pub attempt: u32,
    pub record: Arc<Record>,
}

/// A transaction, until it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxnId(pub u64);

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Delivered,
    /// A record for the sink's own topic, which is delivered once the transaction that holds it is committed.
    Written(Arc<Write>),
    /// Not for this sink, or without consent.
    Skipped(SkipReason),
    Failed(Outcome),
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        if outcome == Outcome::Delivered { Self::Delivered } else { Self::Failed(outcome) }
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    Assigned {
        epoch: AssignmentEpoch,
        partitions: Vec<TopicPartition>,
    },
    /// What is committed for a partition, looked up before its receipts are read. `next`: the group's stable offset.
    ///
    /// `rewound`: what that commit said of rewinds; `None`: it was not ours, or there is none.
    Found {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        restore: u64,
        next: Option<NextOffset>,
        rewound: Option<Rewound>,
    },
    /// Receipts of a partition were read, up to before `position`: at a restore, and from then on.
    Followed {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        restore: u64,
        receipts: Vec<Followed>,
        position: i64,
    },
    /// All receipts were read that were there.
    Restored {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        restore: u64,
    },
    /// What operators want read again: of each partition the last order, those that were carried out among them.
    Rewinds(BTreeMap<TopicPartition, Rewind>),
    Records(Vec<Arrived>),
    /// The answer to [`Action::Fetch`]; `None`: it could not be read now.
    Fetched {
        call: CallId,
        record: Option<Arc<Record>>,
    },
    /// The other answer: retention has taken the record, here and where it came from.
    Gone {
        call: CallId,
    },
    CallEnded {
        call: CallId,
        ended: Ended,
        /// The sink has seen it; what was filtered out, or could not be read, costs the sink nothing and says nothing of it.
        sent: bool,
    },
    /// The answer to [`Action::CallTogether`].
    BatchEnded {
        batch: BatchId,
        /// Events that were left out of the call, and why: not for this sink, without consent, or unreadable.
        aside: Vec<(CallId, Ended)>,
        /// What became of the others, in their order; `None`: there were none.
        answers: Option<Answers>,
        /// The sink has seen it. A body that could not be made, or was too large, never left.
        sent: bool,
    },
    /// The answer to [`Action::Begin`], after every rebalance event that was pending when the group's metadata was taken.
    Begun {
        txn: TxnId,
        begun: bool,
    },
    TxnEnded {
        txn: TxnId,
        answer: TxnAnswer,
    },
    /// `ticket` comes back with [`Action::Released`]. `lost`: they are somebody else's already.
    Revoked {
        ticket: u64,
        partitions: Vec<TopicPartition>,
        lost: bool,
    },
    /// By an operator.
    Paused,
    Resumed,
    /// A moment that [`super::Machine::due`] named has come.
    Tick,
    Stop,
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Read the stable committed offset, then the receipts: from the lower of the commit's metadata and `since` (after the
    /// epoch), to the end as a reader of uncommitted records sees it.
    Restore {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        restore: u64,
        since: Duration,
    },
    /// Read records from here on, whether the partition is paused or not; `None`: where the group has no offset, from the
    /// beginning.
    Start {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        next: Option<NextOffset>,
    },
    Pause(TopicPartition),
    Resume(TopicPartition),
    /// Read the record that the receipt at `position` holds; where it holds none, or is gone, the event itself, which is
    /// at `origin`.
    Fetch {
        call: CallId,
        at: TopicPartition,
        position: i64,
        origin: i64,
    },
    /// Decode, filter, ask for consent, map, and send. `attempt` begins at 1.
    Call {
        call: CallId,
        delivery_id: Uuid,
        attempt: u32,
        record: Arc<Record>,
    },
    /// The same for each of them, and one call that carries all that are to be sent.
    CallTogether {
        batch: BatchId,
        events: Vec<Bundled>,
    },
    /// Take the group's metadata and begin a transaction.
    Begin {
        txn: TxnId,
    },
    /// Produce, send the offsets, commit. Any other end than `Committed` and `Aborted` is `Unknown`.
    Commit {
        txn: TxnId,
        transaction: Transaction,
    },
    /// There is nothing to commit any more.
    Abort {
        txn: TxnId,
    },
    /// The poll thread may let the revoked partitions go.
    Released {
        ticket: u64,
    },
    /// Committed: count them.
    Settled(Vec<Receipt>),
    Tell(Notice),
    /// Everything is at rest, or has to be: leave the group. `fenced`: another process has our `transactional.id`.
    Finish {
        fenced: bool,
    },
}

/// A change that people should hear of, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Nothing passes; the sink is held, and probed.
    Held {
        outcome: Outcome,
    },
    Recovered,
    /// The sink asked for a pause.
    Throttled {
        until: Duration,
    },
    /// A key waits outside the window from now on.
    Parked {
        at: TopicPartition,
        offset: i64,
        delivery_id: Uuid,
    },
    /// Nobody knows whether a transaction was committed: its partitions are read again.
    Unsure {
        partitions: Vec<TopicPartition>,
    },
    /// A topic does not take a record; `shrunk`: its event is settled by something smaller.
    TooLarge {
        at: TopicPartition,
        reason: String,
        shrunk: bool,
    },
    /// A partition is read again, as an operator wanted.
    WentBack {
        at: TopicPartition,
        from: Option<NextOffset>,
        order: Rewind,
    },
    /// More was settled beyond the committed offset than is remembered: its receipts are read again from here on.
    ReadOn {
        at: TopicPartition,
        from: NextOffset,
    },
    /// Something was still under way at the deadline.
    LetGo {
        at: TopicPartition,
    },
}
