//! Sinks: the only places that send. A sink is given events that are decoded, identified and consented to, and answers
//! how far it got; it knows neither Kafka nor the loop that feeds it.

pub mod egress;
pub mod http;
pub mod json;
pub mod kafka;
pub mod postgres;

use std::fmt;
use std::sync::Arc;

use apache_avro::types::Value;
use uuid::Uuid;

use crate::event::Identity;
use crate::kafka::{NextOffset, TopicPartition};
use crate::outcome::Outcome;

pub use json::Shape;

/// An event on its way to a sink.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The same on every attempt and after every restart ([`Identity::delivery_id`]).
    pub delivery_id: Uuid,
    pub identity: Identity,
    pub offset: i64,
    /// When ingest read the first byte of the request, milliseconds since the epoch; else the record's own time.
    pub received_at_ms: Option<i64>,
    /// When it happened, RFC 3339, as the source says (`ce_time`).
    pub occurred_at: Option<String>,
    /// The registry's id of the schema that it was written with.
    pub schema_id: u32,
    pub content: Content,
}

/// The event itself, as its sink takes it.
#[derive(Debug, Clone)]
pub enum Content {
    /// As JSON, for a sink without a `map`.
    Json(Vec<u8>),
    /// What the sink's `map` made of it, as JSON.
    Mapped(Vec<u8>),
    /// For a sink that puts its fields into columns.
    Value { shape: Arc<Shape>, value: Value },
}

/// One record of a batch.
#[derive(Debug, Clone)]
pub enum Item {
    Send(Box<Delivery>),
    /// Left out on purpose, or a dead letter: nothing to send, and its offset moves all the same.
    Pass {
        offset: i64,
    },
}

impl Item {
    #[must_use]
    pub fn offset(&self) -> i64 {
        match self {
            Self::Send(delivery) => delivery.offset,
            Self::Pass { offset } => *offset,
        }
    }
}

/// A sink's hold on a partition: taken at each assignment, before the first record is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The sink keeps no offsets; the group's count.
    Group,
    /// The partition's row in the sink's own offsets table.
    Row(postgres::Row),
}

impl Claim {
    /// Where to read on; `None`: where the group stands, else at the earliest record.
    #[must_use]
    pub fn next(&self) -> Option<NextOffset> {
        match self {
            Self::Group => None,
            Self::Row(row) => row.next(),
        }
    }
}

/// How far a batch got: its leading `settled` items are settled for good, and `halt` says what became of the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub settled: usize,
    /// Offsets of settled items whose events the sink had already, in order: nothing came of sending them again.
    pub duplicates: Vec<i64>,
    /// `None`: the whole batch is settled.
    pub halt: Option<Halt>,
}

impl Progress {
    /// Of a batch of so many items.
    #[must_use]
    pub fn whole(items: usize) -> Self {
        Self { settled: items, duplicates: Vec::new(), halt: None }
    }

    fn halted(settled: usize, outcome: Outcome) -> Self {
        Self { settled, duplicates: Vec::new(), halt: Some(Halt::Answer(outcome)) }
    }
}

/// What stopped a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// The sink's answer to the first item that is not settled.
    Answer(Outcome),
    /// The partition's offset row was moved or claimed by somebody else: nothing was written.
    Fenced,
}

/// Why a sink cannot be made of its configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    #[error(transparent)]
    Http(#[from] http::Error),
    #[error("this kind of sink is not built yet")]
    NotBuilt,
}

/// Where events go.
#[allow(clippy::large_enum_variant, reason = "one for each worker, and never moved once that runs")]
pub enum Sink {
    Postgres(postgres::Postgres),
    Http(http::Http),
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres(_) => "Sink::Postgres",
            Self::Http(_) => "Sink::Http",
        })
    }
}

impl Sink {
    /// How many batches may be on their way at once, each of another partition.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        match self {
            Self::Postgres(_) => postgres::SESSIONS,
            Self::Http(http) => http.concurrency(),
        }
    }

    /// Whether it takes events as [`Content::Value`]; else as JSON.
    pub(crate) fn takes_values(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// How many records one batch may hold.
    #[must_use]
    pub fn max_batch(&self) -> usize {
        match self {
            Self::Postgres(postgres) => postgres.max_batch(),
            // One call at a time in a partition, so that each is settled, and seen to be, as soon as it is answered.
            Self::Http(_) => 1,
        }
    }

    /// Takes hold of a partition. `committed` is the group's offset, for a partition that the sink has never seen.
    pub async fn claim(&self, at: &TopicPartition, committed: Option<NextOffset>) -> Result<Claim, Outcome> {
        match self {
            Self::Postgres(postgres) => postgres.claim(at, committed).await.map(Claim::Row),
            Self::Http(_) => Ok(Claim::Group),
        }
    }

    /// Delivers a batch of consecutive records of one partition, in order, and says how far it got. `claim` moves along.
    pub async fn deliver(&self, claim: &mut Claim, at: &TopicPartition, items: &[Item]) -> Progress {
        match (self, claim) {
            (Self::Postgres(postgres), Claim::Row(row)) => postgres.deliver(row, at, items).await,
            // Only Postgres gives rows, and the loop hands back what it was given.
            (Self::Postgres(_), Claim::Group) => Progress { settled: 0, duplicates: vec![], halt: Some(Halt::Fenced) },
            (Self::Http(http), _) => http.deliver(items).await,
        }
    }
}
