//! The memory of deduplication, filled from the event topics before requests are taken; and, under `scope: cluster`,
//! kept up with what other instances write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::compile::{Compiled, CompiledEvent};
use super::in_force::InForce;
use super::readiness::{Readiness, Step};
use super::sources::destination;
use super::start::{LOOK_AGAIN, patiently};
use super::{Error, Parts, kafka};
use crate::causes::chain;
use crate::clock;
use crate::config::{Config, DedupeScope};
use crate::ingest::dedupe::{Destination, Finder, Found, Memory, shares};
use crate::kafka::read::Event;
use crate::kafka::{Client, Extent, Reader, Then, TopicPartition};
use crate::schema::registry::Registry;
use crate::schema::{EventSchema, files};

/// How far back a start looks. Providers repeat soonest after what went wrong, so that a day has nearly all of them;
/// sinks remember a delivery for a day by default, too.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);
/// What `/readyz` and the log call it.
const PART: &str = "dedupe tail";

/// What is in force.
struct Current {
    /// By event type, where events go and as what.
    written: BTreeMap<String, Destination>,
    /// The other versions of their schemas, which topics may hold.
    others: Vec<EventSchema>,
}

/// What is read, and from where.
pub(super) struct Following {
    reader: Reader<Found>,
    current: Arc<Current>,
    partitions: BTreeSet<TopicPartition>,
}

/// The end of the event topics: at most as many records as the memory has entries, and none older than [`OLDEST`].
pub(super) struct Tail {
    client: Client,
    registry: Registry,
    group: String,
    /// A reload may change it.
    current: watch::Sender<Arc<Current>>,
    max_entries: usize,
    then: Then,
    memory: Arc<Memory>,
    readiness: Arc<Readiness>,
}

impl Tail {
    pub(super) fn new(compiled: &Compiled, ids: &HashMap<String, u32>, parts: &Parts) -> Self {
        let dedupe = compiled.config.ingest.dedupe;
        Self {
            client: parts.client().clone(),
            registry: parts.registry().clone(),
            group: format!("{}hookbridge.reader", compiled.config.kafka.topic_prefix),
            current: watch::Sender::new(Arc::new(Current::of(&compiled.config, &compiled.events, ids))),
            max_entries: dedupe.max_entries,
            then: match dedupe.scope {
                DedupeScope::Instance => Then::Stop,
                DedupeScope::Cluster => Then::Follow,
            },
            memory: Arc::clone(&parts.memory),
            readiness: Arc::clone(parts.readiness()),
        }
    }

    /// Reads it to the end, however long Kafka takes.
    ///
    /// # Errors
    /// What waiting does not mend.
    pub(super) async fn read(&self) -> Result<Following, Error> {
        self.readiness.wait_for(Step::DedupeTail);
        let may_pass =
            |error: &kafka::Error| !matches!(error, kafka::Error::Property { .. } | kafka::Error::Start { .. });
        patiently(PART, &self.readiness, || self.catch_up(), may_pass).await.map_err(Error::Kafka)
    }

    /// A reload has put other events in force: what it has added is followed from now on.
    pub(super) fn turn_to(&self, in_force: &InForce) {
        let InForce { config, events, ids } = in_force;
        self.current.send_replace(Arc::new(Current::of(config, events, ids)));
    }

