use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::expr::{Json, Program};

fn splitter(each: &[&str], parent_as: Option<&str>) -> Splitter {
    let each = each.iter().map(|&path| path.to_owned()).collect();
    Splitter::compile(&Split { each, parent_as: parent_as.map(str::to_owned), form: None }).unwrap()
}

fn split<'a>(splitter: &Splitter, document: &'a str) -> Vec<Cow<'a, str>> {
    splitter.split(document).unwrap_or_else(|error| panic!("{document}: {error}"))
}

#[test]
fn the_events_of_an_array_are_slices_of_the_body() {
    let body = "\r\n [ {\"a\" : [1, {\"b\":\"]}\"}] } ,\n null,2e3, \"x\\u005d\",[ ], {}]\r\n";
    let events = split(&splitter(&[".[]"], None), body);
    assert_eq!(events, ["{\"a\" : [1, {\"b\":\"]}\"}] }", "null", "2e3", "\"x\\u005d\"", "[ ]", "{}"]);
    let within = body.as_bytes().as_ptr_range();
    assert!(events.iter().all(|event| within.contains(&event.as_ptr())), "nothing is copied");
}

#[test]
fn what_has_no_array_where_one_was_expected_is_one_event() {
    let arrays = splitter(&[".[]"], None);
    let nested = splitter(&[".entry[].changes[]", ".entry[].messaging[]"], None);
    for (splitter, document, events) in [
        (&arrays, " {\"a\": [1]}\n", vec!["{\"a\": [1]}"]),
        (&arrays, "5", vec!["5"]),
        (&arrays, "null", vec!["null"]),
        // Whoever maps it finds out that it is not JSON.
        (&arrays, "nothing", vec!["nothing"]),
        (&arrays, "[]", vec![]),
        (&arrays, "[[1, 2], []]", vec!["[1, 2]", "[]"]),
        (&nested, r#"{"entry": [{"changes": [1, 2]}, {"messaging": [3], "changes": [4]}]}"#, vec!["1", "2", "3", "4"]),
        (&nested, r#"{"entry": [{"changes": []}]}"#, vec![]),
        (&nested, r#"{"entry": []}"#, vec![]),
        (&nested, r#"{"entry": {"changes": {"a": 1}}}"#, vec![r#"{"a": 1}"#]),
        (&nested, r#"{"entry": [{"changes": null, "id": 1}]}"#, vec![r#"{"changes": null, "id": 1}"#]),
        (&nested, r#"{"entry": [{"id": 1}, {"changes": [2]}, 3]}"#, vec![r#"{"id": 1}"#, "2", "3"]),
        (&nested, r#"{"entry": null}"#, vec![r#"{"entry": null}"#]),
        (&nested, r#"{"object": "page"}"#, vec![r#"{"object": "page"}"#]),
        (&nested, "[1]", vec!["[1]"]),
        (&nested, r#"{"entry": 5}"#, vec!["5"]),
        (&nested, r#"{"entr\u0079": [{"\u0063hanges": [1]}]}"#, vec!["1"]),
    ] {
        assert_eq!(split(splitter, document), events, "{document}");
    }
}

#[test]
fn an_event_has_what_is_around_it_where_a_name_for_it_is_given() {
    let splitter = splitter(&[".entry[].changes[]", ".entry[].messaging[]"], Some("up \"there\""));
    let body = r#"{"a": 1.10, "entry": [{"id": "x", "changes": [{"field": "f"}, { }, 7], "time": 2, "messaging": []},
                  {"id": "y", "odd": [{}]}], "object": "\u0070age"}"#;
    let events = split(&splitter, body);
    let root = r#"{"a":1.10,"object":"\u0070age"}"#;
    let entry = format!(r#"{{"id":"x","time":2,"up \"there\"":{root}}}"#);
    assert_eq!(
        events,
        [
            format!(r#"{{"field": "f","up \"there\"":{entry}}}"#),
            format!(r#"{{ "up \"there\"":{entry}}}"#),
            // No object has room for it.
            "7".to_owned(),
            format!(r#"{{"id": "y", "odd": [{{}}],"up \"there\"":{root}}}"#),
        ]
    );
    let whole = split(&splitter, r#"{"object": "page"}"#);
    assert_eq!(whole, [r#"{"object": "page"}"#], "what is the request itself has nothing around it");
    let array =
        Splitter::compile(&Split { each: vec![".[]".into()], parent_as: Some("p".into()), form: None }).unwrap();
    assert_eq!(split(&array, r#"[{"a": 1}]"#), [r#"{"a": 1}"#], "an array has no fields");
}

#[test]
fn a_forms_field_holds_the_document() {
    let form = Split { each: vec![".[]".into()], parent_as: None, form: Some("mandrill_events".into()) };
    let splitter = Splitter::compile(&form).unwrap();
    let document = splitter.document(b"a=b&mandrill_events=%5B%7B%22m%22%3A%22x+y%22%7D%2C2%5D").unwrap();
    assert_eq!(split(&splitter, &document), [r#"{"m":"x y"}"#, "2"]);
    for body in [&b"mandrill_event=%5B%5D"[..], b"[]", b"", b"mandrill_events=1&mandrill_events=2"] {
        let error = splitter.document(body).unwrap_err();
        assert_eq!(error, Error::NoForm { field: "mandrill_events".into() });
    }
    assert_eq!(splitter.document(b"mandrill_events=%ff").unwrap_err().reason(), "not_json");
}

#[test]
fn what_cannot_be_split_is_told_with_its_place() {
    let arrays = splitter(&[".[]"], None);
    let nested = splitter(&[".a[].b[]"], None);
    for (splitter, document, what, at) in [
        (&arrays, "", None, 0),
        (&arrays, "[", Some("an early end"), 1),
        (&arrays, "\n [1,\n2", Some("an early end"), 7),
        (&arrays, "[1 2]", Some("text that is not JSON"), 3),
        (&arrays, "[1,]", Some("text that is not JSON"), 3),
        (&arrays, "[1] 2", Some("text that is not JSON"), 4),
        (&nested, "{\"a\": [}", Some("text that is not JSON"), 7),
    ] {
        match what {
            // An empty body is one event, which whoever maps it finds not to be JSON.
            None => assert_eq!(split(splitter, document), [""]),
            Some(what) => {
                assert_eq!(splitter.split(document), Err(Error::NotJson(NotJson { what, at })), "{document}");
            }
        }
    }
    assert_eq!(arrays.document(b"[\"\xff\"]").unwrap_err().reason(), "not_json");
    let twice = Error::Repeated { field: "b".into() };
    assert_eq!(nested.split(r#"{"a": [{"b": [1], "\u0062": [2]}]}"#), Err(twice));
    // Not as deep as that: no recursion over what a sender nests.
    let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(split(&arrays, &deep).len(), 1);
}

#[test]
fn a_request_has_a_bounded_number_of_events_and_of_bytes() {
    let arrays = splitter(&[".[]"], None);
    let document = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    assert_eq!(split(&arrays, &document(MAX_EVENTS)).len(), MAX_EVENTS);
    assert_eq!(arrays.split(&document(MAX_EVENTS + 1)), Err(Error::TooMany));

    let with_parents = splitter(&[".e[]"], Some("p"));
    let document = |bytes: usize| format!(r#"{{"x": "{}", "e": {}}}"#, "x".repeat(bytes), document(1_000));
    assert_eq!(split(&with_parents, &document(MAX_BUILT / 1_100)).len(), 1_000);
    assert_eq!(with_parents.split(&document(MAX_BUILT / 1_000)), Err(Error::TooLarge));
}

#[test]
fn a_description_with_a_hole_is_told_whole() {
    let split =
        Split { each: vec![".a".into(), "b[]".into()], parent_as: Some(String::new()), form: Some(String::new()) };
    assert_eq!(
        Splitter::compile(&split).unwrap_err(),
        [
            Problem::Path { path: ".a".into() },
            Problem::Path { path: "b[]".into() },
            Problem::Empty { key: "parent_as" },
            Problem::Empty { key: "form" },
        ]
    );
    assert_eq!(Splitter::compile(&Split::default()).unwrap_err(), [Problem::NoPath]);
    let many = Split { each: vec![".[]".into(); path::MAX_PATHS + 1], ..Split::default() };
    assert_eq!(Splitter::compile(&many).unwrap_err(), [Problem::TooManyPaths { count: path::MAX_PATHS + 1 }]);
}

/// JSON of every kind, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Such as serde_json reads exactly.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
        "[\\[\\]{}\",:\\\\ ]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c\"\\\\{\\[]{0,2}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Written with white space wherever JSON allows it, and every character of a text perhaps as an escape; `dice` decide.
fn written(value: &Value, dice: &mut impl Iterator<Item = u8>) -> String {
    fn space(dice: &mut impl Iterator<Item = u8>) -> &'static str {
        ["", "", " ", "\n", "\t\r\n "][usize::from(dice.next().unwrap_or(0) % 5)]
    }
    fn text(of: &str, dice: &mut impl Iterator<Item = u8>) -> String {
        let mut written = String::from("\"");
        for character in of.chars() {
            if dice.next().unwrap_or(0).is_multiple_of(4) {
                let mut units = [0; 2];
                written.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            } else {
                written.push_str(serde_json::to_string(&character).unwrap().trim_matches('"'));
                if character == '"' {
                    written.truncate(written.len() - 1);
                    written.push_str("\\\"");
                }
            }
        }
        written.push('"');
        written
    }
    let inner = match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| written(item, dice)).collect();
            format!("[{}{}]", space(dice), items.join(","))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| {
                    format!("{}{}{}:{}", space(dice), text(key, dice), space(dice), written(value, dice))
                })
                .collect();
            format!("{{{}{}}}", fields.join(","), space(dice))
        }
        Value::String(of) => text(of, dice),
        other => other.to_string(),
    };
    [space(dice), &inner, space(dice)].concat()
}

fn read(events: &[Cow<'_, str>]) -> Vec<Value> {
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

proptest! {
    #[test]
    fn the_elements_are_those_that_serde_json_reads(
        items in prop::collection::vec(any_json(), 0..6),
        dice in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let body = written(&Value::from(items.clone()), &mut dice.iter().copied().cycle().take(10_000));
        prop_assert_eq!(&serde_json::from_str::<Vec<Value>>(&body).unwrap(), &items, "the writer is right");
        let splitter = splitter(&[".[]"], None);
        let events = split(&splitter, &body);
        prop_assert_eq!(read(&events), items);
        let joined = format!("[{}]", events.join(","));
        prop_assert_eq!(serde_json::from_str::<Value>(&joined).unwrap(), serde_json::from_str::<Value>(&body).unwrap());
    }

    #[test]
    fn nested_elements_are_those_that_serde_json_reads_with_what_is_around_them(
        entries in prop::collection::vec((prop::collection::vec(any_json(), 1..4), any_json()), 1..4),
        other in any_json(),
        dice in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let document = json!({
            "entry": entries.iter().map(|(items, id)| json!({"id": id, "changes": items})).collect::<Vec<_>>(),
            "object": other,
        });
        let body = written(&document, &mut dice.iter().copied().cycle().take(10_000));
        let expected: Vec<(Value, Value)> = entries.iter().flat_map(|(items, id)| {
            items.iter().map(move |item| (item.clone(), id.clone()))
        }).collect();

        let plain = read(&split(&splitter(&[".entry[].changes[]"], None), &body));
        prop_assert_eq!(&plain, &expected.iter().map(|(item, _)| item.clone()).collect::<Vec<_>>());

        let with_parents = read(&split(&splitter(&[".entry[].changes[]"], Some("parent")), &body));
        for ((item, id), event) in expected.into_iter().zip(with_parents) {
            let mut item = item;
            if let Value::Object(fields) = &mut item {
                fields.insert("parent".into(), json!({"id": id, "parent": {"object": other}}));
            }
            prop_assert_eq!(event, item);
        }
    }

    #[test]
    fn any_text_is_split_or_refused_and_never_more_than_it_holds(body in "[\\[\\]{}\",:\\\\ a1\u{e4}]{0,40}") {
        for splitter in [splitter(&[".[]"], None), splitter(&[".a[]", ".\"\"[].a[]"], None)] {
            if let Ok(events) = splitter.split(&body) {
                let bytes: usize = events.iter().map(|event| event.len()).sum();
                prop_assert!(bytes <= body.len());
            }
        }
    }
}

/// What a preset makes of a body: each event, with the first of the preset's ids that it has.
fn identified(preset: &str, body: &str) -> Vec<(String, Option<String>)> {
    let scheme = crate::catalog::preset(preset).unwrap();
    let splitter = Splitter::compile(scheme.split.as_ref().unwrap()).unwrap();
    let programs: Vec<Program> = scheme.event_id.iter().map(|text| Program::compile(text).unwrap()).collect();
    let id = |event: &str| {
        let event = Json::new(event.as_bytes()).unwrap();
        let mut ids = programs.iter().filter_map(|program| program.scalar(&event).unwrap());
        ids.find(|id| !id.is_empty())
    };
    split(&splitter, body).into_iter().map(|event| (event.to_string(), id(&event))).collect()
}

#[test]
fn the_presets_that_split_give_each_event_an_id_of_its_own() {
    let ids = |preset: &str, body: Value| -> Vec<Option<String>> {
        identified(preset, &body.to_string()).into_iter().map(|(_, id)| id).collect()
    };
    let some = |texts: &[&str]| texts.iter().map(|&text| Some(text.to_owned())).collect::<Vec<_>>();
    let of_hubspot = json!({"eventId": 1, "subscriptionId": 2, "portalId": 3, "objectId": 4, "occurredAt": 5});
    assert_eq!(ids("hubspot", json!([of_hubspot, {"vid": 1}])), [Some("3:2:1:4:5".to_owned()), None]);
    assert_eq!(ids("sendgrid", json!([{"sg_event_id": "a"}, {"sg_event_id": "b"}])), some(&["a", "b"]));
    assert_eq!(ids("segment", json!({"messageId": "one"})), some(&["one"]));

    let of_meta = |entry: Value| ids("meta", json!({"object": "o", "entry": [entry]}));
    let change = |value: Value| json!({"field": "f", "value": value});
    assert_eq!(of_meta(json!({"id": "1", "changes": [change(json!({"leadgen_id": "lead"}))]})), some(&["lead"]));
    // WhatsApp tells of one message several times: once that it came, and for one of ours each of its states.
    let whatsapp = json!({"id": "1", "changes": [
        change(json!({"messages": [{"id": "m1"}, {"id": "m2"}]})),
        change(json!({"statuses": [{"id": "m3", "status": "sent"}]})),
        change(json!({"statuses": [{"id": "m3", "status": "read"}]})),
    ]});
    assert_eq!(of_meta(whatsapp), some(&["m1,m2", "m3:sent", "m3:read"]));
    let messenger = json!({"id": "1", "messaging": [{"message": {"mid": "mid1"}, "sender": {"id": "s"}}]});
    assert_eq!(of_meta(messenger), some(&["mid1"]));
    // A page's changes have no id: two of one field and second are two, and a repeat of them is the same two.
    let feed =
        json!({"time": 9, "id": "1", "changes": [change(json!({"item": "like"})), change(json!({"item": "post"}))]});
    let first = of_meta(feed.clone());
    assert!(
        first.iter().flatten().all(|id| id.starts_with("o:1:9:f:") && id.len() == "o:1:9:f:".len() + 16),
        "{first:?}"
    );
    assert_ne!(first[0], first[1]);
    assert_eq!(of_meta(feed), first);
}
