//! Records out: bounded, acknowledged by all in-sync replicas, in order per key; a producer is replaced when it dies.
//!
//! A record costs one allocation of ours, its `Flight`, shared by the delivery report and by whoever waits. What has to
//! happen with every report, whether or not somebody waits, happens on the report thread: see [`Landing`].

mod flight;
mod lanes;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode;

pub use self::flight::Pending;
use self::flight::{Flight, Load};
use self::lanes::{Lane, Place};
use super::client::{Client, log_error, log_line};
use super::{Code, Error, Position, code_of};

/// How long one call into the delivery queue may last: after it, a fatal error and a dropped publisher are noticed. rdkafka
/// spends the last millisecond of a call asking the clock, so that a short one would be a load on an idle process.
const POLL: Duration = Duration::from_millis(250);

/// How long the end of a producer waits for the answers to what it has sent; a broker that is there needs less.
const DRAIN: Duration = Duration::from_secs(5);

/// A producer that lived shorter than this was not helped by its replacement, and the next one waits.
const SHORT_LIFE: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The bound on what waits for an acknowledgement; past it [`Publisher::publish`] refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of keys, values and headers.
    pub max_in_flight_bytes: usize,
    pub max_in_flight_records: usize,
}

impl Default for Limits {
    /// 64 MiB: two seconds of 30,000 records of 1 KiB; 100,000 records: what their bookkeeping adds stays below that.
    fn default() -> Self {
        Self { max_in_flight_bytes: 64 << 20, max_in_flight_records: 100_000 }
    }
}

/// The knobs of batching, in one place to be measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    pub(super) linger_ms: &'static str,
    pub(super) max_in_flight_requests: u32,
    pub(super) batch_bytes: u32,
}

impl Tuning {
    fn of(lane: Lane) -> Self {
        match lane {
            // As many requests as idempotence allows: a record here has nobody to share one with.
            Lane::Calm => Self { linger_ms: "0", max_in_flight_requests: 5, ..Self::default() },
            Lane::Busy => Self::default(),
        }
    }
}

impl Default for Tuning {
    /// The busy lane's. librdkafka writes one partition a request and, with its queue threshold of one, forms no further
    /// batch while a request waits to be sent: batches grow by themselves once as many requests are out as may be. So the
    /// fewer those are, the fuller each is, for the brokers as for us. Measured on one broker with keys over 16 partitions
    /// (600 bytes, 7 headers), three requests and a millisecond against five and a half: a fifth more records a second at
    /// 64 senders, a tenth at 256, for a tenth less CPU here and a sixth less at the broker. Two requests lost a tenth at
    /// 256 senders; two milliseconds gained nothing more. A lone record is on the calm lane and waits for none of this.
    fn default() -> Self {
        Self { linger_ms: "1", max_in_flight_requests: 3, batch_bytes: 512 << 10 }
    }
}

/// A record to publish. What it borrows is copied once, into librdkafka's queue.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    /// `None`: by the key's hash (murmur2), at random without a key.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    /// `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a [u8])],
    /// `None`: now, by the producer's clock.
    pub timestamp_ms: Option<i64>,
}

impl Outgoing<'_> {
    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }
}

/// What a record was published with, for [`Landing`] to know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub u64, pub u64);

/// Told how every record that was published with a ticket ended, once each: on the report thread, which must not wait,
/// and before whoever awaits that record is told.
pub trait Landing: Send + Sync + fmt::Debug {
    /// `report` is what [`Pending`] will say.
    fn landed(&self, ticket: Ticket, report: Result<Position, &Error>);
}

/// How the publisher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Not while a producer that met a fatal error is being replaced.
    pub ok: bool,
    /// Producers replaced after a fatal error since the start.
    pub restarts: u64,
    pub in_flight_bytes: usize,
    pub in_flight_records: usize,
}

