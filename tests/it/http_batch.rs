//! HTTP sinks that send events together: whatever the receiver says of a batch, each event has its own end, once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::http::Connection;
use crate::harness::receiver::{Answer, Call, Receiver};
use crate::harness::{eventually, senders, services};
use crate::http_sink;

/// A start, a join of the group, and what is left to deliver.
const SOON: Duration = Duration::from_secs(60);

/// Customers, and orders of each: a batch holds one of each customer at most.
const CUSTOMERS: usize = 100;
const ORDERS: i64 = 3;
const EVENTS: usize = 300;

/// Orders that the receiver will never take.
const POISONED: [(&str, i64); 3] = [("c7", 0), ("c31", 1), ("c90", 2)];

fn setup(name: &str, receiver: &Receiver, batch: &str) -> Setup {
    let batch = format!("    batch:\n      max_events: 100\n      linger: 300ms\n{batch}");
    let setup = http_sink::setup(name, receiver, "a", &batch);
    // Few calls at once, so that batches fill while they are out.
    let tail = setup.tail.replace("concurrency: 16", "concurrency: 2").replace("timeout: 5s", "timeout: 10s");
    Setup { tail, ..setup }
}

/// Sends every order of every customer, and waits for each to be accepted.
async fn send_all(bridge: &Bridge) {
    let mut connection = Connection::open(bridge.port()).await.expect("the bridge takes connections");
    for sequence in 0..ORDERS {
        for customer in 0..CUSTOMERS {
            let id = format!("c{customer}-{sequence}");
            let body = json!({
                "type": "order_placed", "data": { "customer_id": format!("c{customer}"), "sequence": sequence },
            });
            let answer = connection.send(&senders::standard("shop", &id, body.to_string().as_bytes())).await;
            let answer = answer.expect("an answer");
            assert!(answer.is_success(), "{}", answer.text());
            if answer.closes() {
                connection = Connection::open(bridge.port()).await.expect("the bridge takes connections");
            }
        }
    }
}

/// An order in a call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    id: String,
    customer: String,
    sequence: i64,
}

impl Order {
    fn is_poisoned(&self) -> bool {
        POISONED.contains(&(self.customer.as_str(), self.sequence))
    }
}

/// The orders of a call, `data` being where an element has them.
fn orders(elements: &Value, id: &str, data: impl Fn(&Value) -> Value) -> Vec<Order> {
    let order = |element: &Value| {
        let data = data(element);
        Order {
            id: element[id].as_str().expect("a delivery id").to_owned(),
            customer: data["customer_id"].as_str().expect("a customer").to_owned(),
            sequence: data["sequence"].as_i64().expect("a sequence"),
        }
    };
    elements.as_array().expect("an array").iter().map(order).collect()
}

fn plain(call: &Call) -> Vec<Order> {
    orders(&call.body, "id", |element| element["data"].clone())
}

fn wrapped(call: &Call) -> Vec<Order> {
    orders(&call.body["events"], "insert_id", Value::clone)
}

async fn wait_settled(bridge: &Bridge) {
    eventually("settlements", SOON, async || {
        let metrics = bridge.metrics().await;
        let settled = metrics.sum("hookbridge_settlements_total", &[("sink", "crm")]);
        (settled >= f64::from(u32::try_from(EVENTS).unwrap())).then_some(())
    })
    .await;
}

/// Each order had its effect once, those of a customer in their order.
fn check_effects(taken: &[Order]) {
    let ids: BTreeSet<_> = taken.iter().map(|order| order.id.clone()).collect();
    assert_eq!((taken.len(), ids.len()), (EVENTS - POISONED.len(), EVENTS - POISONED.len()));
    assert!(!taken.iter().any(Order::is_poisoned));
    let mut last: HashMap<&str, i64> = HashMap::new();
    for order in taken {
        if let Some(before) = last.insert(&order.customer, order.sequence) {
            assert!(before < order.sequence, "{order:?} after {before}");
        }
    }
}

