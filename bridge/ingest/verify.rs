//! Verifies the raw bytes of a request against a source's description (`catalog::SourceScheme`).
//!
//! Pure: the clock is an argument. Fails closed: whatever is missing, given twice, written in another way or too old is
//! a [`Rejection`], and the sender is told none of it (the answer is one uniform 401).
//!
//! The rules that the vendors leave open are decided here, once:
//! - Of the places of signatures that a scheme lists, the first one that the request carries counts, and a later one is
//!   not looked at. A request that goes by a later one must not carry headers that an earlier one signs
//!   ([`Rejection::MixedHeaders`]): such a header would be read by nobody's signature, yet could name the event's id; and
//!   one that a newer signature was cut off from would pass as an older one.
//! - A header that is signed, or that holds a signature or its timestamp, given twice is refused: one proxy joins
//!   them, another takes the first, a third the last.
//! - A timestamp is digits only, or RFC 3339 text. Its own text is what is signed, so that no second spelling exists.
//! - What stands in the body is read as jq would read it; the last of two fields of one name counts, here and in mappings.

mod entry;
mod key;
pub(super) mod place;
mod sign;
pub(super) mod template;
mod timestamp;
mod way;

#[cfg(test)]
mod tests;

use std::fmt;

use http::HeaderMap;

pub use self::key::KeyProblem;
pub use self::sign::{Message, SignError, Signed, needs_private_key, sign};
pub use self::template::TemplateProblem;

use self::place::{Paths, Place, Seen};
use self::way::Way;
use crate::catalog::{Locator, SourceScheme};
use crate::config::{MAX_SECRETS, Secret};

/// A request as it came: nothing decoded, nothing normalised.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// As the sender wrote it, which behind a proxy only `public_url` knows.
    pub url: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// The request is authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Which of the secrets matched, as they were given: for the use counter that tells when an old one may go.
    pub secret_index: usize,
    /// The signed timestamp, in milliseconds since the Unix epoch, where the scheme has one.
    pub timestamp_ms: Option<i64>,
}

/// Why a request is not taken as authentic. For metrics and logs, never for the sender.
///
/// From what is plainly wrong to what only the key can tell: of several ways, the one that got furthest says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// A header that the scheme needs is absent or empty.
    MissingHeader,
    /// A part of the body that the scheme needs is absent, null or empty, or the body is not JSON.
    MissingInBody,
    /// There is no body, from a provider that always sends one.
    EmptyBody,
    /// A header that the scheme needs was given more than once.
    RepeatedHeader,
    /// It carries headers that another, preferred way of signing covers, and this one does not.
    MixedHeaders,
    /// The signature's place has no entry of a version, encoding and length that the trusted keys could have made.
    NoUsableSignature,
    /// The timestamp is not of the scheme's unit.
    MalformedTimestamp,
    /// Older than the tolerance.
    StaleTimestamp,
    /// Further in the future than the tolerance.
    FutureTimestamp,
    /// Well-formed, and made with no key that is trusted, or for another content.
    NoMatch,
}

impl Rejection {
    /// The bounded name, for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingHeader => "missing_header",
            Self::MissingInBody => "missing_in_body",
            Self::EmptyBody => "empty_body",
            Self::RepeatedHeader => "repeated_header",
            Self::MixedHeaders => "mixed_headers",
            Self::NoUsableSignature => "no_usable_signature",
            Self::MalformedTimestamp => "malformed_timestamp",
            Self::StaleTimestamp => "stale_timestamp",
            Self::FutureTimestamp => "future_timestamp",
            Self::NoMatch => "no_match",
        }
    }
}

