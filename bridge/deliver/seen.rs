//! What the owner of a partition knows from its receipts: what was settled, what is parked, and what was promised.
//! Bodies stay in Kafka.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::beyond::Beyond;
use super::keys::{ById, KeyId};
use super::rewound::{Rewound, Says, is_firm};
use super::settle::{DeadReason, Fate, Followed};
use crate::kafka::NextOffset;
use crate::outcome::SkipReason;

/// A parked or requeued record.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) key: KeyId,
    pub(super) id: Uuid,
    /// Of the receipt that holds the record.
    pub(super) position: i64,
    pub(super) attempts: u32,
    age: Duration,
    pub(super) unsure_since: Option<Duration>,
    /// A person sent it again, and it was not tried since.
    requeued: bool,
    /// When its receipt was written, after the epoch.
    pub(super) since: Duration,
    /// What the sink's own clock said when `age` was right.
    aged_at: Duration,
}

impl Open {
    /// How long it had been failing when its receipt was written.
    pub(super) fn age_then(&self) -> Duration {
        self.age
    }

    /// The receipt by which a person had it sent again.
    fn requeued_at(&self, origin: i64) -> Followed {
        Followed {
            position: self.position,
            delivery_id: self.id,
            key: self.key,
            origin,
            fate: Fate::Requeued,
            attempts: self.attempts,
            age: self.age,
            unsure_since: self.unsure_since,
            writer: 0,
            settled_at: self.since,
        }
    }

    /// How long it has been failing; `active` is the sink's own clock.
    pub(super) fn age(&self, active: Duration) -> Duration {
        self.age + active.saturating_sub(self.aged_at)
    }
}

/// A promise to send a record once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intent {
    pub(super) origin: i64,
    pub(super) writer: u64,
    position: i64,
}

#[derive(Debug)]
struct Settled {
    at: Duration,
    delivered: bool,
    firm: bool,
    origin: i64,
    position: i64,
    unsure_since: Option<Duration>,
}

/// One partition's memory.
#[derive(Debug)]
pub(super) struct Seen {
    window: Duration,
    most: usize,
    settled: ById<Uuid, Settled>,
    by_age: VecDeque<(Duration, Uuid)>,
    /// By origin: one delivery may be parked twice, under two keys.
    open: BTreeMap<i64, Open>,
    open_ids: ById<Uuid, usize>,
    open_positions: BTreeSet<i64>,
    intents: ById<Uuid, Intent>,
    /// The same by origin: a rewind gives a record another id, and what was promised under the first one stays promised.
    promised: BTreeSet<(i64, Uuid)>,
    /// Settled records at or beyond the committed offset, with their receipts.
    beyond: Beyond,
    /// Requeued records that seemed to be delivered. A promise for one shows that its owner then remembered no delivery.
    passed_over: BTreeMap<i64, Followed>,
    /// Requeued records that are about to come from Kafka, as a rewind wants it.
    put_off: BTreeMap<i64, Followed>,
    /// Our own last receipts, by origin, that the reader of receipts has not come to yet.
    unread: ById<i64, i64>,
    /// The next receipt to be read.
    followed: i64,
    /// After the last receipt that is known of, be it read or written.
    end: i64,
}

impl Seen {
    /// Remembers settled delivery ids for `window`, and no more than `most` of them; and so many settled records that may
    /// come again.
    pub(super) fn new(window: Duration, most: usize, most_beyond: usize) -> Self {
        Self {
            window,
            most,
            settled: ById::default(),
            by_age: VecDeque::new(),
            open: BTreeMap::new(),
            open_ids: ById::default(),
            open_positions: BTreeSet::new(),
            intents: ById::default(),
            promised: BTreeSet::new(),
            beyond: Beyond::new(most_beyond),
            passed_over: BTreeMap::new(),
            put_off: BTreeMap::new(),
            unread: ById::default(),
            followed: 0,
            end: 0,
        }
    }

    /// Takes a receipt of our own, which was committed a moment ago. Gives what a person had sent again since, where that
    /// has to be done after all.
    pub(super) fn written(&mut self, receipt: &Followed, active: Duration) -> Option<Followed> {
        self.take(receipt, active);
        if receipt.fate == Fate::Intent {
            return None;
        }
        if receipt.position >= self.followed {
            self.unread.insert(receipt.origin, receipt.position);
        }
        let requeued = self.put_off.remove(&receipt.origin)?;
        self.requeue(&requeued, active).then_some(requeued)
    }

    /// A person sent a record again. `true`: it is open now. What we have settled since is over, as it is for whoever reads
    /// the receipts in their order.
    pub(super) fn requeue(&mut self, receipt: &Followed, active: Duration) -> bool {
        let is_over = self.unread.get(&receipt.origin).is_some_and(|position| *position > receipt.position);
        if is_over || self.open.contains_key(&receipt.origin) {
            return false;
        }
        self.take(receipt, active);
        self.open.contains_key(&receipt.origin)
    }

