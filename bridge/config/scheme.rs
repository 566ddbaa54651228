//! A source's description, read by its own `Deserialize` from the nodes of the file, so that a key which the catalogue
//! learns is known here as well, and every problem still has its line.
//!
//! serde stops at the first error. Here the value that failed is noted, left out, and the rest is read again, until
//! nothing new is found.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::problem::nearest;
use super::reader::{Field, Map, quoted_list};
use super::yaml::{Node, Value};

/// How many problems of one description are looked for. There are fewer places than this in any of them.
const MAX_ROUNDS: usize = 64;

/// Reads `field` as `T`; `None` once a problem was noted.
pub(super) fn described<T: DeserializeOwned>(field: &Field<'_>) -> Option<T> {
    described_part(field, None)
}

/// As [`described`], of a map in which only the keys of `only` belong to `T`.
pub(super) fn described_part<T: DeserializeOwned>(field: &Field<'_>, only: Option<&[&'static str]>) -> Option<T> {
    let mut left_out: Vec<String> = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let fault = match T::deserialize(Located { field: field.clone(), left_out: &left_out, only }) {
            Ok(_) if !left_out.is_empty() => return None,
            Ok(read) => return Some(read),
            Err(fault) => fault,
        };
        let at = fault.at.map_or_else(|| field.clone(), |at| *at);
        // What fails for want of a part that was left out is no news.
        let follows = left_out.iter().any(|path| {
            path.strip_prefix(at.path()).is_some_and(|rest| rest.starts_with(['.', '[']) || at.path().is_empty())
        });
        if !follows {
            match fault.hint {
                Some(hint) => at.error_with_hint(fault.message, hint),
                None => at.error(fault.message),
            }
        }
        if at.path() == field.path() {
            return None;
        }
        left_out.push(at.path().to_owned());
    }
    None
}

/// The keys that `T`, a struct, is read from.
pub(super) fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // It fails by design, once the keys were seen.
    let _ = T::deserialize(Keys(&mut keys));
    keys
}

