use std::sync::Arc;

use uuid::Uuid;

use super::super::{Arrived, Input, Machine, Notice, Settings};
use super::*;
use crate::deliver::settle::TxnAnswer;
use crate::deliver::window::Limits;
use crate::kafka::Headers;
use crate::kafka::consume::AssignmentEpoch;

const LINGER: Duration = Duration::from_millis(50);

fn settings(events: usize) -> Settings {
    Settings {
        guarantee: Guarantee::AtLeastOnce,
        window: Limits { records: 4_000, bytes: 4 << 20 },
        concurrency: 4,
        rate: None,
        in_place: Duration::from_secs(30),
        max_age: Duration::from_secs(3_600),
        dedupe_window: Duration::from_secs(3_600),
        vendor_window: None,
        max_seen: 10_000,
        max_beyond: 10_000,
        max_open: 1_000,
        max_transaction: 5_000,
        batch: Some(Batching { events, bytes: 1 << 20, linger: LINGER }),
    }
}

/// A sink's machine with one partition, and a clock.
struct Bench {
    machine: Machine,
    now: Duration,
    offset: i64,
    /// What was parked, at its receipt's position.
    parked: Vec<Arc<Record>>,
    /// Calls that went out, in order.
    calls: Vec<(BatchId, Vec<Bundled>)>,
    settled: BTreeMap<i64, Fate>,
    notices: Vec<Notice>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let machine = Machine::new(settings, 1);
        let now = Duration::from_secs(1_000);
        let (parked, calls, settled, notices) = (vec![], vec![], BTreeMap::new(), vec![]);
        let mut bench = Self { machine, now, offset: 0, parked, calls, settled, notices };
        let (at, epoch) = (at(), AssignmentEpoch(1));
        bench.step(Input::Assigned { epoch, partitions: vec![at.clone()] });
        bench.step(Input::Restored { at, epoch, restore: 1 });
        bench
    }

    /// What the machine asks for besides calls is done at once.
    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.machine.step(input, self.now, &mut || 0.5) {
                match action {
                    Action::CallTogether { batch, events } => self.calls.push((batch, events)),
                    Action::Begin { txn } => inputs.push_back(Input::Begun { txn, begun: true }),
                    Action::Commit { txn, transaction } => {
                        let first = i64::try_from(self.parked.len()).unwrap();
                        let positions = (first..).take(transaction.receipts.len()).collect();
                        self.parked.extend(transaction.receipts.iter().map(|receipt| Arc::clone(&receipt.record)));
                        inputs.push_back(Input::TxnEnded { txn, answer: TxnAnswer::Committed { positions } });
                    }
                    Action::Settled(receipts) => {
                        self.settled.extend(receipts.iter().map(|receipt| (receipt.offset, receipt.fate)));
                    }
                    Action::Fetch { call, position, .. } => {
                        let record = self.parked.get(usize::try_from(position).unwrap()).map(Arc::clone);
                        inputs.push_back(Input::Fetched { call, record });
                    }
                    Action::Tell(notice) => self.notices.push(notice),
                    Action::Call { .. } => panic!("a call of its own"),
                    _ => {}
                }
            }
        }
    }

    /// Records come, one for each key.
    fn records(&mut self, keys: impl IntoIterator<Item = u64>) {
        let record = |key: u64| {
            self.offset += 1;
            let (key, value) = (Some(key.to_be_bytes().to_vec()), Some(vec![0; 100]));
            let record =
                Record { at: at(), offset: self.offset, timestamp_ms: None, key, value, headers: Headers::default() };
            Arrived { delivery_id: Uuid::from_u128(u128::try_from(self.offset).unwrap()), record }
        };
        let records = keys.into_iter().map(record).collect();
        self.step(Input::Records(records));
    }

    /// The machine's next moment comes.
    fn tick(&mut self) {
        self.now = self.machine.due().unwrap().max(self.now);
        self.step(Input::Tick);
    }

    fn answer(&mut self, batch: BatchId, answers: Answers, sent: bool) {
        self.step(Input::BatchEnded { batch, aside: vec![], answers: Some(answers), sent });
    }

    /// Answers whatever is out until nothing happens any more; gives the sizes of the calls.
    fn run(&mut self, mut vendor: impl FnMut(&[i64]) -> Answers) -> Vec<usize> {
        let mut sizes = vec![];
        while !self.calls.is_empty() || self.machine.due().is_some() {
            if self.calls.is_empty() {
                self.tick();
                continue;
            }
            let (batch, events) = self.calls.remove(0);
            sizes.push(events.len());
            assert!(sizes.len() < 10_000, "it does not come to rest");
            let offsets: Vec<i64> = events.iter().map(|event| event.record.offset).collect();
            self.answer(batch, vendor(&offsets), true);
        }
        sizes
    }

    fn dead(&self) -> Vec<i64> {
        let dead = self.settled.iter().filter(|(_, fate)| matches!(fate, Fate::Dead(_)));
        dead.map(|(offset, _)| *offset).collect()
    }
}

