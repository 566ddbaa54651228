//! Topics as metadata and settings say they are.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::ConfigResource;
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;

use super::plan::{TopicOutcome, TopicPlan};
use crate::kafka::preflight::TopicFacts;
use crate::kafka::{Client, Error};

/// What metadata says of the cluster.
pub(super) struct Cluster {
    pub(super) brokers: usize,
    pub(super) topics: BTreeMap<String, Seen>,
}

/// What metadata says of a topic: the replicas of each partition.
pub(super) struct Seen {
    pub(super) replicas: Vec<usize>,
}

pub(super) fn seen(metadata: &Metadata, name: &str) -> Result<Option<Seen>, Error> {
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
    match topic.error().map(RDKafkaErrorCode::from) {
        // Leaders that are not there yet come with time; the topic is there.
        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(Error::Topic { topic: name.to_owned(), asked: "read", source: code.into() }),
    }
    Ok(Some(Seen { replicas: topic.partitions().iter().map(|one| one.replicas().len()).collect() }))
}

/// The first partition without a leader; blocks for at most a few times `timeout`.
pub(super) fn leaderless(
    client: &Client,
    topics: &[String],
    fresh: &[String],
    timeout: Duration,
) -> Result<Option<(String, i32)>, Error> {
    for name in topics {
        let metadata = client.metadata(Some(name), timeout)?;
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        let Some(found) = found.filter(|topic| !topic.partitions().is_empty()) else {
            return Ok(Some((name.clone(), 0)));
        };
        for partition in found.partitions() {
            if partition.leader() < 0 || partition.error().is_some() {
                return Ok(Some((name.clone(), partition.id())));
            }
        }
        if fresh.contains(name) {
            for partition in found.partitions() {
                if client.watermarks(name, partition.id(), timeout).is_err() {
                    return Ok(Some((name.clone(), partition.id())));
                }
            }
        }
    }
    Ok(None)
}

pub(super) fn existing(plan: &TopicPlan, found: &Seen) -> TopicOutcome {
    TopicOutcome {
        name: plan.name.clone(),
        existed: true,
        partitions: i32::try_from(found.replicas.len()).unwrap_or(i32::MAX),
        replication: found.replicas.iter().min().and_then(|least| i32::try_from(*least).ok()).unwrap_or(0),
        min_isr: None,
        warnings: Vec::new(),
    }
}

pub(super) fn facts(found: &Seen, settings: Option<&ConfigResource>) -> TopicFacts {
    let text = |name: &str| settings.and_then(|all| all.get(name)).and_then(|entry| entry.value.as_deref());
    let number = |name: &str| text(name).and_then(|text| text.parse::<usize>().ok());
    TopicFacts {
        partitions: found.replicas.len(),
        replication: found.replicas.iter().copied().min().unwrap_or(0),
        min_insync_replicas: number("min.insync.replicas"),
        unclean_election: text("unclean.leader.election.enable") == Some("true"),
        cleanup: text("cleanup.policy").unwrap_or("delete").to_owned(),
        max_message_bytes: number("max.message.bytes"),
        // -1: for ever.
        retention_ms: text("retention.ms").and_then(|text| text.parse::<u128>().ok()),
    }
}
