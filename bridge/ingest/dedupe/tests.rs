//! The memory as requests and reports meet it.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config;
use crate::event::header;
use crate::kafka::mock::DevCluster;
use crate::kafka::read::Event;
use crate::kafka::{Client, Extent, Limits, NextOffset, Outgoing, Publisher, Reader, Then, TopicPartition};
use crate::metrics::Metrics;
use crate::schema::wire;

const NOW_MS: i64 = 1_800_000_000_000;
const ORDER: Identity<'static> = Identity { source: "shop", id: "evt_1", event_type: "order_placed" };
/// What no wait here should ever need.
const PATIENCE: Duration = Duration::from_secs(30);

fn destination_of_orders() -> Destination {
    Destination { topic: "orders".into(), subject: "orders-value".into(), version: Some(3), schema_id: 7 }
}

fn memory() -> (Memory, DestinationId, Metrics) {
    let metrics = Metrics::new().unwrap();
    // One part: an event and its token always meet in it.
    let memory = Memory::new(1_000, metrics.dedupe_uncertain.clone().into());
    let orders = memory.destination(&destination_of_orders());
    (memory, orders, metrics)
}

fn claimed(entry: Entry<'_>) -> Ticket {
    let Entry::New(claim) = entry else { panic!("{entry:?} is not new") };
    let ticket = claim.ticket();
    claim.handed_over();
    ticket
}

fn waiting(entry: Entry<'_>) -> Waiter {
    let Entry::InFlight(waiter) = entry else { panic!("{entry:?} is not in flight") };
    waiter
}

fn unknown_error() -> Error {
    Error::Unknown { topic: "orders".to_owned(), partition: Some(0), source: None }
}

#[tokio::test]
async fn whoever_comes_while_an_event_is_in_flight_gets_its_place() {
    let (memory, orders, metrics) = memory();
    let ticket = claimed(memory.enter(ORDER, None, orders, NOW_MS));
    let waiters: Vec<Waiter> = (0..20).map(|_| waiting(memory.enter(ORDER, None, orders, NOW_MS))).collect();
    let position = Position { partition: 3, offset: 42 };
    memory.landed(ticket, Ok(position));
    for mut waiter in waiters {
        let duplicate = memory.report(&mut waiter).await.unwrap();
        assert_eq!((duplicate.position, &*duplicate.destination), (position, &destination_of_orders()));
    }
    let Entry::Duplicate(duplicate) = memory.enter(ORDER, None, orders, NOW_MS) else { panic!("not acknowledged") };
    assert_eq!(duplicate.position, position);
    assert_eq!(metrics.dedupe_uncertain.get(), 0);
    assert_eq!((memory.reach().entries, memory.reach().since), (1, Some(1_800_000_000)));
}

#[tokio::test]
async fn after_a_report_that_failed_one_of_those_who_waited_may_publish() {
    let (memory, orders, metrics) = memory();
    let ticket = claimed(memory.enter(ORDER, None, orders, NOW_MS));
    let (mut first, mut second) =
        (waiting(memory.enter(ORDER, None, orders, NOW_MS)), waiting(memory.enter(ORDER, None, orders, NOW_MS)));
    memory.landed(ticket, Err(&unknown_error()));
    assert!(memory.report(&mut first).await.is_none());
    assert!(memory.report(&mut second).await.is_none());
    assert_eq!(metrics.dedupe_uncertain.get(), 1, "its record may be there");
    claimed(memory.enter(ORDER, None, orders, NOW_MS));
    waiting(memory.enter(ORDER, None, orders, NOW_MS));
}

#[tokio::test]
async fn an_event_that_was_not_handed_over_is_unknown_again() {
    let (memory, orders, metrics) = memory();
    let entry = memory.enter(ORDER, None, orders, NOW_MS);
    let mut waiter = waiting(memory.enter(ORDER, None, orders, NOW_MS));
    drop(entry);
    assert!(memory.report(&mut waiter).await.is_none());
    assert_eq!(metrics.dedupe_uncertain.get(), 0);
    claimed(memory.enter(ORDER, None, orders, NOW_MS));
}

#[test]
fn events_that_differ_in_any_part_are_different() {
    let (memory, orders, _metrics) = memory();
    let others = [
        ORDER,
        Identity { source: "sho", id: "pevt_1", ..ORDER },
        Identity { source: "other", ..ORDER },
        Identity { id: "evt_1#order_placed.2", ..ORDER },
        Identity { event_type: "order_paid", ..ORDER },
    ];
    for identity in others {
        claimed(memory.enter(identity, None, orders, NOW_MS));
    }
    // A token of the same three words is none of them.
    claimed(memory.enter(Identity { id: "evt_2", ..ORDER }, Some(token("evt_1", 0)), orders, NOW_MS));
}

