//! The reference in docs/ holds every key that the reader knows, and no other.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// A file in which every kind of section occurs, so that the reader asks for every key that it knows.
const EVERY_KIND: &str = "
events: { e: {} }
sources:
  s: { signature: { key: {}, timestamp: {} }, events: [{}] }
sinks:
  p: { type: postgres }
  k: { type: kafka }
  h: { type: http, batch: {} }
  c: { preset: x }
alerts: { drift: {}, dead_letters: {}, receivers: { r: {} } }
";

/// Every key that the reader knows, as a shape: `sources.<name>.events[].when`.
pub(super) fn known_keys() -> BTreeSet<String> {
    let env = FakeEnvironment::default();
    let document = yaml::parse(EVERY_KIND);
    let reader = reader::Reader::new(Path::new("h.yaml"), &env);
    read::config(&reader.root(&document.root));
    reader.finish().known
}

/// The keys of the reference's tables: what stands in backticks in a row's first column.
fn documented_keys() -> BTreeSet<String> {
    let rows = REFERENCE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let keys = rows.map(|(key, _)| key.to_owned());
    // Variables, and the metrics of what the keys set, have tables too.
    keys.filter(|key| !key.contains('$') && !key.starts_with("hookbridge_")).collect()
}

#[test]
fn every_key_is_documented_and_every_documented_key_is_known() {
    let known: BTreeSet<String> = known_keys();
    let documented = documented_keys();
    assert!(known.len() > 90, "{known:?}");
    let missing: Vec<_> = known.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&known).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not in docs/configuration.md: {missing:#?}\nnot known: {stale:#?}"
    );
}

#[test]
fn every_librdkafka_property_that_is_passed_through_is_documented() {
    for property in kafka_properties::allowed() {
        assert!(REFERENCE.contains(&format!("`{property}`")), "{property}");
    }
}

/// A file that holds one key, with `value` in its place.
fn file_with(shape: &str, value: &str) -> String {
    let mut text = value.to_owned();
    for part in shape.rsplit('.') {
        let (key, items) = part.strip_suffix("[]").map_or((part, false), |key| (key, true));
        let key = if key == "<name>" { "x" } else { key };
        text = if items { format!("{{ {key}: [{text}] }}") } else { format!("{{ {key}: {text} }}") };
    }
    text
}

#[test]
fn whatever_key_a_secret_strays_into_no_message_repeats_it() {
    let env = FakeEnvironment::new(&[("SECRET", "hunter2 {x} \n/")]);
    for shape in known_keys() {
        for kind in ["", "type: postgres, ", "type: kafka, ", "type: http, ", "preset: p, "] {
            for shape in [shape.clone(), format!("{shape}[]")] {
                let text = file_with(&shape, "\"${SECRET}\"")
                    .replace("{ sinks: { x: { ", &format!("{{ sinks: {{ x: {{ {kind}"));
                let told = match parse(Path::new("h.yaml"), &text, &env) {
                    Ok(loaded) => format!("{:?} {:?}", loaded.warnings, loaded.not_built),
                    Err(problems) => format!("{problems} {problems:?}"),
                };
                assert!(!told.contains("hunter2"), "{text}\n{told}");
            }
        }
    }
}
