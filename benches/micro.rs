//! What one event costs, as ratios taken in one run on one machine: absolute times say more about the machine.
//!
//! ```text
//! cargo bench --bench micro              # gates at what DESIGN section 10 asks for
//! cargo bench --bench micro -- --smoke   # a few seconds, with room for a noisy machine
//! ```
//!
//! Every part is a list of things to time that are interleaved round by round, so that whatever else the machine does
//! hits all of them; the figure is the median over the rounds of the ratio within a round.

// A bench talks to a person, and ends with a status.
#![allow(clippy::print_stdout, clippy::exit, clippy::expect_used)]

#[path = "micro/body.rs"]
mod body;
#[path = "micro/mapping.rs"]
mod mapping;

use std::hint::black_box;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use hookbridge::catalog;
use hookbridge::config::{Secret, UnknownFields};
use hookbridge::ingest::dedupe::{Destination, Entry, Identity, Memory};
use hookbridge::ingest::verify::{self, Message, Request, Verifier};
use hookbridge::kafka::{Landing, Position};
use hookbridge::metrics::Metrics;
use hookbridge::schema::plan::{Plan, Scratch};
use http::HeaderMap;
use sha2::Sha256;

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let passed = [encode(smoke), body::run(smoke), verify(smoke), mapping::run(smoke), dedupe(smoke)];
    if passed.contains(&false) {
        std::process::exit(1);
    }
}

/// Something to time.
struct Subject<'a> {
    name: &'static str,
    run: Box<dyn FnMut() + 'a>,
}

