//! What holds for every body, time and header.

use std::sync::LazyLock;

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{Id, Private};
use openssl::rsa::Rsa;
use proptest::prelude::*;

use super::*;
use crate::catalog::{Algorithm, Covers, Encoding, KeyEncoding, Signature, TimestampUnit};

/// Names, the scheme, the secret that signs for it, and the one that verifies.
struct Pair {
    name: String,
    scheme: SourceScheme,
    signing: Secret,
    verifying: Secret,
}

/// Every way of every preset by itself, and the algorithms that private schemes have besides.
static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let mut pairs = Vec::new();
    for name in catalog::preset_names() {
        let scheme = preset(name);
        for (at, way) in scheme.signature.iter().enumerate() {
            let only = SourceScheme { signature: vec![way.clone()], ..scheme.clone() };
            let (signing, verifying) = secrets_for(way);
            pairs.push(Pair { name: format!("{name} {at}"), scheme: only, signing, verifying });
        }
    }
    for (name, signature) in [
        ("hmac-sha512", json!({"algorithm": "hmac-sha512", "encoding": "base64", "signed": "{body}"})),
        ("rsa", json!({"algorithm": "rsa-sha256", "encoding": "hex", "key": {"encoding": "pem"}, "signed": "{body}"})),
        (
            "ecdsa",
            json!({"algorithm": "ecdsa-p256", "encoding": "hex", "key": {"encoding": "pem"}, "signed": "{body}"}),
        ),
        ("ed25519", json!({"algorithm": "ed25519", "encoding": "hex", "key": {"encoding": "pem"}, "signed": "{body}"})),
        ("equals", json!({"algorithm": "equals"})),
        ("basic", json!({"algorithm": "basic"})),
        ("bearer", json!({"algorithm": "bearer"})),
    ] {
        let mut signature = signature;
        signature["header"] = json!("x-signature");
        let scheme: SourceScheme = serde_json::from_value(json!({ "signature": signature })).unwrap();
        let (signing, verifying) = secrets_for(&scheme.signature[0]);
        pairs.push(Pair { name: name.to_owned(), scheme, signing, verifying });
    }
    let leads = leads();
    let (signing, verifying) = secrets_for(&leads.signature[0]);
    pairs.push(Pair { name: "leads".to_owned(), scheme: leads, signing, verifying });
    pairs
});

/// A secret that signs in this way, and its counterpart.
fn secrets_for(way: &Signature) -> (Secret, Secret) {
    let pair = |private: PKey<Private>| {
        let (public, own) = if way.key.encoding == KeyEncoding::Pem {
            let own = private.private_key_to_pem_pkcs8().unwrap();
            (String::from_utf8(private.public_key_to_pem().unwrap()).unwrap(), String::from_utf8(own).unwrap())
        } else {
            let own = private.private_key_to_der().unwrap();
            (STANDARD.encode(private.public_key_to_der().unwrap()), STANDARD.encode(own))
        };
        (Secret::new(own), Secret::new(public))
    };
    let same = |text: &str| (Secret::new(text), Secret::new(text));
    match way.algorithm {
        Algorithm::EcdsaP256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            pair(PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap())
        }
        Algorithm::RsaSha256 => pair(PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap()),
        Algorithm::Ed25519 => {
            let private = PKey::private_key_from_raw_bytes(&SEED, Id::ED25519).unwrap();
            let public = private.raw_public_key().unwrap();
            if way.key.encoding == KeyEncoding::Pem {
                return pair(private);
            }
            let both = STANDARD.encode([&SEED[..], &public].concat());
            (Secret::new(format!("whsk_{both}")), Secret::new(format!("whpk_{}", STANDARD.encode(public))))
        }
        _ if way.key.prefix == "whsec_" => same(SHARED),
        _ => same("a user:and a password"),
    }
}

/// What the way leaves of a body: Mailgun's has a place for the signature, Segment's batch a first event.
fn body_for(way: &Signature, random: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(random);
    match &way.body {
        Some(_) => {
            json!({"signature": {"token": format!("t{text}")}, "event-data": {"id": text}}).to_string().into_bytes()
        }
        None if way.covers == Covers::Parts => json!([{"id": text}, {"id": 2}]).to_string().into_bytes(),
        None => [b"{".as_slice(), random].concat(),
    }
}

const URL: &str = "https://hooks.example.com/in?a=%3A%20";

