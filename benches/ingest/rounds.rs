//! Rounds in which the candidates take turns, and what is made of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookbridge::catalog;
use hookbridge::clock;
use hookbridge::config::Secret;
use hookbridge::dev::samples::Samples;
use hookbridge::ingest::verify::{self, Message};
use http::HeaderMap;

use crate::load::{self, Requests, Seen};
use crate::shared::{median, process};
use crate::world::{Running, SECRET, World};

const BODIES: usize = 10_000;
const CUSTOMERS: u64 = 5_000;
/// Cores used by neither candidate, broker nor load generator, above which a measurement is taken again.
const MAX_FOREIGN: f64 = 0.35;
const REPEATS: usize = 2;
/// Connections of the open loop: enough to be never all waiting for an answer at 5,000/s.
const OPEN_CONNECTIONS: usize = 64;

/// Ratios, hookbridge to bare, within a round.
pub(crate) struct Limits {
    /// Acked events a second: at least.
    pub(crate) rate: f64,
    /// CPU seconds an event: at most.
    pub(crate) cpu: f64,
    /// Median latency at 1,000 events/s: at most.
    pub(crate) p50: f64,
}

pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) run: Duration,
    pub(crate) limits: Limits,
}

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Closed(usize),
    Open(u32),
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::Closed(connections) => format!("{connections} connections"),
            Self::Open(rate) => format!("{rate}/s open loop"),
        }
    }
}

const LOADS: [Load; 3] = [Load::Closed(64), Load::Closed(256), Load::Open(1000)];

/// What one candidate did under one load.
struct Measured {
    rate: f64,
    cpu_per_million: f64,
    /// Of the broker and the load generator together.
    beside_per_million: f64,
    p50: f64,
    p99: f64,
    foreign: f64,
}

/// The two candidates under one load in one round: hookbridge, bare.
type Pair = [Measured; 2];

/// Measures, prints, and answers the exit code.
pub(crate) fn run(broker: Option<u32>, plan: &Plan) -> i32 {
    let world = World::start(broker);
    let mut results: Vec<(Load, Vec<Pair>)> = LOADS.iter().map(|&load| (load, Vec::new())).collect();
    let mut memory = [0.0_f64; 2];
    for round in 0..plan.rounds {
        let mut of_round: Vec<[Option<Measured>; 2]> = LOADS.iter().map(|_| [None, None]).collect();
        for turn in 0..2 {
            let candidate = (round + turn) % 2; // the order turns with each round
            let running = if candidate == 0 { world.hookbridge() } else { world.bare() };
            measure(&running, LOADS[0], Duration::from_secs(3).min(plan.run)); // warm-up
            for (load, measured) in LOADS.iter().zip(&mut of_round) {
                measured[candidate] = Some(measure_quietly(&running, *load, plan.run));
            }
            memory[candidate] = memory[candidate].max(process::peak_memory_mib(running.pid()));
        }
        for (measured, (load, pairs)) in of_round.into_iter().zip(&mut results) {
            let [Some(ours), Some(bare)] = measured else { continue };
            let pair = [ours, bare];
            print_pair(round + 1, *load, &pair);
            pairs.push(pair);
        }
    }
    println!("\npeak memory  hookbridge {:.0} MiB  bare {:.0} MiB", memory[0], memory[1]);
    verdict(&results, &plan.limits)
}

fn print_pair(round: usize, load: Load, [ours, bare]: &Pair) {
    print!("round {round}  {:<16}", load.name());
    print!("  rate {:>6.0} / {:>6.0} = {:.2}", ours.rate, bare.rate, ours.rate / bare.rate);
    let (cpu, bare_cpu) = (ours.cpu_per_million, bare.cpu_per_million);
    print!("   CPU s/1M {cpu:>5.1} / {bare_cpu:>5.1} = {:.2}", cpu / bare_cpu);
    print!("   p50 {:.2} / {:.2} ms = {:.2}", ours.p50, bare.p50, ours.p50 / bare.p50);
    print!("   p99 {:.2} / {:.2} ms", ours.p99, bare.p99);
    println!(
        "   beside {:.1} / {:.1} s/1M   foreign {:.2} / {:.2}",
        ours.beside_per_million, bare.beside_per_million, ours.foreign, bare.foreign
    );
}

