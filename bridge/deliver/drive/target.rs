//! Where a driven sink sends.

use std::sync::Arc;

use crate::deliver::machine;
use crate::kafka::Record;
use crate::outcome::{Answers, Outcome};
use crate::schema::plan::Scratch;
use crate::sinks::Delivery;
use crate::sinks::http::Http;
use crate::sinks::kafka::Kafka;

/// Where events are sent.
#[derive(Debug)]
pub enum Target {
    Http(Box<Http>),
    Kafka(Kafka),
}

impl Target {
    pub(super) async fn send(&self, delivery: &Delivery, origin: &Record, scratch: &mut Scratch) -> machine::Ended {
        let outcome = match self {
            Self::Http(http) => http.send(delivery).await,
            // Nothing is sent before the transaction: until then it is a record that could be written.
            Self::Kafka(kafka) => match kafka.write(delivery, origin, scratch).await {
                Ok(output) => return machine::Ended::Written(Arc::new(output)),
                Err(outcome) => outcome,
            },
        };
        outcome.into()
    }

    /// Whether the sink has seen it, too.
    pub(super) async fn send_together(&self, deliveries: &[&Delivery]) -> (Answers, bool) {
        match self {
            Self::Http(http) => http.send_together(deliveries).await,
            // Its transaction is what it has for a batch, and nobody asks.
            Self::Kafka(_) => {
                let reason = "records are written one by one".into();
                (Answers::All(Outcome::Misconfigured { reason }), false)
            }
        }
    }
}
