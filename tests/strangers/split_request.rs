//! Bodies as a stranger may send them, split by every preset that splits and by a form's field: no panic; the elements of
//! an array are those that serde_json reads, text for text; and an event of a JSON document is JSON, with its parents.

use std::sync::LazyLock;

use hookbridge::catalog::{self, Split};
use hookbridge::ingest::split::Splitter;
use serde_json::Value;
use serde_json::value::RawValue;

static ARRAY: LazyLock<Splitter> = LazyLock::new(|| preset("sendgrid"));
static OTHERS: LazyLock<[Splitter; 2]> = LazyLock::new(|| {
    let form = Split { each: vec![".[]".into()], parent_as: None, form: Some("f".into()) };
    [preset("meta"), Splitter::compile(&form).expect("a description without a hole")]
});

fn preset(name: &str) -> Splitter {
    let split = catalog::preset(name).expect("a preset").split.expect("one that splits");
    Splitter::compile(&split).expect("a description without a hole")
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 6] = [
        br#" [{"a": 1}, {"b": [1, "]"]}, "x", 1.5e3, null, true]"#,
        br#"{"object": "page", "entry": [{"id": "1", "changes": [{"field": "x", "value": {}}, {"field": "y"}]}, {"id": "2"}]}"#,
        br#"{"entry": [{"messaging": [{"a": "\u00fc\"}"}]}]}"#,
        b"f=%5B%7B%22a%22%3A1%7D%2C%7B%7D%5D&g=x",
        b"a=b&f=[1,2]&f=[3]",
        b"[[[[[[[[[[]]]]]]]]]]",
    ];
    seeds.map(<[u8]>::to_vec).into()
}

pub(crate) fn meet(body: &[u8]) {
    if let Ok(document) = ARRAY.document(body)
        && document.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('[')
    {
        let read = serde_json::from_str::<Vec<&RawValue>>(&document);
        match (ARRAY.split(&document), read) {
            (Ok(events), Ok(read)) => assert!(events.iter().eq(read.iter().map(|raw| raw.get()))),
            (Err(_), Err(_)) => {}
            (split, read) => panic!("{split:?}, and serde_json says {read:?}"),
        }
    }
    for splitter in &*OTHERS {
        let Ok(document) = splitter.document(body) else { continue };
        let Ok(events) = splitter.split(&document) else { continue };
        if serde_json::from_str::<Value>(&document).is_ok() {
            // Not parsed to values: the parents are nesting that the sender did not write.
            assert!(events.iter().all(|event| serde_json::from_str::<&RawValue>(event).is_ok()));
        }
    }
}
