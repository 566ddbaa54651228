//! Signature headers as a stranger may write them: verification never panics, and never accepts what no key has signed.

use std::sync::LazyLock;
use std::time::Duration;

use hookbridge::catalog::{self, SourceScheme};
use hookbridge::config::Secret;
use hookbridge::ingest::verify::{Request, Verifier};
use http::{HeaderMap, HeaderValue};

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

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let hex = "5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd";
    let base64 = "K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=";
    let seeds = [
        format!("t=1767225600,v1={hex},v1={hex},v0={hex}\0\0\0{{}}"),
        format!("v1,{base64} v1a,{base64} v2,x\x001767225600\0msg_1\0{{\"type\": \"x\"}}"),
        format!("sha512={hex}{hex}\x001767225600000\0\0body"),
        format!("sha512={}{}\x00-1\0\0", hex.to_uppercase(), hex.to_uppercase()),
    ];
    seeds.map(String::into_bytes).into()
}

pub(crate) fn meet(data: &[u8]) {
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
}
