//! Requests with several events: each good one is in its topic, each bad one in quarantine, and the answer says which.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bridge::{Bridge, Metrics, Setup};
use crate::harness::http::Response;
use crate::harness::reader::{Isolation, Record};
use crate::harness::{eventually, own_kafka, senders, services};

/// Two of HubSpot, that keep and that refuse what is invalid; one of Meta, whose events stand two arrays deep.
const SOURCES: &str = r#"
  crm:
    preset: hubspot
    public_url: https://hooks.example.com/hooks/crm
    secrets: [a-secret-of-the-tests-crm]
    events:
      - when: .subscriptionType == "contact.creation"
        event: order_placed
        map: '{ customer_id: .customer, sequence: .objectId, quantity: .quantity, note: .note }'
    on_unmapped: quarantine

  choosy:
    preset: hubspot
    public_url: https://hooks.example.com/hooks/choosy
    secrets: [a-secret-of-the-tests-crm]
    events:
      - when: .subscriptionType == "contact.creation"
        event: order_placed
        map: '{ customer_id: .customer, sequence: .objectId, quantity: .quantity, note: .note }'
    on_unmapped: ignore
    on_invalid: reject

  wide:
    preset: hubspot
    public_url: https://hooks.example.com/hooks/wide
    secrets: [a-secret-of-the-tests-crm]
    events:
      - event: order_placed
        map: '{ customer_id: .customer, sequence: .objectId, note: ("x" * (.times // 20000)) }'

  ads:
    preset: meta
    secrets: [a-secret-of-the-tests-crm]
    verify_token: it
    events:
      - when: .parent.parent.object == "page"
        event: order_placed
        map: '{ customer_id: .parent.id, note: .value.text }'
"#;

/// An event as HubSpot sends it; seven customers take turns.
fn contact(number: usize) -> Value {
    json!({
        "eventId": number, "subscriptionId": 12, "portalId": 33, "occurredAt": 1_767_225_599_616_i64, "objectId": 100 + number,
        "subscriptionType": "contact.creation", "customer": format!("customer-{}", number % 7), "quantity": number,
        "note": "a \"note\" ] }, {",
    })
}

fn id(number: usize) -> String {
    format!("33:12:{number}:{}:1767225599616", 100 + number)
}

/// A hundred of which three are no event: one of a wrong type, one without its id, one that no rule takes. Written with
/// line breaks, so that "byte for byte" says something.
fn hundred_with_three_bad() -> Vec<u8> {
    let mut contacts: Vec<Value> = (0..100).map(contact).collect();
    contacts[13]["quantity"] = json!("many");
    contacts[57]["eventId"] = Value::Null;
    contacts[99]["subscriptionType"] = json!("deal.creation");
    serde_json::to_vec_pretty(&contacts).unwrap()
}

fn body(contacts: impl IntoIterator<Item = Value>) -> Vec<u8> {
    Value::from_iter(contacts).to_string().into_bytes()
}

/// The entries of a 200.
fn entries(answer: &Response) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["events"].as_array().unwrap_or_else(|| panic!("no events in {}", answer.text())).clone()
}

fn read(bridge: &Bridge, topic: &str) -> Vec<Record> {
    services().read(&[&bridge.topic(topic)])
}

/// The record at an entry's place.
fn record<'r>(records: &'r [Record], entry: &Value) -> &'r Record {
    let is_there = |record: &&Record| {
        entry["topic"] == json!(record.topic)
            && entry["partition"] == json!(record.partition)
            && entry["offset"] == json!(record.offset)
    };
    records.iter().find(is_there).unwrap_or_else(|| panic!("nothing where {entry} says"))
}

