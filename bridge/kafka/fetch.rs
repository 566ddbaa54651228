//! Single records, by partition and offset: the bodies of parked records, which nobody keeps in memory.
//!
//! One assigned consumer on a thread of its own, a member of no group. It reads one partition at a time, and nothing
//! while nobody asks.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::client::{Client, Logged};
use super::consume::record;
use super::{Code, Error, NextOffset, Record, TopicPartition, code_of};

/// Requests that may wait: more than any sink has calls out.
const WAITING: usize = 1_024;

/// For one record: a leader that is being elected is waited for.
const WITHIN: Duration = Duration::from_secs(5);

/// For a partition's first offset, by which a record is known to be gone for good.
const BEGINNING_WITHIN: Duration = Duration::from_secs(2);

/// One wait for the record.
const POLL: Duration = Duration::from_millis(50);

/// How often an idle reader serves its log and its errors.
const IDLE: Duration = Duration::from_millis(250);

/// A record so many offsets further on is read up to; one beyond is sought, which costs a round trip more.
const NEAR: i64 = 50;

/// Why a record was not read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// For good: retention has taken it, or it never was there for a reader of committed records.
    #[error("{at} has no record at offset {offset} any more")]
    Absent { at: TopicPartition, offset: i64 },
    #[error("{at} could not be read at offset {offset}")]
    Unread {
        at: TopicPartition,
        offset: i64,
        #[source]
        source: Option<Code>,
    },
    #[error("the reader has stopped, or has too much to do")]
    Refused,
}

struct Request {
    at: TopicPartition,
    offset: i64,
    reply: oneshot::Sender<Result<Record, Failure>>,
}

/// Reads single records. Cheap to clone; the last one that is dropped ends the reader.
#[derive(Clone)]
pub struct Fetcher {
    requests: SyncSender<Request>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    /// `group` is nobody's: librdkafka wants the name of one.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::Start`]; a broker that is down is none.
    pub fn start(client: &Client, group: &str) -> Result<Self, Error> {
        let mut config = client.reader_config(group);
        // One record is wanted, not those behind it.
        config.set("queued.min.messages", "1").set("auto.offset.reset", "error");
        let consumer: BaseConsumer<Logged> =
            config.create_with_context(Logged).map_err(|cause| client.start_error("record reader", cause))?;
        let (requests, orders) = sync_channel(WAITING);
        thread::Builder::new()
            .name("kafka-fetch".to_owned())
            .spawn(move || run(&consumer, &orders))
            .map_err(|cause| Error::Start { role: "record reader", reason: cause.to_string() })?;
        Ok(Self { requests })
    }

    /// The record at `offset`, as a reader of committed records sees it.
    pub async fn fetch(&self, at: TopicPartition, offset: i64) -> Result<Record, Failure> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request { at, offset, reply }).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Failure::Refused,
        })?;
        answer.await.unwrap_or(Err(Failure::Refused))
    }
}

/// Where the consumer reads.
struct Place {
    at: TopicPartition,
    next: i64,
}

fn run(consumer: &BaseConsumer<Logged>, requests: &Receiver<Request>) {
    let mut place = None;
    loop {
        match requests.recv_timeout(IDLE) {
            Ok(request) => {
                let answer = read(consumer, &mut place, &request.at, request.offset);
                // Whoever asked may have gone.
                let _ = request.reply.send(answer);
            }
            Err(RecvTimeoutError::Timeout) => {
                if place.take().is_some()
                    && let Err(error) = consumer.unassign()
                {
                    tracing::debug!(%error, "a reader that is idle stays assigned");
                }
                consumer.poll(Duration::ZERO);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn read(
    consumer: &BaseConsumer<Logged>,
    place: &mut Option<Place>,
    at: &TopicPartition,
    offset: i64,
) -> Result<Record, Failure> {
    let absent = || Failure::Absent { at: at.clone(), offset };
    // A leader that is new may not know yet how far the log reaches; where it begins it knows.
    let gone = |source| match consumer.fetch_watermarks(&at.topic, at.partition, BEGINNING_WITHIN) {
        Ok((beginning, _)) if beginning > offset => absent(),
        Ok(_) | Err(_) => Failure::Unread { at: at.clone(), offset, source },
    };
    let unread = |source| Failure::Unread { at: at.clone(), offset, source };
    let near = place.as_ref().is_some_and(|place| place.at == *at && (place.next..place.next + NEAR).contains(&offset));
    if !near {
        *place = None;
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset));
        added.and_then(|()| consumer.assign(&list)).map_err(|error| unread(Some(code_of(&error))))?;
        *place = Some(Place { at: at.clone(), next: offset });
    }
    let begun = Instant::now();
    let mut source = None;
    while begun.elapsed() < WITHIN {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                // What was on its way from another place says nothing.
                if message.partition() != at.partition || message.topic() != &*at.topic || message.offset() < offset {
                    continue;
                }
                let found = message.offset();
                *place = Some(Place { at: at.clone(), next: NextOffset::after(found).get() });
                return if found == offset { Ok(record(at.clone(), &message)) } else { Err(absent()) };
            }
            // The end lies before it, or nothing but markers comes behind it.
            Some(Err(KafkaError::PartitionEOF(partition))) if partition == at.partition => {
                *place = None;
                return Err(gone(None));
            }
            Some(Err(error)) => {
                use rdkafka::types::RDKafkaErrorCode as C;
                let code = code_of(&error);
                if matches!(code.0, C::AutoOffsetReset | C::OffsetOutOfRange) {
                    *place = None;
                    return Err(gone(Some(code)));
                }
                source = Some(code);
            }
            None => {}
        }
    }
    *place = None;
    Err(unread(source))
}
