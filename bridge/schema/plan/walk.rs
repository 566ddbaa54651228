//! The walk over the JSON text: serde's side of the writer. Whatever it meets it consumes, and what does not fit becomes
//! a violation, so that one pass finds all of them; only what is not JSON, or too deep, ends it early.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::number::is_whole;
use super::pointer::Path;
use super::shape::{Node, Record};
use super::writer::{Fault, Writer, put_long};

/// The value that is read next: what the schema asks for, and where it stands.
pub(super) struct Cursor<'a, 's> {
    pub(super) node: &'a Node,
    pub(super) at: &'a Path<'a>,
    pub(super) writer: &'a mut Writer<'s>,
}

impl<'de> DeserializeSeed<'de> for Cursor<'_, '_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.node.by_text() {
            let value = <&RawValue>::deserialize(deserializer)?;
            self.raw(value.get())
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Cursor<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        let written = self.writer.null(self.node);
        self.settle(written, "null");
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        let written = self.writer.boolean(self.node, value);
        self.settle(written, "boolean");
        Ok(())
    }

    #[inline]
    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        let written = self.writer.text(self.node, value);
        self.settle(written, "string");
        Ok(())
    }

    // Whatever takes a number takes it by its text, so that one which comes here is out of place.

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.settle(Err(Fault::Kind), "number");
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.settle(Err(Fault::Kind), "number");
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.settle(Err(Fault::Kind), "number");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        self.writer.enter(self.at)?;
        match self.node {
            Node::Array(node) => self.array(node, items),
            Node::Union(union) => {
                // Avro allows a union one array.
                let mut branches = union.branches.iter().enumerate();
                match branches.find_map(|(at, branch)| match &branch.node {
                    Node::Array(node) => Some((at, node)),
                    _ => None,
                }) {
                    Some((index, node)) => {
                        self.writer.branch(index);
                        self.array(node, items)
                    }
                    None => self.misplaced_array(items),
                }
            }
            _ => self.misplaced_array(items),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        self.writer.enter(self.at)?;
        match self.node {
            Node::Union(union) => self.union_object(union, fields),
            node => self.object(node, None, fields),
        }
    }
}

impl Cursor<'_, '_> {
    #[inline]
    fn settle(self, written: Result<(), Fault>, found: &str) {
        if let Err(fault) = written {
            self.writer.fault(self.at, self.node, fault, found);
        }
    }

    /// A value by its own text, which is well formed.
    pub(super) fn raw<E: Error>(self, text: &str) -> Result<(), E> {
        match (text.as_bytes(), self.node) {
            ([b'"', inner @ .., b'"'], _) if !inner.contains(&b'\\') => self.visit_str(&text[1..text.len() - 1]),
            (b"null", _) => self.visit_unit(),
            ([b'-' | b'0'..=b'9', ..], node) => {
                let written = self.writer.number(node, text);
                let found = if is_whole(text) { "number" } else { "number with a fraction or an exponent" };
                self.settle(written, found);
                Ok(())
            }
            ([b'{', ..], Node::Union(union)) if union.objects.len() > 1 => self.choose(union, text),
            _ => self.reread(text),
        }
    }

    pub(super) fn reread<E: Error>(self, text: &str) -> Result<(), E> {
        let Cursor { node, at, writer } = self;
        let cursor = Cursor { node, at, writer: &mut *writer };
        let read = serde_json::Deserializer::from_str(text).deserialize_any(cursor);
        read.map_err(|error| writer.broken_part(text, &error))
    }

    fn array<'de, A: SeqAccess<'de>>(self, node: &Node, mut items: A) -> Result<(), A::Error> {
        let Cursor { at, writer, .. } = self;
        let header = writer.open_block();
        let mut count = 0;
        while items.next_element_seed(Cursor { node, at: &at.index(count), writer: &mut *writer })?.is_some() {
            count += 1;
        }
        writer.close_block(header, count);
        Ok(())
    }

    /// `first`: a key that was read to choose the branch.
    pub(super) fn object<'de, A: MapAccess<'de>>(
        self,
        node: &Node,
        first: Option<Cow<'de, str>>,
        mut fields: A,
    ) -> Result<(), A::Error> {
        match node {
            Node::Record(record) => self.record(record, first, fields),
            Node::Map(values) => self.map(values, first, fields),
            _ => {
                self.writer.fault(self.at, self.node, Fault::Kind, "object");
                self.pass_rest(first, &mut fields)
            }
        }
    }

