//! Against librdkafka's mock cluster. What only a real broker has (times, transactions) is tested at the border.

use super::*;
use crate::config;
use crate::kafka::mock::DevCluster;
use crate::kafka::{Limits, Outgoing, Publisher};

/// What no wait here should ever need.
const PATIENCE: Duration = Duration::from_secs(30);
const TOPICS: [&str; 3] = ["invoices", "nothing", "orders"];

fn setting() -> (DevCluster, Client) {
    let cluster = DevCluster::start(&TOPICS.map(|topic| (topic.to_owned(), 3))).unwrap();
    let kafka = config::Kafka::for_tests(cluster.bootstrap_servers(), &[]);
    let client = Client::new(&kafka, "test").unwrap();
    (cluster, client)
}

async fn write(client: &Client, topic: &str, numbers: std::ops::Range<u32>) {
    let publisher = Publisher::start(client, Limits::default()).unwrap();
    for number in numbers {
        let text = number.to_string();
        let headers = [("number", text.as_bytes()), ("other", b"\xff"), ("twice", b"a"), ("twice", b"b")];
        let (partition, value) = (Some(i32::try_from(number % 3).unwrap()), text.as_bytes());
        let record =
            Outgoing { topic, partition, key: None, value: Some(value), headers: &headers, timestamp_ms: None };
        publisher.publish(record).unwrap().await.unwrap();
    }
}

/// The mock knows no times: what it has is younger than none.
fn whole(mut extents: Vec<Extent>) -> Vec<Extent> {
    for extent in &mut extents {
        extent.start = NextOffset::stored(0);
    }
    extents
}

fn look(record: &Glimpse<'_>) -> Option<(String, u32)> {
    let [number, other, twice, missing] = record.headers(["number", "other", "twice", "missing"]);
    assert_eq!((other, twice, missing), (None, Some("b"), None));
    assert_eq!(record.value(), number.map(str::as_bytes));
    Some((record.topic().to_owned(), number?.parse().ok()?))
}

/// Batches until `until` of another event, or of a record.
async fn read(reader: &mut Reader<(String, u32)>, until: impl Fn(&Event<(String, u32)>) -> bool) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("an event in time").expect("not ended");
        let done = until(&event);
        match event {
            Event::Batch(batch) => all.extend(batch),
            Event::CaughtUp => {}
            other => panic!("{other:?}"),
        }
        if done {
            all.sort_unstable();
            return all;
        }
    }
}

fn expected(topics: &[(&str, std::ops::Range<u32>)]) -> Vec<(String, u32)> {
    let all = topics.iter().flat_map(|(topic, numbers)| numbers.clone().map(|number| ((*topic).to_owned(), number)));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_reads_all_topics_to_their_ends_and_then_follows() {
    let (_cluster, client) = setting();
    write(&client, "orders", 0..2_500).await;
    write(&client, "invoices", 0..7).await;
    let extents = client.extents("reader", TOPICS.map(str::to_owned).to_vec(), 0).await.unwrap();
    let ends: Vec<i64> = extents.iter().map(|extent| extent.end.get()).collect();
    assert_eq!(ends, [3, 2, 2, 0, 0, 0, 834, 833, 833]);

    let mut reader = Reader::start(&client, "reader", whole(extents), Then::Follow, look).unwrap();
    let found = read(&mut reader, |event| matches!(event, Event::CaughtUp)).await;
    assert_eq!(found, expected(&[("orders", 0..2_500), ("invoices", 0..7)]));

    write(&client, "nothing", 7..8).await;
    let is_last = |event: &Event<_>| matches!(event, Event::Batch(batch) if !batch.is_empty());
    assert_eq!(read(&mut reader, is_last).await, expected(&[("nothing", 7..8)]));
    write(&client, "orders", 2_500..2_501).await;
    assert_eq!(read(&mut reader, is_last).await, expected(&[("orders", 2_500..2_501)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_follow_begins_where_it_is_told_and_ends() {
    let (_cluster, client) = setting();
    write(&client, "orders", 0..30).await;
    let mut extents = client.extents("reader", vec!["orders".to_owned()], 0).await.unwrap();
    for extent in &mut extents {
        extent.start = NextOffset::stored(7);
    }
    let mut reader = Reader::start(&client, "reader", extents, Then::Stop, look).unwrap();
    let found = read(&mut reader, |event| matches!(event, Event::CaughtUp)).await;
    assert_eq!(found, expected(&[("orders", 21..30)]));
    let end = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap();
    assert!(matches!(end, Some(Event::Ended(None))), "{end:?}");
    assert!(reader.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_read_is_caught_up_at_once() {
    let (_cluster, client) = setting();
    let mut reader = Reader::start(&client, "reader", Vec::new(), Then::Stop, look).unwrap();
    assert_eq!(read(&mut reader, |event| matches!(event, Event::CaughtUp)).await, []);
}
