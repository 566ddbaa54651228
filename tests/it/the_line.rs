//! The whole line, from a request to a row: what was accepted is there, once and as it was sent, and nothing else is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::harness::avro::Decoder;
use crate::harness::bridge::{Bridge, Receipt, Setup};
use crate::harness::http::{Request, Response};
use crate::harness::postgres::Database;
use crate::harness::reader::Record;
use crate::harness::{Random, eventually, senders, services};

const REQUESTS: usize = 2_000;
const CONNECTIONS: usize = 16;

/// What a request is, and so what has to become of it.
#[derive(Debug, Clone)]
enum Fate {
    /// An event with this id, type, key and value.
    Accepted { id: String, event_type: &'static str, key: String, value: Value },
    /// In quarantine, byte for byte.
    Quarantined,
    /// Answered 2xx and published nowhere.
    Ignored,
    /// Refused with this status.
    Refused(u16),
}

#[derive(Debug, Clone)]
struct Sent {
    source: &'static str,
    request: Request,
    fate: Fate,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_in_the_topics_and_in_the_database_once_and_nothing_else_is() {
    let database = Database::create(&services().postgres).await;
    let setup = Setup { database: Some(database.url.clone()), ..Setup::new("line") };
    let bridge = Bridge::start(setup).await;
    let mut random = Random::seeded("the_line");
    let sent: Vec<Sent> = (0..REQUESTS).map(|number| request(number, &mut random)).collect();

    let answers = send_all(&bridge, &sent).await;
    let answered: Vec<(&Sent, &Response)> = sent.iter().zip(&answers).collect();
    for (sent, answer) in &answered {
        check_answer(sent, answer, &bridge);
    }

    let records = read(&bridge);
    check_topics(&bridge, &answered, &records).await;
    check_quarantine(&bridge, &answered, &records);
    check_database(&database, &answered).await;
    check_metrics(&bridge, &answered).await;
}

/// Request `number`: of every kind that a source can meet, more good than bad.
fn request(number: usize, random: &mut Random) -> Sent {
    let id = format!("evt_{number}");
    match random.below(100) {
        0..35 => order("shop", id, number, random),
        35..50 => order("strict", id, number, random),
        50..60 => invoice(number, random),
        60..70 => lead(number),
        70..76 => {
            let mut forged = order("shop", id, number, random);
            *forged.request.body.last_mut().unwrap() = b' ';
            Sent { fate: Fate::Refused(401), ..forged }
        }
        76..83 => invalid("shop", &id, Fate::Quarantined),
        83..87 => invalid("strict", &id, Fate::Refused(422)),
        87..90 => standard("shop", &id, b"{\"type\": \"order_placed\", \"data\": {", Fate::Quarantined),
        90..92 => standard("strict", &id, b"not JSON at all \xff\x00", Fate::Refused(400)),
        92..95 => standard("shop", &id, br#"{"type": "nobody_knows", "data": {"a": 1}}"#, Fate::Quarantined),
        95..97 => {
            let body = json!({ "id": id, "type": "customer.created", "created": 1_700_000_000, "data": {} });
            let request = senders::stripe(body.to_string().as_bytes());
            Sent { source: "payments", request, fate: Fate::Ignored }
        }
        97..99 => standard("shop", &id, &vec![b' '; (1 << 20) + 1], Fate::Refused(413)),
        _ => {
            let mut unknown = order("shop", id, number, random);
            "/hooks/nobody".clone_into(&mut unknown.request.path);
            Sent { source: "nobody", fate: Fate::Refused(401), ..unknown }
        }
    }
}

fn standard(source: &'static str, id: &str, body: &[u8], fate: Fate) -> Sent {
    Sent { source, request: senders::standard(source, id, body), fate }
}

/// An order with a value in every field, written as text, for no JSON library must come between the sender's numbers
/// and the bridge.
fn order(source: &'static str, id: String, number: usize, random: &mut Random) -> Sent {
    let customer = format!("customer-{}", random.below(50));
    // Whole and fractional amounts, beyond what a double holds.
    let total = format!("{}.{:04}", random.below(99_999_999_999_999), random.below(10_000));
    let points = random.next().cast_signed();
    let quantity = i32::try_from(random.below(1 << 31)).unwrap() - (1 << 30);
    let reference = uuid::Uuid::from_u128(u128::from(random.next()) << 64 | u128::from(random.next()));
    let gift = random.below(2) == 0;
    let tier = ["free", "paid"][number % 2];
    let price = random.below(1_000);
    let body = format!(
        r#"{{"type": "order_placed", "timestamp": "2026-01-02T03:04:05Z", "data": {{
            "customer_id": "{customer}", "sequence": {number}, "placed_at": "2026-03-04T05:06:07.089Z", "due": "2026-12-31",
            "total": {total}, "points": {points}, "quantity": {quantity}, "ratio": 0.1, "gift": {gift}, "tier": "{tier}",
            "reference": "{reference}", "note": "gr\u00fc\u00df \"Gott\" \ud83d\ude00 Ωmega\n",
            "items": [{{"sku": "A-{number}", "price": {price}.5, "tags": ["new", ""]}}, {{"sku": "B"}}],
            "shipping": {{"country": "AT"}}, "attributes": {{"a.b": "c", "": "empty"}},
            "consent": {{"email_marketing": {gift}}} }} }}"#
    );
    let value = json!({
        "customer_id": customer, "sequence": number, "placed_at": 1_772_600_767_089_i64, "due": 20_818,
        "total": total, "points": points, "quantity": quantity, "ratio": 0.1, "gift": gift, "tier": tier,
        "reference": reference.to_string(), "note": "grüß \"Gott\" \u{1f600} Ωmega\n",
        "items": [
            { "sku": format!("A-{number}"), "price": format!("{price}.5000"), "tags": ["new", ""] },
            { "sku": "B", "price": null, "tags": [] }
        ],
        "shipping": { "country": "AT", "city": null }, "attributes": { "a.b": "c", "": "empty" },
        "consent": { "email_marketing": gift },
    });
    let request = senders::standard(source, &id, body.as_bytes());
    Sent { source, request, fate: Fate::Accepted { id, event_type: "order_placed", key: customer, value } }
}

