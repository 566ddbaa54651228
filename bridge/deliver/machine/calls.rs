//! Calls: which record goes next, and what becomes of it when its call ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Random;
use super::partition::{Conclusion, Partition, Remembered};
use super::step::{Action, CallId, Ended, Notice, Settings};
use crate::config::Guarantee;
use crate::deliver::breaker::{ActiveClock, Breaker, Gate, Verdict};
use crate::deliver::keys::{KeyId, Place, Stand};
use crate::deliver::pace::Pace;
use crate::deliver::retry;
use crate::deliver::settle::{DeadReason, Fate};
use crate::kafka::consume::AssignmentEpoch;
use crate::kafka::{Record, TopicPartition};
use crate::outcome::{Outcome, SkipReason};

/// How soon to look again for a delivery whose repetition, under another key, is being sent.
const REPETITION: Duration = Duration::from_millis(100);

/// A sink that asks for a pause without saying how long.
const UNSAID_PAUSE: Duration = Duration::from_secs(1);

/// How a call's record is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fetching,
    Promising,
    Out,
}

#[derive(Debug)]
struct Call {
    at: TopicPartition,
    epoch: AssignmentEpoch,
    restore: u64,
    key: KeyId,
    place: Place,
    id: Uuid,
    origin: i64,
    /// Before this one.
    attempts: u32,
    unsure_since: Option<Duration>,
    record: Option<Arc<Record>>,
    stage: Stage,
    probe: bool,
    /// It is not sent but written off, for which its record is needed.
    doomed: Option<Fate>,
    /// Its promise was committed before.
    promised: bool,
    /// What it came to already, before its partition was read again.
    known: Option<Ended>,
    sent_at: Duration,
}

impl Call {
    fn conclusion(&self, fate: Fate, detail: String, record: Arc<Record>, call: Option<CallId>) -> Conclusion {
        Conclusion {
            place: self.place,
            id: self.id,
            key: self.key,
            fate,
            detail,
            attempts: self.attempts,
            age: Duration::ZERO,
            unsure_since: self.unsure_since,
            origin: self.origin,
            record,
            call,
            ended: None,
        }
    }
}

/// The sink, over all partitions: how fast it may be called, how it fares, and what is under way.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) settings: Settings,
    pub(super) pace: Pace,
    pub(super) breaker: Breaker,
    pub(super) clock: ActiveClock,
    pub(super) paused: bool,
    pub(super) turn: usize,
    /// The machine's number, by which it knows its own promises.
    pub(super) writer: u64,
    calls: BTreeMap<CallId, Call>,
    numbers: u64,
}

