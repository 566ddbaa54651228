//! Of one partition: what its records have come to, on the way into a transaction and after it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Turn;
use super::partition::{Back, Partition};
use super::step::{CallId, Ended};
use crate::deliver::keys::{KeyId, Place, Stand};
use crate::deliver::retry;
use crate::deliver::settle::{DeadReason, Fate, Followed};
use crate::kafka::{NextOffset, Record};
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

impl Partition {
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
        self.outcomes.insert(conclusion.place, Box::new(conclusion));
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

    /// What was to be committed is not: it goes into the next transaction.
    pub(super) fn hand_back(&mut self) {
        self.outcomes.append(&mut self.committing);
        self.ahead |= std::mem::take(&mut self.committing_ahead);
        self.awaited = self.outcomes.values().any(|conclusion| conclusion.is_awaited());
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
        self.awaited = self.outcomes.values().any(|conclusion| conclusion.is_awaited());
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
