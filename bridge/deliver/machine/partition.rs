//! One partition: what it remembers, what waits, and what is under way. What its records have come to is in `outcomes`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use super::calls::Next;
use super::outcomes::Conclusion;
use super::step::{Arrived, CallId, Ended, Settings};
use crate::deliver::keys::{ById, Ids, KeyId, Keys, Place, Queue};
use crate::deliver::retry;
use crate::deliver::rewound::{Rewind, Rewound};
use crate::deliver::seen::Seen;
use crate::deliver::settle::{DeadReason, Fate, Followed, Progress};
use crate::deliver::window::Window;
use crate::kafka::consume::AssignmentEpoch;
use crate::kafka::{NextOffset, TopicPartition};
use crate::outcome::SkipReason;

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
    /// For the next transaction. Boxed, since each is moved from map to map.
    pub(super) outcomes: BTreeMap<Place, Box<Conclusion>>,
    /// Somebody waits for one of them.
    pub(super) awaited: bool,
    /// Whether the head is further than any commit says, receipts having said so of its records: there is no outcome to
    /// take the offset along.
    pub(super) ahead: bool,
    /// In the transaction under way.
    pub(super) committing: BTreeMap<Place, Box<Conclusion>>,
    pub(super) committing_ahead: bool,
    /// Deliveries whose end, or parking, is in one of the two.
    pub(super) concluded: Ids,
    /// Deliveries that are being read, promised or sent.
    pub(super) under_way: Ids,
    pub(super) remembered: ById<Uuid, Remembered>,
    /// Calls that are out from before the partition was read again, until their records have come again.
    pub(super) strays: BTreeSet<CallId>,
    /// Since when a delivery may have had its effect, though nobody said so, and no receipt says it yet.
    pub(super) unsure: ById<Uuid, Duration>,
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
            concluded: Ids::default(),
            under_way: Ids::default(),
            remembered: ById::default(),
            strays: BTreeSet::new(),
            unsure: ById::default(),
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
            let conclusion = *conclusion;
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
}
