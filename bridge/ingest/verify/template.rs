//! What is signed: a template, compiled once, whose parts are streamed into the algorithm.

use http::HeaderName;

use super::Rejection;
use super::place::{Paths, Place, Seen, single};
use crate::catalog::{Algorithm, Covers, Signature};

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    #[error(
        "knows no `{{{name}}}`; there are {{body}}, {{body:<path>}}, {{timestamp}}, {{header:<name>}}, {{method}}, \
         {{url}}, {{url:hubspot}}, {{secret}}"
    )]
    UnknownPlaceholder { name: String },
    #[error("names a header `{name}` that cannot exist")]
    HeaderName { name: String },
    #[error("names `{path}`, which is no plain path into the body, such as `.data.id`")]
    Path { path: String },
    #[error("has a brace without its other half; a brace itself is written twice")]
    Unbalanced,
    #[error("leaves out {{body}}, so that anybody could change it")]
    NoBody,
    #[error("names no part of the request, so that one signature would do for all")]
    Nothing,
    #[error("leaves out {{timestamp}}, so that anybody could renew it")]
    TimestampUnsigned,
    #[error("has {{timestamp}}, but the signature describes no timestamp")]
    NoTimestamp,
    #[error("leaves out {{secret}}, so that anybody could compute it")]
    NoSecret,
    #[error("has {{secret}}, which is for `sha256` alone: other algorithms have a key")]
    Secret,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Method,
    Url,
    /// As HubSpot signs it.
    HubSpotUrl,
    Header(HeaderName),
    Timestamp,
    Body,
    /// The index of a path.
    InBody(usize),
    Secret,
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Compiles what the signature says is signed. `timestamp` is where the signature's timestamp stands, unless that is
    /// an entry of a list: then only `{timestamp}` signs it.
    pub(super) fn compile(
        signature: &Signature,
        timestamp: Option<&Place>,
        paths: &mut Paths,
    ) -> Result<Self, TemplateProblem> {
        let parts = parse(&signature.signed, paths)?;
        let has = |part: &Part| parts.contains(part);
        match signature.covers {
            Covers::Body if !has(&Part::Body) => return Err(TemplateProblem::NoBody),
            Covers::Parts if !parts.iter().any(|part| matches!(part, Part::InBody(_) | Part::Header(_))) => {
                return Err(TemplateProblem::Nothing);
            }
            _ => {}
        }
        match (signature.algorithm == Algorithm::Sha256, has(&Part::Secret)) {
            (true, false) => return Err(TemplateProblem::NoSecret),
            (false, true) => return Err(TemplateProblem::Secret),
            _ => {}
        }
        if signature.timestamp.is_none() && has(&Part::Timestamp) {
            return Err(TemplateProblem::NoTimestamp);
        }
        let whole = timestamp.is_some_and(|place| match place {
            Place::Header(name) => has(&Part::Header(name.clone())),
            Place::Body(index) => has(&Part::InBody(*index)),
        });
        if signature.timestamp.is_some() && !whole && !has(&Part::Timestamp) {
            return Err(TemplateProblem::TimestampUnsigned);
        }
        Ok(Self { parts })
    }

    /// The headers that are signed.
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name),
            _ => None,
        })
    }

    /// The indices of the paths whose parts of the body are signed.
    pub(super) fn in_body(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().filter_map(|part| match part {
            Part::InBody(index) => Some(*index),
            _ => None,
        })
    }

    /// Hands the signed bytes to `sink`, part by part, none of them copied.
    pub(super) fn stream(
        &self,
        seen: &Seen<'_>,
        timestamp: &[u8],
        secret: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Rejection> {
        let request = seen.request;
        for part in &self.parts {
            sink(match part {
                Part::Literal(text) => text.as_bytes(),
                Part::Method => request.method.as_bytes(),
                Part::Url => request.url.as_bytes(),
                Part::HubSpotUrl => {
                    decode_as_hubspot(request.url.as_bytes(), &mut sink);
                    continue;
                }
                // Absent, it would be signed as nothing at all, which is what an attacker sends.
                Part::Header(name) => single(request.headers, name)?,
                Part::Timestamp => timestamp,
                Part::Body => request.body,
                Part::InBody(index) => seen.part(*index)?,
                Part::Secret => secret,
            });
        }
        Ok(())
    }
}

/// The address with the twelve escapes decoded that HubSpot's description of v3 lists, and no others.
fn decode_as_hubspot(url: &[u8], sink: &mut impl FnMut(&[u8])) {
    const ESCAPES: [(&[u8; 3], &[u8; 1]); 12] = [
        (b"%3A", b":"),
        (b"%2F", b"/"),
        (b"%3F", b"?"),
        (b"%40", b"@"),
        (b"%21", b"!"),
        (b"%24", b"$"),
        (b"%27", b"'"),
        (b"%28", b"("),
        (b"%29", b")"),
        (b"%2A", b"*"),
        (b"%2C", b","),
        (b"%3B", b";"),
    ];
    let mut rest = url;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let (before, from) = rest.split_at(at);
        sink(before);
        let escape = from.get(..3).unwrap_or(from);
        let decoded = ESCAPES.iter().find(|(written, _)| escape.eq_ignore_ascii_case(*written));
        // An escape that stays is passed over by its first byte: what follows may begin another one.
        let (meant, length) = decoded.map_or((&from[..1], 1), |(_, meant)| (&meant[..], 3));
        sink(meant);
        rest = from.get(length..).unwrap_or_default();
    }
    sink(rest);
}

