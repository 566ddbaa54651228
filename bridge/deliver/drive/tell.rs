//! What people hear of a sink: log lines and numbers.

use std::collections::HashMap;
use std::time::Duration;

use super::Driver;
use crate::clock;
use crate::deliver::machine::{Ended, Notice};
use crate::deliver::receipt::received_at;
use crate::deliver::settle::{Fate, Receipt};
use crate::deliver::{Alike, Depth, Observer, State, seconds_between};
use crate::kafka::NextOffset;
use crate::kafka::transact::Counts;
use crate::outcome::Outcome;

/// The class of a call for the metrics. `None`: the sink was not called, on purpose.
pub(super) fn class(ended: &Ended, sent: bool) -> Option<&'static str> {
    match ended {
        Ended::Delivered | Ended::Written(_) => sent.then(|| Outcome::Delivered.class()),
        Ended::Skipped(_) => None,
        Ended::Failed(outcome) => Some(outcome.class()),
    }
}

pub(super) fn settled(observer: &dyn Observer, sink: &str, receipts: &[Receipt]) {
    let now = clock::now_ms();
    let mut alike: HashMap<Fate, u64> = HashMap::new();
    let mut latencies = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        *alike.entry(receipt.fate).or_default() += 1;
        let received = if receipt.fate == Fate::Delivered { received_at(&receipt.record) } else { None };
        latencies.extend(received.map(|received| seconds_between(received, now)));
        if let Fate::Dead(reason) = receipt.fate {
            tracing::error!(
                sink,
                at = %receipt.at,
                offset = receipt.offset,
                delivery_id = %receipt.delivery_id,
                attempts = receipt.attempts,
                reason = reason.name(),
                message = receipt.detail,
                "a dead letter"
            );
        }
    }
    for (fate, records) in alike {
        let latencies = if fate == Fate::Delivered { latencies.as_slice() } else { &[] };
        observer.settled_alike(sink, Alike { outcome: fate.name(), reason: fate.reason(), records }, latencies);
    }
}

/// Calls that have ended, by class.
pub(super) fn attempts<'a>(observer: &dyn Observer, sink: &str, ended: impl Iterator<Item = (&'a Ended, bool)>) {
    let mut by_class: HashMap<&'static str, u64> = HashMap::new();
    for class in ended.filter_map(|(ended, sent)| class(ended, sent)) {
        *by_class.entry(class).or_default() += 1;
    }
    for (class, calls) in by_class {
        observer.attempts(sink, class, calls);
    }
}

pub(super) fn transactions(observer: &dyn Observer, sink: &str, before: &Counts, now: &Counts) {
    let more = |result: &'static str, reason: &'static str, count: u64, was: u64| {
        if count > was {
            observer.transactions(sink, result, reason, count - was);
        }
    };
    more("committed", "", now.committed, before.committed);
    more("unknown", "", now.unknown, before.unknown);
    for (reason, count) in &now.aborted {
        more("aborted", reason, *count, before.aborted.get(reason).copied().unwrap_or_default());
    }
    for (reason, count) in &now.replaced {
        more("replaced", reason, *count, before.replaced.get(reason).copied().unwrap_or_default());
    }
}

pub(super) fn notice(sink: &str, notice: &Notice) {
    match notice {
        Notice::Held { outcome } => tracing::error!(
            sink,
            class = outcome.class(),
            reason = outcome.reason(),
            "held: nothing passes, so the sink is probed until it answers; nothing is lost and nothing is a dead letter"
        ),
        Notice::Recovered => tracing::info!(sink, "the sink answers, and is delivered to again"),
        Notice::Throttled { until } => {
            let now = Duration::from_millis(u64::try_from(clock::now_ms()).unwrap_or_default());
            tracing::warn!(sink, pause = ?until.saturating_sub(now), "the sink asks for a pause");
        }
        Notice::Parked { at, offset, delivery_id } => tracing::warn!(
            sink,
            %at,
            offset,
            %delivery_id,
            "parked: an event fails, and it and what follows it under its key wait outside while others pass"
        ),
        Notice::Unsure { partitions } => {
            let partitions: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            let partitions = partitions.join(" ");
            tracing::warn!(
                sink,
                partitions,
                "nobody knows whether a transaction was committed; the receipts are read again"
            );
        }
        Notice::TooLarge { at, reason, shrunk: true } => {
            tracing::warn!(sink, %at, reason, "a record is too large for its topic, and its event is settled without it");
        }
        Notice::TooLarge { at, reason, shrunk: false } => tracing::error!(
            sink,
            %at,
            reason,
            "held: a topic does not take a record that cannot be made smaller; raise its max.message.bytes"
        ),
        Notice::WentBack { at, from, order } => tracing::warn!(
            sink,
            %at,
            from = from.map(NextOffset::get),
            to = order.to.get(),
            again = order.again,
            "a partition is read again, as an operator has ordered"
        ),
        Notice::ReadOn { at, from } => {
            tracing::info!(sink, %at, from = from.get(), "a long stretch was settled before; its next part is read");
        }
        Notice::LetGo { at } => {
            tracing::warn!(sink, %at, "a partition was let go with something under way; the next owner may call for it again");
        }
    }
}

impl Driver {
    pub(super) fn report_state(&mut self) {
        let state = if self.paused {
            State::Paused
        } else if self.machine.is_held() || !self.stand_still.is_empty() {
            State::Held
        } else if self.machine.is_retrying() {
            State::Retrying
        } else {
            State::Running
        };
        if state != self.state {
            self.state = state;
            self.observer.state(&self.names.sink, state);
        }
    }

    pub(super) fn report(&mut self) {
        for lag in self.control.lag() {
            if let Some(records) = lag.records() {
                self.observer.lag(&self.names.sink, &lag.at, records);
            }
        }
        let depth = Depth {
            window: self.machine.deepest(),
            parked_keys: self.machine.parked_keys(),
            restoring: self.machine.restoring(),
        };
        self.observer.depth(&self.names.sink, depth);
        self.report_transactions();
    }

    pub(super) fn report_transactions(&mut self) {
        let Some(transactor) = &self.transactor else { return };
        let counts = transactor.counts();
        transactions(&*self.observer, &self.names.sink, &self.counts, &counts);
        self.counts = counts;
    }
}
