//! A configuration: taken, or refused with at least one reason, and every reason can be said.

use std::env::VarError;
use std::io;
use std::path::Path;

use hookbridge::config::{self, Environment};

/// Variables that are set, and no files.
struct Fixed;

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        if name.len().is_multiple_of(2) { Ok("a: \"value\" of ${A}".to_owned()) } else { Err(VarError::NotPresent) }
    }

    fn read_file(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

const SMALL: &str = r#"kafka: { bootstrap_servers: "localhost:9092", librdkafka: { socket.timeout.ms: "8000" } }
registry: { url: "http://localhost:8081" }
events:
  order: { category: commerce, owner: a@example.com, key: .customer_id }
sources:
  shop:
    preset: standard-webhooks
    secrets: ["${AB}", "${A:-whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}"]
    event_type: .type
    payload: .data
  own:
    signature: { algorithm: hmac-sha256, header: x-s, encoding: hex, signed: "{body}" }
    secrets: [x]
    events:
      - when: .a == 1
        event: order
        map: '{ customer_id: .c }'
sinks:
  crm: { type: http, url: "https://example.com", events: [order], purpose: none, rate_limit: 5/s, retry: { max_age: 24h } }
"#;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../hookbridge.example.yaml");
    let sections = example.split("\n\n").map(|section| section.as_bytes().to_vec());
    [SMALL.as_bytes().to_vec(), b"a: &x [*x, {b: *x}]\n<<: *x".to_vec()].into_iter().chain(sections).collect()
}

pub(crate) fn meet(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match config::parse(Path::new("hookbridge.yaml"), &text, &Fixed) {
        Ok(loaded) => assert!(!format!("{:?}", loaded.config).is_empty()),
        Err(problems) => {
            assert!(!problems.all.is_empty(), "refused without a reason");
            assert!(!problems.to_string().is_empty());
        }
    }
}
