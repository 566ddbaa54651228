//! What a program may say. It runs on a sender's data and cannot be interrupted, so that its end must be plain from
//! its text: no function beyond the allow-list, no recursion, regular expressions as literals only.

use jaq_core::load::lex::{self, Lexer, StrPart, Tok, Token};
use jaq_core::load::parse::{self, BinaryOp, Def, Parser, Pattern as Binding, Term};
use jaq_core::path::{Opt, Part};

use super::Problem;
use super::functions::{self, Pattern};
use super::lift::step;
use super::path::{Path, Step};

/// The native that pays a step after each comma.
pub(super) const TICK: &str = "hookbridge_tick";

/// Calls within calls when a program runs, of which each takes stack: up to 6 KiB in an unoptimised build, of the 2 MiB
/// that a thread has. The fields of an object count one each, since it runs as a sum of one-field objects.
const MAX_HEIGHT: usize = 250;
/// What a function of the library adds, at most.
const LIBRARY_HEIGHT: usize = 10;

/// A program that passed.
pub(super) struct Checked<'t> {
    pub(super) term: Term<&'t str>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) path: Option<Path>,
}

/// Parses and checks a program; every problem otherwise.
pub(super) fn check(text: &str) -> Result<Checked<'_>, Vec<Problem>> {
    let mut term = parse(text)?;
    let mut walk = Walk { text, problems: Vec::new(), scope: Vec::new(), patterns: Vec::new() };
    if walk.term(&mut term) > MAX_HEIGHT {
        walk.refuse(text, format!("calls, pipes and fields are nested more than {MAX_HEIGHT} deep"));
    }
    if walk.problems.is_empty() {
        Ok(Checked { path: plain_path(&term).map(Path::new), patterns: walk.patterns, term })
    } else {
        Err(walk.problems)
    }
}

fn parse(text: &str) -> Result<Term<&str>, Vec<Problem>> {
    // The parser recurses, most of all on brackets. Those within strings are counted too: nobody writes that many.
    let mut open = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_HEIGHT {
            return Err(vec![Problem::at(text, &text[at..], format!("more than {MAX_HEIGHT} brackets are open"))]);
        }
    }
    let tokens = Lexer::new(text).lex().map_err(|errors| {
        let problem = |(expected, rest): (lex::Expect<&str>, &str)| {
            Problem::at(text, rest, format!("{} expected", expected.as_str()))
        };
        errors.into_iter().map(problem).collect::<Vec<_>>()
    })?;
    if let Some(Token(word @ ("import" | "include" | "module"), Tok::Word)) = tokens.first() {
        return Err(vec![Problem::at(text, word, functions::refusal(word, 0))]);
    }
    Parser::new(&tokens).parse(Parser::term).map_err(|errors| {
        let problem = |(expected, found): parse::TError<'_, &str>| {
            let rest = found.map_or(&text[text.len()..], |token| token.as_str());
            let found = found.map_or("the end".to_owned(), |token| format!("`{}`", brief(token.as_str())));
            Problem::at(text, rest, format!("{} expected, and here is {found}", expected.as_str()))
        };
        errors.into_iter().map(problem).collect()
    })
}

/// A token as a message shows it; a bracket's token is all that it encloses.
fn brief(token: &str) -> &str {
    let end = token.char_indices().map(|(at, _)| at).nth(12).unwrap_or(token.len());
    token[..end].lines().next().unwrap_or_default()
}

/// A function of the program's own, while its name means it.
struct Named<'t> {
    name: &'t str,
    arity: usize,
    height: usize,
    /// Its own body is being read: a call now is recursion.
    open: bool,
}

struct Walk<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    scope: Vec<Named<'t>>,
    patterns: Vec<Pattern>,
}

/// Checks go through the whole program and put ticks and patterns into it. Each answers how high the part stacks its
/// calls when it runs.
impl<'t> Walk<'t> {
    fn refuse(&mut self, at: &str, message: impl Into<String>) {
        self.problems.push(Problem::at(self.text, at, message));
    }

