//! What a record's bytes say, by way of the registry and the Avro library, as plain JSON.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use serde_json::{Map, Value, json};

/// Decimals of the tests' schemas have four digits after the point.
const SCALE: u32 = 4;

/// Reads values in the Confluent wire format, fetching each schema once.
#[derive(Debug)]
pub(crate) struct Decoder {
    registry: String,
    schemas: HashMap<u32, (Schema, Vec<Schema>)>,
}

impl Decoder {
    pub(crate) fn new(registry: &str) -> Self {
        Self { registry: registry.to_owned(), schemas: HashMap::new() }
    }

    /// `0x00`, four bytes of schema id, and the datum, which must end where the value ends.
    pub(crate) async fn decode(&mut self, value: &[u8]) -> Value {
        let (Some(&[0, a, b, c, d]), Some(mut datum)) = (value.first_chunk::<5>(), value.get(5..)) else {
            panic!("not in the Confluent wire format: {value:?}");
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        if !self.schemas.contains_key(&id) {
            let schema = self.fetch(id).await;
            self.schemas.insert(id, schema);
        }
        let (schema, others) = &self.schemas[&id];
        let all: Vec<&Schema> = others.iter().chain([schema]).collect();
        let reader = GenericDatumReader::builder(schema).writer_schemata(all).expect("its references").build();
        let read = reader.and_then(|reader| reader.read_value(&mut datum)).expect("a datum of its schema");
        assert!(datum.is_empty(), "{} bytes after the datum", datum.len());
        plain(read)
    }

    async fn fetch(&self, id: u32) -> (Schema, Vec<Schema>) {
        let found = self.get(&format!("/schemas/ids/{id}")).await;
        let mut texts = Vec::new();
        let mut open = vec![found.clone()];
        while let Some(found) = open.pop() {
            for reference in found["references"].as_array().into_iter().flatten() {
                let (subject, version) = (reference["subject"].as_str().unwrap(), &reference["version"]);
                let other = self.get(&format!("/subjects/{subject}/versions/{version}")).await;
                texts.push(other["schema"].as_str().expect("a schema").to_owned());
                open.push(other);
            }
        }
        Schema::parse_str_with_list(found["schema"].as_str().expect("a schema"), texts).expect("an Avro schema")
    }

    async fn get(&self, path: &str) -> Value {
        let response = reqwest::get(format!("{}{path}", self.registry)).await.expect("the registry answers");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.expect("JSON")
    }
}

fn plain(value: Avro) -> Value {
    match value {
        Avro::Null => Value::Null,
        Avro::Boolean(value) => json!(value),
        Avro::Int(value) | Avro::Date(value) => json!(value),
        Avro::Long(value) | Avro::TimestampMillis(value) => json!(value),
        Avro::Double(value) => json!(value),
        Avro::String(value) | Avro::Enum(_, value) => json!(value),
        Avro::Bytes(value) => json!(hex::encode(value)),
        Avro::Uuid(value) => json!(value.to_string()),
        Avro::Union(_, value) => plain(*value),
        Avro::Array(values) => values.into_iter().map(plain).collect(),
        Avro::Map(values) => Value::Object(values.into_iter().map(|(key, value)| (key, plain(value))).collect()),
        Avro::Record(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, plain(value))).collect::<Map<_, _>>())
        }
        Avro::Decimal(value) => json!(decimal(&Vec::<u8>::try_from(&value).expect("bytes"))),
        other => panic!("the tests' schemas have no {other:?}"),
    }
}

/// Big-endian two's complement into text with [`SCALE`] digits after the point.
fn decimal(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let unscaled = bytes.iter().fold(if negative { -1_i128 } else { 0 }, |sum, byte| (sum << 8) | i128::from(*byte));
    let (whole, fraction) =
        (unscaled.unsigned_abs() / 10_u128.pow(SCALE), unscaled.unsigned_abs() % 10_u128.pow(SCALE));
    format!("{}{whole}.{fraction:04}", if negative { "-" } else { "" })
}

#[test]
fn decimals_are_read_from_twos_complement() {
    assert_eq!(decimal(&[0x01, 0x31, 0x2d]), "7.8125");
    assert_eq!(decimal(&[0xff]), "-0.0001");
    assert_eq!(decimal(&[0x00]), "0.0000");
}
