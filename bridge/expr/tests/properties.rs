//! The look-up, the reader and the compiler on whatever comes.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-c\\\\\"é]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[ab]", inner), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn path() -> impl Strategy<Value = String> {
    let step =
        prop_oneof![Just(".a".to_owned()), Just(".b".to_owned()), Just(".[0]".to_owned()), Just(".[1]".to_owned())];
    prop::collection::vec(step, 0..4).prop_map(|steps| if steps.is_empty() { ".".into() } else { steps.concat() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The look-up and jaq say the same, whether it is a value, null or an error; alone and together with others.
    #[test]
    fn a_looked_up_path_is_jaqs_own_answer(document in json(), paths in prop::collection::vec(path(), 1..4)) {
        let text = document.to_string();
        let json = Json::new(text.as_bytes()).unwrap();
        let mut set = PathSet::default();
        for path in &paths {
            set.add(Program::compile(path).unwrap().path().unwrap());
        }
        let found = json.find(&set).unwrap();
        for (path, found) in paths.iter().zip(found) {
            let program = Program::compile(path).unwrap();
            prop_assert!(program.path().is_some());
            // Not a plain path any more, and the same question.
            let jaq = Program::compile(&format!("first({path})")).unwrap().eval(&json);
            match (found, jaq) {
                (Found::Value(text), Ok(jaq)) => prop_assert_eq!(text, jaq[0].text()),
                (Found::Nothing, Ok(jaq)) => prop_assert_eq!("null", jaq[0].text()),
                (Found::Mismatch(_), Err(Error::Failed { .. })) => {}
                (found, jaq) => prop_assert!(false, "{} on {}: {:?} and {:?}", path, text, found, jaq),
            }
        }
    }

    #[test]
    fn text_comes_back_as_it_was(document in json()) {
        let text = document.to_string();
        let results = eval("first(.)", text.as_bytes()).unwrap();
        prop_assert_eq!(&results[0], &text);
    }

    /// Whatever a person types: an answer or a problem, never a panic.
    #[test]
    fn no_text_breaks_the_compiler(text in "[a-z.\\[\\]{}()|,;:$@\"\\\\0-9 #?=-]{0,24}") {
        let _ = Program::compile(&text);
    }
}