fn signed<'a>(pair: &Pair, body: &'a [u8], now_ms: i64) -> Signed<'a> {
    static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
    let message = Message { id: "msg_1", now_ms, method: "POST", url: URL, headers: &NO_HEADERS, body };
    sign(&pair.scheme, &pair.signing, &message).unwrap_or_else(|error| panic!("{}: {error}", pair.name))
}

fn verifier(pair: &Pair) -> Verifier {
    let secrets = std::slice::from_ref(&pair.verifying);
    Verifier::compile(&pair.scheme, secrets, None).unwrap_or_else(|error| panic!("{}: {error}", pair.name))
}

/// From 1973 on, in which every unit reads as itself.
const TIMES: std::ops::Range<i64> = 100_000_000_000..4_102_444_800_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_signed_is_verified(random: Vec<u8>, now_ms in TIMES) {
        for pair in PAIRS.iter() {
            let way = &pair.scheme.signature[0];
            let body = body_for(way, &random);
            let Signed { headers, body } = signed(pair, &body, now_ms);
            let request = Request { method: "POST", url: URL, headers: &headers, body: &body };
            let stamp = way.timestamp.as_ref().map(|stamp| match stamp.unit {
                TimestampUnit::S => now_ms / 1_000 * 1_000,
                TimestampUnit::Ms | TimestampUnit::Rfc3339 => now_ms,
            });
            let verified = verifier(pair).verify(&request, now_ms);
            prop_assert_eq!(verified, Ok(Verified { secret_index: 0, timestamp_ms: stamp }), "{}", &pair.name);
            let tokens = [Algorithm::Equals, Algorithm::Basic, Algorithm::Bearer];
            if !tokens.contains(&way.algorithm) && way.covers == Covers::Body {
                let longer = [&body[..], b" "].concat();
                let request = Request { body: &longer, ..request };
                prop_assert_eq!(verifier(pair).verify(&request, now_ms), Err(NoMatch), "{}", &pair.name);
            }
        }
    }

    #[test]
    fn one_changed_byte_is_rejected(
        random in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, flip in 1u8..,
    ) {
        let now_ms = NOW * 1_000;
        for pair in PAIRS.iter() {
            let way = &pair.scheme.signature[0];
            let verifier = verifier(pair);
            let body = body_for(way, &random);
            let Signed { headers: good, body } = signed(pair, &body, now_ms);
            if way.covers == Covers::Body && !way.algorithm.is_token() {
                let mut changed = body.to_vec();
                changed[at.index(body.len())] ^= flip;
                let request = Request { method: "POST", url: URL, headers: &good, body: &changed };
                prop_assert_eq!(verifier.verify(&request, now_ms), Err(NoMatch), "{}", &pair.name);
            }
            for (name, value) in &good {
                let mut bytes = value.as_bytes().to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                // Some take hex in either case, and HTTP the name of a scheme: the same bytes.
                let any_case = way.encoding == Some(Encoding::Hex) || way.algorithm.is_token();
                let same = any_case && bytes.eq_ignore_ascii_case(value.as_bytes());
                let Ok(changed) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut headers = good.clone();
                headers.insert(name, changed);
                let request = Request { method: "POST", url: URL, headers: &headers, body: &body };
                let taken = verifier.verify(&request, now_ms).is_ok();
                prop_assert!(!taken || same, "{} {}: {:?}", &pair.name, name, headers);
            }
        }
    }

    #[test]
    fn no_header_is_a_surprise(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 3), body: Vec<u8>, now_ms: i64,
    ) {
        let now = NOW.to_string();
        let time = |value: &[u8]| if value.len().is_multiple_of(2) { now.as_bytes().to_vec() } else { value.to_vec() };
        let stripe = [b"t=".as_slice(), &time(&values[0]), b",v1=", &values[1]].concat();
        let list = [b"v1,".as_slice(), &values[1], b" v1a,", &values[2]].concat();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("stripe-signature", stripe), ("webhook-signature", list), ("webhook-timestamp", time(&values[0])),
            ("webhook-id", values[2].clone()), ("x-timestamp", time(&values[0])), ("x-signature", values[1].clone()),
        ] {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.insert(name, value);
            }
        }
        let request = Request { method: "POST", url: "/", headers: &headers, body: &body };
        for pair in PAIRS.iter() {
            prop_assert!(verifier(pair).verify(&request, now_ms).is_err(), "{}", &pair.name);
        }
    }
}
