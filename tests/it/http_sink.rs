//! Sinks that are called over HTTP: every event reaches the receiver once and in order, whatever happens on the way, and
//! the receipts say so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use tokio::sync::Notify;

use crate::harness::avro::Decoder;
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::http::Connection;
use crate::harness::process::free_port;
use crate::harness::receiver::{Answer, Receiver, SIGNING_KEY};
use crate::harness::{eventually, senders, services};

/// A start, a join of the group, and what is left to deliver.
const SOON: Duration = Duration::from_secs(60);

/// The end of a dead member's session, and of the transaction that it left open.
const AFTER_A_CRASH: Duration = Duration::from_secs(90);

/// A bridge's setup with one sink, `crm`, that calls the receiver. `more`: lines of the sink.
fn setup(name: &str, receiver: &Receiver, instance: &str, more: &str) -> Setup {
    let tail = format!(
        r"
instance: {instance}

egress: {{ allow: [127.0.0.0/8] }}

sinks:
  crm:
    type: http
    url: {url}
    events: [order_placed]
    purpose: none
    sign: {{ standard_webhooks: whsec_{key} }}
    concurrency: 16
    timeout: 5s
{more}",
        url = receiver.url(),
        key = BASE64.encode(SIGNING_KEY),
    );
    Setup { tail, ..Setup::new(name) }
}

/// A second process of the same bridge, in a folder and on ports of its own.
fn second(first: &Setup, instance: &str) -> Setup {
    let fresh = Setup::new("second");
    let old = first.tail.lines().find(|line| line.starts_with("instance:")).expect("an instance");
    let tail = first.tail.replace(old, &format!("instance: {instance}"));
    Setup { folder: fresh.folder, ingest_port: free_port(), admin_port: free_port(), tail, ..first.clone() }
}

/// Sends orders and waits for each to be accepted: `customer`'s from `first` on, `count` of them.
async fn send(bridge: &Bridge, customer: &str, first: usize, count: usize) {
    let mut connection = Connection::open(bridge.port()).await.expect("the bridge takes connections");
    for sequence in first..first + count {
        let id = format!("{customer}-{sequence}");
        let body = format!(
            r#"{{"type": "order_placed", "data": {{"customer_id": "{customer}", "sequence": {sequence}}}}}"#
        );
        let answer = connection.send(&senders::standard("shop", &id, body.as_bytes())).await.expect("an answer");
        assert!(answer.is_success(), "{}", answer.text());
        if answer.closes() {
            connection = Connection::open(bridge.port()).await.expect("the bridge takes connections");
        }
    }
}

fn customers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("c{number}")).collect()
}

async fn send_all(bridge: &Bridge, customers: &[String], first: usize, count: usize) {
    for customer in customers {
        send(bridge, customer, first, count).await;
    }
}

/// What the receiver took first of each customer is in the order in which it was sent.
fn check_order(receiver: &Receiver, expected: usize) {
    let mut last: HashMap<String, i64> = HashMap::new();
    let taken = receiver.taken();
    for call in &taken {
        if let Some(before) = last.insert(call.customer().to_owned(), call.sequence()) {
            assert!(before < call.sequence(), "{}: {} after {before}", call.customer(), call.sequence());
        }
    }
    assert_eq!(taken.len(), expected);
}

/// The receipts as the Java client and the Avro library see them, by delivery id and in their order.
async fn receipts(bridge: &Bridge) -> BTreeMap<String, Vec<Value>> {
    let topic = bridge.topic("receipts.crm.events.order_placed");
    let mut decoder = Decoder::new(&bridge.setup.registry);
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in services().read(&[&topic]) {
        let receipt = decoder.decode(record.value.as_deref().expect("a receipt")).await;
        assert_eq!(receipt["origin_partition"], record.partition, "a receipt is in the partition of its origin");
        found.entry(receipt["delivery_id"].as_str().expect("an id").to_owned()).or_default().push(receipt);
    }
    found
}

async fn wait_settled(bridge: &Bridge, count: usize) {
    eventually("settlements", SOON, async || {
        let metrics = bridge.metrics().await;
        let settled = metrics.sum("hookbridge_settlements_total", &[("sink", "crm")]);
        (settled >= f64::from(u32::try_from(count).unwrap())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_reaches_the_receiver_once_signed_and_its_receipt_says_so() {
    let receiver = Receiver::start().await;
    let mut bridge = Bridge::start(setup("http", &receiver, "a", "")).await;
    let customers = customers(20);
    send_all(&bridge, &customers, 0, 10).await;
    receiver.wait_taken(200, SOON).await;
    wait_settled(&bridge, 200).await;
    assert_eq!(receiver.calls().len(), 200, "no call was repeated");
    check_order(&receiver, 200);
    assert!(receiver.connections() <= 32, "{} connections for 16 calls at once", receiver.connections());

    let call = &receiver.calls()[0];
    assert_eq!(call.body["type"], "order_placed");

    let receipts = receipts(&bridge).await;
    let called: Vec<String> = receiver.times_taken().into_keys().collect();
    assert_eq!(receipts.keys().cloned().collect::<Vec<_>>(), called, "a receipt for each delivery, and no other");
    for (id, receipts) in &receipts {
        let [receipt] = receipts.as_slice() else { panic!("{id}: {receipts:?}") };
        assert_eq!((&receipt["outcome"], &receipt["attempts"]), (&"delivered".into(), &1.into()));
        assert!(receipt["received_at"].is_i64() || receipt["received_at"].is_string(), "{receipt}");
    }

    // A restart, in good order: nothing is sent again.
    bridge.ask_to_stop();
    assert_eq!(bridge.wait_ended(SOON).code(), Some(0), "{}", bridge.log());
    bridge.restart();
    bridge.wait_ready().await;
    send_all(&bridge, &customers, 10, 1).await;
    receiver.wait_taken(220, SOON).await;
    assert_eq!(receiver.calls().len(), 220, "what was delivered before the restart is not sent after it");
    check_order(&receiver, 220);
}
