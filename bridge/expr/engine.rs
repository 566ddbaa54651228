//! jaq with our values: compiles a checked program, and runs it under the meter.

use jaq_core::compile::Undefined;
use jaq_core::load::parse::Def;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, DataT, Filter, Lut, Vars};

use super::Problem;
use super::check::Checked;
use super::functions::{self, Pattern};
use super::meter::{self, Limit};
use super::value::{Error, Value};

/// What jaq needs to know of the types here.
#[derive(Debug)]
pub(super) struct Engine;

impl DataT for Engine {
    type V<'a> = Value;
    type Data<'a> = &'a Compiled;
}

/// A function's context and input.
pub(super) type Cv<'a> = jaq_core::Cv<'a, Engine>;

/// A program as jaq runs it, with its regular expressions.
pub(super) struct Compiled {
    filter: Filter<Engine>,
    pub(super) patterns: Vec<Pattern>,
}

impl<'a> jaq_core::data::HasLut<'a, Engine> for &'a Compiled {
    fn lut(&self) -> &'a Lut<Engine> {
        &self.filter.lut
    }
}

/// A name that no program can write.
const MAIN: &str = "hookbridge_main";

impl Compiled {
    /// Compiles a program that passed the checks. What is left to find are variables that nothing binds.
    pub(super) fn new(text: &str, checked: Checked<'_>) -> Result<Self, Vec<Problem>> {
        let main: Def<&str> = Def { name: MAIN, args: Vec::new(), body: checked.term };
        let definitions: Vec<Def<&str>> = functions::definitions().collect();
        let arena = Arena::default();
        let loaded = Loader::new(definitions.into_iter().chain([main])).load(&arena, File { code: MAIN, path: () });
        let modules = loaded.map_err(|_| vec![Problem::at(text, text, "jaq could not load it")])?;
        let compiled = Compiler::default().with_funs(functions::natives()).compile(modules);
        let filter = compiled.map_err(|files| {
            let undefined = files.into_iter().flat_map(|(_, errors)| errors);
            let problem = |(name, what): (&str, Undefined)| {
                Problem::at(text, name, format!("there is no {} `{name}` here", what.as_str()))
            };
            undefined.map(problem).collect::<Vec<_>>()
        })?;
        Ok(Self { filter, patterns: checked.patterns })
    }

    /// Runs it on `input`, which is `size` bytes of JSON, handing each result to `take` until that says no.
    pub(super) fn run(
        &self,
        size: usize,
        input: Value,
        mut take: impl FnMut(Value) -> Result<bool, Limit>,
    ) -> Result<(), super::Error> {
        let ran = meter::metered(size, || {
            let ctx = Ctx::<Engine>::new(self, Vars::new([]));
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
