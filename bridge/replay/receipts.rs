//! What became of deliveries, out of a sink's receipts: read without a group, from some time on, up to where they end.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use crate::causes::chain;
use crate::deliver::receipt::{self, Receipt, ReceiptOutcome, SCHEMA};
use crate::kafka::read::Event;
use crate::kafka::{self, Client, Glimpse, Reader, Then};
use crate::schema::registry::{self, Registry};
use crate::schema::{Decoder, decode};

/// Receipts that are kept, a few hundred bytes each: some for each of a hundred thousand deliveries.
const MAX_KEPT: usize = 500_000;

/// Why they cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("receipts cannot be read")]
    Kafka(#[from] kafka::Error),
    #[error("the schema of receipts has no id in the registry")]
    Registry(#[from] registry::Error),
    #[error("more than {most} receipts are of interest")]
    TooMany { most: usize },
}

/// One receipt, as far as people want to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Of the receipt.
    pub offset: i64,
    pub delivery_id: Uuid,
    pub origin: Origin,
    pub outcome: ReceiptOutcome,
    pub reason: String,
    pub message: String,
    pub attempts: i32,
    pub vendor_reference: Option<String>,
    pub received_at: Option<i64>,
    pub settled_at: i64,
}

impl Stage {
    fn new(offset: i64, receipt: &Receipt<'_>) -> Self {
        Self {
            offset,
            delivery_id: receipt.delivery_id,
            origin: (receipt.origin_topic.to_owned(), receipt.origin_partition, receipt.origin_offset),
            outcome: receipt.outcome,
            reason: receipt.reason.to_owned(),
            message: receipt.message.to_owned(),
            attempts: receipt.attempts,
            vendor_reference: receipt.vendor_reference.map(str::to_owned),
            received_at: receipt.received_at,
            settled_at: receipt.settled_at,
        }
    }

    fn place(&self) -> (&str, i32, i64) {
        as_place(&self.origin)
    }
}

/// Where an event stands: topic, partition, offset.
pub type Origin = (String, i32, i64);

fn as_place((topic, partition, offset): &Origin) -> (&str, i32, i64) {
    (topic, *partition, *offset)
}

/// Which receipts are looked for: those of these deliveries, and whatever was written for the events at these places, under
/// whichever delivery id (`sink rewind --again` gives new ones).
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub deliveries: HashSet<Uuid>,
    /// Those of one trace: few enough to be looked through for each receipt, without a copy of its topic's name.
    pub origins: Vec<Origin>,
}

impl Wanted {
    fn has(&self, delivery_id: Uuid, place: (&str, i32, i64)) -> bool {
        self.deliveries.contains(&delivery_id) || self.origins.iter().any(|origin| as_place(origin) == place)
    }
}

/// A sink's receipts, and where to look for them.
#[derive(Debug, Clone)]
pub struct Receipts {
    pub client: Client,
    pub registry: Registry,
    /// librdkafka wants the name of a group; nobody joins it.
    pub group: String,
    /// Topics of receipts. One that does not exist has none.
    pub topics: Vec<String>,
    /// Milliseconds since the epoch.
    pub since_ms: i64,
}

/// What was read of one.
enum Found {
    Stage(Stage),
    /// Written under another version of the schema.
    Other(i64, Vec<u8>),
}

