//! What a schema costs to read, before anything is read with it.
//!
//! apache-avro 0.22 recurses as deep as the bytes say, reserves as many items as a count claims, and allocates as
//! large a `fixed` as the schema names. A few hostile bytes under the wrong schema end the process, so schemas under
//! which that can happen are refused.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, FixedSchema, InnerDecimalSchema, Name, UuidSchema};

/// Values in one record, collections left out. The largest schema of the taxonomy has about a hundred.
pub const MAX_VALUES: u64 = 10_000;

/// Bytes of a `fixed`. Hashes and ids take 64 at most.
pub const MAX_FIXED: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{name}` contains itself: recursive schemas are refused, since nested data could exhaust the stack")]
    Recursive { name: String },
    #[error("an array's items take no bytes: a few bytes could claim any number of them")]
    EmptyItems,
    #[error("a record holds {values} values; {MAX_VALUES} is the limit")]
    TooManyValues { values: u64 },
    #[error("`{name}` is {size} bytes; {MAX_FIXED} is the limit of a fixed")]
    TooLarge { name: String, size: usize },
    #[error("`{name}` is used but not defined")]
    Undefined { name: String },
}

/// How a UUID lies in a datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UuidForm {
    Text,
    /// Its sixteen bytes: of another size a `fixed` is no UUID to the Avro library.
    Fixed,
    /// Not in the specification, but what apache-avro before 0.22 wrote for a fixed.
    Bytes,
}

impl From<&UuidSchema> for UuidForm {
    fn from(schema: &UuidSchema) -> Self {
        match schema {
            UuidSchema::String => Self::Text,
            UuidSchema::Bytes => Self::Bytes,
            UuidSchema::Fixed(_) => Self::Fixed,
        }
    }
}

/// Refuses a schema under which a few bytes can cost any amount of stack or memory.
pub fn check(schema: &Schema) -> Result<(), Error> {
    let cost = Measure::default().measure(schema)?;
    if cost.values > MAX_VALUES { Err(Error::TooManyValues { values: cost.values }) } else { Ok(()) }
}

/// The least that one value can be, and the most that it can hold.
#[derive(Debug, Clone, Copy)]
struct Cost {
    min_bytes: u64,
    values: u64,
}

const fn cost(min_bytes: u64, values: u64) -> Cost {
    Cost { min_bytes, values }
}

#[derive(Default)]
struct Measure<'s> {
    /// `None`: we are inside of it, so that meeting it again is recursion.
    named: HashMap<&'s Name, Option<Cost>>,
}

impl<'s> Measure<'s> {
    fn measure(&mut self, schema: &'s Schema) -> Result<Cost, Error> {
        Ok(match schema {
            Schema::Null => cost(0, 1),
            Schema::Float => cost(4, 1),
            Schema::Double => cost(8, 1),
            Schema::Array(array) => {
                if self.measure(&array.items)?.min_bytes == 0 {
                    return Err(Error::EmptyItems);
                }
                cost(1, 1)
            }
            Schema::Map(map) => {
                // A key takes a byte at least, whatever the value takes.
                self.measure(&map.types)?;
                cost(1, 1)
            }
            Schema::Union(union) => {
                let mut sum = cost(u64::MAX, 0);
                for branch in union.variants() {
                    let branch = self.measure(branch)?;
                    sum = cost(sum.min_bytes.min(branch.min_bytes), sum.values.max(branch.values));
                }
                cost(sum.min_bytes.saturating_add(1), sum.values.saturating_add(1))
            }
            Schema::Record(record) => {
                self.named.insert(&record.name, None);
                let mut sum = cost(0, 1);
                for field in &record.fields {
                    let field = self.measure(&field.schema)?;
                    sum = cost(sum.min_bytes.saturating_add(field.min_bytes), sum.values.saturating_add(field.values));
                }
                self.define(&record.name, sum)
            }
            Schema::Enum(of) => self.define(&of.name, cost(1, 1)),
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed))
            | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(fixed), .. }) => self.fixed(fixed)?,
            Schema::Ref { name } => match self.named.get(name) {
                Some(Some(cost)) => *cost,
                Some(None) => return Err(Error::Recursive { name: name.fullname(None) }),
                None => return Err(Error::Undefined { name: name.fullname(None) }),
            },
            // All others begin with a number or a length, a byte at least.
            _ => cost(1, 1),
        })
    }

    fn fixed(&mut self, fixed: &'s FixedSchema) -> Result<Cost, Error> {
        if fixed.size > MAX_FIXED {
            return Err(Error::TooLarge { name: fixed.name.fullname(None), size: fixed.size });
        }
        Ok(self.define(&fixed.name, cost(fixed.size as u64, 1)))
    }

    fn define(&mut self, name: &'s Name, cost: Cost) -> Cost {
        self.named.insert(name, Some(cost));
        cost
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(schema: &Value) -> Result<(), Error> {
        check(&Schema::parse_str(&schema.to_string()).unwrap())
    }

    #[test]
    fn a_record_that_contains_itself_is_refused_however_far_round() {
        let near = json!({"type": "record", "name": "a.Node", "fields": [{"name": "next", "type": ["null", "Node"]}]});
        assert_eq!(checked(&near), Err(Error::Recursive { name: "a.Node".into() }));
        let far = json!({"type": "record", "name": "A", "fields": [{"name": "b", "type": {"type": "record", "name": "B",
            "fields": [{"name": "as", "type": {"type": "map", "values": "A"}}]}}]});
        assert_eq!(checked(&far), Err(Error::Recursive { name: "A".into() }));
    }

    #[test]
    fn a_type_that_is_merely_used_twice_is_fine() {
        let twice = json!({"type": "record", "name": "A", "fields": [
            {"name": "x", "type": {"type": "record", "name": "B", "fields": [{"name": "n", "type": "long"}]}},
            {"name": "y", "type": "B"}, {"name": "z", "type": {"type": "array", "items": "B"}}]});
        assert_eq!(checked(&twice), Ok(()));
    }

    #[test]
    fn items_without_bytes_are_refused() {
        assert_eq!(checked(&json!({"type": "array", "items": "null"})), Err(Error::EmptyItems));
        let hollow = json!({"type": "array", "items": {"type": "record", "name": "H", "fields": [
            {"name": "n", "type": "null"}]}});
        assert_eq!(checked(&hollow), Err(Error::EmptyItems));
        assert_eq!(checked(&json!({"type": "array", "items": ["null", "string"]})), Ok(()));
    }

    #[test]
    fn a_small_schema_that_unfolds_into_a_large_value_is_refused() {
        // Each level holds the one below ten times: five levels are a hundred thousand values, from no bytes at all.
        let mut level = json!({"type": "record", "name": "L0", "fields": []});
        for n in 1..=5 {
            let below = format!("L{}", n - 1);
            let mut fields = vec![json!({"name": "f0", "type": level})];
            fields.extend((1..10).map(|f| json!({"name": format!("f{f}"), "type": below})));
            level = json!({"type": "record", "name": format!("L{n}"), "fields": fields});
        }
        assert!(matches!(checked(&level), Err(Error::TooManyValues { .. })));
    }

    #[test]
    fn a_fixed_beyond_the_limit_is_refused() {
        let huge = json!({"type": "fixed", "name": "Huge", "size": 1_u64 << 40});
        assert!(matches!(checked(&huge), Err(Error::TooLarge { .. })));
    }
}
