//! The wiring: the parts in the order in which they are built, how one configuration takes the place of another, and the
//! order in which everything ends.

mod changes;
pub mod compile;
mod control;
mod in_force;
mod kept;
pub mod observe;
mod parts;
pub mod readiness;
mod reload;
mod sinks;
mod sources;
pub(crate) mod start;
mod stop;
mod tail;
mod watch;
pub(crate) mod way_back;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use self::compile::Compiled;
use self::control::Following;
use self::in_force::InForce;
use self::parts::Parts;
use self::readiness::Readiness;
pub use self::reload::{Ask, Reloads};
use self::sinks::{Fenced, Running};
pub use self::stop::Stop;
use self::tail::Tail;
use crate::causes::chain;
use crate::config::Config;
use crate::console::{self, Console};
use crate::deliver::Observer;
use crate::ingest;
use crate::ingest::server::{self, Drained, descriptors};
use crate::kafka::{self, Publisher};
use crate::metrics::{self, ServerMetrics};
use crate::schema::registry;

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
    #[error("operators' orders cannot be read")]
    Control(#[source] crate::control::Error),
    #[error("schemas have no id in the registry: {}", problems.join("; "))]
    Schemas { problems: Vec<String> },
    #[error("sink {sink} cannot be started")]
    Sink { sink: String, source: crate::sinks::Error },
    /// Two processes have one `instance`: both going on would fence each other for ever.
    #[error(
        "another process has the same `instance` as this one, and has taken over the sink {sink} ({transactional_id})"
    )]
    Fenced { sink: String, transactional_id: String },
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
    /// How the configuration may be loaded again; `None`: never.
    pub reloads: Option<Reloads>,
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
    let admin_socket = start::listen("the admin port", compiled.config.admin.listen)?;
    let ingest_socket = start::listen("webhooks", compiled.config.ingest.listen)?;
    let parts = Parts::make(&compiled.config, &mode)?;

    // The admin port shows how the drain goes, so that it ends after everything else.
    let (end_admin, admin_ends) = Stop::new();
    let admin = axum::serve(admin_socket, console::router(console(&parts)));
    let admin = admin.with_graceful_shutdown(async move { admin_ends.requested().await });
    let admin = tokio::spawn(admin.into_future());

    // Asked of it by us, whatever the reason: a person's word, a start that failed, a part that has ended.
    let (end_requests, requests_end) = Stop::new();
    let door = Arc::clone(&parts.door);
    let receive = move |request, first_byte| ingest::receive(Arc::clone(&door), request, first_byte);
    let mut requests = tokio::spawn(server::serve(
        ingest_socket,
        receive,
        server_limits(&compiled.config, parts.readiness()),
        ServerMetrics::new(parts.metrics()),
        async move { requests_end.requested().await },
    ));

    let mut running = Running::none(Arc::clone(&parts.around_sinks));
    let bridge = async {
        let ids = start::start(&compiled, &mode, parts.client(), parts.registry(), parts.readiness()).await?;
        let tail = Tail::new(&compiled, &ids, &parts);
        let follower = tail.read().await?;
        let following = Following::new(&compiled.config, &parts);
        let orders = following.read().await?;
        let (in_force, _) = InForce::put(compiled, ids, &parts, &mut running)?;
        parts.readiness().ready();
        tracing::info!("ready");
        let outside = watch::outside(parts.client(), parts.registry(), parts.readiness());
        let reloads = async {
            match mode.reloads {
                Some(reloads) => reload::whenever_asked(reloads, in_force, &parts, &mut running, &tail).await,
                None => std::future::pending().await,
            }
        };
        match tokio::select! {
            never = outside => never,
            never = reloads => never,
            never = tail.follow(follower) => never,
            never = following.follow(orders) => never,
        } {}
    };
    let (ended, requests) = tokio::select! {
        () = stop.requested() => (Ok(()), Some(requests)),
        Fenced { sink, transactional_id } = parts.around_sinks.told.fenced() => {
            (Err(Error::Fenced { sink, transactional_id }), Some(requests))
        }
        ended = bridge => (ended, Some(requests)),
        ended = &mut requests => (Err(Error::Ingest(ended.err())), None),
    };

    parts.readiness().draining();
    tracing::info!("draining");
    let _ = end_requests.send(true);
    running.ask_to_end();
    drain(requests, running, &parts.publisher).await;
    let _ = end_admin.send(true);
    let _ = admin.await;
    tracing::info!("stopped");
    ended
}

/// First the requests that are under way, then the deliveries, then what is still on its way to Kafka.
async fn drain(requests: Option<JoinHandle<Drained>>, deliveries: Running, publisher: &Publisher) {
    if let Some(requests) = requests {
        match requests.await {
            Ok(Drained::Clean) => {}
            Ok(Drained::Cut { connections }) => {
                tracing::warn!(connections, "the drain's deadline passed with connections open");
            }
            Err(error) => tracing::error!(%error, "the ingest server ended by a fault of its own"),
        }
    }
    deliveries.ended().await;
    if let Err(error) = publisher.flush(FLUSH_TIMEOUT).await {
        tracing::warn!(error = chain(&error), "some records were not confirmed");
    }
}

fn console(parts: &Parts) -> Arc<Console> {
    Arc::new(Console {
        readiness: Arc::clone(parts.readiness()),
        metrics: parts.metrics().clone(),
        before_scrape: Box::new(observe::Gauges::new(
            parts.publisher.clone(),
            Arc::clone(&parts.door.bodies.room),
            Arc::clone(&parts.memory),
        )),
    })
}

/// As the configuration says, but no more connections than the process may have descriptors for.
fn server_limits(config: &Config, readiness: &Readiness) -> server::Limits {
    let ingest = &config.ingest;
    let max_connections = match descriptors::make_room(ingest.max_connections) {
        descriptors::Room::Enough => ingest.max_connections,
        descriptors::Room::Short { connections, limit } => {
            let asked = ingest.max_connections;
            tracing::warn!(
                asked,
                connections,
                limit,
                "the limit on open files leaves fewer connections than asked for"
            );
            readiness.amiss(
                "descriptors",
                &format!("{connections} connections instead of {asked}: the limit on open files is {limit}"),
            );
            connections
        }
    };
    server::Limits {
        max_connections,
        max_requests: ingest.max_requests,
        max_connection_requests: ingest.max_connection_requests,
        max_connection_age: ingest.max_connection_age,
        header_timeout: ingest.header_timeout,
        idle_timeout: ingest.idle_timeout,
        drain_timeout: ingest.drain_timeout,
    }
}