/// An order as its schema has it, where nothing but the key was sent.
fn order_of(customer: &str) -> Value {
    json!({
        "customer_id": customer, "sequence": 0, "placed_at": null, "due": null, "total": null, "points": 0, "quantity": 1,
        "ratio": null, "gift": false, "tier": null, "reference": null, "items": [], "shipping": null, "note": null,
        "attributes": {}, "consent": {},
    })
}

fn invoice(number: usize, random: &mut Random) -> Sent {
    let (id, customer) = (format!("evt_stripe_{number}"), format!("cus_{}", random.below(20)));
    let (created, cents) = (1_700_000_000 + random.below(1_000_000), random.below(1_000_000));
    let body = json!({
        "id": id, "object": "event", "type": "invoice.paid", "created": created,
        "data": { "object": { "customer": customer, "amount_paid": cents, "currency": "usd" } },
    });
    let mut value = order_of(&customer);
    value["placed_at"] = json!(created * 1000);
    value["total"] = json!(format!("{}.{:02}00", cents / 100, cents % 100));
    let request = senders::stripe(body.to_string().as_bytes());
    Sent { source: "payments", request, fate: Fate::Accepted { id, event_type: "order_placed", key: customer, value } }
}

fn lead(number: usize) -> Sent {
    let id = format!("submission-{number}");
    let body = json!({
        "submission_id": id, "email": format!("  Lead.{number}@Example.COM "), "form_id": "newsletter",
        "consent": { "email_marketing": true },
    });
    let hash = hex::encode(Sha256::digest(format!("lead.{number}@example.com")));
    let value = json!({ "email_sha256": hash, "form": "newsletter", "consent": { "email_marketing": true } });
    let request = senders::lead(body.to_string().as_bytes());
    Sent { source: "leads", request, fate: Fate::Accepted { id, event_type: "contact_added", key: hash, value } }
}

/// Three violations in one event.
fn invalid(source: &'static str, id: &str, fate: Fate) -> Sent {
    let body =
        br#"{"type": "order_placed", "data": {"customer_id": "c", "tier": "gold", "quantity": 2147483648, "odd": 1}}"#;
    standard(source, id, body, fate)
}

