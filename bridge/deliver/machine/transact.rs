//! Commits: one transaction at a time, and what its end means.

use std::sync::Arc;
use std::time::Duration;

use super::outcomes::Conclusion;
use super::partition::Partition;
use super::step::{Action, Ended, Notice, TxnId};
use super::{Machine, Turn};
use crate::deliver::retry;
use crate::deliver::rewound::Rewind;
use crate::deliver::settle::{Fate, Progress, Receipt, TooLarge, Transaction, TxnAnswer};
use crate::kafka::TopicPartition;
use crate::kafka::consume::AssignmentEpoch;
use crate::outcome::Outcome;

/// Between two transactions: each costs the brokers several writes for every partition that it touches, and outcomes that
/// come meanwhile share one. The sink has these events already. What a crash leaves without a receipt is sent again.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// The same where something waits for it: a promise before its call, what a Kafka sink writes, a key, room in a window.
const COMMIT_SOON: Duration = Duration::from_millis(50);

/// The transaction under way, and when the next may begin.
#[derive(Debug, Default)]
pub(super) struct Commits {
    under_way: Option<UnderWay>,
    numbers: u64,
    /// Where something waits for it.
    not_before: Duration,
    /// Where nothing does.
    in_time: Duration,
    failures: u32,
    pub(super) fenced: bool,
}

#[derive(Debug)]
struct UnderWay {
    txn: TxnId,
    /// How many receipts it holds of each partition, in their order.
    parts: Vec<(TopicPartition, usize)>,
    /// Partitions that go back with it.
    back: Vec<(TopicPartition, AssignmentEpoch, Rewind)>,
}

impl Commits {
    fn began(&mut self, now: Duration) {
        (self.not_before, self.in_time) = (now + COMMIT_SOON, now + COMMIT_EVERY);
    }

    fn end(&mut self, txn: TxnId) -> Option<UnderWay> {
        self.under_way.take_if(|under_way| under_way.txn == txn)
    }

    fn failed(&mut self, now: Duration, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let outcome = Outcome::Transient { reason: String::new() };
        self.not_before = now + retry::pause(&outcome, self.failures, random);
        self.in_time = self.not_before;
    }
}

impl Machine {
    /// When the next transaction is to begin, as things are.
    pub(super) fn next_commit(&self) -> Option<Duration> {
        if self.commits.under_way.is_some() || self.commits.fenced {
            return None;
        }
        let (mut outcomes, mut awaited, mut news) = (0, false, false);
        for partition in self.partitions.values().filter(|partition| partition.has_news()) {
            news = true;
            outcomes += partition.outcomes.len();
            awaited |= partition.is_awaited();
        }
        let goes_back = self.goes_back();
        // Somebody waits for the last ones.
        let hurry = self.stop_by.is_some() || !self.revocations.is_empty();
        if !news && !goes_back {
            None
        } else if hurry && self.commits.failures == 0 {
            Some(Duration::ZERO)
        } else if awaited || goes_back || outcomes >= self.line.settings.max_transaction {
            Some(self.commits.not_before)
        } else {
            Some(self.commits.in_time)
        }
    }

