//! What fails delays nothing else: a vendor that is down no other sink, a key that fails no other key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::process::progress;
use crate::harness::receiver::{Answer, Receiver, SIGNING_KEY};
use crate::http_sink::{check_order, customers, send, send_all, setup};

/// How long something fails; `HOOKBRIDGE_TEST_OUTAGE=300` makes it five minutes.
fn outage() -> Duration {
    let seconds = std::env::var("HOOKBRIDGE_TEST_OUTAGE").map_or(10, |text| text.parse().expect("seconds"));
    Duration::from_secs(seconds)
}

/// From an event's acceptance to its delivery elsewhere: well below the failure, and far above what it takes on a machine
/// that has other work.
const BOUND: Duration = Duration::from_secs(4);

/// What waited comes in its own time: pauses between attempts have grown.
const AFTERWARDS: Duration = Duration::from_secs(120);

/// Sends a round of events again and again while something fails, and waits for each round's deliveries within [`BOUND`].
/// Gives how many rounds there were, and the longest wait.
async fn rounds(receiver: &Receiver, others: usize, mut round: impl AsyncFnMut(usize)) -> (usize, Duration) {
    let began = Instant::now();
    let (outage, mut done, mut longest) = (outage(), 0, Duration::ZERO);
    while began.elapsed() < outage {
        let taken = receiver.times_taken().len();
        round(done).await;
        let sent = Instant::now();
        receiver.wait_taken(taken + others, BOUND).await;
        longest = longest.max(sent.elapsed());
        done += 1;
    }
    (done, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vendor_that_is_down_delays_no_other_sink() {
    let (down, healthy) = (Receiver::start().await, Receiver::start().await);
    let is_down = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_down);
    // Half of the calls hang until they time out, and half are told to come again: connections and attempts are held.
    let mut calls = 0;
    down.answer(move |_| {
        calls += 1;
        match (asked.load(Ordering::SeqCst), calls % 2) {
            (false, _) => Answer::Status(204),
            (true, 0) => Answer::Status(503),
            (true, _) => Answer::Never,
        }
    });
    let first = setup("isolated", &down, "a", "");
    let tail = format!(
        r"{first}
  mail:
    type: http
    url: {url}
    events: [order_placed]
    purpose: none
    sign: {{ standard_webhooks: whsec_{key} }}
",
        first = first.tail,
        url = healthy.url(),
        key = BASE64.encode(SIGNING_KEY),
    );
    let bridge = Bridge::start(Setup { tail, ..first }).await;
    let customers = customers(8);
    // Both have their partitions from here on.
    send_all(&bridge, &customers, 0, 1).await;
    healthy.wait_taken(8, AFTERWARDS).await;
    let (rounds, longest) = rounds(&healthy, 8, async |round| send_all(&bridge, &customers, round + 1, 1).await).await;
    progress(&format!("isolation: {rounds} rounds beside a vendor that is down, the longest wait {longest:?}"));
    assert_eq!(down.taken().len(), 0, "it was down");

    is_down.store(false, Ordering::SeqCst);
    let all = (rounds + 1) * 8;
    down.wait_taken(all, AFTERWARDS).await;
    check_order(&down, all);
    check_order(&healthy, all);
    assert_eq!(healthy.calls().len(), all, "the other's trouble is no reason to call again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_key_the_hottest_delays_no_other_key() {
    // Of a round, beside one of each other key. Those of a parked key are delivered one by one, a transaction each.
    const HOT: usize = 10;
    let receiver = Receiver::start().await;
    let fails = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&fails);
    receiver.answer(move |call| {
        let refused = call.customer() == "hot" && asked.load(Ordering::SeqCst);
        Answer::Status(if refused { 500 } else { 204 })
    });
    let bridge = Bridge::start(setup("hot", &receiver, "a", "")).await;
    let customers = customers(8);
    send_all(&bridge, &customers, 0, 1).await;
    receiver.wait_taken(8, AFTERWARDS).await;
    let (rounds, longest) = rounds(&receiver, 8, async |round| {
        send(&bridge, "hot", round * HOT, HOT).await;
        send_all(&bridge, &customers, round + 1, 1).await;
    })
    .await;
    progress(&format!("isolation: {rounds} rounds beside a key that fails, the longest wait {longest:?}"));
    let hot = receiver.taken().iter().filter(|call| call.customer() == "hot").count();
    assert_eq!(hot, 0, "it failed all the while");

    fails.store(false, Ordering::SeqCst);
    let all = (rounds + 1) * 8 + rounds * HOT;
    receiver.wait_taken(all, AFTERWARDS).await;
    check_order(&receiver, all);
}
