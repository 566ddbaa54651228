//! Records of a topic of dead letters: one of ours, or foreign; and a letter that dies again says the same once more.

use hookbridge::deliver::dead::{Grave, original};
use hookbridge::kafka::{Record, TopicPartition};
use hookbridge::replay::dead::Letters;
use uuid::Uuid;

/// Headers as the bytes say: zero bytes part names from values and values from names.
pub(crate) fn record(data: &[u8]) -> Record {
    let mut parts = data.split(|byte| *byte == 0);
    let mut headers = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        headers.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    let at = TopicPartition { topic: "dead.crm".into(), partition: 0 };
    let value = (!data.len().is_multiple_of(3)).then(|| data.to_vec());
    Record {
        at,
        offset: 17,
        timestamp_ms: (!data.len().is_multiple_of(2)).then_some(1),
        key: None,
        value,
        headers: headers.into(),
    }
}

/// The other way.
pub(crate) fn bytes(headers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let parts = headers.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_slice()]);
    parts.collect::<Vec<_>>().join(&0)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let grave = Grave {
        sink: "crm".to_owned(),
        delivery_id: Uuid::from_u128(7),
        origin_topic: "events.order_placed".to_owned(),
        origin_partition: 3,
        origin_offset: 41,
        reason: "rejected".to_owned(),
        message: "the receiver answered 422: ü".to_owned(),
        attempts: 2,
        left_out: None,
    };
    let event = record(b"ce_id\0evt_1\0ce_type\0order_placed\0ce_source\0shop");
    let huge = Grave { message: "ü".repeat(3_000), ..grave.clone() };
    vec![bytes(&grave.headers(&event, "0")), bytes(&huge.headers(&event, "0"))]
}

pub(crate) fn meet(data: &[u8]) {
    let record = record(data);
    if let Some(grave) = Grave::read(&record) {
        let again = Record { headers: grave.headers(&record, "0").into(), ..record.clone() };
        let read = Grave::read(&again).expect("what we write we read");
        assert!(grave.message.starts_with(&read.message), "a message is cut, never changed");
        assert_eq!(Grave { message: grave.message.clone(), ..read }, grave);
        assert!(original(&again).eq(original(&record)), "the event's own headers stay as they were");
    }
    let mut letters = Letters::default();
    for offset in 0..2 {
        letters.take(Record { offset, ..record.clone() }).expect("two are not too many");
    }
    let foreign = letters.foreign;
    for letter in letters.in_order() {
        assert_eq!((letter.record.offset, letter.earlier, foreign), (1, 1, 0));
        assert_eq!(letter.requeued(1_767_225_600_000).delivery_id, letter.grave.delivery_id);
        assert!(original(&letter.event()).eq(original(&record)));
    }
}
