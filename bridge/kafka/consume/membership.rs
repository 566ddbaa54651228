//! What a member may say of itself to a transaction: the group's generation, and which partitions it holds under it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};

use super::context::Notes;
use super::{AssignmentEpoch, TopicPartition};

/// A snapshot of a member: its group, member id and generation (KIP-447), and the assignment epoch of each partition
/// that it holds under them. It only ever gets too old, and then the group's coordinator refuses it.
///
/// rdkafka shows neither member id nor generation, and the coordinator takes a transaction's offsets without asking
/// where both are missing. So none is taken but in the answer to a rebalance: the join that led to it has set both, and
/// librdkafka starts no other before it has our answer. Where it drops one of them later it marks the assignment as
/// lost in the same step (or drops the member id alone, which is refused), and a lost assignment has no snapshot.
#[derive(Clone)]
pub struct Membership {
    group: Arc<str>,
    metadata: Arc<ConsumerGroupMetadata>,
    epochs: Arc<BTreeMap<TopicPartition, AssignmentEpoch>>,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("group", &self.group).field("epochs", &self.epochs).finish_non_exhaustive()
    }
}

impl Membership {
    /// Only while a rebalance waits for our answer. `None`: the assignment is lost, or there is no member.
    pub(super) fn take(consumer: &BaseConsumer<Notes>, group: &str) -> Option<Self> {
        let metadata = consumer.group_metadata()?;
        #[cfg(feature = "seeded-bugs")]
        let metadata = of_nobody_where_seeded(metadata, group);
        // Looked at afterwards: what was lost before the snapshot shows now.
        (!consumer.assignment_lost()).then(|| Self {
            group: Arc::from(group),
            metadata: Arc::new(metadata),
            epochs: Arc::default(),
        })
    }

    /// The same member, holding other partitions; `None` where it holds none.
    pub(super) fn holding(self, epochs: BTreeMap<TopicPartition, AssignmentEpoch>) -> Option<Self> {
        (!epochs.is_empty()).then(|| Self { epochs: Arc::new(epochs), ..self })
    }

    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Whether the partition is held under that very assignment.
    #[must_use]
    pub fn holds(&self, at: &TopicPartition, epoch: AssignmentEpoch) -> bool {
        self.epochs.get(at) == Some(&epoch)
    }

    pub(in crate::kafka) fn metadata(&self) -> &ConsumerGroupMetadata {
        &self.metadata
    }
}

/// What a consumer knows that has joined nothing: the group's name, and neither member nor generation.
#[cfg(feature = "seeded-bugs")]
fn of_nobody_where_seeded(metadata: ConsumerGroupMetadata, group: &str) -> ConsumerGroupMetadata {
    if !crate::seeded::has(crate::seeded::Bug::NoGroupMetadata) {
        return metadata;
    }
    let stranger = rdkafka::ClientConfig::new().set("group.id", group).create::<BaseConsumer>();
    stranger.ok().and_then(|stranger| stranger.group_metadata()).unwrap_or(metadata)
}