    fn term(&mut self, term: &mut Term<&'t str>) -> usize {
        let inner = match term {
            Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Arr(None) => 0,
            Term::Var(name) => {
                if *name == "$ENV" {
                    let name = *name;
                    self.refuse(name, functions::refusal(name, 0));
                }
                0
            }
            Term::Str(format, parts) => {
                let format = format.map_or(1, |format| self.call(format, 0));
                format + self.text(parts)
            }
            Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => self.term(inner),
            Term::Obj(fields) => self.object(fields),
            Term::BinOp(left, op, right) => self.operation(left, op, right),
            Term::Fold(_, source, binding, parts) => {
                let height = self.term(source).max(self.binding(binding));
                self.highest(parts).max(height)
            }
            Term::TryCatch(tried, caught) => {
                let height = self.term(tried);
                caught.as_mut().map_or(0, |caught| self.term(caught)).max(height)
            }
            Term::IfThenElse(cases, otherwise) => {
                let mut height = otherwise.as_mut().map_or(0, |otherwise| self.term(otherwise)) + cases.len();
                for (at, (condition, then)) in cases.iter_mut().enumerate() {
                    height = height.max(at + 1 + self.term(condition).max(self.term(then)));
                }
                height
            }
            Term::Def(defs, body) => self.definitions(defs, body),
            Term::Call(..) => self.calling(term),
            Term::Path(of, path) => {
                let mut height = self.term(of);
                for (part, _) in &mut path.0 {
                    let ends = match part {
                        Part::Index(index) => [Some(index), None],
                        Part::Range(from, to) => [from.as_mut(), to.as_mut()],
                    };
                    height = ends.into_iter().flatten().fold(height, |height, end| height.max(self.term(end)));
                }
                height
            }
        };
        inner + 1
    }

    fn highest(&mut self, terms: &mut [Term<&'t str>]) -> usize {
        terms.iter_mut().fold(0, |height, term| height.max(self.term(term)))
    }

    fn text(&mut self, parts: &mut [StrPart<&'t str, Term<&'t str>>]) -> usize {
        // It runs as a sum, the first part outermost.
        let mut height = parts.len();
        for (at, part) in parts.iter_mut().enumerate() {
            if let StrPart::Term(term) = part {
                height = height.max(at + self.term(term));
            }
        }
        height
    }

    fn object(&mut self, fields: &mut [(Term<&'t str>, Option<Term<&'t str>>)]) -> usize {
        let mut height = fields.len();
        for (at, (name, value)) in fields.iter_mut().enumerate() {
            let field = self.term(name).max(value.as_mut().map_or(0, |value| self.term(value)));
            height = height.max(at + field);
        }
        height
    }

    fn operation(&mut self, left: &mut Term<&'t str>, op: &mut BinaryOp<&'t str>, right: &mut Term<&'t str>) -> usize {
        let mut height = self.term(left);
        if let BinaryOp::Pipe(Some(binding)) = op {
            height = height.max(self.binding(binding));
        }
        height = height.max(self.term(right));
        if let BinaryOp::Comma = op {
            let tick = Term::Call(TICK, Vec::new());
            let branch = std::mem::take(right);
            *right = Term::BinOp(Box::new(tick), BinaryOp::Pipe(None), Box::new(branch));
            height += 1;
        }
        height
    }

    fn binding(&mut self, binding: &mut Binding<&'t str>) -> usize {
        match binding {
            Binding::Var(_) => 0,
            Binding::Arr(items) => items.iter_mut().fold(0, |height, item| height.max(self.binding(item))) + 1,
            Binding::Obj(fields) => {
                let height = |height: usize, (name, item): &mut (Term<&'t str>, Binding<&'t str>)| {
                    height.max(self.term(name)).max(self.binding(item))
                };
                fields.iter_mut().fold(0, height) + 1
            }
        }
    }

    fn definitions(&mut self, defs: &mut [Def<&'t str, Term<&'t str>>], body: &mut Term<&'t str>) -> usize {
        let outer = self.scope.len();
        for def in defs {
            let own = self.scope.len();
            self.scope.push(Named { name: def.name, arity: def.args.len(), height: 0, open: true });
            for arg in def.args.iter().filter(|arg| !arg.starts_with('$')) {
                self.scope.push(Named { name: arg, arity: 0, height: 0, open: false });
            }
            let height = self.term(&mut def.body);
            self.scope.truncate(own + 1);
            self.scope[own] = Named { height, open: false, ..self.scope[own] };
        }
        let height = self.term(body);
        self.scope.truncate(outer);
        height
    }

    fn calling(&mut self, term: &mut Term<&'t str>) -> usize {
        let Term::Call(name, args) = term else { return 0 };
        let name = *name;
        let own = self.scope.iter().any(|known| known.name == name && known.arity == args.len());
        if let Some(function) = regex_function(name, args.len()).filter(|_| !own) {
            let args = std::mem::take(args);
            let (call, height) = self.regex(name, function, args);
            *term = call;
            return height;
        }
        // An argument runs where the function calls it, on top of all that the function has stacked.
        self.call(name, args.len()) + self.highest(args)
    }

    /// A call by name.
    fn call(&mut self, name: &'t str, arity: usize) -> usize {
        let own = self.scope.iter().rev().find(|known| known.name == name && known.arity == arity);
        match own {
            Some(Named { open: true, .. }) => self.refuse(
                name,
                format!("`{name}` calls itself: it may never end, and a program cannot be interrupted; use `reduce`"),
            ),
            Some(Named { height, .. }) => return *height,
            None if functions::is_callable(name, arity) => {}
            None => self.refuse(name, functions::refusal(name, arity)),
        }
        LIBRARY_HEIGHT
    }

    /// Compiles the literal, and puts its place there instead: `test("^a"; "i")` becomes `re_test(0)`.
    fn regex(&mut self, name: &'t str, function: &'static str, mut args: Vec<Term<&'t str>>) -> (Term<&'t str>, usize) {
        let replacement = (function == "re_sub").then(|| args.remove(1));
        let literals: Option<Vec<String>> = args.iter().map(literal).collect();
        let Some(literals) = literals else {
            let message = format!(
                "`{name}` takes a regular expression and flags as plain text, so that they are compiled at the start; \
                 to compare with a value of the event use `contains`, `startswith` or `split`"
            );
            self.refuse(name, message);
            return (Term::Id, 0);
        };
        let every = matches!(name, "scan" | "split" | "splits" | "gsub");
        let mut args = Vec::new();
        match (literals.first(), PLACES.get(self.patterns.len())) {
            (Some(regex), Some(place)) => {
                args.push(Term::Num(*place));
                match Pattern::compile(regex, literals.get(1).map_or("", String::as_str), every) {
                    Ok(pattern) => self.patterns.push(pattern),
                    Err(message) => self.refuse(name, message),
                }
            }
            _ => self.refuse(name, format!("a program has at most {} regular expressions", PLACES.len())),
        }
        let mut height = LIBRARY_HEIGHT;
        args.extend(replacement.map(|mut replacement| {
            height += self.term(&mut replacement);
            replacement
        }));
        (Term::Call(function, args), height)
    }
}

/// Places of regular expressions, as the text that a number in a program is.
const PLACES: [&str; 32] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20",
    "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31",
];

