//! What a sink's worker does next: one closed set of steps in, actions out. Pure, so that rebalances, zombies, outages
//! and stops can be tried in any order without a broker, a database or a clock.
//!
//! ```text
//!   Assigned ─▶ Claim ─▶ Claimed ─▶ Start ─▶ Records ─▶ Attempt ─▶ Attempted ─┬▶ settled: the head moves, Commit in time
//!                 ▲                             ▲                             ├▶ an answer: wait, Attempt again
//!                 │                             └─────────────────────────────┘
//!                 └── accepted ── Confirmed ◀── Confirm ◀── fenced
//! ```
//!
//! Partitions do not wait for each other: one that is held by a failing event leaves the others alone.

mod partition;
mod step;

use std::collections::BTreeMap;
use std::time::Duration;

use self::partition::{Partition, Phase, Then};
pub use self::step::State;
pub(super) use self::step::{Action, Halted, Notice, Report, Settled, Step};
use super::window::Limits;
use crate::kafka::consume::{AssignmentEpoch, StartAt};
use crate::kafka::{NextOffset, Record, TopicPartition};
use crate::outcome::Outcome;
use crate::sinks::{Claim, Halt};

/// Offsets go to the group at most this often: for Postgres they only feed lag tools, and for HTTP a second's worth of
/// events is what a crash may repeat, under the same ids.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// How long attempts under way may take to end when their partitions are revoked. The poll thread waits 2.5 s, and the
/// last commit needs a part of that.
const REVOKE_DEADLINE: Duration = Duration::from_millis(1_500);

/// How long attempts under way may take to end when the worker stops: less than what orchestrators give a process
/// (Kubernetes: 30 s), more than a transaction or an HTTP call usually takes.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Revocation {
    ticket: u64,
    partitions: Vec<TopicPartition>,
    deadline: Duration,
}

/// The worker's state. Times are since the worker's start.
#[derive(Debug)]
pub(super) struct Flow {
    limits: Limits,
    max_batch: usize,
    partitions: BTreeMap<TopicPartition, Partition>,
    revocations: Vec<Revocation>,
    /// When offsets may be committed next; `None`: a commit is under way, and one at a time is enough.
    commit_at: Option<Duration>,
    stop_by: Option<Duration>,
    finished: bool,
    /// By an operator.
    held: bool,
}

impl Flow {
    pub(super) fn new(limits: Limits, max_batch: usize) -> Self {
        Self {
            limits,
            max_batch,
            partitions: BTreeMap::new(),
            revocations: Vec::new(),
            commit_at: Some(Duration::ZERO),
            stop_by: None,
            finished: false,
            held: false,
        }
    }

    /// Takes one step and says what to do. `random` is in 0..1.
    pub(super) fn step(&mut self, step: Step, now: Duration, random: f64) -> Vec<Action> {
        let mut actions = Vec::new();
        match step {
            Step::Assigned { epoch, partitions } => self.assigned(epoch, partitions, &mut actions),
            Step::Records(records) => self.records(records, &mut actions),
            Step::Revoked { ticket, partitions, lost } => self.revoked(ticket, partitions, lost, now, &mut actions),
            Step::Claimed { at, epoch, claimed } => self.claimed(&at, epoch, claimed, now, random, &mut actions),
            Step::Attempted { at, epoch, claim, report } => {
                self.attempted(&at, epoch, claim, report, now, random, &mut actions);
            }
            Step::Confirmed { at, epoch, accepted } => {
                self.confirmed(&at, epoch, accepted, now, random, &mut actions);
            }
            Step::Committed { offsets, accepted } => self.committed(offsets, accepted, now),
            Step::StandsStill { at } => {
                if let Some(partition) = self.partitions.get_mut(&at) {
                    partition.stands_still = true;
                }
            }
            Step::Paused(paused) => self.held = paused,
            Step::LookAgain => self.partitions.values_mut().for_each(|partition| partition.look_again = true),
            Step::Tick => {}
            Step::Stop => self.stop_by = self.stop_by.or(Some(now + STOP_DEADLINE)),
        }
        self.proceed(now, &mut actions);
        actions
    }

