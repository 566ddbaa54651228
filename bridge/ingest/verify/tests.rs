//! What hostile and merely careless senders do, scheme by scheme. Signatures are made here with OpenSSL, so that the
//! code under test is not its own oracle; what they should come to was read off the vendors' own libraries.

mod properties;
mod providers;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use http::{HeaderName, HeaderValue};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use serde_json::json;

use super::Rejection::{
    FutureTimestamp, MalformedTimestamp, MissingHeader, MixedHeaders, NoMatch, NoUsableSignature, RepeatedHeader,
    StaleTimestamp,
};
use super::*;
use crate::catalog;

const NOW: i64 = 1_767_225_600;
const BODY: &[u8] = b"{\n  \"id\": \"evt_1\"\n}";
const STRIPE: &str = "whsec_public_0123456789abcdefABCDEF";
const SHARED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
/// The private half of an Ed25519 key.
const SEED: [u8; 32] = *b"an ed25519 seed of thirty-two by";

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = PKey::hmac(key).unwrap();
    let mut signer = openssl::sign::Signer::new(MessageDigest::sha256(), &key).unwrap();
    signer.sign_oneshot_to_vec(&parts.concat()).unwrap()
}

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().copied().map(Secret::new).collect()
}

fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

/// What the request comes to at [`NOW`]: which secret matched, or why none did.
#[track_caller]
fn check(scheme: &SourceScheme, keys: &[&str], headers: &[(&str, &str)], body: &[u8]) -> Result<usize, Rejection> {
    let verifier = Verifier::compile(scheme, &secrets(keys), None).unwrap();
    let headers = header_map(headers);
    let request = Request { method: "POST", url: "https://hooks.example.com/in", headers: &headers, body };
    verifier.verify(&request, NOW * 1_000).map(|verified| verified.secret_index)
}

/// What is tried, the headers, and what it comes to.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Result<usize, Rejection>);

fn preset(name: &str) -> SourceScheme {
    catalog::preset(name).unwrap()
}

/// The private scheme of the example configuration.
fn leads() -> SourceScheme {
    serde_json::from_value(json!({
        "signature": {
            "algorithm": "hmac-sha256", "header": "x-signature", "prefix": "sha256=", "encoding": "hex",
            "signed": "{header:x-timestamp}.{body}",
            "timestamp": {"header": "x-timestamp", "unit": "s", "tolerance": "300s"},
        },
        "event_id": ".submission_id",
    }))
    .unwrap()
}

fn stripe_v1(timestamp: &str, body: &[u8]) -> String {
    hex::encode(hmac_sha256(STRIPE.as_bytes(), &[timestamp.as_bytes(), b".", body]))
}

