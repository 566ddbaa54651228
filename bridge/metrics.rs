//! Every metric, with its help text: the only place that names the prometheus library.
//!
//! Families that others rely on are named in the design's section 9. Labels are bounded: sources, event types and
//! sinks come from the configuration, everything else from enums.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter as FloatCounter, CounterVec, Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Buckets from 1 ms, where a broker on the same host answers, to 10 s, past every deadline.
const ACK_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets from a tenth of a second to a day: an action may wait out a vendor's outage.
const ACTION_BUCKETS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0];

/// The families. Cheap to clone: each is a handle.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    pub requests: IntCounterVec,
    pub accepted: IntCounterVec,
    pub quarantined: IntCounterVec,
    pub ignored: IntCounterVec,
    pub deduplicated: IntCounterVec,
    pub dedupe_uncertain: IntCounter,
    pub dedupe_entries: IntGauge,
    pub dedupe_reach: IntGauge,
    pub rejected_signatures: IntCounterVec,
    pub secret_use: IntCounterVec,
    pub unknown_fields: IntCounterVec,
    pub mapping_seconds: CounterVec,
    pub mappings: IntCounterVec,
    pub ack_seconds: HistogramVec,
    pub publish_failures: IntCounterVec,
    pub in_flight_bytes: IntGauge,
    pub in_flight_records: IntGauge,
    pub producer_restarts: IntGauge,
    pub connections: IntGauge,
    pub buffered_bytes: IntGauge,
    pub connections_cut: IntCounterVec,
    pub requests_turned_away: IntCounter,
    pub attempts: IntCounterVec,
    pub settlements: IntCounterVec,
    pub consent_suppressions: IntCounterVec,
    pub event_to_action: HistogramVec,
    pub batch_events: HistogramVec,
    pub consumer_lag: IntGaugeVec,
    pub sink_state: IntGaugeVec,
    pub window_depth: IntGaugeVec,
    pub parked_keys: IntGaugeVec,
    pub restoring: IntGaugeVec,
    pub transactions: IntCounterVec,
    pub sink_restarts: IntCounterVec,
    pub config_reloads: IntCounterVec,
    pub config_loaded_at: IntGauge,
    pub config_digest: IntGauge,
}