fn at() -> TopicPartition {
    TopicPartition { topic: Arc::from("events"), partition: 0 }
}

fn rejected() -> Outcome {
    Outcome::Rejected { reason: "400".into() }
}

fn transient() -> Outcome {
    Outcome::Transient { reason: "500".into() }
}

fn offsets(call: &(BatchId, Vec<Bundled>)) -> Vec<i64> {
    call.1.iter().map(|event| event.record.offset).collect()
}

#[test]
fn a_batch_goes_when_it_is_full_or_its_first_event_has_waited_for_long_enough() {
    let mut bench = Bench::new(settings(3));
    bench.records(1..=7);
    assert_eq!(bench.calls.iter().map(offsets).collect::<Vec<_>>(), [[1, 2, 3], [4, 5, 6]]);
    assert_eq!(bench.machine.due(), Some(bench.now + LINGER));
    bench.tick();
    assert_eq!(offsets(&bench.calls[2]), [7]);
}

#[test]
fn a_batch_holds_one_event_of_a_key_and_the_next_one_waits_for_the_answer() {
    let mut bench = Bench::new(settings(10));
    bench.records([1, 1, 2, 1, 2]);
    bench.tick();
    assert_eq!(offsets(&bench.calls[0]), [1, 3]);
    assert_eq!(bench.calls.len(), 1);
    let first = bench.calls.remove(0).0;
    bench.answer(first, Answers::All(Outcome::Delivered), true);
    bench.tick();
    assert_eq!(offsets(&bench.calls[0]), [2, 5]);
}