    /// When [`Step::Tick`] is wanted next.
    pub(super) fn due(&self) -> Option<Duration> {
        let deadlines = self.revocations.iter().map(|revocation| revocation.deadline).chain(self.stop_by);
        if self.stop_by.is_some() {
            return deadlines.min();
        }
        let waits = self.partitions.values().filter_map(|partition| match partition.phase {
            Phase::Waiting { then: Then::Attempt, .. } if self.held => None,
            Phase::Waiting { until, .. } if !partition.revoking => Some(until),
            _ => None,
        });
        let commit = self.commit_at.filter(|_| !self.uncommitted().is_empty());
        deadlines.chain(waits).chain(commit).min()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop_by.is_some()
    }

    /// How the sink fares.
    pub(super) fn state(&self) -> State {
        if self.held {
            return State::Paused;
        }
        let state = |partition: &Partition| if partition.stands_still { State::Held } else { partition.state };
        self.partitions.values().map(state).max().unwrap_or(State::Running)
    }

    fn assigned(
        &mut self,
        epoch: AssignmentEpoch,
        partitions: Vec<(TopicPartition, Option<NextOffset>)>,
        actions: &mut Vec<Action>,
    ) {
        for (at, committed) in partitions {
            self.partitions.insert(at.clone(), Partition::new(epoch, committed, self.limits));
            actions.push(Action::Claim { at, epoch, committed });
        }
    }

    fn records(&mut self, records: Vec<Record>, actions: &mut Vec<Action>) {
        for record in records {
            // A partition that was let go: its next owner reads the record.
            let Some(partition) = self.partitions.get_mut(&record.at) else { continue };
            let at = record.at.clone();
            partition.window.take(record);
            if partition.window.is_full() && !partition.paused {
                partition.paused = true;
                actions.push(Action::Pause(at));
            }
        }
    }

    fn revoked(
        &mut self,
        ticket: u64,
        partitions: Vec<TopicPartition>,
        lost: bool,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if lost {
            for at in &partitions {
                self.partitions.remove(at);
            }
            actions.push(Action::Drained { ticket, commit: vec![] });
            return;
        }
        for at in &partitions {
            if let Some(partition) = self.partitions.get_mut(at) {
                partition.revoking = true;
            }
        }
        self.revocations.push(Revocation { ticket, partitions, deadline: now + REVOKE_DEADLINE });
    }

