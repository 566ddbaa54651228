//! Batches: which records share a call, and what its answer means for each of them.
//!
//! ```text
//!   go ─▶ gathering ──full, or its first has waited long enough──▶ out ─▶ answers
//!             ▲ at most one record of a key                         ▲       │ refused as a whole
//!             │                                                     │       ▼
//!             └── failed before: ever smaller batches          halves, waiting for their turn
//! ```
//!
//! - A key has one record out at a time, so that a batch holds one of each key and order needs no further thought.
//! - A batch that is refused as a whole holds one that is to blame: its halves are called, and theirs, until that one is
//!   alone and dies. For each that is to blame it takes two calls a halving at most.
//! - A batch that fails in a way that may pass fails with all that it holds, each under its own key and age. What has
//!   failed before travels in ever smaller batches, in the end alone: one that breaks the sink cannot take others along,
//!   and none grows too old for another's sake.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::iter;
use std::time::Duration;

use super::Turn;
use super::calls::{Line, Stage};
use super::partition::{Partition, Remembered};
use super::step::{Action, BatchId, Batching, Bundled, CallId, Ended};
use crate::config::Guarantee;
use crate::deliver::breaker::Verdict;
use crate::deliver::keys::Stand;
use crate::deliver::settle::{DeadReason, Fate};
use crate::kafka::{Record, TopicPartition};
use crate::outcome::{Answers, Outcome};

/// A batch that is put together. Records whose calls were called off are still named, and passed over when it goes.
#[derive(Debug, Default)]
struct Gathering {
    calls: Vec<CallId>,
    bytes: usize,
    /// Events that it may hold, by what has failed before.
    limit: usize,
    since: Duration,
}

/// Batches before and during their calls; nothing where events go one by one.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Records that were started and are in no call yet.
    started: usize,
    gathering: Gathering,
    /// Batches that take no more.
    waiting: VecDeque<Vec<CallId>>,
    out: BTreeMap<BatchId, Vec<CallId>>,
    numbers: u64,
}

impl Line {
    /// Takes the right to start a record. A batch takes the right to its call when it goes.
    pub(super) fn take_place(&mut self, now: Duration) -> bool {
        let Some(batching) = self.settings.batch else { return self.pace.take(now) };
        let may = self.batches.started < batching.events && now >= self.pace.not_before();
        self.batches.started += usize::from(may);
        may
    }

    /// The record was not sent.
    pub(super) fn give_place_back(&mut self) {
        if self.settings.batch.is_some() {
            self.batches.started = self.batches.started.saturating_sub(1);
        } else {
            self.pace.give_back(false);
        }
    }

    /// When a record may be started by the mere passing of time; `None`: something has to end first.
    pub(super) fn start_due(&self, now: Duration) -> Option<Duration> {
        let Some(batching) = self.settings.batch else { return self.pace.due(now) };
        (self.batches.started < batching.events).then(|| now.max(self.pace.not_before()))
    }

    /// When a batch may go by the mere passing of time.
    pub(super) fn batch_due(&self, now: Duration) -> Option<Duration> {
        let batching = self.settings.batch?;
        let Batches { gathering, waiting, .. } = &self.batches;
        let whole = if waiting.is_empty() { gathering.due(&batching)? } else { Duration::ZERO };
        self.pace.due(now).map(|paced| paced.max(whole))
    }

