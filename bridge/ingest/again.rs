//! A request that was kept in quarantine, once more: what its events come to by today's rules and schemas. The same split,
//! map and encode as when it came; nothing is verified, for it was, and nothing is handed to Kafka here.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::dedupe::Token;
use super::fault::Fault;
use super::line::{Line, Source};
use super::map::{Mapped, Mapping};
use super::publish;
use crate::calendar::Rfc3339;
use crate::event::header;

/// Violations that a person is told of one event.
const MAX_WRONGS: usize = 20;

/// A request as it was kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// The request's own, by name.
    pub headers: &'a [(String, Vec<u8>)],
    pub body: &'a [u8],
    /// When its first byte was read, milliseconds since the epoch.
    pub received_ms: i64,
    /// The digest of what the source allows to come once only, where it has such a thing.
    pub replay_key: Option<&'a str>,
    /// Where it is kept: `quarantine.stripe/0@17`.
    pub place: &'a str,
}

/// An event that may be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    pub event_id: String,
    pub event_type: String,
    pub topic: String,
    pub key: Vec<u8>,
    /// In the Confluent wire format.
    pub value: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What is wrong, still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// A bounded name.
    pub reason: &'static str,
    /// `/total: is no decimal`, one for each violation.
    pub wrongs: Vec<String>,
}

/// What one event of the request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Ready(Vec<Ready>),
    /// No rule takes it, and the source ignores such.
    Ignored,
    Refused(Refused),
}

/// What the request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// It cannot be taken apart.
    Unreadable(Refused),
    /// It has `events` events; of those that were asked for, by index.
    Events { events: usize, outcomes: Vec<(usize, Outcome)> },
}

/// Whose events of a request are wanted, once it is known how many there are.
pub trait Wanted {
    fn of(&self, events: usize) -> BTreeSet<usize>;
}

impl<F: Fn(usize) -> BTreeSet<usize>> Wanted for F {
    fn of(&self, events: usize) -> BTreeSet<usize> {
        self(events)
    }
}

/// Takes a request apart once more.
#[must_use]
pub fn again(line: &Line, source: &Source, kept: &Kept<'_>, wanted: &impl Wanted) -> Again {
    let headers = http_headers(kept.headers);
    let work = Work { line, source, kept, headers: &headers };
    let Some(splitter) = &source.splitter else {
        let outcome = |index| (index, work.event(index, kept.body));
        return Again::Events {
            events: 1,
            outcomes: wanted.of(1).into_iter().filter(|index| *index == 0).map(outcome).collect(),
        };
    };
    let split = splitter.document(kept.body);
    let document = match &split {
        Ok(document) => document,
        Err(error) => return Again::Unreadable(refused(&Fault::of_split(error))),
    };
    let events: Vec<Cow<'_, str>> = match splitter.split(document) {
        Ok(events) => events,
        Err(error) => return Again::Unreadable(refused(&Fault::of_split(&error))),
    };
    let outcome = |index: usize| Some((index, work.event(index, events.get(index)?.as_bytes())));
    Again::Events { events: events.len(), outcomes: wanted.of(events.len()).into_iter().filter_map(outcome).collect() }
}

/// The headers as they came; what is no header of HTTP was none.
fn http_headers(headers: &[(String, Vec<u8>)]) -> HeaderMap {
    let parsed = headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    let mut map = HeaderMap::new();
    parsed.for_each(|(name, value)| _ = map.append(name, value));
    map
}

fn refused(fault: &Fault) -> Refused {
    let wrong = |wrong: &super::answer::Wrong| match wrong.pointer.as_str() {
        "" => wrong.message.clone(),
        pointer => format!("{pointer}: {}", wrong.message),
    };
    Refused { reason: fault.reason, wrongs: fault.wrongs.iter().take(MAX_WRONGS).map(wrong).collect() }
}

struct Work<'w> {
    line: &'w Line,
    source: &'w Source,
    kept: &'w Kept<'w>,
    headers: &'w HeaderMap,
}

impl Work<'_> {
    fn event(&self, index: usize, body: &[u8]) -> Outcome {
        let results = match self.source.map(self.headers, body) {
            Mapping::Events(results) => results,
            Mapping::Unmapped if self.source.ignores_unmapped() => return Outcome::Ignored,
            Mapping::Unmapped => return Outcome::Refused(refused(&Fault::unmapped())),
            Mapping::Failed(failure) => return Outcome::Refused(refused(&publish::unmade(self.source, failure))),
        };
        // The results of one event stay together: where one of them is at fault, the event is.
        let mut fault: Option<Fault> = None;
        let mut ready = Vec::with_capacity(results.len());
        for (nth, event) in results.iter().enumerate() {
            match self.encoded(index, nth, event) {
                Ok(one) => ready.push(one),
                Err(found) => {
                    fault = Some(match fault {
                        None => found,
                        Some(fault) => fault.and(found),
                    });
                }
            }
        }
        fault.map_or(Outcome::Ready(ready), |fault| Outcome::Refused(refused(&fault)))
    }

    /// `nth`: which of the event's results it is.
    fn encoded(&self, index: usize, nth: usize, event: &Mapped<'_>) -> Result<Ready, Fault> {
        let route = self.source.routes.get(&*event.event_type).ok_or_else(|| Fault::undefined(&event.event_type))?;
        let mut value = Vec::new();
        publish::encode(self.line, route, event, &mut value)?;
        let received = Rfc3339::from_ms(self.kept.received_ms);
        let trace = self.headers.get(header::TRACEPARENT).map(HeaderValue::as_bytes);
        let trace = self.line.traces.carry_on(trace);
        // The key is spent now. Among the events of a split request its place is not known, for those before it are not
        // mapped once more: such a key stays unspent, and the event's own id tells a repeat.
        let key = self.kept.replay_key.filter(|_| self.source.splitter.is_none());
        let key = key.map(|key| Token { source: &self.source.name, key, nth }.header());
        let all = publish::headers(&self.source.name, received.as_bytes(), route, event, &trace, key.as_deref());
        let headers = if key.is_some() { &all[..] } else { &all[..all.len() - 1] };
        let lineage = format!("{}#{index}", self.kept.place);
        let headers = headers.iter().copied().chain([(header::REPLAYED_FROM, lineage.as_bytes())]);
        Ok(Ready {
            event_id: event.id.clone(),
            event_type: event.event_type.to_string(),
            topic: route.topic.clone(),
            key: event.key.as_bytes().to_vec(),
            value,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        })
    }
}
