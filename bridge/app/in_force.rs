//! The configuration in force: how one takes the place of another, at the start and at every reload.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::changes::Changes;
use super::compile::{Compiled, CompiledEvent};
use super::sinks::Running;
use super::{Error, Parts, sources};
use crate::clock;
use crate::config::Config;

/// What is kept of it, for the next one to be compared with.
pub(super) struct InForce {
    pub(super) config: Config,
    /// By event type.
    pub(super) events: BTreeMap<String, CompiledEvent>,
    /// The registry's, by event type.
    pub(super) ids: HashMap<String, u32>,
}

impl InForce {
    /// Puts a configuration in force, whatever was before: requests that begin from now on go by it, and the sinks turn to
    /// it. The names of the sinks that this concerns come with it.
    ///
    /// # Errors
    /// [`Error::Sink`] or [`Error::Kafka`]; then all is as before.
    pub(super) fn put(
        compiled: Compiled,
        ids: HashMap<String, u32>,
        parts: &Parts,
        running: &mut Running,
    ) -> Result<(Self, Changes), Error> {
        let Compiled { config, events, sources, sinks } = compiled;
        let next = running.prepare(&config, &events, sinks)?;
        // Nothing can fail from here on.
        let (publisher, metrics) = (parts.publisher.clone(), parts.metrics().clone());
        let line = sources::line(&config, &events, sources, &ids, publisher, Arc::clone(&parts.memory), metrics);
        parts.door.line.store(Some(Arc::new(line)));
        let concerned = next.changes.clone();
        running.turn_to(next);
        parts.metrics().config_loaded_at.set(clock::now_ms() / 1_000);
        parts.metrics().config_digest.set(i64::try_from(config.written.digest).unwrap_or_default());
        Ok((Self { config, events, ids }, concerned))
    }
}
