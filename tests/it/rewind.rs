//! Rewinds of sinks that have receipts: each owner goes back once, what was delivered is left alone unless everything was
//! wanted again, and then each event has another id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::receiver::{Answer, Receiver, SIGNING_KEY};
use crate::harness::{eventually, services};
use crate::way_back::{order, with};

/// A start, a join of the group, and what is left to deliver.
const SOON: Duration = Duration::from_secs(90);

const CUSTOMERS: [&str; 3] = ["bad", "good", "hidden"];

const HIDING: &str = "    where: .customer_id != \"hidden\"\n";

fn setup(name: &str, sink: &str) -> Setup {
    let tail = format!("\ninstance: a\n\negress: {{ allow: [127.0.0.0/8] }}\n\nsinks:\n{sink}{HIDING}");
    Setup { tail, ..Setup::new(name) }
}

async fn send(bridge: &Bridge) {
    for sequence in 0..5 {
        for customer in CUSTOMERS {
            order(bridge, &format!("{customer}-{sequence}"), customer, sequence).await;
        }
    }
}

async fn wait_settled(bridge: &Bridge, sink: &str, count: f64) {
    eventually("settlements", SOON, async || {
        let settled = bridge.metrics().await.sum("hookbridge_settlements_total", &[("sink", sink)]);
        (settled >= count).then_some(())
    })
    .await;
}

async fn rewind(setup: &Setup, sink: &str, more: &[&str]) {
    let ran = with(setup, &[&["sink", "rewind", sink, "--since", "1h", "--yes"], more].concat()).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(" -> 0, "), "{}{}", ran.out, ran.err);
    assert_eq!(ran.err.contains("every effect repeats"), !more.is_empty(), "{}", ran.err);
}

/// Ends the bridge in good order, and has it run again by what its file says then.
async fn restart(bridge: &mut Bridge, between: impl AsyncFnOnce(&mut Setup)) {
    bridge.ask_to_stop();
    assert_eq!(bridge.wait_ended(SOON).code(), Some(0), "{}", bridge.log());
    between(&mut bridge.setup).await;
    bridge.restart();
    bridge.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rewind_calls_for_what_was_not_delivered_and_with_again_for_everything_under_new_ids() {
    let crm = Receiver::start().await;
    let is_broken = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_broken);
    crm.answer(move |call| {
        Answer::Status(if asked.load(Ordering::SeqCst) && call.customer() == "bad" { 422 } else { 204 })
    });
    let sink = format!(
        "  crm:\n    type: http\n    url: {}\n    events: [order_placed]\n    purpose: none\n    \
         sign: {{ standard_webhooks: whsec_{} }}\n",
        crm.url(),
        BASE64.encode(SIGNING_KEY)
    );
    let mut bridge = Bridge::start(setup("rewind", &sink)).await;
    send(&bridge).await;
    wait_settled(&bridge, "crm", 15.0).await;
    assert_eq!((crm.calls().len(), crm.taken().len()), (10, 5));

    // The vendor is mended, and so is the filter; nobody runs while the order is given.
    is_broken.store(false, Ordering::SeqCst);
    restart(&mut bridge, async |setup: &mut Setup| {
        setup.tail = setup.tail.replace(HIDING, "");
        setup.write();
        rewind(setup, "crm", &[]).await;
    })
    .await;
    crm.wait_taken(15, SOON).await;
    wait_settled(&bridge, "crm", 10.0).await;
    assert_eq!(crm.calls().len(), 20, "what was delivered is not sent again");
    let first: BTreeSet<String> = crm.times_taken().into_keys().collect();
    assert_eq!(first.len(), 15);

    rewind(&bridge.setup, "crm", &["--again"]).await;
    crm.wait_taken(30, SOON).await;
    wait_settled(&bridge, "crm", 25.0).await;
    restart(&mut bridge, async |_: &mut Setup| {}).await;
    order(&bridge, "last", "last", 0).await;
    crm.wait_taken(31, SOON).await;
    assert_eq!(crm.calls().len(), 36, "each order was carried out once");
    let times = crm.times_taken();
    assert!(times.len() == 31 && times.values().all(|times| *times == 1), "{times:?}");
    let mut again: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for call in crm.taken().into_iter().filter(|call| !first.contains(&call.id) && call.customer() != "last") {
        again.entry(call.customer().to_owned()).or_default().push(call.sequence());
    }
    assert_eq!(again.len(), 3);
    assert!(again.values().all(|order| *order == [0, 1, 2, 3, 4]), "in order: {again:?}");

    let traced = with(&bridge.setup, &["trace", "good-3", "--json"]).await;
    assert_eq!(traced.code, Some(0), "{}{}", traced.out, traced.err);
    let traced: serde_json::Value = serde_json::from_str(&traced.out).unwrap();
    let states: Vec<_> = traced["sinks"].as_array().unwrap().iter().map(|one| (&one["state"], &one["again"])).collect();
    assert_eq!(states, [(&"delivered".into(), &false.into()), (&"delivered".into(), &true.into())], "{traced}");
    let told = with(&bridge.setup, &["trace", "good-3"]).await;
    assert!(told.out.contains("delivered, again"), "{}", told.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rewind_copies_what_was_left_out_and_with_again_everything_under_new_ids() {
    let sink = "  copies:\n    type: kafka\n    events: [order_placed]\n    topic: copies.order_placed\n";
    let mut bridge = Bridge::start(setup("rewind-copies", sink)).await;
    send(&bridge).await;
    let copies = |bridge: &Bridge| -> BTreeMap<String, Vec<String>> {
        let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in services().read(&[&bridge.topic("copies.order_placed")]) {
            let id = record.header("hookbridge-delivery-id").expect("a delivery id").to_owned();
            copies.entry(record.header("ce_id").expect("an event id").to_owned()).or_default().push(id);
        }
        copies
    };
    let total = |copies: &BTreeMap<String, Vec<String>>| copies.values().map(Vec::len).sum::<usize>();
    wait_settled(&bridge, "copies", 15.0).await;
    assert_eq!(total(&copies(&bridge)), 10);

    restart(&mut bridge, async |setup: &mut Setup| {
        setup.tail = setup.tail.replace(HIDING, "");
        setup.write();
        rewind(setup, "copies", &[]).await;
    })
    .await;
    let found = eventually("what was left out", SOON, async || {
        let found = copies(&bridge);
        (total(&found) >= 15).then_some(found)
    })
    .await;
    assert!(found.len() == 15 && found.values().all(|ids| ids.len() == 1), "{found:?}");

    rewind(&bridge.setup, "copies", &["--again"]).await;
    let again = eventually("everything once more", SOON, async || {
        let found = copies(&bridge);
        (total(&found) >= 30).then_some(found)
    })
    .await;
    assert!(again.values().all(|ids| ids.len() == 2 && ids[0] != ids[1]), "{again:?}");
    restart(&mut bridge, async |_: &mut Setup| {}).await;
    order(&bridge, "last", "last", 0).await;
    wait_settled(&bridge, "copies", 1.0).await;
    assert_eq!(total(&copies(&bridge)), 31, "each order was carried out once");
}
