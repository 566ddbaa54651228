//! Receipts: what became of each event, as Avro (`schemas/hookbridge/receipt/`). Pure.
//!
//! A restore reads them by the million, so a datum of our own version is read field by field out of the record's bytes,
//! without an allocation (Avro 1.12, "Binary Encoding"); one of another version goes by way of the Avro library.

mod avro;
mod settled;
#[cfg(test)]
mod tests;

use apache_avro::types::Value;
use uuid::Uuid;

use crate::schema::wire;

use avro::{Reader, Writer};

pub use settled::{followed, receipt_of, received_at, record_of};

/// The schema, as it is registered under its record name.
pub const SCHEMA: &str = include_str!("../../schemas/hookbridge/receipt/1.avsc");

/// The subject of [`SCHEMA`]: RecordName strategy.
pub const SUBJECT: &str = "hookbridge.Receipt";

/// The topic of a sink's receipts for the events of one topic, which bears the prefix of all topics.
#[must_use]
pub fn topic(prefix: &str, sink: &str, events: &str) -> String {
    format!("{prefix}receipts.{sink}.{}", events.strip_prefix(prefix).unwrap_or(events))
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptOutcome {
    /// Written by a newer version, which knows more outcomes than this one.
    Unknown,
    Delivered,
    Skipped,
    Dead,
    Parked,
    Requeued,
    Intent,
}

impl ReceiptOutcome {
    /// In the order of the schema's symbols.
    const ALL: [Self; 7] =
        [Self::Unknown, Self::Delivered, Self::Skipped, Self::Dead, Self::Parked, Self::Requeued, Self::Intent];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Delivered => "delivered",
            Self::Skipped => "skipped",
            Self::Dead => "dead",
            Self::Parked => "parked",
            Self::Requeued => "requeued",
            Self::Intent => "intent",
        }
    }

    fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|one| one.name() == name).unwrap_or(Self::Unknown)
    }
}

/// One receipt. It borrows, from what it is made of or from the record that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt<'a> {
    pub delivery_id: Uuid,
    pub origin_topic: &'a str,
    pub origin_partition: i32,
    pub origin_offset: i64,
    pub outcome: ReceiptOutcome,
    /// A bounded name; empty for a delivery.
    pub reason: &'a str,
    /// What the sink said, for people.
    pub message: &'a str,
    pub attempts: i32,
    pub vendor_reference: Option<&'a str>,
    /// Milliseconds since the epoch, as all instants here.
    pub received_at: Option<i64>,
    pub settled_at: i64,
    /// For how long it had been failing, in milliseconds, without the time for which the sink was held.
    pub failing_ms: i64,
    /// Since when an attempt may have had its effect, though nobody said so.
    pub unsure_since: Option<i64>,
    /// Who wrote it, by a random number.
    pub writer: i64,
    /// With a parked or requeued one.
    pub original: Option<Original<'a>>,
}

/// The record that a parked or requeued receipt is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Original<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, &'a [u8])>,
    pub timestamp: Option<i64>,
}

/// Why bytes are no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Frame(#[from] wire::Error),
    /// Of another version: to be read with that schema, and then by [`Receipt::from_value`].
    #[error("it was written with schema {id}")]
    OtherSchema { id: u32 },
    #[error("it ends within {field}")]
    Truncated { field: &'static str },
    #[error("{field} is no {expected}")]
    Malformed { field: &'static str, expected: &'static str },
    #[error("{left} bytes are left behind it")]
    Trailing { left: usize },
}

impl<'a> Receipt<'a> {
    /// Appends the receipt in the Confluent wire format, under the id that [`SCHEMA`] is registered with.
    pub fn encode(&self, schema_id: u32, out: &mut Vec<u8>) {
        wire::frame(schema_id, out);
        let mut to = Writer(out);
        to.uuid(&self.delivery_id);
        to.bytes(self.origin_topic.as_bytes());
        to.long(i64::from(self.origin_partition));
        to.long(self.origin_offset);
        to.index(self.outcome as usize);
        to.bytes(self.reason.as_bytes());
        to.bytes(self.message.as_bytes());
        to.long(i64::from(self.attempts));
        to.option(self.vendor_reference, |to, text| to.bytes(text.as_bytes()));
        to.option(self.received_at, Writer::long);
        to.long(self.settled_at);
        to.long(self.failing_ms);
        to.option(self.unsure_since, Writer::long);
        to.long(self.writer);
        to.option(self.original.as_ref(), |to, original| {
            to.option(original.key, Writer::bytes);
            to.option(original.value, Writer::bytes);
            if !original.headers.is_empty() {
                to.index(original.headers.len());
                for (name, value) in &original.headers {
                    to.bytes(name.as_bytes());
                    to.bytes(value);
                }
            }
            to.index(0);
            to.option(original.timestamp, Writer::long);
        });
    }

