//! The rules that every schema in `schemas/` keeps, read out of the files themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apache_avro::schema_compatibility::SchemaCompatibility;
use serde_json::Value;

use super::files::{self, COMMON, SharedTypes};
use super::{CAPTURE_ATTRIBUTE, EventSchema};
use crate::config::{Compatibility, EventDef, Location, SchemaVersion, UnknownFields};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn folders(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> =
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every version of every event type, as `load` reads it.
pub(super) fn all() -> Vec<EventSchema> {
    let mut schemas = Vec::new();
    // The bridge's own records are no events.
    for category in folders(&root()).into_iter().filter(|name| name != COMMON && name != "hookbridge") {
        for event_type in folders(&root().join(&category)) {
            let versions = (1..).take_while(|n| root().join(format!("{category}/{event_type}/{n}.avsc")).exists());
            schemas.extend(versions.map(|version| one(&category, &event_type, version)));
        }
    }
    schemas
}

pub(super) fn one(category: &str, event_type: &str, version: u32) -> EventSchema {
    let definition = EventDef {
        category: category.to_owned(),
        owner: String::new(),
        version: SchemaVersion::Number(version),
        compatibility: Compatibility::FullTransitive,
        key: None,
        id: None,
        unknown_fields: UnknownFields::Capture,
        topic: format!("events.{event_type}"),
        at: Location::default(),
    };
    files::load(&root(), &BTreeMap::from([(event_type.to_owned(), definition)]), "").unwrap().remove(0)
}

fn key(event_type: &str) -> &'static str {
    if event_type == "lead_captured" { "email_sha256" } else { "customer_id" }
}

fn required(event_type: &str) -> Vec<&'static str> {
    match event_type {
        "purchase_completed" => vec!["event_id", "customer_id"],
        other => vec![key(other)],
    }
}

fn fields(record: &Value) -> &[Value] {
    record["fields"].as_array().unwrap()
}

fn name(of: &Value) -> &str {
    of["name"].as_str().unwrap()
}

/// Calls `see` for every type within `schema`, itself included.
fn types<'a>(schema: &'a Value, see: &mut impl FnMut(&'a Value)) {
    see(schema);
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| types(branch, see)),
        Value::Object(of) => {
            for key in ["items", "values"] {
                of.get(key).into_iter().for_each(|inner| types(inner, see));
            }
            for field in of.get("fields").and_then(Value::as_array).into_iter().flatten() {
                types(&field["type"], see);
            }
        }
        _ => {}
    }
}

fn readme(schema: &EventSchema) -> String {
    std::fs::read_to_string(root().join(format!("{}/{}/README.md", schema.category, schema.event_type))).unwrap()
}

