//! A stop under load: what was answered is there, and what was not answered was not promised.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::harness::bridge::{Bridge, Receipt, Setup};
use crate::harness::http::Connection;
use crate::harness::{senders, services};

const SENDERS: usize = 32;
/// Answers after which the stop comes: the senders are at full speed by then.
const BEFORE_STOP: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_sigterm_under_load_every_answered_event_is_in_its_place_and_the_exit_is_clean() {
    let mut bridge = Bridge::start(Setup { drain_timeout: "15s", ..Setup::new("drain") }).await;
    let port = bridge.port();
    let (answered, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut running = JoinSet::new();
    for sender in 0..SENDERS {
        let (answered, enough) = (Arc::clone(&answered), Arc::clone(&enough));
        running.spawn(async move {
            let mut receipts = Vec::new();
            // Until the bridge takes no more: every way in which it may say so is fine, but a 2xx without its event.
            'reconnect: while let Ok(mut connection) = Connection::open(port).await {
                loop {
                    let id = format!("evt_{sender}_{}", receipts.len());
                    let body = format!(r#"{{"type": "order_placed", "data": {{"customer_id": "{sender}"}}}}"#);
                    let Ok(answer) = connection.send(&senders::standard("shop", &id, body.as_bytes())).await else {
                        continue 'reconnect;
                    };
                    if !answer.is_success() {
                        assert_eq!(answer.status, 503, "{}", answer.text());
                        break 'reconnect;
                    }
                    receipts.push((id, Receipt::of(&answer).place()));
                    if answered.fetch_add(1, Ordering::Relaxed) + 1 == BEFORE_STOP {
                        enough.notify_one();
                    }
                    if answer.closes() {
                        continue 'reconnect;
                    }
                }
            }
            receipts
        });
    }
    enough.notified().await;
    bridge.ask_to_stop();
    let status = bridge.wait_ended(Duration::from_secs(25));
    assert_eq!(status.code(), Some(0), "a stop that was asked for is no failure\n{}", bridge.log());

    let receipts: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    assert!(receipts.len() >= BEFORE_STOP);
    let topic = bridge.topic("events.order_placed");
    let found: HashMap<_, _> = services()
        .read(&[&topic])
        .into_iter()
        .map(|record| ((record.topic.clone(), record.partition, record.offset), record))
        .collect();
    for (id, place) in &receipts {
        let record = found.get(place).unwrap_or_else(|| panic!("{id} was answered and is not at {place:?}"));
        assert_eq!(record.header("ce_id"), Some(id.as_str()));
    }
}
