//! Mapping a provider's event, against parsing it: what a source pays between the signature and the schema.

use std::hint::black_box;
use std::path::Path;

use hookbridge::config::{self, Process};
use hookbridge::ingest::map::{Mapper, Mapping};
use http::HeaderMap;

use super::{Subject, compare};

/// What Stripe sends for a paid invoice, as it prints it.
const INVOICE: &str = include_str!("stripe_invoice.paid.json");

/// A purchase as Standard Webhooks wraps it.
const PURCHASE: &str = r#"{"type":"purchase_completed","timestamp":"2026-03-14T09:26:53.589Z","data":{"event_id":"evt_01J9ZC4V7QK3M8N2","customer_id":"cus_48213","email_sha256":"b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514","occurred_at":"2026-03-14T09:26:53.589Z","order_id":"ord_90017","amount":"149.97","currency":"EUR","items":[{"sku":"TSHIRT-M-BLK","name":"T-shirt, black","quantity":2,"unit_price":"24.99"},{"sku":"SNKR-42","name":"Sneakers","quantity":1,"unit_price":"99.99"}],"consent":{"email_marketing":true,"analytics":false},"is_first_order":false}}"#;

/// Four sources: the invoice's ten fields with a conditional and a hash; the same behind nineteen rules that do not
/// take it; one that reads the whole event; and one whose senders say themselves what they send.
const CONFIG: &str = r#"
kafka: { bootstrap_servers: "127.0.0.1:9092" }
events:
  subscription_renewed: { category: lifecycle, owner: a@example.com, version: 1, key: .customer_id }
  purchase_completed: { category: commerce, owner: a@example.com, version: 1, key: .customer_id, id: .event_id }
sources:
  stripe:
    preset: stripe
    secrets: [0123456789abcdef0123456789abcdef]
    events:
@OTHERS      - when: .type == "invoice.paid" and .data.object.billing_reason == "subscription_cycle"
        event: subscription_renewed
        map: |
          (.data.object.currency | ascii_upcase) as $currency |
          { customer_id: .data.object.customer,
            occurred_at: (.created | todate),
            amount: (.data.object.amount_paid | minor_units($currency)),
            currency: $currency,
            email_sha256: (.data.object.customer_email | normalize_email | sha256),
            invoice_id: .data.object.id,
            subscription_id: .data.object.parent.subscription_details.subscription,
            payment_attempts: .data.object.attempt_count,
            is_automatic: (if .data.object.collection_method == "charge_automatically" then true else false end),
            consent: {} }
  whole:
    preset: stripe
    secrets: [0123456789abcdef0123456789abcdef]
    events:
      - event: subscription_renewed
        map: "{ customer_id: .data.object.customer, extra: {fields: ([..] | length)} }"
  storefront:
    preset: standard-webhooks
    secrets: [whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=]
    event_type: .type
    payload: .data
"#;

fn mapper(source: &str, others: usize) -> Mapper {
    let other = |at| format!("      - {{ when: '.type == \"kind.{at}\"', event: subscription_renewed }}\n");
    let others: String = (0..others).map(other).collect();
    let text = CONFIG.replace("@OTHERS", &others);
    let loaded = config::parse(Path::new("bench.yaml"), &text, &Process);
    let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config;
    let compiled = Mapper::compile(&config.sources[source], &config.events);
    compiled.unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Map a paid invoice of Stripe and a purchase of one's own, against parsing each into a `serde_json::Value`.
pub(super) fn run(smoke: bool) -> bool {
    // In microseconds, and in parses of the same body: the larger counts.
    let limits = if smoke { (25.0, 2.0) } else { (15.0, 1.5) };
    let stripe = HeaderMap::new();
    let own: HeaderMap =
        [("webhook-id".parse().expect("a name"), "msg_1".parse().expect("a value"))].into_iter().collect();
    let subject = |name, source, others, headers, body: &'static str| {
        let mapper = mapper(source, others);
        let first = mapper.map(headers, body.as_bytes());
        assert!(matches!(first, Mapping::Events(_)), "{name}: {first:?}");
        Subject::new(name, move || {
            black_box(mapper.map(black_box(headers), black_box(body.as_bytes())));
        })
    };
    let parse = |body: &'static str| {
        Subject::new("serde_json::Value", move || {
            black_box(serde_json::from_slice::<serde_json::Value>(black_box(body.as_bytes())).ok());
        })
    };
    let invoice = compare(
        &format!("map: Stripe's paid invoice of {} bytes", INVOICE.len()),
        &mut [
            parse(INVOICE),
            subject("ten fields, an if, a hash", "stripe", 0, &stripe, INVOICE),
            subject("the same as the twentieth rule", "stripe", 19, &stripe, INVOICE),
            subject("a rule that reads all of it", "whole", 0, &stripe, INVOICE),
        ],
        smoke,
    );
    let passed = invoice[1..3].iter().all(|it| it.nanoseconds <= limits.0 * 1000.0 || it.ratio <= limits.1);
    println!("  ten fields: at most {} µs or {} parses: {}", limits.0, limits.1, if passed { "yes" } else { "NO" });
    compare(
        &format!("map: a purchase of one's own of {} bytes", PURCHASE.len()),
        &mut [parse(PURCHASE), subject("type and data in the body", "storefront", 0, &own, PURCHASE)],
        smoke,
    );
    passed
}
