//! Framed bytes → a value, under the schema that they were written with.

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

    /// The value of a record in the Confluent wire format.
    pub async fn decode(&self, framed: &[u8]) -> Result<Decoded, Error> {
        let (id, datum) = wire::unframe(framed)?;
        let writer = self.registry.writer(id).await?;
        let value = writer.read(datum).map_err(|source| Error::Datum { id, source })?;
        Ok(Decoded { writer, value })
    }
}