    /// A person sent a record again that is about to be sent anyway.
    pub(super) fn put_off(&mut self, receipt: &Followed) {
        self.put_off.insert(receipt.origin, receipt.clone());
    }

    /// Takes a receipt that was read; `active` is the sink's own clock.
    pub(super) fn take(&mut self, receipt: &Followed, active: Duration) {
        let Followed { delivery_id: id, origin, position, fate, .. } = receipt;
        self.end = self.end.max(*position + 1);
        match fate {
            Fate::Intent => {
                let intent = Intent { origin: *origin, writer: receipt.writer, position: *position };
                if let Some(before) = self.intents.insert(*id, intent) {
                    self.promised.remove(&(before.origin, *id));
                }
                self.promised.insert((*origin, *id));
                if self.passed_over.get(origin).is_some_and(|requeued| requeued.delivery_id == *id)
                    && let Some(requeued) = self.passed_over.remove(origin)
                {
                    self.put_open(&requeued, active);
                }
            }
            Fate::Delivered | Fate::Skipped(_) | Fate::Dead(_) => {
                self.close(*origin);
                self.keep_promises(receipt);
                // A repetition says nothing of what it repeats.
                if *fate != Fate::Skipped(SkipReason::Duplicate) {
                    self.remember(receipt);
                }
                self.settle(receipt);
            }
            Fate::Parked => {
                self.keep_promises(receipt);
                // Its owner was to send it again, as it was before a rewind that may be over and forgotten.
                if self.settled.get(id).is_some_and(|one| one.origin == *origin && one.position < *position) {
                    self.settled.remove(id);
                }
                self.put_open(receipt, active);
                self.settle(receipt);
            }
            Fate::Requeued => {
                // It came to its end after it was requeued, or was delivered: there is nothing left to do.
                let over =
                    self.settled.get(id).is_some_and(|settled| settled.delivered || settled.position > *position);
                if over {
                    self.passed_over.insert(*origin, receipt.clone());
                } else if !self.open.contains_key(origin) {
                    self.settled.remove(id);
                    self.put_open(receipt, active);
                }
            }
        }
    }

    fn settle(&mut self, receipt: &Followed) {
        self.beyond.settle(receipt.origin, receipt.position, is_firm(receipt.fate));
    }

    /// The receipts are about to be read, from `next` on being what is committed.
    pub(super) fn begin(&mut self, next: Option<NextOffset>, rewound: Rewound) {
        self.beyond.begin(next, rewound);
    }

    /// Forgets what receipts from before a rewind say no more; after a restore, which has read them all up to where `next` was
    /// committed. Gives since when deliveries that will be sent again may have had their effects.
    pub(super) fn go_back(&mut self, rewound: &Rewound, next: Option<NextOffset>) -> Vec<(Uuid, Duration)> {
        self.beyond.restored();
        // What a person sent again after the rewind, and the rewind sends anyway; or, where it was left out, may.
        let twice = self.open.range(next.map_or(0, NextOffset::get)..).filter(|(origin, open)| {
            let is_younger = rewound.says(**origin, open.position) == Says::Everything;
            open.requeued && is_younger && !self.beyond.has(**origin)
        });
        for (origin, open) in twice.map(|(origin, open)| (*origin, open.clone())).collect::<Vec<_>>() {
            self.close(origin);
            self.put_off.insert(origin, open.requeued_at(origin));
        }
        let mut unsure = Vec::new();
        self.settled.retain(|id, one| {
            let keeps = one.firm || rewound.says(one.origin, one.position) == Says::Everything;
            unsure.extend(one.unsure_since.filter(|_| !keeps).map(|since| (*id, since)));
            keeps
        });
        unsure
    }

    /// After the last record that was settled, where `next` is the committed offset.
    pub(super) fn settled_to(&self, next: NextOffset) -> i64 {
        let open = self.open.last_key_value().map(|(origin, _)| origin + 1);
        next.get().max(open.max(self.beyond.end()).unwrap_or_default())
    }

    /// The next receipt that will be written, or one that was written since and is not known yet.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// The record's end, or its parking, is what became of the promises that were made for it.
    fn keep_promises(&mut self, receipt: &Followed) {
        let all = (receipt.origin, Uuid::nil())..=(receipt.origin, Uuid::max());
        let ids: Vec<Uuid> = self.promised.range(all).map(|(_, id)| *id).collect();
        for id in ids {
            self.promised.remove(&(receipt.origin, id));
            self.intents.remove(&id);
            if id != receipt.delivery_id && !self.settled.contains_key(&id) {
                // It was promised under another id before a rewind, and nobody knows what became of that.
                self.remember(&Followed { delivery_id: id, fate: Fate::Dead(DeadReason::NoAnswer), ..receipt.clone() });
            }
        }
    }

