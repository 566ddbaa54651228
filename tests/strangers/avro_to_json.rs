//! Bytes from anybody as data of schemas that have every type: no panic, nothing written where they are refused, and
//! what is written is JSON, of a datum that apache-avro reads as well. The first byte picks the schema.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use hookbridge::schema::reader::Reader;

const SCHEMAS: [&str; 2] = [
    r#"{"type": "record", "name": "Event", "namespace": "f", "fields": [
        {"name": "id", "type": "string"},
        {"name": "n", "type": ["null", "long", "string", "boolean"]},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 4}},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
            {"name": "sku", "type": "string"}, {"name": "price", "type": ["null", "double", "float"]}]}}},
        {"name": "consent", "type": {"type": "map", "values": {"type": "map", "values": ["null", "boolean", "Item"]}}},
        {"name": "first", "type": ["null", "Item"]}]}"#,
    r#"{"type": "record", "name": "Odd", "namespace": "f", "fields": [
        {"name": "b", "type": "bytes"},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 2}},
        {"name": "u", "type": ["null", {"type": "string", "logicalType": "uuid"}]},
        {"name": "v", "type": ["null", {"type": "bytes", "logicalType": "uuid"}]},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "t", "type": [{"type": "int", "logicalType": "time-millis"}, {"type": "long", "logicalType": "time-micros"}]},
        {"name": "l", "type": {"type": "array", "items": {"type": "long", "logicalType": "local-timestamp-nanos"}}},
        {"name": "big", "type": ["null", {"type": "bytes", "logicalType": "big-decimal"}]},
        {"name": "money", "type": {"type": "fixed", "name": "M", "size": 20, "logicalType": "decimal", "precision": 40, "scale": 30}},
        {"name": "wait", "type": ["null", {"type": "fixed", "name": "W", "size": 12, "logicalType": "duration"}]}]}"#,
];

static READERS: LazyLock<Vec<(Schema, Reader)>> = LazyLock::new(|| {
    let schemas = SCHEMAS.iter().map(|schema| Schema::parse_str(schema).unwrap());
    schemas.map(|schema| (schema.clone(), Reader::compile(&schema).unwrap())).collect()
});

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let event = b"\x04id\x02\x02\x04\x07\xC6\x02\x80\x9A\x9E\xA3\x02\x02\x02s\x02\0\0\0\0\0\0\xF0\x3F\0\x02\x02a\x02\x02b\x02\x01\0\0\0";
    let odd = b"\x04\xE9\0ab\0\x02\x20bbbbbbbbbbbbbbbb\x02\xD8\x04\x02\x02\x02\x05\0\0aaaaaaaaaaaaaaaaaaaa\x02\x01\0\0\0\x02\0\0\0\x03\0\0\0";
    vec![[&[0][..], event].concat(), [&[1][..], odd].concat()]
}

pub(crate) fn meet(data: &[u8]) {
    let Some((choice, datum)) = data.split_first() else { return };
    let (schema, reader) = &READERS[usize::from(*choice) % READERS.len()];
    let mut out = b"before".to_vec();
    match reader.write_noting(datum, "consent", &mut out) {
        Ok(noted) => {
            serde_json::from_slice::<&serde_json::value::RawValue>(&out[6..]).unwrap();
            if let Some(place) = noted {
                serde_json::from_slice::<&serde_json::value::RawValue>(&out[place]).unwrap();
            }
            let mut rest = datum;
            GenericDatumReader::builder(schema).build().unwrap().read_value(&mut rest).unwrap();
            assert!(rest.is_empty(), "bytes are left over");
        }
        Err(_) => assert_eq!(out, b"before"),
    }
}
