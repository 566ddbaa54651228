//! The sinks' workers: made of the configuration, kept running, and started anew where one ends by itself.
//! Which of them run is `running`'s business.

mod driven;
mod running;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub(super) use self::running::Running;
use super::compile::{CompiledEvent, CompiledSink};
use super::readiness::Readiness;
use super::{Error, Stop};
use crate::causes::chain;
use crate::config::{self, BatchBody, Config, Network, SinkKind};
use crate::control::Board;
use crate::deliver::drive::{self, Names};
use crate::deliver::{self, Observer, Policy, Registrar, Routes, State};
use crate::expr::{Json, Program};
use crate::kafka::{Client, Consumer};
use crate::metrics::Metrics;
use crate::schema::Decoder;
use crate::schema::registry::Registry;
use crate::sinks;
use crate::sinks::http::{Batch, Body, Failed, Http, Wrap};

/// A worker that has run for so long is well: its next end is the first again, and `/readyz` forgets the last one. It
/// takes a consumer seconds to join its group and meet what ended it before.
const STEADY: Duration = Duration::from_secs(60);

/// What all sinks share.
pub(super) struct Surroundings {
    pub(super) client: Client,
    pub(super) registry: Registry,
    pub(super) told: Told,
    /// The slot of this process: the file's, else drawn at its start.
    pub(super) instance: String,
    /// It has transactions, and so can have receipts.
    pub(super) real_cluster: bool,
    /// The largest record that a topic takes.
    pub(super) largest: usize,
    /// What operators want of the sinks.
    pub(super) control: Board,
}

/// Who hears of a worker's end.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) metrics: Metrics,
    pub(super) readiness: Arc<Readiness>,
    pub(super) observer: Arc<dyn Observer>,
    /// What another process with our slot has fenced: this one ends.
    pub(super) fenced: watch::Sender<Option<Fenced>>,
}

/// A sink, and the slot that somebody else has.
#[derive(Debug, Clone)]
pub(super) struct Fenced {
    pub(super) sink: String,
    pub(super) transactional_id: String,
}

impl Told {
    /// Returns when a sink was fenced.
    pub(super) async fn fenced(&self) -> Fenced {
        let mut watched = self.fenced.subscribe();
        loop {
            if let Some(fenced) = watched.borrow_and_update().clone() {
                return fenced;
            }
            if watched.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A sink is no more.
    fn forget(&self, sink: &str) {
        self.metrics.forget_sink(sink);
        self.readiness.well(&part(sink));
    }
}

/// What `/readyz` calls a sink.
fn part(sink: &str) -> String {
    format!("sink {sink}")
}

type Ended = Result<(), Box<dyn StdError + Send + Sync>>;

/// A worker of either kind.
enum Worker {
    Plain(Box<deliver::Worker>),
    Driven(Box<drive::Worker>),
}

/// One life of a worker. On a task of its own, so that a panic ends the life and not the bridge's hold on it.
async fn deliver(worker: Result<Worker, Error>, stop: Stop) -> Ended {
    let life = match worker? {
        Worker::Plain(worker) => tokio::spawn(deliver::run(*worker, stop.receiver())),
        Worker::Driven(worker) => tokio::spawn(drive::run(*worker, stop.receiver())),
    };
    Ok(life.await??)
}

/// Lives one after the other, until one ends because it was asked to.
async fn keep<F>(sink: Arc<str>, mut live: impl FnMut() -> F, pause: impl Fn(u32) -> Duration, told: Told, stop: Stop)
where
    F: Future<Output = Ended>,
{
    let part = part(&sink);
    let mut failures: u32 = 0;
    loop {
        let begun = Instant::now();
        let running = live();
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = tokio::time::sleep(STEADY) => {
                told.readiness.well(&part);
                running.await
            }
        };
        let Err(error) = ended else { return };
        if let Some(deliver::Error::Fenced { transactional_id, .. }) = error.downcast_ref() {
            tracing::error!(sink = &*sink, error = chain(&*error), "the process ends");
            let fenced = Fenced { sink: sink.to_string(), transactional_id: transactional_id.clone() };
            told.fenced.send_replace(Some(fenced));
            return;
        }
        failures = if begun.elapsed() < STEADY { failures.saturating_add(1) } else { 1 };
        let pause = pause(failures);
        let error = chain(&*error);
        tracing::error!(
            sink = &*sink,
            error,
            ?pause,
            "a sink's worker has ended; it is started anew, and nothing is lost"
        );
        told.metrics.sink_restarts.with_label_values(&[&*sink]).inc();
        told.observer.state(&sink, State::Down);
        told.readiness.amiss(&part, &error);
        tokio::select! { () = tokio::time::sleep(pause) => (), () = stop.requested() => return }
    }
}

/// What a sink's workers are made of, any number of times.
struct Maker {
    recipe: Arc<Recipe>,
    policy: Policy,
    /// How an HTTP sink sends events together, if it does.
    batch: Option<Batch>,
    around: Arc<Surroundings>,
}

/// All that makes a sink what it is: where two are equal, the worker of one is as good as the other's.
#[derive(Debug, PartialEq)]
struct Recipe {
    config: config::Sink,
    /// Event types by topic, of those topics that hold something for it.
    topics: BTreeMap<String, Vec<String>>,
    /// The consumer group.
    group: String,
    /// Of all topics.
    prefix: String,
    allow: Vec<Network>,
}

impl Recipe {
    fn new(sink: &config::Sink, config: &Config, events: &BTreeMap<String, CompiledEvent>) -> Self {
        let mut topics: BTreeMap<String, Vec<String>> =
            config.event_topics(sink).into_iter().map(|topic| (topic, Vec::new())).collect();
        for (event_type, event) in events {
            if let Some(event_types) = topics.get_mut(&event.schema.topic) {
                event_types.push(event_type.clone());
            }
        }
        Self {
            topics,
            group: deliver::group(&config.kafka.topic_prefix, &sink.name),
            prefix: config.kafka.topic_prefix.clone(),
            allow: config.egress.allow.clone(),
            config: sink.clone(),
        }
    }

