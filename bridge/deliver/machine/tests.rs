use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::config::Guarantee;
use crate::deliver::settle::{Receipt, TxnAnswer};
use crate::deliver::window::Limits;
use crate::kafka::{Headers, NextOffset, Record};

/// A sink's machine with one partition whose first records are settled, and a broker that does at once what it is asked.
struct Bench {
    machine: Machine,
    now: Duration,
    /// Of the next record.
    offset: i64,
    /// The receipts topic; a transaction ends with a marker.
    receipts: Vec<Option<Receipt>>,
    /// Everything else that was asked for, in order.
    asked: Vec<Action>,
}

impl Bench {
    fn new(guarantee: Guarantee) -> Self {
        let settings = Settings {
            guarantee,
            window: Limits { records: 8, bytes: 4 << 20 },
            concurrency: 4,
            rate: None,
            in_place: Duration::from_secs(30),
            max_age: Duration::from_secs(3_600),
            dedupe_window: Duration::from_secs(3_600),
            vendor_window: None,
            max_seen: 10_000,
            max_open: 1_000,
            max_transaction: 5_000,
            batch: None,
        };
        let now = Duration::from_secs(1_000);
        let mut bench = Self { machine: Machine::new(settings, 1), now, offset: 10, receipts: vec![], asked: vec![] };
        bench.step(Input::Assigned { epoch: AssignmentEpoch(1), partitions: vec![at()] });
        let next = Some(NextOffset::stored(10));
        bench.step(Input::Restored { at: at(), epoch: AssignmentEpoch(1), restore: 1, next, rewound: None });
        bench
    }

    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.machine.step(input, self.now, &mut || 0.5) {
                match action {
                    Action::Begin { txn } => inputs.push_back(Input::Begun { txn, begun: true }),
                    Action::Commit { txn, transaction } => {
                        let first = i64::try_from(self.receipts.len()).unwrap();
                        let positions = (first..).take(transaction.receipts.len()).collect();
                        self.receipts.extend(transaction.receipts.into_iter().map(Some).chain([None]));
                        inputs.push_back(Input::TxnEnded { txn, answer: TxnAnswer::Committed { positions } });
                    }
                    Action::Fetch { call, position, .. } => {
                        let receipt = self.receipts[usize::try_from(position).unwrap()].as_ref();
                        inputs.push_back(Input::Fetched { call, record: receipt.map(|one| Arc::clone(&one.record)) });
                    }
                    other => self.asked.push(other),
                }
            }
        }
    }

    /// A record for each of these keys comes.
    fn records(&mut self, keys: impl IntoIterator<Item = u8>) {
        let record = |key: u8| {
            let offset = self.offset;
            self.offset += 1;
            let (key, value) = (Some(vec![key]), Some(vec![0]));
            let record = Record { at: at(), offset, timestamp_ms: None, key, value, headers: Headers::default() };
            Arrived { delivery_id: id(offset), record }
        };
        let records = keys.into_iter().map(record).collect();
        self.step(Input::Records(records));
    }

    /// An operator wants the partition read again.
    fn rewind(&mut self, number: u64, to: i64, again: bool) {
        let order = Rewind { number, to: NextOffset::stored(to), receipts_from: 0, again };
        self.step(Input::Rewinds(BTreeMap::from([(at(), order)])));
    }

    fn has_asked(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.asked.iter().any(wanted)
    }
}

fn at() -> TopicPartition {
    TopicPartition { topic: Arc::from("events"), partition: 0 }
}

fn id(offset: i64) -> Uuid {
    Uuid::from_u128(u128::try_from(offset).unwrap())
}

#[test]
fn nothing_more_is_read_while_what_is_under_way_ends_before_a_partition_goes_back() {
    let mut bench = Bench::new(Guarantee::AtLeastOnce);
    bench.records([1]);
    assert!(bench.has_asked(|action| matches!(action, Action::Call { .. })));
    bench.rewind(1, 2, false);
    assert!(bench.has_asked(|action| matches!(action, Action::Pause(_))));
    assert!(!bench.has_asked(|action| matches!(action, Action::Resume(_))));
}
