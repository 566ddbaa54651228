//! The wiring: the parts in the order in which they are built, and the order in which they end.

pub mod compile;
pub mod observe;
pub mod readiness;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::compile::{Compiled, CompiledSink};
use self::readiness::{Readiness, Step};
use crate::config::{Config, SinkKind};
use crate::console::{self, Console};
use crate::deliver;
use crate::expr::{Json, Program};
use crate::ingest::line::{Line, Route, Source};
use crate::ingest::{self, Door, server};
use crate::kafka::{self, Cleanup, Client, Consumer, Publisher, TopicPlan};
use crate::metrics::{self, Metrics, SourceMetrics};
use crate::schema::Decoder;
use crate::schema::registry::{self, Registry};
use crate::sinks;

/// Connections that the kernel holds for us while the loop does not accept: a burst of senders, not a queue.
const BACKLOG: u32 = 1024;
/// Between two looks at something that was not there: soon enough for a person who watches, rare enough for a log.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often readiness asks whether Kafka and the registry are still there.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// Records on their way to Kafka when the drain comes to them have been waited for already; this is for stragglers.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one such question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(4);

/// Why the bridge could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address} for {what}")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("the metrics could not be set up")]
    Metrics(#[from] metrics::Error),
    #[error("kafka cannot be used as configured")]
    Kafka(#[source] kafka::Error),
    #[error("topics break the promise: {}", problems.join("; "))]
    Preflight { problems: Vec<String> },
    #[error("the schema registry cannot be used as configured")]
    Registry(#[source] registry::Error),
    #[error("the schema of {event_type} has no id in the registry")]
    Schema { event_type: String, source: registry::Error },
    #[error("sink {sink} cannot be started")]
    Sink { sink: String, source: sinks::Error },
}

impl Error {
    /// Whether it is the configuration that has to change, rather than a service that has to come.
    #[must_use]
    pub fn is_config(&self) -> bool {
        !matches!(self, Self::Listen { .. })
    }
}

/// What differs between `run` and `dev`.
#[derive(Clone)]
pub struct Mode {
    /// A real cluster: topics are created by its admin API and looked over before the start.
    pub real_cluster: bool,
    /// Told of every settlement, besides the metrics.
    pub observer: Option<Arc<dyn deliver::Observer>>,
}

impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mode").field("real_cluster", &self.real_cluster).finish_non_exhaustive()
    }
}

/// Asks running parts to stop, once, for all of them.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Resolves when a stop was asked for, or nobody is left to ask.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        let _ = receiver.wait_for(|stop| *stop).await;
    }

    #[must_use]
    pub fn receiver(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}

