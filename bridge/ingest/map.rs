//! One request's event becomes mapped events: which type, which id, which key, and the JSON that the schema is asked
//! about. Pure; compiled once for a source.
//!
//! - The first rule whose `when` is true wins; under `all: true` every such rule gives its events.
//! - A `when` that fails is a failure, not a no: an event that a broken rule should have taken must not be ignored.
//! - A `map` gives an event for each result; none (`empty`) means that the request is no event for this rule.
//! - Where a request may give several events, `#<event type>.<ordinal>` is appended to the id: always under `all: true`,
//!   else from the second on.
//! - An event's `id` and `key` are asked of the mapped event. Without an `id:` it is the source's own, without a `key:`
//!   it is the event id. Null for either is a failure.

mod failure;
mod probe;
#[cfg(test)]
mod tests;
mod time;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;

use crate::catalog::SourceScheme;
use crate::config::{self, EventRules};
use crate::expr::{self, Found, Json, Problem};
pub use failure::{Failure, Reason};
use probe::Probe;
pub(in crate::ingest) use time::rfc3339;

/// Bytes of an event id: it stands in a header of every record and in the memory of the deduplication. Providers' own
/// have at most a few hundred.
pub const MAX_ID: usize = 1024;
/// Bytes of a key: it is sent with every record.
pub const MAX_KEY: usize = 1024;

/// Steps for each byte of the event: twice what one expression gets, since there may be some that read all of it.
const STEPS_PER_BYTE: u64 = 4;

/// A source's rules, compiled.
#[derive(Debug)]
pub struct Mapper {
    /// What is asked of the request: the source's ids and times, and what its rules ask, or type and data where they
    /// stand in the body. One pass finds what all of them read.
    request: Probe,
    ids: Vec<usize>,
    times: Vec<usize>,
    rules: Rules,
    events: Vec<Event>,
    /// Steps of all expressions for one event, besides [`STEPS_PER_BYTE`].
    max_steps: u64,
}

#[derive(Debug)]
enum Rules {
    /// Places of the event type's and the data's answers.
    Direct {
        event_type: usize,
        payload: Option<usize>,
    },
    Listed {
        rules: Vec<Rule>,
        all: bool,
    },
}

/// Places of what a rule asks of the request.
#[derive(Debug)]
struct Rule {
    when: Option<usize>,
    map: Option<usize>,
    /// Its place in [`Mapper::events`].
    event: usize,
}

/// What is asked of a mapped event.
#[derive(Debug)]
struct Event {
    name: Arc<str>,
    probe: Probe,
    id: Option<usize>,
    key: Option<usize>,
}

/// What is wrong with a source's or an event's configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that cannot be compiled; `at` is the very place in the file, as far as YAML keeps its lines.
    #[error("{}: {message}", .at.path)]
    Program { at: config::Location, message: String },
    #[error("{}: there is no event `{event}` under `events:`", .at.path)]
    UnknownEvent { at: config::Location, event: String },
}

impl Error {
    /// Where it was written.
    pub fn at(&self) -> &config::Location {
        match self {
            Self::Program { at, .. } | Self::UnknownEvent { at, .. } => at,
        }
    }
}

/// What a request's event came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Mapping<'a> {
    /// At least one.
    Events(Vec<Mapped<'a>>),
    /// No rule took it, or the one that did made nothing of it.
    Unmapped,
    Failed(Failure),
}

/// An event that its schema may now be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped<'a> {
    pub event_type: Arc<str>,
    /// Unique within the source: the event id, at most [`MAX_ID`] bytes, and `#<event type>.<ordinal>` where the
    /// request may give several events.
    pub id: String,
    /// Bytes of `id` without what was appended.
    pub(super) bare: usize,
    /// Which of the events of this type that the request gives, from 1.
    pub ordinal: usize,
    pub key: String,
    /// RFC 3339: when it happened, as the source says.
    pub time: Option<String>,
    /// The event as JSON; a slice of the request's body where nothing had to be built.
    pub json: Cow<'a, str>,
}

