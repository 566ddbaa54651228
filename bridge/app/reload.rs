//! Another configuration for a bridge that runs: read, compiled and looked at from all sides before anything is changed,
//! then put in force at once. Where anything is wrong with it, the one before stays.
//!
//! ```text
//!  SIGHUP ──▶ read + compile ──▶ kept keys ──▶ new topics, new schema ids ──▶ new line, then sinks by their difference
//!                  │                 │                    │
//!                  └─────────────────┴────────────────────┴──▶ refused: said in the log, on /readyz and in the metrics
//! ```

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::changes::Changes;
use super::compile::{self, Compiled, CompiledEvent};
use super::in_force::InForce;
use super::sinks::Running;
use super::tail::Tail;
use super::{Parts, kept, start};
use crate::causes::chain;
use crate::config::{self, Problem, Severity};
use crate::schema::EventSchema;

/// For new topics to have leaders, which may take 30 s, and for the registry to answer for new schemas, 5 s a call.
const OUTSIDE_WITHIN: Duration = Duration::from_secs(60);
/// Problems that `/readyz` repeats; the log has them all.
const SHOWN: usize = 3;
/// Characters of the reason there: what a person reads of it, and what a load balancer may log every few seconds.
const REASON: usize = 2_000;
/// What `/readyz` calls a configuration.
const PART: &str = "configuration";

/// How a bridge reads its configuration again, and hears that it should.
#[derive(Debug, Clone)]
pub struct Reloads {
    file: PathBuf,
    asked: Arc<Notify>,
}

/// Asks for a reload.
#[derive(Debug, Clone)]
pub struct Ask(Arc<Notify>);

impl Ask {
    /// While one is under way, any number of times asks for one more, which sees the file as it is then.
    pub fn reload(&self) {
        self.0.notify_one();
    }
}

