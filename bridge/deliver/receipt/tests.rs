use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;

use super::*;

const ID: u32 = 7;

/// A receipt that owns what it says.
#[derive(Debug, Clone)]
struct Owned {
    id: u128,
    topic: String,
    place: (i32, i64),
    outcome: usize,
    reason: String,
    attempts: i32,
    reference: Option<String>,
    times: (Option<i64>, i64),
    message: String,
    failing: (i64, Option<i64>, i64),
    original: Option<OwnedOriginal>,
}

type OwnedOriginal = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>, Option<i64>);

impl Owned {
    fn receipt(&self) -> Receipt<'_> {
        Receipt {
            delivery_id: Uuid::from_u128(self.id),
            origin_topic: &self.topic,
            origin_partition: self.place.0,
            origin_offset: self.place.1,
            outcome: ReceiptOutcome::ALL[self.outcome],
            reason: &self.reason,
            message: &self.message,
            attempts: self.attempts,
            vendor_reference: self.reference.as_deref(),
            received_at: self.times.0,
            settled_at: self.times.1,
            failing_ms: self.failing.0,
            unsure_since: self.failing.1,
            writer: self.failing.2,
            original: self.original.as_ref().map(|(key, value, headers, timestamp)| Original {
                key: key.as_deref(),
                value: value.as_deref(),
                headers: headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect(),
                timestamp: *timestamp,
            }),
        }
    }
}

fn receipts() -> impl Strategy<Value = Owned> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let original = (
        proptest::option::of(bytes()),
        proptest::option::of(bytes()),
        proptest::collection::vec((".{0,8}", bytes()), 0..4),
        any::<Option<i64>>(),
    );
    let parts = (
        any::<u128>(),
        ".{0,20}",
        any::<(i32, i64)>(),
        0..ReceiptOutcome::ALL.len(),
        ".{0,12}",
        any::<i32>(),
        proptest::option::of(".{0,12}"),
        any::<(Option<i64>, i64)>(),
        (".{0,12}", any::<(i64, Option<i64>, i64)>(), proptest::option::of(original)),
    );
    let owned = |(id, topic, place, outcome, reason, attempts, reference, times, rest)| {
        let (message, failing, original) = rest;
        Owned { id, topic, place, outcome, reason, attempts, reference, times, message, failing, original }
    };
    parts.prop_map(owned)
}

fn encoded(receipt: &Receipt<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    receipt.encode(ID, &mut out);
    out
}

fn delivered() -> Receipt<'static> {
    Receipt {
        delivery_id: Uuid::from_u128(1),
        origin_topic: "events.purchase_completed",
        origin_partition: 3,
        origin_offset: 1_000_000,
        outcome: ReceiptOutcome::Delivered,
        reason: "",
        message: "",
        attempts: 1,
        vendor_reference: None,
        received_at: Some(1_700_000_000_000),
        settled_at: 1_700_000_000_250,
        failing_ms: 0,
        unsure_since: None,
        writer: 9,
        original: None,
    }
}

proptest! {
    #[test]
    fn the_avro_library_reads_what_is_written_here(owned in receipts()) {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let receipt = owned.receipt();
        let framed = encoded(&receipt);
        let mut datum = &framed[wire::HEADER_LEN..];
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let value = reader.read_value(&mut datum).unwrap();
        prop_assert!(datum.is_empty());
        prop_assert_eq!(Receipt::from_value(&value).unwrap(), receipt);
        // And what the library writes is read here.
        let mut again = wire::header(ID).to_vec();
        GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).map(|datum| again.extend(datum)).unwrap();
        prop_assert_eq!(Receipt::decode(ID, &again).unwrap(), owned.receipt());
    }

    #[test]
    fn a_receipt_is_read_as_it_was_written(owned in receipts()) {
        let framed = encoded(&owned.receipt());
        prop_assert_eq!(Receipt::decode(ID, &framed).unwrap(), owned.receipt());
    }

    #[test]
    fn a_receipt_that_was_cut_short_or_is_anything_else_is_refused_and_nothing_worse(
        owned in receipts(), cut in any::<prop::sample::Index>(), noise in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let framed = encoded(&owned.receipt());
        prop_assert!(Receipt::decode(ID, &framed[..cut.index(framed.len())]).is_err());
        let mut foreign = wire::header(ID).to_vec();
        foreign.extend(&noise);
        let _ = Receipt::decode(ID, &foreign);
    }
}

#[test]
fn the_symbols_are_those_of_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let names: Vec<_> = ReceiptOutcome::ALL.iter().map(|one| one.name()).collect();
    assert_eq!(schema["fields"][4]["type"]["symbols"], serde_json::json!(names));
    assert_eq!(SUBJECT, format!("{}.{}", schema["namespace"].as_str().unwrap(), schema["name"].as_str().unwrap()));
}

#[test]
fn another_schemas_receipt_names_its_schema() {
    let framed = encoded(&delivered());
    assert_eq!(Receipt::decode(ID + 1, &framed), Err(Error::OtherSchema { id: ID }));
    assert!(matches!(Receipt::decode(ID, b"{}"), Err(Error::Frame(_))));
}

#[test]
fn bytes_behind_a_receipt_are_refused() {
    let mut framed = encoded(&delivered());
    framed.push(0);
    assert_eq!(Receipt::decode(ID, &framed), Err(Error::Trailing { left: 1 }));
}

#[test]
fn an_array_that_claims_more_than_there_is_ends_where_the_datum_ends() {
    let receipt = Receipt { original: Some(Original::default()), ..delivered() };
    let mut framed = encoded(&receipt);
    // The count of headers, behind which only the null timestamp follows.
    let count = framed.len() - 2;
    framed.splice(count..=count, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(Receipt::decode(ID, &framed).is_err());
}
