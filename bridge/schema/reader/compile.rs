//! From a writer schema to what the walk follows: names looked up, and whatever is the same for every datum made text.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{Alias, FixedSchema, InnerDecimalSchema, Name, RecordSchema, UuidSchema};

use super::super::shape::{Error, UuidForm};
use super::text;
use crate::calendar::Unit;

/// One place in the schema. Named types that are used twice are shared, so that it never grows beyond its schema.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    /// Size in bytes, as with the others.
    Fixed(usize),
    /// The symbols, quoted.
    Enum(Arc<[Box<[u8]>]>),
    Array(Arc<Node>),
    /// The schema of the values; keys are strings.
    Map(Arc<Node>),
    Record(Arc<Record>),
    Union(Arc<[Node]>),
    Decimal {
        scale: usize,
        /// `None`: a length stands before it.
        size: Option<usize>,
    },
    BigDecimal,
    Uuid(UuidForm),
    Date,
    TimeMillis,
    TimeMicros,
    Timestamp(Unit),
    LocalTimestamp(Unit),
    Duration(usize),
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) fields: Box<[Field]>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    /// What stands before the value: `{"name":` of the first, `,"name":` of the others.
    pub(super) lead: Box<[u8]>,
    pub(super) node: Node,
}

/// What to follow, and the bytes of all names in it.
pub(super) fn compile(schema: &Schema) -> Result<(Node, usize), Error> {
    let mut compiler = Compiler::default();
    let root = compiler.node(schema)?;
    Ok((root, compiler.names))
}

#[derive(Default)]
struct Compiler {
    /// Named types that are done, under their full names and aliases.
    named: HashMap<String, Node>,
    /// Bytes of the fields' names, with room for a null, a boolean or quotes behind each.
    names: usize,
}

impl Compiler {
    fn node(&mut self, schema: &Schema) -> Result<Node, Error> {
        Ok(match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int => Node::Int,
            Schema::Long => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes => Node::Bytes,
            Schema::String => Node::String,
            Schema::Array(array) => Node::Array(Arc::new(self.node(&array.items)?)),
            Schema::Map(map) => Node::Map(Arc::new(self.node(&map.types)?)),
            Schema::Union(union) => {
                Node::Union(union.variants().iter().map(|variant| self.node(variant)).collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => self.record(record)?,
            Schema::Enum(symbols) => {
                let quoted = symbols.symbols.iter().map(|symbol| quoted(symbol).into());
                self.define(&symbols.name, symbols.aliases.as_deref(), Node::Enum(quoted.collect()))
            }
            Schema::Fixed(fixed) => self.fixed(fixed, Node::Fixed(fixed.size)),
            Schema::Duration(fixed) => self.fixed(fixed, Node::Duration(fixed.size)),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Decimal { scale: decimal.scale, size: None },
                InnerDecimalSchema::Fixed(fixed) => {
                    self.fixed(fixed, Node::Decimal { scale: decimal.scale, size: Some(fixed.size) })
                }
            },
            Schema::BigDecimal => Node::BigDecimal,
            Schema::Uuid(UuidSchema::Fixed(fixed)) => self.fixed(fixed, Node::Uuid(UuidForm::Fixed)),
            Schema::Uuid(uuid) => Node::Uuid(uuid.into()),
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
                let name = name.fullname(None);
                self.named.get(&name).cloned().ok_or(Error::Undefined { name })?
            }
        })
    }

    fn record(&mut self, record: &RecordSchema) -> Result<Node, Error> {
        let mut fields = Vec::with_capacity(record.fields.len());
        for (at, field) in record.fields.iter().enumerate() {
            let mut lead = vec![if at == 0 { b'{' } else { b',' }];
            lead.extend_from_slice(&quoted(&field.name));
            lead.push(b':');
            self.names += lead.len() + 4;
            let node = self.node(&field.schema)?;
            fields.push(Field { name: field.name.as_str().into(), lead: lead.into(), node });
        }
        let node = Node::Record(Arc::new(Record { fields: fields.into() }));
        Ok(self.define(&record.name, record.aliases.as_deref(), node))
    }

    fn fixed(&mut self, fixed: &FixedSchema, node: Node) -> Node {
        self.define(&fixed.name, fixed.aliases.as_deref(), node)
    }

    fn define(&mut self, name: &Name, aliases: Option<&[Alias]>, node: Node) -> Node {
        let aliases = aliases.unwrap_or_default().iter().map(|alias| alias.fullname(name.namespace()));
        for name in std::iter::once(name.fullname(None)).chain(aliases) {
            self.named.insert(name, node.clone());
        }
        node
    }
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    text::string(text, &mut out);
    out
}
