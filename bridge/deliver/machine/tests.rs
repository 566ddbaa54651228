use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::config::Guarantee;
use crate::deliver::receipt::{self, receipt_of};
use crate::deliver::settle::{DeadReason, Fate, Followed, Progress, Receipt, Transaction, TxnAnswer};
use crate::deliver::window::Limits;
use crate::event::delivered_again;
use crate::kafka::{Headers, NextOffset, Record};
use crate::outcome::{Outcome, SkipReason};

/// A sink's machine with one partition, of which everything before offset 10 is settled, and a broker that does at once
/// what it is asked.
struct Bench {
    machine: Machine,
    now: Duration,
    epoch: u64,
    restore: u64,
    /// The events that there are, from offset 10 on, and which of them comes next.
    events: Vec<Arrived>,
    next: usize,
    /// The receipts topic; a transaction ends with a marker.
    receipts: Vec<Option<Receipt>>,
    committed: Option<Progress>,
    /// Transactions end only when they are told to.
    slow: bool,
    commits: VecDeque<(TxnId, Transaction)>,
    calls: VecDeque<(CallId, i64, Uuid)>,
    /// Everything else that was asked for, in order.
    asked: Vec<Action>,
}

impl Bench {
    fn new(guarantee: Guarantee) -> Self {
        Self::with(settings(guarantee))
    }

    fn with(settings: Settings) -> Self {
        let mut bench = Self {
            machine: Machine::new(settings, 1),
            now: Duration::from_secs(1_000),
            epoch: 0,
            restore: 0,
            events: vec![],
            next: 0,
            receipts: vec![],
            committed: None,
            slow: false,
            commits: VecDeque::new(),
            calls: VecDeque::new(),
            asked: vec![],
        };
        bench.assign();
        bench
    }

    fn assign(&mut self) {
        self.epoch += 1;
        self.step(Input::Assigned { epoch: AssignmentEpoch(self.epoch), partitions: vec![at()] });
    }

