//! Calls: which record goes next, and what becomes of it when its call ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Turn;
use super::batch::Batches;
use super::outcomes::Conclusion;
use super::partition::{Partition, Remembered};
use super::step::{Action, CallId, Ended, Settings};
use crate::config::Guarantee;
use crate::deliver::breaker::{ActiveClock, Breaker, Gate};
use crate::deliver::keys::{KeyId, Place, Queue, Stand};
use crate::deliver::pace::Pace;
use crate::deliver::retry;
use crate::deliver::settle::{DeadReason, Fate};
use crate::kafka::consume::AssignmentEpoch;
use crate::kafka::{Record, TopicPartition};
use crate::outcome::{Outcome, SkipReason};

/// How soon to look again for a delivery whose repetition, under another key, is being sent.
const REPETITION: Duration = Duration::from_millis(100);

/// How a call's record is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Fetching,
    Promising,
    /// It waits for a batch to go out.
    Gathered,
    Out,
}

/// The record that is next of its key.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) key: KeyId,
    pub(super) place: Place,
    pub(super) id: Uuid,
    /// It is sent to see whether the sink answers.
    probe: bool,
}

impl Next {
    pub(super) fn origin(&self) -> i64 {
        match self.place {
            Place::Window(offset) | Place::Open(offset) => offset,
        }
    }
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) at: TopicPartition,
    pub(super) epoch: AssignmentEpoch,
    pub(super) restore: u64,
    pub(super) key: KeyId,
    pub(super) place: Place,
    pub(super) id: Uuid,
    pub(super) origin: i64,
    /// Before this one.
    pub(super) attempts: u32,
    pub(super) unsure_since: Option<Duration>,
    pub(super) record: Option<Arc<Record>>,
    pub(super) stage: Stage,
    pub(super) probe: bool,
    /// It is not sent but written off, for which its record is needed.
    pub(super) doomed: Option<Fate>,
    /// Its promise was committed before.
    pub(super) promised: bool,
    /// What it came to already, before its partition was read again.
    pub(super) known: Option<Ended>,
    pub(super) sent_at: Duration,
    /// Other events in its call: what that came to may be their doing.
    pub(super) company: usize,
}

