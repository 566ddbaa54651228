//! What all candidates share (the topic that they read, the receiver, the database), and how each is started.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use hookbridge::clock;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use super::bare_copy::OFFSETS;
use super::events::{self, EVENT_TYPE, Event, Preloaded, Purchases};
use super::receiver::Receiver;
use crate::harness;
use crate::harness::postgres::Database;
use crate::shared::kafka::Kafka;
use crate::shared::{free_address, is_ready, process, wait_for};

const SECRET: &str = "whsec_YmVuY2gtb25seS1zdG9yZWZyb250LXNlY3JldA==";
pub(crate) const PARTITIONS: i32 = 16;

pub(crate) struct World {
    pub(crate) kafka: Kafka,
    pub(crate) receiver: Receiver,
    pub(crate) preloaded: Preloaded,
    /// Records in the topic.
    pub(crate) count: u64,
    /// The processes of the broker and of Postgres, as far as they are known.
    pub(crate) broker: Option<u32>,
    pub(crate) postgres: Option<u32>,
    registry: String,
    database: Database,
    /// To ask the database with.
    client: Client,
    runtime: Runtime,
    folder: tempfile::TempDir,
    prefix: String,
    /// Of the topic, and of those that the product makes.
    partitions: i32,
    purchases: RefCell<Purchases>,
    /// Candidates so far: each has a group of its own, which begins at the first record.
    started: Cell<u32>,
}

impl World {
    /// Starts the services, makes the topic as the product would, and fills it with `count` events.
    pub(crate) fn start(broker: Option<u32>, partitions: i32, count: usize) -> Self {
        let services = harness::services();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let database = runtime.block_on(Database::create(&services.postgres));
        let client = runtime.block_on(database.connect());
        let mut world = Self {
            kafka: Kafka::new(&services.bootstrap),
            receiver: Receiver::start(),
            preloaded: Preloaded::default(),
            count: count as u64,
            broker: broker.or_else(|| process::child("kafka.Kafka")),
            postgres: process::child("postgres"),
            registry: services.registry.clone(),
            database,
            client,
            runtime,
            folder: tempfile::tempdir().expect("a folder for the configuration"),
            prefix: format!("bench{}.", clock::now_ms()),
            partitions,
            purchases: RefCell::new(Purchases::new()),
            started: Cell::new(0),
        };
        // Without sinks: it makes the topic and registers the schema.
        drop(Self::ready(world.hookbridge("none", "")));
        let topic = world.topic();
        let schema_id = world.registered(&format!("{topic}-value"));
        let mut purchases = world.purchases.borrow_mut();
        purchases.schema_id = schema_id;
        let preloaded = events::preload(&world.kafka, &topic, partitions, &mut purchases, count);
        drop(purchases);
        world.preloaded = preloaded;
        world
    }

    /// One more event, which is in no topic.
    pub(crate) fn next_event(&self) -> Event {
        self.purchases.borrow_mut().next()
    }

    /// The topic with the events.
    pub(crate) fn topic(&self) -> String {
        format!("{}events.{EVENT_TYPE}", self.prefix)
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A name that no candidate has had.
    pub(crate) fn new_name(&self, what: &str) -> String {
        self.started.set(self.started.get() + 1);
        format!("{what}{}", self.started.get())
    }

    /// The id of a subject's latest schema.
    pub(crate) fn registered(&self, subject: &str) -> u32 {
        let url = format!("{}/subjects/{subject}/versions/latest", self.registry.trim_end_matches('/'));
        let answer = self.runtime.block_on(async { reqwest::get(url).await?.json::<serde_json::Value>().await });
        let id = answer.expect("the registry answers")["id"].as_u64().expect("a registered schema");
        u32::try_from(id).expect("an id")
    }

    /// The product with an HTTP sink of that name, which calls the receiver. `settings`: more lines of the sink's.
    pub(crate) fn http(&self, sink: &str, settings: &str) -> Candidate<'_> {
        Self::ready(self.http_unready(sink, settings))
    }

