//! What each provider's own libraries and pages decide, beyond the vectors: downgrades, brands, batches, tokens.

use super::super::Rejection::{EmptyBody, MissingInBody};
use super::*;

const URL: &str = "https://hooks.example.com/in";
const KEY: &str = "a client's secret";

fn base64(parts: &[&[u8]]) -> String {
    STANDARD.encode(hmac_sha256(KEY.as_bytes(), parts))
}

fn hex_of(parts: &[&[u8]]) -> String {
    hex::encode(hmac_sha256(KEY.as_bytes(), parts))
}

fn hmac_sha1(parts: &[&[u8]]) -> String {
    let key = PKey::hmac(KEY.as_bytes()).unwrap();
    let mut signer = openssl::sign::Signer::new(MessageDigest::sha1(), &key).unwrap();
    hex::encode(signer.sign_oneshot_to_vec(&parts.concat()).unwrap())
}

fn sha256(parts: &[&[u8]]) -> String {
    hex::encode(openssl::sha::sha256(&parts.concat()))
}

#[test]
fn hubspot_is_never_downgraded() {
    let now = (NOW * 1_000).to_string();
    let v3 = base64(&[b"POST", URL.as_bytes(), BODY, now.as_bytes()]);
    let v2 = sha256(&[KEY.as_bytes(), b"POST", URL.as_bytes(), BODY]);
    let v1 = sha256(&[KEY.as_bytes(), BODY]);
    let time = ("X-HubSpot-Request-Timestamp", now.as_str());
    let (new, forged) = (("X-HubSpot-Signature-v3", v3.as_str()), ("x-hubspot-signature-v3", "AAAA"));
    let (one, two) = (("X-HubSpot-Signature", v1.as_str()), ("X-HubSpot-Signature", v2.as_str()));
    let says = |version| ("X-HubSpot-Signature-Version", version);
    let cases: &[Case<'_>] = &[
        ("v3", &[new, time], Ok(0)),
        ("v3 beside v1", &[new, time, one, says("v1")], Ok(0)),
        ("v3 beside a forged v1", &[new, time, ("X-HubSpot-Signature", "00"), says("v1")], Ok(0)),
        ("a forged v3 beside v1", &[forged, time, one, says("v1")], Err(NoUsableSignature)),
        ("v3 cut off", &[time, one, says("v1")], Err(MixedHeaders)),
        ("v3 without its time beside v1", &[new, one, says("v1")], Err(MissingHeader)),
        ("v1", &[one, says("v1")], Ok(0)),
        ("v2", &[two, says("v2")], Ok(0)),
        ("v1 called v2", &[one, says("v2")], Err(NoMatch)),
        ("v2 called v1", &[two, says("v1")], Err(NoMatch)),
        ("no version", &[one], Err(MissingHeader)),
        ("two versions", &[one, says("v1"), says("v2")], Err(MissingHeader)),
        ("a version to come", &[one, says("v4")], Err(MissingHeader)),
    ];
    for (name, headers, expected) in cases {
        assert_eq!(check(&preset("hubspot"), &[KEY], headers, BODY), *expected, "{name}");
    }
    let strict = SourceScheme { min_version: Some("v3".into()), ..preset("hubspot") };
    assert_eq!(check(&strict, &[KEY], &[new, time], BODY), Ok(0));
    assert_eq!(check(&strict, &[KEY], &[one, says("v1")], BODY), Err(MissingHeader));
    let unknown = SourceScheme { min_version: Some("v5".into()), ..preset("hubspot") };
    let error = Verifier::compile(&unknown, &secrets(&[KEY]), None).unwrap_err();
    assert_eq!(error.problems, [Problem::MinVersion { name: "v5".into() }]);
}