#[tokio::test]
async fn the_good_events_of_a_request_are_in_their_topic_in_order_and_the_bad_ones_in_one_record() {
    let bridge = Bridge::start(Setup { more_sources: SOURCES.to_owned(), ..Setup::new("batches") }).await;
    let sent = hundred_with_three_bad();
    let answer = bridge.post(&senders::hubspot("crm", &sent)).await;
    let entries = entries(&answer);
    assert_eq!(entries.len(), 100, "an entry for each event");

    let events = read(&bridge, "events.order_placed");
    assert_eq!(events.len(), 97);
    let mut of_customer: BTreeMap<&[u8], i64> = BTreeMap::new();
    for (number, entry) in entries.iter().enumerate().filter(|(number, _)| ![13, 57, 99].contains(number)) {
        assert_eq!((&entry["status"], &entry["event_id"]), (&json!("accepted"), &json!(id(number))), "{entry}");
        let record = record(&events, entry);
        assert_eq!(record.header("ce_id"), Some(id(number).as_str()));
        let key = record.key.as_deref().expect("a key");
        assert_eq!(key, format!("customer-{}", number % 7).as_bytes());
        // One key has one partition: the later event stands behind the earlier one.
        let before = of_customer.insert(key, record.offset);
        assert!(before.is_none_or(|before| before < record.offset), "{number} overtook an earlier event of its key");
    }

    let quarantine = read(&bridge, "quarantine.crm");
    let [kept] = quarantine.as_slice() else { panic!("one record for the request: {quarantine:?}") };
    assert_eq!(kept.value.as_deref(), Some(sent.as_slice()), "byte for byte");
    assert_eq!(kept.header("hookbridge-failed"), Some("[13,57,99]"));
    assert_eq!(kept.header("hookbridge-events"), Some("100"));
    assert_eq!(kept.header("hookbridge-reason"), Some("mixed"));
    assert_eq!(kept.header("hookbridge-source"), Some("crm"));
    let told: Value = serde_json::from_str(kept.header("hookbridge-violations").expect("violations")).unwrap();
    let shown: Vec<_> =
        told["violations"].as_array().unwrap().iter().map(|wrong| (&wrong["index"], &wrong["reason"])).collect();
    let expected =
        [(13, "datatype_mismatch"), (57, "null_id"), (99, "unmapped")].map(|(at, why)| (json!(at), json!(why)));
    assert_eq!((told["total"].clone(), shown), (json!(3), expected.iter().map(|(at, why)| (at, why)).collect()));
    for (number, pointer) in [(13, "/quantity"), (57, ""), (99, "")] {
        let entry = &entries[number];
        assert_eq!(entry["status"], json!("quarantined"), "{entry}");
        assert_eq!(record(&quarantine, entry).offset, kept.offset);
        assert_eq!(entry["violations"][0]["pointer"], json!(pointer), "{entry}");
        assert_eq!(entry["violations_total"], json!(1));
    }

    let metrics = bridge.metrics().await;
    assert_eq!((count(&metrics, "accepted", "crm"), count(&metrics, "quarantined", "crm")), (97, 3));
}

