//! What providers send: requests signed as each of them documents it, written here a second time and independently of
//! the bridge, so that a mistake in its verification cannot agree with itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::http::Request;

/// Secrets of the tests; [`super::bridge`] writes the same into the configuration.
pub(crate) const SHOP_KEY: &[u8] = b"the-shop-signs-with-thirty-two-b";
pub(crate) const PAYMENTS_SECRET: &str = "whsec_payments-of-the-tests";
pub(crate) const CRM_SECRET: &str = "a-secret-of-the-tests-crm";
pub(crate) const LEADS_SECRET: &str = "leads-of-the-tests-are-signed";

/// The time that signatures carry.
pub(crate) fn now() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "a sender outside the bridge has a clock of its own")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Standard Webhooks 1.0.0: `v1,` and the HMAC of `id.timestamp.body`. Sources `shop` and `strict` take it.
pub(crate) fn standard(source: &str, id: &str, body: &[u8]) -> Request {
    standard_at(source, id, now(), body)
}

pub(crate) fn standard_at(source: &str, id: &str, timestamp: u64, body: &[u8]) -> Request {
    standard_by(SHOP_KEY, source, id, timestamp, body)
}

/// Signed with another key than the shop's.
pub(crate) fn standard_by(key: &[u8], source: &str, id: &str, timestamp: u64, body: &[u8]) -> Request {
    let timestamp = timestamp.to_string();
    let mac = hmac_sha256(key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    request(source, body)
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", format!("v1,{}", BASE64.encode(mac)))
}

/// Stripe: `t=<seconds>,v1=<hex>` over `t.body`. Source `payments` takes it.
pub(crate) fn stripe(body: &[u8]) -> Request {
    let timestamp = now().to_string();
    let mac = hmac_sha256(PAYMENTS_SECRET.as_bytes(), &[timestamp.as_bytes(), b".", body]);
    request("payments", body).header("stripe-signature", format!("t={timestamp},v1={}", hex::encode(mac)))
}

/// A scheme of one's own. Source `leads` takes it.
pub(crate) fn lead(body: &[u8]) -> Request {
    let timestamp = now().to_string();
    let mac = hmac_sha256(LEADS_SECRET.as_bytes(), &[timestamp.as_bytes(), b".", body]);
    request("leads", body)
        .header("x-timestamp", timestamp)
        .header("x-signature", format!("sha256={}", hex::encode(mac)))
}

/// HubSpot's v3: base64 of the HMAC of method, address, body and time in milliseconds.
pub(crate) fn hubspot(source: &str, body: &[u8]) -> Request {
    let timestamp = (now() * 1000).to_string();
    let address = format!("https://hooks.example.com/hooks/{source}");
    let mac = hmac_sha256(CRM_SECRET.as_bytes(), &[b"POST", address.as_bytes(), body, timestamp.as_bytes()]);
    request(source, body)
        .header("x-hubspot-request-timestamp", timestamp)
        .header("x-hubspot-signature-v3", BASE64.encode(mac))
}

/// Meta: hex of the HMAC of the body.
pub(crate) fn meta(source: &str, body: &[u8]) -> Request {
    let mac = hmac_sha256(CRM_SECRET.as_bytes(), &[body]);
    request(source, body).header("x-hub-signature-256", format!("sha256={}", hex::encode(mac)))
}

/// Mailgun: the time, and the hex of the HMAC of time and token.
pub(crate) fn mailgun(secret: &str, token: &str) -> (String, String) {
    let timestamp = now().to_string();
    let mac = hmac_sha256(secret.as_bytes(), &[timestamp.as_bytes(), token.as_bytes()]);
    (timestamp, hex::encode(mac))
}

/// Signed in its body, or not at all.
pub(crate) fn request(source: &str, body: &[u8]) -> Request {
    Request {
        path: format!("/hooks/{source}"),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_vec(),
    }
}
