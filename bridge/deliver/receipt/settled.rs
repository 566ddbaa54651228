//! Between what the machine settles and what stands in Kafka: the one place that knows both.

use std::sync::Arc;
use std::time::Duration;

use super::{Original, Receipt, ReceiptOutcome};
use crate::calendar::parse_rfc3339;
use crate::deliver::keys::KeyId;
use crate::deliver::settle::{self, DeadReason, Fate, Followed};
use crate::event::header;
use crate::kafka::{Record, TopicPartition};
use crate::outcome::SkipReason;

/// A message may quote a sink's answer; a receipt is one of millions, and a person reads a line.
const MAX_MESSAGE: usize = 1024;

/// The receipt of what the machine has settled.
#[must_use]
pub fn receipt_of(settled: &settle::Receipt) -> Receipt<'_> {
    let record = &*settled.record;
    let keeps_record = matches!(settled.fate, Fate::Parked | Fate::Requeued) && !settled.bare;
    Receipt {
        delivery_id: settled.delivery_id,
        origin_topic: &settled.at.topic,
        origin_partition: settled.at.partition,
        origin_offset: settled.offset,
        outcome: outcome(settled.fate),
        reason: settled.fate.reason(),
        message: &settled.detail[..settled.detail.floor_char_boundary(MAX_MESSAGE)],
        attempts: i32::try_from(settled.attempts).unwrap_or(i32::MAX),
        vendor_reference: None,
        received_at: received_at(record),
        settled_at: millis(settled.settled_at),
        failing_ms: millis(settled.age),
        unsure_since: settled.unsure_since.map(millis),
        writer: settled.writer.cast_signed(),
        original: keeps_record.then(|| Original {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: record.headers.iter().collect(),
            timestamp: record.timestamp_ms,
        }),
    }
}

/// What the machine remembers of a receipt that stands at `position` and has this `key`. `None`: of a newer version,
/// which knows outcomes that this one does not.
#[must_use]
pub fn followed(receipt: &Receipt<'_>, position: i64, key: Option<&[u8]>) -> Option<Followed> {
    Some(Followed {
        position,
        delivery_id: receipt.delivery_id,
        key: KeyId::of(key, receipt.delivery_id),
        origin: receipt.origin_offset,
        fate: fate(receipt.outcome, receipt.reason)?,
        attempts: u32::try_from(receipt.attempts).unwrap_or_default(),
        age: duration(receipt.failing_ms),
        unsure_since: receipt.unsure_since.map(duration),
        writer: receipt.writer.cast_unsigned(),
        settled_at: duration(receipt.settled_at),
    })
}

/// The event that a parked or requeued receipt holds, as it was read at first. `None`: it holds none.
#[must_use]
pub fn record_of(receipt: &Receipt<'_>) -> Option<Record> {
    let original = receipt.original.as_ref()?;
    let at = TopicPartition { topic: Arc::from(receipt.origin_topic), partition: receipt.origin_partition };
    Some(Record {
        at,
        offset: receipt.origin_offset,
        timestamp_ms: original.timestamp,
        key: original.key.map(<[u8]>::to_vec),
        value: original.value.map(<[u8]>::to_vec),
        headers: original.headers.iter().copied().collect(),
    })
}

/// When the first byte of its request was read, milliseconds since the epoch; else the record's own time.
#[must_use]
pub fn received_at(record: &Record) -> Option<i64> {
    record.header(header::RECEIVED_AT).and_then(parse_rfc3339).or(record.timestamp_ms)
}

fn outcome(fate: Fate) -> ReceiptOutcome {
    match fate {
        Fate::Delivered => ReceiptOutcome::Delivered,
        Fate::Skipped(_) => ReceiptOutcome::Skipped,
        Fate::Dead(_) => ReceiptOutcome::Dead,
        Fate::Parked => ReceiptOutcome::Parked,
        Fate::Requeued => ReceiptOutcome::Requeued,
        Fate::Intent => ReceiptOutcome::Intent,
    }
}

