//! Events that were handed over: on their way to Kafka by this request or by another one, or there already.

use tokio::time::Instant;

use super::answer::{Receipt, Schema, Status};
use super::dedupe::{Duplicate, Memory, Waiter};
use super::line::Route;
use super::map::Mapped;
use super::publish::{Sent, Unconfirmed};
use crate::kafka::Position;

/// What became of an event when it was handed over.
pub(super) enum Handed {
    Sent(Sent),
    /// Another request's record of the same event is on its way. `value` is the event's own, should that one fail.
    Awaited {
        waiter: Waiter,
        value: Vec<u8>,
    },
    Duplicate(Duplicate),
}

/// Where an event stands.
pub(super) enum Confirmed {
    Accepted(Position),
    Duplicate(Duplicate),
}

impl Handed {
    /// Waits for Kafka's word, until the deadline. `again` hands the event over anew.
    pub(super) async fn confirmed(
        mut self,
        memory: &Memory,
        deadline: Instant,
        again: impl Fn(&[u8]) -> Result<Self, Unconfirmed>,
    ) -> Result<Confirmed, Unconfirmed> {
        let reported = self.reported(memory, again);
        tokio::time::timeout_at(deadline, reported).await.map_err(|_| Unconfirmed::Deadline)?
    }

    /// The place where an event's outcome is learnt. An event is written again only once the report on the record that
    /// was waited for has failed. May be dropped and asked again.
    async fn reported(
        &mut self,
        memory: &Memory,
        again: impl Fn(&[u8]) -> Result<Self, Unconfirmed>,
    ) -> Result<Confirmed, Unconfirmed> {
        loop {
            match self {
                Self::Sent(sent) => return sent.reported().await.map(Confirmed::Accepted),
                Self::Duplicate(duplicate) => return Ok(Confirmed::Duplicate(duplicate.clone())),
                Self::Awaited { waiter, value } => match memory.report(waiter).await {
                    Some(duplicate) => *self = Self::Duplicate(duplicate),
                    None => *self = again(value)?,
                },
            }
        }
    }
}

impl Confirmed {
    pub(super) fn receipt<'a>(&'a self, event: &'a Mapped<'_>, route: &'a Route) -> Receipt<'a> {
        let receipt = match self {
            Self::Accepted(position) => {
                Receipt { schema: Some(route.schema()), ..Receipt::new(Status::Accepted).at(&route.topic, *position) }
            }
            Self::Duplicate(Duplicate { destination, position }) => Receipt {
                schema: Some(Schema {
                    subject: &destination.subject,
                    version: destination.version,
                    id: destination.schema_id,
                }),
                deduplicated: true,
                ..Receipt::new(Status::Duplicate).at(&destination.topic, *position)
            },
        };
        Receipt { event_id: Some(&event.id), event_type: Some(&event.event_type), ..receipt }
    }
}

/// The events of one request on their way, in their order.
#[derive(Default)]
pub(super) struct InFlight(Vec<Handed>);

impl InFlight {
    pub(super) fn push(&mut self, handed: Handed) {
        self.0.push(handed);
    }

    /// Waits until Kafka has confirmed all of them; the first that it did not is the answer. `again` hands over anew the
    /// event of that place.
    pub(super) async fn confirmed(
        mut self,
        memory: &Memory,
        deadline: Instant,
        again: impl Fn(usize, &[u8]) -> Result<Handed, Unconfirmed>,
    ) -> Result<Vec<Confirmed>, Unconfirmed> {
        let mut confirmed = Vec::with_capacity(self.0.len());
        let all = async {
            for (place, handed) in self.0.iter_mut().enumerate() {
                confirmed.push(handed.reported(memory, |value| again(place, value)).await?);
            }
            Ok(())
        };
        tokio::time::timeout_at(deadline, all).await.map_err(|_| Unconfirmed::Deadline)??;
        Ok(confirmed)
    }
}

impl Drop for InFlight {
    /// One task for what is left, instead of one for each.
    fn drop(&mut self) {
        let sent = self.0.drain(..).filter_map(|handed| match handed {
            Handed::Sent(sent) if sent.is_open() => Some(sent),
            _ => None,
        });
        let left: Vec<Sent> = sent.collect();
        if left.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for mut sent in left {
                // Counted there; nobody asks for it any more.
                let _ = sent.reported().await;
            }
        });
    }
}