/// Sends everything over a few connections, and gives the answers in the order of the requests.
async fn send_all(bridge: &Bridge, sent: &[Sent]) -> Vec<Response> {
    let sent: Arc<[Sent]> = sent.into();
    let mut senders = JoinSet::new();
    for first in 0..CONNECTIONS {
        let sent = Arc::clone(&sent);
        let mut connection = bridge.connect().await.expect("a connection");
        let port = bridge.port();
        senders.spawn(async move {
            let mut answers = Vec::new();
            for at in (first..sent.len()).step_by(CONNECTIONS) {
                let answer = connection.send(&sent[at].request).await.expect("every request has an answer");
                // After a body that it did not read, a server can only close.
                if answer.closes() || answer.status == 413 {
                    connection = crate::harness::http::Connection::open(port).await.expect("a new connection");
                }
                answers.push((at, answer));
            }
            answers
        });
    }
    let mut answers: Vec<(usize, Response)> = senders.join_all().await.into_iter().flatten().collect();
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn check_answer(sent: &Sent, answer: &Response, bridge: &Bridge) {
    match &sent.fate {
        Fate::Accepted { id, event_type, .. } => {
            let receipt = Receipt::of(answer);
            assert_eq!(receipt.status(), "accepted", "{}", receipt.0);
            assert_eq!(receipt.0["event_id"], json!(id));
            assert_eq!(receipt.0["event_type"], json!(event_type));
            assert_eq!(receipt.0["schema"]["subject"], json!(format!("{}-value", receipt.place().0)));
            assert_eq!(receipt.0["schema"]["version"], json!(1));
        }
        Fate::Quarantined => {
            let receipt = Receipt::of(answer);
            assert_eq!(receipt.status(), "quarantined", "{}", receipt.0);
            assert_eq!(receipt.place().0, bridge.topic(&format!("quarantine.{}", sent.source)));
        }
        Fate::Ignored => assert_eq!(Receipt::of(answer).status(), "ignored"),
        Fate::Refused(status) => {
            assert_eq!(answer.status, *status, "{}", answer.text());
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert_eq!(answer.json()["status"], json!(status));
        }
    }
    if matches!(sent.fate, Fate::Refused(422)) {
        let mut pointers: Vec<String> = violations(&answer.json()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/odd", "/quantity", "/tier"], "every violation is named: {}", answer.text());
    }
}

fn violations(problem: &Value) -> impl Iterator<Item = String> {
    let violations = problem["violations"].as_array().expect("violations");
    violations.iter().map(|violation| violation["pointer"].as_str().expect("a pointer").to_owned())
}

type Place = (String, i32, i64);

/// Everything that is in the bridge's topics, by where it is.
fn read(bridge: &Bridge) -> BTreeMap<Place, Record> {
    let topics = [
        "events.order_placed",
        "events.contact_added",
        "quarantine.shop",
        "quarantine.strict",
        "quarantine.payments",
        "quarantine.leads",
        "quarantine.nobody",
    ];
    let topics: Vec<String> = topics.iter().map(|topic| bridge.topic(topic)).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let records = services().read(&topics);
    records.into_iter().map(|record| ((record.topic.clone(), record.partition, record.offset), record)).collect()
}

async fn check_topics(bridge: &Bridge, answered: &[(&Sent, &Response)], records: &BTreeMap<Place, Record>) {
    let mut decoder = Decoder::new(&services().registry);
    let mut accepted = 0;
    for (sent, answer) in answered {
        let Fate::Accepted { id, event_type, key, value } = &sent.fate else { continue };
        accepted += 1;
        let place = Receipt::of(answer).place();
        assert_eq!(place.0, bridge.topic(&format!("events.{event_type}")));
        let record = records.get(&place).unwrap_or_else(|| panic!("{id} is not at {place:?}, where its receipt says"));
        assert_eq!(record.header("ce_id"), Some(id.as_str()));
        assert_eq!(record.header("ce_type"), Some(*event_type));
        assert_eq!(record.header("ce_specversion"), Some("1.0"));
        assert!(record.header("ce_source").is_some_and(|source| source.contains(sent.source)), "{record:?}");
        assert!(record.header("hookbridge-received-at").is_some());
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
        let found = decoder.decode(record.value.as_deref().expect("an event is no tombstone")).await;
        assert_eq!(&found, value, "{id}");
    }
    let events = bridge.topic("events.");
    let found = records.keys().filter(|(topic, ..)| topic.starts_with(&events)).count();
    assert_eq!(found, accepted, "the topics hold the accepted events and nothing else");
    assert!(accepted > REQUESTS / 2);
}

fn check_quarantine(bridge: &Bridge, answered: &[(&Sent, &Response)], records: &BTreeMap<Place, Record>) {
    let mut quarantined = 0;
    for (sent, answer) in answered {
        if !matches!(sent.fate, Fate::Quarantined) {
            continue;
        }
        quarantined += 1;
        let record = &records[&Receipt::of(answer).place()];
        assert_eq!(record.value.as_deref(), Some(sent.request.body.as_slice()), "byte for byte");
        assert_eq!(record.header("hookbridge-source"), Some(sent.source));
        assert!(record.header("hookbridge-reason").is_some_and(|reason| !reason.is_empty()), "{record:?}");
    }
    let topics = bridge.topic("quarantine.");
    let found = records.keys().filter(|(topic, ..)| topic.starts_with(&topics)).count();
    assert_eq!(found, quarantined, "quarantine holds what is authentic and no event, and nothing else");
    assert!(quarantined > 0);
}

async fn check_database(database: &Database, answered: &[(&Sent, &Response)]) {
    let mut expected: HashMap<String, (&Fate, Place)> = HashMap::new();
    for (sent, answer) in answered {
        if let Fate::Accepted { id, .. } = &sent.fate {
            expected.insert(id.clone(), (&sent.fate, Receipt::of(answer).place()));
        }
    }
    let client = database.connect().await;
    let ids = "SELECT hb_event_id, count(*) FROM
               (SELECT hb_event_id FROM order_placed UNION ALL SELECT hb_event_id FROM contact_added) rows GROUP BY 1";
    let rows = eventually("every accepted event to be in Postgres", Duration::from_secs(60), async || {
        let rows = client.query(ids, &[]).await.ok()?;
        (rows.len() >= expected.len()).then_some(rows)
    })
    .await;
    assert_eq!(rows.len(), expected.len());
    for row in &rows {
        assert_eq!(row.get::<_, i64>(1), 1, "{} has one row", row.get::<_, String>(0));
    }

    let columns = "SELECT hb_event_id, hb_topic, hb_partition::bigint, hb_offset::bigint, hb_source, customer_id,
                   sequence::text, points::text, total::text, (extract(epoch FROM placed_at) * 1000)::bigint, items::text,
                   note FROM order_placed";
    for row in client.query(columns, &[]).await.expect("the schema's columns") {
        let id: String = row.get(0);
        let (Fate::Accepted { value, .. }, place) = &expected[&id] else { panic!("{id} was not accepted") };
        let partition = i32::try_from(row.get::<_, i64>(2)).unwrap();
        assert_eq!(&(row.get::<_, String>(1), partition, row.get::<_, i64>(3)), place, "{id}");
        let text = |column: usize| row.get::<_, Option<String>>(column).map_or(Value::Null, Value::from);
        assert_eq!(text(5), value["customer_id"], "{id}");
        assert_eq!(text(6), json!(value["sequence"].to_string()), "{id}");
        assert_eq!(text(7), json!(value["points"].to_string()), "{id}");
        assert_eq!(text(8), value["total"], "{id}");
        assert_eq!(json!(row.get::<_, Option<i64>>(9)), value["placed_at"], "{id}");
        let items: Value = serde_json::from_str(&row.get::<_, String>(10)).expect("jsonb");
        assert_eq!(items.as_array().map(Vec::len), value["items"].as_array().map(Vec::len), "{id}");
        assert_eq!(text(11), value["note"], "{id}");
    }
}

async fn check_metrics(bridge: &Bridge, answered: &[(&Sent, &Response)]) {
    let metrics = bridge.metrics().await;
    let mut requests: BTreeMap<(&str, u16), f64> = BTreeMap::new();
    let mut accepted: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    let mut quarantined: BTreeMap<&str, f64> = BTreeMap::new();
    for (sent, answer) in answered {
        *requests.entry((sent.source, answer.status)).or_default() += 1.0;
        match &sent.fate {
            Fate::Accepted { event_type, .. } => *accepted.entry((sent.source, event_type)).or_default() += 1.0,
            Fate::Quarantined => *quarantined.entry(sent.source).or_default() += 1.0,
            Fate::Ignored | Fate::Refused(_) => {}
        }
    }
    for ((source, code), count) in &requests {
        if *source != "nobody" {
            let code = code.to_string();
            let found = metrics.sum("hookbridge_requests_total", &[("source", source), ("code", &code)]);
            same(found, *count, &format!("requests of {source} answered {code}"));
        }
    }
    let all = f64::from(u32::try_from(REQUESTS).unwrap());
    same(metrics.sum("hookbridge_requests_total", &[]), all, "requests");
    for ((source, event_type), count) in &accepted {
        let labels = [("source", *source), ("event_type", *event_type)];
        same(metrics.sum("hookbridge_events_accepted_total", &labels), *count, &format!("{event_type} of {source}"));
    }
    for (source, count) in &quarantined {
        let found = metrics.sum("hookbridge_events_quarantined_total", &[("source", source)]);
        same(found, *count, &format!("quarantined of {source}"));
    }
    let total: f64 = accepted.values().sum();
    let labels = [("sink", "warehouse"), ("outcome", "delivered")];
    let settled = "hookbridge_settlements_total";
    eventually("the settlements to be counted", Duration::from_secs(10), async || {
        ((bridge.metrics().await.sum(settled, &labels) - total).abs() < 0.5).then_some(())
    })
    .await;
}

fn same(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 0.5, "{what}: {found} counted, {expected} seen");
}
