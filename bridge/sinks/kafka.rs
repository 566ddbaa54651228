//! What a Kafka sink writes: a copy of the event in a topic of the sink's own, whole or as its `map` made it.
//!
//! ```text
//!  Delivery ─▶ Output (of its event type and writer schema: topic, id under `<topic>-value`, plan) ─▶ Write
//!                nothing mapped: the datum as it is, behind the other id
//!                mapped:         the JSON encoded with the writer schema, whose defaults fill what was removed
//! ```
//!
//! An output is made once, and only that asks the registry; making a record of an event is pure, and nothing here sends:
//! the records go into the transaction that commits the sink's offsets.
//!
//! The copy's schema is the event's writer schema in one piece, shared types inlined, so that whoever reads the topic
//! needs no other subject.

mod carried;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apache_avro::Schema;

use super::{Content, Delivery};
use crate::causes::chain;
use crate::config::UnknownFields;
use crate::event::header;
use crate::kafka::{Record, Write};
use crate::outcome::Outcome;
use crate::schema::plan::{Plan, Refused, Scratch};
use crate::schema::{EventSchema, Registry, WriterSchema, registry, wire};

/// Outputs kept, one for each topic and writer schema. A sink meets a handful; past this many something invents schemas,
/// and they are made again.
const MAX_OUTPUTS: usize = 1_000;

/// Violations that a reason names: the first few show what is wrong with a map, and its text goes into a header.
const MAX_NAMED: usize = 5;

/// The part of a topic's name that stands for the event type.
const PLACEHOLDER: &str = "{event_type}";

/// By topic and the writer schema's id.
type Outputs = HashMap<(Arc<str>, u32), Arc<Output>>;

/// A sink that writes to topics of its own.
#[derive(Debug)]
pub struct Kafka {
    /// Full names, by event type.
    topics: BTreeMap<String, Arc<str>>,
    registry: Registry,
    outputs: Mutex<Outputs>,
    /// Whoever meets a schema first asks the registry, and the others wait for the answer instead of asking as well.
    preparing: tokio::sync::Mutex<()>,
}

/// The full name of the topic that an event type is copied to: `topic` may hold `{event_type}`, `prefix` is that of all
/// topics.
#[must_use]
pub fn topic(prefix: &str, topic: &str, event_type: &str) -> String {
    format!("{prefix}{}", topic.replace(PLACEHOLDER, event_type))
}

impl Kafka {
    /// `topic` may hold `{event_type}`; `prefix` is that of all topics; `events`: the event types that the sink takes.
    #[must_use]
    pub fn new(prefix: &str, topic: &str, events: &[String], registry: Registry) -> Self {
        Self {
            topics: events.iter().map(|event| (event.clone(), self::topic(prefix, topic, event).into())).collect(),
            registry,
            outputs: Mutex::default(),
            preparing: tokio::sync::Mutex::default(),
        }
    }

    /// What to write of an event; `origin` is the record that it was read from.
    ///
    /// # Errors
    /// [`Outcome::Rejected`]: of this event there is no copy. [`Outcome::Transient`]: the registry is needed and down.
    /// [`Outcome::Misconfigured`]: a person has to register the schema, or to change the map.
    pub async fn write(&self, delivery: &Delivery, origin: &Record, scratch: &mut Scratch) -> Result<Write, Outcome> {
        self.output(delivery).await?.write(delivery, origin, scratch)
    }

    async fn output(&self, delivery: &Delivery) -> Result<Arc<Output>, Outcome> {
        let event_type = &delivery.identity.event_type;
        let Some(topic) = self.topics.get(event_type) else {
            // Routing gives a sink only what it lists.
            return Err(Outcome::Rejected { reason: format!("the sink does not list {event_type}") });
        };
        let key = (Arc::clone(topic), delivery.schema_id);
        if let Some(output) = self.outputs().get(&key) {
            return Ok(Arc::clone(output));
        }
        let _alone = self.preparing.lock().await;
        if let Some(output) = self.outputs().get(&key) {
            return Ok(Arc::clone(output));
        }
        let output = Arc::new(self.prepare(event_type, topic, delivery.schema_id).await?);
        let mut outputs = self.outputs();
        if outputs.len() >= MAX_OUTPUTS {
            outputs.clear();
        }
        outputs.insert(key, Arc::clone(&output));
        Ok(output)
    }

    /// Finds the id of a writer schema under the output topic's subject; registers it there where that is allowed.
    async fn prepare(&self, event_type: &str, topic: &Arc<str>, schema_id: u32) -> Result<Output, Outcome> {
        let writer = self.registry.writer(schema_id).await.map_err(|error| {
            let reason = chain(&error);
            if error.is_transient() { Outcome::Transient { reason } } else { Outcome::Rejected { reason } }
        })?;
        let copy = schema_of_copy(event_type, topic, &writer);
        let id = self.registry.id_of(&copy).await.map_err(|error| match error {
            registry::Error::NotRegistered { subject, .. } => Outcome::Misconfigured {
                reason: format!(
                    "schema {schema_id} of {event_type} is not registered under {subject}: \
                     register it there, or set `registry.auto_register`"
                ),
            },
            error if error.is_transient() => Outcome::Transient { reason: chain(&error) },
            error => Outcome::Misconfigured { reason: chain(&error) },
        })?;
        Ok(Output::new(Arc::clone(topic), id, self.registry.address_of(id), writer.id, &writer.text, &writer.schema))
    }