#[test]
fn stripe_is_verified_as_its_own_libraries_do() {
    let now = NOW.to_string();
    let good = stripe_v1(&now, BODY);
    let (bad, upper) = ("0".repeat(64), good.to_uppercase());
    let at = |seconds: i64| {
        let text = (NOW + seconds).to_string();
        format!("t={text},v1={}", stripe_v1(&text, BODY))
    };
    let signed_as = |text: &str| format!("t={text},v1={}", stripe_v1(text, BODY));
    let cases: &[(&str, String, Result<usize, Rejection>)] = &[
        ("valid", format!("t={now},v1={good}"), Ok(0)),
        ("the order does not matter", format!("v1={good},t={now}"), Ok(0)),
        ("one of several", format!("t={now},v1={bad},v1={good},v1={bad}"), Ok(0)),
        ("beside other schemes", format!("t={now},v0={bad},v1={good},v2=x"), Ok(0)),
        ("beside junk", format!("junk,,t={now},v1,v1=,v1={good},"), Ok(0)),
        ("the first of two timestamps is the signed one", format!("t={now},v1={good},t=1"), Ok(0)),
        ("only another scheme", format!("t={now},v0={good}"), Err(NoUsableSignature)),
        ("no signature", format!("t={now}"), Err(NoUsableSignature)),
        ("an empty signature", format!("t={now},v1="), Err(NoUsableSignature)),
        ("a prefix of the signature", format!("t={now},v1={}", &good[..32]), Err(NoUsableSignature)),
        ("a digit short", format!("t={now},v1={}", &good[..63]), Err(NoUsableSignature)),
        ("more than the signature", format!("t={now},v1={good}00"), Err(NoUsableSignature)),
        ("a suffix after the signature", format!("t={now},v1={good}=junk"), Err(NoUsableSignature)),
        ("upper case", format!("t={now},v1={upper}"), Err(NoUsableSignature)),
        ("base64", format!("t={now},v1={}", STANDARD.encode(hex::decode(&good).unwrap())), Err(NoUsableSignature)),
        ("a blank after the comma", format!("t={now}, v1={good}"), Err(NoUsableSignature)),
        ("a blank before the end", format!("t={now},v1={good} "), Err(NoUsableSignature)),
        ("capital names", format!("T={now},V1={good}"), Err(NoUsableSignature)),
        ("another separator", format!("t={now};v1={good}"), Err(NoUsableSignature)),
        ("another signature", format!("t={now},v1={bad}"), Err(NoMatch)),
        ("another time", format!("t={},v1={good}", NOW - 1), Err(NoMatch)),
        ("the second of two timestamps", format!("t={},t={now},v1={good}", NOW - 1), Err(NoMatch)),
        ("300 s old", at(-300), Ok(0)),
        ("301 s old", at(-301), Err(StaleTimestamp)),
        ("301 s early", at(301), Ok(0)),
        ("an hour early", at(3_600), Ok(0)),
        ("no timestamp", format!("v1={good}"), Err(MalformedTimestamp)),
        ("an empty timestamp", signed_as(""), Err(MalformedTimestamp)),
        ("a word for a timestamp", signed_as("now"), Err(MalformedTimestamp)),
        ("a plus sign", signed_as(&format!("+{now}")), Err(MalformedTimestamp)),
        ("a minus sign", signed_as("-1"), Err(MalformedTimestamp)),
        ("a blank", signed_as(&format!(" {now}")), Err(MalformedTimestamp)),
        ("a fraction", signed_as(&format!("{now}.0")), Err(MalformedTimestamp)),
        ("past 64 bits", signed_as("99999999999999999999"), Err(MalformedTimestamp)),
        ("past 64 bits in milliseconds", signed_as("9223372036854775807"), Err(MalformedTimestamp)),
        ("milliseconds", signed_as(&format!("{now}000")), Ok(0)),
        ("nothing", String::new(), Err(MissingHeader)),
    ];
    for (name, value, expected) in cases {
        assert_eq!(check(&preset("stripe"), &[STRIPE], &[("Stripe-Signature", value)], BODY), *expected, "{name}");
    }
    let value = format!("t={now},v1={good}");
    let twice = [("stripe-signature", value.as_str()), ("Stripe-Signature", value.as_str())];
    assert_eq!(check(&preset("stripe"), &[STRIPE], &twice, BODY), Err(RepeatedHeader));
    assert_eq!(check(&preset("stripe"), &[STRIPE], &[], BODY), Err(MissingHeader));
}

#[test]
fn stripe_signs_bytes_with_the_secret_as_it_is_shown() {
    let stripe = preset("stripe");
    let now = NOW.to_string();
    for body in [&b""[..], b"\xff\xfe not utf-8", b"{}\r\n"] {
        let value = format!("t={now},v1={}", stripe_v1(&now, body));
        assert_eq!(check(&stripe, &["whsec_other", STRIPE], &[("stripe-signature", &value)], body), Ok(1));
    }
    let decoded = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let value = format!("t={now},v1={}", hex::encode(hmac_sha256(&decoded, &[now.as_bytes(), b".", BODY])));
    assert_eq!(check(&stripe, &[SHARED], &[("stripe-signature", &value)], BODY), Err(NoMatch));
}

