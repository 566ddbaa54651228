//! Behaviour against librdkafka's mock cluster: unit tests, no claim about Kafka.

use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;

use super::*;
use crate::config;
use crate::kafka::mock::DevCluster;

fn client(bootstrap: &str) -> Client {
    let kafka = config::Kafka::for_tests(bootstrap, &[]);
    Client::new(&kafka, "test").unwrap()
}

fn outgoing<'a>(key: &'a str, value: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        topic: "orders",
        partition: None,
        key: Some(key.as_bytes()),
        value: Some(value),
        headers: &[("ce_id", b"1")],
        timestamp_ms: None,
    }
}

fn setting(limits: Limits) -> (DevCluster, Publisher) {
    let cluster = DevCluster::start(&[("orders".to_owned(), 4)]).unwrap();
    let publisher = Publisher::start(&client(cluster.bootstrap_servers()), limits).unwrap();
    (cluster, publisher)
}

#[test]
fn a_report_without_an_offset_is_unknown_and_no_success() {
    assert_eq!(accepted("orders", 3, 0).unwrap(), Position { partition: 3, offset: 0 });
    for (partition, offset) in [(3, -1), (3, -1001), (-1, 5)] {
        let error = accepted("orders", partition, offset).unwrap_err();
        assert!(matches!(error, Error::Unknown { source: None, .. }), "{error:?}");
        assert!(error.may_have_persisted());
    }
}

#[test]
fn a_time_out_or_a_purge_may_have_persisted_and_a_refusal_has_not() {
    for code in [RDKafkaErrorCode::MessageTimedOut, RDKafkaErrorCode::PurgeInflight, RDKafkaErrorCode::PurgeQueue] {
        assert!(failed("orders", 0, Code(code)).may_have_persisted(), "{code:?}");
    }
    for code in [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::UnknownTopic] {
        assert!(!failed("orders", 0, Code(code)).may_have_persisted(), "{code:?}");
    }
}

#[test]
fn the_load_is_refused_past_either_bound_and_given_back() {
    let load = Load::new(Limits { max_in_flight_bytes: 10, max_in_flight_records: 2 });
    load.claim(50).unwrap();
    assert!(matches!(load.claim(1), Err(Error::Full { .. })), "one record passes whatever its size, no second one");
    load.release(50);
    load.claim(4).unwrap();
    load.claim(4).unwrap();
    assert!(matches!(load.claim(1), Err(Error::Full { records: 2, bytes: 8 })));
    load.release(4);
    load.claim(6).unwrap();
}

#[tokio::test]
async fn records_of_a_key_land_in_order_on_one_partition() {
    let (_cluster, publisher) = setting(Limits::default());
    let pending: Vec<_> = (0..100_u8).map(|n| publisher.publish(outgoing("customer-1", &[n])).unwrap()).collect();
    let mut positions = Vec::new();
    for one in pending {
        positions.push(one.await.unwrap());
    }
    assert!(
        positions.windows(2).all(|two| { two[0].partition == two[1].partition && two[0].offset + 1 == two[1].offset })
    );
    let health = publisher.health();
    assert_eq!((health.ok, health.in_flight_bytes, health.in_flight_records), (true, 0, 0));
}

#[tokio::test]
async fn records_of_a_key_keep_their_order_from_calm_to_load_and_back() {
    let (_cluster, publisher) = setting(Limits::default());
    // One at a time, a crowd of other keys, and one at a time: the key's records take both lanes.
    let mut offsets = Vec::new();
    for round in 0..20_u8 {
        let others: Vec<_> =
            (0..round).map(|n| publisher.publish(outgoing(&format!("other-{n}"), b"o")).unwrap()).collect();
        let own: Vec<_> = (0..3_u8).map(|n| publisher.publish(outgoing("customer-1", &[n])).unwrap()).collect();
        for one in own {
            offsets.push(one.await.unwrap().offset);
        }
        for other in others {
            other.await.unwrap();
        }
    }
    assert!(offsets.is_sorted(), "{offsets:?}");
}

#[tokio::test]
async fn a_record_whose_answer_nobody_awaits_is_published_all_the_same() {
    let (_cluster, publisher) = setting(Limits::default());
    drop(publisher.publish(outgoing("a", b"1")).unwrap());
    publisher.flush(Duration::from_secs(10)).await.unwrap();
    assert_eq!(publisher.publish(outgoing("a", b"2")).unwrap().await.unwrap().offset, 1);
}

#[tokio::test]
async fn a_record_above_the_limit_is_refused_and_takes_no_room() {
    let (_cluster, publisher) = setting(Limits::default());
    let huge = vec![0; 2 << 20];
    let error = publisher.publish(outgoing("a", &huge)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    assert_eq!(publisher.health().in_flight_records, 0);
}

#[tokio::test]
async fn a_flush_says_what_it_left() {
    // Nothing listens there.
    let publisher = Publisher::start(&client("127.0.0.1:9"), Limits::default()).unwrap();
    let _pending = publisher.publish(outgoing("a", b"1")).unwrap();
    let error = publisher.flush(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, Error::FlushTimedOut { left: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn a_fatal_producer_is_replaced_and_every_record_gets_an_answer() {
    let (cluster, publisher) = setting(Limits::default());
    publisher.publish(outgoing("a", b"1")).unwrap().await.unwrap();
    cluster.fail_produce(vec![RespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]).unwrap();
    let failed = publisher.publish(outgoing("a", b"2")).unwrap().await.unwrap_err();
    assert!(failed.may_have_persisted(), "{failed:?}");
    let landed = loop {
        match publisher.publish(outgoing("a", b"3")) {
            Ok(pending) => match pending.await {
                Ok(position) => break position,
                // Taken by the dead one just before the exchange.
                Err(error) => assert!(error.may_have_persisted(), "{error:?}"),
            },
            Err(error) => assert!(matches!(error, Error::Fatal { .. }), "{error:?}"),
        }
        tokio::task::yield_now().await;
    };
    assert!(landed.offset >= 1);
    let health = publisher.health();
    assert_eq!((health.ok, health.restarts), (true, 1));
}
