//! Whether what the bridge depends on is still there, once it runs.

use std::convert::Infallible;
use std::time::Duration;

use super::ASK_TIMEOUT;
use super::readiness::Readiness;
use crate::causes::chain;
use crate::kafka::Client;
use crate::schema::registry::Registry;

/// Soon enough for a load balancer that looks every few seconds, and two small requests.
const EVERY: Duration = Duration::from_secs(5);

/// Asks Kafka and the registry from time to time; tells `/readyz`, and the log when it changes.
pub(super) async fn outside(client: &Client, registry: &Registry, readiness: &Readiness) -> Infallible {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (kafka, registry) = tokio::join!(client.ping(ASK_TIMEOUT), registry.probe());
        let kafka = kafka.err().map(|error| chain(&error));
        let registry = registry.err().map(|error| chain(&error));
        for (part, trouble) in [("kafka", kafka), ("registry", registry)] {
            match trouble {
                Some(what) if readiness.amiss(part, &what) => tracing::warn!(part, what, "unreachable"),
                None if readiness.well(part) => tracing::info!(part, "reachable again"),
                _ => {}
            }
        }
    }
}
