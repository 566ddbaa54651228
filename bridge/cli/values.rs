//! Values of topics as JSON, for people and their tools.

use crate::causes::chain;
use crate::schema::Decoder;
use crate::schema::registry::Registry;

/// Reads values by the schemas that they were written with.
pub(super) struct Values {
    decoder: Decoder,
}

impl Values {
    pub(super) fn new(registry: Registry) -> Self {
        Self { decoder: Decoder::new(registry) }
    }

    /// The schema's id, and the value as JSON; or why it cannot be shown.
    pub(super) async fn json(&self, value: Option<&[u8]>) -> Result<(u32, String), String> {
        let value = value.ok_or("a tombstone, which deletes its key")?;
        let opened = self.decoder.open(value).await.map_err(|error| chain(&error))?;
        let mut json = Vec::new();
        opened.json("", &mut json).map_err(|error| chain(&error))?;
        let text = String::from_utf8(json).map_err(|error| error.to_string())?;
        Ok((opened.writer.id, text))
    }
}
