//! What one transaction of a sink holds: receipts, dead letters, and the offset of every partition that it touches.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::keys::KeyId;
use super::rewound::Rewound;
use crate::kafka::consume::AssignmentEpoch;
use crate::kafka::{NextOffset, Record, TopicPartition, Write};
use crate::outcome::SkipReason;

/// What a receipt says became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    Delivered,
    Skipped(SkipReason),
    Dead(DeadReason),
    /// Its key failed for too long to wait in place; the receipt holds the original record, which is tried again later.
    Parked,
    /// A dead letter that a person sent again. Written by the replay, never by the owner of the partition.
    Requeued,
    /// About to be sent, and never again unless its answer says that it had no effect: `at_most_once` only.
    Intent,
}

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// The sink will never take it.
    Rejected,
    /// It was tried for `retry.max_age`.
    TooOld,
    /// It was sent at most once, and nobody knows what became of it: a person decides.
    NoAnswer,
    /// An attempt may have had its effect, and the sink does not remember its idempotency key any more: a person decides.
    PastWindow,
    /// Retention took the record while it waited, before it could be delivered.
    Expired,
}

impl Fate {
    /// The bounded name, for receipts and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Skipped(_) => "skipped",
            Self::Dead(_) => "dead",
            Self::Parked => "parked",
            Self::Requeued => "requeued",
            Self::Intent => "intent",
        }
    }

    /// The bounded reason, empty where the name says it all.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Skipped(reason) => reason.name(),
            Self::Dead(reason) => reason.name(),
            Self::Delivered | Self::Parked | Self::Requeued | Self::Intent => "",
        }
    }

    /// Nothing follows, unless a person wants it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Skipped(_) | Self::Dead(_))
    }
}

/// One receipt, for the partition of the receipts topic that has the origin's number.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The origin, and where a parked record came from at first.
    pub at: TopicPartition,
    pub offset: i64,
    pub delivery_id: Uuid,
    pub fate: Fate,
    /// What the sink said, for people.
    pub detail: String,
    /// Calls that were made for this record, as far as is known.
    pub attempts: u32,
    /// How long it has been failing, without the time for which the sink was held.
    pub age: Duration,
    /// Since when (after the epoch) an attempt may have had its effect, though nobody said so.
    pub unsure_since: Option<Duration>,
    /// The machine that wrote it, by the number that it drew at its start: one's own promise is told from another's.
    pub writer: u64,
    /// After the epoch.
    pub settled_at: Duration,
    /// As it came: what a parked receipt and a dead letter hold, and whose key the receipt has.
    pub record: Arc<Record>,
    /// The record's body is too large for where it would be kept: it is left out, and the event's own topic has it.
    pub bare: bool,
    /// What a Kafka sink writes of it, in the same transaction.
    pub output: Option<Arc<Write>>,
}

impl Receipt {
    /// A dead letter goes with it.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.fate, Fate::Dead(_))
    }
}

/// How far a partition has come, for the group's offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub at: TopicPartition,
    pub epoch: AssignmentEpoch,
    /// Sent even where it has not moved: that request is the fence by generation.
    pub next: NextOffset,
    /// The commit's metadata: the oldest receipt that a restore has to read, whatever its age.
    pub receipts_from: i64,
    /// The metadata, too: what the next owner has to know of rewinds.
    pub rewound: Rewound,
}

/// All that is committed together, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// In the order in which they are written, for each partition.
    pub receipts: Vec<Receipt>,
    pub progress: Vec<Progress>,
}

impl Transaction {
    /// What goes to the sink's dead letter topic in the same transaction.
    pub fn dead_letters(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts.iter().filter(|receipt| receipt.is_dead())
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnAnswer {
    /// With where each receipt stands in its partition, in the order of [`Transaction::receipts`].
    Committed { positions: Vec<i64> },
    /// Certainly not committed, and what it held goes into the next one. A generation that is over is one such reason.
    Aborted,
    /// Not committed either, nor would it ever be: topics do not take these records of it.
    TooLarge(Vec<TooLarge>),
    /// Nobody knows. Said only after the producer's successor has called `init_transactions`: fence first, then read.
    Unknown,
    /// Another process has this one's `transactional.id`.
    Fenced,
}

/// A record of a transaction that is too large for its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge {
    /// Of which of [`Transaction::receipts`].
    pub receipt: usize,
    /// It is the receipt itself; else the dead letter beside it, or what a Kafka sink writes of the event.
    pub itself: bool,
    /// Its size, its topic and what that takes, for people.
    pub reason: String,
}

/// A receipt as its partition's owner reads it, at the start and from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The receipt's own offset.
    pub position: i64,
    pub delivery_id: Uuid,
    pub key: KeyId,
    /// The event's offset.
    pub origin: i64,
    pub fate: Fate,
    pub attempts: u32,
    pub age: Duration,
    pub unsure_since: Option<Duration>,
    pub writer: u64,
    pub settled_at: Duration,
}
