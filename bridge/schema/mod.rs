//! What an event may be: schemas as files, their ids in a registry, and the five bytes that tie the two together.
//!
//! ```text
//!  schemas/<category>/<event_type>/<version>.avsc ──files──▶ EventSchema ──registry──▶ id ──wire──▶ 0x00 id datum
//!  schemas/common/*.avsc             ──inline──┘                 │                                       │
//!                                                       builtin (dev's own)                  decode ◀────┘
//! ```

mod answer;
pub mod builtin;
mod cache;
pub mod decode;
pub mod example;
pub mod files;
mod inline;
pub mod plan;
pub mod reader;
pub mod registry;
pub mod shape;
pub mod wire;
mod writer;

#[cfg(test)]
mod taxonomy;

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{RecordField, RecordSchema};

pub use decode::{Decoded, Decoder, Opened};
pub use registry::{Registered, Registry};
pub use writer::{ReadError, SchemaError, WriterSchema};

/// The attribute of a field into which unknown fields are captured (`unknown_fields: capture`).
pub const CAPTURE_ATTRIBUTE: &str = "hookbridge.capture";

/// One version of one event type: the schema that this bridge writes.
#[derive(Debug, Clone)]
pub struct EventSchema {
    pub event_type: String,
    pub category: String,
    /// The file's number. The registry counts its own versions; see [`Registered::version`].
    pub version: u32,
    /// The topic, prefix included.
    pub topic: String,
    /// `<topic>-value`: Confluent's TopicNameStrategy.
    pub subject: String,
    /// What is registered: the file without white space between tokens, so that a reformatted file is the same schema.
    pub text: String,
    /// The shared types that `text` names itself, in the order of their first use.
    pub references: Vec<Reference>,
    /// Self-contained: each shared type stands where it is first used.
    pub inlined: String,
    /// `inlined`, parsed; always a record.
    pub schema: Arc<Schema>,
}

/// A shared type as the registry is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Full name of the type (`hookbridge.common.Campaign`).
    pub name: String,
    /// The subject that it is registered under: its full name.
    pub subject: String,
    /// The file's number, not the registry's.
    pub version: u32,
    pub text: String,
    pub references: Vec<Reference>,
}

impl EventSchema {
    /// The record's full name (`hookbridge.events.PurchaseCompleted`).
    #[must_use]
    pub fn full_name(&self) -> String {
        self.record().map(|record| record.name.fullname(None)).unwrap_or_default()
    }

    /// The record's fields, in the order of the schema.
    #[must_use]
    pub fn fields(&self) -> &[RecordField] {
        self.record().map_or(&[], |record| &record.fields)
    }

    #[must_use]
    pub fn field(&self, name: &str) -> Option<&RecordField> {
        self.fields().iter().find(|field| field.name == name)
    }

    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// The field that takes what the schema does not know, where it has one.
    #[must_use]
    pub fn capture_field(&self) -> Option<&RecordField> {
        self.fields()
            .iter()
            .find(|field| field.custom_attributes.get(CAPTURE_ATTRIBUTE) == Some(&serde_json::Value::Bool(true)))
    }

    fn record(&self) -> Option<&RecordSchema> {
        match self.schema.as_ref() {
            Schema::Record(record) => Some(record),
            _ => None,
        }
    }
}
