//! One request's document becomes the events in it. Pure; compiled once for a source.
//!
//! - Each `each` path says which arrays hold events: `.[]`, `.entry[].changes[]`. They are walked together, and the
//!   events come in the document's order.
//! - What stands where an array was expected is taken as an array of one. An object in which no path goes on, an entry
//!   without `changes`, is one event. So no request is passed over; only an empty array holds nothing.
//! - An event is a slice of the document. With `parent_as` it gets one field more, spliced into its text: the object
//!   around it without the arrays that are split, which has its own parent under the same name.

mod path;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use self::path::Node;
use super::form;
use crate::catalog::Split;
use crate::expr::NotJson;

/// Events in a request, before and after they are mapped. Providers send 4,000 at most (Segment; Klaviyo and Meta 1,000).
/// The indices of so many failed ones take 50 KB of the 256 KiB that a quarantine record has for its headers, and their
/// receipts some 3 MB of an answer.
pub const MAX_EVENTS: usize = 10_000;
/// Bytes of the events that `parent_as` builds, all together: a large parent is copied into each of its events. A Meta
/// request of 1,000 changes takes some 500 KB.
pub const MAX_BUILT: usize = 16 << 20;

/// A source's [`Split`], compiled.
#[derive(Debug)]
pub struct Splitter {
    root: Node,
    /// The field's name as JSON text.
    parent_as: Option<String>,
    form: Option<String>,
}

/// What is wrong with a description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("`split.each` names no array: write `.[]`, or `.events[]`")]
    NoPath,
    #[error("`split.each` has {count} paths; {} are taken", path::MAX_PATHS)]
    TooManyPaths { count: usize },
    #[error("`split.each`: `{path}` names no array: write field names and `[]`, such as `.entry[].changes[]`")]
    Path { path: String },
    #[error("`split.{key}` is empty: it is a field's name")]
    Empty { key: &'static str },
}

/// Why a request could not be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the request's body is not JSON: {0}")]
    NotJson(NotJson),
    #[error("the request's body is no form with one `{field}`")]
    NoForm { field: String },
    #[error("`{field}`, which holds events, comes twice in one object")]
    Repeated { field: String },
    #[error("the request has more than {MAX_EVENTS} events")]
    TooMany,
    #[error("the events with their parents have more than {MAX_BUILT} bytes")]
    TooLarge,
}

impl Error {
    /// The bounded name, for metrics and headers.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "not_json",
            Self::NoForm { .. } => "no_form_field",
            Self::Repeated { .. } => "duplicate_field",
            Self::TooMany => "too_many_events",
            Self::TooLarge => "events_too_large",
        }
    }
}

impl Splitter {
    /// Compiles a description; every problem otherwise.
    pub fn compile(split: &Split) -> Result<Self, Vec<Problem>> {
        let (root, mut problems) = Node::compile(&split.each);
        for (key, name) in [("parent_as", &split.parent_as), ("form", &split.form)] {
            if name.as_ref().is_some_and(String::is_empty) {
                problems.push(Problem::Empty { key });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let parent_as = split.parent_as.as_ref().map(|name| serde_json::Value::from(name.as_str()).to_string());
        Ok(Self { root, parent_as, form: split.form.clone() })
    }

    /// The JSON text in a body: the body itself, or a form's field.
    pub fn document<'a>(&self, body: &'a [u8]) -> Result<Cow<'a, str>, Error> {
        let no_utf8 = |at| Error::NotJson(NotJson { what: "a byte that is not UTF-8", at });
        match &self.form {
            None => str::from_utf8(body).map(Cow::Borrowed).map_err(|error| no_utf8(error.valid_up_to())),
            Some(field) => {
                let value = form::only(body, field).map_err(|_| Error::NoForm { field: field.clone() })?;
                String::from_utf8(value).map(Cow::Owned).map_err(|error| no_utf8(error.utf8_error().valid_up_to()))
            }
        }
    }

    /// The events in a document, in its order. Each is JSON, except that a document which is one event as a whole is
    /// not looked at: whoever maps it does.
    pub fn split<'a>(&self, document: &'a str) -> Result<Vec<Cow<'a, str>>, Error> {
        let mut walk = Walk {
            document,
            with_parents: self.parent_as.is_some(),
            events: Vec::new(),
            parents: Vec::new(),
            stopped: None,
        };
        let text = document.trim_matches([' ', '\t', '\n', '\r']);
        match walk.value(&self.root, text, None) {
            Ok(()) => {}
            Err(error) => return Err(walk.stopped.take().unwrap_or_else(|| walk.not_json(text, &error))),
        }
        match &self.parent_as {
            None => Ok(walk.events.into_iter().map(|event| Cow::Borrowed(event.text)).collect()),
            Some(name) => walk.with_parents(name),
        }
    }
}

/// An event, and which object is around it.
struct Event<'a> {
    text: &'a str,
    parent: Option<usize>,
}

/// An object that holds events: its other fields, names and values as they are written.
struct Parent<'a> {
    fields: Vec<(&'a str, &'a str)>,
    outer: Option<usize>,
}

