//! Dead letters, and which of them a person may still send again. Pure.
//!
//! One that is sent again is a `requeued` receipt in the partition of its origin, which that partition's owner follows:
//! the sink gets it behind what its key has waiting, and nobody else does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::receipts::Stage;
use super::{Room, TooMany};
use crate::deliver::dead::{Grave, original};
use crate::deliver::receipt::ReceiptOutcome;
use crate::deliver::{DeadReason, Fate, Receipt};
use crate::kafka::{Record, TopicPartition};

/// A dead letter.
#[derive(Debug, Clone)]
pub struct Letter {
    pub grave: Grave,
    /// As it stands in the sink's topic of dead letters.
    pub record: Record,
    /// How often it was written before: it died again, or a writer that has no transaction wrote it twice.
    pub earlier: u32,
}

/// The dead letters of a sink: of each delivery the last one.
#[derive(Debug, Default)]
pub struct Letters {
    by_delivery: BTreeMap<Uuid, Letter>,
    /// Records that are no dead letters of ours.
    pub foreign: u64,
    room: Room,
}

impl Letters {
    /// Takes a record of the sink's topic of dead letters, whichever comes first.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take(&mut self, record: Record) -> Result<(), TooMany> {
        let Some(grave) = Grave::read(&record) else {
            self.foreign += 1;
            return Ok(());
        };
        let order = |record: &Record| (record.timestamp_ms, record.offset);
        let before = self.by_delivery.remove(&grave.delivery_id);
        let earlier = before.as_ref().map_or(0, |before| before.earlier + 1);
        if let Some(before) = &before {
            self.room.give_back(before.record.bytes());
        }
        let letter = match before {
            Some(before) if order(&before.record) > order(&record) => Letter { earlier, ..before },
            _ => Letter { grave, record, earlier },
        };
        self.room.take(letter.record.bytes())?;
        self.by_delivery.insert(letter.grave.delivery_id, letter);
        Ok(())
    }

    /// In the order of their origins: as they were published, partition by partition.
    #[must_use]
    pub fn in_order(self) -> Vec<Letter> {
        let mut letters: Vec<Letter> = self.by_delivery.into_values().collect();
        letters.sort_by(|one, other| one.origin().cmp(&other.origin()));
        letters
    }
}

impl Letter {
    fn origin(&self) -> (&str, i32, i64) {
        (&self.grave.origin_topic, self.grave.origin_partition, self.grave.origin_offset)
    }

    /// The event as the sink was given it.
    #[must_use]
    pub fn event(&self) -> Record {
        let Grave { origin_topic, origin_partition, origin_offset, .. } = &self.grave;
        Record {
            at: TopicPartition { topic: origin_topic.as_str().into(), partition: *origin_partition },
            offset: *origin_offset,
            timestamp_ms: self.record.timestamp_ms,
            key: self.record.key.clone(),
            value: self.record.value.clone(),
            headers: original(&self.record).collect(),
        }
    }

    /// Its body was too large to be kept twice, or retention had taken it.
    #[must_use]
    pub fn is_without_body(&self) -> bool {
        self.record.value.is_none()
            && (self.grave.left_out.is_some() || self.grave.reason == DeadReason::Expired.name())
    }

    /// The receipt that sends it again. Its attempts and its age begin anew: a person has seen to the reason.
    #[must_use]
    pub fn requeued(&self, now_ms: i64) -> Receipt {
        let record = self.event();
        Receipt {
            at: record.at.clone(),
            offset: record.offset,
            delivery_id: self.grave.delivery_id,
            fate: Fate::Requeued,
            detail: format!("was dead ({}): {}", self.grave.reason, self.grave.message),
            attempts: 0,
            age: Duration::ZERO,
            unsure_since: None,
            // No machine's number: it promises nothing.
            writer: 0,
            settled_at: Duration::from_millis(u64::try_from(now_ms).unwrap_or_default()),
            record: Arc::new(record),
            bare: self.is_without_body(),
            output: None,
        }
    }
}

/// Where a dead letter stands, by the receipts that were written since it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has sent it again, or it has died again.
    Dead,
    /// It was sent again, and is not settled.
    Requeued,
    Delivered,
    /// It was sent again, and the sink does not want it: no consent, filtered.
    Skipped,
}

impl Standing {
    /// `stages`: the receipts of its delivery, oldest first.
    #[must_use]
    pub fn of(stages: &[Stage]) -> Self {
        if stages.iter().any(|stage| stage.outcome == ReceiptOutcome::Delivered) {
            return Self::Delivered;
        }
        let told = stages.iter().rev().map(|stage| stage.outcome);
        match told.into_iter().find(|outcome| *outcome != ReceiptOutcome::Unknown) {
            Some(ReceiptOutcome::Requeued | ReceiptOutcome::Parked | ReceiptOutcome::Intent) => Self::Requeued,
            Some(ReceiptOutcome::Skipped) => Self::Skipped,
            _ => Self::Dead,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Requeued => "requeued",
            Self::Delivered => "delivered",
            Self::Skipped => "skipped",
        }
    }

