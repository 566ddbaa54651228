//! Paths lifted out of a program: what it reads of its input becomes variables, looked up beforehand in one pass.
//!
//! ```text
//! {id: .data.id, at: (.created | todate)}   ──▶   {id: $0, at: ($1 | todate)}   and   .data.id, .created
//! ```
//!
//! Building jaq's values of a whole event costs more than all that a mapping does with a dozen of them, and so does
//! walking to each by jaq's steps. A path without a computed part gives one value or an error, at any place and any
//! time the same: where none of them is an error the lifted program says what the program says; where one is, the
//! program itself is run. One that needs its input whole (`length`, `del(.a)`, `..`) is not lifted at all.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Pattern as Binding, Term};
use jaq_core::path::{Opt, Part};

use super::check::{TICK, literal_text};
use super::path::{Path, Step};

/// Variables of the lifted program. No program can write these names. More paths than this are not lifted: a variable
/// is found by walking a list.
#[rustfmt::skip]
pub(super) const NAMES: [&str; 96] = [
    "$ 0", "$ 1", "$ 2", "$ 3", "$ 4", "$ 5", "$ 6", "$ 7", "$ 8", "$ 9", "$ 10", "$ 11", "$ 12", "$ 13", "$ 14",
    "$ 15", "$ 16", "$ 17", "$ 18", "$ 19", "$ 20", "$ 21", "$ 22", "$ 23", "$ 24", "$ 25", "$ 26", "$ 27", "$ 28",
    "$ 29", "$ 30", "$ 31", "$ 32", "$ 33", "$ 34", "$ 35", "$ 36", "$ 37", "$ 38", "$ 39", "$ 40", "$ 41", "$ 42",
    "$ 43", "$ 44", "$ 45", "$ 46", "$ 47", "$ 48", "$ 49", "$ 50", "$ 51", "$ 52", "$ 53", "$ 54", "$ 55", "$ 56",
    "$ 57", "$ 58", "$ 59", "$ 60", "$ 61", "$ 62", "$ 63", "$ 64", "$ 65", "$ 66", "$ 67", "$ 68", "$ 69", "$ 70",
    "$ 71", "$ 72", "$ 73", "$ 74", "$ 75", "$ 76", "$ 77", "$ 78", "$ 79", "$ 80", "$ 81", "$ 82", "$ 83", "$ 84",
    "$ 85", "$ 86", "$ 87", "$ 88", "$ 89", "$ 90", "$ 91", "$ 92", "$ 93", "$ 94", "$ 95",
];

/// Functions that do not look at their input.
const CONSTANT: &[(&str, usize)] =
    &[("empty", 0), ("null", 0), ("true", 0), ("false", 0), ("nan", 0), ("infinite", 0), (TICK, 0)];
/// Functions that hand their input to their arguments, and do nothing else with it.
const HANDING_ON: &[(&str, usize)] = &[
    ("first", 1),
    ("last", 1),
    ("isempty", 1),
    ("add", 1),
    ("limit", 2),
    ("skip", 2),
    ("error", 1),
    ("range", 1),
    ("range", 2),
    ("range", 3),
];
/// Functions that ask an argument where it goes and not what it gives.
const ASKING_FOR_PATHS: &[&str] = &["path", "paths", "pick", "del"];

/// A program whose paths were lifted out.
#[derive(Debug)]
pub(super) struct Lifted<'t> {
    /// It does not look at its input.
    pub(super) term: Term<&'t str>,
    /// What its variables stand for, in the order of [`NAMES`].
    pub(super) variables: Vec<Path>,
    /// Paths that it goes along and whose values it does not use: that they are no error has to be seen all the same.
    pub(super) passed: Vec<Path>,
    /// Every path is an error only if the program comes to it: none is passed first.
    pub(super) lazy: bool,
}

/// The program needs its input whole.
struct Whole;

type Result<T> = std::result::Result<T, Whole>;