#[test]
fn hubspot_signs_the_public_address_with_some_escapes_decoded() {
    let now = (NOW * 1_000).to_string();
    let public = "https://hooks.example.com/in%3Fa?b=c%40d%20e%2F";
    let signs = |address: &str| base64(&[b"POST", address.as_bytes(), BODY, now.as_bytes()]);
    for (address, expected) in [
        ("https://hooks.example.com/in?a?b=c@d%20e/", Ok(0)),
        (public, Err(NoMatch)),
        ("https://hooks.example.com/in?a?b=c@d e/", Err(NoMatch)),
    ] {
        let value = signs(address);
        let headers = header_map(&[("x-hubspot-signature-v3", &value), ("x-hubspot-request-timestamp", &now)]);
        let request = Request { method: "POST", url: "/in", headers: &headers, body: BODY };
        let verifier = Verifier::compile(&preset("hubspot"), &secrets(&[KEY]), Some(public)).unwrap();
        let outcome = verifier.verify(&request, NOW * 1_000).map(|verified| verified.secret_index);
        assert_eq!(outcome, expected, "{address}");
    }
}

#[test]
fn shopifys_new_headers_decide_where_they_are() {
    let good = base64(&[BODY]);
    let bad = base64(&[b"other"]);
    let cases: &[Case<'_>] = &[
        ("webhooks", &[("X-Shopify-Hmac-Sha256", &good)], Ok(0)),
        ("events", &[("Shopify-Hmac-Sha256", &good)], Ok(0)),
        ("both", &[("Shopify-Hmac-Sha256", &good), ("X-Shopify-Hmac-Sha256", &bad)], Ok(0)),
        ("the older one only", &[("Shopify-Hmac-Sha256", &bad), ("X-Shopify-Hmac-Sha256", &good)], Err(NoMatch)),
        ("an empty new one", &[("Shopify-Hmac-Sha256", ""), ("X-Shopify-Hmac-Sha256", &good)], Err(MissingHeader)),
    ];
    for (name, headers, expected) in cases {
        assert_eq!(check(&preset("shopify"), &[KEY], headers, BODY), *expected, "{name}");
    }
    let empty = base64(&[b""]);
    assert_eq!(check(&preset("shopify"), &[KEY], &[("X-Shopify-Hmac-Sha256", &empty)], b""), Err(EmptyBody));
    let empty = format!("sha256={}", hex_of(&[b""]));
    assert_eq!(check(&preset("github"), &[KEY], &[("X-Hub-Signature-256", &empty)], b""), Err(EmptyBody));
}

