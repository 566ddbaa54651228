//! Letting go: of partitions that are revoked, and of everything when the sink stops. What is under way may end, what it
//! came to is committed, and then they are released; each within its deadline.

use std::time::Duration;

use super::partition::Partition;
use super::step::{Action, Notice};
use super::{Line, Machine, Turn};
use crate::kafka::TopicPartition;

/// How long calls and the last commit may take when partitions are revoked: the poll thread waits 2.5 s, and the group
/// waits for the poll thread.
const REVOKE_DEADLINE: Duration = Duration::from_millis(2_200);

/// How long they may take when the sink stops: less than what orchestrators give a process (Kubernetes: 30 s), more than
/// a call usually takes.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Revocation {
    ticket: u64,
    partitions: Vec<TopicPartition>,
    pub(super) deadline: Duration,
}

impl Machine {
    pub(super) fn revoked(&mut self, ticket: u64, partitions: Vec<TopicPartition>, lost: bool, turn: &mut Turn<'_>) {
        if lost {
            for at in &partitions {
                self.let_go(at);
            }
            turn.act(Action::Released { ticket });
            return;
        }
        for at in &partitions {
            self.hand_over(at, turn.now);
        }
        self.revocations.push(Revocation { ticket, partitions, deadline: turn.now + REVOKE_DEADLINE });
    }

    pub(super) fn stop(&mut self, now: Duration) {
        if self.stop_by.is_some() {
            return;
        }
        self.stop_by = Some(now + STOP_DEADLINE);
        for at in self.partitions.keys().cloned().collect::<Vec<_>>() {
            self.hand_over(&at, now);
        }
    }

    /// From now on nothing goes out for the partition.
    fn hand_over(&mut self, at: &TopicPartition, now: Duration) {
        let Some(partition) = self.partitions.get_mut(at) else { return };
        partition.revoking = true;
        self.line.withdraw(at, partition);
        partition.park_what_is_known(self.line.clock.read(now));
    }

    fn let_go(&mut self, at: &TopicPartition) {
        if let Some(mut partition) = self.partitions.remove(at) {
            self.line.forget(at, &mut partition);
        }
    }

    pub(super) fn finish_revocations(&mut self, turn: &mut Turn<'_>) {
        for revocation in std::mem::take(&mut self.revocations) {
            let busy: Vec<_> = revocation.partitions.iter().filter(|at| self.is_busy(at)).cloned().collect();
            if !busy.is_empty() && turn.now < revocation.deadline && !self.commits.fenced {
                self.revocations.push(revocation);
                continue;
            }
            turn.actions.extend(busy.into_iter().map(|at| Action::Tell(Notice::LetGo { at })));
            revocation.partitions.iter().for_each(|at| self.let_go(at));
            turn.act(Action::Released { ticket: revocation.ticket });
        }
    }

    pub(super) fn finish(&mut self, turn: &mut Turn<'_>) {
        let fenced = self.commits.fenced;
        let stop_by = match self.stop_by {
            Some(stop_by) => stop_by,
            None if fenced => turn.now,
            None => return,
        };
        let busy: Vec<_> = self.partitions.keys().filter(|at| self.is_busy(at)).cloned().collect();
        if !busy.is_empty() && turn.now < stop_by && !fenced {
            return;
        }
        self.finished = true;
        turn.actions.extend(busy.into_iter().map(|at| Action::Tell(Notice::LetGo { at })));
        turn.act(Action::Finish { fenced });
    }

    fn is_busy(&self, at: &TopicPartition) -> bool {
        self.partitions.get(at).is_some_and(|partition| is_busy(&self.line, at, partition))
    }
}

fn is_busy(line: &Line, at: &TopicPartition, partition: &Partition) -> bool {
    // One that is being restored has nothing under way that could be committed.
    partition.restored && (!partition.is_clean() || line.is_calling(at, partition.epoch))
}
