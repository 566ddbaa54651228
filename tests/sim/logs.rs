//! What a process does with the logs: it reads records and receipts, restores, and commits.

use hookbridge::deliver::TxnAnswer;
use hookbridge::deliver::machine::{Arrived, Input, TxnId};
use hookbridge::kafka::{Headers, NextOffset, Record};

use crate::kafka::{Committed, Life};
use crate::world::{Event, POLL, Restoring, Stable, Stage, TXN_TIMEOUT, World, at, followed};

use std::time::Duration;

impl World {
    pub(crate) fn poll(&mut self, life: Life) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let mut records = vec![];
        for (partition, consumer) in
            process.consumers.iter_mut().filter(|(_, consumer)| consumer.started && !consumer.paused)
        {
            let from = consumer.position;
            let ahead = self.kafka.events[*partition].iter().filter(|event| event.offset >= from);
            for event in ahead.take(POLL) {
                consumer.position = event.offset + 1;
                let record = Record {
                    at: at(*partition),
                    offset: event.offset,
                    timestamp_ms: None,
                    key: event.key.clone(),
                    value: Some(event.number.to_be_bytes().to_vec()),
                    headers: Headers::default(),
                };
                records.push(Arrived { delivery_id: event.delivery_id, record });
            }
        }
        process.polls = !records.is_empty();
        if process.polls {
            self.tell(life, Input::Records(records));
            self.soon(200, Event::Poll(life));
        }
    }

    /// There may be something to read.
    pub(crate) fn poll_soon(&mut self, life: Life) {
        let process = self.processes.get_mut(&life);
        if process.is_some_and(|process| !std::mem::replace(&mut process.polls, true)) {
            self.soon(200, Event::Poll(life));
        }
    }

    pub(crate) fn poll_all(&mut self) {
        for life in self.processes.keys().copied().collect::<Vec<_>>() {
            self.poll_soon(life);
        }
    }

    pub(crate) fn follow(&mut self, life: Life) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let mut inputs = vec![];
        for (partition, consumer) in &mut process.consumers {
            let Some((restore, position)) = &mut consumer.follows else { continue };
            let end = self.kafka.last_stable(*partition);
            if end <= *position {
                continue;
            }
            let receipts = followed(self.kafka.read_receipts(*partition, *position, end));
            *position = end;
            let (epoch, restore, position) = (consumer.epoch, *restore, i64::try_from(end).unwrap());
            inputs.push(Input::Followed { at: at(*partition), epoch, restore, receipts, position });
        }
        for input in inputs {
            self.input(life, input);
        }
        self.soon(if self.healed { 60_000 } else { 1_000 }, Event::Follow(life));
    }

    pub(crate) fn restore(&mut self, life: Life, mut restoring: Restoring) {
        let partition = restoring.partition;
        if matches!(restoring.committed, Stable::Unasked) {
            // A stable offset is one that no open transaction is about to change.
            if !self.kafka.has_pending_offsets(partition) {
                restoring.committed = Stable::Read(self.kafka.committed[partition]);
            }
        } else if restoring.end.is_none() {
            restoring.end = Some(self.kafka.receipts[partition].len());
        }
        let (Stable::Read(committed), Some(end)) = (restoring.committed, restoring.end) else {
            self.soon(100, Event::Restore(life, restoring));
            return;
        };
        if self.kafka.last_stable(partition) < end {
            self.count("restore waited for an open transaction");
            self.soon(500, Event::Restore(life, restoring));
            return;
        }
        let Restoring { epoch, restore, since, .. } = restoring;
        let from = committed.map_or(0, |one| usize::try_from(one.receipts_from).unwrap());
        let all = self.kafka.read_receipts(partition, 0, end);
        let young = all.iter().find(|(_, receipt)| receipt.settled_at >= since).map(|(position, _)| *position);
        let from = from.min(young.map_or(end, |position| usize::try_from(position).unwrap()));
        let receipts = followed(self.kafka.read_receipts(partition, from, end));
        let half = receipts.len() / 2;
        let position = i64::try_from(end).unwrap();
        let (first, second) = (receipts[..half].to_vec(), receipts[half..].to_vec());
        let next = committed.map(|one| NextOffset::stored(one.next));
        let rewound = committed.map(|one| one.rewound);
        self.input(life, Input::Found { at: at(partition), epoch, restore, next, rewound });
        self.input(life, Input::Followed { at: at(partition), epoch, restore, receipts: first, position: 0 });
        self.input(life, Input::Followed { at: at(partition), epoch, restore, receipts: second, position });
        if let Some(consumer) = self.processes.get_mut(&life).and_then(|process| process.consumers.get_mut(&partition))
            && consumer.epoch == epoch
        {
            consumer.follows = Some((restore, end));
        }
        self.input(life, Input::Restored { at: at(partition), epoch, restore });
    }

    pub(crate) fn begin(&mut self, life: Life, txn: TxnId) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let begun = process.generation > 0;
        process.begun.insert(txn, process.generation);
        // Through the same channel as the rebalances before it.
        self.tell(life, Input::Begun { txn, begun });
    }

    pub(crate) fn answer(&mut self, life: Life, txn: TxnId, answer: TxnAnswer) {
        match answer {
            TxnAnswer::Committed { .. } => self.count("transaction committed"),
            TxnAnswer::Aborted | TxnAnswer::TooLarge(_) => self.count("transaction aborted"),
            TxnAnswer::Unknown => self.count("transaction unknown"),
            TxnAnswer::Fenced => self.count("transaction fenced"),
        }
        if let Some(process) = self.processes.get_mut(&life) {
            process.commits.remove(&txn);
        }
        self.soon(20, Event::Input(life, Input::TxnEnded { txn, answer }));
    }

    /// A step of a transaction, most often at once, and sometimes so late that others overtake it.
    fn slowly(&mut self, step: Event) {
        let most = if !self.healed && self.chance.percent(5) { 12_000 } else { 20 };
        self.soon(most, step);
    }

    pub(crate) fn transact(&mut self, life: Life, txn: TxnId, stage: Stage) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let epoch = process.producer_epoch;
        let generation = process.begun.get(&txn).copied().unwrap_or_default();
        let Some(commit) = process.commits.get_mut(&txn) else { return };
        let producer = &self.kafka.producers[life.slot];
        if stage == Stage::Renew {
            if producer.owner != Some(life) {
                return self.answer(life, txn, TxnAnswer::Fenced);
            }
            process.producer_epoch = self.kafka.init_producer(life);
            return self.answer(life, txn, TxnAnswer::Unknown);
        }
        if producer.epoch != epoch {
            return self.soon(100, Event::Step(life, txn, Stage::Renew));
        }
        match stage {
            Stage::Produce => {
                let receipts: Vec<_> = commit
                    .transaction
                    .receipts
                    .iter()
                    .map(|receipt| (usize::try_from(receipt.at.partition).unwrap(), receipt.clone()))
                    .collect();
                commit.positions = self.kafka.produce(life, epoch, &receipts, self.now).unwrap_or_default();
                self.after(TXN_TIMEOUT + Duration::from_secs(3), Event::Expire(life.slot, epoch));
                self.slowly(Event::Step(life, txn, Stage::Offsets));
            }
            Stage::Offsets => {
                let progress = commit.transaction.progress.iter();
                let offsets = progress
                    .map(|progress| {
                        let partition = usize::try_from(progress.at.partition).unwrap();
                        let (next, rewound) = (progress.next.get(), progress.rewound);
                        (partition, Committed { next, receipts_from: progress.receipts_from, rewound })
                    })
                    .collect();
                let accepted = self.kafka.send_offsets(life, generation, offsets);
                let unlucky = !self.healed && self.chance.percent(3);
                if !accepted {
                    self.count("generation refused");
                }
                if accepted && !unlucky {
                    return self.slowly(Event::Step(life, txn, Stage::End));
                }
                self.kafka.end(life.slot, false);
                self.answer(life, txn, TxnAnswer::Aborted);
            }
            Stage::End => {
                let positions = commit.positions.clone();
                match if self.healed { 99 } else { self.chance.below(100) } {
                    0..3 => {
                        // Done, and the answer is lost.
                        self.end_transaction(life.slot);
                        self.count("unknown and committed");
                        self.soon(8_000, Event::Step(life, txn, Stage::Renew));
                    }
                    3..5 => {
                        self.count("unknown and not committed");
                        self.soon(8_000, Event::Step(life, txn, Stage::Renew));
                    }
                    5..8 => {
                        let (late, renew) = (self.chance.millis(20_000), self.chance.millis(8_000));
                        self.after(late, Event::LateEnd(life.slot, epoch));
                        self.after(renew, Event::Step(life, txn, Stage::Renew));
                    }
                    _ => {
                        self.end_transaction(life.slot);
                        self.answer(life, txn, TxnAnswer::Committed { positions });
                    }
                }
            }
            Stage::Renew => {}
        }
    }
}