/// Medians of the ratios within rounds, beside their gates.
fn verdict(results: &[(Load, Vec<Pair>)], limits: &Limits) -> i32 {
    println!("\nmedian ratios, hookbridge to bare:");
    let mut passed = true;
    for (load, rounds) in results {
        let ratio = |of: fn(&Measured) -> f64| median(rounds.iter().map(|[ours, bare]| of(ours) / of(bare)).collect());
        let (rate, cpu, p50) = (ratio(|m| m.rate), ratio(|m| m.cpu_per_million), ratio(|m| m.p50));
        let (good, gate) = match load {
            Load::Closed(_) => (
                rate >= limits.rate && cpu <= limits.cpu,
                format!("rate ≥ {:.2}, CPU ≤ {:.2}", limits.rate, limits.cpu),
            ),
            Load::Open(_) => (p50 <= limits.p50, format!("p50 ≤ {:.2}", limits.p50)),
        };
        passed &= good;
        let word = if good { "holds" } else { "FAILS" };
        println!("  {:<16}  rate {rate:.2}  CPU {cpu:.2}  p50 {p50:.2}   {word}: {gate}", load.name());
    }
    i32::from(!passed)
}

/// Peak memory at a fixed rate; the exit code says whether it stayed under the limit.
pub(crate) fn memory(broker: Option<u32>, run: Duration, rate: u32, limit_mib: f64) -> i32 {
    let world = World::start(broker);
    let running = world.hookbridge();
    let start = process::peak_memory_mib(running.pid());
    let measured = measure(&running, Load::Open(rate), run);
    let peak = process::peak_memory_mib(running.pid());
    let (rate, seconds) = (measured.rate, run.as_secs());
    println!("{rate:.0} events/s over {seconds} s, p50 {:.2} ms, p99 {:.2} ms", measured.p50, measured.p99);
    println!("peak memory {peak:.1} MiB (limit {limit_mib:.0}; {start:.1} before the first request)");
    i32::from(peak > limit_mib)
}

/// Measures again while something else uses the machine, a few times, and keeps the quietest.
fn measure_quietly(running: &Running<'_>, load: Load, run: Duration) -> Measured {
    let mut best = measure(running, load, run);
    for _ in 0..REPEATS {
        if best.foreign <= MAX_FOREIGN || run < Duration::from_secs(5) {
            break;
        }
        let again = measure(running, load, run);
        if again.foreign < best.foreign {
            best = again;
        }
    }
    best
}

fn measure(running: &Running<'_>, load: Load, run: Duration) -> Measured {
    let requests = signed_requests();
    let before = running.records();
    let family = || process::family_cpu_seconds(running.world.broker);
    let start = (Instant::now(), process::idle_seconds(), process::cpu_seconds(running.pid()), family());
    let seen = match load {
        Load::Closed(connections) => load::closed(running.address, &requests, connections, Duration::from_secs(1), run),
        Load::Open(rate) => load::open(running.address, &requests, rate, OPEN_CONNECTIONS, run),
    };
    let wall = start.0.elapsed().as_secs_f64();
    let idle = process::idle_seconds() - start.1;
    let used = process::cpu_seconds(running.pid()) - start.2;
    let known = family() - start.3;
    let added = running.records() - before;
    check_count(&seen, added);
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    Measured {
        rate: seen.rate(),
        cpu_per_million: used / added as f64 * 1e6,
        beside_per_million: (known - used) / added as f64 * 1e6,
        p50: seen.percentile_ms(0.5),
        p99: seen.percentile_ms(0.99),
        foreign: ((wall * cores - idle - known) / wall).max(0.0),
    }
}

/// No number counts unless every 2xx is a record, and every record a 2xx: nobody repeats a request here.
fn check_count(seen: &Seen, added: u64) {
    assert_eq!(seen.failed, 0, "requests were not answered 2xx");
    assert_eq!(added, seen.acked, "records in the topic, and requests answered 2xx");
}

/// The same bodies for both candidates, signed anew: a signature is good for five minutes.
pub(crate) fn signed_requests() -> Requests {
    let now = clock::now_ms();
    let scheme = catalog::preset("standard-webhooks").expect("the preset");
    let secret = Secret::new(SECRET);
    let mut samples = Samples::new(42, &now.to_string());
    let requests = (0..BODIES).map(|_| {
        let sample = samples.purchase(now, CUSTOMERS);
        let message = Message {
            id: &sample.id,
            now_ms: now,
            method: "POST",
            url: "/hooks/storefront",
            headers: &HeaderMap::new(),
            body: &sample.body,
        };
        let headers = verify::sign(&scheme, &secret, &message).expect("a signature").headers;
        let length = sample.body.len();
        let head = format!(
            "POST /hooks/storefront HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
        );
        let mut request = head.into_bytes();
        for (name, value) in &headers {
            request.extend_from_slice(name.as_str().as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(&sample.body);
        request
    });
    Arc::new(requests.collect())
}