fn webhooks_v1(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    let key = STANDARD.decode(SHARED.strip_prefix("whsec_").unwrap()).unwrap();
    hmac_sha256(&key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body])
}

#[test]
fn standard_webhooks_are_verified_as_their_libraries_do() {
    let now = NOW.to_string();
    let bytes = webhooks_v1("msg_1", &now, BODY);
    let (good, bad) = (STANDARD.encode(&bytes), STANDARD.encode([0; 32]));
    // The last digit holds two bits of padding: a decoder that drops them takes four texts for one signature.
    let stray = format!("{}{}=", &good[..42], char::from(good.as_bytes()[42] + 1));
    let cases: &[(&str, String, Result<usize, Rejection>)] = &[
        ("valid", format!("v1,{good}"), Ok(0)),
        ("one of several", format!("v1,{bad} v2,{bad} v1,{good} v1,{bad}"), Ok(0)),
        ("beside junk", format!("junk  v1 v1, ,v1 v1a,{bad} v1,{good} "), Ok(0)),
        ("joined by a proxy", format!("v1,{bad}, v1,{good}"), Ok(0)),
        ("the last of many", format!("{}v1,{good}", format!("v1,{bad} ").repeat(200)), Ok(0)),
        ("no version", good.clone(), Err(NoUsableSignature)),
        ("another version", format!("v2,{good}"), Err(NoUsableSignature)),
        ("a version that begins alike", format!("v11,{good}"), Err(NoUsableSignature)),
        ("the version of another algorithm", format!("v1a,{good}"), Err(NoUsableSignature)),
        ("a capital version", format!("V1,{good}"), Err(NoUsableSignature)),
        ("CVE-2024-21491: nothing", "v1,".to_owned(), Err(NoUsableSignature)),
        ("CVE-2024-21491: a prefix", format!("v1,{}", &good[..4]), Err(NoUsableSignature)),
        ("CVE-2024-21491: a prefix in bytes", format!("v1,{}", STANDARD.encode(&bytes[..8])), Err(NoUsableSignature)),
        (
            "longer than a digest",
            format!("v1,{}", STANDARD.encode([&bytes[..], b"."].concat())),
            Err(NoUsableSignature),
        ),
        ("very long", format!("v1,{}", good.repeat(50)), Err(NoUsableSignature)),
        ("unpadded", format!("v1,{}", STANDARD_NO_PAD.encode(&bytes)), Err(NoUsableSignature)),
        ("padded twice", format!("v1,{good}="), Err(NoUsableSignature)),
        ("the other alphabet", format!("v1,{}", URL_SAFE.encode([0xfb; 32])), Err(NoUsableSignature)),
        ("stray bits", format!("v1,{stray}"), Err(NoUsableSignature)),
        ("hex", format!("v1,{}", hex::encode(&bytes)), Err(NoUsableSignature)),
        ("another signature", format!("v1,{bad}"), Err(NoMatch)),
    ];
    let scheme = preset("standard-webhooks");
    for (name, value, expected) in cases {
        let headers = [("Webhook-Id", "msg_1"), ("WEBHOOK-TIMESTAMP", &now), ("webhook-signature", value)];
        assert_eq!(check(&scheme, &[SHARED], &headers, BODY), *expected, "{name}: {value}");
    }
}

