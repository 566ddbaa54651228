//! What providers ask at setup, and what strangers ask in their name.

use http::HeaderMap;
use serde_json::json;

use super::*;

fn preset(name: &str) -> SourceScheme {
    catalog::preset(name).unwrap()
}

fn compiled(scheme: &SourceScheme, token: Option<&str>) -> Handshakes {
    let token = token.map(Secret::new);
    Handshakes::compile(scheme, &[Secret::new("old"), Secret::new("new")], token.as_ref()).unwrap()
}

const VERIFIED: Verified = Verified { secret_index: 1, timestamp_ms: None };

fn text(body: &str) -> Answer {
    Answer { status: StatusCode::OK, content_type: TEXT, body: body.into() }
}

#[test]
fn metas_challenge_is_echoed_to_whoever_has_the_token() {
    let headers = HeaderMap::new();
    let ask = |method, query: &str, token| {
        let url = format!("https://hooks.example.com/hooks/meta{query}");
        let request = Request { method, url: &url, headers: &headers, body: b"" };
        compiled(&preset("meta"), token).unsigned(&request)
    };
    let good = "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meaty%20ham+hock";
    let token = Some("meaty ham hock");
    assert_eq!(ask("GET", good, token), Some(text("1158201444")));
    assert_eq!(ask("GET", &good.replace("hub.mode", "hub%2Emode"), token), Some(text("1158201444")));
    assert_eq!(ask("POST", good, token), None);
    for (what, query, token) in [
        ("another token", good, Some("meaty ham")),
        ("no token here", good, None),
        ("an empty token here", "?hub.mode=subscribe&hub.challenge=1&hub.verify_token=", Some("")),
        ("no token there", "?hub.mode=subscribe&hub.challenge=1", token),
        ("another mode", "?hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=meaty+ham+hock", token),
        ("no challenge", "?hub.mode=subscribe&hub.verify_token=meaty+ham+hock", token),
        (
            "a token twice",
            "?hub.mode=subscribe&hub.challenge=1&hub.verify_token=x&hub.verify_token=meaty+ham+hock",
            token,
        ),
        ("nothing", "", token),
    ] {
        assert_eq!(ask("GET", query, token), Some(Answer::refused()), "{what}");
    }
    let long = format!("{good}{}", "1".repeat(MAX_ANSWER)).replace("&hub.verify_token=meaty%20ham+hock", "");
    let long = format!("{long}&hub.verify_token=meaty+ham+hock");
    assert_eq!(ask("GET", &long, token), Some(Answer::refused()));
}

