//! The settings of every librdkafka instance, in three layers: our defaults, the user's allow-listed properties above
//! them (TLS, SASL, timeouts), and above both what the promise rests on, which nobody may change.
//! Names and ranges: librdkafka's CONFIGURATION.md, version 2.12.1.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::util::get_rdkafka_version;

use super::publish::{Limits, Tuning};
use super::{Error, code_of};
use crate::config::kafka_properties::Role;
use crate::config::{self, Secret};

/// Before 2.10 an assignment is lost whenever the group's generation moves; before 2.5 records are lost or doubled.
const LEAST_VERSION: (i32, &str) = (0x020a_0000, "2.10.0");

/// `max_body` as it is by default, and room for the headers of quarantine, receipts and dead letters.
const DEFAULT_MAX_MESSAGE_BYTES: usize = (1 << 20) + (256 << 10);

/// What shows how long a broker may be silent. A stopped leader keeps its connection open, and an idempotent producer
/// waits this long for it before it turns to the new one.
const DEFAULTS: &[(&str, &str)] = &[
    ("socket.timeout.ms", "8000"),
    ("socket.keepalive.enable", "true"),
    ("socket.connection.setup.timeout.ms", "5000"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("retry.backoff.ms", "50"),
    ("retry.backoff.max.ms", "500"),
];

const PRODUCER_DEFAULTS: &[(&str, &str)] = &[
    // Below the socket timeout, so that the broker gives up first and says why.
    ("request.timeout.ms", "5000"),
    // Above the broker's session timeout (9 s) and the drain towards a lost leader, so that a record outlives an election.
    ("message.timeout.ms", "30000"),
    ("compression.type", "lz4"),
];

const PRODUCER_PROMISES: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // Java's: a key lands on the same partition whoever writes it.
    ("partitioner", "murmur2_random"),
    ("allow.auto.create.topics", "false"),
    ("statistics.interval.ms", "0"),
];

/// After this long the coordinator aborts a transaction by itself: what a crash holds readers up for, with its scan.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Each timeout lies below the next, and the bound on a call below all. With a socket timeout below the transaction's a
/// held EndTxn ended a later transaction of the same epoch; librdkafka refuses more than 100 ms above it and takes
/// 100 ms less where none is set.
const TRANSACTION_PROMISES: &[(&str, &str)] = &[
    ("transaction.timeout.ms", "15000"),
    ("socket.timeout.ms", "15000"),
    ("message.timeout.ms", "10000"),
    ("request.timeout.ms", "5000"),
    // Nothing is sent again in less than four fifths of it: see `transact/doubt.rs`.
    ("retry.backoff.ms", "100"),
    ("retry.backoff.max.ms", "500"),
    // A batch is there whole before it is sent.
    ("linger.ms", "0"),
    // The connections' counters: what a transaction that took longer waits for before the next.
    ("statistics.interval.ms", "100"),
];

const CONSUMER_DEFAULTS: &[(&str, &str)] = &[
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "2000"),
    // The poll thread polls at least every 100 ms: past this the process hangs, not the sink.
    ("max.poll.interval.ms", "60000"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.error.backoff.ms", "50"),
    // Prefetched bytes for each sink's consumer; a pause throws them away.
    ("queued.max.messages.kbytes", "4096"),
];

const CONSUMER_PROMISES: &[(&str, &str)] = &[
    // The newer protocol (KIP-848) wants librdkafka 2.15: until then a member that polled late is thrown out for good.
    ("group.protocol", "classic"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("isolation.level", "read_committed"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // A lost offset is an operator's decision, never a silent jump to the newest record.
    ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"),
    ("check.crcs", "true"),
    ("statistics.interval.ms", "0"),
];

/// Where Kafka is and how we speak to it. Cheap to clone; it opens no connection before it is used.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    bootstrap: String,
    client_id: String,
    properties: BTreeMap<String, Secret>,
    max_message_bytes: usize,
    /// For metadata requests; made at the first one.
    probe: OnceLock<Probe>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("bootstrap", &self.inner.bootstrap)
            .field("client_id", &self.inner.client_id)
            .finish_non_exhaustive()
    }
}