    /// Follows other instances for as long as the bridge runs, where that is asked for.
    pub(super) async fn follow(&self, mut following: Following) -> Infallible {
        if self.then == Then::Stop {
            drop(following);
            return std::future::pending().await;
        }
        let mut turned = self.current.subscribe();
        loop {
            tokio::select! {
                error = self.remember(&mut following.reader) => {
                    let what = error.as_ref().map_or_else(|| "it has ended".to_owned(), |error| chain(error));
                    if self.readiness.amiss(PART, &what) {
                        tracing::warn!(what, "other instances' events are not followed");
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                // Its sender is ours, and stays.
                _ = turned.changed() => {
                    if self.is_all(&following).await {
                        continue;
                    }
                }
            }
            // What is known already stays as it is, so that it is read as at the start.
            let again = patiently(PART, &self.readiness, || self.catch_up(), |_| true).await;
            if let Ok(again) = again {
                following = again;
            }
        }
    }

    /// Whether what is followed is what there is to follow now: the same events, in the same partitions.
    async fn is_all(&self, following: &Following) -> bool {
        let current = Arc::clone(&self.current.borrow());
        current.written == following.current.written
            && self.extents(&current).await.is_ok_and(|extents| partitions(&extents) == following.partitions)
    }

    async fn extents(&self, current: &Current) -> Result<Vec<Extent>, kafka::Error> {
        let topics: BTreeSet<&String> = current.written.values().map(|destination| &destination.topic).collect();
        let since_ms = clock::now_ms() - i64::try_from(OLDEST.as_millis()).unwrap_or(i64::MAX);
        self.client.extents(&self.group, topics.into_iter().cloned().collect(), since_ms).await
    }

    async fn catch_up(&self) -> Result<Following, kafka::Error> {
        let began = Instant::now();
        let current = Arc::clone(&self.current.borrow());
        let extents = self.extents(&current).await?;
        let partitions = partitions(&extents);
        let (extents, cut) = shares(extents, self.max_entries);
        let written = current.written.iter().map(|(event_type, destination)| (event_type.clone(), destination.clone()));
        let known: Vec<_> = written.chain(self.others(&current).await).collect();
        let mut finder = Finder::new(Arc::clone(&self.memory), known, cut);
        let look = move |record: &kafka::Glimpse<'_>| finder.find(record);
        let mut reader = Reader::start(&self.client, &self.group, extents, self.then, look)?;
        while let Some(event) = reader.next().await {
            match event {
                Event::CaughtUp => {
                    let (seconds, entries) = (began.elapsed().as_secs_f64(), self.memory.reach().entries);
                    tracing::info!(entries, seconds, "what the event topics end with is remembered");
                    return Ok(Following { reader, current, partitions });
                }
                Event::Ended(Some(error)) => return Err(error),
                Event::Ended(None) => break,
                other => self.take(other),
            }
        }
        Err(kafka::Error::Stopped { role: "reader" })
    }

    /// What the registry knows of other versions, so that the answer to a repeat can name one. It is not worth waiting
    /// for: a version that is not known goes unnamed.
    async fn others(&self, current: &Current) -> Vec<(String, Destination)> {
        let mut known = Vec::new();
        for schema in &current.others {
            match self.registry.lookup(schema).await {
                Ok(Some(found)) => known.push((schema.event_type.clone(), destination(schema, found.id))),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(error = chain(&error), "older schemas go unnamed");
                    break;
                }
            }
        }
        known
    }

    /// Takes what comes until the reader ends, and says why it has.
    async fn remember(&self, reader: &mut Reader<Found>) -> Option<kafka::Error> {
        while let Some(event) = reader.next().await {
            match event {
                Event::Ended(cause) => return cause,
                other => self.take(other),
            }
        }
        None
    }

    fn take(&self, event: Event<Found>) {
        match event {
            Event::Batch(batch) => {
                if self.readiness.well(PART) {
                    tracing::info!(part = PART, "it goes on");
                }
                for found in batch {
                    self.memory.remember(found);
                }
            }
            Event::Trouble(code) => {
                if self.readiness.amiss(PART, &code.to_string()) {
                    tracing::warn!(part = PART, %code, "reading the event topics is in trouble");
                }
            }
            Event::CaughtUp | Event::Ended(_) => {}
        }
    }
}

impl Current {
    fn of(config: &Config, events: &BTreeMap<String, CompiledEvent>, ids: &HashMap<String, u32>) -> Self {
        let written = events.iter().filter_map(|(event_type, event)| {
            let id = ids.get(event_type)?;
            Some((event_type.clone(), destination(&event.schema, *id)))
        });
        let others = events.values().flat_map(|event| files::others(&config.schemas, &event.schema));
        Self { written: written.collect(), others: others.collect() }
    }
}

fn partitions(extents: &[Extent]) -> BTreeSet<TopicPartition> {
    extents.iter().map(|extent| extent.at.clone()).collect()
}