impl Mapped<'_> {
    /// The event id as the source, or the event's own `id:`, says it. With source, event type and ordinal it says which
    /// event this is.
    pub fn bare_id(&self) -> &str {
        &self.id[..self.bare]
    }
}

impl Mapper {
    /// Compiles a source's expressions and those of the events that it may make; every problem otherwise.
    pub fn compile(source: &config::Source, events: &BTreeMap<String, config::EventDef>) -> Result<Self, Vec<Error>> {
        let mapper = Self::of(&source.at, &source.scheme, &source.events, events)?;
        Ok(Self { max_steps: source.max_steps, ..mapper })
    }

    fn of(
        at: &config::Location,
        scheme: &SourceScheme,
        rules: &EventRules,
        events: &BTreeMap<String, config::EventDef>,
    ) -> Result<Self, Vec<Error>> {
        let mut errors = Vec::new();
        let mut request = Probe::default();
        let mut ask = |texts: &[String], field: &str, errors: &mut Vec<Error>| -> Vec<usize> {
            let mut at = at.clone();
            at.path = format!("{}.{field}", at.path);
            texts.iter().filter_map(|text| note(&at, request.add(text), errors)).collect()
        };
        let ids = ask(&scheme.event_id, "event_id", &mut errors);
        let times = ask(&scheme.event_time, "event_time", &mut errors);

        let (rules, wanted): (_, Vec<&str>) = match rules {
            EventRules::Direct { event_type, payload } => {
                let mut add = |expr: &config::Expr| note(&expr.at, request.add(&expr.text), &mut errors);
                let event_type = add(event_type).unwrap_or_default();
                let payload = payload.as_ref().and_then(add);
                (Rules::Direct { event_type, payload }, events.keys().map(String::as_str).collect())
            }
            EventRules::Rules { rules, all } => {
                let mut wanted = Vec::new();
                let listed = rules.iter().map(|rule| {
                    if !events.contains_key(&rule.event) {
                        errors.push(Error::UnknownEvent { at: rule.at.clone(), event: rule.event.clone() });
                    }
                    let event = wanted.iter().position(|name| *name == rule.event).unwrap_or(wanted.len());
                    if event == wanted.len() {
                        wanted.push(rule.event.as_str());
                    }
                    let mut program = |expr: &Option<config::Expr>| {
                        expr.as_ref().and_then(|expr| note(&expr.at, request.add_program(&expr.text), &mut errors))
                    };
                    Rule { when: program(&rule.when), map: program(&rule.map), event }
                });
                (Rules::Listed { rules: listed.collect(), all: *all }, wanted)
            }
        };

        let events = wanted.iter().filter_map(|name| events.get_key_value(*name));
        let events = events.map(|(name, def)| Event::compile(name, def, &mut errors)).collect();
        if errors.is_empty() {
            Ok(Self { request, ids, times, rules, events, max_steps: u64::MAX })
        } else {
            Err(errors)
        }
    }

    /// Maps one event of a request: its headers, and its body or one part of a split batch.
    pub fn map<'a>(&self, headers: &HeaderMap, body: &'a [u8]) -> Mapping<'a> {
        let steps = self.max_steps.saturating_add(STEPS_PER_BYTE * body.len() as u64);
        expr::together(steps, || self.mapped(headers, body)).unwrap_or_else(Mapping::Failed)
    }

    fn mapped<'a>(&self, headers: &HeaderMap, body: &'a [u8]) -> Result<Mapping<'a>, Failure> {
        let unreadable = |reason| Failure::expression("the request's body", &expr::Error::NotJson(reason));
        let body = Json::new(body).map_err(unreadable)?;
        let found = self.request.look(&body).map_err(|error| Failure::expression("the request's body", &error))?;
        let request = Request { mapper: self, headers, body: &body, found };
        let made = match &self.rules {
            Rules::Direct { event_type, payload } => vec![request.direct(*event_type, *payload)?],
            Rules::Listed { rules, all } => request.listed(rules, *all)?,
        };
        if made.is_empty() { Ok(Mapping::Unmapped) } else { Ok(Mapping::Events(made)) }
    }
}

