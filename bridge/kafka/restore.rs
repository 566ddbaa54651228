//! What the owner of event partitions has to read again before it sends anything: its receipts, up to their real ends.
//!
//! ```text
//!  1 stable committed offsets ─▶ 2 real ends of the receipts ─▶ 3 no transaction open below them ─▶ 4 read to there
//! ```
//!
//! A transaction that a crash left open may still be committed by a request that is under way, so the committed offsets
//! are asked for as stable ones (KIP-447), and the ends as an uncommitted reader sees them. What waits for such a
//! transaction waits for its timeout, and says so. Afterwards the same reader follows what is written from then on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::client::{Client, Logged};
use super::{Code, Error, NextOffset, code_of};

/// The bound on one look-up; an open transaction holds the answer to the first back, and it is asked again.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at what holds the restore up.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Records looked at for one [`Step::Records`], at most: the channel's cost is small from here on.
const CHUNK: usize = 2_000;

/// Steps that may wait for the loop; with [`CHUNK`], and what librdkafka has fetched, this bounds the memory.
const STEPS: usize = 4;

/// How long a wait for the next record may last, after which it is seen that nobody listens any more. rdkafka spends the
/// last millisecond of a wait asking the clock, so that a short one would be a load.
const POLL: Duration = Duration::from_millis(250);

/// What a group has committed for a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    pub next: Option<NextOffset>,
    /// What the commit carried beside the offset.
    pub metadata: String,
}

/// Where to begin to read a partition: at the lower of the two; with neither, at its first record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct From {
    pub offset: Option<i64>,
    /// At the first record of this time or later, milliseconds since the epoch.
    pub time_ms: Option<i64>,
}

/// A record as librdkafka holds it.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    pub partition: i32,
    pub offset: i64,
    /// Broker or producer time, milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// All that was there when the restore began has been read of this partition.
    pub is_new: bool,
}

/// What the restore waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The committed offsets are not stable, or cannot be had.
    Committed(Code),
    /// The ends of the receipts cannot be had.
    Ends(Code),
    /// A transaction is open below the end of these receipts.
    OpenTransaction { partition: i32, stable: i64, end: i64 },
}

/// Everything that a restore can tell.
#[derive(Debug)]
pub enum Step<T> {
    /// Not one send yet: `restoring`. Told once for each reason.
    Waiting(Wait),
    /// What is committed for each partition; the restore begins from it.
    Committed(Vec<(i32, Committed)>),
    /// In the order of their offsets in each partition; and, of each partition that was read, the offset to read next.
    Records { records: Vec<T>, read_to: BTreeMap<i32, i64> },
    /// All that was there when the restore began has been told, up to before `next`. More records may follow.
    CaughtUp { partition: i32, next: i64 },
    /// It has ended and will say nothing more.
    Failed(Error),
}

/// A restore under way, and the follower that it becomes. Dropping it ends it.
pub struct Restore<T> {
    steps: mpsc::Receiver<Step<T>>,
}

impl<T> fmt::Debug for Restore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore").finish_non_exhaustive()
    }
}

/// Whose receipts are read.
#[derive(Debug, Clone)]
pub struct Source {
    pub group: String,
    pub events: Arc<str>,
    /// As many partitions as `events` has.
    pub receipts: Arc<str>,
    pub partitions: Vec<i32>,
}

impl<T: Send + 'static> Restore<T> {
    /// Begins, on a thread of its own. `from` says where to start in the receipts, by what is committed for the events;
    /// `read` makes of each record what is kept of it, on that thread.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::Start`]; a broker that is down is waited for.
    pub fn start(
        client: &Client,
        source: Source,
        from: impl Fn(i32, &Committed) -> From + Send + 'static,
        read: impl FnMut(Raw<'_>) -> Option<T> + Send + 'static,
    ) -> Result<Self, Error> {
        let open = |uncommitted: bool| {
            let mut config = client.consumer_config(&source.group);
            config.set("enable.partition.eof", "true");
            #[cfg(feature = "seeded-bugs")]
            let uncommitted = uncommitted || crate::seeded::has(crate::seeded::Bug::UncommittedReceipts);
            if uncommitted {
                config.set("isolation.level", "read_uncommitted");
            }
            config.create_with_context::<_, BaseConsumer<Logged>>(Logged)
        };
        let (reader, ends) = open(false)
            .and_then(|reader| Ok((reader, open(true)?)))
            .map_err(|cause| client.start_error("receipts reader", cause))?;
        let (steps, receiver) = mpsc::channel(STEPS);
        let run = Run { source, reader, ends, steps, last: None };
        thread::Builder::new()
            .name("kafka-restore".to_owned())
            .spawn(move || run.run(&from, read))
            .map_err(|cause| Error::Start { role: "restore thread", reason: cause.to_string() })?;
        Ok(Self { steps: receiver })
    }

    /// The next step; `None` after [`Step::Failed`]. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Step<T>> {
        self.steps.recv().await
    }
}

