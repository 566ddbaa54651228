//! The way back: what was refused is sent again, once, in order, to whom it was meant for, and nothing else is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::cli::{Ran, run};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::receiver::{Answer, Receiver, SIGNING_KEY};
use crate::harness::{eventually, senders};

/// A start, a join of the group, and what is left to deliver.
const SOON: Duration = Duration::from_secs(60);

/// A bridge with two sinks, each with a receiver of its own.
fn setup(name: &str, crm: &Receiver, other: &Receiver) -> Setup {
    let sink = |name: &str, receiver: &Receiver| {
        format!(
            "  {name}:\n    type: http\n    url: {}\n    events: [order_placed]\n    purpose: none\n    \
             sign: {{ standard_webhooks: whsec_{} }}\n",
            receiver.url(),
            BASE64.encode(SIGNING_KEY)
        )
    };
    let sinks = [sink("crm", crm), sink("other", other)].concat();
    let tail = format!("\ninstance: a\n\negress: {{ allow: [127.0.0.0/8] }}\n\nsinks:\n{sinks}");
    Setup { tail, ..Setup::new(name) }
}

/// Runs a command with the setup's configuration, off the threads that the receivers need.
async fn with(setup: &Setup, arguments: &[&str]) -> Ran {
    let file = setup.folder.join("hookbridge.yaml").to_str().unwrap().to_owned();
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let ran = tokio::task::spawn_blocking(move || {
        let all: Vec<&str> = arguments.iter().map(String::as_str).chain(["--config", &file]).collect();
        run(&all, b"")
    });
    ran.await.expect("no panic")
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON, one a line")).collect()
}

async fn order(bridge: &Bridge, id: &str, customer: &str, sequence: usize) {
    let body =
        format!(r#"{{"type": "order_placed", "data": {{"customer_id": "{customer}", "sequence": {sequence}}}}}"#);
    let answer = bridge.post(&senders::standard("shop", id, body.as_bytes())).await;
    assert!(answer.is_success(), "{}", answer.text());
}

/// The sink's dead letters, by state.
async fn states(setup: &Setup) -> BTreeMap<String, usize> {
    let listed = with(setup, &["dead", "list", "crm", "--json"]).await;
    assert_eq!(listed.code, Some(0), "{}{}", listed.out, listed.err);
    let mut states = BTreeMap::new();
    for letter in lines(&listed) {
        *states.entry(letter["state"].as_str().expect("a state").to_owned()).or_default() += 1;
    }
    states
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_vendors_repair_each_dead_letter_is_delivered_once_in_order_to_its_own_sink() {
    let broken = Arc::new(AtomicBool::new(true));
    let crm = Receiver::start().await;
    let is_broken = Arc::clone(&broken);
    crm.answer(move |call| {
        let refused = is_broken.load(Ordering::SeqCst) && call.customer().starts_with("bad");
        Answer::Status(if refused { 422 } else { 204 })
    });
    let other = Receiver::start().await;
    let bridge = Bridge::start(setup("dead", &crm, &other)).await;
    let setup = &bridge.setup;
    for sequence in 0..5 {
        for customer in ["bad-1", "good-1", "bad-2"] {
            order(&bridge, &format!("{customer}-{sequence}"), customer, sequence).await;
        }
    }
    eventually("ten dead letters", SOON, async || (states(setup).await.get("dead") == Some(&10)).then_some(())).await;
    other.wait_taken(15, SOON).await;
    crm.wait_taken(5, SOON).await;

    let refused = with(setup, &["dead", "replay", "crm"]).await;
    assert_eq!(refused.code, Some(2), "nobody said which: {}{}", refused.out, refused.err);
    let selected = with(setup, &["dead", "list", "crm", "--json", "--where", ".data.customer_id == \"bad-1\""]).await;
    let selected = lines(&selected);
    assert_eq!(selected.len(), 5);
    assert!(selected.iter().all(|one| one["reason"] == "rejected" && one["origin"]["offset"].is_i64()), "{selected:?}");
    let table = with(setup, &["dead", "list", "crm"]).await;
    assert!(
        table.out.starts_with("PLACE ") && table.err.contains("10 dead letter(s): 10 dead"),
        "{}{}",
        table.out,
        table.err
    );
    let shown = with(setup, &["dead", "show", "crm", "bad-1-3"]).await;
    assert_eq!(shown.code, Some(0), "{}{}", shown.out, shown.err);
    assert!(shown.out.contains("__connect.errors.topic") && shown.out.contains("dead (rejected)"), "{}", shown.out);
    assert_eq!(with(setup, &["dead", "show", "crm", "nobody"]).await.code, Some(1));

    // The vendor's repair.
    broken.store(false, Ordering::SeqCst);
    let rehearsed = with(setup, &["dead", "replay", "crm", "--all", "--dry-run"]).await;
    assert_eq!(rehearsed.code, Some(0), "{}{}", rehearsed.out, rehearsed.err);
    assert_eq!(rehearsed.out.matches("would pass").count(), 10, "{}", rehearsed.out);
    assert_eq!(states(setup).await, [("dead".to_owned(), 10)].into(), "a rehearsal sends nothing");

    let one = with(setup, &["dead", "replay", "crm", "--where", ".data.customer_id == \"bad-1\""]).await;
    assert_eq!((one.code, one.out.lines().count()), (Some(0), 5), "{}{}", one.out, one.err);
    // Twice at once: what is on its way is not sent again.
    let (all, again) = tokio::join!(
        with(setup, &["dead", "replay", "crm", "--all"]),
        with(setup, &["dead", "replay", "crm", "--all"])
    );
    assert_eq!((all.code, again.code), (Some(0), Some(0)), "{}{}{}{}", all.out, all.err, again.out, again.err);
    crm.wait_taken(15, SOON).await;
    eventually("ten deliveries", SOON, async || (states(setup).await.get("delivered") == Some(&10)).then_some(()))
        .await;
    let last = with(setup, &["dead", "replay", "crm", "--all"]).await;
    assert_eq!(last.code, Some(0), "{}{}", last.out, last.err);
    assert_eq!(last.out.matches("left alone (delivered)").count(), 10, "{}", last.out);

    assert!(crm.times_taken().values().all(|times| *times == 1), "each once: {:?}", crm.times_taken());
    let mut orders: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for call in crm.taken() {
        orders.entry(call.customer().to_owned()).or_default().push(call.sequence());
    }
    assert_eq!(orders.len(), 3);
    assert!(orders.values().all(|order| *order == [0, 1, 2, 3, 4]), "in order: {orders:?}");
    assert_eq!(other.calls().len(), 15, "nobody else was called again");
}