fn parse(text: &str, paths: &mut Paths) -> Result<Vec<Part>, TemplateProblem> {
    let pieces = pieces(text).ok_or(TemplateProblem::Unbalanced)?;
    let part = |piece| match piece {
        Piece::Literal(text) => Ok(Part::Literal(text)),
        Piece::Placeholder(name) => placeholder(name, paths),
    };
    pieces.into_iter().map(part).collect()
}

/// A part of a text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) enum Piece<'a> {
    Literal(String),
    /// What stands between the braces.
    Placeholder(&'a str),
}

/// The parts of a text in which `{name}` stands for something, and `{{` and `}}` for braces; `None` where a brace lacks
/// its other half.
pub(in crate::ingest) fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            literal.push_str(&from[..1]);
            rest = after;
            continue;
        }
        let (name, after) = from.strip_prefix('{')?.split_once('}')?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Placeholder(name));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Some(pieces)
}

fn placeholder(name: &str, paths: &mut Paths) -> Result<Part, TemplateProblem> {
    if let Some(header) = name.strip_prefix("header:") {
        return HeaderName::from_bytes(header.as_bytes())
            .map(Part::Header)
            .map_err(|_| TemplateProblem::HeaderName { name: header.to_owned() });
    }
    if let Some(path) = name.strip_prefix("body:") {
        return paths.add(path).map(Part::InBody).ok_or_else(|| TemplateProblem::Path { path: path.to_owned() });
    }
    match name {
        "body" => Ok(Part::Body),
        "timestamp" => Ok(Part::Timestamp),
        "method" => Ok(Part::Method),
        "url" => Ok(Part::Url),
        "url:hubspot" => Ok(Part::HubSpotUrl),
        "secret" => Ok(Part::Secret),
        other => Err(TemplateProblem::UnknownPlaceholder { name: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(mut signature: serde_json::Value) -> Result<Template, TemplateProblem> {
        let defaults = [("algorithm", json!("hmac-sha256")), ("header", json!("x-sig")), ("encoding", json!("hex"))];
        for (key, value) in defaults {
            signature.as_object_mut().unwrap().entry(key).or_insert(value);
        }
        let signature: Signature = serde_json::from_value(signature).unwrap();
        Template::compile(&signature, None, &mut Paths::default())
    }

    #[test]
    fn a_template_is_literals_and_placeholders() {
        let parts = parse("v0:{{{method}}}{header:X-Id}.{body}", &mut Paths::default()).unwrap();
        let literal = |text: &str| Part::Literal(text.into());
        let id = Part::Header(HeaderName::from_static("x-id"));
        assert_eq!(parts, [literal("v0:{"), Part::Method, literal("}"), id, literal("."), Part::Body]);
    }

    #[test]
    fn what_a_template_cannot_say_is_named() {
        let problem = |text: &str| compile(json!({"signed": text})).unwrap_err();
        assert_eq!(problem("{bdoy}"), TemplateProblem::UnknownPlaceholder { name: "bdoy".into() });
        assert_eq!(problem("{header:a b}{body}"), TemplateProblem::HeaderName { name: "a b".into() });
        assert_eq!(problem("{body:.a[]}{body}"), TemplateProblem::Path { path: ".a[]".into() });
        assert_eq!(problem("{body"), TemplateProblem::Unbalanced);
        assert_eq!(problem("body}"), TemplateProblem::Unbalanced);
        assert_eq!(problem("{url}"), TemplateProblem::NoBody);
        assert_eq!(problem("{body:.token}"), TemplateProblem::NoBody);
        assert_eq!(problem("{timestamp}.{body}"), TemplateProblem::NoTimestamp);
        assert_eq!(problem("{secret}{body}"), TemplateProblem::Secret);
        let parts = json!({"signed": "{method}", "covers": "parts"});
        assert_eq!(compile(parts).unwrap_err(), TemplateProblem::Nothing);
        let plain = json!({"signed": "{body}", "algorithm": "sha256"});
        assert_eq!(compile(plain).unwrap_err(), TemplateProblem::NoSecret);
    }

    #[test]
    fn an_address_is_decoded_as_far_as_hubspot_says() {
        for (url, decoded) in [
            ("https://a.example/hook", "https://a.example/hook"),
            ("https://a.example/%40me%2Fx?q=a%3ab%20c&r=%2a%2B%25", "https://a.example/@me/x?q=a:b%20c&r=*%2B%25"),
            ("%3A%2F%3F%40%21%24%27%28%29%2A%2C%3B", ":/?@!$'()*,;"),
            ("%253A%", "%253A%"),
            ("%%3A%3", "%:%3"),
            ("", ""),
        ] {
            let mut bytes = Vec::new();
            decode_as_hubspot(url.as_bytes(), &mut |part| bytes.extend_from_slice(part));
            assert_eq!(String::from_utf8(bytes).unwrap(), decoded, "{url}");
        }
    }
}
