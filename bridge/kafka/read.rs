//! Records in, without a group: given partitions from given offsets up to an end that was seen before, and, where it is
//! asked for, on from there. For what every process has to know of a topic, where a group would share it out.
//!
//! A thread of its own reads, and makes of each record what the caller keeps of it: a record is not copied to be looked
//! at. What it made comes in batches on a bounded channel; while that is full, the thread waits.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::metadata::MetadataPartition;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc;

use super::client::{Client, Logged, blocking};
use super::{Code, Error, NextOffset, TopicPartition, code_of};

/// For one question about offsets.
const ASK: Duration = Duration::from_secs(10);
/// How long one wait for a record may last: after it, a reader that nobody listens to ends.
const POLL: Duration = Duration::from_millis(100);
/// What is kept of so many records is handed over at once, or of fewer when no more come.
const BATCH: usize = 1_000;
/// Batches that may wait.
const EVENTS: usize = 4;

/// A stretch of a partition: from `start` up to, and without, `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    pub at: TopicPartition,
    pub start: NextOffset,
    pub end: NextOffset,
}

/// What a reader does at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Stop,
    /// It goes on with what is written from then on, to the partitions that it was given.
    Follow,
}

/// Everything that a reader can tell.
#[derive(Debug)]
pub enum Event<T> {
    /// What was made of records: in offset order for each partition.
    Batch(Vec<T>),
    /// Every extent was read to its end. Comes once.
    CaughtUp,
    /// Something that somebody should know; the reader goes on trying.
    Trouble(Code),
    /// The reader has ended and will say nothing more.
    Ended(Option<Error>),
}

/// A record where it lies, to be looked at.
pub struct Glimpse<'a>(&'a BorrowedMessage<'a>);

impl fmt::Debug for Glimpse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glimpse({}/{}@{})", self.topic(), self.partition(), self.offset())
    }
}

impl Glimpse<'_> {
    #[must_use]
    pub fn topic(&self) -> &str {
        self.0.topic()
    }

    #[must_use]
    pub fn partition(&self) -> i32 {
        self.0.partition()
    }

    #[must_use]
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// Broker or producer time, milliseconds since the epoch.
    #[must_use]
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.0.timestamp().to_millis()
    }

    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// `None`: a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// The headers of these names, as text, in one pass; of a name that repeats, the last.
    #[must_use]
    pub fn headers<const N: usize>(&self, names: [&str; N]) -> [Option<&str>; N] {
        let mut found = [None; N];
        let headers = self.0.headers();
        for header in headers.iter().flat_map(|headers| headers.iter()) {
            if let Some(place) = names.iter().position(|name| *name == header.key) {
                found[place] = header.value.and_then(|value| std::str::from_utf8(value).ok());
            }
        }
        found
    }
}

