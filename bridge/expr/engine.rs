//! jaq with our values: compiles a checked program, and runs it under the meter.

use jaq_core::load::parse::{Def, Term};
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, DataT, Filter, Lut, Vars};

use super::Problem;
use super::functions::{self, Pattern};
use super::lift::NAMES;
use super::meter::{self, Limit};
use super::value::{Error, Value};

/// What jaq needs to know of the types here.
#[derive(Debug)]
pub(super) struct Engine;

impl DataT for Engine {
    type V<'a> = Value;
    type Data<'a> = Running<'a>;
}

/// A function's context and input.
pub(super) type Cv<'a> = jaq_core::Cv<'a, Engine>;

/// A program as jaq runs it, with its regular expressions.
pub(super) struct Compiled {
    filter: Filter<Engine>,
    patterns: Vec<Pattern>,
}

/// A program while it runs.
#[derive(Clone, Copy)]
pub(super) struct Running<'a> {
    compiled: &'a Compiled,
    entry: Entry,
}

impl<'a> Running<'a> {
    pub(super) fn pattern(self, place: usize) -> Option<&'a Pattern> {
        self.compiled.patterns.get(place)
    }

    pub(super) fn entry(self) -> Entry {
        self.entry
    }
}

impl<'a> jaq_core::data::HasLut<'a, Engine> for Running<'a> {
    fn lut(&self) -> &'a Lut<Engine> {
        &self.compiled.filter.lut
    }
}

/// A program in its several forms, which share one table of definitions: each has some hundred KiB of them.
pub(super) struct Entries<'t> {
    /// As it was written: it takes the document.
    pub(super) whole: Term<&'t str>,
    /// With its paths lifted out: it takes variables.
    pub(super) lifted: Option<Term<&'t str>>,
    /// The computed fields of a record, lifted as well.
    pub(super) fields: Option<Term<&'t str>>,
    /// How many variables the lifted forms take.
    pub(super) variables: usize,
}

/// Which form is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Whole,
    Lifted,
    Fields,
}

/// A name that no program can write.
const MAIN: &str = "hookbridge_main";
/// The native that runs one of its three arguments: that of the [`Entry`].
pub(super) const ENTER: &str = "hookbridge_enter";

impl Compiled {
    /// Compiles a program that passed the checks. What is left to find are variables that nothing binds.
    pub(super) fn new(text: &str, entries: Entries<'_>, patterns: Vec<Pattern>) -> Result<Self, Vec<Problem>> {
        let body = match entries.lifted {
            None => entries.whole,
            Some(lifted) => Term::Call(ENTER, vec![entries.whole, lifted, entries.fields.unwrap_or_default()]),
        };
        let main: Def<&str> = Def { name: MAIN, args: Vec::new(), body };
        let definitions: Vec<Def<&str>> = functions::definitions().collect();
        let arena = Arena::default();
        let loaded = Loader::new(definitions.into_iter().chain([main])).load(&arena, File { code: MAIN, path: () });
        let modules = loaded.map_err(|_| vec![Problem::at(text, text, "jaq could not load it")])?;
        let names = NAMES.iter().copied().take(entries.variables);
        let compiler = Compiler::default().with_global_vars(names).with_funs(functions::natives());
        let filter = compiler.compile(modules).map_err(|files| {
            let mut problems: Vec<Problem> = Vec::new();
            for (name, what) in files.into_iter().flat_map(|(_, errors)| errors) {
                let problem = Problem::at(text, name, format!("there is no {} `{name}` here", what.as_str()));
                // Each form says it.
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
            problems
        })?;
        Ok(Self { filter, patterns })
    }

    /// Runs it on `input`, which is `size` bytes of JSON, or with `variables`, handing each result to `take` until that
    /// says no.
    pub(super) fn run(
        &self,
        entry: Entry,
        variables: Vec<Value>,
        size: usize,
        input: Value,
        mut take: impl FnMut(Value) -> Result<bool, Limit>,
    ) -> Result<(), super::Error> {
        let ran = meter::metered(size, || {
            let ctx = Ctx::<Engine>::new(Running { compiled: self, entry }, Vars::new(variables));
            for result in self.filter.id.run((ctx, input)) {
                match result {
                    Ok(value) => {
                        // A limit has stopped the meter, which says so below.
                        if !take(value).unwrap_or(false) {
                            break;
                        }
                    }
                    Err(exception) => return Err(exception.get_err().map_or_else(|_| String::new(), message)),
                }
            }
            Ok(())
        });
        ran.map_err(super::Error::Limit)?.map_err(|message| super::Error::Failed { message })
    }
}

/// The words of an error: those of the program's own `error("…")`, or what jaq says of the types at hand.
fn message(error: Error) -> String {
    /// Characters of a message; a program may put anything into one.
    const MAX_MESSAGE: usize = 300;
    let value = error.into_val();
    let text = value.str().map_or_else(|_| format!("error with {value}"), str::to_owned);
    text.chars().take(MAX_MESSAGE).collect()
}
