//! Which arrays hold events: paths of field names and `[]`, put together into one tree.

use super::Problem;

/// Paths of one source, and so fields that one object is searched for; three are the most that a provider needs.
pub(super) const MAX_PATHS: usize = 16;
/// Steps of one path.
const MAX_STEPS: usize = 16;

/// What is walked at one place; a place without parts is an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) items: Option<Box<Node>>,
    /// At most [`MAX_PATHS`].
    pub(super) fields: Vec<(String, Node)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Items,
    Field(String),
}

impl Node {
    /// All paths together, with what is wrong with them.
    pub(super) fn compile(paths: &[String]) -> (Self, Vec<Problem>) {
        let (mut root, mut problems) = (Self::default(), Vec::new());
        if paths.is_empty() {
            problems.push(Problem::NoPath);
        }
        if paths.len() > MAX_PATHS {
            problems.push(Problem::TooManyPaths { count: paths.len() });
        }
        for path in paths {
            match steps(path) {
                Some(steps) => root.add(steps),
                None => problems.push(Problem::Path { path: path.clone() }),
            }
        }
        (root, problems)
    }

    fn add(&mut self, steps: Vec<Step>) {
        let mut node = self;
        for step in steps {
            node = match step {
                Step::Items => node.items.get_or_insert_default(),
                Step::Field(name) => {
                    let place = node.fields.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                        node.fields.push((name, Self::default()));
                        node.fields.len() - 1
                    });
                    &mut node.fields[place].1
                }
            };
        }
    }

    /// The field of that name, and its place.
    pub(super) fn field(&self, name: &str) -> Option<(usize, &Self)> {
        let place = self.fields.iter().position(|(known, _)| known == name)?;
        Some((place, &self.fields[place].1))
    }
}

/// The steps of a path in jq's writing; `None` where it is none, or does not end at an array.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.trim();
    let mut steps = Vec::new();
    if !rest.starts_with('.') {
        return None;
    }
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('.') {
            Some(after) if !after.starts_with("[]") => field(after)?,
            Some(after) => (Step::Items, &after[2..]),
            None => (Step::Items, rest.strip_prefix("[]")?),
        };
        steps.push(step);
        rest = after;
    }
    (steps.last() == Some(&Step::Items) && steps.len() <= MAX_STEPS).then_some(steps)
}

/// A field's name at the text's start, plain or quoted, and what follows it.
fn field(text: &str) -> Option<(Step, &str)> {
    if text.starts_with('"') {
        let mut reader = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let name = reader.next()?.ok()?;
        return Some((Step::Field(name), &text[reader.byte_offset()..]));
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    let is_name = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    is_name.then(|| (Step::Field(name.to_owned()), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_in_jq_and_ends_at_an_array() {
        let field = |name: &str| Step::Field(name.to_owned());
        for (text, read) in [
            (".[]", Some(vec![Step::Items])),
            (" .a_1[] ", Some(vec![field("a_1"), Step::Items])),
            (".entry[].changes[]", Some(vec![field("entry"), Step::Items, field("changes"), Step::Items])),
            (".a.b.[]", Some(vec![field("a"), field("b"), Step::Items])),
            (".[][]", Some(vec![Step::Items, Step::Items])),
            (".\"a b.[]\"[]", Some(vec![field("a b.[]"), Step::Items])),
            (".\"\\u00e4\".b[]", Some(vec![field("ä"), field("b"), Step::Items])),
            ("", None),
            (".", None),
            ("[]", None),
            ("a[]", None),
            (".a", None),
            (".[].a", None),
            ("..[]", None),
            (".a[0][]", None),
            (".a[]?", None),
            (".1[]", None),
            (".a-b[]", None),
            (".\"a[]", None),
            (".a | .b[]", None),
        ] {
            assert_eq!(steps(text), read, "{text}");
        }
        assert_eq!(steps(&format!(".{}", "[]".repeat(MAX_STEPS + 1))), None);
    }
}