/// The dead letters' messages, by delivery id.
fn dead_letters(bridge: &Bridge) -> BTreeMap<String, String> {
    let found = services().read(&[&bridge.topic("dead.crm")]);
    let header = |record: &crate::harness::reader::Record, name: &str| record.header(name).expect(name).to_owned();
    let letter =
        |record| (header(record, "hookbridge-delivery-id"), header(record, "__connect.errors.exception.message"));
    found.iter().map(letter).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_batches_that_are_refused_whole_only_the_events_to_blame_become_dead_letters() {
    let receiver = Receiver::start().await;
    receiver.answer(|call| {
        let is_refused = plain(call).iter().any(Order::is_poisoned);
        if is_refused { Answer::Status(400) } else { Answer::Status(202) }
    });
    let bridge = Bridge::start(setup("batch_whole", &receiver, "")).await;
    send_all(&bridge).await;
    wait_settled(&bridge).await;

    let calls = receiver.calls();
    let (taken, refused): (Vec<&Call>, Vec<&Call>) = calls.iter().partition(|call| call.answered == Some(202));
    let taken: Vec<Order> = taken.into_iter().flat_map(plain).collect();
    check_effects(&taken);
    assert!(calls.iter().all(|call| plain(call).len() <= 100));
    assert!(calls.iter().any(|call| plain(call).len() >= 50), "events were sent together");

    let poisoned: Vec<Order> =
        refused.iter().map(|call| plain(call)).filter(|orders| orders.len() == 1).flatten().collect();
    assert_eq!(poisoned.len(), POISONED.len(), "each is refused alone, once: {poisoned:?}");
    for order in &poisoned {
        // A hundred are halved seven times.
        let times = refused.iter().filter(|call| plain(call).contains(order)).count();
        assert!(times <= 8, "{order:?} was refused {times} times");
    }
    let dead = dead_letters(&bridge);
    assert_eq!(dead.keys().cloned().collect::<BTreeSet<_>>(), poisoned.into_iter().map(|order| order.id).collect());
    assert!(dead.values().all(|message| message.contains("400")), "{dead:?}");
    let metrics = bridge.metrics().await;
    let counted = metrics.sum("hookbridge_batch_events_count", &[("sink", "crm")]);
    assert!((counted - f64::from(u32::try_from(calls.len()).unwrap())).abs() < 0.5, "{counted} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_names_the_failed_events_settles_each_by_itself() {
    let receiver = Receiver::start().await;
    let mut held_up = false;
    receiver.answer(move |call| {
        // As Mixpanel's import does: 400, and all others are in.
        let mut failed = vec![];
        for (index, order) in wrapped(call).iter().enumerate() {
            if order.is_poisoned() {
                failed.push(json!({ "index": index, "insert_id": order.id, "message": "no such customer" }));
            } else if order.customer == "c50" && !std::mem::replace(&mut held_up, true) {
                failed.push(json!({ "index": index, "insert_id": order.id, "message": "busy", "busy": true }));
            }
        }
        let status = if failed.is_empty() { 200 } else { 400 };
        Answer::Json(status, json!({ "code": status, "failed_records": failed }))
    });
    let batch = r"      body: '{events: map(.data + {insert_id: .id})}'
      failed: '.failed_records | map({id: .insert_id, reason: .message, retry: (.busy // false)})'
";
    let bridge = Bridge::start(setup("batch_partial", &receiver, batch)).await;
    send_all(&bridge).await;
    wait_settled(&bridge).await;

    let mut times: HashMap<String, usize> = HashMap::new();
    let mut taken = vec![];
    let mut busy = None;
    for order in receiver.calls().iter().flat_map(wrapped) {
        *times.entry(order.id.clone()).or_default() += 1;
        if order.customer == "c50" && busy.is_none() {
            busy = Some(order);
        } else if !order.is_poisoned() {
            taken.push(order);
        }
    }
    check_effects(&taken);
    let busy = busy.expect("it was sent").id;
    assert!(times.iter().all(|(id, times)| *times == if *id == busy { 2 } else { 1 }), "{times:?}");
    let dead = dead_letters(&bridge);
    assert_eq!(dead.len(), POISONED.len());
    assert!(dead.values().all(|message| message.contains("no such customer")), "{dead:?}");
}
