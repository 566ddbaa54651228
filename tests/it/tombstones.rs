//! Records without a value, which others may write into an event topic: no events, and dead letters as they came.

use std::time::Duration;

use hookbridge::kafka::{Limits, Outgoing, Publisher};

use crate::cli::run;
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::postgres::Database;
use crate::harness::reader::Record;
use crate::harness::receiver::Receiver;
use crate::harness::{eventually, services};
use crate::kafka_edge::client;

const SOON: Duration = Duration::from_secs(60);

/// The dead letters of a sink, once there are so many.
async fn dead_letters(bridge: &Bridge, sink: &str, count: usize) -> Vec<Record> {
    let topic = bridge.topic(&format!("dead.{sink}"));
    eventually("dead letters", SOON, async || Some(services().read(&[&topic])).filter(|letters| letters.len() >= count))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstones_dead_letter_is_a_tombstone_too_and_stays_one_when_it_is_sent_again() {
    let database = Database::create(&services().postgres).await;
    let receiver = Receiver::start().await;
    let tail = format!(
        "\negress: {{ allow: [127.0.0.0/8] }}\n\nsinks:\n  warehouse:\n    type: postgres\n    url: {}\n    events: \
         [order_placed]\n  crm:\n    type: http\n    url: {}\n    events: [order_placed]\n    purpose: none\n",
        database.url,
        receiver.url()
    );
    let bridge = Bridge::start(Setup { tail, ..Setup::new("tombstones") }).await;
    let topic = bridge.topic("events.order_placed");
    let publisher = Publisher::start(&client(&services().bootstrap, &[]), Limits::default()).unwrap();
    for (key, value) in [(Some(b"c1".as_slice()), None), (None, None), (Some(b"c2".as_slice()), Some(b"".as_slice()))] {
        let record = Outgoing { topic: &topic, partition: Some(0), key, value, headers: &[], timestamp_ms: None };
        publisher.publish(record).unwrap().await.unwrap();
    }
    let expected = [(Some(b"c1".to_vec()), None), (None, None), (Some(b"c2".to_vec()), Some(Vec::new()))];
    for sink in ["warehouse", "crm"] {
        let mut letters = dead_letters(&bridge, sink, 3).await;
        letters.sort_by_key(|letter| letter.header("__connect.errors.offset").map(str::to_owned));
        let found: Vec<_> = letters.into_iter().map(|letter| (letter.key, letter.value)).collect();
        assert_eq!(found, expected, "{sink}");
    }

    let file = bridge.setup.folder.join("hookbridge.yaml").to_str().unwrap().to_owned();
    let replayed =
        tokio::task::spawn_blocking(move || run(&["dead", "replay", "crm", "--all", "--config", &file], b""));
    let replayed = replayed.await.unwrap();
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.out, replayed.err);
    let letters = dead_letters(&bridge, "crm", 6).await;
    let counted = |key: Option<&[u8]>, value: Option<&[u8]>| {
        letters.iter().filter(|letter| letter.key.as_deref() == key && letter.value.as_deref() == value).count()
    };
    assert_eq!((counted(Some(b"c1"), None), counted(None, None), counted(Some(b"c2"), Some(b""))), (2, 2, 2));
}