/// Our function for one of jq's that takes a regular expression.
fn regex_function(name: &str, arity: usize) -> Option<&'static str> {
    Some(match (name, arity) {
        ("test", 1 | 2) => "re_test",
        ("match", 1 | 2) => "re_match",
        ("capture", 1 | 2) => "re_capture",
        ("scan", 1 | 2) => "re_scan",
        ("splits", 1 | 2) => "re_splits",
        // With one argument it splits at a plain text.
        ("split", 2) => "re_split",
        ("sub" | "gsub", 2 | 3) => "re_sub",
        _ => return None,
    })
}

/// A regular expression or its flags; `null` for flags is none, as in jq.
fn literal(term: &Term<&str>) -> Option<String> {
    match term {
        Term::Call("null", args) if args.is_empty() => Some(String::new()),
        text => literal_text(text),
    }
}

/// A string without anything to evaluate in it.
pub(super) fn literal_text(term: &Term<&str>) -> Option<String> {
    match term {
        Term::Str(None, parts) => parts.iter().try_fold(String::new(), |mut text, part| {
            match part {
                StrPart::Str(plain) => text.push_str(plain),
                StrPart::Char(escaped) => text.push(*escaped),
                StrPart::Term(_) => return None,
            }
            Some(text)
        }),
        _ => None,
    }
}

/// The steps of a program that is nothing but a path: `.`, `.data.object.id`, `."a-b"[0].c`, `.a | .b`.
fn plain_path(term: &Term<&str>) -> Option<Vec<Step>> {
    match term {
        Term::Id => Some(Vec::new()),
        Term::BinOp(left, BinaryOp::Pipe(None), right) => {
            let mut steps = plain_path(left)?;
            steps.extend(plain_path(right)?);
            Some(steps)
        }
        Term::Path(of, path) => {
            let mut steps = plain_path(of)?;
            for (part, opt) in &path.0 {
                let Opt::Essential = opt else { return None };
                steps.push(step(part)?);
            }
            Some(steps)
        }
        _ => None,
    }
}
