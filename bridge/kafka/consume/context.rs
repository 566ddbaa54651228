//! librdkafka's callbacks. They only take notes: the poll thread acts on them, outside the callback.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::TopicPartition;
use crate::kafka::client::{log_error, log_line};

/// A rebalance that librdkafka waits for us to carry out.
#[derive(Debug)]
pub(super) struct Rebalance {
    pub(super) assign: bool,
    pub(super) lost: bool,
    pub(super) partitions: Vec<TopicPartition>,
}

#[derive(Default)]
pub(super) struct Notes {
    rebalances: Mutex<VecDeque<Rebalance>>,
    reason: Mutex<String>,
    /// Counts what a poll has served besides records: after it, the queue may hold more.
    served: AtomicU64,
    /// The poll thread is gone; closing has to be answered in the callback.
    closing: AtomicBool,
}

impl Notes {
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The text of the last error.
    pub(super) fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn serve(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Notes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.serve();
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.serve();
        log_error(&error, reason);
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ConsumerContext for Notes {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RespErr, list: &mut TopicPartitionList) {
        self.serve();
        let assign = err == RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            // Nobody listens any more: whatever is still assigned is given back, and nothing is taken.
            if !assign && let Err(error) = give_up(consumer, list) {
                tracing::warn!(%error, "partitions cannot be given back while closing");
            }
            return;
        }
        let rebalance = Rebalance { assign, lost: consumer.assignment_lost(), partitions: partitions(list) };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }

    fn commit_callback(&self, _: KafkaResult<()>, _: &TopicPartitionList) {
        self.serve();
    }
}

/// Gives partitions back in the way of the group's protocol.
pub(super) fn give_up(consumer: &BaseConsumer<Notes>, list: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

/// Takes partitions in the way of the group's protocol.
pub(super) fn take_over(consumer: &BaseConsumer<Notes>, list: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(list),
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    elements.iter().map(|one| TopicPartition { topic: Arc::from(one.topic()), partition: one.partition() }).collect()
}
