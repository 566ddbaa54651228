//! The real binary, with a configuration of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::http::{Connection, Request, Response};
use super::process::{Process, folder, free_port, tail};
use super::senders::{LEADS_SECRET, PAYMENTS_SECRET, SHOP_KEY};
use super::{eventually, random_name, services};

/// A debug build on two busy cores; registration of the schemas is part of it.
const START: Duration = Duration::from_secs(60);

/// What a test's bridge is made of. The sources, and who signs for them, are the same in all of them.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) folder: PathBuf,
    /// Before every topic: no two tests share one.
    pub(crate) prefix: String,
    pub(crate) bootstrap: String,
    pub(crate) registry: String,
    /// Of topics that are created.
    pub(crate) partitions: u32,
    /// Where the sink writes; none without.
    pub(crate) database: Option<String>,
    /// As the file writes them.
    pub(crate) deadline: &'static str,
    pub(crate) drain_timeout: &'static str,
    /// Properties beside the usual ones, each after a comma.
    pub(crate) more_librdkafka: &'static str,
    /// Lines of `ingest`, and sources beside the usual ones, each with its indent.
    pub(crate) more_ingest: &'static str,
    pub(crate) more_sources: String,
    /// What else the file ends with: sinks, where there is no database.
    pub(crate) tail: String,
    pub(crate) ingest_port: u16,
    pub(crate) admin_port: u16,
}

impl Setup {
    pub(crate) fn new(name: &str) -> Self {
        let services = services();
        Self {
            folder: folder(name),
            prefix: format!("{name}-{}.", random_name()),
            bootstrap: services.bootstrap.clone(),
            registry: services.registry.clone(),
            partitions: 4,
            database: None,
            deadline: "4500ms",
            drain_timeout: "20s",
            more_librdkafka: "",
            more_ingest: "",
            more_sources: String::new(),
            tail: String::new(),
            ingest_port: free_port(),
            admin_port: free_port(),
        }
    }

    /// The full name of a topic.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Writes the configuration and returns its path.
    pub(crate) fn write(&self) -> PathBuf {
        let file = self.folder.join("hookbridge.yaml");
        fs::write(&file, self.yaml()).expect("a file in our own folder");
        file
    }

    /// What [`Setup::write`] writes.
    pub(crate) fn yaml(&self) -> String {
        let Self { prefix, bootstrap, registry, deadline, drain_timeout, ingest_port, admin_port, .. } = self;
        let Self { more_librdkafka, more_ingest, more_sources, partitions, tail, .. } = self;
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemas");
        let sinks = self.database.as_ref().map(|url| {
            format!(
                r#"
sinks:
  warehouse:
    type: postgres
    url: {url}
    events: [order_placed, contact_added]
    table: "{{event_type}}"
    ddl: evolve
    guarantee: exactly_once
"#
            )
        });
        format!(
            r#"
kafka:
  bootstrap_servers: {bootstrap}
  create_topics: true
  topic_prefix: {prefix}
  topic_defaults: {{ partitions: {partitions} }}
  # A member that was killed is missed after six seconds instead of forty-five.
  librdkafka: {{ session.timeout.ms: "6000", heartbeat.interval.ms: "1000"{more_librdkafka} }}

registry:
  url: {registry}
  auto_register: true
  cache: {cache}

ingest:
  listen: 127.0.0.1:{ingest_port}
  max_body: 1MiB
  deadline: {deadline}
  header_timeout: 2s
  body_timeout: 3s
  drain_timeout: {drain_timeout}
{more_ingest}
admin:
  listen: 127.0.0.1:{admin_port}

schemas: {schemas}

events:
  order_placed:
    category: commerce
    owner: it@example.com
    key: .customer_id
    unknown_fields: reject
  contact_added:
    category: identity
    owner: it@example.com
    key: .email_sha256
    unknown_fields: reject

sources:
  shop:
    preset: standard-webhooks
    secrets: [whsec_{shop}]
    event_type: .type
    payload: .data
    on_invalid: quarantine

  strict:
    preset: standard-webhooks
    secrets: [whsec_{shop}]
    event_type: .type
    payload: .data
    on_invalid: reject

  payments:
    preset: stripe
    secrets: [{PAYMENTS_SECRET}]
    events:
      - when: .type == "invoice.paid"
        event: order_placed
        map: |
          {{ customer_id: .data.object.customer, placed_at: .created,
            total: (.data.object.amount_paid | minor_units("USD")), consent: {{}} }}
          | .placed_at |= (. * 1000)
    on_unmapped: ignore

  leads:
    signature:
      algorithm: hmac-sha256
      header: x-signature
      prefix: "sha256="
      encoding: hex
      signed: "{{header:x-timestamp}}.{{body}}"
      timestamp: {{ header: x-timestamp, unit: s, tolerance: 300s }}
    event_id: .submission_id
    secrets: [{LEADS_SECRET}]
    events:
      - event: contact_added
        map: '{{ email_sha256: (.email | normalize_email | sha256), form: .form_id, consent: (.consent // {{}}) }}'
{more_sources}{sinks}{tail}"#,
            cache = self.folder.join("registry-cache").display(),
            schemas = schemas.display(),
            shop = BASE64.encode(SHOP_KEY),
            sinks = sinks.unwrap_or_default(),
        )
    }
}