    /// The same, as soon as it is started.
    pub(crate) fn http_unready(&self, sink: &str, settings: &str) -> Candidate<'_> {
        let url = format!("http://{}/hooks", self.receiver.address);
        let text = format!(
            r#"
  {sink}:
    type: http
    url: {url}
    events: [{EVENT_TYPE}]
    purpose: none
    sign: {{ standard_webhooks: "{SECRET}" }}
    guarantee: effectively_once
    {settings}
"#
        );
        self.hookbridge(sink, &text)
    }

    /// The product with a Postgres sink of that name, which writes to a table of that name.
    pub(crate) fn postgres(&self, sink: &str, settings: &str) -> Candidate<'_> {
        let url = &self.database.url;
        let text = format!(
            r"
  {sink}:
    type: postgres
    url: {url}
    events: [{EVENT_TYPE}]
    table: {sink}
    ddl: evolve
    guarantee: exactly_once
    {settings}
"
        );
        Self::ready(self.hookbridge(sink, &text))
    }

    /// A consumer and an HTTP client, and nothing else.
    pub(crate) fn bare_http(&self, in_flight: usize) -> Candidate<'_> {
        let group = self.new_name("bare");
        let url = format!("http://{}/hooks", self.receiver.address);
        let (in_flight, bytes) = (in_flight.to_string(), self.preloaded.body_bytes.to_string());
        self.bare("--bare-http", &group, &[&url, &in_flight, &bytes])
    }

    /// A consumer and a COPY, and nothing else, into a table of its group's name.
    pub(crate) fn bare_copy(&self, group: &str, model: &str) -> Candidate<'_> {
        self.execute(&format!("CREATE TABLE {group} (LIKE {model} INCLUDING ALL)"));
        self.bare("--bare-copy", group, &[&self.database.url, model, group])
    }

    /// This same binary: nothing else to build.
    fn bare(&self, what: &str, group: &str, arguments: &[&str]) -> Candidate<'_> {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args([what, &self.kafka.bootstrap, &self.topic(), group]).args(arguments);
        self.candidate(command, group)
    }

    /// The product as anybody would run it.
    fn hookbridge(&self, name: &str, sinks: &str) -> Candidate<'_> {
        let (ingest, admin) = (free_address(), free_address());
        let file = self.folder.path().join(format!("{name}.yaml"));
        let Self { kafka, registry, prefix, partitions, .. } = self;
        let sinks = if sinks.is_empty() { String::new() } else { format!("sinks:{sinks}") };
        let config = format!(
            r#"
instance: bench
kafka:
  bootstrap_servers: {bootstrap}
  create_topics: true
  topic_prefix: {prefix}
  topic_defaults: {{ partitions: {partitions}, replication_factor: 1, min_insync_replicas: 1 }}
registry: {{ url: "{registry}", auto_register: true, cache: cache }}
ingest: {{ listen: "{ingest}", dedupe: {{ max_entries: 1000 }} }}
admin: {{ listen: "{admin}" }}
egress: {{ allow: [127.0.0.0/8] }}
schemas: {schemas}
events:
  {EVENT_TYPE}:
    {{ category: commerce, owner: bench@example.com, key: .customer_id, id: .event_id, unknown_fields: reject }}
sources:
  storefront:
    {{ preset: standard-webhooks, secrets: ["{SECRET}"], event_type: .type, payload: .data, on_invalid: reject }}
{sinks}"#,
            bootstrap = kafka.bootstrap,
            schemas = events::folder().display()
        );
        std::fs::write(&file, config).expect("the configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
        command.current_dir(self.folder.path()).arg("run").arg("--config").arg(&file).args(["--log", "error"]);
        let mut candidate = self.candidate(command, name);
        candidate.admin = Some(admin);
        candidate
    }

    /// The same, when its `/readyz` says yes.
    fn ready(mut candidate: Candidate<'_>) -> Candidate<'_> {
        wait_for("hookbridge's /readyz", || {
            candidate.assert_alive();
            candidate.admin.is_none_or(is_ready)
        });
        candidate
    }

    fn candidate(&self, mut command: Command, name: &str) -> Candidate<'_> {
        let child = command.stdin(Stdio::null()).spawn().expect("the candidate");
        Candidate { world: self, child, admin: None, name: name.to_owned(), stays: false }
    }
}

/// The database.
impl World {
    pub(crate) fn execute(&self, statements: &str) {
        self.runtime.block_on(self.client.batch_execute(statements)).expect("a statement that holds");
    }

    /// A number that a query gives; `None` where it cannot be asked yet.
    pub(crate) fn number(&self, query: &str) -> Option<u64> {
        let row = self.runtime.block_on(self.client.query_one(query, &[])).ok()?;
        u64::try_from(row.try_get::<_, i64>(0).ok()?).ok()
    }

    /// Where the bare loop keeps its offsets.
    pub(crate) fn create_bare_offsets(&self) {
        self.execute(&format!(
            "CREATE TABLE {OFFSETS} (sink text, topic text, partition integer, next_offset bigint, \
             PRIMARY KEY (sink, topic, partition))"
        ));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kafka.delete_topics(&self.kafka.topics(&self.prefix));
    }
}

/// A candidate's process. When it is killed, the topics that only it had go too: a full run would fill a small disk.
pub(crate) struct Candidate<'w> {
    world: &'w World,
    child: Child,
    admin: Option<SocketAddr>,
    /// Of its sink, and of its group.
    name: String,
    /// Whether its topics stay when it goes.
    stays: bool,
}

impl Candidate<'_> {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("a child of ours");
        assert!(ended.is_none(), "{} ended with {ended:?}", self.name);
    }

    /// Ends it in good order: its group is empty, and its topics stay.
    pub(crate) fn stop(mut self) {
        self.stays = true;
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }
}

impl Drop for Candidate<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.stays {
            return;
        }
        let Self { world: World { kafka, prefix, .. }, name, .. } = self;
        let mut topics = kafka.topics(&format!("{prefix}receipts.{name}."));
        topics.extend(kafka.topics(&format!("{prefix}dead.{name}")));
        if !topics.is_empty() {
            kafka.delete_topics(&topics);
        }
    }
}
