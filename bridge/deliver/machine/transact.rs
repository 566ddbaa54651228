//! Commits: one transaction at a time, and what its end means.

use std::sync::Arc;
use std::time::Duration;

use super::partition::{Conclusion, Partition};
use super::step::{Action, Ended, Notice, TxnId};
use super::{Machine, Turn};
use crate::deliver::keys::Place;
use crate::deliver::retry;
use crate::deliver::settle::{Fate, Progress, Receipt, Transaction, TxnAnswer};
use crate::kafka::TopicPartition;
use crate::outcome::Outcome;

/// Between two transactions: each costs the brokers several writes, and outcomes that come meanwhile share one. A person
/// does not see it, and a sink that takes 200 events a second then needs 20 transactions.
const COMMIT_EVERY: Duration = Duration::from_millis(50);

/// The transaction under way, and when the next may begin.
#[derive(Debug, Default)]
pub(super) struct Commits {
    under_way: Option<UnderWay>,
    numbers: u64,
    not_before: Duration,
    failures: u32,
    pub(super) fenced: bool,
}

#[derive(Debug)]
struct UnderWay {
    txn: TxnId,
    /// What its receipts were made of, in their order.
    places: Vec<(TopicPartition, Place)>,
}

impl Commits {
    pub(super) fn due(&self) -> Option<Duration> {
        self.under_way.is_none().then_some(self.not_before)
    }

    fn end(&mut self, txn: TxnId) -> Option<UnderWay> {
        self.under_way.take_if(|under_way| under_way.txn == txn)
    }

    fn failed(&mut self, now: Duration, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let outcome = Outcome::Transient { reason: String::new() };
        self.not_before = now + retry::pause(&outcome, self.failures, random);
    }
}

impl Machine {
    /// Asks for a transaction where outcomes wait.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>) {
        let waits = self.partitions.values().any(Partition::has_outcomes);
        // Somebody waits for the last ones.
        let hurry = self.stop_by.is_some() || !self.revocations.is_empty();
        let early = turn.now < self.commits.not_before && (!hurry || self.commits.failures > 0);
        if !waits || early || self.commits.under_way.is_some() || self.commits.fenced {
            return;
        }
        self.commits.numbers += 1;
        let txn = TxnId(self.commits.numbers);
        self.commits.under_way = Some(UnderWay { txn, places: Vec::new() });
        self.commits.not_before = turn.now + COMMIT_EVERY;
        turn.act(Action::Begin { txn });
    }

    /// The group's metadata was taken: the transaction holds what belongs to the partitions that are ours by turn.now.
    pub(super) fn begun(&mut self, txn: TxnId, begun: bool, turn: &mut Turn<'_>) {
        if self.commits.under_way.as_ref().is_none_or(|under_way| under_way.txn != txn) {
            return;
        }
        if !begun {
            self.commits.under_way = None;
            self.commits.failed(turn.now, turn.chance());
            return;
        }
        let mut transaction = Transaction::default();
        let mut places = Vec::new();
        for (at, partition) in &mut self.partitions {
            let room = self.line.settings.max_transaction.saturating_sub(transaction.receipts.len());
            let Some(next) = partition.fill_transaction(room) else { continue };
            for conclusion in partition.committing.values() {
                transaction.receipts.push(conclusion.receipt(at, self.line.writer, turn.now));
                places.push((at.clone(), conclusion.place));
            }
            let receipts_from = partition.seen.receipts_from(next);
            transaction.progress.push(Progress { at: at.clone(), epoch: partition.epoch, next, receipts_from });
        }
        if transaction.progress.is_empty() {
            turn.act(Action::Abort { txn });
        } else {
            turn.act(Action::Commit { txn, transaction });
        }
        self.commits.under_way = Some(UnderWay { txn, places });
    }

    pub(super) fn txn_ended(&mut self, txn: TxnId, answer: TxnAnswer, turn: &mut Turn<'_>) {
        let Some(under_way) = self.commits.end(txn) else { return };
        match answer {
            TxnAnswer::Committed { positions } => {
                self.commits.failures = 0;
                self.committed(&under_way.places, &positions, turn);
            }
            TxnAnswer::Aborted => {
                self.partitions.values_mut().for_each(Partition::hand_back);
                self.commits.failed(turn.now, turn.chance());
            }
            TxnAnswer::Unknown => {
                self.commits.failed(turn.now, turn.chance());
                self.read_again(turn);
            }
            TxnAnswer::Fenced => self.commits.fenced = true,
        }
    }

    fn committed(&mut self, places: &[(TopicPartition, Place)], positions: &[i64], turn: &mut Turn<'_>) {
        let active = self.line.clock.read(turn.now);
        let mut settled = Vec::new();
        for ((at, place), position) in places.iter().zip(positions) {
            // A partition that was lost meanwhile is restored by its next owner.
            let Some(partition) = self.partitions.get_mut(at) else { continue };
            let Some(conclusion) = partition.committing.remove(place) else { continue };
            partition.committed(&conclusion, *position, self.line.writer, turn.now, active, turn.chance());
            if let Some(call) = conclusion.call {
                self.line.keep_promise(partition, call, turn);
            } else {
                settled.push(conclusion.receipt(at, self.line.writer, turn.now));
            }
        }
        for partition in self.partitions.values_mut().filter(|partition| partition.restored) {
            if let Some(next) = partition.window.head() {
                partition.seen.committed(next);
            }
            partition.seen.expire(turn.now);
        }
        if !settled.is_empty() {
            turn.act(Action::Settled(settled));
        }
    }

    /// Unknown is never success: what was in the transaction is found out from the receipts.
    fn read_again(&mut self, turn: &mut Turn<'_>) {
        let mut unsure = Vec::new();
        let since = self.now.saturating_sub(self.line.settings.dedupe_window);
        for (at, partition) in &mut self.partitions {
            if partition.committing.is_empty() {
                continue;
            }
            self.restores += 1;
            self.line.start_over(at, partition);
            partition.start_over(self.restores, &self.line.settings);
            unsure.push(at.clone());
            let (epoch, restore) = (partition.epoch, partition.restore);
            turn.act(Action::Restore { at: at.clone(), epoch, restore, since });
        }
        turn.act(Action::Tell(Notice::Unsure { partitions: unsure }));
    }
}

impl Conclusion {
    fn receipt(&self, at: &TopicPartition, writer: u64, now: Duration) -> Receipt {
        Receipt {
            at: at.clone(),
            offset: self.origin,
            delivery_id: self.id,
            fate: self.fate,
            detail: self.detail.clone(),
            attempts: self.attempts,
            age: self.age,
            unsure_since: self.unsure_since.filter(|_| matches!(self.fate, Fate::Parked | Fate::Dead(_))),
            writer,
            settled_at: now,
            record: Arc::clone(&self.record),
            output: if let Some(Ended::Written(output)) = &self.ended { Some(Arc::clone(output)) } else { None },
        }
    }
}
