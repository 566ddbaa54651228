//! Three real Apache Kafka brokers, each broker and controller in one (KRaft combined mode), to be killed and frozen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::harness::eventually;
use crate::harness::maven::Cache;
use crate::harness::process::{Process, folder, free_port, run};
use crate::harness::proxy::{Armed, Fault, Proxy};

const NODES: usize = 3;

/// `min.insync.replicas`.
const IN_SYNC: usize = 2;

/// Three JVMs that start at once on two shared cores.
const START: Duration = Duration::from_secs(180);

/// A killed broker starts, reads its log, catches up and is in sync again.
pub(crate) const IN_SYNC_WITHIN: Duration = Duration::from_secs(120);

/// One look at the cluster; one that does not answer is looked at again.
const LOOK: Duration = Duration::from_secs(3);

/// Of `__consumer_offsets`, and of `__transaction_state`.
const INTERNAL_PARTITIONS: i32 = 4;

/// Heap of one broker. Measured at 400 events a second: 330 MB resident each.
const HEAP: &str = "256m";

pub(crate) struct Cluster {
    classpath: String,
    nodes: Vec<Node>,
    /// Before all of them, for whoever starts from its port.
    proxy: Proxy,
    /// Finds leaders for the nemesis. The judge reads by another client.
    client: BaseConsumer,
}

/// Where a broker listens.
struct Ports {
    plain: u16,
    controller: u16,
    /// A second listener, which tells clients that it is reached by way of `proxy`.
    behind: u16,
    proxy: u16,
}

impl Ports {
    fn free() -> Self {
        Self { plain: free_port(), controller: free_port(), behind: free_port(), proxy: free_port() }
    }
}

struct Node {
    folder: PathBuf,
    port: u16,
    process: Process,
}

/// Who leads a partition, and how many replicas are in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) number: i32,
    /// A node's place in the cluster; none while there is no leader.
    pub(crate) leader: Option<usize>,
    pub(crate) in_sync: usize,
}

impl Cluster {
    /// Formats three log folders, starts three brokers, and waits until each has joined.
    pub(crate) fn start(cache: &Cache) -> Result<Self, String> {
        let classpath = cache.kafka()?;
        let places: Vec<(PathBuf, Ports)> = (0..NODES).map(|_| (folder("broker"), Ports::free())).collect();
        let voters: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(at, (_, ports))| format!("{}@127.0.0.1:{}", at + 1, ports.controller))
            .collect();
        let nodes = thread::scope(|scope| {
            let starting: Vec<_> = places
                .iter()
                .enumerate()
                .map(|(at, (folder, ports))| {
                    let settings = properties(at + 1, folder, ports, &voters.join(","));
                    let classpath = &classpath;
                    scope.spawn(move || format_and_launch(classpath, folder, ports.plain, &settings))
                })
                .collect();
            starting.into_iter().map(|node| node.join().expect("no panic")).collect::<Result<Vec<_>, _>>()
        })?;
        for node in &nodes {
            node.process.wait_ready(START)?;
        }
        let (first, others) = places.split_first().expect("three");
        let proxy = Proxy::start(first.1.proxy, first.1.behind);
        for (_, ports) in others {
            proxy.also(ports.proxy, ports.behind);
        }
        let bootstrap = bootstrap(&nodes);
        let client = ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .set("group.id", "nemesis")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.timeout.ms", "3000")
            // Brokers that are down are what it is about.
            .set("log_level", "0")
            .create::<BaseConsumer>()
            .map_err(|error| error.to_string())?;
        Ok(Self { classpath, nodes, proxy, client })
    }

    pub(crate) fn bootstrap(&self) -> String {
        bootstrap(&self.nodes)
    }

    /// For clients whose requests are to be tampered with: they never get past the proxy.
    pub(crate) fn proxied_bootstrap(&self) -> String {
        self.proxy.bootstrap()
    }

    /// Does this to the next such request that names that transactional id, at whichever broker.
    pub(crate) fn arm(&self, transactional_id: &str, request: i16, fault: Fault) -> Armed {
        self.proxy.arm(transactional_id, request, fault)
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn kill9(&mut self, node: usize) {
        self.nodes[node].process.kill9();
    }

    /// Starts a killed broker on its port and its data, and does not wait for it.
    pub(crate) fn restart(&mut self, node: usize) -> Result<(), String> {
        let Node { folder, process, .. } = &mut self.nodes[node];
        process.kill9();
        *process = launch(&self.classpath, folder)?;
        Ok(())
    }

    /// Connections stay open, and nothing answers.
    pub(crate) fn freeze(&self, node: usize) {
        self.nodes[node].process.signal("STOP");
    }

    pub(crate) fn thaw(&self, node: usize) {
        self.nodes[node].process.signal("CONT");
    }

    /// Ends transactions that hang, as a person would with `kafka-transactions.sh`; says which.
    pub(crate) fn end_hanging_transactions(&self, cache: &Cache, prefix: &str) -> Result<Vec<String>, String> {
        let mut command = Command::new("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=ERROR"]);
        command.arg("-cp").arg(format!("{}:{}", cache.operator()?.display(), self.classpath));
        let ended = run("ending transactions that hang", command.args(["Operator", &self.bootstrap(), prefix]))?;
        Ok(String::from_utf8_lossy(&ended).lines().map(str::to_owned).collect())
    }

    /// Bytes that the three hold in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.nodes.iter().map(|node| crate::deployment::resident_bytes(node.process.id())).sum()
    }

    /// A topic's partitions, as the cluster sees them now; `None` where it does not say.
    pub(crate) fn partitions(&self, topic: &str) -> Option<Vec<Partition>> {
        let metadata = tokio::task::block_in_place(|| self.client.fetch_metadata(Some(topic), LOOK)).ok()?;
        let place = |id: i32| usize::try_from(id - 1).ok().filter(|place| *place < NODES);
        let found = metadata.topics().first().filter(|topic| topic.error().is_none())?;
        let partitions = found.partitions().iter().map(|partition| Partition {
            number: partition.id(),
            leader: place(partition.leader()),
            in_sync: partition.isr().len(),
        });
        let mut partitions: Vec<Partition> = partitions.collect();
        partitions.sort_by_key(|partition| partition.number);
        (!partitions.is_empty()).then_some(partitions)
    }

    /// The leader of one partition, once there is one.
    pub(crate) async fn leader(&self, topic: &str, number: i32) -> usize {
        eventually("a leader", IN_SYNC_WITHIN, async || {
            self.partitions(topic)?.into_iter().find(|partition| partition.number == number)?.leader
        })
        .await
    }

    /// The node that coordinates a consumer group.
    pub(crate) async fn coordinator(&self, group: &str) -> usize {
        self.leader("__consumer_offsets", java_hash(group) % INTERNAL_PARTITIONS).await
    }

    /// The node that coordinates a producer's transactions.
    pub(crate) async fn transaction_coordinator(&self, transactional_id: &str) -> usize {
        self.leader("__transaction_state", java_hash(transactional_id) % INTERNAL_PARTITIONS).await
    }

    /// Waits until every partition of the topic has a leader and takes writes.
    pub(crate) async fn wait_writable(&self, topic: &str) {
        eventually("leaders", IN_SYNC_WITHIN, async || {
            let mut partitions = self.partitions(topic)?.into_iter();
            partitions.all(|partition| partition.leader.is_some() && partition.in_sync >= IN_SYNC).then_some(())
        })
        .await;
    }

    /// Waits until all three have joined and every replica of the topic is in sync.
    pub(crate) async fn wait_in_sync(&self, topic: &str) {
        // By the broker's own word: until a killed one's session is over, it counts as in sync.
        for node in &self.nodes {
            let joined = tokio::task::block_in_place(|| node.process.wait_ready(START));
            joined.unwrap_or_else(|error| panic!("{error}"));
        }
        eventually("all replicas to be in sync", IN_SYNC_WITHIN, async || {
            self.partitions(topic)?.iter().all(|partition| partition.in_sync == NODES).then_some(())
        })
        .await;
    }
}