    /// The record waits for company.
    pub(super) fn gather(&mut self, id: CallId, record: &Record, batching: &Batching, now: Duration) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.stage = Stage::Gathered;
        let Batches { gathering, waiting, .. } = &mut self.batches;
        if call.probe {
            // Whether the sink answers is asked with one event, and at once.
            waiting.push_front(vec![id]);
            return;
        }
        let limit = batching.events.checked_shr(call.attempts).unwrap_or(0).max(1);
        let bytes = record.value.as_ref().map_or(0, Vec::len);
        let is_over = gathering.calls.len() >= gathering.limit.min(limit) || gathering.bytes + bytes > batching.bytes;
        if is_over && !gathering.calls.is_empty() {
            waiting.push_back(std::mem::take(gathering).calls);
        }
        if gathering.calls.is_empty() {
            *gathering = Gathering { calls: Vec::new(), bytes: 0, limit, since: now };
        }
        gathering.calls.push(id);
        gathering.bytes += bytes;
        gathering.limit = gathering.limit.min(limit);
    }

    /// Lets go what may go; `false`: nothing did.
    pub(super) fn depart(&mut self, partitions: &mut BTreeMap<TopicPartition, Partition>, turn: &mut Turn<'_>) -> bool {
        let Some(batching) = self.settings.batch else { return false };
        let mut went = false;
        while let Some(calls) = self.next_batch(&batching, turn.now) {
            let is_probe = calls.iter().any(|id| self.calls.get(id).is_some_and(|call| call.probe));
            if self.breaker.is_open() && !is_probe {
                for id in calls {
                    self.call_off(partitions, id, turn.now);
                }
            } else if self.pace.take(turn.now) {
                self.call_together(calls, turn);
                went = true;
            } else {
                self.batches.waiting.push_front(calls);
                break;
            }
        }
        went
    }

    fn next_batch(&mut self, batching: &Batching, now: Duration) -> Option<Vec<CallId>> {
        let Batches { gathering, waiting, .. } = &mut self.batches;
        loop {
            let mut calls = match waiting.pop_front() {
                Some(calls) => calls,
                None if self.breaker.is_open() || gathering.due(batching).is_some_and(|due| due <= now) => {
                    // It takes more until there is a call for it.
                    if self.pace.due(now).is_none_or(|due| due > now) && !self.breaker.is_open() {
                        return None;
                    }
                    std::mem::take(gathering).calls
                }
                None => return None,
            };
            calls.retain(|id| self.calls.get(id).is_some_and(|call| call.stage == Stage::Gathered));
            if !calls.is_empty() {
                return Some(calls);
            }
            if waiting.is_empty() && gathering.calls.is_empty() {
                return None;
            }
        }
    }

    /// Something has come up while it waited for company.
    fn call_off(&mut self, partitions: &mut BTreeMap<TopicPartition, Partition>, id: CallId, now: Duration) {
        let Some(at) = self.calls.get(&id).map(|call| call.at.clone()) else { return };
        let Some(partition) = partitions.get_mut(&at) else { return };
        let until = self.pace.not_before().max(now);
        if let Some(call) = self.cancel(partition, id) {
            partition.keys.stand(call.key, Stand::Waiting(until));
        }
    }

    fn call_together(&mut self, calls: Vec<CallId>, turn: &mut Turn<'_>) {
        let mut events = Vec::with_capacity(calls.len());
        for id in &calls {
            let Some(call) = self.calls.get_mut(id) else { continue };
            let Some(record) = call.record.clone() else { continue };
            call.stage = Stage::Out;
            call.sent_at = turn.now;
            self.batches.started = self.batches.started.saturating_sub(1);
            events.push(Bundled { call: *id, delivery_id: call.id, attempt: call.attempts + 1, record });
        }
        self.batches.numbers += 1;
        let batch = BatchId(self.batches.numbers);
        self.batches.out.insert(batch, calls);
        turn.act(Action::CallTogether { batch, events });
    }

    #[allow(clippy::too_many_arguments, reason = "one input, spread out once, and called once")]
    pub(super) fn batch_ended(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        batch: BatchId,
        aside: Vec<(CallId, Ended)>,
        answers: Option<Answers>,
        sent: bool,
        turn: &mut Turn<'_>,
    ) {
        let Some(mut calls) = self.batches.out.remove(&batch) else { return };
        self.pace.give_back(sent);
        let left_out: BTreeSet<CallId> = aside.iter().map(|(id, _)| *id).collect();
        calls.retain(|id| !left_out.contains(id));
        for (id, ended) in aside {
            self.came_to(partitions, id, ended, false, turn);
        }
        for id in &calls {
            if let Some(call) = self.calls.get_mut(id) {
                call.company = calls.len() - 1;
            }
        }
        match (answers, calls.as_slice()) {
            (None, _) | (_, []) => {}
            (Some(answers), [one]) => {
                let outcome = match answers {
                    Answers::All(outcome) => outcome,
                    Answers::Each(outcomes) => outcomes.into_iter().next().unwrap_or_else(unsaid),
                };
                self.came_to(partitions, *one, outcome.into(), sent, turn);
            }
            (Some(Answers::All(outcome)), _) => turn.with_one_chance(|turn| {
                self.all_came_to(partitions, &calls, &outcome, sent, turn);
            }),
            (Some(Answers::Each(outcomes)), _) => turn.with_one_chance(|turn| {
                self.each_came_to(partitions, &calls, outcomes, turn);
            }),
        }
    }

    /// What the answer says of the sink is heard once, and then of each record.
    #[allow(clippy::too_many_arguments, reason = "one answer, and where it belongs")]
    fn all_came_to(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        calls: &[CallId],
        outcome: &Outcome,
        sent: bool,
        turn: &mut Turn<'_>,
    ) {
        if *outcome == Outcome::Delivered {
            for id in calls {
                self.came_to(partitions, *id, Ended::Delivered, sent, turn);
            }
            return;
        }
        for id in calls {
            if let Some(call) = self.calls.get_mut(id) {
                call.attempts += u32::from(sent);
            }
        }
        match outcome {
            Outcome::Rejected { .. } => {
                if sent {
                    self.answered(turn);
                }
                self.halve(partitions, calls, turn);
            }
            Outcome::Throttled { after } => {
                self.throttled(*after, turn);
                for id in calls {
                    self.goes_again(partitions, *id, turn);
                }
            }
            _ => {
                if self.judge_batch(calls, outcome, turn) == Verdict::EventsFault {
                    self.halve(partitions, calls, turn);
                } else {
                    for id in calls {
                        self.failed_together(partitions, *id, outcome, turn);
                    }
                }
            }
        }
    }

    fn each_came_to(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        calls: &[CallId],
        outcomes: Vec<Outcome>,
        turn: &mut Turn<'_>,
    ) {
        let may_pass = |outcome: &Outcome| !matches!(outcome, Outcome::Delivered | Outcome::Rejected { .. });
        let outcomes: Vec<Outcome> = outcomes.into_iter().chain(iter::repeat_with(unsaid)).take(calls.len()).collect();
        if let Some(outcome) = outcomes.first().filter(|_| outcomes.iter().all(may_pass)) {
            // Nothing of it has passed: that may be the sink.
            self.judge_batch(calls, outcome, turn);
        }
        for (id, outcome) in calls.iter().zip(&outcomes) {
            if may_pass(outcome) {
                if let Some(call) = self.calls.get_mut(id) {
                    call.attempts += 1;
                    // It is this event that was spoken of.
                    call.company = 0;
                }
                self.failed_together(partitions, *id, outcome, turn);
            } else {
                self.came_to(partitions, *id, outcome.clone().into(), true, turn);
            }
        }
    }

    /// One failure is one, however many events it has held up.
    fn judge_batch(&mut self, calls: &[CallId], outcome: &Outcome, turn: &mut Turn<'_>) -> Verdict {
        let first = calls.iter().find_map(|id| self.calls.get(id)).map(|call| (call.key, call.probe));
        first.map_or(Verdict::Wait, |(key, probe)| self.judge(key, outcome, probe, turn))
    }

    /// One of these is to blame, and nobody knows which: the halves go next, before anything else.
    fn halve(&mut self, partitions: &mut BTreeMap<TopicPartition, Partition>, calls: &[CallId], turn: &mut Turn<'_>) {
        let mut suspects = Vec::with_capacity(calls.len());
        for id in calls {
            if self.home(partitions, *id).is_some_and(|partition| !partition.revoking) {
                suspects.push(*id);
            } else {
                self.goes_again(partitions, *id, turn);
            }
        }
        for id in &suspects {
            if let Some(call) = self.calls.get_mut(id) {
                call.stage = Stage::Gathered;
            }
        }
        self.batches.started += suspects.len();
        let later = suspects.split_off(suspects.len().div_ceil(2));
        for half in [later, suspects].into_iter().filter(|half| !half.is_empty()) {
            self.batches.waiting.push_front(half);
        }
    }

    /// It had no effect, and nothing is held against it.
    fn goes_again(&mut self, partitions: &mut BTreeMap<TopicPartition, Partition>, id: CallId, turn: &mut Turn<'_>) {
        let (until, active) = (self.pace.not_before().max(turn.now), self.clock.read(turn.now));
        if let Some(partition) = self.home(partitions, id) {
            self.again(partition, id, until);
            if partition.revoking {
                partition.park_what_is_known(active);
            }
        } else {
            self.remember(partitions, id, Remembered::NoEffect, None);
        }
    }

    /// It may pass later, or it may have passed: its own key and age decide what is done.
    #[allow(clippy::too_many_arguments, reason = "one record's answer, and where it belongs")]
    fn failed_together(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
        outcome: &Outcome,
        turn: &mut Turn<'_>,
    ) {
        let unknown = matches!(outcome, Outcome::Unknown { .. });
        let once = unknown && self.settings.guarantee == Guarantee::AtMostOnce;
        let ended = || Ended::Failed(outcome.clone());
        let Some(sent_at) = self.calls.get(&id).map(|call| call.sent_at) else { return };
        let Some(partition) = self.home(partitions, id) else {
            let remembered = if once { Remembered::Ended(ended()) } else { Remembered::NoEffect };
            self.remember(partitions, id, remembered, unknown.then_some(sent_at));
            return;
        };
        if once {
            let (fate, detail) = (Fate::Dead(DeadReason::NoAnswer), outcome.reason().to_owned());
            self.conclude(partition, id, fate, detail, Some(ended()), turn.now);
        } else {
            self.wait(partition, id, outcome, turn);
        }
    }

    /// The partition that waits for the call; none where it was let go or read again meanwhile.
    fn home<'p>(
        &self,
        partitions: &'p mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
    ) -> Option<&'p mut Partition> {
        let call = self.calls.get(&id)?;
        let partition = partitions.get_mut(&call.at)?;
        (partition.epoch == call.epoch && partition.restore == call.restore).then_some(partition)
    }
}

impl Gathering {
    /// When it goes; `None`: it is empty.
    fn due(&self, batching: &Batching) -> Option<Duration> {
        if self.calls.is_empty() {
            return None;
        }
        let is_full = self.calls.len() >= self.limit || self.bytes >= batching.bytes;
        Some(if is_full { Duration::ZERO } else { self.since + batching.linger })
    }
}

impl Turn<'_> {
    /// What fails together has the same pause, and so comes together again.
    fn with_one_chance(&mut self, act: impl FnOnce(&mut Turn<'_>)) {
        let drawn = self.chance();
        let mut random = || drawn;
        let mut turn = Turn { now: self.now, random: &mut random, actions: std::mem::take(&mut self.actions) };
        act(&mut turn);
        self.actions = turn.actions;
    }
}

fn unsaid() -> Outcome {
    Outcome::Unknown { reason: "the answer says nothing of this event".into() }
}

#[cfg(test)]
mod tests;
