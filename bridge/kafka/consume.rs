//! The consumer as a closed enum on one bounded channel, fed by one poll thread that never stops polling.

use tokio::sync::oneshot;

use super::{NextOffset, Record, TopicPartition};

/// Counts the assignments of a consumer: what was read under an older epoch of a partition is not to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentEpoch(pub u64);

/// Everything that a consumer can tell its loop.
#[derive(Debug)]
pub enum Event {
    /// Partitions were assigned. They stay paused until the loop answers with [`Consumer::start`] for each.
    /// `committed` is the group's committed offset, if it has one.
    Assigned { epoch: AssignmentEpoch, partitions: Vec<(TopicPartition, Option<NextOffset>)> },
    /// Records in offset order, of partitions that were started; several partitions may be mixed.
    Records(Vec<Record>),
    /// Partitions are being taken away. The poll thread waits (bounded) until `drained` is sent or dropped.
    /// `lost`: they are already somebody else's; nothing may be settled or committed.
    Revoked { partitions: Vec<TopicPartition>, lost: bool, drained: oneshot::Sender<()> },
    /// Something that the loop has to know; the consumer goes on.
    Trouble(Trouble),
    /// The consumer has ended and will say nothing more.
    Ended(Option<super::Error>),
}

/// Where a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The group's committed offset, else the earliest record.
    CommittedOrEarliest,
    Offset(NextOffset),
}