/// Publishes records. Cheap to clone; when the last clone goes, what is still queued is purged:
/// [`Publisher::flush`] first.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("health", &self.health()).finish_non_exhaustive()
    }
}

struct Shared {
    client: Client,
    limits: Limits,
    reports: Reports,
    /// By [`Lane::index`].
    producers: [Producing; 2],
    restarts: AtomicU64,
}

/// The producer of one lane.
struct Producing {
    /// Read for the length of an enqueue, written once in a producer's life.
    current: RwLock<Instance>,
    restarting: AtomicBool,
}

impl Shared {
    fn producing(&self, lane: Lane) -> &Producing {
        &self.producers[lane.index()]
    }
}

type Instance = Arc<BaseProducer<Reports>>;

impl Publisher {
    /// Opens the producers and their threads of delivery reports. They connect by themselves, and wait for nothing.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::Start`] where librdkafka refuses the settings.
    pub fn start(client: &Client, limits: Limits) -> Result<Self, Error> {
        Self::open(client, limits, None)
    }

    /// The same, with somebody to be told of every record that has a ticket.
    ///
    /// # Errors
    /// As [`Publisher::start`].
    pub fn start_telling(client: &Client, limits: Limits, landing: Arc<dyn Landing>) -> Result<Self, Error> {
        Self::open(client, limits, Some(landing))
    }

    fn open(client: &Client, limits: Limits, landing: Option<Arc<dyn Landing>>) -> Result<Self, Error> {
        let reports = Reports { load: Arc::new(Load::new(limits)), landing };
        let [calm, busy] = Lane::ALL.map(|lane| open(client, limits, lane, &reports));
        let instances = [calm?, busy?];
        let producers = instances.each_ref().map(|instance| Producing {
            current: RwLock::new(Arc::clone(instance)),
            restarting: AtomicBool::new(false),
        });
        let shared =
            Arc::new(Shared { client: client.clone(), limits, reports, producers, restarts: AtomicU64::new(0) });
        for (lane, instance) in Lane::ALL.into_iter().zip(instances) {
            report_on(instance, lane, Arc::downgrade(&shared), FIRST_WAIT)?;
        }
        Ok(Self { shared })
    }

    /// Enqueues the record or refuses it, at once. Records of one key that one thread enqueues keep that order, and so do
    /// those whose partition it names, within the partition.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::TooLarge`], [`Error::Refused`], [`Error::Fatal`]: nothing was enqueued.
    pub fn publish(&self, record: Outgoing<'_>) -> Result<Pending, Error> {
        self.enqueue(&record, None)
    }

