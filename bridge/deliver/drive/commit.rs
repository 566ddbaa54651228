//! From what the machine wants committed to one transaction of Kafka's, and back to what that means for the machine.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::Names;
use crate::deliver::dead::Grave;
use crate::deliver::receipt::receipt_of;
use crate::deliver::restore::Bookmark;
use crate::deliver::settle::{Fate, Receipt, TooLarge, Transaction, TxnAnswer};
use crate::kafka::{self, Abort, Batch, Finish, Membership, Oversized, TopicPartition, Transactor, Write};
use crate::patience::patiently;

/// Between two looks at a producer whose last end is unknown.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A receipt of a delivery is some 150 bytes; a longer one grows.
const USUAL: usize = 256;

/// A batch, and where in it each receipt of the transaction stands.
pub(super) struct Filled {
    pub(super) batch: Batch,
    places: Vec<usize>,
}

impl Filled {
    pub(super) fn new(transaction: &Transaction, names: &Names, schema_id: u32) -> Self {
        let mut writes: BTreeMap<&TopicPartition, Vec<Write>> = BTreeMap::new();
        let mut within = Vec::with_capacity(transaction.receipts.len());
        for receipt in &transaction.receipts {
            let part = writes.entry(&receipt.at).or_default();
            within.push((&receipt.at, part.len()));
            part.extend(writes_of(receipt, names, schema_id));
        }
        // A batch goes partition after partition, in their order.
        let mut begins = HashMap::with_capacity(writes.len());
        let mut before = 0;
        for (at, part) in &writes {
            begins.insert(*at, before);
            before += part.len();
        }
        let places = within.iter().map(|(at, place)| begins.get(at).copied().unwrap_or_default() + place).collect();
        let mut batch = Batch::default();
        for progress in &transaction.progress {
            let metadata = Bookmark { receipts_from: progress.receipts_from, rewound: progress.rewound }.write();
            let part = writes.remove(&progress.at).unwrap_or_default();
            batch.hold(&progress.at, progress.epoch, progress.next, metadata, part);
        }
        Self { batch, places }
    }
}

/// A receipt, and behind it the dead letter that it is of, or what a Kafka sink writes of the event.
pub(in crate::deliver) fn writes_of(
    receipt: &Receipt,
    names: &Names,
    schema_id: u32,
) -> impl Iterator<Item = Write> + use<> {
    let beside = match receipt.fate {
        Fate::Dead(reason) => Some(dead_letter(receipt, reason.name(), names)),
        _ => receipt.output.as_deref().cloned(),
    };
    std::iter::once(receipt_write(receipt, names, schema_id)).chain(beside)
}

fn receipt_write(receipt: &Receipt, names: &Names, schema_id: u32) -> Write {
    let mut value = Vec::with_capacity(USUAL);
    receipt_of(receipt).encode(schema_id, &mut value);
    Write {
        topic: names.receipts(&receipt.at.topic),
        partition: Some(receipt.at.partition),
        key: receipt.record.key.clone(),
        value: Some(value),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

fn dead_letter(receipt: &Receipt, reason: &str, names: &Names) -> Write {
    let record = &receipt.record;
    let grave = Grave {
        sink: names.sink.to_string(),
        delivery_id: receipt.delivery_id,
        origin_topic: receipt.at.topic.to_string(),
        origin_partition: receipt.at.partition,
        origin_offset: receipt.offset,
        reason: reason.to_owned(),
        message: receipt.detail.clone(),
        attempts: receipt.attempts,
        left_out: if receipt.bare { record.value.as_ref().map(Vec::len) } else { None },
    };
    Write {
        topic: Arc::clone(&names.dead),
        partition: None,
        key: record.key.clone(),
        value: record.value.clone().filter(|_| !receipt.bare),
        headers: grave.headers(record, &names.instance),
        // Its own time would let it expire with the event, which may be hours from now.
        timestamp_ms: None,
    }
}

/// Commits, and decides what nobody knows before it says so.
pub(super) async fn commit(
    sink: &str,
    mut transactor: Transactor,
    filled: Filled,
    membership: &Membership,
) -> (Transactor, TxnAnswer) {
    let Filled { batch, places } = filled;
    let answer = match transactor.commit(batch, membership).await {
        Finish::Committed { offsets } => {
            let positions: Option<Vec<i64>> = places.iter().map(|place| offsets.get(*place).copied()).collect();
            match positions {
                Some(positions) => TxnAnswer::Committed { positions },
                // Not to be: then the receipts say it.
                None => TxnAnswer::Unknown,
            }
        }
        Finish::Aborted { reason: Abort::TooLarge { records }, .. } => {
            TxnAnswer::TooLarge(too_large(&transactor, &places, &records).await)
        }
        Finish::Aborted { .. } => TxnAnswer::Aborted,
        Finish::Fenced => TxnAnswer::Fenced,
        Finish::Unknown(_) => {
            let may_pass = |error: &kafka::Error| !matches!(error, kafka::Error::Fenced { .. });
            let tell = |_: &_, error: &str| tracing::warn!(sink, error, "the end of a transaction is not decided yet");
            match patiently(|| transactor.ready(), may_pass, ASK_AGAIN, tell).await {
                Ok(()) => TxnAnswer::Unknown,
                Err(_) => TxnAnswer::Fenced,
            }
        }
    };
    (transactor, answer)
}

/// Which receipts, or what stands beside them, topics do not take. A batch holds a receipt, and what stands beside it behind
/// it.
async fn too_large(transactor: &Transactor, places: &[usize], records: &[Oversized]) -> Vec<TooLarge> {
    let mut limits: HashMap<&str, usize> = HashMap::new();
    let mut found = Vec::with_capacity(records.len());
    for Oversized { index, topic, bytes } in records {
        let limit = match limits.get(&**topic) {
            Some(limit) => *limit,
            None => *limits.entry(topic).or_insert(transactor.limit_of(topic).await),
        };
        let reason = format!("a record of {bytes} bytes is too large for topic {topic}, which takes {limit}");
        let of = |place: usize| places.iter().position(|one| *one == place);
        let beside = || Some((of(index.checked_sub(1)?)?, false));
        let place = of(*index).map(|receipt| (receipt, true)).or_else(beside);
        found.extend(place.map(|(receipt, itself)| TooLarge { receipt, itself, reason }));
    }
    found
}