    /// Asks for a transaction where outcomes wait.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>) {
        if self.next_commit().is_none_or(|next| turn.now < next) {
            return;
        }
        self.commits.numbers += 1;
        let txn = TxnId(self.commits.numbers);
        self.commits.under_way = Some(UnderWay { txn, parts: Vec::new(), back: Vec::new() });
        self.commits.began(turn.now);
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
        let mut parts = Vec::new();
        let back = self.go_back(&mut transaction);
        for (at, partition) in &mut self.partitions {
            let room = self.line.settings.max_transaction.saturating_sub(transaction.receipts.len());
            let Some(next) = partition.fill_transaction(room) else { continue };
            let receipt = |conclusion: &Conclusion| conclusion.receipt(at, self.line.writer, turn.now);
            transaction.receipts.extend(partition.committing.values().map(|conclusion| receipt(conclusion)));
            parts.push((at.clone(), partition.committing.len()));
            let receipts_from = partition.seen.receipts_from(next);
            let (epoch, rewound) = (partition.epoch, partition.rewound.at(next));
            transaction.progress.push(Progress { at: at.clone(), epoch, next, receipts_from, rewound });
        }
        if transaction.progress.is_empty() {
            turn.act(Action::Abort { txn });
        } else {
            turn.act(Action::Commit { txn, transaction });
        }
        self.commits.under_way = Some(UnderWay { txn, parts, back });
    }

    pub(super) fn txn_ended(&mut self, txn: TxnId, answer: TxnAnswer, turn: &mut Turn<'_>) {
        let Some(under_way) = self.commits.end(txn) else { return };
        match answer {
            TxnAnswer::Committed { positions } => {
                self.commits.failures = 0;
                self.committed(&under_way.parts, &positions, turn);
                self.went_back(&under_way.back, turn);
            }
            TxnAnswer::Aborted => {
                self.partitions.values_mut().for_each(Partition::hand_back);
                self.commits.failed(turn.now, turn.chance());
            }
            TxnAnswer::TooLarge(records) => {
                let smaller = self.shrink(&under_way.parts, &records, turn);
                self.partitions.values_mut().for_each(Partition::hand_back);
                if !smaller {
                    self.commits.failed(turn.now, turn.chance());
                }
            }
            TxnAnswer::Unknown => {
                self.commits.failed(turn.now, turn.chance());
                self.read_again(turn);
            }
            TxnAnswer::Fenced => self.commits.fenced = true,
        }
    }

    fn committed(&mut self, parts: &[(TopicPartition, usize)], positions: &[i64], turn: &mut Turn<'_>) {
        let active = self.line.clock.read(turn.now);
        let mut settled = Vec::with_capacity(positions.len());
        let mut positions = positions.iter();
        for (at, count) in parts {
            // A partition that was lost meanwhile is restored by its next owner; of one that came again nothing is here.
            let mut partition = self.partitions.get_mut(at);
            if let Some(partition) = partition.as_deref_mut() {
                partition.committing_ahead = false;
            }
            for position in positions.by_ref().take(*count) {
                let Some(partition) = partition.as_deref_mut() else { continue };
                let Some((_, conclusion)) = partition.committing.pop_first() else { continue };
                partition.committed(&conclusion, *position, self.line.writer, turn, active);
                if let Some(call) = conclusion.call {
                    self.line.keep_promise(partition, call, turn);
                } else {
                    settled.push(conclusion.receipt(at, self.line.writer, turn.now));
                }
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

    /// Settles by something smaller what does not fit, so that it holds nothing else up. `false`: nothing can be done.
    fn shrink(&mut self, parts: &[(TopicPartition, usize)], records: &[TooLarge], turn: &mut Turn<'_>) -> bool {
        let mut any = false;
        for TooLarge { receipt, itself, reason } in records {
            let mut first = 0;
            let place = parts.iter().find_map(|(at, count)| {
                let nth = receipt.checked_sub(first).filter(|nth| nth < count);
                first += count;
                nth.map(|nth| (at, nth))
            });
            let Some((at, nth)) = place else { continue };
            let shrunk = self.partitions.get_mut(at).is_some_and(|partition| partition.shrink(nth, *itself, reason));
            any |= shrunk;
            turn.act(Action::Tell(Notice::TooLarge { at: at.clone(), reason: reason.clone(), shrunk }));
        }
        any
    }

    /// Unknown is never success: what was in the transaction is found out from the receipts.
    fn read_again(&mut self, turn: &mut Turn<'_>) {
        let committing = self.partitions.iter().filter(|(_, partition)| partition.is_committing());
        let unsure: Vec<_> = committing.map(|(at, _)| at.clone()).collect();
        for at in &unsure {
            self.read_partition_again(at, turn);
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
            bare: self.bare,
            output: if let Some(Ended::Written(output)) = &self.ended { Some(Arc::clone(output)) } else { None },
        }
    }
}
