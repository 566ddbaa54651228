//! A steady sender beside peers that mean harm, each of which has half a core.

use std::time::Duration;

use crate::harness::attack::{Attack, Kind};
use crate::load::{self, Seen};
use crate::rounds::signed_requests;
use crate::shared::process;
use crate::world::{Running, World};

const RATE: u32 = 500;
const CONNECTIONS: usize = 64;
/// The 99th percentile stays within twice the baseline or this, whichever is more.
const P99_MS: f64 = 50.0;
const MEMORY_MIB: f64 = 200.0;
/// A phase in which something else used the machine is measured again.
const ATTEMPTS: usize = 3;

/// Measures, prints, and answers the exit code.
pub(crate) fn run(broker: Option<u32>, run: Duration) -> i32 {
    let world = World::start(broker);
    let running = world.hookbridge();
    steady(&running, Duration::from_secs(2).min(run));
    let calm = steady(&running, run);
    let baseline = calm.percentile_ms(0.99);
    let bound = (2.0 * baseline).max(P99_MS);
    print("calm", &calm, &running, "");
    let mut passed = true;
    for kind in Kind::ALL {
        passed &= holds(&format!("{kind:?}"), &running, bound, || {
            let before = process::cpu_seconds(running.pid());
            let attack = Attack::start(kind, running.address);
            let seen = steady(&running, run);
            let done = attack.stop();
            let used = (process::cpu_seconds(running.pid()) - before) / run.as_secs_f64();
            let (connections, sent, share) = (done.connections, done.sent, done.share);
            let theirs = format!("{connections} connections, {sent} sent, {share:.2} cores against {used:.2}");
            (seen, theirs)
        });
    }
    passed &= holds("ten times the rate", &running, bound, || burst(&running, run));
    let peak = process::peak_memory_mib(running.pid());
    println!("\npeak memory {peak:.0} MiB (limit {MEMORY_MIB:.0}); bound on p99 {bound:.1} ms");
    i32::from(!passed || peak > MEMORY_MIB)
}

/// One phase, again where it was slow: whether it was in time once.
fn holds(name: &str, running: &Running<'_>, bound: f64, mut phase: impl FnMut() -> (Seen, String)) -> bool {
    (0..ATTEMPTS).any(|_| {
        let (seen, theirs) = phase();
        print(name, &seen, running, &theirs);
        seen.percentile_ms(0.99) <= bound
    })
}

fn print(name: &str, seen: &Seen, running: &Running<'_>, theirs: &str) {
    let (p50, p99) = (seen.percentile_ms(0.5), seen.percentile_ms(0.99));
    let descriptors = process::descriptors(running.pid());
    println!("{name:<20} p50 {p50:>6.2} ms  p99 {p99:>7.2} ms  {descriptors:>5} descriptors  {theirs}");
}

/// The steady sender alone; every 2xx of its is a record.
fn steady(running: &Running<'_>, run: Duration) -> Seen {
    let before = running.records();
    let seen = load::open(running.address, &signed_requests(), RATE, CONNECTIONS, run);
    assert_eq!(seen.failed, 0, "requests were not answered 2xx");
    assert_eq!(running.records() - before, seen.acked, "records in the topic, and requests answered 2xx");
    seen
}

/// The steady sender, and another one with ten times its rate.
fn burst(running: &Running<'_>, run: Duration) -> (Seen, String) {
    let before = running.records();
    let address = running.address;
    let requests = signed_requests();
    let other = std::thread::spawn(move || load::open(address, &requests, RATE * 10, CONNECTIONS, run));
    let seen = load::open(address, &signed_requests(), RATE, CONNECTIONS, run);
    let theirs = other.join().expect("a sender does not panic");
    assert_eq!(running.records() - before, seen.acked + theirs.acked, "records, and requests answered 2xx");
    assert_eq!(seen.failed, 0, "requests were not answered 2xx");
    (seen, format!("{} accepted, p99 {:.2} ms", theirs.acked, theirs.percentile_ms(0.99)))
}
