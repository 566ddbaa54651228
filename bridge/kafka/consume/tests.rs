//! Behaviour against librdkafka's mock cluster, as `dev` uses it: unit tests, no claim about Kafka.

use super::*;
use crate::config;
use crate::kafka::mock::DevCluster;
use crate::kafka::publish::{Limits, Outgoing, Publisher};

fn client(cluster: &DevCluster) -> Client {
    // The mock lets a rebalance after a departure last a second less than this, and the first one 3 s, during which a shorter
    // session would end.
    let kafka = config::Kafka::for_tests(
        cluster.bootstrap_servers(),
        &[("session.timeout.ms", "4000"), ("heartbeat.interval.ms", "500")],
    );
    Client::new(&kafka, "test").unwrap()
}

async fn fill(client: &Client, partitions: i32, each: u8) {
    let publisher = Publisher::start(client, Limits::default()).unwrap();
    for n in 0..each {
        for partition in 0..partitions {
            let record = Outgoing {
                topic: "orders",
                partition: Some(partition),
                key: None,
                value: Some(&[n]),
                headers: &[],
                timestamp_ms: None,
            };
            drop(publisher.publish(record).unwrap());
        }
    }
    publisher.flush(Duration::from_secs(10)).await.unwrap();
}

/// Starts what is assigned, and returns the records once there are `count`.
async fn read(consumer: &mut Consumer, count: usize) -> Vec<Record> {
    let mut all = Vec::new();
    while all.len() < count {
        match consumer.next().await.unwrap() {
            Event::Assigned { epoch, partitions } => {
                for (at, _) in partitions {
                    consumer.control().start(epoch, at, StartAt::CommittedOrEarliest);
                }
            }
            Event::Records(records) => all.extend(records),
            Event::Revoked { .. } | Event::Trouble(_) => {}
            Event::Ended(cause) => panic!("{cause:?}"),
        }
    }
    all
}

/// Stops the consumer and reads it to its end.
async fn ended(mut consumer: Consumer) {
    let control = consumer.control();
    let stopping = tokio::spawn(async move { control.stop().await });
    loop {
        match consumer.next().await {
            Some(Event::Ended(cause)) => break assert!(cause.is_none(), "{cause:?}"),
            Some(_) => {}
            None => panic!("the end is said"),
        }
    }
    assert!(consumer.next().await.is_none());
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_group_goes_on_where_it_committed() {
    let cluster = DevCluster::start(&[("orders".to_owned(), 2)]).unwrap();
    let client = client(&cluster);
    fill(&client, 2, 5).await;
    let mut first = Consumer::subscribe(&client, "crm", &["orders".to_owned()]).unwrap();
    let records = read(&mut first, 10).await;
    assert!(records.iter().all(|one| one.value.as_deref() == Some(&[u8::try_from(one.offset).unwrap()][..])));
    let next =
        |partition, offset| (TopicPartition { topic: Arc::from("orders"), partition }, NextOffset::after(offset));
    first.control().commit(vec![next(0, 1), next(1, 3)]).await.unwrap();
    ended(first).await;

    let mut second = Consumer::subscribe(&client, "crm", &["orders".to_owned()]).unwrap();
    let mut offsets: Vec<_> = read(&mut second, 4).await.iter().map(|one| (one.at.partition, one.offset)).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [(0, 2), (0, 3), (0, 4), (1, 4)]);
}

#[tokio::test]
async fn a_consumer_that_is_stopped_ends_and_takes_no_more_orders() {
    let cluster = DevCluster::start(&[("orders".to_owned(), 1)]).unwrap();
    let client = client(&cluster);
    let consumer = Consumer::subscribe(&client, "crm", &["orders".to_owned()]).unwrap();
    let control = consumer.control();
    ended(consumer).await;
    let at = TopicPartition { topic: Arc::from("orders"), partition: 0 };
    let refused = control.commit(vec![(at, NextOffset::stored(1))]).await;
    assert!(matches!(refused, Err(Error::Stopped { .. })), "{refused:?}");
}