/// Runs the bridge until `stop`, then drains: first no new requests, then no unanswered ones, then deliveries, then
/// what is still on its way to Kafka.
///
/// # Errors
/// Where it could not start; once it runs, what goes wrong outside is waited out.
pub async fn run(compiled: Compiled, mode: Mode, stop: Stop) -> Result<(), Error> {
    let metrics = Metrics::new()?;
    let readiness = Arc::new(Readiness::default());
    let config = &compiled.config;
    let admin_socket = listen("the admin port", config.admin.listen)?;
    let ingest_socket = listen("webhooks", config.ingest.listen)?;
    let client = Client::new(&config.kafka, &client_id(config)).map_err(Error::Kafka)?;
    let client = client.with_max_message_bytes(max_record(config));
    let limits = kafka::Limits { max_in_flight_bytes: config.ingest.max_in_flight_bytes, ..kafka::Limits::default() };
    let publisher = Publisher::start(&client, limits).map_err(Error::Kafka)?;
    let registry = Registry::new(&config.registry).map_err(Error::Registry)?;

    let console = Arc::new(Console {
        readiness: Arc::clone(&readiness),
        metrics: metrics.clone(),
        before_scrape: Box::new(observe::Gauges::new(publisher.clone())),
    });
    let (end_admin, admin_ended) = Stop::new();
    let admin = tokio::spawn(async move {
        let served = axum::serve(admin_socket, console::router(console));
        served.with_graceful_shutdown(async move { admin_ended.requested().await }).await
    });

    let door = Arc::new(Door {
        line: OnceLock::new(),
        unknown: SourceMetrics::new(&metrics, "unknown"),
        max_body: config.ingest.max_body,
        body_timeout: config.ingest.body_timeout,
    });
    let requests =
        tokio::spawn(server::serve(ingest_socket, ingest::router(Arc::clone(&door)), server_limits(config), {
            let stop = stop.clone();
            async move { stop.requested().await }
        }));

    let started = tokio::select! {
        started = start(&compiled, &mode, &client, &registry, &readiness) => Some(started?),
        () = stop.requested() => None,
    };
    let mut deliveries = JoinSet::new();
    if let Some(ids) = started {
        let observer = observe::observer(&metrics, mode.observer.clone());
        for sink in &compiled.sinks {
            let worker = worker(sink, &compiled, &client, &registry, &observer)?;
            let stop = stop.receiver();
            deliveries.spawn(deliver::run(worker, stop));
        }
        let watcher = watch_outside(client.clone(), registry.clone(), Arc::clone(&readiness));
        let line = line(compiled, &ids, publisher.clone(), metrics);
        // Set once, here: the cell was made above and nobody else has it.
        let _ = door.line.set(line);
        readiness.ready();
        tracing::info!("ready");
        tokio::select! { () = stop.requested() => (), () = watcher => () }
    }

    readiness.draining();
    tracing::info!("draining");
    drain(requests, deliveries, &publisher).await;
    let _ = end_admin.send(true);
    let _ = admin.await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for Kafka, sees to the topics, and learns the schemas' ids. Ends only with success or with something that
/// waiting does not mend.
async fn start(
    compiled: &Compiled,
    mode: &Mode,
    client: &Client,
    registry: &Registry,
    readiness: &Readiness,
) -> Result<HashMap<String, u32>, Error> {
    readiness.wait_for(Step::Kafka);
    while let Err(error) = client.ping(ASK_TIMEOUT).await {
        if readiness.amiss("kafka", &error.to_string()) {
            let servers = &compiled.config.kafka.bootstrap_servers;
            tracing::warn!(%servers, error = &error as &dyn std::error::Error, "waiting for kafka");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    if readiness.well("kafka") {
        tracing::info!("kafka is there");
    }
    if mode.real_cluster {
        readiness.wait_for(Step::Topics);
        topics(compiled, client, readiness).await?;
    }
    readiness.wait_for(Step::Schemas);
    schema_ids(compiled, registry, readiness).await
}

/// Creates what is missing where the configuration says so, then refuses what would break the promise.
async fn topics(compiled: &Compiled, client: &Client, readiness: &Readiness) -> Result<(), Error> {
    let config = &compiled.config;
    let admin = client.admin().map_err(Error::Kafka)?;
    let plans = topic_plans(compiled);
    if config.kafka.create_topics {
        for topic in admin.ensure_topics(&plans).await.map_err(Error::Kafka)? {
            if !topic.existed {
                let (partitions, replication) = (topic.partitions, topic.replication);
                tracing::info!(topic = topic.name, partitions, replication, "topic created");
            }
        }
    }
    let preflight = admin.preflight(&plans, max_record(config)).await.map_err(Error::Kafka)?;
    let warnings: Vec<String> = preflight.warnings.iter().map(ToString::to_string).collect();
    for warning in &warnings {
        tracing::warn!(warning, "the cluster gives less than it could");
    }
    if !warnings.is_empty() {
        readiness.amiss("cluster", &warnings.join("; "));
    }
    if preflight.problems.is_empty() {
        return Ok(());
    }
    Err(Error::Preflight { problems: preflight.problems.iter().map(ToString::to_string).collect() })
}

/// The topics that the line and the sinks need.
fn topic_plans(compiled: &Compiled) -> Vec<TopicPlan> {
    let config = &compiled.config;
    let defaults = &config.kafka.topic_defaults;
    let plan = |name: String| TopicPlan {
        name,
        partitions: defaults.partitions,
        replication: defaults.replication_factor,
        min_isr: defaults.min_insync_replicas,
        retention: Some(defaults.retention),
        cleanup: Cleanup::Delete,
        max_message_bytes: Some(max_record(config)),
    };
    let events = compiled.events.values().map(|event| plan(event.schema.topic.clone()));
    let quarantine = config.sources.keys().map(|source| plan(quarantine_topic(config, source)));
    events.chain(quarantine).collect()
}

/// The largest record that we write: a request's whole body, as an event or in quarantine, with its headers and the
/// violations, which librdkafka and brokers count too.
fn max_record(config: &Config) -> usize {
    const HEADERS: usize = 256 * 1024;
    config.ingest.max_body + HEADERS
}

fn quarantine_topic(config: &Config, source: &str) -> String {
    format!("{}quarantine.{source}", config.kafka.topic_prefix)
}

/// The registry's id of every schema: from the registry, or from the disk where it is down and knew them before.
async fn schema_ids(
    compiled: &Compiled,
    registry: &Registry,
    readiness: &Readiness,
) -> Result<HashMap<String, u32>, Error> {
    let mut ids = HashMap::new();
    for (event_type, event) in &compiled.events {
        let id = loop {
            match registry.id_of(&event.schema).await {
                Ok(id) => break id,
                Err(error) if error.is_transient() => {
                    if readiness.amiss("registry", &error.to_string()) {
                        let cause = &error as &dyn std::error::Error;
                        tracing::warn!(event_type, error = cause, "waiting for the schema registry");
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(source) => return Err(Error::Schema { event_type: event_type.clone(), source }),
            }
        };
        ids.insert(event_type.clone(), id);
    }
    if readiness.well("registry") {
        tracing::info!("the schema registry is there");
    }
    Ok(ids)
}

/// Puts the compiled sources on the line.
fn line(compiled: Compiled, ids: &HashMap<String, u32>, publisher: Publisher, metrics: Metrics) -> Line {
    let mut sources = HashMap::new();
    for source in compiled.sources {
        let config = source.config;
        let counters = SourceMetrics::new(&metrics, &config.name);
        let routes = compiled.events.iter().filter_map(|(event_type, event)| {
            let route = Route {
                topic: event.schema.topic.clone(),
                subject: event.schema.subject.clone(),
                version: event.schema.version,
                id: *ids.get(event_type)?,
                plan: Arc::clone(&event.plan),
                data_schema: format!("{}/schemas/ids/{}", compiled.config.registry.url, ids.get(event_type)?),
                accepted: counters.accepted(event_type),
                unknown_fields: counters.unknown_fields(event_type),
            };
            Some((event_type.clone(), route))
        });
        let source = Source {
            verifier: source.verifier,
            mapper: source.mapper,
            routes: routes.collect(),
            deadline: config.deadline,
            on_unmapped: config.on_unmapped,
            on_invalid: config.on_invalid,
            quarantine_topic: quarantine_topic(&compiled.config, &config.name),
            secret_uses: (0..config.secrets.len()).map(|index| counters.secret_use(index)).collect(),
            metrics: counters,
            name: config.name.clone(),
        };
        sources.insert(config.name, Arc::new(source));
    }
    Line { sources, publisher, traces: ingest::trace::Traces::default(), metrics }
}

/// A sink's worker, with its own member of the sink's group.
fn worker(
    sink: &CompiledSink,
    compiled: &Compiled,
    client: &Client,
    registry: &Registry,
    observer: &Arc<dyn deliver::Observer>,
) -> Result<deliver::Worker, Error> {
    let config = &sink.config;
    let failed = |source| Error::Sink { sink: config.name.clone(), source };
    let target = match &config.kind {
        SinkKind::Postgres(postgres) => sinks::Sink::Postgres(
            sinks::postgres::Postgres::new(&config.name, postgres).map_err(|error| failed(error.into()))?,
        ),
        SinkKind::Http(http) => sinks::Sink::Http(
            sinks::http::Http::new(&config.name, http, &compiled.config.egress.allow)
                .map_err(|error| failed(error.into()))?,
        ),
        SinkKind::Kafka { .. } | SinkKind::Preset(_) => return Err(failed(sinks::Error::NotBuilt)),
    };
    let mut routes = deliver::Routes::default();
    for (event_type, event) in &compiled.events {
        routes.add(&event.schema.topic, event_type, config.events.contains(event_type));
    }
    let topics: Vec<String> = routes.topics().map(str::to_owned).collect();
    let group = format!("{}hookbridge.{}", compiled.config.kafka.topic_prefix, config.name);
    Ok(deliver::Worker {
        sink: config.name.as_str().into(),
        consumer: Consumer::subscribe(client, &group, &topics).map_err(Error::Kafka)?,
        decoder: Arc::new(Decoder::new(registry.clone())),
        policy: deliver::Policy {
            routes,
            purpose: config.purpose.clone(),
            filter: sink.filter.clone().map(filter),
            map: sink.map.clone().map(map),
        },
        target,
        observer: Arc::clone(observer),
    })
}

fn filter(program: Arc<Program>) -> deliver::Filter {
    Arc::new(move |event| {
        let event = Json::new(event).map_err(|error| error.to_string())?;
        program.is_true(&event).map_err(|error| error.to_string())
    })
}

/// A sink's `map` gives one document for each event.
fn map(program: Arc<Program>) -> deliver::Map {
    Arc::new(move |event| {
        let event = Json::new(event).map_err(|error| error.to_string())?;
        let results = program.eval(&event).map_err(|error| error.to_string())?;
        match results.as_slice() {
            [one] => Ok(one.text().as_bytes().to_vec()),
            several => Err(format!("the map gave {} results for one event", several.len())),
        }
    })
}

/// First the requests that are under way, then the deliveries, then what is still on its way to Kafka.
async fn drain(
    requests: tokio::task::JoinHandle<server::Drained>,
    mut deliveries: JoinSet<Result<(), deliver::Error>>,
    publisher: &Publisher,
) {
    match requests.await {
        Ok(server::Drained::Clean) => {}
        Ok(server::Drained::Cut { connections }) => {
            tracing::warn!(connections, "the drain's deadline passed with connections open");
        }
        Err(error) => tracing::error!(%error, "the ingest server ended by a fault of its own"),
    }
    while let Some(ended) = deliveries.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a sink ended with an error");
            }
            Err(error) => tracing::error!(%error, "a sink ended by a fault of its own"),
        }
    }
    if let Err(error) = publisher.flush(FLUSH_TIMEOUT).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "some records were not confirmed");
    }
}