/// A running bridge.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) setup: Setup,
    process: Process,
}

impl Bridge {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(setup: Setup) -> Self {
        let bridge = Self::start_unready(setup);
        bridge.wait_ready().await;
        bridge
    }

    /// Starts it with another file of its folder as its configuration, and waits for nothing.
    pub(crate) fn start_with(setup: Setup, file: &str) -> Self {
        let process = launch_with(&setup, file);
        Self { setup, process }
    }

    /// Starts it and waits for nothing.
    pub(crate) fn start_unready(setup: Setup) -> Self {
        let process = launch(&setup);
        Self { setup, process }
    }

    pub(crate) async fn wait_ready(&self) {
        eventually("the bridge to be ready", START, async || {
            assert!(!self.process.has_ended(), "the bridge ended instead of starting\n{}", self.process.tail());
            self.admin("/readyz").await.filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// An answer of the admin port, if there is one.
    pub(crate) async fn admin(&self, path: &str) -> Option<Response> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.setup.admin_port)).await.ok()?;
        let status = answer.status().as_u16();
        Some(Response::new(status, answer.bytes().await.ok()?.to_vec()))
    }

    pub(crate) async fn connect(&self) -> std::io::Result<Connection> {
        Connection::open(self.setup.ingest_port).await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.setup.ingest_port
    }

    /// Sends a request over a connection of its own.
    pub(crate) async fn post(&self, request: &Request) -> Response {
        let mut connection = self.connect().await.expect("the bridge takes connections");
        connection.send(request).await.unwrap_or_else(|error| panic!("no answer: {error}\n{}", self.process.tail()))
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = self.admin("/metrics").await.expect("the admin port answers");
        assert_eq!(answer.status, 200);
        Metrics::parse(&answer.text())
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        self.setup.topic(name)
    }

    pub(crate) fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts the same bridge again, without waiting for it.
    pub(crate) fn restart(&mut self) {
        self.process.kill9();
        self.process = launch(&self.setup);
    }

    /// SIGTERM, and returns at once.
    pub(crate) fn ask_to_stop(&self) {
        self.process.signal("TERM");
    }

    /// SIGHUP, and returns at once.
    pub(crate) fn ask_to_reload(&self) {
        self.process.signal("HUP");
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    pub(crate) fn wait_ended(&mut self, bound: Duration) -> ExitStatus {
        self.process.wait_ended(bound).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.setup.folder.join("bridge.log")).expect("the bridge's log")
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", tail(&self.setup.folder.join("bridge.log")));
        }
    }
}

fn launch(setup: &Setup) -> Process {
    setup.write();
    launch_with(setup, "hookbridge.yaml")
}

fn launch_with(setup: &Setup, file: &str) -> Process {
    let mut command = command(&["run", "--config", file]);
    command.current_dir(&setup.folder);
    let log = setup.folder.join("bridge.log");
    Process::start("hookbridge", command, &log, "KILL", |_| false).unwrap_or_else(|error| panic!("{error}"))
}

/// The binary under test, in an environment that no test inherits.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOOKBRIDGE_") {
            command.env_remove(name);
        }
    }
    command.env("RUST_BACKTRACE", "1").args(arguments);
    command
}

/// A scrape of `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(samples.map(|line| Sample::parse(line).unwrap_or_else(|| panic!("not a sample: {line:?}"))).collect())
    }

    /// The sum over every series of that name which has these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |sample: &&Sample| sample.name == name && labels.iter().all(|label| sample.has(label));
        self.0.iter().filter(matches).map(|sample| sample.value).sum()
    }
}

impl Sample {
    /// `name{label="value",…} number`; the tests' label values hold neither quotes nor commas.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (name, value) = label.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        });
        Some(Self { name: name.to_owned(), labels: labels.collect::<Option<_>>()?, value: value.parse().ok()? })
    }

    fn has(&self, (label, value): &(&str, &str)) -> bool {
        self.labels.iter().any(|(name, is)| name == label && is == value)
    }
}

/// The receipt of the one event of a request, from a 2xx.
#[derive(Debug, Clone)]
pub(crate) struct Receipt(pub(crate) Value);

impl Receipt {
    pub(crate) fn of(response: &Response) -> Self {
        assert!(response.is_success(), "{}: {}", response.status, response.text());
        let body = response.json();
        let events = body["events"].as_array().unwrap_or_else(|| panic!("no events in {body}"));
        assert_eq!(events.len(), 1, "{body}");
        Self(events[0].clone())
    }

    pub(crate) fn status(&self) -> &str {
        self.0["status"].as_str().expect("a status")
    }

    /// Topic, partition and offset.
    pub(crate) fn place(&self) -> (String, i32, i64) {
        let place = (|| {
            let partition = i32::try_from(self.0["partition"].as_i64()?).ok()?;
            Some((self.0["topic"].as_str()?.to_owned(), partition, self.0["offset"].as_i64()?))
        })();
        place.unwrap_or_else(|| panic!("no place in {}", self.0))
    }
}
