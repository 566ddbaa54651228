//! Where a group stands in topics, asked from outside it: for people.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Client, blocking};
use super::{Error, NextOffset, TopicPartition, code_of};

/// The bound on the coordinator's answer; an open transaction of the group holds it back.
const ASK: Duration = Duration::from_secs(10);

/// One partition, and how far a group has come in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub at: TopicPartition,
    /// Where it begins and ends for a `read_committed` reader.
    pub first: NextOffset,
    pub end: NextOffset,
    /// What the group has committed; `None`: nothing.
    pub committed: Option<NextOffset>,
    /// What that commit bears beside its offset.
    pub metadata: String,
}

impl Standing {
    /// Records that the group has not committed, transactions' markers included.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let from = self.committed.map_or(self.first, |committed| committed.max(self.first));
        u64::try_from(self.end.get() - from.get()).unwrap_or_default()
    }
}

impl Client {
    /// How far a group has come in each partition of these topics; one that does not exist has none.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Topic`] for the topics; [`Error::Committed`] for the group.
    pub async fn standings(&self, group: &str, topics: Vec<String>) -> Result<Vec<Standing>, Error> {
        let extents = self.extents(group, topics, 0).await?;
        let (client, group) = (self.clone(), group.to_owned());
        let partitions: Vec<TopicPartition> = extents.iter().map(|extent| extent.at.clone()).collect();
        let committed = blocking("committed offsets", move || committed(&client, &group, &partitions)).await?;
        let standing = extents.into_iter().zip(committed);
        Ok(standing
            .map(|(extent, (committed, metadata))| {
                let (first, end) = (extent.start, extent.end);
                Standing { at: extent.at, first, end, committed, metadata }
            })
            .collect())
    }
}

type Committed = (Option<NextOffset>, String);

fn committed(client: &Client, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Committed>, Error> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let failed =
        |cause: &rdkafka::error::KafkaError| Error::Committed { group: group.to_owned(), source: code_of(cause) };
    let consumer = client.reader(group)?;
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        list.add_partition_offset(&at.topic, at.partition, Offset::Invalid).map_err(|cause| failed(&cause))?;
    }
    let found = consumer.committed_offsets(list, ASK).map_err(|cause| failed(&cause))?;
    let of = |at: &TopicPartition| {
        let Some(one) = found.find_partition(&Arc::clone(&at.topic), at.partition) else { return Committed::default() };
        let next = if let Offset::Offset(next) = one.offset() { Some(NextOffset::stored(next)) } else { None };
        (next, one.metadata().to_owned())
    };
    Ok(partitions.iter().map(of).collect())
}
