//! Where the stages' observations become metrics.

use std::sync::Arc;

use crate::clock;
use crate::console::Scrape;
use crate::deliver::{Alike, Depth, Observer, State};
use crate::ingest::body::Room;
use crate::ingest::dedupe::Memory;
use crate::kafka::{Publisher, TopicPartition};
use crate::metrics::Metrics;

/// Counts for the metrics, and tells whoever else wants to know.
struct Counting {
    metrics: Metrics,
    also: Option<Arc<dyn Observer>>,
}

/// What delivery reports to.
#[must_use]
pub fn observer(metrics: &Metrics, also: Option<Arc<dyn Observer>>) -> Arc<dyn Observer> {
    Arc::new(Counting { metrics: metrics.clone(), also })
}

impl Observer for Counting {
    fn attempt(&self, sink: &str, class: &'static str) {
        self.attempts(sink, class, 1);
    }

    fn attempts(&self, sink: &str, class: &'static str, more: u64) {
        self.metrics.attempts.with_label_values(&[sink, class]).inc_by(more);
        if let Some(also) = &self.also {
            also.attempts(sink, class, more);
        }
    }

    fn batch(&self, sink: &str, events: usize) {
        #[allow(clippy::cast_precision_loss, reason = "a batch has some thousands of events at most")]
        self.metrics.batch_events.with_label_values(&[sink]).observe(events as f64);
        if let Some(also) = &self.also {
            also.batch(sink, events);
        }
    }

    fn settled(&self, sink: &str, outcome: &'static str, reason: &'static str, event_to_action: Option<f64>) {
        self.settled_alike(sink, Alike { outcome, reason, records: 1 }, event_to_action.as_slice());
    }

    fn settled_alike(&self, sink: &str, alike: Alike, events_to_actions: &[f64]) {
        let Alike { outcome, reason, records } = alike;
        self.metrics.settlements.with_label_values(&[sink, outcome, reason]).inc_by(records);
        if reason == "no_consent" {
            self.metrics.consent_suppressions.with_label_values(&[sink]).inc_by(records);
        }
        if !events_to_actions.is_empty() {
            let histogram = self.metrics.event_to_action.with_label_values(&[sink]);
            for seconds in events_to_actions {
                histogram.observe(*seconds);
            }
        }
        if let Some(also) = &self.also {
            also.settled_alike(sink, alike, events_to_actions);
        }
    }

    fn lag(&self, sink: &str, at: &TopicPartition, records: u64) {
        let partition = at.partition.to_string();
        let gauge = self.metrics.consumer_lag.with_label_values(&[sink, &*at.topic, partition.as_str()]);
        gauge.set(i64::try_from(records).unwrap_or(i64::MAX));
        if let Some(also) = &self.also {
            also.lag(sink, at, records);
        }
    }

    fn depth(&self, sink: &str, depth: Depth) {
        let Depth { window, parked_keys, restoring } = depth;
        let gauges = [
            (&self.metrics.window_depth, window),
            (&self.metrics.parked_keys, parked_keys),
            (&self.metrics.restoring, restoring),
        ];
        for (gauge, value) in gauges {
            gauge.with_label_values(&[sink]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        if let Some(also) = &self.also {
            also.depth(sink, depth);
        }
    }

    fn transactions(&self, sink: &str, result: &'static str, reason: &'static str, more: u64) {
        self.metrics.transactions.with_label_values(&[sink, result, reason]).inc_by(more);
        if let Some(also) = &self.also {
            also.transactions(sink, result, reason, more);
        }
    }

    fn state(&self, sink: &str, state: State) {
        for known in State::ALL {
            self.metrics.sink_state.with_label_values(&[sink, known.name()]).set(i64::from(known == state));
        }
        if let Some(also) = &self.also {
            also.state(sink, state);
        }
    }
}

/// Gauges that are read when somebody asks.
#[derive(Debug)]
pub struct Gauges {
    publisher: Publisher,
    room: Arc<Room>,
    memory: Arc<Memory>,
}

impl Gauges {
    #[must_use]
    pub fn new(publisher: Publisher, room: Arc<Room>, memory: Arc<Memory>) -> Self {
        Self { publisher, room, memory }
    }
}

impl Scrape for Gauges {
    fn update(&self, metrics: &Metrics) {
        let health = self.publisher.health();
        metrics.in_flight_bytes.set(i64::try_from(health.in_flight_bytes).unwrap_or(i64::MAX));
        metrics.buffered_bytes.set(i64::try_from(self.room.held()).unwrap_or(i64::MAX));
        metrics.in_flight_records.set(i64::try_from(health.in_flight_records).unwrap_or(i64::MAX));
        metrics.producer_restarts.set(i64::try_from(health.restarts).unwrap_or(i64::MAX));
        let reach = self.memory.reach();
        metrics.dedupe_entries.set(i64::try_from(reach.entries).unwrap_or(i64::MAX));
        let seconds = reach.since.map_or(0, |since| clock::now_ms() / 1_000 - i64::from(since));
        metrics.dedupe_reach.set(seconds.max(0));
    }
}
