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

#[cfg(test)]
mod tests;

use std::fmt;

use http::{HeaderMap, HeaderName};

pub use self::key::KeyProblem;
pub use self::sign::{Message, SignError, Signed, sign};
pub use self::template::TemplateProblem;

use self::entry::{Entries, Form};
use self::key::{Key, Said};
use self::place::{Paths, Place, Seen};
use self::template::Template;
use self::timestamp::Window;
use crate::catalog::{self, Algorithm, Locator, SourceScheme};
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
                if let Err(problem) = hand_out(&signatures, index, secret, &mut ways) {
                    problems.push(Problem::Key { index, problem });
                }
            }
        }
        if !problems.is_empty() {
            return Err(Error { problems });
        }
        note_foreign_headers(&mut ways);
        ways.retain(|way| !way.keys.is_empty());
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

/// One way of signing, with the keys that fit it.
struct Way {
    place: Place,
    /// Headers, and what they must say for this way to be meant.
    when: Vec<(HeaderName, String)>,
    proof: Proof,
    /// Each with the index of its secret.
    keys: Vec<(usize, Key)>,
    /// What ways of an earlier place sign and this one does not.
    foreign: Vec<HeaderName>,
    /// What is looked up in the body.
    paths: Paths,
}

/// What a request shows for itself.
enum Proof {
    Signature { form: Form, template: Template, window: Option<Window> },
    Token(Algorithm),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |way: &Way| match &way.place {
            Place::Header(name) => name.to_string(),
            Place::Body(index) => way.paths.texts().get(*index).cloned().unwrap_or_default(),
        };
        let places: Vec<_> = self.ways.iter().map(|way| (name(way), way.keys.len())).collect();
        f.debug_struct("Verifier").field("places_and_key_counts", &places).finish_non_exhaustive()
    }
}

impl Way {
    fn compile(at: usize, signature: &catalog::Signature) -> Result<Self, Vec<Problem>> {
        let mut paths = Paths::default();
        let mut problems = Vec::new();
        let place = find_place(at, "signature", [&signature.header, &signature.body], &mut paths);
        let place = place.map_err(|problem| problems.push(problem)).ok();
        let mut when = Vec::new();
        for (name, value) in &signature.when {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => when.push((name, value.clone())),
                Err(_) => problems.push(Problem::HeaderName { way: at, name: name.clone() }),
            }
        }
        let proof = if signature.algorithm.is_token() {
            let meaningless = [
                ("signed", !signature.signed.is_empty()),
                ("timestamp", signature.timestamp.is_some()),
                ("encoding", signature.encoding.is_some()),
                ("prefix", !signature.prefix.is_empty()),
                ("separator", signature.separator.is_some()),
            ];
            let written = meaningless.into_iter().filter(|(_, is_written)| *is_written);
            problems.extend(written.map(|(key, _)| Problem::Token { way: at, key }));
            Some(Proof::Token(signature.algorithm))
        } else {
            Proof::compile(at, signature, &mut paths, &mut problems)
        };
        match (place, proof) {
            (Some(place), Some(proof)) if problems.is_empty() => {
                Ok(Self { place, when, proof, keys: Vec::new(), foreign: Vec::new(), paths })
            }
            _ => Err(problems),
        }
    }

    /// The headers that this way's signature covers.
    fn covers(&self) -> impl Iterator<Item = &HeaderName> {
        let (template, window) = match &self.proof {
            Proof::Signature { template, window, .. } => (Some(template), window.as_ref()),
            Proof::Token(_) => (None, None),
        };
        let timestamp = window.and_then(|window| match window.place() {
            Place::Header(name) => Some(name),
            Place::Body(_) => None,
        });
        template.into_iter().flat_map(Template::headers).chain(timestamp)
    }

    /// Whether both look for their signature in one header, or both in the body.
    fn stands_beside(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Place::Header(own), Place::Header(other)) => own == other,
            (own, other) => matches!((own, other), (Place::Body(_), Place::Body(_))),
        }
    }

    /// Whether the request claims to be signed in this way.
    fn is_meant_by(&self, request: &Request<'_>) -> bool {
        let carried = match &self.place {
            Place::Header(name) => request.headers.contains_key(name),
            Place::Body(_) => true,
        };
        let says = |(name, value): &(HeaderName, String)| {
            place::single(request.headers, name).is_ok_and(|found| found == value.as_bytes())
        };
        carried && self.when.iter().all(says)
    }

    fn verify(&self, request: &Request<'_>, now_ms: i64) -> Result<Verified, Rejection> {
        let seen = Seen::look(request, &self.paths)?;
        let value = seen.at(&self.place)?;
        if self.foreign.iter().any(|name| request.headers.contains_key(name)) {
            return Err(Rejection::MixedHeaders);
        }
        let (form, template, window) = match &self.proof {
            Proof::Signature { form, template, window } => (form, template, window),
            Proof::Token(algorithm) => return self.verify_token(*algorithm, value),
        };
        let mut entries = Entries::new(value, form);
        let first = entries.next().ok_or(Rejection::NoUsableSignature)?;
        let candidates = std::iter::once(first).chain(entries);
        let (timestamp, timestamp_ms) = match window {
            Some(window) => {
                let (text, at_ms) = window.read(&seen)?;
                window.check(at_ms, now_ms)?;
                (text, Some(at_ms))
            }
            None => (&[][..], None),
        };
        let said = Said { template, seen: &seen, timestamp };
        for (secret_index, key) in &self.keys {
            if key.verifies(&said, candidates.clone())? {
                return Ok(Verified { secret_index: *secret_index, timestamp_ms });
            }
        }
        Err(Rejection::NoMatch)
    }

    fn verify_token(&self, algorithm: Algorithm, value: &[u8]) -> Result<Verified, Rejection> {
        let presented = key::presented(algorithm, value).ok_or(Rejection::NoUsableSignature)?;
        let matched = self.keys.iter().find(|(_, key)| key.is_token(presented));
        matched
            .map(|(secret_index, _)| Verified { secret_index: *secret_index, timestamp_ms: None })
            .ok_or(Rejection::NoMatch)
    }
}