    /// Reads a record's value, where it was written with the schema of that id, which is [`SCHEMA`]'s.
    ///
    /// # Errors
    /// [`Error::OtherSchema`] is none for good; every other one is.
    pub fn decode(schema_id: u32, value: &'a [u8]) -> Result<Self, Error> {
        let (id, datum) = wire::unframe(value)?;
        if id != schema_id {
            return Err(Error::OtherSchema { id });
        }
        let mut from = Reader(datum);
        let receipt = Self {
            delivery_id: from.uuid("delivery_id")?,
            origin_topic: from.text("origin_topic")?,
            origin_partition: from.int("origin_partition")?,
            origin_offset: from.long("origin_offset")?,
            outcome: outcome(from.long("outcome")?)?,
            reason: from.text("reason")?,
            message: from.text("message")?,
            attempts: from.int("attempts")?,
            vendor_reference: from.option("vendor_reference", Reader::text)?,
            received_at: from.option("received_at", Reader::long)?,
            settled_at: from.long("settled_at")?,
            failing_ms: from.long("failing_ms")?,
            unsure_since: from.option("unsure_since", Reader::long)?,
            writer: from.long("writer")?,
            original: from.option("original", |from, _| original(from))?,
        };
        match from.0.len() {
            0 => Ok(receipt),
            left => Err(Error::Trailing { left }),
        }
    }

    /// What a record's value says became of the event, without reading more of it. `None`: it is no receipt of this version.
    #[must_use]
    pub fn outcome_of(schema_id: u32, value: &[u8]) -> Option<ReceiptOutcome> {
        let (_, datum) = wire::unframe(value).ok().filter(|(id, _)| *id == schema_id)?;
        let mut from = Reader(datum);
        from.bytes("delivery_id").ok()?;
        from.bytes("origin_topic").ok()?;
        from.long("origin_partition").ok()?;
        from.long("origin_offset").ok()?;
        outcome(from.long("outcome").ok()?).ok()
    }

    /// A receipt of another version, as the Avro library has read it; what this version does not know is left out.
    ///
    /// # Errors
    /// [`Error::Malformed`] names the field that is missing or is of another type.
    pub fn from_value(value: &'a Value) -> Result<Self, Error> {
        let get = |field| avro::field(value, field);
        let expected = |field, expected| Error::Malformed { field, expected };
        let int = |field| get(field).and_then(avro::long).and_then(|number| i32::try_from(number).ok());
        Ok(Self {
            delivery_id: get("delivery_id").and_then(avro::uuid).ok_or(expected("delivery_id", "uuid"))?,
            origin_topic: get("origin_topic").and_then(avro::text).ok_or(expected("origin_topic", "text"))?,
            origin_partition: int("origin_partition").ok_or(expected("origin_partition", "number"))?,
            origin_offset: get("origin_offset").and_then(avro::long).ok_or(expected("origin_offset", "number"))?,
            outcome: get("outcome")
                .and_then(avro::text)
                .map(ReceiptOutcome::named)
                .ok_or(expected("outcome", "symbol"))?,
            reason: get("reason").and_then(avro::text).unwrap_or_default(),
            message: get("message").and_then(avro::text).unwrap_or_default(),
            attempts: int("attempts").unwrap_or_default(),
            vendor_reference: get("vendor_reference").and_then(avro::text),
            received_at: get("received_at").and_then(avro::long),
            settled_at: get("settled_at").and_then(avro::long).ok_or(expected("settled_at", "instant"))?,
            failing_ms: get("failing_ms").and_then(avro::long).unwrap_or_default(),
            unsure_since: get("unsure_since").and_then(avro::long),
            writer: get("writer").and_then(avro::long).unwrap_or_default(),
            original: get("original").filter(|value| matches!(value, Value::Record(_))).map(avro::original),
        })
    }
}

fn outcome(index: i64) -> Result<ReceiptOutcome, Error> {
    let found = usize::try_from(index).ok().and_then(|index| ReceiptOutcome::ALL.get(index));
    found.copied().ok_or(Error::Malformed { field: "outcome", expected: "symbol" })
}

fn original<'a>(from: &mut Reader<'a>) -> Result<Original<'a>, Error> {
    Ok(Original {
        key: from.option("original.key", Reader::bytes)?,
        value: from.option("original.value", Reader::bytes)?,
        headers: from.array("original.headers", |from| {
            Ok((from.text("original.headers.name")?, from.bytes("original.headers.value")?))
        })?,
        timestamp: from.option("original.timestamp", Reader::long)?,
    })
}