    /// The process dies, and another one begins with what Kafka holds.
    fn crash(&mut self, guarantee: Guarantee) {
        self.machine = Machine::new(settings(guarantee), self.epoch + 100);
        (self.slow, self.epoch) = (false, 0);
        self.calls.clear();
        self.commits.clear();
        self.assign();
    }

    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.machine.step(input, self.now, &mut || 0.5) {
                match action {
                    Action::Restore { epoch, restore, .. } => {
                        let next = self.committed.as_ref().map_or(NextOffset::stored(10), |progress| progress.next);
                        let rewound = Some(self.committed.as_ref().map_or(Rewound::default(), |one| one.rewound));
                        self.restore = restore;
                        inputs.push_back(Input::Found { at: at(), epoch, restore, next: Some(next), rewound });
                        inputs.push_back(self.read_receipts(0, epoch));
                        inputs.push_back(Input::Restored { at: at(), epoch, restore });
                    }
                    Action::Start { next, .. } => {
                        let offset = |event: &Arrived| event.record.offset;
                        self.next = self.events.partition_point(|event| offset(event) < next.unwrap().get());
                    }
                    Action::Begin { txn } => inputs.push_back(Input::Begun { txn, begun: true }),
                    Action::Commit { txn, transaction } => {
                        self.commits.push_back((txn, transaction));
                        if !self.slow {
                            let (txn, positions) = self.commit();
                            inputs.push_back(Input::TxnEnded { txn, answer: TxnAnswer::Committed { positions } });
                        }
                    }
                    Action::Fetch { call, position, .. } => {
                        let receipt = self.receipts[usize::try_from(position).unwrap()].as_ref();
                        inputs.push_back(Input::Fetched { call, record: receipt.map(|one| Arc::clone(&one.record)) });
                    }
                    Action::Call { call, delivery_id, record, .. } => {
                        self.calls.push_back((call, record.offset, delivery_id));
                    }
                    other => self.asked.push(other),
                }
            }
        }
    }

    /// The broker commits what is under way. Gives the answer, which may take its time.
    fn commit(&mut self) -> (TxnId, Vec<i64>) {
        let (txn, transaction) = self.commits.pop_front().unwrap();
        let first = i64::try_from(self.receipts.len()).unwrap();
        let positions = (first..).take(transaction.receipts.len()).collect();
        self.receipts.extend(transaction.receipts.into_iter().map(Some).chain([None]));
        self.committed = transaction.progress.into_iter().next_back();
        (txn, positions)
    }

    fn read_receipts(&self, from: usize, epoch: AssignmentEpoch) -> Input {
        let written = self.receipts.iter().enumerate().skip(from);
        let followed = written.filter_map(|(position, receipt)| Some((position, receipt.as_ref()?))).map(followed);
        let (receipts, position) = (followed.collect(), i64::try_from(self.receipts.len()).unwrap());
        Input::Followed { at: at(), epoch, restore: self.restore, receipts, position }
    }

    /// The owner reads the receipts from there on.
    fn follow(&mut self, from: usize) {
        let input = self.read_receipts(from, AssignmentEpoch(self.epoch));
        self.step(input);
    }

    /// Events of these keys and identities are appended.
    fn append(&mut self, events: impl IntoIterator<Item = (u8, i64)>) {
        for (key, identity) in events {
            let offset = 10 + i64::try_from(self.events.len()).unwrap();
            let (key, value) = (Some(vec![key]), Some(vec![0]));
            let record = Record { at: at(), offset, timestamp_ms: None, key, value, headers: Headers::default() };
            self.events.push(Arrived { delivery_id: id(identity), record });
        }
    }

    /// So many of them are read.
    fn poll(&mut self, count: usize) {
        let records = self.events[self.next..].iter().take(count).cloned().collect();
        self.next = self.events.len().min(self.next + count);
        self.step(Input::Records(records));
    }

    /// The sink's answer to the oldest call. Gives which event it was, and under which id.
    fn answer(&mut self, outcome: Outcome) -> (i64, Uuid) {
        let (call, offset, id) = self.calls.pop_front().unwrap();
        self.step(Input::CallEnded { call, ended: outcome.into(), sent: true });
        self.tick();
        (offset, id)
    }

    /// Whatever may happen by the passing of time alone, for a few seconds.
    fn tick(&mut self) {
        let until = self.now + Duration::from_secs(5);
        while let Some(due) = self.machine.due().filter(|due| *due <= until && self.calls.is_empty()) {
            self.now = due.max(self.now);
            self.step(Input::Tick);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.step(Input::Tick);
    }

    /// An operator wants the partition read again.
    fn rewind(&mut self, number: u64, to: i64, again: bool) {
        let order = Rewind { number, to: NextOffset::stored(to), receipts_from: 0, again };
        self.step(Input::Rewinds(BTreeMap::from([(at(), order)])));
        self.tick();
    }

    /// A person sends an event again. Gives where it stands among the receipts.
    fn requeue(&mut self, offset: i64, id: Uuid) -> usize {
        let of_it = |receipt: &&Receipt| receipt.offset == offset && receipt.delivery_id == id;
        let last = self.receipts.iter().flatten().rev().find(of_it).unwrap();
        let again = Receipt { fate: Fate::Requeued, attempts: 0, writer: 0, settled_at: self.now, ..last.clone() };
        self.receipts.push(Some(again));
        self.receipts.len() - 1
    }

    /// What became of the event at `offset`, in order.
    fn fates(&self, offset: i64) -> Vec<Fate> {
        self.receipts.iter().flatten().filter(|receipt| receipt.offset == offset).map(|one| one.fate).collect()
    }

    fn has_asked(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.asked.iter().any(wanted)
    }
}

fn settings(guarantee: Guarantee) -> Settings {
    Settings {
        guarantee,
        window: Limits { records: 8, bytes: 4 << 20 },
        concurrency: 4,
        rate: None,
        in_place: Duration::from_secs(1),
        max_age: Duration::from_secs(3_600),
        dedupe_window: Duration::from_secs(86_400),
        vendor_window: None,
        max_seen: 10_000,
        max_beyond: 10_000,
        max_open: 1_000,
        max_transaction: 5_000,
        batch: None,
    }
}

fn at() -> TopicPartition {
    TopicPartition { topic: Arc::from("events"), partition: 0 }
}

fn id(identity: i64) -> Uuid {
    Uuid::from_u128(u128::try_from(identity).unwrap())
}