/// What `result` holds, or its problems into `errors`.
fn note<T>(at: &config::Location, result: Result<T, Vec<Problem>>, errors: &mut Vec<Error>) -> Option<T> {
    result
        .map_err(|problems| {
            let error = |problem: Problem| {
                // A block's lines are all indented alike.
                let at = config::Location {
                    line: at.line + problem.line.saturating_sub(1),
                    column: at.column + problem.column.saturating_sub(1),
                    path: at.path.clone(),
                };
                Error::Program { at, message: problem.message }
            };
            errors.extend(problems.into_iter().map(error));
        })
        .ok()
}

impl Event {
    /// The failure, of this event.
    fn failed(&self, failure: Failure) -> Failure {
        let event_type = failure.event_type.or_else(|| Some(self.name.to_string()));
        Failure { event_type, ..failure }
    }

    fn compile(name: &str, def: &config::EventDef, errors: &mut Vec<Error>) -> Self {
        let mut probe = Probe::default();
        let mut add = |expr: &config::Expr| note(&expr.at, probe.add_program(&expr.text), errors);
        let id = def.id.as_ref().and_then(&mut add);
        let key = def.key.as_ref().and_then(add);
        Self { name: name.into(), probe, id, key }
    }
}

/// One request on its way.
struct Request<'d, 'a> {
    mapper: &'d Mapper,
    headers: &'d HeaderMap,
    body: &'d Json<'a>,
    /// What stands at the request's paths.
    found: Vec<Found<'d>>,
}