impl Receipts {
    /// The receipts of these deliveries, in the order in which they were written. `tell` hears how many were read.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn of(&self, wanted: Wanted, mut tell: impl FnMut(u64)) -> Result<Trails, Error> {
        let mut trails = Trails::default();
        let mut kept = 0;
        let of_interest = wanted.clone();
        self.each(
            move |id, origin| of_interest.has(id, origin),
            |stage| {
                kept += 1;
                trails.0.entry(stage.delivery_id).or_default().push(stage);
                if kept > MAX_KEPT { Err(Error::TooMany { most: MAX_KEPT }) } else { Ok(()) }
            },
            &mut tell,
        )
        .await?;
        for stages in trails.0.values_mut() {
            // Of one origin they have one order; a repeated event may have two.
            stages.sort_by_key(|stage| (stage.settled_at, stage.offset));
        }
        Ok(trails)
    }

    /// How many deliveries stand where: each counted once, by its last receipt.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn counts(&self, mut tell: impl FnMut(u64)) -> Result<BTreeMap<&'static str, u64>, Error> {
        let mut open: HashMap<Uuid, ReceiptOutcome> = HashMap::new();
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        self.each(
            |_, _| true,
            |stage| {
                let is_final = matches!(stage.outcome, ReceiptOutcome::Delivered | ReceiptOutcome::Skipped);
                if is_final {
                    open.remove(&stage.delivery_id);
                    *counts.entry(stage.outcome.name()).or_default() += 1;
                    return Ok(());
                }
                open.insert(stage.delivery_id, stage.outcome);
                if open.len() > MAX_KEPT { Err(Error::TooMany { most: MAX_KEPT }) } else { Ok(()) }
            },
            &mut tell,
        )
        .await?;
        for outcome in open.into_values() {
            *counts.entry(outcome.name()).or_default() += 1;
        }
        Ok(counts)
    }

    async fn each(
        &self,
        wanted: impl Fn(Uuid, (&str, i32, i64)) -> bool + Clone + Send + 'static,
        mut take: impl FnMut(Stage) -> Result<(), Error>,
        tell: &mut impl FnMut(u64),
    ) -> Result<(), Error> {
        let schema_id = self.registry.own_id(SCHEMA).await?;
        let extents = self.client.extents(&self.group, self.topics.clone(), self.since_ms).await?;
        let (decoder, is_wanted) = (Decoder::new(self.registry.clone()), wanted.clone());
        let look = move |record: &Glimpse<'_>| found(schema_id, record, &is_wanted);
        let mut reader = Reader::start(&self.client, &self.group, extents, Then::Stop, look)?;
        let mut read = 0;
        while let Some(event) = reader.next().await {
            match event {
                Event::Batch(batch) => {
                    read += batch.len() as u64;
                    tell(read);
                    for found in batch {
                        let stage = match found {
                            Found::Stage(stage) => Some(stage),
                            Found::Other(offset, value) => other(&decoder, offset, &value).await?,
                        };
                        if let Some(stage) = stage.filter(|stage| wanted(stage.delivery_id, stage.place())) {
                            take(stage)?;
                        }
                    }
                }
                Event::Trouble(code) => tracing::warn!(%code, "reading receipts is in trouble"),
                Event::CaughtUp => return Ok(()),
                Event::Ended(Some(error)) => return Err(error.into()),
                Event::Ended(None) => break,
            }
        }
        Err(kafka::Error::Stopped { role: "reader" }.into())
    }
}

/// What is no receipt is left out, with a word in the log.
fn found(schema_id: u32, record: &Glimpse<'_>, wanted: &impl Fn(Uuid, (&str, i32, i64)) -> bool) -> Option<Found> {
    let value = record.value()?;
    match Receipt::decode(schema_id, value) {
        Ok(receipt) => {
            let origin = (receipt.origin_topic, receipt.origin_partition, receipt.origin_offset);
            wanted(receipt.delivery_id, origin).then(|| Found::Stage(Stage::new(record.offset(), &receipt)))
        }
        Err(receipt::Error::OtherSchema { .. }) => Some(Found::Other(record.offset(), value.to_vec())),
        Err(error) => {
            let (topic, partition, offset) = (record.topic(), record.partition(), record.offset());
            tracing::warn!(topic, partition, offset, %error, "a record among the receipts is none");
            None
        }
    }
}

async fn other(decoder: &Decoder, offset: i64, value: &[u8]) -> Result<Option<Stage>, Error> {
    match decoder.decode(value).await {
        Ok(read) => Ok(Receipt::from_value(&read.value).ok().map(|receipt| Stage::new(offset, &receipt))),
        Err(decode::Error::Registry(error)) if error.is_transient() => Err(error.into()),
        Err(error) => {
            tracing::warn!(offset, error = chain(&error), "a record among the receipts is none");
            Ok(None)
        }
    }
}

/// What became of each delivery, oldest receipt first.
#[derive(Debug, Default)]
pub struct Trails(HashMap<Uuid, Vec<Stage>>);

impl Trails {
    #[must_use]
    pub fn of(&self, delivery_id: Uuid) -> &[Stage] {
        self.0.get(&delivery_id).map_or(&[], Vec::as_slice)
    }

    /// What was delivered of the event at `origin` under other ids than its first one, oldest first.
    #[must_use]
    pub fn again(&self, origin: (&str, i32, i64), first: Uuid) -> Vec<&[Stage]> {
        let begins = |stages: &&[Stage]| stages.first().map(|stage| (stage.settled_at, stage.delivery_id));
        let others = self.0.iter().filter(|(id, _)| **id != first).map(|(_, stages)| stages.as_slice());
        let mut again: Vec<_> = others.filter(|stages| stages.iter().any(|stage| stage.place() == origin)).collect();
        again.sort_by_key(begins);
        again
    }
}
