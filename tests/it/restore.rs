//! Receipts read again, as the owner of a partition does before it sends anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookbridge::config;
use hookbridge::deliver::KeyId;
use hookbridge::deliver::receipt::{Receipt, ReceiptOutcome};
use hookbridge::deliver::restore::{Entry, restore};
use hookbridge::kafka::restore::{Source, Step};
use hookbridge::kafka::{Cleanup, Client, Limits, Outgoing, Publisher, TopicPlan};
use uuid::Uuid;

use crate::harness::{random_name, services};

const PATIENCE: Duration = Duration::from_secs(60);

/// Any id will do: nothing here asks a registry.
const SCHEMA_ID: u32 = 7;

/// In each of the two partitions; the figure that is printed is for comparison on one machine.
const RECEIPTS: i32 = 50_000;

fn receipt(partition: i32, n: i32) -> Vec<u8> {
    receipt_of(ReceiptOutcome::Delivered, partition, n)
}

fn receipt_of(outcome: ReceiptOutcome, partition: i32, n: i32) -> Vec<u8> {
    let receipt = Receipt {
        delivery_id: Uuid::from_u128(u128::from(n.unsigned_abs())),
        origin_topic: "events.purchase_completed",
        origin_partition: partition,
        origin_offset: i64::from(n),
        outcome,
        reason: "",
        message: "",
        attempts: 1,
        vendor_reference: None,
        received_at: Some(1_700_000_000_000),
        settled_at: 1_700_000_000_250,
        failing_ms: 0,
        unsure_since: None,
        writer: 9,
        original: None,
    };
    let mut value = Vec::new();
    receipt.encode(SCHEMA_ID, &mut value);
    value
}

async fn prepared(client: &Client, events: &str, receipts: &str) {
    let plan = |name: &str| TopicPlan {
        name: name.to_owned(),
        partitions: 2,
        partitioned_as: None,
        replication: Some(1),
        min_isr: Some(1),
        retention: Some(Duration::from_secs(3600)),
        cleanup: Cleanup::Delete,
        max_message_bytes: None,
    };
    client.admin().unwrap().ensure_topics(&[plan(events), plan(receipts)]).await.unwrap();
    let publisher = Publisher::start(client, Limits::default()).unwrap();
    let publish = |partition, key: String, value: Vec<u8>| {
        let record = Outgoing {
            topic: receipts,
            partition: Some(partition),
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &[],
            timestamp_ms: None,
        };
        publisher.publish(record)
    };
    for n in 0..RECEIPTS {
        for partition in 0..2 {
            // Past the publisher's bound, what is out has to be answered first.
            while publish(partition, format!("customer-{}", n % 1000), receipt(partition, n)).is_err() {
                publisher.flush(PATIENCE).await.unwrap();
            }
        }
    }
    publisher.flush(PATIENCE).await.unwrap();
    publish(0, "foreign".to_owned(), b"{}".to_vec()).unwrap().await.unwrap();
}

#[tokio::test]
async fn every_receipt_is_read_in_order_and_what_is_none_is_named() {
    let name = random_name();
    let kafka = config::Kafka {
        bootstrap_servers: services().bootstrap.clone(),
        create_topics: true,
        topic_prefix: String::new(),
        topic_defaults: config::TopicDefaults {
            partitions: 2,
            replication_factor: None,
            min_insync_replicas: None,
            retention: Duration::from_secs(3600),
        },
        librdkafka: BTreeMap::new(),
    };
    let client = Client::new(&kafka, &name).unwrap();
    let (events, receipts) = (format!("{name}.events"), format!("{name}.receipts"));
    prepared(&client, &events, &receipts).await;

    let began = Instant::now();
    let source = Source {
        group: name,
        events: Arc::from(events),
        receipts: Arc::from(receipts.as_str()),
        partitions: vec![0, 1],
    };
    let mut reading = restore(&client, source, SCHEMA_ID, 0).unwrap();
    let (mut seen, mut unreadable, mut caught_up) = ([0, 0], Vec::new(), Vec::new());
    let mut take = |entry: Entry| {
        let at = usize::try_from(entry.partition).unwrap();
        let Ok(receipt) = entry.read else {
            unreadable.push((entry.partition, entry.offset));
            return;
        };
        assert_eq!(receipt.origin, seen[at], "in order, none left out");
        let key = format!("customer-{}", seen[at] % 1000);
        assert_eq!(receipt.key, KeyId::of(Some(key.as_bytes()), receipt.delivery_id));
        seen[at] += 1;
    };
    while caught_up.len() < 2 {
        match tokio::time::timeout(PATIENCE, reading.next()).await.expect("a step in time").expect("no end") {
            Step::Records { records, .. } => records.into_iter().for_each(&mut take),
            Step::CaughtUp { partition, next } => caught_up.push((partition, next)),
            Step::Committed(found) => assert_eq!(found.len(), 2),
            Step::Waiting(wait) => panic!("{wait:?}"),
            Step::Failed(error) => panic!("{error}"),
        }
    }
    println!("{} receipts in {:?}", 2 * RECEIPTS, began.elapsed());
    assert_eq!((seen, unreadable), ([i64::from(RECEIPTS); 2], vec![(0, i64::from(RECEIPTS))]));

    caught_up.sort_unstable();
    assert_eq!(caught_up, [(0, i64::from(RECEIPTS) + 1), (1, i64::from(RECEIPTS))]);

    // It goes on as the follower: of what is written later only what was sent again is told.
    let publisher = Publisher::start(&client, Limits::default()).unwrap();
    for outcome in [ReceiptOutcome::Delivered, ReceiptOutcome::Requeued] {
        let value = receipt_of(outcome, 1, RECEIPTS);
        let headers = &[];
        let (topic, value) = (receipts.as_str(), Some(value.as_slice()));
        let later = Outgoing { topic, partition: Some(1), key: None, value, headers, timestamp_ms: None };
        publisher.publish(later).unwrap().await.unwrap();
    }
    let mut told = Vec::new();
    let mut follows = true;
    while follows {
        match tokio::time::timeout(PATIENCE, reading.next()).await.expect("in time").expect("no end") {
            Step::Records { records, read_to } => {
                told.extend(records.into_iter().map(|entry| (entry.partition, entry.offset)));
                follows = read_to != [(1, i64::from(RECEIPTS) + 2)].into();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, [(1, i64::from(RECEIPTS) + 1)]);
}
