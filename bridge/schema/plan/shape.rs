//! A compiled schema: what the writer walks, with every name, index and default settled beforehand.

use std::sync::Arc;

use super::super::shape::UuidForm;

pub(super) use crate::calendar::Unit;

/// One place in the schema. Named types that are used twice are shared, so a plan never grows beyond its schema.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    /// Size in bytes.
    Fixed(usize),
    /// Symbols; a name's value is its ordinal.
    Enum(Arc<Names>),
    Array(Box<Node>),
    /// The schema of the values; keys are strings.
    Map(Box<Node>),
    Record(Arc<Record>),
    Union(Box<Union>),
    Decimal(Decimal),
    Uuid(UuidForm),
    Date,
    TimeMillis,
    TimeMicros,
    Timestamp(Unit),
    LocalTimestamp(Unit),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal {
    /// Digits of the unscaled value.
    pub(super) precision: usize,
    /// Digits after the point.
    pub(super) scale: usize,
    /// Bytes of a fixed; `None`: as many as the number needs.
    pub(super) size: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) fields: Box<[Field]>,
    /// Names, and aliases that are no other field's name, to the field's index.
    names: Names,
    /// The map that takes unknown fields.
    pub(super) capture: Option<usize>,
}

impl Record {
    pub(super) fn new(fields: Vec<Field>, aliases: Vec<(Box<str>, usize)>, capture: Option<usize>) -> Self {
        let mut names: Vec<(Box<str>, usize)> = Vec::with_capacity(fields.len() + aliases.len());
        names.extend(fields.iter().enumerate().map(|(index, field)| (field.name.clone(), index)));
        for (alias, index) in aliases {
            if names.iter().all(|(name, _)| *name != alias) {
                names.push((alias, index));
            }
        }
        Self { fields: fields.into(), names: Names::new(names), capture }
    }

    /// The index of the field of that name. `next` is tried first: senders mostly keep the schema's order.
    #[inline]
    pub(super) fn find(&self, name: &str, next: usize) -> Option<usize> {
        match self.fields.get(next) {
            Some(field) if *field.name == *name => Some(next),
            _ => self.names.find(name),
        }
    }
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    pub(super) node: Node,
    /// The default's datum.
    pub(super) default: Option<Box<[u8]>>,
}

#[derive(Debug)]
pub(super) struct Union {
    pub(super) branches: Box<[Branch]>,
    pub(super) null: Option<usize>,
    /// The branch besides null, where there is only one: the nullable, which is the hot case.
    pub(super) only: Option<usize>,
    /// Branches that a JSON object may be: the records, and the map.
    pub(super) objects: Box<[usize]>,
    by_text: bool,
}

#[derive(Debug)]
pub(super) struct Branch {
    /// The branch's name in Avro's JSON encoding: a full name, or the base type's.
    pub(super) tag: Box<str>,
    pub(super) node: Node,
}

impl Union {
    pub(super) fn new(branches: Vec<Branch>) -> Self {
        let indices = |wanted: fn(&Node) -> bool| {
            let of_kind = branches.iter().enumerate().filter(move |(_, branch)| wanted(&branch.node));
            of_kind.map(|(index, _)| index).collect::<Vec<_>>()
        };
        let null = indices(|node| matches!(node, Node::Null)).first().copied();
        let only = match indices(|node| !matches!(node, Node::Null))[..] {
            [only] => Some(only),
            _ => None,
        };
        let objects = indices(|node| matches!(node, Node::Record(_) | Node::Map(_)));
        let by_text = objects.len() > 1 || branches.iter().any(|branch| branch.node.by_text());
        Self { null, only, objects: objects.into(), by_text, branches: branches.into() }
    }

    /// The branch that a tag names; null has none.
    pub(super) fn tagged(&self, tag: &str) -> Option<usize> {
        let at = self.branches.iter().position(|branch| *branch.tag == *tag);
        at.filter(|at| Some(*at) != self.null)
    }
}

