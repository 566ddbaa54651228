//! The line that requests are put on: each source with what it needs, compiled once, shared by all connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::config::{OnInvalid, OnUnmapped};
use crate::ingest::answer::{self, Receipt};
use crate::ingest::dedupe::{DestinationId, Memory};
use crate::ingest::handed::Confirmed;
use crate::ingest::handshake::Handshakes;
use crate::ingest::map::{Mapped, Mapper, Mapping};
use crate::ingest::split::Splitter;
use crate::ingest::trace::Traces;
use crate::ingest::verify::Verifier;
use crate::kafka::Publisher;
use crate::metrics::{Counter, Metrics, SourceMetrics};
use crate::schema::plan::Plan;

/// Everything between a verified request and its answer.
#[derive(Debug)]
pub struct Line {
    pub sources: HashMap<String, Arc<Source>>,
    /// It tells `memory` of the report on every event.
    pub publisher: Publisher,
    pub memory: Arc<Memory>,
    /// As Avro: what a record may hold, with room for its headers.
    pub max_event_bytes: usize,
    pub traces: Traces,
    pub metrics: Metrics,
}

/// A source, compiled.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub verifier: Verifier,
    pub handshakes: Handshakes,
    /// Where one request may carry several events.
    pub splitter: Option<Splitter>,
    pub mapper: Mapper,
    /// By event type: only those that this source may send.
    pub routes: HashMap<String, Route>,
    pub deadline: Duration,
    pub on_unmapped: OnUnmapped,
    pub on_invalid: OnInvalid,
    pub quarantine_topic: String,
    pub metrics: SourceMetrics,
    pub deduplicated: Counter,
    pub secret_uses: Vec<Counter>,
}

impl Source {
    pub(super) fn secret_used(&self, index: usize) {
        if let Some(counter) = self.secret_uses.get(index) {
            counter.inc();
        }
    }

    /// Maps one event of a request, and counts what that costs. Nothing is waited for in it, so that the time is the
    /// thread's own, less what the machine took it away for.
    pub(super) fn map<'a>(&self, headers: &HeaderMap, body: &'a [u8]) -> Mapping<'a> {
        let start = Instant::now();
        let mapping = self.mapper.map(headers, body);
        self.metrics.mapped(start.elapsed().as_secs_f64());
        mapping
    }

    /// What is told of an event; one that was there already is counted.
    pub(super) fn receipt<'a>(&self, confirmed: &'a Confirmed, event: &'a Mapped<'_>, route: &'a Route) -> Receipt<'a> {
        if matches!(confirmed, Confirmed::Duplicate(_)) {
            self.deduplicated.inc_by(1);
        }
        confirmed.receipt(event, route)
    }

    pub(super) fn ignores_unmapped(&self) -> bool {
        self.on_unmapped == OnUnmapped::Ignore
    }

    pub(super) fn refuses_invalid(&self) -> bool {
        self.on_invalid == OnInvalid::Reject
    }
}

/// Where events of one type go, and as what.
#[derive(Debug)]
pub struct Route {
    pub topic: String,
    pub subject: String,
    pub version: u32,
    pub id: u32,
    pub plan: Arc<Plan>,
    /// The schema's address in the registry, for `ce_dataschema`.
    pub data_schema: String,
    /// The number that the memory has for it.
    pub destination: DestinationId,
    pub accepted: Counter,
    pub unknown_fields: Counter,
}

impl Route {
    pub(super) fn schema(&self) -> answer::Schema<'_> {
        answer::Schema { subject: &self.subject, version: Some(self.version), id: self.id }
    }
}