#[test]
fn the_taxonomy_is_complete_and_every_file_is_a_schema() {
    let mut names: Vec<_> =
        all().into_iter().map(|schema| format!("{}/{}", schema.category, schema.event_type)).collect();
    names.dedup();
    assert_eq!(
        names.join(" "),
        "commerce/cart_abandoned commerce/order_shipped commerce/purchase_completed commerce/refund_issued \
         engagement/email_bounced engagement/email_clicked engagement/email_delivered engagement/email_opened \
         engagement/feature_used engagement/page_viewed identity/consent_updated identity/lead_captured \
         identity/preferences_updated identity/profile_updated lifecycle/customer_churned \
         lifecycle/customer_reactivated lifecycle/plan_upgraded lifecycle/subscription_canceled \
         lifecycle/subscription_renewed lifecycle/trial_canceled lifecycle/trial_started"
    );
    let (_, problems) = SharedTypes::load(&root());
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn only_key_and_id_are_required() {
    for schema in all() {
        let json: Value = serde_json::from_str(&schema.inlined).unwrap();
        let without: Vec<_> = fields(&json).iter().filter(|field| field.get("default").is_none()).map(name).collect();
        assert_eq!(without, required(&schema.event_type), "{}", schema.event_type);
        types(&json, &mut |inner| {
            // The fields of nested records have defaults without exception.
            if inner["type"] == "record" && name(inner) != name(&json) {
                for field in fields(inner) {
                    assert!(field.get("default").is_some(), "{}: {}", schema.event_type, field);
                }
            }
        });
        for field in without {
            assert_eq!(schema.field(field).unwrap().schema, apache_avro::Schema::String);
        }
    }
}

#[test]
fn every_event_carries_consent_identity_campaign_time_and_a_place_for_the_unknown() {
    for schema in all() {
        let json: Value = serde_json::from_str(&schema.text).unwrap();
        let field = |wanted: &str| fields(&json).iter().find(|field| name(field) == wanted).unwrap();
        assert_eq!(field("consent")["type"], serde_json::json!({"type": "map", "values": "boolean"}));
        assert_eq!(field("consent")["default"], serde_json::json!({}));
        assert_eq!(field("campaign")["type"], serde_json::json!(["null", "hookbridge.common.Campaign"]));
        assert_eq!(field("occurred_at")["type"][1]["logicalType"], "timestamp-millis");
        assert!(schema.has_field("customer_id") && schema.has_field("email_sha256"));
        assert_eq!(schema.capture_field().unwrap().name, "extra");
        let captures = schema.fields().iter().filter(|field| field.custom_attributes.contains_key(CAPTURE_ATTRIBUTE));
        assert_eq!(captures.count(), 1);
    }
}

#[test]
fn money_is_a_decimal_with_a_currency_beside_it() {
    for schema in all() {
        let json: Value = serde_json::from_str(&schema.inlined).unwrap();
        types(&json, &mut |inner| {
            if inner["logicalType"] == "decimal" {
                let shape = (&inner["type"], &inner["precision"], &inner["scale"]);
                assert_eq!(shape, (&"bytes".into(), &18.into(), &4.into()), "{}", schema.event_type);
            }
            if inner["type"] == "record"
                && fields(inner).iter().any(|field| field["type"][1]["logicalType"] == "decimal")
            {
                // The lines of an order are in the order's currency.
                let beside = if name(inner) == "LineItem" { &json } else { inner };
                let currency = fields(beside).iter().any(|field| name(field) == "currency");
                assert!(currency, "{}: {}", schema.event_type, name(inner));
            }
        });
    }
}

#[test]
fn an_instant_is_in_milliseconds_and_nothing_is_a_binary_fraction() {
    for schema in all() {
        let json: Value = serde_json::from_str(&schema.inlined).unwrap();
        types(&json, &mut |inner| {
            let logical = inner["logicalType"].as_str();
            assert!(matches!(logical, None | Some("decimal" | "timestamp-millis" | "date")), "{inner}");
            assert!(inner != "float" && inner != "double", "{}", schema.event_type);
        });
        for field in fields(&json).iter().filter(|field| name(field).ends_with("_at")) {
            assert_eq!(field["type"][1]["logicalType"], "timestamp-millis", "{field}");
        }
    }
}

#[test]
fn everything_is_explained_and_every_enum_survives_a_new_symbol() {
    for schema in all() {
        let json: Value = serde_json::from_str(&schema.inlined).unwrap();
        types(&json, &mut |inner| {
            let explained = |of: &Value| of["doc"].as_str().is_some_and(|doc| doc.len() > 8 && doc.ends_with('.'));
            match inner["type"].as_str() {
                Some("record") => {
                    assert!(explained(inner), "{}", name(inner));
                    for field in fields(inner) {
                        assert!(explained(field), "{field}");
                    }
                }
                Some("enum") => {
                    assert!(explained(inner), "{}", name(inner));
                    assert_eq!((&inner["symbols"][0], &inner["default"]), (&"unknown".into(), &"unknown".into()));
                }
                _ => {}
            }
        });
    }
}

#[test]
fn every_version_reads_every_other_of_its_event() {
    let schemas = all();
    for writer in &schemas {
        for reader in schemas.iter().filter(|reader| reader.event_type == writer.event_type) {
            SchemaCompatibility::can_read(&writer.schema, &reader.schema).unwrap_or_else(|error| {
                panic!("{} {} → {}: {error}", writer.event_type, writer.version, reader.version)
            });
        }
    }
    assert!(schemas.iter().any(|schema| schema.event_type == "lead_captured" && schema.version == 2));
}

#[test]
fn every_event_has_a_readme_whose_example_fits_the_schema() {
    let index = std::fs::read_to_string(root().join("README.md")).unwrap();
    let latest: BTreeMap<_, _> = all().into_iter().map(|schema| (schema.event_type.clone(), schema)).collect();
    for (event_type, schema) in &latest {
        let text = readme(schema);
        let key_line = format!("| Key | `{}`", key(event_type));
        for part in ["| Owner | ", key_line.as_str(), schema.full_name().as_str(), "| Compatibility | `"] {
            assert!(text.contains(part), "{event_type}: {part}");
        }
        assert!(
            text.contains(&format!("\n| {} | ", schema.version)),
            "{event_type}: its newest version is not told of"
        );
        assert!(index.contains(&format!("({}/{event_type}/README.md)", schema.category)), "{event_type}");
        let example = text.split_once("```json\n").unwrap().1.split_once("```").unwrap().0;
        let example: Value = serde_json::from_str(example).unwrap();
        for field in example.as_object().unwrap().keys() {
            assert!(schema.has_field(field), "{event_type}: {field}");
        }
        for field in required(event_type) {
            assert!(example[field].is_string(), "{event_type}: {field}");
        }
        if event_type == "purchase_completed" {
            let size = example.to_string().len();
            assert!((600..=1100).contains(&size), "{size}");
        }
    }
}