#[test]
fn the_time_of_a_standard_webhook_is_bounded_on_both_sides() {
    let offset = |seconds: i64| (NOW + seconds).to_string();
    let cases: &[(String, Result<usize, Rejection>)] = &[
        (offset(-300), Ok(0)),
        (offset(-301), Err(StaleTimestamp)),
        (offset(300), Ok(0)),
        (offset(301), Err(FutureTimestamp)),
        ("0".to_owned(), Err(StaleTimestamp)),
        (offset(0) + "000", Err(FutureTimestamp)),
        (offset(0) + ".5", Err(MalformedTimestamp)),
        ("hello".to_owned(), Err(MalformedTimestamp)),
        ("1e9".to_owned(), Err(MalformedTimestamp)),
        ("-9223372036854775808".to_owned(), Err(MalformedTimestamp)),
        (String::new(), Err(MissingHeader)),
    ];
    for (time, expected) in cases {
        let value = format!("v1,{}", STANDARD.encode(webhooks_v1("msg_1", time, BODY)));
        let headers = [("webhook-id", "msg_1"), ("webhook-timestamp", time), ("webhook-signature", &value)];
        assert_eq!(check(&preset("standard-webhooks"), &[SHARED], &headers, BODY), *expected, "{time}");
    }
}

#[test]
fn headers_of_a_standard_webhook_are_all_there_once_and_of_one_brand() {
    let now = NOW.to_string();
    let value = format!("v1,{}", STANDARD.encode(webhooks_v1("msg_1", &now, BODY)));
    let nameless = format!("v1,{}", STANDARD.encode(webhooks_v1("", &now, BODY)));
    let (id, time, signature) = (("webhook-id", "msg_1"), ("webhook-timestamp", now.as_str()), value.as_str());
    let (svix_id, svix_time) = (("svix-id", "msg_1"), ("svix-timestamp", now.as_str()));
    let own = ("webhook-signature", signature);
    let svix = ("svix-signature", signature);
    let cases: &[Case<'_>] = &[
        ("svix", &[svix_id, svix_time, svix], Ok(0)),
        (
            "both sets: the preferred one counts",
            &[id, time, own, svix_id, svix_time, ("svix-signature", "v1,x")],
            Ok(0),
        ),
        ("no id", &[time, own], Err(MissingHeader)),
        ("an empty id", &[("webhook-id", ""), time, ("webhook-signature", &nameless)], Err(MissingHeader)),
        ("no time", &[id, own], Err(MissingHeader)),
        ("two ids", &[id, id, time, own], Err(RepeatedHeader)),
        ("two times", &[id, time, time, own], Err(RepeatedHeader)),
        ("two signature headers", &[id, time, own, ("webhook-signature", "v1,x")], Err(RepeatedHeader)),
        ("the id of the other brand", &[svix_id, time, own], Err(MissingHeader)),
        ("svix without its time", &[svix_id, svix], Err(MissingHeader)),
        (
            "an unsigned id that would be preferred",
            &[("webhook-id", "msg_2"), svix_id, svix_time, svix],
            Err(MixedHeaders),
        ),
        (
            "a forged preferred set does not fall back",
            &[id, time, ("webhook-signature", "v1,x"), svix_id, svix_time, svix],
            Err(NoUsableSignature),
        ),
    ];
    for (name, headers, expected) in cases {
        assert_eq!(check(&preset("standard-webhooks"), &[SHARED], headers, BODY), *expected, "{name}");
    }
}

