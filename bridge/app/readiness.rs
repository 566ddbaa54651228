//! Whether the bridge should be sent requests, and what is wrong with it: what `/readyz` answers from.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// What a start has to get through, in this order, before requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Kafka,
    Topics,
    Schemas,
    DedupeTail,
}

impl Step {
    /// What is awaited.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Topics => "topics",
            Self::Schemas => "schemas",
            Self::DedupeTail => "dedupe tail",
        }
    }
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub status: Status,
    /// What is awaited, or what is degraded: the part and what is said of it.
    pub reasons: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Starting,
    Ready,
    /// Ready, with something amiss outside: it stays 200, so that our own 503 with `Retry-After` reaches the provider
    /// instead of a load balancer's.
    Degraded,
    Draining,
}

/// Shared by the start, the watchers and `/readyz`.
#[derive(Debug)]
pub struct Readiness(Mutex<State>);

#[derive(Debug)]
struct State {
    waiting_for: Option<Step>,
    draining: bool,
    /// By part: a few of our own, and one for each sink.
    reasons: BTreeMap<String, String>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Mutex::new(State { waiting_for: Some(Step::Kafka), draining: false, reasons: BTreeMap::new() }))
    }
}

impl Readiness {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The start has come as far as `step`, and waits.
    pub fn wait_for(&self, step: Step) {
        self.with(|state| state.waiting_for = Some(step));
    }

    pub fn ready(&self) {
        self.with(|state| state.waiting_for = None);
    }

    pub fn draining(&self) {
        self.with(|state| state.draining = true);
    }

    /// Something is amiss with a part. Answers whether that is news.
    pub fn amiss(&self, part: &str, what: &str) -> bool {
        self.with(|state| {
            let known = state.reasons.get(part).is_some_and(|known| known == what);
            if !known {
                state.reasons.insert(part.to_owned(), what.to_owned());
            }
            !known
        })
    }

    /// A part is well. Answers whether that is news.
    pub fn well(&self, part: &str) -> bool {
        self.with(|state| state.reasons.remove(part).is_some())
    }

    /// 200 or 503, and the report.
    #[must_use]
    pub fn report(&self) -> (bool, Report) {
        self.with(|state| {
            let mut reasons = state.reasons.clone();
            let status = match (state.draining, state.waiting_for) {
                (true, _) => Status::Draining,
                (false, Some(step)) => {
                    reasons.insert("waiting_for".to_owned(), step.name().to_owned());
                    Status::Starting
                }
                (false, None) if reasons.is_empty() => Status::Ready,
                (false, None) => Status::Degraded,
            };
            (matches!(status, Status::Ready | Status::Degraded), Report { status, reasons })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_from_the_last_step_to_the_drain_whatever_is_amiss_outside() {
        let readiness = Readiness::default();
        assert!(readiness.amiss("kafka", "unreachable"));
        assert!(!readiness.report().0);
        readiness.wait_for(Step::Schemas);
        assert!(!readiness.report().0);
        readiness.ready();
        assert_eq!((readiness.report().0, readiness.report().1.status), (true, Status::Degraded));
        assert!(!readiness.amiss("kafka", "unreachable"), "said already");
        assert!(readiness.well("kafka"));
        assert_eq!(readiness.report().1.status, Status::Ready);
        readiness.draining();
        assert_eq!((readiness.report().0, readiness.report().1.status), (false, Status::Draining));
    }
}
