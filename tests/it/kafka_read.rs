//! Reading without a group, against a real broker: what the mock does not have, times and transactions.

use std::time::Duration;

use hookbridge::clock;
use hookbridge::kafka::read::Event;
use hookbridge::kafka::{Glimpse, Limits, Outgoing, Publisher, Reader, Then};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::harness::services;
use crate::kafka_edge::{PATIENCE, block_on, client, fresh_topic};

const MINUTE_MS: i64 = 60_000;

fn offset(record: &Glimpse<'_>) -> Option<i64> {
    record.value().map(|_| record.offset())
}

/// Offsets until everything was read.
async fn caught_up(reader: &mut Reader<i64>) -> Vec<i64> {
    let mut offsets = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, reader.next()).await.expect("an event in time") {
            Some(Event::Batch(batch)) => offsets.extend(batch),
            Some(Event::CaughtUp) => return offsets,
            other => panic!("{other:?}"),
        }
    }
}

/// Two records that are never committed; their offsets stay, and that of the marker behind them.
fn abort(topic: &str) {
    let open = || -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &services().bootstrap).set("transactional.id", topic);
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer
    };
    let producer = open();
    producer.begin_transaction().unwrap();
    for _ in 0..2 {
        producer.send(BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(b"aborted")).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
    // The marker follows the answer; a next producer of that id is let in once it is there.
    drop(open());
}

#[test]
fn a_reader_begins_at_a_time_and_comes_to_the_end_though_it_holds_no_record() {
    block_on(async {
        let client = client(&services().bootstrap, &[]);
        let topic = fresh_topic(&client, 2).await;
        let now = clock::now_ms();
        let publisher = Publisher::start(&client, Limits::default()).unwrap();
        for (partition, minutes_ago) in [(0, 30), (0, 20), (0, 10), (0, 0), (1, 30)] {
            let record = Outgoing {
                topic: &topic,
                partition: Some(partition),
                key: None,
                value: Some(b"v"),
                headers: &[],
                timestamp_ms: Some(now - minutes_ago * MINUTE_MS),
            };
            publisher.publish(record).unwrap().await.unwrap();
        }
        let name = topic.clone();
        tokio::task::spawn_blocking(move || abort(&name)).await.unwrap();

        let extents = client.extents("reader", vec![topic.clone()], now - 15 * MINUTE_MS).await.unwrap();
        let bounds: Vec<_> = extents.iter().map(|extent| (extent.start.get(), extent.end.get())).collect();
        assert_eq!(bounds, [(2, 7), (1, 1)], "from the time on, up to and with the marker");

        let mut reader = Reader::start(&client, "reader", extents, Then::Follow, offset).unwrap();
        assert_eq!(caught_up(&mut reader).await, [2, 3]);
        let record = Outgoing {
            topic: &topic,
            partition: Some(1),
            key: None,
            value: Some(b"v"),
            headers: &[],
            timestamp_ms: None,
        };
        publisher.publish(record).unwrap().await.unwrap();
        let next = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap();
        assert!(matches!(&next, Some(Event::Batch(batch)) if batch == &[1]), "{next:?}");
    });
}

#[test]
fn a_reader_outlives_its_broker() {
    let mut kafka = crate::harness::own_kafka();
    block_on(async {
        let client = client(&kafka.bootstrap(), &[]);
        let topic = fresh_topic(&client, 1).await;
        let publisher = Publisher::start(&client, Limits::default()).unwrap();
        let record =
            Outgoing { topic: &topic, partition: None, key: None, value: Some(b"v"), headers: &[], timestamp_ms: None };
        publisher.publish(record).unwrap().await.unwrap();
        let extents = client.extents("reader", vec![topic.clone()], 0).await.unwrap();
        let mut reader = Reader::start(&client, "reader", extents, Then::Follow, offset).unwrap();
        assert_eq!(caught_up(&mut reader).await, [0]);
        tokio::task::block_in_place(|| kafka.restart()).unwrap();
        publisher.publish(record).unwrap().await.unwrap();
        let read = async {
            loop {
                match reader.next().await {
                    Some(Event::Batch(batch)) => return batch,
                    Some(Event::Trouble(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), read).await.unwrap(), [1]);
    });
}