/// As it is read back from where it was written.
fn followed((position, receipt): (usize, &Receipt)) -> Followed {
    let position = i64::try_from(position).unwrap();
    receipt::followed(&receipt_of(receipt), position, receipt.record.key.as_deref()).unwrap()
}

fn rejected() -> Outcome {
    Outcome::Rejected { reason: "400".into() }
}

fn transient() -> Outcome {
    Outcome::Transient { reason: "500".into() }
}

fn unknown() -> Outcome {
    Outcome::Unknown { reason: "silence".into() }
}

#[test]
fn nothing_more_is_read_while_what_is_under_way_ends_before_a_partition_goes_back() {
    let mut bench = Bench::new(Guarantee::AtLeastOnce);
    bench.append([(1, 1)]);
    bench.poll(1);
    assert_eq!(bench.calls.len(), 1);
    bench.rewind(1, 2, false);
    assert!(bench.has_asked(|action| matches!(action, Action::Pause(_))));
    assert!(!bench.has_asked(|action| matches!(action, Action::Resume(_))));
}

#[test]
fn what_a_rewind_gave_back_and_was_parked_is_sent_by_the_next_owner_too() {
    let guarantee = Guarantee::AtLeastOnce;
    let mut bench = Bench::new(guarantee);
    bench.append([(1, 1), (2, 2)]);
    bench.poll(2);
    bench.answer(rejected());
    bench.answer(Outcome::Delivered);
    bench.rewind(1, 10, false);
    bench.poll(2);
    while !bench.fates(10).contains(&Fate::Parked) {
        bench.answer(transient());
        if bench.calls.is_empty() {
            bench.wait(Duration::from_secs(20));
        }
    }
    bench.tick();
    assert_eq!(bench.committed.as_ref().unwrap().rewound, Rewound::over(1), "nothing of the rewind is left to do");
    bench.crash(guarantee);
    bench.wait(Duration::from_secs(900));
    assert_eq!(bench.answer(Outcome::Delivered), (10, id(1)));
    assert_eq!(bench.fates(10).last(), Some(&Fate::Delivered));
}

#[test]
fn what_a_person_sent_again_before_its_last_receipt_is_not_sent_however_late_that_is_read() {
    let mut bench = Bench::new(Guarantee::AtMostOnce);
    bench.append([(1, 1)]);
    bench.poll(1);
    bench.answer(unknown());
    assert_eq!(bench.fates(10).last(), Some(&Fate::Dead(DeadReason::NoAnswer)));
    bench.rewind(1, 10, true);
    bench.poll(1);
    bench.tick();
    let requeued = bench.requeue(10, id(1));
    assert_eq!(bench.answer(Outcome::Delivered), (10, delivered_again(id(1), 1)));
    bench.follow(requeued);
    bench.tick();
    assert!(bench.calls.is_empty(), "it is settled for whoever reads its receipts in order");
    assert_eq!(bench.fates(10).last(), Some(&Fate::Delivered));
}

#[test]
fn what_a_person_sends_again_while_a_rewind_is_about_to_is_sent_once() {
    for restored in [true, false] {
        let guarantee = Guarantee::AtLeastOnce;
        let mut bench = Bench::new(guarantee);
        bench.append([(1, 1), (1, 1)]);
        bench.poll(2);
        bench.answer(rejected());
        assert_eq!(bench.fates(11), [Fate::Skipped(SkipReason::Duplicate)]);
        bench.rewind(1, 10, true);
        let requeued = bench.requeue(10, id(1));
        if restored {
            bench.crash(guarantee);
        } else {
            bench.follow(requeued);
        }
        bench.poll(2);
        assert_eq!(bench.answer(Outcome::Delivered), (10, delivered_again(id(1), 1)), "{restored}");
        bench.tick();
        assert!(bench.calls.is_empty(), "{restored}");
        assert_eq!(bench.fates(11).len(), 2, "{restored}");
    }
}

#[test]
fn what_a_person_sends_again_before_its_owner_knows_its_end_is_sent() {
    let mut bench = Bench::new(Guarantee::AtLeastOnce);
    bench.append([(1, 1)]);
    bench.poll(1);
    bench.slow = true;
    bench.answer(rejected());
    let (txn, positions) = bench.commit();
    let requeued = bench.requeue(10, id(1));
    bench.follow(requeued);
    assert!(bench.calls.is_empty());
    bench.slow = false;
    bench.step(Input::TxnEnded { txn, answer: TxnAnswer::Committed { positions } });
    bench.tick();
    assert_eq!(bench.answer(Outcome::Delivered), (10, id(1)));
}