    fn claimed(
        &mut self,
        at: &TopicPartition,
        epoch: AssignmentEpoch,
        claimed: Result<Claim, Outcome>,
        now: Duration,
        random: f64,
        actions: &mut Vec<Action>,
    ) {
        let Some(partition) = self.current(at, epoch) else { return };
        match claimed {
            Err(outcome) => partition.stuck(at, None, outcome, Then::Claim, now, random, actions),
            Ok(claim) => {
                let next = claim.next();
                let first = partition.claim.replace(claim).is_none();
                partition.phase = Phase::Idle;
                partition.recovered(at, actions);
                if first {
                    if let Some(next) = next {
                        partition.window.skip_to(next);
                    }
                    let start = next.map_or(StartAt::CommittedOrEarliest, StartAt::Offset);
                    actions.push(Action::Start { at: at.clone(), epoch, start });
                    return;
                }
                // Claimed again after a fence. Most often the row is where it was or has moved on; where somebody moved it
                // back, or took it away, the partition is read again from there.
                match (next, partition.window.head()) {
                    (_, Some(head)) if next.is_none_or(|next| next < head) => {
                        partition.window.rewind(next.unwrap_or(NextOffset::stored(0)));
                        partition.stands_still = false;
                        let start = next.map_or(StartAt::CommittedOrEarliest, StartAt::Offset);
                        actions.push(Action::Start { at: at.clone(), epoch, start });
                    }
                    (Some(next), _) => partition.window.skip_to(next),
                    (None, _) => {}
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one step, spread out once, and called once")]
    fn attempted(
        &mut self,
        at: &TopicPartition,
        epoch: AssignmentEpoch,
        claim: Claim,
        report: Report,
        now: Duration,
        random: f64,
        actions: &mut Vec<Action>,
    ) {
        // What ends after its partition was let go is not settled here: the next owner finds out by itself.
        let Some(partition) = self.current(at, epoch) else { return };
        partition.claim = Some(claim);
        partition.phase = Phase::Idle;
        for settled in &report.settled {
            partition.window.settle(settled.offset);
        }
        if !report.settled.is_empty() {
            partition.recovered(at, actions);
            actions.push(Action::Settled(report.settled));
        }
        match report.halt {
            None => {}
            Some(Halted { halt: Halt::Fenced, .. }) => {
                // A short pause all the same: two that fence each other must not spin.
                let reason = "the partition's offset row was moved or claimed by somebody else";
                let outcome = Outcome::Transient { reason: reason.into() };
                partition.stuck(at, None, outcome, Then::Confirm, now, random, actions);
            }
            Some(Halted { offset, event_id, halt: Halt::Answer(outcome) }) => {
                partition.stuck(at, Some((offset, event_id)), outcome, Then::Attempt, now, random, actions);
            }
        }
    }

    fn confirmed(
        &mut self,
        at: &TopicPartition,
        epoch: AssignmentEpoch,
        accepted: bool,
        now: Duration,
        random: f64,
        actions: &mut Vec<Action>,
    ) {
        let Some(partition) = self.current(at, epoch) else { return };
        if accepted && !partition.revoking {
            partition.phase = Phase::Claiming;
            actions.push(Action::Claim { at: at.clone(), epoch, committed: partition.committed });
        } else {
            // Either a revocation is on its way, which ends this, or the group could not be asked.
            let reason = "the offset row has moved, and the group has not confirmed that the partition is ours";
            let outcome = Outcome::Transient { reason: reason.into() };
            partition.stuck(at, None, outcome, Then::Confirm, now, random, actions);
        }
    }

    fn committed(&mut self, offsets: Vec<(TopicPartition, NextOffset)>, accepted: bool, now: Duration) {
        self.commit_at = Some(now + COMMIT_EVERY);
        if accepted {
            for (at, next) in offsets {
                if let Some(partition) = self.partitions.get_mut(&at) {
                    partition.committed = Some(next);
                }
            }
        }
    }

    /// Whatever has become possible or due.
    fn proceed(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let stopping = self.stop_by.is_some();
        for (at, partition) in &mut self.partitions {
            if !stopping && !partition.revoking {
                partition.proceed(at, self.max_batch, self.held, now, actions);
            }
        }
        self.finish_revocations(now, actions);
        if let Some(deadline) = self.stop_by {
            self.finish(deadline, now, actions);
        } else if self.commit_at.is_some_and(|at| at <= now) {
            let offsets = self.uncommitted();
            if !offsets.is_empty() {
                self.commit_at = None;
                actions.push(Action::Commit(offsets));
            }
        }
    }

    fn finish_revocations(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let partitions = &mut self.partitions;
        self.revocations.retain(|revocation| {
            let busy =
                |at: &&TopicPartition| partitions.get(at).is_some_and(|partition| partition.phase == Phase::Attempting);
            let under_way: Vec<_> = revocation.partitions.iter().filter(busy).cloned().collect();
            if !under_way.is_empty() && now < revocation.deadline {
                return true;
            }
            actions.extend(under_way.into_iter().map(|at| Action::Tell(Notice::LetGo { at })));
            let gone = revocation.partitions.iter().filter_map(|at| Some((at, partitions.remove(at)?)));
            let commit = gone.filter_map(|(at, partition)| partition.uncommitted(at)).collect();
            actions.push(Action::Drained { ticket: revocation.ticket, commit });
            false
        });
    }

    fn finish(&mut self, deadline: Duration, now: Duration, actions: &mut Vec<Action>) {
        let busy = |partition: &Partition| partition.phase == Phase::Attempting;
        if self.finished || (now < deadline && self.partitions.values().any(busy)) {
            return;
        }
        self.finished = true;
        let under_way = self.partitions.iter().filter(|(_, partition)| busy(partition));
        actions.extend(under_way.map(|(at, _)| Action::Tell(Notice::LetGo { at: at.clone() })));
        actions.push(Action::Finish { commit: self.uncommitted() });
    }

    fn uncommitted(&self) -> Vec<(TopicPartition, NextOffset)> {
        self.partitions.iter().filter_map(|(at, partition)| partition.uncommitted(at)).collect()
    }

    fn current(&mut self, at: &TopicPartition, epoch: AssignmentEpoch) -> Option<&mut Partition> {
        self.partitions.get_mut(at).filter(|partition| partition.epoch == epoch)
    }
}

#[cfg(test)]
mod tests;
