//! Conditions that compare paths with literals, as most rules' are: answered from the text that stands there, without
//! jaq. A source may have dozens of rules, and every event is asked about each until one takes it.

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::Cmp;
use jaq_json::Val;

use super::check::literal_text;
use super::lift::NAMES;
use super::path::Found;
use super::{Findings, json};

/// Over the variables of a lifted program, by their places.
#[derive(Debug)]
pub(super) enum Condition {
    Always(bool),
    /// Neither null nor false.
    True(usize),
    Equal(usize, Literal),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

#[derive(Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Text(String),
    Number(Val),
}

impl Condition {
    /// The condition that a lifted program is, where it is one of these.
    pub(super) fn of(term: &Term<&str>) -> Option<Self> {
        let both = |left, right| Some((Box::new(Self::of(left)?), Box::new(Self::of(right)?)));
        Some(match term {
            Term::Var(_) => Self::True(variable(term)?),
            Term::Call("true", _) => Self::Always(true),
            Term::Call("false", _) => Self::Always(false),
            Term::BinOp(left, BinaryOp::And, right) => both(left, right).map(|(left, right)| Self::And(left, right))?,
            Term::BinOp(left, BinaryOp::Or, right) => both(left, right).map(|(left, right)| Self::Or(left, right))?,
            Term::BinOp(left, BinaryOp::Cmp(op @ (Cmp::Eq | Cmp::Ne)), right) => {
                let sides = variable(left).zip(Literal::of(right));
                let (place, literal) = sides.or_else(|| variable(right).zip(Literal::of(left)))?;
                let equal = Self::Equal(place, literal);
                if let Cmp::Eq = op { equal } else { Self::Not(Box::new(equal)) }
            }
            Term::BinOp(left, BinaryOp::Pipe(None), right) if matches!(&**right, Term::Call("not", _)) => {
                Self::Not(Box::new(Self::of(left)?))
            }
            _ => return None,
        })
    }

    /// `None` where it is for jaq to say: where a path that it comes to is an error, or a text cannot be read.
    pub(super) fn holds(&self, findings: Findings<'_>) -> Option<bool> {
        Some(match self {
            Self::Always(answer) => *answer,
            Self::True(place) => !matches!(text(findings, *place)?, "null" | "false"),
            Self::Equal(place, literal) => literal.is(text(findings, *place)?)?,
            Self::Not(inner) => !inner.holds(findings)?,
            Self::And(left, right) => left.holds(findings)? && right.holds(findings)?,
            Self::Or(left, right) => left.holds(findings)? || right.holds(findings)?,
        })
    }
}

fn variable(term: &Term<&str>) -> Option<usize> {
    let Term::Var(name) = term else { return None };
    NAMES.iter().position(|known| known == name)
}

fn text(findings: Findings<'_>, place: usize) -> Option<&str> {
    match findings.get(place) {
        Found::Value(text) => Some(text),
        Found::Nothing => Some("null"),
        Found::Mismatch(_) => None,
    }
}

impl Literal {
    fn of(term: &Term<&str>) -> Option<Self> {
        Some(match term {
            Term::Call("null", _) => Self::Null,
            Term::Call("true", _) => Self::Bool(true),
            Term::Call("false", _) => Self::Bool(false),
            Term::Num(digits) => Self::Number(match digits.parse::<isize>() {
                Ok(integer) => Val::from(integer),
                Err(_) => <Val as jaq_core::ValT>::from_num(digits).ok()?,
            }),
            text => Self::Text(literal_text(text)?),
        })
    }

    /// Whether a value, of which this is the text, equals the literal.
    fn is(&self, text: &str) -> Option<bool> {
        Some(match (self, text.as_bytes().first()?) {
            (Self::Null, _) => text == "null",
            (Self::Bool(bool), _) => text == if *bool { "true" } else { "false" },
            (Self::Text(wanted), b'"') => match json::plain(text) {
                Some(plain) => plain == wanted,
                None => matches!(json::part(text).ok()?, Val::TStr(read) if **read == *wanted.as_bytes()),
            },
            (Self::Number(wanted), b'-' | b'0'..=b'9') => json::part(text).ok()? == *wanted,
            _ => false,
        })
    }
}