/// A reason that only a newer version knows says nothing that would be treated otherwise: of the skipped ones a
/// duplicate alone is special, and all dead ones are alike.
fn fate(outcome: ReceiptOutcome, reason: &str) -> Option<Fate> {
    const SKIPPED: [SkipReason; 4] =
        [SkipReason::NoConsent, SkipReason::Filtered, SkipReason::NotSubscribed, SkipReason::Duplicate];
    const DEAD: [DeadReason; 5] =
        [DeadReason::Rejected, DeadReason::TooOld, DeadReason::NoAnswer, DeadReason::PastWindow, DeadReason::Expired];
    Some(match outcome {
        ReceiptOutcome::Unknown => return None,
        ReceiptOutcome::Delivered => Fate::Delivered,
        ReceiptOutcome::Skipped => {
            let found = SKIPPED.into_iter().find(|one| one.name() == reason);
            Fate::Skipped(found.unwrap_or(SkipReason::Filtered))
        }
        ReceiptOutcome::Dead => {
            Fate::Dead(DEAD.into_iter().find(|one| one.name() == reason).unwrap_or(DeadReason::Rejected))
        }
        ReceiptOutcome::Parked => Fate::Parked,
        ReceiptOutcome::Requeued => Fate::Requeued,
        ReceiptOutcome::Intent => Fate::Intent,
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const FATES: [Fate; 13] = [
        Fate::Delivered,
        Fate::Skipped(SkipReason::NoConsent),
        Fate::Skipped(SkipReason::Filtered),
        Fate::Skipped(SkipReason::NotSubscribed),
        Fate::Skipped(SkipReason::Duplicate),
        Fate::Dead(DeadReason::Rejected),
        Fate::Dead(DeadReason::TooOld),
        Fate::Dead(DeadReason::NoAnswer),
        Fate::Dead(DeadReason::PastWindow),
        Fate::Dead(DeadReason::Expired),
        Fate::Parked,
        Fate::Requeued,
        Fate::Intent,
    ];

    fn settled(fate: Fate) -> settle::Receipt {
        let at = TopicPartition { topic: Arc::from("events.order_placed"), partition: 3 };
        let record = Record {
            at: at.clone(),
            offset: 41,
            timestamp_ms: Some(1_700_000_000_000),
            key: Some(b"c1".to_vec()),
            value: Some(vec![0, 0, 0, 0, 7, 1]),
            headers: [(header::RECEIVED_AT, "2023-11-14T22:13:20.125Z")].into_iter().collect(),
        };
        settle::Receipt {
            at,
            offset: 41,
            delivery_id: Uuid::from_u128(5),
            fate,
            detail: "ü".repeat(MAX_MESSAGE),
            attempts: 3,
            age: Duration::from_millis(61_250),
            unsure_since: Some(Duration::from_millis(1_700_000_001_500)),
            // The highest bit, too.
            writer: u64::MAX - 6,
            settled_at: Duration::from_secs(1_700_000_062),
            bare: false,
            output: None,
            record: Arc::new(record),
        }
    }

    #[test]
    fn what_the_machine_needs_survives_the_way_through_kafka() {
        for fate in FATES {
            let settled = settled(fate);
            let mut value = Vec::new();
            receipt_of(&settled).encode(7, &mut value);
            let read = Receipt::decode(7, &value).unwrap();
            assert_eq!(Receipt::outcome_of(7, &value), Some(read.outcome));
            assert_eq!(Receipt::outcome_of(8, &value), None);
            let expected = Followed {
                position: 9,
                delivery_id: settled.delivery_id,
                key: KeyId::of(Some(b"c1"), settled.delivery_id),
                origin: 41,
                fate,
                attempts: 3,
                age: settled.age,
                unsure_since: settled.unsure_since,
                writer: settled.writer,
                settled_at: settled.settled_at,
            };
            assert_eq!(followed(&read, 9, Some(b"c1")), Some(expected), "{fate:?}");
            assert_eq!(read.message.len(), MAX_MESSAGE);
            assert_eq!(read.received_at, Some(1_700_000_000_125));
        }
    }

    #[test]
    fn only_parked_and_requeued_ones_hold_the_record_and_it_is_the_original() {
        for fate in FATES {
            let settled = settled(fate);
            let mut value = Vec::new();
            receipt_of(&settled).encode(7, &mut value);
            let record = record_of(&Receipt::decode(7, &value).unwrap());
            assert_eq!(record.is_some(), matches!(fate, Fate::Parked | Fate::Requeued), "{fate:?}");
            if let Some(record) = record {
                assert_eq!(format!("{record:?}"), format!("{:?}", settled.record));
            }
        }
    }

    #[test]
    fn what_a_newer_version_knows_is_taken_for_the_nearest_thing_or_left_out() {
        assert_eq!(fate(ReceiptOutcome::Skipped, "on_holiday"), Some(Fate::Skipped(SkipReason::Filtered)));
        assert_eq!(fate(ReceiptOutcome::Dead, "cursed"), Some(Fate::Dead(DeadReason::Rejected)));
        assert_eq!(fate(ReceiptOutcome::Unknown, ""), None);
    }
}