struct Walk<'a> {
    document: &'a str,
    with_parents: bool,
    events: Vec<Event<'a>>,
    /// An outer one before those within.
    parents: Vec<Parent<'a>>,
    /// What ended the walk, where it was not the text: serde's errors carry words only.
    stopped: Option<Error>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, node: &Node, text: &'a str, parent: Option<usize>) -> serde_json::Result<()> {
        let mut reader = serde_json::Deserializer::from_str(text);
        match (text.as_bytes().first(), &node.items) {
            (Some(b'['), Some(items)) => reader.deserialize_seq(Items { walk: self, node: items, parent })?,
            (Some(b'{'), _) if !node.fields.is_empty() => {
                reader.deserialize_map(Fields { walk: self, node, text, parent })?;
            }
            (_, Some(items)) => return self.value(items, text, parent),
            _ => return self.event(text, parent),
        }
        reader.end()
    }

    fn event(&mut self, text: &'a str, parent: Option<usize>) -> serde_json::Result<()> {
        if self.events.len() == MAX_EVENTS {
            return Err(self.stop(Error::TooMany));
        }
        self.events.push(Event { text, parent });
        Ok(())
    }

    fn stop<E: de::Error>(&mut self, error: Error) -> E {
        self.stopped = Some(error);
        E::custom("stopped")
    }

    /// serde_json counts lines and columns from the start of `text`, which is within the document.
    fn not_json(&self, text: &str, error: &serde_json::Error) -> Error {
        let start = text.as_ptr().addr().saturating_sub(self.document.as_ptr().addr());
        let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let (what, at) = if error.is_eof() {
            ("an early end", text.len())
        } else {
            ("text that is not JSON", before + error.column().saturating_sub(1))
        };
        Error::NotJson(NotJson { what, at: start + at })
    }

    /// The events' texts with their parents'; `name` is the field's, as JSON.
    fn with_parents(self, name: &str) -> Result<Vec<Cow<'a, str>>, Error> {
        let mut left = MAX_BUILT;
        let mut parents: Vec<String> = Vec::with_capacity(self.parents.len());
        for parent in &self.parents {
            let outer = parent.outer.and_then(|outer| parents.get(outer)).map(|outer| (name, outer.as_str()));
            let fields = parent.fields.iter().copied().chain(outer);
            let bytes: usize = fields.clone().map(|(key, value)| key.len() + value.len() + 2).sum();
            left = left.checked_sub(bytes).ok_or(Error::TooLarge)?;
            let mut text = String::with_capacity(bytes + 2);
            text.push('{');
            for (at, (key, value)) in fields.enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.extend([key, ":", value]);
            }
            text.push('}');
            parents.push(text);
        }
        let text = |event: Event<'a>| {
            let inner = event.text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            // What is no object has no room for a field.
            let (Some(inner), Some(parent)) = (inner, event.parent.and_then(|parent| parents.get(parent))) else {
                return Ok(Cow::Borrowed(event.text));
            };
            left = left.checked_sub(event.text.len() + parent.len()).ok_or(Error::TooLarge)?;
            let comma = if inner.trim_ascii().is_empty() { "" } else { "," };
            Ok(Cow::Owned(["{", inner, comma, name, ":", parent, "}"].concat()))
        };
        self.events.into_iter().map(text).collect()
    }
}

/// An array whose items are walked.
struct Items<'w, 'n, 'a> {
    walk: &'w mut Walk<'a>,
    node: &'n Node,
    parent: Option<usize>,
}

impl<'a> Visitor<'a> for Items<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element::<&RawValue>()? {
            self.walk.value(self.node, item.get(), self.parent).map_err(de::Error::custom)?;
        }
        Ok(())
    }
}

/// An object of which some fields are walked.
struct Fields<'w, 'n, 'a> {
    walk: &'w mut Walk<'a>,
    node: &'n Node,
    text: &'a str,
    parent: Option<usize>,
}

impl<'a> Visitor<'a> for Fields<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { walk, node, text, parent } = self;
        // Its place is taken now, since its events come before its last field may.
        let place = walk.parents.len();
        let own = if walk.with_parents {
            walk.parents.push(Parent { fields: Vec::new(), outer: parent });
            Some(place)
        } else {
            None
        };
        let (mut seen, mut goes_on) = (0_u32, false);
        while let Some(key) = map.next_key::<&RawValue>()? {
            let known = match key.get().trim_matches('"') {
                plain if !plain.contains('\\') => node.field(plain),
                // Written with escapes.
                _ => node.field(&serde_json::from_str::<String>(key.get()).map_err(de::Error::custom)?),
            };
            let Some((at, part)) = known else {
                if walk.with_parents {
                    let value: &RawValue = map.next_value()?;
                    walk.parents[place].fields.push((key.get(), value.get()));
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
                continue;
            };
            if seen & 1 << at != 0 {
                // Its last value would count for a mapping; the events of the first are here already.
                return Err(walk.stop(Error::Repeated { field: node.fields[at].0.clone() }));
            }
            seen |= 1 << at;
            let value = map.next_value::<&RawValue>()?.get();
            if value != "null" {
                goes_on = true;
                walk.value(part, value, own).map_err(de::Error::custom)?;
            }
        }
        if goes_on {
            return Ok(());
        }
        // The object itself is an event, and nobody's parent.
        walk.parents.truncate(place);
        walk.event(text, parent).map_err(de::Error::custom)
    }
}
