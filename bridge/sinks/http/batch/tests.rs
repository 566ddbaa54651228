use serde_json::json;

use super::super::tests::{delivery, receive_once, sink_at};
use super::*;
use crate::event::Identity;

fn ids(count: u128) -> Vec<Uuid> {
    (1..=count).map(Uuid::from_u128).collect()
}

fn batch(body: Body, failed: Option<Failed>) -> Batch {
    Batch { max_bytes: 1_000, body, failed }
}

/// Reads `failed` of an answer as an expression would that is nothing but a path.
fn failed() -> Failed {
    Arc::new(|answer| {
        let answer: Value = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
        Ok(vec![answer.get("failed").unwrap_or(&Value::Null).to_string()])
    })
}

fn deliveries(count: u128) -> Vec<Delivery> {
    let identity = |id: &Uuid| Identity { source: "shop".into(), id: id.to_string(), event_type: "sold".into() };
    ids(count).iter().map(|id| Delivery { delivery_id: *id, identity: identity(id), ..delivery() }).collect()
}

fn rejected(reason: &str) -> Outcome {
    Outcome::Rejected { reason: reason.into() }
}

fn judge(outcome: Outcome, answer: &Value, ids: &[Uuid]) -> Answers {
    batch(Body::Array, Some(failed())).judge(outcome, Some(answer.to_string().as_bytes()), ids)
}

const ELEMENT_1: &str = r#"{"id":"00000000-0000-0000-0000-000000000001","type":"sold","timestamp":"2026-01-01T00:00:00.000Z","data":{"total":19.90}}"#;

#[test]
fn a_body_is_an_array_or_lines_or_what_is_made_of_them_and_each_element_has_its_id() {
    let element_2 = ELEMENT_1.replace("001\",", "002\",");
    let deliveries = deliveries(2);
    let deliveries: Vec<_> = deliveries.iter().collect();
    let body = |body| String::from_utf8(batch(body, None).body_of(&deliveries).unwrap()).unwrap();
    assert_eq!(body(Body::Array), format!("[{ELEMENT_1},{element_2}]"));
    assert_eq!(body(Body::Lines), format!("{ELEMENT_1}\n{element_2}\n"));
    let wrap: Wrap = Arc::new(|elements| Ok([b"{\"batch\":", elements, b"}"].concat()));
    assert_eq!(body(Body::Made(wrap)), format!("{{\"batch\":[{ELEMENT_1},{element_2}]}}"));
    assert_eq!(batch(Body::Lines, None).content_type(), "application/x-ndjson");
}

#[test]
fn a_body_that_is_too_large_or_cannot_be_made_is_not_sent() {
    let one = delivery();
    let small = Batch { max_bytes: 100, ..batch(Body::Array, None) };
    assert!(small.body_of(&[&one]).unwrap_err().contains("batch.max_bytes"));
    let broken: Wrap = Arc::new(|_| Err("because".into()));
    assert_eq!(batch(Body::Made(broken), None).body_of(&[&one]).unwrap_err(), "batch.body: because");
}

#[test]
fn the_id_of_a_call_is_that_of_its_set() {
    let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
    assert_eq!(id_of(&[a, b]), id_of(&[b, a]));
    assert_ne!(id_of(&[a, b]), id_of(&[a, c]));
    assert_ne!(id_of(&[a]), a);
    // A literal: receivers dedupe by this value.
    assert_eq!(id_of(&[a, b]).to_string(), "da806b6d-c706-5001-9386-ec5a7e8f0cab");
}

#[test]
fn the_status_decides_where_an_answer_names_nobody() {
    let two = ids(2);
    for outcome in [Outcome::Delivered, rejected("400"), Outcome::Throttled { after: None }] {
        for answer in [json!({}), json!({"failed": []}), json!({"failed": null})] {
            assert_eq!(judge(outcome.clone(), &answer, &two), Answers::All(outcome.clone()));
        }
        let silent = batch(Body::Array, None);
        assert_eq!(silent.judge(outcome.clone(), Some(b"{\"failed\":[0]}"), &two), Answers::All(outcome.clone()));
    }
    // Nothing at all is read as null.
    let answers = batch(Body::Array, Some(failed())).judge(Outcome::Delivered, Some(b" "), &two);
    assert_eq!(answers, Answers::All(Outcome::Delivered));
}

#[test]
fn an_answer_names_events_by_place_or_id_with_a_reason_and_a_second_chance() {
    let ids = ids(4);
    let answer = json!({"failed": [
        0, { "id": ids[1], "reason": "no such customer" }, { "index": 3, "reason": "busy", "retry": true },
    ]});
    let others = "the receiver refused it, and took others of its batch";
    let expected = Answers::Each(vec![
        rejected(others),
        rejected("no such customer"),
        Outcome::Delivered,
        Outcome::Transient { reason: "busy".into() },
    ]);
    assert_eq!(judge(Outcome::Delivered, &answer, &ids), expected);
    // Mixpanel's way: 400, and the others are in.
    assert_eq!(judge(rejected("400"), &answer, &ids), expected);
    assert_eq!(expected.class(), "partial");
    let busy = Outcome::Transient { reason: "busy".into() };
    assert_eq!(judge(busy.clone(), &answer, &ids), Answers::All(busy), "it has taken none");
}

#[test]
fn an_answer_that_cannot_be_read_is_no_delivery_and_says_nothing_of_a_refusal() {
    let two = ids(2);
    for failed in [json!([7]), json!([-1]), json!([Uuid::from_u128(9)]), json!([true]), json!([{}]), json!("x")] {
        let answer = json!({ "failed": failed });
        let answers = judge(Outcome::Delivered, &answer, &two);
        assert!(
            matches!(&answers, Answers::All(Outcome::Unknown { reason }) if reason.contains("batch.failed")),
            "{answer}"
        );
        assert_eq!(judge(rejected("400"), &answer, &two), Answers::All(rejected("400")), "{answer}");
    }
    let batch = batch(Body::Array, Some(failed()));
    for answer in [None, Some(&b"<html>"[..])] {
        let answers = batch.judge(Outcome::Delivered, answer, &two);
        assert!(matches!(answers, Answers::All(Outcome::Unknown { .. })), "{answers:?}");
    }
}

#[tokio::test]
async fn a_batch_arrives_signed_and_its_answer_is_read() {
    let (sink, listener) = sink_at().await;
    let sink = sink.together(Some(batch(Body::Array, Some(failed()))));
    let deliveries = deliveries(2);
    let deliveries: Vec<_> = deliveries.iter().collect();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"failed\":[1]}";
    let ((answers, sent), request) =
        tokio::join!(sink.send_together(&deliveries), receive_once(listener, "}}]", Some(answer)));
    assert!(sent);
    let refused = rejected("the receiver refused it, and took others of its batch");
    assert_eq!(answers, Answers::Each(vec![Outcome::Delivered, refused]));
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("webhook-id: {}", id_of(&ids(2)))), "{head}");
    assert!(head.contains("webhook-signature: v1,"), "{head}");
    assert!(body.starts_with(&format!("[{ELEMENT_1},")), "{body}");
}
