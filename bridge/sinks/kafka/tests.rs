use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;

use super::*;
use crate::event::Identity;
use crate::kafka::TopicPartition;
use crate::schema::reader::Reader;

const ORDER: &str = r#"{"type": "record", "name": "a.Order", "fields": [
    {"name": "id", "type": "string"},
    {"name": "email_sha256", "type": ["null", "string"], "default": null},
    {"name": "channel", "type": "string", "default": "web"},
    {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}}]}"#;

fn schema(text: &str) -> Schema {
    Schema::parse_str(text).unwrap()
}

fn output(text: &str) -> Output {
    Output::new("copies".into(), 900, "http://registry/schemas/ids/900".to_owned(), 7, text, &schema(text))
}

fn datum(text: &str, value: &Value) -> Vec<u8> {
    let schema = schema(text);
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value.clone()).unwrap()
}

fn read(text: &str, mut datum: &[u8]) -> Value {
    let schema = schema(text);
    let value = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut datum).unwrap();
    assert_eq!(datum, b"");
    value
}

fn order() -> Value {
    Value::Record(vec![
        ("id".into(), Value::String("o1".into())),
        ("email_sha256".into(), Value::Union(1, Box::new(Value::String("ab".into())))),
        ("channel".into(), Value::String("app".into())),
        ("total".into(), Value::Decimal(vec![0x07, 0xC6].into())),
    ])
}

fn event(text: &str, value: &Value, mapped: Option<&str>) -> (Delivery, Record) {
    let identity = Identity { source: "shop".into(), id: "e1".into(), event_type: "order".into() };
    let mut framed = Vec::new();
    wire::frame(7, &mut framed);
    framed.extend(datum(text, value));
    let origin = Record {
        at: TopicPartition { topic: "events.order".into(), partition: 3 },
        offset: 41,
        timestamp_ms: Some(1),
        key: Some(b"c1".to_vec()),
        value: Some(framed),
        headers: [
            ("ce_id", "e1"),
            ("ce_dataschema", "http://registry/schemas/ids/7"),
            ("hookbridge-delivery-id", "of a sink before"),
            ("traceparent", "00-1-2-01"),
        ]
        .into_iter()
        .collect(),
    };
    let delivery = Delivery {
        delivery_id: identity.delivery_id("copies"),
        identity,
        offset: origin.offset,
        received_at_ms: None,
        occurred_at: None,
        schema_id: 7,
        content: mapped.map_or(Content::Json(Vec::new()), |json| Content::Mapped(json.as_bytes().to_vec())),
    };
    (delivery, origin)
}

fn write(text: &str, value: &Value, mapped: Option<&str>) -> Result<Write, Outcome> {
    let (delivery, origin) = event(text, value, mapped);
    output(text).write(&delivery, &origin, &mut Scratch::default())
}

fn written(write: &Write) -> (u32, &[u8]) {
    wire::unframe(write.value.as_deref().unwrap()).unwrap()
}

#[test]
fn what_nothing_maps_is_copied_byte_by_byte_behind_its_own_id() {
    let copy = write(ORDER, &order(), None).unwrap();
    assert_eq!(written(&copy), (900, &datum(ORDER, &order())[..]));
    assert_eq!((&*copy.topic, copy.partition, copy.key.as_deref()), ("copies", None, Some(&b"c1"[..])));
    let delivery_id = event(ORDER, &order(), None).0.delivery_id.to_string();
    let headers: Vec<_> =
        copy.headers.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap())).collect();
    assert_eq!(
        headers,
        [
            ("ce_id", "e1"),
            ("ce_dataschema", "http://registry/schemas/ids/900"),
            ("traceparent", "00-1-2-01"),
            ("hookbridge-delivery-id", delivery_id.as_str()),
        ]
    );
}

#[test]
fn what_a_map_removes_takes_its_default() {
    let copy = write(ORDER, &order(), Some(r#"{"id": "o1", "total": 19.90}"#)).unwrap();
    let expected = Value::Record(vec![
        ("id".into(), Value::String("o1".into())),
        ("email_sha256".into(), Value::Union(0, Box::new(Value::Null))),
        ("channel".into(), Value::String("web".into())),
        ("total".into(), Value::Decimal(vec![0x07, 0xC6].into())),
    ]);
    assert_eq!(read(ORDER, written(&copy).1), expected);
}

#[test]
fn a_field_without_default_and_one_that_the_schema_lacks_reject_the_event_and_are_named() {
    let Err(Outcome::Rejected { reason }) = write(ORDER, &order(), Some(r#"{"id": "o1", "note": 1}"#)) else {
        panic!()
    };
    assert!(reason.contains(r#""/total" missing_field"#) && reason.contains(r#""/note" unknown_field"#), "{reason}");
    let Err(Outcome::Rejected { reason }) = write(ORDER, &order(), Some("null")) else { panic!() };
    assert!(reason.contains("datatype_mismatch"), "{reason}");
}

#[test]
fn a_map_over_types_that_json_does_not_carry_holds_the_sink_and_a_plain_copy_does_not_mind() {
    let wait = r#"{"type": "record", "name": "R", "fields": [
        {"name": "wait", "type": {"type": "fixed", "name": "W", "size": 12, "logicalType": "duration"}}]}"#;
    let value = Value::Record(vec![("wait".into(), Value::Duration([1; 12].into()))]);
    let copy = write(wait, &value, None).unwrap();
    assert_eq!(read(wait, written(&copy).1), value);
    let Err(Outcome::Misconfigured { reason }) = write(wait, &value, Some(r#"{"wait": "P1M"}"#)) else { panic!() };
    assert!(reason.contains("`wait` (a duration)"), "{reason}");
}

#[test]
fn a_value_that_no_registry_framed_is_rejected() {
    let (delivery, mut origin) = event(ORDER, &order(), None);
    for value in [None, Some(b"{}".to_vec()), Some(vec![0, 0])] {
        origin.value = value;
        let copied = output(ORDER).write(&delivery, &origin, &mut Scratch::default());
        assert!(matches!(copied, Err(Outcome::Rejected { .. })), "{copied:?}");
    }
}

const WIDE: &str = r#"{"type": "record", "name": "W", "fields": [
    {"name": "int", "type": "int"}, {"name": "long", "type": "long"},
    {"name": "float", "type": "float"}, {"name": "double", "type": "double"},
    {"name": "text", "type": ["null", "string", "boolean", "long"]},
    {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}},
    {"name": "money", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 4}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "hour", "type": {"type": "long", "logicalType": "time-micros"}},
    {"name": "uid", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "I", "fields": [
        {"name": "sku", "type": "string"}, {"name": "ok", "type": ["null", "boolean"]}]}}},
    {"name": "tags", "type": {"type": "map", "values": "string"}}]}"#;