fn token(key: &'static str, nth: usize) -> Token<'static> {
    Token { source: "shop", key, nth }
}

#[tokio::test]
async fn a_token_brings_the_event_that_it_came_with_and_no_other() {
    let (memory, orders, _metrics) = memory();
    assert!(!memory.is_spent(token("t", 0)));
    let forged = Identity { id: "evt_2", ..ORDER };
    let ticket = claimed(memory.enter(ORDER, Some(token("t", 0)), orders, NOW_MS));
    // Nobody knows yet whether the token is spent.
    let mut waiter = waiting(memory.enter(forged, Some(token("t", 0)), orders, NOW_MS));
    memory.landed(ticket, Ok(Position { partition: 0, offset: 1 }));
    assert!(memory.report(&mut waiter).await.is_some());
    assert!(memory.is_spent(token("t", 0)));
    assert!(matches!(memory.enter(forged, Some(token("t", 0)), orders, NOW_MS), Entry::Replayed));
    // The provider repeats what was answered too late, under the same token or a new one.
    assert!(matches!(memory.enter(ORDER, Some(token("t", 0)), orders, NOW_MS), Entry::Duplicate(_)));
    assert!(matches!(memory.enter(ORDER, Some(token("u", 0)), orders, NOW_MS), Entry::Duplicate(_)));
    // The new one is not spent by that, and a request's second event is another's first.
    claimed(memory.enter(forged, Some(token("u", 0)), orders, NOW_MS));
    claimed(memory.enter(Identity { id: "evt_3", ..ORDER }, Some(token("t", 1)), orders, NOW_MS));
}

#[test]
fn a_token_whose_event_failed_may_come_again() {
    let (memory, orders, _metrics) = memory();
    let ticket = claimed(memory.enter(ORDER, Some(token("t", 0)), orders, NOW_MS));
    memory.landed(ticket, Err(&unknown_error()));
    drop(memory.enter(ORDER, Some(token("t", 0)), orders, NOW_MS));
    claimed(memory.enter(ORDER, Some(token("t", 0)), orders, NOW_MS));
}

#[test]
fn the_memory_says_from_when_on_it_knows_everything() {
    let metrics = Metrics::new().unwrap();
    let memory = Memory::new(1_000, metrics.dedupe_uncertain.into());
    let orders = memory.destination(&destination_of_orders());
    assert_eq!(memory.reach(), Reach { entries: 0, since: None, bytes: 0 });
    for number in 0..1_500_i64 {
        let id = number.to_string();
        let ticket = claimed(memory.enter(Identity { id: &id, ..ORDER }, None, orders, number * 1_000));
        memory.landed(ticket, Ok(Position { partition: 0, offset: number }));
    }
    let reach = memory.reach();
    assert_eq!((reach.entries, reach.since), (1_000, Some(499)), "the newest that was forgotten");
}

#[test]
fn a_destination_has_one_number() {
    let (memory, orders, _metrics) = memory();
    assert_eq!(memory.destination(&destination_of_orders()), orders);
    let older = Destination { version: None, schema_id: 6, ..destination_of_orders() };
    assert_ne!(memory.destination(&older), orders);
}

proptest! {
    #[test]
    fn a_tail_gives_what_there_is_room_for_and_takes_it_from_those_who_have_most(
        lens in prop::collection::vec(0_i64..1_000, 0..20),
        max in 0_usize..5_000,
    ) {
        let extent = |(partition, len): (i32, &i64)| Extent {
            at: TopicPartition { topic: "orders".into(), partition },
            start: NextOffset::stored(50),
            end: NextOffset::stored(50 + len),
        };
        let (shares, cut) = shares((0..).zip(&lens).map(extent).collect(), max);
        let kept: Vec<i64> = shares.iter().map(|extent| extent.end.get() - extent.start.get()).collect();
        let all: i64 = kept.iter().sum();
        let there: i64 = lens.iter().sum();
        let max = i64::try_from(max).unwrap();
        prop_assert!(all <= max);
        prop_assert_eq!(cut.len(), kept.iter().zip(&lens).filter(|(kept, len)| kept < len).count());
        // Less than a record for each partition is left over.
        prop_assert!(all == there || max - all < i64::try_from(lens.len()).unwrap());
        let most = kept.iter().max().copied().unwrap_or_default();
        for (kept, len) in kept.iter().zip(&lens) {
            prop_assert!(kept == len || *kept == most, "{} of {}, and {} of another", kept, len, most);
        }
    }
}

fn client(cluster: &DevCluster) -> Client {
    let kafka = config::Kafka::for_tests(cluster.bootstrap_servers(), &[]);
    Client::new(&kafka, "test").unwrap()
}

/// Publishes an event as the line does, with a token where it is given one.
async fn publish(publisher: &Publisher, id: &str, event_type: &str, schema_id: u32, key: Option<&str>) -> Position {
    let mut headers: Vec<(&str, &[u8])> =
        vec![(header::CE_SOURCE, b"shop"), (header::CE_ID, id.as_bytes()), (header::CE_TYPE, event_type.as_bytes())];
    headers.extend(key.map(|key| (header::REPLAY_KEY, key.as_bytes())));
    let value = wire::header(schema_id);
    let record = Outgoing {
        topic: "orders",
        partition: None,
        key: None,
        value: Some(&value),
        headers: &headers,
        timestamp_ms: None,
    };
    publisher.publish(record).unwrap().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_end_of_a_topic_holds_is_remembered() {
    let cluster = DevCluster::start(&[("orders".to_owned(), 1)]).unwrap();
    let client = client(&cluster);
    let publisher = Publisher::start(&client, Limits::default()).unwrap();
    let first = publish(&publisher, "evt_1", "order_placed", 7, None).await;
    let old = publish(&publisher, "evt_2", "order_placed", 6, Some("0:spent")).await;
    let older = publish(&publisher, "evt_5", "order_placed", 5, None).await;
    publish(&publisher, "evt_3", "nobody_knows", 7, None).await;
    publish(&publisher, "evt_1", "order_placed", 7, None).await;

    let (memory, orders, _metrics) = memory();
    let memory = Arc::new(memory);
    let version_1 = Destination { version: Some(1), schema_id: 5, ..destination_of_orders() };
    let known = [destination_of_orders(), version_1.clone()].map(|one| ("order_placed".to_owned(), one));
    let cut = vec![TopicPartition { topic: "orders".into(), partition: 0 }];
    let mut finder = Finder::new(Arc::clone(&memory), known, cut);
    let mut extents = client.extents("reader", vec!["orders".to_owned()], 0).await.unwrap();
    // The mock knows no times, and has nothing that is young enough.
    extents[0].start = NextOffset::stored(0);
    let mut reader = Reader::start(&client, "reader", extents, Then::Stop, move |record| finder.find(record)).unwrap();
    loop {
        match tokio::time::timeout(PATIENCE, reader.next()).await.unwrap() {
            Some(Event::Batch(batch)) => batch.into_iter().for_each(|found| memory.remember(found)),
            Some(Event::CaughtUp) => break,
            other => panic!("{other:?}"),
        }
    }

    assert_eq!(memory.reach().entries, 4, "three events and a token");
    assert_eq!(
        memory.reach().since,
        Some(memory.unread.load(Ordering::Relaxed)),
        "no more was read of a cut partition"
    );
    let Entry::Duplicate(duplicate) = memory.enter(ORDER, None, orders, NOW_MS) else { panic!("not remembered") };
    assert_eq!((duplicate.position, &*duplicate.destination), (first, &destination_of_orders()));
    let Entry::Duplicate(duplicate) = memory.enter(Identity { id: "evt_2", ..ORDER }, None, orders, NOW_MS) else {
        panic!("not remembered")
    };
    let written = Destination { version: None, schema_id: 6, ..destination_of_orders() };
    assert_eq!((duplicate.position, &*duplicate.destination), (old, &written));
    let Entry::Duplicate(duplicate) = memory.enter(Identity { id: "evt_5", ..ORDER }, None, orders, NOW_MS) else {
        panic!("not remembered")
    };
    assert_eq!((duplicate.position, &*duplicate.destination), (older, &version_1), "a schema that the files know");
    let forged = Identity { id: "evt_4", ..ORDER };
    assert!(matches!(memory.enter(forged, Some(token("spent", 0)), orders, NOW_MS), Entry::Replayed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_settles_an_event_whether_or_not_somebody_waits() {
    let cluster = DevCluster::start(&[("orders".to_owned(), 1)]).unwrap();
    let (memory, orders, _metrics) = memory();
    let memory = Arc::new(memory);
    let landing: Arc<dyn Landing> = Arc::<Memory>::clone(&memory);
    let publisher = Publisher::start_telling(&client(&cluster), Limits::default(), landing).unwrap();
    let Entry::New(claim) = memory.enter(ORDER, None, orders, NOW_MS) else { panic!("not new") };
    let record =
        Outgoing { topic: "orders", partition: None, key: None, value: Some(b"{}"), headers: &[], timestamp_ms: None };
    drop(publisher.publish_telling(record, claim.ticket()).unwrap());
    claim.handed_over();
    let place = match memory.enter(ORDER, None, orders, NOW_MS) {
        Entry::InFlight(mut waiter) => memory.report(&mut waiter).await.unwrap().position,
        Entry::Duplicate(duplicate) => duplicate.position,
        other => panic!("{other:?}"),
    };
    assert_eq!(place, Position { partition: 0, offset: 0 });
}
