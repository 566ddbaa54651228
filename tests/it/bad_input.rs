//! What hostile, broken and merely unlucky senders send, and what is down when they do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::harness::bridge::{Bridge, Receipt, Setup, command};
use crate::harness::gate::Gate;
use crate::harness::http::Request;
use crate::harness::process::folder;
use crate::harness::reader::Isolation;
use crate::harness::{eventually, own_kafka, senders, services};

/// One bridge for the tests that only send; it ends with the run.
async fn bridge() -> &'static Bridge {
    static BRIDGE: OnceCell<Bridge> = OnceCell::const_new();
    BRIDGE.get_or_init(|| Bridge::start(Setup::new("bad-input"))).await
}

fn order(data: &str) -> Vec<u8> {
    format!(r#"{{"type": "order_placed", "data": {data}}}"#).into_bytes()
}

/// The ids that are in the topic of orders, of those that begin like this.
fn published(bridge: &Bridge, id: &str) -> usize {
    let records = services().read(&[&bridge.topic("events.order_placed"), &bridge.topic("quarantine.shop")]);
    let is_it = |value: Option<&str>| value.is_some_and(|value| value.starts_with(id));
    records.iter().filter(|record| is_it(record.header("ce_id")) || is_it(record.header("webhook-id"))).count()
}

#[tokio::test]
async fn a_wrong_signature_and_an_unknown_source_cannot_be_told_apart() {
    let bridge = bridge().await;
    let good = senders::standard("shop", "evt_auth", &order(r#"{"customer_id": "c"}"#));
    let mut forged = good.clone();
    forged.body.push(b' ');
    let mut unknown = good.clone();
    unknown.path = "/hooks/no-such-source".to_owned();
    let mut unsigned = good.clone();
    unsigned.headers.retain(|(name, _)| name == "content-type");
    let stale = senders::standard_at("shop", "evt_auth", senders::now() - 3_600, &good.body);
    let early = senders::standard_at("shop", "evt_auth", senders::now() + 3_600, &good.body);

    let expected = bridge.post(&forged).await;
    assert_eq!(expected.status, 401);
    for request in [unknown, unsigned, stale, early] {
        let answer = bridge.post(&request).await;
        assert_eq!((answer.status, answer.text()), (401, expected.text()), "{request:?}");
        assert_eq!(answer.header("content-type"), expected.header("content-type"));
    }
    assert_eq!(published(bridge, "evt_auth"), 0);
}

#[tokio::test]
async fn a_body_that_ends_early_is_never_published() {
    let bridge = bridge().await;
    let request = senders::standard("shop", "evt_truncated", &order(r#"{"customer_id": "c"}"#));
    for close in [true, false] {
        let mut connection = bridge.connect().await.unwrap();
        // The signature is that of the whole, so that only the length tells.
        connection.write(&request.head(request.body.len() + 100)).await.unwrap();
        connection.write(&request.body).await.unwrap();
        if close {
            connection.close_sending().await.unwrap();
        }
        // An answer that is no success, or none at all: within the body's timeout and never the start of a wait.
        let answer = tokio::time::timeout(Duration::from_secs(10), connection.read()).await.expect("an end");
        assert!(answer.is_err() || !answer.unwrap().is_success());
    }
    assert_eq!(published(bridge, "evt_truncated"), 0);
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_its_name() {
    let bridge = bridge().await;
    let announced = senders::standard("shop", "evt_large", b"");
    let mut connection = bridge.connect().await.unwrap();
    connection.write(&announced.head(2 << 20)).await.unwrap();
    let answer = connection.read().await.expect("an answer before the body is sent");
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"), "what is left of the body is not read");

    let sent = bridge.post(&senders::standard("shop", "evt_large", &vec![b'a'; 2 << 20])).await;
    assert_eq!(sent.status, 413, "{}", sent.text());

    let mut flood = senders::standard("shop", "evt_flood", &order(r#"{"customer_id": "c"}"#));
    for number in 0..2_000 {
        flood = flood.header(&format!("x-flood-{number}"), "f".repeat(100));
    }
    assert_eq!(bridge.post(&flood).await.status, 431);

    let encoded = senders::standard("shop", "evt_gzip", b"\x1f\x8b").header("content-encoding", "gzip");
    assert_eq!(bridge.post(&encoded).await.status, 415);
    assert_eq!(published(bridge, "evt_"), 0);
}

/// The data of an order, and the pointer of the violation that it must have.
const VIOLATIONS: &[(&str, &str)] = &[
    (r#"{"customer_id": "c", "points": 9223372036854775808}"#, "/points"),
    (r#"{"customer_id": "c", "points": -9223372036854775809}"#, "/points"),
    (r#"{"customer_id": "c", "points": 1.5}"#, "/points"),
    (r#"{"customer_id": "c", "points": 1e400}"#, "/points"),
    (r#"{"customer_id": "c", "quantity": 2147483648}"#, "/quantity"),
    (r#"{"customer_id": "c", "tier": "gold"}"#, "/tier"),
    (r#"{"customer_id": "c", "total": 1.00001}"#, "/total"),
    (r#"{"customer_id": "c", "placed_at": 1700000000}"#, "/placed_at"),
    (r#"{"customer_id": "c", "reference": "not-a-uuid"}"#, "/reference"),
    (r#"{"customer_id": "c", "items": [{"sku": "a"}, {"price": 1}]}"#, "/items/1/sku"),
    (r#"{"customer_id": "c", "unheard/of": 1}"#, "/unheard~1of"),
];

#[tokio::test]
async fn every_violation_is_told_by_its_pointer_whether_it_is_refused_or_quarantined() {
    let bridge = bridge().await;
    for (number, (data, pointer)) in VIOLATIONS.iter().enumerate() {
        let id = format!("violation-{number}");
        let refused = bridge.post(&senders::standard("strict", &id, &order(data))).await;
        assert_eq!(refused.status, 422, "{data}: {}", refused.text());
        assert_eq!(pointers(&refused.json()), [*pointer], "{data}");

        let quarantined = bridge.post(&senders::standard("shop", &id, &order(data))).await;
        let receipt = Receipt::of(&quarantined);
        assert_eq!(receipt.status(), "quarantined", "{data}");
        assert_eq!(pointers(&receipt.0), [*pointer], "{data}");
    }
}

#[tokio::test]
async fn an_event_without_its_key_is_in_no_topic_of_events() {
    let bridge = bridge().await;
    // Where the schema asks for the field, it is the field that is missing; an empty one is no key.
    for (data, pointer, reason) in [
        (r#"{"sequence": 1}"#, "/customer_id", "missing_field"),
        (r#"{"customer_id": null, "sequence": 1}"#, "/customer_id", "datatype_mismatch"),
        (r#"{"customer_id": "", "sequence": 1}"#, "", "null_key"),
    ] {
        let refused = bridge.post(&senders::standard("strict", "keyless", &order(data))).await;
        assert_eq!(refused.status, 422, "{data}: {}", refused.text());
        let told = refused.json();
        let told: Vec<_> = told["violations"].as_array().expect("violations").iter().collect();
        let named = told.iter().any(|wrong| wrong["pointer"] == pointer && wrong["reason"] == reason);
        assert!(named, "{data}: {}", refused.text());
        let kept = Receipt::of(&bridge.post(&senders::standard("shop", "keyless", &order(data))).await);
        assert_eq!(kept.status(), "quarantined", "{data}");
    }
}

fn pointers(told: &Value) -> Vec<&str> {
    let violations = told["violations"].as_array().unwrap_or_else(|| panic!("no violations in {told}"));
    violations.iter().map(|violation| violation["pointer"].as_str().expect("a pointer")).collect()
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_or_refused_and_ends_nobody() {
    let bridge = bridge().await;
    let deep = format!(r#"{{"customer_id": {}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    let unreadable: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"not json".to_vec(),
        b"\xff\xfe{}".to_vec(),
        order(r#"{"customer_id": "c""#),
        order(r#"{"customer_id": "c"} trailing"#),
        order(&deep),
    ];
    for (number, body) in unreadable.iter().enumerate() {
        let id = format!("unreadable-{number}");
        let kept = Receipt::of(&bridge.post(&senders::standard("shop", &id, body)).await);
        assert_eq!(kept.status(), "quarantined", "{number}");
        let refused = bridge.post(&senders::standard("strict", &id, body)).await;
        assert!([400, 422].contains(&refused.status), "{number}: {}", refused.text());
    }
    let unknown = br#"{"type": "nobody_knows", "data": {}}"#;
    assert_eq!(Receipt::of(&bridge.post(&senders::standard("shop", "unknown", unknown)).await).status(), "quarantined");
    let after = bridge.post(&senders::standard("shop", "after", &order(r#"{"customer_id": "c"}"#))).await;
    assert_eq!(Receipt::of(&after).status(), "accepted");
}

#[tokio::test]
async fn a_header_that_never_ends_does_not_hold_a_connection() {
    let bridge = bridge().await;
    let mut connection = bridge.connect().await.unwrap();
    connection.write(b"POST /hooks/shop HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    let began = Instant::now();
    // `header_timeout` is two seconds here. A byte now and then does not buy more.
    let mut drip = tokio::time::interval(Duration::from_millis(200));
    while connection.write(b"a").await.is_ok() {
        drip.tick().await;
        assert!(began.elapsed() < Duration::from_secs(10), "the connection is still open");
    }
}

#[tokio::test]
async fn a_registry_that_is_down_stops_nothing_that_was_known() {
    let gate = gate_before_registry().await;
    let setup = Setup { registry: through(&gate), ..Setup::new("registry-known") };
    let mut bridge = Bridge::start(setup).await;
    bridge.ask_to_stop();
    bridge.wait_ended(Duration::from_secs(30));

    gate.shut().await;
    bridge.restart();
    bridge.wait_ready().await;
    let answer = bridge.post(&senders::standard("shop", "known", &order(r#"{"customer_id": "c"}"#))).await;
    assert_eq!(Receipt::of(&answer).status(), "accepted");
}

#[tokio::test]
async fn without_the_registry_a_first_start_waits_and_says_for_what() {
    let gate = gate_before_registry().await;
    gate.shut().await;
    let bridge = Bridge::start_unready(Setup { registry: through(&gate), ..Setup::new("registry-unknown") });
    let bound = Duration::from_secs(60);
    eventually("the bridge to say that it waits for the registry", bound, async || {
        let answer = bridge.admin("/readyz").await?;
        assert_eq!(answer.status, 503, "not ready without a schema: {}", answer.text());
        answer.text().contains("registry").then_some(())
    })
    .await;
    assert_eq!(bridge.admin("/healthz").await.expect("it lives").status, 200);
    let answer = bridge.post(&senders::standard("shop", "early", &order(r#"{"customer_id": "c"}"#))).await;
    assert_eq!(answer.status, 503, "{}", answer.text());

    gate.open().await;
    bridge.wait_ready().await;
}

async fn gate_before_registry() -> Arc<Gate> {
    let url = reqwest::Url::parse(&services().registry).expect("the registry's address");
    Gate::before(&format!("{}:{}", url.host_str().unwrap(), url.port_or_known_default().unwrap())).await
}

/// The registry's address, by way of the gate.
fn through(gate: &Gate) -> String {
    let mut url = reqwest::Url::parse(&services().registry).expect("the registry's address");
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(gate.port)).unwrap();
    url.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kafka_nothing_is_promised_and_the_sender_is_asked_to_come_again() {
    let mut kafka = tokio::task::spawn_blocking(own_kafka).await.unwrap();
    let setup = Setup { bootstrap: kafka.bootstrap(), deadline: "1500ms", ..Setup::new("no-kafka") };
    let bridge = Bridge::start(setup).await;
    let request = |id: &str| senders::standard("shop", id, &order(r#"{"customer_id": "c"}"#));
    let mut accepted = vec![Receipt::of(&bridge.post(&request("before")).await).place()];

    // It hangs: nothing is confirmed, so nothing is promised, and within the deadline.
    kafka.freeze();
    for number in 0..3 {
        expect_503(&bridge, &request(&format!("frozen-{number}"))).await;
    }
    kafka.thaw();
    accepted.push(until_accepted(&bridge, &request("thawed")).await);

    // It is gone: the same.
    kafka.kill9();
    for number in 0..3 {
        expect_503(&bridge, &request(&format!("gone-{number}"))).await;
    }
    // Our own 503 has to reach the provider, so that we stay in the balancer, and say what is wrong.
    eventually("the bridge to see that Kafka is gone", Duration::from_secs(30), async || {
        let answer = bridge.admin("/readyz").await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().to_lowercase().contains("kafka").then_some(())
    })
    .await;
    kafka.restart().expect("the same broker again");
    accepted.push(until_accepted(&bridge, &request("back")).await);

    let topic = bridge.topic("events.order_placed");
    let found = services().read_from(&kafka.bootstrap(), Isolation::Uncommitted, &[&topic]);
    for place in &accepted {
        let is_there = found.iter().any(|record| (record.topic.clone(), record.partition, record.offset) == *place);
        assert!(is_there, "{place:?} was promised");
    }
}

async fn expect_503(bridge: &Bridge, request: &Request) {
    let began = Instant::now();
    let answer = bridge.post(request).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some(), "when to come again: {answer:?}");
    // The deadline is 1.5 s; the rest is for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(4), "answered after {:?}", began.elapsed());
}

async fn until_accepted(bridge: &Bridge, request: &Request) -> (String, i32, i64) {
    eventually("Kafka to confirm again", Duration::from_secs(60), async || {
        let answer = bridge.post(request).await;
        answer.is_success().then(|| Receipt::of(&answer).place())
    })
    .await
}

#[test]
fn five_mistakes_in_a_configuration_are_five_messages_and_no_start() {
    let file = folder("mistakes").join("hookbridge.yaml");
    let text = r#"
kafka: { bootstrap_servers: "127.0.0.1:9", topic_prefx: x }
ingest: { deadline: soon }
events:
  order_placed: { category: commerce, owner: it@example.com, key: ".customer_id |" }
sources:
  shop: { preset: standard-webhoks, secrets: [whsec_c2VjcmV0c2VjcmV0c2VjcmV0], event_type: .type }
sinks:
  warehouse: { type: postgres, url: "postgres://127.0.0.1/x", events: [order_placd] }
"#;
    std::fs::write(&file, text).unwrap();
    for arguments in [["run", "--config"], ["check", "--config"]] {
        let output = command(&arguments).arg(&file).output().expect("the bridge's binary");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        for mistake in ["topic_prefx", "soon", "key", "standard-webhoks", "order_placd"] {
            assert!(said.contains(mistake), "{mistake} is not named in:\n{said}");
        }
        assert!(said.contains("hookbridge.yaml:3"), "with file and line:\n{said}");
    }
}

#[test]
fn an_unset_variable_is_named_and_a_secret_is_not() {
    let folder = folder("secrets");
    let file = folder.join("hookbridge.yaml");
    let secret = json!("whsec_dGhlLXNlY3JldC10aGF0LW11c3Qtbm90LWJlLXNob3du");
    let text = format!(
        "kafka: {{ bootstrap_servers: \"${{IT_NOBODY_SETS_THIS}}\" }}\nsources:\n  shop:\n    preset: standard-webhooks\n    \
         secrets: [{secret}]\n    event_type: .type\n    unheard_of: 1\n"
    );
    std::fs::write(&file, text).unwrap();
    let output = command(&["run", "--config"]).arg(&file).output().expect("the bridge's binary");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("IT_NOBODY_SETS_THIS") && said.contains("unheard_of"), "{said}");
    assert!(!said.contains("dGhlLXNlY3JldC10"), "a secret is shown:\n{said}");
}
