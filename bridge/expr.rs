//! Expressions: jq, as users know it, on one event at a time. Routing, mapping, keys and ids are written in it.
//!
//! ```text
//!  text ──check──▶ allowed, bounded? ──lift──▶ paths ──engine──▶ Program   once, at the start: a broken one names its line
//!  body ──path──▶ one pass finds what all programs read of it; parsed only for one that reads all of it
//!  Program + what was found ──run──▶ results, under the meter    a budget a run and an event, whatever the program says
//! ```
//!
//! Programs are the configuration's, and trusted to be meant well; the data is a sender's and is not. So a program
//! that could run without end is refused when it is read (`check`), and one that a sender's data drives too far stops
//! at its budget (`meter`), within milliseconds for an event of usual size.

mod check;
mod condition;
mod engine;
mod functions;
mod json;
mod lift;
mod meter;
mod path;
mod record;
mod run;
#[cfg(test)]
mod tests;
mod value;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use bytes::Bytes;

pub use json::NotJson;
pub use meter::Limit;
pub use path::{Found, Path, PathSet, scalar};

use run::Run;
use value::Value;

/// Results of one run: a request carries at most some hundreds of events.
pub const MAX_RESULTS: usize = 1_000;
/// Bytes of all results together: four times the largest request by default, and more than a Kafka record takes.
pub const MAX_RESULT_BYTES: usize = 4 << 20;
/// Bytes of a program's text. People write and read these.
pub const MAX_PROGRAM: usize = 16 << 10;

/// One thing that is wrong with a program's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Problem {
    /// Within the program's text, from 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What, why, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem at `part`, which is a slice of `text`; at its start where it is not.
    fn at(text: &str, part: &str, message: impl Into<String>) -> Self {
        let offset = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
        let before = text.get(..offset).unwrap_or("");
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Self { line, column, message: message.into() }
    }
}

/// Why a run gave no results.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the event is not JSON")]
    NotJson(#[source] NotJson),
    /// The program's own `error("…")`, or a type that it did not expect.
    #[error("{message}")]
    Failed { message: String },
    #[error("the program was stopped: {0}")]
    Limit(Limit),
    #[error("{0} where a text or a number is wanted")]
    NotScalar(&'static str),
}

/// A JSON document: its text, and what the text means once somebody asks. Programs that share a document share both.
#[derive(Clone)]
pub struct Json<'a> {
    text: Cow<'a, str>,
    value: OnceCell<Result<Value, NotJson>>,
}

/// Without what it holds, which is a customer's.
impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Json").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

impl<'a> Json<'a> {
    /// Takes bytes that must be UTF-8; that they are JSON is found out when somebody asks.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NotJson> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self::from(Cow::Borrowed(text))),
            Err(error) => Err(NotJson { what: "a byte that is not UTF-8", at: error.valid_up_to() }),
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn into_text(self) -> Cow<'a, str> {
        self.text
    }

    /// What stands at several paths, in one pass.
    pub fn find<'s>(&'s self, paths: &PathSet) -> Result<Vec<Found<'s>>, Error> {
        paths.find(&self.text).map_err(Error::NotJson)
    }

    fn value(&self) -> Result<Value, Error> {
        let parse = || json::parse(&Bytes::copy_from_slice(self.text.as_bytes())).map(Value::input);
        self.value.get_or_init(parse).clone().map_err(Error::NotJson)
    }

    /// A program's result.
    fn made(text: String, value: Value) -> Self {
        Self { text: Cow::Owned(text), value: OnceCell::from(Ok(value)) }
    }

    /// The part of this document that `text`, a slice of its own, is.
    #[must_use]
    pub fn part(&self, text: &str) -> Json<'a> {
        let whole = match &self.text {
            Cow::Borrowed(whole) => *whole,
            Cow::Owned(_) => return Json::from(Cow::Owned(text.to_owned())),
        };
        let start = text.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        match whole.get(start..start.saturating_add(text.len())) {
            Some(part) => Json::from(Cow::Borrowed(part)),
            None => Json::from(Cow::Owned(text.to_owned())),
        }
    }
}

impl<'a> From<Cow<'a, str>> for Json<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self { text, value: OnceCell::new() }
    }
}

/// Runs `f`; the programs in it take at most `steps` together ([`Limit::Event`]), besides what each may take alone.
pub fn together<T>(steps: u64, f: impl FnOnce() -> T) -> T {
    meter::together(steps, f)
}

/// What a pass over a document has found, as one program asked for it.
#[derive(Debug, Clone, Copy)]
pub struct Findings<'s> {
    /// Of everybody who asked.
    pub all: &'s [Found<'s>],
    /// Where among them those of [`Program::paths`] are, in that order.
    pub places: &'s [usize],
}

impl<'s> Findings<'s> {
    fn get(&self, at: usize) -> Found<'s> {
        self.places.get(at).and_then(|place| self.all.get(*place)).copied().unwrap_or_default()
    }
}

/// A jq program, checked and compiled. It is shared between threads; a run belongs to one.
pub struct Program {
    text: String,
    way: Way,
    /// For a document of which nobody has looked anything up.
    alone: PathSet,
    places: Vec<usize>,
}

/// How a program is answered.
enum Way {
    /// By a direct look-up.
    Path([Path; 1]),
    /// By running it.
    Run(Box<Run>),
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.text).finish()
    }
}