    /// The same, with a ticket by which [`Landing`] is told of the record's end; of one that is refused it is not told.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn publish_telling(&self, record: Outgoing<'_>, ticket: Ticket) -> Result<Pending, Error> {
        self.enqueue(&record, Some(ticket))
    }

    fn enqueue(&self, record: &Outgoing<'_>, ticket: Option<Ticket>) -> Result<Pending, Error> {
        let bytes = record.bytes();
        let load = &self.shared.reports.load;
        let in_flight = load.claim(bytes)?;
        let place = match record.partition {
            Some(_) => Place::OF_A_PARTITION,
            None => load.lanes.enter(record.key, in_flight),
        };
        let flight = Arc::new(Flight::new(bytes, place, ticket));
        let sent = {
            let current = &self.shared.producing(place.lane).current;
            let current = current.read().unwrap_or_else(PoisonError::into_inner);
            current.send(BaseRecord {
                topic: record.topic,
                partition: record.partition,
                payload: record.value,
                key: record.key,
                timestamp: record.timestamp_ms,
                headers: headers(record.headers),
                delivery_opaque: Arc::clone(&flight),
            })
        };
        match sent {
            Ok(()) => Ok(Pending { flight }),
            Err((cause, _)) => {
                load.lanes.leave(place);
                load.release(bytes);
                Err(self.not_enqueued(record, bytes, &cause))
            }
        }
    }

    fn not_enqueued(&self, record: &Outgoing<'_>, bytes: usize, cause: &KafkaError) -> Error {
        let code = code_of(cause);
        match code.0 {
            RDKafkaErrorCode::QueueFull => self.shared.reports.load.full(),
            RDKafkaErrorCode::MessageSizeTooLarge => {
                Error::TooLarge { topic: record.topic.to_owned(), bytes, limit: self.shared.client.max_message_bytes() }
            }
            RDKafkaErrorCode::Fatal => Error::Fatal { source: code },
            _ => Error::Refused { topic: record.topic.to_owned(), partition: record.partition, source: code },
        }
    }

    /// Waits until nothing is in flight. New records may still come meanwhile: stop accepting them first.
    ///
    /// # Errors
    /// [`Error::FlushTimedOut`] past the deadline; what is in flight then stays so.
    pub async fn flush(&self, deadline: Duration) -> Result<(), Error> {
        let load = &self.shared.reports.load;
        let idle = async {
            loop {
                // Asked for before the look, so that the last report cannot fall between the two.
                let idle = load.idle.notified();
                if load.records.load(Ordering::Acquire) == 0 {
                    break;
                }
                idle.await;
            }
        };
        tokio::time::timeout(deadline, idle)
            .await
            .map_err(|_| Error::FlushTimedOut { left: load.records.load(Ordering::Relaxed), waited: deadline })
    }

    #[must_use]
    pub fn health(&self) -> Health {
        let shared = &self.shared;
        Health {
            ok: shared.producers.iter().all(|producing| !producing.restarting.load(Ordering::Relaxed)),
            restarts: shared.restarts.load(Ordering::Relaxed),
            in_flight_bytes: shared.reports.load.bytes.load(Ordering::Relaxed),
            in_flight_records: shared.reports.load.records.load(Ordering::Relaxed),
        }
    }
}

fn headers(headers: &[(&str, &[u8])]) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let empty = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.iter().fold(empty, |all, (key, value)| all.insert(Header { key, value: Some(*value) })))
}

/// Receives librdkafka's callbacks, on the report thread.
#[derive(Clone)]
struct Reports {
    load: Arc<Load>,
    landing: Option<Arc<dyn Landing>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Arc<Flight>) {
        let landed = match result {
            Ok(message) => accepted(message.topic(), message.partition(), message.offset()),
            Err((cause, message)) => Err(failed(message.topic(), message.partition(), code_of(cause))),
        };
        // Released first: who waits for this record may publish the next at once.
        self.load.lanes.leave(flight.place);
        self.load.release(flight.bytes);
        if let (Some(ticket), Some(landing)) = (flight.ticket, &self.landing) {
            landing.landed(ticket, landed.as_ref().copied());
        }
        flight.land(landed);
    }
}

/// A report without an offset is no acknowledgement: librdkafka infers it from a later batch, and the record may be
/// missing from the log (seen on Kafka 4.3.1 with batches that met NOT_LEADER right after a topic's creation).
fn accepted(topic: &str, partition: i32, offset: i64) -> Result<Position, Error> {
    if offset < 0 || partition < 0 {
        return Err(Error::Unknown { topic: topic.to_owned(), partition: known(partition), source: None });
    }
    Ok(Position { partition, offset })
}

fn failed(topic: &str, partition: i32, code: Code) -> Error {
    let (topic, partition) = (topic.to_owned(), known(partition));
    if not_persisted(code) {
        Error::Refused { topic, partition, source: code }
    } else {
        Error::Unknown { topic, partition, source: Some(code) }
    }
}

fn known(partition: i32) -> Option<i32> {
    (partition >= 0).then_some(partition)
}