/// Nobody listens any more, or the reader has failed for good.
struct Ended;

/// What was read and not yet told.
struct Chunk<T> {
    records: Vec<T>,
    looked_at: usize,
    read_to: BTreeMap<i32, i64>,
    /// The same, and of what was told before.
    all_read: BTreeMap<i32, i64>,
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self { records: Vec::new(), looked_at: 0, read_to: BTreeMap::new(), all_read: BTreeMap::new() }
    }
}

impl<T> Chunk<T> {
    fn take(&mut self, partition: i32, offset: i64, kept: Option<T>) {
        self.records.extend(kept);
        self.looked_at += 1;
        let next = NextOffset::after(offset).get();
        self.read_to.insert(partition, next);
        self.all_read.insert(partition, next);
    }
}

struct Run<T> {
    source: Source,
    /// A member of no group: the name is only that of the committed offsets.
    reader: BaseConsumer<Logged>,
    /// Sees open transactions; a `read_committed` client is told the last stable offset for an end.
    ends: BaseConsumer<Logged>,
    steps: mpsc::Sender<Step<T>>,
    last: Option<Wait>,
}

impl<T> Run<T> {
    fn run(mut self, from: &impl Fn(i32, &Committed) -> From, read: impl FnMut(Raw<'_>) -> Option<T>) {
        // Whoever does not listen any more is told nothing.
        _ = self.restore(from, read);
    }

    fn restore(
        &mut self,
        from: &impl Fn(i32, &Committed) -> From,
        mut read: impl FnMut(Raw<'_>) -> Option<T>,
    ) -> Result<(), Ended> {
        let committed = self.until(|run| run.committed().map_err(Wait::Committed))?;
        let ends = self.until(|run| run.at(&run.ends, |_| Offset::End).map_err(Wait::Ends))?;
        let starts: BTreeMap<i32, From> =
            committed.iter().map(|(&partition, found)| (partition, from(partition, found))).collect();
        self.tell(Step::Committed(committed.into_iter().collect()))?;
        self.until(|run| run.stable(&ends))?;
        let starts = self.until(|run| run.starts(&starts, &ends).map_err(Wait::Ends))?;
        let mut behind = Vec::new();
        for (&partition, &start) in &starts {
            if ends.get(&partition).is_some_and(|end| start >= *end) {
                self.tell(Step::CaughtUp { partition, next: start })?;
            } else {
                behind.push(partition);
            }
        }
        self.follow(&starts, behind, &mut read)
    }

    fn tell(&self, step: Step<T>) -> Result<(), Ended> {
        self.steps.blocking_send(step).map_err(|_| Ended)
    }

    /// Looks until there is something, and says what is waited for.
    fn until<A>(&mut self, mut look: impl FnMut(&Self) -> Result<A, Wait>) -> Result<A, Ended> {
        loop {
            match look(self) {
                Ok(found) => {
                    self.last = None;
                    return Ok(found);
                }
                Err(wait) => {
                    let same = self.last.as_ref().map(std::mem::discriminant) == Some(std::mem::discriminant(&wait));
                    if !same {
                        self.last = Some(wait);
                        self.tell(Step::Waiting(wait))?;
                    }
                }
            }
            if self.steps.is_closed() {
                return Err(Ended);
            }
            // Nothing is assigned: this reads the log and the errors.
            self.ends.poll(Duration::ZERO);
            self.reader.poll(ASK_AGAIN);
        }
    }

    fn committed(&self) -> Result<BTreeMap<i32, Committed>, Code> {
        let list = list(&self.source.events, &self.source.partitions, |_| Offset::Invalid);
        let found = list.and_then(|list| self.reader.committed_offsets(list, ASK_WITHIN));
        let found = found.map_err(|error| code_of(&error))?;
        let mut committed = BTreeMap::new();
        for one in found.elements() {
            one.error().map_err(|error| code_of(&error))?;
            let next = absolute(one.offset()).map(NextOffset::stored);
            committed.insert(one.partition(), Committed { next, metadata: one.metadata().to_owned() });
        }
        Ok(committed)
    }

    /// Offsets by "time" in the receipts, one request for each leader.
    fn at(&self, consumer: &BaseConsumer<Logged>, time: impl Fn(i32) -> Offset) -> Result<BTreeMap<i32, i64>, Code> {
        let asked = list(&self.source.receipts, &self.source.partitions, time);
        let found = asked.and_then(|list| consumer.offsets_for_times(list, ASK_WITHIN));
        let found = found.map_err(|error| code_of(&error))?;
        let mut offsets = BTreeMap::new();
        for one in found.elements() {
            one.error().map_err(|error| code_of(&error))?;
            // No offset: no record of that time or later.
            offsets.insert(one.partition(), absolute(one.offset()).unwrap_or(i64::MAX));
        }
        Ok(offsets)
    }

    /// Whether no transaction is open below the ends: then the first end of the reader's lies beyond them.
    fn stable(&self, ends: &BTreeMap<i32, i64>) -> Result<(), Wait> {
        let stable = self.at(&self.reader, |_| Offset::End).map_err(Wait::Ends)?;
        let open = ends.iter().find_map(|(&partition, &end)| {
            let stable = stable.get(&partition).copied().unwrap_or(0);
            (stable < end).then_some(Wait::OpenTransaction { partition, stable, end })
        });
        open.map_or(Ok(()), Err)
    }

    /// The offset that each partition is read from: what was asked for, within what the log holds.
    fn starts(&self, from: &BTreeMap<i32, From>, ends: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, i64>, Code> {
        let first = self.at(&self.ends, |_| Offset::Beginning)?;
        let times = self.at(&self.ends, |partition| {
            from.get(&partition).and_then(|from| from.time_ms).map_or(Offset::Beginning, Offset::Offset)
        })?;
        let start = |(&partition, from): (&i32, &From)| {
            let first = first.get(&partition).copied().unwrap_or(0);
            let end = ends.get(&partition).copied().unwrap_or(first);
            let time = from.time_ms.and_then(|_| times.get(&partition).copied());
            let wanted = match (from.offset, time) {
                (Some(offset), Some(time)) => offset.min(time),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => first,
            };
            (partition, wanted.clamp(first, end.max(first)))
        };
        Ok(from.iter().map(start).collect())
    }

    /// Reads on for ever; `behind` are the partitions whose end has not been reached.
    fn follow(
        &self,
        starts: &BTreeMap<i32, i64>,
        mut behind: Vec<i32>,
        read: &mut impl FnMut(Raw<'_>) -> Option<T>,
    ) -> Result<(), Ended> {
        let receipts = &self.source.receipts;
        let place = |partition| Offset::Offset(starts.get(&partition).copied().unwrap_or(0));
        let assigned = list(receipts, &self.source.partitions, place).and_then(|list| self.reader.assign(&list));
        assigned.or_else(|error| self.fail(code_of(&error)))?;
        let mut chunk = Chunk::default();
        loop {
            // What has come is handed over as soon as there is no more of it.
            let wait = if chunk.looked_at == 0 { POLL } else { Duration::ZERO };
            match self.reader.poll(wait) {
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let kept = read(Raw {
                        partition,
                        offset: message.offset(),
                        timestamp_ms: message.timestamp().to_millis(),
                        key: message.key(),
                        value: message.payload(),
                        is_new: !behind.contains(&partition),
                    });
                    chunk.take(partition, message.offset(), kept);
                    if chunk.looked_at < CHUNK {
                        continue;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(at) = behind.iter().position(|one| *one == partition) {
                        behind.swap_remove(at);
                        let start = starts.get(&partition).copied().unwrap_or(0);
                        let next = *chunk.all_read.get(&partition).unwrap_or(&start);
                        self.hand_over(&mut chunk)?;
                        self.tell(Step::CaughtUp { partition, next })?;
                    }
                }
                Some(Err(error)) => self.heed(&error)?,
                None => {}
            }
            self.ends.poll(Duration::ZERO);
            self.hand_over(&mut chunk)?;
        }
    }

    fn hand_over(&self, chunk: &mut Chunk<T>) -> Result<(), Ended> {
        if chunk.looked_at == 0 {
            return if self.steps.is_closed() { Err(Ended) } else { Ok(()) };
        }
        chunk.looked_at = 0;
        let (records, read_to) = (std::mem::take(&mut chunk.records), std::mem::take(&mut chunk.read_to));
        self.tell(Step::Records { records, read_to })
    }

    /// Connections come and go; a position that is not in the log, or may not be read, is nothing to wait for.
    fn heed(&self, error: &KafkaError) -> Result<(), Ended> {
        use rdkafka::types::RDKafkaErrorCode as C;
        let code = code_of(error);
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let lost = matches!(
            code.0,
            C::AutoOffsetReset | C::OffsetOutOfRange | C::UnknownTopicOrPartition | C::TopicAuthorizationFailed
        );
        if fatal || lost { self.fail(code) } else { Ok(()) }
    }

    fn fail(&self, source: Code) -> Result<(), Ended> {
        let topic = self.source.receipts.to_string();
        self.tell(Step::Failed(Error::Topic { topic, asked: "read", source }))?;
        Err(Ended)
    }
}

fn list(topic: &str, partitions: &[i32], at: impl Fn(i32) -> Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        list.add_partition_offset(topic, partition, at(partition))?;
    }
    Ok(list)
}

fn absolute(offset: Offset) -> Option<i64> {
    if let Offset::Offset(offset) = offset { Some(offset) } else { None }
}