#[test]
fn what_was_promised_under_an_id_that_a_rewind_replaced_is_not_sent_under_it() {
    let guarantee = Guarantee::AtMostOnce;
    let mut bench = Bench::new(guarantee);
    bench.append([(1, 1), (2, 2)]);
    bench.poll(2);
    bench.calls.pop_front();
    bench.answer(Outcome::Delivered);
    assert_eq!((bench.fates(10), bench.fates(11).len()), (vec![Fate::Intent], 2));
    bench.crash(guarantee);
    // Before the record itself has come, whose promise nobody can keep.
    bench.rewind(1, 10, true);
    bench.append([(1, 1)]);
    bench.poll(3);
    bench.tick();
    while !bench.calls.is_empty() {
        let (offset, of) = bench.answer(Outcome::Delivered);
        assert_ne!(of, id(1), "{offset}");
    }
    assert_eq!(bench.fates(10).last(), Some(&Fate::Delivered));
    assert_eq!(bench.fates(12).last(), Some(&Fate::Skipped(SkipReason::Duplicate)));
}

#[test]
fn what_may_have_had_its_effect_before_a_rewind_parks_with_that_knowledge_even_behind_others() {
    let mut bench = Bench::new(Guarantee::EffectivelyOnce);
    bench.append([(1, 1), (1, 2)]);
    bench.poll(2);
    bench.answer(rejected());
    let sent_at = bench.now;
    bench.answer(unknown());
    bench.answer(rejected());
    bench.rewind(1, 10, false);
    bench.poll(2);
    while !bench.fates(11).contains(&Fate::Parked) {
        assert_eq!(bench.answer(transient()).0, 10);
    }
    let parked = bench.receipts.iter().flatten().find(|one| one.offset == 11 && one.fate == Fate::Parked).unwrap();
    let since = parked.unsure_since.unwrap();
    assert!(since <= sent_at + Duration::from_secs(1), "{since:?} {sent_at:?}");
}

#[test]
fn a_stretch_longer_than_is_remembered_is_read_in_parts_and_nothing_of_it_is_sent_again() {
    let mut bench = Bench::with(Settings { max_beyond: 3, ..settings(Guarantee::AtLeastOnce) });
    bench.append((0..12).map(|number| (u8::try_from(number).unwrap(), number)));
    while bench.next < bench.events.len() {
        bench.poll(4);
        while !bench.calls.is_empty() {
            let outcome = if bench.calls[0].1 == 20 { rejected() } else { Outcome::Delivered };
            bench.answer(outcome);
        }
    }
    bench.rewind(1, 10, false);
    let mut again = vec![];
    for _ in 0..12 {
        assert!(bench.machine.most_remembered() <= 3 + 4);
        bench.poll(4);
        bench.tick();
        while !bench.calls.is_empty() {
            again.push(bench.answer(Outcome::Delivered).0);
        }
    }
    assert_eq!(again, [20], "the others were delivered");
    assert_eq!(bench.committed.as_ref().unwrap().next, NextOffset::stored(22));
    assert!(bench.has_asked(|action| matches!(action, Action::Tell(Notice::ReadOn { .. }))));
}

#[test]
fn a_stretch_whose_records_are_gone_is_read_on_all_the_same() {
    let mut bench = Bench::with(Settings { max_beyond: 2, ..settings(Guarantee::AtLeastOnce) });
    bench.append((0..6).map(|number| (u8::try_from(number).unwrap(), number)));
    bench.poll(6);
    while !bench.calls.is_empty() {
        bench.answer(Outcome::Delivered);
    }
    bench.rewind(1, 10, false);
    // Retention took the first ones meanwhile.
    bench.events.drain(..4);
    bench.next = 0;
    for _ in 0..6 {
        bench.poll(6);
        bench.tick();
    }
    assert!(bench.calls.is_empty());
    assert_eq!(bench.committed.as_ref().unwrap().next, NextOffset::stored(16));
}