#[test]
fn a_key_is_used_for_its_own_algorithm_only() {
    let vendor = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        (
            "webhook-signature",
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
        ),
    ];
    let mut scheme = preset("standard-webhooks");
    for stamp in scheme.signature.iter_mut().filter_map(|signature| signature.timestamp.as_mut()) {
        stamp.tolerance = std::time::Duration::from_secs(10 * 365 * 86_400);
    }
    let body = br#"{"test": 2432232314}"#;
    assert_eq!(check(&scheme, &[PUBLIC], &vendor, body), Ok(0));
    assert_eq!(check(&scheme, &[SHARED, PUBLIC], &vendor, body), Ok(1));
    assert_eq!(check(&scheme, &[PUBLIC], &vendor, b"{}"), Err(NoMatch));
    assert_eq!(check(&scheme, &[SHARED], &vendor, body), Err(NoUsableSignature));
    // Each entry costs a curve operation, so that only so many are tried.
    let after = |count: usize| format!("{}{}", format!("v1a,{} ", STANDARD.encode([1; 64])).repeat(count), vendor[2].1);
    for (count, expected) in [(15, Ok(0)), (16, Err(NoMatch))] {
        let headers = [vendor[0], vendor[1], ("webhook-signature", &after(count))];
        assert_eq!(check(&scheme, &[PUBLIC], &headers, body), expected, "after {count}");
    }

    // Everybody knows a public key: as the key of an HMAC, in any reading of it, it must be worth nothing.
    let now = NOW.to_string();
    let raw = STANDARD.decode(PUBLIC.strip_prefix("whpk_").unwrap()).unwrap();
    for key in [PUBLIC.as_bytes(), PUBLIC.strip_prefix("whpk_").unwrap().as_bytes(), &raw] {
        let bytes = hmac_sha256(key, &[b"msg_1.", now.as_bytes(), b".", BODY]);
        for version in ["v1", "v1a"] {
            let value = format!("{version},{}", STANDARD.encode(&bytes));
            let headers = [("webhook-id", "msg_1"), ("webhook-timestamp", &now), ("webhook-signature", &value)];
            assert_eq!(check(&preset("standard-webhooks"), &[PUBLIC], &headers, BODY), Err(NoUsableSignature));
        }
    }
}

#[test]
fn a_private_scheme_is_what_its_description_says() {
    let now = NOW.to_string();
    let bytes = hmac_sha256(b"key", &[now.as_bytes(), b".", BODY]);
    let value = format!("sha256={}", hex::encode(&bytes));
    let time = ("X-Timestamp", now.as_str());
    let old = (NOW - 301).to_string();
    let cases: &[Case<'_>] = &[
        ("valid", &[time, ("X-Signature", &value)], Ok(0)),
        ("hex in capitals", &[time, ("x-signature", &format!("sha256={}", hex::encode_upper(&bytes)))], Ok(0)),
        ("without the prefix", &[time, ("x-signature", &hex::encode(&bytes))], Err(NoUsableSignature)),
        ("another prefix", &[time, ("x-signature", &value.replace("256", "1"))], Err(NoUsableSignature)),
        ("two in a header that has one", &[time, ("x-signature", &format!("{value},{value}"))], Err(NoUsableSignature)),
        ("stale", &[("x-timestamp", &old), ("x-signature", &value)], Err(StaleTimestamp)),
        ("no time", &[("x-signature", &value)], Err(MissingHeader)),
    ];
    for (name, headers, expected) in cases {
        assert_eq!(check(&leads(), &["key"], headers, BODY), *expected, "{name}");
    }
}

#[test]
fn method_and_public_url_can_be_signed() {
    let scheme: SourceScheme = serde_json::from_value(json!({"signature": {
        "algorithm": "hmac-sha512", "header": "x-sig", "encoding": "base64", "key": {"encoding": "hex"},
        "signed": "{method} {url} {{{body}}}",
    }}))
    .unwrap();
    let key = PKey::hmac(&[0xab, 0xcd]).unwrap();
    let mut signer = openssl::sign::Signer::new(MessageDigest::sha512(), &key).unwrap();
    let value = STANDARD.encode(signer.sign_oneshot_to_vec(b"PUT https://public.example/a {x}").unwrap());
    let headers = header_map(&[("x-sig", &value)]);
    let request = Request { method: "PUT", url: "/a", headers: &headers, body: b"x" };
    let verify = |url| Verifier::compile(&scheme, &secrets(&["abcd"]), url).unwrap().verify(&request, 0);
    assert_eq!(verify(Some("https://public.example/a")), Ok(Verified { secret_index: 0, timestamp_ms: None }));
    assert_eq!(verify(None), Err(NoMatch));
}

