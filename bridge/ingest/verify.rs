//! Verifies the raw bytes of a request against a source's description (`catalog::SourceScheme`).
//!
//! Pure: the clock is an argument. Fails closed: whatever is missing, given twice, written in another way or too old is
//! a [`Rejection`], and the sender is told none of it (the answer is one uniform 401).
//!
//! The rules that the vendors leave open are decided here, once:
//! - Of the signature headers that a scheme lists, the first one that the request carries counts, and a later one is
//!   not looked at. A request that goes by a later one must not carry what an earlier one signs
//!   ([`Rejection::MixedHeaders`]): such a header would be read by nobody's signature, yet could name the event's id.
//! - A header that is signed, or that holds a signature or its timestamp, given twice is refused: one proxy joins
//!   them, another takes the first, a third the last.
//! - A timestamp is digits only, and the digits themselves are signed, so that no second spelling of it exists.

mod entry;
mod key;
mod sign;
mod template;
mod timestamp;

#[cfg(test)]
mod tests;

use std::fmt;

use http::{HeaderMap, HeaderName};

pub use self::key::KeyProblem;
pub use self::sign::{Message, SignError, sign};
pub use self::template::TemplateProblem;

use self::entry::{Entries, Form};
use self::key::Key;
use self::template::Template;
use self::timestamp::Window;
use crate::catalog::{self, SourceScheme};
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
    /// A header that the scheme needs was given more than once.
    RepeatedHeader,
    /// It carries headers that another, preferred way of signing covers, and this one does not.
    MixedHeaders,
    /// The signature header has no entry of a version, encoding and length that the trusted keys could have made.
    NoUsableSignature,
    /// The timestamp is not a number of the scheme's unit.
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
}

/// One way of signing, with the keys that fit it.
struct Way {
    header: HeaderName,
    form: Form,
    template: Template,
    window: Option<Window>,
    /// Each with the index of its secret.
    keys: Vec<(usize, Key)>,
    /// What ways of an earlier header sign and this one does not.
    foreign: Vec<HeaderName>,
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
        for (at, signature) in scheme.signature.iter().enumerate() {
            match Way::compile(at, signature) {
                Ok(way) => ways.push(way),
                Err(mut found) => problems.append(&mut found),
            }
        }
        if problems.is_empty() {
            for (index, secret) in secrets.iter().enumerate() {
                if let Err(problem) = hand_out(&scheme.signature, index, secret, &mut ways) {
                    problems.push(Problem::Key { index, problem });
                }
            }
        }
        if !problems.is_empty() {
            return Err(Error { problems });
        }
        note_foreign_headers(&mut ways);
        ways.retain(|way| !way.keys.is_empty());
        Ok(Self { ways, public_url: public_url.map(str::to_owned) })
    }

    /// Decides whether the request is authentic, at `now_ms` (milliseconds since the Unix epoch).
    /// Allocates nothing for HMAC; for Ed25519 once, the signed message, since that algorithm reads it twice.
    ///
    /// # Errors
    /// Why it is not, as a value: see [`Rejection`].
    pub fn verify(&self, request: &Request<'_>, now_ms: i64) -> Result<Verified, Rejection> {
        let carried = |way: &&Way| request.headers.contains_key(&way.header);
        let header = self.ways.iter().find(carried).map(|way| &way.header).ok_or(Rejection::MissingHeader)?;
        let request = match &self.public_url {
            Some(url) => &Request { url, ..*request },
            None => request,
        };
        let mut furthest = Rejection::MissingHeader;
        for way in self.ways.iter().filter(|way| way.header == *header) {
            match way.verify(request, now_ms) {
                Ok(verified) => return Ok(verified),
                Err(rejection) => furthest = furthest.max(rejection),
            }
        }
        Err(furthest)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.ways.iter().map(|way| (way.header.as_str(), way.keys.len())).collect();
        f.debug_struct("Verifier").field("headers_and_key_counts", &headers).finish_non_exhaustive()
    }
}

