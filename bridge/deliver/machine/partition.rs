//! One partition: what waits, what is under way, and what waits to be committed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Turn;
use super::calls::Next;
use super::step::{Arrived, CallId, Ended, Settings};
use crate::deliver::keys::{KeyId, Keys, Place, Queue, Stand};
use crate::deliver::retry;
use crate::deliver::rewound::{Rewind, Rewound};
use crate::deliver::seen::Seen;
use crate::deliver::settle::{DeadReason, Fate, Followed, Progress};
use crate::deliver::window::Window;
use crate::kafka::consume::AssignmentEpoch;
use crate::kafka::{NextOffset, Record, TopicPartition};
use crate::outcome::{Outcome, SkipReason};

/// What is known of a record and not yet committed.
#[derive(Debug)]
pub(super) struct Conclusion {
    pub(super) place: Place,
    pub(super) id: Uuid,
    pub(super) key: KeyId,
    pub(super) fate: Fate,
    pub(super) detail: String,
    pub(super) attempts: u32,
    pub(super) age: Duration,
    pub(super) unsure_since: Option<Duration>,
    /// The event's offset.
    pub(super) origin: i64,
    pub(super) record: Arc<Record>,
    /// Goes out once its promise is committed.
    pub(super) call: Option<CallId>,
    /// What the sink said, if it did.
    pub(super) ended: Option<Ended>,
    /// The record's body is too large for where it would be kept.
    pub(super) bare: bool,
}

impl Conclusion {
    /// Its call, its key or a reader of the topic waits for the commit; what a sink has taken at once has nobody waiting.
    fn is_awaited(&self) -> bool {
        let settled = matches!(self.fate, Fate::Delivered | Fate::Skipped(_));
        !settled || matches!(self.place, Place::Open(_)) || matches!(self.ended, Some(Ended::Written(_)))
    }
}

/// What is still known of a delivery after its partition was read again.
#[derive(Debug)]
pub(super) enum Remembered {
    Out(CallId),
    Ended(Ended),
    /// It had no effect: a promise that was committed may still be kept.
    NoEffect,
}

/// How far an order to go back has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Back {
    /// There is none.
    No,
    /// What is under way may end, and is committed first.
    Awaited,
    /// It is in the transaction under way.
    Committing,
}

/// A partition between its assignment and its end.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) epoch: AssignmentEpoch,
    /// Which restore its state belongs to.
    pub(super) restore: u64,
    pub(super) restored: bool,
    pub(super) revoking: bool,
    pub(super) paused: bool,
    pub(super) back: Back,
    /// The group's offset, as the restore has found it.
    found: Option<NextOffset>,
    /// What was carried out.
    pub(super) rewound: Rewound,
    /// A record has come of which nobody knows whether it is settled.
    pub(super) at_horizon: bool,
    pub(super) window: Window,
    pub(super) keys: Keys,
    pub(super) seen: Seen,
    /// For the next transaction.
    pub(super) outcomes: BTreeMap<Place, Conclusion>,
    /// Somebody waits for one of them.
    awaited: bool,
    /// Whether the head is further than any commit says, receipts having said so of its records: there is no outcome to
    /// take the offset along.
    ahead: bool,
    /// In the transaction under way.
    pub(super) committing: BTreeMap<Place, Conclusion>,
    pub(super) committing_ahead: bool,
    /// Deliveries whose end, or parking, is in one of the two.
    pub(super) concluded: HashSet<Uuid>,
    /// Deliveries that are being read, promised or sent.
    pub(super) under_way: HashSet<Uuid>,
    pub(super) remembered: HashMap<Uuid, Remembered>,
    /// Calls that are out from before the partition was read again, until their records have come again.
    pub(super) strays: BTreeSet<CallId>,
    /// Since when a delivery may have had its effect, though nobody said so, and no receipt says it yet.
    pub(super) unsure: HashMap<Uuid, Duration>,
}

impl Partition {
    pub(super) fn new(epoch: AssignmentEpoch, restore: u64, settings: &Settings) -> Self {
        Self {
            epoch,
            restore,
            restored: false,
            revoking: false,
            paused: false,
            back: Back::No,
            found: None,
            rewound: Rewound::default(),
            at_horizon: false,
            window: Window::new(settings.window),
            keys: Keys::default(),
            seen: Seen::new(settings.dedupe_window, settings.max_seen, settings.max_beyond),
            outcomes: BTreeMap::new(),
            awaited: false,
            ahead: false,
            committing: BTreeMap::new(),
            committing_ahead: false,
            concluded: HashSet::new(),
            under_way: HashSet::new(),
            remembered: HashMap::new(),
            strays: BTreeSet::new(),
            unsure: HashMap::new(),
        }
    }

