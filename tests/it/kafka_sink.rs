//! What a Kafka sink writes, with a real registry: under its own topic's subject, and only what that has.

use std::collections::BTreeMap;
use std::time::Duration;

use hookbridge::config;
use hookbridge::event::Identity;
use hookbridge::kafka::{Headers, Record, TopicPartition};
use hookbridge::outcome::Outcome;
use hookbridge::schema::plan::Scratch;
use hookbridge::schema::{Decoder, Registry, wire};
use hookbridge::sinks::kafka::Kafka;
use hookbridge::sinks::{Content, Delivery};
use serde_json::json;

use crate::harness::avro::Decoder as Avro;
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::http::Connection;
use crate::harness::process::free_port;
use crate::harness::{eventually, senders, services};

const SCHEMA: &str = r#"{"type": "record", "name": "copy.Order", "fields": [
    {"name": "id", "type": "string"}, {"name": "note", "type": ["null", "string"], "default": null}]}"#;

/// The datum of `{"id": "o1", "note": "n"}`.
const DATUM: &[u8] = b"\x04o1\x02\x02n";

fn registry(url: &str, cache: &tempfile::TempDir, auto_register: bool) -> Registry {
    let config = config::Registry {
        url: url.to_owned(),
        auto_register,
        cache: cache.path().to_owned(),
        username: None,
        password: None,
    };
    Registry::new(&config).unwrap()
}

/// Registers the event's own schema, as its producer did.
async fn registered(subject: &str) -> u32 {
    let url = format!("{}/subjects/{subject}/versions", services().registry);
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let answer = client.post(url).json(&json!({ "schema": SCHEMA })).send().await.unwrap();
    let answer: serde_json::Value = answer.error_for_status().unwrap().json().await.unwrap();
    u32::try_from(answer["id"].as_u64().unwrap()).unwrap()
}

async fn event(registry: &Registry, schema_id: u32, mapped: Option<&str>) -> (Delivery, Record) {
    let mut value = Vec::new();
    wire::frame(schema_id, &mut value);
    value.extend_from_slice(DATUM);
    let mut json = Vec::new();
    Decoder::new(registry.clone()).open(&value).await.unwrap().json("", &mut json).unwrap();
    let identity = Identity { source: "shop".into(), id: "e1".into(), event_type: "order".into() };
    let origin = Record {
        at: TopicPartition { topic: "events.order".into(), partition: 0 },
        offset: 0,
        timestamp_ms: None,
        key: Some(b"k".to_vec()),
        value: Some(value),
        headers: Headers::default(),
    };
    let delivery = Delivery {
        delivery_id: identity.delivery_id("copies"),
        identity,
        offset: 0,
        received_at_ms: None,
        occurred_at: None,
        schema_id,
        content: mapped.map_or(Content::Json(json), |json| Content::Mapped(json.as_bytes().to_vec())),
    };
    (delivery, origin)
}