impl Way {
    fn compile(at: usize, signature: &catalog::Signature) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut header = |name: &str| {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| problems.push(Problem::HeaderName { way: at, name: name.to_owned() }))
                .ok()
        };
        let name = header(&signature.header);
        let window_header = signature.timestamp.as_ref().map(|timestamp| header(&timestamp.header));
        let form =
            Form::compile(signature).map_err(|separator| problems.push(Problem::Separator { way: at, separator }));
        let window = match (&signature.timestamp, window_header.flatten()) {
            (Some(timestamp), Some(window_header)) => Window::compile(timestamp, window_header, signature)
                .map_err(|separator| problems.push(Problem::Separator { way: at, separator }))
                .ok(),
            _ => None,
        };
        let template = Template::compile(&signature.signed, signature.timestamp.as_ref()).map_err(|problem| {
            problems.push(Problem::Template { way: at, signed: signature.signed.clone(), problem });
        });
        match (name, form, template) {
            (Some(header), Ok(form), Ok(template)) if problems.is_empty() => {
                Ok(Self { header, form, template, window, keys: Vec::new(), foreign: Vec::new() })
            }
            _ => Err(problems),
        }
    }

    /// The headers that this way's signature covers.
    fn covers(&self) -> impl Iterator<Item = &HeaderName> {
        self.template.headers().chain(self.window.as_ref().map(Window::header))
    }

    fn verify(&self, request: &Request<'_>, now_ms: i64) -> Result<Verified, Rejection> {
        let value = single(request.headers, &self.header)?;
        if self.foreign.iter().any(|name| request.headers.contains_key(name)) {
            return Err(Rejection::MixedHeaders);
        }
        let mut entries = Entries::new(value, &self.form);
        let first = entries.next().ok_or(Rejection::NoUsableSignature)?;
        let candidates = std::iter::once(first).chain(entries);
        let (timestamp, timestamp_ms) = match &self.window {
            Some(window) => {
                let (text, at_ms) = window.read(request.headers)?;
                window.check(at_ms, now_ms)?;
                (text, Some(at_ms))
            }
            None => (&[][..], None),
        };
        for (secret_index, key) in &self.keys {
            if key.verifies(&self.template, request, timestamp, candidates.clone())? {
                return Ok(Verified { secret_index: *secret_index, timestamp_ms });
            }
        }
        Err(Rejection::NoMatch)
    }
}

/// Makes a key of a secret for each way that it fits.
fn hand_out(
    signatures: &[catalog::Signature],
    index: usize,
    secret: &Secret,
    ways: &mut [Way],
) -> Result<(), KeyProblem> {
    let fitting = key::fitting(signatures, secret)?;
    for (signature, way) in signatures.iter().zip(ways).filter(|(signature, _)| fitting.contains(&&signature.key)) {
        way.keys.push((index, Key::compile(signature, secret)?));
    }
    Ok(())
}

/// Notes for each way which headers its request must not carry: those that an earlier header's ways sign, while it does
/// not. Ways without a key are counted too, for their headers are just as unsigned.
fn note_foreign_headers(ways: &mut [Way]) {
    for at in 0..ways.len() {
        let (earlier, rest) = ways.split_at_mut(at);
        let Some(way) = rest.first_mut() else { return };
        let foreign: Vec<HeaderName> = earlier
            .iter()
            .filter(|other| other.header != way.header)
            .flat_map(Way::covers)
            .filter(|name| !way.covers().any(|own| own == *name))
            .cloned()
            .collect();
        way.foreign = foreign;
    }
}

/// The header's only value.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Rejection> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(http::HeaderValue::as_bytes).unwrap_or_default();
    if values.next().is_some() {
        return Err(Rejection::RepeatedHeader);
    }
    if value.is_empty() { Err(Rejection::MissingHeader) } else { Ok(value) }
}
