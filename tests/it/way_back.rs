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
use crate::harness::postgres::Database;
use crate::harness::receiver::{Answer, Call, Receiver, SIGNING_KEY};
use crate::harness::senders::{self, CRM_SECRET};
use crate::harness::{eventually, services};

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
pub(crate) async fn with(setup: &Setup, arguments: &[&str]) -> Ran {
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

pub(crate) async fn order(bridge: &Bridge, id: &str, customer: &str, sequence: usize) {
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

/// A source whose requests carry several events. `total`: how its map makes the amount.
fn hub(total: &str, unmapped: &str) -> String {
    format!(
        r#"
  hub:
    preset: hubspot
    secrets: [{CRM_SECRET}]
    public_url: https://hooks.example.com/hooks/hub
    events:
      - when: .subscriptionType == "deal.creation"
        event: order_placed
        map: '{{ customer_id: (.objectId | tostring), total: {total}, consent: {{}} }}'
    on_unmapped: {unmapped}
"#
    )
}

const MENDED: &str = r#"(if .total == "a lot" then "999.00" else .total end)"#;

/// A request with a good event, one whose total is no number, and one that no rule takes.
async fn deals(bridge: &Bridge, number: usize) {
    let event = |n: usize, subscription: &str, total: &str| {
        format!(
            r#"{{"eventId": {}, "portalId": 33, "subscriptionId": 12, "occurredAt": 1767225599616, "objectId": {number},
                "subscriptionType": "{subscription}", "total": "{total}"}}"#,
            10 * number + n
        )
    };
    let body =
        [event(0, "deal.creation", "1.00"), event(1, "deal.creation", "a lot"), event(2, "contact.creation", "")]
            .join(",");
    let answer = bridge.post(&senders::hubspot("hub", format!("[{body}]").as_bytes())).await;
    let statuses: Vec<Value> =
        answer.json()["events"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!(statuses, ["accepted", "quarantined", "quarantined"], "{}", answer.text());
}

/// How often each event is in the topic, for a reader of what was committed.
fn published(setup: &Setup) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for record in services().read(&[&setup.topic("events.order_placed")]) {
        *found.entry(record.header("ce_id").expect("an id").to_owned()).or_default() += 1;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_has_become_valid_leaves_quarantine_once_and_the_rest_stays() {
    const REQUESTS: usize = 40;
    let mut bridge = Bridge::start(Setup { more_sources: hub(".total", "quarantine"), ..Setup::new("kept") }).await;
    for number in 1..=REQUESTS {
        deals(&bridge, number).await;
    }
    let setup = &bridge.setup;
    let listed = with(setup, &["quarantine", "list", "hub"]).await;
    assert_eq!((listed.code, listed.out.lines().count()), (Some(0), REQUESTS + 1), "{}{}", listed.out, listed.err);
    assert!(listed.out.contains("2 of 3") && listed.out.contains("/total: "), "{}", listed.out);
    let one = with(setup, &["quarantine", "list", "hub", "--json", "--where", ".body[1].eventId == 11"]).await;
    let one = lines(&one);
    assert_eq!((one.len(), &one[0]["failed"], &one[0]["state"]), (1, &serde_json::json!([1, 2]), &"kept".into()));
    let place = one[0]["place"].as_str().unwrap().to_owned();
    let shown = with(setup, &["quarantine", "show", "hub", &place]).await;
    assert!(shown.code == Some(0) && shown.out.contains("[1] /total: "), "{}{}", shown.out, shown.err);

    let nothing = with(setup, &["quarantine", "replay", "hub", "--every"]).await;
    assert_eq!(nothing.code, Some(1), "nothing was mended: {}{}", nothing.out, nothing.err);
    assert_eq!(published(setup).len(), REQUESTS);

    // A person mends the mapping.
    bridge.setup.more_sources = hub(MENDED, "quarantine");
    let setup = &bridge.setup;
    setup.write();
    let rehearsed = with(setup, &["quarantine", "replay", "hub", &place, "--dry-run"]).await;
    assert_eq!(rehearsed.code, Some(1), "one of its events is still wrong: {}{}", rehearsed.out, rehearsed.err);
    assert!(
        rehearsed.out.contains("#1 would be published: order_placed 33:12:11:1:1767225599616 to "),
        "{}",
        rehearsed.out
    );
    assert_eq!(published(setup).len(), REQUESTS, "a rehearsal publishes nothing");
    let replayed = with(setup, &["quarantine", "replay", "hub", &place, "--json"]).await;
    assert_eq!(replayed.code, Some(1), "{}{}", replayed.out, replayed.err);
    assert_eq!(lines(&replayed)[0]["result"], "published");
    let state = with(setup, &["quarantine", "list", "hub", "--json", "--where", ".state == \"partly\""]).await;
    assert_eq!(lines(&state)[0]["replayed"][0]["indices"], serde_json::json!([1]));

    // Two at once: the second ends the first, or waits for its end; each event is published once.
    let (one, other) = tokio::join!(
        with(setup, &["quarantine", "replay", "hub", "--every"]),
        with(setup, &["quarantine", "replay", "hub", "--every"])
    );
    let again = with(setup, &["quarantine", "replay", "hub", "--every"]).await;
    assert_eq!(again.code, Some(1), "{}{}\n{}\n{}", again.out, again.err, one.err, other.err);
    let found = published(setup);
    assert_eq!(found.len(), 2 * REQUESTS);
    assert!(found.values().all(|times| *times == 1), "{found:?}\n{}\n{}", one.err, other.err);

    // The last is nobody's event, and is said to be.
    bridge.setup.more_sources = hub(MENDED, "ignore");
    let setup = &bridge.setup;
    setup.write();
    let ignored = with(setup, &["quarantine", "replay", "hub", "--every"]).await;
    assert_eq!(ignored.code, Some(0), "{}{}", ignored.out, ignored.err);
    let left = with(setup, &["quarantine", "list", "hub", "--where", ".state != \"replayed\""]).await;
    assert!(left.out.is_empty() && left.err.contains("0 request(s)"), "{}{}", left.out, left.err);
    assert_eq!(published(setup).len(), 2 * REQUESTS);

    let topic = setup.topic("events.order_placed");
    let record = services()
        .read(&[&topic])
        .into_iter()
        .find(|record| record.header("ce_id") == Some("33:12:11:1:1767225599616"))
        .unwrap();
    let lineage = record.header("hookbridge-replayed-from").expect("where it was");
    assert_eq!(lineage, format!("{}/{place}#1", setup.topic("quarantine.hub")));
    let tail = with(setup, &["tail", "quarantine.hub", "--from-beginning"]).await;
    assert!(tail.out.contains(" replayed "), "{}", tail.out);
}

/// Until the sink says that it is paused, or is not.
async fn wait_state(bridge: &Bridge, sink: &str, state: &str) {
    eventually(&format!("{sink} to be {state}"), SOON, async || {
        let metrics = bridge.metrics().await;
        (metrics.sum("hookbridge_sink_state", &[("sink", sink), ("state", state)]) >= 1.0).then_some(())
    })
    .await;
}

async fn rows(database: &Database) -> i64 {
    let client = database.connect().await;
    let there = client.query_one("SELECT to_regclass('order_placed') IS NOT NULL", &[]).await.expect("an answer");
    if !there.get::<_, bool>(0) {
        return 0;
    }
    client.query_one("SELECT count(*) FROM order_placed", &[]).await.expect("an answer").get(0)
}

async fn wait_rows(database: &Database, count: i64) {
    eventually(&format!("{count} rows"), SOON, async || (rows(database).await == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_paused_sink_sends_nothing_over_a_restart_and_a_database_is_read_for_again() {
    let (crm, other) = (Receiver::start().await, Receiver::start().await);
    let database = Database::create(&services().postgres).await;
    let mut setup = setup("orders", &crm, &other);
    let warehouse = format!(
        "  warehouse:\n    type: postgres\n    url: {}\n    events: [order_placed]\n    guarantee: exactly_once\n",
        database.url
    );
    setup.tail.push_str(&warehouse);
    let mut bridge = Bridge::start(setup).await;
    for sink in ["crm", "warehouse"] {
        let paused = with(&bridge.setup, &["sink", "pause", sink, "--reason", "the vendor moves house"]).await;
        assert_eq!(paused.code, Some(0), "{}{}", paused.out, paused.err);
        wait_state(&bridge, sink, "paused").await;
    }
    for sequence in 0..4 {
        order(&bridge, &format!("evt-{sequence}"), "c1", sequence).await;
    }
    other.wait_taken(4, SOON).await;
    let shown = with(&bridge.setup, &["sink", "show", "crm", "--json"]).await;
    assert_eq!(shown.code, Some(0), "{}{}", shown.out, shown.err);
    let shown = &lines(&shown)[0];
    assert_eq!((&shown["wanted"], &shown["order"]["reason"]), (&"paused".into(), &"the vendor moves house".into()));
    let lag: i64 = shown["lag"].as_array().unwrap().iter().map(|one| one["lag"].as_i64().unwrap()).sum();
    assert_eq!((lag, crm.calls().len(), rows(&database).await), (4, 0, 0));
    let listed = with(&bridge.setup, &["sink", "list"]).await;
    assert_eq!(listed.out.matches(" paused ").count(), 2, "{}", listed.out);
    let waiting = with(&bridge.setup, &["trace", "evt-2"]).await;
    assert_eq!((waiting.code, waiting.out.matches("waiting").count()), (Some(0), 2), "{}{}", waiting.out, waiting.err);

    // Whoever starts later wants the same.
    bridge.ask_to_stop();
    assert_eq!(bridge.wait_ended(SOON).code(), Some(0), "{}", bridge.log());
    bridge.restart();
    bridge.wait_ready().await;
    for sink in ["crm", "warehouse"] {
        wait_state(&bridge, sink, "paused").await;
    }
    order(&bridge, "evt-4", "c1", 4).await;
    other.wait_taken(5, SOON).await;
    assert_eq!((crm.calls().len(), rows(&database).await), (0, 0));

    for sink in ["crm", "warehouse"] {
        let resumed = with(&bridge.setup, &["sink", "resume", sink]).await;
        assert_eq!(resumed.code, Some(0), "{}{}", resumed.out, resumed.err);
    }
    crm.wait_taken(5, SOON).await;
    wait_rows(&database, 5).await;
    let order: Vec<i64> = crm.taken().iter().map(Call::sequence).collect();
    assert_eq!((order, crm.calls().len()), (vec![0, 1, 2, 3, 4], 5));
    eventually("a trace to its ends", SOON, async || {
        let traced = with(&bridge.setup, &["trace", "evt-2", "--source", "shop", "--json"]).await;
        assert_eq!(traced.code, Some(0), "{}{}", traced.out, traced.err);
        let traced = lines(&traced).remove(0);
        let states: Vec<&Value> = traced["sinks"].as_array().unwrap().iter().map(|sink| &sink["state"]).collect();
        (states == ["delivered", "delivered", "in the database"]).then_some(())
    })
    .await;
    assert_eq!(with(&bridge.setup, &["trace", "nobody"]).await.code, Some(1));

    // Somebody has emptied the table; the sink has nothing to do, and hears of it all the same.
    let client = database.connect().await;
    client.batch_execute("TRUNCATE order_placed").await.unwrap();
    let setup = &bridge.setup;
    let planned = with(setup, &["sink", "rewind", "warehouse", "--from-beginning", "--dry-run"]).await;
    assert_eq!((planned.code, rows(&database).await), (Some(0), 0), "{}{}", planned.out, planned.err);
    assert!(planned.out.contains("5 -> 0, 5 offset(s)"), "{}", planned.out);
    assert_eq!(
        with(setup, &["sink", "rewind", "warehouse", "--from-beginning"]).await.code,
        Some(2),
        "nobody was asked"
    );
    let back = with(setup, &["sink", "rewind", "warehouse", "--from-beginning", "--yes"]).await;
    assert_eq!(back.code, Some(0), "{}{}", back.out, back.err);
    wait_rows(&database, 5).await;
    // And once more with the rows there: they stay single.
    let offsets =
        "SELECT sum(next_offset)::bigint FROM hookbridge_offsets WHERE sink = 'warehouse' AND next_offset > 0";
    let again = with(setup, &["sink", "rewind", "warehouse", "--since", "1h", "--yes"]).await;
    assert_eq!(again.code, Some(0), "{}{}", again.out, again.err);
    eventually("the end", SOON, async || {
        (client.query_one(offsets, &[]).await.unwrap().get::<_, Option<i64>>(0) == Some(5)).then_some(())
    })
    .await;
    assert_eq!(rows(&database).await, 5);
    eventually("what was sent again to be counted as such", SOON, async || {
        let metrics = bridge.metrics().await;
        let settled = |outcome, reason, times: f64| {
            let labels = [("sink", "warehouse"), ("outcome", outcome), ("reason", reason)];
            (metrics.sum("hookbridge_settlements_total", &labels) - times).abs() < 0.5
        };
        (settled("delivered", "", 10.0) && settled("skipped", "duplicate", 5.0)).then_some(())
    })
    .await;
    eventually("the receipts", SOON, async || {
        let traced = with(setup, &["trace", "evt-2", "--json"]).await;
        let traced = lines(&traced).remove(0);
        let warehouse = traced["sinks"].as_array().unwrap().iter().find(|sink| sink["sink"] == "warehouse").unwrap();
        let stages: Vec<&str> =
            warehouse["receipts"].as_array().unwrap().iter().map(|stage| stage["outcome"].as_str().unwrap()).collect();
        (stages == ["delivered", "delivered", "skipped"]).then_some(())
    })
    .await;
    let refused = with(setup, &["sink", "rewind", "warehouse", "--from-beginning", "--again", "--yes"]).await;
    assert_eq!(refused.code, Some(2), "{}{}", refused.out, refused.err);
}