impl Client {
    /// What the topics hold for a `read_committed` reader that was written at or after `since_ms`, in milliseconds since
    /// the epoch: an extent for every partition, empty ones included. `group`: see [`Reader::start`].
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Topic`].
    pub async fn extents(&self, group: &str, topics: Vec<String>, since_ms: i64) -> Result<Vec<Extent>, Error> {
        let (client, group) = (self.clone(), group.to_owned());
        blocking("offsets", move || extents(&client, &group, &topics, since_ms)).await
    }

    /// A consumer that is in no group and reads what it is given.
    pub(super) fn reader(&self, group: &str) -> Result<BaseConsumer<Logged>, Error> {
        self.reader_config(group).create_with_context(Logged).map_err(|cause| self.start_error("reader", cause))
    }

    /// The partitions of a topic; none where it does not exist.
    pub(super) fn partitions(&self, topic: &str) -> Result<Vec<i32>, Error> {
        let metadata = self.metadata(Some(topic), ASK)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(Vec::new()) };
        match found.error().map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(Vec::new()),
            Some(code) => {
                return Err(Error::Topic { topic: topic.to_owned(), asked: "read", source: code.into() });
            }
        }
        Ok(found.partitions().iter().map(MetadataPartition::id).collect())
    }
}

fn extents(client: &Client, group: &str, topics: &[String], since_ms: i64) -> Result<Vec<Extent>, Error> {
    let mut partitions = Vec::new();
    for topic in topics {
        let name: Arc<str> = topic.as_str().into();
        let ids = client.partitions(topic)?.into_iter();
        partitions.extend(ids.map(|partition| TopicPartition { topic: Arc::clone(&name), partition }));
    }
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let consumer = client.reader(group)?;
    let ask = |at: Offset| -> Result<Vec<Offset>, Error> {
        let wanted = assignment(partitions.iter().map(|partition| (partition, at)));
        let wanted = wanted.map_err(|cause| asked(&partitions[0], &cause))?;
        let found = consumer.offsets_for_times(wanted, ASK).map_err(|cause| asked(&partitions[0], &cause))?;
        let offsets = found.elements().into_iter().zip(&partitions).map(|(element, partition)| {
            element.error().map_err(|cause| asked(partition, &cause))?;
            Ok(element.offset())
        });
        offsets.collect()
    };
    // In the place of a time, Kafka takes a word for the first and for the next offset (ListOffsets, KIP-79).
    let (firsts, ends, since) = (ask(Offset::Beginning)?, ask(Offset::End)?, ask(Offset::Offset(since_ms.max(0)))?);
    let mut extents = Vec::with_capacity(partitions.len());
    for (((at, first), end), since) in partitions.into_iter().zip(firsts).zip(ends).zip(since) {
        let (Offset::Offset(first), Offset::Offset(end)) = (first, end) else {
            return Err(Error::NoLeader { topic: at.topic.to_string(), partition: at.partition, waited: ASK });
        };
        // No offset: nothing is as young as that.
        let start = if let Offset::Offset(since) = since { since.clamp(first, end.max(first)) } else { end };
        extents.push(Extent { at, start: NextOffset::stored(start), end: NextOffset::stored(end) });
    }
    Ok(extents)
}

fn asked(at: &TopicPartition, cause: &KafkaError) -> Error {
    Error::Topic { topic: at.topic.to_string(), asked: "asked for its offsets", source: code_of(cause) }
}

/// A reader, as a stream of [`Event`]s. Dropped, it ends.
#[derive(Debug)]
pub struct Reader<T> {
    events: mpsc::Receiver<Event<T>>,
}

impl<T: Send + 'static> Reader<T> {
    /// Reads the extents, topic after topic, and makes of each record what `look` makes of it; `None` is left out.
    /// `group` is nobody's: librdkafka wants the name of one, and may have to be allowed to ask for its coordinator.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::Start`]; a broker that is down is none.
    pub fn start(
        client: &Client,
        group: &str,
        extents: Vec<Extent>,
        then: Then,
        look: impl FnMut(&Glimpse<'_>) -> Option<T> + Send + 'static,
    ) -> Result<Self, Error> {
        let consumer = client.reader(group)?;
        let (sender, events) = mpsc::channel(EVENTS);
        thread::Builder::new()
            .name("kafka-read".to_owned())
            .spawn(move || {
                let mut reading = Reading { consumer, events: sender, look, batch: Vec::new() };
                let ended = reading.run(extents, then);
                let Reading { consumer, events, .. } = reading;
                let cause = match ended {
                    Ok(()) | Err(Stop::Unheard) => None,
                    Err(Stop::Failed(error)) => Some(error),
                };
                // Nobody may be listening, which is how most readers end.
                let _ = events.blocking_send(Event::Ended(cause));
                // Last, and here: it waits for librdkafka's threads.
                drop(consumer);
            })
            .map_err(|cause| Error::Start { role: "reader thread", reason: cause.to_string() })?;
        Ok(Self { events })
    }

    /// The next event; `None` after [`Event::Ended`].
    pub async fn next(&mut self) -> Option<Event<T>> {
        self.events.recv().await
    }
}

fn assignment<'a>(partitions: impl Iterator<Item = (&'a TopicPartition, Offset)>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (at, offset) in partitions {
        list.add_partition_offset(&at.topic, at.partition, offset)?;
    }
    Ok(list)
}

/// What the reader's thread has.
struct Reading<T, L> {
    consumer: BaseConsumer<Logged>,
    events: mpsc::Sender<Event<T>>,
    look: L,
    batch: Vec<T>,
}

/// Why it ends before it is done.
enum Stop {
    /// Nobody listens any more.
    Unheard,
    Failed(Error),
}

/// What one poll came to.
enum Got {
    Record {
        partition: i32,
        offset: i64,
    },
    /// There is no more in a partition for the time being.
    End {
        partition: i32,
    },
    Nothing,
}

