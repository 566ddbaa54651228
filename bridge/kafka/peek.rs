//! Records looked at without a group: every partition of some topics, from wherever one likes, for people who want to
//! see what is there. Nothing is committed and no group is left behind. Blocking; one thread's.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Client, Logged, log_error};
use super::consume::record;
use super::{Code, Error, Record, TopicPartition, code_of};

/// For one question about a topic or its offsets.
const ASK: Duration = Duration::from_secs(10);

/// A full round past every queue is made at least this often; what arrives rings before.
const ROUND: Duration = Duration::from_millis(200);

/// One wait for the next record of a look that has an end.
const WAIT: Duration = Duration::from_secs(1);

/// After so long without a record and without an end, Kafka is not there: an election takes the broker's session timeout.
const STALLED: Duration = Duration::from_secs(30);

/// librdkafka wants a name; the broker never hears of it, since nobody joins and nothing is committed.
const GROUP: &str = "hookbridge.peek";

/// Where to start, in every partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    Beginning,
    /// With the next record that is written.
    End,
    /// With the last so many offsets of each partition. Fewer records may be there: transactions use offsets as well.
    Last(u64),
    /// With the first record of this time or later, in milliseconds since the Unix epoch.
    Since(i64),
}

/// What a look gave.
#[derive(Debug)]
pub enum Seen {
    Record(Record),
    /// Every partition was read to where it ended then. Told once.
    End,
    /// Nothing came in time.
    Nothing,
}

/// A look at some topics.
pub struct Peek {
    consumer: Arc<BaseConsumer<Logged>>,
    queues: Vec<Queue>,
    /// Whose turn it is, so that a busy partition does not hide the others.
    turn: usize,
    bell: Arc<Bell>,
    ends_told: bool,
    whole: bool,
    bootstrap: String,
}

struct Queue {
    at: TopicPartition,
    messages: PartitionQueue<Logged>,
    /// Read to where it ended.
    ended: bool,
}

impl fmt::Debug for Peek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peek").field("partitions", &self.queues.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// Those of the topics that exist.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or [`Error::Topic`] for one that may not be read.
    pub fn existing(&self, topics: &[String]) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for topic in topics {
            if !self.partitions(topic)?.is_empty() {
                found.push(topic.clone());
            }
        }
        Ok(found)
    }

    /// Begins to read the topics; one that does not exist has no records. Committed records only.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; [`Error::Topic`] for one that may not be read; [`Error::Start`].
    pub fn peek(&self, topics: &[String], from: Begin) -> Result<Peek, Error> {
        let mut partitions = Vec::new();
        for topic in topics {
            let name: Arc<str> = Arc::from(topic.as_str());
            let of_topic = self.partitions(topic)?;
            partitions.extend(of_topic.iter().map(|id| TopicPartition { topic: Arc::clone(&name), partition: *id }));
        }
        let consumer = Arc::new(self.reader(GROUP)?);
        let (starts, whole) = self.starts(&consumer, &partitions, from)?;
        consumer.assign(&starts).map_err(|cause| self.start_error("reader", cause))?;
        let bell = Arc::new(Bell::default());
        let split = |at: TopicPartition| {
            let mut messages = consumer.split_partition_queue(&at.topic, at.partition)?;
            let rung = Arc::clone(&bell);
            messages.set_nonempty_callback(move || rung.ring());
            Some(Queue { at, messages, ended: false })
        };
        let queues = partitions.into_iter().filter_map(split).collect();
        let bootstrap = self.bootstrap().to_owned();
        Ok(Peek { consumer, queues, turn: 0, bell, ends_told: false, whole, bootstrap })
    }

    /// Where each partition is begun, and whether nothing stands before that in any.
    fn starts(
        &self,
        consumer: &BaseConsumer<Logged>,
        partitions: &[TopicPartition],
        from: Begin,
    ) -> Result<(TopicPartitionList, bool), Error> {
        let refused = |cause: KafkaError| Error::Unreachable {
            bootstrap: self.bootstrap().to_owned(),
            waited: ASK,
            source: code_of(&cause),
        };
        let mut list = TopicPartitionList::new();
        let mut whole = true;
        for at in partitions {
            let offset = match from {
                Begin::Beginning => Offset::Beginning,
                Begin::Since(ms) => Offset::Offset(ms),
                Begin::End | Begin::Last(_) => {
                    let (first, next) = self.watermarks(&at.topic, at.partition, ASK)?;
                    let back = if let Begin::Last(count) = from { i64::try_from(count).unwrap_or(i64::MAX) } else { 0 };
                    let start = next.saturating_sub(back).max(first);
                    whole &= start == first;
                    Offset::Offset(start)
                }
            };
            list.add_partition_offset(&at.topic, at.partition, offset).map_err(refused)?;
        }
        if matches!(from, Begin::Since(_)) && !partitions.is_empty() {
            list = consumer.offsets_for_times(list, ASK).map_err(refused)?;
        }
        Ok((list, whole))
    }
}

