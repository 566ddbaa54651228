//! Requests that ask whether somebody is there: they are answered, and nothing is published.
//!
//! Pure, and compiled from the source's description (`catalog::Handshake`). What the provider signs is looked at once the
//! signature has been verified ([`Handshakes::signed`]); what it does not sign comes before ([`Handshakes::unsigned`]),
//! and is known by a token that was agreed on. Nothing is echoed to somebody who has shown neither.

mod ask;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, StatusCode};
use sha2::{Digest as _, Sha256};

pub use self::ask::{Asked, ask};

use super::form;
use super::verify::place::{Paths, Place as InRequest, Seen};
use super::verify::template::{Piece, pieces};
use super::verify::{Request, Verified};
use crate::catalog::{self, SourceScheme};
use crate::config::Secret;

/// Bytes of an answer: challenges are words of some dozens of characters, and a sender chooses what is echoed.
const MAX_ANSWER: usize = 4 << 10;

/// What to answer. The body is the sender's own text: it goes out under this content type, never to be sniffed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: String,
}

impl Answer {
    fn new(content_type: &'static str, body: String) -> Self {
        Self { status: StatusCode::OK, content_type, body }
    }

    /// It is a handshake, and not a good one.
    fn refused() -> Self {
        Self { status: StatusCode::FORBIDDEN, content_type: TEXT, body: String::new() }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What is wrong with a description: all of it at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
pub struct Error {
    pub problems: Vec<Problem>,
}

/// One thing that is wrong. Handshakes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error(
        "handshake {index}: `{place}` names no place: write `method`, `header:<name>`, `query:<name>` or a plain path"
    )]
    Place { index: usize, place: String },
    #[error("handshake {index}: has no `when`, so that it would take every request")]
    Always { index: usize },
    #[error("handshake {index}: `{text}` has a brace without its other half; a brace itself is written twice")]
    Unbalanced { index: usize, text: String },
    #[error("handshake {index}: answers with a `text` or with `json`: write one of them")]
    Answer { index: usize },
    #[error("handshake {index}: is not signed and has no `verify_token`: it would echo anybody's text")]
    Anybody { index: usize },
    #[error("handshake {index}: is not signed, so that no secret is known to compute with")]
    NoKey { index: usize },
}

/// A source's handshakes, compiled once.
#[derive(Default)]
pub struct Handshakes {
    signed: Vec<Handshake>,
    unsigned: Vec<Handshake>,
    /// Of the secrets, in their order.
    keys: Vec<Option<Hmac<Sha256>>>,
    /// The digest of the token that was agreed on.
    token: Option<[u8; 32]>,
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (signed, unsigned) = (self.signed.len(), self.unsigned.len());
        f.debug_struct("Handshakes").field("signed", &signed).field("unsigned", &unsigned).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Handshake {
    /// Asked first, since they cost nothing.
    when: Vec<(Place, String)>,
    when_in_body: Vec<(Place, String)>,
    require: Vec<(Place, String)>,
    token: Option<Place>,
    body: Body,
    paths: Paths,
}

#[derive(Debug)]
enum Place {
    Method,
    Query(String),
    InRequest(InRequest),
}

#[derive(Debug)]
enum Body {
    Text(Vec<Part>),
    Json(Vec<(String, Vec<Part>)>),
}

#[derive(Debug)]
enum Part {
    Literal(String),
    Place(Place),
    HmacSha256(Place),
}

impl Handshakes {
    /// Compiles a description. `secrets` are the source's, in the order in which [`super::verify::Verifier`] has them.
    /// Without a `verify_token`, a handshake that needs one is refused always.
    ///
    /// # Errors
    /// Every problem of the description.
    pub fn compile(scheme: &SourceScheme, secrets: &[Secret], verify_token: Option<&Secret>) -> Result<Self, Error> {
        let mut made = Self {
            keys: secrets.iter().map(|secret| Hmac::new_from_slice(secret.expose().as_bytes()).ok()).collect(),
            token: verify_token
                .filter(|token| !token.expose().is_empty())
                .map(|token| digest(token.expose().as_bytes())),
            ..Self::default()
        };
        let mut problems = Vec::new();
        for (index, handshake) in scheme.handshake.iter().enumerate() {
            let place = if handshake.signed { &mut made.signed } else { &mut made.unsigned };
            place.push(Handshake::compile(index, handshake, &mut problems));
        }
        if problems.is_empty() { Ok(made) } else { Err(Error { problems }) }
    }

    /// The answer to a request that the provider does not sign: to be asked before verification.
    pub fn unsigned(&self, request: &Request<'_>) -> Option<Answer> {
        self.unsigned.iter().find_map(|handshake| handshake.answer(request, self, None))
    }

