//! Rounds in which the candidates take turns, and what is made of them.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookbridge::catalog;
use hookbridge::clock;
use hookbridge::config::Secret;
use hookbridge::dev::samples::Samples;
use hookbridge::ingest::verify::{self, Message};
use http::HeaderMap;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::harness;
use crate::load::{self, Requests, Seen};
use crate::process;

const SECRET: &str = "whsec_YmVuY2gtb25seS1zdG9yZWZyb250LXNlY3JldA==";
const PARTITIONS: i32 = 16;
const BODIES: usize = 10_000;
const CUSTOMERS: u64 = 5_000;
/// Cores used by neither candidate, broker nor load generator, above which a measurement is taken again.
const MAX_FOREIGN: f64 = 0.35;
const RETRIES: usize = 3;

/// Ratios, hookbridge to bare, within a round.
pub struct Limits {
    /// Acked events a second: at least.
    pub rate: f64,
    /// CPU seconds an event: at most.
    pub cpu: f64,
    /// Median latency at 1,000 events/s: at most.
    pub p50: f64,
}

pub struct Plan {
    pub rounds: usize,
    pub run: Duration,
    pub limits: Limits,
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
    p50: f64,
    p99: f64,
    foreign: f64,
}

/// Measures, prints, and answers the exit code.
pub fn run(plan: &Plan) -> i32 {
    let world = World::start();
    let mut results: Vec<(Load, Vec<[Measured; 2]>)> = LOADS.iter().map(|&load| (load, Vec::new())).collect();
    let mut memory = [0.0_f64; 2];
    for round in 0..plan.rounds {
        let mut of_round: Vec<[Option<Measured>; 2]> = LOADS.iter().map(|_| [None, None]).collect();
        for turn in 0..2 {
            let candidate = (round + turn) % 2; // the order turns with each round
            let running = if candidate == 0 { world.hookbridge() } else { world.bare() };
            running.warm_up(&world, Duration::from_secs(3).min(plan.run));
            for (at, &load) in LOADS.iter().enumerate() {
                of_round[at][candidate] = Some(running.measure_quietly(&world, load, plan.run));
            }
            memory[candidate] = memory[candidate].max(process::peak_memory_mib(running.child.id()));
        }
        for (at, [ours, bare]) in of_round.into_iter().enumerate() {
            let (Some(ours), Some(bare)) = (ours, bare) else { continue };
            println!(
                "round {}  {:<16}  rate {:>6.0} / {:>6.0} = {:.2}   CPU s/1M {:>5.1} / {:>5.1} = {:.2}   p50 {:.2} / {:.2} ms   p99 {:.2} / {:.2} ms   foreign {:.2} / {:.2}",
                round + 1,
                LOADS[at].name(),
                ours.rate,
                bare.rate,
                ours.rate / bare.rate,
                ours.cpu_per_million,
                bare.cpu_per_million,
                ours.cpu_per_million / bare.cpu_per_million,
                ours.p50,
                bare.p50,
                ours.p99,
                bare.p99,
                ours.foreign,
                bare.foreign,
            );
            results[at].1.push([ours, bare]);
        }
    }
    println!("\npeak memory  hookbridge {:.0} MiB  bare {:.0} MiB", memory[0], memory[1]);
    verdict(&results, &plan.limits)
}

