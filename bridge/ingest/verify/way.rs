//! One way of signing: where its signature stands, what it covers, and the keys that it may be made with.

use http::HeaderName;

use super::entry::{Entries, Form};
use super::key::{self, Key, Said};
use super::place::{self, Paths, Place, Seen};
use super::template::Template;
use super::timestamp::Window;
use super::{KeyProblem, Problem, Rejection, Request, Verified};
use crate::catalog::{self, Algorithm};
use crate::config::Secret;

/// One way of signing, with the keys that fit it.
pub(super) struct Way {
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

impl Way {
    pub(super) fn compile(at: usize, signature: &catalog::Signature) -> Result<Self, Vec<Problem>> {
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

    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Its place, and how many keys it has.
    pub(super) fn shown(&self) -> (&str, usize) {
        let place = match &self.place {
            Place::Header(name) => name.as_str(),
            Place::Body(index) => self.paths.texts().get(*index).map_or("", String::as_str),
        };
        (place, self.keys.len())
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
    pub(super) fn stands_beside(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Place::Header(own), Place::Header(other)) => own == other,
            (own, other) => matches!((own, other), (Place::Body(_), Place::Body(_))),
        }
    }

    /// Whether the request claims to be signed in this way.
    pub(super) fn is_meant_by(&self, request: &Request<'_>) -> bool {
        let carried = match &self.place {
            Place::Header(name) => request.headers.contains_key(name),
            Place::Body(_) => true,
        };
        let says = |(name, value): &(HeaderName, String)| {
            place::single(request.headers, name).is_ok_and(|found| found == value.as_bytes())
        };
        carried && self.when.iter().all(says)
    }

    pub(super) fn verify(&self, request: &Request<'_>, now_ms: i64) -> Result<Verified, Rejection> {
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

/// Makes a key of a secret for each way that it fits.
pub(super) fn hand_out(
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
pub(super) fn note_foreign_headers(ways: &mut [Way]) {
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
