//! The wiring: the parts in the order in which they are built, and the order in which they end.

pub mod compile;
pub mod observe;
pub mod readiness;
mod sinks;
mod sources;
mod start;
mod stop;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, JoinSet};

use self::compile::Compiled;
use self::readiness::Readiness;
use self::sinks::{Surroundings, Told};
pub use self::stop::Stop;
use crate::causes::chain;
use crate::config::Config;
use crate::console::{self, Console};
use crate::deliver::Observer;
use crate::ingest::server::{self, Drained};
use crate::ingest::{self, Door};
use crate::kafka::{self, Client, Publisher};
use crate::metrics::{self, Metrics, SourceMetrics};
use crate::schema::registry::{self, Registry};

/// How long Kafka may take to answer a question about itself.
const ASK_TIMEOUT: Duration = Duration::from_secs(4);
/// Records on their way to Kafka when the drain comes to them have been waited for already; this is for stragglers.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

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
    #[error("schemas have no id in the registry: {}", problems.join("; "))]
    Schemas { problems: Vec<String> },
    #[error("sink {sink} cannot be started")]
    Sink { sink: String, source: crate::sinks::Error },
    /// A fault of ours. The process ends, so that whoever watches over it starts it anew.
    #[error("the part that takes webhooks has ended by itself")]
    Ingest(#[source] Option<JoinError>),
}

impl Error {
    /// Whether it is the configuration that has to change, rather than a service that has to come.
    #[must_use]
    pub fn is_config(&self) -> bool {
        !matches!(self, Self::Listen { .. } | Self::Ingest(_))
    }
}

/// What differs between `run` and `dev`.
#[derive(Clone)]
pub struct Mode {
    /// A real cluster: topics are created by its admin API and looked over before the start.
    pub real_cluster: bool,
    /// Told of every settlement, besides the metrics.
    pub observer: Option<Arc<dyn Observer>>,
}

impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mode").field("real_cluster", &self.real_cluster).finish_non_exhaustive()
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
    let admin_socket = start::listen("the admin port", config.admin.listen)?;
    let ingest_socket = start::listen("webhooks", config.ingest.listen)?;
    let client = Client::new(&config.kafka, &client_id(config)).map_err(Error::Kafka)?;
    let client = client.with_max_message_bytes(start::max_record(config));
    let limits = kafka::Limits { max_in_flight_bytes: config.ingest.max_in_flight_bytes, ..kafka::Limits::default() };
    let publisher = Publisher::start(&client, limits).map_err(Error::Kafka)?;
    let registry = Registry::new(&config.registry).map_err(Error::Registry)?;

    let console = Arc::new(Console {
        readiness: Arc::clone(&readiness),
        metrics: metrics.clone(),
        before_scrape: Box::new(observe::Gauges::new(publisher.clone())),
    });
    // The admin port shows how the drain goes, so that it ends after everything else.
    let (end_admin, admin_ends) = Stop::new();
    let admin = axum::serve(admin_socket, console::router(console));
    let admin = admin.with_graceful_shutdown(async move { admin_ends.requested().await });
    let admin = tokio::spawn(admin.into_future());

    let door = Arc::new(Door {
        line: OnceLock::new(),
        unknown: SourceMetrics::new(&metrics, "unknown"),
        max_body: config.ingest.max_body,
        body_timeout: config.ingest.body_timeout,
    });
    // Asked of our parts by us, whatever the reason: a person's word, a start that failed, a part that has ended.
    let (end, ending) = Stop::new();
    let (behind, server_ends) = (Arc::clone(&door), ending.clone());
    let receive = move |request, first_byte| ingest::receive(Arc::clone(&behind), request, first_byte);
    let mut requests = tokio::spawn(server::serve(ingest_socket, receive, server_limits(config), async move {
        server_ends.requested().await;
    }));

    let mut deliveries = JoinSet::new();
    let bridge = async {
        let ids = start::start(&compiled, &mode, &client, &registry, &readiness).await?;
        let around = Arc::new(Surroundings {
            client: client.clone(),
            registry: registry.clone(),
            told: Told {
                metrics: metrics.clone(),
                readiness: Arc::clone(&readiness),
                observer: observe::observer(&metrics, mode.observer.clone()),
            },
        });
        deliveries = sinks::run(&compiled, &around, &ending)?;
        // Set once, here: the cell was made above and nobody else has it.
        let _ = door.line.set(sources::line(compiled, &ids, publisher.clone(), metrics));
        readiness.ready();
        tracing::info!("ready");
        match watch::outside(client, registry, Arc::clone(&readiness)).await {}
    };
    let (ended, requests) = tokio::select! {
        () = stop.requested() => (Ok(()), Some(requests)),
        ended = bridge => (ended, Some(requests)),
        ended = &mut requests => (Err(Error::Ingest(ended.err())), None),
    };

    readiness.draining();
    tracing::info!("draining");
    let _ = end.send(true);
    drain(requests, deliveries, &publisher).await;
    let _ = end_admin.send(true);
    let _ = admin.await;
    tracing::info!("stopped");
    ended
}

/// First the requests that are under way, then the deliveries, then what is still on its way to Kafka.
async fn drain(requests: Option<JoinHandle<Drained>>, mut deliveries: JoinSet<()>, publisher: &Publisher) {
    if let Some(requests) = requests {
        match requests.await {
            Ok(Drained::Clean) => {}
            Ok(Drained::Cut { connections }) => {
                tracing::warn!(connections, "the drain's deadline passed with connections open");
            }
            Err(error) => tracing::error!(%error, "the ingest server ended by a fault of its own"),
        }
    }
    while let Some(ended) = deliveries.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a sink ended by a fault of its own");
        }
    }
    if let Err(error) = publisher.flush(FLUSH_TIMEOUT).await {
        tracing::warn!(error = chain(&error), "some records were not confirmed");
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

fn client_id(config: &Config) -> String {
    if config.instance.is_empty() { "hookbridge".to_owned() } else { format!("hookbridge-{}", config.instance) }
}
