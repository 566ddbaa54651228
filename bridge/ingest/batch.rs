//! A request with several events. The good ones are published; what is no event goes to quarantine, as one record that
//! holds the whole request and says which of its events it is kept for.
//!
//! - All are handed to Kafka before any is awaited. A 2xx follows the confirmation of every event and of the quarantine
//!   record; otherwise the answer is 503, and what was handed over is counted all the same.
//! - Under `on_invalid: reject` it is all or nothing: every event is encoded before the first is handed over.
//! - The results of one event (`all: true`) stay together: where one of them is at fault, the event is.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::answer::{self, Problem, Receipt, Status, Violations, Wrong};
use super::fault::{Fault, Faults};
use super::handed::{Handed, InFlight};
use super::line::{Line, Route, Source};
use super::map::{Mapped, Mapping};
use super::publish::{self, Encoded, Origin, Unconfirmed};
use super::split::MAX_EVENTS;
use super::{Unverified, unconfirmed};

/// Events that are mapped and encoded before other requests of the thread have their turn: a millisecond, as most go.
const AT_ONCE: usize = 64;
/// Bytes of encoded events that wait for the rest of their request: as much as waits for Kafka by default.
const MAX_PREPARED: usize = 64 << 20;
/// Violations shown of one request.
const MAX_WRONGS: usize = 100;

/// A request that was split into `events`, each JSON.
pub(super) async fn take(
    line: &Line,
    source: &Source,
    request: &Unverified,
    events: &[Cow<'_, str>],
) -> Response<Full<Bytes>> {
    let mut batch = Batch::new(line, source, request, events.len(), true);
    for (index, event) in events.iter().enumerate() {
        if index > 0 && index % AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
        batch.add(index, source.map(&request.headers, event.as_bytes()));
        if !source.refuses_invalid()
            && let Err(error) = batch.hand_over()
        {
            return unconfirmed(line, source, None, &error);
        }
    }
    batch.finish().await
}

/// A request with one event that became several.
pub(super) async fn results(
    line: &Line,
    source: &Source,
    request: &Unverified,
    mapping: Mapping<'_>,
) -> Response<Full<Bytes>> {
    let mut batch = Batch::new(line, source, request, 1, false);
    batch.add(0, mapping);
    batch.finish().await
}

/// What an event of the request came to; an entry of the answer.
enum Entry<'r> {
    /// Encoded; `value` is its place in [`Batch::values`] until it is handed over.
    Event {
        event: Mapped<'r>,
        route: &'r Route,
        value: Range<usize>,
    },
    Ignored,
    /// Its place in [`Batch::faults`].
    Fault(usize),
}

struct Batch<'r> {
    line: &'r Line,
    source: &'r Source,
    request: &'r Unverified,
    origin: Origin<'r>,
    /// How many events the request has, and whether violations say which of them they are of.
    events: usize,
    numbered: bool,
    entries: Vec<Entry<'r>>,
    /// How many entries need no handing over any more.
    handed: usize,
    values: Vec<u8>,
    faults: Vec<(usize, Fault)>,
    /// Violations kept so far.
    wrongs: usize,
    in_flight: InFlight,
}

impl<'r> Batch<'r> {
    fn new(line: &'r Line, source: &'r Source, request: &'r Unverified, events: usize, numbered: bool) -> Self {
        Self {
            line,
            source,
            request,
            origin: request.into(),
            events,
            numbered,
            entries: Vec::with_capacity(events),
            handed: 0,
            values: Vec::new(),
            faults: Vec::new(),
            wrongs: 0,
            in_flight: InFlight::default(),
        }
    }

    /// Encodes what a mapping made of event `index`, or notes what is wrong with it.
    fn add(&mut self, index: usize, mapping: Mapping<'r>) {
        let results = match mapping {
            Mapping::Events(results) => results,
            Mapping::Unmapped if self.source.ignores_unmapped() => return self.entries.push(Entry::Ignored),
            Mapping::Unmapped => return self.fault(index, Fault::unmapped()),
            Mapping::Failed(failure) => return self.fault(index, publish::unmade(self.source, failure)),
        };
        let (entries, values) = (self.entries.len(), self.values.len());
        let mut fault: Option<Fault> = None;
        for event in results {
            match self.encode(&event) {
                // The JSON is not needed any more, and may be long.
                Ok((route, value)) => {
                    let event = Mapped { json: Cow::Borrowed(""), ..event };
                    self.entries.push(Entry::Event { event, route, value });
                }
                Err(found) => {
                    fault = Some(match fault {
                        None => found,
                        Some(fault) => fault.and(found),
                    });
                }
            }
        }
        if let Some(fault) = fault {
            self.entries.truncate(entries);
            self.values.truncate(values);
            self.fault(index, fault);
        }
    }

