//! Kafka: the only place that names rdkafka. What crosses this border are the plain types below.
//!
//! ```text
//!  client   ── settings, and how they are layered ──▶ every librdkafka instance below
//!  publish  ── records out: bounded, acknowledged, the producer replaced after a fatal error
//!  consume  ── records in: one poll thread a group, a closed enum of events on one bounded channel
//!  transact ── records out and offsets, committed together: one thread a transactional id
//!  restore  ── receipts in, up to their real ends, before anything is sent; then followed
//!  read     ── records in without a group: given partitions from given offsets to an end, and on from there
//!  fetch    ── single records, by partition and offset
//!  admin    ── topics created and looked at, and `preflight`'s verdict on them
//!  mock     ── librdkafka's in-process cluster, for `dev` only
//!  difference ── what topics lack of what was planned, which `admin` mends
//!  lag      ── where a group stands in topics, asked from outside it: for people
//!  peek     ── records looked at, outside any group: for people
//! ```

pub mod admin;
pub mod client;
pub mod consume;
pub mod difference;
pub mod fetch;
mod headers;
pub mod lag;
pub mod mock;
pub mod offset;
pub mod peek;
pub mod preflight;
pub mod publish;
pub mod read;
pub mod restore;
pub mod transact;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;

pub use admin::{Admin, Cleanup, TopicOutcome, TopicPlan};
pub use client::Client;
pub use consume::{AssignmentEpoch, Consumer, Control, Event, Membership, StartAt, Trouble};
pub use difference::{Change, Difference, TopicDifference};
pub use fetch::Fetcher;
pub use headers::Headers;
pub use offset::NextOffset;
pub use publish::{Health, Landing, Limits, Outgoing, Pending, Publisher, Ticket};
pub use read::{Extent, Glimpse, Reader, Then};
pub use transact::{Abort, Batch, Doubt, Finish, Oversized, TransactionalId, Transactor, Write};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

/// By topic, then by partition. It is looked up several times for each record, mostly among partitions of one topic, whose
/// name they share.
impl Ord for TopicPartition {
    fn cmp(&self, other: &Self) -> Ordering {
        let topics =
            if Arc::ptr_eq(&self.topic, &other.topic) { Ordering::Equal } else { self.topic.cmp(&other.topic) };
        topics.then_with(|| self.partition.cmp(&other.partition))
    }
}

impl PartialOrd for TopicPartition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Where a published record stands. Only a delivery report with a valid offset makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
}

/// A consumed record.
#[derive(Debug, Clone)]
pub struct Record {
    pub at: TopicPartition,
    pub offset: i64,
    /// Broker or producer time, milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl Record {
    /// The last header of that name, as text; Kafka allows a name to repeat, and the last one written is meant.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.headers.last(name)?).ok()
    }

    /// One of which nothing is left but where it stood.
    #[must_use]
    pub fn lost(at: TopicPartition, offset: i64) -> Self {
        Self { at, offset, timestamp_ms: None, key: None, value: None, headers: Headers::default() }
    }

    /// Of its key, its value and its headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + self.headers.bytes()
    }
}

/// An error code of librdkafka's or the broker's: Kafka's protocol errors, and librdkafka's own local ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(RDKafkaErrorCode);

impl Code {
    /// The code's name, for metrics and logs: `MessageTimedOut`. There are as many as Kafka has error codes.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:?}", self.0)
    }

    /// The topic does not take a record, or a batch, of that size.
    #[must_use]
    pub fn is_too_large(self) -> bool {
        self.0 == RDKafkaErrorCode::MessageSizeTooLarge
    }
}