/// Lifts the paths out of a checked program; `None` where it needs its input whole.
pub(super) fn lift<'t>(term: &Term<&'t str>) -> Option<Lifted<'t>> {
    let mut lift = Lift { variables: Vec::new(), passed: Vec::new(), bound: Vec::new(), for_paths: false };
    let term = lift.term(term, Some(&[])).ok()?;
    let Lift { variables, passed, .. } = lift;
    let variables: Vec<Path> = variables.into_iter().map(Path::new).collect();
    let passed: Vec<Path> = passed.into_iter().map(Path::new).collect();
    // Whoever gets to the end of a path has passed every place on it.
    let lazy = passed.iter().all(Path::is_root);
    let seen = |path: &Path| path.is_root() || variables.iter().any(|variable| path.leads_to(variable));
    let passed = passed.into_iter().filter(|path| !seen(path)).collect();
    Some(Lifted { term, variables, passed, lazy })
}

/// Where in the program's input a term's own input stands; `None` where that is a value made on the way.
type Input<'i> = Option<&'i [Step]>;

/// An object's field: its name, and its value where that is written.
type Field<'t> = (Term<&'t str>, Option<Term<&'t str>>);

struct Lift<'t> {
    variables: Vec<Vec<Step>>,
    passed: Vec<Vec<Step>>,
    /// The program's own variables, the innermost last, with the place in the input that one stands for.
    bound: Vec<(&'t str, Option<Vec<Step>>)>,
    /// Within a term that is asked where it goes, a place must not become a value.
    for_paths: bool,
}