impl Line {
    pub(super) fn new(settings: Settings, writer: u64) -> Self {
        let pace = Pace::new(settings.concurrency, settings.rate);
        Self {
            settings,
            pace,
            breaker: Breaker::default(),
            clock: ActiveClock::default(),
            paused: false,
            turn: 0,
            writer,
            calls: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// Starts the partition's next record, if it has one and may. `false`: nothing was started.
    pub(super) fn send_one(
        &mut self,
        at: &TopicPartition,
        partition: &mut Partition,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) -> bool {
        let gate = self.breaker.gate(now);
        if gate == Gate::Shut || !self.pace.take(now) {
            return false;
        }
        let next = partition.keys.next_ready();
        let next = if gate == Gate::Probe { next.or_else(|| partition.keys.next_probe()) } else { next };
        let Some(key) = next else {
            self.pace.give_back(false);
            return false;
        };
        let Some((place, id)) = partition.keys.get(key).and_then(|queue| queue.head()) else {
            self.pace.give_back(false);
            partition.keys.stand(key, Stand::Settling);
            return true;
        };
        self.start(at, partition, key, place, id, gate == Gate::Probe, now, random, actions);
        true
    }

    #[allow(clippy::too_many_arguments, reason = "one decision, spread out once, and called once")]
    fn start(
        &mut self,
        at: &TopicPartition,
        partition: &mut Partition,
        key: KeyId,
        place: Place,
        id: Uuid,
        probe: bool,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        if let Place::Window(offset) = place
            && partition.repeats(id)
        {
            self.pace.give_back(false);
            partition.conclude_waiting(offset, id, key, Fate::Skipped(SkipReason::Duplicate));
            partition.keys.advance(key, place);
            return;
        }
        let origin = match place {
            Place::Window(offset) => offset,
            Place::Open(_) => partition.seen.open(id).map_or(0, |open| open.origin),
        };
        // The same delivery under another key: one of them at a time.
        let promised_elsewhere = partition.seen.intent(id).is_some_and(|intent| intent.origin != origin);
        if partition.under_way.contains(&id) || promised_elsewhere || self.is_out_for(at, partition, key, id) {
            self.pace.give_back(false);
            partition.keys.stand(key, Stand::Waiting(now + REPETITION));
            return;
        }
        let promise = partition.seen.intent(id);
        let mut promised = promise.is_some();
        let mut doomed = None;
        let mut known = None;
        match partition.remembered.remove(&id) {
            // Still out, from before the partition was read again.
            Some(Remembered::Out(call)) if self.calls.contains_key(&call) => {
                self.pace.give_back(false);
                self.adopt(call, partition, key, place, origin);
                return;
            }
            Some(Remembered::Ended(ended)) => known = Some(ended),
            Some(Remembered::NoEffect) if promise.is_none_or(|promise| promise.writer == self.writer) => {}
            Some(Remembered::NoEffect | Remembered::Out(_)) | None if promised => {
                doomed = Some(Fate::Dead(DeadReason::NoAnswer));
                promised = false;
            }
            Some(_) | None => {}
        }
        let (attempts, unsure_since, position, record) = match place {
            Place::Window(offset) => {
                let queue = partition.keys.get(key);
                let attempts = queue.map_or(0, |queue| queue.failures);
                let unsure_since = queue.and_then(|queue| queue.unsure_since);
                (attempts, unsure_since, 0, partition.window.get(offset).map(Arc::clone))
            }
            Place::Open(_) => match partition.seen.open(id) {
                Some(open) => (open.attempts, open.unsure_since, open.position, None),
                None => {
                    self.pace.give_back(false);
                    partition.keys.advance(key, place);
                    return;
                }
            },
        };
        if doomed.is_none() && known.is_none() && self.is_past_window(unsure_since, now) {
            doomed = Some(Fate::Dead(DeadReason::PastWindow));
        }
        if matches!(place, Place::Open(_)) && partition.seen.is_settled(id) {
            doomed = Some(Fate::Skipped(SkipReason::Duplicate));
        }
        self.numbers += 1;
        let call = CallId(self.numbers);
        let stage = Stage::Fetching;
        let (at, epoch, restore) = (at.clone(), partition.epoch, partition.restore);
        if probe {
            self.breaker.probing();
        }
        partition.under_way.insert(id);
        let fetch = record.is_none().then(|| at.clone());
        let entry = Call {
            at,
            epoch,
            restore,
            key,
            place,
            id,
            origin,
            attempts,
            unsure_since,
            record,
            stage,
            probe,
            doomed,
            promised,
            known,
            sent_at: now,
        };
        self.calls.insert(call, entry);
        match fetch {
            Some(at) => actions.push(Action::Fetch { call, at, position }),
            None => self.go(partition, call, now, random, actions),
        }
    }

    /// Another record of the key was sent before the partition was read again, and its answer is still to come.
    fn is_out_for(&self, at: &TopicPartition, partition: &Partition, key: KeyId, id: Uuid) -> bool {
        !partition.remembered.is_empty()
            && self.calls.values().any(|call| {
                let same = call.key == key && call.at == *at && call.epoch == partition.epoch;
                same && call.restore != partition.restore && call.id != id
            })
    }

    fn is_past_window(&self, unsure_since: Option<Duration>, now: Duration) -> bool {
        let window = self.settings.vendor_window.filter(|_| self.settings.guarantee == Guarantee::EffectivelyOnce);
        window.zip(unsure_since).is_some_and(|(window, since)| now.saturating_sub(since) >= window)
    }

    fn adopt(&mut self, call: CallId, partition: &mut Partition, key: KeyId, place: Place, origin: i64) {
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.restore = partition.restore;
            entry.key = key;
            entry.place = place;
            // It may have been sent for a repetition of this record.
            entry.origin = origin;
            partition.under_way.insert(entry.id);
        }
    }

    /// The record is at hand: promise it, send it, or write it off.
    fn go(
        &mut self,
        partition: &mut Partition,
        id: CallId,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(record) = call.record.clone() else { return };
        if call.doomed.is_some() || call.known.is_some() {
            // Nothing is sent.
            self.pace.give_back(false);
            if std::mem::take(&mut call.probe) {
                self.breaker.probe_again();
            }
        }
        if let Some(known) = call.known.take() {
            self.settle_answer(partition, id, known, false, now, random, actions);
        } else if let Some(fate) = call.doomed {
            let unsure = "it may have been sent before, and nobody knows what became of it";
            let detail = if matches!(fate, Fate::Dead(_)) { unsure } else { "" };
            self.conclude(partition, id, fate, detail.into(), None, now);
        } else if self.settings.guarantee == Guarantee::AtMostOnce && !call.promised {
            call.stage = Stage::Promising;
            let conclusion = call.conclusion(Fate::Intent, String::new(), record, Some(id));
            partition.conclude(conclusion);
        } else if now < self.pace.not_before() || (self.breaker.is_open() && !call.probe) {
            // Something has come up while its record was read, or its promise was made.
            let until = self.pace.not_before().max(now);
            if let Some(call) = self.cancel(partition, id) {
                partition.keys.stand(call.key, Stand::Waiting(until));
            }
        } else {
            call.stage = Stage::Out;
            call.sent_at = now;
            actions.push(Action::Call { call: id, delivery_id: call.id, attempt: call.attempts + 1, record });
        }
    }

    /// A promise was committed: it may be kept now, unless its partition is being handed over. Then parking takes it
    /// back: whoever is next may make another.
    pub(super) fn keep_promise(
        &mut self,
        partition: &mut Partition,
        id: CallId,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.promised = true;
        if !partition.revoking {
            self.go(partition, id, now, random, actions);
        } else if let Some(call) = self.cancel(partition, id)
            && let Some(record) = call.record.clone()
        {
            partition.conclude(call.conclusion(Fate::Parked, String::new(), record, None));
        }
    }

    /// The call is over, or never goes out.
    fn end(&mut self, partition: &mut Partition, id: CallId) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        partition.under_way.remove(&call.id);
        Some(call)
    }

