//! The memory of deduplication, filled from the event topics before requests are taken; and, under `scope: cluster`,
//! kept up with what other instances write.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::compile::Compiled;
use super::readiness::{Readiness, Step};
use super::sources::destination;
use super::start::{LOOK_AGAIN, patiently};
use super::{Error, Parts, kafka};
use crate::causes::chain;
use crate::clock;
use crate::config::DedupeScope;
use crate::ingest::dedupe::{Destination, Finder, Found, Memory, shares};
use crate::kafka::read::Event;
use crate::kafka::{Client, Reader, Then};

/// How far back a start looks. Providers repeat soonest after what went wrong, so that a day has nearly all of them;
/// sinks remember a delivery for a day by default, too.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);
/// What `/readyz` and the log call it.
const PART: &str = "dedupe tail";

/// The end of the event topics: at most as many records as the memory has entries, and none older than [`OLDEST`].
pub(super) struct Tail {
    client: Client,
    group: String,
    /// By event type, what is written today.
    current: Vec<(String, Destination)>,
    max_entries: usize,
    then: Then,
    memory: Arc<Memory>,
    readiness: Arc<Readiness>,
}

impl Tail {
    pub(super) fn new(compiled: &Compiled, ids: &HashMap<String, u32>, parts: &Parts) -> Self {
        let current = compiled.events.iter().filter_map(|(event_type, event)| {
            let id = ids.get(event_type)?;
            Some((event_type.clone(), destination(&event.schema, *id)))
        });
        let dedupe = compiled.config.ingest.dedupe;
        Self {
            client: parts.client().clone(),
            group: format!("{}hookbridge.reader", compiled.config.kafka.topic_prefix),
            current: current.collect(),
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
    pub(super) async fn read(&self) -> Result<Reader<Found>, Error> {
        self.readiness.wait_for(Step::DedupeTail);
        let may_pass =
            |error: &kafka::Error| !matches!(error, kafka::Error::Property { .. } | kafka::Error::Start { .. });
        patiently(PART, &self.readiness, || self.catch_up(), may_pass).await.map_err(Error::Kafka)
    }

    /// Follows other instances for as long as the bridge runs, where that is asked for.
    pub(super) async fn follow(&self, mut reader: Reader<Found>) -> Infallible {
        if self.then == Then::Stop {
            drop(reader);
            return std::future::pending().await;
        }
        loop {
            let error = self.remember(&mut reader).await;
            let what = error.as_ref().map_or_else(|| "it has ended".to_owned(), |error| chain(error));
            if self.readiness.amiss(PART, &what) {
                tracing::warn!(what, "other instances' events are not followed");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            // What is known already stays as it is, so that it is read as at the start.
            let again = patiently(PART, &self.readiness, || self.catch_up(), |_| true).await;
            if let Ok(again) = again {
                reader = again;
            }
        }
    }

    async fn catch_up(&self) -> Result<Reader<Found>, kafka::Error> {
        let began = Instant::now();
        let topics: BTreeSet<&String> = self.current.iter().map(|(_, destination)| &destination.topic).collect();
        let since_ms = clock::now_ms() - i64::try_from(OLDEST.as_millis()).unwrap_or(i64::MAX);
        let extents = self.client.extents(&self.group, topics.into_iter().cloned().collect(), since_ms).await?;
        let (extents, cut) = shares(extents, self.max_entries);
        let mut finder = Finder::new(Arc::clone(&self.memory), self.current.iter().cloned(), cut);
        let look = move |record: &kafka::Glimpse<'_>| finder.find(record);
        let mut reader = Reader::start(&self.client, &self.group, extents, self.then, look)?;
        while let Some(event) = reader.next().await {
            match event {
                Event::CaughtUp => {
                    let (seconds, entries) = (began.elapsed().as_secs_f64(), self.memory.reach().entries);
                    tracing::info!(entries, seconds, "what the event topics end with is remembered");
                    return Ok(reader);
                }
                Event::Ended(Some(error)) => return Err(error),
                Event::Ended(None) => break,
                other => self.take(other),
            }
        }
        Err(kafka::Error::Stopped { role: "reader" })
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