/// Kafka answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub brokers: usize,
}

impl Client {
    /// `client_id` is what brokers show in their logs and quotas.
    ///
    /// # Errors
    /// [`Error::TooOld`] for a librdkafka that loses records; [`Error::Property`] for a property it does not take.
    pub fn new(kafka: &config::Kafka, client_id: &str) -> Result<Self, Error> {
        let (number, found) = get_rdkafka_version();
        refuse_old(number, &found)?;
        let client = Self {
            inner: Arc::new(Inner {
                bootstrap: kafka.bootstrap_servers.clone(),
                client_id: client_id.to_owned(),
                properties: kafka.librdkafka.clone(),
                max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
                probe: OnceLock::new(),
            }),
        };
        // A value that librdkafka does not take is found here, before anything runs, whichever client it is for.
        let mut all = client.plain_config();
        for (name, value) in &kafka.librdkafka {
            all.set(name, value.expose());
        }
        all.create_native_config().map_err(|cause| client.start_error("client", cause))?;
        Ok(client)
    }

    /// The largest record that a producer takes, headers included (`max_body` and 256 KiB, DESIGN section 2).
    #[must_use]
    pub fn with_max_message_bytes(self, bytes: usize) -> Self {
        let inner = &self.inner;
        Self {
            inner: Arc::new(Inner {
                bootstrap: inner.bootstrap.clone(),
                client_id: inner.client_id.clone(),
                properties: inner.properties.clone(),
                max_message_bytes: bytes,
                probe: OnceLock::new(),
            }),
        }
    }

    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.inner.bootstrap
    }

    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes
    }

    /// One metadata request: whether any broker answers. librdkafka's own "all brokers down" is no health signal.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where none does within `timeout`.
    pub async fn ping(&self, timeout: Duration) -> Result<Answered, Error> {
        let client = self.clone();
        // A topic that every cluster has: asking for all topics would cost in proportion to their number.
        blocking("metadata", move || client.metadata(Some("__consumer_offsets"), timeout))
            .await
            .map(|found| Answered { brokers: found.brokers().len() })
    }

    /// Blocks for at most `timeout`. `None`: all topics.
    pub(super) fn metadata(
        &self,
        topic: Option<&str>,
        timeout: Duration,
    ) -> Result<rdkafka::metadata::Metadata, Error> {
        let probe = self.probe()?;
        let found = probe.producer.client().fetch_metadata(topic, timeout);
        probe.drain_log();
        found.map_err(|error| self.unreachable(timeout, &error))
    }

    /// Asks the leader itself for a partition's first and next offset. Blocks for at most `timeout`.
    pub(super) fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), Error> {
        let probe = self.probe()?;
        let found = probe.producer.client().fetch_watermarks(topic, partition, timeout);
        probe.drain_log();
        found.map_err(|error| self.unreachable(timeout, &error))
    }

    fn unreachable(&self, waited: Duration, error: &KafkaError) -> Error {
        Error::Unreachable { bootstrap: self.inner.bootstrap.clone(), waited, source: code_of(error) }
    }

    fn probe(&self) -> Result<&Probe, Error> {
        if let Some(probe) = self.inner.probe.get() {
            return Ok(probe);
        }
        let producer = self
            .plain_config()
            .create_with_context(Logged)
            .map_err(|cause| self.start_error("metadata client", cause))?;
        Ok(self.inner.probe.get_or_init(|| Probe { producer }))
    }

    /// Common settings only: for metadata and administration.
    pub(super) fn plain_config(&self) -> ClientConfig {
        self.config(Role::Plain, &[], &[("allow.auto.create.topics", "false")])
    }

    pub(super) fn producer_config(&self, limits: Limits, tuning: Tuning) -> ClientConfig {
        let mut config = self.config(Role::Producer, PRODUCER_DEFAULTS, PRODUCER_PROMISES);
        config
            .set("message.max.bytes", self.inner.max_message_bytes.to_string())
            .set("linger.ms", tuning.linger_ms)
            .set("max.in.flight.requests.per.connection", tuning.max_in_flight_requests.to_string())
            .set("batch.size", tuning.batch_bytes.to_string())
            // Above our own bound, so that librdkafka's queue never is the one that is full.
            .set("queue.buffering.max.messages", limits.max_in_flight_records.saturating_add(1024).to_string())
            .set("queue.buffering.max.kbytes", (limits.max_in_flight_bytes / 1024).saturating_add(1024).to_string());
        config
    }

    pub(super) fn transactional_config(&self, id: &str) -> ClientConfig {
        let mut config = self.producer_config(Limits::default(), Tuning::default());
        for (name, value) in TRANSACTION_PROMISES {
            config.set(*name, *value);
        }
        config.set("transactional.id", id);
        config
    }

    pub(super) fn consumer_config(&self, group: &str) -> ClientConfig {
        let mut config = self.config(Role::Consumer, CONSUMER_DEFAULTS, CONSUMER_PROMISES);
        config.set("group.id", group);
        config
    }

    /// For reading partitions that were not assigned by a group. librdkafka wants a group's name all the same, and asks
    /// who coordinates it; nobody joins it, and nothing is committed.
    pub(super) fn reader_config(&self, group: &str) -> ClientConfig {
        let mut config = self.consumer_config(group);
        // A reader wants what there is: what retention has taken before it came is nobody's loss.
        config.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
        config
    }

    fn config(&self, role: Role, defaults: &[(&str, &str)], promises: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in DEFAULTS.iter().chain(defaults) {
            config.set(*name, *value);
        }
        for (name, value) in self.inner.properties.iter().filter(|(name, _)| role.knows(name)) {
            config.set(name, value.expose());
        }
        for (name, value) in promises {
            config.set(*name, *value);
        }
        config.set("bootstrap.servers", &self.inner.bootstrap).set("client.id", &self.inner.client_id);
        config.set_log_level(log_level());
        config
    }

    /// rdkafka's error names the value that was refused; ours does not, since it may be a secret.
    pub(super) fn start_error(&self, role: &'static str, cause: KafkaError) -> Error {
        match cause {
            KafkaError::ClientConfig(_, reason, name, _) => Error::Property { reason: self.redacted(reason), name },
            KafkaError::ClientCreation(reason) => Error::Start { role, reason: self.redacted(reason) },
            other => Error::Start { role, reason: code_of(&other).to_string() },
        }
    }

    fn redacted(&self, mut text: String) -> String {
        for value in self.inner.properties.values().filter(|value| !value.is_empty()) {
            text = text.replace(value.expose(), "[redacted]");
        }
        text
    }
}