impl Metrics {
    /// Registers every family.
    ///
    /// # Errors
    /// Only if two families had one name.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new_custom(Some("hookbridge".to_owned()), None)?;
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, Error> {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, Error> {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let histograms = |name: &str, help: &str, buckets: &[f64], label: &str| -> Result<HistogramVec, Error> {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, HistogramVec::new(opts, &[label])?)
        };
        let gauge =
            |name: &str, help: &str| -> Result<IntGauge, Error> { register(&registry, IntGauge::new(name, help)?) };
        Ok(Self {
            requests: counters("requests_total", "Requests answered, by status code.", &["source", "code"])?,
            accepted: counters(
                "events_accepted_total",
                "Events confirmed by Kafka on their topic.",
                &["source", "event_type"],
            )?,
            quarantined: counters(
                "events_quarantined_total",
                "Authentic requests confirmed by Kafka in quarantine, by reason.",
                &["source", "reason"],
            )?,
            ignored: counters("events_ignored_total", "Authentic requests that no rule takes.", &["source"])?,
            deduplicated: counters(
                "events_deduplicated_total",
                "Repeated events, answered with the place of the first and not written again.",
                &["source"],
            )?,
            dedupe_uncertain: register(
                &registry,
                IntCounter::new(
                    "dedupe_uncertain_total",
                    "Events that were forgotten although their record may be in its topic: a repeat may double them.",
                )?,
            )?,
            dedupe_entries: gauge("dedupe_entries", "Events and replay keys that are remembered as acknowledged.")?,
            dedupe_reach: gauge(
                "dedupe_reach_seconds",
                "How far back deduplication remembers: a repeat of anything younger is recognised.",
            )?,
            rejected_signatures: counters(
                "signatures_rejected_total",
                "Requests that could not be authenticated, by what was wrong.",
                &["source", "reason"],
            )?,
            secret_use: counters(
                "secret_use_total",
                "Requests authenticated by each secret, by its place in the list: an old one at zero can go.",
                &["source", "secret"],
            )?,
            unknown_fields: counters(
                "unknown_fields_total",
                "Events with fields that their schema does not have, under `unknown_fields: warn`.",
                &["source", "event_type"],
            )?,
            mapping_seconds: register(
                &registry,
                CounterVec::new(
                    Opts::new("mapping_seconds_total", "Time that a thread spent on mapping authentic events."),
                    &["source"],
                )?,
            )?,
            mappings: counters("mappings_total", "Events that mapping_seconds_total is about.", &["source"])?,
            ack_seconds: histograms(
                "ack_seconds",
                "From the first byte of a request to our answer.",
                ACK_BUCKETS,
                "source",
            )?,
            publish_failures: counters(
                "publish_failures_total",
                "Records that Kafka did not confirm, by what is known of them.",
                &["reason"],
            )?,
            in_flight_bytes: gauge("in_flight_bytes", "Bytes handed to Kafka and not yet confirmed.")?,
            in_flight_records: gauge("in_flight_records", "Records handed to Kafka and not yet confirmed.")?,
            producer_restarts: gauge("producer_restarts", "Producers replaced after a fatal error.")?,
            connections: gauge("connections", "Connections of senders that are open.")?,
            buffered_bytes: gauge("buffered_bytes", "Bytes of requests' bodies in memory, beyond the small ones.")?,
            connections_cut: counters(
                "connections_cut_total",
                "Connections of senders that were ended in no good order, by reason.",
                &["reason"],
            )?,
            requests_turned_away: register(
                &registry,
                IntCounter::new(
                    "requests_turned_away_total",
                    "Requests answered 503 unread, since too many were under way.",
                )?,
            )?,
            attempts: counters("attempts_total", "Attempts of sinks, by outcome class.", &["sink", "class"])?,
            settlements: counters("settlements_total", "Records settled by sinks.", &["sink", "outcome", "reason"])?,
            consent_suppressions: counters(
                "consent_suppressions_total",
                "Records that a sink skipped for want of consent to its purpose.",
                &["sink"],
            )?,
            batch_events: histograms(
                "batch_events",
                "Events in a call of a sink that sends them together.",
                &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0],
                "sink",
            )?,
            event_to_action: histograms(
                "event_to_action_seconds",
                "From the receipt of an event to its settlement by a sink.",
                ACTION_BUCKETS,
                "sink",
            )?,
            consumer_lag: gauges(
                "consumer_lag",
                "Records that a sink has not settled yet.",
                &["sink", "topic", "partition"],
            )?,
            sink_state: gauges(
                "sink_state",
                "1 for the state that a sink is in, by the partition that fares worst.",
                &["sink", "state"],
            )?,
            window_depth: gauges("window_depth", "Records in the fullest window of a sink's partitions.", &["sink"])?,
            parked_keys: gauges(
                "parked_keys",
                "Keys whose events wait outside the window, since the first of them fails.",
                &["sink"],
            )?,
            restoring: gauges(
                "restoring",
                "Partitions whose receipts a sink has yet to read before it sends anything.",
                &["sink"],
            )?,
            transactions: counters(
                "transactions_total",
                "Transactions of sinks that are committed, aborted or unknown, and producers that were replaced, by reason.",
                &["sink", "result", "reason"],
            )?,
            sink_restarts: counters(
                "sink_restarts_total",
                "Workers of sinks that ended by themselves and were started anew.",
                &["sink"],
            )?,
            config_reloads: counters(
                "config_reloads_total",
                "Reloads of the configuration, by what became of them.",
                &["result"],
            )?,
            config_loaded_at: gauge(
                "config_last_success_timestamp_seconds",
                "When the configuration in force was loaded, since the Unix epoch.",
            )?,
            config_digest: gauge(
                "config_digest",
                "Of the text of the configuration in force: two processes with the same number read the same file.",
            )?,
            registry,
        })
    }

    /// Drops every series of a source that is no more: a name that comes back counts from nothing.
    pub fn forget_source(&self, source: &str) {
        for family in [
            &self.requests,
            &self.accepted,
            &self.quarantined,
            &self.ignored,
            &self.rejected_signatures,
            &self.secret_use,
            &self.unknown_fields,
            &self.deduplicated,
            &self.mappings,
        ] {
            forget(family, "source", source);
        }
        forget(&self.mapping_seconds, "source", source);
        forget(&self.ack_seconds, "source", source);
    }

    /// Drops every series of a sink that is no more: its lag would be shown for ever.
    pub fn forget_sink(&self, sink: &str) {
        for family in
            [&self.attempts, &self.settlements, &self.consent_suppressions, &self.sink_restarts, &self.transactions]
        {
            forget(family, "sink", sink);
        }
        for family in [&self.consumer_lag, &self.sink_state, &self.window_depth, &self.parked_keys, &self.restoring] {
            forget(family, "sink", sink);
        }
        forget(&self.event_to_action, "sink", sink);
        forget(&self.batch_events, "sink", sink);
    }

    /// The text exposition format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics could not be rendered");
        }
        text
    }
}