    /// The answer to a request that was verified: to be asked before it is mapped.
    pub fn signed(&self, request: &Request<'_>, verified: &Verified) -> Option<Answer> {
        let key = self.keys.get(verified.secret_index).and_then(Option::as_ref);
        self.signed.iter().find_map(|handshake| handshake.answer(request, self, key))
    }
}

impl Handshake {
    fn compile(index: usize, written: &catalog::Handshake, problems: &mut Vec<Problem>) -> Self {
        let mut reader = Reader { index, paths: Paths::default(), problems };
        if written.when.is_empty() {
            reader.problems.push(Problem::Always { index });
        }
        let when = reader.conditions(&written.when);
        let is_in_body = |(place, _): &(Place, String)| matches!(place, Place::InRequest(InRequest::Body(_)));
        let (when_in_body, when) = when.into_iter().partition(is_in_body);
        let require = reader.conditions(&written.require);
        let token = written.verify_token.as_deref().and_then(|place| reader.place(place));
        let body = match (&written.text, written.json.is_empty()) {
            (Some(text), true) => Body::Text(reader.parts(text)),
            (None, false) => {
                Body::Json(written.json.iter().map(|(name, text)| (name.clone(), reader.parts(text))).collect())
            }
            _ => {
                reader.problems.push(Problem::Answer { index });
                Body::Text(Vec::new())
            }
        };
        if !written.signed {
            let parts: Vec<&Part> = match &body {
                Body::Text(parts) => parts.iter().collect(),
                Body::Json(fields) => fields.iter().flat_map(|(_, parts)| parts).collect(),
            };
            if parts.iter().any(|part| matches!(part, Part::HmacSha256(_))) {
                reader.problems.push(Problem::NoKey { index });
            }
            if token.is_none() && parts.iter().any(|part| !matches!(part, Part::Literal(_))) {
                reader.problems.push(Problem::Anybody { index });
            }
        }
        Self { when, when_in_body, require, token, body, paths: reader.paths }
    }

    fn answer(&self, request: &Request<'_>, all: &Handshakes, key: Option<&Hmac<Sha256>>) -> Option<Answer> {
        let holds = |(place, text): &(Place, String), seen: &Seen<'_>| {
            place.read(seen).is_some_and(|found| *found == *text.as_bytes())
        };
        let without_body = Seen::look(request, &Paths::default()).ok()?;
        if !self.when.iter().all(|condition| holds(condition, &without_body)) {
            return None;
        }
        let seen = Seen::look(request, &self.paths).ok()?;
        if !self.when_in_body.iter().all(|condition| holds(condition, &seen)) {
            return None;
        }
        let required = self.require.iter().all(|condition| holds(condition, &seen));
        let trusted = self.token.as_ref().is_none_or(|place| {
            let presented = place.read(&seen).map(|token| digest(&token));
            matches!((presented, all.token), (Some(own), Some(agreed)) if openssl::memcmp::eq(&own, &agreed))
        });
        if !required || !trusted {
            return Some(Answer::refused());
        }
        let answer = match &self.body {
            Body::Text(parts) => written(parts, &seen, key).map(|body| Answer::new(TEXT, body)),
            Body::Json(fields) => {
                let fields =
                    fields.iter().map(|(name, parts)| Some((name.clone(), written(parts, &seen, key)?.into())));
                let object: Option<serde_json::Map<String, serde_json::Value>> = fields.collect();
                object.map(|object| Answer::new(JSON, serde_json::Value::Object(object).to_string()))
            }
        };
        Some(answer.filter(|answer| answer.body.len() <= MAX_ANSWER).unwrap_or_else(Answer::refused))
    }
}

/// Parts as text; `None` where the request lacks one.
fn written(parts: &[Part], seen: &Seen<'_>, key: Option<&Hmac<Sha256>>) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Place(place) => text.push_str(std::str::from_utf8(&place.read(seen)?).ok()?),
            Part::HmacSha256(place) => {
                let mut mac = key?.clone();
                mac.update(&place.read(seen)?);
                text.push_str(&hex::encode(mac.finalize().into_bytes()));
            }
        }
    }
    Some(text)
}

/// So that a comparison takes as long whatever the length.
fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl Place {
    /// What stands there; `None` where nothing does, or it was given twice.
    fn read<'s>(&self, seen: &'s Seen<'_>) -> Option<Cow<'s, [u8]>> {
        match self {
            Self::Method => Some(Cow::Borrowed(seen.request.method.as_bytes())),
            Self::Query(name) => query(seen.request.url, name).map(Cow::Owned),
            Self::InRequest(place) => seen.at(place).ok().map(Cow::Borrowed),
        }
    }
}

/// The only parameter of that name, decoded as a form is.
fn query(url: &str, name: &str) -> Option<Vec<u8>> {
    let query = url.split_once('?')?.1.split('#').next()?;
    form::only(query.as_bytes(), name).ok().filter(|value| !value.is_empty())
}

/// Reads one description.
struct Reader<'p> {
    index: usize,
    paths: Paths,
    problems: &'p mut Vec<Problem>,
}

impl Reader<'_> {
    fn place(&mut self, text: &str) -> Option<Place> {
        let place = if text == "method" {
            Some(Place::Method)
        } else if let Some(name) = text.strip_prefix("header:") {
            HeaderName::from_bytes(name.as_bytes()).ok().map(|name| Place::InRequest(InRequest::Header(name)))
        } else if let Some(name) = text.strip_prefix("query:") {
            (!name.is_empty()).then(|| Place::Query(name.to_owned()))
        } else {
            self.paths.add(text).map(|index| Place::InRequest(InRequest::Body(index)))
        };
        if place.is_none() {
            self.problems.push(Problem::Place { index: self.index, place: text.to_owned() });
        }
        place
    }

    fn conditions(&mut self, written: &BTreeMap<String, String>) -> Vec<(Place, String)> {
        written.iter().filter_map(|(place, text)| Some((self.place(place)?, text.clone()))).collect()
    }

    fn parts(&mut self, text: &str) -> Vec<Part> {
        let Some(pieces) = pieces(text) else {
            self.problems.push(Problem::Unbalanced { index: self.index, text: text.to_owned() });
            return Vec::new();
        };
        let part = |piece| match piece {
            Piece::Literal(text) => Some(Part::Literal(text)),
            Piece::Placeholder(name) => match name.strip_prefix("hmac-sha256:") {
                Some(place) => self.place(place).map(Part::HmacSha256),
                None => self.place(name).map(Part::Place),
            },
        };
        pieces.into_iter().filter_map(part).collect()
    }
}

#[cfg(test)]
mod tests;
