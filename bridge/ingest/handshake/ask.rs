//! A handshake as its provider would ask for it: for `send` and tests. The other way round of what `handshake.rs` reads.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::catalog;
use crate::config::Secret;
use crate::expr;
use crate::ingest::verify::template::{Piece, pieces};

/// A request, not yet signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    /// Without its question mark; empty where there is none.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// The request that this handshake is known by. `word` stands wherever something is to be echoed. `None` where the
/// description names a place that no request has.
#[must_use]
pub fn ask(written: &catalog::Handshake, token: Option<&Secret>, word: &str) -> Option<Asked> {
    let mut asked =
        Asked { method: "POST".to_owned(), query: String::new(), headers: HeaderMap::new(), body: Vec::new() };
    let mut known: Vec<&str> = Vec::new();
    for (place, text) in written.when.iter().chain(&written.require) {
        asked.put(place, text)?;
        known.push(place);
    }
    if let (Some(place), Some(token)) = (&written.verify_token, token) {
        asked.put(place, token.expose())?;
        known.push(place);
    }
    for text in written.text.iter().chain(written.json.values()) {
        for piece in pieces(text)? {
            let Piece::Placeholder(name) = piece else { continue };
            let place = name.strip_prefix("hmac-sha256:").unwrap_or(name);
            if !known.contains(&place) && place != "method" {
                asked.put(place, word)?;
            }
        }
    }
    if asked.method == "POST" && asked.body.is_empty() {
        asked.body = b"{}".to_vec();
    }
    if !asked.body.is_empty() {
        asked.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    Some(asked)
}

impl Asked {
    fn put(&mut self, place: &str, text: &str) -> Option<()> {
        if place == "method" {
            text.clone_into(&mut self.method);
        } else if let Some(name) = place.strip_prefix("header:") {
            let value = HeaderValue::try_from(text).ok()?;
            self.headers.insert(HeaderName::try_from(name).ok()?, value);
        } else if let Some(name) = place.strip_prefix("query:") {
            let separator = if self.query.is_empty() { "" } else { "&" };
            self.query = format!("{}{separator}{}={}", self.query, escaped(name), escaped(text));
        } else {
            let document = if self.body.is_empty() { b"{}" } else { self.body.as_slice() };
            self.body = expr::assign(document, place, "=", &text.into())?;
        }
        Some(())
    }
}

/// As in a query (RFC 3986, section 2.3): all but the unreserved characters is escaped.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            other => {
                escaped.push('%');
                escaped.push_str(&hex::encode_upper([other]));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{preset, preset_names};
    use crate::ingest::handshake::Handshakes;
    use crate::ingest::verify::{Request, Verified};

    #[test]
    fn what_is_asked_is_answered_for_every_handshake_of_the_catalogue() {
        let (secret, token) = (Secret::new("a secret"), Secret::new("a token & more"));
        let mut asked_of = Vec::new();
        for name in preset_names() {
            let scheme = preset(name).unwrap();
            let handshakes = Handshakes::compile(&scheme, std::slice::from_ref(&secret), Some(&token)).unwrap();
            for written in &scheme.handshake {
                let Asked { method, query, headers, body } = ask(written, Some(&token), "w/ord 1").unwrap();
                let url = format!("/hooks/x?{query}");
                let request = Request { method: &method, url: &url, headers: &headers, body: &body };
                let verified = Verified { secret_index: 0, timestamp_ms: None };
                let answer =
                    if written.signed { handshakes.signed(&request, &verified) } else { handshakes.unsigned(&request) };
                let echoed = if name == "github" { "" } else { "w/ord 1" };
                let answer = answer.map(|answer| (answer.status.as_u16(), answer.body));
                assert_eq!(answer, Some((200, echoed.to_owned())), "{name}");
                asked_of.push(name);
            }
        }
        assert_eq!(asked_of, ["github", "meta", "slack"]);
    }

    #[test]
    fn a_digest_is_asked_for_by_what_it_is_made_of() {
        let written: catalog::Handshake = serde_json::from_value(serde_json::json!({
            "when": { ".event": "endpoint.url_validation" },
            "json": { "plainToken": "{.payload.plainToken}", "encryptedToken": "{hmac-sha256:.payload.plainToken}" },
        }))
        .unwrap();
        let asked = ask(&written, None, "w").unwrap();
        let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(body, serde_json::json!({ "event": "endpoint.url_validation", "payload": { "plainToken": "w" } }));
        assert_eq!((asked.method.as_str(), asked.query.as_str()), ("POST", ""));
    }
}
