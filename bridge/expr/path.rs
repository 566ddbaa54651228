//! Plain paths, looked up in JSON text without building anything: one pass for all the paths that one asks for.
//! The answers are those that jq would give, the text of a value being its own, digit for digit.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::NotJson;

/// A program that is nothing but a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Item(usize),
}

impl Path {
    pub(super) fn new(steps: Vec<Step>) -> Self {
        Self { steps }
    }

    /// Whether `other` goes through here, or ends here as well.
    pub(super) fn leads_to(&self, other: &Path) -> bool {
        other.steps.starts_with(&self.steps)
    }

    /// Steps from the root.
    pub(super) fn depth(&self) -> usize {
        self.steps.len()
    }

    /// Whether it is `.`.
    pub fn is_root(&self) -> bool {
        self.steps.is_empty()
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Found<'a> {
    /// Nothing, or null on the way: jq's null.
    #[default]
    Nothing,
    /// The value's own text, `null` included.
    Value(&'a str),
    /// A value on the way has no parts of that sort: jq's error.
    Mismatch(&'static str),
}

/// Several paths that are looked up together.
#[derive(Debug, Clone, Default)]
pub struct PathSet {
    root: Node,
    paths: usize,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Which paths end here.
    ends: Vec<usize>,
    /// Which paths go on by a field, and which by an item, however far.
    by_field: Vec<usize>,
    by_item: Vec<usize>,
    /// In the order of [`by_length`]: an object's every field is searched for here.
    fields: Vec<(String, Node)>,
    items: Vec<(usize, Node)>,
}

/// Names of unlike length, which most are, are told apart without looking at them.
fn by_length(left: &str, right: &str) -> Ordering {
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

impl Node {
    fn has_parts(&self) -> bool {
        !self.fields.is_empty() || !self.items.is_empty()
    }

    /// The part that a path goes on to.
    fn part(&mut self, step: &Step) -> &mut Node {
        match step {
            Step::Field(name) => {
                let place = self.fields.binary_search_by(|(known, _)| by_length(known, name));
                let place = place.unwrap_or_else(|place| {
                    self.fields.insert(place, (name.clone(), Node::default()));
                    place
                });
                &mut self.fields[place].1
            }
            Step::Item(at) => {
                let place = self.items.iter().position(|(known, _)| known == at).unwrap_or_else(|| {
                    self.items.push((*at, Node::default()));
                    self.items.len() - 1
                });
                &mut self.items[place].1
            }
        }
    }

    fn mismatch(&self, value: &'static str, slots: &mut [Found<'_>]) {
        mark(self.by_field.iter().chain(&self.by_item), Found::Mismatch(value), slots);
    }
}

fn mark<'i, 'a>(which: impl IntoIterator<Item = &'i usize>, found: Found<'a>, slots: &mut [Found<'a>]) {
    for place in which {
        slots[*place] = found;
    }
}

impl PathSet {
    pub fn is_empty(&self) -> bool {
        self.paths == 0
    }

    /// Adds a path; the place of its answer in [`Self::find`]'s.
    pub fn add(&mut self, path: &Path) -> usize {
        let mut node = &mut self.root;
        for step in &path.steps {
            match step {
                Step::Field(_) => node.by_field.push(self.paths),
                Step::Item(_) => node.by_item.push(self.paths),
            }
            node = node.part(step);
        }
        node.ends.push(self.paths);
        self.paths += 1;
        self.paths - 1
    }

    /// What stands at each path, in the order in which they were added. Where a field comes twice the last counts, as
    /// in jq. The whole text must be JSON, though only as much of it is looked at closely as the paths need.
    pub fn find<'a>(&self, text: &'a str) -> Result<Vec<Found<'a>>, NotJson> {
        let mut slots = vec![Found::Nothing; self.paths];
        let mut reader = serde_json::Deserializer::from_str(text);
        // The whole is known without being read for it.
        mark(&self.root.ends, Found::Value(text.trim_matches([' ', '\t', '\n', '\r'])), &mut slots);
        let read = if self.root.has_parts() {
            reader.deserialize_any(Look { node: &self.root, slots: &mut slots })
        } else {
            <IgnoredAny as de::Deserialize>::deserialize(&mut reader).map(drop)
        };
        read.and_then(|()| reader.end()).map_err(|error| not_json(text, &error))?;
        Ok(slots)
    }
}

fn not_json(text: &str, error: &serde_json::Error) -> NotJson {
    // serde_json counts lines and columns; a byte is what one can point at in a body of one line.
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let what = if error.is_eof() { "an early end" } else { "text that is not JSON" };
    NotJson { what, at: before + error.column().saturating_sub(1) }
}

/// The look-up at one value.
struct Look<'n, 's, 'a> {
    node: &'n Node,
    slots: &'s mut [Found<'a>],
}

impl<'a> DeserializeSeed<'a> for Look<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.node.ends.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue as de::Deserialize>::deserialize(deserializer)?;
        let text = raw.get();
        mark(&self.node.ends, Found::Value(text), self.slots);
        if self.node.has_parts() {
            // Asked for whole and in parts: read once more, which its own length pays for.
            let mut reader = serde_json::Deserializer::from_str(text);
            (&mut reader).deserialize_any(self).map_err(de::Error::custom)?;
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for Look<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.node.mismatch("a boolean", self.slots);
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.node.mismatch("a number", self.slots);
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.node.mismatch("a number", self.slots);
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.node.mismatch("a number", self.slots);
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.node.mismatch("a string", self.slots);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        mark(&self.node.by_field, Found::Mismatch("an array"), self.slots);
        let mut place = 0;
        loop {
            let node = self.node.items.iter().find(|(wanted, _)| *wanted == place).map(|(_, node)| node);
            let more = match node {
                Some(node) => seq.next_element_seed(Look { node, slots: &mut *self.slots })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            place += 1;
        }
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        mark(&self.node.by_item, Found::Mismatch("an object"), self.slots);
        while let Some(known) = map.next_key_seed(Name(&self.node.fields))? {
            match known {
                Some(node) => {
                    // It may come again: what the first one said is then no longer so.
                    let all = node.ends.iter().chain(&node.by_field).chain(&node.by_item);
                    mark(all, Found::Nothing, self.slots);
                    map.next_value_seed(Look { node, slots: &mut *self.slots })?;
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A field's name, as the node that waits for it.
struct Name<'n>(&'n [(String, Node)]);

impl<'de, 'n> DeserializeSeed<'de> for Name<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let place = self.0.binary_search_by(|(known, _)| by_length(known, name));
        Ok(place.ok().map(|place| &self.0[place].1))
    }
}

/// A value's text as a plain word: a string's characters, a number's own digits, `true` or `false`; null is `None`.
/// Arrays and objects are no words.
pub fn scalar(json: &str) -> Result<Option<Cow<'_, str>>, &'static str> {
    match json.as_bytes().first() {
        Some(b'n') | None => Ok(None),
        Some(b'[') => Err("an array"),
        Some(b'{') => Err("an object"),
        Some(b'"') => match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Ok(Some(Cow::Borrowed(plain))),
            _ => serde_json::from_str(json).map(|text: String| Some(Cow::Owned(text))).map_err(|_| "a broken string"),
        },
        Some(_) => Ok(Some(Cow::Borrowed(json))),
    }
}