impl Peek {
    /// Whether it began at the very first record of every partition.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The next record, waited for within `wait`. Of one partition they come in order.
    ///
    /// # Errors
    /// [`Error::Topic`] for a partition that can no longer be read.
    pub fn next(&mut self, wait: Duration) -> Result<Seen, Error> {
        let until = Instant::now() + wait;
        loop {
            let heard = self.bell.heard();
            // Its own queue has callbacks and what is no partition's: lost connections, which librdkafka mends.
            if let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
                log_error(&error, "while reading");
            }
            if let Some(seen) = self.round()? {
                return Ok(seen);
            }
            if !self.ends_told && self.queues.iter().all(|queue| queue.ended) {
                self.ends_told = true;
                return Ok(Seen::End);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Seen::Nothing);
            }
            self.bell.wait(heard, left.min(ROUND));
        }
    }

    /// Every record up to where the partitions end now, or until `take` has enough. Blocks meanwhile.
    ///
    /// # Errors
    /// As [`Peek::next`]; [`Error::Unreachable`] where nothing comes any more before the end.
    pub fn to_the_end(mut self, mut take: impl FnMut(Record) -> ControlFlow<()>) -> Result<(), Error> {
        let mut heard = Instant::now();
        loop {
            match self.next(WAIT)? {
                Seen::Record(record) => {
                    heard = Instant::now();
                    if take(record).is_break() {
                        return Ok(());
                    }
                }
                Seen::End => return Ok(()),
                Seen::Nothing if heard.elapsed() >= STALLED => {
                    let source = Code::from(RDKafkaErrorCode::OperationTimedOut);
                    return Err(Error::Unreachable { bootstrap: self.bootstrap, waited: STALLED, source });
                }
                Seen::Nothing => {}
            }
        }
    }

    /// Once past every queue, for the first record.
    fn round(&mut self) -> Result<Option<Seen>, Error> {
        let count = self.queues.len();
        for step in 0..count {
            let turn = (self.turn + step) % count;
            let Some(queue) = self.queues.get_mut(turn) else { continue };
            match queue.messages.poll(Duration::ZERO) {
                None => {}
                Some(Ok(message)) => {
                    self.turn = turn + 1;
                    return Ok(Some(Seen::Record(record(queue.at.clone(), &message))));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => queue.ended = true,
                Some(Err(error)) => {
                    let topic = queue.at.topic.to_string();
                    return Err(Error::Topic { topic, asked: "read", source: code_of(&error) });
                }
            }
        }
        Ok(None)
    }
}

/// Rung by librdkafka's threads when a queue is no longer empty.
#[derive(Default)]
struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
    }

    fn heard(&self) -> u64 {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until it was rung after `heard`, or for `bound`.
    fn wait(&self, heard: u64, bound: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(rung, bound, |rung| *rung == heard));
    }
}
