//! Several questions to one document: what their paths lead to is found in one pass, whether they are nothing but a path
//! or programs that read some.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::catalog::Locator;
use crate::expr::{Error, Findings, Found, Json, PathSet, Problem, Program, scalar};

/// Where an answer is.
#[derive(Debug)]
enum Origin {
    Header(HeaderName),
    /// Its place among the paths.
    Path(usize),
    /// With the places of what it reads.
    Program(Program, Vec<usize>),
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
        let origin = if let Some(path) = program.path() {
            Origin::Path(self.paths.add(path))
        } else {
            let places = program.paths().iter().map(|path| self.paths.add(path)).collect();
            Origin::Program(program, places)
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
            Some(Origin::Program(program, places)) => {
                let word = program.scalar_on(document, Findings { all: found, places })?;
                Ok(word.map(Cow::Owned))
            }
            None => Ok(None),
        }
    }

    /// The answers at `place` as JSON: all of a program's results, and one of anything else.
    pub(super) fn all<'a>(
        &self,
        place: usize,
        document: &Json<'a>,
        found: &[Found<'_>],
    ) -> Result<Vec<Json<'a>>, Error> {
        match self.origins.get(place) {
            Some(Origin::Program(program, places)) => program.eval_on(document, Findings { all: found, places }),
            _ => Ok(vec![self.json(place, document, found)?]),
        }
    }

    /// The first answer at `place` as JSON; null where there is none.
    pub(super) fn json<'a>(&self, place: usize, document: &Json<'a>, found: &[Found<'_>]) -> Result<Json<'a>, Error> {
        let null = || Json::from(Cow::Borrowed("null"));
        match self.origins.get(place) {
            Some(Origin::Path(path)) => match found.get(*path) {
                Some(Found::Value(text)) => Ok(document.part(text)),
                Some(Found::Mismatch(value)) => Err(Error::Failed { message: format!("{value} has no such part") }),
                Some(Found::Nothing) | None => Ok(null()),
            },
            Some(Origin::Program(..)) => Ok(self.all(place, document, found)?.into_iter().next().unwrap_or_else(null)),
            Some(Origin::Header(_)) | None => Ok(null()),
        }
    }

    /// Whether the first answer at `place` is neither null nor false.
    pub(super) fn is_true(&self, place: usize, document: &Json<'_>, found: &[Found<'_>]) -> Result<bool, Error> {
        match self.origins.get(place) {
            Some(Origin::Program(program, places)) => program.is_true_on(document, Findings { all: found, places }),
            _ => Ok(!matches!(self.json(place, document, found)?.text(), "null" | "false")),
        }
    }
}