impl<'a> Subject<'a> {
    fn new(name: &'static str, run: impl FnMut() + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// Nanoseconds a call, over at least `slice`.
    fn measure(&mut self, slice: Duration) -> f64 {
        /// Calls between two looks at the clock.
        const BATCH: u32 = 200;
        let start = Instant::now();
        let mut calls = 0;
        loop {
            for _ in 0..BATCH {
                (self.run)();
            }
            calls += BATCH;
            let elapsed = start.elapsed();
            if elapsed >= slice {
                break elapsed.as_secs_f64() * 1e9 / f64::from(calls);
            }
        }
    }
}

/// What came out for one of them: medians over the rounds.
struct Compared {
    nanoseconds: f64,
    /// To the first one.
    ratio: f64,
}

/// Times the subjects side by side, the first being what the others are measured by. Prints a line each.
fn compare(title: &str, subjects: &mut [Subject<'_>], smoke: bool) -> Vec<Compared> {
    let (rounds, slice) = if smoke { (31, Duration::from_millis(20)) } else { (101, Duration::from_millis(40)) };
    let mut times = vec![Vec::with_capacity(rounds); subjects.len()];
    for subject in &mut *subjects {
        subject.measure(slice * 5);
    }
    for round in 0..rounds {
        for step in 0..subjects.len() {
            // Nobody always comes after the same neighbour.
            let at = (step + round) % subjects.len();
            times[at].push(subjects[at].measure(slice));
        }
    }
    println!("{title}");
    let mut compared = Vec::with_capacity(subjects.len());
    for (subject, own) in subjects.iter().zip(&times) {
        let ratio = median(own.iter().zip(&times[0]).map(|(own, base)| own / base).collect());
        let nanoseconds = median(own.clone());
        println!("  {:<32} {nanoseconds:>8.0} ns  ratio {ratio:.3}", subject.name);
        compared.push(Compared { nanoseconds, ratio });
    }
    compared
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Validate and encode a valid event of about 600 bytes, against parsing it into a `serde_json::Value`.
fn encode(smoke: bool) -> bool {
    let plan = Plan::compile(PURCHASE_SCHEMA, UnknownFields::Reject).expect("the schema compiles");
    let shuffled = shuffle(PURCHASE);
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    let (mut scratch_shuffled, mut out_shuffled) = (Scratch::default(), Vec::new());
    plan.encode(PURCHASE.as_bytes(), &mut scratch, &mut out).expect("the event is valid");
    plan.encode(shuffled.as_bytes(), &mut scratch, &mut out_shuffled).expect("the event is valid");
    assert_eq!(out, out_shuffled, "the order of the fields does not matter");

    let title = format!("encode: an event of {} bytes, {} as Avro", PURCHASE.len(), out.len());
    let mut subjects = [
        Subject::new("serde_json::Value", || {
            black_box(serde_json::from_slice::<serde_json::Value>(black_box(PURCHASE.as_bytes())).ok());
        }),
        Subject::new("plan, in the schema's order", || {
            out.clear();
            black_box(plan.encode(black_box(PURCHASE.as_bytes()), &mut scratch, &mut out).is_ok());
        }),
        Subject::new("plan, shuffled", || {
            out_shuffled.clear();
            black_box(plan.encode(black_box(shuffled.as_bytes()), &mut scratch_shuffled, &mut out_shuffled).is_ok());
        }),
    ];
    let ratios = compare(&title, &mut subjects, smoke);
    let limit = if smoke { 0.85 } else { 0.7 };
    let passed = ratios[1].ratio <= limit;
    println!("  in order at most {limit}: {}", if passed { "yes" } else { "NO" });
    passed
}

/// Verify a signed request of 1 KiB, against nothing but the HMAC of as many bytes.
fn verify(smoke: bool) -> bool {
    const NOW_MS: i64 = 1_800_000_000_000;
    let body = vec![b'x'; 1024];
    let key = b"a key of thirty-two bytes, no more";
    let bare = Hmac::<Sha256>::new_from_slice(key).expect("any key is one");
    let signed: Vec<_> =
        [("standard-webhooks", "whsec_YmVuY2gtb25seS1zZWNyZXQtb2YtMzItYnl0ZXM="), ("stripe", "whsec_x")]
            .into_iter()
            .map(|(name, secret)| {
                let (scheme, secret) = (catalog::preset(name).expect("a preset"), Secret::new(secret));
                let headers = HeaderMap::new();
                let message =
                    Message { id: "msg_1", now_ms: NOW_MS, method: "POST", url: "/", headers: &headers, body: &body };
                let headers = verify::sign(&scheme, &secret, &message).expect("a signature").headers;
                (name, Verifier::compile(&scheme, &[secret], None).expect("the preset compiles"), headers)
            })
            .collect();
    let mut subjects = vec![Subject::new("HMAC-SHA256 of the body", || {
        let mut mac = bare.clone();
        mac.update(black_box(&body));
        black_box(mac.finalize());
    })];
    for (name, verifier, headers) in &signed {
        let request = Request { method: "POST", url: "/", headers, body: &body };
        assert!(verifier.verify(&request, NOW_MS).is_ok(), "{name}: the signature is right");
        subjects.push(Subject::new(name, move || {
            black_box(verifier.verify(black_box(&request), NOW_MS).is_ok());
        }));
    }
    let ratios = compare("verify: a body of 1,024 bytes", &mut subjects, smoke);
    let limit = if smoke { 2.5 } else { 2.0 };
    let passed = ratios[1..].iter().all(|it| it.ratio <= limit);
    println!("  each at most {limit}: {}", if passed { "yes" } else { "NO" });
    passed
}

/// An event that is entered and acknowledged, in a memory that is full and lies in no cache, against the HMAC of a body of
/// 1 KiB: what recognising repeats adds is about what the cheapest verification costs.
fn dedupe(smoke: bool) -> bool {
    const ENTRIES: usize = 2_000_000;
    let metrics = Metrics::new().expect("the metrics");
    let memory = Memory::new(ENTRIES, metrics.dedupe_uncertain.into());
    let orders = memory.destination(&Destination {
        topic: "events.purchase_completed".to_owned(),
        subject: "events.purchase_completed-value".to_owned(),
        version: Some(1),
        schema_id: 1,
    });
    let mut number = 0_u64;
    let mut publish = || {
        number += 1;
        let id = event_id(number);
        let id = std::str::from_utf8(&id).expect("ASCII");
        let identity = Identity { source: "storefront", id, event_type: "purchase_completed" };
        if let Entry::New(claim) = memory.enter(identity, None, orders, 1_800_000_000_000) {
            let ticket = claim.ticket();
            claim.handed_over();
            memory.landed(ticket, Ok(Position { partition: 3, offset: number.cast_signed() }));
        }
    };
    for _ in 0..ENTRIES + ENTRIES / 10 {
        publish();
    }
    let known = event_id(ENTRIES as u64);
    let known = std::str::from_utf8(&known).expect("ASCII");
    let known = Identity { source: "storefront", id: known, event_type: "purchase_completed" };
    assert!(matches!(memory.enter(known, None, orders, 0), Entry::Duplicate(_)));
    let body = vec![b'x'; 1024];
    let bare = Hmac::<Sha256>::new_from_slice(b"a key of thirty-two bytes, no more").expect("any key is one");
    let reach = memory.reach();
    let title = format!("dedupe: {} entries of {} bytes", reach.entries, reach.bytes / reach.entries);
    let mut subjects = [
        Subject::new("HMAC-SHA256 of 1 KiB", || {
            let mut mac = bare.clone();
            mac.update(black_box(&body));
            black_box(mac.finalize());
        }),
        Subject::new("a new event, and its report", &mut publish),
        Subject::new("an event that is known", || {
            black_box(matches!(memory.enter(black_box(known), None, orders, 0), Entry::Duplicate(_)));
        }),
    ];
    let ratios = compare(&title, &mut subjects, smoke);
    let limit = if smoke { 3.0 } else { 2.0 };
    let passed = ratios[1..].iter().all(|it| it.ratio <= limit);
    println!("  each at most {limit}: {}", if passed { "yes" } else { "NO" });
    passed
}

/// As long as most providers' ids, written without an allocation.
fn event_id(number: u64) -> [u8; 30] {
    let mut id = *b"evt_01J9ZC4V7QK300000000000000";
    let mut left = number;
    for digit in id.iter_mut().rev().take(14) {
        *digit = b"0123456789abcdef"[(left & 0xf) as usize];
        left >>= 4;
    }
    id
}

/// The same document, the fields of every object in another order.
fn shuffle(json: &str) -> String {
    fn write(value: &serde_json::Value, out: &mut String) {
        match value {
            serde_json::Value::Object(fields) => {
                // By the name read backwards: no order that anybody had in mind.
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(name, _)| name.bytes().rev().collect::<Vec<_>>());
                out.push('{');
                for (at, (name, value)) in fields.into_iter().enumerate() {
                    out.push_str(if at > 0 { ",\"" } else { "\"" });
                    out.push_str(name);
                    out.push_str("\":");
                    write(value, out);
                }
                out.push('}');
            }
            serde_json::Value::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    write(item, out);
                }
                out.push(']');
            }
            scalar => out.push_str(&scalar.to_string()),
        }
    }
    let mut out = String::new();
    write(&serde_json::from_str(json).expect("the event is JSON"), &mut out);
    out
}