impl Proof {
    /// How a signature is made; `None` once a problem was noted.
    fn compile(
        at: usize,
        signature: &catalog::Signature,
        paths: &mut Paths,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let mut note = |problem| problems.push(problem);
        let form = if let Some(encoding) = signature.encoding {
            let form = Form::compile(signature, encoding);
            form.map_err(|separator| note(Problem::Separator { way: at, separator })).ok()
        } else {
            note(Problem::NoEncoding { way: at });
            None
        };
        let timestamp = signature.timestamp.as_ref().map(|timestamp| {
            let place = find_place(at, "timestamp", [&timestamp.header, &timestamp.body], paths).map_err(&mut note)?;
            let window = Window::compile(timestamp, place.clone(), signature);
            let window = window.map_err(|separator| note(Problem::Separator { way: at, separator }))?;
            Ok((window, Some(place).filter(|_| timestamp.prefix.is_empty())))
        });
        let (window, whole) = match timestamp {
            Some(Ok((window, whole))) => (Some(window), whole),
            Some(Err(())) | None => (None, None),
        };
        let template = Template::compile(signature, whole.as_ref(), paths)
            .map_err(|problem| note(Problem::Template { way: at, signed: signature.signed.clone(), problem }));
        Some(Self::Signature { form: form?, template: template.ok()?, window })
    }
}

/// The place that one of header and path names.
fn find_place(
    way: usize,
    what: &'static str,
    [header, body]: [&Option<String>; 2],
    paths: &mut Paths,
) -> Result<Place, Problem> {
    match (header, body) {
        (Some(name), None) => HeaderName::from_bytes(name.as_bytes())
            .map(Place::Header)
            .map_err(|_| Problem::HeaderName { way, name: name.clone() }),
        (None, Some(path)) => paths.add(path).map(Place::Body).ok_or_else(|| Problem::Path { way, path: path.clone() }),
        _ => Err(Problem::Place { way, what }),
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

/// Notes for each way which headers its request must not carry: those that an earlier place's ways sign, while it does
/// not. Ways without a key are counted too, for their headers are just as unsigned.
fn note_foreign_headers(ways: &mut [Way]) {
    for at in 0..ways.len() {
        let (earlier, rest) = ways.split_at_mut(at);
        let Some(way) = rest.first_mut() else { return };
        let foreign: Vec<HeaderName> = earlier
            .iter()
            .filter(|other| !other.stands_beside(way))
            .flat_map(Way::covers)
            .filter(|name| !way.covers().any(|own| own == *name))
            .cloned()
            .collect();
        way.foreign = foreign;
    }
}
