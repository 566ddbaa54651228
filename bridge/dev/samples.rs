//! A stream of sample events: what a shop, a form and a billing system would send, no two alike. One seed, one
//! sequence. What a provider's request looks like is the catalogue's (`catalog/samples`).

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::calendar::Rfc3339;
use crate::catalog::{self, Occasion};
use crate::expr::assign;

/// What a sample is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Standard Webhooks, `type` and `data` in the body.
    Purchase,
    Lead,
    /// Stripe's `invoice.paid`, as far as it is mapped.
    Invoice,
}

/// One sample, not yet signed.
#[derive(Debug, Clone)]
pub struct Sample {
    pub id: String,
    pub event_type: &'static str,
    pub body: Vec<u8>,
}

/// A sequence of samples.
#[derive(Debug, Clone)]
pub struct Samples {
    state: u64,
    made: u64,
    /// Told apart from other runs' by this: ids are `<run>-<n>`.
    run: String,
}

const PRODUCTS: [(&str, &str, &str, u32); 6] = [
    ("TR-42-BL", "Trail running shoe", "shoes/trail", 12_990),
    ("JK-M-GR", "Rain jacket", "clothing/jackets", 18_900),
    ("BT-750", "Bottle 750 ml", "accessories/bottles", 1_950),
    ("SO-3P", "Running socks, three pairs", "clothing/socks", 2_400),
    ("HL-400", "Head lamp 400 lm", "accessories/lamps", 5_990),
    ("GL-12", "Energy gel, box of twelve", "food/gels", 2_280),
];
const CAMPAIGNS: [(&str, &str, &str); 4] = [
    ("winter-sale", "newsletter", "email"),
    ("brand-search", "google", "cpc"),
    ("trail-guide", "partner-blog", "affiliate"),
    ("retargeting", "meta", "paid_social"),
];
const AGENTS: [(&str, &str, &str); 3] = [
    ("phone", "iOS 19.1", "Mobile Safari 19"),
    ("desktop", "Windows 11", "Firefox 151"),
    ("tablet", "Android 17", "Chrome 155"),
];

impl Samples {
    /// The same seed gives the same sequence.
    #[must_use]
    pub fn new(seed: u64, run: &str) -> Self {
        // A zero state would stay zero.
        Self { state: seed | 1, made: 0, run: run.to_owned() }
    }

    /// `xorshift64*` (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `below`.
    fn roll(&mut self, below: u64) -> u64 {
        (self.random() >> 33) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        #[allow(clippy::cast_possible_truncation, reason = "an index into a short list")]
        let at = self.roll(from.len() as u64) as usize;
        from[at]
    }