fn bootstrap(nodes: &[Node]) -> String {
    let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    addresses.join(",")
}

/// Kafka spreads names over partitions by it.
fn java_hash(name: &str) -> i32 {
    let hash = name.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash & i32::MAX
}

fn format_and_launch(classpath: &str, folder: &Path, port: u16, settings: &str) -> Result<Node, String> {
    let file = folder.join("server.properties");
    fs::write(&file, settings).map_err(|error| error.to_string())?;
    fs::write(folder.join("log4j2.properties"), LOGGING).map_err(|error| error.to_string())?;
    let mut format = java(classpath, folder, "64m", "kafka.tools.StorageTool");
    format.args(["format", "-t", "aG9va2JyaWRnZS1mYXVsdA", "-c"]).arg(&file);
    run("formatting a broker's log folder", &mut format)?;
    let process = launch(classpath, folder)?;
    Ok(Node { folder: folder.to_owned(), port, process })
}

fn launch(classpath: &str, folder: &Path) -> Result<Process, String> {
    let mut command = java(classpath, folder, HEAP, "kafka.Kafka");
    command.arg(folder.join("server.properties"));
    Process::start("Kafka", command, &folder.join("kafka.log"), "KILL", |line| line.contains("Kafka Server started"))
}

fn java(classpath: &str, folder: &Path, heap: &str, main: &str) -> Command {
    let mut command = Command::new("java");
    command
        .arg(format!("-Xmx{heap}"))
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.properties").display()))
        .args(["-cp", classpath, main])
        .current_dir(folder);
    command
}

/// What a production cluster has, as far as it decides what a fault does: three replicas, two in sync, no unclean
/// elections, and Kafka's own time-outs.
fn properties(id: usize, folder: &Path, ports: &Ports, voters: &str) -> String {
    let Ports { plain, controller, behind, proxy } = ports;
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas={IN_SYNC}
unclean.leader.election.enable=false
offsets.topic.replication.factor=3
offsets.topic.num.partitions={INTERNAL_PARTITIONS}
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions={INTERNAL_PARTITIONS}
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
num.network.threads=2
num.io.threads=3
log.cleaner.enable=false
",
        data = folder.join("data").display()
    )
}

const LOGGING: &str = "status = error
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = STDOUT
";