    /// The call never goes out. What was known of its delivery still is.
    fn cancel(&mut self, partition: &mut Partition, id: CallId) -> Option<Call> {
        let mut call = self.end(partition, id)?;
        if let Some(known) = call.known.take() {
            partition.remembered.insert(call.id, Remembered::Ended(known));
        } else if call.promised {
            partition.remembered.insert(call.id, Remembered::NoEffect);
        }
        self.pace.give_back(false);
        if call.probe {
            self.breaker.probe_again();
        }
        Some(call)
    }

    /// The partition is being handed over: what has not gone out does not.
    pub(super) fn withdraw(&mut self, at: &TopicPartition, partition: &mut Partition) {
        for id in self.calls_of(at, partition.epoch, |stage| stage != Stage::Out) {
            let promising = self.calls.get(&id).is_some_and(|call| call.stage == Stage::Promising);
            // A promise in the transaction under way is taken back once it is committed.
            if promising && !partition.take_promise_back(id) {
                continue;
            }
            self.cancel(partition, id);
        }
    }

    /// The partition is about to be read again: calls that are out are remembered, the others never happened.
    pub(super) fn start_over(&mut self, at: &TopicPartition, partition: &mut Partition) {
        for id in self.calls_of(at, partition.epoch, |stage| stage != Stage::Out) {
            self.cancel(partition, id);
        }
        for id in self.calls_of(at, partition.epoch, |stage| stage == Stage::Out) {
            if let Some(call) = self.calls.get(&id) {
                partition.remembered.insert(call.id, Remembered::Out(id));
            }
        }
    }

    /// The partition is gone: what has not gone out never happened.
    pub(super) fn forget(&mut self, at: &TopicPartition, partition: &mut Partition) {
        for id in self.calls_of(at, partition.epoch, |stage| stage != Stage::Out) {
            self.cancel(partition, id);
        }
    }

    pub(super) fn is_calling(&self, at: &TopicPartition, epoch: AssignmentEpoch) -> bool {
        self.calls.values().any(|call| call.at == *at && call.epoch == epoch)
    }

    fn calls_of(&self, at: &TopicPartition, epoch: AssignmentEpoch, stage: impl Fn(Stage) -> bool) -> Vec<CallId> {
        let calls = self.calls.iter().filter(|(_, call)| call.at == *at && call.epoch == epoch && stage(call.stage));
        calls.map(|(id, _)| *id).collect()
    }

