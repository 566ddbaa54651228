//! Bytes from anybody, against schemas that have every type: no panic, nothing written where the text is refused, and
//! what is written is read by apache-avro to its last byte. The first byte picks the schema and the policy.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use hookbridge::config::UnknownFields;
use hookbridge::schema::plan::{Plan, Scratch};

const SCHEMAS: [&str; 2] = [
    r#"{"type": "record", "name": "Event", "namespace": "f", "fields": [
        {"name": "id", "type": "string"},
        {"name": "n", "type": ["null", "long"], "default": null},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 4}, "default": "\u0000"},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}, "default": "A", "aliases": ["kind"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
        {"name": "items", "default": [], "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
            {"name": "sku", "type": "string"}, {"name": "qty", "type": "int", "default": 1},
            {"name": "price", "type": ["null", "double"], "default": null}]}}},
        {"name": "consent", "type": {"type": "map", "values": "boolean"}, "default": {}},
        {"name": "first", "type": ["null", "Item"], "default": null},
        {"name": "rest", "type": {"type": "map", "values": "string"}, "hookbridge.capture": true, "default": {}}]}"#,
    r#"{"type": "record", "name": "Odd", "namespace": "f", "fields": [
        {"name": "rest", "type": {"type": "map", "values": "string"}, "hookbridge.capture": true},
        {"name": "b", "type": "bytes", "default": ""},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 2}, "default": "ab"},
        {"name": "x", "type": "float", "default": 0},
        {"name": "u", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": null},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": null},
        {"name": "t", "type": ["null", {"type": "long", "logicalType": "time-micros"}], "default": null},
        {"name": "l", "type": ["null", {"type": "long", "logicalType": "local-timestamp-nanos"}], "default": null},
        {"name": "m", "type": ["null", {"type": "map", "values": ["null", "string"]}], "default": null},
        {"name": "any", "default": null, "type": ["null", "string", "int", "double", "boolean",
            {"type": "array", "items": "long"}, {"type": "map", "values": "long"},
            {"type": "record", "name": "P", "fields": [{"name": "a", "type": "int"}]},
            {"type": "record", "name": "Q", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": "F", "default": "zz"}]}]}]}"#,
];

const POLICIES: [UnknownFields; 4] =
    [UnknownFields::Reject, UnknownFields::Drop, UnknownFields::Warn, UnknownFields::Capture];

static PLANS: LazyLock<Vec<(Schema, Plan)>> = LazyLock::new(|| {
    let pairs = SCHEMAS.iter().flat_map(|schema| POLICIES.iter().map(move |policy| (schema, policy)));
    pairs
        .map(|(schema, policy)| (Schema::parse_str(schema).unwrap(), Plan::compile(schema, *policy).unwrap()))
        .collect()
});

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"id": "a", "n": 17, "d": "12.3456", "e": "B", "at": "2026-01-01T00:00:00Z", "items": [{"sku": "s", "qty": 2, "price": 1.5e2}],
            "consent": {"email": true}, "first": {"sku": "t"}, "more": {"x": [1, null]}}"#,
        r#"{"id": "\u00fc\ud83e\udd80", "kind": "A", "n": {"long": 1}, "first": null, "rest": {"k": "v"}, "d": 7, "at": 1767225600000}"#,
        r#"{"b": "ab", "f": "xy", "x": 1.25, "u": "00000000-0000-0000-0000-000000000000", "day": "2026-02-28", "t": "12:30:45.123456",
            "l": "2026-01-01T00:00:00.123456789", "m": {"a": null, "b": "c"}, "any": {"a": "x", "b": "zz"}, "z": 1}"#,
        r#"{"any": [1, 2, 3], "day": 20000, "t": 1, "l": 2}"#,
    ];
    let under = |choice: u8, text: &str| [&[choice], text.as_bytes()].concat();
    let pairs = texts.iter().zip([0, 3, 4, 7]);
    pairs.map(|(text, choice)| under(choice, text)).collect()
}

pub(crate) fn meet(data: &[u8]) {
    let Some((choice, json)) = data.split_first() else { return };
    let (schema, plan) = &PLANS[usize::from(*choice) % PLANS.len()];
    let mut out = b"before".to_vec();
    match plan.encode(json, &mut Scratch::default(), &mut out) {
        Ok(_) => {
            let mut datum = &out[6..];
            let reader = GenericDatumReader::builder(schema).build().unwrap();
            reader.read_value(&mut datum).unwrap();
            assert!(datum.is_empty(), "bytes are left over");
        }
        Err(_) => assert_eq!(out, b"before"),
    }
}
