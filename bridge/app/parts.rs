//! The parts that are made once and outlive every configuration: a reload changes none of them.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use uuid::Uuid;

use super::sinks::{Surroundings, Told};
use super::{Error, Mode, Readiness, observe, start};
use crate::config::Config;
use crate::control::Board;
use crate::ingest::dedupe::Memory;
use crate::ingest::{Door, body};
use crate::kafka::{self, Client, Landing, Publisher};
use crate::metrics::{Metrics, SourceMetrics};
use crate::schema::registry::Registry;

pub(super) struct Parts {
    pub(super) real_cluster: bool,
    /// Where requests come in: always the same door, with another line behind it after a reload.
    pub(super) door: Arc<Door>,
    pub(super) publisher: Publisher,
    /// What was published, so that it is not published again.
    pub(super) memory: Arc<Memory>,
    pub(super) around_sinks: Arc<Surroundings>,
}

impl Parts {
    /// None of them has talked to anybody yet.
    ///
    /// # Errors
    /// What the configuration makes impossible.
    pub(super) fn make(config: &Config, mode: &Mode) -> Result<Self, Error> {
        let metrics = Metrics::new()?;
        for result in ["applied", "refused", "failed"] {
            // There from the start, so that the first of its kind is seen as an increase.
            metrics.config_reloads.with_label_values(&[result]);
        }
        let client = Client::new(&config.kafka, &client_id(config)).map_err(Error::Kafka)?;
        let client = client.with_max_message_bytes(start::max_record(config));
        let limits =
            kafka::Limits { max_in_flight_bytes: config.ingest.max_in_flight_bytes, ..kafka::Limits::default() };
        let memory = Memory::new(config.ingest.dedupe.max_entries, metrics.dedupe_uncertain.clone().into());
        let memory = Arc::new(memory);
        let landing: Arc<dyn Landing> = Arc::<Memory>::clone(&memory);
        let publisher = Publisher::start_telling(&client, limits, landing).map_err(Error::Kafka)?;
        let registry = Registry::new(&config.registry).map_err(Error::Registry)?;
        let door = Door {
            line: ArcSwapOption::empty(),
            unknown: SourceMetrics::new(&metrics, "unknown"),
            bodies: body_limits(config),
        };
        let told = Told {
            readiness: Arc::new(Readiness::default()),
            observer: observe::observer(&metrics, mode.observer.clone()),
            metrics,
            fenced: watch::Sender::new(None),
        };
        let around_sinks = Arc::new(Surroundings {
            client,
            registry,
            told,
            instance: slot(config),
            real_cluster: mode.real_cluster,
            largest: start::max_record(config),
            control: Board::default(),
        });
        Ok(Self { real_cluster: mode.real_cluster, door: Arc::new(door), publisher, memory, around_sinks })
    }

    pub(super) fn client(&self) -> &Client {
        &self.around_sinks.client
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.around_sinks.registry
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.around_sinks.told.metrics
    }

    pub(super) fn readiness(&self) -> &Arc<Readiness> {
        &self.around_sinks.told.readiness
    }
}

/// Without a slot of its own a process has one that nobody will have after it: what it leaves open when it is killed is
/// waited for, until its transaction has timed out.
fn slot(config: &Config) -> String {
    if config.instance.is_empty() { Uuid::new_v4().simple().to_string() } else { config.instance.clone() }
}

fn client_id(config: &Config) -> String {
    if config.instance.is_empty() { "hookbridge".to_owned() } else { format!("hookbridge-{}", config.instance) }
}

fn body_limits(config: &Config) -> body::Limits {
    let ingest = &config.ingest;
    body::Limits {
        max: ingest.max_body,
        timeout: ingest.body_timeout,
        min_rate: ingest.min_body_rate,
        compressed: ingest.compressed_bodies,
        // Half of the requests may be waiting for the rest of their bodies: the other half is for those that came whole.
        room: Arc::new(body::Room::new(ingest.max_buffered_bytes, ingest.max_requests.div_ceil(2))),
    }
}