    /// Forgets everything but what was learnt from the sink: the partition is about to be read again.
    pub(super) fn start_over(&mut self, restore: u64, settings: &Settings) {
        self.restore = restore;
        self.restored = false;
        self.back = Back::No;
        self.at_horizon = false;
        self.keys = Keys::default();
        self.seen = Seen::new(settings.dedupe_window, settings.max_seen, settings.max_beyond);
        self.concluded.clear();
        self.under_way.clear();
        let known = std::mem::take(&mut self.outcomes).into_values();
        (self.awaited, self.ahead, self.committing_ahead) = (false, false, false);
        for conclusion in known.chain(std::mem::take(&mut self.committing).into_values()) {
            match (conclusion.ended, conclusion.fate) {
                (Some(ended), _) => _ = self.remembered.insert(conclusion.id, Remembered::Ended(ended)),
                // A repetition, which will be seen again; or a promise of somebody before us, of which nobody knows more.
                (None, Fate::Skipped(SkipReason::Duplicate) | Fate::Dead(DeadReason::NoAnswer)) => {}
                // Decided without the sink: it will be decided again, and whatever was promised had no effect, as far as
                // is known.
                (None, _) => _ = self.remembered.entry(conclusion.id).or_insert(Remembered::NoEffect),
            }
        }
    }

    /// What is committed; the receipts are read next.
    pub(super) fn found(&mut self, next: Option<NextOffset>, rewound: Rewound) {
        (self.found, self.rewound) = (next, rewound);
        self.seen.begin(next, rewound);
    }

    /// The receipts were read: what is open takes its place, and records may come, from the offset that it gives.
    pub(super) fn restored(&mut self, now: Duration) -> Option<NextOffset> {
        self.restored = true;
        let next = self.found;
        for (id, since) in self.seen.go_back(&self.rewound, next) {
            self.unsure.entry(id).or_insert(since);
        }
        // It is about to be started, which resumes it.
        self.paused = false;
        self.seen.expire(now);
        self.window.restart(next);
        if let Some(next) = next {
            self.seen.committed(next);
        }
        for (origin, open) in self.seen.in_order() {
            self.keys.open(
                open.key,
                origin,
                open.id,
                open.since + retry::parked_pause(open.attempts, open.age_then(), 1.0),
            );
        }
        // An open one that was settled before it was parked is still open: only its end decides.
        let seen = &self.seen;
        self.unsure.retain(|id, _| !seen.is_settled(*id));
        self.remembered.retain(|id, _| !seen.is_settled(*id) || seen.is_open_id(*id));
        next
    }

    /// Receipts were read. After the restore only a requeued one is news: all others are our own.
    pub(super) fn follow(&mut self, receipts: &[Followed], position: i64, now: Duration, active: Duration) {
        for receipt in receipts {
            if !self.restored {
                self.seen.take(receipt, active);
            } else if receipt.fate == Fate::Requeued {
                if self.is_to_come(receipt.origin) {
                    self.seen.put_off(receipt);
                } else if self.seen.requeue(receipt, active) {
                    self.keys.open(receipt.key, receipt.origin, receipt.delivery_id, now);
                }
            }
        }
        self.seen.follow(position);
    }

    /// The record waits in the window, or is still to be read: after a rewind that is so of what was settled.
    fn is_to_come(&self, origin: i64) -> bool {
        self.window.head().is_none_or(|head| origin >= head.get()) && !self.seen.is_settled_at(origin)
    }

