//! Against what apache-avro reads and [`Shape`] writes of it, for any schema and any bytes; and case by case what those
//! two cannot show.

use apache_avro::types::Value;
use proptest::prelude::*;

use super::super::plan::tests::document::Dice;
use super::super::plan::tests::generate::any_type;
use super::super::plan::{Plan, Scratch};
use super::super::writer::WriterSchema;
use super::*;
use crate::config::UnknownFields;
use crate::sinks::Shape;

/// The long way: apache-avro's tree, and its JSON. Bytes are put in as texts, which a [`Shape`] has another form for.
fn through_a_tree(writer: &WriterSchema, datum: &[u8]) -> Option<Vec<u8>> {
    let value = as_texts(writer.read(datum).ok()?);
    Shape::new(&writer.schema).to_json(&value).ok()
}

fn as_texts(value: Value) -> Value {
    match value {
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Value::String(bytes.into_iter().map(char::from).collect()),
        Value::Union(at, inner) => Value::Union(at, Box::new(as_texts(*inner))),
        Value::Array(items) => Value::Array(items.into_iter().map(as_texts).collect()),
        Value::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| (key, as_texts(value))).collect()),
        Value::Record(fields) => {
            Value::Record(fields.into_iter().map(|(name, value)| (name, as_texts(value))).collect())
        }
        scalar => scalar,
    }
}

fn straight(writer: &WriterSchema, datum: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let written = writer.write_json(datum, "", &mut out);
    let json = out.strip_prefix(b"before").unwrap();
    assert!(written.is_ok() || json.is_empty(), "nothing is left of what is refused");
    written.is_ok().then(|| json.to_vec())
}

#[track_caller]
fn same(schema: &str, datum: &[u8]) -> Option<String> {
    let writer = WriterSchema::new(1, schema.to_owned()).unwrap();
    let text = |json: Vec<u8>| String::from_utf8(json).unwrap();
    let json = straight(&writer, datum).map(text);
    assert_eq!(json, through_a_tree(&writer, datum).map(text), "{datum:?} of {schema}");
    json
}

