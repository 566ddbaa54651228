//! Kills at any moment: what was accepted comes into the database once and in order, whatever the bridge was doing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::bridge::{Bridge, Receipt, Setup};
use crate::harness::http::{Connection, Request};
use crate::harness::postgres::Database;
use crate::harness::process::progress;
use crate::harness::{Random, eventually, senders, services};

const EVENTS: usize = 50_000;
const SENDERS: usize = 64;
/// Each sender's own; it waits for an answer before the next event of that customer, as the promise of order asks.
const CUSTOMERS_PER_SENDER: usize = 8;
const KILLS: usize = 6;
/// A restart of the bridge, the end of the dead member's session, and what is left to deliver.
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);
/// Longer than any restart takes.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(90);
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Topic, partition and offset.
type Place = (String, i32, i64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_events_reach_postgres_once_and_in_order_though_the_bridge_is_killed_at_random_moments() {
    let database = Database::create(&services().postgres).await;
    let setup = Setup { database: Some(database.url.clone()), ..Setup::new("crash") };
    let mut bridge = Bridge::start(setup).await;
    let mut random = Random::seeded("crash");

    let accepted = Arc::new(AtomicUsize::new(0));
    let (grew, mut growth) = watch::channel(());
    let grew = Arc::new(grew);
    let mut running = JoinSet::new();
    for sender in 0..SENDERS {
        let (accepted, grew, port) = (Arc::clone(&accepted), Arc::clone(&grew), bridge.port());
        running.spawn(async move {
            let mut connection = None;
            let mut places = Vec::new();
            for number in (sender..EVENTS).step_by(SENDERS) {
                let place = until_accepted(port, &mut connection, sender, number).await;
                places.push((number, place));
                accepted.fetch_add(1, Ordering::Relaxed);
                let _ = grew.send(());
            }
            places
        });
    }

    // A kill after a number of accepted events, and then a little more, chosen by the seed: by events and not by the
    // clock, so that a fast machine and a slow one are hit in the same places.
    let mut kills = 0;
    for kill in 1..=KILLS {
        let at = EVENTS * kill / (KILLS + 1) + usize::try_from(random.below(2_000)).unwrap();
        growth.wait_for(|()| accepted.load(Ordering::Relaxed) >= at).await.expect("senders are at work");
        bridge.kill9();
        bridge.restart();
        kills += 1;
    }
    let places: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    progress(&format!("crash: {} events accepted through {kills} kills", places.len()));
    assert_eq!(places.len(), EVENTS);

    let client = database.connect().await;
    eventually("every accepted event to be in Postgres", DELIVERED_WITHIN, async || {
        let row = client.query_one("SELECT count(DISTINCT hb_event_id) FROM order_placed", &[]).await.ok()?;
        (row.get::<_, i64>(0) >= i64::try_from(EVENTS).unwrap()).then_some(())
    })
    .await;
    check_rows(&client).await;
    check_topic(&bridge, &places);
}

/// One sender's event, again and again under the same id until it is answered 2xx.
async fn until_accepted(port: u16, connection: &mut Option<Connection>, sender: usize, number: usize) -> Place {
    let (id, customer) = (format!("evt_{number}"), (number / SENDERS) % CUSTOMERS_PER_SENDER);
    let body = format!(
        r#"{{"type": "order_placed", "data": {{"customer_id": "{sender}-{customer}", "sequence": {number}}}}}"#
    );
    // While the bridge restarts, connections are refused at once: come again, but do not spin.
    let mut again = tokio::time::interval(AGAIN_AFTER);
    let accepted = async {
        loop {
            again.tick().await;
            let request = senders::standard("shop", &id, body.as_bytes());
            if let Some(place) = once(port, connection, &request).await {
                return place;
            }
        }
    };
    tokio::time::timeout(ACCEPTED_WITHIN, accepted).await.unwrap_or_else(|_| panic!("{id} is never accepted"))
}

/// One attempt: the event's place where it was answered 2xx.
async fn once(port: u16, connection: &mut Option<Connection>, request: &Request) -> Option<Place> {
    if connection.is_none() {
        *connection = Connection::open(port).await.ok();
    }
    let Ok(answer) = connection.as_mut()?.send(request).await else {
        *connection = None;
        return None;
    };
    if answer.closes() {
        *connection = None;
    }
    if answer.is_success() {
        let receipt = Receipt::of(&answer);
        // A repeat of what was taken just before a kill is recognised, and has the place of the first.
        assert!(matches!(receipt.status(), "accepted" | "duplicate"), "{}", receipt.0);
        return Some(receipt.place());
    }
    assert_eq!(answer.status, 503, "only an outage is a reason not to take a valid event: {}", answer.text());
    None
}

async fn check_rows(client: &tokio_postgres::Client) {
    let counts = "SELECT count(*), count(DISTINCT hb_delivery_id), count(DISTINCT hb_event_id) FROM order_placed";
    let row = client.query_one(counts, &[]).await.expect("the sink's table");
    let expected = i64::try_from(EVENTS).unwrap();
    assert_eq!([row.get::<_, i64>(0), row.get(1), row.get(2)], [expected; 3], "rows, delivery ids, event ids");

    // A repeated event may be in the topic twice; its row is that of the first, so that the offsets of a customer's
    // rows grow with the sequence that the sender counted.
    let order = "SELECT customer_id, sequence, hb_partition::bigint FROM order_placed ORDER BY customer_id, hb_offset";
    let mut last: HashMap<String, (i64, i64)> = HashMap::new();
    for row in client.query(order, &[]).await.expect("the sink's table") {
        let (customer, sequence, partition): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if let Some((before, its_partition)) = last.insert(customer.clone(), (sequence, partition)) {
            assert_eq!(its_partition, partition, "{customer} stays in one partition");
            assert!(before < sequence, "{customer}: {sequence} stands after {before}");
        }
    }
    assert_eq!(last.len(), SENDERS * CUSTOMERS_PER_SENDER);
}

/// Every receipt is true, kills or not.
fn check_topic(bridge: &Bridge, places: &[(usize, Place)]) {
    let topic = bridge.topic("events.order_placed");
    let records = services().read(&[&topic]);
    let repeated = records.len() - EVENTS;
    let ids: HashSet<&str> = records.iter().filter_map(|record| record.header("ce_id")).collect();
    assert_eq!(ids.len(), EVENTS);
    let found: HashMap<(i32, i64), &str> = records
        .iter()
        .map(|record| ((record.partition, record.offset), record.header("ce_id").expect("an id")))
        .collect();
    for (number, (_, partition, offset)) in places {
        assert_eq!(found.get(&(*partition, *offset)), Some(&format!("evt_{number}").as_str()));
    }
    progress(&format!("crash: {repeated} events are in the topic twice, and in Postgres once"));
}
