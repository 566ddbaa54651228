use tempfile::TempDir;

use super::*;
use crate::config::{Compatibility, UnknownFields};

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn event(category: &str, version: SchemaVersion, event_type: &str) -> (String, EventDef) {
    let definition = EventDef {
        category: category.into(),
        owner: String::new(),
        version,
        compatibility: Compatibility::FullTransitive,
        key: None,
        id: None,
        unknown_fields: UnknownFields::Reject,
        topic: format!("events.{event_type}"),
        at: Location { line: 7, column: 3, path: format!("events.{event_type}") },
    };
    (event_type.to_owned(), definition)
}

fn problems(dir: &TempDir, events: impl IntoIterator<Item = (String, EventDef)>) -> Vec<String> {
    let found = load(dir.path(), &events.into_iter().collect(), "").unwrap_err();
    found.iter().map(|problem| problem.to_string().replace(&format!("{}/", dir.path().display()), "")).collect()
}

const ORDER: &str = r#"{"type": "record", "name": "OrderShipped", "namespace": "e", "fields": [
    {"name": "id", "type": "string"}, {"name": "to", "type": ["null", "c.Place"], "default": null},
    {"name": "rest", "type": {"type": "map", "values": "string"}, "default": {}, "hookbridge.capture": true}]}"#;
const PLACE: &str =
    r#"{"type": "record", "name": "Place", "namespace": "c", "fields": [{"name": "at", "type": "string"}]}"#;
const PLACE_2: &str = r#"{"type": "record", "name": "Place", "namespace": "c", "fields": [{"name": "at", "type": "string"},
    {"name": "floor", "type": "int", "default": 0}]}"#;