impl<'t> Lift<'t> {
    fn term(&mut self, term: &Term<&'t str>, input: Input<'_>) -> Result<Term<&'t str>> {
        if let Some(place) = self.place(term, input) {
            return self.variable(place);
        }
        Ok(match term {
            Term::Num(_) | Term::Break(_) | Term::Var(_) | Term::Id | Term::Arr(None) => term.clone(),
            Term::Recurse => self.given(input, Term::Recurse)?,
            Term::Str(format, parts) => {
                let part = |part: &StrPart<&'t str, _>| {
                    Ok(match part {
                        StrPart::Str(text) => StrPart::Str(*text),
                        StrPart::Char(escaped) => StrPart::Char(*escaped),
                        StrPart::Term(term) => StrPart::Term(self.term(term, input)?),
                    })
                };
                Term::Str(*format, parts.iter().map(part).collect::<Result<_>>()?)
            }
            Term::Arr(Some(inner)) => Term::Arr(Some(self.boxed(inner, input)?)),
            Term::Neg(inner) => Term::Neg(self.boxed(inner, input)?),
            Term::Label(name, inner) => Term::Label(name, self.boxed(inner, input)?),
            Term::Obj(fields) => Term::Obj(self.fields(fields, input)?),
            Term::BinOp(left, op, right) => self.operation(left, op, right, input)?,
            Term::Fold(kind, source, binding, parts) => {
                let source = self.boxed(source, input)?;
                let (start, later) = parts.split_first().ok_or(Whole)?;
                let start = self.term(start, input)?;
                let binding = self.binding(binding)?;
                let later = self.within(&binding, |this| this.terms(later, None))?;
                Term::Fold(kind, source, binding, std::iter::once(start).chain(later).collect())
            }
            Term::TryCatch(tried, caught) => {
                let tried = self.boxed(tried, input)?;
                Term::TryCatch(tried, caught.as_ref().map(|caught| self.boxed(caught, None)).transpose()?)
            }
            Term::IfThenElse(cases, otherwise) => {
                let case = |(condition, then): &(_, _)| Ok((self.term(condition, input)?, self.term(then, input)?));
                let cases = cases.iter().map(case).collect::<Result<_>>()?;
                // Without an `else` it gives its input.
                let otherwise = self.term(otherwise.as_deref().unwrap_or(&Term::Id), input)?;
                Term::IfThenElse(cases, Some(Box::new(otherwise)))
            }
            // Rare, and a definition may be called at any input.
            Term::Def(..) => return Err(Whole),
            Term::Call(name, args) => self.call(name, args, input)?,
            Term::Path(of, path) => self.path(of, &path.0, input)?,
        })
    }

    fn boxed(&mut self, term: &Term<&'t str>, input: Input<'_>) -> Result<Box<Term<&'t str>>> {
        self.term(term, input).map(Box::new)
    }

    fn terms(&mut self, terms: &[Term<&'t str>], input: Input<'_>) -> Result<Vec<Term<&'t str>>> {
        terms.iter().map(|term| self.term(term, input)).collect()
    }

    /// The place that a term stands for, where it is nothing but one.
    fn place(&self, term: &Term<&'t str>, input: Input<'_>) -> Option<Vec<Step>> {
        match term {
            Term::Id => input.map(<[Step]>::to_vec),
            Term::Var(name) => self.bound.iter().rev().find(|(bound, _)| bound == name)?.1.clone(),
            Term::Path(of, path) if !self.for_paths => {
                let mut steps = self.place(of, input)?;
                for (part, _) in &path.0 {
                    steps.push(step(part)?);
                }
                Some(steps)
            }
            Term::BinOp(left, BinaryOp::Pipe(None), right) => {
                let left = self.place(left, input)?;
                self.place(right, Some(&left))
            }
            _ => None,
        }
    }

    /// The variable that stands for a place.
    fn variable(&mut self, place: Vec<Step>) -> Result<Term<&'t str>> {
        if place.is_empty() {
            return Err(Whole);
        }
        let known = self.variables.iter().position(|known| *known == place).unwrap_or_else(|| {
            self.variables.push(place);
            self.variables.len() - 1
        });
        NAMES.get(known).map(|name| Term::Var(*name)).ok_or(Whole)
    }

    /// A term that uses its input whole, on that input.
    fn given(&mut self, input: Input<'_>, term: Term<&'t str>) -> Result<Term<&'t str>> {
        let Some(place) = input else { return Ok(term) };
        let variable = self.variable(place.to_vec())?;
        Ok(Term::BinOp(Box::new(variable), BinaryOp::Pipe(None), Box::new(term)))
    }

    fn fields(&mut self, fields: &[Field<'t>], input: Input<'_>) -> Result<Vec<Field<'t>>> {
        let field = |(name, value): &Field<'t>| {
            Ok(match (name, value) {
                (Term::Var(variable), None) => {
                    let text = Term::Str(None, vec![StrPart::Str(variable.strip_prefix('$').ok_or(Whole)?)]);
                    (text, Some(self.term(name, input)?))
                }
                (name, Some(value)) => (self.term(name, input)?, Some(self.term(value, input)?)),
                // `{name}` is `{name: .name}`.
                (name, None) => {
                    let value = self.path(&Term::Id, &[(Part::Index(name.clone()), Opt::Essential)], input)?;
                    (self.term(name, input)?, Some(value))
                }
            })
        };
        fields.iter().map(field).collect()
    }

    fn operation(
        &mut self,
        left: &Term<&'t str>,
        op: &BinaryOp<&'t str>,
        right: &Term<&'t str>,
        input: Input<'_>,
    ) -> Result<Term<&'t str>> {
        let (left, op, right) = match op {
            BinaryOp::Pipe(None) => return self.pipe(left, right, input),
            BinaryOp::Pipe(Some(binding)) => {
                if let (Binding::Var(name), Some(place)) = (binding, self.place(left, input)) {
                    self.passed.push(place.clone());
                    self.bound.push((name, Some(place)));
                    let right = self.term(right, input);
                    self.bound.pop();
                    return right;
                }
                let left = self.boxed(left, input)?;
                let binding = self.binding(binding)?;
                let right = self.within(&binding, |this| this.boxed(right, input))?;
                (left, BinaryOp::Pipe(Some(binding)), right)
            }
            BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => {
                let left = self.asked_for_paths(|this| this.boxed(left, None))?;
                let term = Term::BinOp(left, op.clone(), self.boxed(right, None)?);
                return self.given(input, term);
            }
            _ => (self.boxed(left, input)?, op.clone(), self.boxed(right, input)?),
        };
        Ok(Term::BinOp(left, op, right))
    }

    fn pipe(&mut self, left: &Term<&'t str>, right: &Term<&'t str>, input: Input<'_>) -> Result<Term<&'t str>> {
        if let Some(place) = self.place(left, input) {
            self.passed.push(place.clone());
            return self.term(right, Some(&place));
        }
        let (left, input) = match left {
            // It gives its input, or nothing.
            Term::Call("select", args) if input.is_some() => {
                let condition = self.term(args.first().ok_or(Whole)?, input)?;
                let cases = vec![(condition, self.term(right, input)?)];
                return Ok(Term::IfThenElse(cases, Some(Box::new(Term::Call("empty", Vec::new())))));
            }
            Term::Call(TICK, _) => (left.clone(), input),
            _ => (self.term(left, input)?, None),
        };
        Ok(Term::BinOp(Box::new(left), BinaryOp::Pipe(None), self.boxed(right, input)?))
    }

    fn call(&mut self, name: &'t str, args: &[Term<&'t str>], input: Input<'_>) -> Result<Term<&'t str>> {
        let signature = (name, args.len());
        if name == "select" && input.is_some() {
            return self.pipe(&Term::Call(name, args.to_vec()), &Term::Id, input);
        }
        if CONSTANT.contains(&signature) {
            return Ok(Term::Call(name, Vec::new()));
        }
        if HANDING_ON.contains(&signature) {
            return Ok(Term::Call(name, self.terms(args, input)?));
        }
        let args = if ASKING_FOR_PATHS.contains(&name) {
            self.asked_for_paths(|this| this.terms(args, None))?
        } else {
            self.terms(args, None)?
        };
        self.given(input, Term::Call(name, args))
    }

    /// A path that is more than a place: some of its steps are computed, or give several values.
    fn path(
        &mut self,
        of: &Term<&'t str>,
        parts: &[(Part<Term<&'t str>>, Opt)],
        input: Input<'_>,
    ) -> Result<Term<&'t str>> {
        let place = if self.for_paths { None } else { self.place(of, input) };
        let (start, parts) = match place {
            Some(mut place) => {
                let plain = parts.iter().map_while(|(part, _)| step(part));
                let before = place.len();
                place.extend(plain);
                let plain = place.len() - before;
                (self.variable(place)?, &parts[plain..])
            }
            None => (self.term(of, input)?, parts),
        };
        if parts.is_empty() {
            return Ok(start);
        }
        let part = |(part, opt): &(Part<Term<&'t str>>, Opt)| {
            let mut end = |end: &Option<Term<&'t str>>| end.as_ref().map(|end| self.term(end, input)).transpose();
            let part = match part {
                Part::Range(from, to) => Part::Range(end(from)?, end(to)?),
                Part::Index(index) => Part::Index(self.term(index, input)?),
            };
            Ok((part, *opt))
        };
        let parts = parts.iter().map(part).collect::<Result<Vec<_>>>()?;
        Ok(Term::Path(Box::new(start), jaq_core::path::Path(parts)))
    }

    fn asked_for_paths<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.for_paths, true);
        let result = f(self);
        self.for_paths = before;
        result
    }

    /// A pattern; its names are computed of the value that it takes apart.
    fn binding(&mut self, binding: &Binding<&'t str>) -> Result<Binding<&'t str>> {
        Ok(match binding {
            Binding::Var(name) => Binding::Var(name),
            Binding::Arr(items) => Binding::Arr(items.iter().map(|item| self.binding(item)).collect::<Result<_>>()?),
            Binding::Obj(fields) => {
                let field = |(name, item): &(_, _)| Ok((self.term(name, None)?, self.binding(item)?));
                Binding::Obj(fields.iter().map(field).collect::<Result<_>>()?)
            }
        })
    }

    /// Within a pattern's scope its variables are values made on the way.
    fn within<T>(&mut self, binding: &Binding<&'t str>, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        fn names<'t>(binding: &Binding<&'t str>, bound: &mut Vec<(&'t str, Option<Vec<Step>>)>) {
            match binding {
                Binding::Var(name) => bound.push((name, None)),
                Binding::Arr(items) => items.iter().for_each(|item| names(item, bound)),
                Binding::Obj(fields) => fields.iter().for_each(|(_, item)| names(item, bound)),
            }
        }
        let outer = self.bound.len();
        names(binding, &mut self.bound);
        let result = f(self);
        self.bound.truncate(outer);
        result
    }
}

/// A step that the text itself says: a name, or a place counted from the start.
pub(super) fn step(part: &Part<Term<&str>>) -> Option<Step> {
    match part {
        Part::Index(Term::Num(place)) => Some(Step::Item(place.parse().ok()?)),
        Part::Index(name) => Some(Step::Field(literal_text(name)?)),
        Part::Range(..) => None,
    }
}
