//! The bridges of a run: processes of one configuration, beside each other, as behind a load balancer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::harness::bridge::{Metrics, command};
use crate::harness::eventually;
use crate::harness::process::{Process, folder, free_port};
use crate::harness::senders::SHOP_KEY;
use crate::receiver::SIGNING_KEY;

/// A debug build among three brokers on two cores, each of its start's steps waiting for Kafka.
const START: Duration = Duration::from_secs(120);

/// Where the bridges of a run work.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) bootstrap: String,
    pub(crate) registry: String,
    /// The database's address.
    pub(crate) database: String,
    /// Before every topic.
    pub(crate) prefix: String,
    /// The vendor's port, where there is an HTTP sink.
    pub(crate) vendor: Option<u16>,
    /// Whether there is a Kafka sink.
    pub(crate) copies: bool,
    /// After it the group of a consumer that is silent goes on without it.
    pub(crate) session: Duration,
    /// The bug that the binary is to have, where it was built with `seeded-bugs`.
    pub(crate) bug: Option<String>,
}

impl Place {
    pub(crate) fn topic(&self) -> String {
        format!("{}events.order_placed", self.prefix)
    }

    /// What a Kafka sink writes.
    pub(crate) fn copies_topic(&self) -> String {
        format!("{}copies.order_placed", self.prefix)
    }

    /// The sinks that are there.
    pub(crate) fn sinks(&self) -> Vec<&'static str> {
        let transactional = self.transactional_sinks();
        transactional.into_iter().chain(["warehouse"]).collect()
    }

    /// Those whose commits are Kafka's transactions.
    pub(crate) fn transactional_sinks(&self) -> Vec<&'static str> {
        let vendor = self.vendor.map(|_| "crm");
        vendor.into_iter().chain(self.copies.then_some("copies")).collect()
    }

    /// The consumer group of a sink.
    pub(crate) fn group(&self, sink: &str) -> String {
        format!("{}hookbridge.{sink}", self.prefix)
    }

    pub(crate) fn transactional_id(&self, sink: &str, bridge: &str) -> String {
        format!("{}.{bridge}", self.group(sink))
    }
}

/// One process.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) ingest_port: u16,
    admin_port: u16,
    folder: PathBuf,
    bug: Option<String>,
    process: Process,
}

impl Bridge {
    /// Starts it and waits for nothing.
    pub(crate) fn start(name: &str, place: &Place) -> Self {
        let folder = folder(&format!("bridge-{name}"));
        let (ingest_port, admin_port) = (free_port(), free_port());
        fs::write(folder.join("hookbridge.yaml"), yaml(name, place, &folder, ingest_port, admin_port))
            .expect("a file in our own folder");
        let bug = place.bug.clone();
        let process = launch(name, &folder, bug.as_deref());
        Self { name: name.to_owned(), ingest_port, admin_port, folder, bug, process }
    }

    pub(crate) async fn wait_ready(&self) {
        eventually("a bridge to be ready", START, async || {
            assert!(!self.process.has_ended(), "a bridge ended instead of starting\n{}", self.process.tail());
            let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", self.admin_port)).await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }

    /// `None` while it does not answer.
    pub(crate) async fn metrics(&self) -> Option<Metrics> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.admin_port)).await.ok()?;
        Some(Metrics::parse(&answer.text().await.ok()?))
    }

    /// What a power cut is, and then the same process again.
    pub(crate) fn crash_and_restart(&mut self) {
        self.process.kill9();
        self.process = launch(&self.name, &self.folder, self.bug.as_deref());
    }

    pub(crate) fn kill9(&mut self) {
        self.process.kill9();
    }

    pub(crate) fn freeze(&self) {
        self.process.signal("STOP");
    }

    pub(crate) fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// SIGTERM; says with which code it ended.
    pub(crate) fn stop(&mut self, bound: Duration) -> Result<Option<i32>, String> {
        self.process.signal("TERM");
        tokio::task::block_in_place(|| self.process.wait_ended(bound)).map(|status| status.code())
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(self.process.id())
    }

    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }
}

fn launch(name: &str, folder: &Path, bug: Option<&str>) -> Process {
    let mut command = command(&["run", "--config"]);
    command.arg(folder.join("hookbridge.yaml")).current_dir(folder);
    if let Some(bug) = bug {
        command.env("HOOKBRIDGE_SEEDED_BUG", bug);
    }
    Process::start(&format!("bridge {name}"), command, &folder.join("bridge.log"), "KILL", |_| false)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Resident memory of a process, from `/proc`; 0 where it has ended.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn yaml(name: &str, place: &Place, folder: &Path, ingest_port: u16, admin_port: u16) -> String {
    let Place { bootstrap, registry, database, prefix, .. } = place;
    let vendor = place.vendor.map(|port| {
        format!(
            r"
  crm:
    type: http
    url: http://127.0.0.1:{port}/hooks
    events: [order_placed]
    purpose: none
    sign: {{ standard_webhooks: whsec_{key} }}
    concurrency: 16
    timeout: 5s
    guarantee: effectively_once
",
            key = BASE64.encode(SIGNING_KEY)
        )
    });
    let copies = place.copies.then_some(
        r"
  copies:
    type: kafka
    events: [order_placed]
    topic: copies.order_placed
    guarantee: exactly_once
",
    );
    format!(
        r#"
instance: {name}

kafka:
  bootstrap_servers: {bootstrap}
  create_topics: true
  topic_prefix: {prefix}
  topic_defaults: {{ partitions: 12, replication_factor: 3, min_insync_replicas: 2 }}
  librdkafka: {{ session.timeout.ms: "{session}", heartbeat.interval.ms: "{heartbeat}" }}

registry:
  url: {registry}
  auto_register: true
  cache: {cache}

ingest:
  listen: 127.0.0.1:{ingest_port}
  deadline: 4500ms

admin:
  listen: 127.0.0.1:{admin_port}

schemas: {schemas}

events:
  order_placed:
    category: commerce
    owner: faults@example.com
    key: .customer_id
    unknown_fields: reject

sources:
  shop:
    preset: standard-webhooks
    secrets: [whsec_{secret}]
    event_type: .type
    payload: .data

sinks:
  warehouse:
    type: postgres
    url: {database}
    events: [order_placed]
    table: "{{event_type}}"
    ddl: evolve
    guarantee: exactly_once
{vendor}{copies}
egress: {{ allow: [127.0.0.0/8] }}
"#,
        vendor = vendor.unwrap_or_default(),
        copies = copies.unwrap_or_default(),
        session = place.session.as_millis(),
        heartbeat = (place.session / 6).as_millis(),
        cache = folder.join("registry-cache").display(),
        schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemas").display(),
        secret = BASE64.encode(SHOP_KEY),
    )
}