fn read(schema: &str, datum: &[u8]) -> Result<String, Error> {
    let writer = WriterSchema::new(1, schema.to_owned()).unwrap();
    let mut out = Vec::new();
    Reader::compile(&writer.schema).unwrap().write(datum, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// A schema with the types that the plan does not write, and named ones that are used again.
const FOREIGN: &str = r#"{"type": "record", "name": "a.E", "fields": [
    {"name": "big", "type": {"type": "bytes", "logicalType": "big-decimal"}},
    {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "wait", "type": {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}},
    {"name": "raw", "type": ["null", {"type": "bytes", "logicalType": "uuid"}, "D"]},
    {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"], "aliases": ["L"]}},
    {"name": "again", "type": {"type": "map", "values": "K"}},
    {"name": "sum", "type": {"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 35}},
    {"name": "at", "type": [{"type": "int", "logicalType": "time-millis"},
        {"type": "long", "logicalType": "timestamp-nanos"}, "float", "double"]},
    {"name": "more", "type": {"type": "array", "items": {"type": "record", "name": "R", "fields": [
        {"name": "x", "type": "int"}, {"name": "n", "type": "null"}, {"name": "e", "type":
            {"type": "record", "name": "Empty", "fields": []}}]}}},
    {"name": "last", "type": ["null", "R"]}]}"#;

/// `FOREIGN`, filled.
fn foreign() -> Vec<u8> {
    let mut datum = vec![8, 4, 0x30, 0x39, 6, 72];
    datum.extend_from_slice(b"67E55044-10B1-426F-9247-BB680E5FE0C8");
    datum.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 0xBC, 0x0B, 0, 0]);
    datum.extend_from_slice(&[2, 32]);
    datum.extend_from_slice(&[0xAB; 16]);
    datum.push(2);
    // Two blocks, one of which says its size; the keys out of order, and one of them twice.
    datum.extend_from_slice(&[4, 2, b'z', 0, 2, b'a', 2, 1, 6, 2, b'z', 2, 0]);
    datum.extend_from_slice(&[2, 0xFF]);
    datum.extend_from_slice(&[0, 10]);
    datum.extend_from_slice(&[4, 2, 4, 0]);
    datum.extend_from_slice(&[2, 3]);
    datum
}

#[test]
fn every_type_has_its_form() {
    let json = same(FOREIGN, &foreign()).unwrap();
    assert_eq!(
        json,
        concat!(
            r#"{"big":12.345,"id":"67e55044-10b1-426f-9247-bb680e5fe0c8","wait":"P1M2DT3.004S","#,
            r#""raw":"abababab-abab-abab-abab-abababababab","kind":"B","again":{"a":"B","z":"B"},"#,
            r#""sum":-0.00000000000000000000000000000000001,"at":"00:00:00.005","#,
            r#""more":[{"x":1,"n":null,"e":{}},{"x":2,"n":null,"e":{}}],"last":{"x":-2,"n":null,"e":{}}}"#
        )
    );
}

#[test]
fn numbers_have_all_their_digits() {
    for (schema, datum, expected) in [
        (r#""int""#, &[0x01][..], "-1"),
        (r#""long""#, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], "-9223372036854775808"),
        (r#""double""#, &0.1_f64.to_le_bytes(), "0.1"),
        (r#""double""#, &1e300_f64.to_le_bytes(), "1e300"),
        (r#""double""#, &(-0.0_f64).to_le_bytes(), "-0"),
        (r#""double""#, &f64::NEG_INFINITY.to_le_bytes(), r#""-Infinity""#),
        (r#""float""#, &11_175_179_000_f32.to_le_bytes(), "11175179000.0"),
        (r#""float""#, &f32::NAN.to_le_bytes(), r#""NaN""#),
    ] {
        assert_eq!(same(schema, datum).as_deref(), Some(expected));
    }
    for (datum, scale, expected) in [
        (&[2, 0][..], 2, Some("0.00")),
        (&[4, 0x07, 0xC6], 2, Some("19.90")),
        (&[2, 0x80], 0, Some("-128")),
        (&[16, 0x80, 0, 0, 0, 0, 0, 0, 0], 3, Some("-9223372036854775.808")),
        (&[18, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], 3, Some("9223372036854775.808")),
        (&[2, 5], 28, Some("0.0000000000000000000000000005")),
        (&[2, 5], 29, Some("0.00000000000000000000000000005")),
        (&[0], 2, None),
    ] {
        let schema = format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": {scale}}}"#);
        assert_eq!(same(&schema, datum).as_deref(), expected);
    }
}

#[test]
fn what_is_not_a_value_of_the_schema_is_refused_and_says_why() {
    let value = |expected, left| Err(Error::Value { expected, left });
    for (schema, datum, expected) in [
        (r#""string""#, &[4, b'a'][..], Err(Error::Ended)),
        (r#""string""#, &[1], value("a length", 0)),
        (r#""string""#, &[2, 0xFF], value("a text in UTF-8", 0)),
        (r#""boolean""#, &[2], value("a boolean", 0)),
        (r#""int""#, &[0x80, 0x80, 0x80, 0x80, 0x10], value("a number of 32 bits", 0)),
        (r#""long""#, &[0xFF; 11], value("a number of 64 bits", 1)),
        (r#"["null", "int"]"#, &[4, 0], value("the number of a union's branch", 1)),
        (r#"{"type": "array", "items": "int"}"#, &[0xFE, 0xFF, 0xFF, 0xFF, 0x0F, 2], Err(Error::Ended)),
        (r#""int""#, &[2, 2], Err(Error::Trailing { left: 1 })),
        (r#""int""#, &[], Err(Error::Ended)),
    ] {
        assert_eq!(read(schema, datum), expected, "{datum:?} of {schema}");
        assert_eq!(same(schema, datum), None);
    }
}

#[test]
fn what_repeats_the_names_of_a_schema_without_end_is_cut() {
    let fields: Vec<_> =
        (0..5_000).map(|at| format!(r#"{{"name": "a_rather_long_name_of_a_field_{at}", "type": "null"}}"#)).collect();
    let schema = format!(
        r#"{{"type": "array", "items": {{"type": "record", "name": "R", "fields": [{{"name": "x", "type": "int"}}, {}]}}}}"#,
        fields.join(",")
    );
    let mut datum = vec![0x80, 0x80, 0x01];
    datum.resize(3 + 8_192, 0);
    datum.push(0);
    assert_eq!(read(&schema, &datum), Err(Error::TooLarge));
}

#[test]
fn the_noted_field_is_found_at_the_root_and_only_there() {
    let writer = WriterSchema::new(
        1,
        r#"["null", {"type": "record", "name": "E", "fields": [
            {"name": "inner", "type": {"type": "record", "name": "I", "fields": [{"name": "n", "type": "int"}]}},
            {"name": "m", "type": {"type": "map", "values": "int"}}]}]"#
            .to_owned(),
    )
    .unwrap();
    let noted = |name: &str| {
        let mut out = b"before".to_vec();
        let place = writer.write_json(&[2, 2, 2, 2, b'k', 4, 0], name, &mut out).unwrap()?;
        Some(String::from_utf8(out[place].to_vec()).unwrap())
    };
    assert_eq!(noted("m").as_deref(), Some(r#"{"k":2}"#));
    assert_eq!(noted("inner").as_deref(), Some(r#"{"n":1}"#));
    assert_eq!(noted("n"), None);
    assert_eq!(noted("k"), None);
}

proptest! {
    #[test]
    fn it_says_what_the_long_way_says(kind in any_type(), seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let schema = kind.schema();
        let plan = Plan::compile(&schema, UnknownFields::Reject).unwrap();
        let mut datum = Vec::new();
        let json = kind.sample(&mut dice).0.text(&mut dice);
        plan.encode(json.as_bytes(), &mut Scratch::default(), &mut datum).unwrap();
        // A collection of `fixed` of no bytes is no schema to read with.
        let Ok(writer) = WriterSchema::new(1, schema.clone()) else { return Ok(()) };
        let expected = through_a_tree(&writer, &datum);
        prop_assert!(expected.is_some(), "{} of {}", json, schema);
        prop_assert_eq!(straight(&writer, &datum), expected, "{} of {}", json, schema);
        for _ in 0..8 {
            damage(&mut datum, &mut dice);
            prop_assert_eq!(straight(&writer, &datum), through_a_tree(&writer, &datum), "{:?} of {}", datum, schema);
        }
    }

    #[test]
    fn it_says_so_of_damaged_data_of_types_that_others_write(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let mut datum = foreign();
        let writer = WriterSchema::new(1, FOREIGN.to_owned()).unwrap();
        for _ in 0..8 {
            damage(&mut datum, &mut dice);
            prop_assert_eq!(straight(&writer, &datum), through_a_tree(&writer, &datum), "{:?}", datum);
        }
    }

    #[test]
    fn bytes_come_out_as_they_went_in(bytes in prop::collection::vec(any::<u8>(), 4)) {
        let json = |bytes: &[u8]| serde_json::to_string(&bytes.iter().copied().map(char::from).collect::<String>()).unwrap();
        for schema in [r#""bytes""#, r#"{"type": "fixed", "name": "F", "size": 4}"#] {
            let mut datum = Vec::new();
            let plan = Plan::compile(schema, UnknownFields::Reject).unwrap();
            plan.encode(json(&bytes).as_bytes(), &mut Scratch::default(), &mut datum).unwrap();
            let out = read(schema, &datum).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), serde_json::from_str::<String>(&json(&bytes)).unwrap());
            let mut again = Vec::new();
            plan.encode(out.as_bytes(), &mut Scratch::default(), &mut again).unwrap();
            prop_assert_eq!(again, datum);
        }
    }

    #[test]
    fn a_short_decimal_is_the_long_one(number in any::<i64>(), bytes in 1_usize..9, scale in 0_usize..40) {
        let bytes = &number.to_be_bytes()[8 - bytes..];
        let mut out = Vec::new();
        prop_assert!(text::decimal(bytes, scale, &mut out));
        prop_assert_eq!(String::from_utf8(out).unwrap(), text::long_decimal(bytes, scale));
    }
}

fn damage(datum: &mut Vec<u8>, dice: &mut Dice) {
    if datum.is_empty() {
        return;
    }
    let at = dice.below(datum.len());
    match dice.below(4) {
        0 => datum[at] = dice.next().to_le_bytes()[0],
        1 => datum[at] ^= 1 << dice.below(8),
        2 if dice.one_in(3) => datum.truncate(at),
        2 => datum.insert(at, dice.next().to_le_bytes()[0]),
        _ => drop(datum.remove(at)),
    }
}
