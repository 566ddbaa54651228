//! `hookbridge dev`: a bridge with everything it needs in one process, for a first look.
//!
//! librdkafka's mock cluster stands in for Kafka, a built-in registry for the schema registry, a local receiver for the
//! vendors. Signed sample events trickle in, and what flows is printed. Nothing is kept, nothing is promised.

mod receiver;
mod registry;
pub mod samples;
mod trickle;
mod view;

use std::collections::HashMap;
use std::env::VarError;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use self::trickle::Trickle;
use self::view::View;
use crate::app::compile::compile;
use crate::app::{self, Mode, Stop};
use crate::config::{self, Environment, Problem, Secret};
use crate::kafka::mock::DevCluster;
use crate::schema::builtin::Builtin;

const CONFIG: &str = include_str!("hookbridge.dev.yaml");
/// Public, since everything here is: they sign nothing but samples.
const STRIPE_SECRET: &str = "whsec_dev_only_stripe";
const STOREFRONT_SECRET: &str = "whsec_ZGV2LW9ubHktc3RvcmVmcm9udC1zZWNyZXQ=";
const SINK_SECRET: &str = "whsec_ZGV2LW9ubHktc2luay1zaWduaW5nLXNlY3JldA==";

/// What can be chosen.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where webhooks are taken
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where health, metrics and version are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    admin: SocketAddr,
    /// Where the schema registry answers
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    registry: SocketAddr,
    /// The folder of schemas
    #[arg(long, value_name = "FOLDER", default_value = "schemas")]
    schemas: PathBuf,
    /// Sample events a second; 0: none
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    rate: f64,
    /// Stop after so many sample events
    #[arg(long, value_name = "NUMBER")]
    events: Option<u64>,
}

/// Why `dev` could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there are no schemas in `{}`", folder.display())]
    NoSchemas { folder: PathBuf },
    #[error("cannot listen on {address} for {what}")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("the built-in configuration has problems: {}", .0.iter().map(|p| p.message.as_str()).collect::<Vec<_>>().join("; "))]
    Config(Vec<Problem>),
    #[error("the mock cluster could not be started")]
    Cluster(#[source] crate::kafka::Error),
    #[error("the bridge could not be started")]
    App(#[from] app::Error),
    #[error("the client that sends samples could not be made")]
    Client(#[source] reqwest::Error),
    #[error("the registry's cache could not be made")]
    Cache(#[source] io::Error),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSchemas { .. } => Some("start it in the repository's folder, or name the folder with `--schemas`"),
            Self::Listen { .. } | Self::App(app::Error::Listen { .. }) => {
                Some("is another one running? choose addresses with `--listen`, `--admin` and `--registry`")
            }
            _ => None,
        }
    }
}

/// Runs until `stop`.
///
/// # Errors
/// Where it could not start.
pub async fn run(options: &Options, stop: Stop) -> Result<(), Error> {
    if !options.schemas.is_dir() {
        return Err(Error::NoSchemas { folder: options.schemas.clone() });
    }
    let view = Arc::new(View::default());
    let registry_address =
        serve("the schema registry", options.registry, registry::router(Arc::new(Builtin::default()))).await?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let receiver_address = serve("the local receiver", any, receiver::router(Arc::clone(&view))).await?;

    let cache = std::env::temp_dir().join(format!("hookbridge-dev-{}", std::process::id()));
    std::fs::create_dir_all(&cache).map_err(Error::Cache)?;
    let _cleared = Cleared(cache.clone());
    let environment = Variables(variables(options, registry_address, receiver_address, &cache));
    let mut loaded = config::parse(Path::new("hookbridge.dev.yaml"), CONFIG, &environment)
        .map_err(|problems| Error::Config(problems.all))?;
    let topics = topics(&loaded.config);
    let cluster = DevCluster::start(&topics).map_err(Error::Cluster)?;
    let bootstrap = cluster.bootstrap_servers().to_owned();
    loaded.config.kafka.bootstrap_servers.clone_from(&bootstrap);
    let compiled = compile(loaded.config, &loaded.file).map_err(Error::Config)?;

    view.say(&welcome(options, &bootstrap, registry_address));
    let trickle = Trickle::new(&compiled, options, Arc::clone(&view)).map_err(Error::Client)?;
    let mode = Mode { real_cluster: false, observer: Some(Arc::<View>::clone(&view)), reloads: None };
    let (stopper, inner) = Stop::new();
    let finished = async {
        tokio::select! { () = stop.requested() => (), () = trickle.run() => () }
        let _ = stopper.send(true);
    };
    let bridge = app::run(compiled, mode, inner);
    tokio::pin!(bridge);
    let ended = tokio::select! {
        // It could not start, or met a fault: nobody has to ask it to stop.
        ended = &mut bridge => ended,
        () = finished => bridge.await,
    };
    drop(cluster);
    Ok(ended?)
}

/// What the built-in configuration leaves open.
struct Variables(HashMap<&'static str, String>);

impl Environment for Variables {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        self.0.get(name).cloned().ok_or(VarError::NotPresent)
    }

    /// It reads no files.
    fn read_file(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The cache of a process that keeps nothing.
struct Cleared(PathBuf);

impl Drop for Cleared {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "the cache was not removed");
        }
    }
}