/// Whether a failed report means that no attempt at the record can have reached the log. rdkafka does not show
/// librdkafka's own word on it (`rd_kafka_message_status`), so only refusals by content or by right are taken for one;
/// a time-out or a purge is not, for the record may have been out.
fn not_persisted(code: Code) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code.0,
        C::UnknownTopic
            | C::UnknownPartition
            | C::InvalidTopic
            | C::InvalidRecord
            | C::InvalidTimestamp
            | C::MessageSizeTooLarge
            | C::TopicAuthorizationFailed
            | C::ClusterAuthorizationFailed
            | C::PolicyViolation
            | C::UnsupportedForMessageFormat
            | C::UnsupportedCompressionType
    )
}

#[cfg(feature = "seeded-bugs")]
fn with_one_ack_where_seeded(mut config: rdkafka::ClientConfig) -> rdkafka::ClientConfig {
    if crate::seeded::has(crate::seeded::Bug::OneAck) {
        config.set("acks", "1").set("enable.idempotence", "false");
    }
    config
}

fn open(client: &Client, limits: Limits, lane: Lane, reports: &Reports) -> Result<Instance, Error> {
    let config = client.producer_config(limits, Tuning::of(lane));
    #[cfg(feature = "seeded-bugs")]
    let config = with_one_ack_where_seeded(config);
    config.create_with_context(reports.clone()).map(Arc::new).map_err(|cause| client.start_error("producer", cause))
}

/// The report thread of one producer: it lives as long as the producer, and makes the next one if that dies.
fn report_on(producer: Instance, lane: Lane, shared: Weak<Shared>, wait: Duration) -> Result<(), Error> {
    thread::Builder::new()
        .name("kafka-reports".to_owned())
        .spawn(move || {
            let born = Instant::now();
            loop {
                producer.poll(POLL);
                let Some(shared) = shared.upgrade() else { break };
                // Asked for, since the error event carries what caused it and does not say that it is fatal.
                if let Some((code, reason)) = producer.client().fatal_error() {
                    tracing::error!(%code, reason, "the producer met a fatal error and is replaced");
                    let wait = if born.elapsed() < SHORT_LIFE { wait } else { FIRST_WAIT };
                    replace(&producer, lane, &shared, wait);
                    break;
                }
            }
            // Also the last reference to the producer: it goes on this thread, which may wait for it.
            drain(&producer);
        })
        .map(drop)
        .map_err(|cause| Error::Start { role: "producer thread", reason: cause.to_string() })
}

/// Puts a new producer in the place of one that met a fatal error. Until then every publish on its lane says [`Error::Fatal`].
fn replace(dead: &Instance, lane: Lane, shared: &Arc<Shared>, mut wait: Duration) {
    let producing = shared.producing(lane);
    producing.restarting.store(true, Ordering::Relaxed);
    loop {
        dead.poll(wait);
        wait = (wait * 2).min(LONGEST_WAIT);
        let next = open(&shared.client, shared.limits, lane, &shared.reports).and_then(|next| {
            report_on(Arc::clone(&next), lane, Arc::downgrade(shared), wait)?;
            Ok(next)
        });
        match next {
            Ok(next) => {
                *producing.current.write().unwrap_or_else(PoisonError::into_inner) = next;
                shared.restarts.fetch_add(1, Ordering::Relaxed);
                producing.restarting.store(false, Ordering::Relaxed);
                return;
            }
            Err(error) => tracing::error!(%error, "the producer cannot be replaced yet"),
        }
    }
}

/// Reports on everything that a producer still holds, so that nobody waits for ever. What was sent may yet be answered,
/// which is worth more than a purge's "unknown"; what was not is purged at once.
fn drain(producer: &Instance) {
    producer.purge(PurgeConfig::default().queue());
    settle(producer, Instant::now() + DRAIN);
    producer.purge(PurgeConfig::default().inflight());
    settle(producer, Instant::now() + DRAIN);
}

fn settle(producer: &Instance, until: Instant) {
    while producer.in_flight_count() > 0 && Instant::now() < until {
        producer.poll(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests;
