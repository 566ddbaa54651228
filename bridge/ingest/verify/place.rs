//! Where a signature, its timestamp and what is signed stand: in a header, or at a plain path in the body.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Rejection, Request};
use crate::expr::{Found, PathSet, Program, scalar};

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) enum Place {
    Header(HeaderName),
    /// The index of a path in [`Paths`].
    Body(usize),
}

/// Paths into the body that are looked up together.
#[derive(Debug, Default)]
pub(in crate::ingest) struct Paths {
    set: PathSet,
    texts: Vec<String>,
}

impl Paths {
    /// The path's index; `None` where the text is not a plain path.
    pub(in crate::ingest) fn add(&mut self, text: &str) -> Option<usize> {
        if let Some(known) = self.texts.iter().position(|known| known == text) {
            return Some(known);
        }
        let program = Program::compile(text).ok()?;
        let index = self.set.add(program.path()?);
        self.texts.push(text.to_owned());
        Some(index)
    }

    pub(in crate::ingest) fn texts(&self) -> &[String] {
        &self.texts
    }
}

/// A request as a way of signing sees it: with the parts of the body that it asks for.
#[derive(Debug)]
pub(in crate::ingest) struct Seen<'a> {
    pub(in crate::ingest) request: &'a Request<'a>,
    parts: Vec<Option<Cow<'a, [u8]>>>,
}

impl<'a> Seen<'a> {
    /// Reads the body only where a path asks for it.
    pub(in crate::ingest) fn look(request: &'a Request<'a>, paths: &Paths) -> Result<Self, Rejection> {
        if paths.set.is_empty() {
            return Ok(Self { request, parts: Vec::new() });
        }
        let text = std::str::from_utf8(request.body).map_err(|_| Rejection::MissingInBody)?;
        let found = paths.set.find(text).map_err(|_| Rejection::MissingInBody)?;
        Ok(Self { request, parts: found.into_iter().map(part).collect() })
    }

    pub(in crate::ingest) fn at(&self, place: &Place) -> Result<&[u8], Rejection> {
        match place {
            Place::Header(name) => single(self.request.headers, name),
            Place::Body(index) => self.part(*index),
        }
    }

    /// A part of the body, which is not empty: absent, it would be signed as nothing at all, which is what an attacker
    /// sends.
    pub(in crate::ingest) fn part(&self, index: usize) -> Result<&[u8], Rejection> {
        let part = self.parts.get(index).and_then(Option::as_deref);
        part.filter(|part| !part.is_empty()).ok_or(Rejection::MissingInBody)
    }
}

/// A string's characters, a number's own digits, an array or object as it was written; nothing for null.
fn part(found: Found<'_>) -> Option<Cow<'_, [u8]>> {
    let Found::Value(text) = found else { return None };
    match scalar(text) {
        Ok(Some(Cow::Borrowed(word))) => Some(Cow::Borrowed(word.as_bytes())),
        Ok(Some(Cow::Owned(word))) => Some(Cow::Owned(word.into_bytes())),
        Ok(None) => None,
        Err(_) => text.starts_with(['[', '{']).then_some(Cow::Borrowed(text.as_bytes())),
    }
}

/// The header's only value, which is not empty.
pub(in crate::ingest) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Rejection> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(HeaderValue::as_bytes).unwrap_or_default();
    if values.next().is_some() {
        return Err(Rejection::RepeatedHeader);
    }
    if value.is_empty() { Err(Rejection::MissingHeader) } else { Ok(value) }
}
