//! Which branch of a union an object is. (A scalar's is found by trying, `Writer::first_branch`; an array has but one.)

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Reason;
use super::shape::{Node, Union};
use super::walk::{Cursor, Pass, Text};
use super::writer::{Fault, Fit};

impl Cursor<'_, '_> {
    /// An object where a union is expected, and at most one branch is a record or a map: that branch as it is, or any
    /// branch under its tag. A first key that is a field of the record, or whose value fits the map, is no tag.
    pub(super) fn union_object<'de, A: MapAccess<'de>>(self, union: &Union, mut fields: A) -> Result<(), A::Error> {
        let plain = union.objects.first().copied();
        let first = fields.next_key_seed(Text)?;
        let tagged = first.as_deref().and_then(|key| union.tagged(key));
        match (plain.map(|plain| (plain, &union.branches[plain].node)), first, tagged) {
            (Some((plain, Node::Record(record))), Some(key), Some(_)) if record.find(&key, 0).is_some() => {
                self.plain_object(union, plain, Some(key), fields)
            }
            (Some((plain, Node::Map(values))), Some(key), Some(tagged)) => {
                self.map_or_tag(union, (plain, values), (&key, tagged), fields)
            }
            (_, Some(key), Some(tagged)) => self.tagged(union, tagged, &key, fields),
            (Some((plain, _)), first, None) => self.plain_object(union, plain, first, fields),
            (_, first, _) => {
                self.writer.fault(self.at, self.node, Fault::Kind, "object");
                self.pass_rest(first, &mut fields)
            }
        }
    }

    fn plain_object<'de, A: MapAccess<'de>>(
        self,
        union: &Union,
        branch: usize,
        first: Option<Cow<'de, str>>,
        fields: A,
    ) -> Result<(), A::Error> {
        self.writer.branch(branch);
        self.object(&union.branches[branch].node, first, fields)
    }

    fn tagged<'de, A: MapAccess<'de>>(
        self,
        union: &Union,
        branch: usize,
        tag: &str,
        mut fields: A,
    ) -> Result<(), A::Error> {
        let Cursor { at, writer, .. } = self;
        writer.branch(branch);
        let node = &union.branches[branch].node;
        fields.next_value_seed(Cursor { node, at: &at.name(tag), writer: &mut *writer })?;
        while let Some(key) = fields.next_key_seed(Text)? {
            let at = at.name(&key);
            writer.violation(&at, Reason::UnknownField, || "a tagged value stands alone in its object".to_owned());
            fields.next_value_seed(Pass { at: &at, writer: &mut *writer })?;
        }
        Ok(())
    }

    /// `{"map": …}`: an entry of the map, or its tag? The entry, unless only the tag fits.
    fn map_or_tag<'de, A: MapAccess<'de>>(
        self,
        union: &Union,
        (plain, values): (usize, &Node),
        (key, tagged): (&str, usize),
        mut fields: A,
    ) -> Result<(), A::Error> {
        let Cursor { at, writer, .. } = self;
        let below = at.name(key);
        let value = fields.next_value_seed(Pass { at: &below, writer: &mut *writer })?.get();
        let mark = writer.mark();
        writer.branch(plain);
        let (keys, header) = (writer.open_map(), writer.open_block());
        writer.map_key(key);
        Cursor { node: values, at: &below, writer: &mut *writer }.raw::<A::Error>(value)?;
        let second = fields.next_key_seed(Text)?;
        let is_tag = second.is_none() && writer.fit(&mark) == Fit::Not;
        let count = match second {
            None => 1,
            second => 1 + Cursor { node: values, at, writer: &mut *writer }.entries(second, fields)?,
        };
        writer.close_map(keys, at);
        if is_tag {
            writer.back_to(&mark);
            writer.branch(tagged);
            return Cursor { node: &union.branches[tagged].node, at: &below, writer }.raw(value);
        }
        writer.close_block(header, count);
        Ok(())
    }

    /// An object that several branches could take: the first, in the schema's order, that it fits without a field left
    /// over; else the branch that its sole key names as a tag; else the first that it fits at all.
    pub(super) fn choose<E: Error>(self, union: &Union, text: &str) -> Result<(), E> {
        let Cursor { node, at, writer } = self;
        let mut loose = None;
        for &index in &union.objects {
            let mark = writer.mark();
            writer.branch(index);
            Cursor { node: &union.branches[index].node, at, writer: &mut *writer }.reread(text)?;
            match writer.fit(&mark) {
                Fit::Exact => return Ok(()),
                Fit::Loose if loose.is_none() => loose = Some(index),
                _ => {}
            }
            writer.back_to(&mark);
        }
        let sole = sole_field(text).and_then(|(key, value)| Some((union.tagged(&key)?, key, value)));
        if let Some((tagged, key, value)) = sole {
            writer.branch(tagged);
            Cursor { node: &union.branches[tagged].node, at: &at.name(&key), writer }.raw(value.get())
        } else if let Some(index) = loose {
            writer.branch(index);
            Cursor { node: &union.branches[index].node, at, writer }.reread(text)
        } else {
            writer.fault(at, node, Fault::Branch, "object");
            Ok(())
        }
    }
}

/// The key and value of an object that has one of each.
fn sole_field(text: &str) -> Option<(Cow<'_, str>, &RawValue)> {
    struct Sole;

    impl<'de> Visitor<'de> for Sole {
        type Value = Option<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
            let Some(key) = fields.next_key_seed(Text)? else { return Ok(None) };
            let value = fields.next_value()?;
            // Where another follows, serde_json finds the object unfinished, and so it is no sole field.
            Ok(Some((key, value)))
        }
    }

    serde_json::Deserializer::from_str(text).deserialize_map(Sole).ok().flatten()
}
