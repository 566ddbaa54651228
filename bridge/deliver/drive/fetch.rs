//! Bodies of parked and requeued records: read again when their turn comes, within a bound on what is in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use crate::causes::chain;
use crate::deliver::machine::{CallId, Input};
use crate::deliver::receipt::{self, Receipt, record_of};
use crate::kafka::fetch::Failure;
use crate::kafka::{Fetcher, Record, TopicPartition};
use crate::schema::Decoder;

/// Bytes of fetched records that are sent or wait for their commit: a few dozen of the largest, and thousands of the
/// usual ones.
const BYTES: usize = 32 << 20;

/// Before a record that was not read is said to be so: it is asked for again soon after, and for ever.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// A record that is to be read again.
pub(super) struct Wanted {
    pub(super) call: CallId,
    /// Where its receipt stands.
    pub(super) receipts: TopicPartition,
    pub(super) position: i64,
    /// Where the event itself stands.
    pub(super) at: TopicPartition,
    pub(super) origin: i64,
}

/// What a reading came to.
enum Found {
    Record(Record),
    /// It is asked for again.
    NotNow,
    /// Retention has taken it, for good.
    Gone,
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
    out: JoinSet<(CallId, Found)>,
}

impl Bodies {
    pub(super) fn new(fetcher: Fetcher, decoder: Arc<Decoder>, schema_id: u32, largest: usize) -> Self {
        let (waiting, held, out) = (VecDeque::new(), Vec::new(), JoinSet::new());
        Self { fetcher, decoder, schema_id, largest, waiting, held, out }
    }

    pub(super) fn want(&mut self, wanted: Wanted) {
        self.waiting.push_back(wanted);
    }

    /// Asks for as many as there is room for.
    pub(super) fn proceed(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.held.retain(|(record, _)| record.strong_count() > 0);
        let held: usize = self.held.iter().map(|(_, bytes)| bytes).sum();
        while (held == 0 && self.out.is_empty()) || held + (self.out.len() + 1) * self.largest <= BYTES {
            let Some(wanted) = self.waiting.pop_front() else { return };
            let (fetcher, decoder, schema_id) = (self.fetcher.clone(), Arc::clone(&self.decoder), self.schema_id);
            self.out.spawn(async move { (wanted.call, fetch(&fetcher, &decoder, schema_id, wanted).await) });
        }
    }

    /// What the next of the readings came to, for the machine. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Input, JoinError> {
        let Some(ended) = self.out.join_next().await else { return std::future::pending().await };
        let (call, found) = ended?;
        let record = match found {
            Found::Gone => return Ok(Input::Gone { call }),
            Found::NotNow => None,
            Found::Record(record) => Some(Arc::new(record)),
        };
        if let Some(record) = &record {
            self.held.push((Arc::downgrade(record), record.bytes()));
        }
        Ok(Input::Fetched { call, record })
    }

    /// Something waits for room, which comes when a record is dropped.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

async fn fetch(fetcher: &Fetcher, decoder: &Decoder, schema_id: u32, wanted: Wanted) -> Found {
    let Wanted { receipts, position, at, origin, .. } = wanted;
    let read = match held(fetcher, decoder, schema_id, &receipts, position).await {
        // The receipt was too small for it, or is gone: the event itself may still be there.
        Ok(None) => match fetcher.fetch(at.clone(), origin).await {
            Ok(record) => Ok(record),
            Err(error @ Failure::Absent { .. }) => {
                tracing::error!(%receipts, position, %at, origin, %error, "retention took a parked record");
                return Found::Gone;
            }
            Err(error) => Err(chain(&error)),
        },
        Ok(Some(record)) => Ok(record),
        Err(why) => Err(why),
    };
    match read {
        Ok(record) => Found::Record(record),
        Err(why) => {
            tracing::warn!(at = %receipts, position, why, "a parked record could not be read; it is tried again");
            tokio::time::sleep(AFTER_FAILURE).await;
            Found::NotNow
        }
    }
}

/// The record that a receipt holds; `None`: it holds none, or is gone itself.
async fn held(
    fetcher: &Fetcher,
    decoder: &Decoder,
    schema_id: u32,
    receipts: &TopicPartition,
    position: i64,
) -> Result<Option<Record>, String> {
    let found = match fetcher.fetch(receipts.clone(), position).await {
        Ok(found) => found,
        Err(Failure::Absent { .. }) => return Ok(None),
        Err(error) => return Err(chain(&error)),
    };
    let value = found.value.as_deref().unwrap_or_default();
    match Receipt::decode(schema_id, value) {
        Ok(receipt) => Ok(record_of(&receipt)),
        Err(receipt::Error::OtherSchema { .. }) => match decoder.decode(value).await {
            Ok(read) => Ok(Receipt::from_value(&read.value).ok().and_then(|receipt| record_of(&receipt))),
            Err(error) => Err(chain(&error)),
        },
        Err(error) => Err(error.to_string()),
    }
}
