//! Dead letters and receipts of a sink whose effects are not Kafka's, and so cannot share a transaction with them.
//!
//! A dead letter, and the receipt of what was left out, is acknowledged by Kafka before the sink moves its offset past the
//! record: written twice perhaps, where the offset did not move after all, and never missing. A delivery's receipt is
//! written behind it and may be missing, for the sink itself can be asked.

use std::fmt;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::drive::{Names, writes_of};
use super::receipt;
use super::settle::Receipt;
use crate::causes::chain;
use crate::kafka::{self, Client, Limits, Outgoing, Pending, Publisher, Write};
use crate::outcome::Outcome;
use crate::schema::Registry;

/// What waits for Kafka, besides what the requests of ingest have in flight: a few batches' receipts of some 150 bytes, and
/// dead letters as large as events.
const LIMITS: Limits = Limits { max_in_flight_bytes: 16 << 20, max_in_flight_records: 50_000 };

/// Longer than a leader's election takes; the batch is attempted again after it.
const DEADLINE: Duration = Duration::from_secs(20);

/// For receipts that are on their way when the worker stops; what it does not suffice for may be missing.
const FLUSH: Duration = Duration::from_secs(2);

/// Writes down what became of records.
pub struct Registrar {
    names: Names,
    publisher: Publisher,
    registry: Registry,
    schema_id: OnceCell<u32>,
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Registrar {
    /// Opens a producer of its own, so that receipts never take the room that requests need.
    ///
    /// # Errors
    /// As [`Publisher::start`].
    pub fn new(names: Names, client: &Client, registry: Registry) -> Result<Self, kafka::Error> {
        let publisher = Publisher::start(client, LIMITS)?;
        Ok(Self { names, publisher, registry, schema_id: OnceCell::new() })
    }

    /// Writes the receipts, and the dead letters that belong to them, and waits until Kafka has all of them.
    ///
    /// # Errors
    /// What holds the sink: what was not acknowledged may be there all the same, and will be written again.
    pub(super) async fn ensure(&self, receipts: &[Receipt]) -> Result<(), Outcome> {
        if receipts.is_empty() {
            return Ok(());
        }
        let acknowledged = async {
            let schema_id = self.schema_id().await?;
            let mut pending = Vec::with_capacity(receipts.len());
            for receipt in receipts {
                for write in writes_of(receipt, &self.names, schema_id) {
                    pending.push((receipt, self.publish(&write)));
                }
            }
            let mut too_large: Vec<&Receipt> = Vec::new();
            for (receipt, enqueued) in pending {
                let written = match enqueued {
                    Ok(pending) => pending.await.map(drop),
                    Err(error) => Err(error),
                };
                match written {
                    Ok(()) => {}
                    // Or one that went with it was.
                    Err(error) if is_too_large(&error) && receipt.is_dead() => too_large.push(receipt),
                    Err(error) => return Err(held(&error)),
                }
            }
            for receipt in too_large {
                self.bury(receipt, schema_id).await?;
            }
            Ok(())
        };
        let late =
            |_| Outcome::Transient { reason: "kafka did not acknowledge a dead letter or receipt in time".into() };
        timeout(DEADLINE, acknowledged).await.map_err(late)?
    }

    /// Writes a dead letter by itself, without the event's body where it does not fit.
    async fn bury(&self, receipt: &Receipt, schema_id: u32) -> Result<(), Outcome> {
        let Err(error) = self.write(receipt, schema_id).await else { return Ok(()) };
        if receipt.bare || !is_too_large(&error) {
            return Err(held(&error));
        }
        let bare = Receipt { bare: true, ..receipt.clone() };
        self.write(&bare, schema_id).await.map_err(|error| held(&error))?;
        let (sink, at, offset) = (self.names.sink(), &receipt.at, receipt.offset);
        tracing::warn!(sink, %at, offset, error = chain(&error), "a dead letter is too large, and has no body");
        Ok(())
    }

    /// One after the other: alone, each is refused for its own size only.
    async fn write(&self, receipt: &Receipt, schema_id: u32) -> Result<(), kafka::Error> {
        for write in writes_of(receipt, &self.names, schema_id) {
            self.publish(&write)?.await?;
        }
        Ok(())
    }

    /// Writes receipts of what the sink has already; nobody waits for them.
    pub(super) async fn mention(&self, receipts: &[Receipt]) {
        let Ok(schema_id) = self.schema_id().await else { return };
        for write in receipts.iter().flat_map(|receipt| writes_of(receipt, &self.names, schema_id)) {
            if let Err(error) = self.publish(&write) {
                tracing::debug!(error = chain(&error), "receipts of deliveries are left out");
                return;
            }
        }
    }

    pub(super) async fn flush(&self) {
        if let Err(error) = self.publisher.flush(FLUSH).await {
            tracing::info!(error = chain(&error), "receipts of deliveries are left out");
        }
    }

    async fn schema_id(&self) -> Result<u32, Outcome> {
        let asked = self.schema_id.get_or_try_init(|| self.registry.own_id(receipt::SCHEMA)).await;
        asked.copied().map_err(|error| {
            let reason = format!("the schema of receipts: {}", chain(&error));
            if error.is_transient() { Outcome::Transient { reason } } else { Outcome::Misconfigured { reason } }
        })
    }

    fn publish(&self, write: &Write) -> Result<Pending, kafka::Error> {
        let headers: Vec<(&str, &[u8])> =
            write.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        self.publisher.publish(Outgoing {
            topic: &write.topic,
            partition: write.partition,
            key: write.key.as_deref(),
            value: write.value.as_deref(),
            headers: &headers,
            timestamp_ms: write.timestamp_ms,
        })
    }
}

fn is_too_large(error: &kafka::Error) -> bool {
    match error {
        kafka::Error::TooLarge { .. } => true,
        kafka::Error::Refused { source, .. } => source.is_too_large(),
        _ => false,
    }
}

fn held(error: &kafka::Error) -> Outcome {
    let reason = format!("a dead letter or receipt: {}", chain(error));
    match error {
        kafka::Error::TooLarge { .. } | kafka::Error::Refused { .. } => Outcome::Misconfigured { reason },
        _ => Outcome::Transient { reason },
    }
}
