//! What the poll thread asks of the clerk, and what it does with the answers.

use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;

use super::super::clerk::{Answer, Job};
use super::super::{COMMIT_WITHIN, CommitOrder, Event, NextOffset, TopicPartition, Trouble};
use super::{Committing, Poller};
use crate::kafka::{Code, Error};

/// How often the ends of partitions are asked for, for the lag gauges.
const ENDS_EVERY: Duration = Duration::from_secs(5);

/// Between two attempts at the committed offsets; most failures have waited longer themselves.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Poller {
    /// What a rebalance waits for goes first, gauges last.
    pub(super) fn ask_clerk(&mut self) {
        self.expire_commits();
        if !self.clerk.idle() {
            return;
        }
        if !self.between
            && let Some(job) = self.next_commit()
        {
            self.clerk.ask(job);
        } else if Instant::now() >= self.lookup_at
            && let Some((epoch, partitions)) = self.lookups.pop_front()
        {
            if !partitions.is_empty() {
                self.clerk.ask(Job::Committed(epoch, partitions));
            }
        } else if self.revoking.is_none() && std::mem::take(&mut self.suspect) {
            self.clerk.ask(Job::Bounds(self.assignment.reading()));
        } else if self.revoking.is_none() && self.leaving.is_none() && Instant::now() >= self.ends_at {
            self.ends_at = Instant::now() + ENDS_EVERY;
            let all = self.assignment.all();
            if !all.is_empty() {
                self.clerk.ask(Job::Ends(all));
            }
        }
    }

    fn next_commit(&mut self) -> Option<Job> {
        while let Some(order) = self.commits.pop_front() {
            let lost = self.revoking.as_ref().is_some_and(|revoking| revoking.lost);
            let refused = order.offsets.iter().find(|(at, _)| !self.assignment.may_commit(at, lost));
            if let Some((at, _)) = refused {
                let error = Error::NotAssigned { group: self.shared.group.clone(), at: at.clone() };
                let _ = order.reply.send(Err(error));
                continue;
            }
            let CommitOrder { offsets, reply, until } = order;
            self.committing = Some(Committing { offsets: offsets.clone(), reply: Some(reply), until });
            return Some(Job::Commit(offsets));
        }
        None
    }

    /// The one that is out may have been taken; those that wait were not even sent.
    fn expire_commits(&mut self) {
        let now = Instant::now();
        let group = &self.shared.group;
        if let Some(commit) = self.committing.as_mut().filter(|commit| commit.until <= now)
            && let Some(reply) = commit.reply.take()
        {
            let _ = reply.send(Err(Error::CommitTimedOut { group: group.clone(), waited: COMMIT_WITHIN }));
        }
        while self.commits.front().is_some_and(|order| order.until <= now)
            && let Some(order) = self.commits.pop_front()
        {
            let source = Code(RDKafkaErrorCode::WaitingForCoordinator);
            let error = match order.offsets.into_iter().next() {
                Some((at, _)) => Error::Commit { group: group.clone(), at, source },
                None => Error::Stopped { role: "consumer" },
            };
            let _ = order.reply.send(Err(error));
        }
    }

    pub(super) fn take_answer(&mut self) {
        let Some(answer) = self.clerk.answer() else { return };
        match answer {
            Answer::Commit(result) => self.committed(result),
            Answer::Committed(epoch, _, Ok(found)) => {
                let fresh = self.assignment.announce(epoch, found);
                if !fresh.is_empty() {
                    self.outbox.push_back(Event::Assigned { epoch, partitions: fresh });
                }
                // The gauges of new partitions need not wait.
                self.ends_at = Instant::now();
            }
            Answer::Committed(epoch, partitions, Err(source)) => {
                let source = Error::Committed { group: self.shared.group.clone(), source };
                self.trouble(Trouble::CommittedUnknown { source });
                self.lookup_at = Instant::now() + ASK_AGAIN;
                let left = self.assignment.all();
                self.lookups.push_back((epoch, partitions.into_iter().filter(|at| left.contains(at)).collect()));
            }
            Answer::Ends(ends) => {
                for (at, end) in ends {
                    self.assignment.end(&at, end);
                }
                *self.shared.lags() = self.assignment.lags();
            }
            Answer::Bounds(bounds) => self.judge(bounds),
            Answer::Closed => {}
        }
    }

    fn committed(&mut self, result: Result<(), (TopicPartition, Code)>) {
        let Some(commit) = self.committing.take() else { return };
        if result.is_ok() {
            for (at, next) in &commit.offsets {
                self.assignment.committed(at, *next);
            }
            *self.shared.lags() = self.assignment.lags();
        }
        let group = &self.shared.group;
        let answer = result.map_err(|(at, source)| match source.0 {
            RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::MessageTimedOut => {
                Error::CommitTimedOut { group: group.clone(), waited: COMMIT_WITHIN }
            }
            _ => Error::Commit { group: group.clone(), at, source },
        });
        if let Some(reply) = commit.reply {
            // The loop may have stopped waiting.
            let _ = reply.send(answer);
        }
    }

    /// Finds the partitions whose offset was refused. One that turns out fine is sought again: its fetcher has stopped.
    fn judge(&mut self, bounds: Vec<(TopicPartition, Option<NextOffset>, i64, i64)>) {
        for (at, wanted, first, end) in bounds {
            match wanted {
                Some(wanted) if wanted.get() < first || wanted.get() > end => {
                    self.assignment.stuck(&at);
                    let (first, end) = (NextOffset::stored(first), NextOffset::stored(end));
                    self.trouble(Trouble::OffsetOutOfRange { at, wanted, first, end });
                }
                _ => self.assignment.again(&at),
            }
        }
    }
}