#[tokio::test]
async fn a_request_of_any_shape_is_one_event_or_several_or_kept_whole() {
    let bridge = Bridge::start(Setup { more_sources: SOURCES.to_owned(), ..Setup::new("shapes") }).await;
    let none = bridge.post(&senders::hubspot("crm", b" [ ]\n")).await;
    assert!(entries(&none).is_empty(), "{}", none.text());
    let alone = bridge.post(&senders::hubspot("crm", contact(1).to_string().as_bytes())).await;
    assert_eq!(entries(&alone)[0]["event_id"], json!(id(1)), "an event without its array");

    // Two entries with two changes each, and one of a sort that nobody described.
    let page = json!({ "object": "page", "entry": [
        { "id": "page-1", "time": 1_767_225_599, "changes": [
            { "field": "leadgen", "value": { "leadgen_id": "lead-1", "text": "a" } }, { "field": "feed", "value": { "text": "b" } }] },
        { "time": 1_767_225_600, "changes": [{ "field": "feed", "value": { "text": "d" } }], "id": "page-2" },
        { "id": "page-3", "hop": [1] },
    ] });
    let answer = bridge.post(&senders::meta("ads", page.to_string().as_bytes())).await;
    let of_page = entries(&answer);
    let status: Vec<_> = of_page.iter().map(|entry| entry["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["accepted", "accepted", "accepted", "quarantined"], "{}", answer.text());
    assert_eq!(of_page[0]["event_id"], json!("lead-1"));
    let composed = of_page[1]["event_id"].as_str().unwrap();
    assert!(composed.starts_with("page:page-1:1767225599:feed:"), "{composed}");
    let events = read(&bridge, "events.order_placed");
    for (entry, key) in of_page.iter().zip(["page-1", "page-1", "page-2"]) {
        assert_eq!(record(&events, entry).key.as_deref(), Some(key.as_bytes()), "the entry's own field is in reach");
    }

    for (sent, reason) in [
        (b"[{\"eventId\": 1}, {]".to_vec(), "not_json"),
        (body((0..10_001).map(|number| json!({ "eventId": number }))), "too_many_events"),
    ] {
        let answer = bridge.post(&senders::hubspot("crm", &sent)).await;
        let kept = entries(&answer);
        assert_eq!((kept.len(), &kept[0]["reason"]), (1, &json!(reason)), "{}", answer.text());
        let quarantine = read(&bridge, "quarantine.crm");
        let record = record(&quarantine, &kept[0]);
        assert_eq!(record.value.as_deref(), Some(sent.as_slice()), "byte for byte");
        assert_eq!(record.header("hookbridge-reason"), Some(reason));
        assert_eq!(record.header("hookbridge-failed"), None, "it was not split");
    }
    // No record holds as much; Kafka being asked again and again would not change it.
    let mut huge = contact(2);
    huge["times"] = json!(1_400_000);
    let answer = bridge.post(&senders::hubspot("wide", &body([contact(1), huge]))).await;
    let told: Vec<_> =
        entries(&answer).iter().map(|entry| (entry["status"].clone(), entry["reason"].clone())).collect();
    assert_eq!(told, [(json!("accepted"), Value::Null), (json!("quarantined"), json!("event_too_large"))]);
    let most =
        bridge.post(&senders::hubspot("crm", &body((0..10_000).map(|number| json!({ "eventId": number }))))).await;
    let most = entries(&most);
    assert_eq!(most.len(), 10_000);
    let shown: usize = most.iter().map(|entry| entry["violations"].as_array().unwrap().len()).sum();
    assert_eq!(shown, 100, "the first hundred of the request");
    assert!(most.iter().all(|entry| entry["violations_total"] == json!(1)));
}

#[tokio::test]
async fn a_source_that_refuses_takes_all_events_of_a_request_or_none() {
    let bridge = Bridge::start(Setup { more_sources: SOURCES.to_owned(), ..Setup::new("choosy") }).await;
    let answer = bridge.post(&senders::hubspot("choosy", &hundred_with_three_bad())).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let problem = answer.json();
    let told = problem["violations"].as_array().unwrap().iter().map(|wrong| wrong["index"].as_u64().unwrap());
    // The hundredth is ignored here, and nothing invalid.
    assert_eq!(told.collect::<Vec<_>>(), [13, 57], "{problem}");
    assert_eq!(problem["violations_total"], json!(2));
    let unread = bridge.post(&senders::hubspot("choosy", b"[{\"eventId\": 1}, {]")).await;
    assert_eq!(unread.status, 400, "{}", unread.text());
    assert!(read(&bridge, "events.order_placed").is_empty(), "none of a refused request");
    assert!(read(&bridge, "quarantine.choosy").is_empty());

    let mut contacts: Vec<Value> = (0..100).map(contact).collect();
    contacts[99]["subscriptionType"] = json!("deal.creation");
    let answer = bridge.post(&senders::hubspot("choosy", &body(contacts))).await;
    let entries = entries(&answer);
    assert_eq!((entries.len(), &entries[99]["status"]), (100, &json!("ignored")));
    assert_eq!(read(&bridge, "events.order_placed").len(), 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kafka_a_request_is_not_promised_and_what_lands_all_the_same_is_counted() {
    let kafka = tokio::task::spawn_blocking(own_kafka).await.unwrap();
    let bootstrap = kafka.bootstrap();
    let setup = Setup {
        bootstrap: bootstrap.clone(),
        deadline: "1500ms",
        more_ingest: "  max_in_flight_bytes: 1MiB\n",
        more_sources: SOURCES.to_owned(),
        ..Setup::new("batches-no-kafka")
    };
    let bridge = Bridge::start(setup).await;
    let topic = bridge.topic("events.order_placed");

    kafka.freeze();
    let unconfirmed = bridge.post(&senders::hubspot("crm", &hundred_with_three_bad())).await;
    assert_eq!(unconfirmed.status, 503, "{}", unconfirmed.text());
    assert!(unconfirmed.header("retry-after").is_some());
    // Fifty of these are all that may wait; none of the request is promised, and those fifty come all the same.
    let full = bridge.post(&senders::hubspot("wide", &body((0..200).map(contact)))).await;
    assert_eq!(full.status, 503, "{}", full.text());
    assert!(full.text().contains("too much is waiting"), "{}", full.text());

    kafka.thaw();
    let again = eventually("Kafka to confirm again", Duration::from_secs(60), async || {
        let answer = bridge.post(&senders::hubspot("crm", &hundred_with_three_bad())).await;
        answer.is_success().then_some(answer)
    })
    .await;
    assert_eq!(entries(&again).len(), 100);
    // Each count is asked for before it is compared: whatever landed late is found in both the next time.
    let bound = Duration::from_secs(30);
    let wide = eventually("all that is there to be counted, and nothing else", bound, async || {
        let landed = services().read_from(&bootstrap, Isolation::Uncommitted, &[&topic]).len();
        let metrics = bridge.metrics().await;
        let of = |source: &str| count(&metrics, "accepted", source);
        (of("crm") + of("wide") == landed && of("wide") > 0).then(|| of("wide"))
    })
    .await;
    assert!(wide < 200, "{wide} of a request that was refused on the way");
}

fn count(metrics: &Metrics, what: &str, source: &str) -> usize {
    let found = metrics.sum(&format!("hookbridge_events_{what}_total"), &[("source", source)]);
    found.to_string().parse().expect("a whole number")
}
