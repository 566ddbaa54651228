use super::*;

const PLACE: &str = r#"{"type":"record","name":"Place","namespace":"c","fields":[{"name":"at","type":"string"}]}"#;
const TRIP: &str = r#"{"type":"record","name":"Trip","fields":[{"name":"to","type":"c.Place"}]}"#;

fn ask(registry: &Builtin, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let (status, answer) = registry.answer(method, path, &body);
    (status, serde_json::from_slice(&answer).unwrap())
}

fn get(registry: &Builtin, path: &str) -> (u16, Value) {
    ask(registry, "GET", path, &Value::Null)
}

fn filled() -> Builtin {
    let registry = Builtin::new();
    assert_eq!(
        ask(&registry, "POST", "/subjects/c.Place/versions", &json!({"schema": PLACE})),
        (200, json!({"id": 1}))
    );
    let trip = json!({"schema": TRIP, "schemaType": "AVRO",
                      "references": [{"name": "c.Place", "subject": "c.Place", "version": 1}]});
    assert_eq!(ask(&registry, "POST", "/subjects/trips-value/versions", &trip), (200, json!({"id": 2})));
    registry
}

#[test]
fn a_reader_finds_a_schema_by_id_with_its_references() {
    let registry = filled();
    assert_eq!(get(&registry, "/schemas/ids/1?deleted=true"), (200, json!({"schema": PLACE})));
    let references = json!([{"name": "c.Place", "subject": "c.Place", "version": 1}]);
    assert_eq!(get(&registry, "/schemas/ids/2?subject=trips-value").1["references"], references);
    assert_eq!(get(&registry, "/schemas/ids/2/versions").1, json!([{"subject": "trips-value", "version": 1}]));
    assert_eq!(
        get(&registry, "/subjects/trips-value/versions/latest"),
        (200, json!({"subject": "trips-value", "version": 1, "id": 2, "schema": TRIP, "references": references}))
    );
}

#[test]
fn the_same_content_keeps_its_id_whatever_its_layout_and_under_every_subject() {
    let registry = filled();
    let spaced = PLACE.replace(':', " : ");
    let body = json!({"schema": spaced});
    assert_eq!(ask(&registry, "POST", "/subjects/c.Place/versions", &body).1, json!({"id": 1}));
    assert_eq!(ask(&registry, "POST", "/subjects/other/versions", &body).1, json!({"id": 1}));
    assert_eq!(get(&registry, "/subjects/c.Place/versions").1, json!([1]));
    assert_eq!(ask(&registry, "POST", "/subjects/c.Place?deleted=false", &body).1["version"], 1);
    let longer = PLACE.replace("\"fields\"", "\"doc\":\"d\",\"fields\"");
    assert_eq!(ask(&registry, "POST", "/subjects/c.Place/versions", &json!({"schema": longer})).1, json!({"id": 3}));
    assert_eq!(get(&registry, "/subjects/c.Place/versions").1, json!([1, 2]));
}

#[test]
fn what_is_not_there_has_confluents_codes() {
    let registry = filled();
    let code = |answer: (u16, Value)| (answer.0, answer.1["error_code"].as_u64().unwrap());
    assert_eq!(code(get(&registry, "/subjects/no/versions")), (404, 40401));
    assert_eq!(code(get(&registry, "/subjects/no/versions/latest")), (404, 40401));
    assert_eq!(code(get(&registry, "/subjects/c.Place/versions/9")), (404, 40402));
    assert_eq!(code(get(&registry, "/subjects/c.Place/versions/0")), (422, 42202));
    assert_eq!(code(get(&registry, "/subjects/c.Place/versions/x")), (422, 42202));
    assert_eq!(code(get(&registry, "/schemas/ids/77")), (404, 40403));
    assert_eq!(code(get(&registry, "/schemas/ids/0")), (404, 40403));
    assert_eq!(code(ask(&registry, "POST", "/subjects/no", &json!({"schema": PLACE}))), (404, 40401));
    assert_eq!(code(ask(&registry, "POST", "/subjects/c.Place", &json!({"schema": "\"int\""}))), (404, 40403));
    assert_eq!(code(get(&registry, "/nowhere")), (404, 404));
    assert_eq!(code(ask(&registry, "DELETE", "/subjects/c.Place", &Value::Null)), (405, 405));
}

#[test]
fn a_schema_that_nobody_could_read_is_not_taken() {
    let registry = filled();
    let code = |body: &Value| ask(&registry, "POST", "/subjects/new/versions", body).1["error_code"].clone();
    assert_eq!(code(&json!({"schema": "{"})), 42201);
    assert_eq!(code(&json!({"schema": TRIP})), 42201);
    assert_eq!(code(&json!({"schema": "\"int\"", "schemaType": "JSON"})), 42201);
    let recursive = r#"{"type":"record","name":"N","fields":[{"name":"n","type":["null","N"]}]}"#;
    assert_eq!(code(&json!({"schema": recursive})), 42201);
    let missing = json!([{"name": "c.Place", "subject": "c.Place", "version": 5}]);
    assert_eq!(code(&json!({"schema": TRIP, "references": missing})), 40402);
    assert_eq!(code(&json!(7)), 400);
    assert!(!registry.subjects().contains(&"new".to_owned()));
}

#[test]
fn a_subject_may_hold_any_letters() {
    let registry = Builtin::new();
    let body = json!({"schema": "\"int\""});
    assert_eq!(ask(&registry, "POST", "/subjects/a%2Fb%20%C3%A4-value/versions", &body).0, 200);
    assert_eq!(get(&registry, "/subjects").1, json!(["a/b ä-value"]));
    assert_eq!(percent_decode("100%"), "100%");
    assert_eq!(percent_decode("%zz%+1"), "%zz%+1");
}

#[test]
fn it_has_an_end() {
    let registry = Builtin::new();
    for n in 0..MAX_VERSIONS {
        registry.register(&format!("s{n}"), "\"int\"", Vec::new()).unwrap();
    }
    assert_eq!(registry.register("one more", "\"int\"", Vec::new()), Err(Error::Full));
    assert_eq!(registry.register("s0", "\"int\"", Vec::new()).unwrap().version, 1);
    let (status, _) = registry.answer("POST", "/subjects/s0", &vec![b' '; MAX_BODY + 1]);
    assert_eq!(status, 413);
}