struct Keys<'k>(&'k mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Keys<'_> {
    type Error = de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(de::Error::custom("only the keys were wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// What serde found wrong. The innermost place that fails claims it.
struct Fault<'r> {
    /// Boxed, for this is the error of every step and seldom there.
    at: Option<Box<Field<'r>>>,
    message: String,
    hint: Option<String>,
}

impl<'r> Fault<'r> {
    fn at(mut self, field: &Field<'r>) -> Self {
        self.at.get_or_insert_with(|| Box::new(field.clone()));
        self
    }
}

impl fmt::Debug for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault<'_> {}

impl de::Error for Fault<'_> {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { at: None, message: message.to_string(), hint: None }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = match nearest(variant, expected.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", quoted_list(expected)),
        };
        Self { at: None, message: format!("`{variant}` is not known here"), hint: Some(hint) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` is missing"))
    }
}

struct Located<'r, 'l> {
    field: Field<'r>,
    /// Paths of values that failed before.
    left_out: &'l [String],
    only: Option<&'l [&'static str]>,
}

impl<'r> Located<'r, '_> {
    fn inner(&self, field: Field<'r>) -> Self {
        Self { field, left_out: self.left_out, only: None }
    }

    /// The text as it was written: a description is data, as a preset is.
    fn text(&self, expected: &str) -> Result<&'r str, Fault<'r>> {
        match self.field.written_text() {
            Some(text) if text.contains("${") => Err(Fault {
                at: Some(Box::new(self.field.clone())),
                message: "holds a `${...}`, which is not filled in here".to_owned(),
                hint: Some("a source's description is taken as it is written".to_owned()),
            }),
            Some(text) => Ok(text),
            None => Err(<Fault<'r> as de::Error>::custom(format!("must be {expected}")).at(&self.field)),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, expected: &str) -> Result<T, Fault<'r>> {
        let text = self.text(expected)?;
        text.parse()
            .map_err(|_| <Fault<'r> as de::Error>::custom(format!("`{text}` is not {expected}")).at(&self.field))
    }
}

impl<'de, 'r> Deserializer<'de> for Located<'r, '_> {
    type Error = Fault<'r>;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault<'r>> {
        let field = self.field.clone();
        let read = match field.node().map(|node| &node.value) {
            None | Some(Value::Null | Value::Refused) => visitor.visit_unit(),
            Some(Value::List(_)) => visitor.visit_seq(Items { fields: field.items().into_iter(), located: self }),
            Some(Value::Map(_)) => {
                visitor.visit_map(Entries { fields: field.named().into_iter(), value: None, located: self })
            }
            Some(Value::Text { plain, .. }) => {
                let text = self.text("a text")?;
                match (text.parse::<i64>(), text) {
                    (_, "true" | "false") if *plain => visitor.visit_bool(text == "true"),
                    (Ok(number), _) if *plain => visitor.visit_i64(number),
                    _ => visitor.visit_str(text),
                }
            }
        };
        read.map_err(|fault| fault.at(&field))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault<'r>> {
        visitor.visit_str(self.text("a text")?).map_err(|fault: Fault<'r>| fault.at(&self.field))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault<'r>> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault<'r>> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault<'r>> {
        visitor.visit_bool(self.parsed("`true` or `false`")?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault<'r>> {
        visitor.visit_u64(self.parsed("a whole number")?).map_err(|fault: Fault<'r>| fault.at(&self.field))
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault<'r>> {
        visitor.visit_i64(self.parsed("a whole number")?).map_err(|fault: Fault<'r>| fault.at(&self.field))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault<'r>> {
        if self.field.is_written() { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault<'r>> {
        if !matches!(self.field.node(), Some(Node { value: Value::Map(_), .. })) {
            return Err(<Fault<'r> as de::Error>::custom("must be a map").at(&self.field));
        }
        let keys: Vec<&'static str> =
            keys.iter().copied().filter(|key| self.only.is_none_or(|only| only.contains(key))).collect();
        let fields = match self.only {
            // The other keys of this map are not ours to judge.
            Some(_) => self.field.named().into_iter().filter(|(key, _)| keys.contains(key)).collect(),
            None => self.field.map(|map: &mut Map<'r>| {
                keys.iter()
                    .map(|key| (*key, map.field(key)))
                    .filter(|(_, field)| field.is_written())
                    .collect::<Vec<_>>()
            }),
        };
        let field = self.field.clone();
        visitor
            .visit_map(Entries { fields: fields.into_iter(), value: None, located: self })
            .map_err(|fault| fault.at(&field))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault<'r>> {
        let text = self.text("a text")?;
        let variant: StrDeserializer<'_, Fault<'r>> = text.into_deserializer();
        visitor.visit_enum(variant).map_err(|fault| fault.at(&self.field))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault<'r>> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u128 f32 f64 bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

struct Items<'r, 'l> {
    fields: std::vec::IntoIter<Field<'r>>,
    located: Located<'r, 'l>,
}

impl<'de, 'r> SeqAccess<'de> for Items<'r, '_> {
    type Error = Fault<'r>;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault<'r>> {
        let left_out = self.located.left_out;
        let Some(field) = self.fields.find(|field| !left_out.iter().any(|path| path == field.path())) else {
            return Ok(None);
        };
        seed.deserialize(self.located.inner(field.clone())).map(Some).map_err(|fault| fault.at(&field))
    }
}

struct Entries<'r, 'l> {
    fields: std::vec::IntoIter<(&'r str, Field<'r>)>,
    value: Option<Field<'r>>,
    located: Located<'r, 'l>,
}

impl<'de, 'r> MapAccess<'de> for Entries<'r, '_> {
    type Error = Fault<'r>;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault<'r>> {
        let left_out = self.located.left_out;
        let Some((key, field)) = self.fields.find(|(_, field)| !left_out.iter().any(|path| path == field.path()))
        else {
            return Ok(None);
        };
        self.value = Some(field);
        let key: StrDeserializer<'_, Fault<'r>> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault<'r>> {
        let field =
            self.value.take().ok_or_else(|| <Fault<'r> as de::Error>::custom("a value came without its key"))?;
        seed.deserialize(self.located.inner(field.clone())).map_err(|fault| fault.at(&field))
    }
}
