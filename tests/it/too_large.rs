//! Records that do not fit, and records that are gone: the event they are of is settled otherwise, and nothing stands still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::commands::alter;
use crate::harness::avro::Decoder;
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::postgres::Database;
use crate::harness::reader::Record;
use crate::harness::receiver::{Answer, Call, Receiver};
use crate::harness::{eventually, senders, services};
use crate::{http_sink, way_back};

/// A start, a join of the group, and what is left to deliver.
const SOON: Duration = Duration::from_secs(60);

/// The pause of a parked key, too.
const LATER: Duration = Duration::from_secs(120);

/// What a topic takes in these tests.
const LIMIT: usize = 20_000;

/// Above it, however well it is compressed.
fn note() -> String {
    (0..2_000).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect()
}

async fn send(bridge: &Bridge, customer: &str, sequence: usize, note: &str) {
    let body = format!(
        r#"{{"type": "order_placed", "data": {{"customer_id": "{customer}", "sequence": {sequence}, "note": "{note}"}}}}"#
    );
    let request = senders::standard("shop", &format!("{customer}-{sequence}"), body.as_bytes());
    let answer = bridge.post(&request).await;
    assert!(answer.is_success(), "{}", answer.text());
}

/// What an operator does to a topic by Kafka's own tools.
async fn limit(topic: &str, bytes: usize) {
    let topic = topic.to_owned();
    let altered = tokio::task::spawn_blocking(move || alter(&topic, &[("max.message.bytes", &bytes.to_string())]));
    altered.await.expect("no panic");
}

/// Retention takes all that is in the only partition of a topic.
async fn expire(topic: String) {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &services().bootstrap).create().expect("an admin client");
    let mut to = TopicPartitionList::new();
    to.add_partition_offset(&topic, 0, Offset::End).expect("a place");
    client.delete_records(&to, &AdminOptions::new()).await.expect("they are gone");
}

fn read(topic: &str) -> Vec<Record> {
    services().read(&[topic])
}

async fn receipts(bridge: &Bridge, sink: &str) -> Vec<Value> {
    let mut decoder = Decoder::new(&bridge.setup.registry);
    let mut found = Vec::new();
    for record in read(&bridge.topic(&format!("receipts.{sink}.events.order_placed"))) {
        found.push(decoder.decode(record.value.as_deref().expect("a receipt")).await);
    }
    found
}

