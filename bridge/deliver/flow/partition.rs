//! One partition of a worker: what is under way in it, and what comes next.

use std::time::Duration;

use super::super::retry;
use super::super::window::{Limits, Window};
use super::step::{Action, Notice, State};
use crate::kafka::consume::AssignmentEpoch;
use crate::kafka::{NextOffset, TopicPartition};
use crate::outcome::Outcome;
use crate::sinks::Claim;

/// A partition between its assignment and its end.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) epoch: AssignmentEpoch,
    pub(super) committed: Option<NextOffset>,
    pub(super) window: Window,
    pub(super) claim: Option<Claim>,
    pub(super) phase: Phase,
    pub(super) state: State,
    pub(super) failures: u32,
    pub(super) paused: bool,
    pub(super) revoking: bool,
    /// Kafka cannot read on, whatever the sink does.
    pub(super) stands_still: bool,
    /// Somebody may have put its offset back, and nothing is on its way that would show it.
    pub(super) look_again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is under way.
    Idle,
    Claiming,
    Attempting,
    Confirming,
    Waiting {
        until: Duration,
        then: Then,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Claim,
    Attempt,
    Confirm,
}

impl Partition {
    /// Assigned, and being claimed.
    pub(super) fn new(epoch: AssignmentEpoch, committed: Option<NextOffset>, limits: Limits) -> Self {
        Self {
            epoch,
            committed,
            window: Window::new(limits),
            claim: None,
            phase: Phase::Claiming,
            state: State::Running,
            failures: 0,
            paused: false,
            revoking: false,
            stands_still: false,
            look_again: false,
        }
    }

    /// Whatever has become possible or due.
    pub(super) fn proceed(
        &mut self,
        at: &TopicPartition,
        max_batch: usize,
        held: bool,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if held && !self.paused && self.claim.is_some() {
            self.paused = true;
            actions.push(Action::Pause(at.clone()));
        }
        // Wherever the room came from: records that were settled, or a row that somebody moved.
        if self.paused && !held && self.window.has_room() {
            self.paused = false;
            actions.push(Action::Resume(at.clone()));
        }
        let at_rest = matches!(self.phase, Phase::Idle | Phase::Waiting { then: Then::Attempt, .. });
        let looks_again = at_rest && self.looks_again();
        let then = match self.phase {
            _ if looks_again => Then::Confirm,
            Phase::Idle if !self.window.is_empty() && !held => Then::Attempt,
            Phase::Waiting { then: Then::Attempt, .. } if held => return,
            Phase::Waiting { until, then } if until <= now => then,
            _ => return,
        };
        let (at, epoch) = (at.clone(), self.epoch);
        match (then, self.claim.clone()) {
            (Then::Attempt, Some(claim)) => {
                let records = self.window.batch(max_batch);
                self.phase = Phase::Attempting;
                actions.push(Action::Attempt { at, epoch, claim, records });
            }
            (Then::Confirm, _) => {
                // Only an attempt is fenced, so there is a record that waits; committing its own offset says nothing new.
                let next = self.window.first().or(self.window.head()).unwrap_or(NextOffset::stored(0));
                self.phase = Phase::Confirming;
                actions.push(Action::Confirm { at, epoch, next });
            }
            (Then::Claim, _) | (Then::Attempt, None) => {
                self.phase = Phase::Claiming;
                actions.push(Action::Claim { at, epoch, committed: self.committed });
            }
        }
    }

    /// Of a partition of which nothing was read there is nothing to put back.
    fn looks_again(&mut self) -> bool {
        std::mem::take(&mut self.look_again) && self.window.head().is_some()
    }

    #[allow(clippy::too_many_arguments, reason = "all of it is the failure, and where it happened")]
    pub(super) fn stuck(
        &mut self,
        at: &TopicPartition,
        event: Option<(i64, Option<String>)>,
        outcome: Outcome,
        then: Then,
        now: Duration,
        random: f64,
        actions: &mut Vec<Action>,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Waiting { until: now + retry::pause(&outcome, self.failures, random), then };
        let state = State::after(&outcome);
        if state != self.state {
            self.state = state;
            let (offset, event_id) = event.map_or((None, None), |(offset, event_id)| (Some(offset), event_id));
            actions.push(Action::Tell(Notice::Stuck { at: at.clone(), offset, event_id, outcome }));
        }
    }

    pub(super) fn recovered(&mut self, at: &TopicPartition, actions: &mut Vec<Action>) {
        self.failures = 0;
        if self.state != State::Running {
            self.state = State::Running;
            actions.push(Action::Tell(Notice::Recovered { at: at.clone() }));
        }
    }

    /// What the group does not know yet.
    pub(super) fn uncommitted(&self, at: &TopicPartition) -> Option<(TopicPartition, NextOffset)> {
        let head = self.window.head()?;
        // Before the start the group may refuse it, and there is nothing to say.
        (self.claim.is_some() && self.committed != Some(head)).then(|| (at.clone(), head))
    }
}