impl From<RDKafkaErrorCode> for Code {
    fn from(code: RDKafkaErrorCode) -> Self {
        Self(code)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Code {}

/// What can go wrong between us and Kafka.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("librdkafka {found} is linked, and {least} or newer is needed")]
    TooOld { found: String, least: &'static str },
    /// The value is never shown: it may be a secret.
    #[error("the librdkafka property `{name}` is refused: {reason}")]
    Property { name: String, reason: String },
    #[error("a kafka {role} cannot start: {reason}")]
    Start { role: &'static str, reason: String },
    #[error("kafka at {bootstrap} did not answer within {waited:?}")]
    Unreachable {
        bootstrap: String,
        waited: Duration,
        #[source]
        source: Code,
    },
    /// Our own bound on what waits for Kafka's acknowledgement. The record was not enqueued.
    #[error("{records} records of {bytes} bytes already wait for kafka's acknowledgement")]
    Full { records: usize, bytes: usize },
    /// The record was not enqueued.
    #[error("a record of {bytes} bytes for topic {topic} is above the limit of {limit} bytes")]
    TooLarge { topic: String, bytes: usize, limit: usize },
    /// Enqueued, and not known to be in the log: it timed out, was purged, or was acknowledged without an offset
    /// (`source` is then empty). It may be there all the same.
    #[error("it is unknown whether a record reached topic {topic} (partition {partition:?})")]
    Unknown {
        topic: String,
        partition: Option<i32>,
        #[source]
        source: Option<Code>,
    },
    /// The broker, or librdkafka before it, said no for good: the record is not in the log.
    #[error("kafka refused a record for topic {topic} (partition {partition:?})")]
    Refused {
        topic: String,
        partition: Option<i32>,
        #[source]
        source: Code,
    },
    /// The record was not enqueued; the producer is being replaced.
    #[error("the kafka producer met a fatal error and is being replaced")]
    Fatal {
        #[source]
        source: Code,
    },
    #[error("the kafka {role} has stopped")]
    Stopped { role: &'static str },
    #[error("{left} records were not acknowledged within {waited:?}")]
    FlushTimedOut { left: usize, waited: Duration },
    /// A commit for a partition that is not assigned, or not started under its current assignment.
    #[error("{at} is not assigned to group {group} under the epoch it was started with")]
    NotAssigned { group: String, at: TopicPartition },
    #[error("the offset of {at} was not committed for group {group}")]
    Commit {
        group: String,
        at: TopicPartition,
        #[source]
        source: Code,
    },
    /// The outcome is unknown: the commit may have been taken.
    #[error("a commit of group {group} got no answer within {waited:?}")]
    CommitTimedOut { group: String, waited: Duration },
    #[error("{waiting} commits of group {group} already wait")]
    TooManyCommits { group: String, waiting: usize },
    #[error("the committed offsets of group {group} cannot be read")]
    Committed {
        group: String,
        #[source]
        source: Code,
    },
    /// For good: two processes have one slot.
    #[error("another process has opened a producer of the transactional id {transactional_id}")]
    Fenced { transactional_id: String },
    #[error("no transactional producer of id {transactional_id} after {waited:?}")]
    Transactions {
        transactional_id: String,
        waited: Duration,
        #[source]
        source: Code,
    },
    #[error("group {group} cannot subscribe: {reason}")]
    Subscribe { group: String, reason: String },
    #[error("the consumer of group {group} met a fatal error: {reason}")]
    ConsumerFatal {
        group: String,
        reason: String,
        #[source]
        source: Code,
    },
    #[error("a reader met a fatal error: {reason}")]
    ReaderFatal {
        reason: String,
        #[source]
        source: Code,
    },
    #[error("the consumer of group {group} did not close within {waited:?} and was left behind")]
    CloseTimedOut { group: String, waited: Duration },
    #[error("topic {topic} cannot be {asked}")]
    Topic {
        topic: String,
        asked: &'static str,
        #[source]
        source: Code,
    },
    #[error("partition {partition} of topic {topic} has no ready leader after {waited:?}")]
    NoLeader { topic: String, partition: i32, waited: Duration },
    /// Accepted, and not to be seen.
    #[error("topic {topic} does not show the change `{change}` after {waited:?}")]
    NotSeen { topic: String, change: String, waited: Duration },
    #[error("kafka's administration interface did not carry out `{asked}`: {reason}")]
    Admin { asked: &'static str, reason: String },
}

impl Error {
    /// Whether the record may be in the log although no acknowledgement says so: a repeat may double it.
    #[must_use]
    pub fn may_have_persisted(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// The code in an error of rdkafka's; those without one (a bad argument, a dropped client) are called `Fail`.
fn code_of(error: &rdkafka::error::KafkaError) -> Code {
    if let rdkafka::error::KafkaError::AdminOp(code) = error {
        return Code(*code);
    }
    Code(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

/// The version of librdkafka that runs.
#[must_use]
pub fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