#[test]
fn slacks_challenge_is_echoed_once_it_is_verified() {
    let headers = HeaderMap::new();
    let ask = |body: &str| {
        let request = Request { method: "POST", url: "/hooks/slack", headers: &headers, body: body.as_bytes() };
        assert_eq!(compiled(&preset("slack"), None).unsigned(&request), None);
        compiled(&preset("slack"), None).signed(&request, &VERIFIED)
    };
    assert_eq!(
        ask(r#"{"token":"x","challenge":"3eZbrw1aB\u002b","type":"url_verification"}"#),
        Some(text("3eZbrw1aB+"))
    );
    assert_eq!(ask(r#"{"type":"event_callback","challenge":"3eZ"}"#), None);
    assert_eq!(ask(r#"{"type":"url_verification"}"#), Some(Answer::refused()));
    assert_eq!(ask("payload=%7B%22type%22%3A%22url_verification%22%7D"), None);
}

#[test]
fn githubs_ping_is_no_event() {
    let ask = |event: &'static str| {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-github-event"), event.parse().unwrap())]);
        let request = Request { method: "POST", url: "/", headers: &headers, body: b"{}" };
        compiled(&preset("github"), None).signed(&request, &VERIFIED)
    };
    assert_eq!(ask("ping"), Some(text("")));
    assert_eq!(ask("push"), None);
}

#[test]
fn an_answer_can_be_computed_with_the_secret_that_has_verified_the_request() {
    let scheme: SourceScheme = serde_json::from_value(json!({"handshake": {
        "when": {".event": "endpoint.url_validation"},
        "json": {"plainToken": "{.payload.plainToken}", "encryptedToken": "{hmac-sha256:.payload.plainToken}"},
    }}))
    .unwrap();
    let headers = HeaderMap::new();
    let body = br#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let request = Request { method: "POST", url: "/", headers: &headers, body };
    let answer = compiled(&scheme, None).signed(&request, &VERIFIED).unwrap();
    let key = openssl::pkey::PKey::hmac(b"new").unwrap();
    let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
    let expected = hex::encode(signer.sign_oneshot_to_vec(b"qgg8vlvZRS6UYooatFL8Aw").unwrap());
    assert_eq!((answer.status, answer.content_type), (StatusCode::OK, JSON));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&answer.body).unwrap(),
        json!({"plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": expected})
    );
}

#[test]
fn descriptions_that_would_echo_for_anybody_are_refused_with_all_their_problems() {
    let scheme: SourceScheme = serde_json::from_value(json!({"handshake": [
        {"when": {}, "signed": false, "text": "{hmac-sha256:.x}"},
        {"when": {"verb": "GET", "header:a b": "x", "query:": "y", ".a[]": "z"}, "text": "{", "json": {"a": "b"}},
        {"when": {"method": "GET"}, "text": "}"},
    ]}))
    .unwrap();
    let place = |place: &str| Problem::Place { index: 1, place: place.into() };
    assert_eq!(
        Handshakes::compile(&scheme, &[], None).unwrap_err().problems,
        [
            Problem::Always { index: 0 },
            Problem::NoKey { index: 0 },
            Problem::Anybody { index: 0 },
            place(".a[]"),
            place("header:a b"),
            place("query:"),
            place("verb"),
            Problem::Answer { index: 1 },
            Problem::Unbalanced { index: 2, text: "}".into() },
        ]
    );
}

#[test]
fn every_preset_compiles_and_prints_no_secret() {
    for name in catalog::preset_names() {
        let made = compiled(&preset(name), Some("a token of Meta's"));
        assert!(!format!("{made:?}").contains("token"), "{name}");
    }
}

/// What a query, a body or a header of a handshake is made of.
const PIECES: &[&str] = &[
    "hub.mode",
    "=",
    "&",
    "subscribe",
    "hub.verify_token",
    "hub.challenge",
    "%",
    "%2E",
    "+",
    "a token",
    "?",
    "#",
    "{",
    "}",
    "\"",
    ":",
    "\"type\"",
    "\"url_verification\"",
    "\"challenge\"",
    "\"event\"",
    "\"x\"",
    "\\u00e9",
    "[",
    "]",
    ",",
    "1",
    "null",
];

proptest::proptest! {
    #[test]
    fn nobody_without_the_token_is_echoed_anything_and_no_answer_is_longer_than_its_bound(
        query in proptest::collection::vec(proptest::sample::select(PIECES), 0..14),
        body in proptest::collection::vec(proptest::sample::select(PIECES), 0..20),
        soup in proptest::collection::vec(0u8.., 0..60),
    ) {
        let (url, body) = (format!("/hooks/x?{}", query.concat()), body.concat().into_bytes());
        let headers = HeaderMap::new();
        for name in ["github", "meta", "slack"] {
            let handshakes = compiled(&preset(name), Some("a token"));
            let others = compiled(&preset(name), Some("another token"));
            for (method, body) in [("GET", &body), ("POST", &body), ("POST", &soup)] {
                let request = Request { method, url: &url, headers: &headers, body };
                let unsigned = others.unsigned(&request);
                proptest::prop_assert!(unsigned.is_none_or(|answer| answer == Answer::refused()));
                for answer in handshakes.unsigned(&request).into_iter().chain(handshakes.signed(&request, &VERIFIED)) {
                    proptest::prop_assert!(answer.body.len() <= MAX_ANSWER);
                }
            }
        }
    }
}
