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
pub(crate) fn setup(name: &str, receiver: &Receiver, instance: &str, more: &str) -> Setup {
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
pub(crate) async fn send(bridge: &Bridge, customer: &str, first: usize, count: usize) {
    let mut connection = Connection::open(bridge.port()).await.expect("the bridge takes connections");
    for sequence in first..first + count {
        let id = format!("{customer}-{sequence}");
        let body =
            format!(r#"{{"type": "order_placed", "data": {{"customer_id": "{customer}", "sequence": {sequence}}}}}"#);
        let answer = connection.send(&senders::standard("shop", &id, body.as_bytes())).await.expect("an answer");
        assert!(answer.is_success(), "{}", answer.text());
        if answer.closes() {
            connection = Connection::open(bridge.port()).await.expect("the bridge takes connections");
        }
    }
}

pub(crate) fn customers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("c{number}")).collect()
}

pub(crate) async fn send_all(bridge: &Bridge, customers: &[String], first: usize, count: usize) {
    for customer in customers {
        send(bridge, customer, first, count).await;
    }
}

/// What the receiver took first of each customer is in the order in which it was sent.
pub(crate) fn check_order(receiver: &Receiver, expected: usize) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_event_is_a_dead_letter_and_its_partition_goes_on() {
    let receiver = Receiver::start().await;
    receiver.answer(|call| if call.customer() == "c1" { Answer::Status(422) } else { Answer::Status(204) });
    let bridge = Bridge::start(setup("dead", &receiver, "a", "")).await;
    let customers = customers(6);
    send_all(&bridge, &customers, 0, 3).await;
    receiver.wait_taken(15, SOON).await;
    wait_settled(&bridge, 18).await;
    assert_eq!(receiver.calls().len(), 18, "an event that will never pass is not tried again");

    let (dead, events) = (bridge.topic("dead.crm"), bridge.topic("events.order_placed"));
    let found = services().read(&[&dead]);
    let origins: HashMap<(i32, i64), _> =
        services().read(&[&events]).into_iter().map(|record| ((record.partition, record.offset), record)).collect();
    assert_eq!(found.len(), 3);
    let receipts = receipts(&bridge).await;
    for record in found {
        let header = |name: &str| record.header(name).unwrap_or_else(|| panic!("no {name} in {record:?}"));
        assert_eq!(header("__connect.errors.topic"), events);
        let place = (header("__connect.errors.partition"), header("__connect.errors.offset"));
        let origin = &origins[&(place.0.parse().unwrap(), place.1.parse().unwrap())];
        assert_eq!((&record.key, &record.value), (&origin.key, &origin.value), "the original bytes");
        assert_eq!(header("ce_id"), origin.header("ce_id").unwrap(), "and the original headers");
        assert_eq!(header("__connect.errors.connector.name"), "crm");
        assert!(header("__connect.errors.exception.message").contains("422"));
        let receipt = receipts[header("hookbridge-delivery-id")].last().expect("a receipt");
        assert_eq!((&receipt["outcome"], &receipt["reason"]), (&"dead".into(), &"rejected".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_fails_parks_while_others_pass_and_is_delivered_in_order_once_the_receiver_is_mended() {
    let receiver = Receiver::start().await;
    let (broken, tried) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (is_broken, counted) = (Arc::clone(&broken), Arc::clone(&tried));
    receiver.answer(move |call| {
        if call.customer() == "c1" && is_broken.load(Ordering::SeqCst) {
            counted.fetch_add(1, Ordering::SeqCst);
            return Answer::Status(500);
        }
        Answer::Status(204)
    });
    let setup = setup("parked", &receiver, "a", "    retry: { in_place: 1s, max_age: 1h }\n");
    let mut bridge = Bridge::start(setup).await;
    let customers = customers(6);
    send_all(&bridge, &customers, 0, 4).await;
    receiver.wait_taken(20, SOON).await;
    let parked = |receipts: &BTreeMap<String, Vec<Value>>| {
        receipts.values().filter(|all| all.last().expect("one")["outcome"] == "parked").count()
    };
    eventually("the key to be parked", SOON, async || (parked(&receipts(&bridge).await) == 4).then_some(())).await;

    // The next owner knows what is parked, and what comes for its key parks behind it.
    bridge.ask_to_stop();
    assert_eq!(bridge.wait_ended(SOON).code(), Some(0), "{}", bridge.log());
    bridge.restart();
    bridge.wait_ready().await;
    send_all(&bridge, &customers, 4, 1).await;
    receiver.wait_taken(25, SOON).await;
    broken.store(false, Ordering::SeqCst);
    receiver.wait_taken(30, Duration::from_secs(120)).await;
    check_order(&receiver, 30);
    assert!(receiver.times_taken().values().all(|times| *times == 1), "{:?}", receiver.times_taken());
    eventually("every delivery to have its receipt", SOON, async || {
        let receipts = receipts(&bridge).await;
        let all = receipts.values().all(|all| all.last().expect("one")["outcome"] == "delivered");
        (all && receipts.len() == 30).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_between_the_answer_and_the_commit_repeats_under_the_same_id_at_most() {
    let receiver = Receiver::start().await;
    let mut bridge = Bridge::start(setup("kill", &receiver, "a", "")).await;
    let customers = customers(24);
    for round in 0..3 {
        let answered = Arc::new(Notify::new());
        let (word, count) = (Arc::clone(&answered), AtomicUsize::new(0));
        receiver.answer(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) == 30 {
                word.notify_one();
            }
            Answer::Status(204)
        });
        send_all(&bridge, &customers, round * 4, 4).await;
        answered.notified().await;
        bridge.kill9();
        bridge.restart();
        bridge.wait_ready().await;
    }
    receiver.answer(|_| Answer::Status(204));
    receiver.wait_taken(24 * 12, AFTER_A_CRASH).await;
    wait_settled(&bridge, 1).await;
    check_order(&receiver, 24 * 12);
    let repeated = receiver.times_taken().into_values().filter(|times| *times > 1).count();
    // What was answered since the last commit, and no more: sixteen at once, for the time of one transaction.
    assert!(repeated <= 3 * 24 * 4, "{repeated} deliveries were repeated");
    eventually("every delivery to have one receipt", SOON, async || {
        let receipts = receipts(&bridge).await;
        let once = receipts.values().all(|all| all.iter().filter(|one| one["outcome"] == "delivered").count() == 1);
        (once && receipts.len() == 24 * 12).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_that_share_the_partitions_one_is_killed_and_everything_arrives_in_order() {
    let receiver = Receiver::start().await;
    let first = Bridge::start(setup("shared", &receiver, "a", "")).await;
    let mut other = Bridge::start(second(&first.setup, "b")).await;
    let customers = customers(40);
    // The second one joins the group in its own time.
    let mut sent = 0;
    eventually("both to have delivered", SOON, async || {
        send_all(&first, &customers, sent, 1).await;
        sent += 1;
        let [one, two] = [first.metrics().await, other.metrics().await]
            .map(|metrics| metrics.sum("hookbridge_settlements_total", &[("sink", "crm")]));
        (one > 0.0 && two > 0.0).then_some(())
    })
    .await;
    send_all(&first, &customers, sent, 5).await;
    other.kill9();
    send_all(&first, &customers, sent + 5, 5).await;
    let all = customers.len() * (sent + 10);
    receiver.wait_taken(all, AFTER_A_CRASH).await;
    check_order(&receiver, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_slot_another_one_has_taken_ends_with_exit_code_78() {
    let receiver = Receiver::start().await;
    let mut first = Bridge::start(setup("fenced", &receiver, "a", "")).await;
    let customers = customers(8);
    send_all(&first, &customers, 0, 2).await;
    receiver.wait_taken(16, SOON).await;
    wait_settled(&first, 16).await;
    let other = Bridge::start(second(&first.setup, "a")).await;
    // It hears of it when it commits the next time, of a partition that it still has.
    let mut sent = 2;
    eventually("the first to end", SOON, async || {
        send_all(&other, &customers, sent, 1).await;
        sent += 1;
        first.has_ended().then_some(())
    })
    .await;
    assert_eq!(first.wait_ended(SOON).code(), Some(78), "{}", first.log());
    assert!(first.log().contains("has the same `instance`"), "{}", first.log());
    receiver.wait_taken(customers.len() * sent, AFTER_A_CRASH).await;
    check_order(&receiver, customers.len() * sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_at_most_once_and_not_answered_is_a_dead_letter_for_a_person() {
    let receiver = Receiver::start().await;
    receiver.answer(|call| if call.customer() == "c1" { Answer::Never } else { Answer::Status(204) });
    let setup = setup("most", &receiver, "a", "    guarantee: at_most_once\n");
    let bridge = Bridge::start(Setup { tail: setup.tail.replace("timeout: 5s", "timeout: 500ms"), ..setup }).await;
    let customers = customers(6);
    send_all(&bridge, &customers, 0, 2).await;
    wait_settled(&bridge, 12).await;
    assert_eq!(receiver.calls().len(), 12, "each was called once, answered or not");
    assert_eq!(services().read(&[&bridge.topic("dead.crm")]).len(), 2);
    for (id, all) in receipts(&bridge).await {
        let outcomes: Vec<_> = all.iter().map(|one| one["outcome"].as_str().expect("an outcome")).collect();
        assert!(matches!(outcomes[..], ["intent", "delivered" | "dead"]), "{id}: {outcomes:?}");
    }
}