#[test]
fn an_event_knows_its_subject_its_references_and_its_fields() {
    let dir = folder(&[("commerce/order_shipped/1.avsc", ORDER), ("common/place.avsc", PLACE)]);
    let events = [event("commerce", SchemaVersion::Number(1), "order_shipped")].into_iter().collect();
    let schemas = load(dir.path(), &events, "eu.").unwrap();
    let order = &schemas[0];
    assert_eq!((order.topic.as_str(), order.version), ("eu.events.order_shipped", 1));
    assert_eq!(order.subject, "eu.events.order_shipped-value");
    assert_eq!(order.full_name(), "e.OrderShipped");
    assert_eq!(order.text, compact(ORDER));
    let place = Reference {
        name: "c.Place".into(),
        subject: "c.Place".into(),
        version: 1,
        text: compact(PLACE),
        references: Vec::new(),
    };
    assert_eq!(order.references, [place]);
    assert!(order.has_field("to") && !order.has_field("at"));
    assert_eq!(order.capture_field().unwrap().name, "rest");
    assert!(order.inlined.contains(r#""name":"Place""#));
}

#[test]
fn latest_is_the_highest_number_not_the_last_name() {
    let two = ORDER.replace("\"id\"", "\"id_2\"");
    let ten = ORDER.replace("\"id\"", "\"id_10\"");
    let dir = folder(&[
        ("commerce/order_shipped/2.avsc", &two),
        ("commerce/order_shipped/10.avsc", &ten),
        ("commerce/order_shipped/README.md", "not a schema"),
        ("common/place.avsc", PLACE),
    ]);
    let events = [event("commerce", SchemaVersion::Latest, "order_shipped")].into_iter().collect();
    let schemas = load(dir.path(), &events, "").unwrap();
    assert_eq!(schemas[0].version, 10);
    assert!(schemas[0].has_field("id_10"));
}

#[test]
fn a_schema_says_which_version_of_a_shared_type_it_means() {
    let two = ORDER.replace("\"namespace\": \"e\"", r#""namespace": "e", "hookbridge.references": {"c.Place": 2}"#);
    let three = two.replace(": 2}", ": 3}");
    let dir = folder(&[
        ("commerce/order_shipped/1.avsc", ORDER),
        ("commerce/order_shipped/2.avsc", &two),
        ("commerce/order_shipped/3.avsc", &three),
        ("common/place.avsc", PLACE),
        ("common/place.2.avsc", PLACE_2),
    ]);
    let of = |version| {
        let events = [event("commerce", SchemaVersion::Number(version), "order_shipped")].into_iter().collect();
        load(dir.path(), &events, "").map(|mut schemas| schemas.remove(0))
    };
    assert!(!of(1).unwrap().inlined.contains("floor"));
    let second = of(2).unwrap();
    assert!(second.inlined.contains("floor"));
    assert_eq!(second.references[0].version, 2);
    assert!(matches!(of(3).unwrap_err()[0].error, Error::NoSharedVersion { version: 3, .. }));
}

#[test]
fn every_problem_is_named_at_once_with_its_file() {
    let recursive = r#"{"type": "record", "name": "TrialStarted", "fields": [
        {"name": "next", "type": ["null", "TrialStarted"]}]}"#;
    let dir = folder(&[
        ("commerce/order_shipped/1.avsc", ORDER),
        ("commerce/refund_issued/1.avsc", "{\"type\": \"record\",\n  oops}"),
        ("lifecycle/trial_started/1.avsc", recursive),
        ("lifecycle/plan_upgraded/1.avsc", r#"{"type": "record", "name": "PlanUpgrade", "fields": []}"#),
        ("lifecycle/trial_canceled/v1.avsc", "{}"),
        ("identity/lead_captured/1.avsc", r#"{"type": "record", "name": "LeadCaptured", "fields": [{"name": "a"}]}"#),
        ("identity/empty/README.md", ""),
        ("common/campaign.avsc", r#"{"type": "enum", "name": "c.Other", "symbols": ["a"]}"#),
    ]);
    let latest = SchemaVersion::Latest;
    let found = problems(
        &dir,
        [
            event("commerce", SchemaVersion::Number(4), "order_shipped"),
            event("commerce", latest, "refund_issued"),
            event("commerce", latest, "trial_started"),
            event("commerce", latest, "order_shiped"),
            event("lifecycle", latest, "plan_upgraded"),
            event("lifecycle", latest, "trial_canceled"),
            event("identity", latest, "lead_captured"),
            event("identity", latest, "empty"),
        ],
    );
    assert_eq!(
        found,
        [
            "common/campaign.avsc: the type is named `c.Other`; by its place it should be `Campaign`",
            "identity/empty: there is no version of the event `empty` in it",
            "identity/lead_captured/1.avsc: is not an Avro schema: No `type` in record field",
            "commerce/order_shiped: there is no such folder for the event `order_shiped`",
            "commerce/order_shipped: there is no version 4; there is 1",
            "lifecycle/plan_upgraded/1.avsc: the type is named `PlanUpgrade`; by its place it should be `PlanUpgraded`",
            "commerce/refund_issued/1.avsc: is not JSON: key must be a string at line 2 column 3",
            "lifecycle/trial_canceled/v1.avsc: a version's file is named by its number, from 1, without leading zeros",
            "lifecycle/trial_canceled: there is no version of the event `trial_canceled` in it",
            "commerce/trial_started: the event `trial_started` is in the category `lifecycle`, not `commerce`",
        ]
    );
}

#[test]
fn a_name_that_is_nearly_right_is_guessed() {
    let dir = folder(&[("commerce/order_shipped/1.avsc", ORDER), ("common/place.avsc", PLACE)]);
    let events = [event("commerce", SchemaVersion::Latest, "order_shiped")].into_iter().collect();
    let found = load(dir.path(), &events, "").unwrap_err();
    assert_eq!(found[0].error.hint().unwrap(), "did you mean `order_shipped`?");
    assert_eq!(found[0].at.as_ref().unwrap().line, 7);
}

#[test]
fn recursion_is_refused_within_a_file_and_across_shared_types() {
    let own =
        r#"{"type": "record", "name": "TrialStarted", "fields": [{"name": "n", "type": ["null", "TrialStarted"]}]}"#;
    let dir = folder(&[("lifecycle/trial_started/1.avsc", own)]);
    let found = problems(&dir, [event("lifecycle", SchemaVersion::Latest, "trial_started")]);
    assert!(found[0].contains("contains itself"), "{found:?}");

    let there = r#"{"type": "record", "name": "There", "namespace": "c", "fields": [{"name": "a", "type": ["null", "c.Back"]}]}"#;
    let back = r#"{"type": "record", "name": "Back", "namespace": "c", "fields": [{"name": "a", "type": ["null", "c.There"]}]}"#;
    let dir = folder(&[("common/there.avsc", there), ("common/back.avsc", back)]);
    let (_, found) = SharedTypes::load(dir.path());
    assert!(found.iter().all(|problem| problem.to_string().contains("contains itself")) && found.len() == 2);
}

#[test]
fn a_type_that_is_nowhere_and_a_folder_that_is_not_there_are_told() {
    let dir = folder(&[("commerce/order_shipped/1.avsc", ORDER)]);
    let found = problems(&dir, [event("commerce", SchemaVersion::Latest, "order_shipped")]);
    assert_eq!(found, ["commerce/order_shipped/1.avsc: the type `c.Place` is defined nowhere"]);
    let gone = load(&dir.path().join("nowhere"), &BTreeMap::new(), "").unwrap_err();
    assert!(matches!(gone[0].error, Error::Read(_)));
}

#[test]
fn the_other_versions_of_an_event_are_known_the_newest_first() {
    let place_2 =
        ORDER.replace(r#""namespace": "e","#, r#""namespace": "e", "hookbridge.references": {"c.Place": 2},"#);
    let dir = folder(&[
        ("commerce/order_shipped/1.avsc", ORDER),
        ("commerce/order_shipped/2.avsc", &place_2),
        ("commerce/order_shipped/3.avsc", "{"),
        ("commerce/order_shipped/10.avsc", ORDER),
        ("common/place.avsc", PLACE),
        ("common/place.2.avsc", PLACE_2),
    ]);
    let events = [event("commerce", SchemaVersion::Number(1), "order_shipped")].into_iter().collect();
    let schemas = load(dir.path(), &events, "eu.").unwrap();
    let others = others(dir.path(), &schemas[0]);
    let versions: Vec<u32> = others.iter().map(|other| other.version).collect();
    assert_eq!(versions, [10, 2], "what cannot be read is left out");
    assert!(
        others.iter().all(|other| other.subject == "eu.events.order_shipped-value" && other.topic == schemas[0].topic)
    );
    assert!(others[1].inlined.contains("floor") && !others[0].inlined.contains("floor"));
}
