//! Bodies of parked and requeued records: read again when their turn comes, within a bound on what is in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use crate::causes::chain;
use crate::deliver::machine::CallId;
use crate::deliver::receipt::{self, Receipt, record_of};
use crate::kafka::fetch::Failure;
use crate::kafka::{Fetcher, Record, TopicPartition};
use crate::schema::Decoder;

/// Bytes of fetched records that are sent or wait for their commit: a few dozen of the largest, and thousands of the
/// usual ones.
const BYTES: usize = 32 << 20;

/// Before a record that was not read is said to be so: it is asked for again soon after, and for ever.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

struct Wanted {
    call: CallId,
    receipts: TopicPartition,
    position: i64,
}

pub(super) struct Bodies {
    fetcher: Fetcher,
    decoder: Arc<Decoder>,
    schema_id: u32,
    /// What a record may have, at most: so much is set aside for one that is on its way.
    largest: usize,
    waiting: VecDeque<Wanted>,
    /// Whoever sends them drops them.
    held: Vec<(Weak<Record>, usize)>,
    out: JoinSet<(CallId, Option<Record>)>,
}

impl Bodies {
    pub(super) fn new(fetcher: Fetcher, decoder: Arc<Decoder>, schema_id: u32, largest: usize) -> Self {
        let (waiting, held, out) = (VecDeque::new(), Vec::new(), JoinSet::new());
        Self { fetcher, decoder, schema_id, largest, waiting, held, out }
    }

    pub(super) fn want(&mut self, call: CallId, receipts: TopicPartition, position: i64) {
        self.waiting.push_back(Wanted { call, receipts, position });
    }

    /// Asks for as many as there is room for.
    pub(super) fn proceed(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.held.retain(|(record, _)| record.strong_count() > 0);
        let held: usize = self.held.iter().map(|(_, bytes)| bytes).sum();
        while (held == 0 && self.out.is_empty()) || held + (self.out.len() + 1) * self.largest <= BYTES {
            let Some(Wanted { call, receipts, position }) = self.waiting.pop_front() else { return };
            let (fetcher, decoder, schema_id) = (self.fetcher.clone(), Arc::clone(&self.decoder), self.schema_id);
            self.out.spawn(async move { (call, fetch(&fetcher, &decoder, schema_id, receipts, position).await) });
        }
    }

    /// The next record that was asked for; `None`: it could not be read now. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<(CallId, Option<Arc<Record>>), JoinError> {
        let Some(ended) = self.out.join_next().await else { return std::future::pending().await };
        let (call, record) = ended?;
        let record = record.map(Arc::new);
        if let Some(record) = &record {
            self.held.push((Arc::downgrade(record), record.bytes()));
        }
        Ok((call, record))
    }

    /// Something waits for room, which comes when a record is dropped.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

async fn fetch(
    fetcher: &Fetcher,
    decoder: &Decoder,
    schema_id: u32,
    receipts: TopicPartition,
    position: i64,
) -> Option<Record> {
    let why = match fetcher.fetch(receipts.clone(), position).await {
        Ok(found) => {
            let value = found.value.as_deref().unwrap_or_default();
            match Receipt::decode(schema_id, value) {
                Ok(receipt) => record_of(&receipt).ok_or("its receipt holds no record".to_owned()),
                Err(receipt::Error::OtherSchema { .. }) => match decoder.decode(value).await {
                    Ok(read) => {
                        let record = Receipt::from_value(&read.value).ok().and_then(|receipt| record_of(&receipt));
                        record.ok_or("its receipt holds no record".to_owned())
                    }
                    Err(error) => Err(chain(&error)),
                },
                Err(error) => Err(error.to_string()),
            }
        }
        Err(error @ Failure::Absent { .. }) => {
            Err(format!("{error}; its body is lost to retention, and its key waits for a person"))
        }
        Err(error) => Err(chain(&error)),
    };
    match why {
        Ok(record) => Some(record),
        Err(why) => {
            tracing::warn!(at = %receipts, position, why, "a parked record could not be read; it is tried again");
            tokio::time::sleep(AFTER_FAILURE).await;
            None
        }
    }
}
