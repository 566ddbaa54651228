//! Bugs on purpose, for `tests/faults` to find out: a judge that never turns red proves nothing.
//!
//! Compiled under the feature `seeded-bugs` only, which nothing that is shipped has. `HOOKBRIDGE_SEEDED_BUG` names the
//! one that a process has.

use std::sync::LazyLock;

/// What may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A 2xx before Kafka's word, with a place that is made up.
    AckBeforeReport,
    /// A leader's word is enough, without idempotence.
    OneAck,
    /// Every event is new to ingest.
    NoIngestDedupe,
    /// Every delivery has an id of its own, so that the database's unique key finds no repeat.
    NewDeliveryIds,
    /// The offset row is moved whoever claimed it since.
    NoFencing,
    /// The offset is committed before the rows.
    CommitBeforeDeliver,
    /// A transaction's offsets are sent without member and generation, so that the coordinator fences nobody.
    NoGroupMetadata,
    /// Receipts are read whether they are committed or not.
    UncommittedReceipts,
    /// The highest settled offset is committed, whatever is open below it.
    HighestWatermark,
}

impl Bug {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "ack-before-report" => Self::AckBeforeReport,
            "one-ack" => Self::OneAck,
            "no-ingest-dedupe" => Self::NoIngestDedupe,
            "new-delivery-ids" => Self::NewDeliveryIds,
            "no-fencing" => Self::NoFencing,
            "commit-before-deliver" => Self::CommitBeforeDeliver,
            "no-group-metadata" => Self::NoGroupMetadata,
            "uncommitted-receipts" => Self::UncommittedReceipts,
            "highest-watermark" => Self::HighestWatermark,
            _ => return None,
        })
    }
}

/// Whether this process has that bug. A name that is none gives none: the runs that want it found stay good, and fail.
pub(crate) fn has(bug: Bug) -> bool {
    static CHOSEN: LazyLock<Option<Bug>> =
        LazyLock::new(|| std::env::var("HOOKBRIDGE_SEEDED_BUG").ok().and_then(|name| Bug::of(&name)));
    *CHOSEN == Some(bug)
}