impl Program {
    /// Compiles a program; everything that is wrong with it otherwise.
    pub fn compile(text: &str) -> Result<Self, Vec<Problem>> {
        /// jaq's parser recurses. A text of [`MAX_PROGRAM`] bytes cannot use this much, which is only reserved.
        const STACK: usize = 256 << 20;
        if text.len() > MAX_PROGRAM {
            return Err(vec![Problem::at(text, text, format!("a program has at most {MAX_PROGRAM} bytes"))]);
        }
        std::thread::scope(|scope| {
            let compiling = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || compile(text));
            let compiled = compiling.ok().and_then(|thread| thread.join().ok());
            compiled.unwrap_or_else(|| Err(vec![Problem::at(text, text, "jaq could not compile it")]))
        })
    }

    /// The text that it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The path, where the program is nothing but one.
    pub fn path(&self) -> Option<&Path> {
        match &self.way {
            Way::Path([path]) => Some(path),
            Way::Run(_) => None,
        }
    }

    /// What it reads of its input, to be looked up for several programs in one pass ([`PathSet`]); none where it reads
    /// the whole of it.
    pub fn paths(&self) -> &[Path] {
        match &self.way {
            Way::Path(path) => path,
            Way::Run(run) => run.paths(),
        }
    }

    /// What it reads of `input`, where nobody has looked it up.
    fn look<'s>(&self, input: &'s Json<'_>) -> Result<Vec<Found<'s>>, Error> {
        match &self.way {
            Way::Run(run) if !run.is_lifted() => Ok(Vec::new()),
            _ => input.find(&self.alone),
        }
    }

    /// The results, each a JSON document. A path's result is a slice of the input, as it was written.
    pub fn eval<'a>(&self, input: &Json<'a>) -> Result<Vec<Json<'a>>, Error> {
        let all = self.look(input)?;
        self.eval_on(input, Findings { all: &all, places: &self.places })
    }

    /// [`Self::eval`], of what was found in `input`.
    pub fn eval_on<'a>(&self, input: &Json<'a>, findings: Findings<'_>) -> Result<Vec<Json<'a>>, Error> {
        match &self.way {
            Way::Path(_) => Ok(vec![look_up(input, findings)?]),
            Way::Run(run) => run.eval(input, findings),
        }
    }

    /// Whether the first result is neither null nor false; no result is no.
    pub fn is_true(&self, input: &Json<'_>) -> Result<bool, Error> {
        let all = self.look(input)?;
        self.is_true_on(input, Findings { all: &all, places: &self.places })
    }

    /// [`Self::is_true`], of what was found in `input`.
    pub fn is_true_on(&self, input: &Json<'_>, findings: Findings<'_>) -> Result<bool, Error> {
        match &self.way {
            Way::Path(_) => Ok(!matches!(look_up(input, findings)?.text(), "null" | "false")),
            Way::Run(run) => run.is_true(input, findings),
        }
    }

    /// The first result as a plain word ([`scalar`]); `None` for null and for no result.
    pub fn scalar(&self, input: &Json<'_>) -> Result<Option<String>, Error> {
        let all = self.look(input)?;
        self.scalar_on(input, Findings { all: &all, places: &self.places })
    }

    /// [`Self::scalar`], of what was found in `input`.
    pub fn scalar_on(&self, input: &Json<'_>, findings: Findings<'_>) -> Result<Option<String>, Error> {
        let Some(first) = self.eval_on(input, findings)?.into_iter().next() else { return Ok(None) };
        let word = scalar(first.text()).map_err(Error::NotScalar)?;
        Ok(word.map(Cow::into_owned))
    }
}

fn compile(text: &str) -> Result<Program, Vec<Problem>> {
    let mut checked = check::check(text)?;
    let way = match checked.path.take() {
        Some(path) => Way::Path([path]),
        None => Way::Run(Box::new(Run::compile(text, checked)?)),
    };
    let mut program = Program { text: text.to_owned(), way, alone: PathSet::default(), places: Vec::new() };
    let mut alone = PathSet::default();
    program.places = program.paths().iter().map(|path| alone.add(path)).collect();
    program.alone = alone;
    Ok(program)
}

fn look_up<'a>(input: &Json<'a>, findings: Findings<'_>) -> Result<Json<'a>, Error> {
    match findings.get(0) {
        Found::Value(text) => Ok(input.part(text)),
        Found::Mismatch(value) => Err(Error::Failed { message: format!("{value} has no such part") }),
        Found::Nothing => Ok(Json::from(Cow::Borrowed("null"))),
    }
}

/// Runs one program on one document, for trying it out (`hookbridge eval`): the results as compact JSON.
pub fn eval(text: &str, input: &[u8]) -> Result<Vec<String>, Tried> {
    let program = Program::compile(text).map_err(Tried::Broken)?;
    let input = Json::new(input).map_err(|reason| Tried::Failed(Error::NotJson(reason)))?;
    let results = program.eval(&input).map_err(Tried::Failed)?;
    Ok(results.into_iter().map(|json| json.into_text().into_owned()).collect())
}

/// A document with something written into it at a path: by `=`, or by `//=` where nothing stood there. For requests of
/// our own making; `None` where the document is no JSON or has no such place.
#[must_use]
pub fn assign(document: &[u8], path: &str, operator: &'static str, value: &serde_json::Value) -> Option<Vec<u8>> {
    // A plain path and nothing else: the text may be a person's.
    Program::compile(path).ok()?.path()?;
    let program = Program::compile(&format!("{path} {operator} {value}")).ok()?;
    let changed = program.eval(&Json::new(document).ok()?).ok()?.into_iter().next()?;
    Some(changed.into_text().into_owned().into_bytes())
}

/// Why a trial gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Tried {
    #[error("the program is broken")]
    Broken(Vec<Problem>),
    #[error(transparent)]
    Failed(Error),
}
