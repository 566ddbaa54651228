//! Partitions that come, start, flow, stop and go.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{future::Future, pin::Pin};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::super::clerk::not_up_yet;
use super::super::context::{Rebalance, give_up, take_over};
use super::super::{Event, Membership, TopicPartition, Trouble};
use super::{Poller, Revoking, SLEEP_SEEKING};
use crate::kafka::code_of;

/// How long a seek may take: it only passes through librdkafka's main thread.
const SEEK_WITHIN: Duration = Duration::from_secs(1);

impl Poller {
    pub(super) fn rebalance(&mut self, rebalance: Rebalance) {
        if rebalance.assign { self.assign(&rebalance.partitions) } else { self.revoke(rebalance) }
    }

    /// Takes the partitions at once, paused, so that the group goes on; the loop says later where each starts.
    fn assign(&mut self, partitions: &[TopicPartition]) {
        self.between = false;
        let membership = Membership::take(&self.consumer, &self.shared.group);
        // The place does not matter: every start seeks. It has to be one that exists, or librdkafka would look
        // committed offsets up itself and complain where there are none.
        let list = list(partitions, Some(Offset::Beginning));
        if let Err(error) = take_over(&self.consumer, &list) {
            self.trouble(Trouble::Other { source: code_of(&error), reason: error.to_string() });
            return;
        }
        if !partitions.is_empty() {
            self.pause(partitions);
            let epoch = self.assignment.assign(partitions);
            self.lookups.push_back((epoch, partitions.to_vec()));
        }
        // With no new partition, too: the generation has moved.
        self.show(membership);
    }

    /// What transactions are begun with from now on.
    fn show(&self, membership: Option<Membership>) {
        let membership = membership.and_then(|member| member.holding(self.assignment.epochs()));
        self.shared.membership.send_replace(membership);
    }

    /// The same member, less these partitions. A member that is gone with them is refused.
    fn show_without(&self, partitions: &[TopicPartition]) {
        let mut epochs = self.assignment.epochs();
        epochs.retain(|at, _| !partitions.contains(at));
        self.shared.membership.send_modify(|member| *member = member.take().and_then(|member| member.holding(epochs)));
    }

    fn revoke(&mut self, rebalance: Rebalance) {
        let Rebalance { partitions, lost, .. } = rebalance;
        self.assignment.revoke(&partitions);
        if lost {
            self.show_without(&partitions);
        } else {
            // What is settled for them until they are handed over is committed under the generation that takes them.
            self.show(Membership::take(&self.consumer, &self.shared.group));
        }
        for (_, waiting) in &mut self.lookups {
            waiting.retain(|at| !partitions.contains(at));
        }
        self.forget_undelivered(&partitions);
        let told: Vec<_> = partitions.iter().filter(|at| self.assignment.announced(at)).cloned().collect();
        let drained = if told.is_empty() {
            None
        } else {
            let (drained, word) = oneshot::channel();
            self.outbox.push_back(Event::Revoked { partitions: told, lost, drained });
            // What is lost is somebody else's already: nobody is helped by waiting.
            (!lost).then_some(word)
        };
        self.revoking = Some(Revoking { partitions, lost, drained, until: Instant::now() + self.drain });
    }

    /// The new owner reads them again; the loop need not see them.
    fn forget_undelivered(&mut self, revoked: &[TopicPartition]) {
        for event in &mut self.outbox {
            if let Event::Records(records) = event {
                records.retain(|record| !revoked.contains(&record.at));
            }
        }
        self.outbox.retain(|event| !matches!(event, Event::Records(records) if records.is_empty()));
    }

