//! From a schema to a plan. apache-avro parses, which settles names, references and what a default may be; what it keeps
//! is walked once.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{Alias, InnerDecimalSchema, Name, RecordSchema, UnionSchema, UuidSchema};
use serde_json::Value;

use super::super::shape::UuidForm;
use super::Error;
use super::default;
use super::shape::{Branch, Decimal, Field, Names, Node, Record, Union, Unit};
use crate::config::UnknownFields;

/// The attribute, on a field or on its map, that says: unknown fields of this record go here.
const CAPTURE: &str = "hookbridge.capture";

/// Compiles what [`super::Plan::compile`] was given.
pub(super) fn compile(schema: &Schema, unknown: UnknownFields) -> Result<Node, Error> {
    let mut compiler = Compiler { unknown, named: HashMap::new(), open: Vec::new(), path: Vec::new() };
    let root = compiler.node(schema)?;
    match &root {
        Node::Record(record) if unknown == UnknownFields::Capture && record.capture.is_none() => {
            Err(Error::NoCaptureField { record: schema.name().map(Name::to_string).unwrap_or_default() })
        }
        Node::Record(_) => Ok(root),
        _ if unknown == UnknownFields::Capture => Err(Error::NoCaptureField { record: root.describe() }),
        _ => Ok(root),
    }
}

struct Compiler<'s> {
    unknown: UnknownFields,
    /// Named types that are done, under their full names and aliases.
    named: HashMap<String, Named<'s>>,
    /// Full names of the records that are being compiled: a reference to one of them is a recursion.
    open: Vec<String>,
    /// Where we are, for errors.
    path: Vec<String>,
}

#[derive(Clone)]
struct Named<'s> {
    node: Shared,
    schema: &'s Schema,
}

#[derive(Clone)]
enum Shared {
    Record(Arc<Record>),
    Enum(Arc<Names>),
    Fixed(FixedForm),
}

#[derive(Clone, Copy)]
enum FixedForm {
    Bytes(usize),
    Decimal(Decimal),
    Uuid,
}

impl Shared {
    fn node(&self) -> Node {
        match self {
            Self::Record(record) => Node::Record(Arc::clone(record)),
            Self::Enum(symbols) => Node::Enum(Arc::clone(symbols)),
            Self::Fixed(FixedForm::Bytes(size)) => Node::Fixed(*size),
            Self::Fixed(FixedForm::Decimal(decimal)) => Node::Decimal(*decimal),
            Self::Fixed(FixedForm::Uuid) => Node::Uuid(UuidForm::Fixed),
        }
    }
}

