//! What holds for any schema and any document.

use proptest::prelude::*;

use super::document::Dice;
use super::generate::any_type;
use super::*;

fn encode(plan: &Plan, json: &[u8]) -> Result<Vec<u8>, Vec<(String, &'static str)>> {
    let mut out = Vec::new();
    match plan.encode(json, &mut Scratch::default(), &mut out) {
        Ok(_) => Ok(out),
        Err(refused) => {
            assert_eq!(out, b"");
            let found = refused.into_violations();
            Err(found.first.into_iter().map(|violation| (violation.pointer, violation.reason.name())).collect())
        }
    }
}

proptest! {
    #[test]
    fn apache_avro_reads_what_was_meant(kind in any_type(), seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let (schema, (doc, value)) = (kind.schema(), kind.sample(&mut dice));
        let plan = Plan::compile(&schema, UnknownFields::Reject).unwrap();
        let json = doc.text(&mut dice);
        let datum = encode(&plan, json.as_bytes());
        prop_assert!(datum.is_ok(), "{json} as {schema}: {datum:?}");
        prop_assert_eq!(read(&schema, &datum.unwrap()), value, "{} as {}", json, schema);
    }

    #[test]
    fn the_order_of_fields_changes_nothing(kind in any_type(), seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let plan = Plan::compile(&kind.schema(), UnknownFields::Reject).unwrap();
        let (mut doc, _) = kind.sample(&mut dice);
        let in_order = encode(&plan, doc.text(&mut dice).as_bytes());
        doc.shuffle(&mut dice);
        prop_assert_eq!(encode(&plan, doc.text(&mut dice).as_bytes()), in_order);
    }

    #[test]
    fn exactly_what_was_planted_is_found(kind in any_type(), seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let schema = kind.schema();
        let plan = Plan::compile(&schema, UnknownFields::Reject).unwrap();
        let (mut doc, _) = kind.sample(&mut dice);
        doc.shuffle(&mut dice);
        let mut planted = Vec::new();
        doc.corrupt("", &mut dice, &mut planted);
        let json = doc.text(&mut dice);
        let mut found = encode(&plan, json.as_bytes()).err().unwrap_or_default();
        // The first hundred are whichever came first.
        prop_assume!(planted.len() <= 100);
        planted.sort();
        found.sort();
        prop_assert_eq!(found, planted, "{} as {}", json, schema);
    }

    #[test]
    fn broken_text_is_refused_or_still_right(kind in any_type(), seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let schema = kind.schema();
        let plan = Plan::compile(&schema, UnknownFields::Drop).unwrap();
        let mut json = kind.sample(&mut dice).0.text(&mut dice).into_bytes();
        for _ in 0..=dice.below(3) {
            let at = dice.below(json.len());
            match dice.below(4) {
                0 => json[at] = dice.next().to_le_bytes()[0],
                1 => json[at] = b"{}[]\",:\\0-.e"[dice.below(12)],
                2 => json.truncate(at + 1),
                _ => drop(json.remove(at)),
            }
            if json.is_empty() {
                break;
            }
        }
        if let Ok(datum) = encode(&plan, &json) {
            read(&schema, &datum);
        }
    }
}