    pub(super) fn fetched(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
        record: Option<Record>,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let partition = partitions.get_mut(&call.at).filter(|partition| partition.restore == call.restore);
        let Some(partition) = partition else { return };
        let key = call.key;
        match record {
            Some(record) => {
                call.record = Some(Arc::new(record));
                self.go(partition, id, now, random, actions);
            }
            None => {
                self.cancel(partition, id);
                let outcome = Outcome::Transient { reason: "a parked record could not be read".into() };
                partition.keys.stand(key, Stand::Waiting(now + retry::pause(&outcome, 1, random())));
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one input, spread out once, and called once")]
    pub(super) fn ended(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
        ended: Ended,
        sent: bool,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.get(&id) else { return };
        self.pace.give_back(sent);
        let (at, epoch, restore, key, delivery) = (call.at.clone(), call.epoch, call.restore, call.key, call.id);
        let partition = partitions.get_mut(&at).filter(|partition| partition.epoch == epoch);
        let Some(partition) = partition.filter(|partition| partition.restore == restore) else {
            if sent {
                self.learn(id, key, &ended, now, random, actions);
            } else if self.calls.get(&id).is_some_and(|call| call.probe) {
                self.breaker.probe_again();
            }
            self.calls.remove(&id);
            // Its partition was let go, and the next owner finds out by itself; or it is being read again, and the answer
            // waits for its record.
            if let Some(partition) = partitions.get_mut(&at).filter(|partition| partition.epoch == epoch) {
                partition.remembered.insert(delivery, Remembered::Ended(ended));
            }
            return;
        };
        self.settle_answer(partition, id, ended, sent, now, random, actions);
    }

    /// What an answer says of the sink, where its record is not at hand.
    fn learn(
        &mut self,
        id: CallId,
        key: KeyId,
        ended: &Ended,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let probe = self.calls.get(&id).is_some_and(|call| call.probe);
        match ended {
            Ended::Delivered => {
                self.breaker.delivered(key);
                self.answered(actions);
            }
            Ended::Failed(Outcome::Throttled { after }) => self.throttled(*after, now, random, actions),
            Ended::Failed(Outcome::Rejected { .. }) | Ended::Skipped(_) => self.answered(actions),
            Ended::Failed(outcome) => _ = self.judge(key, outcome, probe, now, random, actions),
        }
    }

    fn throttled(&mut self, after: Option<Duration>, now: Duration, random: Random<'_>, actions: &mut Vec<Action>) {
        self.answered(actions);
        self.pace.hold(now, after.unwrap_or(UNSAID_PAUSE.mul_f64(1.0 + random())));
        let until = self.pace.not_before();
        actions.push(Action::Tell(Notice::Throttled { until }));
    }

    #[allow(clippy::too_many_arguments, reason = "one answer, and where it belongs")]
    fn settle_answer(
        &mut self,
        partition: &mut Partition,
        id: CallId,
        ended: Ended,
        sent: bool,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (key, probe) = (call.key, call.probe);
        call.attempts += u32::from(sent);
        if probe && !sent {
            self.breaker.probe_again();
        }
        match ended {
            Ended::Delivered => {
                if sent {
                    self.breaker.delivered(key);
                    self.answered(actions);
                }
                self.conclude(partition, id, Fate::Delivered, String::new(), Some(Ended::Delivered), now);
            }
            Ended::Skipped(reason) => {
                self.conclude(partition, id, Fate::Skipped(reason), String::new(), Some(Ended::Skipped(reason)), now);
            }
            Ended::Failed(outcome) => self.failed(partition, id, outcome, sent, now, random, actions),
        }
    }

    fn answered(&mut self, actions: &mut Vec<Action>) {
        if self.breaker.answered() {
            actions.push(Action::Tell(Notice::Recovered));
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one failure, and where it happened")]
    fn failed(
        &mut self,
        partition: &mut Partition,
        id: CallId,
        outcome: Outcome,
        sent: bool,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.get(&id) else { return };
        let (key, probe) = (call.key, call.probe);
        let dead = |outcome: &Outcome| (outcome.reason().to_owned(), Some(Ended::Failed(outcome.clone())));
        match &outcome {
            Outcome::Delivered => {
                self.conclude(partition, id, Fate::Delivered, String::new(), Some(Ended::Delivered), now);
            }
            Outcome::Rejected { .. } => {
                if sent {
                    self.answered(actions);
                }
                if probe && sent {
                    // Nothing is a dead letter while the sink is held. It answers, so that the next answer counts.
                    self.again(partition, id, now);
                    return;
                }
                let (detail, ended) = dead(&outcome);
                self.conclude(partition, id, Fate::Dead(DeadReason::Rejected), detail, ended, now);
            }
            Outcome::Throttled { after } => {
                self.throttled(*after, now, random, actions);
                self.again(partition, id, self.pace.not_before());
            }
            Outcome::Unknown { .. } if self.settings.guarantee == Guarantee::AtMostOnce => {
                self.judge(key, &outcome, probe, now, random, actions);
                let (detail, ended) = dead(&outcome);
                self.conclude(partition, id, Fate::Dead(DeadReason::NoAnswer), detail, ended, now);
            }
            _ => {
                if self.judge(key, &outcome, probe, now, random, actions) == Verdict::EventsFault {
                    let (detail, ended) = dead(&outcome);
                    self.conclude(partition, id, Fate::Dead(DeadReason::Rejected), detail, ended, now);
                } else {
                    self.wait(partition, id, &outcome, now, random, actions);
                }
            }
        }
    }

    fn judge(
        &mut self,
        key: KeyId,
        outcome: &Outcome,
        probe: bool,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) -> Verdict {
        let verdict = self.breaker.failed(key, outcome, probe, now, random());
        if verdict == Verdict::Opened {
            actions.push(Action::Tell(Notice::Held { outcome: outcome.clone() }));
        }
        verdict
    }

    /// The record is tried again at `until`, as though nothing had happened.
    fn again(&mut self, partition: &mut Partition, id: CallId, until: Duration) {
        let Some(call) = self.end(partition, id) else { return };
        partition.remembered.insert(call.id, Remembered::NoEffect);
        partition.keys.stand(call.key, Stand::Waiting(until));
    }

    /// The record failed: its key waits, parks, or gives it up.
    fn wait(
        &mut self,
        partition: &mut Partition,
        id: CallId,
        outcome: &Outcome,
        now: Duration,
        random: Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let active = self.clock.read(now);
        let held = self.breaker.is_open();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (key, place, delivery) = (call.key, call.place, call.id);
        let mut failures = 0;
        let mut age = Duration::ZERO;
        if matches!(outcome, Outcome::Unknown { .. }) {
            // The sink's window may have begun as soon as it was sent.
            call.unsure_since = call.unsure_since.or(Some(call.sent_at));
        }
        if let Some(queue) = partition.keys.get_mut(key) {
            queue.failures = queue.failures.saturating_add(1);
            failures = queue.failures;
            if matches!(place, Place::Window(_)) {
                queue.unsure_since = call.unsure_since;
                age = active.saturating_sub(*queue.failing_since.get_or_insert(active));
            }
        }
        if let Some(open) = partition.seen.open(delivery).filter(|_| place == Place::Open(delivery)) {
            age = open.age(active);
        }
        if age >= self.settings.max_age && !held {
            let detail = outcome.reason().to_owned();
            self.conclude(partition, id, Fate::Dead(DeadReason::TooOld), detail, None, now);
            return;
        }
        if place == Place::Open(delivery) && !held {
            let detail = outcome.reason().to_owned();
            self.conclude(partition, id, Fate::Parked, detail, None, now);
            return;
        }
        let Some(call) = self.end(partition, id) else { return };
        partition.remembered.insert(call.id, Remembered::NoEffect);
        let pause = retry::pause(outcome, failures, random());
        partition.keys.stand(key, Stand::Waiting(now + pause));
        self.park_if_due(&call.at, partition, key, now, actions);
    }

    fn park_if_due(
        &mut self,
        at: &TopicPartition,
        partition: &mut Partition,
        key: KeyId,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if self.breaker.is_open() {
            return;
        }
        let active = self.clock.read(now);
        if let Some((offset, delivery_id)) = partition.park_if_due(key, &self.settings, active) {
            actions.push(Action::Tell(Notice::Parked { at: at.clone(), offset, delivery_id }));
        }
    }

    /// A failing key that has come to be in the others' way parks, without waiting for its next attempt.
    pub(super) fn unblock(
        &mut self,
        at: &TopicPartition,
        partition: &mut Partition,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let first = partition.window.first().and_then(|first| partition.window.get(first.get()));
        let Some(record) = first.filter(|_| partition.window.settled() > 0) else { return };
        // A record without a key holds up nobody but itself, and is found by its own failures.
        let Some(bytes) = record.key.as_deref() else { return };
        let key = KeyId::of(Some(bytes), Uuid::nil());
        if partition.keys.get(key).is_some_and(|queue| matches!(queue.stand, Stand::Waiting(_))) {
            self.park_if_due(at, partition, key, now, actions);
        }
    }

    /// The call's end is known, and waits for the next transaction.
    fn conclude(
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
        conclusion.age = match partition.seen.open(call.id) {
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