/// What keeps a description and its secrets from being compiled: all of it at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
pub struct Error {
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a description or its secrets. Ways and secrets are counted from 0; no secret's text
/// is ever part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the source describes no signature")]
    NoSignature,
    #[error("the source has no secret, so that nothing could be trusted")]
    NoSecret,
    #[error("{count} secrets are more than the {MAX_SECRETS} that a source may have")]
    TooManySecrets { count: usize },
    #[error("secret {index} {problem}")]
    Key { index: usize, problem: KeyProblem },
    #[error("signature {way}: `{name}` cannot be the name of a header")]
    HeaderName { way: usize, name: String },
    #[error("signature {way}: `{path}` is no plain path into the body, such as `.data.id`")]
    Path { way: usize, path: String },
    #[error("signature {way}: the {what} stands in a `header` or in the `body`: say which, and one of them only")]
    Place { way: usize, what: &'static str },
    #[error("signature {way}: says no `encoding`, in which the signature is written")]
    NoEncoding { way: usize },
    #[error("signature {way}: a token signs nothing: `{key}` has no meaning here")]
    Token { way: usize, key: &'static str },
    #[error("`min_version` names `{name}`, which no signature has as its `version`")]
    MinVersion { name: String },
    #[error("`replay_key` names no place: write `header:<name>` or a plain path into the body")]
    ReplayKey,
    #[error("signature {way}: the separator {separator:?} is not an ASCII character")]
    Separator { way: usize, separator: char },
    #[error("signature {way}: `{signed}` {problem}")]
    Template { way: usize, signed: String, problem: TemplateProblem },
}

/// A source's description and secrets, compiled once and shared by all requests.
pub struct Verifier {
    /// Only those that some secret can be used with, the preferred first.
    ways: Vec<Way>,
    public_url: Option<String>,
    body_required: bool,
    replay_key: Option<(Place, Paths)>,
}

impl Verifier {
    /// Compiles a description with its secrets, any of which may match. `public_url` is what `{url}` stands for;
    /// without one, it is the request's own.
    ///
    /// # Errors
    /// Every problem of the description and of the secrets: an empty secret or one that cannot be a key of this scheme,
    /// a template that leaves out the body or its timestamp.
    pub fn compile(scheme: &SourceScheme, secrets: &[Secret], public_url: Option<&str>) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let signatures = scheme.ways().unwrap_or_else(|| {
            problems.push(Problem::MinVersion { name: scheme.min_version.clone().unwrap_or_default() });
            Vec::new()
        });
        if scheme.signature.is_empty() {
            problems.push(Problem::NoSignature);
        }
        if secrets.is_empty() {
            problems.push(Problem::NoSecret);
        }
        if secrets.len() > MAX_SECRETS {
            problems.push(Problem::TooManySecrets { count: secrets.len() });
        }
        let mut ways = Vec::new();
        for (at, signature) in signatures.iter().enumerate() {
            match Way::compile(at, signature) {
                Ok(way) => ways.push(way),
                Err(mut found) => problems.append(&mut found),
            }
        }
        let replay_key = scheme.replay_key.as_deref().map(replay_key);
        if matches!(replay_key, Some(None)) {
            problems.push(Problem::ReplayKey);
        }
        if problems.is_empty() {
            for (index, secret) in secrets.iter().enumerate() {
                if let Err(problem) = way::hand_out(&signatures, index, secret, &mut ways) {
                    problems.push(Problem::Key { index, problem });
                }
            }
        }
        if !problems.is_empty() {
            return Err(Error { problems });
        }
        way::note_foreign_headers(&mut ways);
        ways.retain(Way::has_keys);
        Ok(Self {
            ways,
            public_url: public_url.map(str::to_owned),
            body_required: scheme.body_required,
            replay_key: replay_key.flatten(),
        })
    }

    /// Decides whether the request is authentic, at `now_ms` (milliseconds since the Unix epoch).
    /// Allocates nothing for HMAC over header and body; otherwise the signature, or the parts that are looked up in the
    /// body, and for Ed25519 the signed message, since that algorithm reads it twice.
    ///
    /// # Errors
    /// Why it is not, as a value: see [`Rejection`].
    pub fn verify(&self, request: &Request<'_>, now_ms: i64) -> Result<Verified, Rejection> {
        let carried = self.ways.iter().find(|way| way.is_meant_by(request)).ok_or(Rejection::MissingHeader)?;
        if self.body_required && request.body.is_empty() {
            return Err(Rejection::EmptyBody);
        }
        let request = match &self.public_url {
            Some(url) => &Request { url, ..*request },
            None => request,
        };
        let mut furthest = Rejection::MissingHeader;
        for way in self.ways.iter().filter(|way| way.stands_beside(carried) && way.is_meant_by(request)) {
            match way.verify(request, now_ms) {
                Ok(verified) => return Ok(verified),
                Err(rejection) => furthest = furthest.max(rejection),
            }
        }
        Err(furthest)
    }

    /// What may come once only, of a request that was verified; `None` where the scheme signs the event itself.
    pub fn replay_key(&self, request: &Request<'_>) -> Option<String> {
        let (place, paths) = self.replay_key.as_ref()?;
        let seen = Seen::look(request, paths).ok()?;
        seen.at(place).ok().map(|key| String::from_utf8_lossy(key).into_owned())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<_> = self.ways.iter().map(Way::shown).collect();
        f.debug_struct("Verifier").field("places_and_key_counts", &places).finish_non_exhaustive()
    }
}

/// The place of what may come once only; `None` where the text names none.
fn replay_key(text: &str) -> Option<(Place, Paths)> {
    let mut paths = Paths::default();
    let place = match Locator::parse(text).ok()? {
        Locator::Header(name) => Place::Header(name),
        Locator::Jq(path) => Place::Body(paths.add(&path)?),
    };
    Some((place, paths))
}
