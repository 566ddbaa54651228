//! Operators' orders: read before the first sink starts, and followed for as long as the bridge runs.

use std::convert::Infallible;
use std::sync::Arc;

use super::readiness::Readiness;
use super::sinks::Surroundings;
use super::start::{LOOK_AGAIN, patiently};
use super::{Error, Parts};
use crate::causes::chain;
use crate::config::Config;
use crate::control::{self, Orders, Raw, topic};
use crate::kafka::{self, Reader, Then};

/// What `/readyz` and the log call it.
const PART: &str = "control";

/// Who follows the orders.
pub(super) struct Following {
    /// `None`: the cluster is a mock, and nobody gives orders.
    orders: Option<Orders>,
    around: Arc<Surroundings>,
    readiness: Arc<Readiness>,
}

impl Following {
    pub(super) fn new(config: &Config, parts: &Parts) -> Self {
        let prefix = &config.kafka.topic_prefix;
        let orders = || Orders {
            client: parts.client().clone(),
            registry: parts.registry().clone(),
            group: format!("{prefix}hookbridge.reader"),
            topic: topic(prefix),
        };
        Self {
            orders: parts.real_cluster.then(orders),
            around: Arc::clone(&parts.around_sinks),
            readiness: Arc::clone(parts.readiness()),
        }
    }

    /// Reads what is wanted now: a sink that is paused must not send before that is known.
    ///
    /// # Errors
    /// What waiting does not mend.
    pub(super) async fn read(&self) -> Result<Option<Reader<Raw>>, Error> {
        let Some(orders) = &self.orders else { return Ok(None) };
        let may_pass = |error: &control::Error| {
            !matches!(
                error,
                control::Error::Kafka(kafka::Error::Property { .. } | kafka::Error::Start { .. })
                    | control::Error::Malformed { .. }
            )
        };
        let reader = patiently(PART, &self.readiness, || self.catch_up(orders), may_pass).await;
        reader.map(Some).map_err(Error::Control)
    }

    async fn catch_up(&self, orders: &Orders) -> Result<Reader<Raw>, control::Error> {
        orders.read(Then::Follow, |control| self.around.control.put(&control)).await
    }

    /// Follows them. Where that ends, all is read again; what is known stays in force meanwhile.
    pub(super) async fn follow(&self, reader: Option<Reader<Raw>>) -> Infallible {
        let (Some(orders), Some(mut reader)) = (&self.orders, reader) else { return std::future::pending().await };
        loop {
            if let Err(error) = orders.follow(reader, |control| self.around.control.put(&control)).await
                && self.readiness.amiss(PART, &error.to_string())
            {
                tracing::warn!(error = chain(&error), "operators' orders are not followed");
            }
            reader = loop {
                tokio::time::sleep(LOOK_AGAIN).await;
                if let Ok(again) = patiently(PART, &self.readiness, || self.catch_up(orders), |_| true).await {
                    break again;
                }
            };
        }
    }
}