impl Call {
    pub(super) fn conclusion(
        &self,
        fate: Fate,
        detail: String,
        record: Arc<Record>,
        call: Option<CallId>,
    ) -> Conclusion {
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
            bare: false,
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
    /// Boxed: the map would move some two hundred bytes of each when others come and go.
    pub(super) calls: BTreeMap<CallId, Box<Call>>,
    pub(super) batches: Batches,
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
            batches: Batches::default(),
            numbers: 0,
        }
    }

    /// Starts the partition's next record, if it has one and may. `false`: nothing was started.
    pub(super) fn send_one(&mut self, at: &TopicPartition, partition: &mut Partition, turn: &mut Turn<'_>) -> bool {
        let gate = self.breaker.gate(turn.now);
        if gate == Gate::Shut || !self.take_place(turn.now) {
            return false;
        }
        let probe = gate == Gate::Probe;
        let ready = partition.keys.next_ready();
        let Some(key) = ready.or_else(|| if probe { partition.keys.next_probe() } else { None }) else {
            self.give_place_back();
            return false;
        };
        let Some((place, id)) = partition.keys.get(key).and_then(Queue::head) else {
            self.give_place_back();
            partition.keys.stand(key, Stand::Settling);
            return true;
        };
        let next = Next { key, place, id, probe };
        if partition.repeats_elsewhere(&next) {
            self.give_place_back();
            partition.conclude_waiting(next.origin(), id, key, Fate::Skipped(SkipReason::Duplicate));
            partition.keys.advance(key, place);
            return true;
        }
        if self.has_to_wait(partition, &next) {
            self.give_place_back();
            let until = turn.now + REPETITION;
            partition.keys.stand(key, Stand::Waiting(until));
            if probe {
                // Else it would be tried again at once, and for ever.
                self.breaker.postpone(until);
            }
            return true;
        }
        self.start(at, partition, &next, turn);
        true
    }

    /// The same delivery is under way under another key, or another record of this key is, from before the partition was
    /// read again: one of them at a time.
    fn has_to_wait(&self, partition: &mut Partition, next: &Next) -> bool {
        let promised_elsewhere = partition.seen.intent(next.id).is_some_and(|promise| promise.origin != next.origin());
        // A parked one that another record of the same delivery has just been answered for: once that is committed, it is
        // a repetition.
        let concluded = matches!(next.place, Place::Open(_)) && partition.concluded.contains(&next.id);
        partition.under_way.contains(&next.id) || concluded || promised_elsewhere || self.is_out_for(partition, next)
    }

    /// Reads, promises or sends a record, whichever comes first.
    fn start(&mut self, at: &TopicPartition, partition: &mut Partition, next: &Next, turn: &mut Turn<'_>) {
        let Next { key, place, id, probe } = *next;
        let remembered = partition.remembered.remove(&id);
        if let Some(Remembered::Out(call)) = remembered
            && self.calls.contains_key(&call)
        {
            // Still out, from before the partition was read again.
            self.give_place_back();
            self.adopt(call, partition, next);
            return;
        }
        let promise = partition.seen.intent(id);
        let had_no_effect = matches!(remembered, Some(Remembered::NoEffect));
        let known = if let Some(Remembered::Ended(ended)) = remembered { Some(ended) } else { None };
        // Somebody's promise, of which we know nothing: our own would be remembered.
        let broken = promise.is_some_and(|promise| !had_no_effect || promise.writer != self.writer) && known.is_none();
        let (attempts, unsure_since, position, record) = match place {
            Place::Window(offset) => {
                let attempts = partition.keys.get(key).map_or(0, |queue| queue.failures);
                (attempts, None, 0, partition.window.get(offset).map(Arc::clone))
            }
            Place::Open(origin) => {
                let Some(open) = partition.seen.open(origin) else {
                    self.give_place_back();
                    partition.keys.advance(key, place);
                    return;
                };
                (open.attempts, open.unsure_since, open.position, None)
            }
        };
        let unsure_since = unsure_since.or_else(|| partition.unsure.get(&id).copied());
        let doomed = if matches!(place, Place::Open(_)) && partition.seen.is_settled(id) {
            Some(Fate::Skipped(SkipReason::Duplicate))
        } else if broken {
            Some(Fate::Dead(DeadReason::NoAnswer))
        } else if known.is_none() && self.is_past_window(unsure_since, turn.now) {
            Some(Fate::Dead(DeadReason::PastWindow))
        } else {
            None
        };
        if probe {
            self.breaker.probing();
        }
        self.numbers += 1;
        let call = CallId(self.numbers);
        partition.under_way.insert(id);
        let is_at_hand = record.is_some();
        let entry = Box::new(Call {
            at: at.clone(),
            epoch: partition.epoch,
            restore: partition.restore,
            key,
            place,
            id,
            origin: next.origin(),
            attempts,
            unsure_since,
            record,
            stage: Stage::Fetching,
            probe,
            doomed,
            promised: promise.is_some() && !broken,
            known,
            sent_at: turn.now,
            company: 0,
        });
        self.calls.insert(call, entry);
        if is_at_hand {
            self.go(partition, call, turn);
        } else {
            turn.act(Action::Fetch { call, at: at.clone(), position, origin: next.origin() });
        }
    }

    /// Another record of the key was sent before the partition was read again, and its answer is still to come.
    fn is_out_for(&self, partition: &mut Partition, next: &Next) -> bool {
        let Partition { strays, restore, .. } = partition;
        strays.retain(|id| self.calls.get(id).is_some_and(|call| call.restore != *restore));
        strays.iter().filter_map(|id| self.calls.get(id)).any(|call| call.key == next.key && call.id != next.id)
    }

    fn is_past_window(&self, unsure_since: Option<Duration>, now: Duration) -> bool {
        let window = self.settings.vendor_window.filter(|_| self.settings.guarantee == Guarantee::EffectivelyOnce);
        window.zip(unsure_since).is_some_and(|(window, since)| now.saturating_sub(since) >= window)
    }

    fn adopt(&mut self, call: CallId, partition: &mut Partition, next: &Next) {
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.restore = partition.restore;
            entry.key = next.key;
            entry.place = next.place;
            // It may have been sent for a repetition of this record.
            entry.origin = next.origin();
            partition.under_way.insert(entry.id);
        }
    }

    /// The record is at hand: promise it, send it or let it wait for company, or write it off.
    fn go(&mut self, partition: &mut Partition, id: CallId, turn: &mut Turn<'_>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(record) = call.record.clone() else { return };
        if call.doomed.is_some() || call.known.is_some() {
            // Nothing is sent.
            let (probe, known, doomed) = (std::mem::take(&mut call.probe), call.known.take(), call.doomed);
            self.give_place_back();
            if probe {
                self.breaker.probe_again();
            }
            if let Some(known) = known {
                self.settle_answer(partition, id, known, false, turn);
            } else if let Some(fate) = doomed {
                let detail = match fate {
                    Fate::Dead(DeadReason::Expired) => "retention took the record before it could be delivered",
                    Fate::Dead(_) => "it may have been sent before, and nobody knows what became of it",
                    _ => "",
                };
                self.conclude(partition, id, fate, detail.into(), None, turn.now);
            }
        } else if self.settings.guarantee == Guarantee::AtMostOnce && !call.promised {
            call.stage = Stage::Promising;
            let conclusion = call.conclusion(Fate::Intent, String::new(), record, Some(id));
            partition.conclude(conclusion);
        } else if turn.now < self.pace.not_before() || (self.breaker.is_open() && !call.probe) {
            // Something has come up while its record was read, or its promise was made.
            let until = self.pace.not_before().max(turn.now);
            if let Some(call) = self.cancel(partition, id) {
                partition.keys.stand(call.key, Stand::Waiting(until));
            }
        } else if let Some(batching) = self.settings.batch {
            self.gather(id, &record, &batching, turn.now);
        } else {
            call.stage = Stage::Out;
            call.sent_at = turn.now;
            turn.act(Action::Call { call: id, delivery_id: call.id, attempt: call.attempts + 1, record });
        }
    }

    /// A promise was committed: it may be kept turn.now, unless its partition is being handed over. Then parking takes it
    /// back: whoever is next may make another.
    pub(super) fn keep_promise(&mut self, partition: &mut Partition, id: CallId, turn: &mut Turn<'_>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.promised = true;
        if !partition.is_closing() {
            self.go(partition, id, turn);
        } else if let Some(call) = self.cancel(partition, id)
            && let Some(record) = call.record.clone()
        {
            partition.conclude(call.conclusion(Fate::Parked, String::new(), record, None));
        }
    }

    /// The call is over, or never goes out.
    pub(super) fn end(&mut self, partition: &mut Partition, id: CallId) -> Option<Box<Call>> {
        let call = self.calls.remove(&id)?;
        partition.under_way.remove(&call.id);
        Some(call)
    }

    /// The call never goes out. What was known of its delivery still is.
    pub(super) fn cancel(&mut self, partition: &mut Partition, id: CallId) -> Option<Box<Call>> {
        let mut call = self.end(partition, id)?;
        if let Some(known) = call.known.take() {
            partition.remembered.insert(call.id, Remembered::Ended(known));
        } else if call.promised {
            partition.remembered.insert(call.id, Remembered::NoEffect);
        }
        self.give_place_back();
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
                partition.strays.insert(id);
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

    /// The record is nowhere any more: there is nothing to send, and its key does not wait for it.
    pub(super) fn gone(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
        turn: &mut Turn<'_>,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let partition = partitions.get_mut(&call.at).filter(|partition| partition.restore == call.restore);
        let Some(partition) = partition else { return };
        call.record = Some(Arc::new(Record::lost(call.at.clone(), call.origin)));
        call.doomed.get_or_insert(Fate::Dead(DeadReason::Expired));
        self.go(partition, id, turn);
    }

    pub(super) fn fetched(
        &mut self,
        partitions: &mut BTreeMap<TopicPartition, Partition>,
        id: CallId,
        record: Option<Arc<Record>>,
        turn: &mut Turn<'_>,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let partition = partitions.get_mut(&call.at).filter(|partition| partition.restore == call.restore);
        let Some(partition) = partition else { return };
        let key = call.key;
        if let Some(record) = record {
            call.record = Some(record);
            self.go(partition, id, turn);
        } else {
            self.cancel(partition, id);
            let outcome = Outcome::Transient { reason: "a parked record could not be read".into() };
            partition.keys.stand(key, Stand::Waiting(turn.now + retry::pause(&outcome, 1, turn.chance())));
        }
    }
}
