//! What a sink would make of a record now: everything that comes before the sending, and nothing of it.

use std::fmt;
use std::sync::Arc;

use super::attempt::{Policy, Preparation, Prepared};
use crate::kafka::Record;
use crate::outcome::{Outcome, SkipReason};
use crate::schema::Decoder;

/// A sink's schema registry, filter, consent and map, without the sink.
pub struct Rehearsal {
    sink: String,
    preparation: Preparation,
}

/// What would become of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It would be sent; what the sink says of it is not known.
    Sent,
    Skipped(SkipReason),
    /// It would not be sent, or not now.
    Refused(Outcome),
}

impl fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rehearsal").field("sink", &self.sink).finish_non_exhaustive()
    }
}

impl Rehearsal {
    #[must_use]
    pub fn new(sink: &str, decoder: Decoder, policy: Policy) -> Self {
        Self { sink: sink.to_owned(), preparation: Preparation::new(Arc::new(decoder), policy) }
    }

    /// What would become of an event that was read at this place.
    pub async fn of(&self, record: &Record) -> Verdict {
        match self.preparation.prepare(&self.sink, record, None).await {
            Ok(Prepared::Send(_)) => Verdict::Sent,
            Ok(Prepared::Skip(reason)) => Verdict::Skipped(reason),
            Err(unfit) => Verdict::Refused(unfit.outcome),
        }
    }
}