async fn order(setup: &Setup, arguments: &[&str]) {
    let ran = way_back::with(setup, arguments).await;
    assert_eq!(ran.code, Some(0), "{arguments:?}: {}{}", ran.out, ran.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_that_its_topic_does_not_take_is_a_dead_letter_whole_or_without_its_body_and_can_be_sent_again() {
    let tail = "
instance: a

sinks:
  copies:
    type: kafka
    events: [order_placed]
    topic: copies.order_placed
";
    let bridge = Bridge::start(Setup { tail: tail.to_owned(), partitions: 1, ..Setup::new("vast") }).await;
    let (copies, dead) = (bridge.topic("copies.order_placed"), bridge.topic("dead.copies"));
    limit(&copies, LIMIT).await;
    let big = note();
    // In one transaction, and so in one batch, with small ones that are not at fault.
    order(&bridge.setup, &["sink", "pause", "copies"]).await;
    for sequence in 0..30 {
        send(&bridge, "c", sequence, if matches!(sequence, 10 | 20) { &big } else { "" }).await;
    }
    order(&bridge.setup, &["sink", "resume", "copies"]).await;
    eventually("the small ones", SOON, async || (read(&copies).len() == 28).then_some(())).await;
    eventually("two dead letters", SOON, async || (read(&dead).len() == 2).then_some(())).await;
    for letter in read(&dead) {
        let why = letter.header("__connect.errors.exception.message").expect("a message");
        assert!(why.contains(&copies) && why.contains("20000"), "{why}");
        assert!(letter.value.as_ref().is_some_and(|value| value.len() > big.len()), "the whole event");
        assert_eq!(letter.header("hookbridge-body-left-out"), None);
    }

    // The topic of dead letters takes no more than that of the copies.
    limit(&dead, LIMIT).await;
    send(&bridge, "c", 30, &big).await;
    send(&bridge, "c", 31, "").await;
    eventually("what came behind it", SOON, async || (read(&copies).len() == 29).then_some(())).await;
    let letter = eventually("the third dead letter", SOON, async || read(&dead).into_iter().nth(2)).await;
    assert_eq!(letter.value, None);
    let left_out: usize = letter.header("hookbridge-body-left-out").expect("its size").parse().unwrap();
    assert!(left_out > big.len(), "{left_out}");
    let place = letter.header("__connect.errors.offset").expect("where it stands");
    assert_eq!((place, letter.header("ce_id")), ("30", Some("c-30")));
    let told = receipts(&bridge, "copies").await;
    let outcomes = |outcome: &str| told.iter().filter(|one| one["outcome"] == outcome).count();
    assert_eq!((outcomes("delivered"), outcomes("dead"), told.len()), (29, 3, 32), "one receipt each");
    assert!(told.iter().all(|one| one["outcome"] != "dead" || one["reason"] == "rejected"), "{told:?}");

    limit(&copies, 1 << 20).await;
    order(&bridge.setup, &["dead", "replay", "copies", "--all"]).await;
    eventually("all copies", SOON, async || (read(&copies).len() == 32).then_some(())).await;
    let whole = read(&copies).into_iter().filter(|copy| copy.value.as_ref().is_some_and(|one| one.len() > big.len()));
    assert_eq!(whole.count(), 3, "the one whose letter had no body, too");
}

/// A receiver that refuses `c1` while it is broken.
async fn receiver() -> (Receiver, Arc<AtomicBool>) {
    let receiver = Receiver::start().await;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    receiver.answer(move |call| {
        Answer::Status(if call.customer() == "c1" && is_broken.load(Ordering::SeqCst) { 500 } else { 204 })
    });
    (receiver, broken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_that_no_receipt_has_room_for_is_parked_all_the_same_and_read_again_from_its_own_topic() {
    let (receiver, broken) = receiver().await;
    let setup = http_sink::setup("narrow", &receiver, "a", "    retry: { in_place: 1s, max_age: 1h }\n");
    let bridge = Bridge::start(setup).await;
    limit(&bridge.topic("receipts.crm.events.order_placed"), LIMIT).await;
    let big = note();
    for sequence in 0..3 {
        for customer in ["c1", "c2"] {
            send(&bridge, customer, sequence, if sequence == 1 { &big } else { "" }).await;
        }
    }
    receiver.wait_taken(3, SOON).await;
    let parked = async || receipts(&bridge, "crm").await.iter().filter(|one| one["outcome"] == "parked").count();
    eventually("its key to be parked", SOON, async || (parked().await >= 3).then_some(())).await;
    broken.store(false, Ordering::SeqCst);
    receiver.wait_taken(6, LATER).await;
    http_sink::check_order(&receiver, 6);
    let whole = receiver.taken().iter().filter(|call| call.body["data"]["note"] == big.as_str()).count();
    assert_eq!(whole, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_parked_event_that_retention_took_is_one_dead_letter_and_its_key_goes_on() {
    let (receiver, broken) = receiver().await;
    let setup = http_sink::setup("expired", &receiver, "a", "    retry: { in_place: 1s, max_age: 1h }\n");
    let bridge = Bridge::start(Setup { partitions: 1, ..setup }).await;
    send(&bridge, "c1", 0, "").await;
    let parked = async || receipts(&bridge, "crm").await.iter().any(|one| one["outcome"] == "parked");
    eventually("its key to be parked", SOON, async || parked().await.then_some(())).await;
    for topic in ["receipts.crm.events.order_placed", "events.order_placed"] {
        expire(bridge.topic(topic)).await;
    }
    send(&bridge, "c1", 1, "").await;
    send(&bridge, "c2", 0, "").await;
    receiver.wait_taken(1, SOON).await;
    broken.store(false, Ordering::SeqCst);
    receiver.wait_taken(2, LATER).await;
    let dead = read(&bridge.topic("dead.crm"));
    let [letter] = dead.as_slice() else { panic!("{dead:?}") };
    assert_eq!(letter.header("__connect.errors.exception.class.name"), Some("hookbridge.expired"));
    let why = letter.header("__connect.errors.exception.message").expect("a message");
    assert!(why.contains("retention"), "{why}");
    let metrics = bridge.metrics().await;
    let labels = [("sink", "crm"), ("outcome", "dead"), ("reason", "expired")];
    assert!((metrics.sum("hookbridge_settlements_total", &labels) - 1.0).abs() < f64::EPSILON);
    assert!(bridge.log().contains("retention took a parked record"), "{}", bridge.log());
    assert_eq!(receiver.taken().iter().map(Call::sequence).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_whose_dead_letter_does_not_fit_is_buried_without_its_body() {
    let database = Database::create(&services().postgres).await;
    let setup = Setup { database: Some(database.url.clone()), partitions: 1, ..Setup::new("buried") };
    let bridge = Bridge::start(setup).await;
    limit(&bridge.topic("dead.warehouse"), LIMIT).await;
    // Postgres holds no text with a zero.
    let bad = format!(r"\u0000{}", note());
    for (sequence, note) in ["", &bad, "", r"\u0000", ""].into_iter().enumerate() {
        send(&bridge, "c", sequence, note).await;
    }
    let settled = async |outcome| {
        let labels = [("sink", "warehouse"), ("outcome", outcome)];
        bridge.metrics().await.sum("hookbridge_settlements_total", &labels)
    };
    eventually("three rows", SOON, async || (settled("delivered").await >= 3.0).then_some(())).await;
    eventually("two dead letters", SOON, async || (settled("dead").await >= 2.0).then_some(())).await;
    let dead = read(&bridge.topic("dead.warehouse"));
    let bodies: BTreeMap<_, _> = dead
        .iter()
        .map(|letter| (letter.header("ce_id").expect("an id"), letter.header("hookbridge-body-left-out").is_none()))
        .collect();
    assert_eq!(bodies, [("c-1", false), ("c-3", true)].into());
    assert!(dead.iter().all(|letter| letter.value.is_some() == bodies[letter.header("ce_id").expect("an id")]));
}