    fn encode(&mut self, event: &Mapped<'_>) -> Result<(&'r Route, Range<usize>), Fault> {
        let source = self.source;
        let route = source.routes.get(&*event.event_type).ok_or_else(|| Fault::undefined(&event.event_type))?;
        if self.entries.len() >= MAX_EVENTS {
            return Err(Fault::too_many_events());
        }
        let start = self.values.len();
        publish::encode(self.line, route, event, &mut self.values)?;
        let end = self.values.len();
        if end > MAX_PREPARED {
            self.values.truncate(start);
            return Err(Fault::too_large(end, MAX_PREPARED));
        }
        Ok((route, start..end))
    }

    fn fault(&mut self, index: usize, mut fault: Fault) {
        fault.of_event(self.numbered.then_some(index), MAX_WRONGS - self.wrongs);
        self.wrongs += fault.wrongs.len();
        self.entries.push(Entry::Fault(self.faults.len()));
        self.faults.push((index, fault));
    }

    /// Hands to Kafka what is encoded.
    fn hand_over(&mut self) -> Result<(), Unconfirmed> {
        for (nth, entry) in self.entries.iter().enumerate().skip(self.handed) {
            if let Entry::Event { event, route, value } = entry {
                let encoded = Encoded { nth, route, event, value: &self.values[value.clone()] };
                self.in_flight.push(publish::hand_over(self.line, self.source, &self.origin, encoded)?);
            }
        }
        self.handed = self.entries.len();
        self.values.clear();
        Ok(())
    }

    /// The event at `place` among those that were handed over, whose record by another request has failed.
    fn hand_over_again(&self, place: usize, value: &[u8]) -> Result<Handed, Unconfirmed> {
        let mut events = self.entries.iter().enumerate().filter_map(|(nth, entry)| match entry {
            Entry::Event { event, route, .. } => Some(Encoded { nth, route, event, value }),
            Entry::Ignored | Entry::Fault(_) => None,
        });
        let encoded = events.nth(place).ok_or(Unconfirmed::Deadline)?;
        publish::hand_over(self.line, self.source, &self.origin, encoded)
    }

    async fn finish(mut self) -> Response<Full<Bytes>> {
        let is_refused = self.source.refuses_invalid() && self.faults.iter().any(|(_, fault)| !fault.is_unmapped());
        if is_refused {
            return self.refused();
        }
        match self.publish().await {
            Ok(response) => response,
            Err(error) => unconfirmed(self.line, self.source, None, &error),
        }
    }

    /// Nothing was handed over: every violation, so that the sender mends them all at once.
    fn refused(self) -> Response<Full<Bytes>> {
        let (status, title) = if self.faults.iter().any(|(_, fault)| fault.is_unreadable()) {
            (StatusCode::BAD_REQUEST, "the request cannot be read")
        } else {
            (StatusCode::UNPROCESSABLE_ENTITY, "events of the request do not fit their schemas; none was taken")
        };
        let invalid = self.faults.into_iter().map(|(_, fault)| fault).filter(|fault| !fault.is_unmapped());
        let (mut wrongs, mut total): (Vec<Wrong>, usize) = (Vec::new(), 0);
        for fault in invalid {
            total += fault.total;
            wrongs.extend(fault.wrongs);
        }
        let violations = Some(Violations { violations: &wrongs, violations_total: total });
        answer::problem(&Problem { violations, ..Problem::new(status, title) })
    }

    /// Hands over what is left, and waits for all of it.
    async fn publish(&mut self) -> Result<Response<Full<Bytes>>, Unconfirmed> {
        self.hand_over()?;
        let faults = Faults { list: &self.faults, events: Some(self.events) };
        let quarantined = if self.faults.is_empty() {
            None
        } else {
            Some(publish::quarantine(self.line, self.source, &self.origin, &faults)?)
        };
        let deadline = self.request.deadline;
        let in_flight = std::mem::take(&mut self.in_flight);
        let again = |place, value: &_| self.hand_over_again(place, value);
        let confirmed = in_flight.confirmed(&self.line.memory, deadline, again).await?;
        let mut confirmed = confirmed.iter();
        let kept = match quarantined {
            None => None,
            Some(sent) => Some(sent.confirmed(deadline).await?),
        };
        // An entry without its position would be a promise without its proof: there is none, and it is left out.
        let receipt = |entry| {
            Some(match entry {
                &Entry::Event { ref event, route, .. } => self.source.receipt(confirmed.next()?, event, route),
                Entry::Ignored => {
                    self.source.metrics.ignored();
                    Receipt::new(Status::Ignored)
                }
                Entry::Fault(place) => {
                    let (_, fault) = self.faults.get(*place)?;
                    Receipt::quarantined(self.source, fault, kept?)
                }
            })
        };
        let receipts: Vec<Receipt<'_>> = self.entries.iter().filter_map(receipt).collect();
        Ok(answer::receipts(&receipts))
    }
}