    fn next_id(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.run, self.made)
    }

    /// The next sample of that kind, as of `now_ms`.
    pub fn next(&mut self, kind: Kind, now_ms: i64) -> Sample {
        match kind {
            Kind::Purchase => self.purchase(now_ms, 5000),
            Kind::Lead => self.lead(now_ms),
            Kind::Invoice => self.invoice(now_ms),
        }
    }

    /// A purchase by one of `customers` customers: about 1,100 bytes, half of its fields set, as shops send them.
    pub fn purchase(&mut self, now_ms: i64, customers: u64) -> Sample {
        let id = self.next_id();
        let customer = self.roll(customers);
        let lines = 1 + self.roll(3);
        let (mut items, mut count, mut cents) = (String::new(), 0, 0);
        for line in 0..lines {
            let (sku, name, category, price) = self.pick(&PRODUCTS);
            let quantity = 1 + self.roll(3);
            count += quantity;
            cents += quantity * u64::from(price);
            let comma = if line == 0 { "" } else { "," };
            let price = money(u64::from(price));
            let _ = write!(
                items,
                r#"{comma}{{"sku":"{sku}","name":"{name}","category":"{category}","quantity":{quantity},"price":{price}}}"#
            );
        }
        let (campaign, source, medium) = self.pick(&CAMPAIGNS);
        let (device, os, browser) = self.pick(&AGENTS);
        let (yes, analytics) = (self.roll(4) != 0, self.roll(2) == 0);
        let (first, hash) = (self.roll(5) == 0, self.email_hash());
        let (subtotal, tax, total) = (money(cents), money(cents * 19 / 119), money(cents + 490));
        let at = Rfc3339::from_ms(now_ms);
        let at = at.as_str();
        let body = format!(
            r#"{{"type":"purchase_completed","timestamp":"{at}","data":{{"event_id":"{id}","customer_id":"cus_{customer:05}","occurred_at":"{at}","email_sha256":"{hash}","order_id":"ord_{id}","channel":"web","items":[{items}],"item_count":{count},"subtotal":{subtotal},"shipping_total":4.90,"tax_total":{tax},"total":{total},"currency":"EUR","discount_codes":[],"payment_method":"card","is_first_purchase":{first},"billing_country":"DE","locale":"de-DE","device":{{"type":"{device}","os":"{os}","browser":"{browser}"}},"consent":{{"email_marketing":{yes},"analytics":{analytics}}},"campaign":{{"name":"{campaign}","source":"{source}","medium":"{medium}"}}}}}}"#
        );
        Sample { id, event_type: "purchase_completed", body: body.into_bytes() }
    }

    fn lead(&mut self, now_ms: i64) -> Sample {
        let (form, country) = (self.pick(&["demo", "newsletter", "trail-guide"]), self.pick(&["DE", "AT", "CH", "FR"]));
        let (campaign, source, medium) = self.pick(&CAMPAIGNS);
        let (yes, hash) = (self.roll(3) != 0, self.email_hash());
        let changes = [
            (".data.email_sha256", json!(hash)),
            (".data.form", json!(form)),
            (".data.country", json!(country)),
            (".data.consent.email_marketing", json!(yes)),
            (".data.campaign", json!({"name": campaign, "source": source, "medium": medium})),
        ];
        self.of_catalogue("standard-webhooks", "lead_captured", now_ms, &changes, "lead_captured")
    }

    fn invoice(&mut self, now_ms: i64) -> Sample {
        let (customer, amount) = (self.roll(5000), 900 + 100 * self.roll(200));
        let changes = [
            (".data.object.customer", json!(format!("cus_{customer:05}"))),
            (".data.object.customer_email", json!(format!("Customer{customer}@Example.com "))),
            (".data.object.amount_paid", json!(amount)),
        ];
        self.of_catalogue("stripe", "invoice.paid", now_ms, &changes, "subscription_renewed")
    }

    /// A sample of the catalogue, with some of it changed.
    fn of_catalogue(
        &mut self,
        preset: &str,
        event: &str,
        now_ms: i64,
        changes: &[(&str, Value)],
        event_type: &'static str,
    ) -> Sample {
        let id = self.next_id();
        let occasion = Occasion { id: &id, serial: self.made, now_ms };
        let samples = catalog::samples(preset).unwrap_or_default();
        let sample = samples.iter().find(|sample| sample.event == event);
        let body = sample.map(|sample| sample.body(&occasion)).unwrap_or_default();
        let change = |body: Vec<u8>, (path, value): &(&str, Value)| assign(&body, path, "=", value).unwrap_or(body);
        let body = changes.iter().fold(body, change);
        Sample { id, event_type, body }
    }

    /// Looks like the SHA-256 of an address; it is of none.
    fn email_hash(&mut self) -> String {
        let mut hash = String::with_capacity(64);
        for _ in 0..4 {
            let _ = write!(hash, "{:016x}", self.random());
        }
        hash
    }
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_samples_and_each_is_json() {
        let (mut one, mut two) = (Samples::new(7, "run"), Samples::new(7, "run"));
        for kind in [Kind::Purchase, Kind::Lead, Kind::Invoice, Kind::Purchase] {
            let (left, right) = (one.next(kind, 1_767_225_600_000), two.next(kind, 1_767_225_600_000));
            assert_eq!(left.body, right.body);
            serde_json::from_slice::<Value>(&left.body).unwrap();
        }
    }
}
