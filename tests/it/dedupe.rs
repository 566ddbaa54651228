//! What comes again: answered with the place of the first, and not written a second time.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use crate::harness::bridge::{Bridge, Receipt, Setup};
use crate::harness::http::{Request, Response};
use crate::harness::reader::Isolation;
use crate::harness::{eventually, own_kafka, senders, services};

const SOON: Duration = Duration::from_secs(20);
/// The producer gives a record up after the five seconds that the test asks for; a broker takes longer to come back.
const REPORTED_WITHIN: Duration = Duration::from_secs(60);

fn order(id: &str) -> Request {
    senders::standard("shop", id, br#"{"type": "order_placed", "data": {"customer_id": "c"}}"#)
}

/// Of a 2xx: the receipt, which has to have this status.
fn taken(response: &Response, status: &str) -> Receipt {
    let receipt = Receipt::of(response);
    assert_eq!(receipt.status(), status, "{}", receipt.0);
    assert_eq!(receipt.0["deduplicated"], json!(status == "duplicate"), "{}", receipt.0);
    receipt
}

/// The ids in the topic of orders, in the order of their partition and offset.
fn orders(bridge: &Bridge) -> Vec<String> {
    let topic = bridge.topic("events.order_placed");
    let records = services().read_from(&bridge.setup.bootstrap, Isolation::Committed, &[&topic]);
    records.iter().map(|record| record.header("ce_id").expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_comes_twenty_times_at_once_is_one_record() {
    let bridge = Bridge::start(Setup::new("dedupe")).await;
    let mut answers = JoinSet::new();
    for _ in 0..20 {
        let mut connection = bridge.connect().await.unwrap();
        answers.spawn(async move { connection.send(&order("evt_1")).await.unwrap() });
    }
    let receipts: Vec<Value> = answers.join_all().await.iter().map(|answer| Receipt::of(answer).0).collect();
    let of_status = |status: &str| receipts.iter().filter(|receipt| receipt["status"] == status).count();
    assert_eq!((of_status("accepted"), of_status("duplicate")), (1, 19), "{receipts:?}");
    let places: BTreeSet<String> = receipts
        .iter()
        .map(|receipt| {
            json!([receipt["topic"], receipt["partition"], receipt["offset"], receipt["schema"]]).to_string()
        })
        .collect();
    assert_eq!(places.len(), 1, "one place and schema for all: {places:?}");
    assert_eq!(orders(&bridge), ["evt_1"]);

    // The same id of another source, or for another event type, is another event.
    let body = br#"{"type": "order_placed", "data": {"customer_id": "c"}}"#;
    taken(&bridge.post(&senders::standard("strict", "evt_1", body)).await, "accepted");
    let body = br#"{"type": "contact_added", "data": {"email_sha256": "e"}}"#;
    taken(&bridge.post(&senders::standard("shop", "evt_1", body)).await, "accepted");

    let metrics = bridge.metrics().await;
    let counted = metrics.sum("hookbridge_events_deduplicated_total", &[("source", "shop")]);
    assert!((counted - 19.0).abs() < 0.5, "{counted} duplicates are counted");
    assert!((metrics.sum("hookbridge_dedupe_entries", &[]) - 3.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_before_a_kill_is_known_after_it() {
    let mut bridge = Bridge::start(Setup::new("dedupe-kill")).await;
    let mut connection = bridge.connect().await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..50 {
        let answer = connection.send(&order(&format!("evt_{number}"))).await.unwrap();
        receipts.push(taken(&answer, "accepted"));
    }
    bridge.kill9();
    bridge.restart();
    bridge.wait_ready().await;
    let mut connection = bridge.connect().await.unwrap();
    for (number, first) in receipts.iter().enumerate() {
        let answer = connection.send(&order(&format!("evt_{number}"))).await.unwrap();
        let again = taken(&answer, "duplicate");
        assert_eq!((again.place(), &again.0["schema"]), (first.place(), &first.0["schema"]));
    }
    assert_eq!(orders(&bridge).len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_instance_took_another_knows() {
    let one = Setup { more_ingest: "  dedupe: { scope: cluster, max_entries: 50000 }\n", ..Setup::new("dedupe-one") };
    let mut other = Setup { more_ingest: one.more_ingest, ..Setup::new("dedupe-other") };
    other.prefix.clone_from(&one.prefix);
    let one = Bridge::start(one).await;
    let other = Bridge::start(other).await;
    let first = taken(&one.post(&order("evt_1")).await, "accepted");
    eventually("the other to have read it", SOON, async || {
        (other.metrics().await.sum("hookbridge_dedupe_entries", &[]) > 0.5).then_some(())
    })
    .await;
    let again = taken(&other.post(&order("evt_1")).await, "duplicate");
    assert_eq!((again.place(), &again.0["schema"]), (first.place(), &first.0["schema"]));
    assert_eq!(orders(&one), ["evt_1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_waits_for_the_first_record_though_its_sender_has_gone() {
    let kafka = own_kafka();
    let setup = Setup { bootstrap: kafka.bootstrap(), deadline: "20s", ..Setup::new("dedupe-frozen") };
    let bridge = Bridge::start(setup).await;
    kafka.freeze();
    let mut gone = bridge.connect().await.unwrap();
    let request = order("evt_1");
    gone.write(&[request.head(request.body.len()), request.body.clone()].concat()).await.unwrap();
    eventually("the record to be on its way", SOON, async || {
        (bridge.metrics().await.sum("hookbridge_in_flight_records", &[]) > 0.5).then_some(())
    })
    .await;
    drop(gone);
    let mut connection = bridge.connect().await.unwrap();
    let repeat = tokio::spawn(async move { connection.send(&order("evt_1")).await.unwrap() });
    // Another event shows that what came before it was not answered for want of a look.
    let mut connection = bridge.connect().await.unwrap();
    let later = tokio::spawn(async move { connection.send(&order("evt_2")).await.unwrap() });
    eventually("the other record to be on its way", SOON, async || {
        (bridge.metrics().await.sum("hookbridge_in_flight_records", &[]) > 1.5).then_some(())
    })
    .await;
    assert!(!repeat.is_finished() && !later.is_finished(), "nothing is answered before kafka has confirmed it");
    kafka.thaw();
    let again = taken(&repeat.await.unwrap(), "duplicate");
    taken(&later.await.unwrap(), "accepted");
    assert_eq!(taken(&bridge.post(&order("evt_1")).await, "duplicate").place(), again.place());
    let mut written = orders(&bridge);
    written.sort_unstable();
    assert_eq!(written, ["evt_1", "evt_2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_record_failed_may_be_written_again_and_not_before() {
    let mut kafka = own_kafka();
    let more_librdkafka = r#", message.timeout.ms: "5000""#;
    let setup = Setup { bootstrap: kafka.bootstrap(), deadline: "1s", more_librdkafka, ..Setup::new("dedupe-failed") };
    let bridge = Bridge::start(setup).await;
    kafka.kill9();
    assert_eq!(bridge.post(&order("evt_1")).await.status, 503);
    // In flight: a repeat waits until its own deadline, and adds no record.
    assert_eq!(bridge.post(&order("evt_1")).await.status, 503);
    let metrics = bridge.metrics().await;
    assert!((metrics.sum("hookbridge_in_flight_records", &[]) - 1.0).abs() < 0.5);
    eventually("the record to be given up", REPORTED_WITHIN, async || {
        (bridge.metrics().await.sum("hookbridge_dedupe_uncertain_total", &[]) > 0.5).then_some(())
    })
    .await;
    kafka.restart().unwrap();
    eventually("the event to be taken", REPORTED_WITHIN, async || {
        let answer = bridge.post(&order("evt_1")).await;
        answer.is_success().then(|| Receipt::of(&answer))
    })
    .await;
    taken(&bridge.post(&order("evt_1")).await, "duplicate");
    assert_eq!(orders(&bridge), ["evt_1"]);
}

/// Mailgun signs a time and a token, and not the event.
const MAIL: &str = r#"
  mail:
    preset: mailgun
    secrets: [a-secret-of-the-tests-mail]
    events:
      - event: order_placed
        map: '{ customer_id: ."event-data".recipient, quantity: ."event-data".quantity, consent: {} }'
"#;

fn mail(token: &str, id: &str, quantity: &Value) -> Request {
    let (timestamp, signature) = senders::mailgun("a-secret-of-the-tests-mail", token);
    let body = json!({
        "signature": { "timestamp": timestamp, "token": token, "signature": signature },
        "event-data": { "id": id, "event": "opened", "recipient": "c", "quantity": quantity },
    });
    senders::request("mail", body.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_that_does_not_cover_the_event_brings_the_one_that_it_came_with() {
    let mut bridge = Bridge::start(Setup { more_sources: MAIL.to_owned(), ..Setup::new("dedupe-token") }).await;
    // What is kept in quarantine does not spend the token.
    let bad = mail("token-1", "evt_1", &json!("many")).header("hookbridge-failed", "[7]");
    taken(&bridge.post(&bad).await, "quarantined");
    let kept = services().read(&[&bridge.topic("quarantine.mail")]);
    assert_eq!(kept.len(), 1);
    // Known to whoever replays it, also after a restart; and a sender does not speak in the bridge's name.
    assert_eq!(kept[0].header("hookbridge-replay-key"), Some(hex::encode(Sha256::digest("token-1")).as_str()));
    assert_eq!(kept[0].header("hookbridge-failed"), Some("[0]"));
    let first = taken(&bridge.post(&mail("token-1", "evt_1", &json!(1))).await, "accepted");
    for restarted in [false, true] {
        if restarted {
            bridge.kill9();
            bridge.restart();
            bridge.wait_ready().await;
        }
        let again = taken(&bridge.post(&mail("token-1", "evt_1", &json!(1))).await, "duplicate");
        assert_eq!(again.place(), first.place());
        for forged in [mail("token-1", "evt_2", &json!(1)), mail("token-1", "evt_2", &json!("many"))] {
            let answer = bridge.post(&forged).await;
            assert_eq!(answer.status, 401, "restarted: {restarted}: {}", answer.text());
        }
        let labels = [("source", "mail"), ("reason", "replayed")];
        let refused = bridge.metrics().await.sum("hookbridge_signatures_rejected_total", &labels);
        assert!((refused - 2.0).abs() < 0.5, "{refused} refusals are counted");
    }
    taken(&bridge.post(&mail("token-2", "evt_2", &json!(1))).await, "accepted");
    assert_eq!(orders(&bridge).len(), 2);
}
