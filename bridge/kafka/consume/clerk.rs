//! The calls of librdkafka's that wait for a broker, on a thread of their own: one at a time, in order.
//!
//! A commit waits for its coordinator for up to a session and several socket timeouts; on the poll thread it would hold
//! up every partition. rdkafka passes no result of an asynchronous commit on, so there is no way round a blocking one.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::context::Notes;
use super::{AssignmentEpoch, NextOffset, TopicPartition};
use crate::kafka::{Code, Error, code_of};

/// For the committed offsets: an open transaction of a crashed member holds the answer back, and it is asked again.
const COMMITTED_WITHIN: Duration = Duration::from_secs(5);

/// For the ends of partitions: only gauges and diagnoses wait for them.
const BOUNDS_WITHIN: Duration = Duration::from_secs(2);

pub(super) enum Job {
    Commit(Vec<(TopicPartition, NextOffset)>),
    Committed(AssignmentEpoch, Vec<TopicPartition>),
    Ends(Vec<TopicPartition>),
    /// First and end offset of each partition, beside the offset that it wants to read.
    Bounds(Vec<(TopicPartition, Option<NextOffset>)>),
    Close(Arc<BaseConsumer<Notes>>),
}

pub(super) enum Answer {
    Commit(Result<(), (TopicPartition, Code)>),
    Committed(AssignmentEpoch, Vec<TopicPartition>, Result<Vec<(TopicPartition, Option<NextOffset>)>, Code>),
    Ends(Vec<(TopicPartition, i64)>),
    Bounds(Vec<(TopicPartition, Option<NextOffset>, i64, i64)>),
    Closed,
}

pub(super) struct Clerk {
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
    busy: bool,
}

impl Clerk {
    pub(super) fn start(consumer: Weak<BaseConsumer<Notes>>, wakes: Thread) -> Result<Self, Error> {
        // One job at a time, so neither channel ever holds more than one.
        let (jobs, orders) = sync_channel::<Job>(1);
        let (replies, answers) = sync_channel(1);
        thread::Builder::new()
            .name("kafka-clerk".to_owned())
            .spawn(move || {
                while let Ok(job) = orders.recv() {
                    let Some(answer) = carry_out(job, &consumer) else { break };
                    if replies.send(answer).is_err() {
                        break;
                    }
                    wakes.unpark();
                }
            })
            .map_err(|cause| Error::Start { role: "consumer thread", reason: cause.to_string() })?;
        Ok(Self { jobs, answers, busy: false })
    }

    pub(super) fn idle(&self) -> bool {
        !self.busy
    }

    /// Only while [`Clerk::idle`].
    pub(super) fn ask(&mut self, job: Job) {
        self.busy = self.jobs.try_send(job).is_ok();
    }

    pub(super) fn answer(&mut self) -> Option<Answer> {
        match self.answers.try_recv() {
            Ok(answer) => {
                self.busy = false;
                Some(answer)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Closes the consumer, and says whether that was done in time.
    pub(super) fn close(self, consumer: Arc<BaseConsumer<Notes>>, within: Duration) -> bool {
        if self.jobs.send(Job::Close(consumer)).is_err() {
            return false;
        }
        loop {
            match self.answers.recv_timeout(within) {
                Ok(Answer::Closed) => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

fn carry_out(job: Job, consumer: &Weak<BaseConsumer<Notes>>) -> Option<Answer> {
    if let Job::Close(consumer) = job {
        drop(consumer);
        return Some(Answer::Closed);
    }
    let consumer = consumer.upgrade()?;
    Some(match job {
        Job::Commit(offsets) => Answer::Commit(commit(&consumer, &offsets)),
        Job::Committed(epoch, partitions) => {
            let found = committed(&consumer, &partitions).map_err(|error| code_of(&error));
            Answer::Committed(epoch, partitions, found)
        }
        Job::Ends(partitions) => Answer::Ends(ends(&consumer, &partitions)),
        Job::Bounds(partitions) => Answer::Bounds(bounds(&consumer, partitions)),
        Job::Close(_) => return None,
    })
}

/// One topic at a time: librdkafka answers a commit with an error only where all its partitions failed, and what fails
/// for one partition alone fails for its whole topic (it was deleted, or may not be read).
fn commit(
    consumer: &BaseConsumer<Notes>,
    offsets: &[(TopicPartition, NextOffset)],
) -> Result<(), (TopicPartition, Code)> {
    let mut left = offsets.iter().collect::<Vec<_>>();
    while let Some((first, _)) = left.first().copied() {
        let (topic, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(|(at, _)| at.topic == first.topic);
        left = rest;
        let mut list = TopicPartitionList::with_capacity(topic.len());
        let filled = topic
            .iter()
            .try_for_each(|(at, next)| list.add_partition_offset(&at.topic, at.partition, Offset::Offset(next.get())));
        let done = filled.and_then(|()| consumer.commit(&list, CommitMode::Sync));
        done.map_err(|error| (first.clone(), code_of(&error)))?;
    }
    Ok(())
}

fn committed(
    consumer: &BaseConsumer<Notes>,
    partitions: &[TopicPartition],
) -> KafkaResult<Vec<(TopicPartition, Option<NextOffset>)>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    let list = consumer.committed_offsets(list, COMMITTED_WITHIN)?;
    partitions
        .iter()
        .map(|at| {
            let Some(found) = list.find_partition(&at.topic, at.partition) else { return Ok((at.clone(), None)) };
            found.error()?;
            Ok((at.clone(), absolute(found.offset()).map(NextOffset::stored)))
        })
        .collect()
}

/// ListOffsets by "time" -1, the end of what may be read: one request for each leader, paused partitions included
/// (librdkafka's own high watermark comes with fetches only).
fn ends(consumer: &BaseConsumer<Notes>, partitions: &[TopicPartition]) -> Vec<(TopicPartition, i64)> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        if list.add_partition_offset(&at.topic, at.partition, Offset::End).is_err() {
            return Vec::new();
        }
    }
    let Ok(list) = consumer.offsets_for_times(list, BOUNDS_WITHIN) else { return Vec::new() };
    partitions
        .iter()
        .filter_map(|at| {
            let found = list.find_partition(&at.topic, at.partition)?;
            found.error().ok()?;
            Some((at.clone(), absolute(found.offset())?))
        })
        .collect()
}

fn bounds(
    consumer: &BaseConsumer<Notes>,
    partitions: Vec<(TopicPartition, Option<NextOffset>)>,
) -> Vec<(TopicPartition, Option<NextOffset>, i64, i64)> {
    partitions
        .into_iter()
        .filter_map(|(at, wanted)| {
            let (first, end) = consumer.fetch_watermarks(&at.topic, at.partition, BOUNDS_WITHIN).ok()?;
            Some((at, wanted, first, end))
        })
        .collect()
}

fn absolute(offset: Offset) -> Option<i64> {
    if let Offset::Offset(offset) = offset { Some(offset) } else { None }
}

/// Whether a seek failed only because the partition's fetcher is not up yet, as it is right after an assignment.
pub(super) fn not_up_yet(code: Code) -> bool {
    matches!(
        code.0,
        RDKafkaErrorCode::State
            | RDKafkaErrorCode::PreviousInProgress
            | RDKafkaErrorCode::InProgress
            | RDKafkaErrorCode::UnknownPartition
    )
}
