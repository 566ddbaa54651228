//! What a delivery sends: a datum as JSON, against parsing that JSON, and against the tree that apache-avro makes of it.

use std::hint::black_box;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use hookbridge::config::UnknownFields;
use hookbridge::schema::plan::{Plan, Scratch};
use hookbridge::schema::reader::Reader;

use super::{PURCHASE, PURCHASE_SCHEMA, Subject, compare};

pub(super) fn run(smoke: bool) -> bool {
    let plan = Plan::compile(PURCHASE_SCHEMA, UnknownFields::Reject).expect("the schema compiles");
    let mut datum = Vec::new();
    plan.encode(PURCHASE.as_bytes(), &mut Scratch::default(), &mut datum).expect("the event is valid");
    let schema = Schema::parse_str(PURCHASE_SCHEMA).expect("a schema");
    let (reader, tree) = (Reader::compile(&schema), GenericDatumReader::builder(&schema).build());
    let (reader, tree) = (reader.expect("the schema compiles"), tree.expect("the schema is resolved"));
    let mut json = Vec::new();
    reader.write(&datum, &mut json).expect("a datum");
    let title = format!("body: a datum of {} bytes, {} as JSON", datum.len(), json.len());
    let mut subjects = [
        Subject::new("serde_json::Value", || {
            black_box(serde_json::from_slice::<serde_json::Value>(black_box(&json)).ok());
        }),
        Subject::new("datum to JSON", || {
            let mut out = Vec::new();
            black_box(reader.write(black_box(&datum), &mut out).is_ok());
            black_box(out);
        }),
        Subject::new("datum to apache_avro::Value", || {
            black_box(tree.read_value(&mut black_box(&datum[..])).ok());
        }),
    ];
    let ratios = compare(&title, &mut subjects, smoke);
    let limit = if smoke { 0.7 } else { 0.5 };
    let passed = ratios[1].ratio <= limit;
    println!("  to JSON at most {limit}: {}", if passed { "yes" } else { "NO" });
    passed
}