    /// Takes a record; it waits for its turn, or is parked with its key at once.
    pub(super) fn arrive(&mut self, arrived: Arrived, settings: &Settings) {
        let Arrived { delivery_id, record } = arrived;
        let offset = record.offset;
        let id = self.rewound.id_of(offset, delivery_id);
        if !self.restored {
            self.window.pass(offset);
            return;
        }
        let key = KeyId::of(record.key.as_deref(), id);
        if self.seen.is_left_out(offset) {
            self.at_horizon |= self.window.pass(offset);
            return;
        }
        if !self.window.take(record) {
            return;
        }
        if self.seen.is_settled_at(offset) {
            self.window.settle(offset);
            self.ahead = true;
            return;
        }
        let promised = self.seen.intent(id).is_some_and(|intent| intent.origin == offset);
        if promised && !self.remembered.contains_key(&id) {
            // Somebody before us promised to send it once, and nobody knows whether that came about.
            self.conclude_waiting(offset, id, key, Fate::Dead(DeadReason::NoAnswer));
            return;
        }
        // Nothing goes past those that wait already.
        let parked = self.keys.get(key).is_some_and(|queue| queue.is_parked() && queue.waiting() == 0);
        if parked && !promised && self.has_room_to_park(settings) && !self.is_closing() {
            if self.repeats(id) {
                self.conclude_waiting(offset, id, key, Fate::Skipped(SkipReason::Duplicate));
            } else {
                self.keys.park_one(key);
                self.conclude_waiting(offset, id, key, Fate::Parked);
            }
        } else {
            self.keys.arrive(key, offset, id);
        }
    }

    /// The delivery was settled, or is parked, or is about to be.
    pub(super) fn repeats(&self, id: Uuid) -> bool {
        self.seen.knows(id) || self.concluded.contains(&id)
    }

    /// The window's record repeats one that was settled, or will be. What was promised for this very record has to be settled
    /// by it all the same.
    pub(super) fn repeats_elsewhere(&self, next: &Next) -> bool {
        let promised = || self.seen.intent(next.id).is_some_and(|promise| promise.origin == next.origin());
        matches!(next.place, Place::Window(_)) && self.repeats(next.id) && !promised()
    }

    fn has_room_to_park(&self, settings: &Settings) -> bool {
        self.seen.open_count() + self.outcomes.len() + self.committing.len() < settings.max_open
    }

    /// Parks a key whose first record fails, if it has failed for long enough or is in too many others' way. Gives the
    /// first record.
    pub(super) fn park_if_due(&mut self, key: KeyId, settings: &Settings, active: Duration) -> Option<(i64, Uuid)> {
        let queue = self.keys.get(key)?;
        let (Place::Window(first), _) = queue.head()? else { return None };
        let since = queue.failing_since?;
        let blocks_window = self.window.first().is_some_and(|next| next.get() == first)
            && (self.window.settled() >= self.window.quarter() || self.window.is_full());
        let due = active.saturating_sub(since) >= settings.in_place
            || queue.waiting() >= self.window.quarter()
            || blocks_window;
        if due && self.has_room_to_park(settings) { self.park(key, active) } else { None }
    }

    /// Parks a key: its records leave the window, in order.
    pub(super) fn park(&mut self, key: KeyId, active: Duration) -> Option<(i64, Uuid)> {
        let queue = self.keys.get(key)?;
        let failures = queue.failures;
        let age = queue.failing_since.map_or(Duration::ZERO, |since| active.saturating_sub(since));
        let is_first = matches!(queue.head(), Some((Place::Window(_), _)));
        let (seen, remembered) = (&self.seen, &self.remembered);
        let parked = self.keys.park(key, |offset, id| {
            let promised = seen.intent(id).is_some_and(|intent| intent.origin == offset);
            // Its receipt would take the place of the promise, which is all that is known of a call that may be out.
            promised && !matches!(remembered.get(&id), Some(Remembered::NoEffect))
        });
        for (at, (offset, id)) in parked.iter().enumerate() {
            if self.repeats(*id) {
                self.keys.unpark_one(key);
                self.conclude_waiting(*offset, *id, key, Fate::Skipped(SkipReason::Duplicate));
                continue;
            }
            self.conclude_waiting(*offset, *id, key, Fate::Parked);
            if at == 0
                && is_first
                && let Some(conclusion) = self.outcomes.get_mut(&Place::Window(*offset))
            {
                (conclusion.attempts, conclusion.age) = (failures, age);
            }
        }
        self.keys.go_on_if_idle(key);
        parked.first().copied()
    }

    /// A record of the window is settled without a word of the sink's.
    pub(super) fn conclude_waiting(&mut self, offset: i64, id: Uuid, key: KeyId, fate: Fate) {
        let Some(record) = self.window.get(offset).map(Arc::clone) else { return };
        self.conclude(Conclusion {
            place: Place::Window(offset),
            id,
            key,
            fate,
            detail: String::new(),
            attempts: 0,
            age: Duration::ZERO,
            unsure_since: self.unsure.get(&id).copied(),
            origin: offset,
            record,
            call: None,
            ended: None,
            bare: false,
        });
    }

