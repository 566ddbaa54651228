//! Framed bytes → a value or its JSON, under the schema that they were written with.

use std::ops::Range;
use std::sync::Arc;

use apache_avro::types::Value;

use super::registry::{self, Registry};
use super::wire;
use super::writer::{ReadError, WriterSchema};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Frame(#[from] wire::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("a value of schema {id} cannot be read")]
    Datum { id: u32, source: ReadError },
}

impl Error {
    /// Whether the same bytes may be read later: the registry could not be asked. Any other error is for good.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_transient())
    }
}

/// A value, and the schema that it was written with.
#[derive(Debug)]
pub struct Decoded {
    pub writer: Arc<WriterSchema>,
    pub value: Value,
}

/// A value that is still bytes, and the schema that they were written with.
#[derive(Debug)]
pub struct Opened<'v> {
    pub writer: Arc<WriterSchema>,
    datum: &'v [u8],
}

/// Reads the values of a topic; cheap to clone.
#[derive(Debug, Clone)]
pub struct Decoder {
    registry: Registry,
}

impl Decoder {
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }

    /// A record's value in the Confluent wire format, with the schema that it was written with; nothing of it is read yet.
    pub async fn open<'v>(&self, framed: &'v [u8]) -> Result<Opened<'v>, Error> {
        let (id, datum) = wire::unframe(framed)?;
        Ok(Opened { writer: self.registry.writer(id).await?, datum })
    }

    /// The value of a record in the Confluent wire format.
    pub async fn decode(&self, framed: &[u8]) -> Result<Decoded, Error> {
        let opened = self.open(framed).await?;
        let value = opened.value()?;
        Ok(Decoded { writer: opened.writer, value })
    }
}

impl<'v> Opened<'v> {
    #[must_use]
    pub fn new(writer: Arc<WriterSchema>, datum: &'v [u8]) -> Self {
        Self { writer, datum }
    }

    /// As a tree.
    pub fn value(&self) -> Result<Value, Error> {
        self.writer.read(self.datum).map_err(|source| Error::Datum { id: self.writer.id, source })
    }

    /// Appended to `out` as JSON, without a tree ([`reader`](super::reader)); gives where the field `noted` of the event
    /// came to stand, where there is one.
    pub fn json(&self, noted: &str, out: &mut Vec<u8>) -> Result<Option<Range<usize>>, Error> {
        let written = self.writer.write_json(self.datum, noted, out);
        written.map_err(|source| Error::Datum { id: self.writer.id, source })
    }
}