/// Asks from time to time whether what the bridge depends on is there; tells `/readyz`, and the log when it changes.
async fn watch_outside(client: Client, registry: Registry, readiness: Arc<Readiness>) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    loop {
        ticks.tick().await;
        let kafka = client.ping(ASK_TIMEOUT).await.err().map(|error| error.to_string());
        let registry = registry.probe().await.err().map(|error| error.to_string());
        for (part, trouble) in [("kafka", kafka), ("registry", registry)] {
            match trouble {
                Some(what) if readiness.amiss(part, &what) => tracing::warn!(part, what, "unreachable"),
                None if readiness.well(part) => tracing::info!(part, "reachable again"),
                _ => {}
            }
        }
    }
}

fn server_limits(config: &Config) -> server::Limits {
    server::Limits {
        max_connections: config.ingest.max_connections,
        header_timeout: config.ingest.header_timeout,
        idle_timeout: config.ingest.idle_timeout,
        drain_timeout: config.ingest.drain_timeout,
    }
}

/// Binds before anything else is started, so that an address in use stops the start at once.
fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| Error::Listen { what, address, source })
}

fn client_id(config: &Config) -> String {
    if config.instance.is_empty() { "hookbridge".to_owned() } else { format!("hookbridge-{}", config.instance) }
}