#[test]
fn segment_signs_an_event_or_the_first_of_several() {
    let first = br#"{"cool": "a\u00e9"}"#;
    let batch = |rest: &str| [b"[ ", first.as_slice(), rest.as_bytes()].concat();
    for (name, body, expected) in [
        ("an event", first.to_vec(), Ok(0)),
        ("a batch of one", batch("]"), Ok(0)),
        ("a batch", batch(" , {}]\n"), Ok(0)),
        ("the second of a batch", [b"[{}, ", first.as_slice(), b"]"].concat(), Err(NoMatch)),
        ("nothing", b"[]".to_vec(), Err(NoMatch)),
        ("an object with it", [br#"{"0": "#, first.as_slice(), b"}"].concat(), Err(NoMatch)),
        ("no JSON", batch(", "), Err(NoMatch)),
    ] {
        assert_eq!(
            check(&preset("segment"), &[KEY], &[("X-Signature", &hmac_sha1(&[first]))], &body),
            expected,
            "{name}"
        );
    }
    let whole = batch(",{}]");
    assert_eq!(check(&preset("segment"), &[KEY], &[("X-Signature", &hmac_sha1(&[&whole]))], &whole), Ok(0));
}

#[test]
fn mailguns_signature_stands_in_the_body() {
    let now = NOW.to_string();
    let good = hex_of(&[now.as_bytes(), b"token"]);
    let with = |signature: serde_json::Value| json!({"signature": signature, "event-data": {"id": "e"}}).to_string();
    let other = "0".repeat(64);
    let cases = [
        ("valid", json!({"timestamp": now, "token": "token", "signature": good}), Ok(0)),
        ("a number as the time", json!({"timestamp": NOW, "token": "token", "signature": good}), Ok(0)),
        ("in capitals", json!({"timestamp": now, "token": "token", "signature": good.to_uppercase()}), Ok(0)),
        (
            "the primary account's",
            json!({"timestamp": now, "token": "token", "signature": other, "parent-signature": good}),
            Ok(0),
        ),
        ("another", json!({"timestamp": now, "token": "token", "signature": other}), Err(NoMatch)),
        ("no token", json!({"timestamp": now, "signature": good}), Err(MissingInBody)),
        ("an empty token", json!({"timestamp": now, "token": "", "signature": good}), Err(MissingInBody)),
        ("null for a token", json!({"timestamp": now, "token": null, "signature": good}), Err(MissingInBody)),
        ("no time", json!({"token": "token", "signature": good}), Err(MissingInBody)),
        ("no signature", json!({"timestamp": now, "token": "token"}), Err(MissingInBody)),
        ("a list", json!([good]), Err(MissingInBody)),
        ("half", json!({"timestamp": now, "token": "token", "signature": good[..32]}), Err(NoUsableSignature)),
        (
            "the time moved into the token",
            json!({"timestamp": now[..9], "token": format!("{}token", &now[9..]), "signature": good}),
            Err(StaleTimestamp),
        ),
    ];
    for (name, signature, expected) in cases {
        assert_eq!(check(&preset("mailgun"), &[KEY], &[], with(signature).as_bytes()), expected, "{name}");
    }
    for body in [&b""[..], b"{", b"\xff", b"null"] {
        assert_eq!(check(&preset("mailgun"), &[KEY], &[], body), Err(MissingInBody));
    }
    // The last of two fields counts, as in the mapping that follows.
    let twice = format!(r#"{{"signature":{{"token":"x","timestamp":"{now}","signature":"{good}","token":"token"}}}}"#);
    assert_eq!(check(&preset("mailgun"), &[KEY], &[], twice.as_bytes()), Ok(0));

    let body = with(json!({"timestamp": now, "token": "token", "signature": good}));
    let headers = HeaderMap::new();
    let request = Request { method: "POST", url: URL, headers: &headers, body: body.as_bytes() };
    let replay_key = |name, key| Verifier::compile(&preset(name), &secrets(&[key]), None).unwrap().replay_key(&request);
    assert_eq!(replay_key("mailgun", KEY), Some("token".to_owned()));
    assert_eq!(replay_key("github", KEY), None);
}

#[test]
fn a_source_may_have_its_own_tolerance() {
    let at = |name: &str, tolerance: u64, skew: i64| {
        let scheme = SourceScheme { tolerance: Some(std::time::Duration::from_secs(tolerance)), ..preset(name) };
        let time = (NOW + skew).to_string();
        let (slack, paddle) = (
            format!("v0={}", hex_of(&[b"v0:", time.as_bytes(), b":", BODY])),
            format!("ts={time};h1=junk;h1={};x=y", hex_of(&[time.as_bytes(), b":", BODY])),
        );
        let headers = [
            ("x-slack-request-timestamp", time.as_str()),
            ("x-slack-signature", &slack),
            ("paddle-signature", &paddle),
        ];
        check(&scheme, &[KEY], &headers, BODY)
    };
    assert_eq!(at("slack", 60, -60), Ok(0));
    assert_eq!(at("slack", 60, -61), Err(StaleTimestamp));
    assert_eq!(at("slack", 60, 61), Err(FutureTimestamp));
    assert_eq!(at("paddle", 5, -5), Ok(0));
    assert_eq!(at("paddle", 5, -6), Err(StaleTimestamp));
    assert_eq!(at("paddle", 5, 3_600), Ok(0));
}

#[test]
fn the_text_of_zendesks_time_is_signed() {
    let verified = |time: &str| {
        let value = base64(&[time.as_bytes(), BODY]);
        let headers =
            [("x-zendesk-webhook-signature", value.as_str()), ("x-zendesk-webhook-signature-timestamp", time)];
        check(&preset("zendesk"), &[KEY], &headers, BODY)
    };
    assert_eq!(verified("2026-01-01T00:00:00Z"), Ok(0));
    assert_eq!(verified("2025-12-31T19:00:00.250-05:00"), Ok(0));
    assert_eq!(verified("2025-12-31T23:54:59Z"), Err(StaleTimestamp));
    assert_eq!(verified("2026-01-01T00:05:01Z"), Err(FutureTimestamp));
    assert_eq!(verified("1767225600"), Err(MalformedTimestamp));
}

#[test]
fn tokens_are_compared_whole() {
    let scheme = |algorithm: &str| -> SourceScheme {
        let signature = json!({"algorithm": algorithm, "header": "authorization"});
        serde_json::from_value(json!({ "signature": signature })).unwrap()
    };
    let basic = format!("Basic {}", STANDARD.encode("user:pass"));
    for (algorithm, secret, value, expected) in [
        ("equals", "Bearer rc", "Bearer rc", Ok(1)),
        ("equals", "Bearer rc", "bearer rc", Err(NoMatch)),
        ("equals", "Bearer rc", "Bearer r", Err(NoMatch)),
        ("equals", "Bearer rc", "Bearer rc ", Err(NoMatch)),
        ("bearer", "rc", "Bearer rc", Ok(1)),
        ("bearer", "rc", "bEARER rc", Ok(1)),
        ("bearer", "rc", "Bearer  rc", Err(NoMatch)),
        ("bearer", "rc", "Basic rc", Err(NoUsableSignature)),
        ("bearer", "rc", "Bear", Err(NoUsableSignature)),
        ("basic", "user:pass", &basic, Ok(1)),
        ("basic", "user:past", &basic, Err(NoMatch)),
        ("basic", "user:pass", "Basic dXNlcjpwYXNz=", Err(NoMatch)),
        ("basic", "user:pass", "", Err(MissingHeader)),
    ] {
        let scheme = scheme(algorithm);
        let taken = check(&scheme, &["other:secret", secret], &[("Authorization", value)], BODY);
        assert_eq!(taken, expected, "{algorithm}: {value}");
    }
    let error = Verifier::compile(&scheme("basic"), &secrets(&["no colon"]), None).unwrap_err();
    assert_eq!(error.problems, [Problem::Key { index: 0, problem: KeyProblem::NoColon }]);
}

#[test]
fn parts_that_have_no_meaning_stop_the_start() {
    let problems = |signature: serde_json::Value| {
        let scheme: SourceScheme =
            serde_json::from_value(json!({ "signature": signature, "replay_key": ".a[]" })).unwrap();
        Verifier::compile(&scheme, &secrets(&[KEY]), None).unwrap_err().problems
    };
    let token = |key| Problem::Token { way: 0, key };
    assert_eq!(
        problems(json!({"algorithm": "equals", "header": "a", "body": ".b", "signed": "{body}", "encoding": "hex"})),
        [Problem::Place { way: 0, what: "signature" }, token("signed"), token("encoding"), Problem::ReplayKey]
    );
    assert_eq!(
        problems(json!({
            "algorithm": "hmac-sha256", "body": ".a[]", "when": {"a b": "c"}, "signed": "{timestamp}{body}",
            "timestamp": {"unit": "s", "tolerance": "5m"},
        })),
        [
            Problem::Path { way: 0, path: ".a[]".into() },
            Problem::HeaderName { way: 0, name: "a b".into() },
            Problem::NoEncoding { way: 0 },
            Problem::Place { way: 0, what: "timestamp" },
            Problem::ReplayKey,
        ]
    );
}

#[test]
fn a_public_key_is_of_its_algorithm() {
    let problem = |key: &str| Verifier::compile(&preset("sendgrid"), &secrets(&[key]), None).unwrap_err().problems;
    let expected = "a public key on P-256 (SubjectPublicKeyInfo)";
    let public = |expected| [Problem::Key { index: 0, problem: KeyProblem::Public { expected } }];
    let rsa = PKey::from_rsa(openssl::rsa::Rsa::generate(2_048).unwrap()).unwrap();
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1).unwrap();
    let larger = PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
    for key in [rsa.public_key_to_der(), larger.public_key_to_der(), Ok(b"no key".to_vec())] {
        assert_eq!(problem(&STANDARD.encode(key.unwrap())), public(expected));
    }
}
