//! `headers` of a sink over HTTP: what the receiver wants beside what every call carries anyway.

use std::collections::BTreeMap;

use http::HeaderName;

use crate::config::Secret;
use crate::config::reader::Field;

/// A receiver asks for a key, a version or two, and a tenant.
const MOST: usize = 32;

/// Receivers take heads of 8 KiB as a rule, all headers together.
const LONGEST: usize = 4 * 1024;

/// Set for each call by what it carries (RFC 9110; Standard Webhooks 1.0.0).
const OURS: &[&str] =
    &["content-length", "content-type", "host", "webhook-id", "webhook-signature", "webhook-timestamp"];

/// Between the two ends of a connection only (RFC 9110, section 7.6.1).
const OF_THE_CONNECTION: &[&str] = &[
    "connection",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Their names are in lower case, as HTTP/2 has them; a value may be a secret and is never repeated.
pub(super) fn headers(field: &Field<'_>) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    for (written, value) in field.named() {
        let name = written.to_ascii_lowercase();
        let refused = if !is_name(&name) {
            Some(("cannot be a header's name".to_owned(), None))
        } else if OURS.contains(&name.as_str()) {
            Some((format!("`{name}` is set by hookbridge itself"), sign_instead(&name)))
        } else if OF_THE_CONNECTION.contains(&name.as_str()) {
            Some((format!("`{name}` is the connection's own"), None))
        } else if headers.contains_key(&name) {
            Some((format!("`{name}` stands twice: headers are the same in capitals"), None))
        } else {
            None
        };
        if let Some((message, hint)) = refused {
            value.error_at_key(message, hint);
            continue;
        }
        if !value.is_written() {
            value.error("is empty");
        } else if let Some(text) = value.parsed_unseen(checked) {
            headers.insert(name, Secret::new(text));
        }
    }
    if headers.len() > MOST {
        field.error(format!("has {} headers, and {MOST} are the most", headers.len()));
    }
    headers
}

fn sign_instead(name: &str) -> Option<String> {
    name.starts_with("webhook-").then(|| "`sign.standard_webhooks` signs what is sent".to_owned())
}

/// A token (RFC 9110, section 5.6.2), of a length that every receiver takes.
fn is_name(name: &str) -> bool {
    name.len() <= 256 && HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// What a recipient may not mistake for anything else: no control characters, nothing beyond ASCII (RFC 9110, section 5.5).
fn checked(text: &str) -> Result<String, String> {
    if text.len() > LONGEST {
        return Err(format!("has {} bytes, and {LONGEST} are the most", text.len()));
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("holds a character that no header may have: a line break, say, or a letter beyond ASCII".to_owned());
    }
    if text.trim() != text {
        return Err("begins or ends with a space, which nobody would receive".to_owned());
    }
    Ok(text.to_owned())
}