    fn routes(&self) -> Routes {
        let mut routes = Routes::default();
        for (topic, event_types) in &self.topics {
            for event_type in event_types {
                routes.add(topic, event_type, self.config.events.contains(event_type));
            }
        }
        routes
    }
}

impl Maker {
    fn new(recipe: Arc<Recipe>, sink: CompiledSink, around: &Arc<Surroundings>) -> Self {
        let batch = batch(&sink);
        Self { policy: policy(&recipe, sink), batch, around: Arc::clone(around), recipe }
    }

    /// A worker, with its own member of the sink's group.
    fn worker(&self) -> Result<Worker, Error> {
        if let Some(driven) = self.driven()? {
            return Ok(Worker::Driven(Box::new(driven)));
        }
        let Surroundings { client, registry, told, .. } = &*self.around;
        let topics: Vec<String> = self.recipe.topics.keys().cloned().collect();
        Ok(Worker::Plain(Box::new(deliver::Worker {
            sink: self.name(),
            target: self.target().map_err(|source| self.impossible(source))?,
            consumer: Consumer::subscribe(client, &self.recipe.group, &topics).map_err(Error::Kafka)?,
            decoder: Arc::new(Decoder::new(registry.clone())),
            policy: self.policy.clone(),
            registrar: self.registrar(&topics)?,
            observer: Arc::clone(&told.observer),
            paused: self.around.control.paused(&self.recipe.config.name),
            rewinds: self.around.control.rewinds(&self.recipe.config.name),
        })))
    }

    /// `dev` has no topics for dead letters.
    fn registrar(&self, topics: &[String]) -> Result<Option<Registrar>, Error> {
        let Surroundings { client, registry, instance, real_cluster, .. } = &*self.around;
        if !real_cluster {
            return Ok(None);
        }
        let Recipe { config, prefix, .. } = &*self.recipe;
        let names = Names::new(prefix, &config.name, instance, topics.iter().map(String::as_str));
        Registrar::new(names, client, registry.clone()).map(Some).map_err(Error::Kafka)
    }

    fn target(&self) -> Result<sinks::Sink, sinks::Error> {
        let Recipe { config: config::Sink { name, kind, .. }, allow, .. } = &*self.recipe;
        Ok(match kind {
            SinkKind::Postgres(postgres) => sinks::Sink::Postgres(sinks::postgres::Postgres::new(name, postgres)?),
            SinkKind::Http(http) => sinks::Sink::Http(Http::new(name, http, allow)?.together(self.batch.clone())),
            SinkKind::Kafka { .. } | SinkKind::Preset(_) => return Err(sinks::Error::NotBuilt),
        })
    }

    /// Whether a worker could be made, without a member of the group.
    fn check(&self) -> Result<(), Error> {
        if self.driven_target()?.is_some() {
            return Ok(());
        }
        self.target().map(drop).map_err(|source| self.impossible(source))
    }

    fn impossible(&self, source: sinks::Error) -> Error {
        Error::Sink { sink: self.recipe.config.name.clone(), source }
    }