const PURCHASE: &str = r#"{"event_id":"evt_01J9ZC4V7QK3M8N2","customer_id":"cus_48213","email_sha256":"b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514","occurred_at":"2026-03-14T09:26:53.589Z","order_id":"ord_90017","amount":"149.97","currency":"EUR","items":[{"sku":"TSHIRT-M-BLK","name":"T-shirt, black","quantity":2,"unit_price":"24.99"},{"sku":"SNKR-42","name":"Sneakers","quantity":1,"unit_price":"99.99"}],"consent":{"email_marketing":true,"analytics":false},"campaign":{"source":"newsletter","medium":"email","name":"spring-sale"},"is_first_order":false,"discount_rate":0.15}"#;

const PURCHASE_SCHEMA: &str = r#"{
  "type": "record", "name": "PurchaseCompleted", "namespace": "com.example.commerce",
  "fields": [
    {"name": "event_id", "type": "string"},
    {"name": "customer_id", "type": "string"},
    {"name": "email_sha256", "type": ["null", "string"], "default": null},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "order_id", "type": ["null", "string"], "default": null},
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}},
    {"name": "currency", "type": "string"},
    {"name": "items", "default": [], "type": {"type": "array", "items": {
      "type": "record", "name": "Item", "fields": [
        {"name": "sku", "type": "string"},
        {"name": "name", "type": ["null", "string"], "default": null},
        {"name": "quantity", "type": "int", "default": 1},
        {"name": "unit_price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}}
      ]}}},
    {"name": "consent", "type": {"type": "map", "values": "boolean"}, "default": {}},
    {"name": "campaign", "default": null, "type": ["null", {"type": "record", "name": "Campaign", "fields": [
      {"name": "source", "type": ["null", "string"], "default": null},
      {"name": "medium", "type": ["null", "string"], "default": null},
      {"name": "name", "type": ["null", "string"], "default": null}
    ]}]},
    {"name": "is_first_order", "type": ["null", "boolean"], "default": null},
    {"name": "discount_rate", "type": ["null", "double"], "default": null}
  ]
}"#;
