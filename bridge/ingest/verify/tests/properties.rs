//! What holds for every body, time and header.

use proptest::prelude::*;

use super::*;

/// A scheme, the secret that signs for it, and the one that verifies.
fn signing_pairs() -> Vec<(SourceScheme, Secret, Secret)> {
    let seed = PKey::private_key_from_raw_bytes(&SEED, openssl::pkey::Id::ED25519).unwrap();
    let public = seed.raw_public_key().unwrap();
    let pair = STANDARD.encode([&SEED[..], &public].concat());
    let same = |scheme, text: &str| (scheme, Secret::new(text), Secret::new(text));
    vec![
        same(preset("stripe"), STRIPE),
        same(preset("standard-webhooks"), SHARED),
        same(leads(), "a private scheme's secret"),
        (
            preset("standard-webhooks"),
            Secret::new(format!("whsk_{pair}")),
            Secret::new(format!("whpk_{}", STANDARD.encode(public))),
        ),
    ]
}

fn signed(scheme: &SourceScheme, secret: &Secret, body: &[u8], now_ms: i64) -> HeaderMap {
    let headers = HeaderMap::new();
    sign(scheme, secret, &Message { id: "msg_1", now_ms, method: "POST", url: "/", headers: &headers, body }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_signed_is_verified(body: Vec<u8>, now_ms in 0..4_102_444_800_000i64) {
        for (scheme, signing, verifying) in signing_pairs() {
            let headers = signed(&scheme, &signing, &body, now_ms);
            let verifier = Verifier::compile(&scheme, &[Secret::new("whsec_b3RoZXI="), verifying], None).unwrap();
            let request = Request { method: "POST", url: "/", headers: &headers, body: &body };
            let stamp = Some(now_ms / 1_000 * 1_000);
            prop_assert_eq!(verifier.verify(&request, now_ms), Ok(Verified { secret_index: 1, timestamp_ms: stamp }));
        }
    }

    #[test]
    fn one_changed_byte_is_rejected(
        body in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, flip in 1u8..,
    ) {
        let now_ms = NOW * 1_000;
        for (scheme, signing, verifying) in signing_pairs() {
            let verifier = Verifier::compile(&scheme, &[verifying], None).unwrap();
            let good = signed(&scheme, &signing, &body, now_ms);
            let mut changed = body.clone();
            changed[at.index(body.len())] ^= flip;
            let request = Request { method: "POST", url: "/", headers: &good, body: &changed };
            prop_assert_eq!(verifier.verify(&request, now_ms), Err(NoMatch));
            for (name, value) in &good {
                let mut bytes = value.as_bytes().to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                // Hex of private schemes is taken in either case: the same bytes.
                let same = name == "x-signature" && bytes.eq_ignore_ascii_case(value.as_bytes());
                let Ok(changed) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut headers = good.clone();
                headers.insert(name, changed);
                let request = Request { method: "POST", url: "/", headers: &headers, body: &body };
                prop_assert_eq!(verifier.verify(&request, now_ms).is_ok(), same, "{}: {:?}", name, headers);
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
        for (scheme, _, verifying) in signing_pairs() {
            prop_assert!(Verifier::compile(&scheme, &[verifying], None).unwrap().verify(&request, now_ms).is_err());
        }
    }
}