fn refuse_old(number: i32, found: &str) -> Result<(), Error> {
    let (least, name) = LEAST_VERSION;
    if number < least { Err(Error::TooOld { found: found.to_owned(), least: name }) } else { Ok(()) }
}

/// Runs a blocking call of librdkafka's off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    asked: &'static str,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(cause) => Err(Error::Admin { asked, reason: cause.to_string() }),
    }
}

/// A producer that produces nothing: rdkafka lets the log and error queue of a producer be read, and of a plain client
/// not, where it would grow for as long as a broker is down.
struct Probe {
    producer: BaseProducer<Logged>,
}

impl Probe {
    fn drain_log(&self) {
        self.producer.poll(Duration::ZERO);
    }
}

/// A context that only logs.
pub(super) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Logged {}

impl ProducerContext for Logged {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// librdkafka formats lines up to this level; what `tracing` would drop is not even formatted.
fn log_level() -> RDKafkaLogLevel {
    if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
        RDKafkaLogLevel::Debug
    } else if tracing::enabled!(target: "librdkafka", tracing::Level::INFO) {
        RDKafkaLogLevel::Info
    } else {
        RDKafkaLogLevel::Warning
    }
}

/// librdkafka's log, in `tracing`'s levels. It prints neither passwords nor payloads (`debug` is not allow-listed).
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        // Lost connections are "errors" to librdkafka and come by the second while a broker restarts.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// What librdkafka reports beside its log, which has a line on each already.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    tracing::debug!(target: "librdkafka", code = %code_of(error), "{reason}");
}

#[cfg(test)]
mod tests;
