//! Plain paths, looked up in JSON text without building anything: one pass for all the paths that one asks for.
//! The answers are those that jq would give, the text of a value being its own, digit for digit.

use std::borrow::Cow;
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
    fields: Vec<(String, Node)>,
    items: Vec<(usize, Node)>,
}

impl Node {
    fn has_parts(&self) -> bool {
        !self.fields.is_empty() || !self.items.is_empty()
    }

    fn parts(&self) -> impl Iterator<Item = &Node> {
        self.fields.iter().map(|(_, node)| node).chain(self.items.iter().map(|(_, node)| node))
    }

    fn mark<'a>(&self, found: Found<'a>, slots: &mut [Found<'a>]) {
        for end in &self.ends {
            slots[*end] = found;
        }
    }

    /// Marks every path that ends below.
    fn mark_parts<'a>(parts: impl Iterator<Item = &'a Node>, found: Found<'static>, slots: &mut [Found<'_>]) {
        for part in parts {
            part.mark(found, slots);
            Self::mark_parts(Box::new(part.parts()) as Box<dyn Iterator<Item = &Node>>, found, slots);
        }
    }

    fn mismatch(&self, value: &'static str, slots: &mut [Found<'_>]) {
        Self::mark_parts(self.parts(), Found::Mismatch(value), slots);
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
            node = match step {
                Step::Field(name) => child(&mut node.fields, name),
                Step::Item(place) => child(&mut node.items, place),
            };
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
        let seed = Look { node: &self.root, slots: &mut slots };
        let read = seed.deserialize(&mut reader).and_then(|()| reader.end());
        read.map_err(|error| not_json(text, &error))?;
        Ok(slots)
    }
}

/// Several look-ups end in one place: a part is searched for by name, among the few that are asked for.
fn child<'n, K: PartialEq + Clone>(parts: &'n mut Vec<(K, Node)>, key: &K) -> &'n mut Node {
    let place = parts.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
        parts.push((key.clone(), Node::default()));
        parts.len() - 1
    });
    &mut parts[place].1
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
        self.node.mark(Found::Value(text), self.slots);
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
        let named = self.node.fields.iter().map(|(_, node)| node);
        Node::mark_parts(Box::new(named) as Box<dyn Iterator<Item = &Node>>, Found::Mismatch("an array"), self.slots);
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
        let placed = self.node.items.iter().map(|(_, node)| node);
        Node::mark_parts(Box::new(placed) as Box<dyn Iterator<Item = &Node>>, Found::Mismatch("an object"), self.slots);
        while let Some(known) = map.next_key_seed(Name(&self.node.fields))? {
            match known {
                Some(node) => {
                    // It may come again: what the first one said is then no longer so.
                    node.mark(Found::Nothing, self.slots);
                    Node::mark_parts(Box::new(node.parts()) as Box<_>, Found::Nothing, self.slots);
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
        Ok(self.0.iter().find(|(known, _)| known == name).map(|(_, node)| node))
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
