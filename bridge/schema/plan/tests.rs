//! What the plan takes and refuses, case by case; `tests/properties.rs` has the rules that hold for any schema.

pub(in crate::schema) mod document;
pub(in crate::schema) mod generate;
mod properties;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

use super::*;

/// Every violation that the document has, as pointer and reason; none for a valid one.
fn violations(schema: &str, unknown: UnknownFields, json: &[u8]) -> Vec<(String, &'static str)> {
    let plan = Plan::compile(schema, unknown).unwrap();
    let mut out = b"before".to_vec();
    match plan.encode(json, &mut Scratch::default(), &mut out) {
        Ok(_) => Vec::new(),
        Err(refused) => {
            assert_eq!(out, b"before", "what was there stays, and nothing is added");
            let violations = refused.into_violations();
            assert_eq!(violations.total, violations.first.len());
            violations.first.into_iter().map(|violation| (violation.pointer, violation.reason.name())).collect()
        }
    }
}

fn check(schema: &str, json: &str, expected: &[(&str, &str)]) {
    let found = violations(schema, UnknownFields::Reject, json.as_bytes());
    let found: Vec<_> = found.iter().map(|(pointer, reason)| (pointer.as_str(), *reason)).collect();
    assert_eq!(found, expected, "{json} as {schema}");
}

/// What apache-avro reads from the datum, to its last byte.
fn read(schema: &str, mut datum: &[u8]) -> Value {
    let schema = Schema::parse_str(schema).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let value = reader.read_value(&mut datum).unwrap();
    assert_eq!(datum, b"", "bytes are left over");
    value
}

fn encode_with(schema: &str, unknown: UnknownFields, json: &str) -> (Vec<u8>, Warnings) {
    let mut out = Vec::new();
    let warnings = Plan::compile(schema, unknown).unwrap().encode(json.as_bytes(), &mut Scratch::default(), &mut out);
    (out, warnings.unwrap_or_else(|refused| panic!("{json} as {schema}: {refused:?}")))
}

fn encoded(schema: &str, json: &str) -> Value {
    read(schema, &encode_with(schema, UnknownFields::Reject, json).0)
}

