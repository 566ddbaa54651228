//! Records of a receipts topic, which anybody with the right may write: read or refused, and what is read is written byte
//! for byte as it was, or at least says the same.

use hookbridge::deliver::receipt::{Original, Receipt, ReceiptOutcome, followed, record_of};
use uuid::Uuid;

const SCHEMA_ID: u32 = 7;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let plain = Receipt {
        delivery_id: Uuid::from_u128(0x1234),
        origin_topic: "events.order_placed",
        origin_partition: 3,
        origin_offset: 41,
        outcome: ReceiptOutcome::Delivered,
        reason: "",
        message: "",
        attempts: 1,
        vendor_reference: None,
        received_at: None,
        settled_at: 1_767_225_600_000,
        failing_ms: 0,
        unsure_since: None,
        writer: 9,
        original: None,
    };
    let original = Original {
        key: Some(b"c1"),
        value: None,
        headers: vec![("ce_id", b"evt_1"), ("x", b"\xff")],
        timestamp: Some(1_767_225_600_000),
    };
    let parked = Receipt {
        outcome: ReceiptOutcome::Parked,
        reason: "transient",
        message: "the receiver answered 503",
        vendor_reference: Some("r"),
        received_at: Some(1),
        unsure_since: Some(2),
        original: Some(original),
        ..plain.clone()
    };
    let encode = |receipt: &Receipt<'_>| {
        let mut value = Vec::new();
        receipt.encode(SCHEMA_ID, &mut value);
        value
    };
    vec![encode(&plain), encode(&parked)]
}

pub(crate) fn meet(data: &[u8]) {
    let Ok(receipt) = Receipt::decode(SCHEMA_ID, data) else { return };
    let mut again = Vec::new();
    receipt.encode(SCHEMA_ID, &mut again);
    assert_eq!(Receipt::decode(SCHEMA_ID, &again).as_ref(), Ok(&receipt));
    if let Some(followed) = followed(&receipt, 5, Some(b"c1")) {
        assert_eq!(followed.delivery_id, receipt.delivery_id);
    }
    if let Some(record) = record_of(&receipt) {
        assert_eq!(record.offset, receipt.origin_offset);
    }
}