/// Drops the series of a family in which `label` is `value`.
fn forget<B: MetricVecBuilder>(family: &MetricVec<B>, label: &str, value: &str) {
    for series in family.collect().iter().flat_map(MetricFamily::get_metric) {
        let labels: HashMap<&str, &str> = series.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        if labels.get(label) == Some(&value) {
            // Somebody else may have dropped it in the meantime.
            let _ = family.remove(&labels);
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> Result<C, Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

/// A family could not be registered.
#[derive(Debug, thiserror::Error)]
#[error("a metric could not be registered")]
pub struct Error(#[from] prometheus::Error);

/// The counters of one source, looked up once: the hot path does no label look-up.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    source: String,
    families: Metrics,
    ok: IntCounter,
    ack: Histogram,
    mapping_seconds: FloatCounter,
    mappings: IntCounter,
}

impl SourceMetrics {
    #[must_use]
    pub fn new(families: &Metrics, source: &str) -> Self {
        Self {
            source: source.to_owned(),
            ok: families.requests.with_label_values(&[source, "200"]),
            ack: families.ack_seconds.with_label_values(&[source]),
            mapping_seconds: families.mapping_seconds.with_label_values(&[source]),
            mappings: families.mappings.with_label_values(&[source]),
            families: families.clone(),
        }
    }

    /// A request was answered.
    pub fn answered(&self, code: u16, seconds: f64) {
        if code == 200 {
            self.ok.inc();
        } else {
            self.families.requests.with_label_values(&[self.source.as_str(), &code.to_string()]).inc();
        }
        self.ack.observe(seconds);
    }

    /// An event was mapped, whatever came of it.
    pub fn mapped(&self, seconds: f64) {
        self.mapping_seconds.inc_by(seconds);
        self.mappings.inc();
    }

    /// The counter of accepted events of one type.
    #[must_use]
    pub fn accepted(&self, event_type: &str) -> Counter {
        Counter(self.families.accepted.with_label_values(&[self.source.as_str(), event_type]))
    }

    #[must_use]
    pub fn secret_use(&self, index: usize) -> Counter {
        Counter(self.families.secret_use.with_label_values(&[self.source.as_str(), &index.to_string()]))
    }

    #[must_use]
    pub fn unknown_fields(&self, event_type: &str) -> Counter {
        Counter(self.families.unknown_fields.with_label_values(&[self.source.as_str(), event_type]))
    }

    /// The counter of requests quarantined for one reason.
    #[must_use]
    pub fn quarantined(&self, reason: &str) -> Counter {
        Counter(self.families.quarantined.with_label_values(&[self.source.as_str(), reason]))
    }

    /// The counter of events that were there already.
    #[must_use]
    pub fn deduplicated(&self) -> Counter {
        Counter(self.families.deduplicated.with_label_values(&[self.source.as_str()]))
    }

    pub fn ignored(&self) {
        self.families.ignored.with_label_values(&[self.source.as_str()]).inc();
    }

    pub fn signature_rejected(&self, reason: &str) {
        self.families.rejected_signatures.with_label_values(&[self.source.as_str(), reason]).inc();
    }
}

impl From<IntCounter> for Counter {
    fn from(counter: IntCounter) -> Self {
        Self(counter)
    }
}

/// What the server of webhooks counts.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    open: IntGauge,
    cut: IntCounterVec,
    turned_away: IntCounter,
}

impl ServerMetrics {
    #[must_use]
    pub fn new(families: &Metrics) -> Self {
        Self {
            open: families.connections.clone(),
            cut: families.connections_cut.clone(),
            turned_away: families.requests_turned_away.clone(),
        }
    }

    /// A connection is open until the answer is dropped.
    #[must_use]
    pub fn opened(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }

    /// A request found no room, and was not read.
    pub fn turned_away(&self) {
        self.turned_away.inc();
    }

    /// A connection was ended for that reason.
    pub fn cut(&self, reason: &str) {
        self.cut.with_label_values(&[reason]).inc();
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A counter that was looked up already.
#[derive(Clone, Debug)]
pub struct Counter(IntCounter);

impl Counter {
    pub fn inc(&self) {
        self.0.inc();
    }

    pub fn inc_by(&self, count: u64) {
        self.0.inc_by(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_more_has_no_series_left_and_its_neighbours_keep_theirs() {
        let metrics = Metrics::new().unwrap();
        for name in ["old", "new"] {
            let source = SourceMetrics::new(&metrics, name);
            source.answered(503, 0.01);
            source.accepted("order").inc();
            metrics.attempts.with_label_values(&[name, "delivered"]).inc();
            metrics.event_to_action.with_label_values(&[name]).observe(0.2);
            for partition in ["0", "1"] {
                metrics.consumer_lag.with_label_values(&[name, "events.order", partition]).set(3);
            }
        }
        let series = |name: &str| {
            let text = String::from_utf8(metrics.render()).unwrap();
            text.lines().filter(|line| line.contains(&format!("\"{name}\""))).count()
        };
        let before = series("new");
        assert_eq!(series("old"), before);
        metrics.forget_source("old");
        metrics.forget_sink("old");
        assert_eq!((series("old"), series("new")), (0, before));
    }

    #[test]
    fn the_names_that_others_rely_on_are_there_with_help() {
        let metrics = Metrics::new().unwrap();
        let source = SourceMetrics::new(&metrics, "stripe");
        source.answered(200, 0.01);
        source.answered(503, 0.01);
        source.mapped(0.25);
        source.accepted("purchase_completed").inc();
        source.quarantined("invalid").inc();
        source.deduplicated().inc();
        metrics.attempts.with_label_values(&["warehouse", "delivered"]).inc();
        metrics.settlements.with_label_values(&["warehouse", "delivered", ""]).inc();
        metrics.event_to_action.with_label_values(&["warehouse"]).observe(0.2);
        metrics.consumer_lag.with_label_values(&["warehouse", "events.a", "0"]).set(3);
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            r#"hookbridge_requests_total{code="503",source="stripe"} 1"#,
            r#"hookbridge_events_accepted_total{event_type="purchase_completed",source="stripe"} 1"#,
            r#"hookbridge_events_quarantined_total{reason="invalid",source="stripe"} 1"#,
            r#"hookbridge_events_deduplicated_total{source="stripe"} 1"#,
            r#"hookbridge_ack_seconds_count{source="stripe"} 2"#,
            r#"hookbridge_mapping_seconds_total{source="stripe"} 0.25"#,
            r#"hookbridge_mappings_total{source="stripe"} 1"#,
            r#"hookbridge_attempts_total{class="delivered",sink="warehouse"} 1"#,
            r#"hookbridge_settlements_total{outcome="delivered",reason="",sink="warehouse"} 1"#,
            r#"hookbridge_event_to_action_seconds_count{sink="warehouse"} 1"#,
            r#"hookbridge_consumer_lag{partition="0",sink="warehouse",topic="events.a"} 3"#,
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        for line in text.lines().filter(|line| line.starts_with("# HELP")) {
            assert!(line.split_whitespace().count() > 4, "no help text: {line}");
        }
    }
}
