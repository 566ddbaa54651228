//! What can happen to a worker, and what it can do.

use std::sync::Arc;

use crate::kafka::consume::{AssignmentEpoch, StartAt};
use crate::kafka::{NextOffset, Record, TopicPartition};
use crate::outcome::{Outcome, Settlement};
use crate::sinks::{Claim, Halt};

/// Something that happened.
#[derive(Debug)]
pub(in crate::deliver) enum Step {
    Assigned {
        epoch: AssignmentEpoch,
        partitions: Vec<(TopicPartition, Option<NextOffset>)>,
    },
    Records(Vec<Record>),
    /// `ticket` comes back with [`Action::Drained`].
    Revoked {
        ticket: u64,
        partitions: Vec<TopicPartition>,
        lost: bool,
    },
    Claimed {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        claimed: Result<Claim, Outcome>,
    },
    Attempted {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        claim: Claim,
        report: Report,
    },
    /// The group took, or did not take, a commit of a partition whose offset row had moved.
    Confirmed {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        accepted: bool,
    },
    /// The commit under way has ended.
    Committed {
        offsets: Vec<(TopicPartition, NextOffset)>,
        accepted: bool,
    },
    /// The offset to read next is not in the log.
    StandsStill {
        at: TopicPartition,
    },
    /// By an operator: nothing is begun before he says so.
    Paused(bool),
    /// An operator may have put offsets back: each partition looks where it stands.
    LookAgain,
    /// A moment that `Flow::due` named has come.
    Tick,
    Stop,
}

/// Something to do.
#[derive(Debug)]
pub(in crate::deliver) enum Action {
    Claim {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        committed: Option<NextOffset>,
    },
    Start {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        start: StartAt,
    },
    Pause(TopicPartition),
    Resume(TopicPartition),
    Attempt {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        claim: Claim,
        records: Vec<Arc<Record>>,
    },
    Confirm {
        at: TopicPartition,
        epoch: AssignmentEpoch,
        next: NextOffset,
    },
    Commit(Vec<(TopicPartition, NextOffset)>),
    /// Commit what is left, then let the poll thread go on.
    Drained {
        ticket: u64,
        commit: Vec<(TopicPartition, NextOffset)>,
    },
    Settled(Vec<Settled>),
    Tell(Notice),
    /// Everything is at rest: commit what is left and leave the group.
    Finish {
        commit: Vec<(TopicPartition, NextOffset)>,
    },
}

/// What an attempt at a batch came to.
#[derive(Debug, PartialEq)]
pub(in crate::deliver) struct Report {
    /// The leading records of the batch, settled for good.
    pub(in crate::deliver) settled: Vec<Settled>,
    pub(in crate::deliver) halt: Option<Halted>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::deliver) struct Settled {
    pub(in crate::deliver) offset: i64,
    pub(in crate::deliver) settlement: Settlement,
    pub(in crate::deliver) received_at_ms: Option<i64>,
}

/// The first record that is not settled, and why.
#[derive(Debug, PartialEq)]
pub(in crate::deliver) struct Halted {
    pub(in crate::deliver) offset: i64,
    /// `None`: the record could not be read so far as to know it.
    pub(in crate::deliver) event_id: Option<String>,
    pub(in crate::deliver) halt: Halt,
}

/// A change that people should hear of, once.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::deliver) enum Notice {
    /// The partition makes no headway. `offset` and `event_id` where an event is in the way.
    Stuck {
        at: TopicPartition,
        offset: Option<i64>,
        event_id: Option<String>,
        outcome: Outcome,
    },
    Recovered {
        at: TopicPartition,
    },
    /// Attempts were still under way at the deadline; their results are not waited for.
    LetGo {
        at: TopicPartition,
    },
}

/// How a sink fares, by the partition that fares worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Running,
    /// Something failed that may pass by itself.
    Retrying,
    /// A person has to mend the sink, or an event that it refuses. Nothing is lost.
    Held,
    /// An operator has paused the sink.
    Paused,
    /// The worker has ended by itself and waits to be started anew.
    Down,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Running, Self::Retrying, Self::Held, Self::Paused, Self::Down];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Down => "down",
        }
    }

    pub(super) fn after(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Delivered => Self::Running,
            Outcome::Throttled { .. } | Outcome::Transient { .. } | Outcome::Unknown { .. } => Self::Retrying,
            Outcome::Rejected { .. } | Outcome::Misconfigured { .. } | Outcome::Denied { .. } => Self::Held,
        }
    }
}
