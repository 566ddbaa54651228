//! Signature headers as a stranger may write them: verification never panics, and never accepts what no key has signed.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use hookbridge::catalog::{self, SourceScheme};
use hookbridge::config::Secret;
use hookbridge::ingest::verify::{Request, Verifier};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const NOW_MS: i64 = 1_767_225_600_000;

/// A private scheme, so that hexadecimal in either case and a plain prefix are tried as well.
const PRIVATE: &str = r#"{
    "signature": {
        "algorithm": "hmac-sha512", "header": "x-signature", "prefix": "sha512=", "encoding": "hex",
        "signed": "{method}{header:x-timestamp}.{body}",
        "timestamp": {"header": "x-timestamp", "unit": "ms", "tolerance": "300s"}
    }
}"#;

static VERIFIERS: LazyLock<[Verifier; 3]> = LazyLock::new(|| {
    [
        verifier(catalog::preset("stripe").expect("a preset"), &["whsec_a", "whsec_b"]),
        verifier(
            catalog::preset("standard-webhooks").expect("a preset"),
            &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="],
        ),
        verifier(serde_json::from_str(PRIVATE).expect("a scheme"), &["a secret"]),
    ]
});

/// With a window so wide that the fuzzer need not guess the time to get to the signatures.
fn verifier(mut scheme: SourceScheme, secrets: &[&str]) -> Verifier {
    for stamp in scheme.signature.iter_mut().filter_map(|signature| signature.timestamp.as_mut()) {
        stamp.tolerance = Duration::from_secs(100 * 365 * 86_400);
    }
    let secrets: Vec<Secret> = secrets.iter().copied().map(Secret::new).collect();
    Verifier::compile(&scheme, &secrets, None).expect("a description without a hole")
}

fuzz_target!(|data: &[u8]| {
    // Zero bytes, which no header can carry, part the signature, the time, the id and the body.
    let mut parts = data.splitn(4, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (signature, time, id, body) = (part(), part(), part(), part());
    let mut headers = HeaderMap::new();
    for (names, value) in [
        (&["stripe-signature", "webhook-signature", "svix-signature", "x-signature"][..], signature),
        (&["webhook-timestamp", "svix-timestamp", "x-timestamp"][..], time),
        (&["webhook-id", "svix-id"][..], id),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.extend(names.iter().map(|name| (http::HeaderName::from_static(name), value.clone())));
        }
    }
    for only_svix in [false, true] {
        if only_svix {
            for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
                headers.remove(name);
            }
        }
        let request = Request { method: "POST", url: "/", headers: &headers, body };
        for verifier in VERIFIERS.iter() {
            assert!(verifier.verify(&request, NOW_MS).is_err(), "nobody signed this: {headers:?}");
        }
    }
});
