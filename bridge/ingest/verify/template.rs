//! What is signed: a template, compiled once, whose parts are streamed into the algorithm.

use http::HeaderName;

use super::{Rejection, Request, single};
use crate::catalog::Timestamp;

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    #[error("knows no `{{{name}}}`; there are {{body}}, {{timestamp}}, {{header:<name>}}, {{method}}, {{url}}")]
    UnknownPlaceholder { name: String },
    #[error("names a header `{name}` that cannot exist")]
    HeaderName { name: String },
    #[error("has a brace without its other half; a brace itself is written twice")]
    Unbalanced,
    #[error("leaves out {{body}}, so that anybody could change it")]
    NoBody,
    #[error("leaves out {{timestamp}}, so that anybody could renew it")]
    TimestampUnsigned,
    #[error("has {{timestamp}}, but the signature describes no timestamp")]
    NoTimestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Method,
    Url,
    Header(HeaderName),
    Timestamp,
    Body,
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Compiles the text for a signature with this timestamp.
    pub(super) fn compile(text: &str, timestamp: Option<&Timestamp>) -> Result<Self, TemplateProblem> {
        let parts = parse(text)?;
        if !parts.contains(&Part::Body) {
            return Err(TemplateProblem::NoBody);
        }
        match timestamp {
            None if parts.contains(&Part::Timestamp) => return Err(TemplateProblem::NoTimestamp),
            Some(timestamp) if !parts.iter().any(|part| signs(part, timestamp)) => {
                return Err(TemplateProblem::TimestampUnsigned);
            }
            _ => {}
        }
        Ok(Self { parts })
    }

    /// The headers that are signed.
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name),
            _ => None,
        })
    }

    /// Hands the signed bytes to `sink`, part by part, none of them copied.
    pub(super) fn stream(
        &self,
        request: &Request<'_>,
        timestamp: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Rejection> {
        for part in &self.parts {
            sink(match part {
                Part::Literal(text) => text.as_bytes(),
                Part::Method => request.method.as_bytes(),
                Part::Url => request.url.as_bytes(),
                // Absent, it would be signed as nothing at all, which is what an attacker sends.
                Part::Header(name) => single(request.headers, name)?,
                Part::Timestamp => timestamp,
                Part::Body => request.body,
            });
        }
        Ok(())
    }
}

/// Whether the part puts the timestamp under the signature: as `{timestamp}`, or as the whole of its header.
fn signs(part: &Part, timestamp: &Timestamp) -> bool {
    match part {
        Part::Timestamp => true,
        Part::Header(name) => timestamp.prefix.is_empty() && name.as_str().eq_ignore_ascii_case(&timestamp.header),
        _ => false,
    }
}

fn parse(text: &str) -> Result<Vec<Part>, TemplateProblem> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            literal.push_str(&from[..1]);
            rest = after;
            continue;
        }
        let (name, after) =
            from.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or(TemplateProblem::Unbalanced)?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(placeholder(name)?);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

fn placeholder(name: &str) -> Result<Part, TemplateProblem> {
    if let Some(header) = name.strip_prefix("header:") {
        return HeaderName::from_bytes(header.as_bytes())
            .map(Part::Header)
            .map_err(|_| TemplateProblem::HeaderName { name: header.to_owned() });
    }
    match name {
        "body" => Ok(Part::Body),
        "timestamp" => Ok(Part::Timestamp),
        "method" => Ok(Part::Method),
        "url" => Ok(Part::Url),
        other => Err(TemplateProblem::UnknownPlaceholder { name: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_literals_and_placeholders() {
        let parts = parse("v0:{{{method}}}{header:X-Id}.{body}").unwrap();
        let literal = |text: &str| Part::Literal(text.into());
        let id = Part::Header(HeaderName::from_static("x-id"));
        assert_eq!(parts, [literal("v0:{"), Part::Method, literal("}"), id, literal("."), Part::Body]);
    }

    #[test]
    fn what_a_template_cannot_say_is_named() {
        let problem = |text| Template::compile(text, None).unwrap_err();
        assert_eq!(problem("{bdoy}"), TemplateProblem::UnknownPlaceholder { name: "bdoy".into() });
        assert_eq!(problem("{header:a b}{body}"), TemplateProblem::HeaderName { name: "a b".into() });
        assert_eq!(problem("{body"), TemplateProblem::Unbalanced);
        assert_eq!(problem("body}"), TemplateProblem::Unbalanced);
        assert_eq!(problem("{url}"), TemplateProblem::NoBody);
        assert_eq!(problem("{timestamp}.{body}"), TemplateProblem::NoTimestamp);
    }
}
