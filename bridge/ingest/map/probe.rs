//! Several questions to one document: plain paths are answered in one pass, headers and programs on their own.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::catalog::Locator;
use crate::expr::{Error, Found, Json, PathSet, Problem, Program, scalar};

/// Where an answer is.
#[derive(Debug)]
enum Origin {
    Header(HeaderName),
    /// Its place among the paths.
    Path(usize),
    Program(Program),
}

#[derive(Debug, Default)]
pub(super) struct Probe {
    origins: Vec<Origin>,
    paths: PathSet,
}

impl Probe {
    /// Adds what a [`Locator`] names; its place.
    pub(super) fn add(&mut self, text: &str) -> Result<usize, Vec<Problem>> {
        match Locator::parse(text) {
            Ok(Locator::Header(name)) => {
                self.origins.push(Origin::Header(name));
                Ok(self.origins.len() - 1)
            }
            // As it was written: a problem's column counts from there.
            Ok(Locator::Jq(_)) => self.add_program(text),
            Err(error) => Err(vec![Problem { line: 1, column: 1, message: error.to_string() }]),
        }
    }

    pub(super) fn add_program(&mut self, text: &str) -> Result<usize, Vec<Problem>> {
        let program = Program::compile(text)?;
        let origin = match program.path() {
            Some(path) => Origin::Path(self.paths.add(path)),
            None => Origin::Program(program),
        };
        self.origins.push(origin);
        Ok(self.origins.len() - 1)
    }

    /// One pass over the document, which is found to be JSON or not on the way.
    pub(super) fn look<'d>(&self, document: &'d Json<'_>) -> Result<Vec<Found<'d>>, Error> {
        document.find(&self.paths)
    }

    /// The answer at `place` as a plain word; `None` for null.
    pub(super) fn word<'d>(
        &'d self,
        place: usize,
        headers: Option<&'d HeaderMap>,
        document: &Json<'_>,
        found: &[Found<'d>],
    ) -> Result<Option<Cow<'d, str>>, Error> {
        match self.origins.get(place) {
            Some(Origin::Header(name)) => {
                let value = headers.and_then(|headers| headers.get(name)).and_then(|value| value.to_str().ok());
                Ok(value.map(|value| Cow::Borrowed(value.trim())))
            }
            Some(Origin::Path(path)) => match found.get(*path) {
                Some(Found::Value(text)) => scalar(text).map_err(Error::NotScalar),
                Some(Found::Mismatch(value)) => Err(Error::Failed { message: format!("{value} has no such part") }),
                Some(Found::Nothing) | None => Ok(None),
            },
            Some(Origin::Program(program)) => Ok(program.scalar(document)?.map(Cow::Owned)),
            None => Ok(None),
        }
    }

    /// The answer at `place` as JSON, the first of a program's results; null where there is none.
    pub(super) fn json<'a>(&self, place: usize, document: &Json<'a>, found: &[Found<'_>]) -> Result<Json<'a>, Error> {
        let null = || Json::from(Cow::Borrowed("null"));
        match self.origins.get(place) {
            Some(Origin::Path(path)) => match found.get(*path) {
                Some(Found::Value(text)) => Ok(document.part(text)),
                Some(Found::Mismatch(value)) => Err(Error::Failed { message: format!("{value} has no such part") }),
                Some(Found::Nothing) | None => Ok(null()),
            },
            Some(Origin::Program(program)) => Ok(program.eval(document)?.into_iter().next().unwrap_or_else(null)),
            Some(Origin::Header(_)) | None => Ok(null()),
        }
    }
}
