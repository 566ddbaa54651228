//! Sinks that have receipts: what their worker is made of.

use std::sync::Arc;
use std::time::Duration;

use super::{Error, Maker, Surroundings};
use crate::config::{self, Guarantee, Pacing, SinkKind};
use crate::deliver::Limits;
use crate::deliver::drive::{Names, Target, Worker};
use crate::deliver::machine::{Batching, Settings};
use crate::kafka::{Consumer, TransactionalId};
use crate::sinks::http::Http;
use crate::sinks::kafka::Kafka;

/// Records that a Kafka sink encodes side by side: none of it waits for anybody, so that more would only wait for a core.
const WRITERS: usize = 16;

/// Of each partition's window: a second's work of a fast sink, so that a commit on its way holds nobody up.
const WINDOW_RECORDS: usize = 4_000;

/// And in bytes: with the default of 12 partitions, under 50 MiB for a sink.
const WINDOW_BYTES: usize = 4 << 20;

/// Delivery ids remembered for each partition, some 150 bytes each: 15 MiB. Past it the oldest go first, and the sink's own
/// memory of ids decides.
const MAX_SEEN: usize = 100_000;

/// Settled records of each partition that a rewind reads again, some 50 bytes each: 12 MiB. A longer stretch is read in
/// parts, and its receipts once for each.
const MAX_BEYOND: usize = 250_000;

/// Parked records of each partition, some 300 bytes each: past it a failing key holds its partition, and no others.
const MAX_OPEN: usize = 10_000;

/// Receipts in one transaction, of some 300 bytes each and held twice meanwhile: more than a sink settles between two of them,
/// so that they have one pace, and acknowledged in a fraction of a second.
const MAX_TRANSACTION: usize = 20_000;

impl Maker {
    /// Where a driven sink sends, and at what pace, where the sink is of a kind that has receipts and the cluster has
    /// transactions.
    pub(super) fn driven_target(&self) -> Result<Option<(Target, usize, Pacing)>, Error> {
        let recipe = &*self.recipe;
        if !self.around.real_cluster {
            return Ok(None);
        }
        let config::Sink { name, events, kind, .. } = &recipe.config;
        Ok(match kind {
            SinkKind::Http(http) => {
                let target = Http::new(name, http, &recipe.allow).map_err(|source| self.impossible(source.into()))?;
                let target = Target::Http(Box::new(target.together(self.batch.clone())));
                Some((target, http.concurrency, http.pacing))
            }
            SinkKind::Kafka { topic } => {
                let target = Kafka::new(&recipe.prefix, topic, events, self.around.registry.clone());
                Some((Target::Kafka(target), WRITERS, Pacing::default()))
            }
            SinkKind::Postgres(_) | SinkKind::Preset(_) => None,
        })
    }

    /// A worker with receipts, where there is a [target](Self::driven_target) for it.
    pub(super) fn driven(&self) -> Result<Option<Worker>, Error> {
        let Some((target, concurrency, pacing)) = self.driven_target()? else { return Ok(None) };
        let recipe = &*self.recipe;
        // Of the kinds that are driven each has one, written or by default.
        let Some(guarantee) = recipe.config.guarantee else { return Ok(None) };
        let Surroundings { client, registry, told, instance, largest, .. } = &*self.around;
        let name = &recipe.config.name;
        let topics: Vec<String> = recipe.topics.keys().cloned().collect();
        let prefix = format!("{}hookbridge", recipe.prefix);
        Ok(Some(Worker {
            names: Names::new(&recipe.prefix, name, instance, topics.iter().map(String::as_str)),
            client: client.clone(),
            group: recipe.group.clone(),
            consumer: Consumer::subscribe(client, &recipe.group, &topics).map_err(Error::Kafka)?,
            transactional_id: TransactionalId::new(&prefix, name, instance),
            registry: registry.clone(),
            policy: self.policy.clone(),
            target,
            settings: settings(guarantee, concurrency, pacing, batching(&recipe.config)),
            largest: *largest,
            observer: Arc::clone(&told.observer),
            paused: self.around.control.paused(name),
            rewinds: self.around.control.orders(name),
        }))
    }
}

fn settings(guarantee: Guarantee, concurrency: usize, pacing: Pacing, batch: Option<Batching>) -> Settings {
    // `dedupe.window` is what the file says of the receiver's memory as well: past it an id protects nothing.
    let vendor_window: Option<Duration> = (guarantee == Guarantee::EffectivelyOnce).then_some(pacing.dedupe_window);
    Settings {
        guarantee,
        window: Limits { records: WINDOW_RECORDS, bytes: WINDOW_BYTES },
        concurrency,
        rate: pacing.rate_limit,
        in_place: pacing.in_place,
        max_age: pacing.max_age,
        dedupe_window: pacing.dedupe_window,
        vendor_window,
        max_seen: MAX_SEEN,
        max_beyond: MAX_BEYOND,
        max_open: MAX_OPEN,
        max_transaction: MAX_TRANSACTION,
        batch,
    }
}

fn batching(sink: &config::Sink) -> Option<Batching> {
    let SinkKind::Http(config::Http { batch: Some(batch), .. }) = &sink.kind else { return None };
    Some(Batching { events: batch.max_events, bytes: batch.max_bytes, linger: batch.linger })
}