    /// Whether to send it again means anything: a delivery is not repeated, and what waits is on its way.
    #[must_use]
    pub fn may_be_sent_again(self) -> bool {
        matches!(self, Self::Dead | Self::Skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Headers;

    fn dead(delivery: u128, origin: (i32, i64), at_ms: i64, offset: i64) -> Record {
        let record = Record {
            at: TopicPartition { topic: "dead.crm".into(), partition: 0 },
            offset,
            timestamp_ms: Some(at_ms),
            key: Some(b"cus_1".to_vec()),
            value: Some(vec![0, 0, 0, 0, 1, 2]),
            headers: [("ce_id", b"evt_1")].into_iter().collect(),
        };
        let grave = Grave {
            sink: "crm".to_owned(),
            delivery_id: Uuid::from_u128(delivery),
            origin_topic: "events.bought".to_owned(),
            origin_partition: origin.0,
            origin_offset: origin.1,
            reason: "rejected".to_owned(),
            message: "answered 422".to_owned(),
            attempts: 1,
            left_out: None,
        };
        Record { headers: grave.headers(&record, "0").into(), ..record }
    }

    fn stage(outcome: ReceiptOutcome) -> Stage {
        Stage {
            offset: 0,
            delivery_id: Uuid::nil(),
            origin: ("events.bought".to_owned(), 0, 0),
            outcome,
            reason: String::new(),
            message: String::new(),
            attempts: 1,
            vendor_reference: None,
            received_at: None,
            settled_at: 0,
        }
    }

    #[test]
    fn letters_come_in_the_order_of_their_origins_and_each_delivery_once() {
        let mut letters = Letters::default();
        for record in [
            dead(1, (1, 7), 10, 0),
            dead(2, (0, 9), 20, 1),
            dead(3, (0, 4), 30, 2),
            // The first died again, and that one is met first: topics are read side by side.
            dead(1, (1, 7), 5, 3),
            Record { headers: Headers::default(), ..dead(4, (0, 1), 1, 4) },
        ] {
            letters.take(record).unwrap();
        }
        assert_eq!(letters.foreign, 1);
        let order: Vec<_> = letters
            .in_order()
            .iter()
            .map(|letter| {
                (letter.grave.origin_partition, letter.grave.origin_offset, letter.earlier, letter.record.offset)
            })
            .collect();
        assert_eq!(order, [(0, 4, 0, 2), (0, 9, 0, 1), (1, 7, 1, 0)]);
    }

    #[test]
    fn a_letter_that_is_sent_again_is_the_event_as_it_was_before_it_died() {
        let mut letters = Letters::default();
        letters.take(dead(1, (1, 7), 10, 0)).unwrap();
        let letter = letters.in_order().remove(0);
        let receipt = letter.requeued(99);
        assert_eq!((receipt.at.to_string().as_str(), receipt.offset), ("events.bought/1", 7));
        assert_eq!(receipt.record.headers, [("ce_id", b"evt_1")].into_iter().collect());
        assert_eq!((receipt.attempts, receipt.age, receipt.unsure_since), (0, Duration::ZERO, None));
        assert_eq!(receipt.record.value, Some(vec![0, 0, 0, 0, 1, 2]));
    }

    #[test]
    fn a_letter_without_its_body_is_read_again_from_its_origin_and_a_tombstone_is_one() {
        let letter = |grave: Grave| {
            let record = Record { value: None, ..dead(1, (1, 7), 10, 0) };
            let record = Record { headers: grave.headers(&record, "0").into(), ..record };
            Letter { grave: Grave::read(&record).unwrap(), record, earlier: 0 }
        };
        let grave = Grave::read(&dead(1, (1, 7), 10, 0)).unwrap();
        assert!(!letter(grave.clone()).requeued(99).bare, "the event had none");
        assert!(letter(Grave { left_out: Some(9), ..grave.clone() }).requeued(99).bare);
        assert!(letter(Grave { reason: "expired".to_owned(), ..grave }).requeued(99).bare);
    }

    #[test]
    fn what_is_delivered_or_waits_is_not_sent_again() {
        use ReceiptOutcome as R;
        for (outcomes, standing) in [
            (&[][..], Standing::Dead),
            (&[R::Dead], Standing::Dead),
            (&[R::Dead, R::Requeued], Standing::Requeued),
            (&[R::Dead, R::Requeued, R::Parked], Standing::Requeued),
            (&[R::Dead, R::Requeued, R::Intent], Standing::Requeued),
            (&[R::Dead, R::Requeued, R::Dead], Standing::Dead),
            (&[R::Dead, R::Requeued, R::Skipped], Standing::Skipped),
            (&[R::Dead, R::Requeued, R::Delivered], Standing::Delivered),
            // Somebody was faster, and sent what is delivered by now.
            (&[R::Dead, R::Requeued, R::Delivered, R::Requeued], Standing::Delivered),
            (&[R::Dead, R::Unknown], Standing::Dead),
        ] {
            let stages: Vec<Stage> = outcomes.iter().map(|outcome| stage(*outcome)).collect();
            assert_eq!(Standing::of(&stages), standing, "{outcomes:?}");
        }
    }
}
