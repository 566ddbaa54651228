//! Avro from anybody who may write to Kafka, under schemas that the registry knows: read whole or refused; and an order
//! for a sink that can be read is written as it was understood.

use std::sync::{Arc, LazyLock};

use hookbridge::control::{Control, SCHEMA};
use hookbridge::schema::{Opened, WriterSchema, wire};

/// Of the next version of an order, with what this one does not know, and of another producer's events.
const OTHERS: [&str; 2] = [
    r#"{"type": "record", "name": "Order", "fields": [
        {"name": "paused", "type": ["null", "boolean"]}, {"name": "rewinds", "type": "int"},
        {"name": "changed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "more", "type": {"type": "map", "values": {"type": "array", "items": "string"}}}]}"#,
    r#"{"type": "record", "name": "Odd", "fields": [
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "u", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 3}},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "x", "type": ["null", "double", {"type": "array", "items": ["null", "long"]}]}]}"#,
];

static WRITERS: LazyLock<Vec<Arc<WriterSchema>>> = LazyLock::new(|| {
    let schemas = [SCHEMA].into_iter().chain(OTHERS).zip(1..);
    schemas.map(|(text, id)| Arc::new(WriterSchema::new(id, text.to_owned()).expect("a schema"))).collect()
});

fn order() -> Control {
    Control {
        sink: "crm".to_owned(),
        paused: true,
        rewinds: 3,
        places: Vec::new(),
        reason: "the vendor moves house".to_owned(),
        changed_by: "ana@laptop".to_owned(),
        changed_at: 1_767_225_600_125,
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let framed = order().encode(1).expect("an order");
    let (_, datum) = wire::unframe(&framed).expect("framed");
    let under = |choice: u8, datum: &[u8]| [&[choice], datum].concat();
    vec![
        under(0, datum),
        under(1, b"\x02\x01\x04\x06\x02\x02a\x02\x02b\0\0"),
        under(2, b"\x02\x01H00000000-0000-0000-0000-000000000000abc\x02\x10\x04\x02\x02\x02\0"),
    ]
}

pub(crate) fn meet(data: &[u8]) {
    let Some((choice, datum)) = data.split_first() else { return };
    let writer = &WRITERS[usize::from(*choice) % WRITERS.len()];
    let opened = Opened::new(Arc::clone(writer), datum);
    let mut json = Vec::new();
    let read = opened.json("", &mut json);
    if read.is_ok() {
        assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok(), "not JSON");
    }
    match Control::told("crm", &opened) {
        Ok(order) => {
            assert!(read.is_ok());
            // What no clock shows has no text, and is no instant of an order that is written again.
            if let Ok(framed) = order.encode(1) {
                let (_, datum) = wire::unframe(&framed).expect("framed");
                let again = Control::told("crm", &Opened::new(Arc::clone(&WRITERS[0]), datum));
                assert_eq!(again, Ok(order));
            }
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}