fn variables(
    options: &Options,
    registry: SocketAddr,
    receiver: SocketAddr,
    cache: &Path,
) -> HashMap<&'static str, String> {
    let schemas = std::path::absolute(&options.schemas).unwrap_or_else(|_| options.schemas.clone());
    [
        ("DEV_KAFKA", "127.0.0.1:1".to_owned()), // replaced once the mock cluster has its ports
        ("DEV_REGISTRY", format!("http://{registry}")),
        ("DEV_CACHE", cache.display().to_string()),
        ("DEV_LISTEN", options.listen.to_string()),
        ("DEV_ADMIN", options.admin.to_string()),
        ("DEV_SCHEMAS", schemas.display().to_string()),
        ("DEV_RECEIVER", format!("http://{receiver}")),
        ("DEV_STRIPE_SECRET", STRIPE_SECRET.to_owned()),
        ("DEV_STOREFRONT_SECRET", STOREFRONT_SECRET.to_owned()),
        ("DEV_SINK_SECRET", SINK_SECRET.to_owned()),
    ]
    .into_iter()
    .collect()
}

fn topics(config: &config::Config) -> Vec<(String, i32)> {
    let partitions = config.kafka.topic_defaults.partitions;
    let events = config.events.values().map(|event| event.topic.clone());
    let quarantine = config.sources.keys().map(|source| format!("quarantine.{source}"));
    events.chain(quarantine).map(|topic| (topic, partitions)).collect()
}

async fn serve(what: &'static str, address: SocketAddr, app: Router) -> Result<SocketAddr, Error> {
    let listen = |source| Error::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(bound)
}

fn welcome(options: &Options, bootstrap: &str, registry: SocketAddr) -> String {
    let (listen, admin) = (options.listen, options.admin);
    format!(
        r#"hookbridge dev: everything in one process. It keeps nothing, and is not exactly once: `run` is.

  webhooks   http://{listen}/hooks/storefront   (Standard Webhooks)
             http://{listen}/hooks/stripe       (Stripe)
  kafka      {bootstrap}   try: kcat -b {bootstrap} -L
  registry   http://{registry}   try: curl http://{registry}/subjects
  admin      http://{admin}/metrics   /healthz /readyz /version

Send one yourself (sh, with openssl); change the amount to "a lot" to see it quarantined:

  body='{{"id":"evt_mine_1","type":"invoice.paid","created":'$(date +%s)',"data":{{"object":{{"customer":"cus_me","currency":"eur","amount_paid":1999}}}}}}'; t=$(date +%s); v1=$(printf '%s.%s' "$t" "$body" | openssl dgst -sha256 -hmac {STRIPE_SECRET} | sed 's/.* //'); curl -sS http://{listen}/hooks/stripe -H "Stripe-Signature: t=$t,v1=$v1" -d "$body"

──▶ a source sent an event and got its answer     ◀─ a sink's delivery arrived     ✕ a sink skipped it
"#
    )
}

/// The secret that a dev source trusts.
fn secret_of(source: &str) -> Secret {
    Secret::new(if source == "stripe" { STRIPE_SECRET } else { STOREFRONT_SECRET })
}
