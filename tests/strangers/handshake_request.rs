//! Requests as a stranger may send them, to every preset that has a handshake and to one whose answer is computed: no
//! panic; nobody without the token is echoed anything; and no answer is longer than its bound.

use std::sync::LazyLock;

use hookbridge::catalog::{self, SourceScheme};
use hookbridge::config::Secret;
use hookbridge::ingest::handshake::Handshakes;
use hookbridge::ingest::verify::{Request, Verified};
use http::{HeaderMap, HeaderValue};

const TOKEN: &str = "a token that nobody guesses";

/// Zoom's, which has no preset.
const COMPUTED: &str = r#"{"handshake": {"when": {".event": "validation"},
    "json": {"plainToken": "{.payload.plainToken}", "encryptedToken": "{hmac-sha256:.payload.plainToken}"}}}"#;

static ALL: LazyLock<Vec<Handshakes>> = LazyLock::new(|| {
    let computed: SourceScheme = serde_json::from_str(COMPUTED).expect("a scheme");
    let presets = ["github", "meta", "slack"].map(|name| catalog::preset(name).expect("a preset"));
    let compile = |scheme: &SourceScheme| {
        Handshakes::compile(scheme, &[Secret::new("a secret")], Some(&Secret::new(TOKEN))).expect("no hole")
    };
    presets.iter().chain([&computed]).map(compile).collect()
});

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 5] = [
        b"hub.mode=subscribe&hub.verify_token=a&hub.challenge=1158201444\0\0",
        b"\0ping\0{\"zen\": \"x\", \"hook_id\": 1}",
        b"\0\0{\"type\": \"url_verification\", \"token\": \"t\", \"challenge\": \"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P\"}",
        b"\0\0{\"event\": \"validation\", \"payload\": {\"plainToken\": \"qgg8vlvZRS6UYooatFL8Aw\"}}",
        b"x=%20+&x&=\0issues\0[]",
    ];
    seeds.map(<[u8]>::to_vec).into()
}

pub(crate) fn meet(data: &[u8]) {
    // Zero bytes, which no address and no header can carry, part method and query, a header, and the body.
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (query, event, body) = (String::from_utf8_lossy(part()).into_owned(), part(), part());
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(event) {
        headers.insert("x-github-event", value);
    }
    let knows = query.contains("nobody") || query.contains('%');
    for method in ["GET", "POST"] {
        let url = format!("/hooks/x?{query}");
        let request = Request { method, url: &url, headers: &headers, body };
        for handshakes in ALL.iter() {
            let verified = Verified { secret_index: 0, timestamp_ms: None };
            let unsigned = handshakes.unsigned(&request);
            assert!(knows || unsigned.as_ref().is_none_or(|answer| !answer.status.is_success()), "{request:?}");
            for answer in unsigned.into_iter().chain(handshakes.signed(&request, &verified)) {
                assert!(answer.body.len() <= 4 << 10);
            }
        }
    }
}
