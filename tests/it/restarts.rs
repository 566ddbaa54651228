//! Restarts in good order under load, while events come in and go out: nothing is lost, and no call is made again.
//!
//! Five of them here; `HOOKBRIDGE_TEST_RESTARTS=50 cargo test --test it restarts` makes fifty.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::harness::bridge::{Bridge, Receipt};
use crate::harness::http::Connection;
use crate::harness::process::progress;
use crate::harness::receiver::Receiver;
use crate::harness::senders;
use crate::http_sink::{check_order, setup};

const SENDERS: usize = 24;

/// Of them, deliveries between two restarts: some are delivered, some are out, some wait.
const BETWEEN: usize = 150;

/// A start, a join of the group, and what is left to deliver.
const SOON: Duration = Duration::from_secs(60);

/// After a refusal: connections are refused at once while the bridge restarts.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_good_order_under_load_lose_nothing_and_repeat_no_call() {
    let restarts = std::env::var("HOOKBRIDGE_TEST_RESTARTS").map_or(5, |count| count.parse().expect("a number"));
    let receiver = Receiver::start().await;
    let mut bridge = Bridge::start(setup("restarts", &receiver, "a", "")).await;
    let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut running = JoinSet::new();
    for sender in 0..SENDERS {
        running.spawn(send_on(bridge.port(), sender, Arc::clone(&stop), Arc::clone(&accepted)));
    }
    for _ in 0..restarts {
        receiver.wait_taken(receiver.times_taken().len() + BETWEEN, SOON).await;
        bridge.ask_to_stop();
        assert_eq!(bridge.wait_ended(SOON).code(), Some(0), "{}", bridge.log());
        bridge.restart();
        bridge.wait_ready().await;
    }
    stop.store(true, Ordering::Relaxed);
    running.join_all().await;
    let accepted = accepted.load(Ordering::Relaxed);
    receiver.wait_taken(accepted, SOON).await;
    check_order(&receiver, accepted);
    assert_eq!(receiver.calls().len(), accepted, "no call was repeated");
    progress(&format!("restarts: {accepted} events through {restarts} restarts, each called once"));
}

/// One customer's events, each under its id until it is accepted, the next one only then.
async fn send_on(port: u16, sender: usize, stop: Arc<AtomicBool>, accepted: Arc<AtomicUsize>) {
    let mut again = interval(AGAIN_AFTER);
    let mut connection = None;
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let body =
            format!(r#"{{"type": "order_placed", "data": {{"customer_id": "c{sender}", "sequence": {sequence}}}}}"#);
        let request = senders::standard("shop", &format!("c{sender}-{sequence}"), body.as_bytes());
        let until_accepted = async {
            loop {
                again.tick().await;
                if connection.is_none() {
                    connection = Connection::open(port).await.ok();
                }
                let Some(open) = &mut connection else { continue };
                let answer = open.send(&request).await;
                if answer.as_ref().map_or(true, super::harness::http::Response::closes) {
                    connection = None;
                }
                match answer {
                    Ok(answer) if answer.is_success() => return Receipt::of(&answer),
                    Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                    Err(_) => {}
                }
            }
        };
        let receipt = timeout(SOON, until_accepted).await.expect("an event is accepted soon after a restart");
        assert!(matches!(receipt.status(), "accepted" | "duplicate"), "{}", receipt.0);
        accepted.fetch_add(1, Ordering::Relaxed);
        sequence += 1;
    }
}
