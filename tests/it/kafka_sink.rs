//! What a Kafka sink writes, with a real registry: under its own topic's subject, and only what that has.

use std::sync::Arc;
use std::time::Duration;

use hookbridge::config;
use hookbridge::event::Identity;
use hookbridge::kafka::{Record, TopicPartition};
use hookbridge::outcome::Outcome;
use hookbridge::schema::plan::Scratch;
use hookbridge::schema::{Decoder, Registry, wire};
use hookbridge::sinks::kafka::Kafka;
use hookbridge::sinks::{Delivery, Shape};
use serde_json::json;

use crate::harness::process::free_port;
use crate::harness::services;

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
    let decoded = Decoder::new(registry.clone()).decode(&value).await.unwrap();
    let identity = Identity { source: "shop".into(), id: "e1".into(), event_type: "order".into() };
    let origin = Record {
        at: TopicPartition { topic: "events.order".into(), partition: 0 },
        offset: 0,
        timestamp_ms: None,
        key: Some(b"k".to_vec()),
        value: Some(value),
        headers: vec![],
    };
    let delivery = Delivery {
        delivery_id: identity.delivery_id("copies"),
        identity,
        offset: 0,
        received_at_ms: None,
        occurred_at: None,
        schema_id,
        shape: Arc::new(Shape::new(&decoded.writer.schema)),
        value: decoded.value,
        mapped: mapped.map(|json| json.as_bytes().to_vec()),
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