impl Node {
    /// Whether the value is first taken as its own text: numbers, because serde_json's would pass through
    /// f64 beyond 64 bits and may miss a double's last bit, and objects that several branches could take.
    #[inline]
    pub(super) fn by_text(&self) -> bool {
        match self {
            Self::Int
            | Self::Long
            | Self::Float
            | Self::Double
            | Self::Decimal(_)
            | Self::Date
            | Self::TimeMillis
            | Self::TimeMicros
            | Self::Timestamp(_)
            | Self::LocalTimestamp(_) => true,
            Self::Union(union) => union.by_text,
            _ => false,
        }
    }

    /// For messages: the type as the schema's author knows it.
    pub(super) fn describe(&self) -> String {
        let name = match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Fixed(size) => return format!("fixed of {size} bytes"),
            Self::Enum(_) => "enum symbol",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Record(_) => "record",
            Self::Union(union) => {
                let names: Vec<_> = union.branches.iter().map(|branch| branch.node.describe()).collect();
                return names.join(" or ");
            }
            Self::Decimal(decimal) => return format!("decimal({}, {})", decimal.precision, decimal.scale),
            Self::Uuid(_) => "uuid",
            Self::Date => "date",
            Self::TimeMillis => "time-millis",
            Self::TimeMicros => "time-micros",
            Self::Timestamp(Unit::Millis) => "timestamp-millis",
            Self::Timestamp(Unit::Micros) => "timestamp-micros",
            Self::Timestamp(Unit::Nanos) => "timestamp-nanos",
            Self::LocalTimestamp(Unit::Millis) => "local-timestamp-millis",
            Self::LocalTimestamp(Unit::Micros) => "local-timestamp-micros",
            Self::LocalTimestamp(Unit::Nanos) => "local-timestamp-nanos",
        };
        name.to_owned()
    }
}

type Slot = Option<(Box<str>, usize)>;

/// A fixed set of names and their values: an open-addressing table at most half full. The names come from the
/// schema, so nobody outside can choose them to collide, and a cheap hash will do.
#[derive(Debug)]
pub(super) struct Names {
    slots: Box<[Slot]>,
}

impl Names {
    pub(super) fn new(names: Vec<(Box<str>, usize)>) -> Self {
        let mut slots: Box<[Slot]> =
            std::iter::repeat_with(|| None).take((names.len() * 2).next_power_of_two()).collect();
        let mask = slots.len() - 1;
        for (name, value) in names {
            let mut at = hash(&name) & mask;
            while slots[at].is_some() {
                at = (at + 1) & mask;
            }
            slots[at] = Some((name, value));
        }
        Self { slots }
    }

    /// Ends at the first empty slot, of which there is always one.
    #[inline]
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash(name) & mask;
        while let Some((known, value)) = &self.slots[at] {
            if **known == *name {
                return Some(*value);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// In the order of their values.
    pub(super) fn list(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.slots.iter().flatten().collect();
        names.sort_unstable_by_key(|(_, value)| *value);
        names.into_iter().map(|(name, _)| &**name).collect()
    }
}

/// Length, first and last bytes tell field names apart well enough; the rest need not be read.
#[inline]
fn hash(name: &str) -> usize {
    let bytes = name.as_bytes();
    let ends = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(23),
        _ => bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
    };
    // The golden ratio's bits: an odd multiplier that spreads low differences to the high half, which is then used.
    let spread = (ends ^ (bytes.len() as u64)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (spread >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let names: Vec<String> = (0..500).map(|at| format!("field_number_{at}_of_many")).collect();
        let table = Names::new(names.iter().enumerate().map(|(at, name)| (name.as_str().into(), at)).collect());
        for (at, name) in names.iter().enumerate() {
            assert_eq!(table.find(name), Some(at));
        }
        assert_eq!(table.find("field_number_500_of_many"), None);
        assert_eq!(table.find(""), None);
        assert_eq!(Names::new(Vec::new()).find("a"), None);
    }
}
