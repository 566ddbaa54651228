//! Answers: what becomes of a record, and of the sink, when a call ends.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::Turn;
use super::calls::{Call, Line};
use super::partition::{Partition, Remembered};
use super::step::{Action, CallId, Ended, Notice};
use crate::config::Guarantee;
use crate::deliver::breaker::Verdict;
use crate::deliver::keys::{KeyId, Place, Stand};
use crate::deliver::retry;
use crate::deliver::settle::{DeadReason, Fate};
use crate::kafka::TopicPartition;
use crate::outcome::Outcome;

/// A sink that asks for a pause without saying how long.
const UNSAID_PAUSE: Duration = Duration::from_secs(1);

impl Line {
    #[allow(clippy::too_many_arguments, reason = "one input, spread out once, and called once")]
    pub(super) fn ended(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
        ended: Ended,
        sent: bool,
        turn: &mut Turn<'_>,
    ) {
        if self.calls.contains_key(&id) {
            self.pace.give_back(sent);
            self.came_to(partitions, id, ended, sent, turn);
        }
    }

    /// What became of one record.
    #[allow(clippy::too_many_arguments, reason = "one record's answer, and where it belongs")]
    pub(super) fn came_to(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
        ended: Ended,
        sent: bool,
        turn: &mut Turn<'_>,
    ) {
        let Some(call) = self.calls.get(&id) else { return };
        let (at, epoch, restore, key) = (call.at.clone(), call.epoch, call.restore, call.key);
        let sent_at = call.sent_at;
        let partition = partitions.get_mut(&at).filter(|partition| partition.epoch == epoch);
        let Some(partition) = partition.filter(|partition| partition.restore == restore) else {
            if sent {
                self.learn(id, key, &ended, turn);
            } else if self.calls.get(&id).is_some_and(|call| call.probe) {
                self.breaker.probe_again();
            }
            let unsure_since = matches!(ended, Ended::Failed(Outcome::Unknown { .. })).then_some(sent_at);
            self.remember(partitions, id, Remembered::Ended(ended), unsure_since);
            return;
        };
        self.settle_answer(partition, id, ended, sent, turn);
    }

    /// The call's partition was let go, and the next owner finds out by itself; or it is being read again, and what is known
    /// waits for its record.
    pub(super) fn remember(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
        known: Remembered,
        unsure_since: Option<Duration>,
    ) {
        let Some(call) = self.calls.remove(&id) else { return };
        let Call { at, epoch, id: delivery, .. } = *call;
        let partition = partitions.get_mut(&at).filter(|partition| partition.epoch == epoch);
        if let Some(partition) = partition.filter(|partition| !partition.seen.is_settled(delivery)) {
            if let Some(since) = unsure_since {
                partition.unsure.entry(delivery).or_insert(since);
            }
            partition.remembered.insert(delivery, known);
        }
    }

    /// What an answer says of the sink, where its record is not at hand.
    fn learn(&mut self, id: CallId, key: KeyId, ended: &Ended, turn: &mut Turn<'_>) {
        let probe = self.calls.get(&id).is_some_and(|call| call.probe);
        match ended {
            Ended::Delivered | Ended::Written(_) => {
                self.breaker.delivered(key);
                self.answered(turn);
            }
            Ended::Failed(Outcome::Throttled { after }) => self.throttled(*after, turn),
            Ended::Failed(Outcome::Rejected { .. }) | Ended::Skipped(_) => self.answered(turn),
            Ended::Failed(outcome) => _ = self.judge(key, outcome, probe, turn),
        }
    }

    pub(super) fn throttled(&mut self, after: Option<Duration>, turn: &mut Turn<'_>) {
        self.answered(turn);
        self.pace.hold(turn.now, after.unwrap_or(UNSAID_PAUSE.mul_f64(1.0 + turn.chance())));
        let until = self.pace.not_before();
        turn.act(Action::Tell(Notice::Throttled { until }));
    }