impl<T, L: FnMut(&Glimpse<'_>) -> Option<T>> Reading<T, L> {
    fn run(&mut self, mut extents: Vec<Extent>, then: Then) -> Result<(), Stop> {
        extents.sort_by(|one, other| one.at.cmp(&other.at));
        // One topic after the other, since rdkafka names the partition whose end is reached by its number only. An end
        // has to be told where the last offsets are no records: of markers, or of transactions that were aborted.
        for topic in extents.chunk_by_mut(|one, other| one.at.topic == other.at.topic) {
            self.read(topic)?;
        }
        self.hand_over()?;
        self.tell(Event::CaughtUp)?;
        if then == Then::Stop || extents.is_empty() {
            return Ok(());
        }
        self.assign(extents.iter())?;
        loop {
            self.poll()?;
        }
    }

    /// Reads the partitions of one topic, and a little beyond where others take longer. Their starts move along.
    fn read(&mut self, extents: &mut [Extent]) -> Result<(), Stop> {
        let is_open = |extent: &&Extent| extent.start < extent.end;
        if !extents.iter().any(|extent| is_open(&extent)) {
            return Ok(());
        }
        self.assign(extents.iter().filter(is_open))?;
        while extents.iter().any(|extent| is_open(&extent)) {
            match self.poll()? {
                Got::Record { partition, offset } => {
                    if let Some(extent) = extents.iter_mut().find(|extent| extent.at.partition == partition) {
                        extent.start = NextOffset::after(offset);
                    }
                }
                Got::End { partition } => {
                    if let Some(extent) = extents.iter_mut().find(|extent| extent.at.partition == partition) {
                        extent.start = extent.start.max(extent.end);
                    }
                }
                Got::Nothing => {}
            }
        }
        Ok(())
    }

    fn assign<'a>(&self, extents: impl Iterator<Item = &'a Extent>) -> Result<(), Stop> {
        let list = assignment(extents.map(|extent| (&extent.at, Offset::Offset(extent.start.get()))));
        let assigned = list.and_then(|list| self.consumer.assign(&list));
        assigned.map_err(|cause| Stop::Failed(Error::Start { role: "reader", reason: code_of(&cause).to_string() }))
    }

    fn poll(&mut self) -> Result<Got, Stop> {
        let Self { consumer, look, batch, .. } = self;
        let mut polled = consumer.poll(Duration::ZERO);
        if polled.is_none() {
            // Nothing at once: what there is goes out before anything is waited for.
            hand_over(&self.events, batch)?;
            if self.events.is_closed() {
                return Err(Stop::Unheard);
            }
            polled = consumer.poll(POLL);
        }
        let got = match polled {
            None => Got::Nothing,
            Some(Err(KafkaError::PartitionEOF(partition))) => Got::End { partition },
            Some(Err(error)) => {
                heed(consumer, &self.events, &error)?;
                Got::Nothing
            }
            Some(Ok(message)) => {
                batch.extend(look(&Glimpse(&message)));
                Got::Record { partition: message.partition(), offset: message.offset() }
            }
        };
        if batch.len() >= BATCH {
            hand_over(&self.events, batch)?;
        }
        Ok(got)
    }

    fn hand_over(&mut self) -> Result<(), Stop> {
        hand_over(&self.events, &mut self.batch)
    }

    fn tell(&self, event: Event<T>) -> Result<(), Stop> {
        self.events.blocking_send(event).map_err(|_| Stop::Unheard)
    }
}

fn hand_over<T>(events: &mpsc::Sender<Event<T>>, batch: &mut Vec<T>) -> Result<(), Stop> {
    if batch.is_empty() {
        return Ok(());
    }
    events.blocking_send(Event::Batch(std::mem::take(batch))).map_err(|_| Stop::Unheard)
}

fn heed<T>(consumer: &BaseConsumer<Logged>, events: &mpsc::Sender<Event<T>>, error: &KafkaError) -> Result<(), Stop> {
    use RDKafkaErrorCode as C;
    let code = code_of(error);
    if let Some((_, reason)) = consumer.client().fatal_error() {
        return Err(Stop::Failed(Error::ReaderFatal { reason, source: code }));
    }
    match code.0 {
        // Connections come and go, and librdkafka says "all brokers down" at odd times.
        C::AllBrokersDown | C::BrokerTransportFailure | C::Resolve | C::OperationTimedOut => Ok(()),
        _ => events.blocking_send(Event::Trouble(code)).map_err(|_| Stop::Unheard),
    }
}

#[cfg(test)]
mod tests;