    pub(super) fn conclude(&mut self, conclusion: Conclusion) {
        if !matches!(conclusion.fate, Fate::Intent | Fate::Skipped(SkipReason::Duplicate)) {
            self.concluded.insert(conclusion.id);
        }
        self.awaited |= conclusion.is_awaited();
        self.outcomes.insert(conclusion.place, conclusion);
    }

    pub(super) fn may_send(&self) -> bool {
        self.restored && !self.is_closing()
    }

    /// It is being handed over, or goes back: nothing more goes out, and what is under way is to end.
    pub(super) fn is_closing(&self) -> bool {
        self.revoking || self.back != Back::No
    }

    /// Its receipts may be read again, for what was left out of them: everything before that is settled. `None`: not yet.
    pub(super) fn reads_on(&mut self) -> Option<NextOffset> {
        let horizon = self.seen.horizon().filter(|_| self.at_horizon && self.may_send() && self.window.is_empty())?;
        if self.window.head().is_none_or(|head| head < horizon) {
            self.window.skip_to(horizon);
            self.ahead = true;
        }
        self.is_clean().then_some(horizon)
    }

    /// Nothing of it is left to be committed before it goes back; whether calls are out is the line's to say.
    pub(super) fn may_go_back(&self) -> bool {
        self.restored && !self.revoking && self.back == Back::Awaited && self.is_clean()
    }

    /// What is committed to go back. `None`: there is no offset to go back from.
    pub(super) fn go_back(&mut self, at: &TopicPartition, order: &Rewind) -> Option<Progress> {
        let head = self.window.head()?;
        self.back = Back::Committing;
        let next = head.min(order.to);
        let order = Rewind { to: next, ..*order };
        Some(Progress {
            at: at.clone(),
            epoch: self.epoch,
            next,
            receipts_from: self.seen.receipts_from(head).min(order.receipts_from),
            rewound: self.rewound.at(head).by(&order, self.seen.settled_to(head), self.seen.end()),
        })
    }

    /// Something of it waits to be committed.
    pub(super) fn has_news(&self) -> bool {
        self.restored && (self.ahead || !self.outcomes.is_empty())
    }

