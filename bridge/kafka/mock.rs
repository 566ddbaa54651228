//! librdkafka's in-process mock cluster, for `dev` and for tests of this module: ephemeral, on loopback, and no proof of
//! anything about Kafka (no transactions' effects, no topic settings, 5 MiB a partition).

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey;

use super::{Error, code_of};

/// A mock cluster of one broker. It lives as long as this value.
pub struct DevCluster {
    bootstrap: String,
    /// The cluster may not leave the thread that made it.
    orders: SyncSender<Order>,
}

impl fmt::Debug for DevCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCluster").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

enum Order {
    Create {
        topic: String,
        partitions: i32,
        done: SyncSender<Result<(), Error>>,
    },
    #[cfg_attr(not(test), allow(dead_code, reason = "faults are for tests"))]
    FailProduce {
        errors: Vec<RespErr>,
        done: SyncSender<Result<(), Error>>,
    },
}

impl DevCluster {
    /// Starts the cluster and creates `topics` (name and partitions); the mock has no CreateTopics request.
    ///
    /// # Errors
    /// [`Error::Start`], or [`Error::Topic`] for a topic that it does not take.
    pub fn start(topics: &[(String, i32)]) -> Result<Self, Error> {
        let (orders, taken) = sync_channel(1);
        let (said, started) = sync_channel(1);
        thread::Builder::new()
            .name("kafka-mock".to_owned())
            .spawn(move || serve(&said, &taken))
            .map_err(|cause| Error::Start { role: "mock cluster", reason: cause.to_string() })?;
        let bootstrap = started.recv().unwrap_or(Err(Error::Stopped { role: "mock cluster" }))?;
        let cluster = Self { bootstrap, orders };
        for (topic, partitions) in topics {
            cluster.create(topic, *partitions)?;
        }
        Ok(cluster)
    }

    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap
    }

    /// # Errors
    /// [`Error::Topic`] for a topic that exists or has an impossible name.
    pub fn create(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        self.order(|done| Order::Create { topic: topic.to_owned(), partitions, done })
    }

    #[cfg(test)]
    pub(super) fn fail_produce(&self, errors: Vec<RespErr>) -> Result<(), Error> {
        self.order(|done| Order::FailProduce { errors, done })
    }

    fn order(&self, order: impl FnOnce(SyncSender<Result<(), Error>>) -> Order) -> Result<(), Error> {
        let stopped = || Error::Stopped { role: "mock cluster" };
        let (done, answer) = sync_channel(1);
        self.orders.send(order(done)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }
}

fn serve(said: &SyncSender<Result<String, Error>>, taken: &Receiver<Order>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(cause) => {
            let error = Error::Start { role: "mock cluster", reason: code_of(&cause).to_string() };
            let _ = said.send(Err(error));
            return;
        }
    };
    let _ = said.send(Ok(cluster.bootstrap_servers()));
    // Until the handle is dropped.
    while let Ok(order) = taken.recv() {
        carry_out(&cluster, order);
    }
}

fn carry_out(cluster: &MockCluster<'static, DefaultProducerContext>, order: Order) {
    match order {
        Order::Create { topic, partitions, done } => {
            let created = cluster.create_topic(&topic, partitions, 1);
            let created = created.map_err(|cause| Error::Topic { topic, asked: "created", source: code_of(&cause) });
            let _ = done.send(created);
        }
        Order::FailProduce { errors, done } => {
            cluster.request_errors(RDKafkaApiKey::Produce, &errors);
            let _ = done.send(Ok(()));
        }
    }
}
