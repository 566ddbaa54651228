//! Where delivery and the way back meet what is not theirs: topics that somebody else made, a file that changes, a Kafka
//! that takes no more, a command that is killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::cli::run;
use crate::commands::alter;
use crate::harness::bridge::{Bridge, Setup, command};
use crate::harness::http::Connection;
use crate::harness::postgres::Database;
use crate::harness::receiver::{Receiver, SIGNING_KEY};
use crate::harness::senders::{self, SHOP_KEY};
use crate::harness::{eventually, services};
use crate::kafka_edge::{client, plan};

/// A start, a join of the group, and what is left to deliver.
const SOON: Duration = Duration::from_secs(60);

const EGRESS: &str = "\ninstance: a\n\negress: { allow: [127.0.0.0/8] }\n";

/// The section of sinks, with one that calls the receiver.
fn crm(receiver: &Receiver) -> String {
    format!(
        "\nsinks:\n  crm:\n    type: http\n    url: {}\n    events: [order_placed]\n    purpose: none\n    \
         sign: {{ standard_webhooks: whsec_{} }}\n",
        receiver.url(),
        BASE64.encode(SIGNING_KEY)
    )
}

/// An order by a source of standard webhooks, and what it was answered.
async fn order(connection: &mut Connection, source: &str, id: &str, fields: &str) -> String {
    let body = format!(r#"{{"type": "order_placed", "data": {{"customer_id": "c1", {fields}}}}}"#);
    let answer = connection.send(&senders::standard(source, id, body.as_bytes())).await.expect("an answer");
    assert!(answer.is_success(), "{}", answer.text());
    answer.json()["events"][0]["status"].as_str().expect("a status").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_in_another_number_of_partitions_than_their_events_are_refused_by_name() {
    let receiver = Receiver::start().await;
    let setup = Setup { tail: format!("{EGRESS}{}", crm(&receiver)), ..Setup::new("uneven") };
    let receipts = setup.topic("receipts.crm.events.order_placed");
    client(&services().bootstrap, &[]).admin().unwrap().ensure_topics(&[plan(&receipts, 6)]).await.unwrap();
    let mut bridge = Bridge::start_unready(setup);
    assert_eq!(bridge.wait_ended(SOON).code(), Some(78), "{}", bridge.log());
    let log = bridge.log();
    let said = log.lines().find(|line| line.contains(&receipts) && line.contains("break the promise"));
    let said = said.unwrap_or_else(|| panic!("nothing names {receipts}\n{log}"));
    assert!(said.contains("6 partition") && said.contains('4'), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_brings_the_first_sink_over_http_delivers_what_was_there_before_it() {
    let receiver = Receiver::start().await;
    let bridge = Bridge::start(Setup { tail: EGRESS.to_owned(), ..Setup::new("first-sink") }).await;
    let mut connection = bridge.connect().await.unwrap();
    assert_eq!(order(&mut connection, "shop", "before", r#""sequence": 1"#).await, "accepted");

    let file = bridge.setup.folder.join("hookbridge.yaml");
    fs::write(&file, format!("{}{}", bridge.setup.yaml(), crm(&receiver))).unwrap();
    bridge.ask_to_reload();
    eventually("the reload", SOON, async || {
        let reloads = bridge.metrics().await.sum("hookbridge_config_reloads_total", &[("result", "applied")]);
        (reloads > 0.0).then_some(())
    })
    .await;
    assert_eq!(order(&mut connection, "shop", "after", r#""sequence": 2"#).await, "accepted");
    receiver.wait_taken(2, SOON).await;
    let sequences: Vec<i64> = receiver.taken().iter().map(super::harness::receiver::Call::sequence).collect();
    assert_eq!(sequences, [1, 2]);
    let receipts = bridge.topic("receipts.crm.events.order_placed");
    eventually("their receipts", SOON, async || (services().read(&[&receipts]).len() == 2).then_some(())).await;
}

async fn rows(database: &Client) -> i64 {
    database.query_one("SELECT count(*) FROM order_placed", &[]).await.unwrap().get(0)
}

async fn next_offset(database: &Client) -> i64 {
    let query = "SELECT next_offset FROM hookbridge_offsets WHERE sink = 'warehouse' AND topic LIKE '%order_placed'";
    database.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_kafka_does_not_acknowledge_stops_the_offset_of_a_database() {
    let database = Database::create(&services().postgres).await;
    let setup = Setup { database: Some(database.url.clone()), partitions: 1, ..Setup::new("unburied") };
    let bridge = Bridge::start(setup).await;
    let rows_of = database.connect().await;
    let mut connection = bridge.connect().await.unwrap();
    order(&mut connection, "shop", "first", r#""note": "fine""#).await;
    eventually("the first row", SOON, async || {
        let there = rows_of.query("SELECT 1 FROM order_placed", &[]).await.unwrap_or_default();
        (!there.is_empty()).then_some(())
    })
    .await;

    // No dead letter is so small: from now on Kafka takes none.
    let dead = bridge.topic("dead.warehouse");
    let may_have = |bytes: &'static str| {
        let dead = dead.clone();
        async move {
            let altered = tokio::task::spawn_blocking(move || alter(&dead, &[("max.message.bytes", bytes)]));
            altered.await.unwrap();
        }
    };
    may_have("16").await;
    order(&mut connection, "shop", "second", r#""note": "a\u0000b""#).await;
    order(&mut connection, "shop", "third", r#""note": "fine""#).await;
    eventually("the sink to say that it waits", SOON, async || {
        let state = [("sink", "warehouse"), ("state", "running")];
        (bridge.metrics().await.sum("hookbridge_sink_state", &state) < 0.5).then_some(())
    })
    .await;
    assert_eq!((next_offset(&rows_of).await, rows(&rows_of).await), (1, 1), "nothing is passed over");

    may_have("2000000").await;
    eventually("what stood behind it", Duration::from_secs(120), async || {
        ((next_offset(&rows_of).await, rows(&rows_of).await) == (3, 2)).then_some(())
    })
    .await;
    let letters = services().read(&[&dead]);
    assert!(!letters.is_empty());
    for letter in letters {
        // Perhaps twice, since nobody knew of the first: readers know it by its origin.
        assert_eq!(letter.header("__connect.errors.offset"), Some("1"));
    }
}

/// A source whose map makes an amount of `total`.
fn till(total: &str) -> String {
    format!(
        "\n  till:\n    preset: standard-webhooks\n    secrets: [whsec_{}]\n    events:\n      - event: order_placed\n        \
         map: '{{ customer_id: .data.customer_id, total: {total}, consent: {{}} }}'\n",
        BASE64.encode(SHOP_KEY)
    )
}

/// More than three transactions of a replay hold.
const REQUESTS: usize = 1_700;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replay_of_quarantine_that_is_killed_over_and_over_publishes_each_event_once() {
    let mut bridge = Bridge::start(Setup { more_sources: till(".data.total"), ..Setup::new("killed") }).await;
    let mut senders = JoinSet::new();
    for sender in 0..8 {
        let mut connection = bridge.connect().await.unwrap();
        let port = bridge.port();
        senders.spawn(async move {
            for number in (sender..REQUESTS).step_by(8) {
                let body = r#"{"type": "order_placed", "data": {"customer_id": "c1", "total": "a lot"}}"#;
                let request = senders::standard("till", &format!("e{number}"), body.as_bytes());
                let answer = connection.send(&request).await.expect("an answer");
                assert_eq!(answer.json()["events"][0]["status"], "quarantined", "{}", answer.text());
                if answer.closes() {
                    connection = Connection::open(port).await.unwrap();
                }
            }
        });
    }
    senders.join_all().await;

    bridge.setup.more_sources = till("\"9.99\"");
    let file = bridge.setup.write().to_str().unwrap().to_owned();
    let arguments = ["quarantine", "replay", "till", "--every", "--config", &file].map(str::to_owned);
    for _ in 0..3 {
        let arguments = arguments.clone();
        // What a transaction published is printed once it is committed: killed then, the next one is under way.
        let killed = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let mut replay = command(&arguments);
            let mut replay = replay.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary");
            let lines = BufReader::new(replay.stdout.take().expect("a pipe")).lines();
            let line = lines.map(|line| line.expect("text")).find(|line| !line.contains("left alone"));
            replay.kill().expect("it is killed");
            replay.wait().expect("it ends");
            line
        });
        let line = killed.await.unwrap().expect("there is more to do");
        assert!(line.contains("published"), "{line}");
    }
    let last = tokio::task::spawn_blocking(move || run(&arguments.each_ref().map(String::as_str), b"")).await.unwrap();
    assert_eq!(last.code, Some(0), "{}{}", last.out, last.err);

    let mut published: BTreeMap<String, usize> = BTreeMap::new();
    for record in services().read(&[&bridge.topic("events.order_placed")]) {
        *published.entry(record.header("ce_id").expect("an id").to_owned()).or_default() += 1;
    }
    assert_eq!(published.len(), REQUESTS);
    assert!(published.values().all(|times| *times == 1), "each event once: {published:?}");
}
