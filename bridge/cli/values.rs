//! Values of topics as JSON, for people and their tools.

use std::collections::HashMap;

use crate::causes::chain;
use crate::schema::Decoder;
use crate::schema::registry::Registry;
use crate::sinks::json::Shape;

/// Schemas whose shape is kept, some KiB each; past it they are made anew.
const MAX_SHAPES: usize = 256;

/// Reads values by the schemas that they were written with.
pub(super) struct Values {
    decoder: Decoder,
    shapes: HashMap<u32, Shape>,
}

impl Values {
    pub(super) fn new(registry: Registry) -> Self {
        Self { decoder: Decoder::new(registry), shapes: HashMap::new() }
    }

    /// The schema's id, and the value as JSON; or why it cannot be shown.
    pub(super) async fn json(&mut self, value: Option<&[u8]>) -> Result<(u32, String), String> {
        let value = value.ok_or("a tombstone, which deletes its key")?;
        let decoded = self.decoder.decode(value).await.map_err(|error| chain(&error))?;
        let id = decoded.writer.id;
        if self.shapes.len() >= MAX_SHAPES {
            self.shapes.clear();
        }
        let shape = self.shapes.entry(id).or_insert_with(|| Shape::new(&decoded.writer.schema));
        let json = shape.to_json(&decoded.value).map_err(|error| error.to_string())?;
        let text = String::from_utf8(json).map_err(|error| error.to_string())?;
        Ok((id, text))
    }
}