    fn outputs(&self) -> MutexGuard<'_, Outputs> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer schema as the registry is told of it under another subject.
fn schema_of_copy(event_type: &str, topic: &str, writer: &WriterSchema) -> EventSchema {
    EventSchema {
        event_type: event_type.to_owned(),
        // It comes from the registry, not from a file: it has no folder and no number.
        category: String::new(),
        version: 0,
        topic: topic.to_owned(),
        subject: format!("{topic}-value"),
        text: writer.text.clone(),
        references: Vec::new(),
        inlined: writer.text.clone(),
        schema: Arc::new(writer.schema.clone()),
    }
}

/// Where events of one type and writer schema go, and as what.
#[derive(Debug)]
struct Output {
    topic: Arc<str>,
    /// Of the writer schema under the topic's own subject.
    id: u32,
    /// What `ce_dataschema` says of it.
    address: String,
    writer_id: u32,
    /// How a map's result is written; else why it cannot be, which stops only a sink that has a map.
    plan: Result<Plan, String>,
}

impl Output {
    /// `text` and `schema` are the writer schema's.
    fn new(topic: Arc<str>, id: u32, address: String, writer_id: u32, text: &str, schema: &Schema) -> Self {
        // A field that the schema does not have would be lost without a word: the map is refused instead.
        let plan = match carried::check(schema) {
            Ok(()) => Plan::compile(text, UnknownFields::Reject).map_err(|error| chain(&error)),
            Err(lost) => Err(format!("JSON, and so a map, cannot carry {}", lost.join("; "))),
        };
        Self { topic, id, address, writer_id, plan }
    }

    fn write(&self, delivery: &Delivery, origin: &Record, scratch: &mut Scratch) -> Result<Write, Outcome> {
        let mut value = Vec::with_capacity(origin.value.as_ref().map_or(0, Vec::len));
        wire::frame(self.id, &mut value);
        match &delivery.content {
            Content::Json(_) | Content::Value { .. } => value.extend_from_slice(datum_of(origin)?),
            Content::Mapped(json) => {
                let plan = self.plan.as_ref().map_err(|why| Outcome::Misconfigured {
                    reason: format!("schema {} cannot be written from a map's result: {why}", self.writer_id),
                })?;
                plan.encode(json, scratch, &mut value).map_err(|refused| self.rejected(refused))?;
            }
        }
        Ok(Write {
            topic: Arc::clone(&self.topic),
            // The copy has as many partitions as it pleases: where the same keys meet again is all that is promised.
            partition: None,
            key: origin.key.clone(),
            value: Some(value),
            headers: self.headers(delivery, origin),
            // Now: retention counts from the writing, or what is written late, of a replay, would be gone at once.
            timestamp_ms: None,
        })
    }

    /// The event's own, but for the schema's address and, where the event is a copy itself, its last delivery's id.
    fn headers(&self, delivery: &Delivery, origin: &Record) -> Vec<(String, Vec<u8>)> {
        let mut headers = Vec::new();
        for (name, value) in origin.headers.iter() {
            match name {
                header::DELIVERY_ID => {}
                header::CE_DATASCHEMA => headers.push((name.to_owned(), self.address.clone().into_bytes())),
                _ => headers.push((name.to_owned(), value.to_vec())),
            }
        }
        headers.push((header::DELIVERY_ID.to_owned(), delivery.delivery_id.to_string().into_bytes()));
        headers
    }

    fn rejected(&self, refused: Refused) -> Outcome {
        let violations = refused.into_violations();
        let mut reason = format!("the map's result does not fit schema {}:", self.writer_id);
        for (at, violation) in violations.first.iter().take(MAX_NAMED).enumerate() {
            let separator = if at == 0 { "" } else { ";" };
            // Writing to a text cannot fail.
            let _ = write!(
                reason,
                "{separator} {:?} {}: {}",
                violation.pointer,
                violation.reason.name(),
                violation.message
            );
        }
        if violations.total > MAX_NAMED {
            let _ = write!(reason, "; and {} more", violations.total - MAX_NAMED);
        }
        Outcome::Rejected { reason }
    }
}

fn datum_of(origin: &Record) -> Result<&[u8], Outcome> {
    let rejected = |reason: String| Outcome::Rejected { reason };
    let value = origin.value.as_deref().ok_or_else(|| rejected("a tombstone is no event".to_owned()))?;
    let (_, datum) = wire::unframe(value).map_err(|error| rejected(error.to_string()))?;
    Ok(datum)
}
