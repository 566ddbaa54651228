//! Events as rows, column by column: one statement writes any number of them.

use std::sync::Arc;

use apache_avro::types::Value;
use tokio_postgres::types::{ToSql, Type};

use super::super::{Content, Delivery, Shape, json};
use super::columns::{Column, OWN, row_of};
use super::tables;
use crate::calendar::Rfc3339;
use crate::kafka::TopicPartition;

/// How events of one schema become rows of one table.
#[derive(Debug)]
pub(super) struct Layout {
    columns: Vec<Column>,
    insert: String,
}

impl Layout {
    /// `table`: quoted.
    pub(super) fn new(table: &str, columns: Vec<Column>) -> Self {
        Self { insert: tables::insert(table, &columns), columns }
    }
}

/// Rows of one layout.
pub(super) struct Rows {
    layout: Arc<Layout>,
    columns: Vec<Vec<Option<String>>>,
    offsets: Vec<i64>,
}

impl Rows {
    pub(super) fn new(layout: Arc<Layout>, capacity: usize) -> Self {
        let width = layout.columns.len() + OWN.len();
        Self { layout, columns: vec![Vec::with_capacity(capacity); width], offsets: Vec::with_capacity(capacity) }
    }

    pub(super) fn are_of(&self, layout: &Arc<Layout>) -> bool {
        Arc::ptr_eq(&self.layout, layout)
    }

    /// Adds an event's row, or says why it is none.
    pub(super) fn push(&mut self, delivery: &Delivery, at: &TopicPartition) -> Result<(), json::Error> {
        let (shape, value) = value_of(delivery)?;
        let values = row_of(shape, &self.layout.columns, value)?;
        for (column, value) in self.columns.iter_mut().zip(values.into_iter().chain(own_values(delivery, at))) {
            column.push(value);
        }
        self.offsets.push(delivery.offset);
        Ok(())
    }

    /// Of the rows, in their order.
    pub(super) fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// The statement, which gives the offsets of the rows that were not there before, and its parameters.
    pub(super) fn insert(&self) -> (&str, Vec<(&(dyn ToSql + Sync), Type)>) {
        let params = self.columns.iter().map(|column| (column as &(dyn ToSql + Sync), Type::TEXT_ARRAY));
        (&self.layout.insert, params.collect())
    }
}

/// Whoever gives events to this sink gives it values.
pub(super) fn value_of(delivery: &Delivery) -> Result<(&Shape, &Value), json::Error> {
    match &delivery.content {
        Content::Value { shape, value } => Ok((shape, value)),
        Content::Json(_) | Content::Mapped(_) => Err(json::Error::Mismatch { expected: "the fields of an event" }),
    }
}

/// What [`OWN`] columns hold, in their order.
fn own_values(delivery: &Delivery, at: &TopicPartition) -> [Option<String>; 7] {
    [
        Some(delivery.delivery_id.to_string()),
        Some(delivery.identity.id.clone()),
        Some(delivery.identity.source.clone()),
        Some(at.topic.to_string()),
        Some(at.partition.to_string()),
        Some(delivery.offset.to_string()),
        delivery.received_at_ms.map(|ms| Rfc3339::from_ms(ms).to_string()),
    ]
}