#[tokio::test]
async fn a_copy_is_written_under_the_subject_of_its_own_topic() {
    let own = uuid::Uuid::new_v4().simple().to_string();
    let schema_id = registered(&format!("{own}.events.order-value")).await;
    let cache = tempfile::tempdir().unwrap();
    let strict = registry(&services().registry, &cache, false);
    let (delivery, origin) = event(&strict, schema_id, Some(r#"{"id": "o1"}"#)).await;
    let sink = |registry| Kafka::new(&format!("{own}."), "copies.{event_type}", &["order".to_owned()], registry);

    // Nobody registered it, and the bridge may not: the sink is held, and it is said what to do.
    let held = sink(strict.clone()).write(&delivery, &origin, &mut Scratch::default()).await;
    let Err(Outcome::Misconfigured { reason }) = held else { panic!("{held:?}") };
    assert!(reason.contains(&format!("{own}.copies.order-value")) && reason.contains("auto_register"), "{reason}");

    let elsewhere = tempfile::tempdir().unwrap();
    let willing = sink(registry(&services().registry, &elsewhere, true));
    let mapped = willing.write(&delivery, &origin, &mut Scratch::default()).await.unwrap();
    assert_eq!(&*mapped.topic, format!("{own}.copies.order"));
    let (id, datum) = wire::unframe(mapped.value.as_deref().unwrap()).unwrap();
    assert_eq!(datum, b"\x04o1\x00", "what the map removed takes its default");

    // Whoever reads the copy needs nothing but the registry.
    let reader = tempfile::tempdir().unwrap();
    let reader = registry(&services().registry, &reader, false);
    assert_eq!(Decoder::new(reader.clone()).decode(mapped.value.as_deref().unwrap()).await.unwrap().writer.id, id);

    // Registered by now, and found by content: by another bridge too, which copies the datum as it is.
    let (delivery, origin) = event(&strict, schema_id, None).await;
    let copied = sink(strict).write(&delivery, &origin, &mut Scratch::default()).await.unwrap();
    assert_eq!(wire::unframe(copied.value.as_deref().unwrap()).unwrap(), (id, DATUM));
}

#[tokio::test]
async fn a_registry_that_is_down_is_waited_for() {
    let own = uuid::Uuid::new_v4().simple().to_string();
    let schema_id = registered(&format!("{own}.events.order-value")).await;
    let cache = tempfile::tempdir().unwrap();
    let up = registry(&services().registry, &cache, true);
    let (delivery, origin) = event(&up, schema_id, None).await;
    let down = tempfile::tempdir().unwrap();
    let down = registry(&format!("http://127.0.0.1:{}", free_port()), &down, true);
    let sink = Kafka::new("", "copies", &["order".to_owned()], down);
    let waits = sink.write(&delivery, &origin, &mut Scratch::default()).await;
    assert!(matches!(waits, Err(Outcome::Transient { .. })), "{waits:?}");
}

/// A start, a join of the group, and what is left to copy; after a kill also the transaction that it left open.
const SOON: Duration = Duration::from_secs(90);

fn setup(name: &str) -> Setup {
    let tail = r"
instance: a

sinks:
  copies:
    type: kafka
    events: [order_placed]
    topic: copies.order_placed
    map: del(.sequence)
    where: .customer_id != 'nobody'
"
    .replace('\'', "\"");
    Setup { tail, ..Setup::new(name) }
}

async fn send(bridge: &Bridge, customer: &str, numbers: std::ops::Range<usize>) {
    let mut connection = Connection::open(bridge.port()).await.expect("the bridge takes connections");
    for sequence in numbers {
        let id = format!("{customer}-{sequence}");
        let body =
            format!(r#"{{"type": "order_placed", "data": {{"customer_id": "{customer}", "sequence": {sequence}}}}}"#);
        let answer = connection.send(&senders::standard("shop", &id, body.as_bytes())).await.expect("an answer");
        assert!(answer.is_success(), "{}", answer.text());
    }
}

/// What a reader of committed records sees of the copies: by key, the event ids in their order.
fn copies(bridge: &Bridge) -> BTreeMap<String, Vec<String>> {
    let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in services().read(&[&bridge.topic("copies.order_placed")]) {
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("text");
        copies.entry(key).or_default().push(record.header("ce_id").expect("an event id").to_owned());
    }
    copies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_copied_once_and_in_order_whatever_dies() {
    let mut bridge = Bridge::start(setup("copies")).await;
    let customers: Vec<String> = (0..12).map(|number| format!("c{number}")).collect();
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..3 {
        for customer in &customers {
            send(&bridge, customer, round * 20..(round + 1) * 20).await;
            let ids = (round * 20..(round + 1) * 20).map(|sequence| format!("{customer}-{sequence}"));
            expected.entry(customer.clone()).or_default().extend(ids);
        }
        send(&bridge, "nobody", round..round + 1).await;
        // Somewhere within its transactions.
        bridge.kill9();
        bridge.restart();
        bridge.wait_ready().await;
    }
    let total: usize = expected.values().map(Vec::len).sum();
    let copied = eventually("every event to be copied", SOON, async || {
        let copied = copies(&bridge);
        (copied.values().map(Vec::len).sum::<usize>() >= total).then_some(copied)
    })
    .await;
    assert_eq!(copied, expected, "once each, in order, and none of what the filter leaves out");

    let mut decoder = Avro::new(&bridge.setup.registry);
    for record in services().read(&[&bridge.topic("copies.order_placed")]) {
        let copy = decoder.decode(record.value.as_deref().expect("a copy")).await;
        assert_eq!(copy["sequence"], 0, "what the map took out has its default: {copy}");
    }
    let receipts = services().read(&[&bridge.topic("receipts.copies.events.order_placed")]);
    assert_eq!(receipts.len(), total + 3, "a receipt for each event, those of nobody too");
}