impl Reloads {
    /// Of this file, with the variables of the process.
    #[must_use]
    pub fn of(file: &Path) -> (Ask, Self) {
        let asked = Arc::new(Notify::new());
        (Ask(Arc::clone(&asked)), Self { file: file.to_owned(), asked })
    }
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{}", shown(.0))]
    File(Vec<Problem>),
    #[error("what it asks for is not to be had")]
    Outside(#[from] super::Error),
    #[error("kafka and the registry have not given what it asks for within {within:?}")]
    TimedOut { within: Duration },
    /// A fault of ours.
    #[error("the reading of it ended by itself")]
    Reading(#[source] JoinError),
}

impl Refused {
    /// For the metrics: what a person has to look at, the file or what is around it.
    fn result(&self) -> &'static str {
        match self {
            Self::File(_) => "refused",
            Self::Outside(_) | Self::TimedOut { .. } | Self::Reading(_) => "failed",
        }
    }
}

fn shown(problems: &[Problem]) -> String {
    let errors: Vec<&Problem> = problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let first = errors.iter().take(SHOWN).map(|&problem| Problem { hint: None, ..problem.clone() }.to_string());
    let mut shown: Vec<String> = first.collect();
    if errors.len() > SHOWN {
        shown.push(format!("and {} more", errors.len() - SHOWN));
    }
    shown.join("; ")
}

/// What a reload has changed.
struct Reloaded {
    events: Changes,
    /// `order_placed 1 to 2`.
    versions: Vec<String>,
    sources: Changes,
    sinks: Changes,
}

/// Reloads whenever it is asked to, one after the other.
pub(super) async fn whenever_asked(
    reloads: Reloads,
    mut in_force: InForce,
    parts: &Parts,
    running: &mut Running,
    tail: &Tail,
) -> Infallible {
    loop {
        reloads.asked.notified().await;
        let began = Instant::now();
        match reload(&reloads.file, &in_force, parts, running).await {
            Ok((next, reloaded)) => {
                in_force = next;
                tail.turn_to(&in_force);
                parts.metrics().config_reloads.with_label_values(&["applied"]).inc();
                parts.readiness().well(PART);
                let Reloaded { events, versions, sources, sinks } = reloaded;
                let (took, versions) = (began.elapsed(), versions.join(", "));
                tracing::info!(%sources, %sinks, %events, versions, ?took, "the configuration was reloaded");
            }
            Err(refused) => {
                parts.metrics().config_reloads.with_label_values(&[refused.result()]).inc();
                let why = format!("the configuration on disk was refused: {}", chain(&refused));
                parts.readiness().amiss(PART, &why.chars().take(REASON).collect::<String>());
                say(&reloads.file, refused);
            }
        }
    }
}

/// Every problem, as `check` prints it.
fn say(file: &Path, refused: Refused) {
    let file = file.display();
    if let Refused::File(problems) = refused {
        tracing::error!(%file, problems = problems.len(), "the configuration on disk was refused; the one before stays");
        for mut problem in problems {
            let hint = problem.hint.take();
            match problem.severity {
                Severity::Error => tracing::error!(hint, "{problem}"),
                Severity::Warning => tracing::warn!(hint, "{problem}"),
            }
        }
    } else {
        let error = chain(&refused);
        tracing::error!(%file, error, "the configuration on disk was refused; the one before stays");
    }
}

async fn reload(
    file: &Path,
    in_force: &InForce,
    parts: &Parts,
    running: &mut Running,
) -> Result<(InForce, Reloaded), Refused> {
    let path = file.to_owned();
    let read = spawn_blocking(move || compile::read(&path, &config::Process));
    let compiled = read.await.map_err(Refused::Reading)?.map_err(Refused::File)?;
    let kept = kept::problems(&in_force.config, &compiled.config, file);
    if !kept.is_empty() {
        return Err(Refused::File(kept));
    }
    let outside = timeout(OUTSIDE_WITHIN, outside(&compiled, in_force, parts));
    let ids = outside.await.map_err(|_| Refused::TimedOut { within: OUTSIDE_WITHIN })??;

    let sources = Changes::between(&in_force.config.sources, &compiled.config.sources);
    let (next, sinks) = InForce::put(compiled, ids, parts, running)?;
    for source in &sources.removed {
        parts.metrics().forget_source(source);
    }
    let (events, versions) = event_changes(in_force, &next);
    Ok((next, Reloaded { events, versions, sources, sinks }))
}

/// What a configuration needs of Kafka and of the registry, besides what the one in force has already: where it is
/// nothing, neither is asked, so that a secret can be changed while one of them is down.
async fn outside(compiled: &Compiled, in_force: &InForce, parts: &Parts) -> Result<HashMap<String, u32>, super::Error> {
    let Compiled { config, events, .. } = compiled;
    let plans = start::topic_plans(config);
    let known = start::topic_plans(&in_force.config);
    let known: HashSet<String> = known.into_iter().map(|plan| plan.name).collect();
    if parts.real_cluster && plans.iter().any(|plan| !known.contains(&plan.name)) {
        start::topics(config, &plans, &known, parts.client(), parts.readiness()).await?;
    }
    let id_in_force = |schema: &EventSchema| {
        let before = in_force.events.get(&schema.event_type).filter(|before| is_same(&before.schema, schema))?;
        in_force.ids.get(&before.schema.event_type).copied()
    };
    let (mut ids, mut new) = (HashMap::new(), Vec::new());
    for CompiledEvent { schema, .. } in events.values() {
        match id_in_force(schema) {
            Some(id) => _ = ids.insert(schema.event_type.clone(), id),
            None => new.push(schema),
        }
    }
    let ask = |schema: EventSchema| {
        let registry = parts.registry().clone();
        async move { registry.id_of(&schema).await }
    };
    ids.extend(start::schema_ids(new.into_iter(), config, ask).await?);
    if parts.real_cluster && !in_force.config.sinks.values().any(start::has_receipts) {
        let registered = start::own_schemas(config, parts.registry()).await;
        registered.map_err(|error| super::Error::Schemas { problems: vec![chain(&error)] })?;
    }
    Ok(ids)
}

/// Whether both are registered as one: the same content, that of shared types included, under one subject.
fn is_same(one: &EventSchema, other: &EventSchema) -> bool {
    one.subject == other.subject && one.text == other.text && one.inlined == other.inlined
}

fn event_changes(before: &InForce, after: &InForce) -> (Changes, Vec<String>) {
    let known = |in_force: &InForce| {
        let known = in_force.events.iter().map(|(event_type, event)| {
            let definition = in_force.config.events.get(event_type).cloned();
            (event_type.clone(), (definition, event.schema.version, event.schema.inlined.clone()))
        });
        known.collect()
    };
    let versions = after.events.iter().filter_map(|(event_type, event)| {
        let (was, is) = (before.events.get(event_type)?.schema.version, event.schema.version);
        (was != is).then(|| format!("{event_type} {was} to {is}"))
    });
    (Changes::between(&known(before), &known(after)), versions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Location;

    #[test]
    fn of_many_problems_the_first_errors_are_shown_and_the_rest_is_counted() {
        let file = Path::new("h.yaml");
        let at = |line| Location { line, column: 1, path: "a".to_owned() };
        let mut problems = vec![Problem::warning(file, at(1), "look at it")];
        problems.extend((2..7).map(|line| Problem::error(file, at(line), "is wrong").with_hint("mend it")));
        let expected = "h.yaml:2:1: a: is wrong; h.yaml:3:1: a: is wrong; h.yaml:4:1: a: is wrong; and 2 more";
        assert_eq!(Refused::File(problems).to_string(), expected);
    }
}