impl<'s> Compiler<'s> {
    fn node(&mut self, schema: &'s Schema) -> Result<Node, Error> {
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int => Node::Int,
            Schema::Long => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes => Node::Bytes,
            Schema::String => Node::String,
            Schema::Array(array) => Node::Array(Box::new(self.within("[]", |this| this.node(&array.items))?)),
            Schema::Map(map) => Node::Map(Box::new(self.within("{}", |this| this.node(&map.types))?)),
            Schema::Union(union) => self.union(union)?,
            Schema::Record(record) => self.record(schema, record)?,
            Schema::Enum(symbols) => {
                let names = symbols.symbols.iter().enumerate().map(|(at, symbol)| (symbol.as_str().into(), at));
                let shared = Shared::Enum(Arc::new(Names::new(names.collect())));
                self.define(schema, &symbols.name, symbols.aliases.as_deref(), &shared)
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) => {
                let shared = Shared::Fixed(FixedForm::Bytes(fixed.size));
                self.define(schema, &fixed.name, fixed.aliases.as_deref(), &shared)
            }
            Schema::Decimal(decimal) => {
                let (precision, scale) = (decimal.precision, decimal.scale);
                match &decimal.inner {
                    InnerDecimalSchema::Bytes => Node::Decimal(Decimal { precision, scale, size: None }),
                    InnerDecimalSchema::Fixed(fixed) => {
                        let form = FixedForm::Decimal(Decimal { precision, scale, size: Some(fixed.size) });
                        self.define(schema, &fixed.name, fixed.aliases.as_deref(), &Shared::Fixed(form))
                    }
                }
            }
            Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                self.define(schema, &fixed.name, fixed.aliases.as_deref(), &Shared::Fixed(FixedForm::Uuid))
            }
            Schema::Uuid(uuid) => Node::Uuid(uuid.into()),
            // Its scale lies in the datum, and readers of other languages mostly do not know it.
            Schema::BigDecimal => return Err(self.unsupported("logical type big-decimal: write decimal, with a scale")),
            Schema::Date => Node::Date,
            Schema::TimeMillis => Node::TimeMillis,
            Schema::TimeMicros => Node::TimeMicros,
            Schema::TimestampMillis => Node::Timestamp(Unit::Millis),
            Schema::TimestampMicros => Node::Timestamp(Unit::Micros),
            Schema::TimestampNanos => Node::Timestamp(Unit::Nanos),
            Schema::LocalTimestampMillis => Node::LocalTimestamp(Unit::Millis),
            Schema::LocalTimestampMicros => Node::LocalTimestamp(Unit::Micros),
            Schema::LocalTimestampNanos => Node::LocalTimestamp(Unit::Nanos),
            Schema::Ref { name } => {
                let name = name.to_string();
                if self.open.contains(&name) {
                    return Err(Error::Recursive { path: self.place(), name });
                }
                let named = self.named.get(&name).ok_or_else(|| self.unsupported("a reference to an unknown name"))?;
                named.node.node()
            }
        };
        Ok(node)
    }

    fn record(&mut self, schema: &'s Schema, record: &'s RecordSchema) -> Result<Node, Error> {
        let opened = self.open.len();
        self.open.extend(full_names(&record.name, record.aliases.as_deref()));
        let mut fields = Vec::with_capacity(record.fields.len());
        let (mut aliases, mut captures) = (Vec::new(), Vec::new());
        for (index, field) in record.fields.iter().enumerate() {
            let (node, default) = self.within(&field.name, |this| {
                let node = this.node(&field.schema)?;
                let default = field.default.as_ref().map(|default| this.default(&field.schema, default)).transpose()?;
                if is_capture(&field.custom_attributes) || is_map_that_captures(&field.schema) {
                    this.check_capture(&node)?;
                    captures.push(index);
                }
                Ok((node, default))
            })?;
            aliases.extend(field.aliases.iter().map(|alias| (alias.as_str().into(), index)));
            fields.push(Field { name: field.name.as_str().into(), node, default });
        }
        self.open.truncate(opened);
        let capture = match captures[..] {
            [] => None,
            [only] => Some(only).filter(|_| self.unknown == UnknownFields::Capture),
            _ => {
                let what = format!("{} has {} fields that say `{CAPTURE}`", record.name, captures.len());
                return Err(Error::CaptureField { path: self.place(), what });
            }
        };
        let shared = Shared::Record(Arc::new(Record::new(fields, aliases, capture)));
        Ok(self.define(schema, &record.name, record.aliases.as_deref(), &shared))
    }

    fn union(&mut self, union: &'s UnionSchema) -> Result<Node, Error> {
        let mut branches = Vec::with_capacity(union.variants().len());
        for variant in union.variants() {
            let node = self.node(variant)?;
            branches.push(Branch { tag: tag(variant).into(), node });
        }
        Ok(Node::Union(Box::new(Union::new(branches))))
    }

    fn define(&mut self, schema: &'s Schema, name: &Name, aliases: Option<&[Alias]>, node: &Shared) -> Node {
        let defined = node.node();
        for name in full_names(name, aliases) {
            self.named.insert(name, Named { node: node.clone(), schema });
        }
        defined
    }

    fn default(&self, schema: &Schema, value: &Value) -> Result<Box<[u8]>, Error> {
        let resolve = |name: &Name| self.named.get(&name.to_string()).map(|named| named.schema);
        let mut datum = Vec::new();
        match default::write(schema, value, &resolve, &mut datum) {
            Ok(()) => Ok(datum.into()),
            Err(what) => Err(Error::Default { path: self.place(), what }),
        }
    }

    fn check_capture(&self, node: &Node) -> Result<(), Error> {
        match node {
            Node::Map(values) if matches!(**values, Node::String) => Ok(()),
            other => {
                let what = format!("`{CAPTURE}` needs a map of string, this is {}", other.describe());
                Err(Error::CaptureField { path: self.place(), what })
            }
        }
    }

    fn within<T>(&mut self, step: &str, inner: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.path.push(step.to_owned());
        let result = inner(self);
        self.path.pop();
        result
    }

    fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            if !place.is_empty() && !step.starts_with(['[', '{']) {
                place.push('.');
            }
            place.push_str(step);
        }
        if place.is_empty() { "the root".to_owned() } else { place }
    }

    fn unsupported(&self, what: &str) -> Error {
        Error::Unsupported { path: self.place(), what: what.to_owned() }
    }
}

fn full_names(name: &Name, aliases: Option<&[Alias]>) -> Vec<String> {
    let aliases = aliases.unwrap_or_default().iter().map(|alias| alias.fullname(name.namespace()));
    std::iter::once(name.to_string()).chain(aliases).collect()
}

fn is_capture(attributes: &std::collections::BTreeMap<String, Value>) -> bool {
    attributes.get(CAPTURE) == Some(&Value::Bool(true))
}

fn is_map_that_captures(schema: &Schema) -> bool {
    matches!(schema, Schema::Map(map) if is_capture(&map.attributes))
}

/// A branch's name in Avro's JSON encoding: the full name of a named type, else the type's, logical or not.
fn tag(schema: &Schema) -> String {
    let base = match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int | Schema::Date | Schema::TimeMillis => "int",
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::String | Schema::Uuid(UuidSchema::String) => "string",
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => "bytes",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        Schema::Union(_) => "union",
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => "bytes",
            InnerDecimalSchema::Fixed(fixed) => return fixed.name.to_string(),
        },
        Schema::Uuid(UuidSchema::Fixed(fixed)) | Schema::Fixed(fixed) | Schema::Duration(fixed) => {
            return fixed.name.to_string();
        }
        Schema::Record(record) => return record.name.to_string(),
        Schema::Enum(symbols) => return symbols.name.to_string(),
        Schema::Ref { name } => return name.to_string(),
    };
    base.to_owned()
}