#[test]
fn secrets_that_prove_nothing_stop_the_start() {
    let problem = |name: &str, keys: &[&str]| {
        let error = Verifier::compile(&preset(name), &secrets(keys), None).unwrap_err();
        assert!(keys.iter().all(|key| key.len() < 8 || !error.to_string().contains(key)), "{error}");
        error.problems
    };
    let key = |index, problem| vec![Problem::Key { index, problem }];
    let base64 = KeyProblem::Encoding { expected: "base64" };
    let private = KeyProblem::Private { prefix: "whsk_".into(), instead: "whpk_".into() };
    assert_eq!(problem("stripe", &[]), [Problem::NoSecret]);
    assert_eq!(problem("stripe", &[STRIPE; 9]), [Problem::TooManySecrets { count: 9 }]);
    assert_eq!(problem("stripe", &[STRIPE, ""]), key(1, KeyProblem::Empty));
    assert_eq!(problem("stripe", &[" \n"]), key(0, KeyProblem::Empty));
    assert_eq!(problem("standard-webhooks", &["whsec_"]), key(0, KeyProblem::Empty));
    assert_eq!(problem("standard-webhooks", &["whsec_not base64"]), key(0, base64.clone()));
    assert_eq!(problem("standard-webhooks", &["not base64 either"]), key(0, base64.clone()));
    assert_eq!(problem("standard-webhooks", &["whsec_-_-_"]), key(0, base64));
    assert_eq!(problem("standard-webhooks", &["whpk_AAAA"]), key(0, KeyProblem::Length { actual: 3, expected: 32 }));
    assert_eq!(problem("standard-webhooks", &[&format!("whsk_{}", STANDARD.encode(SEED))]), key(0, private));
    assert_eq!(problem("standard-webhooks", &["whsec_", SHARED, "whpk_AAAA"]).len(), 2);
    // Unpadded, as secrets copied by hand are: the vendor's libraries take it.
    let now = NOW.to_string();
    let bytes = hmac_sha256(b"four", &[b"m.", now.as_bytes(), b".", BODY]);
    let value = format!("v1,{}", STANDARD.encode(bytes));
    let headers = [("webhook-id", "m"), ("webhook-timestamp", &now), ("webhook-signature", &value)];
    for key in ["whsec_Zm91cg==", "whsec_Zm91cg", "Zm91cg"] {
        assert_eq!(check(&preset("standard-webhooks"), &[key], &headers, BODY), Ok(0), "{key}");
    }
}

#[test]
fn descriptions_that_leave_a_hole_stop_the_start_with_all_their_problems() {
    let mut scheme = leads();
    scheme.signature[0].signed = "{body}".to_owned();
    let mut second = scheme.signature[0].clone();
    second.header = Some("no such".to_owned());
    second.separator = Some('\u{e9}');
    second.signed = "{header:x-timestamp}".to_owned();
    scheme.signature.push(second);
    let error = Verifier::compile(&scheme, &[], None).unwrap_err();
    let template = |way, signed: &str, problem| Problem::Template { way, signed: signed.to_owned(), problem };
    assert_eq!(
        error.problems,
        [
            Problem::NoSecret,
            template(0, "{body}", TemplateProblem::TimestampUnsigned),
            Problem::HeaderName { way: 1, name: "no such".into() },
            Problem::Separator { way: 1, separator: '\u{e9}' },
            template(1, "{header:x-timestamp}", TemplateProblem::NoBody),
        ]
    );
    let none = Verifier::compile(&SourceScheme::default(), &secrets(&["x"]), None).unwrap_err();
    assert_eq!(none.problems, [Problem::NoSignature]);
}

#[test]
fn nothing_of_a_key_is_printed() {
    let verifier = Verifier::compile(&preset("stripe"), &secrets(&[STRIPE]), None).unwrap();
    assert_eq!(format!("{verifier:?}"), r#"Verifier { places_and_key_counts: [("stripe-signature", 1)], .. }"#);
}