prop_compose! {
    fn wide()(
        numbers in any::<(i32, i64, i64)>(),
        floats in (any::<f32>(), any::<f64>()).prop_filter("a number", |(f, d)| f.is_finite() && d.is_finite()),
        text in any::<String>(),
        branch in 0_u32..4,
        symbol in 0_u32..2,
        // The years that RFC 3339 has.
        at in -62_135_596_800_000_000_i64..253_402_300_800_000_000,
        hour in 0_i64..86_400_000_000,
        uid in any::<u128>(),
        items in proptest::collection::vec((any::<String>(), any::<Option<bool>>()), 0..4),
        tags in proptest::collection::hash_map(any::<String>(), any::<String>(), 0..4),
    ) -> Value {
        let (int, long, money) = numbers;
        let plain = match branch {
            0 => Value::Null,
            1 => Value::String(text.clone()),
            2 => Value::Boolean(long % 2 == 0),
            _ => Value::Long(long),
        };
        let item = |(sku, ok): (String, Option<bool>)| Value::Record(vec![
            ("sku".into(), Value::String(sku)),
            ("ok".into(), match ok {
                None => Value::Union(0, Box::new(Value::Null)),
                Some(ok) => Value::Union(1, Box::new(Value::Boolean(ok))),
            }),
        ]);
        Value::Record(vec![
            ("int".into(), Value::Int(int)),
            ("long".into(), Value::Long(long)),
            ("float".into(), Value::Float(floats.0)),
            ("double".into(), Value::Double(floats.1)),
            ("text".into(), Value::Union(branch, Box::new(plain))),
            ("kind".into(), Value::Enum(symbol, if symbol == 0 { "A" } else { "B" }.into())),
            ("money".into(), Value::Decimal(shortest(money).into())),
            ("at".into(), Value::TimestampMicros(at)),
            ("local".into(), Value::LocalTimestampMillis(at / 1_000)),
            ("day".into(), Value::Date(i32::try_from(at.div_euclid(86_400_000_000)).unwrap())),
            ("hour".into(), Value::TimeMicros(hour)),
            ("uid".into(), Value::Uuid(uuid::Uuid::from_u128(uid))),
            ("items".into(), Value::Array(items.into_iter().map(item).collect())),
            ("tags".into(), Value::Map(tags.into_iter().map(|(key, tag)| (key, Value::String(tag))).collect())),
        ])
    }
}

/// Two's complement in as few bytes as hold it: a decimal of more bytes is another value to apache-avro.
fn shortest(number: i64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let sign = if number < 0 { 0xff } else { 0 };
    let mut from = 0;
    while from < 7 && bytes[from] == sign && (bytes[from + 1] & 0x80) == (sign & 0x80) {
        from += 1;
    }
    bytes[from..].to_vec()
}

proptest! {
    #[test]
    fn a_map_that_changes_nothing_changes_nothing(value in wide()) {
        let mut json = Vec::new();
        Reader::compile(&schema(WIDE)).unwrap().write(&datum(WIDE, &value), &mut json).unwrap();
        let json = std::str::from_utf8(&json).unwrap();
        let copy = write(WIDE, &value, Some(json));
        prop_assert!(copy.is_ok(), "{json}: {copy:?}");
        prop_assert_eq!(read(WIDE, written(&copy.unwrap()).1), value);
    }

    #[test]
    fn any_result_of_a_map_is_a_copy_that_can_be_read_or_is_rejected(json in any::<String>(), id in any::<String>(), total in any::<i32>()) {
        let fitting = serde_json::json!({"id": id, "total": total}).to_string();
        for json in [json.as_str(), fitting.as_str()] {
            match write(ORDER, &order(), Some(json)) {
                Ok(copy) => drop(read(ORDER, written(&copy).1)),
                Err(outcome) => prop_assert!(matches!(outcome, Outcome::Rejected { .. }), "{:?}", outcome),
            }
        }
    }
}