#[test]
fn while_all_calls_are_out_what_waits_becomes_one_batch() {
    let mut bench = Bench::new(Settings { concurrency: 1, ..settings(100) });
    bench.records([1]);
    bench.tick();
    bench.records(2..=5);
    bench.now += LINGER * 2;
    bench.records(6..=9);
    assert_eq!(bench.calls.len(), 1);
    let first = bench.calls.remove(0).0;
    bench.answer(first, Answers::All(Outcome::Delivered), true);
    assert_eq!(offsets(&bench.calls[0]), [2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_batch_grows_no_larger_than_its_bytes() {
    let batch = Some(Batching { events: 100, bytes: 250, linger: LINGER });
    let mut bench = Bench::new(Settings { batch, ..settings(100) });
    bench.records(1..=5);
    assert_eq!(bench.calls.iter().map(offsets).collect::<Vec<_>>(), [[1, 2], [3, 4]]);
}

#[test]
fn an_event_to_blame_is_found_in_two_calls_a_halving_and_the_others_are_delivered() {
    for blamed in [1, 40, 99, 128] {
        let mut bench = Bench::new(settings(128));
        bench.records(1..=128);
        let refuse =
            |offsets: &[i64]| Answers::All(if offsets.contains(&blamed) { rejected() } else { Outcome::Delivered });
        let sizes = bench.run(refuse);
        assert!(sizes.len() <= 1 + 2 * 7, "{sizes:?}");
        assert_eq!(bench.dead(), [blamed]);
        assert_eq!(bench.settled.len(), 128);
    }
}

#[test]
fn what_is_too_large_to_be_sent_together_is_halved_and_no_attempt_is_counted() {
    let mut bench = Bench::new(settings(4));
    bench.records(1..=4);
    let whole = bench.calls.remove(0).0;
    bench.answer(whole, Answers::All(rejected()), false);
    assert_eq!(bench.calls.iter().map(offsets).collect::<Vec<_>>(), [[1, 2], [3, 4]]);
    assert!(bench.calls.iter().flat_map(|(_, events)| events).all(|event| event.attempt == 1));
}

#[test]
fn an_event_that_breaks_the_sink_takes_no_others_along() {
    let mut bench = Bench::new(Settings { max_age: Duration::from_secs(60), ..settings(64) });
    bench.records(1..=64);
    bench.run(|offsets| Answers::All(if offsets.contains(&17) { transient() } else { Outcome::Delivered }));
    assert_eq!(bench.dead(), [17]);
    assert_eq!(bench.settled.len(), 64);
    assert!(!bench.notices.iter().any(|notice| matches!(notice, Notice::Held { .. })), "{:?}", bench.notices);
}

#[test]
fn an_outage_is_one_failure_a_call_and_no_event_dies_of_it() {
    let mut bench = Bench::new(Settings { max_age: Duration::from_secs(10), ..settings(10) });
    bench.records(1..=30);
    let up_again = bench.now + Duration::from_secs(600);
    for _ in 0..3 {
        let (batch, _) = bench.calls.remove(0);
        bench.answer(batch, Answers::All(transient()), true);
    }
    let held = bench.notices.iter().filter(|notice| matches!(notice, Notice::Held { .. })).count();
    assert_eq!(held, 1, "three calls in a row are the sink");
    while bench.now < up_again {
        bench.tick();
        for (batch, events) in std::mem::take(&mut bench.calls) {
            assert_eq!(events.len(), 1, "a held sink is asked with one event");
            bench.answer(batch, Answers::All(transient()), true);
        }
    }
    bench.run(|_| Answers::All(Outcome::Delivered));
    assert_eq!((bench.dead(), bench.settled.len()), (vec![], 30));
}

#[test]
fn a_partial_answer_settles_event_by_event() {
    let mut bench = Bench::new(settings(4));
    bench.records(1..=4);
    let whole = bench.calls.remove(0).0;
    let each = vec![Outcome::Delivered, rejected(), transient(), Outcome::Delivered];
    bench.answer(whole, Answers::Each(each), true);
    let sizes = bench.run(|offsets| {
        assert_eq!(offsets, [3]);
        Answers::All(Outcome::Delivered)
    });
    assert_eq!((sizes, bench.dead(), bench.settled.len()), (vec![1], vec![2], 4));
}

#[test]
fn an_answer_that_says_nothing_of_an_event_leaves_it_unsettled() {
    let mut bench = Bench::new(settings(3));
    bench.records(1..=3);
    let whole = bench.calls.remove(0).0;
    bench.answer(whole, Answers::Each(vec![Outcome::Delivered]), true);
    bench.run(|offsets| {
        assert!(!offsets.contains(&1));
        Answers::All(Outcome::Delivered)
    });
    assert_eq!(bench.settled.len(), 3);
}

#[test]
fn a_batch_that_is_asked_to_wait_comes_back_whole() {
    let mut bench = Bench::new(settings(5));
    bench.records(1..=5);
    let whole = bench.calls.remove(0).0;
    let after = Some(Duration::from_secs(7));
    bench.answer(whole, Answers::All(Outcome::Throttled { after }), true);
    assert_eq!(bench.notices.len(), 1);
    let asked = bench.now + Duration::from_secs(7);
    while bench.calls.is_empty() {
        bench.tick();
    }
    assert!(bench.now >= asked);
    let mut again = offsets(&bench.calls[0]);
    again.sort_unstable();
    assert_eq!(again, [1, 2, 3, 4, 5]);
}

#[test]
fn what_was_left_out_of_a_call_does_not_count_as_company() {
    let mut bench = Bench::new(settings(2));
    bench.records(1..=2);
    let (batch, events) = bench.calls.remove(0);
    let skipped = Ended::Skipped(crate::outcome::SkipReason::NoConsent);
    let aside = vec![(events[0].call, skipped)];
    bench.step(Input::BatchEnded { batch, aside, answers: Some(Answers::All(rejected())), sent: true });
    bench.run(|_| panic!("nothing is left to send"));
    assert_eq!((bench.dead(), bench.settled.len()), (vec![2], 2));
}

#[test]
fn a_partition_that_is_handed_over_takes_its_halves_with_it() {
    let mut bench = Bench::new(settings(4));
    bench.records(1..=4);
    let whole = bench.calls.remove(0).0;
    bench.step(Input::Revoked { ticket: 1, partitions: vec![at()], lost: false });
    bench.answer(whole, Answers::All(rejected()), true);
    assert!(bench.calls.is_empty() && bench.settled.is_empty(), "the next owner sends them");
    bench.step(Input::Stop);
}