    #[allow(clippy::too_many_arguments, reason = "one answer, and where it belongs")]
    pub(super) fn settle_answer(
        &mut self,
        partition: &mut Partition,
        id: CallId,
        ended: Ended,
        sent: bool,
        turn: &mut Turn<'_>,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (key, probe) = (call.key, call.probe);
        call.attempts += u32::from(sent);
        if probe && !sent {
            self.breaker.probe_again();
        }
        match ended {
            Ended::Delivered | Ended::Written(_) => {
                if sent {
                    self.breaker.delivered(key);
                    self.answered(turn);
                }
                self.conclude(partition, id, Fate::Delivered, String::new(), Some(ended), turn.now);
            }
            Ended::Skipped(reason) => {
                self.conclude(
                    partition,
                    id,
                    Fate::Skipped(reason),
                    String::new(),
                    Some(Ended::Skipped(reason)),
                    turn.now,
                );
            }
            Ended::Failed(outcome) => self.failed(partition, id, &outcome, sent, turn),
        }
    }

    pub(super) fn answered(&mut self, turn: &mut Turn<'_>) {
        if self.breaker.answered() {
            // A probe that is still out has nothing left to find out.
            self.calls.values_mut().for_each(|call| call.probe = false);
            turn.act(Action::Tell(Notice::Recovered));
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one failure, and where it happened")]
    fn failed(&mut self, partition: &mut Partition, id: CallId, outcome: &Outcome, sent: bool, turn: &mut Turn<'_>) {
        let Some(call) = self.calls.get(&id) else { return };
        let (key, probe) = (call.key, call.probe);
        let dead = |outcome: &Outcome| (outcome.reason().to_owned(), Some(Ended::Failed(outcome.clone())));
        match outcome {
            Outcome::Delivered => {
                self.conclude(partition, id, Fate::Delivered, String::new(), Some(Ended::Delivered), turn.now);
            }
            Outcome::Rejected { .. } => {
                if sent {
                    self.answered(turn);
                }
                if probe && sent {
                    // Nothing is a dead letter while the sink is held. It answers, so that the next answer counts.
                    self.again(partition, id, turn.now);
                    return;
                }
                let (detail, ended) = dead(outcome);
                self.conclude(partition, id, Fate::Dead(DeadReason::Rejected), detail, ended, turn.now);
            }
            Outcome::Throttled { after } => {
                self.throttled(*after, turn);
                self.again(partition, id, self.pace.not_before());
            }
            Outcome::Unknown { .. } if self.settings.guarantee == Guarantee::AtMostOnce => {
                self.judge(key, outcome, probe, turn);
                let (detail, ended) = dead(outcome);
                self.conclude(partition, id, Fate::Dead(DeadReason::NoAnswer), detail, ended, turn.now);
            }
            _ => {
                if self.judge(key, outcome, probe, turn) == Verdict::EventsFault {
                    let (detail, ended) = dead(outcome);
                    self.conclude(partition, id, Fate::Dead(DeadReason::Rejected), detail, ended, turn.now);
                } else {
                    self.wait(partition, id, outcome, turn);
                }
            }
        }
    }

    pub(super) fn judge(&mut self, key: KeyId, outcome: &Outcome, probe: bool, turn: &mut Turn<'_>) -> Verdict {
        let verdict = self.breaker.failed(key, outcome, probe, turn.now, turn.chance());
        if verdict == Verdict::Opened {
            turn.act(Action::Tell(Notice::Held { outcome: outcome.clone() }));
        }
        verdict
    }

    /// The record is tried again at `until`, as though nothing had happened.
    pub(super) fn again(&mut self, partition: &mut Partition, id: CallId, until: Duration) {
        let Some(call) = self.end(partition, id) else { return };
        partition.remembered.insert(call.id, Remembered::NoEffect);
        partition.keys.stand(call.key, Stand::Waiting(until));
    }

    /// The record failed: its key waits, parks, or gives it up.
    pub(super) fn wait(&mut self, partition: &mut Partition, id: CallId, outcome: &Outcome, turn: &mut Turn<'_>) {
        let active = self.clock.read(turn.now);
        let held = self.breaker.is_open();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (key, place, alone) = (call.key, call.place, call.company == 0);
        let mut failures = 0;
        let mut age = Duration::ZERO;
        if matches!(outcome, Outcome::Unknown { .. }) {
            // The sink's window may have begun as soon as it was sent. No receipt says so yet.
            let since = *partition.unsure.entry(call.id).or_insert(call.unsure_since.unwrap_or(call.sent_at));
            call.unsure_since = Some(since);
        }
        if let Some(queue) = partition.keys.get_mut(key) {
            queue.failures = queue.failures.saturating_add(1);
            failures = queue.failures;
            if matches!(place, Place::Window(_)) {
                age = active.saturating_sub(*queue.failing_since.get_or_insert(active));
            }
        }
        if let Place::Open(origin) = place
            && let Some(open) = partition.seen.open(origin)
        {
            age = open.age(active);
        }
        // In company it may be another's fault; soon it goes alone.
        if age >= self.settings.max_age && !held && alone {
            let detail = outcome.reason().to_owned();
            self.conclude(partition, id, Fate::Dead(DeadReason::TooOld), detail, None, turn.now);
            return;
        }
        if matches!(place, Place::Open(_)) && !held {
            let detail = outcome.reason().to_owned();
            self.conclude(partition, id, Fate::Parked, detail, None, turn.now);
            return;
        }
        let Some(call) = self.end(partition, id) else { return };
        partition.remembered.insert(call.id, Remembered::NoEffect);
        let pause = retry::pause(outcome, failures, turn.chance());
        partition.keys.stand(key, Stand::Waiting(turn.now + pause));
        if partition.is_closing() {
            partition.park_what_is_known(active);
        } else {
            self.park_if_due(&call.at, partition, key, turn);
        }
    }

    fn park_if_due(&mut self, at: &TopicPartition, partition: &mut Partition, key: KeyId, turn: &mut Turn<'_>) {
        if self.breaker.is_open() {
            return;
        }
        let active = self.clock.read(turn.now);
        if let Some((offset, delivery_id)) = partition.park_if_due(key, &self.settings, active) {
            turn.act(Action::Tell(Notice::Parked { at: at.clone(), offset, delivery_id }));
        }
    }

    /// A failing key that has come to be in the others' way parks, without waiting for its next attempt.
    pub(super) fn unblock(&mut self, at: &TopicPartition, partition: &mut Partition, turn: &mut Turn<'_>) {
        let first = partition.window.first().and_then(|first| partition.window.get(first.get()));
        let Some(record) = first.filter(|_| partition.window.settled() > 0) else { return };
        // A record without a key holds up nobody but itself, and is found by its own failures.
        let Some(bytes) = record.key.as_deref() else { return };
        let key = KeyId::of(Some(bytes), Uuid::nil());
        if partition.keys.get(key).is_some_and(|queue| matches!(queue.stand, Stand::Waiting(_))) {
            self.park_if_due(at, partition, key, turn);
        }
    }

    /// The call's end is known, and waits for the next transaction.
    pub(super) fn conclude(
        &mut self,
        partition: &mut Partition,
        id: CallId,
        fate: Fate,
        detail: String,
        ended: Option<Ended>,
        now: Duration,
    ) {
        let active = self.clock.read(now);
        let Some(call) = self.end(partition, id) else { return };
        let Some(record) = call.record.clone() else { return };
        let failing_since = partition.keys.get(call.key).and_then(|queue| queue.failing_since);
        let mut conclusion = call.conclusion(fate, detail, record, None);
        conclusion.ended = ended;
        conclusion.age = match partition.seen.open(call.origin) {
            Some(open) => open.age(active),
            None => failing_since.map_or(Duration::ZERO, |since| active.saturating_sub(since)),
        };
        partition.conclude(conclusion);
        if fate.is_final() {
            self.breaker.forget(call.key);
        }
        let waits_for_commit = matches!(call.place, Place::Open(_)) || matches!(fate, Fate::Dead(_));
        if waits_for_commit {
            partition.keys.settle(call.key, call.place);
        } else {
            partition.keys.advance(call.key, call.place);
        }
    }
}
