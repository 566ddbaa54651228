//! Rows that Postgres refuses, by way of the whole bridge: a bad one does not sink its batch.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::harness::avro::Decoder;
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::http::Connection;
use crate::harness::postgres::Database;
use crate::harness::reader::Record;
use crate::harness::{eventually, senders, services};

const SOON: Duration = Duration::from_secs(60);

/// Sends orders, those of `bad` with a text that Postgres cannot hold.
async fn send(bridge: &Bridge, numbers: std::ops::Range<usize>, bad: &[usize]) {
    let mut connection = Connection::open(bridge.port()).await.unwrap();
    for number in numbers {
        let note = if bad.contains(&number) { r"a\u0000b" } else { "fine" };
        let body = format!(
            r#"{{"type": "order_placed", "data": {{"customer_id": "c{}", "sequence": {number}, "note": "{note}"}}}}"#,
            number % 5
        );
        let answer = connection.send(&senders::standard("shop", &format!("o{number}"), body.as_bytes())).await.unwrap();
        assert!(answer.is_success(), "{}", answer.text());
        if answer.closes() {
            connection = Connection::open(bridge.port()).await.unwrap();
        }
    }
}

async fn wait_settled(bridge: &Bridge, outcome: &str, count: u32) {
    eventually("settlements", SOON, async || {
        let metrics = bridge.metrics().await;
        let settled = metrics.sum("hookbridge_settlements_total", &[("sink", "warehouse"), ("outcome", outcome)]);
        (settled >= f64::from(count)).then_some(())
    })
    .await;
}

fn by_id(records: Vec<Record>) -> BTreeMap<String, Record> {
    records.into_iter().map(|record| (record.header("ce_id").unwrap().to_owned(), record)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_refused_is_a_dead_letter_and_all_around_it_lands() {
    let database = Database::create(&services().postgres).await;
    let setup = Setup { database: Some(database.url.clone()), ..Setup::new("postgres_dead") };
    let mut bridge = Bridge::start(setup).await;
    let client = database.connect().await;
    let bad = [3, 20, 21, 39];
    send(&bridge, 0..40, &bad).await;
    wait_settled(&bridge, "delivered", 36).await;
    wait_settled(&bridge, "dead", 4).await;

    let rows = client.query("SELECT sequence::bigint FROM order_placed ORDER BY 1", &[]).await.unwrap();
    let rows: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        rows,
        (0..40).filter(|number| !bad.contains(number)).map(|n| i64::try_from(n).unwrap()).collect::<Vec<_>>()
    );

    // The dead letters: the records as they came, with Connect's headers beside their own.
    let events = by_id(services().read(&[&bridge.topic("events.order_placed")]));
    let dead = services().read(&[&bridge.topic("dead.warehouse")]);
    assert_eq!(dead.len(), 4);
    for letter in &dead {
        let event = &events[letter.header("ce_id").unwrap()];
        assert_eq!((&letter.key, &letter.value), (&event.key, &event.value));
        assert_eq!(letter.header("__connect.errors.topic"), Some(&*event.topic));
        assert_eq!(letter.header("__connect.errors.partition"), Some(&*event.partition.to_string()));
        assert_eq!(letter.header("__connect.errors.offset"), Some(&*event.offset.to_string()));
        assert_eq!(letter.header("__connect.errors.exception.class.name"), Some("hookbridge.rejected"));
        assert!(letter.header("__connect.errors.exception.message").unwrap().contains("22021"));
    }

    // A receipt for each event, in the partition that it is of.
    let mut decoder = Decoder::new(&bridge.setup.registry);
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for record in services().read(&[&bridge.topic("receipts.warehouse.events.order_placed")]) {
        let receipt: Value = decoder.decode(record.value.as_deref().unwrap()).await;
        assert_eq!(receipt["origin_partition"], record.partition);
        *outcomes.entry(receipt["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(outcomes, BTreeMap::from([("dead".to_owned(), 4), ("delivered".to_owned(), 36)]));

    // A restart goes on behind the dead ones.
    bridge.restart();
    bridge.wait_ready().await;
    send(&bridge, 40..50, &[44]).await;
    wait_settled(&bridge, "delivered", 9).await;
    wait_settled(&bridge, "dead", 1).await;
    assert_eq!(services().read(&[&bridge.topic("dead.warehouse")]).len(), 5);
    let count: i64 = client.query_one("SELECT count(*) FROM order_placed", &[]).await.unwrap().get(0);
    assert_eq!(count, 45);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_passed_over_that_is_not_a_fault_of_its_row() {
    let database = Database::create(&services().postgres).await;
    let setup = Setup { database: Some(database.url.clone()), ..Setup::new("postgres_held") };
    let bridge = Bridge::start(setup).await;
    let client = database.connect().await;
    send(&bridge, 0..5, &[]).await;
    wait_settled(&bridge, "delivered", 5).await;
    // Whoever the bridge is may not write any more: a person's doing, and a person's to mend.
    client
        .batch_execute("ALTER TABLE order_placed RENAME TO away; CREATE VIEW order_placed AS SELECT 1 AS nothing")
        .await
        .unwrap();
    send(&bridge, 5..15, &[7]).await;
    eventually("the sink to be held", SOON, async || {
        let held = bridge.metrics().await.sum("hookbridge_sink_state", &[("sink", "warehouse"), ("state", "held")]);
        (held > 0.0).then_some(())
    })
    .await;
    assert!(services().read(&[&bridge.topic("dead.warehouse")]).is_empty());
    client.batch_execute("DROP VIEW order_placed; ALTER TABLE away RENAME TO order_placed").await.unwrap();
    wait_settled(&bridge, "delivered", 14).await;
    wait_settled(&bridge, "dead", 1).await;
    let count: i64 = client.query_one("SELECT count(*) FROM order_placed", &[]).await.unwrap().get(0);
    assert_eq!(count, 14);
}