    /// Gives revoked partitions back once the loop has drained or its time is up, and not while a commit is out, within
    /// its bound: sent late, it would move the next owner's offset.
    pub(super) fn hand_over(&mut self) {
        let Some(revoking) = &mut self.revoking else { return };
        if let Some(word) = &mut revoking.drained {
            let said = Pin::new(word).poll(&mut Context::from_waker(&self.waker)) != Poll::Pending;
            if said || Instant::now() >= revoking.until {
                revoking.drained = None;
            }
        }
        // What is lost is not made worse by a commit on its way: that carries the generation that was lost.
        let out = self.committing.as_ref().is_some_and(|commit| commit.reply.is_some());
        if revoking.drained.is_some() || (out && !revoking.lost) {
            return;
        }
        if let Some(revoking) = self.revoking.take() {
            if let Err(error) = give_up(&self.consumer, &list(&revoking.partitions, None)) {
                self.trouble(Trouble::Other { source: code_of(&error), reason: error.to_string() });
            }
            self.assignment.remove(&revoking.partitions);
            self.show_without(&revoking.partitions);
            *self.shared.lags() = self.assignment.lags();
            self.between = true;
        }
    }

    pub(super) fn seek(&mut self) {
        let seeks = self.assignment.seeks();
        // While a rebalance waits for us, librdkafka stops and starts fetchers by itself.
        if seeks.is_empty() || self.revoking.is_some() || Instant::now() < self.seek_at {
            return;
        }
        self.revive();
        let mut wanted = TopicPartitionList::with_capacity(seeks.len());
        for (at, to) in &seeks {
            let to = to.map_or(Offset::Beginning, |next| Offset::Offset(next.get()));
            if let Err(error) = wanted.add_partition_offset(&at.topic, at.partition, to) {
                self.trouble(Trouble::Other { source: code_of(&error), reason: format!("{at}: {error}") });
                self.assignment.stuck(at);
            }
        }
        // As a whole it fails only when it takes too long, and is tried again.
        let Ok(sought) = self.consumer.seek_partitions(wanted, SEEK_WITHIN) else { return };
        for one in sought.elements() {
            match one.error() {
                Ok(()) => self.assignment.sought(one.topic(), one.partition()),
                Err(error) if not_up_yet(code_of(&error)) => {
                    self.seek_at = Instant::now() + SLEEP_SEEKING;
                    self.assignment.not_up(one.topic(), one.partition());
                }
                Err(error) => {
                    let at = TopicPartition { topic: Arc::from(one.topic()), partition: one.partition() };
                    self.trouble(Trouble::Other { source: code_of(&error), reason: format!("{at}: {error}") });
                    self.assignment.stuck(&at);
                }
            }
        }
    }

    /// Brings fetchers up that librdkafka has stopped for good, as it does where an offset was refused: a seek does not.
    /// Taken out of the assignment and put back, a partition gets a new one; the group is not told and does not mind.
    fn revive(&mut self) {
        let stopped = self.assignment.stopped();
        if stopped.is_empty() {
            return;
        }
        let again = list(&stopped, Some(Offset::Beginning));
        let done = self.consumer.incremental_unassign(&again).and_then(|()| self.consumer.incremental_assign(&again));
        if let Err(error) = done {
            self.trouble(Trouble::Other { source: code_of(&error), reason: error.to_string() });
        }
        self.pause(&stopped);
    }

    /// Pauses and resumes what has to be.
    pub(super) fn flow(&mut self) {
        let (pause, resume) = self.assignment.flow(self.full);
        self.pause(&pause);
        if !resume.is_empty()
            && let Err(error) = self.consumer.resume(&list(&resume, None))
        {
            tracing::warn!(group = self.shared.group, %error, "partitions cannot be resumed");
        }
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        if !partitions.is_empty()
            && let Err(error) = self.consumer.pause(&list(partitions, None))
        {
            tracing::warn!(group = self.shared.group, %error, "partitions cannot be paused");
        }
    }
}

fn list(partitions: &[TopicPartition], at: Option<Offset>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for one in partitions {
        let mut added = list.add_partition(&one.topic, one.partition);
        if let Some(at) = at
            && let Err(error) = added.set_offset(at)
        {
            tracing::warn!(%error, at = %one, "an offset that librdkafka does not know");
        }
    }
    list
}