/// Medians of the ratios within rounds, beside their gates.
fn verdict(results: &[(Load, Vec<[Measured; 2]>)], limits: &Limits) -> i32 {
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
pub fn memory(run: Duration, rate: u32, limit_mib: f64) -> i32 {
    let world = World::start();
    let running = world.hookbridge();
    let measured = running.measure(&world, Load::Open(rate), run);
    let peak = process::peak_memory_mib(running.child.id());
    println!("{:.0} events/s over {} s: peak {peak:.0} MiB (limit {limit_mib:.0})", measured.rate, run.as_secs());
    i32::from(peak > limit_mib)
}

/// What both candidates share.
struct World {
    bootstrap: String,
    registry: String,
    folder: PathBuf,
    broker: Option<u32>,
}

impl World {
    fn start() -> Self {
        let services = harness::services();
        let folder = std::env::temp_dir().join(format!("hookbridge-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for configurations");
        Self {
            bootstrap: services.kafka.bootstrap.clone(),
            registry: services.registry.url.clone(),
            folder,
            broker: services.kafka.pid(),
        }
    }

    fn hookbridge(&self) -> Running {
        let (address, admin) = (free_address(), free_address());
        let prefix = format!("bench{}.", clock::now_ms());
        let file = self.folder.join("hookbridge.yaml");
        let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");
        let config = format!(
            "kafka:\n  bootstrap_servers: {}\n  create_topics: true\n  topic_prefix: {prefix}\n  topic_defaults: {{ partitions: {PARTITIONS}, replication_factor: 1, min_insync_replicas: 1 }}\nregistry: {{ url: \"{}\", auto_register: true, cache: cache }}\ningest: {{ listen: \"{address}\" }}\nadmin: {{ listen: \"{admin}\" }}\nschemas: {schemas}\nevents:\n  purchase_completed: {{ category: commerce, owner: bench@example.com, key: .customer_id, id: .event_id, unknown_fields: capture }}\nsources:\n  storefront: {{ preset: standard-webhooks, secrets: [\"{SECRET}\"], event_type: .type, payload: .data }}\n",
            self.bootstrap, self.registry,
        );
        std::fs::write(&file, config).expect("the configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
        command.arg("run").arg("--config").arg(&file).args(["--log", "warn"]);
        Running::start(command, address, Some(admin), format!("{prefix}events.purchase_completed"))
    }

    fn bare(&self) -> Running {
        let address = free_address();
        let topic = format!("bench{}.bare", clock::now_ms());
        harness::create_topic(&self.bootstrap, &topic, PARTITIONS);
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--bare", &address.to_string(), &self.bootstrap, &topic]);
        Running::start(command, address, None, topic)
    }

    /// Records in a topic: the sum of its end offsets.
    fn records(&self, topic: &str) -> i64 {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("a client");
        let ends = (0..PARTITIONS).map(|partition| client.fetch_watermarks(topic, partition, Duration::from_secs(10)));
        ends.map(|marks| marks.map_or(0, |(_, end)| end)).sum()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A candidate's process.
struct Running {
    child: Child,
    address: SocketAddr,
    topic: String,
}

impl Running {
    fn start(mut command: Command, address: SocketAddr, ready: Option<SocketAddr>, topic: String) -> Self {
        let child = command.stdin(Stdio::null()).spawn().expect("the candidate");
        let running = Self { child, address, topic };
        harness::wait_until("the candidate takes requests", Duration::from_secs(60), || match ready {
            Some(admin) => harness::http_ok(admin, "/readyz"),
            None => std::net::TcpStream::connect(address).is_ok(),
        });
        running
    }

    fn warm_up(&self, world: &World, run: Duration) {
        self.measure(world, Load::Closed(64), run);
    }

    /// Measures again while something else uses the machine, a few times.
    fn measure_quietly(&self, world: &World, load: Load, run: Duration) -> Measured {
        let mut best = self.measure(world, load, run);
        for _ in 0..RETRIES {
            if best.foreign <= MAX_FOREIGN || run < Duration::from_secs(5) {
                break;
            }
            let again = self.measure(world, load, run);
            if again.foreign < best.foreign {
                best = again;
            }
        }
        best
    }

    fn measure(&self, world: &World, load: Load, run: Duration) -> Measured {
        let requests = signed_requests();
        let pid = self.child.id();
        let cpu = |pid: Option<u32>| pid.map_or(0.0, process::cpu_seconds);
        let before = world.records(&self.topic);
        let start =
            (Instant::now(), process::idle_seconds(), cpu(Some(pid)), cpu(world.broker), cpu(Some(std::process::id())));
        let seen = match load {
            Load::Closed(connections) => {
                load::closed(self.address, &requests, connections, Duration::from_secs(1), run)
            }
            Load::Open(rate) => load::open(self.address, &requests, rate, 64, run),
        };
        let wall = start.0.elapsed().as_secs_f64();
        let idle = process::idle_seconds() - start.1;
        let used = cpu(Some(pid)) - start.2;
        let known = used + cpu(world.broker) - start.3 + cpu(Some(std::process::id())) - start.4;
        let added = world.records(&self.topic) - before;
        check_count(&seen, added);
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        Measured {
            rate: seen.rate(),
            cpu_per_million: used / added as f64 * 1e6,
            p50: seen.percentile_ms(0.5),
            p99: seen.percentile_ms(0.99),
            foreign: ((wall * cores - idle - known) / wall).max(0.0),
        }
    }
}

/// No number counts if a 2xx has no record: requests outside the measured window are in `added` too, so that it may
/// only be larger.
fn check_count(seen: &Seen, added: i64) {
    assert_eq!(seen.failed, 0, "requests failed");
    assert!(added >= seen.ok as i64, "{} were answered 2xx and {added} records are in the topic", seen.ok);
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same bodies for both candidates, signed anew: a signature is good for five minutes.
fn signed_requests() -> Requests {
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
        let headers = verify::sign(&scheme, &secret, &message).expect("a signature");
        let mut request = format!(
            "POST /hooks/storefront HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            sample.body.len()
        )
        .into_bytes();
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

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