    /// Something goes on only once its outcomes are committed: a full window that has more to send than to commit does not
    /// wait for them.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited || (self.window.is_full() && self.outcomes.len() * 2 >= self.window.len())
    }

    /// A promise that is not in a transaction yet is not made.
    pub(super) fn take_promise_back(&mut self, call: CallId) -> bool {
        let found = self.outcomes.values().find(|conclusion| conclusion.call == Some(call));
        let Some(place) = found.map(|conclusion| conclusion.place) else { return false };
        self.outcomes.remove(&place);
        true
    }

    /// The partition is being handed over, and parking tells the next owner what it could not know: that a promise had no
    /// effect, or since when a delivery may have had one.
    pub(super) fn park_what_is_known(&mut self, active: Duration) {
        for key in self.keys.idle() {
            let Some((place, id)) = self.keys.get(key).and_then(Queue::head) else { continue };
            let promised = self.seen.intent(id).is_some();
            let known = self.unsure.contains_key(&id) || (promised && self.remembered.contains_key(&id));
            if known && matches!(place, Place::Window(_)) {
                self.park(key, active);
            }
        }
    }

    /// What was to be committed is not: it goes into the next transaction.
    pub(super) fn hand_back(&mut self) {
        self.outcomes.append(&mut self.committing);
        self.ahead |= std::mem::take(&mut self.committing_ahead);
        self.awaited = self.outcomes.values().any(Conclusion::is_awaited);
        if self.back == Back::Committing {
            self.back = Back::Awaited;
        }
    }

    /// A record of the transaction, its `nth` here, is too large for its topic: the event is settled by something smaller.
    /// `false`: there is nothing smaller.
    pub(super) fn shrink(&mut self, nth: usize, itself: bool, reason: &str) -> bool {
        let Some(conclusion) = self.committing.values_mut().nth(nth) else { return false };
        match conclusion.fate {
            Fate::Delivered if !itself => {
                let outcome = Outcome::Rejected { reason: reason.to_owned() };
                conclusion.fate = Fate::Dead(DeadReason::Rejected);
                reason.clone_into(&mut conclusion.detail);
                conclusion.ended = Some(Ended::Failed(outcome));
                true
            }
            Fate::Dead(_) if !itself => !std::mem::replace(&mut conclusion.bare, true),
            Fate::Parked if itself => !std::mem::replace(&mut conclusion.bare, true),
            _ => false,
        }
    }

    /// Something of it is in the transaction under way.
    pub(super) fn is_committing(&self) -> bool {
        !self.committing.is_empty() || self.committing_ahead || self.back == Back::Committing
    }

    /// Moves up to `most` outcomes into the transaction; gives the offset that is committed with them. `None`: there is
    /// nothing, or no offset to fence it with.
    pub(super) fn fill_transaction(&mut self, most: usize) -> Option<NextOffset> {
        if !self.has_news() || most == 0 {
            return None;
        }
        self.window.head().or(self.window.first())?;
        self.committing_ahead = std::mem::take(&mut self.ahead);
        // Where the transaction is full, the rest goes into the next one.
        let first_left = if self.outcomes.len() > most { self.outcomes.keys().nth(most).copied() } else { None };
        let rest = first_left.map(|first| self.outcomes.split_off(&first));
        self.committing = std::mem::replace(&mut self.outcomes, rest.unwrap_or_default());
        self.awaited = self.outcomes.values().any(Conclusion::is_awaited);
        let settled = self.committing.values().filter(|conclusion| conclusion.fate != Fate::Intent);
        let settled = settled.filter_map(|conclusion| match conclusion.place {
            Place::Window(offset) => Some(offset),
            Place::Open(_) => None,
        });
        self.window.head_with(settled).or(self.window.first())
    }

    /// A conclusion is committed, its receipt being at `position`; `active` is the sink's own clock.
    pub(super) fn committed(
        &mut self,
        conclusion: &Conclusion,
        position: i64,
        writer: u64,
        turn: &mut Turn<'_>,
        active: Duration,
    ) {
        let Conclusion { place, id, key, fate, origin, .. } = *conclusion;
        let receipt = Followed {
            position,
            delivery_id: id,
            key,
            origin,
            fate,
            attempts: conclusion.attempts,
            age: conclusion.age,
            unsure_since: conclusion.unsure_since,
            writer,
            settled_at: turn.now,
        };
        let requeued = self.seen.written(&receipt, active);
        if fate == Fate::Intent {
            return;
        }
        if fate != Fate::Skipped(SkipReason::Duplicate) {
            self.concluded.remove(&id);
            self.unsure.remove(&id);
        }
        if let Place::Window(offset) = place {
            self.window.settle(offset);
        }
        let mut due = || turn.now + retry::parked_pause(conclusion.attempts, conclusion.age, turn.chance());
        match (place, fate) {
            (Place::Window(_), Fate::Parked) => {
                let due = due();
                self.keys.parked(key, origin, id);
                self.committed_for(key, Stand::Waiting(due));
            }
            (Place::Window(_), Fate::Dead(_)) => self.committed_for(key, Stand::Ready),
            (Place::Window(_), _) => {}
            (Place::Open(_), Fate::Parked) => {
                let due = due();
                self.keys.stand(key, Stand::Waiting(due));
                // They waited in case it would be its last record's end.
                self.park(key, active);
                self.keys.stand(key, Stand::Waiting(due));
            }
            (Place::Open(_), _) => self.keys.advance(key, place),
        }
        if let Some(requeued) = requeued {
            self.keys.open(requeued.key, requeued.origin, requeued.delivery_id, turn.now);
        }
    }

    /// A key may have waited for a commit, and goes on unless it waits for another one.
    fn committed_for(&mut self, key: KeyId, stand: Stand) {
        self.keys.go_on_if_idle(key);
        let Some(queue) = self.keys.get(key).filter(|queue| queue.stand == Stand::Settling) else { return };
        let Some((place, _)) = queue.head() else { return };
        if !self.outcomes.contains_key(&place) && !self.committing.contains_key(&place) {
            self.keys.stand(key, stand);
        }
    }

    /// Nothing of it waits to be committed.
    pub(super) fn is_clean(&self) -> bool {
        !self.ahead && self.outcomes.is_empty() && !self.is_committing()
    }
}