    fn record<'de, A: MapAccess<'de>>(
        self,
        record: &Record,
        mut first: Option<Cow<'de, str>>,
        mut fields: A,
    ) -> Result<(), A::Error> {
        let Cursor { at, writer, .. } = self;
        let mut frame = writer.open_record(record);
        while let Some(key) = next_key(&mut first, &mut fields)? {
            let at = at.name(&key);
            match record.find(&key, frame.next()) {
                Some(index) if writer.open_field(record, &mut frame, index) => {
                    let node = &record.fields[index].node;
                    fields.next_value_seed(Cursor { node, at: &at, writer: &mut *writer })?;
                    writer.close_field(record, &mut frame, index);
                }
                Some(_) => {
                    writer.duplicate(&at);
                    fields.next_value_seed(Pass { at: &at, writer: &mut *writer })?;
                }
                None => {
                    let value = fields.next_value_seed(Pass { at: &at, writer: &mut *writer })?;
                    writer.stray(&at, record, &key, value);
                }
            }
        }
        writer.close_record(record, frame, at);
        Ok(())
    }

    fn map<'de, A: MapAccess<'de>>(
        self,
        values: &Node,
        first: Option<Cow<'de, str>>,
        fields: A,
    ) -> Result<(), A::Error> {
        let Cursor { at, writer, .. } = self;
        let (keys, header) = (writer.open_map(), writer.open_block());
        let count = Cursor { node: values, at, writer: &mut *writer }.entries(first, fields)?;
        // Before the block is closed, since a longer count moves the keys.
        writer.close_map(keys, at);
        writer.close_block(header, count);
        Ok(())
    }

    /// The entries of a map whose values' schema is the cursor's.
    pub(super) fn entries<'de, A: MapAccess<'de>>(
        self,
        mut first: Option<Cow<'de, str>>,
        mut fields: A,
    ) -> Result<usize, A::Error> {
        let Cursor { node, at, writer } = self;
        let mut count = 0;
        while let Some(key) = next_key(&mut first, &mut fields)? {
            writer.map_key(&key);
            fields.next_value_seed(Cursor { node, at: &at.name(&key), writer: &mut *writer })?;
            count += 1;
        }
        Ok(count)
    }

    fn misplaced_array<'de, A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Cursor { node, at, writer } = self;
        writer.fault(at, node, Fault::Kind, "array");
        let below = at.index(0);
        while items.next_element_seed(Pass { at: &below, writer: &mut *writer })?.is_some() {}
        Ok(())
    }

    pub(super) fn pass_rest<'de, A: MapAccess<'de>>(
        self,
        mut first: Option<Cow<'de, str>>,
        fields: &mut A,
    ) -> Result<(), A::Error> {
        let Cursor { at, writer, .. } = self;
        while let Some(key) = next_key(&mut first, fields)? {
            fields.next_value_seed(Pass { at: &at.name(&key), writer: &mut *writer })?;
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// Arrays and maps are blocks with their counts before them. One byte is left for the count, which does for 63.
    #[inline]
    pub(super) fn open_block(&mut self) -> usize {
        self.out.push(0);
        self.out.len() - 1
    }

    #[inline]
    pub(super) fn close_block(&mut self, header: usize, count: usize) {
        match u8::try_from(count) {
            // The count is the end, too.
            Ok(0) => {}
            Ok(few @ 1..64) => {
                self.out[header] = few << 1;
                self.out.push(0);
            }
            _ => {
                let mut long = Vec::with_capacity(10);
                put_long(count.try_into().unwrap_or(i64::MAX), &mut long);
                self.out.splice(header..=header, long);
                self.out.push(0);
            }
        }
    }
}

#[inline]
fn next_key<'de, A: MapAccess<'de>>(
    first: &mut Option<Cow<'de, str>>,
    fields: &mut A,
) -> Result<Option<Cow<'de, str>>, A::Error> {
    match first.take() {
        Some(key) => Ok(Some(key)),
        None => fields.next_key_seed(Text),
    }
}

/// A value that is passed over, though not without a look at its depth.
pub(super) struct Pass<'a, 's> {
    pub(super) at: &'a Path<'a>,
    pub(super) writer: &'a mut Writer<'s>,
}

impl<'de> DeserializeSeed<'de> for Pass<'_, '_> {
    type Value = &'de RawValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'de RawValue, D::Error> {
        let value = <&RawValue>::deserialize(deserializer)?;
        self.writer.enter_raw(self.at, value.get())?;
        Ok(value)
    }
}

/// A string, borrowed unless it holds an escape. (`Cow`'s own `Deserialize` always copies.)
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    #[inline]
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}