impl<'a> Request<'_, 'a> {
    fn word(&self, place: usize) -> Result<Option<Cow<'_, str>>, expr::Error> {
        self.mapper.request.word(place, Some(self.headers), self.body, &self.found)
    }

    /// The first of several places that says something.
    fn first_word(&self, places: &[usize]) -> Result<Option<Cow<'_, str>>, expr::Error> {
        for place in places {
            match self.word(*place)? {
                Some(word) if !word.is_empty() => return Ok(Some(word)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Type and data stand in the body.
    fn direct(&self, event_type: usize, payload: Option<usize>) -> Result<Mapped<'a>, Failure> {
        let name = self.word(event_type).map_err(|error| Failure::expression("event_type", &error))?;
        let Some(name) = name else {
            return Err(Failure::new(Reason::NullEventType, "the event type is missing or null"));
        };
        let Some(event) = self.mapper.events.iter().find(|event| *event.name == *name) else {
            /// Bytes of a sender's word that a message and a finding show.
            const SHOWN: usize = 100;
            let shown: String = name.chars().filter(|character| !character.is_control()).take(SHOWN).collect();
            let message = format!("there is no event `{shown}` under `events:`");
            return Err(Failure { event_type: Some(shown), ..Failure::new(Reason::UnknownEventType, message) });
        };
        let json = match payload {
            None => self.body.clone(),
            Some(place) => {
                let part = self.mapper.request.json(place, self.body, &self.found);
                part.map_err(|error| event.failed(Failure::expression("payload", &error)))?
            }
        };
        self.finish(event, json, Suffix::None).map_err(|failure| event.failed(failure))
    }

    /// By rules.
    fn listed(&self, rules: &[Rule], all: bool) -> Result<Vec<Mapped<'a>>, Failure> {
        let probe = &self.mapper.request;
        let mut made: Vec<Mapped<'a>> = Vec::new();
        for rule in rules {
            let Some(event) = self.mapper.events.get(rule.event) else { continue };
            let of_event = |failure| event.failed(failure);
            let taken = rule.when.map_or(Ok(true), |when| probe.is_true(when, self.body, &self.found));
            if !taken.map_err(|error| of_event(Failure::expression("when", &error)))? {
                continue;
            }
            let results = match rule.map {
                None => vec![self.body.clone()],
                Some(map) => {
                    let results = probe.all(map, self.body, &self.found);
                    results.map_err(|error| of_event(Failure::expression("map", &error)))?
                }
            };
            if made.len() + results.len() > expr::MAX_RESULTS {
                let message = format!("the rules give more than {} events", expr::MAX_RESULTS);
                return Err(of_event(Failure::new(Reason::TooManyResults, message)));
            }
            // Counted among the events of this type, so that two rules of one event do not share an id.
            let earlier = made.iter().filter(|mapped| mapped.event_type == event.name).count();
            for (json, ordinal) in results.into_iter().zip(earlier + 1..) {
                let suffix = if all || ordinal > 1 { Suffix::Ordinal(ordinal) } else { Suffix::None };
                made.push(self.finish(event, json, suffix).map_err(of_event)?);
            }
            if !all {
                break;
            }
        }
        Ok(made)
    }

    /// A mapped event, with its id, key and time.
    fn finish(&self, event: &Event, json: Json<'a>, suffix: Suffix) -> Result<Mapped<'a>, Failure> {
        match self.identified(event, &json, suffix) {
            Ok(Identity { id, bare, key, time }) => Ok(Mapped {
                event_type: Arc::clone(&event.name),
                id,
                bare,
                ordinal: suffix.ordinal(),
                key,
                time,
                json: json.into_text(),
            }),
            Err(failure) => Err(Failure { json: Some(json.into_text().into_owned()), ..failure }),
        }
    }

    fn identified(&self, event: &Event, json: &Json<'a>, suffix: Suffix) -> Result<Identity, Failure> {
        let found = match (event.id, event.key) {
            (None, None) => Vec::new(),
            _ => event.probe.look(json).map_err(|error| Failure::expression("the mapped event", &error))?,
        };
        let asked = |place| event.probe.word(place, None, json, &found);
        let id = match event.id {
            Some(place) => asked(place),
            None => self.first_word(&self.mapper.ids),
        };
        let mut id = checked(id, "id", [Reason::NullId, Reason::InvalidId], MAX_ID)?;
        if id.chars().any(char::is_control) {
            return Err(Failure::new(Reason::InvalidId, "the id holds a control character"));
        }
        let bare = id.len();
        if let Suffix::Ordinal(ordinal) = suffix {
            id = format!("{id}#{}.{ordinal}", event.name);
        }
        let key = match event.key {
            Some(place) => checked(asked(place), "key", [Reason::NullKey, Reason::InvalidKey], MAX_KEY)?,
            None => id.clone(),
        };
        // A time is an addition: one that cannot be read is left out.
        let time = self.first_word(&self.mapper.times).ok().flatten().and_then(|word| rfc3339(&word));
        Ok(Identity { id, bare, key, time })
    }
}

/// What is appended to an event's id.
#[derive(Clone, Copy)]
enum Suffix {
    /// Nothing: it is the first of its type, and no other rule is asked.
    None,
    Ordinal(usize),
}

impl Suffix {
    fn ordinal(self) -> usize {
        match self {
            Self::None => 1,
            Self::Ordinal(ordinal) => ordinal,
        }
    }
}

struct Identity {
    id: String,
    bare: usize,
    key: String,
    time: Option<String>,
}

/// An id or a key, where it may serve as one.
fn checked(
    word: Result<Option<Cow<'_, str>>, expr::Error>,
    what: &str,
    [null, invalid]: [Reason; 2],
    max: usize,
) -> Result<String, Failure> {
    match word {
        Ok(Some(word)) if word.len() > max => {
            Err(Failure::new(invalid, format!("the {what} is longer than {max} bytes")))
        }
        Ok(Some(word)) if !word.is_empty() => Ok(word.into_owned()),
        // The empty text is nobody's id: all that have it would be one.
        Ok(_) => Err(Failure::new(null, format!("the {what} is missing, null or empty"))),
        Err(expr::Error::NotScalar(kind)) => Err(Failure::new(invalid, format!("the {what} is {kind}"))),
        Err(error) => Err(Failure::expression(what, &error)),
    }
}
