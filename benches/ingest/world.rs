//! What both candidates share, and how each is started.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use hookbridge::clock;

use crate::harness;
use crate::shared::kafka::Kafka;
use crate::shared::{free_address, is_ready, wait_for};

/// Fewer events than there are bodies, which are sent over and over: each is forgotten before it comes again, and so none
/// is a repeat. Deduplication does all of its work, in a memory that fits into a cache.
const REMEMBERED: usize = 4_000;

pub(crate) const SECRET: &str = "whsec_YmVuY2gtb25seS1zdG9yZWZyb250LXNlY3JldA==";
const PARTITIONS: i32 = 16;

pub(crate) struct World {
    kafka: Kafka,
    registry: String,
    folder: tempfile::TempDir,
    /// Where it is not a child of ours.
    pub(crate) broker: Option<u32>,
}

impl World {
    pub(crate) fn start(broker: Option<u32>) -> Self {
        let services = harness::services();
        Self {
            kafka: Kafka::new(&services.bootstrap),
            registry: services.registry.clone(),
            folder: tempfile::tempdir().expect("a folder for the configuration"),
            broker,
        }
    }

    /// The product as anybody would run it, with one source and one event type.
    pub(crate) fn hookbridge(&self) -> Running<'_> {
        let (address, admin) = (free_address(), free_address());
        let prefix = format!("bench{}.", clock::now_ms());
        let file = self.folder.path().join("hookbridge.yaml");
        let (bootstrap, registry) = (&self.kafka.bootstrap, &self.registry);
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
        self.kafka.create_topic(&topic, PARTITIONS);
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--bare", &address.to_string(), &self.kafka.bootstrap, &topic]);
        let running = self.running(command, address, vec![topic]);
        wait_for("the bare handler", || TcpStream::connect(address).is_ok());
        running
    }

    fn running(&self, mut command: Command, address: SocketAddr, topics: Vec<String>) -> Running<'_> {
        let child = command.stdin(Stdio::null()).spawn().expect("the candidate");
        Running { world: self, child, address, topics }
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
        self.world.kafka.records(&self.topics[0], PARTITIONS)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.world.kafka.delete_topics(&self.topics);
    }
}