    fn put_open(&mut self, receipt: &Followed, active: Duration) {
        self.close(receipt.origin);
        *self.open_ids.entry(receipt.delivery_id).or_default() += 1;
        self.open_positions.insert(receipt.position);
        self.open.insert(
            receipt.origin,
            Open {
                key: receipt.key,
                id: receipt.delivery_id,
                position: receipt.position,
                attempts: receipt.attempts,
                age: receipt.age,
                unsure_since: receipt.unsure_since,
                requeued: receipt.fate == Fate::Requeued,
                since: receipt.settled_at,
                aged_at: active,
            },
        );
    }

    fn close(&mut self, origin: i64) {
        let Some(open) = self.open.remove(&origin) else { return };
        self.open_positions.remove(&open.position);
        if let Some(count) = self.open_ids.get_mut(&open.id) {
            *count -= 1;
            if *count == 0 {
                self.open_ids.remove(&open.id);
            }
        }
    }

    fn remember(&mut self, receipt: &Followed) {
        let (id, at, position, origin) = (receipt.delivery_id, receipt.settled_at, receipt.position, receipt.origin);
        let (delivered, firm) = (receipt.fate == Fate::Delivered, is_firm(receipt.fate));
        self.settled.insert(id, Settled { at, delivered, firm, origin, position, unsure_since: receipt.unsure_since });
        self.by_age.push_back((at, id));
        if self.by_age.len() > self.most {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, id)) = self.by_age.pop_front() else { return };
        if self.settled.get(&id).is_some_and(|settled| settled.at == at) {
            self.settled.remove(&id);
        }
    }

    /// Forgets what is older than the window; not while receipts are being read, which are all older than now.
    pub(super) fn expire(&mut self, now: Duration) {
        self.passed_over.clear();
        while self.by_age.front().is_some_and(|(at, _)| *at + self.window < now) {
            self.forget_oldest();
        }
    }

    /// Receipts before `position` were read.
    pub(super) fn follow(&mut self, position: i64) {
        self.followed = self.followed.max(position);
        self.unread.retain(|_, written| *written >= position);
        self.end = self.end.max(position);
    }

    /// The committed offset is `next`.
    pub(super) fn committed(&mut self, next: NextOffset) {
        self.beyond.committed(next);
    }

    /// The record at `origin` was settled by an earlier transaction, or is open.
    pub(super) fn is_settled_at(&self, origin: i64) -> bool {
        self.beyond.has(origin) || self.open.contains_key(&origin)
    }

    /// Whether the record at `origin` was settled is not known before the receipts are read again.
    pub(super) fn is_left_out(&self, origin: i64) -> bool {
        self.beyond.is_left_out(origin)
    }

    /// Where that begins.
    pub(super) fn horizon(&self) -> Option<NextOffset> {
        self.beyond.horizon()
    }

    /// Settled records that may come again.
    pub(super) fn beyond(&self) -> usize {
        self.beyond.len()
    }

    /// The delivery was settled or is open: what comes with its id is a repetition.
    pub(super) fn knows(&self, id: Uuid) -> bool {
        self.settled.contains_key(&id) || self.open_ids.contains_key(&id)
    }

    pub(super) fn is_settled(&self, id: Uuid) -> bool {
        self.settled.contains_key(&id)
    }

    /// Every repetition of it is settled already, or will be as one.
    pub(super) fn is_open_id(&self, id: Uuid) -> bool {
        self.open_ids.contains_key(&id)
    }

    pub(super) fn open(&self, origin: i64) -> Option<&Open> {
        self.open.get(&origin)
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    pub(super) fn intent(&self, id: Uuid) -> Option<Intent> {
        self.intents.get(&id).copied()
    }

    /// Everything that is open, in the order of its origins: a receipt that was written again stands behind later ones.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (i64, &Open)> {
        self.open.iter().map(|(origin, open)| (*origin, open))
    }

    /// The oldest receipt that a restore has to read once `next` is committed, however old it is.
    pub(super) fn receipts_from(&self, next: NextOffset) -> i64 {
        let open = self.open_positions.first().copied();
        let beyond = self.beyond.oldest(next);
        let put_off = self.put_off.values().map(|requeued| requeued.position).min();
        let promised = self.intents.values().map(|intent| intent.position).min();
        [open, beyond, put_off, promised].into_iter().flatten().chain([self.followed]).min().unwrap_or(self.followed)
    }
}
