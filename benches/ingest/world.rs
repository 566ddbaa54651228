//! What both candidates share, and how each is started.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hookbridge::clock;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Runtime;

use crate::harness;

/// Fewer events than there are bodies, which are sent over and over: each is forgotten before it comes again, and so none
/// is a repeat. Deduplication does all of its work, in a memory that fits into a cache.
const REMEMBERED: usize = 4_000;

pub(crate) const SECRET: &str = "whsec_YmVuY2gtb25seS1zdG9yZWZyb250LXNlY3JldA==";
const PARTITIONS: i32 = 16;
const START: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_secs(10);

pub(crate) struct World {
    bootstrap: String,
    registry: String,
    folder: tempfile::TempDir,
    runtime: Runtime,
    /// Where it is not a child of ours.
    pub(crate) broker: Option<u32>,
}

impl World {
    pub(crate) fn start(broker: Option<u32>) -> Self {
        let services = harness::services();
        Self {
            bootstrap: services.bootstrap.clone(),
            registry: services.registry.clone(),
            folder: tempfile::tempdir().expect("a folder for the configuration"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            broker,
        }
    }

    /// The product as anybody would run it, with one source and one event type.
    pub(crate) fn hookbridge(&self) -> Running<'_> {
        let (address, admin) = (free_address(), free_address());
        let prefix = format!("bench{}.", clock::now_ms());
        let file = self.folder.path().join("hookbridge.yaml");
        let (bootstrap, registry) = (&self.bootstrap, &self.registry);
        let schemas = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let config = format!(
            r#"
kafka:
  bootstrap_servers: {bootstrap}
  create_topics: true
  topic_prefix: {prefix}
  topic_defaults: {{ partitions: {PARTITIONS}, replication_factor: 1, min_insync_replicas: 1 }}
registry: {{ url: "{registry}", auto_register: true, cache: cache }}
ingest: {{ listen: "{address}", dedupe: {{ max_entries: {REMEMBERED} }} }}
admin: {{ listen: "{admin}" }}
schemas: {schemas}
events:
  purchase_completed:
    {{ category: commerce, owner: bench@example.com, key: .customer_id, id: .event_id, unknown_fields: reject }}
sources:
  storefront:
    {{ preset: standard-webhooks, secrets: ["{SECRET}"], event_type: .type, payload: .data, on_invalid: reject }}
"#,
            schemas = schemas.display()
        );
        std::fs::write(&file, config).expect("the configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
        command.current_dir(self.folder.path()).arg("run").arg("--config").arg(&file).args(["--log", "error"]);
        let topics = vec![format!("{prefix}events.purchase_completed"), format!("{prefix}quarantine.storefront")];
        let running = self.running(command, address, topics);
        wait_for("hookbridge's /readyz", || is_ready(admin));
        running
    }

    pub(crate) fn bare(&self) -> Running<'_> {
        let address = free_address();
        let topic = format!("bench{}.bare", clock::now_ms());
        self.create_topic(&topic);
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--bare", &address.to_string(), &self.bootstrap, &topic]);
        let running = self.running(command, address, vec![topic]);
        wait_for("the bare handler", || TcpStream::connect(address).is_ok());
        running
    }

    fn running(&self, mut command: Command, address: SocketAddr, topics: Vec<String>) -> Running<'_> {
        let child = command.stdin(Stdio::null()).spawn().expect("the candidate");
        Running { world: self, child, address, topics }
    }

    fn create_topic(&self, topic: &str) {
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(ASK));
        let created = self.runtime.block_on(self.admin().create_topics([&new], &options));
        assert!(created.is_ok_and(|topics| topics.iter().all(Result::is_ok)), "topic {topic} cannot be created");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("a client")
    }

    /// Records in a topic: the sum of its end offsets.
    fn records(&self, topic: &str) -> u64 {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("a client");
        let end = |partition| client.fetch_watermarks(topic, partition, ASK).expect("a partition's end").1;
        (0..PARTITIONS).map(end).map(|end| u64::try_from(end).expect("an offset")).sum()
    }
}

/// A candidate's process. When it goes its topics go too: a full run would fill a small disk.
pub(crate) struct Running<'w> {
    pub(crate) world: &'w World,
    child: Child,
    pub(crate) address: SocketAddr,
    /// The one that is counted first.
    topics: Vec<String>,
}

impl Running<'_> {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Events in its topic so far.
    pub(crate) fn records(&self) -> u64 {
        self.world.records(&self.topics[0])
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let _ = self.world.runtime.block_on(self.world.admin().delete_topics(&topics, &AdminOptions::new()));
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

#[allow(clippy::disallowed_methods, reason = "a process says by no other means that it listens")]
fn wait_for(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < START, "waited {START:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}