    fn name(&self) -> Arc<str> {
        self.recipe.config.name.as_str().into()
    }
}

/// Which events go to a sink, and as what, for whoever looks at it from outside.
pub(super) fn policy_of(sink: CompiledSink, config: &Config, events: &BTreeMap<String, CompiledEvent>) -> Policy {
    policy(&Recipe::new(&sink.config, config, events), sink)
}

fn policy(recipe: &Recipe, sink: CompiledSink) -> Policy {
    Policy {
        routes: recipe.routes(),
        purpose: recipe.config.purpose.clone(),
        filter: sink.filter.map(filter),
        map: sink.map.map(map),
    }
}

fn filter(program: Arc<Program>) -> deliver::Filter {
    Arc::new(move |event| {
        let event = Json::new(event).map_err(|error| chain(&error))?;
        program.is_true(&event).map_err(|error| chain(&error))
    })
}

/// A sink's `map` gives one document for each event.
fn map(program: Arc<Program>) -> deliver::Map {
    Arc::new(move |event| {
        let event = Json::new(event).map_err(|error| chain(&error))?;
        let results = program.eval(&event).map_err(|error| chain(&error))?;
        match results.as_slice() {
            [one] => Ok(one.text().as_bytes().to_vec()),
            several => Err(format!("the map gave {} results for one event", several.len())),
        }
    })
}

fn batch(sink: &CompiledSink) -> Option<Batch> {
    let SinkKind::Http(config::Http { batch: Some(batch), .. }) = &sink.config.kind else { return None };
    let body = match (&batch.body, &sink.batch_body) {
        (_, Some(program)) => Body::Made(wrap(Arc::clone(program))),
        (BatchBody::Lines, None) => Body::Lines,
        (BatchBody::Array | BatchBody::Expr(_), None) => Body::Array,
    };
    Some(Batch { max_bytes: batch.max_bytes, body, failed: sink.batch_failed.clone().map(failed) })
}

/// A batch's body is one document.
fn wrap(program: Arc<Program>) -> Wrap {
    Arc::new(move |elements| {
        let elements = Json::new(elements).map_err(|error| chain(&error))?;
        let results = program.eval(&elements).map_err(|error| chain(&error))?;
        match results.as_slice() {
            [one] => Ok(one.text().as_bytes().to_vec()),
            several => Err(format!("{} results for one body", several.len())),
        }
    })
}

fn failed(program: Arc<Program>) -> Failed {
    Arc::new(move |answer| {
        let answer = Json::new(answer).map_err(|error| chain(&error))?;
        let results = program.eval(&answer).map_err(|error| chain(&error))?;
        Ok(results.into_iter().map(|result| result.into_text().into_owned()).collect())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::app::observe;
    use crate::app::readiness::Status;

    fn told() -> Told {
        let metrics = Metrics::new().unwrap();
        let readiness = Arc::new(Readiness::default());
        readiness.ready();
        let fenced = watch::Sender::new(None);
        Told { observer: observe::observer(&metrics, None), metrics, readiness, fenced }
    }

    #[tokio::test]
    async fn a_worker_that_ends_by_itself_is_started_anew_counted_and_shown() {
        let (ask, stop) = Stop::new();
        let (told, lives) = (told(), Arc::new(AtomicU32::new(0)));
        let (counted, stopped) = (Arc::clone(&lives), stop.clone());
        let live = move || {
            let (life, stopped) = (counted.fetch_add(1, Ordering::SeqCst), stopped.clone());
            async move {
                match life {
                    0 => Err("the consumer has ended".into()),
                    1 => Ok(tokio::spawn(async { panic!("a fault of ours") }).await?),
                    _ => {
                        stopped.requested().await;
                        Ok(())
                    }
                }
            }
        };
        let kept = tokio::spawn(keep("crm".into(), live, |_| Duration::ZERO, told.clone(), stop));
        while lives.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        let (ready, report) = told.readiness.report();
        assert!(ready, "requests are taken all the same");
        assert_eq!(report.status, Status::Degraded);
        assert!(report.reasons["sink crm"].contains("panicked"), "{report:?}");
        let text = String::from_utf8(told.metrics.render()).unwrap();
        for line in
            [r#"hookbridge_sink_restarts_total{sink="crm"} 2"#, r#"hookbridge_sink_state{sink="crm",state="down"} 1"#]
        {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        ask.send(true).unwrap();
        kept.await.unwrap();
        assert_eq!(lives.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_stop_is_not_kept_waiting_by_a_pause() {
        let (ask, stop) = Stop::new();
        let told = told();
        let live = || async { Err("the consumer has ended".into()) };
        let kept = tokio::spawn(keep("crm".into(), live, |_| Duration::from_secs(3_600), told.clone(), stop));
        while told.readiness.report().1.status == Status::Ready {
            tokio::task::yield_now().await;
        }
        ask.send(true).unwrap();
        kept.await.unwrap();
    }
}
