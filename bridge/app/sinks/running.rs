//! Which sinks run: those of the configuration in force. A reload leaves alone what it does not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Maker, Recipe, Surroundings, Worker, deliver, keep, part};
use crate::app::changes::Changes;
use crate::app::compile::{CompiledEvent, CompiledSink};
use crate::app::{Error, Stop};
use crate::config::Config;
use crate::deliver::restart_pause;

/// The sinks that run, by name.
pub(in crate::app) struct Running {
    around: Arc<Surroundings>,
    at_work: BTreeMap<String, AtWork>,
    /// Of a configuration before, ending what they have under way.
    leaving: BTreeMap<String, JoinHandle<()>>,
}

struct AtWork {
    recipe: Arc<Recipe>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What a new configuration makes of the sinks. Nothing has come of it yet.
pub(in crate::app) struct Next {
    pub(in crate::app) changes: Changes,
    /// Added and changed ones; with the first worker, where nobody of that name is still at work.
    makers: Vec<(Maker, Option<Worker>)>,
}

impl Running {
    pub(in crate::app) fn none(around: Arc<Surroundings>) -> Self {
        Self { around, at_work: BTreeMap::new(), leaving: BTreeMap::new() }
    }

    /// Makes ready what another configuration adds and changes: what it makes impossible is said now.
    ///
    /// # Errors
    /// [`Error::Sink`] or [`Error::Kafka`]; everything runs on as before.
    pub(in crate::app) fn prepare(
        &self,
        config: &Config,
        events: &BTreeMap<String, CompiledEvent>,
        sinks: Vec<CompiledSink>,
    ) -> Result<Next, Error> {
        let recipes: BTreeMap<String, Arc<Recipe>> = sinks
            .iter()
            .map(|sink| (sink.config.name.clone(), Arc::new(Recipe::new(&sink.config, config, events))))
            .collect();
        let before = self.at_work.iter().map(|(name, sink)| (name.clone(), Arc::clone(&sink.recipe))).collect();
        let changes = Changes::between(&before, &recipes);
        let mut makers = Vec::new();
        for sink in sinks {
            let name = &sink.config.name;
            let Some(recipe) = recipes.get(name).filter(|_| changes.concerns(name)) else { continue };
            let is_leaving = self.leaving.get(name).is_some_and(|task| !task.is_finished());
            let has_predecessor = self.at_work.contains_key(name) || is_leaving;
            let maker = Maker::new(Arc::clone(recipe), sink, &self.around);
            // A second member of its group would take partitions from the first one, which is at work.
            let first = if has_predecessor { maker.check().map(|()| None) } else { maker.worker().map(Some) };
            makers.push((maker, first?));
        }
        Ok(Next { changes, makers })
    }

    /// Lets removed and changed sinks end what they have under way, and starts added and changed ones: of one name the
    /// new one when the old one has left. Waits for nothing.
    pub(in crate::app) fn turn_to(&mut self, next: Next) {
        self.leaving.retain(|_, task| !task.is_finished());
        for name in &next.changes.removed {
            let Some(AtWork { stop, task, .. }) = self.at_work.remove(name) else { continue };
            let _ = stop.send(true);
            let (left, told) = (name.clone(), self.around.told.clone());
            let leaving = async move {
                ended(&left, task).await;
                told.forget(&left);
                tracing::info!(sink = left, "a sink has ended: the configuration names it no more");
            };
            self.leaving.insert(name.clone(), tokio::spawn(leaving));
        }
        for (maker, first) in next.makers {
            let name = maker.name().to_string();
            let before = match self.at_work.remove(&name) {
                Some(AtWork { stop, task, .. }) => {
                    let _ = stop.send(true);
                    Some(task)
                }
                None => self.leaving.remove(&name),
            };
            let recipe = Arc::clone(&maker.recipe);
            let (stop, stopped) = Stop::new();
            let task = tokio::spawn(run(maker, first, before, stopped));
            self.at_work.insert(name, AtWork { recipe, stop, task });
        }
    }

    /// Asks all of them to end.
    pub(in crate::app) fn ask_to_end(&self) {
        for sink in self.at_work.values() {
            let _ = sink.stop.send(true);
        }
    }

    /// Returns when all of them, asked to, have ended.
    pub(in crate::app) async fn ended(self) {
        let at_work = self.at_work.into_iter().map(|(name, sink)| (name, sink.task));
        for (name, task) in at_work.chain(self.leaving) {
            ended(&name, task).await;
        }
    }
}

/// One sink, from the end of the one of its name before it to its own.
async fn run(maker: Maker, mut first: Option<Worker>, before: Option<JoinHandle<()>>, stop: Stop) {
    let (name, told) = (maker.name(), maker.around.told.clone());
    if let Some(before) = before {
        ended(&name, before).await;
        // What was amiss with it need not be so with this one.
        told.readiness.well(&part(&name));
        if stop.is_requested() {
            return;
        }
    }
    let stopped = stop.clone();
    let live = move || deliver(first.take().map_or_else(|| maker.worker(), Ok), stopped.clone());
    keep(name, live, restart_pause, told, stop).await;
}

async fn ended(sink: &str, task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(sink, %error, "a sink ended by a fault of its own");
    }
}