fn logical(base: &str, logical: &str) -> String {
    format!(r#"{{"type": "{base}", "logicalType": "{logical}"}}"#)
}

#[test]
fn integers_never_lose_a_bit() {
    for (schema, json) in [(r#""int""#, "-2147483648"), (r#""int""#, "2147483647"), (r#""int""#, "-0")] {
        check(schema, json, &[]);
    }
    assert_eq!(encoded(r#""long""#, "9007199254740993"), Value::Long(9_007_199_254_740_993));
    assert_eq!(encoded(r#""long""#, "-9223372036854775808"), Value::Long(i64::MIN));
    for (schema, json, reason) in [
        (r#""int""#, "2147483648", "out_of_range"),
        (r#""long""#, "9223372036854775808", "out_of_range"),
        (r#""long""#, "-9223372036854775809", "out_of_range"),
        (r#""long""#, "99999999999999999999999999", "out_of_range"),
        (r#""long""#, "1.0", "datatype_mismatch"),
        (r#""long""#, "1e3", "datatype_mismatch"),
        (r#""long""#, "1e999", "datatype_mismatch"),
        (r#""long""#, r#""1""#, "datatype_mismatch"),
        (r#""double""#, "9007199254740993", "out_of_range"),
        (r#""double""#, "1e999", "out_of_range"),
        (r#""float""#, "3.5e38", "out_of_range"),
        (r#""float""#, "16777217", "out_of_range"),
    ] {
        check(schema, json, &[("", reason)]);
    }
}

#[test]
fn a_double_is_the_nearest_to_its_text() {
    // serde_json's own parser, as built here, misses some of these by the last bit.
    for text in ["7.2057594037927933e16", "1.448997445238699", "5e-324", "-0.0", "1.7976931348623157e308"] {
        assert_eq!(encoded(r#""double""#, text), Value::Double(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn other_kinds_are_mismatches() {
    for schema in [r#""null""#, r#""boolean""#, r#""int""#, r#""bytes""#, r#"{"type": "array", "items": "int"}"#] {
        for json in [r#"{"a": [1, {"b": null}]}"#, "1.5"] {
            check(schema, json, &[("", "datatype_mismatch")]);
        }
    }
    check(r#"{"type": "map", "values": "int"}"#, "[1, [2]]", &[("", "datatype_mismatch")]);
    check(r#""string""#, "12", &[("", "datatype_mismatch")]);
    check(r#""string""#, "null", &[("", "datatype_mismatch")]);
    check(r#"["null", "string"]"#, "12", &[("", "datatype_mismatch")]);
}

#[test]
fn bytes_are_code_points() {
    assert_eq!(encoded(r#""bytes""#, r#""\u0000a\u00ff""#), Value::Bytes(vec![0, b'a', 0xFF]));
    check(r#""bytes""#, r#""\u0100""#, &[("", "bad_format")]);
    let fixed = r#"{"type": "fixed", "name": "F", "size": 2}"#;
    assert_eq!(encoded(fixed, r#""\u00fe\u00ff""#), Value::Fixed(2, vec![0xFE, 0xFF]));
    check(fixed, r#""abc""#, &[("", "bad_format")]);
}

#[test]
fn symbols_are_known_or_refused() {
    let schema = r#"{"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "A"}"#;
    assert_eq!(encoded(schema, r#""B""#), Value::Enum(1, "B".into()));
    check(schema, r#""C""#, &[("", "unknown_symbol")]);
    check(&format!(r#"["null", {schema}]"#), r#""C""#, &[("", "unknown_symbol")]);
}

#[test]
fn decimals_are_read_by_their_digits() {
    let schema = r#"{"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}"#;
    for (json, unscaled) in [
        ("0.1", 10_i128),
        ("\"-12.50\"", -1250),
        ("1.10000000000000000000000000000", 110),
        ("1e3", 100_000),
        ("9007199254740993.01", 900_719_925_474_099_301),
        ("9999999999999999999999999999.99", 999_999_999_999_999_999_999_999_999_999),
    ] {
        assert_eq!(encoded(schema, json), Value::Decimal(unscaled.to_be_bytes().into()), "{json}");
    }
    check(schema, "0.125", &[("", "too_many_digits")]);
    check(schema, "99999999999999999999999999999", &[("", "out_of_range")]);
    check(schema, r#""12,50""#, &[("", "bad_format")]);
    check(schema, "true", &[("", "datatype_mismatch")]);
    check(&format!(r#"["null", {schema}]"#), "null", &[]);
    check(&format!(r#"["null", {schema}]"#), r#""1\u002e5""#, &[]);
}

#[test]
fn an_instant_in_another_unit_is_seen() {
    let millis = logical("long", "timestamp-millis");
    let instant = Value::TimestampMillis(1_767_225_600_123);
    for json in ["1767225600123", r#""2026-01-01T00:00:00.123Z""#, r#""2026-01-01T01:30:00.1239+01:30""#] {
        assert_eq!(encoded(&millis, json), instant, "{json}");
    }
    check(&millis, "1767225600", &[("", "out_of_range")]);
    check(&millis, "1767225600123456", &[("", "out_of_range")]);
    check(&millis, "946684800000", &[]);
    check(&millis, "946684799999", &[("", "out_of_range")]);
    check(&millis, "4102444800000", &[("", "out_of_range")]);
    check(&millis, r#""2026-01-01T00:00:00""#, &[("", "bad_format")]);
    check(&millis, "1767225600.5", &[("", "datatype_mismatch")]);
    // Text says its unit itself.
    check(&millis, r#""1969-07-20T20:17:40Z""#, &[]);
    check(&logical("long", "timestamp-micros"), "1767225600123", &[("", "out_of_range")]);
    check(&logical("long", "timestamp-nanos"), r#""2300-01-01T00:00:00Z""#, &[("", "out_of_range")]);
    let local = logical("long", "local-timestamp-micros");
    assert_eq!(encoded(&local, r#""2026-01-01T00:00:00.5""#), Value::LocalTimestampMicros(1_767_225_600_500_000));
    check(&local, r#""2026-01-01T00:00:00Z""#, &[("", "bad_format")]);
}

#[test]
fn dates_times_and_uuids_have_their_forms() {
    assert_eq!(encoded(&logical("int", "date"), r#""2026-01-01""#), Value::Date(20_454));
    assert_eq!(encoded(&logical("int", "date"), "20454"), Value::Date(20_454));
    check(&logical("int", "date"), r#""2026-02-30""#, &[("", "bad_format")]);
    assert_eq!(encoded(&logical("int", "time-millis"), r#""00:00:01.5""#), Value::TimeMillis(1500));
    assert_eq!(encoded(&logical("long", "time-micros"), "86399999999"), Value::TimeMicros(86_399_999_999));
    check(&logical("long", "time-micros"), "86400000000", &[("", "out_of_range")]);
    check(&logical("int", "time-millis"), "-1", &[("", "out_of_range")]);

    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let quoted = format!("\"{id}\"");
    let fixed = r#"{"type": {"type": "fixed", "name": "U", "size": 16}, "logicalType": "uuid"}"#;
    for schema in [&logical("string", "uuid"), fixed] {
        assert_eq!(encoded(schema, &quoted), Value::Uuid(id.parse().unwrap()), "{schema}");
        check(schema, r#""67e5504410b1426f9247bb680e5fe0c8""#, &[("", "bad_format")]);
    }
    // A logical type that nobody knows is its base type.
    assert_eq!(encoded(&logical("string", "colour"), r#""red""#), Value::String("red".into()));
}

const ORDER: &str = r#"{"type": "record", "name": "Order", "namespace": "com.acme", "fields": [
    {"name": "id", "type": "string"},
    {"name": "note", "type": ["null", "string"]},
    {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["OPEN", "PAID"]}, "default": "OPEN"},
    {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
        {"name": "sku", "type": "string"},
        {"name": "qty", "type": "int", "aliases": ["quantity"]}]}}},
    {"name": "tags", "type": {"type": "map", "values": ["null", "long"]}, "default": {"a": null}}]}"#;

#[test]
fn all_violations_are_found_in_one_pass() {
    check(
        ORDER,
        r#"{"status": "LOST", "items": [{"sku": "a", "qty": 1}, {"sku": 5}, 7, {"qty": 2147483648, "sku": "b", "x": {}}],
            "tags": {"a/b": 1, "m~n": "2"}, "id": "o", "id": "p", "extra": [1]}"#,
        &[
            ("/status", "unknown_symbol"),
            ("/items/1/sku", "datatype_mismatch"),
            ("/items/1/qty", "missing_field"),
            ("/items/2", "datatype_mismatch"),
            ("/items/3/qty", "out_of_range"),
            ("/items/3/x", "unknown_field"),
            ("/tags/m~0n", "datatype_mismatch"),
            ("/id", "duplicate_field"),
            ("/extra", "unknown_field"),
            ("/note", "missing_field"),
        ],
    );
}

#[test]
fn only_a_default_fills_a_missing_field() {
    let order = encoded(ORDER, r#"{"id": "o", "note": null, "items": []}"#);
    let Value::Record(fields) = order else { panic!("{order:?}") };
    assert_eq!(fields[2].1, Value::Enum(0, "OPEN".into()));
    let nothing = Value::Union(0, Box::new(Value::Null));
    assert_eq!(fields[4].1, Value::Map([("a".to_owned(), nothing)].into()));
    check(ORDER, r#"{"id": "o", "items": []}"#, &[("/note", "missing_field")]);
    check(ORDER, "{}", &[("/id", "missing_field"), ("/note", "missing_field"), ("/items", "missing_field")]);
}

#[test]
fn defaults_are_written_by_their_base_type() {
    let schema = r#"{"type": "record", "name": "D", "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "default": "\u00ff"},
        {"name": "late", "type": ["null", "string"], "default": "second branch"},
        {"name": "inner", "type": {"type": "record", "name": "I", "fields": [
            {"name": "a", "type": "int", "default": 1}, {"name": "b", "type": "double"}]}, "default": {"b": 2}},
        {"name": "again", "type": ["I", "null"], "default": {"a": 3, "b": 0.5}},
        {"name": "list", "type": {"type": "array", "items": "float"}, "default": [1.5, 2]}]}"#;
    let inner = |a, b| Value::Record(vec![("a".into(), Value::Int(a)), ("b".into(), Value::Double(b))]);
    let expected = [
        ("at", Value::TimestampMillis(0)),
        ("amount", Value::Decimal(vec![0xFF].into())),
        ("late", Value::Union(1, Box::new(Value::String("second branch".into())))),
        ("inner", inner(1, 2.0)),
        ("again", Value::Union(0, Box::new(inner(3, 0.5)))),
        ("list", Value::Array(vec![Value::Float(1.5), Value::Float(2.0)])),
    ];
    let expected = expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(encoded(schema, "{}"), Value::Record(expected));
}

#[test]
fn aliases_name_a_field_too() {
    let by_name = encoded(ORDER, r#"{"id": "o", "note": "n", "items": [{"sku": "a", "qty": 2}]}"#);
    let by_alias = encoded(ORDER, r#"{"items": [{"quantity": 2, "sku": "a"}], "id": "o", "note": "n"}"#);
    assert_eq!(by_name, by_alias);
    check(
        ORDER,
        r#"{"id": "o", "note": "n", "items": [{"sku": "a", "quantity": "2", "qty": 2}]}"#,
        &[("/items/0/quantity", "datatype_mismatch"), ("/items/0/qty", "duplicate_field")],
    );
}

#[test]
fn unions_take_plain_and_tagged_values() {
    let union = r#"["null", "string", "long", {"type": "array", "items": "long"},
        {"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "long", "type": "int", "default": 0}]}]"#;
    let record = |value| Value::Record(vec![("long".into(), Value::Int(value))]);
    for (json, branch, value) in [
        ("null", 0, Value::Null),
        (r#""x""#, 1, Value::String("x".into())),
        (r#"{"string": "x"}"#, 1, Value::String("x".into())),
        ("5", 2, Value::Long(5)),
        ("[5]", 3, Value::Array(vec![Value::Long(5)])),
        (r#"{"array": [5]}"#, 3, Value::Array(vec![Value::Long(5)])),
        // A field of the record is no tag.
        (r#"{"long": 5}"#, 4, record(5)),
        (r#"{"n.R": {"long": 5}}"#, 4, record(5)),
        ("{}", 4, record(0)),
    ] {
        assert_eq!(encoded(union, json), Value::Union(branch, Box::new(value)), "{json}");
    }
    check(union, "true", &[("", "datatype_mismatch")]);
    check(union, "1.5", &[("", "datatype_mismatch")]);
    check(union, r#"{"n.R": {"long": "5"}}"#, &[("/n.R/long", "datatype_mismatch")]);
    check(union, r#"{"string": "x", "more": 1}"#, &[("/more", "unknown_field")]);
    check(union, r#"{"other": 1}"#, &[("/other", "unknown_field")]);
    check(r#"["null", "string"]"#, r#"{"other": {}}"#, &[("", "datatype_mismatch")]);
    check(r#"["null", "string"]"#, r#"{"null": null}"#, &[("", "datatype_mismatch")]);
}

#[test]
fn the_first_branch_that_takes_a_value_wins() {
    let numbers = r#"["int", "long", "double"]"#;
    for (json, value) in [
        ("5", Value::Union(0, Box::new(Value::Int(5)))),
        ("2147483648", Value::Union(1, Box::new(Value::Long(2_147_483_648)))),
        ("0.5", Value::Union(2, Box::new(Value::Double(0.5)))),
        ("9223372036854775808", Value::Union(2, Box::new(Value::Double(9_223_372_036_854_775_808.0)))),
    ] {
        assert_eq!(encoded(numbers, json), value, "{json}");
    }
    check(numbers, "1e999", &[("", "out_of_range")]);
    check(numbers, "9223372036854775809", &[("", "no_branch")]);
    let texts = format!(r#"["null", {}, "string"]"#, logical("long", "timestamp-millis"));
    assert_eq!(encoded(&texts, r#""soon""#), Value::Union(2, Box::new(Value::String("soon".into()))));
}

#[test]
fn a_map_in_a_union_is_rather_a_map_than_a_tag() {
    let union = r#"["null", {"type": "map", "values": ["null", "string"]}]"#;
    let map = |key: &str, value: &str| {
        let value = Value::Union(1, Box::new(Value::String(value.into())));
        Value::Union(1, Box::new(Value::Map([(key.to_owned(), value)].into())))
    };
    assert_eq!(encoded(union, r#"{"map": "x"}"#), map("map", "x"));
    assert_eq!(encoded(union, r#"{"map": {"a": "x"}}"#), map("a", "x"));
    // Tags hold within: the inner object is the string's tag, or else the map's entry.
    assert_eq!(encoded(union, r#"{"map": {"string": "x"}}"#), map("map", "x"));
    check(union, r#"{"map": {"a": "x"}, "b": "y"}"#, &[("/map", "datatype_mismatch")]);
    check(union, r#"{"map": {"a": 1}}"#, &[("/map/a", "datatype_mismatch")]);
    check(union, r#"{"map": "x", "map": "y"}"#, &[("/map", "duplicate_field")]);
}

#[test]
fn of_several_records_the_one_that_fits_best_wins() {
    let union = r#"[
        {"type": "record", "name": "A", "fields": [{"name": "a", "type": "int", "default": 0}]},
        {"type": "record", "name": "B", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": "int"}]},
        {"type": "map", "values": "string"}]"#;
    let branch = |unknown, json| match read(union, &encode_with(union, unknown, json).0) {
        Value::Union(branch, _) => branch,
        other => panic!("{other:?}"),
    };
    for (json, expected) in [
        (r#"{"a": 1}"#, 0),
        (r#"{"a": 1, "b": 2}"#, 1),
        (r#"{"a": "x"}"#, 2),
        (r#"{"B": {"a": 1, "b": 2}}"#, 1),
        ("{}", 0),
    ] {
        assert_eq!(branch(UnknownFields::Reject, json), expected, "{json}");
        assert_eq!(branch(UnknownFields::Drop, json), expected, "{json}");
    }
    assert_eq!(branch(UnknownFields::Warn, r#"{"a": 1, "c": 2}"#), 0);
    check(union, r#"{"a": 1, "c": 2}"#, &[("", "no_branch")]);
    check(union, r#"{"B": {"a": 1}}"#, &[("/B/b", "missing_field")]);
}

#[test]
fn keys_that_come_twice_are_refused() {
    let map = r#"{"type": "map", "values": "int"}"#;
    check(map, r#"{"a": 1, "b": 2, "a": 3}"#, &[("/a", "duplicate_field")]);
    check(map, r#"{"a": 1, "\u0061": 2}"#, &[("/a", "duplicate_field")]);
    check(r#"{"type": "array", "items": {"type": "map", "values": "int"}}"#, r#"[{"a": 1}, {"a": 1}]"#, &[]);
}

#[test]
fn long_arrays_and_maps_have_long_counts() {
    for length in [63, 64, 8191, 8192] {
        let items: Vec<String> = (0..length).map(|at| at.to_string()).collect();
        let Value::Array(read) = encoded(r#"{"type": "array", "items": "int"}"#, &format!("[{}]", items.join(",")))
        else {
            panic!("not an array")
        };
        assert_eq!(read.len(), length);
        let entries: Vec<String> = (0..length).map(|at| format!("\"{at}\":{at}")).collect();
        let Value::Map(read) = encoded(r#"{"type": "map", "values": "int"}"#, &format!("{{{}}}", entries.join(",")))
        else {
            panic!("not a map")
        };
        assert_eq!(read.len(), length);
    }
}

#[test]
fn records_of_many_fields_are_stitched() {
    let fields: Vec<String> = (0..200).map(|at| format!(r#"{{"name": "f{at}", "type": "int"}}"#)).collect();
    let schema = format!(r#"{{"type": "record", "name": "Wide", "fields": [{}]}}"#, fields.join(","));
    let event = |order: &mut dyn Iterator<Item = usize>| {
        let fields: Vec<String> = order.map(|at| format!(r#""f{at}": {at}"#)).collect();
        encode_with(&schema, UnknownFields::Reject, &format!("{{{}}}", fields.join(","))).0
    };
    let in_order = event(&mut (0..200));
    assert_eq!(event(&mut (0..200).rev()), in_order);
    assert_eq!(event(&mut (0..200).map(|at| at * 77 % 200)), in_order);
}

#[test]
fn unknown_fields_go_by_the_policy() {
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"},
        {"name": "b", "type": {"type": "record", "name": "S", "fields": [{"name": "c", "type": "int"}]}}]}"#;
    let json = r#"{"x": [1, {"y": "}"}], "a": 1, "b": {"c": 2, "z": null}}"#;
    check(schema, json, &[("/x", "unknown_field"), ("/b/z", "unknown_field")]);
    let (dropped, warnings) = encode_with(schema, UnknownFields::Drop, json);
    assert!(warnings.is_empty());
    let (warned, warnings) = encode_with(schema, UnknownFields::Warn, json);
    assert_eq!((warnings.first, warnings.total), (vec!["/x".to_owned(), "/b/z".to_owned()], 2));
    assert_eq!((dropped, warned), (vec![2, 4], vec![2, 4]));
}

fn capturing(rest: &str) -> String {
    format!(
        r#"{{"type": "record", "name": "R", "fields": [{{"name": "a", "type": "int"}},
        {{"name": "more", "type": {{"type": "map", "values": "string"}}, "hookbridge.capture": true}}{rest}]}}"#
    )
}

#[test]
fn captured_fields_keep_their_text() {
    let schema = capturing(r#", {"name": "z", "type": "int", "default": 7}"#);
    for (json, expected) in [
        (r#"{"a": 1}"#, vec![]),
        (r#"{"a": 1, "more": {}}"#, vec![]),
        (
            r#"{"t": "te\u0041xt", "a": 1, "n": 1.50, "o": { "p": [ 1, "q r" ] }, "z": 7, "nil": null}"#,
            vec![("t", "teAxt"), ("n", "1.50"), ("o", r#"{"p":[1,"q r"]}"#), ("nil", "null")],
        ),
        (r#"{"more": {"x": "y"}, "a": 1}"#, vec![("x", "y")]),
        (r#"{"t": 1, "more": {"x": "y"}, "u": 2, "a": 1, "z": 7}"#, vec![("t", "1"), ("x", "y"), ("u", "2")]),
    ] {
        let expected = expected.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value.to_owned())));
        let (datum, warnings) = encode_with(&schema, UnknownFields::Capture, json);
        let fields = [("a", Value::Int(1)), ("more", Value::Map(expected.collect())), ("z", Value::Int(7))];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(read(&schema, &datum), Value::Record(fields), "{json}");
        assert!(warnings.is_empty());
    }
}

#[test]
fn captured_fields_that_come_twice_are_refused() {
    let schema = capturing("");
    for json in [
        r#"{"a": 1, "x": 1, "x": 2}"#,
        r#"{"a": 1, "more": {"x": "1", "w": "2"}, "x": 2}"#,
        r#"{"a": 1, "x": 1, "y": 1, "more": {"w": "2", "x": "1"}}"#,
    ] {
        let found = violations(&schema, UnknownFields::Capture, json.as_bytes());
        assert_eq!(found, [("/x".to_owned(), "duplicate_field")], "{json}");
    }
    let found = violations(&schema, UnknownFields::Capture, br#"{"a": 1, "more": 5, "x": 2}"#);
    assert_eq!(found, [("/more".to_owned(), "datatype_mismatch")]);
}

#[test]
fn capture_is_the_roots_and_of_records_that_have_a_map_for_it() {
    let inner = r#", {"name": "in", "type": {"type": "record", "name": "I", "fields": [
        {"name": "b", "type": "int"}]}},
        {"name": "deep", "type": {"type": "record", "name": "D", "fields": [{"name": "rest",
            "type": {"type": "map", "values": "string", "hookbridge.capture": true}}]}}"#;
    let schema = capturing(inner);
    let json = r#"{"a": 1, "x": 1, "in": {"b": 2, "y": 3}, "deep": {"w": 4}, "v": 5}"#;
    let (datum, warnings) = encode_with(&schema, UnknownFields::Capture, json);
    assert_eq!(warnings.first, ["/in/y"]);
    let text = format!("{:?}", read(&schema, &datum));
    for kept in [r#"("rest", Map({"w": String("4")}))"#, r#""x": String("1")"#, r#""v": String("5")"#] {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    // Under another policy the attribute means nothing.
    let found = violations(&schema, UnknownFields::Reject, json.as_bytes());
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn a_schema_that_cannot_be_served_says_where() {
    let compile = |schema: &str, unknown| Plan::compile(schema, unknown).unwrap_err().to_string();
    for (schema, unknown, message) in [
        (
            r#"{"type": "record", "name": "Tree", "fields": [{"name": "kids", "type": {"type": "array", "items": "Tree"}}]}"#,
            UnknownFields::Drop,
            "kids[]: Tree contains itself",
        ),
        (
            r#"{"type": "record", "name": "R", "fields": [{"name": "m", "type": {"type": "map", "values":
                {"type": "record", "name": "S", "fields": [{"name": "d", "type": {"type": "bytes", "logicalType": "big-decimal"}}]}}}]}"#,
            UnknownFields::Drop,
            "m{}.d: logical type big-decimal",
        ),
        (
            r#"{"type": "record", "name": "R", "fields": [{"name": "c", "type": "string", "hookbridge.capture": true}]}"#,
            UnknownFields::Capture,
            "c: `hookbridge.capture` needs a map of string, this is string",
        ),
        (ORDER, UnknownFields::Capture, "com.acme.Order has no field to capture into"),
        (r#""string""#, UnknownFields::Capture, "string has no field to capture into"),
        (r#"{"type": "record"}"#, UnknownFields::Drop, "the schema is not valid Avro"),
    ] {
        let found = compile(schema, unknown);
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn a_named_type_may_be_used_again_without_being_recursive() {
    let schema = r#"{"type": "record", "name": "R", "namespace": "n", "fields": [
        {"name": "a", "type": {"type": "fixed", "name": "Id", "size": 1, "aliases": ["Key"]}},
        {"name": "b", "type": ["null", "n.Id"]},
        {"name": "c", "type": {"type": "record", "name": "S", "fields": [{"name": "d", "type": "Id"}]}},
        {"name": "e", "type": {"type": "array", "items": "S"}}]}"#;
    check(schema, r#"{"a": "x", "b": {"n.Id": "y"}, "c": {"d": "z"}, "e": [{"d": "w"}]}"#, &[]);
}

#[test]
fn what_is_not_json_says_where() {
    let not_json = |json: &[u8]| {
        let plan = Plan::compile(ORDER, UnknownFields::Drop).unwrap();
        match plan.encode(json, &mut Scratch::default(), &mut Vec::new()) {
            Err(Refused::NotJson { line, column, .. }) => (line, column),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(not_json(b""), (1, 0));
    assert_eq!(not_json(b"{\"id\": \"o\", \"note\": nul"), (1, 23));
    assert_eq!(not_json(b"{\"id\": \"o\",\n \"note\": 1,}"), (2, 12));
    assert_eq!(not_json(b"{} {}"), (1, 4));
    assert_eq!(not_json(b"{\"id\":\n\"a\xff\"}"), (2, 3));
    assert_eq!(not_json(b"{\"id\": NaN}"), (1, 8));
    // Within a value that is read by its own text.
    assert_eq!(not_json(b"{\n\"items\": [{\"qty\": \"\\ud800\"}]}"), (2, 26));
    let found = violations(ORDER, UnknownFields::Drop, b"{");
    assert_eq!(found, [(String::new(), "not_json")]);
}

#[test]
fn depth_has_a_limit_wherever_it_comes() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let schema = r#"{"type": "record", "name": "R", "fields": [
        {"name": "a", "type": ["null", "long", {"type": "map", "values": "string"}, {"type": "array", "items": "int"}],
         "default": null},
        {"name": "s", "type": "string", "default": ""}]}"#;
    for (field, at_limit) in [("unknown", vec![]), ("a", vec!["/a/0"]), ("s", vec!["/s"])] {
        for (levels, expected) in [(63, at_limit), (64, vec![""]), (100_000, vec![""])] {
            let json = format!(r#"{{"{field}": {}}}"#, nested(levels));
            let found = violations(schema, UnknownFields::Drop, json.as_bytes());
            let pointers: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
            assert_eq!(pointers, expected, "{field} {levels}");
            if levels > 63 {
                assert_eq!(found[0].1, "too_deep");
            }
        }
    }
}

#[test]
fn a_schema_as_deep_as_the_limit_is_walked() {
    let arrays = |inner: String, _| format!(r#"{{"type": "array", "items": {inner}}}"#);
    let schema = (0..65).fold(r#""int""#.to_owned(), arrays);
    check(&schema, &format!("{}{}", "[".repeat(64), "]".repeat(64)), &[]);
    check(&schema, &format!("{}{}", "[".repeat(65), "]".repeat(65)), &[("", "too_deep")]);
}

#[test]
fn the_first_hundred_violations_are_kept_and_all_are_counted() {
    let plan = Plan::compile(r#"{"type": "array", "items": "int"}"#, UnknownFields::Reject).unwrap();
    let json = format!("[{}1]", "true,".repeat(250));
    let mut scratch = Scratch::default();
    let Err(Refused::Invalid(violations)) = plan.encode(json.as_bytes(), &mut scratch, &mut Vec::new()) else {
        panic!("it is invalid")
    };
    assert_eq!((violations.first.len(), violations.total), (100, 250));
    assert_eq!(violations.first[99].pointer, "/99");
}

#[test]
fn a_violation_is_written_as_pointer_reason_and_message() {
    let plan = Plan::compile(ORDER, UnknownFields::Drop).unwrap();
    let json = br#"{"id": "o", "note": "n", "items": [{"sku": "a", "qty": "secret"}]}"#;
    let Err(refused) = plan.encode(json, &mut Scratch::default(), &mut Vec::new()) else { panic!("it is invalid") };
    let line = serde_json::to_string(&refused.into_violations().first[0]).unwrap();
    assert_eq!(
        line,
        r#"{"pointer":"/items/0/qty","reason":"datatype_mismatch","message":"expected int, found string"}"#
    );
}

#[test]
fn a_scratch_serves_one_plan_after_another() {
    let (plan, other) = (
        Plan::compile(ORDER, UnknownFields::Reject).unwrap(),
        Plan::compile(&capturing(""), UnknownFields::Capture).unwrap(),
    );
    let mut scratch = Scratch::default();
    let mut out = Vec::new();
    // Left in the middle of everything.
    assert!(other.encode(br#"{"x": 1, "more": {"k": "#, &mut scratch, &mut out).is_err());
    assert!(plan.encode(br#"{"id": "o", "items": [{"qty": 1, "#, &mut scratch, &mut out).is_err());
    let event = br#"{"items": [], "note": null, "id": "o"}"#;
    plan.encode(event, &mut scratch, &mut out).unwrap();
    assert_eq!(out, encode_with(ORDER, UnknownFields::Reject, r#"{"id": "o", "note": null, "items": []}"#).0);
}
